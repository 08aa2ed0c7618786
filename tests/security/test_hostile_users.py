"""What users of the machine can do to the agent with nothing but their own processes and files."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from harness.agent import AgentProcess, clean_environment
from harness.borrowed import Borrowed, wire_of
from harness.fuse import Disk, disk
from harness.http2 import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, call_headers, frame, message
from harness.looking import until
from harness.raw import WORKLOAD_API, Admin, Wire, module_agent, over, refusal
from harness.sds import SecretStream
from sojourn.limits import GROUPS_PER_CALLER, SECRET_NAMES_BYTES_PER_UID, SPIFFE_ID_MAX_BYTES

pytestmark = pytest.mark.full

SLOW, OTHER = 4890, 4891
STREAM = (
    PREFACE
    + frame(SETTINGS)
    + frame(HEADERS, END_HEADERS, 1, call_headers(WORKLOAD_API + "FetchX509SVID"))
    + frame(DATA, END_STREAM, 1, message(b""))
)


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with module_agent() as running, Admin(running.admin_socket) as admin:
        admin.register("/self", f"unix:uid:{os.getuid()}")
        admin.register("/other", f"unix:uid:{OTHER}")
        yield running


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Disk]:
    """A file system with this interpreter on it, which every user may run."""
    folder = Path(f"/tmp/sojourn-slow-{os.getpid()}-{time.monotonic_ns()}")
    folder.mkdir(mode=0o755)
    try:
        with disk(folder, Path(os.path.realpath(sys.executable))) as mounted:
            yield mounted
    finally:
        folder.rmdir()


@contextlib.contextmanager
def caller_on(slow: Disk, path: str) -> Iterator[socket.socket]:
    """The connection of a process that runs from the slow file system."""
    script = str(Path(__file__).parent.parent / "harness" / "connector.py")
    here, there = socket.socketpair()
    with here, there:
        process = subprocess.Popen(
            [str(slow.program), script, path, str(there.fileno()), str(SLOW)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[there.fileno()],
            env={**clean_environment(), "PYTHONHOME": sys.base_prefix},
        )
        there.close()
        _, [descriptor], _, _ = socket.recv_fds(here, 1, 1)
    try:
        yield socket.socket(fileno=descriptor)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


@pytest.mark.root
def test_a_file_system_that_stands_still(slow: Disk) -> None:
    """Programs on a file system that answers no more keep an identity that may hang on them from their own user, and
    nothing from anybody else.

    The agent's loop does not wait, its threads do not run out, and it still closes its doors when it is told to.
    """
    with AgentProcess() as agent, Admin(agent.admin_socket) as admin, contextlib.ExitStack() as stack:
        assert agent.process is not None
        stack.callback(slow.end)
        admin.register("/slow", f"unix:uid:{SLOW}")
        admin.register("/slower", f"unix:uid:{SLOW}", f"unix:sha256:{'0' * 64}")
        admin.register("/other", f"unix:uid:{OTHER}")
        admin.register("/late", f"unix:uid:{OTHER + 1}")
        wires = [stack.enter_context(over(stack.enter_context(caller_on(slow, agent.socket)))) for _ in range(12)]
        other = stack.enter_context(wire_of(agent.socket, OTHER))
        assert ["spiffe://example.org/slow"] == wires[0].x509_ids()
        slow.stall()
        calls = [
            wire._channel.unary_unary(WORKLOAD_API + "FetchJWTSVID").future(
                b"\x0a\x01a", metadata=(("workload.spiffe.io", "true"),), timeout=60
            )
            for wire in wires[1:]
        ]
        began = time.monotonic()
        for number in range(20):
            assert ["spiffe://example.org/other"] == other.x509_ids()
            with wire_of(agent.socket, OTHER + 1) as late:
                assert ["spiffe://example.org/late"] == late.x509_ids()
            time.sleep(max(0.0, began + 0.35 * number - time.monotonic()))
        assert {grpc.StatusCode.UNAVAILABLE} == {call.code() for call in calls}
        assert "still being read" in agent.log.read_text()
        agent.process.send_signal(signal.SIGTERM)
        until(lambda: not os.path.exists(agent.socket))
        slow.end()  # until then the kernel lets no process go that waits for it
        assert 0 == agent.stop()


@pytest.fixture
def odd_program(tmp_path: Path) -> Iterator[Path]:
    """A program whose path a terminal would obey, reads as two lines, and is not UTF-8."""
    folder = Path(f"/tmp/sojourn-odd-{os.getpid()}")
    folder.mkdir(mode=0o755)
    path = folder / os.fsdecode(b"\x1b]0;owned\x07\x1b[2Jx\nconclusion: it is served \xe2\x80\xae\xff")
    shutil.copy("/bin/sleep", path)
    yield path
    shutil.rmtree(folder)


def test_paths_that_are_no_text(agent: AgentProcess, odd_program: Path) -> None:
    """A process with such a path is explained all the same, and nothing of it reaches the operator's terminal."""
    with subprocess.Popen([os.fsencode(odd_program), "60"]) as process:
        try:
            with Admin(agent.admin_socket) as admin:
                explained = until(lambda: (found := admin.explain(process.pid)).exe.startswith("/tmp") and found)
            assert "\\xff" in explained.exe
            assert [] == [each for each in explained.selectors if each.startswith("unix:path:")]
            for arguments in ((), ("--output", "json")):
                shown = agent.run("explain", "--pid", str(process.pid), *arguments).stdout
                assert [] == [char for char in shown if not (char.isprintable() or char == "\n")]
                assert [] == [line for line in shown.splitlines() if line.startswith("conclusion: it is served")]
        finally:
            process.kill()


