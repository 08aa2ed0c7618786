"""Wheels from the lock, with hashes, for another Python than the one that runs here; and their files."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Final

from targets import platforms

ROOT: Final = Path(__file__).resolve().parents[2]
REQUIREMENTS: Final = ROOT / "agent" / "sojourn" / "installing" / "requirements.txt"
# The command's help does without colours, and these are a fifth of all that is installed.
LEFT_OUT: Final = frozenset({"rich", "pygments", "markdown-it-py", "mdurl"})
# What nobody runs: sources of compiled modules, stubs for type checkers, tests of libraries.
_NOT_RUN: Final = re.compile(r"\.(c|h|cc|cpp|pxd|pxi|pyx|pyi)$|/(tests?|testing_examples)/|/py\.typed$")
_SOURCES: Final = ("pyproject.toml", "README.md", "LICENSE", "agent", "attestors", "deploy/systemd")
_OURS: Final = ("sojourn/", "sojourn_attestors/")
_INSTALLED: Final = ("purelib", "platlib")


def locked(requirements: str, left_out: frozenset[str] = LEFT_OUT) -> str:
    """The lines of the lock, but of those that are left out."""
    kept: list[str] = []
    keeps = True
    for line in requirements.splitlines(keepends=True):
        named = re.match(r"([A-Za-z0-9._-]+)==", line)
        if named:
            keeps = named[1].lower() not in left_out
        if keeps:
            kept.append(line)
    return "".join(kept)


def own_version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"])


def own_epoch() -> int:
    """The moment of the commit; or what is said, where there is no history."""
    said = os.environ.get("SOURCE_DATE_EPOCH")
    if said is None:
        command = ["git", "log", "-1", "--format=%ct"]
        said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return int(said)


def own_wheel(folder: Path, version: str) -> Path:
    """Build the wheel of this checkout, as of that version, and return it."""
    source = folder / "source"
    for name in _SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            source.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    project = source / "pyproject.toml"
    text = re.sub(r'(?m)^version = ".*"$', f'version = "{version}"', project.read_text("utf-8"), count=1)
    project.write_text(text, "utf-8")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder.resolve())]
    subprocess.run(command, cwd=source, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    [made] = folder.glob("sojourn-*.whl")
    return made


def fetch(folder: Path, python: str, arch: str, left_out: frozenset[str] = LEFT_OUT) -> list[Path]:
    """Fetch what the lock names for that Python and machine; pip verifies each hash."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f"{folder.name}.txt")
    lock.write_text(locked(REQUIREMENTS.read_text("utf-8"), left_out), "utf-8")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"]
    command += ["--require-hashes", "--only-binary", ":all:", "--python-version", python, "--implementation", "cp"]
    command += ["--abi", f"cp{python.replace('.', '')}", "--abi", "abi3", "--abi", "none"]
    command += [part for platform in platforms(arch) for part in ("--platform", platform)]
    subprocess.run([*command, "--dest", str(folder), "--requirement", str(lock)], check=True)
    return sorted(folder.glob("*.whl"))


def unpack(wheel: Path, into: Path) -> None:
    """Put a wheel's modules into a folder; of its scripts, headers and data nothing."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            place = _place(member.filename)
            if member.is_dir() or place is None:
                continue
            path = into / place
            if not path.resolve().is_relative_to(into.resolve()):
                raise SystemExit(f"{wheel.name}: {member.filename} leads out of the folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(member))


def _place(name: str) -> str | None:
    top, _, rest = name.partition("/")
    if top.endswith(".data"):
        kind, _, name = rest.partition("/")
        if kind not in _INSTALLED:
            return None
    return None if _NOT_RUN.search(name) and not name.startswith(_OURS) else name
