"""What a task is bound to, at the guards beside ASGI's: WSGI, gRPC, MCP, and those of calls that are no requests."""

import asyncio
import io
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fakes import services
from fakes.guarded import AUDIENCE, KEY, Credentials, agent_at, token
from fakes.services import GRPC_ACTIONS, SERVICE, GrpcService, Ticket
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.errors import InvalidInput
from sojourn.errors.oauth import ParamNotBound, WrongParams
from sojourn.limits import GUARDED_CONTENT_MAX_BYTES
from sojourn.sdk.guard.challenges import Refusal
from sojourn.sdk.guard.guard import Guard
from sojourn.sdk.guard.param_check import Arguments, Source, compare, in_python
from sojourn.sdk.guard.param_places import argument, body, field, form, header, path, query
from sojourn.sdk.guard.routes import Action
from sojourn.sdk.integrations.grpc_calls import MessageFields, fields_at
from sojourn.sdk.integrations.grpc_server import TaskTokenInterceptor
from sojourn.sdk.integrations.wsgi import TaskTokenWsgi
from sojourn.tasktoken import tokens

PAID: dict[str, str | int | bool] = {"ticket": "42", "cents": 2500}
JSON, FORM = "application/json", "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("agent") / "agent.sock"
    with agent_at(made):
        yield made


def verified(params: Mapping[str, str | int | bool]) -> tokens.TaskToken:
    keys, issuer = {KEY.public.kid: KEY.public}, "https://agent.example.org"
    made = token(params=params)
    return tokens.verify(made, keys=keys, issuer=issuer, audience=AUDIENCE, now=datetime.now(UTC))


def verdict(params: Mapping[str, str | int | bool], source: Source, places: Mapping[str, object] | None = None) -> str:
    """'' if a request of this source fits a task of these parameters, else the code of what is raised."""
    try:
        compare(verified(params), Action("ticket:read", places or {}), source, in_python)
    except (WrongParams, ParamNotBound) as error:
        return error.code
    return ""


WSGI_ACTIONS = {
    "POST /tickets/{ticket}/json": Action("ticket:read", params={"cents": body()}),
    "POST /tickets/{ticket}/form": Action("ticket:read", params={"cents": form()}),
    "GET /query": Action("ticket:read", params={"ticket": query(), "cents": query()}),
    "GET /header": Action("ticket:read", params={"ticket": header("x-ticket"), "cents": header()}),
    "GET /tickets/{id}": "ticket:read",
}


@pytest.fixture(scope="module")
def app(socket: Path) -> Iterator[TaskTokenWsgi]:
    def inner(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))]

    made = TaskTokenWsgi(inner, actions=WSGI_ACTIONS, audience=AUDIENCE, socket=str(socket))
    yield made
    made.close()


