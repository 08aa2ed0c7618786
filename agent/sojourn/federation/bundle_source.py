"""Where federation gets bundles: what fetches them is imported when one is followed, or an authority is named."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from sojourn.identity.federation_relationship import Relationship
from sojourn.runtime.clock import Clock
from sojourn.spiffe.bundle import Bundle

if TYPE_CHECKING:
    from sojourn.federation.bundle_fetch import BundleEndpoints


class BundleSource:
    """BundleEndpoints, made at first use: with it come an HTTP library and the system's list of authorities."""

    def __init__(self, ca: Path | None, clock: Clock, *, public_only: bool) -> None:
        """Raise CannotStart if `ca` is not a file of certificates."""
        self._ca = ca
        self._clock = clock
        self._public_only = public_only
        self._made: BundleEndpoints | None = None if ca is None else self._make()

    async def fetch(self, relationship: Relationship, vouching: Bundle | None) -> Bundle:
        """As BundleEndpoints.fetch."""
        if self._made is None:
            self._made = await asyncio.to_thread(self._make)
        return await self._made.fetch(relationship, vouching)

    def _make(self) -> "BundleEndpoints":
        from sojourn.federation.bundle_fetch import BundleEndpoints

        return BundleEndpoints(self._ca, self._clock, public_only=self._public_only)
