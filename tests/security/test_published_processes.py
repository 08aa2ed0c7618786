"""Weaknesses published of other systems that lie in processes and files, each tried here under its name."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.agent import AgentProcess
from harness.looking import OF_CALLERS
from harness.raw import HEADER, WORKLOAD_API, Admin, Wire, refusal
from sojourn._pb import workload_pb2 as pb

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def admin(agent: AgentProcess) -> Iterator[Admin]:
    with Admin(agent.admin_socket) as admin:
        admin.register("/self", f"unix:uid:{os.getuid()}")
        yield admin


REUSE = """
import os, socket, sys
# In a process namespace of our own: a caller connects and ends, and a process of root's gets its number.
path, uid, entry = sys.argv[1], int(sys.argv[2]), sys.argv[3]
here, there = socket.socketpair()
caller = os.fork()
if caller == 0:
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    socket.send_fds(there, [b"."], [connection.fileno()])
    there.recv(1)  # nothing comes
    os._exit(0)
_, [descriptor], _, _ = socket.recv_fds(here, 1, 1)
os.kill(caller, 9)
os.waitpid(caller, 0)
for _ in range(50):
    open("/proc/sys/kernel/ns_last_pid", "w").write(str(caller - 1))
    again = os.fork()
    if again == caller:
        break
    if again == 0:
        os._exit(0)
    os.waitpid(again, 0)
    again = -1
if again == 0:
    sys.stdin.read()
    os._exit(0)
assert again == caller, "the number was not given again"
socket.send_fds(socket.socket(fileno=int(entry)), [b"."], [descriptor])
sys.stdin.read()
"""


@pytest.mark.root
def test_SPIRE_886_a_process_number_that_is_used_again(agent: AgentProcess, admin: Admin, wire: Wire) -> None:
    """The connection of a caller that has ended is good for nothing, though a process of root's has its number now."""
    import socket

    from harness.raw import over

    admin.register("/short", "unix:uid:4870")
    here, there = socket.socketpair()
    command = [
        "unshare",
        "-pf",
        "--kill-child",
        "--mount-proc",
        sys.executable,
        "-I",
        "-c",
        REUSE,
        agent.socket,
        "4870",
        str(there.fileno()),
    ]
    with here, there, subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[there.fileno()]) as process:
        there.close()
        here.settimeout(20)
        try:
            _, [descriptor], _, _ = socket.recv_fds(here, 1, 1)
            with over(socket.socket(fileno=descriptor)) as borrowed:
                assert "UNAVAILABLE" == refusal(borrowed.x509)[0]
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.kill()
    assert ["spiffe://example.org/self"] == wire.x509_ids()


