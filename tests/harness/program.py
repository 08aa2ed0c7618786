"""Programs that print one JSON object a line: the independent clients."""

import contextlib
import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LINE_SECONDS = 30.0


class Program:
    """A running program and the lines that it prints. Use as a context manager."""

    def __init__(
        self, argv: list[str], environment: Mapping[str, str], *, uid: int | None = None, asked: bool = False
    ) -> None:
        """`asked`: it answers what it is asked on its input, line by line."""
        self._process = subprocess.Popen(
            [*as_user(uid), *argv],
            stdin=subprocess.PIPE if asked else None,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.pid = self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put(None)

    def hear(self) -> dict[str, Any]:
        """The next line. Raise AssertionError if there is none."""
        try:
            line = self._lines.get(timeout=LINE_SECONDS)
        except queue.Empty:
            raise AssertionError(f"heard nothing within {LINE_SECONDS} s") from None
        assert line is not None, f"the program ended with status {self._process.wait()}"
        return line

    def ask(self, question: object) -> dict[str, Any]:
        """Ask it that, and return its next line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self.hear()

    @property
    def waiting(self) -> int:
        """How many lines have come by now and were not heard yet."""
        return self._lines.qsize()

    def finish(self) -> tuple[int, list[dict[str, Any]]]:
        """Wait for the end; the exit status and the lines that were not heard yet."""
        status = self._process.wait(timeout=LINE_SECONDS)
        lines = []
        while (line := self._lines.get(timeout=LINE_SECONDS)) is not None:
            lines.append(line)
        return status, lines

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def as_user(uid: int | None) -> list[str]:
    """What to put before a command so that it runs as another user."""
    return [] if uid is None else ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


def published(program: str | Path, folder: Path, name: str) -> Path:
    """A copy of a program that every user may run."""
    copy = folder / name
    shutil.copyfile(program, copy)
    copy.chmod(0o755)
    return copy
