"""calls.py: what is counted of callers' calls, and what one may have under way. By real gRPC on a real socket."""

import asyncio

import pytest
from fakes.callservices import ASKED, Served, raising, raising_later, silent, status_of
from prometheus_client import REGISTRY
from sojourn import errors
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.endpoints.grpc import calls
from sojourn.http2.stream import Stream
from sojourn.quota.concurrency import Concurrency


@pytest.fixture
async def server(tmp_path):
    async with Served(tmp_path).running() as running:
        yield running


async def echo(_call, request):
    return request


def under_way(server):
    """Who has how many calls and streams under way."""
    return dict(server.calls._unary_calls._now), dict(server.calls._streams._now)


class TestSilentCalls:
    @pytest.mark.parametrize("kind", ["Unary", "Stream"])
    async def test_are_ended(self, server, monkeypatch, kind):
        """A call that begins and never sends its request is refused at a limit, and its handler does not run."""
        monkeypatch.setattr(calls, "REQUEST_SECONDS", 0.05)
        server.handler = raising(AssertionError("not to be reached"))
        assert "INVALID_ARGUMENT" == (await status_of(silent(server, kind)))[0]

    async def test_are_counted(self, server, monkeypatch):
        """A user has so many of them at once, and a call that does send its request is no such call."""
        monkeypatch.setattr(server.calls, "_silent", Concurrency(2, "calls without a request"))
        held = [asyncio.ensure_future(status_of(silent(server, "Unary"))) for _ in range(2)]
        while server.calls._silent._now[server.peer.uid] < 2:
            await asyncio.sleep(0.01)
        assert "RESOURCE_EXHAUSTED" == (await status_of(silent(server, "Stream")))[0]
        for call in held:
            call.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        while server.calls._silent._now:
            await asyncio.sleep(0.01)

        async def handler(_call, request):
            return request

        server.handler = handler
        assert [ASKED] * 5 == [await server.unary() for _ in range(5)]


class TestPlaces:
    async def test_of_a_request_that_is_there(self, server, monkeypatch):
        """Only a call whose request has yet to come takes a place of those that wait for theirs."""

        class Given:
            visitor = server.peer

            def __init__(self, *, waiting):
                self.requests, self.waiting = self, waiting

            async def __anext__(self):
                return ASKED

        monkeypatch.setattr(server.calls, "_silent", Concurrency(0, "calls without a request"))
        assert ASKED == await server.calls._only_request(Given(waiting=False))
        with pytest.raises(errors.LimitExceeded):
            await server.calls._only_request(Given(waiting=True))

    @pytest.mark.parametrize(
        ("long", "value", "is_long"),
        [
            (False, "b", False),
            (True, "b", True),
            (lambda request: request.value == "waits", "waits", True),
            (lambda request: request.value == "waits", "b", False),
        ],
    )
    async def test_of_a_call(self, tmp_path, long, value, is_long):
        """A call takes a place of its caller's, and one that waits for something a place among his streams."""
        seen = []

        async def handler(_call, request):
            seen.append(under_way(server))
            return request

        async with Served(tmp_path, long=long).running() as server:
            server.handler = handler
            await server.unary(types.Selector(value=value))
            place = {server.peer.uid: 1}
            assert [({}, place) if is_long else (place, {})] == seen
            assert ({}, {}) == under_way(server)

    @pytest.mark.parametrize("kind", ["stream", "bidi"])
    async def test_of_a_stream(self, server, kind):
        """A stream takes a place among its caller's streams."""
        seen = []

        async def handler(_call, _request):
            seen.append(under_way(server))
            yield ASKED

        server.handler = handler
        await getattr(server, kind)()
        assert [({}, {server.peer.uid: 1})] == seen
        assert ({}, {}) == under_way(server)

    async def test_of_an_answer_that_is_not_taken(self, server, monkeypatch):
        """A long answer is sent as the caller takes it, and until he has it is one of his streams."""
        seen = []
        send = Stream.send

        async def watched(stream, content):
            seen.append(under_way(server))
            await send(stream, content)

        monkeypatch.setattr(Stream, "send", watched)
        server.handler = echo
        asked = types.Selector(value="b" * 100_000)
        assert asked == await server.unary(asked)
        assert [({}, {server.peer.uid: 1})] == seen
        assert ASKED == await server.unary()
        assert 1 == len(seen)

    async def test_calls_have_an_end(self, tmp_path, monkeypatch):
        """Beyond so many calls and streams of one caller the next is refused, and he is told of which he has too many."""
        monkeypatch.setattr(calls, "CALLS_PER_UID", 1)
        hold = asyncio.Event()

        async def handler(_call, request):
            await hold.wait()
            return request

        async def streaming(_call, _request):
            await hold.wait()
            yield ASKED

        async with Served(tmp_path, streams=1).running() as server:
            for kind, handle, what in (("unary", handler, "calls under way"), ("stream", streaming, "open streams")):
                hold.clear()
                server.handler = handle
                first = asyncio.ensure_future(getattr(server, kind)())
                while not any(under_way(server)):
                    await asyncio.sleep(0.01)
                found = await status_of(getattr(server, kind)())
                assert ("RESOURCE_EXHAUSTED", f"the user has too many {what}", "limit_exceeded") == found
                hold.set()
                await first
            first = asyncio.ensure_future(status_of(silent(server, "Unary")))
            while not server.calls._silent._now:
                await asyncio.sleep(0.01)
            assert "the user has too many calls without a request" == (await status_of(silent(server, "Unary")))[1]
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)


