"""An OAuth authorization server, as a client asks it that has no secret: it shows a JWT-SVID, or nothing."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Annotated, Any, Final, Literal

import structlog

from sojourn.errors import SojournError
from sojourn.limits import PROVIDER_TOKEN_MAX_SECONDS
from sojourn.providers.discovery import Discovery, ProviderMetadata
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.http import Http, HttpResponse
from sojourn.providers.provider import Mint, ProviderTable
from sojourn.providers.settings import Endpoint
from sojourn.providers.tokens import Expected, Granted, Hints, Unfit, read_token, refusal
from sojourn.runtime.background import Background
from sojourn.runtime.clock import Clock
from sojourn.settings.outside import Issuer, Text
from sojourn.settings.tables import Duration, between

log = structlog.get_logger()

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:"
REVOKE: Final = "revoke"
INTROSPECT: Final = "introspect"


ClientAuth = Literal["none", "jwt-bearer", "jwt-spiffe"]


class OAuthTable(ProviderTable):
    """The keys of every kind that asks an OAuth authorization server."""

    issuer: Issuer  # byte for byte as its metadata have it
    token_endpoint: Endpoint | None = None  # default: by the metadata; with it they are not asked for
    revocation_endpoint: Endpoint | None = None  # default: by the metadata
    client_auth: ClientAuth = "none"  # RFC 7523, or draft-ietf-oauth-spiffe-client-auth, by a JWT-SVID
    client_id: Text | None = None  # sent along if it is set
    assertion_audience: Text | None = None  # `aud` of the JWT-SVIDs; default: the issuer (RFC 7523bis)
    algorithm: Literal["ES256", "RS256"] = "ES256"  # that they are signed with
    offline: bool = True  # whether services accept tokens without asking the server: those it ended, too, then
    longest: Annotated[Duration, between(timedelta(seconds=1), timedelta(seconds=PROVIDER_TOKEN_MAX_SECONDS))] = (
        timedelta(hours=1)
    )  # for how long a token can be good whose answer was lost


class AuthorizationServer:
    """The endpoints of one server. `hints` says what to set there when it refuses."""

    def __init__(
        self, table: OAuthTable, http: Http, clock: Clock, hints: Hints, discovery: Discovery | None = None
    ) -> None:
        """`discovery`: of its metadata, where others read them too; None: its own."""
        self._table = table
        self._http = http
        self._clock = clock
        self._hints = hints
        self._background = Background("unused_token_failed")
        self.discovery = discovery or Discovery(table.issuer, http, clock)

    @property
    def audience(self) -> str:
        """The `aud` of what this server is shown."""
        return self._table.assertion_audience or self._table.issuer

    @property
    def audiences(self) -> frozenset[str]:
        """Every `aud` by which this server may take a JWT-SVID as one for itself, as far as the table says."""
        table = self._table
        return frozenset({self.audience, table.issuer, table.token_endpoint or table.issuer})

    async def assertion(self, mint: Mint) -> str:
        """A JWT-SVID for this server."""
        return await mint(self.audience, algorithm=self._table.algorithm)

    async def metadata(self) -> ProviderMetadata:
        """Its endpoints, by its metadata or as the table has them. Raise ProviderUnavailable."""
        table = self._table
        if table.token_endpoint is None:
            found = await self.discovery.metadata()
            revocation = table.revocation_endpoint or found.revocation_endpoint
            return ProviderMetadata(
                table.issuer,
                found.token_endpoint,
                revocation,
                found.introspection_endpoint,
                found.jwks_uri,
                found.grant_types,
            )
        return ProviderMetadata(table.issuer, table.token_endpoint, table.revocation_endpoint or "")

    async def token(self, form: Mapping[str, str], mint: Mint, expected: Expected, *, step: str) -> Granted:
        """Ask for a token. What is not as expected is taken back at once. Raise as Provider.exchange does."""
        endpoint = (await self.metadata()).token_endpoint
        asked_at = self._clock.now()
        answer = await self._http.post_form(endpoint, {**form, **await self._client(mint)}, step=step)
        now = self._clock.now()
        try:
            return read_token(answer, expected, step=step, asked_at=asked_at, now=now, hints=self._hints)
        except Unfit as unfit:
            self.discard(unfit.tokens, mint)
            raise

    async def probe(self, form: Mapping[str, str], *, step: str) -> int:
        """The status of the answer to a token request that cannot be granted; it is an OAuth error.

        Raise ProviderUnavailable if it is none.
        """
        answer = await self._http.post_form((await self.metadata()).token_endpoint, form, step=step)
        if answer.status != 200:
            error = refusal(answer, step=step, now=self._clock.now(), hints=self._hints)
            if isinstance(error, ProviderRefused):
                return answer.status
            raise error
        raise ProviderUnavailable("the token endpoint grants what nobody may have", step=step)

    async def revoke(self, tokens: Iterable[str], mint: Mint) -> None:
        """End tokens (RFC 7009). Raise as Provider.take_back does."""
        endpoint = (await self.metadata()).revocation_endpoint
        if not endpoint:
            raise ProviderRefused(
                "the provider has no revocation endpoint",
                step=REVOKE,
                hint="set revocation_endpoint if it has one that its metadata do not name",
            )
        failed: SojournError | None = None
        for token in tokens:  # each, whatever becomes of the others
            try:
                await self._revoke(endpoint, token, mint)
            except ProviderRefused as error:
                failed = failed or error
            except ProviderUnavailable as error:  # it may yet come
                failed = error
        if failed is not None:
            raise failed

    async def _revoke(self, endpoint: str, token: str, mint: Mint) -> None:
        answer = await self._http.post_form(endpoint, {"token": token, **await self._client(mint)}, step=REVOKE)
        if answer.status == 200:
            return
        error = refusal(answer, step=REVOKE, now=self._clock.now(), hints=self._hints)
        if isinstance(error, ProviderRefused) and error.said == "invalid_client":
            # It may know the client again before the token expires, and then the token is good again.
            raise ProviderUnavailable(error.public, step=REVOKE, hint=error.hint)
        raise error

    def discard(self, tokens: Iterable[str], mint: Mint) -> None:
        """End tokens that nobody was given, behind: whoever asked for them is told at once why there is none."""
        for token in tokens:
            self._background.run(self._end(token, mint))

    async def _end(self, token: str, mint: Mint) -> None:
        try:
            await self.revoke((token,), mint)
        except SojournError as error:
            log.warning("unused_token_not_revoked", issuer=self._table.issuer, reason=error.public)

    async def is_active(self, token: str, mint: Mint) -> bool | None:
        """What introspection (RFC 7662) says of a token; None if it is not to be had."""
        endpoint = (await self.metadata()).introspection_endpoint
        if not endpoint or self._table.client_auth == "none":
            return None
        answer = await self._introspect(endpoint, token, mint)
        active = answer.json(INTROSPECT).get("active") if answer.status == 200 else None
        return active if isinstance(active, bool) else None

    async def introspect(self, token: str, mint: Mint) -> Mapping[str, Any]:
        """All that introspection says of a token: `active` is true or false. Raise ProviderRefused or
        ProviderUnavailable if it is not to be had.
        """
        endpoint = (await self.metadata()).introspection_endpoint
        if not endpoint:
            raise ProviderUnavailable("its metadata name no introspection_endpoint", step=INTROSPECT)
        answer = await self._introspect(endpoint, token, mint)
        if answer.status != 200:
            raise refusal(answer, step=INTROSPECT, now=self._clock.now(), hints=self._hints)
        said = answer.json(INTROSPECT)
        if not isinstance(said.get("active"), bool):
            raise ProviderUnavailable("it does not say whether the token is active", step=INTROSPECT, sent=True)
        return said

    async def _introspect(self, endpoint: str, token: str, mint: Mint) -> HttpResponse:
        return await self._http.post_form(endpoint, {"token": token, **await self._client(mint)}, step=INTROSPECT)

    async def close(self) -> None:
        await self._background.quiet()
        await self.discovery.close()

    async def _client(self, mint: Mint) -> dict[str, str]:
        """How the client says who it is."""
        form = {} if self._table.client_id is None else {"client_id": self._table.client_id}
        if self._table.client_auth != "none":
            form["client_assertion_type"] = ASSERTION_TYPE + self._table.client_auth
            form["client_assertion"] = await self.assertion(mint)
        return form
