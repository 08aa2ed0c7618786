"""The number of an agent's last start, beside its database: no database that is put back takes it with it."""

from pathlib import Path

from sojourn.errors import CannotStart
from sojourn.files.data_folder import EPOCH


def of_agent(folder: Path) -> int:
    """As an agent starts by it; 0: there was no start. Raise CannotStart for a file that does not say it."""
    try:
        return _read(folder)
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as error:
        raise CannotStart(f"{str(folder / EPOCH)!r} does not say the number of the last start: remove it") from error


def as_far_as_known(folder: Path) -> int:
    """As a restore counts on from it, into a folder of which anything may be damaged; 0: it is not known."""
    try:
        return _read(folder)
    except (OSError, ValueError):
        return 0


def _read(folder: Path) -> int:
    """Raise OSError, or ValueError if it is no number."""
    text = (folder / EPOCH).read_text("ascii")
    if not text.strip().isdecimal():
        raise ValueError("no number")
    return int(text)
