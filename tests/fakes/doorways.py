"""A door whose callers are all one visitor, on a real socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sojourn.endpoints.listener.protocol_switch import Caller, Doorway
from sojourn.http2.server import Server
from sojourn.limits import REQUESTS_HELD_BYTES
from sojourn.quota.turns import Paces, Turns
from sojourn.quota.usage import Held


def shares(turns: Turns | None = None) -> dict[str, Any]:
    """What the agent gives its servers of HTTP/2 beside handlers: these turns or others, paces, and a count of bytes."""
    return {"turns": turns or Turns(), "paces": Paces(), "held": Held(REQUESTS_HELD_BYTES)}


class OneVisitor(Doorway[Any]):
    def __init__(self, server: Server, visitor: Any) -> None:
        super().__init__()
        self.server = server
        self.visitor = visitor

    def enter(self, caller: Caller[Any], _transport: asyncio.Transport) -> Any:
        self._callers.add(caller)
        return self.visitor

    def leave(self, caller: Caller[Any], _peer: Any) -> None:
        self._callers.discard(caller)


@asynccontextmanager
async def served(server: Server, visitor: Any, path: Path) -> AsyncIterator[OneVisitor]:
    """Within it `server` answers on the Unix socket `path`."""
    door = OneVisitor(server, visitor)
    listening = await asyncio.get_running_loop().create_unix_server(lambda: Caller(door), str(path))
    try:
        yield door
    finally:
        listening.close()
        await door.drain()