CONNECT = """
import socket, sys, time
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.sendall(bytes.fromhex(sys.argv[2]))
print(flush=True)
sys.stdin.read()
"""


def test_status_of_streams_of_odd_programs(agent: AgentProcess) -> None:
    """A stream of a program whose path is no text does not keep the operator from seeing all streams."""
    folder = Path(f"/tmp/sojourn-odd-python-{os.getpid()}")
    folder.mkdir(mode=0o755)
    program = folder / os.fsdecode(b"py\xff\x1b[2J")
    try:
        shutil.copy(os.path.realpath(sys.executable), program)
        environment = {**clean_environment(), "PYTHONHOME": sys.base_prefix}
        command = [os.fsencode(program), "-c", CONNECT, agent.socket, STREAM.hex()]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with Admin(agent.admin_socket) as admin:
                until(lambda: admin.streams_of(process.pid))
            shown = agent.run("status").stdout
            assert str(process.pid) in shown
            assert "\x1b" not in shown
            process.communicate()
    finally:
        shutil.rmtree(folder)


@pytest.mark.root
def test_silent_and_slow_callers_of_one_user(agent: AgentProcess) -> None:
    """While a user holds hundreds of connections that send a byte now and then, another is served at once."""
    with contextlib.ExitStack() as stack, wire_of(agent.socket, OTHER) as other:
        held = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(300)]
        for connection in held:
            connection.connect(agent.socket)
        for place in range(8):
            for number, connection in enumerate(held):
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.send((PREFACE if number % 2 else b"GET /keys HTTP/1.1")[place : place + 1])
            began = time.monotonic()
            assert ["spiffe://example.org/other"] == other.x509_ids()
            assert time.monotonic() - began < 5


@pytest.mark.root
def test_what_another_user_cannot_reach(agent: AgentProcess) -> None:
    """Another user cannot connect to the admin socket nor to what the agent holds open."""
    code = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(4892); os.setuid(4892)\n"
        "failed = []\n"
        "for path in sys.argv[1:]:\n"
        "    try: socket.socket(socket.AF_UNIX).connect(path)\n"
        "    except OSError as error: failed.append(error.errno)\n"
        "print(*failed)\n"
    )
    paths = [agent.admin_socket, f"/proc/{agent.pid}/fd/3"]
    done = subprocess.run([sys.executable, "-I", "-c", code, *paths], capture_output=True, text=True, timeout=30)
    assert ["13"] * 2 == done.stdout.split()


