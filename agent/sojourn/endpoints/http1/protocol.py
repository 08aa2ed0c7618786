"""HTTP/1.1 on connections that a door hands over.

uvicorn's protocol gets the caller's own transport, and who it is travels in the ASGI scope (endpoints/http1/scope.py).
"""

from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from sojourn.attestation.peer import Peer
from sojourn.oauth.client_auth import ClientSender
from sojourn.quota.turns import Turns

if TYPE_CHECKING:
    from sojourn.endpoints.http1.connection import Conversation, Conversations


class HttpProtocols:
    """Makes uvicorn's protocol for callers that the door hands over."""

    def __init__(self, app: ASGIApp, turns: Turns | None = None) -> None:
        """`turns`: those in which requests are read; None: some of their own."""
        self._app = app
        self._turns = turns or Turns()
        self._conversations: Conversations | None = None

    def make(self, sender: ClientSender) -> "Conversation":
        if self._conversations is None:
            from sojourn.endpoints.http1.connection import Conversations

            self._conversations = Conversations(self._app, self._turns)
        return self._conversations.make(sender)

    def of_peer(self, peer: Peer) -> "Conversation":
        """For a process of this machine."""
        return self.make(ClientSender(peer))

    def close(self) -> None:
        """Close idle connections; those that are being answered close after it."""
        if self._conversations is not None:
            self._conversations.close()
