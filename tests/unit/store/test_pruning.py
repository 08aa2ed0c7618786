"""store/pruning.py: the journal stays within a size, and what is left of it is whole."""

import pytest
from fakes.clock import FakeClock
from fakes.databases import opened
from sojourn.audit.journal import Event
from sojourn.errors import StoreFailed
from sojourn.limits import AUDIT_DISK_SHARE, AUDIT_MAX_BYTES
from sojourn.sinks.items import SinkState
from sojourn.store import pruning as module
from sojourn.store.audit import PRUNED, AuditTable
from sojourn.store.pruning import Pruning, most_of
from sojourn.store.retention import Retention
from sojourn.store.sinks import SinkTable

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


@pytest.mark.full
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


async def test_what_was_seen(journal):
    """At each look it is noted how many records there are and have gone, since when, and how large the database is."""
    pruning = Pruning(journal, MOST, FakeClock())
    assert (0, 0, 0) == (pruning.seen.records, pruning.seen.oldest_ms, pruning.seen.pruned)
    await pruning.look()
    assert (0, 0, 0) == (pruning.seen.records, pruning.seen.oldest_ms, pruning.seen.pruned)
    await journal.append([Event(17, "first", "{}"), *MEBIBYTE])
    await pruning.look()
    assert (501, 17, 0) == (pruning.seen.records, pruning.seen.oldest_ms, pruning.seen.pruned)
    assert MOST > pruning.seen.bytes == await journal.size() > 1024 * 1024
    for _ in range(9):
        await journal.append(MEBIBYTE)
    gone = await pruning.look()
    first = await journal.first()
    assert gone > 0
    assert (first - 1, 1) == (pruning.seen.pruned, pruning.seen.oldest_ms)
    last = (await journal.tail(1))[0].seq
    assert pruning.seen.records == last - pruning.seen.pruned
    assert pruning.seen.bytes <= MOST


async def has_had(journal, name, seq):
    await SinkTable(journal._database, journal.append_in).save(SinkState(name, seq), [])


async def test_what_a_required_sink_has_not_had(journal):
    """Nothing goes that a required sink has not had; when that is all there is room for, the journal is full, until it has."""
    pruning = Pruning(journal, MOST, FakeClock(), Retention(required=("siem", "archive")))
    for _ in range(10):
        await journal.append(MEBIBYTE)
    await has_had(journal, "siem", 1_500)
    assert 0 == await pruning.look()  # the other one has no place yet
    assert pruning.room.full
    await has_had(journal, "archive", 5_000)
    assert 1_500 == await pruning.look()
    assert (1_501, True) == (await journal.first(), pruning.room.full)
    assert pruning.room.held > 1
    await has_had(journal, "siem", 5_000)
    await pruning.look()
    assert await journal.size() <= MOST
    assert not pruning.room.full
    assert (0, "") == (await journal.verify())[1:]


async def test_what_is_younger(journal):
    """Nothing goes that is younger than it is kept for, also where the clock went back between records."""
    clock = FakeClock()
    now = int(clock.now().timestamp() * 1000)
    pruning = Pruning(journal, MOST, clock, Retention(keep_ms=60_000))
    text = LARGE.fields

    async def at(ago_ms, number):
        await journal.append([Event(now - ago_ms, "large", text)] * number)

    await at(120_000, 1_000)
    await at(30_000, 1_500)
    await at(120_000, 200)
    await at(30_000, 1_500)
    assert 1_000 == await pruning.look()
    assert (1_001, True) == (await journal.first(), pruning.room.full)
    clock.advance(45)
    await pruning.look()
    assert await journal.size() <= MOST
    assert not pruning.room.full


async def test_how_much_is_held(journal):
    """The share that is held is that of the records behind what may go, and none where nothing is held."""
    clock = FakeClock()
    await journal.append(MEBIBYTE * 2)
    await has_had(journal, "siem", 500)
    held = Pruning(journal, MOST, clock, Retention(required=("siem",)))
    await held.look()
    assert held.room.held == pytest.approx(0.5 * held.seen.bytes / MOST, rel=0.01)
    free = Pruning(journal, MOST, clock)
    await free.look()
    assert (0.0, False) == (free.room.held, free.room.full)


async def test_not_full_by_others(journal):
    """Where something else than records takes the room, tasks are not refused for that."""
    await journal.append(MEBIBYTE)
    await has_had(journal, "siem", 500)
    pruning = Pruning(journal, 1, FakeClock(), Retention(required=("siem",)))
    await pruning.look()
    assert not pruning.room.full
