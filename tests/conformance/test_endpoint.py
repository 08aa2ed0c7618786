"""SPIFFE_Workload_Endpoint.md, rows WEP-01 to WEP-25: the agent's public socket, and how our client finds and uses it."""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from conformance.ground import REQUESTS, STREAMS, WorkloadWire, reflected, services, sockets_of
from fakes.ca import FakeCa
from fakes.fake_agent import Fail, ScriptedAgent, x509_response
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from harness.agent import AgentProcess
from harness.borrowed import Borrowed, wire_of
from harness.looking import WAIT_SECONDS, until
from harness.raw import HEADER, WORKLOAD_API, Admin, Wire, refusal
from sojourn._pb import workload_pb2 as pb
from sojourn.config.paths import public_socket
from sojourn.errors import InvalidInput, Refused, SojournError, Unavailable, Unreachable
from sojourn.sdk.client.client import Client
from sojourn.sdk.client.connection import BACKOFF_FIRST_SECONDS
from sojourn.sdk.client.x509_source import X509Source

UIDS = itertools.count(5101)  # a user for each test that wants one of its own
NO_HEADER = ("INVALID_ARGUMENT", "security header missing from request")


def call(wire: Wire, method: str, **options: Any) -> bytes:
    """The first answer of one of the five methods, as bytes."""
    ask = wire.first if method in STREAMS else wire.unary
    return ask(WORKLOAD_API + method, REQUESTS[method], **options)


# --- the socket -----------------------------------------------------------------------------------------------------


@pytest.mark.root
def test_WEP_01_local(agent: AgentProcess) -> None:
    """The endpoint is a socket in this host's file system, which every local user may connect to."""
    mode = os.stat(agent.socket).st_mode
    assert (True, 0o222) == (stat.S_ISSOCK(mode), mode & 0o222)
    assert agent.socket in [path.removesuffix(".new") for path in sockets_of(agent)[0]]


@pytest.mark.root
def test_WEP_02_one_host(agent: AgentProcess) -> None:
    """No other host can reach the agent: it listens on file system sockets alone."""
    unix, internet = sockets_of(agent)
    assert ([], []) == (internet, [path for path in unix if not path.startswith("/")])
    assert len(unix) >= 2


def test_WEP_03_grpc(agent: AgentProcess, wire: WorkloadWire) -> None:
    """The endpoint speaks gRPC, and does not answer the same method to plain HTTP."""
    assert pb.X509SVIDResponse.FromString(call(wire, "FetchX509SVID")).svids[0].spiffe_id
    with socket.socket(socket.AF_UNIX) as plain:
        plain.connect(agent.socket)
        plain.sendall(
            b"POST /SpiffeWorkloadAPI/FetchX509SVID HTTP/1.1\r\nHost: a\r\nworkload.spiffe.io: true\r\n"
            b"Content-Type: application/grpc\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0"
        )
        assert b"HTTP/1.1 404" == plain.recv(4096)[:12]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:8000", "unix-abstract:agent", "@agent"])
def test_WEP_04_unix_socket_only(agent: AgentProcess, address: str) -> None:
    """The endpoint is a Unix socket with a path, and cannot be made anything else."""
    done = agent.run("config", "show", "--socket", address, check=False)
    assert (2, "") == (done.returncode, done.stdout)
    assert address in done.stderr


@pytest.mark.root
def test_WEP_05_no_tcp(agent: AgentProcess, wire: WorkloadWire) -> None:
    """The API is not served over TCP or UDP: the agent has no such socket, also while it serves."""
    stream = wire.x509_stream()
    assert 1 <= len(next(stream).svids)
    assert [] == sockets_of(agent)[1]
    stream.cancel()


async def test_WEP_06_client_sends_the_header(fake_agent: ScriptedAgent, client: Client, ca: FakeCa) -> None:
    """Each call of our client carries `workload.spiffe.io: true`, once."""
    fake_agent.push("FetchX509SVID", x509_response(ca, ca.svid()))
    fake_agent.push("FetchX509Bundles", pb.X509BundlesResponse(bundles={"spiffe://example.org": ca.root_der}))
    fake_agent.push("FetchJWTBundles", pb.JWTBundlesResponse(bundles={"spiffe://example.org": b'{"keys": []}'}))
    await client.fetch_x509_svids()
    await client.fetch_x509_bundles()
    await client.fetch_jwt_bundles()
    for unary in (client.fetch_jwt_svids("db"), client.validate_jwt_svid("x", "db"), client.begin_task("t")):
        with pytest.raises(SojournError):
            await unary
    assert ["true"] * 6 == [each["workload.spiffe.io"] for each in fake_agent.metadata]


