"""Validators on other machines: the feed of live tasks over mutual TLS on TCP."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
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
from harness.taskagent import TICKETS, make_agent
from sojourn import Client, RemoteAgent, TaskVerifier, X509Source
from sojourn._pb import workload_pb2
from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.authority.profile import signer_id
from sojourn.errors import InvalidToken, Refused, SojournError, Unavailable, Unreachable
from sojourn.limits import REMOTE_HANDSHAKES_PER_ADDRESS
from sojourn.sdk.connection import Connection, read
from sojourn.sdk.feed import TaskFeed

LISTEN = '\n[listen]\ntcp = "127.0.0.1:0"\n'
WATCHER = str(Path(__file__).resolve().parent.parent / "harness" / "remotewatcher.py")
SERVICE = "spiffe://example.org/service"
VALIDATE = "/sojourn.v1.Validation/ValidateToken"
WATCH = "/sojourn.v1.Validation/WatchTasks"
ASKED = pb.ValidateTokenRequest(token="x", audience=TICKETS)


@pytest.fixture(scope="module")
def shared() -> Iterator[AgentProcess]:
    """An agent with a listener, on which this user is /agent/triage."""
    with make_agent(extra=LISTEN) as running:
        running.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield running
        assert [] == failures(running)


@pytest.fixture
def own() -> Iterator[AgentProcess]:
    """The same for one test."""
    with make_agent(extra=LISTEN) as running:
        running.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield running
        assert [] == failures(running)


def failures(agent: AgentProcess) -> list[object]:
    names = {"call_failed", "remote_handshake_failed", "library_message", "alarm_failed"}
    return [line for line in agent.log_lines() if line["event"] in names]


def refusals(agent: AgentProcess) -> list[str]:
    """Why connections were refused, by the log."""
    return [line["reason"] for line in agent.log_lines() if line["event"] == "caller_refused"]


def node(agent: AgentProcess) -> str:
    return str(agent.json("status")["node_id"])


@contextlib.asynccontextmanager
async def remote(agent: AgentProcess, *, spiffe_id: str | None = None) -> AsyncIterator[RemoteAgent]:
    """The SDK's way to the listener, with this process's SVID."""
    async with (
        Client(agent.socket) as client,
        X509Source(client) as source,
        RemoteAgent(agent.tcp, spiffe_id or node(agent), source) as opened,
    ):
        yield opened


async def eventually(holds: Callable[[], object], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.02)


class Stream:
    """A plain WatchTasks stream over a connection with any certificate."""

    def __init__(self, opened: Connection) -> None:
        self._opened = opened
        self._call = opened.stream(WATCH, pb.WatchTasksRequest(audiences=[TICKETS]), pb.TaskFeed)

    async def hear(self, kind: str) -> pb.TaskFeed:
        """The next message of that kind. Raise a SojournError when the stream has ended."""
        async with asyncio.timeout(30):
            while True:
                message = await read(self._call, self._opened)
                if message.WhichOneof("message") == kind:
                    return message

    async def end(self) -> SojournError:
        """How it ends."""
        try:
            async with asyncio.timeout(30):
                while True:
                    await read(self._call, self._opened)
        except SojournError as error:
            return error


async def refusal(opened: Connection) -> SojournError:
    """What a call ends with that must not be answered."""
    with pytest.raises(SojournError) as caught:
        await opened.unary(VALIDATE, ASKED, pb.ValidateTokenResponse)
    return caught.value


async def answered(opened: Connection) -> bool:
    answer = await opened.unary(VALIDATE, ASKED, pb.ValidateTokenResponse)
    return not answer.valid and bool(answer.code)


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
    with silent(shared) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain)
    until(lambda: "no TLS connection: UNSUPPORTED_PROTOCOL" in refusals(shared), "the log says so")


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


# --- when that changes ----------------------------------------------------------------------------------------------


async def test_a_revoked_svid(own: AgentProcess) -> None:
    """A stream ends when its caller's SVID is revoked, and the SVID opens no other; the SDK goes on with the next one."""
    async with (
        Client(own.socket) as client,
        X509Source(client) as source,
        RemoteAgent(own.tcp, node(own), source) as agent,
        TaskFeed(agent, [TICKETS]) as feed,
    ):
        await feed.wait_ready(20)
        revoked = source.svid
        async with connection(own.tcp, revoked) as opened:
            stream = Stream(opened)
            await stream.hear("snapshot")
            own.run("svid", "revoke", "--serial", revoked.serial)
            error = await stream.end()
            assert ("svid_refused", "the X.509-SVID of this connection is revoked") == (error.remote_code, str(error))
        async with connection(own.tcp, revoked) as opened:
            error = await refusal(opened)
            assert (True, "svid_refused") == (isinstance(error, Refused), error.remote_code)
        await eventually(lambda: source.svid.serial != revoked.serial)
        async with connection(own.tcp, source.svid) as opened:
            assert await answered(opened)
        await feed.wait_ready(30)
        assert feed.fresh


