"""Signers that keep callers waiting, fail, or never answer, as a test says."""

import asyncio
from collections.abc import Sequence
from copy import copy
from datetime import timedelta
from typing import Any

from sojourn.authority.embedded_ca import EmbeddedAuthority
from sojourn.identity.entries import Entry
from sojourn.identity.svid_issuer import Signers


class LateSigner:
    """Signs by what signs at once, when it is let go. `asked`: the entries of all signatures that were begun.

    `failing`: what it raises instead. `trusted`: whether it vouches for what it signs. `held`: it waits to be let go.
    """

    def __init__(self, signer: Any, *, held: bool = True, seconds: float = 0.0) -> None:
        self._signer = signer
        self._seconds = seconds
        self._gate = asyncio.Event()
        self.asked: list[Entry] = []
        self.cancelled = 0
        self.at_work = self.most_at_work = 0
        self.failing: Exception | None = None
        self.trusted = True
        if not held:
            self._gate.set()

    def at_once(self, *_: Any) -> None:
        return None

    async def sign(self, entry: Entry, *audience: Sequence[str]) -> Any:
        self.asked.append(entry)
        self.at_work += 1
        self.most_at_work = max(self.at_work, self.most_at_work)
        try:
            signed = self._signer.at_once(entry, *audience)  # by the key, and with the stamp, of when it was asked for
            await asyncio.sleep(self._seconds)
            await self._gate.wait()
            if self.failing is not None:
                raise copy(self.failing)  # each with a traceback of its own
            return signed
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.at_work -= 1

    def vouches(self, _svid: Any) -> bool:
        return self.trusted

    def let_go(self) -> None:
        """Answer all that was asked for, and what is asked for from now on at once."""
        self._gate.set()

    def hold(self) -> None:
        """Keep waiting whoever asks from now on."""
        self._gate.clear()


def late_signers(authority: EmbeddedAuthority, *, held: bool = True, seconds: float = 0.0) -> Signers:
    """Signers of all kinds that keep callers waiting: an hour for X.509-SVIDs, five minutes for the others."""
    at_once = Signers.at_once(authority, timedelta(hours=1), timedelta(minutes=5))
    return Signers(*(LateSigner(each, held=held, seconds=seconds) for each in (at_once.x509, at_once.jwt, at_once.wit)))
