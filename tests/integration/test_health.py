"""Whether the agent is ready: the command, gRPC health and HTTP say the same, on the real fault and after it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2
from harness.agent import COMMAND, AgentProcess, becoming
from harness.cgroups import CgroupAgent
from harness.clioutput import check_error, keys_of
from harness.disks import taken_away
from harness.looking import until
from harness.raw import Wire, refusal

PORT = 22_617 + os.getpid() % 1000
CHECK = "/grpc.health.v1.Health/Check"
METRICS = f'[metrics]\nlisten = "127.0.0.1:{PORT}"\n'
REFUSES = "the store refuses writes"


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with AgentProcess(config=METRICS) as running:
        yield running


def http(path: str, port: int = PORT) -> tuple[int, str]:
    """Status and text of what the metrics listener answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def checked(agent: AgentProcess, service: str = "") -> int:
    """What a gRPC health checker is answered."""
    with Wire(agent.socket) as wire:
        request = health_pb2.HealthCheckRequest(service=service)
        return wire.unary(CHECK, request, health_pb2.HealthCheckResponse, metadata=()).status


class TestReady:
    def test_the_command(self, agent: AgentProcess) -> None:
        """A ready agent is one word and exit status 0, or JSON without faults."""
        assert "ready\n" == agent.run("agent", "health").stdout
        assert {"state": "ready", "faults": []} == agent.json("agent", "health")

    def test_http(self, agent: AgentProcess) -> None:
        """The metrics listener answers /livez and /readyz with 200 and a word, and the metrics at any other path."""
        assert ((200, "alive\n"), (200, "ready\n")) == (http("/livez"), http("/readyz"))
        assert (200, "ready\n") == http("/readyz?verbose")
        assert "sojourn_entries" in http("/metrics")[1]
        assert "sojourn_entries" in http("/readyzz")[1]
        assert agent.process is not None

    def test_grpc(self, agent: AgentProcess) -> None:
        """gRPC health serves the agent as a whole and each condition by name, and knows no other service."""
        serving = health_pb2.HealthCheckResponse.SERVING
        names = ["", "keys", "authority", "store", "sockets", "attestors"]
        assert dict.fromkeys(names, serving) == {name: checked(agent, name) for name in names}
        assert "NOT_FOUND" == refusal(lambda: checked(agent, "SpiffeWorkloadAPI"))[0]

    @pytest.mark.forked
    @pytest.mark.root
    def test_any_user_may_ask(self, agent: AgentProcess) -> None:
        """A user who may not operate the agent asks at the public socket, and is answered."""
        asked = [*becoming(4399), *COMMAND, "agent", "health"]
        done = subprocess.run(asked, env=agent.environment, capture_output=True, text=True, timeout=120)
        assert (0, "ready\n", "") == (done.returncode, done.stdout, done.stderr)


class TestUnready:
    @pytest.mark.forked
    def test_a_store_that_refuses(self, agent: AgentProcess) -> None:
        """While writes are refused all three say so, and which; soon after the disk takes them again nobody does."""
        with taken_away(agent):
            refused = agent.run("entry", "create", "--spiffe-id", "spiffe://example.org/a", "--selector", "unix:uid:1",
                                check=False)  # fmt: skip
            assert 1 == refused.returncode
            done = agent.run("agent", "health", check=False)
            assert (1, f"unready\n  store: {REFUSES}\n", "") == (done.returncode, done.stdout, done.stderr)
            assert (503, f"unready\nstore: {REFUSES}\n") == http("/readyz")
            assert (200, "alive\n") == http("/livez")
            not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
            assert (not_serving, not_serving) == (checked(agent), checked(agent, "store"))
            assert health_pb2.HealthCheckResponse.SERVING == checked(agent, "keys")
            done = agent.run("agent", "health", "--wait", "2s", "-o", "json", check=False)
            assert (1, '"unready"') == (done.returncode, done.stdout.split()[2].rstrip(","))
        assert "ready\n" == agent.run("agent", "health", "--wait", "20").stdout
        assert (200, "ready\n") == http("/readyz")

    def test_a_socket_that_is_gone(self, agent: AgentProcess) -> None:
        """An admin socket that was moved away makes the agent unready until it stands there again."""
        path = Path(agent.admin_socket)
        path.rename(path.with_name("away.sock"))
        try:
            done = agent.run("agent", "health", "-o", "json", check=False)
            assert 1 == done.returncode
            assert "a socket does not stand at its path" in done.stdout
            assert {"state", "faults", "name", "what"} == keys_of(json.loads(done.stdout))
        finally:
            path.with_name("away.sock").rename(path)
        assert "ready\n" == agent.run("agent", "health").stdout


