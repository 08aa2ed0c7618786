"""Validators on other machines: the feed of live tasks over mutual TLS on TCP."""

import os
import socket
import ssl
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from fakes.certificates import AUTHORITY, SERVER, Issued, authority, raw_san, san, usage
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from harness import forging
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.forging import connection, leaf, root_of
from harness.looking import until
from harness.program import Program
from harness.remotes import (
    LISTEN,
    SERVICE,
    WATCH,
    answered,
    eventually,
    failures,
    listening,
    live,
    node,
    refusal,
    refusals,
    remote,
    silent,
)
from harness.taskagent import TICKETS, make_agent
from sojourn import Client, RemoteAgent, TaskVerifier, X509Source
from sojourn._pb import workload_pb2
from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.errors import InvalidToken, Refused, SojournError, Unavailable, Unreachable
from sojourn.sdk.client.connection import read

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def shared() -> Iterator[AgentProcess]:
    """An agent with a listener, on which this user is /agent/triage."""
    with listening() as agent:
        yield agent


@pytest.fixture
def own() -> Iterator[AgentProcess]:
    """The same for one test."""
    with listening() as agent:
        yield agent


# --- what it is for -------------------------------------------------------------------------------------------------


async def test_a_verifier_elsewhere(shared: AgentProcess) -> None:
    """A verifier over TCP accepts a token of a live task, and refuses it when the task's holder was killed."""
    async with remote(shared) as agent, TaskVerifier(agent, TICKETS) as verifier:
        await verifier.feed.wait_ready(20)
        with Caller(shared.socket) as holder:
            task = holder.ask("begin", type="triage-ticket")["id"]
            token = holder.ask("token", task=task)["token"]
            assert task == (await verifier.verify(token, "ticket:read")).task_id
            assert (await agent.validate_token(token, TICKETS)).valid
            holder.kill()
        await eventually(lambda: not live(verifier.feed, task))
        with pytest.raises(InvalidToken, match="the task is over: revoked: holder_"):
            await verifier.verify(token)
        assert verifier.feed.fresh


async def test_the_server_is_who_it_must_be(shared: AgentProcess) -> None:
    """The SDK speaks to no agent with another SPIFFE ID than the one expected, and says which it has."""
    async with remote(shared, spiffe_id=f"{node(shared)}x") as agent:
        with pytest.raises(Unreachable, match=f"{node(shared)}' is not authorized here"):
            await agent.validate_token("x", TICKETS)


