"""The ASGI middleware: what passes, and what each refusal says (RFC 6750)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes.fake_agent import ScriptedAgent
from fakes.task_feed import AUDIENCE, live, over, signing_key, snapshot, token
from sojourn._pb.sojourn.v1 import validation_pb2
from sojourn.errors import InvalidInput
from sojourn.sdk.client.client import Client
from sojourn.sdk.guard.param_places import header
from sojourn.sdk.guard.routes import Action, action_finder
from sojourn.sdk.guard.verifier import TaskVerifier
from sojourn.sdk.integrations.asgi import TaskTokenMiddleware

KEY = signing_key()
ACTIONS = {"GET /tickets/{id}": "ticket:read", "POST /tickets": "ticket:write"}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the holder's SPIFFE ID."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        return
    body = str(scope["sojourn.task"].spiffe_id).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def verifier(agent: ScriptedAgent, client: Client) -> AsyncIterator[TaskVerifier]:
    agent.push("WatchTasks", snapshot([KEY], live("t1", 5), over("gone")))
    async with TaskVerifier(client, AUDIENCE) as running:
        await running.feed.wait_ready(5)
        yield running


@pytest.fixture
async def http(verifier: TaskVerifier) -> AsyncIterator[httpx.AsyncClient]:
    guarded = TaskTokenMiddleware(app, verifier=verifier, actions=ACTIONS)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://tickets") as opened:
        yield opened


def bearer(text: str | None = None) -> dict[str, str]:
    return {"Authorization": f"Bearer {text or token(KEY)}"}


class TestHttp:
    async def test_allowed(self, http: httpx.AsyncClient) -> None:
        """A good token for the action passes, and the application sees whose it is."""
        answer = await http.get("/tickets/7", headers=bearer())
        assert (answer.status_code, answer.text) == (200, "spiffe://example.org/agent/triage")

    async def test_headers_that_come_later(self, verifier: TaskVerifier) -> None:
        """What a server adds to its list of headers while content comes, as trailers, the application never sees."""
        seen: list[Any] = []

        async def reading(scope: Any, receive: Any, send: Any) -> None:
            while (await receive()).get("more_body"):
                continue
            seen.append(dict(scope["headers"]))
            await app(scope, receive, send)

        mine = bearer(token(KEY, params={"ticket": "7"}))["Authorization"]
        headers = [(b"authorization", mine.encode()), (b"x-ticket", b"7")]
        parts = iter([{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.request"}])
        wire = Wire()

        async def receive() -> Any:
            headers.append((b"x-ticket", b"8"))
            return next(parts, None) or await wire.receive()

        actions = {"POST /tickets": Action("ticket:read", params={"ticket": header("x-ticket")})}
        guarded = TaskTokenMiddleware(reading, verifier=verifier, actions=actions)
        scope = {"type": "http", "method": "POST", "path": "/tickets", "headers": headers}
        await guarded(scope, receive, wire.send)
        assert (200, b"7") == (wire.sent[0]["status"], seen[0][b"x-ticket"])
        assert len(headers) > 2

    async def test_scheme_in_any_case(self, http: httpx.AsyncClient) -> None:
        """The scheme's case does not matter (RFC 9110, 11.1)."""
        answer = await http.get("/tickets/7", headers={"Authorization": f"bEARER {token(KEY)}"})
        assert answer.status_code == 200

    @pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic abc"}])
    async def test_no_token(self, http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        """Without a token the challenge names no error."""
        answer = await http.get("/tickets/7", headers=headers)
        challenge = answer.headers["www-authenticate"]
        assert (401, True) == (answer.status_code, challenge.startswith(f'Bearer realm="{AUDIENCE}"'))
        assert "error" not in challenge
        assert {"error", "error_description"} == set(answer.json())

    async def test_over(self, http: httpx.AsyncClient) -> None:
        """A token of an ended task is invalid, and the challenge says why."""
        answer = await http.get("/tickets/7", headers=bearer(token(KEY, "gone")))
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
        expected = 'error="invalid_token", error_description="the task is over: holder is gone"'
        assert expected in answer.headers["www-authenticate"]

    async def test_other_service(self, http: httpx.AsyncClient) -> None:
        """A token for another service is invalid here; its quotes do not break the challenge."""
        answer = await http.get("/tickets/7", headers=bearer(token(KEY, audience="https://other.example.org")))
        assert answer.status_code == 401
        challenge = answer.headers.get_list("www-authenticate")[0]
        assert challenge.count('"') == 2 * 4  # realm, error, error_description, resource_metadata

    async def test_other_action(self, http: httpx.AsyncClient) -> None:
        """A good token without the action is 403."""
        answer = await http.post("/tickets", headers=bearer())
        assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/"),
            ("GET", "/tickets"),
            ("GET", "/tickets/"),
            ("GET", "/tickets/7/"),
            ("GET", "/tickets/7/x"),
            ("GET", "/tickets/a%2Fb"),
            ("GET", "/Tickets/7"),
            ("GET", "//tickets/7"),
            ("HEAD", "/tickets/7"),
            ("get", "/tickets/7"),
        ],
    )
    async def test_no_route(self, http: httpx.AsyncClient, method: str, path: str) -> None:
        """A request that is no action is 403, however near it is to one."""
        request = httpx.Request("GET", "http://tickets" + path, headers=bearer())
        request.method = method
        answer = await http.send(request)
        assert answer.status_code == 403

    @pytest.mark.parametrize(
        ("value", "status"),
        [("Bearer", 400), ("Bearer ", 400), ("Bearer a b", 400), ("Bearer a,b", 401), ("Bearer \xff", 401)],
    )
    async def test_malformed(self, http: httpx.AsyncClient, value: str, status: int) -> None:
        """A Bearer header without a proper token is refused."""
        answer = await http.get("/tickets/7", headers=[(b"Authorization", value.encode("latin-1"))])
        assert answer.status_code == status

    async def test_two_headers(self, http: httpx.AsyncClient) -> None:
        """Of two Authorization headers neither is believed."""
        answer = await http.get("/tickets/7", headers=[("Authorization", bearer()["Authorization"])] * 2)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")

    async def test_not_from_query(self, http: httpx.AsyncClient) -> None:
        """A token in the query is none."""
        answer = await http.get("/tickets/7", params={"access_token": token(KEY)})
        assert answer.status_code == 401


