"""Being told to end, by Ctrl-C, SIGTERM or SIGHUP, at whatever moment and however often."""

import functools
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")
_SAME_SECONDS: Final = 0.5
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """How the command hears of it: as a KeyboardInterrupt, once, since `timeout -s INT` and many a supervisor send it
    twice. Half a second later it is heard again, in case that the first one had no effect.
    """

    def __init__(self) -> None:
        self.dies_of: signal.Signals | None = None
        """The SIGTERM or SIGHUP that came: once all is tidy the command is to die of it."""
        self._last = -_SAME_SECONDS
        self._cancel: Callable[[], object] | None = None

    def hear(self) -> None:
        """From now on. What is ignored, as after nohup or in the background of a script, stays so."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)
        for number in _ENDING:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._end)

    def hear_no_more(self) -> None:
        """The command ends, and has nothing left to tidy."""
        for number in _ENDING:
            if signal.getsignal(number) == self._end:
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def run(self, main: Callable[[], Awaitable[T]]) -> T:
        """Run `main()` in an event loop, where being told to end cancels it; then KeyboardInterrupt is raised."""
        import asyncio

        interrupted = False

        def cancel(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[Any]") -> None:
            nonlocal interrupted
            interrupted, self._cancel = True, None  # if that has no effect the next time is not as kind
            loop.call_soon_threadsafe(task.cancel)

        async def call() -> T:
            task = asyncio.current_task()
            assert task is not None
            self._cancel = functools.partial(cancel, asyncio.get_running_loop(), task)
            try:
                return await main()
            finally:
                self._cancel = None

        with asyncio.Runner() as runner:
            runner.get_loop()
            try:
                answer = runner.run(call())
            except asyncio.CancelledError:
                if not interrupted:
                    raise
        if interrupted:
            raise KeyboardInterrupt
        return answer

    def _end(self, number: int, frame: Any) -> None:
        self.dies_of = signal.Signals(number)
        self._interrupt(number, frame)

    def _interrupt(self, _number: int, _frame: Any) -> None:
        before, self._last = self._last, time.monotonic()
        if self._last - before < _SAME_SECONDS:
            return
        if self._cancel is None:
            raise KeyboardInterrupt
        self._cancel()


INTERRUPTS: Final = Interrupts()
