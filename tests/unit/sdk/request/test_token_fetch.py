"""What requests of one task ask the agent for: each token once, by threads and by coroutines."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sojourn.errors import InvalidToken, Unavailable
from sojourn.sdk.request.authorization import HttpAnswer, RequestFlow, Send, WantedRequest, attach
from sojourn.sdk.request.token_fetch import AsyncAsking, SyncAsking
from sojourn.sdk.task.values import AccessToken, Outside
from sojourn.tasktoken.grants import Grant

RESOURCE = "https://tickets.example.org/v1"
GRANT = Grant.parse(RESOURCE, ["ticket:read"])
REQUESTS = 5
WANTED = WantedRequest(GRANT, "POST", f"{RESOURCE}/tickets")
OK = HttpAnswer(200, (), None)


class Task:
    """A task that gives tokens one after the other. `failures` are raised first, of whatever is asked.

    A token for one request is given once as many are asked for as there are requests.
    """

    id, type, state, why, ended, grants = "t1", "triage", "active", "", False, (GRANT,)
    outside: tuple[Outside, ...] = ()

    def __init__(self, *failures: BaseException) -> None:
        self.version = 1
        self.asked: list[Any] = []
        self.failures = list(failures)

    @property
    def status(self) -> "Task":
        return self

    def answer(self, answer: Any) -> Any:
        if self.failures:
            raise self.failures.pop(0)
        return answer

    def given(self, resource: str) -> Any:
        expires_at = datetime.now(UTC) + timedelta(seconds=60)
        return self.answer(AccessToken(f"t{len(self.asked)}", resource, ("ticket:read",), expires_at, "DPoP"))


class BlockingTask(Task):
    """For threads."""

    def __init__(self, *failures: BaseException) -> None:
        super().__init__(*failures)
        self._all = threading.Barrier(REQUESTS, timeout=10)

    def token(self, resource: str = "", actions: Any = (), **options: Any) -> Any:
        self.asked.append(options)
        if options["params_digest"]:
            self._all.wait()
        else:
            time.sleep(0.02)  # the others may come meanwhile
        return self.given(resource)

    def proof(self, _method: str, _url: str, token: Any, nonce: str | None = None) -> Any:
        self.asked.append((token, nonce))
        return self.answer("p")


class AsynchronousTask(Task):
    """For an event loop."""

    def __init__(self, *failures: BaseException) -> None:
        super().__init__(*failures)
        self._all = asyncio.Barrier(REQUESTS)

    async def token(self, resource: str = "", actions: Any = (), **options: Any) -> Any:
        self.asked.append(options)
        if options["params_digest"]:
            await asyncio.wait_for(self._all.wait(), 10)
        else:
            await asyncio.sleep(0.02)
        return self.given(resource)

    async def proof(self, _method: str, _url: str, token: Any, nonce: str | None = None) -> Any:
        self.asked.append((token, nonce))
        await asyncio.sleep(0)
        return self.answer("p")


class Threads:
    """Requests by threads."""

    def __init__(self, *failures: BaseException) -> None:
        self.task = BlockingTask(*failures)
        self.asking = SyncAsking(self.task)

    def send(self, flow: RequestFlow, answer: HttpAnswer | None = None) -> Send | None:
        return self.asking.advance(flow, answer, lambda: b"content")

    def send_all(self, flows: list[RequestFlow]) -> list[Send | None]:
        with ThreadPoolExecutor(len(flows)) as pool:
            return list(pool.map(self.send, flows))


class Coroutines:
    """Requests by coroutines. One event loop for all of them: the lock of a task is of one loop."""

    def __init__(self, *failures: BaseException) -> None:
        self.task = AsynchronousTask(*failures)
        self.asking = AsyncAsking(self.task)

    async def _send(self, flow: RequestFlow, answer: HttpAnswer | None = None) -> Send | None:
        async def content() -> bytes:
            return b"content"

        return await self.asking.advance(flow, answer, content)

    async def _send_all(self, flows: list[RequestFlow]) -> list[Send | None]:
        return await asyncio.gather(*map(self._send, flows))

    def send(self, flow: RequestFlow, answer: HttpAnswer | None = None) -> Send | None:
        return asyncio.run(self._send(flow, answer))

    def send_all(self, flows: list[RequestFlow]) -> list[Send | None]:
        return asyncio.run(self._send_all(flows))


@pytest.fixture(params=[Threads, Coroutines])
def program(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_one_token_for_many(program: Any) -> None:
    """Requests that wait for the same token ask for it once; each has a proof of its own."""
    made = program()
    sent = made.send_all([attach(WANTED, made.asking.shelf) for _ in range(REQUESTS)])
    assert [{"Authorization": "DPoP t1", "DPoP": "p"}] * REQUESTS == [each.headers for each in sent]
    assert [("t1", None)] * REQUESTS == [each for each in made.task.asked if isinstance(each, tuple)]
    assert [{"bound": "agent", "params_digest": ""}] == [each for each in made.task.asked if isinstance(each, dict)]


def test_the_answer_of_the_service(program: Any) -> None:
    """After an answer that is the caller's there is nothing to send."""
    made = program()
    flow = attach(WANTED, made.asking.shelf)
    assert isinstance(made.send(flow), Send)
    assert made.send(flow, OK) is None