async def test_nobody_answers(shared: AgentProcess) -> None:
    """Where nobody listens, the SDK says at which address, and why not."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with (
        Client(shared.socket) as client,
        X509Source(client) as source,
        RemoteAgent(f"127.0.0.1:{port}", node(shared), source) as agent,
    ):
        with pytest.raises(Unreachable, match=f"no TLS connection to the agent at 127.0.0.1:{port}"):
            await agent.validate_token("x", TICKETS)


async def test_another_agent(shared: AgentProcess) -> None:
    """An agent of the same name whose authority is another is not spoken to, and the SDK says so."""
    with make_agent() as other:
        other.register("/agent/triage", f"unix:uid:{os.getuid()}")
        async with (
            Client(other.socket) as client,
            X509Source(client) as source,
            RemoteAgent(shared.tcp, node(shared), source) as agent,
        ):
            with pytest.raises(Unreachable, match=f"the agent at {shared.tcp}: unable to get local issuer certificate"):
                await agent.validate_token("x", TICKETS)


async def test_what_is_served(shared: AgentProcess) -> None:
    """Health is served too, and nothing else: neither SVIDs, nor tasks, nor reflection."""
    async with remote(shared) as agent:
        call = agent.connection.unary
        health = await call(
            "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse
        )
        assert health_pb2.HealthCheckResponse.SERVING == health.status
        for method, request, answer in (
            ("/SpiffeWorkloadAPI/FetchX509SVID", workload_pb2.X509SVIDRequest(), workload_pb2.X509SVIDResponse),
            ("/SpiffeWorkloadAPI/FetchJWTSVID", workload_pb2.JWTSVIDRequest(), workload_pb2.JWTSVIDResponse),
            ("/sojourn.v1.Tasks/BeginTask", tasks_pb2.BeginTaskRequest(type="triage-ticket"), tasks_pb2.Task),
            ("/sojourn.v1.Admin/GetStatus", pb.WatchTasksRequest(), pb.TaskFeed),
            (
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                reflection_pb2.ServerReflectionRequest(list_services=""),
                reflection_pb2.ServerReflectionResponse,
            ),
        ):
            with pytest.raises(Refused) as caught:
                await call(method, request, answer)
            assert "UNIMPLEMENTED" in str(caught.value.__cause__)


async def test_malformed_questions(shared: AgentProcess) -> None:
    """What is refused on the public socket is refused here with the same words."""
    async with (
        remote(shared) as agent,
        connection(shared.tcp, leaf(root_of(shared), san=(san(SERVICE), False))) as opened,
    ):
        with pytest.raises(SojournError, match="audience must be specified"):
            await agent.validate_token("x", "")
        call = opened.stream(WATCH, pb.WatchTasksRequest(), pb.TaskFeed)
        with pytest.raises(SojournError, match="audiences must be specified"):
            await read(call, opened)


def test_off_by_default() -> None:
    """Without an address there is no listener."""
    with make_agent() as agent:
        assert "TCP" not in agent.ready_line


def test_an_address_that_is_taken() -> None:
    """An address on which another listens is said, with the key that sets it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        agent = make_agent(extra=LISTEN.replace("127.0.0.1:0", address))
        with pytest.raises(RuntimeError, match=f"cannot listen on {address}"), agent:
            pass


@pytest.mark.go
def test_go(shared: AgentProcess, go_client: Path) -> None:
    """grpc-go with go-spiffe's own TLS configuration follows the feed unchanged."""
    argv = [str(go_client), "tasks", "-addr", shared.tcp, "-peer", node(shared), "-audience", TICKETS, "-updates", "3"]
    with Program([*argv, "-timeout", "60s"], shared.environment) as program, Caller(shared.socket) as holder:
        first = program.hear()
        assert ("feed", "snapshot", shared.json("status")["epoch"]) == (first["event"], first["kind"], first["epoch"])
        task = holder.ask("begin", type="triage-ticket")["id"]
        assert [(task, True)] == [(each["id"], each["live"]) for each in program.hear()["tasks"]]
        holder.tell("complete", task=task)
        status, [last] = program.finish()
    assert (0, [(task, False, "completed: success")]) == (
        status,
        [(each["id"], each["live"], each["reason"]) for each in last["tasks"]],
    )


@pytest.mark.go
def test_go_and_another_id(shared: AgentProcess, go_client: Path) -> None:
    """go-spiffe refuses the agent if it is to have another SPIFFE ID."""
    argv = [str(go_client), "tasks", "-addr", shared.tcp, "-peer", f"{node(shared)}x", "-audience", TICKETS]
    with Program([*argv, "-timeout", "60s"], shared.environment) as program:
        status, lines = program.finish()
    assert (1, True) == (status, "unexpected ID" in lines[-1]["message"])


# --- who may come in ------------------------------------------------------------------------------------------------

