"""Starting and stopping: what the agent refuses, what it leaves alone, and how it says so."""

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.agent import COMMAND, AgentProcess, clean_environment
from harness.raw import Admin, Wire, entry, refusal
from sojourn.store import tables

ENDS_SECONDS = 20


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    """A folder for an agent that the test starts itself."""
    own = AgentProcess(folder=Path(tempfile.mkdtemp(prefix="sojourn-test-", dir="/tmp")))
    (own.folder / "run").mkdir()
    yield own
    own.__exit__()
    shutil.rmtree(own.folder)


@pytest.fixture
def stopped(agent: AgentProcess) -> AgentProcess:
    """An agent that has run once, with 200 entries, and was stopped."""
    with agent:
        with Admin(agent.admin_socket) as admin:
            admin.create(*(entry(f"/n/{n}", f"unix:uid:{n}") for n in range(200)))
        agent.stop()
    return agent


def start(agent: AgentProcess, *extra: str, before: tuple[str, ...] = ()) -> tuple[int, list[str]]:
    """Start what must fail to start; the exit status and the lines for people. Raise TimeoutExpired if it runs."""
    done = subprocess.run(
        [*before, *COMMAND, "agent", "run", *agent.places, *extra],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=ENDS_SECONDS,
        cwd=agent.folder,
        check=False,
    )
    assert "" == done.stdout
    assert "Traceback" not in done.stderr
    return done.returncode, [line for line in done.stderr.splitlines() if not line.startswith(("{", "next:"))]


def refused(agent: AgentProcess, *extra: str, before: tuple[str, ...] = ()) -> str:
    """Start what the agent must refuse with an error of at most three lines, and return that."""
    status, lines = start(agent, *extra, before=before)
    assert (1, True) == (status, 1 <= len(lines) <= 3)
    assert lines[0].startswith("error: ")
    return "\n".join(lines)


def configured(agent: AgentProcess, text: str) -> tuple[int, list[str]]:
    """Start with a configuration that must be refused."""
    path = agent.folder / "agent.toml"
    path.write_text(text)
    status, lines = start(agent, "--config", str(path))
    return status, [line.replace(str(path), "agent.toml") for line in lines]


class TestSocketPaths:
    @pytest.mark.parametrize("which", ["socket", "admin_socket"])
    def test_taken_by_another_agent(self, agent: AgentProcess, which: str) -> None:
        """An agent does not take the socket of one that runs: it says so, and the other goes on."""
        with AgentProcess() as other:
            setattr(agent, which, getattr(other, which))
            text = refused(agent)
            with Admin(other.admin_socket) as admin:
                admin.register("/a", f"unix:uid:{os.getuid()}")
            with Wire(other.socket) as wire:
                assert ["spiffe://example.org/a"] == wire.x509_ids()
        assert "something answers at" in text

    def test_taken_by_a_listener(self, agent: AgentProcess) -> None:
        """A socket that anything listens on is left alone."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(agent.socket)
            listener.listen()
            before = os.lstat(agent.socket).st_ino
            assert "something answers at" in refused(agent)
            assert before == os.lstat(agent.socket).st_ino

    def test_stale(self, agent: AgentProcess) -> None:
        """A socket that nobody listens on any more is replaced, also after kill -9."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(agent.socket)
        with agent:
            agent.kill()
            assert stat.S_ISSOCK(os.lstat(agent.socket).st_mode)
            agent.start()
            with Admin(agent.admin_socket) as admin:
                assert 0 == admin.status().entries

    @pytest.mark.parametrize(
        ("which", "kind"),
        [
            ("socket", "file"),
            ("admin_socket", "file"),
            ("socket", "folder"),
            ("admin_socket", "FIFO"),
            ("socket", "symlink to a file"),
            ("admin_socket", "symlink to nowhere"),
        ],
    )
    def test_taken_by_something_else(self, agent: AgentProcess, which: str, kind: str) -> None:
        """Whatever is no socket is left untouched, and the agent says what to do."""
        path = Path(getattr(agent, which))
        target = agent.folder / "precious"
        if kind == "file":
            path.write_text("precious")
        elif kind == "folder":
            path.mkdir()
        elif kind == "FIFO":
            os.mkfifo(path)
        else:
            path.symlink_to(target)
            if "file" in kind:
                target.write_text("precious")
        before = os.lstat(path)
        text = refused(agent)
        after = os.lstat(path)
        assert (before.st_ino, before.st_mode, before.st_mtime_ns) == (after.st_ino, after.st_mode, after.st_mtime_ns)
        assert (kind == "symlink to a file") == target.exists()
        assert "is not a socket: it was left alone" in text

    def test_symlink_to_a_live_socket(self, agent: AgentProcess) -> None:
        """A symlink is not followed, even to a socket."""
        target = agent.folder / "live"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(target))
            listener.listen()
            os.symlink(target, agent.socket)
            assert "is not a socket" in refused(agent)
        assert os.path.islink(agent.socket)

    def test_in_a_folder_that_others_may_write(self, agent: AgentProcess) -> None:
        """In a folder where others may replace the socket none is made."""
        os.chmod(agent.folder / "run", 0o777)
        assert "can be written by others" in refused(agent)

    def test_too_long(self, agent: AgentProcess) -> None:
        """A path that no socket can have is refused as such."""
        agent.socket = str(agent.folder / ("s" * 120))
        assert "longer than a Unix socket's may be" in refused(agent)

    def test_abstract(self, agent: AgentProcess) -> None:
        """An abstract address, which has no permissions, is refused."""
        status, lines = start(agent, "--socket", "unix-abstract:x")
        assert (True, True) == (status in {1, 2}, lines[0].startswith("error: "))

    def test_removed_at_the_end(self, agent: AgentProcess) -> None:
        """An agent that is stopped leaves no socket behind."""
        with agent:
            agent.stop()
            assert [] == os.listdir(agent.folder / "run")


