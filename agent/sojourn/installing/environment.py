"""A release's virtual environment: this machine's Python, libraries of the lock, and no pip to add more with."""

import hashlib
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from sojourn.errors.oauth import CannotInstall
from sojourn.files.atomic import scratch_of, write
from sojourn.installing.programs import run
from sojourn.installing.refusals import check_code
from sojourn.installing.release import Release, installed_files, requirements
from sojourn.installing.steps import gone

_DONE: Final = ".installed"  # written last, with what it was made of: without it the folder is what a crash has left
_LAUNCHER: Final = """#!{python} -IB
from sojourn.cli.main import run

run()
"""


def interpreter() -> Path:
    """The Python that environments are made with: the one below the environment that we run in."""
    return Path(
        os.path.realpath(
            Path(sys.base_exec_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        )
    )


def is_made(folder: Path, release: Release) -> bool:
    """Whether the environment is there, whole, and of this release."""
    try:
        return (folder / _DONE).read_text("ascii") == _fingerprint(release)
    except OSError:
        return False


def make(folder: Path, release: Release) -> None:
    """Make it beside, and put it in the place of what may be there once it is whole: an agent may run from that."""
    if Path(os.path.realpath(__file__)).is_relative_to(folder):
        raise CannotInstall(
            f"{folder} is not as it was installed, and what runs here is in it: install it from a bundle"
        )
    folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder.parent.chmod(0o755)
    check_code([folder.parent])
    beside = scratch_of(folder)
    gone(beside).act()  # what an attempt before has left is not to be in this one
    try:
        _make(beside, release, folder)
        _put(beside, folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _make(beside: Path, release: Release, folder: Path) -> None:
    """Make it in the one place for the other: the command, and what was compiled, name that."""
    run(str(interpreter()), "-I", "-m", "venv", "--without-pip", str(beside))
    python = beside / "bin" / "python3"
    lock = beside / "requirements.txt"
    lock.write_text(release.requirements(), "utf-8")
    _pip(release, python, "--require-hashes", "--requirement", str(lock))
    if release.own_wheel is None:
        _copy_ourselves(_modules(beside))
    _have_command(beside, folder / "bin" / "python3")
    run(
        str(python),
        "-IB",
        "-m",
        "compileall",
        "-q",
        "-j",
        "0",
        "--invalidation-mode",
        "checked-hash",
        "-s",
        str(beside),
        "-p",
        str(folder),
        str(_modules(beside)),
    )
    _permissions(beside)
    write(beside / _DONE, _fingerprint(release).encode(), 0o644)


def _put(beside: Path, folder: Path) -> None:
    """The new one for the old: between two renames there is none, and before the first nothing has changed."""
    old = scratch_of(folder).with_suffix(".old")
    gone(old).act()
    if os.path.lexists(folder):
        os.rename(folder, old)
    os.rename(beside, folder)
    gone(old).act()


def _pip(release: Release, python: Path, *what: str) -> None:
    where = ["--no-index", "--find-links", str(release.wheels)] if release.wheels else []
    command = [*_pip_command(release), "--python", str(python), "--disable-pip-version-check", "--no-input", "install"]
    run(*command, "--quiet", "--no-deps", "--no-compile", "--only-binary", ":all:", *where, *what)


def _pip_command(release: Release) -> list[str]:
    """A pip that is not the environment's: of the bundle, or of the environment that we run in."""
    for wheel in sorted(release.wheels.glob("pip-*.whl")) if release.wheels else ():
        return [sys.executable, "-I", str(wheel / "pip")]
    if find_spec("pip") is None:
        raise CannotInstall("there is no pip here to fetch libraries with: install it, or name a bundle with --wheels")
    return [sys.executable, "-I", "-m", "pip"]


def _modules(folder: Path) -> Path:
    return folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def _copy_ourselves(modules: Path) -> None:
    for name, path in installed_files().items():
        to = modules / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)


def _have_command(folder: Path, python: Path) -> None:
    """The command, and none of those that libraries bring."""
    for path in (folder / "bin").iterdir():
        if not path.name.startswith("python"):
            path.unlink()
    command = folder / "bin" / "sojourn"
    command.write_text(_LAUNCHER.format(python=python), "utf-8")


def _permissions(folder: Path) -> None:
    """Everybody may read, root alone may write. Raise CannotInstall if something in it is not root's."""
    for path in [folder, *folder.rglob("*")]:
        if (owner := path.lstat().st_uid) != 0:
            raise CannotInstall(f"{path} belongs to user {owner}, and not to root: remove {folder}, and install again")
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.parent == folder / "bin" else 0o644)


def _fingerprint(release: Release) -> str:
    """What it is made of, from whichever source: this Python, the lock, and each file of ours."""
    said = [str(sys.version_info[:2]), requirements(), *(f"{name} {digest}" for name, digest in release.own_digests())]
    return hashlib.sha256("\n".join(said).encode()).hexdigest() + "\n"
