"""What a data folder knows of the mark outside of it: that there is one, so that a start which finds none is refused.

Else whoever puts the folder back need only see to it that the mark is not mounted, and it counts as one that is new.
"""

import shlex
from pathlib import Path

from sojourn.errors import CannotStart
from sojourn.files import atomic

KNOWN, GONE = "marked", "mark-gone"  # the second is made of the first by whoever says that the mark is gone for good


class KnownMark:
    """What one data folder knows."""

    def __init__(self, folder: Path) -> None:
        self._known, self._gone = folder.absolute() / KNOWN, folder.absolute() / GONE

    def lacks(self) -> bool:
        """Say, where no mark is found, whether there was one, and is said to be gone.

        Raise CannotStart if there was one, and nobody has said that.
        """
        if self._known.is_symlink() or self._known.exists():
            raise CannotStart(
                f"the data folder has a mark outside of it, {self._where()!r}, and that is not there: mount what it"
                f" lies on, or name its folder as mark_dir; if it is gone for good, `{self.say_so}`, and the next start"
                " is treated as one on a folder that was put back"
            )
        return self._gone.exists()

    @property
    def say_so(self) -> str:
        """The command by which somebody says that the mark is gone."""
        return shlex.join(["mv", str(self._known), str(self._gone)])

    def settle(self, mark: Path | None) -> None:
        """Remember whether there is a mark, which is written by now. Raise OSError."""
        if mark is None:
            self._known.unlink(missing_ok=True)
        elif self._where() != str(mark):
            atomic.write(self._known, f"{mark}\n".encode())
        self._gone.unlink(missing_ok=True)

    def _where(self) -> str:
        try:
            return self._known.read_text().removesuffix("\n")
        except (OSError, UnicodeDecodeError):
            return ""
