"""The independent clients of tests/clients that are to be built: how each is, once on a machine.

`python3 clients.py [--check] LANGUAGE…` builds them ahead of the tests, or only says what is missing for it. It needs
nothing but the standard library.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent / "clients"
BUILD_SECONDS = 900.0

# What each needs, and what to install where it is missing.
TOOLS = {
    "go": (("go",), "Go 1.24 or newer"),
    "rust": (("cargo", "cc"), "Rust 1.88 or newer (cargo) and a C compiler"),
    "java": (("javac", "mvn"), "a JDK 17 or newer and Maven"),
    "spring": (("javac", "mvn"), "a JDK 17 or newer and Maven"),
}


def missing(language: str) -> str | None:
    """What to install before `language` can be built, if there is something."""
    commands, advice = TOOLS[language]
    return None if all(map(shutil.which, commands)) else advice


def built(language: str) -> Path:
    """The built client of `language`. Whoever asks first builds it, below the user's cache folder; others wait."""
    source = SOURCES / language
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sojourn-test-clients"
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{language}.lock"):
        target = cache / f"{language}-{_digest(source)}"
        if not target.exists():
            program = _BUILDERS[language](source, cache / f"{language}-work")
            with tempfile.NamedTemporaryFile(dir=cache, delete=False) as copy:
                copy.write(program.read_bytes())
            os.chmod(copy.name, 0o755)
            os.rename(copy.name, target)
    return target


def _go(source: Path, work: Path) -> Path:
    _run(["go", "build", "-o", str(work), "."], source)
    return work


def _rust(source: Path, work: Path) -> Path:
    _run(["cargo", "build", "--quiet", "--locked", "--target-dir", str(work)], source)
    return work / "debug" / "client"


def _java(source: Path, work: Path) -> Path:
    shutil.rmtree(work, ignore_errors=True)
    _run(["mvn", "--quiet", "--batch-mode", "--strict-checksums", f"-Dout={work}", "package"], source)
    return work / "client.jar"


_BUILDERS: dict[str, Callable[[Path, Path], Path]] = {"go": _go, "rust": _rust, "java": _java, "spring": _java}


def _run(argv: list[str], folder: Path) -> None:
    done = subprocess.run(
        argv, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BUILD_SECONDS
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} failed:\n{done.stdout}{done.stderr}")


def _digest(source: Path) -> str:
    """What the client is made of."""
    digest = hashlib.sha256()
    for path in sorted(source.rglob("*")):
        if path.is_file() and "target" not in path.relative_to(source).parts:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(source)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    only_check = sys.argv[1:2] == ["--check"]
    languages = sys.argv[2 if only_check else 1 :]
    if advice := [f"install {advice}" for language in languages if (advice := missing(language))]:
        sys.exit("the clients that the tests run are built from source:\n" + "\n".join(advice))
    if not only_check:
        for language in languages:
            print(built(language))


if __name__ == "__main__":
    main()
