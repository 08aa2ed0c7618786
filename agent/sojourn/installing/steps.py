"""The steps of which installing and removing are made."""

import os
import shutil
from pathlib import Path

from sojourn.files.atomic import scratch_of, write
from sojourn.installing.plan import Step


def file(path: Path, text: str, *, keep: bool = False) -> Step:
    """A file with this text. `keep`: what is there stays, whatever it says."""

    def is_done() -> bool:
        try:
            return path.read_text("utf-8") == text or keep
        except (OSError, UnicodeDecodeError):
            return keep and os.path.lexists(path)

    def act() -> None:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write(path, text.encode(), 0o644)

    return Step(f"write {path}", is_done, act)


def link(path: Path, target: str) -> Step:
    """A link, which points to the old place or the new one at any moment."""

    def act() -> None:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        scratch = scratch_of(path)
        scratch.unlink(missing_ok=True)
        os.symlink(target, scratch)
        os.rename(scratch, path)

    return Step(f"point {path} to {target}", lambda: path.is_symlink() and os.readlink(path) == target, act)


def gone(path: Path) -> Step:
    """No such file, link or folder."""

    def act() -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    return Step(f"remove {path}", lambda: not os.path.lexists(path), act)
