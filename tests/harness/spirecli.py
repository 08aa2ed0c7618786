"""SPIRE's own programs, and h2spec."""

import os
import shutil
import subprocess

from harness.lacking import lacking


def binary(name: str) -> str:
    """A binary: on the PATH, or where `go install` puts it. CI must have it."""
    go = shutil.which("go")
    folder = subprocess.run([go, "env", "GOPATH"], capture_output=True, text=True).stdout.strip() if go else ""
    found = os.environ.get(f"SOJOURN_TEST_{name.upper().replace('-', '_')}") or shutil.which(name)
    found = found or shutil.which(name, path=f"{folder}/bin")
    if found is None:
        lacking(f"needs {name}, built by `bash .ci/{name.partition('-')[0]}`")
    return found
