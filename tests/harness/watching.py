"""A command that goes on: what it prints line by line, with or without a terminal."""

import os
import queue
import signal
import subprocess
import threading
import time

from harness.agent import COMMAND, AgentProcess

ANSWER_SECONDS = 45.0


class Watch:
    """`sojourn … --watch` as a process. With `terminal` its standard output is one."""

    def __init__(self, agent: AgentProcess, *arguments: str, terminal: bool = False) -> None:
        outer, inner = os.openpty() if terminal else os.pipe()
        environment = {**agent.environment, "COLUMNS": "100", "LINES": "30"}
        self.process = subprocess.Popen(
            [*COMMAND, *arguments], env=environment, stdout=inner, stderr=subprocess.PIPE, text=True
        )
        os.close(inner)
        self._outer = outer
        self._terminal = terminal
        self._said: queue.Queue[str] = queue.Queue()
        self._noted: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._listen, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                block = os.read(self._outer, 65_536)
            except OSError:  # a terminal whose other side has gone
                return
            if not block:
                return
            self._said.put(block.decode())

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._noted.put(line)

    def says(self, text: str) -> str:
        """All that it printed from now on up to and with `text`. Raise AssertionError if it does not come."""
        return _until(self._said, text)

    def notes(self, text: str) -> str:
        """The same of standard error."""
        return _until(self._noted, text)

    def quiet(self, seconds: float) -> str:
        """What it prints within a time."""
        time.sleep(seconds)
        return _rest(self._said)

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=ANSWER_SECONDS)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._outer)
        assert self.process.stderr is not None
        self.process.stderr.close()


def _until(source: "queue.Queue[str]", text: str) -> str:
    ends = time.monotonic() + ANSWER_SECONDS
    heard = ""
    while text not in heard:
        try:
            heard += source.get(timeout=max(0.0, ends - time.monotonic()))
        except queue.Empty:
            raise AssertionError(f"did not say {text!r}, but {heard!r}") from None
    return heard


def _rest(source: "queue.Queue[str]") -> str:
    heard = ""
    while not source.empty():
        heard += source.get()
    return heard