def test_SPIRE_982_a_process_name_that_looks_like_its_state() -> None:
    """A process whose name holds what /proc/PID/stat is made of is read by the kernel's own fields."""
    from sojourn.attestation.proc_reader import reader

    program = (
        "import ctypes, sys; ctypes.CDLL(None).prctl(15, b') S 1 1 (', 0, 0, 0); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert b") S 1 1 (" in Path(f"/proc/{process.pid}/stat").read_bytes()
        found = reader.stat(process.pid)
        assert (os.getpid(), True) == (found.parent, found.start_time > 1)
        process.communicate()


DYING = """
import os, random, socket, sys
path, count, request = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
random.seed(int(sys.argv[4]))
for _ in range(count):
    if os.fork() == 0:
        os.setgroups([]); os.setgid(4871); os.setuid(4871)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.send(request[: random.randrange(len(request) + 1)])
        for _ in range(random.randrange(3000)): pass
        os._exit(0)
    if random.random() < 0.5:
        os.waitpid(-1, 0)
while True:
    try: os.waitpid(-1, 0)
    except ChildProcessError: break
"""


@pytest.mark.root
@pytest.mark.timeout(400)
def test_SPI_01_006_callers_that_die_leave_nothing(agent: AgentProcess, admin: Admin) -> None:
    """Ten thousand callers that die at any moment of being served leave no descriptor, no stream and no traceback."""
    from harness.http2 import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, call_headers, frame, message

    admin.register("/dying", "unix:uid:4871")
    body = frame(HEADERS, END_HEADERS, 1, call_headers(WORKLOAD_API + "FetchX509SVID"))
    request = PREFACE + frame(SETTINGS) + body + frame(DATA, END_STREAM, 1, message(b""))
    before = agent.open_files()
    done = subprocess.run([sys.executable, "-I", "-c", DYING, agent.socket, "10000", request.hex(), "1"], timeout=400)
    assert 0 == done.returncode
    before.await_closed(*OF_CALLERS)
    assert [] == [stream for stream in admin.streams() if stream.uid == 4871]
    assert [] == [line for line in agent.log_lines() if line["event"] in {"attestor_raised", "call_failed"}]


def test_SPI_01_002_CVE_2021_38553_files_are_the_agents_alone(agent: AgentProcess) -> None:
    """Keys and database can be read by nobody else."""
    files = [path for path in agent.data_dir.rglob("*") if path.is_file()]
    assert {"sojourn.db", "jwt.pem"} <= {path.name for path in files}
    assert [] == [
        path
        for path in [agent.data_dir, *agent.data_dir.rglob("*")]
        if path.stat().st_mode & 0o077 and not path.is_socket()
    ]


def test_py_spiffe_029_key_files_are_private_also_when_they_were_not(
    agent: AgentProcess, wire: Wire, tmp_path: Path
) -> None:
    """A key is written with mode 0600, also over a file that others could read, and not through a link."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "svid.0.key").write_text("old")
    (tmp_path / "svid.0.key").chmod(0o666)
    agent.run("svid", "x509", "--write", str(tmp_path))
    key = tmp_path / "svid.0.key"
    assert (0o600, True) == (key.stat().st_mode & 0o777, "PRIVATE KEY" in key.read_text())
    key.unlink()
    key.symlink_to(victim)
    agent.run("svid", "x509", "--write", str(tmp_path), check=False)
    assert "mine" == victim.read_text()


def test_SPIRE_1143_starts_and_stops_under_load() -> None:
    """An agent that is stopped in the midst of calls, again and again, leaves no traceback and ends with 0."""
    with AgentProcess() as own:
        own.register("/self", f"unix:uid:{os.getuid()}")
        for _ in range(6):
            with Wire(own.socket) as wire:
                streams = [wire.x509_stream() for _ in range(20)]
                calls = [
                    wire._channel.unary_unary(WORKLOAD_API + "FetchJWTSVID").future(b"\x0a\x01a", metadata=HEADER)
                    for _ in range(40)
                ]
                next(streams[0])
                assert 0 == own.stop()
                for each in (*streams, *calls):
                    each.cancel()
            own.start()
        assert "Traceback" not in own.log.read_text()


@pytest.mark.root
def test_CVE_2020_16250_who_calls_is_not_what_the_caller_says(agent: AgentProcess, admin: Admin) -> None:
    """What a caller writes into its request or metadata about itself counts for nothing."""
    from harness.borrowed import wire_of

    with wire_of(agent.socket, 4872) as stranger:
        metadata = (
            *HEADER,
            ("x-spiffe-id", "spiffe://example.org/self"),
            ("x-forwarded-client-cert", "URI=spiffe://example.org/self"),
            ("uid", "0"),
            (":authority", "root"),
        )[:-1]
        request = pb.JWTSVIDRequest(audience=["a"], spiffe_id="spiffe://example.org/self")
        call = lambda: stranger.unary(WORKLOAD_API + "FetchJWTSVID", request, metadata=metadata)  # noqa: E731
        assert ("PERMISSION_DENIED", "no identity issued") == refusal(call)


@pytest.mark.root
def test_CVE_2019_19921_CVE_2025_52881_a_false_proc() -> None:
    """An agent does not start where /proc is not the kernel's, and says what to do."""
    script = 'mount -t tmpfs none /proc && mkdir -p /proc/self/fd && exec "$@"'
    deceived = AgentProcess(under=("unshare", "-m", "sh", "-c", script, "sh"))
    try:
        with pytest.raises(RuntimeError, match="/proc is not the kernel's"):
            deceived.start()
    finally:
        deceived.__exit__()
