"""Standard error as systemd's journal has it: a line that begins with `<priority>` has that priority (sd-daemon(3))."""

import os
import sys
from collections.abc import Mapping
from typing import Final

_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "exception": 3, "critical": 2}


def journal_reads(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the journal reads standard error: it is the stream that JOURNAL_STREAM names (systemd.exec(5)).

    Its variable is inherited by processes whose standard error leads elsewhere.
    """
    try:
        status = os.fstat(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM", "") == f"{status.st_dev}:{status.st_ino}"


def marked(method: str, line: str) -> str:
    """`line` with the priority of a log method, such as `warning`."""
    return f"<{_PRIORITIES.get(method, _PRIORITIES['error'])}>{line}"
