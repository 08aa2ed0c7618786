"""The processes that tasks live with: one handle for each process, however many tasks it holds."""

from collections.abc import Callable
from dataclasses import dataclass, field

from sojourn.attestation.process import Process
from sojourn.errors import LimitExceeded


@dataclass(slots=True, eq=False)
class _Held:
    process: Process
    holds: dict["Hold", Callable[[], None]] = field(default_factory=dict)


class Hold:
    """One task's hold on a process. `release` it; the process may be held by other tasks too."""

    __slots__ = ("_holders", "_key", "process")

    def __init__(self, holders: "Holders", key: tuple[int, int], process: Process) -> None:
        self._holders = holders
        self._key = key
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    def release(self) -> None:
        self._holders.release(self._key, self)


class Holders:
    """All processes that hold tasks. At most `maximum` of them, since each takes a descriptor."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._held: dict[tuple[int, int], _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, process: Process, on_exit: Callable[[], None]) -> Hold:
        """Hold a process, which this takes ownership of, and call `on_exit` once when it has ended.

        Raise LimitExceeded if too many processes are held, AttestationFailed if it has gone already.
        """
        key = (process.pid, process.start_time)
        held = self._held.get(key)
        try:
            if held is None and len(self._held) >= self._maximum:
                raise LimitExceeded("too many processes hold tasks")
            process.check_alive()
        except BaseException:
            process.close()
            raise
        if held is None:
            held = self._held[key] = _Held(process)
            process.on_exit(lambda: self._exited(key))
        else:
            process.close()
        hold = Hold(self, key, held.process)
        held.holds[hold] = on_exit
        return hold

    def release(self, key: tuple[int, int], hold: Hold) -> None:
        held = self._held.get(key)
        if held is None or held.holds.pop(hold, None) is None:
            return
        if not held.holds:
            del self._held[key]
            held.process.close()

    def _exited(self, key: tuple[int, int]) -> None:
        held = self._held.get(key)
        if held is not None:
            for on_exit in list(held.holds.values()):
                on_exit()