class TestDataFolder:
    def test_in_use(self, agent: AgentProcess) -> None:
        """A second agent on one data folder is refused and told which process has it."""
        with AgentProcess() as other:
            agent.data_dir = other.data_dir
            assert f"another agent (process {other.pid}) uses the data folder" in refused(agent)

    def test_in_use_without_its_lock_file(self, agent: AgentProcess) -> None:
        """Removing the lock file of an agent that runs lets no second one at its database."""
        with AgentProcess() as other:
            (other.data_dir / "lock").unlink()
            agent.data_dir = other.data_dir
            assert "uses the data folder" in refused(agent)

    def test_freed_by_kill(self, agent: AgentProcess) -> None:
        """The lock of an agent that was killed is gone with it."""
        with agent:
            agent.kill()
            agent.start()

    @pytest.mark.root
    def test_on_a_read_only_file_system(self, agent: AgentProcess) -> None:
        """A data folder on a read-only file system is refused with the reason."""
        agent.data_dir.mkdir(mode=0o700)
        mount = f'mount -t tmpfs -o ro,mode=700 tmpfs {agent.data_dir} && exec "$@"'
        text = refused(agent, before=("unshare", "-m", "sh", "-c", mount, "sh"))
        assert "Read-only file system" in text

    @pytest.mark.root
    def test_of_another_user(self, agent: AgentProcess) -> None:
        """A data folder of another user is refused, even by root."""
        agent.data_dir.mkdir(mode=0o700)
        os.chown(agent.data_dir, 4401, 4401)
        assert "is not a folder of user 0's" in refused(agent)

    def test_that_others_may_write(self, agent: AgentProcess) -> None:
        """A data folder that others may write is refused with what to do."""
        agent.data_dir.mkdir()
        os.chmod(agent.data_dir, 0o777)
        assert "chmod go-w" in refused(agent)

    def test_that_is_a_file(self, agent: AgentProcess) -> None:
        """A file in place of the data folder is refused and left alone."""
        agent.data_dir.write_text("precious")
        assert "cannot make the data folder" in refused(agent)
        assert "precious" == agent.data_dir.read_text()

    def test_of_another_trust_domain(self, stopped: AgentProcess) -> None:
        """The keys of one trust domain do not serve another."""
        text = refused(stopped, "--trust-domain", "other.org")
        assert "is not a root of trust domain" in text
        assert "--data-dir" in text
        with stopped:
            assert 0 == stopped.stop()


