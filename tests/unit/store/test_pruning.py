"""store/pruning.py: the journal stays within a size, and what is left of it is whole."""

import pytest
from fakes.clock import FakeClock
from fakes.databases import opened
from sojourn.audit.journal import Event
from sojourn.errors import StoreFailed
from sojourn.limits import AUDIT_DISK_SHARE, AUDIT_MAX_BYTES
from sojourn.store import pruning as module
from sojourn.store.audit import PRUNED, AuditTable
from sojourn.store.pruning import Pruning, most_of

MOST = 4 * 1024 * 1024
LARGE = Event(1, "large", '{"text":"' + "x" * 2000 + '"}')
MEBIBYTE = [LARGE] * 500


@pytest.fixture
def journal(tmp_path):
    with opened(tmp_path / "sojourn.db") as database:
        yield AuditTable(database)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(module, "AUDIT_PRUNE_PAUSE_SECONDS", 0)


async def test_a_journal_without_end(journal, tmp_path):
    """However much is written, database and file stay within the size, and the newest records are there."""
    pruning = Pruning(journal, MOST, FakeClock())
    for number in range(20):
        await journal.append(MEBIBYTE)
        await journal.append([Event(2, f"mark_{number}", "{}")])
        await pruning.look()
        assert await journal.size() <= MOST
    assert (tmp_path / "sojourn.db").stat().st_size <= MOST + 3 * 1024 * 1024  # what came between two looks, and pages
    assert (0, "") == (await journal.verify())[1:]
    names = {record.event for record in await journal.tail(10_000)}
    assert {"mark_19", PRUNED} <= names
    assert "mark_0" not in names


async def test_room_enough(journal):
    """As long as there is room nothing goes."""
    await journal.append(MEBIBYTE)
    assert 0 == await Pruning(journal, MOST, FakeClock()).look()
    assert (500, 0, "") == await journal.verify()


async def test_not_the_journals_fault(journal, monkeypatch):
    """Where something else takes the room the last records stay, and the look comes to an end."""
    await journal.append(MEBIBYTE)
    await Pruning(journal, 1, FakeClock()).look()
    assert 500 == (await journal.verify())[0]


async def test_broken(journal, tmp_path):
    """A journal that is broken is left as it is, too large or not."""
    for _ in range(5):
        await journal.append(MEBIBYTE)
    await journal._database.write(lambda connection: connection.exec_driver_sql("DELETE FROM audit WHERE seq = 3"))
    with pytest.raises(StoreFailed, match="broken at 3"):
        await Pruning(journal, MOST, FakeClock()).look()
    assert 2499 == (await journal.verify())[0]


def test_where_nobody_says(tmp_path, monkeypatch):
    """By itself it takes half of its file system at the most, and 8 GiB of a large one."""
    kept = module.os.statvfs(tmp_path)
    assert min(AUDIT_MAX_BYTES, int(kept.f_blocks * kept.f_frsize * AUDIT_DISK_SHARE)) == most_of(tmp_path)
    for size, most in ((1024**3, 512 * 1024**2), (1024**4, AUDIT_MAX_BYTES)):
        found = type("Found", (), {"f_blocks": size // 4096, "f_frsize": 4096})
        monkeypatch.setattr(module.os, "statvfs", lambda _, found=found: found)
        assert most == most_of(tmp_path)
