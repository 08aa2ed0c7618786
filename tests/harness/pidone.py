"""Process 1 of a process namespace of its own: starts programs as it is told, so that all of them descend from it.

Each line in is JSON: {"start": ARGV}, {"run": ARGV, "input": TEXT} to wait for the end, or {"become": UID}. Each line out
is JSON: the pid that a program has in there, or what it said.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Self

COMMAND = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


class PidOne:
    """Use as a context manager. Root only."""

    def __init__(self) -> None:
        command = [*COMMAND, sys.executable, os.path.abspath(__file__)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=60)

    def start(self, *command: str) -> int:
        """Its number in there."""
        return int(self._ask(start=command)["pid"])

    def run(self, *command: str, text: str = "") -> str:
        """What it says on its standard output. Raise AssertionError if it fails."""
        done = self._ask(run=command, input=text)
        assert 0 == done["status"], done
        return str(done["out"])

    def become(self, uid: int) -> None:
        """Have process 1 be that user's from now on. What it has started stays as it is."""
        self._ask(become=uid)

    @property
    def pid(self) -> int:
        """The number that this machine has for process 1."""
        children = f"/proc/{self._process.pid}/task/{self._process.pid}/children"
        with open(children, encoding="ascii") as file:
            return int(file.read().split()[0])

    def _ask(self, **asked: int | str | Sequence[str]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        return json.loads(self._process.stdout.readline())


def answer(asked: Any) -> Any:
    if "start" in asked:
        return {"pid": subprocess.Popen(asked["start"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).pid}
    if "become" in asked:
        os.setresuid(*[asked["become"]] * 3)
        return {}
    done = subprocess.run(asked["run"], input=asked["input"], capture_output=True, text=True, check=False)
    return {"status": done.returncode, "out": done.stdout, "err": done.stderr[-2000:]}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
