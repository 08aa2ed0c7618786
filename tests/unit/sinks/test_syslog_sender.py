"""syslog_sender.py: messages of RFC 5424 with their lengths, to a plain receiver of the test's own."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from fakes.sinks import items
from sojourn.settings.audit import SinkConfig
from sojourn.sinks.items import Item
from sojourn.sinks.make import sender_of
from sojourn.sinks.sender import Sender, SinkDown
from sojourn.spiffe.ids import SpiffeId

NODE = SpiffeId.parse("spiffe://example.org/spire/agent/sojourn/here")
MESSAGE = re.compile(rb"<110>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (\S+) sojourn - (\S+) - (.*)", re.DOTALL)


@dataclass
class Receiver:
    port: int = 0
    content: bytearray = field(default_factory=bytearray)
    connections: list[asyncio.StreamWriter] = field(default_factory=list)
    reads: bool = True

    def messages(self) -> list[bytes]:
        """By their lengths."""
        found, rest = [], bytes(self.content)
        while rest:
            length, _, rest = rest.partition(b" ")
            found.append(rest[: int(length)])
            rest = rest[int(length) :]
        return found


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.connections.append(writer)
        while made.reads and (part := await reader.read(65_536)):
            made.content += part

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    for each in made.connections:
        each.close()


def sender(port: int, **more: object) -> Sender:
    config = SinkConfig.model_validate(
        {"name": "log", "kind": "syslog", "address": f"127.0.0.1:{port}", "tls": False, **more}
    )
    return sender_of(config, NODE, None)


async def arrived(made: Receiver, number: int) -> list[bytes]:
    async with asyncio.timeout(20):
        while len(made.content) < 10 or len(made.messages()) < number:
            await asyncio.sleep(0.01)
    return made.messages()


async def test_messages() -> None:
    """Each item is one message with its length before it; event, time and node stand in its head, the line is the rest."""
    async with receiver() as made:
        to = sender(made.port)
        gap = Item.of_gap(1, 5, 1_700_000_000_123)
        await to.send([gap, *items(6, 2)])
        await to.send(items(8, size=50_000))
        found = [MESSAGE.fullmatch(each) for each in await arrived(made, 4)]
        assert all(found)
        heads = [each.groups() for each in found if each is not None]
        assert (b"2023-11-14T22:13:20.123Z", b"here", b"audit_gap", gap.line) == heads[0]
        assert [each.line for each in (*items(6, 2), *items(8, size=50_000))] == [each[3] for each in heads[1:]]
        assert 1 == len(made.connections)
        await to.close()


async def test_a_receiver_that_ends_the_connection() -> None:
    """On a connection that the receiver has ended nothing is sent: another one is made."""
    async with receiver() as made:
        to = sender(made.port)
        await to.send(items(1))
        await arrived(made, 1)
        made.connections[0].close()
        await made.connections[0].wait_closed()
        await asyncio.sleep(0.05)
        await to.send(items(2))
        assert [b'"seq":1}', b'"seq":2}'] == [each[-8:] for each in await arrived(made, 2)]
        assert 2 == len(made.connections)
        await to.close()


async def test_one_that_takes_nothing() -> None:
    """What the receiver's kernel does not take in time is not taken, and one that nobody is at is told."""
    async with receiver() as made:
        made.reads = False
        to = sender(made.port, timeout="1s")
        with pytest.raises(SinkDown, match="did not take"):
            await to.send(items(1, number=8, size=5_000_000))
        await to.close()
    with pytest.raises(SinkDown, match="does not accept connections"):
        await sender(1).send(items(1))