FORGED: dict[str, Callable[[Issued], Issued | None]] = {
    "no certificate": lambda _: None,
    "self-signed": lambda _: leaf(None, san=(san(SERVICE), False)),
    "another root of the same name": lambda root: leaf(authority(subject="root"), san=(san(SERVICE), False)),
    "another trust domain": lambda root: leaf(root, san=(san("spiffe://other.example/service"), False)),
    "trust domain in capitals": lambda root: leaf(root, san=(san("spiffe://EXAMPLE.org/service"), False)),
    "trust domain's own ID": lambda root: leaf(root, san=(san("spiffe://example.org"), False)),
    "two SPIFFE IDs": lambda root: leaf(root, san=(san(SERVICE, "spiffe://example.org/other"), False)),
    "SPIFFE ID and another URI": lambda root: leaf(root, san=(san(SERVICE, "https://example.org"), False)),
    "DNS name alone": lambda root: leaf(root, san=(san(dns=["service.example.org"]), False)),
    "no name": lambda root: leaf(root, san=None),
    "NUL in the SPIFFE ID": lambda root: leaf(root, san=(raw_san(SERVICE.encode() + b"\0.other"), False)),
    "dots in the SPIFFE ID": lambda root: leaf(root, san=(san("spiffe://example.org/a/../service"), False)),
    "ended": lambda root: leaf(root, seconds=-1, san=(san(SERVICE), False)),
    "signs certificates": lambda root: leaf(root, base=AUTHORITY, san=(san(SERVICE), False)),
    "no digitalSignature": lambda root: leaf(root, san=(san(SERVICE), False), usage=(usage("key_agreement"), True)),
    "for servers only": lambda root: leaf(
        root, san=(san(SERVICE), False), extended=(x509.ExtendedKeyUsage([SERVER]), False)
    ),
}


@pytest.mark.parametrize("case", FORGED)
async def test_certificates_that_are_refused(shared: AgentProcess, case: str) -> None:
    """With any but a good X.509-SVID of our own trust domain nobody gets a word in, and the log says why."""
    made = FORGED[case](root_of(shared))
    before = len(refusals(shared))
    async with connection(shared.tcp, made) as opened:
        assert isinstance(await refusal(opened), Unavailable | Unreachable)
        await eventually(lambda: len(refusals(shared)) > before)
    assert all(reason.startswith("no TLS connection: ") for reason in refusals(shared)[before:])


async def test_a_certificate_that_is_not(shared: AgentProcess) -> None:
    """A good leaf under the same root, made in the same way, is let in: so the others were refused for their faults."""
    async with connection(shared.tcp, leaf(root_of(shared), san=(san(SERVICE), False))) as opened:
        assert await answered(opened)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_versions_of_tls(shared: AgentProcess, version: ssl.TLSVersion) -> None:
    """The listener for validators speaks TLS 1.2 and 1.3."""
    made = leaf(root_of(shared), san=(san(SERVICE), False))
    async with connection(shared.tcp, made, version=version) as opened:
        assert await answered(opened)


def test_older_versions_of_tls(shared: AgentProcess) -> None:
    """TLS 1.1 is refused by the listener for validators."""
    context = forging.context(None)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

    def told() -> bool:
        with silent(shared) as plain, pytest.raises(ssl.SSLError):
            context.wrap_socket(plain)
        return "no TLS connection: UNSUPPORTED_PROTOCOL" in refusals(shared)

    until(told, "the log says so")  # not of each one, where many were refused just before


async def test_those_that_are_allowed() -> None:
    """With `listen.allowed` just these SPIFFE IDs may come in; others of the trust domain are told why not."""
    with make_agent(extra=f'{LISTEN}allowed = ["{SERVICE}", "spiffe://example.org/other"]\n') as agent:
        root = root_of(agent)
        async with connection(agent.tcp, leaf(root, san=(san(SERVICE), False))) as opened:
            assert await answered(opened)
        for name in ("spiffe://example.org/Service", "spiffe://example.org/service/one", "spiffe://example.org/third"):
            async with connection(agent.tcp, leaf(root, san=(san(name), False))) as opened:
                error = await refusal(opened)
            assert (Refused, True) == (type(error), f"{name!r} is not allowed here" in str(error))
            found = agent.json("audit", "tail", "--lines", "100")["records"]
            denied = [each["fields"] for each in found if each["event"] == "call_denied"]
            assert name in {each["spiffe_id"] for each in denied}
        assert [] == failures(agent)
