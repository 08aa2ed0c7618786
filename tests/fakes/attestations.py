"""Attestors whose answers the test sets."""

import asyncio
from collections.abc import Iterable

from sojourn.attestation.attestor import Answer, Subject


class FakeAttestor:
    """Gives `values` about everyone, or raises `failure`; `gate` holds answers up until it is set."""

    def __init__(self, values: Iterable[str] = (), withheld: dict[str, str] | None = None) -> None:
        self.values = frozenset(values)
        self.withheld = withheld or {}
        self.untold: dict[str, str] = {}
        self.failure: BaseException | None = None
        self.gate: asyncio.Event | None = None
        self.asked: list[Subject] = []
        self.asking = asyncio.Event()

    async def attest(self, subject: Subject) -> Answer:
        self.asked.append(subject)
        self.asking.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return Answer(self.values, self.withheld, untold=self.untold)
