"""Starting and stopping: what the agent refuses, what it leaves alone, and how it says so."""

import os
import re
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.agent import AgentProcess
from harness.raw import Admin, Wire, refusal
from harness.starting import ENDS_SECONDS, refused, start, unstarted


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    with unstarted() as own:
        yield own


def configured(agent: AgentProcess, text: str) -> tuple[int, list[str]]:
    """Start with a configuration that must be refused."""
    path = agent.folder / "agent.toml"
    path.write_text(text)
    status, lines = start(agent, "--config", str(path))
    return status, [line.replace(str(path), "agent.toml") for line in lines]


class TestSocketPaths:
    @pytest.mark.forked
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

    @pytest.mark.forked
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

    @pytest.mark.forked
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

    @pytest.mark.forked
    def test_symlink_to_a_live_socket(self, agent: AgentProcess) -> None:
        """A symlink is not followed, even to a socket."""
        target = agent.folder / "live"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(target))
            listener.listen()
            os.symlink(target, agent.socket)
            assert "is not a socket" in refused(agent)
        assert os.path.islink(agent.socket)

    @pytest.mark.forked
    def test_in_a_folder_that_others_may_write(self, agent: AgentProcess) -> None:
        """In a folder where others may replace the socket none is made."""
        os.chmod(agent.folder / "run", 0o777)
        assert "can be written by others" in refused(agent)

    @pytest.mark.forked
    def test_too_long(self, agent: AgentProcess) -> None:
        """A path that no socket can have is refused as such."""
        agent.socket = str(agent.folder / ("s" * 120))
        assert "longer than a Unix socket's may be" in refused(agent)

    @pytest.mark.forked
    def test_abstract(self, agent: AgentProcess) -> None:
        """An abstract address, which has no permissions, is refused."""
        status, lines = start(agent, "--socket", "unix-abstract:x")
        assert (True, True) == (status in {1, 2}, lines[0].startswith("error: "))

    def test_removed_at_the_end(self, agent: AgentProcess) -> None:
        """An agent that is stopped leaves no socket behind."""
        with agent:
            agent.stop()
            assert [] == os.listdir(agent.folder / "run")


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
    @pytest.mark.forked
    def test_all_faults_at_once(self, agent: AgentProcess) -> None:
        """Every fault is told in one line, with its place and its key, and nothing has been made."""
        status, lines = configured(agent, "\n".join(text for text, _ in FAULTS))
        expected = [f"error: agent.toml:{line}: {key}: " for line, (_, key) in enumerate(FAULTS, 1) if key]
        assert 2 == status
        assert [] == [start for start in expected if not any(line.startswith(start) for line in lines)]
        assert len(expected) == len(lines)
        assert not Path(agent.socket).exists()

    @pytest.mark.forked
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

    @pytest.mark.forked
    def test_attestors(self, agent: AgentProcess) -> None:
        """Attestors check their own tables: all faults of all of them are told, and which ones are installed."""
        status, lines = configured(agent, '[attestors.unix]\npaths = true\nsha256 = "yes"\n[attestors.slurm]\n')
        assert 2 == status
        assert [
            "error: attestors.slurm: no such attestor is installed; there are: docker, k8s, systemd, unix [invalid_config]",
            "error: attestors.unix.paths: unknown key; there are path, sha256, sha256_max_bytes, names, cgroup [invalid_config]",
            "error: attestors.unix.sha256: must be true or false [invalid_config]",
        ] == sorted(lines)

    @pytest.mark.forked
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
        """A folder of task types that is named and is not there is told in a line after that with `ready`."""
        agent.config = agent.folder / "agent.toml"
        agent.config.write_text('[tasks]\ntypes_dir = "nowhere"\n')
        with agent:
            assert agent.process is not None
            assert agent.process.stdout is not None
            line = agent.process.stdout.readline()
            assert line.startswith(f"warning: the task types in '{agent.folder}/nowhere' cannot be used: ")


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


@pytest.mark.forked
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