@pytest.mark.parametrize("method", REQUESTS)
@pytest.mark.parametrize("value", [None, "True", "TRUE", "1", "", "false", " true"])
def test_WEP_07_header_is_demanded(wire: WorkloadWire, method: str, value: str | None) -> None:
    """A call without the header, or with another value there, is an invalid argument."""
    metadata = () if value is None else (("workload.spiffe.io", value),)
    assert NO_HEADER == refusal(lambda: call(wire, method, metadata=metadata))


async def test_WEP_08_no_retry_after_an_invalid_argument(fake_agent: ScriptedAgent, client: Client) -> None:
    """Our client does not try again after an invalid argument."""
    fake_agent.answers["FetchJWTSVID"] = Fail(grpc.StatusCode.INVALID_ARGUMENT, "bad")
    fake_agent.push("FetchX509SVID", Fail(grpc.StatusCode.INVALID_ARGUMENT, "bad"))
    with pytest.raises(InvalidInput, match="bad"):
        await client.fetch_jwt_svid("db")
    with pytest.raises(InvalidInput, match="bad"):
        await anext(client.watch_x509_contexts())
    assert ["FetchJWTSVID", "FetchX509SVID"] == [method for method, _ in fake_agent.requests]


def test_WEP_09_no_tls(agent: AgentProcess) -> None:
    """A client speaks HTTP/2 in the clear: the first that it hears is the server's SETTINGS, and no TLS."""
    with socket.socket(socket.AF_UNIX) as plain:
        plain.settimeout(10)
        plain.connect(agent.socket)
        plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        frame = plain.recv(9)
    assert (4, bytes(4)) == (frame[3], frame[5:9])


