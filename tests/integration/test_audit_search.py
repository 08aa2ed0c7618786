"""`sojourn audit list` and `follow` on a real agent: what is there is found, once, and who has looked is recorded."""

import asyncio
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.exchanges import form, post
from harness.looking import until
from harness.taskagent import make_agent
from harness.taskcalls import channel
from harness.watching import Watch
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.audit.journal import Event
from sojourn.store.audit import AuditTable
from sojourn.store.audit_index import BLOCK
from sojourn.store.database import open_sqlite

WORKLOAD = "spiffe://example.org/agent/triage"


def found(agent: AgentProcess, *options: str) -> list[dict[str, Any]]:
    """What a search finds, oldest first."""
    records: list[dict[str, Any]] = agent.json("audit", "list", "--limit", "10000", "--oldest", *options)["records"]
    return records


@pytest.fixture(scope="module")
def lived() -> Iterator[AgentProcess]:
    """An agent that has given out some things, and refused others."""
    with make_agent() as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        with Caller(agent.socket) as caller:
            caller.ask("x509")
            for _ in range(2):
                task = caller.ask("begin_process", type="triage-ticket")["id"]
                caller.ask("token", task=task)
                caller.ask("complete", task=task)
            caller.ask("begin_process", type="not-for-triage")
        post(agent.socket, form("garbage"))
        agent.run("fact", "set", "frozen", "true", "--subject", "global", check=False)
        yield agent


class TestList:
    @pytest.mark.forked
    def test_each_filter(self, lived: AgentProcess) -> None:
        """Each filter finds the records that it is for and no others; several together what fits all of them."""
        every = [record for record in found(lived) if record["event"] != "journal_read"]
        assert {"task_begun", "token_issued", "task_ended", "call_denied", "exchange_denied"} <= {
            record["event"] for record in every
        }
        [task, _] = [record["fields"]["task"] for record in every if record["event"] == "task_begun"]

        def those(*options: str) -> list[dict[str, Any]]:
            return [record for record in found(lived, *options) if record["event"] != "journal_read"]

        def of(**fields: Any) -> list[dict[str, Any]]:
            return [each for each in every if fields.items() <= each["fields"].items()]

        assert of(task=task) == those("--task", task)
        assert of(type="triage-ticket") == those("--type", "triage-ticket")
        assert of(spiffe_id=WORKLOAD) == those("--workload", WORKLOAD)
        refused = [each for each in every if each["event"] in {"call_denied", "exchange_denied"}]
        assert refused == those("--denied")
        assert refused[:1] == those("--denied", "--event", "call_denied", "--event", "task_begun")
        uid = str(os.getuid())
        registered = [each for each in every if each["event"] == "entry_created"]
        assert registered == those("--by", uid, "--event", "entry_created")
        assert [] == those("--by", "4999") == those("--type", "triage") == those("--until", "1h")
        assert every == those("--since", "1h")
        assert of(task=task, resource="https://tickets.example.org") == those("--task", task, "--event", "token_issued")

    def test_newest_first_page_by_page(self, lived: AgentProcess) -> None:
        """Without more the newest come first; `--page` goes on where the page before ended, until there is no more."""
        every = found(lived, "--type", "triage-ticket")
        pages, token = [], ""
        while True:
            page = lived.json("audit", "list", "--type", "triage-ticket", "--limit", "4", "--page", token)
            pages.append([record["seq"] for record in page["records"]])
            token = page["next_page"]
            if not token:
                break
        assert [record["seq"] for record in reversed(every)] == [seq for page in pages for seq in page]
        assert [4] * (len(pages) - 1) == [len(page) for page in pages[:-1]]

    def test_for_people(self, lived: AgentProcess) -> None:
        """A line a record, how to go on on standard error, and a word where nothing is found."""
        done = lived.run("audit", "list", "--type", "triage-ticket", "--limit", "1")
        assert 1 == len(done.stdout.splitlines())
        assert "task_ended" in done.stdout
        assert done.stderr.startswith("there are more: go on with --page ")
        token = done.stderr.split()[-1]
        again = lived.run("audit", "list", "--type", "triage-ticket", "--limit", "1", "--page", token)
        assert "token_issued" in again.stdout
        assert "no records\n" == lived.run("audit", "list", "--type", "none").stdout

    @pytest.mark.parametrize(
        ("options", "status", "code"),
        [
            (["--event", "token_isued"], 2, "invalid_input"),
            (["--workload", "triage"], 2, "invalid_spiffe_id"),
            (["--since", "yesterday"], 2, "invalid_input"),
            (["--person", "alice"], 1, "invalid_input"),
            (["--person", "nowhere/alice"], 1, "not_found"),
            (["--page", "7"], 1, "invalid_input"),
            (["--type", "x" * 129], 1, "invalid_input"),
        ],
    )
    def test_what_is_refused(self, lived: AgentProcess, options: list[str], status: int, code: str) -> None:
        """What cannot be looked for is an error with its code, and never an empty list."""
        done = lived.run("audit", "list", *options, check=False)
        assert (status, True) == (done.returncode, f"[{code}]" in done.stderr), done.stderr
        assert "" == done.stdout

    @pytest.mark.forked
    def test_who_has_looked(self, agent: AgentProcess) -> None:
        """Whoever searches, reads, follows or proves the journal is in it: with what they looked for, and how much they got."""
        agent.register("/a", "unix:uid:1")
        agent.run("audit", "list", "--event", "entry_created")
        agent.run("audit", "tail", "--event", "entry_deleted", "--type", "mail")
        agent.run("audit", "prove", "2", "--to", str(agent.folder / "proof"))
        for _ in range(5):
            agent.run("audit", "list", "--event", "entry_created", "--since", "1h")
        reads = [
            (each["fields"]["wanted"], each["fields"]["count"]) for each in found(agent, "--event", "journal_read")
        ]
        assert [
            ({"events": ["entry_created"]}, 1),
            ({"events": ["entry_deleted"], "type": "mail"}, 0),
            ({"proved": 2}, 1),
        ] == reads
        agent.stop()
        agent.start()
        last = [each["fields"] for each in found(agent, "--event", "journal_read")]
        together = [each for each in last if each["wanted"].get("events") == ["entry_created"] and each["reads"] > 1]
        assert [(5, 5)] == [(each["reads"], each["count"]) for each in together]
        assert {os.getuid()} == {each["by_uid"] for each in last}


