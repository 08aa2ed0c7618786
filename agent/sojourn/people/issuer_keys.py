"""The keys that an issuer of people's tokens signs with: from a file, or fetched by OpenID Connect Discovery."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import structlog

from sojourn.errors import Unavailable
from sojourn.errors.people import PersonRefused
from sojourn.files.followed_file import FollowedFile
from sojourn.jose.jwk_set import read_jwk_set
from sojourn.jose.jws import PublicKey
from sojourn.limits import PUBLISHED_KEYS
from sojourn.people.issuer_rules import IssuerRules
from sojourn.providers.discovery import Discovery
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.http import Http
from sojourn.providers.kept_metadata import STEP as METADATA
from sojourn.providers.published_keys import PublishedKeys
from sojourn.runtime.clock import Clock

log = structlog.get_logger()


class IssuerKeys(Protocol):
    """Where one issuer's keys come from."""

    async def find(self, kid: str, since: float | None = None) -> PublicKey | None:
        """The key of that ID; None: the issuer has no such key. Raise PersonRefused if that cannot be told now.

        `since`, on the boot clock: when the token was there already. Without, it has come with this call.
        """

    async def close(self) -> None: ...


class FiledKeys:
    """Those of a file with a JWK Set, which is read anew when it has changed."""

    def __init__(self, path: Path, rules: IssuerRules) -> None:
        self._name = rules.name
        self.file: FollowedFile[Mapping[str, PublicKey]] = FollowedFile(
            path, "the issuer's keys", lambda text: read_jwk_set(text, rules.algorithms, PUBLISHED_KEYS), self._tell
        )

    async def find(self, kid: str, since: float | None = None) -> PublicKey | None:  # noqa: ARG002  # it has all
        try:
            return (await self.file.current()).get(kid)
        except Unavailable as error:
            raise _unavailable(error.detail) from error

    async def close(self) -> None:
        pass

    def _tell(self, fault: str) -> None:
        log.warning("people_keys_unusable", issuer=self._name, reason=fault)


class FetchedKeys:
    """Those that the issuer publishes, as its metadata say."""

    def __init__(self, rules: IssuerRules, http: Http, clock: Clock) -> None:
        self.discovery = Discovery(rules.url, http, clock)
        self._rules = rules
        self._http = http
        self._keys = PublishedKeys(self._where, rules.algorithms, http, clock, self._tell)

    async def find(self, kid: str, since: float | None = None) -> PublicKey | None:
        try:
            return await self._keys.find(kid, since)
        except ProviderUnavailable as error:
            raise _unavailable(error.public) from error

    async def anew(self) -> Mapping[str, PublicKey]:
        """The keys as the issuer publishes them now. Raise ProviderUnavailable."""
        return await self._keys.anew()

    async def close(self) -> None:
        await self._keys.close()
        await self.discovery.close()
        await self._http.close()

    async def _where(self) -> str:
        metadata = await self.discovery.metadata()
        if not metadata.jwks_uri:
            raise ProviderUnavailable(f"the metadata of {self._rules.url} name no jwks_uri", step=METADATA)
        return metadata.jwks_uri

    def _tell(self, fault: str) -> None:
        log.warning("people_keys_not_fetched", issuer=self._rules.name, reason=fault)


def _unavailable(why: str) -> PersonRefused:
    public = "the issuer's keys cannot be had now; the agent's log has why"
    return PersonRefused("issuer_unavailable", public, detail=why)