class TestMetrics:
    @pytest.mark.parametrize("kind", ["Unary", "Stream"])
    async def test_calls_are_counted(self, server, kind):
        """Calls and streams are counted by method and status, those that end well too."""

        def counted(code):
            labels = {"method": f"test.Service/{kind}", "code": code}
            return REGISTRY.get_sample_value("sojourn_calls_total", labels) or 0

        async def streaming(_call, request):
            yield request

        ask = getattr(server, kind.lower())
        before = counted("OK"), counted("NOT_FOUND"), counted("INTERNAL")
        for error in (errors.NotFound("no"), RuntimeError("x")):
            server.handler = raising(error) if kind == "Unary" else raising_later(error)
            await status_of(ask())
        server.handler = echo if kind == "Unary" else streaming
        await ask()
        assert tuple(each + 1 for each in before) == (counted("OK"), counted("NOT_FOUND"), counted("INTERNAL"))

    @pytest.mark.parametrize("kind", ["Unary", "Stream"])
    async def test_calls_given_up_are_counted(self, server, kind):
        """A call that its caller gives up is counted as cancelled: of a stream some take one answer and go."""
        labels = {"method": f"test.Service/{kind}", "code": "CANCELLED"}
        before = REGISTRY.get_sample_value("sojourn_calls_total", labels) or 0
        begun = asyncio.Event()

        async def waiting(_call, _request):
            begun.set()
            await asyncio.Event().wait()

        async def streaming(_call, request):
            yield request
            await waiting(_call, request)

        server.handler = waiting if kind == "Unary" else streaming
        asking = asyncio.ensure_future(getattr(server, kind.lower())())
        async with asyncio.timeout(10):
            await begun.wait()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            while REGISTRY.get_sample_value("sojourn_calls_total", labels) != before + 1:
                await asyncio.sleep(0.01)


class TestCalls:
    async def test_what_a_stream_s_handler_gets(self, server):
        """The handler of a stream knows its method and its caller, and can send a message at once."""
        seen = []

        async def handler(call, request):
            seen.append((call.method, call.peer, call.send_now(request.SerializeToString())))
            yield request

        server.handler = handler
        assert [ASKED, ASKED] == await server.stream()
        assert [("test.Service/Stream", server.peer, True)] == seen

    async def test_the_door_s_check(self, server):
        """What the door has against a caller is asked about the one who calls."""
        seen = []
        server.calls._check, server.handler = seen.append, echo
        await server.unary()
        assert [server.peer] == seen

    async def test_refusals_of_one_caller(self, server, monkeypatch):
        """How many refusals are logged is counted for each caller."""
        seen = []
        monkeypatch.setattr(server.calls._refusals, "allow", lambda who: bool(seen.append(who)))
        server.handler = raising(errors.NotFound("no"))
        await status_of(server.unary())
        assert [server.peer.uid] == seen
