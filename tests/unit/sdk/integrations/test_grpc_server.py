"""The gRPC interceptors: streams, open methods, certificates, and requests that are no messages."""

import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from fakes import services
from fakes.ca import FakeCa
from fakes.guarded import Agent, Credentials, agent_at, token
from fakes.services import SERVICE, GrpcService, Ticket
from fakes.task_feed import HOLDER
from harness.looking import until
from sojourn.errors import InvalidInput
from sojourn.sdk.integrations.grpc_calls import certificate_of
from sojourn.sdk.integrations.grpc_server import AioTaskTokenInterceptor, TaskTokenInterceptor
from sojourn.tasktoken import request_digest
from sojourn.tasktoken.sender_constraint import thumbprint_of

_GOOD = GrpcService.message("42").SerializeToString()
GOOD, OTHER = GrpcService.message("42"), GrpcService.message("43")


@pytest.fixture(scope="module", params=["grpc", "grpc-aio"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcService]:
    path: Path = tmp_path_factory.mktemp("agent") / "agent.sock"
    make = services.grpc_service if request.param == "grpc" else services.grpc_aio_service
    with agent_at(path), make(path) as running:
        yield running


class TestStreams:
    def test_many_answers(self, service: GrpcService) -> None:
        """A call with many answers is one request: its ticket counts, and each answer knows the token."""
        outcome = service.ask("Follow", [GOOD], Credentials.bearer(token()))
        assert (200, f"{HOLDER} hello0 {HOLDER} hello1") == (outcome.status, outcome.said)
        assert 403 == service.ask("Follow", [OTHER], Credentials.bearer(token())).status

    @pytest.mark.parametrize("name", ["Collect", "Chat"])
    def test_many_requests(self, service: GrpcService, name: str) -> None:
        """Of a call with many requests each is compared with the token's task, when it comes."""
        good = service.ask(name, [GOOD, GOOD], Credentials.bearer(token()))
        assert (200, 2) == (good.status, good.said.count("hello"))
        for requests in ([OTHER], [GOOD, OTHER], [GOOD, Ticket(text="hello")]):
            assert 403 == service.ask(name, requests, Credentials.bearer(token())).status

    @pytest.mark.parametrize("name", ["Collect", "Chat"])
    def test_once(self, service: GrpcService, name: str) -> None:
        """A call for an action whose uses are counted is one use, and has one request."""
        counted = ("ticket:read",)
        one = service.ask(name, [GOOD], Credentials.bearer(token(asks=counted)))
        assert (200, 1) == (one.status, one.said.count("hello"))
        assert 403 == service.ask(name, [GOOD, GOOD], Credentials.bearer(token(asks=counted))).status

    @pytest.mark.parametrize("name", ["Collect", "Chat"])
    def test_no_token_of_one_request(self, service: GrpcService, name: str) -> None:
        """A token for one request is none for a call that streams them, though the first is that one."""
        for digest in (
            service.digest(),
            request_digest.of_grpc(SERVICE + name, b""),
            request_digest.of_grpc(SERVICE + name, _GOOD),
        ):
            assert 403 == service.ask(name, [GOOD], Credentials.bearer(token(digest=digest))).status

    @pytest.mark.parametrize("name", ["Follow", "Collect", "Chat"])
    def test_no_token(self, service: GrpcService, name: str) -> None:
        """Streams are guarded as other calls are."""
        assert 401 == service.ask(name, [GOOD], Credentials()).status
        assert 401 == service.ask(name, [GOOD], Credentials.bearer(token(task="gone"))).status


class TestEnds:
    @pytest.fixture(params=["grpc", "grpc-aio"])
    def ending(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Agent, GrpcService]]:
        path = tmp_path / "agent.sock"
        make = services.grpc_service if request.param == "grpc" else services.grpc_aio_service
        with agent_at(path) as agent, make(path) as running:
            yield agent, running

    def test_answers(self, ending: tuple[Agent, GrpcService]) -> None:
        """Answers without end have one when the task is over, and the caller is told why."""
        agent, service = ending
        call = service.channel.unary_stream(
            SERVICE + "Follow", lambda each: each.SerializeToString(), Ticket.FromString
        )
        answers = call(
            Ticket(ticket="42", text=services.FOREVER), metadata=Credentials.bearer(token()).headers, timeout=30
        )
        assert next(answers)
        agent.ending = True
        with pytest.raises(grpc.RpcError) as refused:
            for _ in answers:
                pass
        assert (grpc.StatusCode.UNAUTHENTICATED, True) == (
            refused.value.code(),
            "the task is over" in refused.value.details(),
        )

    @pytest.mark.parametrize("name", ["Collect", "Chat"])
    def test_requests(self, ending: tuple[Agent, GrpcService], name: str) -> None:
        """Of requests that are streamed none passes once the task is over."""
        agent, service = ending

        def requests() -> Iterator[Any]:
            yield GOOD
            agent.ending = True
            ends = time.monotonic() + 10
            while time.monotonic() < ends:
                time.sleep(0.02)
                yield GOOD

        many = service.ask(name, requests(), Credentials.bearer(token()))
        assert (401, "invalid_token") == (many.status, many.error)

    @pytest.mark.parametrize("name", ["Collect", "Chat"])
    def test_the_end_of_requests(self, ending: tuple[Agent, GrpcService], name: str) -> None:
        """A stream of requests that only ends after the task is over is not taken for a whole one."""
        agent, service = ending

        def requests() -> Iterator[Any]:
            yield GOOD
            agent.ending = True
            until(lambda: service.call(Credentials.bearer(token())).status == 401)

        many = service.ask(name, requests(), Credentials.bearer(token()))
        assert (401, "invalid_token") == (many.status, many.error)


