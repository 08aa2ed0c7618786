"""asgi_streams.py: WebSockets and answers in parts end when the task of their token is over."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fakes.fake_agent import ScriptedAgent
from fakes.task_feed import AUDIENCE, delta, heartbeat, live, over, signing_key, snapshot, token
from harness.looking import WAIT_SECONDS
from sojourn.sdk.client.client import Client
from sojourn.sdk.guard.verifier import TaskVerifier
from sojourn.sdk.integrations.asgi import TaskTokenMiddleware
from sojourn.sdk.integrations.task_over import TaskIsOver

KEY = signing_key()
ACTIONS = {"GET /live": "ticket:read", "POST /live": "ticket:read"}


@pytest.fixture
async def verifier(agent: ScriptedAgent, client: Client) -> AsyncIterator[TaskVerifier]:
    agent.push("WatchTasks", snapshot([KEY], live("t1", 5), live("t2", 5)))
    async with TaskVerifier(client, AUDIENCE) as running:
        await running.feed.wait_ready(5)
        yield running


async def eventually(look: Callable[[], object], what: str) -> None:
    """Look until it is true."""
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while not look():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"it is not so: {what}") from None


def running() -> set[Any]:
    """The tasks of the event loop but gRPC's own, whose server begins them with whatever it is asked."""
    codes = {each: getattr(each.get_coro(), "cr_code", None) for each in asyncio.all_tasks()}
    return {each for each, code in codes.items() if code is not None and "grpc" not in code.co_filename}