class TestKeys:
    @pytest.mark.parametrize("mode", [0o644, 0o620])
    def test_that_others_may_read(self, stopped: AgentProcess, mode: int) -> None:
        """A key file that others may read is refused, whichever it is."""
        for key in sorted((stopped.data_dir / "keys").iterdir()):
            key.chmod(mode)
            assert f"{str(key)!r} can be read by others: chmod 600 it" in refused(stopped)
            key.chmod(0o600)

    @pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\n"])
    def test_that_are_damaged(self, stopped: AgentProcess, content: bytes) -> None:
        """A damaged key file is refused and not written over."""
        for key in sorted((stopped.data_dir / "keys").iterdir()):
            good = key.read_bytes()
            key.write_bytes(content)
            assert str(key) in refused(stopped)
            assert content == key.read_bytes()
            key.write_bytes(good)

    @pytest.mark.root
    @pytest.mark.parametrize("spoil", [lambda keys: keys.chmod(0o777), lambda keys: os.chown(keys, 4401, 4401)])
    def test_in_a_folder_that_others_may_write(self, stopped: AgentProcess, spoil: Callable[[Path], None]) -> None:
        """Keys are not taken from a folder into which others may have put them."""
        spoil(stopped.data_dir / "keys")
        assert str(stopped.data_dir / "keys") in refused(stopped)

    def test_that_are_no_folder(self, agent: AgentProcess) -> None:
        """A file in the place of the folder of keys is refused and left alone."""
        agent.data_dir.mkdir(mode=0o700)
        (agent.data_dir / "keys").write_text("precious")
        assert "cannot make the folder" in refused(agent)
        assert "precious" == (agent.data_dir / "keys").read_text()

    def test_that_are_symlinks(self, stopped: AgentProcess) -> None:
        """A key file is not read through a symlink."""
        [*_, key] = sorted((stopped.data_dir / "keys").iterdir())
        key.rename(stopped.folder / "elsewhere")
        key.symlink_to(stopped.folder / "elsewhere")
        assert "cannot be read" in refused(stopped)


