"""The clients that put load on a Workload API: the same program for each subject. It prints one line of JSON."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from beside import Load, Run, Subject
from ground import CALL_SECONDS
from harness.agent import clean_environment
from peers import CLIENT

HERE = Path(__file__).resolve().parent
CALLS = {
    "x509": "FetchX509SVID",
    "jwt": "FetchJWTSVID, a known audience",
    "jwt-new": "FetchJWTSVID, a new audience each",
    "validate": "ValidateJWTSVID",
    "connect": "new connection and FetchX509SVID",
}


def go_load(call: str, clients: int, program: Path | None = None) -> Load:
    """The client in Go (go/main.go). `program`: a copy of it. Raise Missing if it can not be built here."""
    return _load([str(program or CLIENT.there()[0])], call, clients)


def python_load(library: str, call: str, clients: int) -> Load:
    """A client in Python (pyload.py), on the SDK ("sojourn") or on the SPIFFE library ("spiffe")."""
    return _load([sys.executable, str(HERE / "pyload.py"), "-library", library], call, clients)


def _load(command: Sequence[str], call: str, clients: int) -> Load:
    def load(subject: Subject, seconds: float) -> Run:
        argv = [*command, "-socket", subject.address, "-call", call, "-clients", str(clients), "-seconds", str(seconds)]
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=seconds + CALL_SECONDS, env=clean_environment()
        )
        if done.returncode:
            raise RuntimeError(f"{subject.name}, {CALLS[call]}: {done.stderr.strip()[-300:]}")
        return Run.told(json.loads(done.stdout))

    return load


def fetches(load: Load, socket: str) -> bool:
    """Whether that client has an SVID there."""
    try:
        return load(Subject("", {}, socket), 0.01).calls > 0
    except RuntimeError:
        return False
