"""gRPC clients with a task's authority: when a call is made again, by threads and by coroutines."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from fakes.held_tasks import RESOURCE, FakeAsyncTask, FakeSyncTask
from sojourn.errors import Unavailable
from sojourn.errors.oauth import OutsideTask, SendAgain
from sojourn.sdk.integrations.grpc_client import aio_interceptors, interceptors

NAME = "/tickets.v1.Tickets/"
NONCE = (("www-authenticate", 'DPoP error="use_dpop_nonce"'), ("dpop-nonce", "n1"))
STALE = (("www-authenticate", 'DPoP error="invalid_token"'),)
MANY_OUT, MANY_IN = {"Follow", "Chat"}, {"Collect", "Chat"}
SECONDS = 15


class Service:
    """Answers with these challenges first, and then with what it was sent. `asked` has what it got."""

    def __init__(self, *challenges: tuple[tuple[str, str], ...], breaks: bool = False) -> None:
        self._challenges = list(challenges)
        self._breaks = breaks
        self.asked: list[tuple[str, str]] = []

    def _begin(self, context: Any) -> None:
        sent = dict(context.invocation_metadata())
        self.asked.append((sent["authorization"], sent["dpop"]))
        if self._challenges:
            self._challenge(context)

    def _challenge(self, context: Any) -> None:
        context.set_trailing_metadata(self._challenges.pop(0))
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "another one, please")

    def one(self, request: bytes, context: Any) -> bytes:
        self._begin(context)
        return request

    def many(self, request: bytes, context: Any) -> Iterator[bytes]:
        self._begin(context)
        yield request
        if self._breaks:
            self._challenges.append(STALE)
            self._challenge(context)
        yield request

    def of_many(self, requests: Iterator[bytes], context: Any) -> bytes:
        self._begin(context)
        return b"".join(requests)

    def many_of_many(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        self._begin(context)
        yield from requests

    @contextmanager
    def running(self) -> Iterator[str]:
        handlers = {
            "Read": grpc.unary_unary_rpc_method_handler(self.one),
            "Follow": grpc.unary_stream_rpc_method_handler(self.many),
            "Collect": grpc.stream_unary_rpc_method_handler(self.of_many),
            "Chat": grpc.stream_stream_rpc_method_handler(self.many_of_many),
        }
        server = grpc.server(futures.ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(NAME.strip("/"), handlers)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait(SECONDS)


def kind_of(name: str) -> str:
    return f"{'stream' if name in MANY_IN else 'unary'}_{'stream' if name in MANY_OUT else 'unary'}"


def blocking(service: Service, name: str, *failures: BaseException | None, **options: Any) -> Any:
    """The answers to a call by a program without an event loop, and its task."""
    task = FakeSyncTask(*failures)
    with service.running() as target, grpc.insecure_channel(target) as plain:
        channel = grpc.intercept_channel(plain, *interceptors(task, RESOURCE, **options))
        call = getattr(channel, kind_of(name))(NAME + name)
        given = iter([b"a", b"b"]) if name in MANY_IN else b"a"
        answer = call(given, timeout=SECONDS)
        return (list(answer) if name in MANY_OUT else [answer]), task


def asynchronous(service: Service, name: str, *failures: BaseException | None, **options: Any) -> Any:
    """The same by one with an event loop."""

    async def main(target: str) -> Any:
        task = FakeAsyncTask(*failures)
        attached = aio_interceptors(task, RESOURCE, **options)
        async with grpc.aio.insecure_channel(target, interceptors=attached) as channel:
            call = getattr(channel, kind_of(name))(NAME + name)
            given = iter([b"a", b"b"]) if name in MANY_IN else b"a"
            answer = call(given, timeout=SECONDS)
            return ([each async for each in answer] if name in MANY_OUT else [await answer]), task

    with service.running() as target:
        return asyncio.run(main(target))


Ask = Callable[..., Any]


@pytest.fixture(params=[blocking, asynchronous])
def ask(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(
    ("name", "answers"),
    [("Read", [b"a"]), ("Follow", [b"a", b"a"]), ("Collect", [b"ab"]), ("Chat", [b"a", b"b"])],
)
def test_made_once(ask: Ask, name: str, answers: list[bytes]) -> None:
    """Each kind of call has a token and a proof, and its answers are the caller's."""
    service = Service()
    found, task = ask(service, name)
    assert answers == found
    assert [("DPoP t1", "p1")] == service.asked
    assert 1 == len(task.tokens)


@pytest.mark.parametrize("name", ["Read", "Follow"])
@pytest.mark.parametrize(("challenge", "again"), [(NONCE, ("DPoP t1", "p2")), (STALE, ("DPoP t2", "p2"))])
def test_made_again(ask: Ask, name: str, challenge: Any, again: tuple[str, str]) -> None:
    """A call with one request is made again with the nonce that the service asks for, or with a new token."""
    service = Service(challenge)
    found, _ = ask(service, name)
    assert {b"a"} == set(found)
    assert [("DPoP t1", "p1"), again] == service.asked


@pytest.mark.parametrize("name", ["Read", "Follow"])
def test_asked_for_too_often(ask: Ask, name: str) -> None:
    """A service that wants a new token once more is answered with none: its error is the caller's."""
    service = Service(STALE, STALE)
    with pytest.raises(grpc.RpcError, match="another one, please"):
        ask(service, name)
    assert 2 == len(service.asked)


@pytest.mark.parametrize("name", ["Read", "Follow"])
def test_no_token_to_make_it_again_with(ask: Ask, name: str) -> None:
    """Where there is no new token that failure is raised."""
    service = Service(STALE)
    with pytest.raises(Unavailable, match="not now"):
        ask(service, name, None, Unavailable("not now"))
    assert 1 == len(service.asked)


@pytest.mark.parametrize("name", ["Collect", "Chat"])
def test_requests_that_are_gone(ask: Ask, name: str) -> None:
    """A call whose requests were streamed is not made again: whoever made it is told to, or gets the error itself."""
    service = Service(STALE)
    # What the service asks for is in the trailers, which grpc.aio may not have when a stream is broken off.
    with pytest.raises((SendAgain, grpc.RpcError)):
        ask(service, name)
    assert 1 == len(service.asked)


def test_a_stream_that_has_begun(ask: Ask) -> None:
    """A call is not made again once there was an answer: the caller has that already."""
    service = Service(breaks=True)
    with pytest.raises(grpc.RpcError, match="another one, please"):
        ask(service, "Follow")
    assert 1 == len(service.asked)


def test_methods_that_have_no_action(ask: Ask) -> None:
    """With actions named, another method than theirs is not called."""
    service = Service()
    with pytest.raises(OutsideTask, match="none of those that this channel is for"):
        ask(service, "Read", actions={NAME + "Follow": "ticket:read"})
    assert [] == service.asked