class TestDatabase:
    @pytest.mark.parametrize("damage", ["garbage", "header", "page", "cut", "empty", "foreign", "newer"])
    def test_that_is_damaged(self, stopped: AgentProcess, damage: str) -> None:
        """A database that is damaged, empty, foreign or from the future is refused, and stays as it is."""
        path = stopped.data_dir / "sojourn.db"
        _damage(path, damage)
        before = path.read_bytes()
        text = refused(stopped)
        assert before == path.read_bytes()
        assert "database" in text

    @pytest.mark.parametrize("kind", ["symlink", "folder", "writable by others"])
    def test_that_is_not_a_file_of_its_own(self, agent: AgentProcess, kind: str) -> None:
        """A database file that others may have made or may write is refused."""
        agent.data_dir.mkdir(mode=0o700)
        path = agent.data_dir / "sojourn.db"
        if kind == "symlink":
            path.symlink_to(agent.folder / "elsewhere")
        elif kind == "folder":
            path.mkdir()
        else:
            path.touch()
            path.chmod(0o666)
        assert "database" in refused(agent)
        assert not (agent.folder / "elsewhere").exists()

    @pytest.mark.parametrize("table", sorted(tables.metadata.tables))
    def test_without_one_of_its_tables(self, stopped: AgentProcess, table: str) -> None:
        """A database that has lost a table, as of a backup in part, is refused: an empty one would be taken for it."""
        _sqlite(stopped.data_dir / "sojourn.db", f"DROP TABLE {table}")
        assert table in refused(stopped)

    @pytest.mark.parametrize(
        ("statement", "says"),
        [
            ("INSERT INTO entries VALUES ('a', 'b', 'no JSON')", "the database's entries cannot be read"),
            ("INSERT INTO revocations VALUES ('x509:1', 99999999999, '{}')", "revocations cannot be read: KeyError"),
            ("INSERT INTO bundles VALUES ('other.org', '[')", "foreign bundles cannot be read"),
            ("INSERT INTO settings VALUES ('task_blocks', '[{}]')", "task blocks cannot be read"),
            ("INSERT INTO settings VALUES ('reviews_owed', '7')", "reviews owed cannot be read"),
            ("DELETE FROM alembic_version", "does not say of which schema it is"),
            ("UPDATE alembic_version SET version_num = 'new'", "does not say of which schema it is"),
        ],
    )
    def test_rows_that_no_agent_wrote(self, stopped: AgentProcess, statement: str, says: str) -> None:
        """What cannot be read is said in one sentence and never left out: a revocation or a switch would be undone."""
        _sqlite(stopped.data_dir / "sojourn.db", statement)
        assert says in refused(stopped)

    def test_of_another_trust_domain(self, agent: AgentProcess) -> None:
        """Where the keys were moved away, entries of another trust domain are not signed by the new ones."""
        with agent:
            agent.register("/web", "unix:uid:0")
        shutil.rmtree(agent.data_dir / "keys")
        text = refused(agent, "--trust-domain", "other.org")
        assert '"spiffe://example.org/web" is not a member of trust domain "other.org"' in text

    def test_that_is_gone(self, stopped: AgentProcess) -> None:
        """An agent whose database was removed starts anew, and says that it has lost what was in it."""
        (stopped.data_dir / "sojourn.db").unlink()
        self.check_told(stopped, "database_lost")

    def test_whose_keys_are_gone(self, stopped: AgentProcess) -> None:
        """An agent whose keys were removed makes a new root, and says that the old one's signatures count no more."""
        shutil.rmtree(stopped.data_dir / "keys")
        self.check_told(stopped, "root_lost")

    def test_that_was_put_back(self, stopped: AgentProcess, tmp_path: Path) -> None:
        """An agent on a database of earlier says that it has forgotten what came since, and counts its starts on:
        validators take no feed of an epoch that was.
        """
        path = stopped.data_dir / "sojourn.db"
        shutil.copy(path, tmp_path)
        for _ in range(2):
            stopped.start()
            epoch = stopped.json("status")["epoch"]
            stopped.run("svid", "revoke", "--spiffe-id", "spiffe://example.org/n/7")
            stopped.stop()
        for each in (*stopped.data_dir.glob("sojourn.db-*"), path):
            each.unlink()
        shutil.copy(tmp_path / "sojourn.db", path)
        path.chmod(0o600)
        self.check_told(stopped, "database_restored")
        stopped.start()
        assert epoch + 3 == stopped.json("status")["epoch"]

    def test_whose_number_of_starts_cannot_be_read(self, stopped: AgentProcess) -> None:
        """A file of the last start's number that says none is refused, in one sentence with the cure."""
        (stopped.data_dir / "epoch").write_text("x\n")
        assert "does not say the number of the last start: remove it" in refused(stopped)

    @staticmethod
    def check_told(agent: AgentProcess, event: str) -> None:
        """It is told once, in status and audit, and not at the next start."""
        for told in ([event], []):
            agent.start()
            assert told == [each["what"] for each in agent.json("status")["failures"]]
            agent.stop()


