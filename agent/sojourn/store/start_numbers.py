"""The number of the last start in a file beside the database, so that a database that was put back is noticed."""

from pathlib import Path

from sojourn.errors import CannotStart
from sojourn.files import atomic
from sojourn.store.database import Database
from sojourn.store.settings import next_epoch

NAME = "epoch"


async def count_start(database: Database, folder: Path) -> tuple[int, bool]:
    """Count this start of the agent. Return its number, and whether the database is older than an earlier start.

    No earlier start in this data folder had the number, also of those that the database does not know of: validators
    refuse a feed whose epoch has gone back. Raise CannotStart if the file does not say a number, or cannot be written.
    """
    known = _read(folder / NAME)
    epoch, before = await next_epoch(database, known)
    _write(folder / NAME, epoch)
    return epoch, before < known


def _read(path: Path) -> int:
    try:
        text = path.read_text("ascii")
        if not text.strip().isdecimal():
            raise ValueError("no number")
        return int(text)
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as error:
        raise CannotStart(f"{str(path)!r} does not say the number of the last start: remove it") from error


def _write(path: Path, epoch: int) -> None:
    try:
        atomic.write(path, f"{epoch}\n".encode())
    except OSError as error:
        raise CannotStart(f"{str(path)!r} cannot be written: {error.strerror}") from error