class TestFollow:
    @pytest.mark.forked
    def test_what_comes(self, lived: AgentProcess) -> None:
        """Records are printed as they come, none of before; as lines of JSON too; until Ctrl-C, and the status is 0."""
        with Watch(lived, "audit", "follow", "--event", "entry_created", "--output", "json") as watch:
            begun(lived, 1)
            made = lived.register("/followed", "unix:uid:4998")
            [line] = watch.says(made["id"]).splitlines()
            assert ("entry_created", made["id"]) == (
                json.loads(line)["event"],
                json.loads(line)["fields"]["entry_id"],
            )
            lived.run("entry", "delete", made["id"])
            again = lived.register("/followed", "unix:uid:4998")
            [line] = watch.says(again["id"]).splitlines()
            assert 0 == watch.stop()
        with Watch(lived, "audit", "follow", "--since-seq", str(json.loads(line)["seq"] - 1)) as watch:
            assert f"entry_id={again['id']}" in watch.says(again["id"])

    @pytest.mark.forked
    @pytest.mark.parametrize("how", ["stop", "kill"])
    def test_over_a_restart(self, agent: AgentProcess, how: str) -> None:
        """Over a restart it goes on behind the last record that it told: each comes once, also those of meanwhile."""
        options = ["--event", "entry_created", "--output", "json"]
        with Watch(agent, "audit", "follow", *options) as watch:
            begun(agent, 1)
            ids = [agent.register("/before", "unix:uid:1")["id"]]
            heard = watch.says(ids[-1])
            getattr(agent, how)()
            assert "waiting: " in watch.notes("waiting: ")
            agent.start()
            ids += [agent.register(f"/{number}", f"unix:uid:{number}")["id"] for number in range(3)]
            heard += watch.says(ids[-1])
            assert ids == [json.loads(line)["fields"]["entry_id"] for line in heard.splitlines()]
            assert 0 == watch.stop()

    @pytest.mark.forked
    def test_an_older_database(self, agent: AgentProcess) -> None:
        """Where the agent comes back with an older database, the follower says so and goes on with what comes."""
        agent.stop()
        kept = {path.name: path.read_bytes() for path in agent.data_dir.glob("sojourn.db*")}
        agent.start()
        with Watch(agent, "audit", "follow", "--event", "entry_created", "--output", "json") as watch:
            begun(agent, 1)
            for number in range(30):
                last = agent.register(f"/{number}", f"unix:uid:{number}")
            watch.says(last["id"])
            agent.stop()
            for path in agent.data_dir.glob("sojourn.db*"):
                path.unlink()
            for name, content in kept.items():
                (agent.data_dir / name).touch(0o600)
                (agent.data_dir / name).write_bytes(content)
            agent.start()
            assert "was seen" in watch.notes("another database")
            made = agent.register("/after", "unix:uid:7")
            watch.says(made["id"])

    def test_without_an_agent(self, agent: AgentProcess) -> None:
        """Where nobody answers at the beginning there is nothing to wait for: it says so and ends."""
        agent.stop()
        done = agent.run("audit", "follow", check=False)
        assert (3, True) == (done.returncode, "[unreachable]" in done.stderr)

    @pytest.mark.forked
    def test_who_takes_nothing(self, agent: AgentProcess) -> None:
        """A follower that reads nothing holds nobody up: records go on, others follow, and the agent stops in time."""
        agent.stop()
        fill(agent.data_dir / "sojourn.db", 4 * BLOCK, size=4_000)
        agent.start()
        with channel(agent.admin_socket) as opened:
            stuck = opened.unary_stream(
                "/sojourn.v1.Admin/ReadAudit",
                request_serializer=pb.ReadAuditRequest.SerializeToString,
                response_deserializer=pb.ListAuditResponse.FromString,
            )(pb.ReadAuditRequest(follow=True), timeout=120)
            next(stuck)
            with Watch(agent, "audit", "follow", "--event", "entry_created") as watch:
                begun(agent, 2)
                for number in range(10):
                    watch.says(agent.register(f"/{number}", f"unix:uid:{number}")["id"])
            assert 11 <= len(found(agent, "--since", "1h"))
            stuck.cancel()


