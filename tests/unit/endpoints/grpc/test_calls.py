"""calls.py: errors become statuses, whatever they are, and nothing leaks. By real gRPC on a real socket."""

import asyncio
import json

import grpc
import pytest
import structlog
from fakes.callservices import ASKED, Served, raising, raising_later, status_of
from sojourn import errors
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.endpoints.grpc.calls import HEADER, Requests, first_of, next_of
from sojourn.endpoints.grpc.status_codes import GrpcStatus
from sojourn.errors import InvalidInput, SojournError
from sojourn.errors.oauth import NonceNeeded
from sojourn.http2.errors import BadMessage, MalformedMessage, MessageOverLimit, UnknownPacking
from sojourn.limits import CALLS_PER_UID, REFUSALS_LOGGED_PER_SECOND
from sojourn.quota.rate import Rate

LEAVES = sorted(
    (each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, SojournError)),
    key=lambda each: each.__name__,
)


@pytest.fixture
async def server(tmp_path):
    async with Served(tmp_path).running() as running:
        yield running


class TestAnswers:
    async def test_unary(self, server):
        """A handler gets the peer, the method and the request, and its message is the answer."""
        seen = []

        async def handler(call, request):
            seen.append((call.peer, call.method, request))
            return types.Selector(type="c", value="d")

        server.handler = handler
        assert "c" == (await server.unary()).type
        assert [(server.peer, "test.Service/Unary", ASKED)] == seen

    async def test_ready_bytes(self, server):
        """A handler may answer with ready bytes."""

        async def handler(_call, _request):
            return ASKED.SerializeToString()

        server.handler = handler
        assert ASKED == await server.unary()

    async def test_stream(self, server):
        """A handler may answer with a stream."""

        async def handler(_call, request):
            yield request
            yield request

        server.handler = handler
        assert [ASKED, ASKED] == await server.stream()

    async def test_both_ways(self, server):
        """A handler may read a stream."""

        async def handler(call, _request):
            first = await first_of(call, 20)
            yield first
            async for request in call.requests:
                yield request

        server.handler = handler
        data = ASKED.SerializeToString()
        assert [ASKED] * 3 == await server.bidi(data, data, data)


class TestUnreadableMessages:
    @pytest.mark.parametrize(
        ("bad", "code"),
        [
            (MalformedMessage, "invalid_input"),
            (MessageOverLimit, "limit_exceeded"),
            (UnknownPacking, "unimplemented"),
        ],
    )
    async def test_have_a_stable_code(self, bad, code):
        """What is wrong with a message is told in its own words, by its own status, and with a stable code of ours."""

        class Unreadable:
            async def message(self):
                raise bad("it is wrong")

        with pytest.raises(SojournError) as caught:
            await anext(Requests(Unreadable(), types.Selector))
        told = GrpcStatus.of(caught.value)
        assert (code, "it is wrong", bad.status) == (told.code, told.message, told.number)

    def test_each_is_told(self):
        """There is nothing else that can be wrong with a message."""
        assert {MalformedMessage, MessageOverLimit, UnknownPacking} == set(BadMessage.__subclasses__())

    async def test_over_grpc(self, server):
        """A client that sends a message that is too large reads so, with its status and code."""
        server.handler = raising(AssertionError("not to be reached"))
        status = await status_of(server.unary(raw=bytes(1024 * 1024 + 1)))
        assert ("RESOURCE_EXHAUSTED", "a request is larger than 1048576 bytes", "limit_exceeded") == status


class TestHeader:
    @pytest.mark.parametrize(
        "metadata",
        [(), ((HEADER, "false"),), ((HEADER, "True"),), ((HEADER, ""),), ((HEADER, "true"), (HEADER, "true"))],
    )
    @pytest.mark.parametrize("kind", ["unary", "stream"])
    async def test_is_asked_for(self, server, metadata, kind):
        """A call without exactly the header is refused before any work (Workload Endpoint, 3)."""
        server.handler = raising(AssertionError("not to be reached"))
        found = await status_of(getattr(server, kind)(metadata=metadata))
        assert ("INVALID_ARGUMENT", "security header missing from request", "invalid_input") == found

    async def test_only_where_it_is_wanted(self, tmp_path):
        """The admin socket asks for no header."""

        async def handler(_call, request):
            return request

        async with Served(tmp_path, header=False).running() as server:
            server.handler = handler
            assert ASKED == await server.unary(metadata=())


