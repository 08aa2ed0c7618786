"""The bearer token that a transmitter is asked with: by client_credentials, as the node, which shows a JWT-SVID."""

from datetime import timedelta

from sojourn.limits import JWT_LEEWAY_SECONDS
from sojourn.providers.authorization_server import AuthorizationServer, OAuthTable
from sojourn.providers.http import Http
from sojourn.providers.provider import Mint
from sojourn.providers.tokens import Expected, Granted
from sojourn.runtime.clock import Clock
from sojourn.settings.signals import SignalsConfig

STEP = "client_credentials"
_AHEAD = timedelta(seconds=JWT_LEEWAY_SECONDS)  # before its end another is asked for


class Bearer:
    """One token, kept in memory alone until shortly before its end."""

    def __init__(self, config: SignalsConfig, http: Http, clock: Clock, mint: Mint, scope: str) -> None:
        table = OAuthTable(
            kind="signals",
            issuer=config.authorization_server,
            client_id=config.client_id,
            client_auth=config.client_auth,
            assertion_audience=config.assertion_audience,
            plain_http=config.plain_http,
        )
        self._server = AuthorizationServer(table, http, clock, lambda _error, _told: "")
        self._clock = clock
        self._mint = mint
        self._scope = scope
        self._resource = config.token_resource
        self._granted: Granted | None = None

    async def header(self) -> dict[str, str]:
        """The header Authorization. Raise ProviderUnavailable, or ProviderRefused if none is given."""
        if self._granted is None or self._clock.now() >= self._granted.expires_at - _AHEAD:
            form = {"grant_type": "client_credentials", "scope": self._scope}
            if self._resource:
                form["resource"] = self._resource
            self._granted = await self._server.token(form, self._mint, Expected(self._scope), step=STEP)
        return {"authorization": f"Bearer {self._granted.token}"}

    def forget(self) -> None:
        """It was not taken: the next request has another."""
        self._granted = None

    async def close(self) -> None:
        await self._server.close()
