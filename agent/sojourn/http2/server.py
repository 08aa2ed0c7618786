"""What is served on the connections of one door."""

import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from sojourn.http2.headers import Head
from sojourn.http2.host import HeldBytes, MessagePace, TurnOrder
from sojourn.http2.limits import METADATA_MAX_BYTES
from sojourn.http2.statuses import STATUSES
from sojourn.http2.stream import Stream

Handler = Callable[[Stream], Coroutine[Any, Any, None]]
_GRPC = re.compile(rb"application/grpc(?![^+;])")  # and not grpc-web


class Server:
    """Handlers by path, and what counts over all connections."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        *,
        message_max: int,
        turns: TurnOrder,
        paces: MessagePace,
        held: HeldBytes,
    ) -> None:
        """`handlers` by path. `message_max`: bytes of one message of a request.

        `turns`: those in which connections are read. `paces`: at which further messages of a call are worked off.
        `held`: counts what is held of requests.
        """
        self._handlers = handlers
        self.message_max = message_max
        self.streams = 0  # calls under way
        self.deaf = False  # nothing more is heard of callers
        self.turns = turns
        self.paces = paces
        self.held = held

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