@pytest.mark.forked
@pytest.mark.root
def test_an_attestor_that_fails() -> None:
    """An attestor that cannot tell leaves the agent degraded: exit status 0 and 200, with the condition's name."""
    made = CgroupAgent()
    port = PORT + 1000
    made.config.write_text(made.config.read_text() + METRICS.replace(str(PORT), str(port)))
    with made as agent:
        made.switch.touch()
        agent.run("explain", "--pid", str(os.getpid()))
        done = agent.run("agent", "health")
        assert "degraded\n  attestors: an attestor cannot tell who calls\n" == done.stdout
        assert (200, "degraded\nattestors: an attestor cannot tell who calls\n") == http("/readyz", port)
        assert health_pb2.HealthCheckResponse.SERVING == checked(agent)
        assert health_pb2.HealthCheckResponse.NOT_SERVING == checked(agent, "attestors")


class TestNobody:
    def test_none_is_there(self, tmp_path: Path, agent: AgentProcess) -> None:
        """Where there is no agent the exit status is 3, at once, and after the wait if one was asked for."""
        nowhere = str(tmp_path / "agent.sock")
        check_error(agent.run("agent", "health", "--socket", nowhere, check=False), 3, "unreachable")
        check_error(agent.run("agent", "health", "--socket", nowhere, "--wait", "200ms", check=False), 3, "unreachable")

    def test_one_that_begins_meanwhile_is_waited_for(self) -> None:
        """With --wait the command may be begun before the agent, and ends as soon as that is ready."""
        agent = AgentProcess()
        command = [*COMMAND, "agent", "health", "--wait", "20"]
        with subprocess.Popen(command, env=agent.environment, stdout=subprocess.PIPE, text=True) as waiting, agent:
            out, _ = waiting.communicate(timeout=30)
            assert (0, "ready\n") == (waiting.returncode, out)

    @pytest.mark.forked
    def test_one_that_hangs(self) -> None:
        """An agent that is stopped answers nobody: exit status 3 after seconds, with what to look at."""
        with AgentProcess() as agent:
            os.kill(agent.pid, signal.SIGSTOP)
            try:
                done = agent.run("agent", "health", check=False)
            finally:
                os.kill(agent.pid, signal.SIGCONT)
            check_error(done, 3, "unreachable")
            assert "its agent is stopped or very busy" in done.stderr

    @pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"\0\0\4\1\5\0\0\0\1abcd", b"\xff" * 100_000])
    def test_one_that_is_no_agent(self, tmp_path: Path, agent: AgentProcess, said: bytes) -> None:
        """What answers at the socket and tells no health is never taken for a ready agent, whatever it sends."""
        path = tmp_path / "agent.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            threading.Thread(target=_say, args=(listener, said), daemon=True).start()
            done = agent.run("agent", "health", "--socket", str(path), check=False)
        check_error(done, 1, "unavailable")
        assert "" == done.stdout


def _say(listener: socket.socket, said: bytes) -> None:
    with contextlib.suppress(OSError):
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(said)


def test_one_that_leaves(agent: AgentProcess) -> None:
    """A socket that an agent has left behind has nobody behind it."""
    with AgentProcess() as other:
        until(lambda: other.run("agent", "health").stdout == "ready\n")
        other.kill()
        check_error(other.run("agent", "health", check=False), 3, "unreachable")
    assert "ready\n" == agent.run("agent", "health").stdout