async def test_an_svid_that_ends(shared: AgentProcess) -> None:
    """A stream ends with its caller's SVID, and says that; nothing is answered on that connection any more."""
    async with connection(shared.tcp, leaf(root_of(shared), seconds=6, san=(san(SERVICE), False))) as opened:
        stream = Stream(opened)
        await stream.hear("snapshot")
        error = await stream.end()
        assert ("svid_expired", True) == (error.remote_code, "has ended: connect again" in str(error))
        assert isinstance(await refusal(opened), Unavailable | Unreachable)


async def test_following_over_the_end_of_an_svid(own: AgentProcess) -> None:
    """The SDK's feed goes on, with the next SVID, when the one with which it was begun has ended."""
    entry = own.json("entry", "list")["entries"][0]
    own.run("entry", "update", entry["id"], "--x509-svid-ttl", "10s")
    async with Client(own.socket) as client, X509Source(client) as source:
        await eventually(lambda: (source.svid.not_after - source.svid.leaf.not_valid_before_utc).total_seconds() < 60)
        async with RemoteAgent(own.tcp, node(own), source) as agent, TaskVerifier(agent, TICKETS) as verifier:
            await verifier.feed.wait_ready(20)
            serials, ends = {source.svid.serial}, asyncio.get_running_loop().time() + 25
            while asyncio.get_running_loop().time() < ends:
                serials.add(source.svid.serial)
                await asyncio.sleep(0.1)
            assert len(serials) > 2
            await verifier.feed.wait_ready(20)
            async with client.task("triage-ticket") as task:
                assert task.id == (await verifier.verify((await task.token()).token)).task_id


def served(agent: AgentProcess) -> x509.Certificate:
    """The certificate that the listener shows now."""
    with silent(agent) as plain, forging.context(None).wrap_socket(plain) as tls:
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


async def test_the_listener_s_own_certificate(own: AgentProcess) -> None:
    """It is rotated without a restart, over a new root and a taint too, and the streams that are open go on.

    When the old root is revoked, the streams of those whom it vouched for end, and the others go on.
    """
    old = root_of(own)
    first_root = own.json("authority", "show")["keys"][0]["authority_id"]
    async with connection(own.tcp, leaf(old, san=(san(SERVICE), False))) as opened:
        stream = Stream(opened)
        await stream.hear("snapshot")
        first = served(own)
        own.run("svid", "rotate", "--all")
        second = served(own)
        made = own.json("authority", "prepare", "x509")["authority_id"]
        own.run("authority", "activate", made)
        own.run("authority", "taint", first_root)
        third = served(own)
        assert 3 == len({each.serial_number for each in (first, second, third)})
        assert signer_id(second) == signer_id(first) != signer_id(third)
        with Caller(own.socket) as holder:
            task = holder.ask("begin", type="triage-ticket")["id"]
            async with asyncio.timeout(30):
                while task not in {state.id for state in (await stream.hear("delta")).delta.tasks}:
                    pass
        async with remote(own) as agent, TaskFeed(agent, [TICKETS]) as feed:
            await feed.wait_ready(20)
            own.run("authority", "revoke", first_root)
            error = await stream.end()
            assert ("svid_refused", "the authority that signed the X.509-SVID is revoked") == (
                error.remote_code,
                str(error),
            )
            async with connection(own.tcp, leaf(old, san=(san(SERVICE), False))) as again:
                assert isinstance(await refusal(again), Unavailable | Unreachable)
            await eventually(lambda: feed.fresh)


