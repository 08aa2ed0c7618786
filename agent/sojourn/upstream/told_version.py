"""What a SPIRE server is told once this agent is its node: which agent that is, for `spire-server agent show`."""

import asyncio
from importlib.metadata import version
from typing import Final

from sojourn._pb.spire.api.server.node.v1 import node_pb2 as pb
from sojourn.errors import SojournError, UpstreamUnavailable
from sojourn.limits import UPSTREAM_SIGN_SECONDS
from sojourn.runtime.background import Background
from sojourn.spiffe.ids import SpiffeId
from sojourn.upstream.connection import ServerFault
from sojourn.upstream.membership import Link

STATUS: Final = "/spire.api.server.agent.v1.Agent/PostStatus"


class ToldVersion:
    """Told once in a run to each server that this agent is a node of, behind all else. Nobody waits for it, and nothing
    depends on it: older servers, such as SPIRE 1.13, answer UNIMPLEMENTED.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._background = Background("node_fault")
        self._told: SpiffeId | None = None
        self._telling: asyncio.Future[None] | None = None

    def tell(self, node_id: SpiffeId | None) -> None:
        """Begin to, unless that was done."""
        if node_id is not None and node_id != self._told:
            self._told = node_id
            self._telling = self._background.run(self._tell())

    async def close(self) -> None:
        """Tell no more: who ends waits for no server."""
        if self._telling is not None:
            self._telling.cancel()
        await self._background.quiet()

    async def _tell(self) -> None:
        request = pb.PostStatusRequest(agent_version=f"sojourn {version('sojourn')}")
        try:
            await self._link.call(
                lambda server: server.unary(STATUS, request, pb.PostStatusResponse, UPSTREAM_SIGN_SECONDS)
            )
        except ServerFault:
            return
        except UpstreamUnavailable:
            self._told = None  # after the next sync that succeeds
        except SojournError:
            return
