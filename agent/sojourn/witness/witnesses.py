"""All who vouch for the agent's log, witnesses and a time-stamp authority: each checkpoint wakes them, and none waits
for another.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sojourn.witness.posting import WitnessPosting
    from sojourn.witness.stamping import Stamping


class Witnesses:
    """Runs them."""

    def __init__(self, witnesses: "Sequence[WitnessPosting]" = (), stamping: "Stamping | None" = None) -> None:
        self.all = tuple(witnesses)
        self.stamping = stamping
        self._running: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """There is a checkpoint more."""
        for each in self._everybody:
            each.wake.set()

    async def run(self) -> None:
        """Have checkpoints cosigned until cancelled."""
        self._running = asyncio.current_task()
        self.wake()
        async with asyncio.TaskGroup() as group:
            for each in self._everybody:
                group.create_task(each.run())

    async def close(self) -> None:
        """End, and let go of connections: what is not cosigned yet is so after the next start."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        for each in self._everybody:
            await each.close()

    @property
    def _everybody(self) -> "Sequence[WitnessPosting | Stamping]":
        return self.all if self.stamping is None else (*self.all, self.stamping)
