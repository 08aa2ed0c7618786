"""A document that an issuer publishes of itself: fetched when it is needed, kept for a while, and renewed behind."""

import asyncio
import re
from abc import ABC, abstractmethod
from typing import Final, Generic, TypeVar

import structlog

from sojourn.limits import (
    PROVIDER_METADATA_KEPT_SECONDS,
    PROVIDER_METADATA_MAX_SECONDS,
    PROVIDER_METADATA_MIN_SECONDS,
    PROVIDER_METADATA_SECONDS,
)
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.http import HttpResponse
from sojourn.runtime.background import Background
from sojourn.runtime.clock import Clock

log = structlog.get_logger()

STEP: Final = "metadata"
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age=(\d{1,9})(?:$|[,\s])")
Document = TypeVar("Document")


class KeptMetadata(ABC, Generic[Document]):
    """The document of one issuer, kept for as long as it says.

    While it cannot be renewed the last one is used, up to PROVIDER_METADATA_KEPT_SECONDS.
    """

    def __init__(self, issuer: str, clock: Clock) -> None:
        self._issuer = issuer
        self._clock = clock
        self._kept: Document | None = None
        self._fetched = 0.0
        self._stale = 0.0
        self._fetching: asyncio.Future[None] | None = None
        self._background = Background("metadata_failed")

    @abstractmethod
    async def fetch(self) -> tuple[Document, float]:
        """The document as it is now, and for how many seconds it may be kept. Raise ProviderUnavailable."""

    async def metadata(self) -> Document:
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

    def _good(self) -> Document | None:
        over = self._clock.boot() >= self._fetched + PROVIDER_METADATA_KEPT_SECONDS
        return None if over else self._kept

    async def anew(self) -> Document:
        """The document as it is now, whatever is kept. Raise ProviderUnavailable."""
        self._kept, max_age = await self.fetch()
        self._fetched = self._clock.boot()
        self._stale = self._fetched + max_age
        return self._kept

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


def max_age_of(answer: HttpResponse) -> float:
    """Seconds that the document of an answer may be kept, within limits."""
    control = answer.headers.get("cache-control", "").lower()
    if "no-store" in control or "no-cache" in control:
        return PROVIDER_METADATA_MIN_SECONDS
    found = _MAX_AGE.search(control)
    seconds = float(found[1]) if found else PROVIDER_METADATA_SECONDS
    return min(max(seconds, PROVIDER_METADATA_MIN_SECONDS), PROVIDER_METADATA_MAX_SECONDS)
