"""What the journal does when its records are damaged, and when the wall clock is set: on real agents, to an auditor."""

import asyncio
import json
import os
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.clocks import SteppedAgent
from harness.looking import until
from harness.taskagent import PLACE_A, make_agent
from sojourn import SyncClient
from sojourn.audit.journal import Event
from sojourn.store.audit import AuditTable
from sojourn.store.database import open_sqlite

pytestmark = pytest.mark.full
DAY = timedelta(days=1)


def check(agent: AgentProcess, folder: Path, *more: str) -> tuple[int, dict[str, Any]]:
    key = agent.run("audit", "key").stdout.strip()
    done = agent.run("audit", "check", str(folder), "--key", key, "--output", "json", *more, check=False)
    return done.returncode, json.loads(done.stdout)


def exported(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "records.ndjson").read_text().splitlines()]


def signed(agent: AgentProcess) -> None:
    until(lambda: not agent.json("audit", "key")["unsigned"], "all is signed")


@pytest.fixture(scope="module")
def broken() -> Iterator[AgentProcess]:
    with make_agent() as made:
        made.register("/agent/triage", f"unix:uid:{os.getuid()}")
        with SyncClient(made.socket) as client, client.task("two-places") as task:
            task.token(PLACE_A, ["doc:read"])
        signed(made)
        with sqlite3.connect(made.data_dir / "sojourn.db", timeout=10) as database:
            database.execute("UPDATE audit SET event = 'entry_created' WHERE event = 'token_issued'")
        database.close()
        yield made


class TestBroken:
    """A record was changed behind the agent's back."""

    def test_the_export_goes_on(self, broken: AgentProcess, tmp_path: Path) -> None:
        """All is exported, beyond the bad record too, and the check names that one; what came after it is as signed."""
        broken.register("/agent/later", "unix:uid:12345")
        signed(broken)
        written = broken.json("audit", "export", "--to", str(tmp_path / "out"))
        status, found = check(broken, tmp_path / "out")
        records = exported(tmp_path / "out")
        assert written["records"] == len(records)
        assert "/agent/later" in json.dumps(records[-5:])
        bad = next(each["seq"] for each in records if each["event"] == "entry_created" and "jti" in each["fields"])
        assert (1, bad) == (status, found["first_bad_seq"])
        assert {"record_changed", "record_not_signed"} <= {each["code"] for each in found["faults"]}

    def test_the_control_map_rests_on_nothing(self, broken: AgentProcess, tmp_path: Path) -> None:
        """Rows that need the journal whole have failed, by the agent's own word and by the export's."""
        broken.run("audit", "export", "--to", str(tmp_path / "out"))
        _, found = check(broken, tmp_path / "out", "--controls", "--framework", "csf")
        done = broken.run("evidence", "controls", "--framework", "csf", "--output", "json", check=False)
        assert 1 == done.returncode
        for map_ in (found["controls"], json.loads(done.stdout)):
            rows = {row["id"]: row["verdict"] for row in map_["frameworks"][0]["rows"]}
            assert "failed" == rows["RS.AN-07"]
            assert "shown" not in {rows[name] for name in ("RS.AN-07", "PR.PS-04")}

    def test_it_goes_on(self, broken: AgentProcess) -> None:
        """The agent serves and records on, and says by itself where the journal is broken."""
        with SyncClient(broken.socket) as client, client.task("two-places") as task:
            task.token(PLACE_A, ["doc:read"])
        verified = json.loads(broken.run("audit", "verify", "--output", "json", check=False).stdout)
        assert not verified["intact"]
        assert verified["first_bad_seq"]


async def fill(path: Path, kibibytes: int) -> None:
    """Write so many records of a KiB to the journal of an agent that is stopped."""
    database = open_sqlite(path)
    try:
        await AuditTable(database).append([Event(1, "filler", json.dumps({"text": "x" * 1024}))] * kibibytes)
    finally:
        database.close()


def test_a_broken_journal_is_not_pruned() -> None:
    """Over its size, records make room only as far as the journal is whole: the broken part stays to be looked at."""
    with make_agent() as agent:
        agent.stop()
        asyncio.run(fill(agent.data_dir / "sojourn.db", 24 * 1024))
        with sqlite3.connect(agent.data_dir / "sojourn.db", timeout=10) as database:
            database.execute("UPDATE audit SET at_ms = at_ms + 1 WHERE seq = 30")
        database.close()
        agent.config.write_text(agent.config.read_text() + "\n[audit]\nmax_bytes = 16777216\n")
        agent.start()
        until(lambda: "journal_not_pruned" in {each["what"] for each in agent.failures()}, "it is told", 120)
        seqs = [each["seq"] for each in agent.json("audit", "list", "--oldest", "--limit", "100")["records"]]
        assert 30 in seqs


def test_a_clock_that_is_set(tmp_path: Path) -> None:
    """Records stay in their order whatever the clock says; windows go by what it said, and an export tells of both."""
    with SteppedAgent(ago=3 * DAY) as agent:
        agent.register("/agent/first", "unix:uid:11")
        agent.step(DAY)
        agent.register("/agent/ahead", "unix:uid:12")
        agent.step(-DAY)
        agent.register("/agent/back", "unix:uid:13")
        signed(agent)
        records = agent.json("audit", "list", "--event", "entry_created", "--oldest")["records"]
        names = [each["fields"]["spiffe_id"].rpartition("/")[2] for each in records]
        assert ["first", "ahead", "back"] == names
        first, ahead, back = (each["at"] for each in records)
        assert first <= back < ahead
        since = (agent.now() + DAY / 2).strftime("%Y-%m-%dT%H:%M:%SZ")
        found = agent.json("audit", "list", "--event", "entry_created", "--since", since)["records"]
        assert ["ahead"] == [each["fields"]["spiffe_id"].rpartition("/")[2] for each in found]
        agent.run("audit", "export", "--to", str(tmp_path / "out"))
        status, verdict = check(agent, tmp_path / "out")
        assert (0, []) == (status, verdict["faults"])
        seqs = [each["seq"] for each in exported(tmp_path / "out")]
        assert list(range(seqs[0], seqs[-1] + 1)) == seqs
