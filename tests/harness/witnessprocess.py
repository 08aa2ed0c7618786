"""A witness as a process: `sojourn audit witness`, in a folder of its own, on a loopback port that stays the same."""

import os
import select
import shutil
import signal
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import agent as agents
from harness import forks
from harness.keeper import keep
from harness.ports import free_port

READY_SECONDS = 60.0
NAME = "witness.example/w1"


class WitnessProcess:
    """Use as a context manager. `logs` are the vkeys that it trusts: `trust` adds one while it runs."""

    def __init__(self, logs: Sequence[str] = (), *more: str, name: str = NAME, folder: Path | None = None) -> None:
        """`more`: further options. `folder`: another than one of its own; it is made if need be."""
        self.root = Path(tempfile.mkdtemp(prefix="sojourn-witness-", dir="/tmp"))
        self.folder = folder or self.root / "data"
        self.log = self.root / "witness.log"
        self.logs = self.root / "logs"
        self.logs.write_text("".join(f"{each}\n" for each in logs))
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] | None = None
        self._more = more

    def __enter__(self) -> "WitnessProcess":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def argv(self) -> list[str]:
        options = ["--data-dir", str(self.folder), "--name", self.name, "--logs", str(self.logs)]
        return [*agents.COMMAND, "audit", "witness", *options, "--listen", f"127.0.0.1:{self.port}", *self._more]

    def start(self) -> "WitnessProcess":
        """Raise RuntimeError with what it said instead of `ready`."""
        with self.log.open("a") as log:
            self.process = forks.popen(
                self.argv, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ}, start_new_session=True
            )
        keep(self.process)
        assert self.process.stdout is not None
        poll = select.poll()  # not select: a test may hold more descriptors than that takes
        poll.register(self.process.stdout, select.POLLIN)
        readable = poll.poll(READY_SECONDS * 1_000)
        line = self.process.stdout.readline() if readable else ""
        if "ready" not in line:
            self.stop(signal.SIGKILL)
            raise RuntimeError(f"the witness did not get ready: {line!r}\n{self.log.read_text()[-4000:]}")
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait, and return the exit status; 0 if it does not run."""
        if self.process is None:
            return 0
        process, self.process = self.process, None
        if process.poll() is None:
            process.send_signal(number)
        status = process.wait(timeout=60)
        if process.stdout is not None:
            process.stdout.close()
        return status

    @property
    def vkey(self) -> str:
        """By the command, as an operator has it."""
        argv = [*agents.COMMAND, "audit", "witness", "--data-dir", str(self.folder), "--name", self.name, "--show-key"]
        done = forks.run(argv, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return str(done.stdout.strip())

    def trust(self, vkey: str) -> None:
        """Add a log, and have the file read again."""
        with self.logs.open("a") as file:
            file.write(f"{vkey}  # added\n")
        if self.process is not None:
            self.process.send_signal(signal.SIGHUP)

    def post(
        self, body: bytes, path: str = "/add-checkpoint", context: ssl.SSLContext | None = None
    ) -> tuple[Any, ...]:
        """Status, body and content type of an answer."""
        url = self.url if context is None else self.url.replace("http:", "https:").replace("127.0.0.1", "localhost")
        request = urllib.request.Request(f"{url}{path}", body)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), *([urllib.request.HTTPSHandler(context=context)] if context else [])
        )
        try:
            with opener.open(request, timeout=30) as answer:
                return answer.status, answer.read(), answer.headers["content-type"]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), error.headers["content-type"]

    @property
    def said(self) -> str:
        return self.log.read_text()
