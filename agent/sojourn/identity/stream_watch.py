"""Looks after the processes that hold streams: calls attest their callers, but a stream may be silent for days."""

import asyncio
from time import monotonic
from typing import NoReturn

from sojourn.errors import AttestationFailed
from sojourn.identity.subscriptions import Streams
from sojourn.limits import PROCESSES_LOOKED_AT_ONCE, STREAMS_LOOKED_AT_SECONDS


class Lookout:
    """Wakes the streams of a process that runs another program, or is in another cgroup, than when it was attested; and
    those that have been silent for so long that their callers are to be attested again.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    async def run(self) -> NoReturn:
        """Look every STREAMS_LOOKED_AT_SECONDS until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(STREAMS_LOOKED_AT_SECONDS)

    async def look(self) -> None:
        """Look at each process once, however many streams it holds."""
        for number, streams in enumerate(self._streams.by_process(), 1):
            if not streams:  # it has closed them since
                continue
            process = next(iter(streams)).peer.process
            try:
                program, cgroup = process.program(), process.cgroup()
            except AttestationFailed:  # it has gone: the door closes what it held
                continue
            now = monotonic()
            for stream in streams:
                if stream.due <= now or stream.peer.program != program or stream.attested.cgroup != cgroup:
                    stream.wake()
            if number % PROCESSES_LOOKED_AT_ONCE == 0:
                await asyncio.sleep(0)
