"""Sinks in OCSF on a real agent: each line is a good event of the schema, and what was received is checked as ever."""

import asyncio
import json
import os
import random
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.databases import opened
from harness.agent import AgentProcess
from harness.looking import until
from harness.ocsf import faults
from harness.ports import free_port
from harness.sinkagents import caught_up, configured, kill_by_turns, load, running, sink, states, written
from harness.sinkplace import SinkPlace, SinkProgram
from harness.syslogplace import Rsyslog
from harness.taskagent import make_agent
from sojourn.audit.journal import Event
from sojourn.store.audit import AuditTable

pytestmark = pytest.mark.forked

OCSF = 'format = "ocsf"'
MIB = 2**20
KILLS = 6


@pytest.fixture
def place() -> Iterator[SinkPlace]:
    with SinkPlace() as made:
        yield made


def events(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    """The events of lines, each of which is good by OCSF's own schema."""
    found = [json.loads(line) for line in lines]
    assert {} == {each["metadata"]["event_code"]: faults(each) for each in found if faults(each)}
    return found


def ours(found: Iterable[dict[str, Any]], kind: str = "record") -> list[dict[str, Any]]:
    """What is within them: records, or notices of a kind."""
    within = [each["unmapped"]["sojourn"] for each in found]
    return [each for each in within if each.get("kind", "record") == kind]


def posted(place: SinkPlace) -> list[bytes]:
    return [line for _, body in place.posts for line in body.splitlines()]


def checked(agent: AgentProcess, *files: Path) -> dict[str, Any]:
    key = str(agent.json("audit", "key")["vkey"])
    argv = [text for file in files for text in ("--received", str(file))]
    found: dict[str, Any] = agent.json("audit", "check", *argv, "--key", key)
    return found


def worked(agent: AgentProcess) -> None:
    """Have something of many a sort in the journal: tasks, tokens, refusals, what operators do."""
    agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
    task = agent.run("task", "begin", "--type", "two-places").stdout.strip()
    agent.run("task", "token", task, "--resource", "https://a.example.org")
    pages = ("--param", "pages=5", "--param", "colour=true")
    toner = ("--resource", "https://printer.example.org", "--action", "toner:replace")
    assert agent.run("task", "begin", "--type", "print-pages", *pages, *toner, check=False).returncode == 1
    assert agent.run("task", "begin", "--type", "not-for-triage", check=False).returncode == 1
    agent.run("task", "suspend", task, "--reason", "a look")
    agent.run("task", "resume", task)
    agent.run("task", "complete", task)
    agent.run("svid", "jwt", "--audience", "https://a.example")
    agent.run("svid", "revoke", "--spiffe-id", "spiffe://example.org/agent/triage", "--reason", "a test")


@pytest.mark.forked
def test_file_and_receiver(place: SinkPlace, tmp_path: Path) -> None:
    """A file and a receiver have each record in OCSF, the same bytes, over a restart; whoever has the key finds it whole."""
    path = tmp_path / "audit.ndjson"
    sinks = (
        sink("archive", "file", OCSF, f'path = "{path}"', 'start = "beginning"'),
        sink("lake", "https", OCSF, f'url = "{place.url}"', 'start = "beginning"'),
    )
    with make_agent() as agent:
        configured(agent, *sinks)
        worked(agent)
        caught_up(agent)
        assert {"ocsf"} == {each["format"] for each in states(agent).values()}
        agent.stop()
        agent.start()
        agent.register("/agent/later", "unix:uid:12345")
        caught_up(agent)
        agent.stop()
        lines = path.read_bytes().splitlines()
        found = events(lines)
        records = ours(found)
        agent.start()
        verdict = checked(agent, path)
        agent.stop()
        assert {each["seq"]: each["digest"] for each in records}.items() <= written(agent).items()
    assert list(range(1, len(records) + 1)) == [each["seq"] for each in records]
    of_records = {each["metadata"]["uid"]: line for each, line in zip(found, lines, strict=True) if _is_record(each)}
    theirs = {json.loads(line)["metadata"]["uid"]: line for line in posted(place) if _is_record(json.loads(line))}
    assert of_records.items() <= theirs.items()
    codes = {each["metadata"]["event_code"] for each in found}
    assert {"agent_started", "task_begun", "token_issued", "begin_denied", "task_ended", "svids_revoked"} <= codes
    assert {1, 3, 6} <= {each["category_uid"] for each in found}
    assert (True, [], True) == (verdict["good"], verdict["missing"], verdict["compared"] > 0)


def _is_record(event: dict[str, Any]) -> bool:
    return "kind" not in event["unmapped"]["sojourn"]


def test_a_change_is_found(tmp_path: Path) -> None:
    """What is taken out of a receiver's file, or changed within it, is found; what stands beside the record is not checked."""
    path, other = tmp_path / "audit.ndjson", tmp_path / "other"
    with running(sink("archive", "file", OCSF, f'path = "{path}"')) as agent:
        caught_up(agent)
        until(lambda: b'"kind":"checkpoint"' in path.read_bytes())
        agent.stop()
        lines = path.read_bytes().splitlines(keepends=True)
        other.write_bytes(b"".join(lines[:2] + lines[3:]))
        done = agent.run("audit", "check", "--received", str(other), check=False)
        assert (1, True) == (done.returncode, "records from 3 to 3 are missing" in done.stdout)
        value = json.loads(lines[2])
        value["unmapped"]["sojourn"]["at_ms"] += 1
        other.write_bytes(b"".join([*lines[:2], json.dumps(value).encode() + b"\n", *lines[3:]]))
        done = agent.run("audit", "check", "--received", str(other), check=False)
        assert (1, True) == (done.returncode, "record_changed" in done.stdout)


def test_as_a_log_record(place: SinkPlace) -> None:
    """An OpenTelemetry receiver has the event of OCSF as the body."""
    with running(sink("otel", "otlp", OCSF, f'url = "{place.url}"')) as agent:
        caught_up(agent)
        until(lambda: place.posts)
        agent.stop()
    records = [
        each for _, post in place.posts for each in json.loads(post)["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    ]
    found = events(each["body"]["stringValue"].encode() for each in records)
    assert [each["eventName"] for each in records] == [f"sojourn.{each['metadata']['event_code']}" for each in found]
    seqs = [each["seq"] for each in ours(found)]
    assert list(range(1, max(seqs) + 1)) == seqs


@pytest.mark.forked
def test_a_real_rsyslog(tmp_path: Path) -> None:
    """What a real rsyslogd has written is checked as it is, with the heads of its messages."""
    with Rsyslog(tmp_path, None) as syslog:
        lines = (f'address = "localhost:{syslog.port}"', "tls = false")
        with running(sink("log", "syslog", OCSF, *lines)) as agent:
            caught_up(agent)
            until(lambda: syslog.file.exists() and b"audit_checkpoint" in syslog.file.read_bytes(), seconds=30)
            verdict = checked(agent, syslog.file)
    assert (True, True, []) == (verdict["good"], verdict["records"] > 1, verdict["missing"])
    events(line[line.index(b"{") :] for line in syslog.file.read_bytes().splitlines() if line.endswith(b"}"))


@pytest.mark.full
@pytest.mark.forked
@pytest.mark.timeout(300)
def test_pruned_before(tmp_path: Path) -> None:
    """A receiver that was away while records were pruned is told which, as an event, and the check goes by that."""
    port = free_port()
    with make_agent() as agent:
        lines = (OCSF, f'url = "http://127.0.0.1:{port}/"', 'start = "beginning"')
        configured(agent, sink("lake", "https", *lines))
        until(lambda: states(agent)["lake"]["fault"], seconds=30)
        agent.stop()
        _fill(agent, 20 * MIB)
        text = agent.config.read_text()
        agent.config.write_text(
            text.replace("\n[[audit.sinks]]", f"\n[audit]\nmax_bytes = {16 * MIB}\n\n[[audit.sinks]]")
        )
        agent.start()
        until(lambda: "journal_pruned" in {each["event"] for each in agent.log_lines()}, seconds=60)
        with SinkPlace(port=port) as place:
            caught_up(agent, 120)
            until(lambda: any(b"sink_gap" in body for _, body in place.posts), seconds=60)
            caught_up(agent, 60)
        received = tmp_path / "received"
        received.write_bytes(b"\n".join(posted(place)) + b"\n")
        found = events(posted(place))
        gaps = [(each["from_seq"], each["until_seq"]) for each in ours(found, "gap")]
        assert 1 == gaps[0][0]  # there may be more of them, as pruning goes on meanwhile
        assert gaps[0][1] + 1 == ours(found)[0]["seq"]
        verdict = checked(agent, received)
        assert ([], [list(each) for each in gaps]) == (verdict["missing"], verdict["told"])


def _fill(agent: AgentProcess, size: int) -> None:
    """Have the journal of an agent that is stopped grow until its database is so large."""
    filler = [Event(int(time.time() * 1000), "task_used", '{"text":"' + "x" * 500 + '"}')] * 500

    async def fill(table: AuditTable) -> None:
        while await table.size() < size:
            await table.append(filler)

    with opened(agent.data_dir / "sojourn.db") as database:
        asyncio.run(fill(AuditTable(database)))


@pytest.mark.full
@pytest.mark.forked
@pytest.mark.timeout(600)
def test_kills(tmp_path: Path) -> None:
    """Over kills of agent and receiver under load a receiver has each record in OCSF; what came twice has the same bytes."""
    receiver = SinkProgram(free_port(), tmp_path / "received")
    path = tmp_path / "archive"
    sinks = (
        sink("lake", "https", OCSF, f'url = "{receiver.url}"', 'timeout = "2s"'),
        sink("archive", "file", OCSF, f'path = "{path}"'),
    )
    with receiver, running(*sinks) as agent:
        with load(agent) as issued:
            kill_by_turns(agent, receiver, KILLS)
            assert issued[0] > 50
        caught_up(agent, 150)
        verdicts = [checked(agent, file) for file in (receiver.file, path)]
        agent.stop()
        kept = written(agent)
    for file, verdict in zip((receiver.file, path), verdicts, strict=True):
        assert (True, []) == (verdict["good"], verdict["missing"]), verdict
        lines = file.read_bytes().splitlines()
        found = {line: json.loads(line) for line in lines}
        of_records = {line: each for line, each in found.items() if _is_record(each)}
        assert set(kept) - {max(kept)} <= {each["metadata"]["sequence"] for each in of_records.values()}
        assert len(of_records) == len({each["metadata"]["uid"] for each in of_records.values()})
        events(random.sample(list(of_records), 50))
