"""A gRPC service whose handlers a test sets, served on a real socket, and a client of it."""

from contextlib import asynccontextmanager

import grpc
import pytest
from fakes.children import child, peer_of
from fakes.clock import FakeClock
from fakes.doorways import served, shares
from fakes.journals import FakeAuditStore
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.audit.journal import Audit
from sojourn.endpoints.grpc.calls import HEADER, Calls, Method
from sojourn.http2.server import Server

GOOD = ((HEADER, "true"),)
ASKED = types.Selector(type="a", value="b")


class Served:
    """A service whose handlers the test sets."""

    def __init__(self, folder, *, long=False, **options):
        """`long`: of the unary method. `options` are those of Calls."""
        self.path = folder / "s.sock"
        self.store = FakeAuditStore()
        self.audit = Audit(self.store, FakeClock())
        self.process = child()
        self.peer = self.visitor = peer_of(self.process.__enter__())
        self.handler = None
        methods = {
            "Unary": Method("unary", types.Selector, self.handle, long),
            "Stream": Method("stream", types.Selector, self.handle),
            "Bidi": Method("bidi", types.Selector, self.handle),
        }
        self.calls = Calls(self.audit, **{"header": True, **options})
        self.server = Server(self.calls.service("test.Service", methods), message_max=1024 * 1024, **shares())

    def handle(self, call, request):
        return self.handler(call, request)

    @asynccontextmanager
    async def running(self):
        try:
            async with (
                served(self.server, self.visitor, self.path),
                grpc.aio.insecure_channel(f"unix:{self.path}") as channel,
            ):
                self.channel = channel
                yield self
        finally:
            self.peer.close()
            self.process.__exit__(None, None, None)

    async def unary(self, request=ASKED, *, metadata=GOOD, raw=None):
        call = self.channel.unary_unary(
            "/test.Service/Unary",
            request_serializer=(lambda _: raw) if raw is not None else types.Selector.SerializeToString,
            response_deserializer=types.Selector.FromString,
        )
        return await call(request, metadata=metadata, timeout=20)

    async def stream(self, request=ASKED, *, metadata=GOOD):
        call = self.channel.unary_stream(
            "/test.Service/Stream",
            request_serializer=types.Selector.SerializeToString,
            response_deserializer=types.Selector.FromString,
        )
        return [answer async for answer in call(request, metadata=metadata, timeout=20)]

    async def bidi(self, *raw):
        call = self.channel.stream_stream(
            "/test.Service/Bidi",
            request_serializer=lambda data: data,
            response_deserializer=types.Selector.FromString,
        )
        return [answer async for answer in call(iter(raw), metadata=GOOD, timeout=20)]


def raising(error):
    async def handler(_call, _request):
        raise error

    return handler


def raising_later(error):
    async def handler(_call, _request):
        yield ASKED
        raise error

    return handler


async def status_of(waiting):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await waiting
    trailing = dict(caught.value.trailing_metadata() or ())
    return caught.value.code().name, caught.value.details(), trailing.get("sojourn-code")


async def silent(server, kind):
    """A call that sends nothing but its beginning."""
    call = server.channel.stream_stream(f"/test.Service/{kind}")(metadata=GOOD, timeout=20)
    return await call.read()
