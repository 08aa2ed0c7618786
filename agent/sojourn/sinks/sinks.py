"""All sinks of the agent: they are woken by what is recorded and signed, and none waits for another."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from sojourn.operating_limits import SINK_FINISH_SECONDS
from sojourn.sinks.sink import Sink


class Sinks:
    """Runs them. `head` is the last record that is on disk, as far as was heard."""

    def __init__(self, sinks: Sequence[Sink], head: int) -> None:
        self.all = tuple(sinks)
        self.head = head
        self._calling = False  # the loop is called, and has not woken the sinks yet
        self._running: asyncio.Task[None] | None = None

    def lag_records(self, sink: Sink) -> int:
        """How many records the sink has not been looked at for."""
        return max(0, self.head - sink.state.seq)

    def heard(self, loop: asyncio.AbstractEventLoop, seq: int) -> None:
        """The journal is on disk up to this record, if that is known. Called in the writer's thread, at each commit."""
        if seq in {0, self.head}:
            return
        self.head = seq
        if not self._calling:
            self._calling = True
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self.wake)

    def wake(self) -> None:
        """Have all sinks look for what is new."""
        self._calling = False
        for each in self.all:
            each.wake.set()

    async def run(self) -> None:
        """Send until cancelled, or finished."""
        self._running = asyncio.current_task()
        self.wake()
        async with asyncio.TaskGroup() as group:
            for each in self.all:
                group.create_task(each.run())

    async def finish(self) -> None:
        """Have sinks that take something take the last records, and end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SINK_FINISH_SECONDS), asyncio.TaskGroup() as group:
                for each in self.all:
                    group.create_task(self._finish(each))
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        for each in self.all:
            await each.close()

    async def _finish(self, sink: Sink) -> None:
        while not sink.fault and sink.is_behind(self.head) and self._running is not None:
            sink.at_end.clear()
            sink.wake.set()
            await sink.at_end.wait()