def test_another_version(program: Any) -> None:
    """A token of before a change of the task is not used again."""
    made = program()
    made.send(attach(WANTED, made.asking.shelf))
    made.task.version += 1
    made.send(attach(WANTED, made.asking.shelf))
    assert 2 == sum(isinstance(each, dict) for each in made.task.asked)


def test_tokens_for_one_request(program: Any) -> None:
    """Tokens that are for one request each are asked for at once: none waits for that of another."""
    made = program()
    made.asking.shelf.note_one_request(RESOURCE, ())
    made.send_all([attach(WANTED, made.asking.shelf) for _ in range(REQUESTS)])
    tokens = [each for each in made.task.asked if isinstance(each, dict)]
    assert REQUESTS == len(tokens)
    assert all(each["params_digest"] for each in tokens)


def test_a_failure_is_raised(program: Any) -> None:
    """A token that cannot be had is an error of its request, and the next one asks for it again."""
    made = program(Unavailable("not now"))
    with pytest.raises(Unavailable, match="not now"):
        made.send(attach(WANTED, made.asking.shelf))
    assert {"Authorization": "DPoP t2", "DPoP": "p"} == made.send(attach(WANTED, made.asking.shelf)).headers


def test_a_failure_that_the_flow_knows(program: Any) -> None:
    """A token whose proof is refused, as after a change of the task, is given up for a new one."""
    made = program()
    made.send(attach(WANTED, made.asking.shelf))
    made.task.failures.append(InvalidToken("superseded", reason_code="superseded"))
    assert "DPoP t4" == made.send(attach(WANTED, made.asking.shelf)).headers["Authorization"]


async def test_cancelled_while_it_waits() -> None:
    """A request that is cancelled while it waits for its token, or for its turn, holds up none of the others."""
    made = Coroutines()
    first, second, third = (asyncio.create_task(made._send(attach(WANTED, made.asking.shelf))) for _ in range(3))
    await asyncio.sleep(0)
    assert 1 == len(made.task.asked)
    first.cancel()
    second.cancel()
    sent = await asyncio.wait_for(third, 10)
    assert sent is not None
    assert "DPoP t2" == sent.headers["Authorization"]
    assert [True, True] == [isinstance(each, asyncio.CancelledError) for each in await gathered(first, second)]


async def gathered(*tasks: "asyncio.Task[Any]") -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_interrupted_while_it_waits() -> None:
    """A thread that is interrupted while it waits for a token holds up none of the others."""
    made = Threads(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        made.send(attach(WANTED, made.asking.shelf))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(made.send, attach(WANTED, made.asking.shelf)).result(10) is not None
