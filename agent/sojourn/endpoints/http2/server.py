"""What is served on the connections of one door."""

import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from sojourn.endpoints.grpc.status_codes import STATUSES
from sojourn.endpoints.http2.headers import Head
from sojourn.endpoints.http2.stream import Stream
from sojourn.limits import METADATA_MAX_BYTES, REQUESTS_HELD_BYTES
from sojourn.quota.turns import Paces, Turns
from sojourn.quota.usage import Held

Handler = Callable[[Stream], Coroutine[Any, Any, None]]
_GRPC = re.compile(rb"application/grpc(?![^+;])")  # and not grpc-web


class Server:
    """Handlers by path, and what counts over all connections."""

    def __init__(self, handlers: Mapping[str, Handler], *, message_max: int, turns: Turns | None = None) -> None:
        """`handlers` by path. `message_max`: bytes of one message of a request. `turns`: those in which connections are
        read; None: some of their own.
        """
        self._handlers = handlers
        self.message_max = message_max
        self.streams = 0  # calls under way
        self.deaf = False  # nothing more is heard of callers
        self.held = Held(REQUESTS_HELD_BYTES)  # of requests
        self.turns = turns or Turns()
        self.paces = Paces()

    def answered(self, who: int | str) -> None:
        """A call of this caller is no longer under way."""
        self.streams -= 1
        self.turns.served(who)

    def handler(self, head: Head) -> Handler:
        if head.method != b"POST" or not _GRPC.match(head.content_type):
            return _no_grpc
        if head.oversized:
            return _oversized
        return self._handlers.get(head.path, _unknown)


async def _no_grpc(stream: Stream) -> None:
    stream.refuse(405 if stream.head.method != b"POST" else 415)


async def _oversized(stream: Stream) -> None:
    stream.fail(STATUSES["RESOURCE_EXHAUSTED"], f"the call's metadata takes more than {METADATA_MAX_BYTES} bytes")


async def _unknown(stream: Stream) -> None:
    stream.fail(STATUSES["UNIMPLEMENTED"], f"unknown method {stream.head.path[:200]}")