def begun(agent: AgentProcess, number: int) -> None:
    """Wait until so many readers follow."""
    until(
        lambda: (
            number
            <= sum(
                each["fields"]["wanted"].get("follow") == "begun" for each in found(agent, "--event", "journal_read")
            )
        ),
        "the reader follows",
    )


def fill(path: Path, number: int, size: int = 0) -> None:
    """Write so many records to the journal of an agent that is stopped, each of a task of its own."""

    async def write() -> None:
        database = open_sqlite(path)
        try:
            text = "x" * size
            made = [{"task": f"tsk_{each:022}", "type": "t", "text": text} for each in range(number)]
            await AuditTable(database).append([Event(1, "task_begun", json.dumps(each)) for each in made])
        finally:
            database.close()

    asyncio.run(write())


@pytest.mark.forked
def test_a_journal_of_an_earlier_release() -> None:
    """A journal of a release without an index is searched from the first moment, and is indexed behind."""
    with make_agent() as agent:
        agent.stop()
        path = agent.data_dir / "sojourn.db"
        fill(path, 5 * BLOCK)
        with closing(sqlite3.connect(path)) as database:
            for statement in (
                "DROP TABLE audit_blocks",
                "DROP TABLE audit_terms",
                "CREATE INDEX audit_by_event ON audit (event, at_ms)",
                *(f"DROP TABLE usage_{each}" for each in ("keys", "types", "actions", "entries")),
                *(f"DROP TABLE review_{each}" for each in ("items", "shown")),
                *(f"DROP TABLE {each}" for each in ("nodes", "join_tokens")),
                "UPDATE alembic_version SET version_num = '0005'",
            ):
                database.execute(statement)
            database.commit()
        agent.start()
        task = f"tsk_{4000:022}"
        [first] = found(agent, "--task", task)

        def blocks() -> int:
            with closing(sqlite3.connect(path)) as database:
                return int(database.execute("SELECT count(*) FROM audit_blocks").fetchone()[0])

        until(lambda: blocks() >= 5, "it is indexed", 120)
        assert [first] == found(agent, "--task", task)
        assert 10_000 == len(found(agent, "--type", "t"))
