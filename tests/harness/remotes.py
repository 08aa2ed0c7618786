"""Validators on other machines, by the SDK and by plain connections with any certificate."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from sojourn import Client, RemoteAgent, X509Source
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.errors import SojournError
from sojourn.sdk.client.connection import AgentConnection, read
from sojourn.sdk.guard.task_feed import TaskFeed

from harness.agent import AgentProcess
from harness.taskagent import TICKETS, make_agent

LISTEN = '\n[listen]\ntcp = "127.0.0.1:0"\n'
WATCHER = str(Path(__file__).resolve().parent.parent / "harness" / "remotewatcher.py")
SERVICE = "spiffe://example.org/service"
VALIDATE = "/sojourn.v1.Validation/ValidateToken"
WATCH = "/sojourn.v1.Validation/WatchTasks"
ASKED = pb.ValidateTokenRequest(token="x", audience=TICKETS)


@contextlib.contextmanager
def listening() -> Iterator[AgentProcess]:
    """An agent with the listener, on which this user is /agent/triage. Nothing may have failed inside it at the end."""
    with make_agent(extra=LISTEN) as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield agent
        found = failures(agent)
        assert [] == found, found  # pytest does not explain asserts of helpers by itself


def failures(agent: AgentProcess) -> list[object]:
    names = {"call_failed", "remote_handshake_failed", "library_message", "alarm_failed"}
    return [line for line in agent.log_lines() if line["event"] in names]


def refusals(agent: AgentProcess) -> list[str]:
    """Why connections were refused, by the log."""
    return [line["reason"] for line in agent.log_lines() if line["event"] == "caller_refused"]


def node(agent: AgentProcess) -> str:
    return str(agent.json("status")["node_id"])


@contextlib.asynccontextmanager
async def remote(agent: AgentProcess, *, spiffe_id: str | None = None) -> AsyncIterator[RemoteAgent]:
    """The SDK's way to the listener, with this process's SVID."""
    async with (
        Client(agent.socket) as client,
        X509Source(client) as source,
        RemoteAgent(agent.tcp, spiffe_id or node(agent), source) as opened,
    ):
        yield opened


async def eventually(holds: Callable[[], object], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.02)


class Stream:
    """A plain WatchTasks stream over a connection with any certificate."""

    def __init__(self, opened: AgentConnection) -> None:
        self._opened = opened
        self._call = opened.stream(WATCH, pb.WatchTasksRequest(audiences=[TICKETS]), pb.TaskFeed)

    async def hear(self, kind: str) -> pb.TaskFeed:
        """The next message of that kind. Raise a SojournError when the stream has ended."""
        async with asyncio.timeout(30):
            while True:
                message = await read(self._call, self._opened)
                if message.WhichOneof("message") == kind:
                    return message

    async def end(self) -> SojournError:
        """How it ends."""
        try:
            async with asyncio.timeout(30):
                while True:
                    await read(self._call, self._opened)
        except SojournError as error:
            return error


async def refusal(opened: AgentConnection) -> SojournError:
    """What a call ends with that must not be answered."""
    with pytest.raises(SojournError) as caught:
        await opened.unary(VALIDATE, ASKED, pb.ValidateTokenResponse)
    return caught.value


async def answered(opened: AgentConnection) -> bool:
    answer = await opened.unary(VALIDATE, ASKED, pb.ValidateTokenResponse)
    return not answer.valid and bool(answer.code)


def silent(agent: AgentProcess) -> socket.socket:
    """A connection that never says anything."""
    host, _, port = agent.tcp.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def ended(connection: socket.socket) -> bool:
    connection.settimeout(30)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def live(feed: TaskFeed, task: str) -> bool:
    known = feed.lookup(task)
    return known is not None and known.live