@pytest.mark.root
def test_many_groups(agent: AgentProcess) -> None:
    """A user with group ids of his own may be in 65,000 groups, which takes 6 MiB and 100 ms to know: nobody with more
    than GROUPS_PER_CALLER comes in, however often he comes. Others are served, and so is who has as many as that.
    """
    many = tuple(range(200_000, 200_000 + 65_000))
    before = int(Path(f"/proc/{agent.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            refused = stack.enter_context(Borrowed(agent.socket, OTHER, many))
            refused.connection.settimeout(15)
            assert b"" == refused.connection.recv(1)
        with wire_of(agent.socket, OTHER, many[:GROUPS_PER_CALLER]) as wire:
            assert ["spiffe://example.org/other"] == wire.x509_ids()
        after = int(Path(f"/proc/{agent.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert after - before < 20 * 1024 * 1024


@pytest.mark.root
def test_a_user_namespace_earns_nothing(agent: AgentProcess) -> None:
    """Root in a user namespace of one's own, with a /proc of one's own, is the user that one was."""
    with Admin(agent.admin_socket) as admin:
        made = admin.register("/userns/4893", "unix:uid:4893")
        program = Path(f"/tmp/sojourn-userns-{os.getpid()}.py")
        program.write_text(CONNECT)
        program.chmod(0o644)
        command = ["setpriv", "--reuid=4893", "--regid=4893", "--clear-groups"]
        command += ["unshare", "-U", "--map-root-user", "-m", "-pf", "--mount-proc", "--kill-child"]
        command += ["/usr/bin/python3", str(program), agent.socket, STREAM.hex()]
        if not os.path.exists("/usr/bin/python3"):
            pytest.skip("needs the system's Python")
        try:
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                stream = until(lambda: [each for each in admin.streams() if each.uid == 4893])[0]
                explained = admin.explain(stream.pid)
                process.kill()
        finally:
            program.unlink()
        assert (4893, [made.id]) == (
            explained.uid,
            [each.entry_id for each in explained.verdicts if each.verdict == "matched"],
        )
        assert [] == [each for each in explained.selectors if each.startswith("unix:path:")]
        assert "unix:uid:0" not in explained.selectors


def test_rejections_do_not_fill_the_log(agent: AgentProcess) -> None:
    """Hundreds of rejected updates and refused calls of one user are a few lines in the log."""
    before = len(agent.log_lines())
    began = time.monotonic()
    with Wire(agent.socket) as wire:
        with SecretStream(wire, "DeltaSecrets") as stream:
            stream.ask(resource_names_subscribe=["default"])
            for _ in range(300):
                stream.tell(error_detail={"message": "no"})
            stream.end()
        for _ in range(300):
            refusal(lambda: wire.unary(WORKLOAD_API + "FetchJWTSVID", b""))
    seconds = int(time.monotonic() - began) + 2
    assert len(agent.log_lines()) - before <= 20 * seconds


@pytest.mark.root
def test_names_of_secrets_without_end(agent: AgentProcess) -> None:
    """A user's delta streams of SDS keep so much of names, all together: over that they are refused, and only his. When
    they have ended there is room again.
    """
    names = [f"{number}".ljust(SPIFFE_ID_MAX_BYTES, "x") for number in range(100)]  # what one request may have
    with wire_of(agent.socket, SLOW) as wire, wire_of(agent.socket, OTHER) as other, contextlib.ExitStack() as stack:
        held, codes = 0, set[str]()
        for _ in range(2 * SECRET_NAMES_BYTES_PER_UID // (100 * SPIFFE_ID_MAX_BYTES)):
            stream = stack.enter_context(SecretStream(wire, "DeltaSecrets"))
            try:
                assert 100 == len(stream.ask(resource_names_subscribe=names).removed_resources)
                held += 1
            except grpc.RpcError as error:
                codes.add(error.code().name)
        assert ({"RESOURCE_EXHAUSTED"}, True) == (codes, held >= 70)
        assert held * 100 * SPIFFE_ID_MAX_BYTES <= SECRET_NAMES_BYTES_PER_UID
        with SecretStream(other, "DeltaSecrets") as stream:
            assert 1 == len(stream.ask(resource_names_subscribe=["default"]).resources)
        stack.close()
        with Admin(agent.admin_socket) as admin:
            until(lambda: not [each for each in admin.streams() if each.uid == SLOW])
        with SecretStream(wire, "DeltaSecrets") as stream:
            assert 100 == len(stream.ask(resource_names_subscribe=names).removed_resources)


@pytest.mark.root
def test_a_path_that_is_a_link(agent: AgentProcess, tmp_path: Path) -> None:
    """An entry with the path of a symbolic link matches nobody, wherever the link points: links can be turned."""
    link = Path(f"/tmp/sojourn-link-{os.getpid()}")
    link.symlink_to("/bin/sleep")
    try:
        with Admin(agent.admin_socket) as admin, subprocess.Popen([str(link), "60"]) as process:
            made = admin.register("/linked", f"unix:path:{link}")
            found = until(lambda: [each for each in admin.explain(process.pid).verdicts if each.entry_id == made.id])
            process.kill()
        assert [("missing_selectors", [f"unix:path:{link}"])] == [(each.verdict, list(each.missing)) for each in found]
    finally:
        link.unlink()
