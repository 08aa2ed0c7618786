"""The programs of docs/services.md, as files that run."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness.agent import ROOT

GUIDE = ROOT / "docs" / "services.md"
PORT = "8000"  # which the guide's programs listen on
_BLOCK = re.compile(r"^```\w+\n(?:#|//) (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
START_SECONDS = 60.0


def files() -> dict[str, str]:
    """Each file that the guide shows, by its name."""
    found = {name: f"# {name}\n{text}" if name.endswith((".py", ".toml")) else text
             for name, text in _BLOCK.findall(GUIDE.read_text("utf-8"))}  # fmt: skip
    assert found
    return found


def write(folder: Path, port: int) -> None:
    """Write all of them, for another port."""
    for name, text in files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(PORT, str(port)))


@contextmanager
def running(program: Path, port: int, environment: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A program that serves at `port`, until the block is left."""
    with (program.parent / f"{program.name}.log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, str(program)], cwd=program.parent, env=environment, stdout=log, stderr=log
        )
        try:
            _until_it_serves(process, port, log.name)
            yield process
        finally:
            process.kill()
            process.wait()


def _until_it_serves(process: "subprocess.Popen[bytes]", port: int, log: str) -> None:
    ends = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, Path(log).read_text()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            assert time.monotonic() < ends, f"nothing serves at {port}: {Path(log).read_text()}"
            time.sleep(0.05)


def run(program: Path, environment: Mapping[str, str]) -> str:
    """What a program prints. Raise AssertionError if it fails."""
    done = subprocess.run(
        [sys.executable, str(program)], cwd=program.parent, env=environment, capture_output=True, text=True, timeout=90
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def environment_of(base: Mapping[str, str]) -> dict[str, str]:
    """That of a user who has the agent's sockets there, and the folders of this interpreter."""
    return {**base, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{base.get('PATH', os.defpath)}"}
