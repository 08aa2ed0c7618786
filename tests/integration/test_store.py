"""What is acknowledged is on disk; what is not has changed nothing; and a disk that fails stops what must stop."""

import os
import random
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import pytest
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.disks import failing, full, read_only, small_disk
from harness.exchanges import form, post
from harness.looking import until
from harness.taskagent import ISSUER, TICKETS, make_agent
from harness.taskcalls import METADATA, channel, unary
from sojourn._pb.spire.api.server.entry.v1 import entry_pb2
from sojourn._pb.spire.api.types import types_pb2 as types

ENTRY = "/spire.api.server.entry.v1.Entry/"
TRIO = ("a", "b", "c")


# --- kill -9 --------------------------------------------------------------------------------------------------------


class Registrations:
    """A stream of registrations, three entries in each call, until the agent is gone."""

    def __init__(self, socket: str, start: int) -> None:
        self.acknowledged: set[str] = set()
        self.begun = start
        self.some = threading.Event()
        self._socket = socket
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with channel(self._socket) as opened:
            create = opened.unary_unary(
                ENTRY + "BatchCreateEntry",
                request_serializer=entry_pb2.BatchCreateEntryRequest.SerializeToString,
                response_deserializer=entry_pb2.BatchCreateEntryResponse.FromString,
            )
            while True:
                self.begun += 1
                names = [f"/n{self.begun}/{letter}" for letter in TRIO]
                try:
                    answer = create(
                        entry_pb2.BatchCreateEntryRequest(entries=[entry(name) for name in names]),
                        metadata=METADATA,
                        timeout=15,
                    )
                except grpc.RpcError:
                    return
                assert [0, 0, 0] == [result.status.code for result in answer.results]
                self.acknowledged.update(names)
                self.some.set()

    def join(self) -> None:
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()


def entry(path: str) -> types.Entry:
    return types.Entry(
        spiffe_id=types.SPIFFEID(trust_domain="example.org", path=path),
        selectors=[types.Selector(type="unix", value="uid:1")],
    )


def registered(agent: AgentProcess) -> set[str]:
    """The paths of all entries."""
    request = entry_pb2.ListEntriesRequest(page_size=10_000)
    answer = unary(agent.admin_socket, ENTRY + "ListEntries", request, entry_pb2.ListEntriesResponse)
    return {each.spiffe_id.path for each in answer.entries}


@pytest.mark.forked
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_kill_amid_registrations(seed: int) -> None:
    """An agent that is killed in a stream of registrations has all that it acknowledged, and half of nothing."""
    chance = random.Random(seed)
    acknowledged: set[str] = set()
    number = 0
    with AgentProcess() as agent:
        for _ in range(10):
            stream = Registrations(agent.admin_socket, number)
            assert stream.some.wait(timeout=15)
            stream_so_far = len(stream.acknowledged) + chance.randrange(40)
            until(lambda s=stream, n=stream_so_far: len(s.acknowledged) >= n, "more is acknowledged")
            agent.kill()
            stream.join()
            number = stream.begun
            acknowledged |= stream.acknowledged
            agent.start()
            found = registered(agent)
            assert set() == acknowledged - found
            for name in found - acknowledged:  # what was under way may be there, but whole
                assert name.startswith(f"/n{number}/")
                assert {f"/n{number}/{letter}" for letter in TRIO} <= found
            acknowledged |= found
        assert agent.json("audit", "verify")["intact"]
    assert acknowledged


def test_the_epoch_grows() -> None:
    """Each start of an agent has a greater epoch than the one before, however that ended."""
    with AgentProcess() as agent:
        epochs = [agent.json("status")["epoch"]]
        for end in (agent.stop, agent.kill):
            end()
            agent.start()
            epochs.append(agent.json("status")["epoch"])
    assert [1, 2, 3] == epochs


# --- one agent for each data folder and socket ----------------------------------------------------------------------


