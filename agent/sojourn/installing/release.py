"""The release that is to be installed: this one, as its own record says, or its wheel in a folder of wheels."""

import base64
import csv
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from importlib.resources import files
from pathlib import Path
from typing import Final
from zipfile import ZipFile

from sojourn.errors.oauth import CannotInstall
from sojourn.installing.wheels import copied

_NAME: Final = "sojourn"
_OURS: Final = ("sojourn/", "sojourn_attestors/")
_CHECKOUT: Final = "sojourn/__init__.py"  # what no wheel says that has its files elsewhere, such as an editable one


@dataclass(frozen=True)
class Release:
    """`wheels`: where its libraries' wheels are and its own; None: libraries come from the index, we from ourselves."""

    version: str
    wheels: Path | None

    @property
    def own_wheel(self) -> Path | None:
        if self.wheels is None:
            return None
        found = sorted(self.wheels.glob(f"{_NAME}-{self.version}-*.whl"))
        if len(found) != 1:
            raise CannotInstall(f"the bundle must have one wheel of sojourn {self.version}, and has {len(found)}")
        return found[0]

    def requirements(self) -> str:
        """The lock of our libraries, and our own wheel by the hash of what was copied."""
        own = self.own_wheel
        if own is None:
            return requirements()
        return f"{requirements()}{_NAME}=={self.version} --hash=sha256:{hashlib.sha256(own.read_bytes()).hexdigest()}\n"

    def own_digests(self) -> list[tuple[str, str]]:
        """Our own files with their digests, as the record of the wheel or of what is installed says."""
        if self.own_wheel is None:
            recorded: Iterator[tuple[str, str]] = (
                (str(file), file.hash.value) for file in distribution(_NAME).files or () if file.hash is not None
            )
        else:
            recorded = _recorded(self.own_wheel)
        return sorted(
            (name, digest) for name, digest in recorded if name.startswith(_OURS) and not name.endswith(".pyc")
        )


def _recorded(wheel: Path) -> Iterator[tuple[str, str]]:
    with ZipFile(wheel) as archive:
        [record] = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
        for name, digest, _ in csv.reader(archive.read(record).decode().splitlines()):
            yield name, digest.partition("=")[2]


@contextmanager
def this_release(wheels: Path | None) -> Iterator[Release]:
    """What runs here, with a copy of the wheels. Raise CannotInstall if these are not there, or not root's alone."""
    version = distribution(_NAME).version
    if wheels is None:
        yield Release(version, None)
        return
    with copied(wheels) as copy:
        made = Release(version, copy)
        _ = made.own_wheel
        yield made


def installed_files() -> dict[str, Path]:
    """Our own files by their names below site-packages, each as its record says. Raise CannotInstall if one is not."""
    ours: Distribution = distribution(_NAME)
    found: dict[str, Path] = {}
    for file in ours.files or ():
        name = str(file)
        if name.startswith("..") or name.endswith(".pyc"):  # the command's script, and what was compiled
            continue
        path = Path(str(ours.locate_file(file)))
        if file.hash is not None and _digest(path, file.hash.mode) != file.hash.value:
            raise CannotInstall(f"{path} is not as it was installed: install this release anew, and run it again")
        found[name] = path
    if _CHECKOUT not in found:
        raise CannotInstall(
            "this is a checkout (an editable installation), which anybody edits: install its wheel, or a bundle that"
            " `make bundle` makes of it (docs/install.md)"
        )
    return found


def requirements() -> str:
    """The lock of our libraries, with hashes."""
    return (files("sojourn.installing") / "requirements.txt").read_text("utf-8")


def unit_files() -> dict[str, str]:
    """The units, the user and the folders, by the names of their files."""
    return _texts(_shipped())


def drop_ins() -> dict[str, str]:
    """Samples of drop-ins, by the names of their files."""
    return _texts(_shipped() / "drop-ins")


def _shipped() -> Path:
    folder = Path(str(files("sojourn.installing") / "units"))
    return folder if folder.is_dir() else Path(__file__).parents[3] / "deploy" / "systemd"


def _texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in sorted(folder.iterdir()) if path.is_file()}


def _digest(path: Path, algorithm: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CannotInstall(f"{path} is not as it was installed: {error.strerror}") from error
    return base64.urlsafe_b64encode(hashlib.new(algorithm, content).digest()).rstrip(b"=").decode()
