"""httpx clients with a task's authority: what is sent, what is sent again, and what becomes of the answers between."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from fakes.held_tasks import RESOURCE, FakeAsyncTask, FakeSyncTask
from sojourn.errors import Unavailable
from sojourn.errors.oauth import OutsideTask

NONCE = {"WWW-Authenticate": 'DPoP error="use_dpop_nonce"', "DPoP-Nonce": "n1"}
STALE = {"WWW-Authenticate": 'DPoP error="invalid_token"'}


class Answer(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The content of an answer, which comes in parts. It knows whether it was read to its end, and closed."""

    def __init__(self) -> None:
        self.is_read = self.is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from (b"ok", b"!")
        self.is_read = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part

    def close(self) -> None:
        self.is_closed = True

    async def aclose(self) -> None:
        self.is_closed = True


class Service(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers with these challenges first, and then with 200. `asked` has the headers that it got."""

    def __init__(self, *challenges: dict[str, str]) -> None:
        self._challenges = list(challenges)
        self.asked: list[tuple[str, str]] = []
        self.contents: list[Answer] = []

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.headers["Authorization"], request.headers["DPoP"]))
        self.contents.append(Answer())
        headers = self._challenges.pop(0) if self._challenges else {}
        return httpx.Response(401 if headers else 200, headers=headers, stream=self.contents[-1])

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        return self._answer(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return self._answer(request)


def blocking(service: Service, *failures: BaseException | None, **options: Any) -> Any:
    """The answer to a request by a program without an event loop, and its task."""
    task = FakeSyncTask(*failures)
    with task.client(RESOURCE, transport=service, **options) as client:
        return client.post("/tickets", content=b"{}"), task


def asynchronous(service: Service, *failures: BaseException | None, **options: Any) -> Any:
    """The same by one with an event loop."""

    async def main() -> Any:
        task = FakeAsyncTask(*failures)
        async with task.client(RESOURCE, transport=service, **options) as client:
            return await client.post("/tickets", content=b"{}"), task

    return asyncio.run(main())


@pytest.fixture(params=[blocking, asynchronous])
def ask(request: pytest.FixtureRequest) -> Any:
    return request.param


Ask = Callable[..., Any]


def test_sent_once(ask: Ask) -> None:
    """A request goes out with a token and a proof, and its answer is the caller's."""
    service = Service()
    answer, task = ask(service)
    assert (200, "ok!") == (answer.status_code, answer.text)
    assert [("DPoP t1", "p1")] == service.asked
    assert [{"bound": "agent", "params_digest": ""}] == task.tokens


@pytest.mark.parametrize(("challenge", "again"), [(NONCE, ("DPoP t1", "p2")), (STALE, ("DPoP t2", "p2"))])
def test_sent_again(ask: Ask, challenge: dict[str, str], again: tuple[str, str]) -> None:
    """A request is sent again with the nonce that the service asks for, or with a new token.

    The answer that asks for it is read to its end, so that its connection serves again.
    """
    service = Service(challenge)
    answer, _ = ask(service)
    assert 200 == answer.status_code
    assert [("DPoP t1", "p1"), again] == service.asked
    assert service.contents[0].is_read
    assert service.contents[0].is_closed


def test_asked_for_too_often(ask: Ask) -> None:
    """A service that wants a new token once more is answered with none: its answer is the caller's."""
    service = Service(STALE, STALE)
    answer, _ = ask(service)
    assert (401, 2) == (answer.status_code, len(service.asked))
    assert "ok!" == answer.text


def test_no_token_to_send_again_with(ask: Ask) -> None:
    """Where there is no new token that failure is raised, and the answer that asked for one is closed."""
    service = Service(STALE)
    with pytest.raises(Unavailable, match="not now"):
        ask(service, None, Unavailable("not now"))
    assert 1 == len(service.asked)
    assert service.contents[0].is_closed


def test_interrupted(ask: Ask) -> None:
    """An answer is closed, too, where the program is interrupted before its request is sent again."""
    service = Service(STALE)
    with pytest.raises(KeyboardInterrupt):
        ask(service, None, KeyboardInterrupt())
    assert service.contents[0].is_closed


async def test_cancelled() -> None:
    """An answer is closed where a request is cancelled while it waits for its new token."""
    service, task = Service(STALE), FakeAsyncTask()
    give, waits = task.token, asyncio.Event()

    async def second_never_comes(*args: Any, **options: Any) -> Any:
        if task.tokens:
            waits.set()
            await asyncio.Event().wait()
        return await give(*args, **options)

    task.token = second_never_comes  # type: ignore[method-assign]
    async with task.client(RESOURCE, transport=service) as client:
        running = asyncio.create_task(client.get("/tickets"))
        await asyncio.wait_for(waits.wait(), 10)
        running.cancel()
        await asyncio.wait([running], timeout=10)
    assert running.cancelled()
    assert service.contents[0].is_closed


def test_options(ask: Ask) -> None:
    """A client's options are the task's and httpx's, and no others."""
    _, task = ask(Service(), actions=["ticket:read"], timeout=5, verify=False, follow_redirects=True)
    assert 1 == len(task.tokens)
    with pytest.raises(OutsideTask):
        ask(Service(), actions=["ticket:delete"])
    with pytest.raises(TypeError, match="proxies"):
        ask(Service(), proxies={})
    assert 30.0 == FakeSyncTask().client(RESOURCE).timeout.read
