"""What requests of one task ask the agent for: each token once, by threads and by coroutines."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fakes.held_tasks import GRANT, RESOURCE, FakeAsyncTask, FakeSyncTask
from sojourn.errors import InvalidToken, Unavailable
from sojourn.sdk.request.authorization import HttpAnswer, RequestFlow, Send, WantedRequest, attach

REQUESTS = 5
WANTED = WantedRequest(GRANT, "POST", f"{RESOURCE}/tickets")
OK = HttpAnswer(200, (), None)


class SlowSyncTask(FakeSyncTask):
    """A task whose tokens take a while. Those for one request come once each request has asked for one."""

    def __init__(self, *failures: BaseException | None) -> None:
        super().__init__(*failures)
        self._all = threading.Barrier(REQUESTS, timeout=10)

    def token(self, resource: str = "", _actions: Any = (), **options: Any) -> Any:
        token = super().token(resource, **options)
        if options["params_digest"]:
            self._all.wait()
        else:
            time.sleep(0.02)
        return token


class SlowAsyncTask(FakeAsyncTask):
    """The same for an event loop."""

    def __init__(self, *failures: BaseException | None) -> None:
        super().__init__(*failures)
        self._all = asyncio.Barrier(REQUESTS)

    async def token(self, resource: str = "", _actions: Any = (), **options: Any) -> Any:
        token = await super().token(resource, **options)
        async with asyncio.timeout(10):
            await (self._all.wait() if options["params_digest"] else asyncio.sleep(0.02))
        return token


class Threads:
    """Requests by threads."""

    def __init__(self, *failures: BaseException | None) -> None:
        self.task = SlowSyncTask(*failures)

    def send(self, flow: RequestFlow, answer: HttpAnswer | None = None) -> Send | None:
        return self.task.asking.advance(flow, answer, lambda: b"content")

    def send_all(self, flows: list[RequestFlow]) -> list[Send | None]:
        with ThreadPoolExecutor(len(flows)) as pool:
            return list(pool.map(self.send, flows))


class Coroutines:
    """Requests by coroutines."""

    def __init__(self, *failures: BaseException | None) -> None:
        self.task = SlowAsyncTask(*failures)

    async def advance(self, flow: RequestFlow, answer: HttpAnswer | None = None) -> Send | None:
        async def content() -> bytes:
            return b"content"

        return await self.task.asking.advance(flow, answer, content)

    def send(self, flow: RequestFlow, answer: HttpAnswer | None = None) -> Send | None:
        return asyncio.run(self.advance(flow, answer))

    def send_all(self, flows: list[RequestFlow]) -> list[Send | None]:
        async def main() -> list[Send | None]:
            return await asyncio.gather(*map(self.advance, flows))

        return asyncio.run(main())


@pytest.fixture(params=[Threads, Coroutines])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def flow_of(program: Any) -> RequestFlow:
    return attach(WANTED, program.task.asking.shelf)


def test_one_token_for_many(kind: Any) -> None:
    """Requests that wait for the same token ask for it once; each has a proof of its own."""
    program = kind()
    sent = program.send_all([flow_of(program) for _ in range(REQUESTS)])
    assert ["DPoP t1"] * REQUESTS == [each.headers["Authorization"] for each in sent]
    assert {"p1", "p2", "p3", "p4", "p5"} == {each.headers["DPoP"] for each in sent}
    assert [{"bound": "agent", "params_digest": ""}] == program.task.tokens


def test_the_answer_of_the_service(kind: Any) -> None:
    """After an answer that is the caller's there is nothing to send."""
    program = kind()
    flow = flow_of(program)
    assert isinstance(program.send(flow), Send)
    assert program.send(flow, OK) is None


def test_another_version(kind: Any) -> None:
    """A token of before a change of the task is not used again."""
    program = kind()
    program.send(flow_of(program))
    program.task.version += 1
    assert "DPoP t2" == program.send(flow_of(program)).headers["Authorization"]


def test_tokens_for_one_request(kind: Any) -> None:
    """Tokens that are for one request each are asked for at once: none waits for that of another."""
    program = kind()
    program.task.asking.shelf.note_one_request(RESOURCE, ())
    program.send_all([flow_of(program) for _ in range(REQUESTS)])
    assert REQUESTS == len(program.task.tokens)
    assert all(each["params_digest"] for each in program.task.tokens)


def test_a_failure_is_raised(kind: Any) -> None:
    """A token that cannot be had is an error of its request, and the next one asks for it again."""
    program = kind(Unavailable("not now"))
    with pytest.raises(Unavailable, match="not now"):
        program.send(flow_of(program))
    assert "DPoP t2" == program.send(flow_of(program)).headers["Authorization"]


def test_a_proof_that_is_refused(kind: Any) -> None:
    """A token for which there is no proof any more, as after a change of the task, is given up for a new one."""
    program = kind()
    program.send(flow_of(program))
    program.task.proof_failures.append(InvalidToken("superseded", reason_code="superseded"))
    assert "DPoP t2" == program.send(flow_of(program)).headers["Authorization"]


async def test_cancelled_while_it_waits() -> None:
    """A request that is cancelled while it waits for its token, or for its turn, holds up none of the others."""
    program = Coroutines()
    first, second, third = (asyncio.create_task(program.advance(flow_of(program))) for _ in range(3))
    await asyncio.sleep(0)
    assert 1 == len(program.task.tokens)
    first.cancel()
    second.cancel()
    sent = await asyncio.wait_for(third, 10)
    assert sent is not None
    assert "DPoP t2" == sent.headers["Authorization"]
    assert [True, True] == [first.cancelled(), second.cancelled()]


def test_interrupted_while_it_waits() -> None:
    """A thread that is interrupted while it waits for a token holds up none of the others."""
    program = Threads(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        program.send(flow_of(program))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(program.send, flow_of(program)).result(10) is not None