# --- finding it -----------------------------------------------------------------------------------------------------


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Where our client finds the endpoint when the variable has this value and nothing else is said."""
    monkeypatch.delenv("SOJOURN_SOCKET", raising=False)

    def find(value: str) -> str:
        monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", value)
        return public_socket()

    return find


async def test_WEP_10_variable(
    fake_agent: ScriptedAgent, fake_socket: Path, ca: FakeCa, found: Any, tmp_path: Path
) -> None:
    """Told nothing, our client goes where SPIFFE_ENDPOINT_SOCKET says; told something, it does not."""
    svid = ca.svid()
    fake_agent.push("FetchX509SVID", x509_response(ca, svid))
    assert str(fake_socket) == found(f"unix://{fake_socket}")
    async with Client() as client:
        assert svid.serial == (await client.fetch_x509_svids()).default.serial
    async with Client(str(tmp_path / "other.sock")) as client:
        with pytest.raises(Unreachable):
            await client.fetch_x509_svids()


@pytest.mark.parametrize("value", ["/run/agent.sock", "agent.sock", "http:///run/agent.sock", "unixs:///a", "://a"])
def test_WEP_11_schemes(found: Any, value: str) -> None:
    """A value of the variable that is not a URI of the scheme `unix` (or `tcp`, see WEP-13) is refused."""
    with pytest.raises(InvalidInput, match="SPIFFE_ENDPOINT_SOCKET"):
        found(value)


@pytest.mark.parametrize(
    "value",
    [
        "unix://run/agent.sock",
        "unix://localhost/run/agent.sock",
        "unix://me@/run/agent.sock",
        "unix:run/agent.sock",
        "unix:",
        "unix://",
        "unix:///run/agent.sock?a=b",
        "unix:///run/agent.sock#a",
        pytest.param("unix:///run/agent.sock?"),
        pytest.param("unix:///run/agent.sock#"),
    ],
)
def test_WEP_12_unix(found: Any, value: str) -> None:
    """Of a `unix` URI there is an absolute path and nothing else: any other part is refused."""
    assert "/run/agent.sock" == found("unix:///run/agent.sock") == found("unix:/run/agent.sock")
    with pytest.raises(InvalidInput, match="SPIFFE_ENDPOINT_SOCKET"):
        found(value)


@pytest.mark.parametrize(
    "value", ["tcp://127.0.0.1:8000", "tcp://localhost:8000", "tcp://127.0.0.1", "tcp://127.0.0.1:8000/foo"]
)
def test_WEP_13_tcp(found: Any, value: str) -> None:
    """Our client does not go over TCP, where callers cannot be told apart: it says so, whatever the address."""
    with pytest.raises(InvalidInput, match="tcp is not supported"):
        found(value)


# --- who calls ------------------------------------------------------------------------------------------------------


def test_WEP_14_no_credential(agent: AgentProcess) -> None:
    """A caller shows neither secret nor certificate: the first call of a fresh connection in the clear, with no
    metadata but the header, is answered with its identity."""
    with Wire(agent.socket) as fresh:
        answer = pb.X509SVIDResponse.FromString(call(fresh, "FetchX509SVID", metadata=HEADER))
    assert "spiffe://example.org/me" in [svid.spiffe_id for svid in answer.svids]


@pytest.mark.root
def test_WEP_15_out_of_band(agent: AgentProcess, admin: Admin) -> None:
    """The kernel tells who calls: the same bytes from two users are answered with two identities."""
    uids = next(UIDS), next(UIDS)
    for uid in uids:
        admin.register(f"/user/{uid}", f"unix:uid:{uid}")
    heard = []
    for uid in uids:
        with wire_of(agent.socket, uid) as wire:
            heard.append(wire.x509_ids())
    assert [[f"spiffe://example.org/user/{uid}"] for uid in uids] == heard


def test_WEP_16_passive_workload(agent: AgentProcess) -> None:
    """The workload has no part in it: its process may stand still while the agent finds out who it is."""
    with Borrowed(agent.socket) as borrowed:
        os.kill(borrowed.pid, signal.SIGSTOP)
        until(lambda: "T" == _state(borrowed.pid))
        with borrowed.wire() as wire:
            assert ["spiffe://example.org/me"] == wire.x509_ids()
        assert "T" == _state(borrowed.pid)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# --- codes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def crowded() -> Iterator[AgentProcess]:
    """An agent that lets each user have one connection."""
    with AgentProcess(config="[limits]\nconnections_per_uid = 1\n") as running:
        with Admin(running.admin_socket) as admin:
            admin.register("/me", f"unix:uid:{os.getuid()}")
        yield running


def test_WEP_17_unavailable(crowded: AgentProcess) -> None:
    """An agent that sheds load or shuts down says that it is unavailable, on open streams too."""
    with Wire(crowded.socket) as inside, Wire(crowded.socket) as outside:
        stream = inside.x509_stream()
        assert 1 == len(next(stream).svids)
        assert "UNAVAILABLE" == refusal(lambda: call(outside, "FetchX509SVID"))[0]
        assert 0 == crowded.stop()
        assert ("UNAVAILABLE", "the agent is shutting down") == refusal(lambda: next(stream))
        assert "UNAVAILABLE" == refusal(lambda: call(inside, "FetchX509SVID"))[0]


@pytest.mark.parametrize(
    "status",
    [pytest.param(grpc.StatusCode.UNAVAILABLE, id="unavailable"), pytest.param(None, id="nobody there")],
)
async def test_WEP_18_retry_when_unavailable(
    fake_socket: Path, ca: FakeCa, status: grpc.StatusCode | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After being told to come later, and when nobody is there, our client tries again, and waits longer each time."""
    heard: list[SojournError] = []
    waits: list[float] = []
    enough, sleep = asyncio.Event(), asyncio.sleep

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", noted)

    def failed(error: SojournError) -> None:
        heard.append(error)
        if len(heard) == 3:
            enough.set()

    agent, svid = ScriptedAgent(), ca.svid()
    if status is not None:
        agent.push("FetchX509SVID", *[Fail(status, "later")] * 3)
    agent.push("FetchX509SVID", x509_response(ca, svid))
    async with contextlib.AsyncExitStack() as stack:
        if status is not None:
            await stack.enter_async_context(agent.serve(fake_socket))
        client = await stack.enter_async_context(Client(str(fake_socket)))
        contexts = await stack.enter_async_context(contextlib.aclosing(client.watch_x509_contexts(failed)))
        first = asyncio.ensure_future(anext(contexts))
        await asyncio.wait_for(enough.wait(), WAIT_SECONDS)
        if status is None:
            await stack.enter_async_context(agent.serve(fake_socket))
        assert svid.serial == (await asyncio.wait_for(first, WAIT_SECONDS)).default.serial
    kind = Unreachable if status is None else Unavailable
    assert [kind] * 3 == [type(error) for error in heard[:3]]
    assert [BACKOFF_FIRST_SECONDS * 2**turn for turn in range(3)] == waits[:3]


