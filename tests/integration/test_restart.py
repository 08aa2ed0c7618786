"""An agent that goes away and comes back under its clients: they wait, come again, and lose nothing."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.looking import until
from harness.program import Program, published
from harness.raw import WORKLOAD_API, Admin, Wire
from harness.reading import certificates, uris
from sojourn._pb import workload_pb2 as workload

CLIENT, SERVER = 5101, 5102
ID = "spiffe://example.org"
NO_RETRIES = ("grpc.enable_retries", 0)  # by which gRPC's own clients may hang as a connection ends
HOW = pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    """The tests themselves are /python here."""
    with AgentProcess() as running:
        with Admin(running.admin_socket) as admin:
            admin.register("/python", f"unix:uid:{os.getuid()}")
            admin.register("/client", f"unix:uid:{CLIENT}")
            admin.register("/server", f"unix:uid:{SERVER}")
        yield running
        failed = {"call_failed", "http_failed"}
        assert [] == [line for line in running.log_lines() if line["event"] in failed]


@pytest.fixture
def client(agent: AgentProcess, go_client: str) -> Path:
    return published(go_client, agent.folder, "client")


def restart(agent: AgentProcess, how: signal.Signals) -> None:
    """End the agent, leave it away for long enough that everyone notices, and start it again."""
    agent.stop(how)
    time.sleep(0.5)
    agent.start()


def check_good(svid: Any, bundle: bytes) -> None:
    """A certificate is valid now, by a bundle that came later."""
    leaf, issuer = certificates(svid.x509_svid)
    [root] = certificates(bundle)
    leaf.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(root)
    for certificate in (leaf, issuer, root):
        assert certificate.not_valid_before_utc <= datetime.now(UTC) < certificate.not_valid_after_utc
    assert [svid.spiffe_id] == uris(leaf)


@pytest.mark.forked
@HOW
def test_an_open_stream(agent: AgentProcess, how: signal.Signals) -> None:
    """A stream ends with UNAVAILABLE and nothing else until the agent is back; the certificate of before stays good."""
    codes = []
    with Wire(agent.socket, NO_RETRIES) as wire:
        stream = wire.x509_stream()
        [before] = next(stream).svids
        restarting = threading.Thread(target=restart, args=(agent, how))
        restarting.start()
        after = None
        while after is None:
            try:
                message = next(stream)
                after = message.svids[0]
            except grpc.RpcError as error:
                codes.append(error.code().name)
                time.sleep(0.05)
                stream = wire.x509_stream()
        restarting.join()
        stream.cancel()
    assert {"UNAVAILABLE"} == set(codes)
    assert (before.spiffe_id, before.bundle) == (after.spiffe_id, after.bundle)
    assert before.x509_svid != after.x509_svid
    check_good(before, after.bundle)
    check_good(after, before.bundle)


def test_streams_that_begin_at_the_last_moment(agent: AgentProcess) -> None:
    """Streams that are asked for when the agent has begun to end are over with it, and none hangs: with UNAVAILABLE."""
    with Wire(agent.socket) as wire:
        first = wire.x509_stream()
        next(first)
        assert agent.process is not None
        agent.process.terminate()
        while first.is_active():  # from then on it hears nothing more, and ends in a moment
            time.sleep(0.001)
        streams = [wire.x509_stream() for _ in range(20)]
        until(lambda: not any(stream.is_active() for stream in streams))
        assert {"UNAVAILABLE"} == {stream.code().name for stream in (first, *streams)}
        assert 0 == agent.process.wait(timeout=15)


@pytest.mark.forked
@HOW
def test_calls_under_way(agent: AgentProcess, how: signal.Signals) -> None:
    """Of calls made without a pause over a restart each is answered or ends with UNAVAILABLE."""
    codes: set[str] = set()
    answered = threading.Semaphore(0)
    over = threading.Event()

    def call(wire: Wire) -> None:
        request = workload.JWTSVIDRequest(audience=["a"])
        while not over.is_set():
            try:
                wire.unary(WORKLOAD_API + "FetchJWTSVID", request, workload.JWTSVIDResponse)
                answered.release()
            except grpc.RpcError as error:
                codes.add(error.code().name)
                time.sleep(0.01)

    wires = [Wire(agent.socket) for _ in range(4)]
    callers = [threading.Thread(target=call, args=(wire,)) for wire in wires]
    for caller in callers:
        caller.start()
    for _ in range(3):
        for _ in range(50):
            assert answered.acquire(timeout=15)
        restart(agent, how)
        while answered.acquire(blocking=False):
            pass
        assert answered.acquire(timeout=15)
    over.set()
    for caller in callers:
        caller.join()
    for wire in wires:
        wire.close()
    assert {"UNAVAILABLE"} == codes


def test_jwts_of_before(agent: AgentProcess) -> None:
    """A JWT-SVID of before a restart is good after it."""
    codes: set[str] = set()
    with Wire(agent.socket) as wire:
        request = workload.JWTSVIDRequest(audience=["a"])
        [svid] = wire.unary(WORKLOAD_API + "FetchJWTSVID", request, workload.JWTSVIDResponse).svids
        restart(agent, signal.SIGKILL)
        asked = workload.ValidateJWTSVIDRequest(audience="a", svid=svid.svid)

        def valid() -> Any:
            try:
                return wire.unary(WORKLOAD_API + "ValidateJWTSVID", asked, workload.ValidateJWTSVIDResponse)
            except grpc.RpcError as error:
                codes.add(error.code().name)
                return None

        assert f"{ID}/python" == until(valid).spiffe_id
    assert {"UNAVAILABLE"} >= codes


@pytest.mark.forked
@HOW
def test_our_own_client(agent: AgentProcess, how: signal.Signals) -> None:
    """The SDK's watch comes back by itself with a new certificate, and tells of nothing but that nobody answers."""
    with Caller(agent.socket) as caller:
        caller.tell("watch")
        [before] = caller.hear("update")["svids"]
        restart(agent, how)
        told = []
        while (line := caller.hear("update", "watch_error", seconds=30))["event"] == "watch_error":
            told.append(line["code"])
        [after] = line["svids"]
    assert (before["spiffe_id"], True) == (after["spiffe_id"], before["serial"] != after["serial"])
    assert {"unavailable", "unreachable"} >= set(told)