def said(agent: AgentProcess, *extra: str) -> tuple[int, str]:
    """Start one that must not start; its exit status and what it says."""
    before = agent.log.read_text() if agent.log.exists() else ""
    process = agent.spawn(*extra)
    out, _ = process.communicate(timeout=60)
    assert "" == out
    return process.returncode, agent.log.read_text().removeprefix(before)


def check_sentence(status: int, text: str) -> None:
    said = [line for line in text.splitlines() if not line.startswith("{")]  # the log's lines apart
    assert 1 == status
    assert said[0].startswith("error: ")
    assert 3 >= len(said)
    assert "Traceback" not in text


def test_a_second_agent_on_the_data_folder(agent: AgentProcess) -> None:
    """A second agent on the same data folder is refused with the first one's process, which goes on."""
    status, text = said(
        agent, "--socket", f"{agent.folder}/run/2.sock", "--admin-socket", f"{agent.folder}/run/2a.sock"
    )
    check_sentence(status, text)
    assert f"another agent (process {agent.pid}) uses the data folder" in text
    assert 0 == agent.json("status")["entries"]


def test_a_second_agent_on_the_socket(agent: AgentProcess, tmp_path: Path) -> None:
    """A second agent on the same socket is refused, and the first one's socket is left alone."""
    status, text = said(agent, "--data-dir", str(tmp_path / "data"))
    check_sentence(status, text)
    assert "is another agent running?" in text
    assert 0 == agent.json("status")["entries"]


# --- files that are not right ---------------------------------------------------------------------------------------


def not_a_database(path: Path) -> None:
    path.write_bytes(b"not a database" * 100)


