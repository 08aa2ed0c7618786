"""What a process prints, read with a deadline: one that says nothing fails its test, and does not hang it."""

import subprocess
import threading
from collections.abc import Generator


def lines_of(process: "subprocess.Popen[str]", seconds: float = 30) -> Generator[str, None, None]:
    """The lines of its standard output. It is killed if they are still being read after so long."""
    guard = threading.Timer(seconds, process.kill)
    guard.start()
    assert process.stdout is not None
    try:
        yield from process.stdout
    finally:
        guard.cancel()
