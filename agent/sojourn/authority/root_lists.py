"""Lists of revoked leaves that the root signs: those whose intermediate is lost."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog
from cryptography import x509

from sojourn.authority.asking import Asking, Sleep
from sojourn.authority.root_signer import RootSigner
from sojourn.errors import SojournError
from sojourn.runtime.clock import Clock
from sojourn.runtime.hooks import Hooks

log = structlog.get_logger()
FRESH: Final = timedelta(hours=12)  # for so long a list that was waited for is given to whoever wants the same one


@dataclass(frozen=True, slots=True)
class _Kept:
    serials: frozenset[int]
    der: bytes
    signed_at: datetime


class RootLists:
    """What each root has signed. While a newer list is waited for, the one before goes out."""

    def __init__(self, root: RootSigner, clock: Clock, sleep: Sleep = asyncio.sleep) -> None:
        self.on_signed: Hooks[[]] = Hooks()  # a list that was waited for is there
        self._root = root
        self._clock = clock
        self._sleep = sleep
        self._kept: dict[str, _Kept] = {}
        self._asking: dict[str, Asking[bytes]] = {}
        self._wanted: dict[str, tuple[frozenset[int], x509.CertificateRevocationListBuilder]] = {}

    def of(self, root_id: str, serials: Sequence[int], builder: x509.CertificateRevocationListBuilder) -> bytes | None:
        """The list of a root as DER, of these leaves; the one before, or None, while that is not signed."""
        at_once = self._root.list_at_once(root_id, builder)
        if at_once is not None:
            return at_once
        kept, named = self._kept.get(root_id), frozenset(serials)
        if kept is not None and kept.serials == named and self._clock.now() - kept.signed_at < FRESH:
            return kept.der
        self._wanted[root_id] = named, builder
        self._ask(root_id)
        return kept.der if kept is not None else None

    def hurry(self) -> None:
        """End the pauses between tries."""
        for each in self._asking.values():
            each.hurry()

    async def close(self) -> None:
        for each in self._asking.values():
            await each.close()

    def _ask(self, root_id: str) -> None:
        asking = self._asking.setdefault(root_id, Asking(_failed, self._sleep))
        asking.begin(partial(self._sign, root_id), partial(self._take, root_id))

    async def _sign(self, root_id: str) -> bytes:
        """What is wanted by now is signed, also if another list was when this was begun."""
        while True:
            wanted = self._wanted[root_id]
            der = await self._root.sign_list(root_id, wanted[1])
            if self._wanted[root_id] is wanted:
                self._kept[root_id] = _Kept(wanted[0], der, self._clock.now())
                return der

    def _take(self, _root_id: str, _der: bytes) -> None:
        self.on_signed.tell()


def _failed(error: Exception) -> None:
    said = error.public if isinstance(error, SojournError) else type(error).__name__
    log.error("root_list_not_signed", reason=said, detail=getattr(error, "detail", ""))
