"""An agent on another machine, over mutual TLS: for services that verify task tokens where their agent is not."""

from typing import Final, Self, Unpack

import grpc

from sojourn.errors import SojournError, SvidExpired, SvidRefused, Unavailable, Unreachable
from sojourn.sdk.client.connection import CALL_SECONDS, AgentConnection, not_open
from sojourn.sdk.client.validation import TokenVerdict, ValidateOptions, validate_token
from sojourn.sdk.client.x509_source import X509Source
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffetls.authorize import authorize_id
from sojourn.spiffetls.bridge import Bridge

_OUTLIVED: Final = frozenset({SvidExpired.code, SvidRefused.code})


class RemoteAgent:
    """A connection to another agent's listener: `async with RemoteAgent(address, spiffe_id, source) as agent`.

    `address` is HOST:PORT; `spiffe_id` is what that agent must have, its node ID; `source` has this process's SVID.
    It is what `TaskFeed` and `TaskVerifier` need. Whatever answers there with another SPIFFE ID is not spoken to.
    """

    def __init__(
        self, address: str, spiffe_id: SpiffeId | str, source: X509Source, *, deadline_seconds: float = CALL_SECONDS
    ) -> None:
        """Raise InvalidInput or InvalidSpiffeId."""
        context = source.client_context(authorize_id(spiffe_id))
        context.set_alpn_protocols(["h2"])
        self.address = address
        self._bridge = Bridge(address, context)
        self._deadline_seconds = deadline_seconds
        self._open: AgentConnection | None = None

    async def __aenter__(self) -> Self:
        await self._bridge.open()
        self._open = _Bridged(self._bridge, self.address, self._deadline_seconds)
        return self

    async def __aexit__(self, *_: object) -> None:
        connection, self._open = self._open, None
        try:
            if connection is not None:
                await connection.close()
        finally:
            await self._bridge.close()

    @property
    def connection(self) -> AgentConnection:
        """The open connection. Raise InvalidInput outside `async with`."""
        if self._open is None:
            raise not_open("agent", "RemoteAgent(…)")
        return self._open

    async def validate_token(
        self, token: str, audience: str, action: str = "", **options: Unpack[ValidateOptions]
    ) -> TokenVerdict:
        """Have the agent judge a task token or a JWT-SVID. A token that is not good is a verdict, not an error."""
        return await validate_token(self.connection, token, audience, action, **options)


class _Bridged(AgentConnection):
    """A channel over the bridge."""

    def __init__(self, bridge: Bridge, address: str, deadline_seconds: float) -> None:
        super().__init__(bridge.path, deadline_seconds)
        self._bridge = bridge
        self._address = address

    def _may_be_full(self) -> bool:
        return False  # the bridge is this client's alone

    def failure(self, error: grpc.aio.AioRpcError) -> SojournError:
        made = super().failure(error)
        if made.remote_code in _OUTLIVED:  # what this connection was made with: the next is made with the present SVID
            self._bridge.drop()
        if made.remote_code or not isinstance(made, Unavailable | Unreachable):
            return made
        if self._bridge.failure:
            sentence = f"no TLS connection to the agent at {self._address}: {self._bridge.failure}"
            return Unreachable(sentence, detail=made.detail)
        if isinstance(made, Unreachable):
            return Unreachable(
                f"the agent at {self._address} closes the connection: its log says why", detail=made.detail
            )
        return made
