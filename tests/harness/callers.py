"""Starting and telling workload processes (caller.py)."""

import json
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from harness import forks
from harness.agent import clean_environment

ANSWER_SECONDS = 45.0


class Caller:
    """A workload process. `tell` sends it a command, `hear` waits for its next line."""

    def __init__(
        self, socket: str, uid: int | None = None, groups: tuple[int, ...] = (), argv: list[str] | None = None
    ):
        script = str(Path(__file__).with_name("caller.py"))
        numbers = [] if uid is None else [str(uid), *map(str, groups)]
        self._process = forks.popen(
            [*(argv or [sys.executable, script]), socket, *numbers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment(),
        )
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.pid: int = self.hear("up")["pid"]
        except AssertionError:
            self.close()
            raise

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put(None)

    def tell(self, do: str, **arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()

    def hear(self, *events: str, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """The next line, or with `events` the next one of these. Raise AssertionError if none comes."""
        while True:
            try:
                line = self._lines.get(timeout=seconds)
            except queue.Empty:
                raise AssertionError(f"heard nothing of {events} within {seconds} s") from None
            if line is None:
                raise AssertionError(f"the caller ended without {events}")
            if not events or line["event"] in events:
                return line

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Tell, and hear the next line."""
        self.tell(do, **arguments)
        return self.hear()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        return self._process.wait(timeout=ANSWER_SECONDS)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
