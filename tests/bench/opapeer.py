"""A real OPA to compare decisions with: a server on loopback, with the policies that it is given."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

from beside import Subject
from harness.agent import clean_environment
from harness.looking import until
from harness.ports import free_port
from peers import OPA

ALLOW = "/v1/data/sojourn/allow"


@contextlib.contextmanager
def opa(rego: str) -> Iterator[Subject]:
    """Raise Missing. It answers at ALLOW when this returns; the subject's address is HOST:PORT."""
    (program,) = OPA.there()
    with tempfile.TemporaryDirectory(prefix="sojourn-opa-") as folder:
        address = f"127.0.0.1:{free_port()}"
        (Path(folder) / "policy.rego").write_text(rego)
        process = subprocess.Popen(
            [
                program,
                "run",
                "--server",
                "--addr",
                address,
                "--log-level",
                "error",
                "--skip-version-check",
                "policy.rego",
            ],
            cwd=folder,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(Path(folder) / "log").open("wb"),
        )
        try:
            until(lambda: process.poll() is not None or _answers(address), "OPA answers", 30)
            if process.poll() is not None:
                raise RuntimeError(f"OPA ended: {(Path(folder) / 'log').read_text()[-500:]}")
            yield Subject("OPA", {"server": process.pid}, address)
        finally:
            process.terminate()
            process.wait()


def _answers(address: str) -> bool:
    connection = HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
