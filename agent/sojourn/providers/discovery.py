"""An authorization server's metadata, by its issuer (RFC 8414; OpenID Connect Discovery 1.0)."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from sojourn.limits import (
    PROVIDER_METADATA_KEPT_SECONDS,
    PROVIDER_METADATA_MAX_SECONDS,
    PROVIDER_METADATA_MIN_SECONDS,
    PROVIDER_METADATA_SECONDS,
)
from sojourn.net.urls import parse_url
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.http import Http, HttpResponse
from sojourn.providers.tokens import clock_note
from sojourn.runtime.background import Background
from sojourn.runtime.clock import Clock

log = structlog.get_logger()

STEP: Final = "metadata"
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age=(\d{1,9})(?:$|[,\s])")
_ENDPOINTS: Final = ("token_endpoint", "revocation_endpoint", "introspection_endpoint", "jwks_uri")


@dataclass(frozen=True, slots=True)
class ProviderMetadata:
    """What an issuer's document says. An endpoint that it has not is ""."""

    issuer: str
    token_endpoint: str
    revocation_endpoint: str = ""
    introspection_endpoint: str = ""
    jwks_uri: str = ""
    grant_types: tuple[str, ...] = ()  # none: it does not say


def well_known(issuer: str) -> tuple[str, str]:
    """Where an issuer's document is: the OpenID Connect form, and that of RFC 8414, 3.1."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    return (
        f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}",
    )


class Discovery:
    """The document of one issuer: fetched when it is needed, kept for as long as it says, and renewed behind.

    While it cannot be renewed the last one is used, up to PROVIDER_METADATA_KEPT_SECONDS.
    """

    def __init__(self, issuer: str, http: Http, clock: Clock) -> None:
        self._issuer = issuer
        self._http = http
        self._clock = clock
        self._kept: ProviderMetadata | None = None
        self._fetched = 0.0
        self._stale = 0.0
        self.clock_note = ""  # what to say of the issuer's clock, if it was far off at the last fetch
        self._fetching: asyncio.Future[None] | None = None
        self._background = Background("metadata_failed")

    async def metadata(self) -> ProviderMetadata:
        """Raise ProviderUnavailable if there is none, or none that is good."""
        kept = self._good()
        if kept is None:
            self._kept = None
            await asyncio.shield(self._renewing())
            kept = self._good()
            if kept is None:
                raise ProviderUnavailable("the metadata could not be fetched", step=STEP)
        elif self._clock.boot() >= self._stale:
            self._renewing()
        return kept

    def _good(self) -> ProviderMetadata | None:
        over = self._clock.boot() >= self._fetched + PROVIDER_METADATA_KEPT_SECONDS
        return None if over else self._kept

    async def anew(self) -> ProviderMetadata:
        """The document as it is now, whatever is kept. Raise ProviderUnavailable."""
        self._kept, max_age = await self._fetch()
        self._fetched = self._clock.boot()
        self._stale = self._fetched + max_age
        return self._kept

    @property
    def kept_grant_types(self) -> tuple[str, ...]:
        """Those of the document that is kept; none: it does not say."""
        return self._kept.grant_types if self._kept else ()

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
        await self._background.quiet()

    def _renewing(self) -> "asyncio.Future[None]":
        if self._fetching is None or self._fetching.done():
            self._fetching = self._background.run(self._renew())
        return self._fetching

    async def _renew(self) -> None:
        try:
            await self.anew()
        except ProviderUnavailable as error:
            if self._kept is None:
                raise
            self._stale = self._clock.boot() + PROVIDER_METADATA_MIN_SECONDS
            log.warning("metadata_not_renewed", issuer=self._issuer, reason=error.public)

    async def _fetch(self) -> tuple[ProviderMetadata, float]:
        first, second = well_known(self._issuer)
        answer = await self._http.get(first, step=STEP)
        if 400 <= answer.status < 500 and answer.status != 429:
            answer = await self._http.get(second, step=STEP)
        if answer.status != 200:
            raise ProviderUnavailable(
                f"the metadata of {self._issuer} are not to be had: the answer is {answer.status}",
                step=STEP,
                hint="set issuer to the exact issuer, or token_endpoint if the provider publishes no metadata",
            )
        self.clock_note = clock_note(answer, self._clock.now())
        return _read(answer.json(STEP), self._issuer), _max_age(answer)


def _read(document: Mapping[str, Any], issuer: str) -> ProviderMetadata:
    """The document of an issuer. Raise ProviderUnavailable if it is another's, or names no good endpoints."""
    said = document.get("issuer")
    if said != issuer:  # byte for byte (RFC 8414, 3.3): otherwise one issuer could speak for another
        shown = f"it says {said[:200]!a}" if isinstance(said, str) else "it names none"
        raise ProviderUnavailable(
            f"the metadata are of another issuer than {issuer}: {shown}",
            step=STEP,
            hint="set issuer to what the document says, if that is the one that is meant",
        )
    endpoints = {}
    for name in _ENDPOINTS:
        value = document.get(name, "")
        try:
            if value != "":
                parse_url(value if isinstance(value, str) else "")
        except ValueError as error:
            raise ProviderUnavailable(f"{name} in the metadata of {issuer} {error}", step=STEP) from error
        endpoints[name] = value
    if not endpoints["token_endpoint"]:
        raise ProviderUnavailable(f"the metadata of {issuer} name no token_endpoint", step=STEP)
    grants = document.get("grant_types_supported")
    known = tuple(each for each in grants if isinstance(each, str)) if isinstance(grants, list) else ()
    return ProviderMetadata(issuer, **endpoints, grant_types=known)


def _max_age(answer: HttpResponse) -> float:
    """Seconds that the document may be kept, within limits."""
    control = answer.headers.get("cache-control", "").lower()
    if "no-store" in control or "no-cache" in control:
        return PROVIDER_METADATA_MIN_SECONDS
    found = _MAX_AGE.search(control)
    seconds = float(found[1]) if found else PROVIDER_METADATA_SECONDS
    return min(max(seconds, PROVIDER_METADATA_MIN_SECONDS), PROVIDER_METADATA_MAX_SECONDS)
