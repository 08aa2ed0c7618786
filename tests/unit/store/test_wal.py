"""What is found of writes that were cut off, in logs that a real SQLite wrote."""

import shutil
import sqlite3

import pytest
from sojourn.store.wal import TornTail, torn_tail

FRAME = 4096 + 24
HEADER = 32


@pytest.fixture
def log(tmp_path):
    """The log of a database with three commits of one page each, as a kill would leave it."""
    with_log = tmp_path / "live.db"
    connection = sqlite3.connect(with_log)
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("PRAGMA wal_checkpoint(RESTART)")
    for number in range(3):
        connection.execute("INSERT INTO t VALUES (?)", (number,))
        connection.commit()
    for suffix in ("", "-wal"):
        shutil.copy(f"{with_log}{suffix}", tmp_path / f"copy.db{suffix}")
    connection.close()
    return tmp_path / "copy.db-wal"


def rows(log):
    """What SQLite makes of it."""
    connection = sqlite3.connect(log.with_name("copy.db"))
    try:
        return [row for (row,) in connection.execute("SELECT x FROM t ORDER BY x")]
    finally:
        connection.close()


def found(log):
    return torn_tail(log.with_name("copy.db"))


def test_whole(log):
    """A log of whole commits has nothing to tell, nor has a database without a log, or with an empty one."""
    assert found(log) is None
    log.write_bytes(b"")
    assert found(log) is None
    log.unlink()
    assert found(log) is None


@pytest.mark.parametrize("cut", [1, 24, 4095, FRAME - 1])
def test_cut_within_the_last_write(log, cut):
    """The commits before it are kept, by us as by SQLite, and what is left of it is told."""
    data = log.read_bytes()[: HEADER + 3 * FRAME]
    log.write_bytes(data[:-cut])
    assert TornTail(HEADER + 2 * FRAME, FRAME - cut) == found(log)
    assert [0, 1] == rows(log)


def test_cut_between_writes(log):
    """A log that ends with a commit is whole."""
    log.write_bytes(log.read_bytes()[: HEADER + 2 * FRAME])
    assert found(log) is None
    assert [0, 1] == rows(log)


@pytest.mark.parametrize(("frame", "place"), [(0, 0), (0, 9), (1, 5), (1, 9), (2, 17), (2, 24), (2, 2000)])
def test_a_bit_that_is_another(log, frame, place):
    """Damage drops that write and all after it, by SQLite without a word; we say how much."""
    data = bytearray(log.read_bytes()[: HEADER + 3 * FRAME])
    data[HEADER + frame * FRAME + place] ^= 1
    log.write_bytes(data)
    torn = found(log)
    assert torn is not None
    assert (HEADER + frame * FRAME, True) == (torn.kept, torn.dropped > 0)
    assert list(range(frame)) == rows(log)


def test_of_an_earlier_round(log):
    """Frames that an earlier round of the log left behind the newest are no damage."""
    data = bytearray(log.read_bytes()[: HEADER + 3 * FRAME])
    data[HEADER + 2 * FRAME + 8 : HEADER + 2 * FRAME + 16] = b"otherslt"
    log.write_bytes(data)
    assert found(log) is None


@pytest.mark.parametrize("data", [b"x", b"\x37\x7f\x06\x82" + b"\x00" * 40, b"\xff" * 5000])
def test_no_log_at_all(log, data):
    """What is no log is dropped whole, and told."""
    log.write_bytes(data)
    assert TornTail(0, len(data)) == found(log)
