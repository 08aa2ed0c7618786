"""The audit journal: what is in it, that any change to it is found, and that no secret is in it or anywhere else."""

import asyncio
import base64
import contextlib
import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from harness.agent import COMMAND, AgentProcess
from harness.callers import Caller
from harness.exchanges import form, part, post
from harness.looking import until
from harness.strangers import stranger
from harness.taskagent import ISSUER, STRANGER_UID, TICKETS, make_agent, revoke_all
from harness.taskcalls import channel
from harness.watching import Watch
from sojourn import SyncClient
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.audit.journal import Event
from sojourn.store.audit import AuditTable
from sojourn.store.database import open_sqlite


def events(agent: AgentProcess) -> list[dict]:
    return agent.json("audit", "tail", "--lines", "1000")["records"]


@pytest.fixture(scope="module")
def lived() -> Iterator[AgentProcess]:
    """An agent that has given out one of everything."""
    with busy() as agent:
        yield agent


@pytest.fixture(scope="module")
def unread() -> Iterator[AgentProcess]:
    """Another, whose journal nobody reads: no more records come by themselves."""
    with busy() as agent:
        yield agent


@contextlib.contextmanager
def busy() -> Iterator[AgentProcess]:
    with make_agent() as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        with Caller(agent.socket) as caller:
            caller.ask("x509")
            subject = caller.ask("jwt", audience=ISSUER)["token"]
            task = caller.ask("begin_process", type="triage-ticket")["id"]
            caller.ask("token", task=task)
            caller.ask("complete", task=task)
            caller.ask("begin_process", type="not-for-triage")
            post(agent.socket, form(subject))
            post(agent.socket, form("garbage"))
        revoke_all(agent)  # so that no more records come by themselves
        yield agent


# --- what is in it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("agent_started", {"epoch", "pid", "uid"}),
        ("entry_created", {"entry_id", "spiffe_id"}),
        ("x509_svid_issued", {"entry_id", "spiffe_id", "serial", "expires_at"}),
        ("jwt_svid_issued", {"spiffe_id", "audience", "expires_at"}),
        ("task_begun", {"task", "type", "spiffe_id", "uid", "pid"}),
        ("token_issued", {"task", "type", "spiffe_id", "uid", "resource", "actions", "jti", "expires_at"}),
        ("task_ended", {"task", "type", "spiffe_id", "uid", "state", "reason"}),
        ("call_denied", {"uid", "pid", "method", "code", "reason"}),
        ("exchange_denied", {"uid", "pid", "code", "reason"}),
    ],
)
def test_what_is_recorded(lived: AgentProcess, event: str, fields: set[str]) -> None:
    """Each issue, denial and task transition is in the journal, with who and what."""
    found = [record["fields"] for record in events(lived) if record["event"] == event]
    assert found
    assert set() == fields - set(found[0])


