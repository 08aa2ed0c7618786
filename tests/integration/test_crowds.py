"""Thousands of streams, and readers that do not read: everyone is told, and nobody's silence costs the others."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.looking import OF_CALLERS, until
from harness.raw import Admin, Wire
from sojourn._pb.spire.api.types import types_pb2 as types

pytestmark = pytest.mark.full

UIDS = (5201, 5202)
STREAMS_OF_EACH = 2_500
STREAMS_PER_CONNECTION = 100
DESCRIPTORS_PER_CONNECTION = 4
SLACK = 40  # descriptors of the database and of gRPC, which come with first use
ALL_SECONDS = 60.0
UPDATES = 2_000
GROWTH_MIB = 24  # without a bound one such stream would make it more than 100 MiB


class Holder(Caller):
    """A process that holds streams (streamholder.py)."""

    def __init__(self, socket: str, uid: int | None = None) -> None:
        script = str(Path(__file__).parent.parent / "harness" / "streamholder.py")
        super().__init__(socket, uid, argv=[sys.executable, script])

    def heard(self) -> dict[str, Any]:
        line = self.hear(seconds=ALL_SECONDS)
        assert "all" == line["event"], line
        return line


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    with AgentProcess() as running:
        yield running
        failed = {"call_failed", "http_failed", "alarm_failed"}
        assert [] == [line for line in running.log_lines() if line["event"] in failed]


def resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


@pytest.mark.root
def test_five_thousand_streams(agent: AgentProcess) -> None:
    """Each of 5,000 streams hears of a registration and of a rotation, all the same, at four descriptors a connection."""
    before = agent.open_files()
    connections = len(UIDS) * STREAMS_OF_EACH // STREAMS_PER_CONNECTION
    holders = [Holder(agent.socket, uid) for uid in UIDS]
    with Admin(agent.admin_socket) as admin:
        entries = [admin.register("/crowd", f"unix:uid:{uid}", hint="first", x509_svid_ttl=3600) for uid in UIDS]
        first = [told(holder, "hold", streams=STREAMS_OF_EACH) for holder in holders]
        assert len(UIDS) * STREAMS_OF_EACH == len(admin.streams())
        assert len(before.opened_since()) <= connections * DESCRIPTORS_PER_CONNECTION + SLACK
        for each in entries:
            each.hint, each.x509_svid_ttl = "second", 10
        admin.update(*entries)
        changed = [told(holder, "hint", hint="second") for holder in holders]
        rotated = [
            told(holder, "rotated", serial=was["serials"][0]) for holder, was in zip(holders, changed, strict=True)
        ]
        for answers, hint in ((first, "first"), (changed, "second"), (rotated, "second")):
            for answer in answers:
                assert (STREAMS_OF_EACH, [hint]) == (answer["streams"], answer["hints"])
                assert ["spiffe://example.org/crowd"] == answer["ids"]
        assert [1] * 4 == [len(answer["serials"]) for answer in (*first, *changed)]
        for holder in holders:
            holder.close()
        until(lambda: not admin.streams())
    before.await_closed(*OF_CALLERS)


def told(holder: Holder, do: str, **arguments: Any) -> dict[str, Any]:
    holder.tell(do, **arguments)
    return holder.heard()


@pytest.fixture
def changing(agent: AgentProcess) -> Iterator[tuple[Admin, types.Entry]]:
    """The tests themselves have thirty identities, whose answers are large; the entry of the first of them."""
    with Admin(agent.admin_socket) as admin:
        uid = f"unix:uid:{os.getuid()}"
        first = admin.register("/0", uid, f"unix:gid:{os.getgid()}", hint="0")
        for number in range(1, 30):
            admin.register(f"/{number}", uid)
        yield admin, first


def update(admin: Admin, entry: types.Entry, numbers: range) -> None:
    for number in numbers:
        entry.hint = str(number)
        [result] = admin.update(entry, mask=types.EntryMask(hint=True))
        assert 0 == result.status.code


def test_a_reader_that_is_stopped(agent: AgentProcess, changing: tuple[Admin, types.Entry]) -> None:
    """A process that is stopped while thousands of updates come costs the agent little, and delays nobody else."""
    admin, entry = changing
    with Holder(agent.socket) as slow, Holder(agent.socket) as other:
        told(slow, "hold", streams=20)
        told(other, "hold", streams=1)
        update(admin, entry, range(1, 50))
        told(slow, "hint", hint="49")
        before = resident_mib(agent.pid)
        os.kill(slow.pid, signal.SIGSTOP)
        try:
            for start in range(50, UPDATES, 150):
                update(admin, entry, range(start, start + 150))
                told(other, "hint", hint=str(start + 149))
                with Wire(agent.socket) as wire:
                    assert str(start + 149) == wire.x509().svids[0].hint
            after = resident_mib(agent.pid)
        finally:
            os.kill(slow.pid, signal.SIGCONT)
        newest = told(slow, "hint", hint=str(start + 149))
    assert (20, 1) == (newest["streams"], len(newest["serials"]))
    assert after - before < GROWTH_MIB


def test_a_stream_that_is_not_read(agent: AgentProcess, changing: tuple[Admin, types.Entry]) -> None:
    """A stream that is not read while others on its connection are skips what it missed and then has the newest."""
    admin, entry = changing
    with Wire(agent.socket, ("grpc.http2.bdp_probe", 0)) as wire:  # a window that does not grow
        slow, quick = wire.x509_stream(), wire.x509_stream()
        for stream in (slow, quick):
            assert "0" == next(stream).svids[0].hint
        update(admin, entry, range(1, 501))
        while next(quick).svids[0].hint != "500":
            pass
        read = 1
        while next(slow).svids[0].hint != "500":
            read += 1
    assert read < 20
