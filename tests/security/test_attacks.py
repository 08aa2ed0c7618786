"""Attacks that once worked, on the real daemon: each by its way in."""

import contextlib
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from harness.agent import AgentProcess, clean_environment
from harness.callers import Caller
from harness.exchanges import DETAILS, GRANT, JWT
from harness.looking import until
from harness.ports import free_port
from sojourn._pb import workload_pb2
from sojourn.limits import METRICS_CONNECTIONS
from sojourn.sdk.client import health_probe
from sojourn.sdk.client.sync import SyncClient

ISSUER = "https://sojourn.example.org"
TICKETS = "https://tickets.example.org"
# The helper exchanges and returns 0; the process that ran it collects it, and is gone a moment later.
DYING_HEIRS = """
import os, socket, sys, time, urllib.parse
path, token, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
form = urllib.parse.urlencode(dict(grant_type=sys.argv[4], subject_token=token, subject_token_type=sys.argv[5],
                                   authorization_details=sys.argv[6])).encode()
head = "POST /token HTTP/1.1\\r\\nHost: x\\r\\nContent-Type: application/x-www-form-urlencoded\\r\\nContent-Length: "
for number in range(rounds):
    heir = os.fork()
    if heir == 0:
        helper = os.fork()
        if helper == 0:
            asking = socket.socket(socket.AF_UNIX)
            asking.connect(path)
            asking.sendall(f"{head}{len(form)}\\r\\n\\r\\n".encode() + form)
            os._exit(0 if b" 200 " in asking.recv(200) else 1)
        _, status = os.waitpid(helper, 0)
        ends = time.perf_counter() + number % 40 / 10_000
        while time.perf_counter() < ends:
            pass
        os._exit(os.waitstatus_to_exitcode(status))
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(heir, 0)[1])
"""
# Connects as another user as fast as it can, keeps 200 of them, and says once that it has met a line that is full.
FLOOD = """
import os, socket, sys, time
os.setgroups([]); os.setgid(4621); os.setuid(4621)
kept, told = [], False
while True:
    made = socket.socket(socket.AF_UNIX)
    made.setblocking(False)
    try:
        made.connect(sys.argv[1])
        kept.append(made)
    except OSError:
        told = told or bool(print("full", flush=True)) or True
        time.sleep(0.0005)
    if len(kept) > 200:
        kept.pop(0).close()
"""


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    with AgentProcess() as running:
        yield running


@pytest.mark.forked
def test_heirs_that_die_at_once(agent: AgentProcess) -> None:
    """Heirs that go while a task is handed over to them end the task; the agent lives on and nothing is left."""
    agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
    token = agent.run("svid", "jwt", "--audience", ISSUER).stdout.strip()
    script = [sys.executable, "-c", DYING_HEIRS, agent.socket, token, "400", GRANT, JWT, DETAILS]
    assert 0 == subprocess.run(script, env=clean_environment(), timeout=90).returncode
    assert agent.process is not None
    assert agent.process.poll() is None
    until(lambda: 0 == agent.json("status")["live_tasks"])


@pytest.mark.timing
def test_pipelined_requests(agent: AgentProcess) -> None:
    """A connection that sends requests far ahead is cut off, and costs the agent little memory."""
    before = resident(agent.pid)
    for _ in range(10):
        with socket.socket(socket.AF_UNIX) as flood:
            flood.connect(agent.socket)
            flood.settimeout(10)
            try:
                flood.sendall(b"GET /keys HTTP/1.1\r\nHost: x\r\n\r\n" * 20_000)
                while flood.recv(65_536):
                    pass
            except (BrokenPipeError, ConnectionResetError):
                continue
    assert resident(agent.pid) - before < 64 * 1024 * 1024
    assert 0 == agent.run("status").returncode


@pytest.mark.timing
def test_connections_for_metrics() -> None:
    """Whoever connects for metrics and asks for nothing takes no threads and few descriptors, and keeps no scraper out."""
    port = free_port()
    with AgentProcess(config=f'[metrics]\nlisten = "127.0.0.1:{port}"\n') as agent, contextlib.ExitStack() as stack:
        threads, before = threads_of(agent.pid), agent.open_files()
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert b"sojourn_streams" in answer.read()
        assert threads_of(agent.pid) <= threads + 2
        until(lambda: len(before.opened_since("socket:")) <= METRICS_CONNECTIONS)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET / HTTP/1.1\r\naccept: application/openmetrics-text; version=x\r\n\r\n", b"HTTP/1.1 200 "),
        (b"GET / HTTP/1.1\r\naccept: application/openmetrics-text; version=1.0.0\r\n\r\n", b"HTTP/1.1 200 "),
        (b"POST / HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 "),
        (b"GET / HTTP/1.1\r\n" + b"x" * 200_000, b""),
    ],
)
def test_requests_for_metrics(request_: bytes, answer: bytes) -> None:
    """What is no request for metrics is refused, and the next is answered."""
    port = free_port()
    with AgentProcess(config=f'[metrics]\nlisten = "127.0.0.1:{port}"\n') as agent:
        for asked, begins in ((request_, answer), (b"GET /metrics HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 ")):
            with socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
                got = b""
                with contextlib.suppress(ConnectionError):
                    connection.sendall(asked)
                    got = connection.recv(13)
                assert begins == got
        assert [] == [line for line in agent.log_lines() if line["level"] == "error"]


