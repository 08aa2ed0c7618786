"""Sinks of the journal: how soon a receiver on this machine has a record, and how fast what it is behind by goes."""

import asyncio
import contextlib
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from evidencelines import decided
from fakes.signed_journals import SignedJournal, started
from figures import Figure
from ground import Bench
from harness.looking import until
from harness.ports import free_port
from harness.sinkplace import SinkProgram
from sojourn.audit.journal import Event
from sojourn.runtime.clock import SystemClock
from sojourn.settings.audit import SinkConfig
from sojourn.sinks.items import Item, SinkState
from sojourn.sinks.make import about, sender_of, wanted
from sojourn.sinks.sender import Sender, Taken
from sojourn.sinks.sink import Sink
from sojourn.sinks.sinks import Sinks
from sojourn.spiffe.ids import SpiffeId
from sojourn.store.sinks import SinkTable

BACKLOG, FEW = 200_000, 10_000
PER_SECOND, TOGETHER = 1_000, 10
SECONDS, SHORT = 30, 3
_AT_ONCE = 2_000
_CAUGHT_UP_SECONDS = 120
NODE = SpiffeId.parse("spiffe://example.org/spire/agent/sojourn/bench")


# --- 73 ---


def sinks(bench: Bench) -> Iterator[Figure]:
    backlog, seconds = (BACKLOG, SECONDS) if bench.full else (FEW, SHORT)
    for kind, form in (("https", "sojourn"), ("file", "sojourn"), ("https", "ocsf"), ("file", "ocsf")):
        named = kind if form == "sojourn" else f"{kind}, {form}"
        rates, lags = [], list[float]()
        for _ in range(bench.effort.repetitions):
            with tempfile.TemporaryDirectory(prefix="sojourn-bench-") as name:
                rate, found = asyncio.run(_sent(Path(name), kind, form, backlog, seconds))
            rates.append(rate)
            lags.append(sorted(found)[int(len(found) * 0.99)] * 1000)
            bench.say(f"{named}: {rate:,.0f} a second")
        yield Figure.of(f"{named}: {backlog:,} records behind, taken", "/s", rates)
        yield Figure.of(f"{named}: {PER_SECOND:,} records a second, from a record until it is taken: p99", "ms", lags)


class _Timed:
    """Notes of each record how long it took until it was taken, in seconds."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self.taken = 0
        self.lags: list[float] = []

    async def send(self, items: Sequence[Item]) -> Taken:
        said = await self._sender.send(items)
        now = time.time() * 1000
        records = [each for each in items if each.kind == "record"]
        self.lags += [(now - each.at_ms) / 1000 for each in records]
        self.taken += len(records)
        return said

    async def close(self) -> None:
        await self._sender.close()


async def _sent(folder: Path, kind: str, form: str, backlog: int, seconds: int) -> tuple[float, list[float]]:
    """Records a second of a backlog, and how long each took that came at PER_SECOND afterwards."""
    receiver = SinkProgram(free_port(), folder / "received")
    with contextlib.ExitStack() as stack:
        stack.callback(receiver.kill)
        return await _taken(folder, receiver, kind, form, backlog, seconds)


async def _taken(
    folder: Path, receiver: SinkProgram, kind: str, form: str, backlog: int, seconds: int
) -> tuple[float, list[float]]:
    async with started(folder) as here:
        for _ in range(0, backlog, _AT_ONCE):
            await here.journal.append(_events(_AT_ONCE))
            assert await here.signed.settle()
        place = {"url": receiver.url} if kind == "https" else {"path": folder / "audit.ndjson"}
        config = SinkConfig.model_validate({"name": "bench", "kind": kind, "format": form, **place})
        timed = _Timed(sender_of(config, NODE, None))
        if kind == "https":
            receiver.start()
            await asyncio.to_thread(until, lambda: _listens(receiver.port), "the receiver listens", 30)
        made, running = _running(here, config, timed)
        begun = time.monotonic()
        await _until_taken(timed, backlog)
        rate = backlog / (time.monotonic() - begun)
        timed.lags.clear()
        signing = asyncio.create_task(here.signed.run())
        await _record(here, seconds)
        await _until_taken(timed, backlog + seconds * PER_SECOND)
        await made.finish()
        await asyncio.wait([running])
        signing.cancel()
    return rate, timed.lags


def _running(here: SignedJournal, config: SinkConfig, timed: _Timed) -> tuple[Sinks, asyncio.Task[None]]:
    table = SinkTable(here.database, here.journal.append_in)
    clock, state = SystemClock(), SinkState("bench", 0)
    sink = Sink(about(config), wanted(config, NODE), timed, state, table, lambda: here.signed.state, here.audit, clock)
    made = Sinks([sink], table.head())
    loop = asyncio.get_running_loop()

    def heard(_seconds: float) -> None:
        here.signed.heard(loop, here.journal.written_seq)
        made.heard(loop, here.journal.written_seq)

    here.database.on_commit(heard)
    here.signed.on_signed(made.wake)
    return made, asyncio.create_task(made.run())


async def _record(here: SignedJournal, seconds: int) -> None:
    begun = time.monotonic()
    for number in range(seconds * PER_SECOND // TOGETHER):
        await here.journal.append(_events(TOGETHER))
        due = begun + (number + 1) * TOGETHER / PER_SECOND
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def _until_taken(timed: _Timed, number: int) -> None:
    async with asyncio.timeout(_CAUGHT_UP_SECONDS):
        while timed.taken < number:
            await asyncio.sleep(0.01)


def _events(number: int) -> list[Event]:
    return [replace(decided("token_issued", {}), at_ms=int(time.time() * 1000))] * number


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


SINK_LINES = ((73, "Sinks of the journal, to a receiver on this machine", sinks),)
