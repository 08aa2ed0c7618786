"""An authorization server's metadata, by its issuer (RFC 8414; OpenID Connect Discovery 1.0)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from sojourn.net.urls import parse_url
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.http import Http
from sojourn.providers.kept_metadata import STEP, KeptMetadata, max_age_of
from sojourn.providers.tokens import clock_note
from sojourn.runtime.clock import Clock

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


class Discovery(KeptMetadata[ProviderMetadata]):
    """The document of one issuer."""

    def __init__(self, issuer: str, http: Http, clock: Clock) -> None:
        super().__init__(issuer, clock)
        self._http = http
        self.clock_note = ""  # what to say of the issuer's clock, if it was far off at the last fetch

    @property
    def kept_grant_types(self) -> tuple[str, ...]:
        """Those of the document that is kept; none: it does not say."""
        return self._kept.grant_types if self._kept else ()

    async def fetch(self) -> tuple[ProviderMetadata, float]:
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
        return _read(answer.json(STEP), self._issuer), max_age_of(answer)


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