def _damage(path: Path, damage: str) -> None:
    """Damage the SQLite file at `path`, which is whole: its agent has stopped."""
    good = path.read_bytes()
    match damage:
        case "garbage":
            path.write_bytes(os.urandom(8_192))
        case "header":
            path.write_bytes(b"X" + good[1:])
        case "page":
            path.write_bytes(good[:4_096] + b"\xff" * 4_096 + good[8_192:])
        case "cut":
            path.write_bytes(good[: len(good) // 2])
        case "empty":
            path.write_bytes(b"")
        case "foreign":
            path.unlink()
            _sqlite(path, "CREATE TABLE other (x)")
        case "newer":
            _sqlite(path, "UPDATE alembic_version SET version_num = '9999'")
    path.chmod(0o600)


def _sqlite(path: Path, statement: str) -> None:
    import sqlite3

    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


FAULTS = [  # a line of the file, and the key that is at fault in it
    ('trust_domain = "Not Good"', "trust_domain"),
    ("speling = 1", "speling"),
    ('node_name = "a/b"', "node_name"),
    ('node_aliases = ["nonsense"]', "node_aliases"),
    ("authority = 3", "authority"),
    ("[identity]", ""),
    ('x509_svid_ttl = "9s"', "identity.x509_svid_ttl"),
    ('jwt_svid_ttl = "soon"', "identity.jwt_svid_ttl"),
    ("x509_ttl = 1", "identity.x509_ttl"),
    ("[log]", ""),
    ("level = 7", "log.level"),
    ("[limits]", ""),
    ('connections_per_uid = "many"', "limits.connections_per_uid"),
    ("connections_per_uid_per_second = 0", "limits.connections_per_uid_per_second"),
    ("[metrics]", ""),
    ('listen = "9464"', "metrics.listen"),
    ("[tasks]", ""),
    ('issuer = "http://a"', "tasks.issuer"),
    ("[nothing]", "nothing"),
]


class TestConfiguration:
    def test_all_faults_at_once(self, agent: AgentProcess) -> None:
        """Every fault is told in one line, with its place and its key, and nothing has been made."""
        status, lines = configured(agent, "\n".join(text for text, _ in FAULTS))
        expected = [f"error: agent.toml:{line}: {key}: " for line, (_, key) in enumerate(FAULTS, 1) if key]
        assert 2 == status
        assert [] == [start for start in expected if not any(line.startswith(start) for line in lines)]
        assert len(expected) == len(lines)
        assert not Path(agent.socket).exists()

    @pytest.mark.parametrize(
        ("text", "line"),
        [("trust_domain = \n", 1), ("[log]\n[identity\n", 2), ('trust_domain = "a"\ntrust_domain = "b"\n', 2)],
    )
    def test_what_is_not_toml(self, agent: AgentProcess, text: str, line: int) -> None:
        """A file that is not TOML is refused with the line."""
        status, [said] = configured(agent, text)
        assert 2 == status
        assert said.startswith("error: agent.toml: not TOML: ")
        assert f"line {line}" in said

    def test_attestors(self, agent: AgentProcess) -> None:
        """Attestors check their own tables: all faults of all of them are told, and which ones are installed."""
        status, lines = configured(agent, '[attestors.unix]\npaths = true\nsha256 = "yes"\n[attestors.slurm]\n')
        assert 2 == status
        assert [
            "error: attestors.slurm: no such attestor is installed; there are: docker, k8s, systemd, unix [invalid_config]",
            "error: attestors.unix.paths: unknown key; there are path, sha256, sha256_max_bytes, names, cgroup [invalid_config]",
            "error: attestors.unix.sha256: must be true or false [invalid_config]",
        ] == sorted(lines)

    @pytest.mark.parametrize("kind", ["missing", "FIFO", "not UTF-8"])
    def test_a_file_that_is_none(self, agent: AgentProcess, kind: str) -> None:
        """A configuration that cannot be read is refused with the reason; nothing is waited for."""
        path = agent.folder / "agent.toml"
        if kind == "FIFO":
            os.mkfifo(path)
        elif kind == "not UTF-8":
            path.write_bytes(b"\xff\xfe")
        status, lines = start(agent, "--config", str(path))
        assert (2, 1) == (status, len(lines))

    def test_task_types_that_are_not_there(self, agent: AgentProcess) -> None:
        """A folder of task types that is named and is not there is an error."""
        path = agent.folder / "agent.toml"
        path.write_text('[tasks]\ntypes_dir = "nowhere"\n')
        assert "nowhere" in refused(agent, "--config", str(path))


class TestLife:
    def test_the_ready_line(self, agent: AgentProcess) -> None:
        """One line on standard output says `ready`, with the trust domain and both sockets, once both answer."""
        agent.process = agent.spawn()
        assert agent.process.stdout is not None
        line = agent.process.stdout.readline()
        with Admin(agent.admin_socket) as admin, Wire(agent.socket) as wire:
            assert 0 == admin.status().entries
            assert b"\x08\x01" == wire.unary("/grpc.health.v1.Health/Check", b"", metadata=())
        agent.process.send_signal(signal.SIGTERM)
        rest = agent.process.stdout.read()
        expected = (
            f"sojourn agent ready: trust domain example.org, socket {agent.socket}, admin socket {agent.admin_socket}\n"
        )
        assert (expected, "") == (line, rest)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_an_orderly_end(self, agent: AgentProcess, number: int) -> None:
        """On SIGTERM and SIGINT the streams end with UNAVAILABLE, so that clients come back, and the status is 0."""
        with agent:
            with Admin(agent.admin_socket) as admin:
                admin.register("/a", f"unix:uid:{os.getuid()}")
            with Wire(agent.socket) as wire:
                stream = wire.x509_stream()
                next(stream)
                assert 0 == agent.stop(number)
                assert "UNAVAILABLE" == refusal(lambda: next(stream))[0]
            assert "Traceback" not in agent.log.read_text()

    def test_an_end_with_silent_connections(self, agent: AgentProcess) -> None:
        """Connections that say nothing do not keep the agent from ending."""
        with agent, socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as half:
            silent.connect(agent.socket)
            half.connect(agent.socket)
            half.sendall(b"POST /token HTTP/1.1\r\n")
            assert 0 == agent.stop()

    def test_restarts_keep_the_root(self, agent: AgentProcess) -> None:
        """A bundle that was fetched before a restart is good after it."""
        with agent:
            before = agent.run("bundle", "show").stdout
            agent.stop()
            agent.start()
            assert before == agent.run("bundle", "show").stdout

    def test_no_core_files_and_no_debugger(self, agent: AgentProcess) -> None:
        """The agent forbids core files and is not dumpable: its memory holds keys."""
        with agent:
            limits = Path(f"/proc/{agent.pid}/limits").read_text()
            [core] = [line for line in limits.splitlines() if line.startswith("Max core file size")]
            assert ["0", "0"] == core.split()[4:6]
            assert 0 == Path(f"/proc/{agent.pid}/environ").stat().st_uid

    @pytest.mark.root
    def test_a_home_that_cannot_be_entered(self) -> None:
        """A user whose home folder is closed to it can run an agent: there are no task types there, that is all."""
        with AgentProcess(config="", as_user=4402) as own, Admin(own.admin_socket) as admin:
            assert [] == list(admin.status().task_types)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_again_and_again(agent: AgentProcess, number: signal.Signals) -> None:
    """Signals that arrive while the agent ends change nothing: it drains and exits with 0."""
    with agent:
        assert agent.process is not None
        while agent.process.poll() is None:
            agent.process.send_signal(number)
            time.sleep(0.0005)
        assert 0 == agent.process.returncode


# Sends the process the signal at once whenever it has changed what that does, from the time that `armed` exists.
SIGNALLED_AT_EACH_CHANGE = """
import os, signal
change = signal.signal
def changed(number, handler):
    before = change(number, handler)
    if os.path.exists({armed!r}) and number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        open({armed!r}, "a").write(f"{{int(number)}}\\n")
        os.kill(os.getpid(), number)
    return before
signal.signal = changed
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_at_any_instant(agent: AgentProcess, number: signal.Signals) -> None:
    """There is no instant in the agent's end in which a signal would cut it short."""
    armed = agent.folder / "armed"
    (agent.folder / "sitecustomize.py").write_text(SIGNALLED_AT_EACH_CHANGE.format(armed=str(armed)))
    agent.extra_environment["PYTHONPATH"] = str(agent.folder)
    with agent:
        armed.touch()
        assert 0 == agent.stop(number)
        assert {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} == {int(each) for each in armed.read_text().split()}


def test_told_to_read_again_as_it_starts(agent: AgentProcess) -> None:
    """An agent that starts is not ended by SIGHUP, which has one that runs read its task types again."""
    process = agent.spawn()
    assert process.stdout is not None
    try:
        ends = time.monotonic() + ENDS_SECONDS
        while not int(re.findall(r"SigIgn:\s(\w+)", Path(f"/proc/{process.pid}/status").read_text())[0], 16) & 1:
            assert time.monotonic() < ends
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGHUP)
        assert "ready" in process.stdout.readline()
    finally:
        process.terminate()
        process.communicate(timeout=ENDS_SECONDS)