def other_tables(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE mine (a)")
    database.close()
    path.chmod(0o600)


def newer_schema(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()


def torn_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(1024)
        file.write(os.urandom(8192))


def writable_by_others(path: Path) -> None:
    path.chmod(0o666)


def a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize(
    "spoil",
    [not_a_database, other_tables, newer_schema, torn_page, writable_by_others, a_link, a_folder, a_pipe],
    ids=lambda spoil: spoil.__name__,
)
def test_a_database_that_is_not_right(spoil: Callable[[Path], None]) -> None:
    """An agent does not start on a database that it cannot trust, says which file, and leaves it as it was."""
    with AgentProcess() as agent:
        agent.stop()
        path = agent.data_dir / "sojourn.db"
        for other in ("sojourn.db-wal", "sojourn.db-shm"):
            (agent.data_dir / other).unlink(missing_ok=True)
        spoil(path)
        before = path.read_bytes() if path.is_file() else stat.S_IFMT(path.lstat().st_mode)
        status, text = said(agent)
        check_sentence(status, text)
        assert str(path) in text or "database" in text
        assert before == (path.read_bytes() if path.is_file() else stat.S_IFMT(path.lstat().st_mode))


def test_files_are_the_agents_own(agent: AgentProcess) -> None:
    """Nobody but the agent's user can read its data folder or what is in it."""
    assert 0o700 == stat.S_IMODE(agent.data_dir.stat().st_mode)
    loose = [str(path) for path in agent.data_dir.rglob("*") if stat.S_IMODE(path.lstat().st_mode) & 0o077]
    assert [] == [path for path in loose if not Path(path).is_symlink()]


# --- a disk that does not take it -----------------------------------------------------------------------------------


@pytest.fixture
def on_small_disk() -> Iterator[AgentProcess]:
    """An agent whose data folder has three megabytes."""
    with make_agent_folder() as agent, small_disk(agent, "3m"):
        agent.start()
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield agent


class make_agent_folder:
    """An agent that is made but not started, and cleaned up."""

    def __init__(self) -> None:
        self._agent = make_agent()

    def __enter__(self) -> AgentProcess:
        return self._agent

    def __exit__(self, *_: object) -> None:
        self._agent.__exit__()


def check_refuses(agent: AgentProcess, holder: Caller, subject: str, task: str, codes: set[str]) -> None:
    """Registration and token issuing refuse; identities go on; nothing has changed."""
    entries = agent.json("entry", "list")
    for _ in range(3):
        done = agent.run("entry", "create", "--spiffe-id", "spiffe://example.org/new", "--selector", "unix:uid:7",
                         "--output", "json", check=False)  # fmt: skip
        assert (1, "") == (done.returncode, done.stdout)
        assert any(f'"code": "{code}"' in done.stderr for code in codes), done.stderr
    assert entries == agent.json("entry", "list")
    assert codes >= {holder.ask("token", task=task)["code"]}
    assert codes >= {holder.ask("begin_process", type="triage-ticket")["code"]}
    response = post(agent.socket, form(subject))
    assert (503, "temporarily_unavailable") == (response.status_code, response.json()["error"])
    assert response.json()["code"] in codes
    assert ["spiffe://example.org/agent/triage"] == [svid["spiffe_id"] for svid in holder.ask("x509")["svids"]]
    assert [task] == [each["id"] for each in agent.json("task", "list")["tasks"]]
    with Caller(agent.socket) as fresh:
        assert "x509" == fresh.ask("x509")["event"]
    verified = agent.json("audit", "verify")  # what is written is told, and how much waits
    assert (True, True) == (verified["intact"], verified["unwritten"] > 0)


def check_recovers(agent: AgentProcess, holder: Caller, subject: str, task: str) -> None:
    """Without a restart, all is as it was; the journal is whole."""
    agent.register("/new", "unix:uid:7")
    assert "token" == holder.ask("token", task=task)["event"]
    assert 200 == post(agent.socket, form(subject)).status_code
    assert "completed" == holder.ask("complete", task=task)["state"]
    verified = agent.json("audit", "verify")
    assert (True, "") == (verified["intact"], verified["reason"])


@pytest.mark.forked
@pytest.mark.root
def test_the_disk_is_full(on_small_disk: AgentProcess) -> None:
    """On a full disk registrations and tokens are refused as such, SVIDs go on, and all recovers once there is room."""
    agent = on_small_disk
    with Caller(agent.socket) as holder:
        subject = holder.ask("jwt", audience=ISSUER)["token"]
        task = holder.ask("begin_process", type="triage-ticket")["id"]
        with full(agent.data_dir):
            check_refuses(agent, holder, subject, task, {"store_full"})
        check_recovers(agent, holder, subject, task)


@pytest.mark.forked
@pytest.mark.root
def test_the_status_of_a_full_disk(on_small_disk: AgentProcess) -> None:
    """On a full disk a registration ends with RESOURCE_EXHAUSTED."""
    request = entry_pb2.BatchCreateEntryRequest(entries=[entry("/x")])
    with full(on_small_disk.data_dir), channel(on_small_disk.admin_socket) as opened:
        create = opened.unary_unary(
            ENTRY + "BatchCreateEntry",
            request_serializer=entry_pb2.BatchCreateEntryRequest.SerializeToString,
            response_deserializer=entry_pb2.BatchCreateEntryResponse.FromString,
        )
        try:
            answer = create(request, timeout=15)
            code = answer.results[0].status.code
        except grpc.RpcError as error:
            code = error.code().value[0]
    assert grpc.StatusCode.RESOURCE_EXHAUSTED.value[0] == code


@pytest.mark.forked
@pytest.mark.root
def test_a_task_ends_on_a_full_disk(on_small_disk: AgentProcess) -> None:
    """On a full disk a task whose holder dies is over at once, and its end is written once there is room."""
    agent = on_small_disk
    with Caller(agent.socket) as holder, Caller(agent.socket) as service:
        task = holder.ask("begin_process", type="triage-ticket")["id"]
        token = holder.ask("token", task=task)["token"]
        with full(agent.data_dir):
            holder.kill()
            until(
                lambda: service.ask("validate", token=token, audience=TICKETS)["code"] == "task_over",
                "the task is over",
            )
        until(lambda: ends_of(agent, task), "the end is in the journal")
    assert [("revoked", "holder_exited")] == ends_of(agent, task)
    assert agent.json("audit", "verify")["intact"]


def ends_of(agent: AgentProcess, task: str) -> list[tuple[str, str]]:
    records = agent.json("audit", "tail", "--lines", "500")["records"]
    fields = [record["fields"] for record in records if record["event"] == "task_ended"]
    return [(each["state"], each["reason"]) for each in fields if each["task"] == task]


@pytest.mark.forked
@pytest.mark.root
def test_an_agent_starts_on_a_full_disk_or_says_so(on_small_disk: AgentProcess) -> None:
    """An agent that cannot start because its disk is full says so in one sentence, and starts once there is room."""
    agent = on_small_disk
    agent.stop()
    with full(agent.data_dir):
        status, text = said(agent)
        check_sentence(status, text)
        assert "room" in text or "full" in text or "space" in text, text
    agent.start()
    assert 1 == agent.json("status")["entries"]


@pytest.mark.parametrize(
    "spoiled",
    [
        pytest.param(lambda agent: read_only(agent.data_dir), marks=pytest.mark.root, id="read-only"),
        pytest.param(failing, id="failing"),
    ],
)
def test_the_disk_refuses_writes(spoiled: Callable[[AgentProcess], AbstractContextManager[None]]) -> None:
    """On a disk that refuses writes it is as on a full one: registrations and tokens stop, and recover by themselves."""
    with make_agent() as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        with Caller(agent.socket) as holder:
            subject = holder.ask("jwt", audience=ISSUER)["token"]
            task = holder.ask("begin_process", type="triage-ticket")["id"]
            with spoiled(agent):
                check_refuses(agent, holder, subject, task, {"store_failed", "store_full"})
            check_recovers(agent, holder, subject, task)


@pytest.mark.forked
@pytest.mark.root
def test_a_read_only_data_folder() -> None:
    """An agent does not start on a read-only data folder, and says so in one sentence."""
    with make_agent_folder() as agent, small_disk(agent, "3m"):
        subprocess.run(["mount", "-o", "remount,ro", str(agent.data_dir)], check=True)
        status, text = said(agent)
        check_sentence(status, text)
        assert "Read-only file system" in text
        subprocess.run(["mount", "-o", "remount,rw", str(agent.data_dir)], check=True)
        agent.start()


# --- files that are taken from under it -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sojourn.db", "sojourn.db-wal", "sojourn.db-shm"])
@pytest.mark.parametrize("replaced", [False, True], ids=["moved away", "replaced"])
def test_a_file_is_taken_away(agent: AgentProcess, name: str, replaced: bool) -> None:
    """Where the database's files are not those that the agent has open, nothing is acknowledged that a restart would
    lose: no entry and no kill switch. Put back, all goes on."""
    path = agent.data_dir / name
    kept = path.with_name("kept")
    os.rename(path, kept)
    if replaced:
        path.write_bytes(kept.read_bytes())
    # A connection that the agent opens meanwhile makes another where the one beside the database is gone.
    said = (
        ["is another file now"]
        if replaced
        else ["is gone"]
        if name == "sojourn.db"
        else ["is gone", "is another file now"]
    )
    create = ("entry", "create", "--spiffe-id", "spiffe://example.org/late", "--selector", "unix:uid:7")
    for command in (create, ("task", "block", "--type", "triage-ticket")):
        done = agent.run(*command, check=False)
        assert 1 == done.returncode
        assert any(f"{str(path)!r} {each}" in done.stderr for each in said), done.stderr
    os.rename(kept, path)
    agent.run(*create)
    # It is off; and it cannot be switched off again once it is on disk.
    until(lambda: agent.run("task", "block", "--type", "triage-ticket", check=False).returncode == 1)
    agent.kill()
    agent.start()
    assert {"/late"} == registered(agent)
    assert ["triage-ticket"] == [each["type"] for each in agent.json("task", "blocks")["blocks"]]
