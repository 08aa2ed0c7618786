"""What a transmitter of signed events publishes of itself (SSF 1.0, 7), and how it is asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from sojourn.net.urls import parse_url
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.http import Http
from sojourn.providers.kept_metadata import STEP, KeptMetadata, max_age_of
from sojourn.runtime.clock import Clock

_ENDPOINTS: Final = ("jwks_uri", "configuration_endpoint", "status_endpoint", "verification_endpoint")


@dataclass(frozen=True, slots=True)
class TransmitterMetadata:
    """What an issuer's document says. What it has not is ''."""

    jwks_uri: str = ""
    configuration_endpoint: str = ""
    status_endpoint: str = ""
    verification_endpoint: str = ""


def well_known(issuer: str) -> str:
    """Where an issuer's document is: the name stands between its host and its path (SSF 1.0, 7.2)."""
    parts = urlsplit(issuer)
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}/.well-known/ssf-configuration{parts.path.rstrip('/')}{query}"


def is_of(url: str, issuer: str) -> bool:
    """Whether two URLs have one origin: scheme, host and port. Raise ValueError if one is none."""
    one, other = (parse_url(each) for each in (url, issuer))
    return (one.scheme, one.host.lower(), one.port) == (other.scheme, other.host.lower(), other.port)


class TransmitterDiscovery(KeptMetadata[TransmitterMetadata]):
    """The document of one issuer of signed events."""

    def __init__(self, issuer: str, http: Http, clock: Clock) -> None:
        super().__init__(issuer, clock)
        self._http = http

    async def fetch(self) -> tuple[TransmitterMetadata, float]:
        answer = await self._http.get(well_known(self._issuer), step=STEP)
        if answer.status != 200:
            raise ProviderUnavailable(
                f"the metadata of {self._issuer} are not to be had: the answer is {answer.status}",
                step=STEP,
                hint="set issuer to the exact issuer, or name its keys in jwks",
            )
        return _read(answer.json(STEP), self._issuer), max_age_of(answer)

    async def jwks_uri(self) -> str:
        """Raise ProviderUnavailable if there is none."""
        found = await self.metadata()
        if not found.jwks_uri:
            raise ProviderUnavailable(f"the metadata of {self._issuer} name no jwks_uri", step=STEP)
        return found.jwks_uri


def _read(document: Mapping[str, Any], issuer: str) -> TransmitterMetadata:
    """The document of an issuer. Raise ProviderUnavailable if it is another's, or names an endpoint that is no URL."""
    if document.get("issuer") != issuer:  # byte for byte: otherwise one issuer could speak for another
        raise ProviderUnavailable(f"the metadata are of another issuer than {issuer}", step=STEP)
    endpoints = {name: document.get(name, "") for name in _ENDPOINTS}
    for name, value in endpoints.items():
        try:
            if value != "":
                parse_url(value if isinstance(value, str) else "")
        except ValueError as error:
            raise ProviderUnavailable(f"{name} in the metadata of {issuer} {error}", step=STEP) from error
    return TransmitterMetadata(**endpoints)
