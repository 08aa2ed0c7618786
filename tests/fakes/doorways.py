"""A door whose callers are all one visitor, on a real socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sojourn.endpoints.http2.server import Server
from sojourn.endpoints.listener.protocol_switch import Caller, Doorway


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
