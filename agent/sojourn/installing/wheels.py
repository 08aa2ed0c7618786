"""A copy of somebody's folder of wheels, which root alone can change from before the first look until it is gone."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sojourn.errors.oauth import CannotInstall
from sojourn.installing.refusals import check_code, check_status


@contextmanager
def copied(named: Path) -> Iterator[Path]:
    """The copy. Raise CannotInstall where others than root could change the folder, the way to it, or a wheel in it."""
    real = Path(os.path.realpath(named))
    try:
        folder = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise CannotInstall(f"{named} cannot be installed from: {error.strerror}") from error
    try:
        check_code([real])
        check_status(real, os.fstat(folder), shared=False)
        with tempfile.TemporaryDirectory(prefix="sojourn-wheels-") as scratch:
            check_code([Path(scratch)])
            for name in sorted(os.listdir(folder)):
                if name.endswith(".whl"):
                    _copy(folder, real / name, Path(scratch) / name)
            yield Path(scratch)
    finally:
        os.close(folder)


def _copy(folder: int, path: Path, to: Path) -> None:
    """What is looked at and what is copied is one open file, and no link."""
    try:
        opened = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        raise CannotInstall(f"{path} cannot be installed from: {error.strerror}") from error
    with os.fdopen(opened, "rb") as file, to.open("xb") as made:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            raise CannotInstall(f"{path} cannot be installed from: it is not a regular file")
        check_status(path, status, shared=False)
        try:
            shutil.copyfileobj(file, made)
            made.flush()
        except OSError as error:
            raise CannotInstall(
                f"{path} cannot be copied to {to.parent}: {error.strerror}; TMPDIR names another place"
            ) from error
