"""Which processes have files of /proc kept open: those that call again and again."""

from collections import OrderedDict

from sojourn.attestation.process import Process
from sojourn.limits import PROCESSES_KEPT_OPEN


class KeptOpen:
    """The last callers that came more than once, PROCESSES_KEPT_OPEN at the most."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Process, None] = OrderedDict()  # the latest last

    def note(self, process: Process) -> None:
        """A caller came again. A process that was closed since has nothing open any more."""
        if process in self._kept:
            self._kept.move_to_end(process)
            return
        if len(self._kept) >= PROCESSES_KEPT_OPEN:
            self._kept.popitem(last=False)[0].let_go()
        self._kept[process] = None
        process.keep_open()