class Wire:
    """The server's side of a connection: what was sent, and messages of the client as the test hands them over."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.sent: list[dict[str, Any]] = []
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for message in messages:
            self.incoming.put_nowait(message)

    async def receive(self) -> dict[str, Any]:
        return await self.incoming.get()

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    @property
    def kinds(self) -> list[str]:
        return [message["type"] for message in self.sent]


def socket() -> dict[str, Any]:
    return {"type": "websocket", "path": "/live", "headers": [(b"authorization", f"Bearer {token(KEY)}".encode())]}


def request(method: str = "GET") -> dict[str, Any]:
    return {**socket(), "type": "http", "method": method}


CONNECT = {"type": "websocket.connect"}
EMPTY = {"type": "http.request", "body": b"", "more_body": False}
ENDS = [
    pytest.param(over("t1", 6), id="ended"),
    pytest.param(live("t1", 6), id="changed"),
]


class TestSocket:
    @pytest.mark.parametrize("end", ENDS)
    async def test_one_that_waits(self, verifier: TaskVerifier, agent: ScriptedAgent, end: Any) -> None:
        """An application that waits for its client hears that it has gone, and the client is told why."""
        heard: list[dict[str, Any]] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            heard.append(await receive())
            await send({"type": "websocket.accept"})
            while heard[-1]["type"] != "websocket.disconnect":
                heard.append(await receive())

        wire = Wire(CONNECT, {"type": "websocket.receive", "text": "hello"})
        guarded = TaskTokenMiddleware(app, verifier=verifier, actions=ACTIONS)
        serving = asyncio.ensure_future(guarded(socket(), wire.receive, wire.send))
        await eventually(lambda: len(heard) == 2, "the application has its client's message")
        agent.push("WatchTasks", delta(over("t2")), heartbeat())
        await asyncio.sleep(0.05)
        assert not serving.done(), "another task's end is none of its business"
        agent.push("WatchTasks", delta(end))
        await asyncio.wait_for(serving, WAIT_SECONDS)
        assert ["websocket.connect", "websocket.receive", "websocket.disconnect"] == [each["type"] for each in heard]
        assert ["websocket.accept", "websocket.close"] == wire.kinds
        assert (1008, True) == (wire.sent[-1]["code"], "the task" in wire.sent[-1]["reason"])

    @pytest.mark.parametrize("pause", [0, 0.01])
    async def test_one_that_only_sends(self, verifier: TaskVerifier, agent: ScriptedAgent, pause: float) -> None:
        """An application that only sends is told, as by a server, that there is nobody any more; its client, why."""
        caught: list[OSError] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            try:
                while True:
                    await send({"type": "websocket.send", "text": "tick"})
                    await asyncio.sleep(pause)
            except OSError as error:
                caught.append(error)

        wire = Wire(CONNECT)
        guarded = TaskTokenMiddleware(app, verifier=verifier, actions=ACTIONS)
        serving = asyncio.ensure_future(guarded(socket(), wire.receive, wire.send))
        await eventually(lambda: "websocket.send" in wire.kinds, "it sends")
        agent.push("WatchTasks", delta(over("t1", 6)))
        await asyncio.wait_for(serving, WAIT_SECONDS)
        assert "the task is over" in str(caught[0])
        await asyncio.sleep(0.05)
        assert "websocket.close" == wire.kinds[-1]

    async def test_one_that_does_nothing(self, verifier: TaskVerifier, agent: ScriptedAgent) -> None:
        """The client is cut off also if the application neither sends nor listens."""
        release = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await release.wait()

        wire = Wire(CONNECT)
        guarded = TaskTokenMiddleware(app, verifier=verifier, actions=ACTIONS)
        serving = asyncio.ensure_future(guarded(socket(), wire.receive, wire.send))
        await eventually(lambda: wire.sent, "it is accepted")
        agent.push("WatchTasks", delta(over("t1", 6)))
        await eventually(lambda: wire.kinds[-1] == "websocket.close", "the client is cut off")
        release.set()
        await asyncio.wait_for(serving, WAIT_SECONDS)

    async def test_one_that_has_closed(self, verifier: TaskVerifier, agent: ScriptedAgent) -> None:
        """One that the application has closed is not closed again; nothing is left running."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1000})
            agent.push("WatchTasks", delta(over("t1", 6)))
            await asyncio.sleep(0.2)

        wire = Wire(CONNECT)
        before = running()
        await TaskTokenMiddleware(app, verifier=verifier, actions=ACTIONS)(socket(), wire.receive, wire.send)
        assert ["websocket.accept", "websocket.close"] == wire.kinds
        assert before == running()

    async def test_an_agent_that_was_started_anew(self, verifier: TaskVerifier, agent: ScriptedAgent) -> None:
        """A task that an agent does not know any more is over."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass

        wire = Wire(CONNECT)
        guarded = TaskTokenMiddleware(app, verifier=verifier, actions=ACTIONS)
        serving = asyncio.ensure_future(guarded(socket(), wire.receive, wire.send))
        await eventually(lambda: wire.sent, "it is accepted")
        await asyncio.sleep(0.05)
        agent.push("WatchTasks", snapshot([KEY], live("t2", 5), epoch=2))
        await asyncio.wait_for(serving, WAIT_SECONDS)
        assert "nothing is heard of it" in wire.sent[-1]["reason"]


class TestRequest:
    @pytest.mark.parametrize("kind", ["body", "zerocopysend", "pathsend"])
    async def test_an_answer_in_parts(self, verifier: TaskVerifier, agent: ScriptedAgent, kind: str) -> None:
        """Of an answer in parts nothing more is sent once the task is over."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": f"http.response.{kind}", "body": b"tick", "more_body": True})
                await asyncio.sleep(0.01)

        wire = Wire(EMPTY)
        guarded = TaskTokenMiddleware(app, verifier=verifier, actions=ACTIONS)
        serving = asyncio.ensure_future(guarded(request(), wire.receive, wire.send))
        await eventually(lambda: len(wire.sent) > 3, "it sends")
        agent.push("WatchTasks", delta(over("t1", 6)))
        with pytest.raises(OSError, match="the task is over"):
            await asyncio.wait_for(serving, WAIT_SECONDS)

    async def test_one_that_watches_its_client(self, verifier: TaskVerifier, agent: ScriptedAgent) -> None:
        """An application that waits for its client to go, as for a stream of events, hears that it has gone."""
        heard: list[dict[str, Any]] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            heard.append(await receive())
            heard.append(await receive())

        wire = Wire(EMPTY)
        before = running()
        guarded = TaskTokenMiddleware(app, verifier=verifier, actions=ACTIONS)
        serving = asyncio.ensure_future(guarded(request(), wire.receive, wire.send))
        await eventually(lambda: heard, "it has the request")
        agent.push("WatchTasks", delta(over("t1", 6)))
        await asyncio.wait_for(serving, WAIT_SECONDS)
        assert [EMPTY, {"type": "http.disconnect"}] == heard
        assert before == running()

    async def test_what_was_let_through_is_answered(self, verifier: TaskVerifier, agent: ScriptedAgent) -> None:
        """A request that passed before the end is carried out and answered: half of it would help nobody."""
        ended = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert b"ab" == (await receive())["body"] + (await receive())["body"]
            agent.push("WatchTasks", delta(over("t1", 6)))
            await eventually(lambda: not verifier.feed.lookup("t1").live, "the end is heard")
            ended.set()
            await send({"type": "http.response.start", "status": 201, "headers": []})
            await send({"type": "http.response.body", "body": b"done"})

        wire = Wire(
            {"type": "http.request", "body": b"a", "more_body": True},
            {"type": "http.request", "body": b"b", "more_body": False},
        )
        await TaskTokenMiddleware(app, verifier=verifier, actions=ACTIONS)(request("POST"), wire.receive, wire.send)
        assert ended.is_set()
        assert b"done" == wire.sent[-1]["body"]


