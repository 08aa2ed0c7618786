"""Tokens that are bound to this process's X.509-SVID (RFC 8705), over its rotations."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, Unpack

from cryptography.hazmat.primitives.serialization import Encoding

from sojourn.errors import NoIdentity
from sojourn.quota.lru import Lru
from sojourn.sdk.client.x509_source import Present, X509Source
from sojourn.sdk.task import acting
from sojourn.sdk.task.values import AccessToken, TaskPerson, TokenOptions
from sojourn.spiffetls.authorize import Authorize
from sojourn.spiffetls.context import SpiffeContext

SPARE: Final = timedelta(seconds=2)  # a token that ends sooner may end on its way
KEPT: Final = 100  # tokens; over that the oldest is asked for again


class TokenGiver(Protocol):
    """A task."""

    @property
    def person(self) -> TaskPerson | None: ...
    async def token(
        self, resource: str = "", actions: Sequence[str] = (), **options: Unpack[TokenOptions]
    ) -> AccessToken: ...


@dataclass(frozen=True, slots=True)
class CertificateToken:
    """A token, and the SVID that it is bound to: it is good on connections of `client_context` alone."""

    token: AccessToken
    present: Present

    def client_context(self, authorize: Authorize) -> ssl.SSLContext:
        """A context for TLS clients that shows the very SVID of the token, whatever has come since."""
        return SpiffeContext(self, authorize, server_side=False)


class CertificateTokens:
    """Gets tokens of a task that are bound to the present SVID of `source`, and keeps each while both are good."""

    def __init__(
        self, task: TokenGiver, source: X509Source, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._task = task
        self._source = source
        self._now = now
        self._kept: Lru[tuple[str, tuple[str, ...]], CertificateToken] = Lru(KEPT, by_age=True)
        self._asking = asyncio.Lock()

    async def get(self, resource: str = "", actions: Sequence[str] = (), *, anew: bool = False) -> CertificateToken:
        """A token for the present SVID; `anew`: not one that was had before, as when a service refused that.

        Raise what Task.token raises, and NoIdentity if there is no SVID any more.
        """
        acting.check(self._task.person)  # a token that is kept was asked for by nobody who is here
        name = resource, tuple(actions)
        async with self._asking:
            kept, present = self._kept.get(name), self._source.present
            if kept is not None and not anew and self._good(kept, present):
                return CertificateToken(kept.token, present)
            if present.context is None:
                raise NoIdentity("there is no X.509-SVID: the agent refused, or the source is closed")
            leaf = present.context.default.leaf.public_bytes(Encoding.DER)
            token = await self._task.token(resource, actions, certificate=leaf)
            made = CertificateToken(token, present)
            self._kept.put(name, made)
            return made

    def _good(self, kept: CertificateToken, present: Present) -> bool:
        return _same(kept.present, present) and kept.token.expires_at - SPARE > self._now()


def _same(one: Present, other: Present) -> bool:
    """Whether both have the same default SVID: bundles may have changed."""
    if one.context is None or other.context is None:
        return False
    return one.context.default.leaf == other.context.default.leaf