def test_times_for_people(lived: AgentProcess) -> None:
    """What is printed for people has times in UTC; JSON has the seconds that the journal has."""
    issued = next(each for each in events(lived) if each["event"] == "x509_svid_issued")
    ends = datetime.fromtimestamp(issued["fields"]["expires_at"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    printed = lived.run("audit", "tail", "--lines", "1000").stdout
    [line] = [line for line in printed.splitlines() if line.startswith(f"{issued['seq']} ")]
    assert f" expires_at={ends}" in line


def test_a_token_has_its_record(lived: AgentProcess) -> None:
    """The record of a token is in the journal when the token is in the caller's hands."""
    with SyncClient(lived.socket) as client, client.task("triage-ticket") as task:
        jti = part(task.token().token, 1)["jti"]
        assert jti in {record["fields"].get("jti") for record in events(lived)}


def test_an_untouched_journal_is_intact(lived: AgentProcess) -> None:
    """A journal that nobody touched verifies, and its records are numbered without a gap."""
    verified = lived.json("audit", "verify")
    records = events(lived)
    assert (True, None, "") == (verified["intact"], verified["first_bad_seq"], verified["reason"])
    assert list(range(1, len(records) + 1)) == [record["seq"] for record in records]
    assert 0 == lived.run("audit", "verify").returncode


@pytest.mark.forked
def test_a_journal_is_intact_after_a_restart(agent: AgentProcess) -> None:
    """A journal goes on after a restart and after a kill, and verifies as a whole."""
    for end in (agent.stop, agent.kill):
        agent.register(f"/e{agent.pid}", "unix:uid:1")
        end()
        agent.start()
    assert agent.json("audit", "verify")["intact"]
    assert 3 == len([record for record in events(agent) if record["event"] == "agent_started"])


# --- how it is read -------------------------------------------------------------------------------------------------


def read(agent: AgentProcess, *options: str) -> list[dict]:
    """What is read, without the records of who has read it."""
    return others(agent.json("audit", "tail", *options)["records"])


def others(records: list[dict]) -> list[dict]:
    return [record for record in records if record["event"] != "journal_read"]


class TestTail:
    def test_what_is_asked_for(self, lived: AgentProcess) -> None:
        """`audit tail` has the records of an event, a task, a type, behind one and since a time, and no others."""
        every = others(events(lived))
        for number in (20, 3):
            found = lived.json("audit", "tail", "--lines", str(number))["records"]
            assert number == len(found) or every[0] in found
            newest = others(found)
            assert newest == every[len(every) - len(newest) :]
        begun = [record for record in every if record["event"] == "task_begun"]
        assert begun == read(lived, "--event", "task_begun")
        both = [record for record in every if record["event"] in {"task_begun", "task_ended"}]
        assert both == read(lived, "--event", "task_begun", "--event", "task_ended")
        task = begun[0]["fields"]["task"]
        assert [record for record in every if task in json.dumps(record["fields"])] == read(lived, "--task", task)
        ours = [record for record in every if record["fields"].get("type") == "triage-ticket"]
        assert ours == read(lived, "--type", "triage-ticket", "--lines", "1000")
        assert every[4:] == read(lived, "--after", str(every[3]["seq"]))
        assert every == read(lived, "--since", "1d")
        assert 2 == len(lived.json("audit", "tail", "--since", "1d", "--lines", "2")["records"])
        later = datetime.fromtimestamp(datetime.now(UTC).timestamp() + 3600, UTC).isoformat()
        assert [] == read(lived, "--since", later)
        assert [] == read(lived, "--event", "no_such_event", "--type", "x" * 128)

    def test_pages(self, lived: AgentProcess) -> None:
        """`audit tail --after SEQ --lines N` has the next N records, and says behind which the following ones are."""
        every, found, after = events(lived), [], 1
        while after is not None:
            page = lived.json("audit", "tail", "--after", str(after), "--lines", "7")
            assert {"records", "next_after"} == page.keys()
            assert 7 == len(page["records"]) or page["next_after"] is None
            found += page["records"]
            after = page["next_after"]
        assert others([record for record in every if record["seq"] > 1]) == others(found)
        done = lived.run("audit", "tail", "--after", "1", "--lines", "2")
        assert (2, f"there are more: go on with --after {every[2]['seq']}\n") == (
            len(done.stdout.splitlines()),
            done.stderr,
        )

    def test_what_is_refused(self, lived: AgentProcess) -> None:
        """A time that is none, and more than any good search has, is an error with its code."""
        for options, status, code in (
            (["--since", "yesterday"], 2, "invalid_input"),
            (["--type", "x" * 129], 1, "invalid_input"),
            ([f"--event=e{number}" for number in range(33)], 1, "invalid_input"),
        ):
            done = lived.run("audit", "tail", *options, check=False)
            assert (status, True) == (done.returncode, f"[{code}]" in done.stderr), done.stderr

    @pytest.mark.forked
    def test_follow(self, lived: AgentProcess) -> None:
        """--follow prints the last records, then each one as it is made, as lines of JSON too, until Ctrl-C: exit 0."""
        with Watch(lived, "audit", "tail", "--follow", "--event", "entry_created", "--output", "json") as watch:
            made = lived.register("/followed", "unix:uid:4998")
            heard = watch.says(made["id"])
            assert {"entry_created"} == {json.loads(line)["event"] for line in heard.splitlines()}
            last = json.loads(heard.splitlines()[-1])
            lived.run("entry", "delete", made["id"])
            again = lived.register("/followed", "unix:uid:4998")
            [line] = watch.says(again["id"]).splitlines()
            assert again["id"] == json.loads(line)["fields"]["entry_id"]
            assert 0 == watch.stop()
        with Watch(lived, "audit", "tail", "-f", "--after", str(last["seq"])) as watch:
            assert "entry_deleted" in watch.says(f"entry_id={again['id']}")
            lived.run("entry", "delete", again["id"])

    @pytest.mark.forked
    def test_it_ends_with_the_agent(self) -> None:
        """When the agent stops a follower ends too, and says so with its exit status; the agent does not wait for it."""
        with make_agent() as agent, Watch(agent, "audit", "tail", "--follow") as watch:
            watch.says("agent_started")
            agent.stop()
            watch.notes("error: ")
            assert watch.process.wait(timeout=60) in {1, 3}

    def test_followers_are_bounded(self, lived: AgentProcess) -> None:
        """A ninth follower of one user is refused; the journal is read by whoever does not follow."""

        def follow(stack: contextlib.ExitStack) -> Any:
            opened = stack.enter_context(channel(lived.admin_socket)).unary_stream(
                "/sojourn.v1.Admin/ReadAudit",
                request_serializer=pb.ReadAuditRequest.SerializeToString,
                response_deserializer=pb.ListAuditResponse.FromString,
            )
            return opened(pb.ReadAuditRequest(follow=True, last=1), timeout=60)

        with contextlib.ExitStack() as stack:
            followers = [follow(stack) for _ in range(8)]  # kept, as what nobody holds is cancelled
            assert [True] * 8 == [next(each).HasField("begin") for each in followers]
            with pytest.raises(grpc.RpcError, match="too many readers that follow the audit journal"):
                next(follow(stack))
            assert 1 == len(lived.json("audit", "tail", "--lines", "1")["records"])


# --- what is done to it ---------------------------------------------------------------------------------------------

CHANGES = [
    "UPDATE audit SET fields = replace(fields, '\"uid\":', '\"uid\": ') WHERE event = 'task_begun'",
    "UPDATE audit SET fields = '{}' WHERE seq = 3",
    "UPDATE audit SET at_ms = at_ms + 1 WHERE seq = 3",
    "UPDATE audit SET event = 'task_ended' WHERE event = 'token_issued'",
    "UPDATE audit SET digest = replace(digest, substr(digest, 1, 1), 'x') WHERE seq = 3",
    "DELETE FROM audit WHERE seq = 1",
    "DELETE FROM audit WHERE seq = 4",
    "UPDATE audit SET seq = seq + 1000 WHERE seq > 4",
    "UPDATE audit SET fields = (SELECT fields FROM audit WHERE seq = 2) WHERE seq = 3",
    "INSERT INTO audit VALUES (0, 1, 'x', '{}', 'x')",
    "INSERT INTO audit SELECT 1000, at_ms, event, fields, digest FROM audit WHERE seq = 3",
]


def change(agent: AgentProcess, *statements: str) -> None:
    """Write to the agent's database behind its back."""
    with sqlite3.connect(agent.data_dir / "sojourn.db", timeout=10) as database:
        for statement in statements:
            assert database.execute(statement).rowcount != 0
    database.close()


def check_found(agent: AgentProcess) -> None:
    done = agent.run("audit", "verify", "--output", "json", check=False)
    verified = json.loads(done.stdout)
    assert (1, False) == (done.returncode, verified["intact"])
    assert verified["first_bad_seq"] is not None
    assert verified["reason"]


@pytest.mark.parametrize("statement", CHANGES)
def test_a_change_is_found(unread: AgentProcess, statement: str) -> None:
    """Any record that is changed, removed, moved or added behind the agent's back is found."""
    unread.json("audit", "verify")  # all that waits is written
    change(unread, "CREATE TABLE kept AS SELECT * FROM audit", statement)
    try:
        check_found(unread)
    finally:
        change(unread, "DELETE FROM audit", "INSERT INTO audit SELECT * FROM kept", "DROP TABLE kept")
    assert unread.json("audit", "verify")["intact"]


@pytest.mark.parametrize(
    "statement",
    [
        CHANGES[0],
        "DELETE FROM audit WHERE seq = 4",
        "DELETE FROM audit WHERE seq > 3",
        "DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)",
    ],
    ids=["changed", "removed", "all later ones removed", "the last one removed"],
)
def test_a_change_while_stopped_is_found(stopped: bytes, statement: str) -> None:
    """A record that was changed or removed while the agent was stopped is found when it runs again."""
    agent = make_agent()
    try:
        agent.data_dir.mkdir(mode=0o700)
        path = agent.data_dir / "sojourn.db"
        path.touch(0o600)
        path.write_bytes(stopped)
        change(agent, statement)
        agent.start()
        check_found(agent)
    finally:
        agent.__exit__()


@pytest.fixture(scope="module")
def stopped() -> bytes:
    """The database of an agent that has lived and was stopped."""
    with make_agent() as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        with SyncClient(agent.socket) as client, client.task("triage-ticket") as task:
            task.token()
        agent.stop()
        path = agent.data_dir / "sojourn.db"
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
        return path.read_bytes()


# --- how much of it is kept -----------------------------------------------------------------------------------------


@pytest.mark.forked
def test_a_journal_that_is_too_large() -> None:
    """What is over audit.max_bytes is pruned, oldest first; the rest verifies, over restarts too, and status tells."""
    with make_agent() as agent:
        agent.register("/before", "unix:uid:1")
        agent.stop()
        asyncio.run(fill(agent.data_dir / "sojourn.db", 24 * 1024))
        agent.config.write_text(agent.config.read_text() + "\n[audit]\nmax_bytes = 16777216\n")
        agent.start()
        until(lambda: "journal_pruned" in {each["what"] for each in agent.json("status")["failures"]}, "it is pruned")
        agent.register("/after", "unix:uid:2")
        agent.kill()
        agent.start()
        # No record goes before it is in the signed log's tree: nothing more goes once the database is small enough.
        until(lambda: is_pruned(agent, 16 << 20), "enough is pruned", 120)
        found = agent.json("audit", "verify")
        assert (True, None) == (found["intact"], found["first_bad_seq"])
        assert found["first_seq"] > 1000
        assert f"from {found['first_seq']} on" in agent.run("audit", "verify").stdout
        assert {"entry_created", "journal_pruned"} <= {record["event"] for record in events(agent)}
        pruned = [record for record in events(agent) if record["event"] == "journal_pruned"]
        assert found["first_seq"] - 1 == pruned[-1]["fields"]["until_seq"]
        change(agent, f"DELETE FROM audit WHERE seq = {found['first_seq']}")
        check_found(agent)


def is_pruned(agent: AgentProcess, most: int) -> bool:
    """Whether a database takes no more bytes than it may, and none of its records has gone for two seconds."""
    first = agent.json("audit", "verify")["first_seq"]
    time.sleep(2)
    with contextlib.closing(sqlite3.connect(agent.data_dir / "sojourn.db")) as database:
        pages, free, each = (
            database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
    return (pages - free) * each <= most and first == agent.json("audit", "verify")["first_seq"]


async def fill(path: Path, kibibytes: int) -> None:
    """Write so many records of a KiB to the journal of an agent that is stopped."""
    database = open_sqlite(path)
    try:
        await AuditTable(database).append([Event(1, "filler", json.dumps({"text": "x" * 1024}))] * kibibytes)
    finally:
        database.close()


# --- secrets --------------------------------------------------------------------------------------------------------


@pytest.mark.forked
@pytest.mark.root
def test_no_secret_is_anywhere(tmp_path: Path) -> None:
    """After a run at log level debug, failures included, no token and no key is in log, output, journal or /proc."""
    secrets: dict[str, bytes] = {}
    with make_agent(level="debug") as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        with SyncClient(agent.socket) as client:
            subject = client.fetch_jwt_svid(ISSUER).token
            secrets["subject token"] = subject.encode()
            with client.task("triage-ticket") as task:
                secrets["task token"] = task.token().token.encode()
                client.validate_token(task.token().token, "https://elsewhere.example")
                client.validate_token(task.token().token[:-4], TICKETS)
            exchanged = post(agent.socket, form(subject)).json()["access_token"]
            secrets["exchanged token"] = exchanged.encode()
            for fields in (
                form(exchanged),
                form(subject, scope="x"),
                form(subject[:-3]),
                form(subject, actor_token=subject),
            ):
                assert 400 == post(agent.socket, fields).status_code
            svid = client.fetch_x509_svids().svids[0]
            secrets |= forms("X.509 key", svid.key_pem)
        agent.run("svid", "x509", "--write", str(tmp_path / "svid"))
        agent.run("svid", "jwt", "--audience", "a")
        run = subprocess.Popen(
            [*COMMAND, "task", "run", "--type", "triage-ticket", "--", "sh", "-c",
             f"{COMMAND[0]} task token; read line"],
            env=agent.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        with run:
            assert run.stdout is not None
            assert run.stdin is not None
            secrets["task run token"] = run.stdout.readline().strip().encode()
            watched = [agent.pid, run.pid, *children(run.pid)]
            seen = {}
            for path in (Path(f"/proc/{pid}/{name}") for pid in watched for name in ("environ", "cmdline")):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a child that has gone meanwhile
                    seen[str(path)] = path.read_bytes()
            run.stdin.write("\n")
            run.stdin.flush()
            seen["task run's output"] = run.stderr.read().encode() if run.stderr else b""
        secrets |= break_and_ask(agent)
        for path in (agent.data_dir / "keys").iterdir():
            if b"PRIVATE" in path.read_bytes():
                secrets |= forms(str(path.name), path.read_bytes())
        agent.process.send_signal(15)  # type: ignore[union-attr]
        seen["standard output"] = agent.process.stdout.read().encode()  # type: ignore[union-attr]
        agent.stop()
        seen["log"] = agent.log.read_bytes()
        for path in agent.data_dir.iterdir():
            if path.is_file():
                seen[path.name] = path.read_bytes()
    assert len(secrets) > 6
    assert any(b'"level": "debug"' in text or b"exc" in text or b"detail" in text for text in (seen["log"],))
    assert [] == [(where, what) for where, text in seen.items() for what, secret in secrets.items() if secret in text]
    assert [] == [where for where, text in seen.items() if b"PRIVATE KEY" in text or b"eyJ" in text]


def forms(what: str, pem: bytes) -> dict[str, bytes]:
    """The ways in which a key could be written."""
    key = serialization.load_pem_private_key(pem, None)
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    if isinstance(key, Ed25519PrivateKey):
        raw = key.private_bytes_raw()
        number = int.from_bytes(raw)
    else:
        number = key.private_numbers().private_value  # type: ignore[union-attr]
        raw = number.to_bytes(32, "big")
    return {
        f"{what}, PEM": pem.splitlines()[1],
        f"{what}, DER": der,
        f"{what}, raw": raw,
        f"{what}, hex": raw.hex().encode(),
        f"{what}, base64": base64.b64encode(raw)[:-2],
        f"{what}, number": str(number).encode(),
    }


def break_and_ask(agent: AgentProcess) -> dict[str, bytes]:
    """Take the journal's table away and ask for tokens: no record, no token."""
    with Caller(agent.socket) as caller:
        task = caller.ask("begin_process", type="triage-ticket")["id"]
        subject = caller.ask("jwt", audience=ISSUER)["token"]
        with sqlite3.connect(agent.data_dir / "sojourn.db", timeout=10) as database:
            database.execute("ALTER TABLE audit RENAME TO elsewhere")
        answers = [caller.ask("token", task=task), caller.ask("begin_process", type="triage-ticket")]
        assert ["store_failed"] * 2 == [answer["code"] for answer in answers]
        assert 503 == post(agent.socket, form(agent_subject(agent))).status_code
        with sqlite3.connect(agent.data_dir / "sojourn.db", timeout=10) as database:
            database.execute("ALTER TABLE elsewhere RENAME TO audit")
        database.close()
        assert "token" == caller.ask("token", task=task)["event"]
    return {"last subject token": subject.encode()}


def agent_subject(agent: AgentProcess) -> str:
    with SyncClient(agent.socket) as client:
        return client.fetch_jwt_svid(ISSUER).token


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_no_core_file_and_no_debugger(agent: AgentProcess) -> None:
    """The agent writes no core file."""
    limits = Path(f"/proc/{agent.pid}/limits").read_text()
    core = next(line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file size"))
    assert ["0", "0"] == core


@pytest.mark.root
def test_denials_are_bounded() -> None:
    """Refusals of one user fill the journal at a bounded rate, and their number is recorded."""
    with make_agent() as agent, stranger(agent.socket, STRANGER_UID) as caller:
        for _ in range(100):
            assert "no_identity" == caller.ask("jwt", audience="a")["code"]
        until(lambda: [e for e in events(agent) if e["event"] == "call_denied"], "denials are recorded")
        caller.ask("jwt", audience="a")
        denied = [record for record in events(agent) if record["event"] == "call_denied"]
        suppressed = sum(r["fields"]["count"] for r in events(agent) if r["event"] == "denials_suppressed")
        assert {STRANGER_UID} == {record["fields"]["uid"] for record in denied}
        assert 101 >= len(denied) + suppressed