class TestErrors:
    @pytest.mark.parametrize("kind", LEAVES, ids=lambda each: each.__name__)
    async def test_ours(self, server, kind):
        """Each error of ours has its status, its public text and its code; its detail stays here."""
        error = kind(["what"]) if kind is errors.InvalidConfig else kind("what", detail="secret")
        server.handler = raising(error)
        assert "what" in error.public
        assert (kind.grpc_status, error.public, kind.code) == await status_of(server.unary())

    @pytest.mark.parametrize("kind", ["unary", "stream"])
    async def test_unknown_ones_stay_here(self, server, kind, capsys):
        """An unknown exception is told as internal, with a reference to the log and no word of its own."""
        server.handler = raising(RuntimeError("secret")) if kind == "unary" else raising_later(KeyError("secret"))
        code, text, ours = await status_of(getattr(server, kind)())
        assert ("INTERNAL", "internal") == (code, ours)
        assert "secret" not in text
        assert text.rpartition(" ")[2] in capsys.readouterr().out

    async def test_in_the_middle_of_a_stream(self, server):
        """An error after the first answer ends the stream with its status."""
        server.handler = raising_later(errors.NoIdentity("no identity issued"))
        assert ("PERMISSION_DENIED", "no identity issued", "no_identity") == await status_of(server.stream())

    async def test_refusals_are_recorded(self, server):
        """A refusal is in the audit journal, with who was refused what; other errors are not."""
        for error in (errors.PolicyDenied("no"), errors.NotFound("no"), RuntimeError("x")):
            server.handler = raising(error)
            await status_of(server.unary())
        await server.audit.flush()
        assert [
            {
                "uid": server.peer.uid,
                "pid": server.peer.process.pid,
                "method": "test.Service/Unary",
                "code": "policy_denied",
                "reason": "no",
            }
        ] == server.store.fields("call_denied")

    async def test_are_told_with_the_nonce(self, server):
        """A call whose proof lacks a nonce is told the one to use."""
        server.handler = raising(NonceNeeded("add the nonce", "n1"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.unary()
        assert {"sojourn-code": "use_dpop_nonce", "dpop-nonce": "n1"} == dict(caught.value.trailing_metadata())

    async def test_are_logged(self, server):
        """The log has which method failed, at which door, after how long, and why: of ours the code and detail, of
        others what was raised.
        """
        by = {"uid": server.peer.uid, "pid": server.peer.process.pid, "method": "test.Service/Unary"}
        with structlog.testing.capture_logs() as logs:
            for error in (errors.NotFound("no", detail="secret"), errors.NotFound("no"), RuntimeError("x")):
                server.handler = raising(error)
                _, text, _ = await status_of(server.unary())
        took = [each.pop("duration_ms") for each in logs]
        assert all(each >= 0 for each in took)
        by["door"] = "public"
        refused = {"event": "call_refused", "log_level": "info", **by, "code": "not_found", "reason": "no"}
        assert [{**refused, "detail": "secret"}, {**refused, "detail": None}] == logs[:2]
        reference = text.rpartition(" ")[2]
        failed = {"event": "call_failed", "log_level": "error", "method": by["method"], "door": "public"}
        assert {**failed, "reference": reference, "exc_info": error} == logs[2]
        assert 12 == len(reference)

    async def test_are_answered_whatever_becomes_of_the_record(self, server, monkeypatch):
        """A refusal that cannot be recorded is answered as one."""

        def broken(*_arguments, **_fields):
            raise RuntimeError("no room")

        monkeypatch.setattr(server.audit, "denied", broken)
        server.handler = raising(errors.PolicyDenied("no"))
        assert ("PERMISSION_DENIED", "no", "policy_denied") == await status_of(server.unary())

    @pytest.mark.parametrize("raw", [b"\xff", b"\x0a\xff", b"\x0a\x02\xff\xfe", b"\x00"])
    async def test_malformed_requests(self, server, raw):
        """A request that cannot be parsed is the caller's mistake and not an internal error."""
        server.handler = raising(AssertionError("not to be reached"))
        assert "INVALID_ARGUMENT" == (await status_of(server.unary(raw=raw)))[0]

    async def test_malformed_requests_in_a_stream(self, server):
        """A request in a stream that cannot be parsed is the caller's mistake and not an internal error."""

        async def handler(call, _request):
            async for request in call.requests:
                yield request

        server.handler = handler
        assert "INVALID_ARGUMENT" == (await status_of(server.bidi(b"\xff")))[0]


class TestCallersWhoGo:
    @pytest.mark.parametrize("whole", [True, False])
    async def test_while_it_is_changed(self, tmp_path, whole):
        """On the operators' socket a call is gone through with although its caller goes; elsewhere it ends with the caller,
        if it is none that changes something.
        """
        async with Served(tmp_path, whole=whole).running() as server:
            began, go, ended = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop().create_future()

            async def handler(_call, _request):
                began.set()
                try:
                    await go.wait()
                    ended.set_result("done")
                except asyncio.CancelledError:
                    ended.set_result("cut off")
                    raise
                return ASKED

            server.handler = handler
            calling = asyncio.ensure_future(server.unary())
            await began.wait()
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            if whole:
                server.handler = raising(errors.NotFound("seen"))
                await status_of(server.unary())  # by then the agent has heard that the first caller has gone
                go.set()
            assert ("done" if whole else "cut off") == await ended

    async def test_take_their_places_along(self, tmp_path):
        """What goes on without its caller counts among the caller's calls as before: nobody begins more by leaving."""
        async with Served(tmp_path, whole=True).running() as server:
            began, go = asyncio.Semaphore(0), asyncio.Event()

            async def handler(_call, _request):
                began.release()
                await go.wait()
                return ASKED

            server.handler = handler
            for _ in range(CALLS_PER_UID):
                calling = asyncio.ensure_future(server.unary())
                await began.acquire()
                calling.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await calling
            assert "RESOURCE_EXHAUSTED" == (await status_of(server.unary()))[0]
            go.set()


class TestRefusals:
    async def test_fill_no_log(self, server, capsys):
        """A user's refused calls are logged up to a limit for each second."""
        server.handler = raising(errors.NotFound("no"))
        assert REFUSALS_LOGGED_PER_SECOND == server.calls._refusals._per_second
        server.calls._refusals = Rate(REFUSALS_LOGGED_PER_SECOND, lambda: 7.0)
        for _ in range(5 * REFUSALS_LOGGED_PER_SECOND):
            await status_of(server.unary())
        assert REFUSALS_LOGGED_PER_SECOND == capsys.readouterr().out.count("call_refused")


class TestFirst:
    class Silent:
        """A call whose request does not come."""

        waiting = True

        @property
        def requests(self):
            return self

        async def __anext__(self):
            await asyncio.Event().wait()

    async def test_of_a_silent_stream(self):
        """A stream that says nothing in time is refused."""
        with pytest.raises(InvalidInput):
            await first_of(self.Silent(), 0.01)

    async def test_of_no_more(self, server):
        """Whoever asks for the next request of a stream that has no more gets none."""

        async def handler(call, _request):
            while (request := await next_of(call.requests)) is not None:
                yield request

        server.handler = handler
        data = ASKED.SerializeToString()
        assert [ASKED] * 2 == await server.bidi(data, data)

    async def test_of_an_empty_stream(self, server):
        """A stream that ends before its first request is refused."""

        async def handler(call, _request):
            yield await first_of(call, 20)

        server.handler = handler
        assert "INVALID_ARGUMENT" == (await status_of(server.bidi()))[0]


class Elsewhere:
    """A caller that is no process of this machine."""

    who = "spiffe://example.org/web"
    details = {"address": "127.0.0.1"}  # noqa: RUF012


class TestFromElsewhere:
    @pytest.fixture
    async def elsewhere(self, tmp_path):
        made = Served(tmp_path)
        made.visitor = Elsewhere()
        async with made.running() as running:
            yield running

    async def test_it_is_named(self, elsewhere):
        """A caller over the network is recorded by its SPIFFE ID, and has no process to be asked for."""

        async def handler(call, _request):
            assert "spiffe://example.org/web" == call.visitor.who
            return call.peer

        server = elsewhere
        server.handler = handler
        assert "INTERNAL" == (await status_of(server.unary()))[0]

        async def refuse(_call, _request):
            raise errors.Refused("no")

        server.handler = refuse
        assert ("PERMISSION_DENIED", "no") == (await status_of(server.unary()))[:2]
        await server.audit.flush()
        [record] = [json.loads(each.fields) for each in server.store.events if each.event == "call_denied"]
        assert ("spiffe://example.org/web", "127.0.0.1") == (record["spiffe_id"], record["address"])
        assert "uid" not in record

    async def test_checked_first(self, server):
        """What the door has against a caller comes before its call."""

        def check(_visitor):
            raise errors.SvidRefused("the SVID is revoked")

        async def handler(_call, _request):
            raise AssertionError

        server.handler, server.calls._check = handler, check
        assert ("PERMISSION_DENIED", "the SVID is revoked") == (await status_of(server.unary()))[:2]
