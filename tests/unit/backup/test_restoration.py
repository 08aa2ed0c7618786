"""What a start finds of its data folder, and what it does about that, at whatever step it is broken off."""

import json
import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes.clock import FakeClock
from fakes.databases import opened
from sojourn.audit.journal import FIRST, Audit
from sojourn.authority import svid_stamps
from sojourn.backup import staging
from sojourn.backup.known_mark import GONE, KNOWN
from sojourn.backup.mark import Mark, MarkUpkeep
from sojourn.backup.restoration import Beginning, last_of
from sojourn.errors import CannotStart, InvalidPolicy
from sojourn.store import settings
from sojourn.store.audit import AuditTable
from sojourn.store.last_good_types import KeptPolicy
from sojourn.store.restorations import SIGNALS_AFTER, SVIDS_FROM, RestorationTable
from sojourn.store.tables import audit as audit_records
from sojourn.tasks.last_good_types import LastGood

KEYS = (*staging.REPLACED_KEYS, staging.ROOT, "handles.key")


class Crash(BaseException):
    """The process ends here."""


class Place:
    """A data folder and its mark."""

    def __init__(self, folder):
        self.data, self.marks = folder / "data", folder / "marks"
        for each in (self.data, self.data / "keys", self.marks):
            each.mkdir(mode=0o700)
        for name in KEYS:
            (self.data / "keys" / name).write_text(name)
        self.clock = FakeClock()

    async def start(self, *, marked=True, notes=0, what="agent_stopped"):
        """One start of an agent that then records some things. Return what it found, and its number."""
        staging.finish(self.data)
        path = self.data / "sojourn.db"
        had_database, had_root = path.exists(), (self.data / "keys" / staging.ROOT).exists()
        with opened(path) as database:
            journal = AuditTable(database)
            audit, table = Audit(journal, FakeClock()), RestorationTable(database, journal)
            mark = Mark(self.marks, self.data) if marked else None
            beginning = Beginning(table, self.data, mark, self.clock)
            found = beginning.find(had_database=had_database, had_root=had_root)
            epoch = await beginning.begin(audit, found)
            for number in range(notes):
                audit.note(what, number=number)
            await audit.flush()
            if mark is not None:
                await MarkUpkeep(mark, table, epoch).look()
            self.told = last_of(table)
            self.svids_from = int(await database.read(lambda one: settings.get(one, SVIDS_FROM)) or 0)
            self.signals_after = await database.read(lambda one: settings.get(one, SIGNALS_AFTER))
            self.events = [each.event for each in await journal.tail(50)]
            self.intact = (await journal.verify())[1] == 0
        return None if found is None else found.how, epoch

    @property
    def keys(self):
        return {each.name for each in (self.data / "keys").iterdir()}

    def copy(self, name):
        return shutil.copytree(self.data, self.data.with_name(name))

    def put_back(self, kept):
        shutil.rmtree(self.data)
        shutil.copytree(kept, self.data)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
async def used(place):
    """One that was started a few times, and whose database tells of it."""
    (place.data / "keys" / staging.ROOT).unlink()
    assert (None, 1) == await place.start()
    for name in KEYS:
        (place.data / "keys" / name).write_text(name)
    assert (None, 2) == await place.start(notes=5)
    return place


