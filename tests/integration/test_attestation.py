"""Who is calling: what the agent can prove of processes that are honest, and of those that are not."""

import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.agent import AgentProcess
from harness.borrowed import Borrowed, wire_of
from harness.looking import until
from harness.program import Program, as_user, published
from harness.raw import Admin, module_agent, refusal

pytestmark = pytest.mark.root
SLEEP = os.path.realpath("/bin/sleep")
NO_IDENTITY = ("PERMISSION_DENIED", "no identity issued")


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with module_agent() as running:
        yield running


@pytest.fixture(scope="module")
def client(agent: AgentProcess, go_client: Path) -> Path:
    """The Go client where every user may run it."""
    return published(go_client, agent.folder, "client")


def selectors(admin: Admin, pid: int) -> set[str]:
    return set(admin.explain(pid).selectors)


def withheld(admin: Admin, pid: int) -> dict[str, str]:
    return {each.what: each.reason for each in admin.explain(pid).withheld}


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class TestUsersAndGroups:
    def test_of_a_caller(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """User, group and supplementary groups are each a selector of their own, by number."""
        admin.register("/ids", f"unix:uid:{uid}", f"unix:gid:{uid}", "unix:supplementary_gid:4498")
        admin.register("/other-group", f"unix:uid:{uid}", "unix:supplementary_gid:4497")
        with wire_of(agent.socket, uid, (4498, 4499)) as wire:
            assert ["spiffe://example.org/ids"] == wire.x509_ids()
        with wire_of(agent.socket, uid) as wire:
            assert NO_IDENTITY == refusal(wire.x509)

    def test_are_the_only_ids(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """A process has exactly the id selectors that are so."""
        expected = {f"unix:uid:{uid}", f"unix:gid:{uid}", "unix:supplementary_gid:4498"}
        with Borrowed(agent.socket, uid, (4498,)) as borrowed:
            found = {each for each in selectors(admin, borrowed.pid) if "id:" in each}
        assert expected == found

    def test_have_names(self, agent: AgentProcess, admin: Admin) -> None:
        """Ids that have a name on this machine give a selector with the name too."""
        names = ("unix:user:daemon", "unix:group:daemon", "unix:supplementary_group:bin")
        admin.register("/daemon", *names)
        with wire_of(agent.socket, 1, (2,)) as wire:
            assert ["spiffe://example.org/daemon"] == wire.x509_ids()

    def test_without_a_name_say_so(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """Where an id has no name, `explain` says that, and the number is still given."""
        with Borrowed(agent.socket, uid) as borrowed:
            assert f"{uid} has no name on this machine" == withheld(admin, borrowed.pid)["unix:user"]


class TestPrograms:
    def test_path_and_digest(self, agent: AgentProcess, admin: Admin, client: Path, uid: int) -> None:
        """A program has the path at which this machine has it, and its SHA-256."""
        admin.register(f"/by-path/{uid}", f"unix:uid:{uid}", f"unix:path:{client}")
        admin.register(f"/by-digest/{uid}", f"unix:uid:{uid}", f"unix:sha256:{sha256(client)}")
        admin.register(f"/by-other-path/{uid}", f"unix:uid:{uid}", f"unix:path:{client}2")
        with Program([str(client), "watch"], agent.environment, uid=uid) as program:
            found = program.hear()["spiffe_ids"]
        assert {f"spiffe://example.org/by-{name}/{uid}" for name in ("path", "digest")} == set(found)

    def test_forged_by_a_bind_mount(self, agent: AgentProcess, admin: Admin, client: Path, uid: int) -> None:
        """A program mounted over a trusted path in namespaces of a user's own gets no path, and `explain` says why."""
        good = published("/bin/true", agent.folder, f"good-{uid}")
        admin.register(f"/trusted/{uid}", f"unix:uid:{uid}", f"unix:path:{good}")
        script = f"mount --bind {client} {good} && exec {good} watch -updates 9 -timeout 60s"
        with Program(["unshare", "-Urm", "sh", "-c", script], agent.environment, uid=uid) as forger:
            heard = forger.hear()
            explained = admin.explain(forger.pid)
        assert ("error", "PERMISSION_DENIED") == (heard["event"], heard["code"])
        assert str(good) == explained.exe
        assert [] == [each for each in explained.selectors if each.startswith("unix:path:")]
        assert f"unix:sha256:{sha256(client)}" in explained.selectors
        assert "another mount namespace" in {each.what: each.reason for each in explained.withheld}["unix:path"]
        assert "another mount namespace" in explained.conclusion

    def test_in_another_root_folder(self, agent: AgentProcess, admin: Admin, client: Path, uid: int) -> None:
        """A program that runs in a mount namespace of its own has no path, only a digest."""
        admin.register(f"/digest-only/{uid}", f"unix:uid:{uid}", f"unix:sha256:{sha256(client)}")
        admin.register(f"/path-too/{uid}", f"unix:uid:{uid}", f"unix:path:{client}")
        command = ["unshare", "-m", *as_user(uid), str(client), "watch"]
        with Program(command, agent.environment) as program:
            assert [f"spiffe://example.org/digest-only/{uid}"] == program.hear()["spiffe_ids"]

    @pytest.mark.parametrize("how", ["deleted", "replaced"])
    def test_that_is_there_no_more(self, agent: AgentProcess, admin: Admin, client: Path, uid: int, how: str) -> None:
        """A program that was deleted or replaced after its start has no path; its digest is of what runs."""
        program = published(client, agent.folder, f"program-{uid}")
        admin.register(f"/gone/{uid}", f"unix:uid:{uid}", f"unix:path:{program}")
        command = [str(program), "watch", "-updates", "9", "-timeout", "60s"]
        with Program(command, agent.environment, uid=uid) as running:
            assert [f"spiffe://example.org/gone/{uid}"] == running.hear()["spiffe_ids"]
            if how == "deleted":
                program.unlink()
            else:
                published("/bin/true", agent.folder, f"new-{uid}").rename(program)
            explained = admin.explain(running.pid)
        assert f"unix:sha256:{sha256(client)}" in explained.selectors
        assert [] == [each for each in explained.selectors if each.startswith("unix:path:")]
        assert "deleted or replaced" in {each.what: each.reason for each in explained.withheld}["unix:path"]

    def test_that_was_replaced_under_a_deleted_name(
        self, agent: AgentProcess, admin: Admin, client: Path, uid: int
    ) -> None:
        """A file whose name looks like the kernel's mark of a deleted program does not lend it a path."""
        program = published(client, agent.folder, f"marked-{uid}")
        with Program([str(program), "watch", "-timeout", "60s"], agent.environment, uid=uid) as running:
            running.hear()
            program.unlink()
            published("/bin/true", agent.folder, f"marked-{uid} (deleted)")
            found = selectors(admin, running.pid)
        assert [] == [each for each in found if each.startswith("unix:path:")]

    def test_too_large_to_hash(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """A program over the size limit is not hashed; the reason is told and the path is given all the same."""
        program = published(SLEEP, agent.folder, f"large-{uid}")
        os.truncate(program, 2 * 1024**3)
        with Borrowed(agent.socket, uid) as borrowed:
            borrowed.tell(f"exec {program} 60")
            until(lambda: os.readlink(f"/proc/{borrowed.pid}/exe") == str(program))
            explained = admin.explain(borrowed.pid)
        assert f"unix:path:{program}" in explained.selectors
        assert "larger than" in {each.what: each.reason for each in explained.withheld}["unix:sha256"]


class TestChanges:
    def test_another_program_on_the_same_connection(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """After an exec into a registered program, a call on the old connection is refused, not answered as it."""
        admin.register(f"/python/{uid}", f"unix:uid:{uid}", f"unix:path:{os.path.realpath(sys.executable)}")
        admin.register(f"/sleep/{uid}", f"unix:uid:{uid}", f"unix:path:{SLEEP}")
        with Borrowed(agent.socket, uid) as borrowed, borrowed.wire() as wire:
            assert [f"spiffe://example.org/python/{uid}"] == wire.x509_ids()
            borrowed.tell(f"exec {SLEEP} 60")
            until(lambda: os.readlink(f"/proc/{borrowed.pid}/exe") == SLEEP)
            assert ("UNAVAILABLE", True) == ((told := refusal(wire.x509))[0], "connect again" in told[1])

    def test_another_program_on_an_open_stream(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """After an exec nothing of the old program's identity is pushed on a stream that is open."""
        made = admin.register(f"/old/{uid}", f"unix:uid:{uid}", f"unix:path:{os.path.realpath(sys.executable)}")
        with Borrowed(agent.socket, uid) as borrowed, borrowed.wire() as wire:
            stream = wire.x509_stream()
            next(stream)
            borrowed.tell(f"exec {SLEEP} 60")
            until(lambda: os.readlink(f"/proc/{borrowed.pid}/exe") == SLEEP)
            made.hint = "changed"
            admin.update(made)
            assert refusal(lambda: next(stream))[0] in {"PERMISSION_DENIED", "UNAVAILABLE"}

    @pytest.mark.parametrize("first", [True, False], ids=["before", "between calls"])
    def test_of_user(self, agent: AgentProcess, admin: Admin, uid: int, first: bool) -> None:
        """A process that has changed its user since it connected is refused, as the old user and as the new."""
        admin.register(f"/dropped/{uid}", f"unix:uid:{uid}")
        admin.register(f"/root/{uid}", "unix:uid:0")
        with Borrowed(agent.socket) as borrowed, borrowed.wire() as wire:
            if not first:
                assert f"spiffe://example.org/root/{uid}" in wire.x509_ids()
            borrowed.tell(f"user {uid}")
            assert "UNAVAILABLE" == refusal(wire.x509)[0]

    def test_to_a_setuid_program(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """A process that has become a setuid program of root is refused, and is not taken for root."""
        program = published(SLEEP, agent.folder, f"setuid-{uid}")
        program.chmod(0o4755)
        admin.register(f"/user/{uid}", f"unix:uid:{uid}")
        admin.register(f"/setuid-root/{uid}", "unix:uid:0")
        with Borrowed(agent.socket, uid) as borrowed, borrowed.wire() as wire:
            borrowed.tell(f"exec {program} 60")
            until(lambda: os.stat(f"/proc/{borrowed.pid}").st_uid == 0)
            assert "UNAVAILABLE" == refusal(wire.x509)[0]

    def test_of_the_name(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """A process whose name looks like fields of /proc is attested by the true ones."""
        admin.register(f"/named/{uid}", f"unix:uid:{uid}")
        with Borrowed(agent.socket, uid) as borrowed, borrowed.wire() as wire:
            borrowed.tell("name ) S 1 1 (\x1b[31m")
            assert [f"spiffe://example.org/named/{uid}"] == wire.x509_ids()


class TestPassedConnections:
    def test_serve_as_their_owner_while_it_lives(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """Who gives its connection away gives its identity away: the owner is served, whoever holds the socket."""
        admin.register(f"/owner/{uid}", f"unix:uid:{uid}")
        with wire_of(agent.socket, uid) as wire:
            assert [f"spiffe://example.org/owner/{uid}"] == wire.x509_ids()

    def test_are_dead_with_their_owner(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """When the owner has ended, its streams are closed and the socket is good for nothing."""
        admin.register(f"/heir/{uid}", f"unix:uid:{uid}")
        with Borrowed(agent.socket, uid) as borrowed, borrowed.wire() as wire:
            stream = wire.x509_stream()
            next(stream)
            borrowed.tell("exit")
            borrowed.process.wait()
            assert "UNAVAILABLE" == refusal(lambda: next(stream))[0]
            assert "UNAVAILABLE" == refusal(wire.x509)[0]
            assert [] == admin.streams_of(borrowed.pid)

    def test_are_dead_before_their_first_byte(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """A connection whose owner ended before anything was sent is closed too, though root uses it."""
        admin.register(f"/first/{uid}", f"unix:uid:{uid}")
        with Borrowed(agent.socket, uid) as borrowed:
            borrowed.tell("exit")
            borrowed.process.wait()
            borrowed.connection.settimeout(10)
            assert b"" == borrowed.connection.recv(1)


class TestNamespaces:
    def test_of_processes(self, agent: AgentProcess, admin: Admin, client: Path, uid: int) -> None:
        """A process in a namespace of processes below ours is attested by its own properties."""
        admin.register(f"/in-pidns/{uid}", f"unix:uid:{uid}", f"unix:path:{client}")
        command = ["unshare", "-pf", "--kill-child", *as_user(uid), str(client), "x509"]
        with Program(command, agent.environment) as program:
            assert f"spiffe://example.org/in-pidns/{uid}" == program.hear()["spiffe_id"]

    def test_of_users(self, agent: AgentProcess, admin: Admin, client: Path, uid: int) -> None:
        """Root of a user namespace is the user who made it, and is not root."""
        admin.register(f"/in-userns/{uid}", f"unix:uid:{uid}", f"unix:gid:{uid}")
        admin.register(f"/root-only/{uid}", "unix:uid:0")
        with Program(["unshare", "-Ur", str(client), "watch"], agent.environment, uid=uid) as program:
            assert [f"spiffe://example.org/in-userns/{uid}"] == program.hear()["spiffe_ids"]

    @pytest.mark.forked
    def test_where_the_agent_cannot_see(self, uid: int) -> None:
        """An agent that cannot see a caller's process, being in a namespace below it, refuses the connection."""
        with Below() as hidden, wire_of(hidden.socket, uid) as wire:
            assert "UNAVAILABLE" == refusal(wire.x509)[0]


class Below(AgentProcess):
    """An agent in a namespace of processes of its own, which its callers are not in."""

    def __init__(self) -> None:
        super().__init__(under=("unshare", "-pf", "--kill-child", "--mount-proc"))

    def stop(self, number: int = signal.SIGKILL) -> int:
        """Kill it: `unshare` passes no other signal on."""
        return super().stop(signal.SIGKILL)


@pytest.fixture(scope="class")
def humble() -> Iterator[AgentProcess]:
    """An agent that an ordinary user runs for itself."""
    own = AgentProcess(config='[tasks]\ntypes_dir = "types"\n', as_user=4499)
    (own.folder / "types").mkdir()
    with own as running:
        yield running


class TestAnOrdinaryUsersAgent:
    def test_serves_its_user(self, humble: AgentProcess) -> None:
        """An agent of an ordinary user serves that user's processes by user and group."""
        with Admin(humble.admin_socket) as admin:
            admin.register("/mine", "unix:uid:4499", "unix:gid:4499")
            with wire_of(humble.socket, 4499) as wire:
                assert ["spiffe://example.org/mine"] == wire.x509_ids()

    def test_proves_its_users_programs(self, humble: AgentProcess, go_client: Path) -> None:
        """An agent of an ordinary user can prove path and digest of an ordinary process of that user."""
        client = published(go_client, humble.folder, "client")
        with Admin(humble.admin_socket) as admin:
            admin.register("/program", "unix:uid:4499", f"unix:path:{client}", f"unix:sha256:{sha256(client)}")
            with Program([str(client), "x509"], humble.environment, uid=4499) as program:
                assert "spiffe://example.org/program" == program.hear()["spiffe_id"]

    def test_says_what_it_cannot_prove(self, humble: AgentProcess, uid: int) -> None:
        """Of another user's process it proves the ids, withholds the program with the reason, and serves it so."""
        with Admin(humble.admin_socket) as admin:
            admin.register("/yours", f"unix:uid:{uid}")
            with Borrowed(humble.socket, uid) as borrowed, borrowed.wire() as wire:
                assert ["spiffe://example.org/yours"] == wire.x509_ids()
                explained = admin.explain(borrowed.pid)
            reasons = {each.what: each.reason for each in explained.withheld}
            [limitation] = admin.status().limitations
        assert f"unix:uid:{uid}" in explained.selectors
        assert [] == [each for each in explained.selectors if each.startswith(("unix:path:", "unix:sha256:"))]
        assert "CAP_SYS_PTRACE" in reasons["unix:path"]
        assert "CAP_SYS_PTRACE" in reasons["unix:sha256"]
        assert "CAP_SYS_PTRACE" in limitation.reason

    @pytest.mark.forked
    def test_an_entry_that_needs_what_cannot_be_proved(self, humble: AgentProcess, uid: int) -> None:
        """Where only the program is missing, the conclusion of `explain` says that it could not be proved, and why."""
        with Admin(humble.admin_socket) as admin:
            admin.register("/unprovable", f"unix:uid:{uid}", "unix:path:/usr/bin/python3")
            with Borrowed(humble.socket, uid) as borrowed, borrowed.wire() as wire:
                assert NO_IDENTITY == refusal(wire.x509)
                conclusion = admin.explain(borrowed.pid).conclusion
        assert "unix:path could not be proved" in conclusion
        assert "CAP_SYS_PTRACE" in conclusion

    def test_root_has_no_limitations(self, admin: Admin) -> None:
        """An agent of root's has no such limitation."""
        assert [] == list(admin.status().limitations)


class TestExplain:
    def test_of_nobody(self, admin: Admin) -> None:
        """A process that is not there is not found; no process is an invalid argument."""
        process = subprocess.Popen(["/bin/true"])
        process.wait()
        assert "NOT_FOUND" == refusal(lambda: admin.explain(process.pid))[0]
        assert "INVALID_ARGUMENT" == refusal(lambda: admin.explain(0))[0]

    def test_of_an_ended_process_that_nobody_collected(self, admin: Admin) -> None:
        """A zombie is not attested, and nothing breaks."""
        with subprocess.Popen(["/bin/true"]) as process:
            until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
            assert refusal(lambda: admin.explain(process.pid))[0] in {"NOT_FOUND", "UNAVAILABLE"}

    def test_of_one_whose_first_thread_has_ended(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """A process whose first thread has ended, so that the kernel tells no program of it, is refused, and nothing breaks."""
        admin.register(f"/left/{uid}", f"unix:uid:{uid}")
        with Borrowed(agent.socket, uid) as borrowed, borrowed.wire() as wire:
            assert [f"spiffe://example.org/left/{uid}"] == wire.x509_ids()
            borrowed.tell("leave")
            stat = Path(f"/proc/{borrowed.pid}/stat")
            until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z")
            assert len(os.listdir(f"/proc/{borrowed.pid}/task")) > 1
            assert "UNAVAILABLE" == refusal(wire.x509)[0]
            assert refusal(lambda: admin.explain(borrowed.pid))[0] in {"NOT_FOUND", "UNAVAILABLE"}
        assert [] == [line for line in agent.log_lines() if line["event"] in {"attestor_raised", "call_failed"}]

    def test_of_a_near_miss(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """The nearest entry is named, with what the process lacks for it."""
        made = admin.register(f"/near/{uid}", f"unix:uid:{uid}", f"unix:gid:{uid}", "unix:supplementary_gid:1")
        with Borrowed(agent.socket, uid) as borrowed:
            explained = admin.explain(borrowed.pid)
        [verdict] = [each for each in explained.verdicts if each.entry_id == made.id]
        assert ("missing_selectors", ["unix:supplementary_gid:1"]) == (verdict.verdict, list(verdict.missing))
        assert "also asks for unix:supplementary_gid:1" in explained.conclusion


def test_the_harness_runs_setuid_programs(tmp_path: Path) -> None:
    """The folder of these tests obeys setuid bits: otherwise a test here would prove nothing."""
    copy = shutil.copyfile(SLEEP, tmp_path / "sleep")
    copy.chmod(0o4755)
    assert stat.S_ISUID & copy.stat().st_mode
    assert 0 == os.statvfs("/tmp").f_flag & os.ST_NOSUID
