"""A journal whose records may not be pruned, on a real agent: it becomes full, says so, and has room again."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator

import grpc
import pytest
from fakes.databases import opened
from harness.agent import AgentProcess
from harness.looking import until
from harness.ports import free_port
from harness.raw import Wire, refusal
from harness.sinkplace import SinkPlace
from harness.taskagent import make_agent
from sojourn._pb import workload_pb2
from sojourn.audit.journal import Event
from sojourn.store.audit import AuditTable

MIB = 2**20
NOW = int(time.time() * 1000)
RECORDS = [Event(NOW, "filler", '{"text":"' + "x" * 500 + '"}')] * 500
TRIAGE = "spiffe://example.org/agent/triage"


def filled(agent: AgentProcess, size: int) -> None:
    """Have the journal of an agent that is stopped grow until its database is so large."""

    async def fill(table: AuditTable) -> None:
        while await table.size() < size:
            await table.append(RECORDS)

    with opened(agent.data_dir / "sojourn.db") as database:
        asyncio.run(fill(AuditTable(database)))


def audit_table(agent: AgentProcess, most: int, *more: str) -> None:
    """Put the table [audit] into the configuration."""
    text = agent.config.read_text().partition("\n[audit]")[0]
    agent.config.write_text("\n".join([text, "[audit]", f"max_bytes = {most}", *more, ""]))


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    with make_agent() as made:
        made.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield made


def room(agent: AgentProcess) -> dict[str, object]:
    found: dict[str, object] = agent.json("status")["journal_room"]
    return found


@pytest.mark.full
def test_a_required_sink_is_away(agent: AgentProcess) -> None:
    """With a required sink away the journal fills: then no task and no token, and all else. When it is back, all again."""
    port = free_port()
    lines = (
        *("[[audit.sinks]]", 'name = "siem"', 'kind = "https"', f'url = "http://127.0.0.1:{port}/"'),
        *("required = true", 'start = "beginning"'),
    )
    audit_table(agent, 64 * MIB, *lines)
    agent.stop()
    filled(agent, 17 * MIB)
    agent.start()
    task = agent.run("task", "begin", "--type", "triage-ticket").stdout.strip()
    assert "journal room" in agent.run("status").stdout
    audit_table(agent, 16 * MIB, *lines)
    os.kill(agent.pid, signal.SIGHUP)
    until(lambda: room(agent)["full"], seconds=60)
    for refused in (
        agent.run("task", "begin", "--type", "triage-ticket", check=False),
        agent.run("task", "token", task, check=False),
        agent.run("svid", "jwt", "--audience", "https://a.example", check=False),
    ):
        assert (1, True) == (refused.returncode, "[audit_full]" in refused.stderr), refused.stderr
    assert TRIAGE in agent.run("svid", "x509").stdout
    agent.register("/agent/other", "unix:uid:12345")
    agent.run("task", "complete", task)
    agent.run("svid", "revoke", "--spiffe-id", "spiffe://example.org/agent/other", "--reason", "a test")
    assert "FULL" in agent.run("status").stdout
    checks = {each["id"]: each["verdict"] for each in doctor(agent)}
    assert "fail" == checks["journal-room"]
    with SinkPlace(port=port) as place:
        until(lambda: not room(agent)["full"], seconds=120)
        agent.run("task", "begin", "--type", "triage-ticket")
        assert not place.of("gap")
        until(lambda: {"journal_full", "journal_has_room"} <= {each["event"] for each in place.of("record")})
        seqs = sorted(set(place.seqs))  # once: more may come meanwhile
        assert list(range(1, seqs[-1] + 1)) == seqs
    assert {"journal_held", "journal_full", "journal_has_room"} <= {each["event"] for each in agent.log_lines()}


@pytest.mark.full
def test_one_workload_floods(agent: AgentProcess) -> None:
    """Where records are kept for their age, a workload that floods is refused more of them, and others are not; until
    they need not be kept any more, which is in force by SIGHUP.
    """
    agent.register("/agent/quiet", f"unix:uid:{os.getuid()}")
    audit_table(agent, 20 * MIB, 'keep = "7300d"')
    agent.stop()
    filled(agent, 17 * MIB)
    agent.start()
    until(lambda: 0.8 < float(str(room(agent)["held"])) < 1, seconds=30)

    def ask(wire: Wire, name: str, number: int) -> object:
        request = workload_pb2.JWTSVIDRequest(
            audience=[f"https://a.example/{number}"], spiffe_id=f"spiffe://example.org/agent/{name}"
        )
        return wire.unary("/SpiffeWorkloadAPI/FetchJWTSVID", request, workload_pb2.JWTSVIDResponse)

    with Wire(agent.socket) as wire:
        said = ("", "")
        for number in range(3_000):
            try:
                ask(wire, "triage", number)
            except Exception:
                said = refusal(lambda number=number: ask(wire, "triage", number))
                break
        assert "RESOURCE_EXHAUSTED" == said[0]
        assert "more than half" in said[1]
        ask(wire, "quiet", 1)
        assert not room(agent)["full"]
        audit_table(agent, 20 * MIB)
        os.kill(agent.pid, signal.SIGHUP)
        until(lambda: agent.json("status")["journal_room"] is None, seconds=30)
        until(lambda: accepted(lambda: ask(wire, "triage", 5_000)), seconds=60)


def accepted(call: Callable[[], object]) -> bool:
    try:
        call()
    except grpc.RpcError:
        return False
    return True


def doctor(agent: AgentProcess) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(agent.run("doctor", "--output", "json", check=False).stdout)["checks"]
    return found