class Wire:
    """One ASGI connection, whose messages the test sets."""

    def __init__(self, *messages: str) -> None:
        self._messages = [{"type": message} for message in messages]
        self.sent: list[Any] = []
        self.proceed = asyncio.Event()

    async def receive(self) -> Any:
        if not self._messages:
            await self.proceed.wait()
            return {"type": "lifespan.shutdown"}
        return self._messages.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(message)


def websocket(path: str = "/tickets/7", *, denial: bool = False, authorized: bool = True) -> dict[str, Any]:
    headers = [(b"authorization", bearer()["Authorization"].encode())] if authorized else []
    extensions = {"websocket.http.response": {}} if denial else {}
    return {"type": "websocket", "path": path, "headers": headers, "extensions": extensions}


class TestWebsocket:
    async def test_allowed(self, verifier: TaskVerifier) -> None:
        """A WebSocket handshake is judged as the GET that it is."""
        wire = Wire("websocket.connect")
        guarded = TaskTokenMiddleware(app, verifier=verifier, actions=ACTIONS)
        await guarded(websocket(), wire.receive, wire.send)
        assert [message["type"] for message in wire.sent] == ["websocket.accept"]

    async def test_refused(self, verifier: TaskVerifier) -> None:
        """A refused one is closed with 1008, or answered if the server can."""
        guarded = TaskTokenMiddleware(app, verifier=verifier, actions=ACTIONS)
        for denial, expected in ((False, ["websocket.close"]), (True, ["start", "body"])):
            wire = Wire("websocket.connect")
            await guarded(websocket(denial=denial, authorized=False), wire.receive, wire.send)
            assert expected == [message["type"].removeprefix("websocket.http.response.") for message in wire.sent]
            assert {1008, 401} & {wire.sent[0].get("code"), wire.sent[0].get("status")}