def part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


class TestUpload:
    @pytest.mark.parametrize("end", ENDS)
    @pytest.mark.parametrize("sends_on", [True, False])
    async def test_ends_with_its_task(
        self, verifier: TaskVerifier, agent: ScriptedAgent, end: Any, sends_on: bool
    ) -> None:
        """Reading content that comes in parts fails once the task is over, whether or not more comes, with the reason; and
        the client is told it.
        """
        handled: list[bytes] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            while (message := await receive())["type"] == "http.request":
                handled.append(message["body"])

        wire = Wire(part(b"1"), part(b"2"))
        guarded = TaskTokenMiddleware(app, verifier=verifier, actions=ACTIONS)
        serving = asyncio.ensure_future(guarded(request("POST"), wire.receive, wire.send))
        await eventually(lambda: len(handled) == 2, "two parts are handled")
        agent.push("WatchTasks", delta(over("t2")), heartbeat())
        wire.incoming.put_nowait(part(b"3"))
        await eventually(lambda: len(handled) == 3, "another task's end is none of its business")
        agent.push("WatchTasks", delta(end))
        if sends_on:
            await eventually(lambda: (verifier.feed.lookup("t1") or live("t1", 5)).version == 6, "the end is heard")
            wire.incoming.put_nowait(part(b"4", more=False))
        await asyncio.wait_for(serving, WAIT_SECONDS)
        assert [b"1", b"2", b"3"] == handled
        assert (401, True) == (wire.sent[0]["status"], b"the task" in wire.sent[1]["body"])

    async def test_one_that_is_answered_already(self, verifier: TaskVerifier, agent: ScriptedAgent) -> None:
        """An application that answers while it reads has its answer broken off, as servers do it."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await receive()

        wire = Wire(part(b"1"))
        guarded = TaskTokenMiddleware(app, verifier=verifier, actions=ACTIONS)
        serving = asyncio.ensure_future(guarded(request("POST"), wire.receive, wire.send))
        await eventually(lambda: wire.sent, "it answers")
        agent.push("WatchTasks", delta(over("t1", 6)))
        with pytest.raises(TaskIsOver, match="the task"):
            await asyncio.wait_for(serving, WAIT_SECONDS)
        assert ["http.response.start"] == wire.kinds