@pytest.mark.root
@pytest.mark.parametrize("method", ["FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles", "FetchJWTSVID"])
def test_WEP_19_no_identity(agent: AgentProcess, method: str) -> None:
    """A caller who has no identity is refused as not permitted."""
    with wire_of(agent.socket, next(UIDS)) as stranger:
        assert ("PERMISSION_DENIED", "no identity issued") == refusal(lambda: call(stranger, method))


async def test_WEP_20_retry_after_a_refusal(fake_agent: ScriptedAgent, client: Client, ca: FakeCa) -> None:
    """After being refused our client tries again, and has its identity when there is one."""
    svid, denied = ca.svid(), Fail(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
    fake_agent.push("FetchX509SVID", denied, denied, x509_response(ca, svid))
    async with asyncio.timeout(WAIT_SECONDS), X509Source(client) as source:
        assert svid.serial == source.svid.serial
    assert 3 == len(fake_agent.requests)


async def test_WEP_21_no_retry_after_unimplemented(fake_agent: ScriptedAgent, client: Client) -> None:
    """What an agent does not implement our client reports, and does not ask for again."""
    fake_agent.push("FetchX509SVID", Fail(grpc.StatusCode.UNIMPLEMENTED, "not here"))
    with pytest.raises(Refused, match="not here"):
        async with asyncio.timeout(WAIT_SECONDS), X509Source(client):
            pass
    assert 1 == len(fake_agent.requests)


# --- services -------------------------------------------------------------------------------------------------------

SDS = "envoy.service.secret.v3.SecretDiscoveryService"
STANDARD = {
    SDS,
    "envoy.service.auth.v3.Authorization",
    "SpiffeWorkloadAPI",
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
}


def test_WEP_22_functions_of_our_own(wire: WorkloadWire) -> None:
    """What the agent can do beyond the standards is in services of our own name, beside those of the standards."""
    found = services(wire)
    assert {"sojourn.v1"} == {name.rpartition(".")[0] for name in found - STANDARD}
    assert "SpiffeWorkloadAPI" in found


@pytest.mark.parametrize("method", REQUESTS)
def test_WEP_23_workload_api(wire: WorkloadWire, method: str) -> None:
    """The Workload API is there: each of its calls reaches a handler, and an answer or a verdict on the request."""
    if method == "ValidateJWTSVID":
        code, text = refusal(lambda: call(wire, method))
        assert ("INVALID_ARGUMENT", True) == (code, text.startswith("unable to parse JWT token"))
    else:
        assert len(call(wire, method)) > 0


@pytest.mark.parametrize(
    "name",
    [
        *sorted(STANDARD - {SDS}),
        "sojourn.v1.Tasks",
        pytest.param(SDS),
    ],
)
def test_WEP_24_reflection(wire: WorkloadWire, name: str) -> None:
    """Reflection lists the services, without the security header, and describes each that it lists."""
    assert name in services(wire)
    answer = reflected(wire, file_containing_symbol=name)
    files = [FileDescriptorProto.FromString(each) for each in answer.file_descriptor_response.file_descriptor_proto]
    full = {".".join(filter(None, [file.package, service.name])) for file in files for service in file.service}
    assert name in full


class PlainAgent(ScriptedAgent):
    """An agent that has the Workload API and nothing else, reflection included."""

    def handlers(self) -> Any:
        return super().handlers()[:1]


async def test_WEP_25_workload_api_alone(fake_socket: Path, ca: FakeCa) -> None:
    """Our client asks for nothing but the Workload API to do what is in it, and reports what else is missing."""
    agent, svid = PlainAgent(), ca.svid()
    agent.push("FetchX509SVID", x509_response(ca, svid))
    agent.push("FetchX509Bundles", pb.X509BundlesResponse(bundles={"spiffe://example.org": ca.root_der}))
    async with agent.serve(fake_socket), Client(str(fake_socket)) as client:
        async with X509Source(client) as source:
            assert svid.serial == source.svid.serial
        assert {ca.trust_domain: (ca.root,)} == await client.fetch_x509_bundles()
        with pytest.raises(Refused) as caught:
            await client.begin_task("t")
    assert grpc.StatusCode.UNIMPLEMENTED == caught.value.__cause__.code()  # type: ignore[union-attr]
    assert ["FetchX509SVID", "FetchX509Bundles"] == [method for method, _ in agent.requests]