class TestRequests:
    def test_a_field_that_is_not_set(self, service: GrpcService) -> None:
        """A request that leaves the ticket out is for no ticket, or for all: not for the token's."""
        assert 403 == service.ask("Read", [Ticket(text="hello")], Credentials.bearer(token())).status

    def test_no_message(self, service: GrpcService) -> None:
        """Bytes that are no message are refused, and only told so to who may call."""
        assert 400 == service.ask("Read", [b"\xff"], Credentials.bearer(token())).status
        assert 401 == service.ask("Read", [b"\xff"], Credentials()).status

    def test_the_bytes_that_came(self, service: GrpcService) -> None:
        """A token for one request is for its bytes, whatever else means the same."""
        same = GOOD.SerializeToString() + b"\x0a\x0242"  # the ticket once more: the last one counts
        assert Ticket.FromString(same) == GOOD
        assert 200 == service.ask("Read", [GOOD], Credentials.bearer(token(digest=service.digest()))).status
        assert 403 == service.ask("Read", [same], Credentials.bearer(token(digest=service.digest()))).status

    def test_an_open_method(self, service: GrpcService) -> None:
        """A method that is said to be open needs no token."""
        assert (200, "hello") == ((outcome := service.ask("Open", [GOOD], Credentials())).status, outcome.said)

    def test_an_unknown_method(self, service: GrpcService) -> None:
        """What the service has not is unknown, as without a guard."""
        assert "UNIMPLEMENTED" == service.ask("None", [GOOD], Credentials.bearer(token())).said


def test_an_open_health_service(tmp_path: Path) -> None:
    """The library's own service of health is answered where it is open, also to whoever watches, as many as do."""
    health = pytest.importorskip("grpc_health.v1.health")
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    watch = "/grpc.health.v1.Health/Watch"
    guard = TaskTokenInterceptor(actions={}, open_methods=[watch], audience="https://a.example", socket=str(tmp_path))
    server = grpc.server(ThreadPoolExecutor(2), interceptors=[guard])
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watching = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=30) for _ in range(5)]
        assert {health_pb2.HealthCheckResponse.SERVING} == {next(each).status for each in watching}
        for each in watching:
            each.cancel()
    server.stop(None).wait()
    guard.close()


@pytest.mark.parametrize("kind", [TaskTokenInterceptor, AioTaskTokenInterceptor])
@pytest.mark.parametrize("method", ["Read", "tickets.v1.Tickets/Read", "/tickets.v1.Tickets", "/a/b/c"])
def test_no_method(kind: Any, method: str) -> None:
    """What is no method's full name is told at once."""
    with pytest.raises(InvalidInput, match="is not like /package"):
        kind(actions={method: "x"}, audience="https://a.example")


def test_the_certificate_of_the_connection(tmp_path: Path, ca: FakeCa) -> None:
    """A token that is bound to a certificate is good over the connection that shows it, and not as metadata."""
    path = tmp_path / "agent.sock"
    server_svid, client_svid = ca.svid("/tickets", dns="tickets.example.org"), ca.svid("/agent/triage")
    der = client_svid.chain[0].public_bytes(Encoding.DER)
    text = token(x5t=thumbprint_of(der))
    root = ssl.DER_cert_to_PEM_cert(ca.root_der).encode()
    guard = TaskTokenInterceptor(actions=services.GRPC_ACTIONS, audience=services.AUDIENCE, socket=str(path))
    with agent_at(path), services.grpc_server(guard, server_svid, root) as port:
        with Tls(port, root, client_svid) as channel:
            assert grpc.StatusCode.OK is code(channel, text)
        with Tls(port, root, ca.svid("/agent/triage")) as channel:
            assert grpc.StatusCode.UNAUTHENTICATED is code(channel, text)


def test_no_certificate() -> None:
    """A connection without TLS shows no client's certificate."""

    class Plain:
        def auth_context(self) -> dict[str, Any]:
            return {"transport_security_type": [b"insecure"]}

    assert certificate_of(Plain()) is None


class Tls:
    """A channel that shows an SVID. The server's certificate has a name that gRPC's client can check."""

    def __init__(self, port: int, root: bytes, svid: Any) -> None:
        shown = grpc.ssl_channel_credentials(root, svid.key_pem, svid.chain_pem)
        options = [("grpc.ssl_target_name_override", "tickets.example.org")]
        self._channel = grpc.secure_channel(f"127.0.0.1:{port}", shown, options)

    def __enter__(self) -> grpc.Channel:
        return self._channel

    def __exit__(self, *_: object) -> None:
        self._channel.close()


def code(channel: grpc.Channel, text: str) -> grpc.StatusCode:
    call = channel.unary_unary(SERVICE + "Read", Ticket.SerializeToString, Ticket.FromString)
    try:
        call(GOOD, metadata=[("authorization", f"Bearer {text}")], timeout=15)
    except grpc.RpcError as error:
        found: grpc.StatusCode = error.code()  # type: ignore[attr-defined]
        return found
    return grpc.StatusCode.OK
