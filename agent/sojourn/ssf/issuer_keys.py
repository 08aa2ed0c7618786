"""The keys of an issuer of signed events: from a file with its JWK Set, or from where its metadata say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import structlog

from sojourn.errors import Unavailable
from sojourn.files.followed_file import FollowedFile
from sojourn.jose.jwk_set import read_jwk_set
from sojourn.jose.jws import PublicKey
from sojourn.limits import SIGNAL_KEYS
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.http import Http
from sojourn.providers.published_keys import PublishedKeys
from sojourn.runtime.clock import Clock
from sojourn.ssf.security_events import ALGORITHMS
from sojourn.ssf.transmitter import TransmitterDiscovery

log = structlog.get_logger()


class EventKeys(Protocol):
    """Where the keys of one issuer come from."""

    async def named(self, kid: str, since: float | None = None) -> Mapping[str, PublicKey]:
        """Keys by `kid`, with that one among them if the issuer has it. Raise Unavailable if that cannot be told.

        `since`, on the boot clock: when the event was there already. Without, it has come with this call.
        """
        ...

    async def begin(self) -> None:
        """The agent starts: look, so that what is wrong is told before the first event comes. Nothing is waited for."""
        ...

    async def look(self) -> str:
        """Why the keys cannot be used; empty if they can, as far as is known."""
        ...

    async def close(self) -> None: ...


class SignalKeys(FollowedFile[Mapping[str, PublicKey]]):
    """Those of a file, which is read anew when it has changed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "the issuer's keys", read_keys, self._tell)

    async def named(
        self,
        kid: str,  # noqa: ARG002  # the file has all of them
        since: float | None = None,  # noqa: ARG002
    ) -> Mapping[str, PublicKey]:
        return await self.current()

    async def begin(self) -> None:
        await self.look()

    async def close(self) -> None:
        pass

    def _tell(self, fault: str) -> None:
        log.warning("signal_keys_unusable", path=str(self.path), reason=fault)


class FetchedSignalKeys:
    """Those that the issuer publishes, by its metadata as a transmitter."""

    def __init__(self, issuer: str, discovery: TransmitterDiscovery, http: Http, clock: Clock) -> None:
        """`discovery` is closed by whoever has made it."""
        self._issuer = issuer
        self._keys = PublishedKeys(discovery.jwks_uri, ALGORITHMS, http, clock, self._tell)

    async def named(self, kid: str, since: float | None = None) -> Mapping[str, PublicKey]:
        try:
            found = await self._keys.find(kid, since)
        except ProviderUnavailable as error:
            raise Unavailable(
                "the issuer's keys cannot be had now; the agent's log has why", detail=error.public
            ) from error
        return {} if found is None else {kid: found}

    async def begin(self) -> None:
        self._keys.renew()

    async def look(self) -> str:
        return self._keys.fault

    async def close(self) -> None:
        await self._keys.close()

    def _tell(self, fault: str) -> None:
        log.warning("signal_keys_unusable", issuer=self._issuer, reason=fault)


def read_keys(text: str) -> dict[str, PublicKey]:
    """The keys of a JWK Set that may have signed an event, by `kid`. Raise InvalidInput."""
    return read_jwk_set(text, ALGORITHMS, SIGNAL_KEYS)