class TestFound:
    async def test_nothing(self, used):
        """A start where the last run ended finds nothing, replaces nothing, and counts on."""
        assert (None, 3) == await used.start()
        assert (set(KEYS), 0, None, None) == (used.keys, used.svids_from, used.told, used.signals_after)

    async def test_a_folder_that_was_put_back(self, used):
        """A whole folder of before is found by its mark: keys go, and numbers go on."""
        kept = used.copy("kept")
        await used.start(notes=1)
        await used.start(notes=1)
        used.put_back(kept)
        assert ("folder", 5) == await used.start()
        assert {staging.ROOT, "handles.key"} == used.keys
        assert used.svids_from == 5 << 16
        assert used.signals_after == str(int(FakeClock().now().timestamp()))
        assert "database_restored" in used.events
        assert used.intact
        assert (None, 6) == await used.start()
        assert 5 == used.told.epoch

    async def test_its_task_types(self, used):
        """The set of task types that a folder which was put back has kept is taken by no start, not the first one and
        none after it.
        """
        with opened(used.data / "sojourn.db") as database:
            await KeptPolicy(database).save('{"schema":1,"folder":"/etc/types","files":{"one.toml":"x"}}')
        kept = used.copy("kept")
        await used.start(notes=1)
        used.put_back(kept)
        for how in ("folder", None):
            assert how == (await used.start())[0]
            with opened(used.data / "sojourn.db") as database:
                last_good = LastGood(KeptPolicy(database), FakeClock())
                with pytest.raises(InvalidPolicy, match="the database is older than the last run"):
                    await last_good.read()
                assert last_good.belongs_to(Path("/etc/types"))

    async def test_one_of_the_same_run(self, used):
        """A folder of earlier in the very last run is found: its number of starts is the same, its journal is not."""
        kept = used.copy("kept")
        with opened(used.data / "sojourn.db") as database:
            journal = AuditTable(database)
            audit, table = Audit(journal, FakeClock()), RestorationTable(database, journal)
            audit.note("svids_revoked")
            await audit.flush()
            mark = Mark(used.marks, used.data)
            mark.read()
            await MarkUpkeep(mark, table, 2).look()
        used.put_back(kept)
        assert ("folder", 3) == await used.start()

    async def test_one_with_another_history(self, used):
        """A folder that is as long and has other records is found."""
        kept = used.copy("kept")
        await used.start(notes=3)
        used.put_back(kept)
        (used.data / KNOWN).unlink()
        await used.start(marked=False, notes=4, what="agent_started")
        assert "folder" == (await used.start())[0]

    async def test_one_whose_record_is_pruned(self, used):
        """A folder whose journal no longer has the record that the mark names cannot be compared: it is put back."""
        (used.data / KNOWN).unlink()
        await used.start(marked=False, notes=3)
        with opened(used.data / "sojourn.db") as database:
            await database.write(lambda one: one.execute(audit_records.delete().where(audit_records.c.seq <= 6)))
        assert "folder" == (await used.start())[0]

    async def test_a_mark_from_before_the_first_record(self, used):
        """A mark of when the journal had no record yet is behind, which is no loss."""
        said = {**json.loads((used.marks / "mark").read_text()), "seq": 0, "digest": FIRST, "at_ms": 0}
        (used.marks / "mark").write_text(json.dumps(said))
        assert (None, 3) == await used.start()

    async def test_a_database_alone(self, used):
        """A database that was put back alone is found without a mark, by the number beside it."""
        (used.data / KNOWN).unlink()
        kept = used.copy("kept")
        await used.start(marked=False)
        shutil.copy(kept / "sojourn.db", used.data / "sojourn.db")
        assert ("database", 4) == await used.start(marked=False)
        assert {staging.ROOT, "handles.key"} == used.keys

    async def test_a_folder_without_a_mark(self, used):
        """Without a mark a whole folder that was put back is not found: nothing tells of it."""
        (used.data / KNOWN).unlink()
        kept = used.copy("kept")
        await used.start(marked=False, notes=1)
        used.put_back(kept)
        assert (None, 3) == await used.start(marked=False)

    async def test_a_database_that_is_gone(self, used):
        """Where keys are and no database, those go by which something revoked would verify."""
        (used.data / "sojourn.db").unlink()
        assert ("database_lost", 3) == await used.start(marked=False)
        assert {staging.ROOT, "handles.key"} == used.keys
        assert "database_lost" in used.events

    @pytest.mark.parametrize(
        ("year", "least"), [(1970, 1 << 20), (2026, 1 << 20), (2030, 3_000_000), (2040, 8_000_000), (2100, 3 << 22)]
    )
    async def test_all_that_counts_is_gone(self, used, year, least):
        """Where the number of the last start is gone with the database, this start's is above any that there was, so
        that no X.509-SVID of before is good; and millions of starts have room after it, whatever the clock says.
        """
        for name in ("sojourn.db", "epoch"):
            (used.data / name).unlink()
        used.clock = FakeClock(datetime(year, 1, 1, tzinfo=UTC))
        how, epoch = await used.start(marked=False)
        assert "database_lost" == how
        assert epoch >= least
        old = svid_stamps.make_serial(svid_stamps.first_order(1_000_000), "entry")
        assert svid_stamps.of_serial(f"{old:x}").order < used.svids_from == svid_stamps.first_order(epoch)
        late = svid_stamps.first_order(epoch + 4_000_000)
        assert late == svid_stamps.of_serial(f"{svid_stamps.make_serial(late, 'entry'):x}").order
        assert (None, epoch + 1) == await used.start(marked=False)

    async def test_nothing_at_all(self, place):
        """A new folder with a new mark is no loss."""
        shutil.rmtree(place.data / "keys")
        assert (None, 1) == await place.start()

    @pytest.mark.parametrize("text", ["x\n", "", "-1", "1 2"])
    async def test_a_number_that_is_none(self, used, text):
        """A file of the last start's number that says none refuses the start."""
        (used.data / "epoch").write_text(text)
        with pytest.raises(CannotStart, match="remove it"):
            await used.start()

    @pytest.mark.parametrize("marked", [True, False])
    async def test_a_mark_that_is_not_there(self, used, marked):
        """Where the folder knows of a mark, a start that finds none, or has no folder for it, is refused and changes
        nothing, however often.
        """
        away = used.marks / "mark"
        content = away.read_bytes()
        away.unlink()
        for _ in range(2):
            with pytest.raises(CannotStart, match="mount what it lies on"):
                await used.start(marked=marked)
        assert set(KEYS) == used.keys
        away.write_bytes(content)
        assert (None, 3) == await used.start()

    @pytest.mark.parametrize("marked", [True, False])
    async def test_a_mark_that_is_gone(self, used, marked):
        """Where somebody has said that the mark is gone nothing of before verifies, once; a new mark says since when, and
        an agent that has none any more starts without.
        """
        (used.marks / "mark").unlink()
        os.rename(used.data / KNOWN, used.data / GONE)
        assert ("mark_gone", 3) == await used.start(marked=marked)
        assert {staging.ROOT, "handles.key"} == used.keys
        assert used.svids_from == 3 << 16
        assert "database_restored" in used.events
        assert (None, 4) == await used.start(marked=marked)
        if marked:
            assert 0 < json.loads((used.marks / "mark").read_text())["since"]

    async def test_a_folder_put_back_whose_mark_is_not_there(self, used):
        """A folder that was put back does not count as one with a new mark where its mark is not mounted."""
        kept = used.copy("kept")
        await used.start(notes=1)
        used.put_back(kept)
        (used.marks / "mark").unlink()
        with pytest.raises(CannotStart, match="mark-gone"):
            await used.start()
        assert set(KEYS) == used.keys

    async def test_a_mark_elsewhere(self, used):
        """A mark that was moved to another folder with all that it says is the mark."""
        used.marks = used.marks.rename(used.marks.with_name("elsewhere"))
        assert (None, 3) == await used.start()
        assert f"{used.marks}/mark\n" == (used.data / KNOWN).read_text()