@pytest.mark.root
@pytest.mark.go
@HOW
def test_a_go_client(agent: AgentProcess, client: Path, how: signal.Signals) -> None:
    """go-spiffe's watch comes back by itself, and hears of no error but UNAVAILABLE."""
    arguments = [str(client), "watch", "-updates", "2", "-timeout", "30s"]
    with Program(arguments, agent.environment, uid=CLIENT) as program:
        before = program.hear()
        restart(agent, how)
        status, lines = program.finish()
    *errors, after = lines
    assert (0, {"UNAVAILABLE"}) == (status, {line["code"] for line in errors})
    assert (before["spiffe_ids"], True) == (after["spiffe_ids"], before["serials"] != after["serials"])


@pytest.mark.forked
@pytest.mark.root
@pytest.mark.go
def test_mutual_tls(agent: AgentProcess, client: Path) -> None:
    """Two go-spiffe programs connect again and again over a restart, and none of it fails: what they have stays good."""
    with Program([str(client), "server", "-peer", f"{ID}/client"], agent.environment, uid=SERVER) as server:
        address = server.hear()["addr"]
        dial = ["dial", "-addr", address, "-peer", f"{ID}/server", "-times", "600", "-every", "100ms"]
        with Program([str(client), *dial], agent.environment, uid=CLIENT) as dialler:
            first = dialler.hear()
            restart(agent, signal.SIGKILL)
            # until both have come back for new certificates, and the server shows its own
            while (line := dialler.hear())["event"] == "dialled" and line["peer_serial"] == first["peer_serial"]:
                continue
    assert "dialled" == line["event"], line