def threads_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


@pytest.mark.root
def test_calls_of_one_user(agent: AgentProcess) -> None:
    """A user with very many calls under way is told to come back, and another user is served meanwhile."""
    agent.register("/flooder", f"unix:uid:{os.getuid()}")
    agent.register("/other", "unix:uid:4620")
    channels = [
        grpc.insecure_channel(f"unix:{agent.socket}", options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(4)
    ]
    request = workload_pb2.JWTSVIDRequest(audience=["a" * 1_000] * 20)
    calls = [
        channel.unary_unary(
            "/SpiffeWorkloadAPI/FetchJWTSVID",
            request_serializer=workload_pb2.JWTSVIDRequest.SerializeToString,
            response_deserializer=workload_pb2.JWTSVIDResponse.FromString,
        ).future(request, metadata=(("workload.spiffe.io", "true"),), timeout=30)
        for channel in channels
        for _ in range(100)
    ]
    with Caller(agent.socket, uid=4620) as other:
        assert "spiffe://example.org/other" == other.ask("jwt", audience="a")["spiffe_id"]
    codes = {call.code() for call in calls}
    for channel in channels:
        channel.close()
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}


@pytest.mark.full
@pytest.mark.root
def test_connects_of_one_user(agent: AgentProcess) -> None:
    """While a user's connects fill the line of the socket, new clients of others are served, each of them."""
    agent.register("/self", f"unix:uid:{os.getuid()}")
    command = [sys.executable, "-c", FLOOD, agent.socket]
    with contextlib.ExitStack() as stack:
        floods = [
            stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, env=clean_environment()))
            for _ in range(4)
        ]
        for flood in floods:
            stack.callback(flood.kill)
        assert b"full\n" == floods[0].stdout.readline()  # type: ignore[union-attr]
        for _ in range(20):
            with SyncClient(agent.socket) as client:
                assert "spiffe://example.org/self" == str(client.fetch_jwt_svid("them").spiffe_id)
            assert health_probe.ask(agent.socket, [""], 10) == {"": True}


@pytest.mark.root
def test_the_init_process_holds_nothing(agent: AgentProcess) -> None:
    """A task cannot be bound to process 1, which would outlive its workload."""
    agent.register("/agent/triage", "unix:uid:0")
    with Caller(agent.socket) as caller:
        refused = caller.ask("begin_process", type="triage-ticket", holder_pid=1)
    assert ("error", "policy_denied") == (refused["event"], refused["code"])


@pytest.mark.root
def test_a_holder_has_the_identity(agent: AgentProcess, tmp_path: Path) -> None:
    """A task cannot be begun for an ancestor that has not the task's identity."""
    agent.register("/agent/triage", "unix:uid:0", f"unix:path:{os.path.realpath(sys.executable)}")
    shell = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -m sojourn task begin --type triage-ticket; exit $?"],
        env=agent.environment, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert 1 == shell.returncode
    assert "none of the caller's identities" in shell.stderr


def test_a_holder_that_becomes_another_program(agent: AgentProcess) -> None:
    """A task whose holder executes another program is over at validators, without anybody asking for a token."""
    agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
    begin = (
        "import os, sys\n"
        "from sojourn.sdk.client.sync import SyncClient\n"
        "with SyncClient() as client:\n"
        "    task = client.begin_task('triage-ticket')\n"
        "    print(task.token().token, flush=True)\n"
        "    os.execv('/bin/sleep', ['sleep', '60'])\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", begin], env=agent.environment, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        token = holder.stdout.readline().strip()
        with SyncClient(agent.socket) as client:
            until(lambda: not client.validate_token(token, TICKETS).valid)
            assert "attestation_changed" in client.validate_token(token, TICKETS).reason
    finally:
        holder.kill()
        holder.communicate()


def test_health_is_not_watched(agent: AgentProcess) -> None:
    """Nobody holds streams of the health service for nothing."""
    with grpc.insecure_channel(f"unix:{agent.socket}") as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        with pytest.raises(grpc.RpcError) as caught:
            next(watch(b"", timeout=10))
    assert grpc.StatusCode.UNIMPLEMENTED == caught.value.code()


def resident(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