class TestLifespan:
    @pytest.mark.parametrize("knows_lifespan", [True, False])
    async def test_own_verifier(self, agent: ScriptedAgent, socket: Path, knows_lifespan: bool) -> None:
        """A verifier of its own runs from startup to shutdown, whether the application knows lifespan or not."""
        agent.push("WatchTasks", snapshot([KEY], live("t1", 5)))

        async def knowing(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "lifespan":
                return await app(scope, receive, send)
            for step in ("startup", "shutdown"):
                assert f"lifespan.{step}" == (await receive())["type"]
                await send({"type": f"lifespan.{step}.complete"})
            return None

        guarded = TaskTokenMiddleware(
            knowing if knows_lifespan else app, audience=AUDIENCE, socket=str(socket), actions=ACTIONS
        )
        transport = httpx.ASGITransport(guarded)
        wire = Wire("lifespan.startup")
        async with asyncio.timeout(10), httpx.AsyncClient(transport=transport, base_url="http://tickets") as http:
            async with asyncio.TaskGroup() as group:
                group.create_task(guarded({"type": "lifespan"}, wire.receive, wire.send))
                while not wire.sent:
                    await asyncio.sleep(0)
                await guarded._guard.verifier.feed.wait_ready(5)  # type: ignore[union-attr]
                assert (await http.get("/tickets/7", headers=bearer())).status_code == 200
                wire.proceed.set()
            late = await http.get("/tickets/7", headers=bearer())
            assert (late.status_code, late.headers["retry-after"]) == (503, "1")
        expected = ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert expected == [message["type"] for message in wire.sent]

    async def test_without_a_lifespan(self, agent: ScriptedAgent, socket: Path) -> None:
        """A guard that is told of no lifespan, as in a mounted application, begins with its first request."""
        agent.push("WatchTasks", snapshot([KEY], live("t1", 5), over("gone")))
        guarded = TaskTokenMiddleware(app, audience=AUDIENCE, socket=str(socket), actions=ACTIONS)
        transport = httpx.ASGITransport(guarded)
        async with asyncio.timeout(10), httpx.AsyncClient(transport=transport, base_url="http://tickets") as http:
            assert (await http.get("/tickets/7")).status_code == 401
            await guarded._unannounced._verifier.feed.wait_ready(5)  # type: ignore[union-attr]
            assert (await http.get("/tickets/7", headers=bearer())).status_code == 200
            assert (await http.get("/tickets/7", headers=bearer(token(KEY, "gone")))).status_code == 401
        await guarded.close()

    async def test_waits_for_the_agent(self, agent: ScriptedAgent, socket: Path) -> None:
        """With wait_for_agent the application starts when the agent has told of its live tasks, and not before."""
        guarded = TaskTokenMiddleware(app, audience=AUDIENCE, socket=str(socket), actions=ACTIONS, wait_for_agent=10)
        wire = Wire("lifespan.startup")
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(guarded({"type": "lifespan"}, wire.receive, wire.send))
            while "WatchTasks" not in [name for name, _ in agent.requests]:
                await asyncio.sleep(0.01)
            assert [] == wire.sent
            agent.push("WatchTasks", snapshot([KEY], live("t1", 5)))
            while not wire.sent:
                await asyncio.sleep(0.01)
            wire.proceed.set()

    async def test_starts_without_the_agent(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Without an agent it starts all the same after that time: the log says why, and requests are for later."""
        nowhere = str(tmp_path / "none.sock")
        guarded = TaskTokenMiddleware(app, audience=AUDIENCE, socket=nowhere, actions=ACTIONS, wait_for_agent=0.2)
        wire = Wire("lifespan.startup")
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(guarded({"type": "lifespan"}, wire.receive, wire.send))
            while not wire.sent:
                await asyncio.sleep(0.01)
            transport = httpx.ASGITransport(guarded)
            async with httpx.AsyncClient(transport=transport, base_url="http://tickets") as http:
                answer = await http.get("/tickets/7", headers=bearer())
                assert (503, "temporarily_unavailable") == (answer.status_code, answer.json()["error"])
                assert "1" == answer.headers["retry-after"]
            wire.proceed.set()
        told = [each.getMessage() for each in caplog.records if each.name == "sojourn.guard"]
        assert 1 == len([each for each in told if each.startswith("nothing is heard") and nowhere in each])

    async def test_public(self, verifier: TaskVerifier) -> None:
        """A public route reaches the application without a token, and without what an outer guard put there."""

        async def health(scope: Any, receive: Any, send: Any) -> None:
            body = str("sojourn.task" in scope).encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

        guarded = TaskTokenMiddleware(
            health, verifier=verifier, actions=ACTIONS, public=["GET /health", "CORS preflight"]
        )

        async def outer(scope: Any, receive: Any, send: Any) -> None:
            await guarded({**scope, "sojourn.task": "another's"}, receive, send)

        preflight = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://tickets") as http:
            answer = await http.get("/health")
            assert (200, "False") == (answer.status_code, answer.text)
            assert 200 == (await http.options("/tickets/7", headers=preflight)).status_code
            assert 401 == (await http.options("/tickets/7")).status_code
            assert 401 == (await http.get("/tickets/7")).status_code

    @pytest.mark.parametrize("knows_lifespan", [True, False])
    async def test_tells_all_before_it_ends(self, agent: ScriptedAgent, socket: Path, knows_lifespan: bool) -> None:
        """What was let through and refused is told to the agent before the server hears that the shutdown is complete."""
        agent.push("WatchTasks", snapshot([KEY], live("t1", 5)))
        agent.answers |= {
            "DescribeAudience": validation_pb2.DescribeAudienceResponse(),
            "ReportUse": validation_pb2.ReportUseResponse(),
            "ReportRefusals": validation_pb2.ReportRefusalsResponse(),
        }

        async def knowing(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "lifespan":
                return await app(scope, receive, send)
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return None

        inner = knowing if knows_lifespan else app
        guarded = TaskTokenMiddleware(inner, audience=AUDIENCE, socket=str(socket), actions=ACTIONS, wait_for_agent=10)
        wire = Wire("lifespan.startup")
        told: list[str] = []

        async def send(message: Any) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                told.extend(name for name, _ in agent.requests)
            await wire.send(message)

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(guarded({"type": "lifespan"}, wire.receive, send))
            while not wire.sent:
                await asyncio.sleep(0.01)
            transport = httpx.ASGITransport(guarded)
            async with httpx.AsyncClient(transport=transport, base_url="http://tickets") as http:
                assert 200 == (await http.get("/tickets/7", headers=bearer())).status_code
                assert 403 == (await http.post("/tickets", headers=bearer())).status_code
            wire.proceed.set()
        assert {"ReportUse", "ReportRefusals"} <= set(told)

    async def test_no_socket_is_public(self, verifier: TaskVerifier) -> None:
        """A WebSocket needs a token, also at a path that anybody may read."""
        guarded = TaskTokenMiddleware(app, verifier=verifier, actions=ACTIONS, public=["GET /live"])
        wire = Wire("websocket.connect")
        await guarded(websocket("/live", authorized=False), wire.receive, wire.send)
        assert ["websocket.close"] == [message["type"] for message in wire.sent]

    async def test_unknown_scope(self, verifier: TaskVerifier) -> None:
        """A scope of a kind that we do not know is not let through."""
        wire = Wire()
        with pytest.raises(InvalidInput):
            await TaskTokenMiddleware(app, verifier=verifier, actions=ACTIONS)({"type": "x"}, wire.receive, wire.send)

    def test_neither_or_both(self) -> None:
        """Without verifier and audience there is nothing to verify by."""
        with pytest.raises(InvalidInput):
            TaskTokenMiddleware(app, actions=ACTIONS)


class TestRoutes:
    def test_function(self) -> None:
        """A function is taken as it is."""
        assert action_finder(lambda method, path: method + path)("GET", "/") == Action("GET/")

    def test_first_counts(self) -> None:
        """Of two routes that match, the first counts."""
        find = action_finder({"GET /a/b": "exact", "GET /a/{x}": "any"})
        expected = (Action("exact"), Action("any", segments={"x": "c"}), None)
        assert expected == (find("GET", "/a/b"), find("GET", "/a/c"), find("GET", "/a/.."))

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("GET /tickets/{id}", "GET /tickets/export"),
            ("GET /tickets/{id}", "GET /tickets/{ticket}"),
            ("GET /{a}/{b}", "GET /tickets/{id}"),
        ],
    )
    def test_a_route_behind_another(self, first: str, second: str) -> None:
        """A route that an earlier one takes every request of is refused: those would have the earlier one's action."""
        with pytest.raises(InvalidInput, match="never"):
            action_finder({first: "read", second: "export"})

    @pytest.mark.parametrize("route", ["", "GET", "GET tickets", "/tickets", "GET /t{id}", "GET /{}", "GET /{a}{b}"])
    def test_bad_route(self, route: str) -> None:
        """A route that could match nothing, or not what it seems to, is refused when it is made."""
        with pytest.raises(InvalidInput):
            action_finder({route: "x"})
