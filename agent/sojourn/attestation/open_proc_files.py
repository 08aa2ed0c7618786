"""Which processes have files of /proc kept open: those that call again and again."""

from sojourn.attestation.process import Process
from sojourn.limits import PROCESSES_KEPT_OPEN
from sojourn.quota.lru import Lru


class KeptOpen:
    """The last callers that came more than once, PROCESSES_KEPT_OPEN at the most."""

    def __init__(self) -> None:
        self._kept: Lru[Process, bool] = Lru(PROCESSES_KEPT_OPEN)

    def note(self, process: Process) -> None:
        """A caller came again. A process that was closed since has nothing open any more."""
        if self._kept.get(process):
            return
        gone = self._kept.put(process, True)
        if gone is not None:
            gone[0].let_go()
        process.keep_open()