async def test_the_agent_restarts() -> None:
    """A feed over TCP begins anew by itself after a restart of the agent, with a later epoch."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with make_agent(extra=LISTEN.replace("127.0.0.1:0", address)) as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        async with remote(agent) as far, TaskFeed(far, [TICKETS]) as feed:
            await feed.wait_ready(20)
            epoch = feed.epoch
            for stop in (signal.SIGKILL, signal.SIGTERM):
                await asyncio.to_thread(agent.stop, stop)
                await eventually(lambda: not feed.fresh)
                await asyncio.to_thread(agent.start)
                await feed.wait_ready(30)
                assert epoch < feed.epoch
                epoch = feed.epoch
        assert [] == failures(agent)


# --- those who hold it up, or try -----------------------------------------------------------------------------------


def silent(agent: AgentProcess) -> socket.socket:
    """A connection that never says anything."""
    host, _, port = agent.tcp.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def ended(connection: socket.socket) -> bool:
    connection.settimeout(30)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


async def test_silent_connections(own: AgentProcess) -> None:
    """Connections that say nothing hold up nobody, are no more than so many, and are ended after a while."""
    before = own.descriptors()
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(silent(own)) for _ in range(REMOTE_HANDSHAKES_PER_ADDRESS // 2)]
        async with connection(own.tcp, leaf(root_of(own), san=(san(SERVICE), False))) as opened:
            assert await answered(opened)
        more = [stack.enter_context(silent(own)) for _ in range(REMOTE_HANDSHAKES_PER_ADDRESS)]
        assert await asyncio.to_thread(ended, more[-1])
        for each in held:
            assert await asyncio.to_thread(ended, each)
        async with connection(own.tcp, leaf(root_of(own), san=(san(SERVICE), False))) as opened:
            assert await answered(opened)
    assert "too many handshakes of this address are under way" in refusals(own)
    assert own.settled_descriptors(before + 20) <= before + 20


async def test_rubbish(shared: AgentProcess) -> None:
    """What is not TLS, and TLS that does not speak HTTP/2, is closed; the next caller is answered."""
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 100, b"\0" * 5000):
        with silent(shared) as plain:
            plain.sendall(said)
            assert await asyncio.to_thread(ended, plain)
    made = leaf(root_of(shared), san=(san(SERVICE), False))
    context = forging.context(made)
    context.set_alpn_protocols(["http/1.1"])
    with silent(shared) as plain, context.wrap_socket(plain) as tls:
        tls.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert await asyncio.to_thread(ended, tls)
    async with connection(shared.tcp, made) as opened:
        assert await answered(opened)


def live(feed: TaskFeed, task: str) -> bool:
    known = feed.lookup(task)
    return known is not None and known.live


async def test_a_validator_that_hangs(own: AgentProcess) -> None:
    """A validator that is stopped holds up no other, and hears the whole state when it goes on."""
    argv = [sys.executable, WATCHER, own.socket, own.tcp, node(own), TICKETS]
    with Program(argv, own.environment) as hung, Caller(own.socket) as holder:
        assert "ready" == hung.hear()["event"]
        async with remote(own) as agent, TaskFeed(agent, [TICKETS]) as feed:
            await feed.wait_ready(20)
            os.kill(hung.pid, signal.SIGSTOP)
            try:
                for _ in range(5):
                    task = holder.ask("begin_process", type="triage-ticket")["id"]
                    await eventually(lambda task=task: live(feed, task))
                    own.run("task", "revoke", task)
                    await eventually(lambda task=task: not live(feed, task))
            finally:
                os.kill(hung.pid, signal.SIGCONT)
        last = holder.ask("begin_process", type="triage-ticket")["id"]

        def heard() -> bool:
            line = hung.hear()
            return line.get("id") == last and line["live"]

        until(heard, "the task that was begun last", 30)


def test_it_drains(own: AgentProcess) -> None:
    """The agent ends in good time and order while validators follow it."""
    argv = [sys.executable, WATCHER, own.socket, own.tcp, node(own), TICKETS]
    with Program(argv, own.environment) as watcher:
        assert "ready" == watcher.hear()["event"]
        assert 0 == own.stop()