async def broken_off(used, kept, monkeypatch, have_mark):
    """A start on `kept`, broken off at each step in turn, with the mark that `have_mark` makes. The last one is whole."""
    for step in range(60):
        used.put_back(kept)
        have_mark()
        with monkeypatch.context() as patched:
            left = crash_after(patched, step)
            with suppress(Crash):
                await used.start()
            crashed = not left
        yield
        if not crashed:
            break
    assert step > 5


class TestBrokenOff:
    async def test_at_each_step(self, used, monkeypatch, tmp_path):
        """However a start on what was put back is broken off, the next one has the keys replaced, and says so once."""
        kept = used.copy("kept")
        await used.start(notes=3)
        ahead = (used.marks / "mark").read_bytes()
        async for _ in broken_off(used, kept, monkeypatch, lambda: (used.marks / "mark").write_bytes(ahead)):
            how, _ = await used.start()
            assert {staging.ROOT, "handles.key"} == used.keys
            assert used.svids_from == used.told.epoch << 16 > 2 << 16
            assert 1 <= used.events.count("database_restored") <= 2
            assert (None, used.events.count("database_restored")) != (how, 0)

    async def test_the_first_one_with_a_mark(self, used, monkeypatch):
        """However the first start with a mark is broken off, the next one has a mark and needs nobody's word for it."""
        (used.marks / "mark").unlink()
        (used.data / KNOWN).unlink()
        kept = used.copy("kept")
        async for _ in broken_off(used, kept, monkeypatch, lambda: (used.marks / "mark").unlink(missing_ok=True)):
            assert (await used.start())[0] is None
            assert (used.data / KNOWN).exists()

    async def test_one_whose_mark_is_gone(self, used, monkeypatch):
        """However a start after the loss of a mark is broken off, the keys are replaced, and the next one is no refusal."""
        (used.marks / "mark").unlink()
        os.rename(used.data / KNOWN, used.data / GONE)
        kept = used.copy("kept")
        async for _ in broken_off(used, kept, monkeypatch, lambda: (used.marks / "mark").unlink(missing_ok=True)):
            await used.start()
            assert {staging.ROOT, "handles.key"} == used.keys
            assert used.svids_from > 2 << 16
            assert not (used.data / GONE).exists()


def crash_after(patched, step):
    """Have the process end before that change of the disk. What is returned is empty once it has."""
    left = [True] * (step + 1)

    def counted(call):
        def counting(*arguments, **options):
            if left:
                left.pop()
                if not left:
                    raise Crash
            return call(*arguments, **options)

        return counting

    for name in ("replace", "rename", "unlink", "fsync"):
        patched.setattr(os, name, counted(getattr(os, name)))
    return left