class TestWsgi:
    def ask(self, app: Any, method: str, target: str, content: bytes = b"", **more: Any) -> tuple[int, bytes]:
        sent, _, asked = target.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": sent,
            "QUERY_STRING": asked,
            "CONTENT_LENGTH": str(len(content)),
            "wsgi.input": io.BytesIO(content),
            "HTTP_AUTHORIZATION": f"Bearer {token(params=PAID)}",
            **more,
        }
        seen: list[str] = []
        said = b"".join(app(environ, lambda status, _: seen.append(status)))
        return int(seen[0][:3]), said

    def test_content(self, app: TaskTokenWsgi) -> None:
        """JSON and forms are compared, and what was compared is what the application reads, in chunks too."""
        for kind, place, good, bad in (
            (JSON, "json", b'{"cents": 2500}', b'{"cents": 9900}'),
            (FORM, "form", b"cents=2500", b"cents=9900"),
        ):
            target = f"/tickets/42/{place}"
            assert (200, good) == self.ask(app, "POST", target, good, CONTENT_TYPE=kind)
            assert 403 == self.ask(app, "POST", target, bad, CONTENT_TYPE=kind)[0]
            assert 403 == self.ask(app, "POST", target, good, CONTENT_TYPE="text/plain")[0]
            chunked = {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
            assert (200, good) == self.ask(app, "POST", target, good, CONTENT_TYPE=kind, **chunked)
            assert (
                400
                == self.ask(
                    app, "POST", target, good, CONTENT_TYPE=kind, **{**chunked, "wsgi.input_terminated": False}
                )[0]
            )
            assert 400 == self.ask(app, "POST", target, good, CONTENT_TYPE=kind, HTTP_CONTENT_ENCODING="gzip")[0]

    def test_too_large(self, app: TaskTokenWsgi) -> None:
        """Content over the limit is refused."""
        content = b'{"cents": 2500}' + b" " * GUARDED_CONTENT_MAX_BYTES
        assert 413 == self.ask(app, "POST", "/tickets/42/json", content, CONTENT_TYPE=JSON)[0]

    def test_elsewhere(self, app: TaskTokenWsgi) -> None:
        """Query and headers are compared, with lines that a server has joined, and a segment's name is the route's."""
        assert 200 == self.ask(app, "GET", "/query?ticket=42&cents=2500")[0]
        assert 403 == self.ask(app, "GET", "/query?ticket=42&cents=2500&cents=9900")[0]
        lines = {"HTTP_X_TICKET": "42", "HTTP_CENTS": "2500"}
        assert 200 == self.ask(app, "GET", "/header", **lines)[0]
        assert 403 == self.ask(app, "GET", "/header", **{**lines, "HTTP_X_TICKET": "42,43"})[0]
        status, said = self.ask(app, "GET", "/tickets/42?ticket=42&cents=2500")
        assert (403, "unbound_parameter") == (status, json.loads(said)["error"])

    def test_raw_bytes_in_a_path(self, app: TaskTokenWsgi) -> None:
        """A path with bytes that are not ASCII is refused: server and application read other letters in it."""
        assert 400 == self.ask(app, "GET", "/tickets/\xe9", REQUEST_URI="/tickets/\xe9")[0]


class TestGrpc:
    MESSAGE = pb.ValidateTokenRequest(token="42", use=True, kind=2, sender=pb.Sender(method="POST"))

    @pytest.mark.parametrize(
        ("params", "places", "expected"),
        [
            ({"token": "42"}, {}, ""),
            ({"token": "43"}, {}, "wrong_params"),
            ({"use": True}, {}, ""),
            ({"use": "true"}, {}, "wrong_params"),
            ({"kind": 2}, {}, ""),
            ({"audience": ""}, {}, ""),
            ({"audience": "x"}, {}, "wrong_params"),
            ({"ticket": "42"}, {}, "unbound_parameter"),
            ({"ticket": "42"}, {"ticket": field("token")}, ""),
            ({"ticket": "POST"}, {"ticket": field("sender.method")}, ""),
            ({"ticket": "GET"}, {"ticket": field("sender.method")}, "wrong_params"),
            ({"ticket": "x"}, {"ticket": field("sender.none")}, "unbound_parameter"),
            ({"ticket": "x"}, {"ticket": field("token.none")}, "unbound_parameter"),
            ({"sender": "x"}, {}, "wrong_params"),
        ],
    )
    def test_fields(self, params: dict[str, Any], places: dict[str, object], expected: str) -> None:
        """A field that the message's type has is compared by its name or its path, typed; another is none."""
        assert expected == verdict(params, MessageFields(self.MESSAGE), places)

    def test_not_set(self) -> None:
        """A message within that is not set has no field, and what is no message has none either."""
        places = {"ticket": field("sender.method")}
        assert "unbound_parameter" == verdict({"ticket": ""}, MessageFields(pb.ValidateTokenRequest()), places)
        assert "unbound_parameter" == verdict({"ticket": ""}, MessageFields(b"\x0a"), places)
        assert "unbound_parameter" == verdict({"sender": ""}, MessageFields(pb.ValidateTokenRequest()))

    def test_what_is_known_before_any_call(self) -> None:
        """The fields of a method are known by its generated code, and of another method nothing is."""
        assert None is fields_at("/tickets.v1.Nowhere/Read")

    def test_no_field(self) -> None:
        """A place that is none of a message's is told at once."""
        for place in (body(), path("x"), field("a..b"), field("a-b")):
            with pytest.raises(InvalidInput):
                TaskTokenInterceptor(actions={"/a.B/C": Action("x", params={"ticket": place})}, audience=AUDIENCE)

    @pytest.fixture(params=["grpc", "grpc-aio"])
    def service(self, request: pytest.FixtureRequest, socket: Path) -> Iterator[GrpcService]:
        make = services.grpc_service if request.param == "grpc" else services.grpc_aio_service
        with make(socket) as running:
            yield running

    def test_streams(self, service: GrpcService) -> None:
        """Each message of a stream is compared, the first before the method begins, and a stream of none is refused."""
        good, other = Ticket(ticket="42", text="a"), Ticket(ticket="43", text="b")
        for name in ("Collect", "Chat"):
            asked = Credentials.bearer(token())
            assert 200 == service.ask(name, [good, good], asked).status
            for requests in ([other], [good, other], [good, Ticket(text="c")]):
                assert (403, "insufficient_scope") == ((got := service.ask(name, requests, asked)).status, got.error)
            assert 403 == service.ask(name, [], asked).status
            assert 200 == service.ask(name, [], Credentials.bearer(token(params={}))).status

    def test_a_parameter_without_a_field(self, service: GrpcService) -> None:
        """A task with a parameter that no field is is refused, in every kind of call."""
        good = Ticket(ticket="42", text="a")
        for name in ("Read", "Follow", "Collect", "Chat"):
            outcome = service.ask(name, [good], Credentials.bearer(token(params=PAID)))
            assert (403, "unbound_parameter") == (outcome.status, outcome.error)

    def test_mapped_by_another_name(self, socket: Path) -> None:
        """A field of another name is compared where the service says so, and what it leaves unchecked is not."""
        action = Action("ticket:read", params={"ticket": field("text")}, unchecked=("cents",))
        guard = TaskTokenInterceptor(
            actions={**GRPC_ACTIONS, SERVICE + "Read": action}, audience=AUDIENCE, socket=str(socket)
        )
        with services.grpc_plain(guard) as service:
            for ticket, text, expected in (("x", "42", 200), ("42", "x", 403)):
                asked = [Ticket(ticket=ticket, text=text)]
                assert expected == service.ask("Read", asked, Credentials.bearer(token(params=PAID))).status


class TestMcp:
    @pytest.mark.parametrize(
        ("arguments", "places", "expected"),
        [
            ({"ticket": "42"}, {"ticket": argument()}, ""),
            ({"ticket": "43"}, {"ticket": argument()}, "wrong_params"),
            ({"ticket": 42}, {"ticket": argument()}, "wrong_params"),
            ({"ticket": ["42"]}, {"ticket": argument()}, "wrong_params"),
            ({}, {"ticket": argument()}, "unbound_parameter"),
            ({"ticket": "42", "Ticket": "43"}, {"ticket": argument()}, "wrong_params"),
            ({"ticket": "42", "__proto__": {"ticket": "43"}}, {"ticket": argument()}, ""),
            ({"__proto__": {"ticket": "42"}}, {"ticket": argument()}, "unbound_parameter"),
            ({"ticket_id": "42"}, {"ticket": argument("ticket_id")}, ""),
            ({"ticket_id": "43", "ticket": "42"}, {"ticket": argument("ticket_id")}, "wrong_params"),
            ({"of": {"a/b": "42"}}, {"ticket": argument("/of/a~1b")}, ""),
            ({"of": ["42"]}, {"ticket": argument("/of/0")}, ""),
            ({"of": ["42"]}, {"ticket": argument("/of/-")}, "unbound_parameter"),
            ({"of": "42"}, {"ticket": argument("/of/ticket")}, "unbound_parameter"),
            ({"ticket": "42"}, {}, "unbound_parameter"),
        ],
    )
    def test_arguments(self, arguments: dict[str, Any], places: dict[str, Any], expected: str) -> None:
        """Only an argument that the service names is compared: a tool may mind none of what a client adds."""
        placed = {name: place.of(name) for name, place in places.items()}
        assert expected == verdict({"ticket": "42"}, Arguments(arguments), placed)

    @pytest.mark.parametrize("text", ["null", " null\n", '["41","43"]', '{"$ne":"x"}', ' ["42"]'])
    def test_a_text_that_may_be_something_else(self, text: str) -> None:
        """A text that the library has a tool take for nothing, a list or an object is none of the task's."""
        placed = {"ticket": argument().of("ticket")}
        assert "wrong_params" == verdict({"ticket": text}, Arguments({"ticket": text}), placed)

    @pytest.mark.parametrize("text", ["nullable", "true", "7", "[open", '"null"'])
    def test_a_text_that_is_one(self, text: str) -> None:
        """Other texts are compared as they are."""
        placed = {"ticket": argument().of("ticket")}
        assert "" == verdict({"ticket": text}, Arguments({"ticket": text}), placed)

    def test_a_tool_that_is_not_mapped(self, tmp_path: Path) -> None:
        """A call by a task with a parameter that no argument is said to be is refused, and says what to write."""
        pytest.importorskip("mcp")
        with agent_at(tmp_path / "agent.sock"), services.mcp_service(tmp_path / "agent.sock") as service:
            outcome = service.call(Credentials.bearer(token(params=PAID)))
            assert (403, "unbound_parameter") == (outcome.status, outcome.error)
            assert "params={'cents': argument()}" in outcome.challenges[0]


class TestCalls:
    def test_what_is_no_request(self) -> None:
        """A call whose caller names its parameters must name all that concern the action."""

        class Verifier:
            audience, issuer = AUDIENCE, "https://agent.example.org"

            async def examine(self, text: str, proven: Any = None) -> tokens.TaskToken:
                del text, proven
                return verified(PAID)

            def check_digest(self, *_: object) -> None:
                """Of none."""

            async def use(self, *_: object) -> None:
                """Counts nothing."""

        guard = Guard(Verifier(), {})

        def ask(action: Action | str, params: dict[str, object] | None = None) -> object:
            answer = asyncio.run(guard.check_call("x", action, params))
            return answer.error if isinstance(answer, Refusal) else 200

        assert 200 == ask("ticket:read", {"ticket": "42", "cents": 2500})
        assert "unbound_parameter" == ask("ticket:read", {"ticket": "42"})
        assert "unbound_parameter" == ask("ticket:read")
        assert 200 == ask(Action("ticket:read", {"ticket": "42"}, unchecked=("cents",)))
        assert "insufficient_scope" == ask(Action("ticket:read", {"ticket": "43"}), {"cents": "2500"})
