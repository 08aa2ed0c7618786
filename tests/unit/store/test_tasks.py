"""store/tasks.py: a task and the record of its change are one write. The fake keeps the same contract."""

import asyncio
import contextlib
import json
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
from fakes.children import child, holder_of
from fakes.databases import BlockedWriter, opened
from fakes.journals import FakeTaskStore
from fakes.registrations import entry
from fakes.task_types import TICKETS, task_type
from sojourn.audit.journal import Event
from sojourn.store import tables
from sojourn.store.audit import AuditTable
from sojourn.store.restorations import RestorationTable
from sojourn.store.tasks import TaskTable
from sojourn.tasks.holders import Holders
from sojourn.tasks.origin import Origin
from sojourn.tasks.task import Task
from sojourn.tasktoken.grants import Authority, Grant
from sqlalchemy import select

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TYPE = task_type()
SAID = Event(1, "said", "{}")


@pytest.fixture
def table(database, journal):
    return TaskTable(database, journal)


@pytest.fixture
async def task():
    with child() as process:
        holder = Holders(9).hold(holder_of(process), 1000)
        yield make("tsk_1", holder)
        holder.release()


def make(task_id, holder):
    return Task(
        id=task_id,
        type=TYPE,
        origin=Origin(entry("/agent/triage").spiffe_id, "entry-1", 1000, "process"),
        authority=Authority((Grant(TICKETS, ("ticket:read",)),)),
        params={"ticket": 'T-"1"', "level": 3, "urgent": True},
        created=NOW.timestamp(),
        life=timedelta(0),
        deadline=1.0,
        holder=holder,
        version=(3 << 32) | 1,
        last_used=0.0,
    )


async def rows(store, database):
    """(state, version) of each task by its id."""
    if isinstance(store, FakeTaskStore):
        return store.rows
    found = await database.read(lambda connection: connection.execute(select(tables.tasks)).all())
    return {row.id: (row.state, row.version) for row in found}


async def names(store, journal):
    if isinstance(store, FakeTaskStore):
        return store.names
    return [record.event for record in await journal.tail(100)]


class TestContract:
    @pytest.fixture(params=["real", "fake"])
    def store(self, request, table):
        return table if request.param == "real" else FakeTaskStore()

    async def test_save(self, store, database, journal, task):
        """A task is saved with its record, and again when it changes."""
        await store.save(task.record(), Event(1, "begun", "{}"))
        assert {"tsk_1": ("active", (3 << 32) | 1)} == await rows(store, database)
        task.finish("revoked", "because")
        await store.save(task.record(), Event(2, "ended", "{}"))
        assert {"tsk_1": ("revoked", (3 << 32) | 2)} == await rows(store, database)
        assert ["begun", "ended"] == await names(store, journal)

    async def test_as_it_was_when_asked(self, store, database, task):
        """What is saved is the task as it was at the call, however it changes meanwhile."""
        saving = asyncio.ensure_future(store.save(task.record(), SAID))
        await asyncio.sleep(0)
        task.finish("revoked", "because")
        await saving
        assert "active" == (await rows(store, database))["tsk_1"][0]

    async def test_record(self, store, database, journal):
        """A record alone touches no task."""
        await store.record(SAID)
        assert ({}, ["said"]) == (await rows(store, database), await names(store, journal))


async def test_a_caller_that_gave_up(database, journal, table, task):
    """A save whose caller gave up is done all the same."""
    async with BlockedWriter(database):
        saving = asyncio.ensure_future(table.save(task.record(), SAID))
        await asyncio.sleep(0)
        saving.cancel()
    await table.record(SAID)
    assert ({"tsk_1"}, 2) == (set(await rows(table, database)), len(await journal.tail(9)))


async def test_record_and_task_are_one(database, journal, table, task, monkeypatch):
    """If the record cannot be written, the task is not saved either."""

    def refuse(*_):
        raise OSError("no")

    monkeypatch.setattr(journal, "append_in", refuse)
    (found,) = await asyncio.gather(table.save(task.record(), SAID), return_exceptions=True)
    assert "store_failed" == found.code
    assert {} == await rows(table, database)


async def test_document(database, table, task):
    """The document of a task says everything about it and holds no token."""
    await table.save(task.record(), SAID)
    (row,) = await database.read(lambda connection: connection.execute(select(tables.tasks)).all())
    document = json.loads(row.document)
    assert ("triage", TYPE.digest, 1000, {"ticket": 'T-"1"', "level": 3, "urgent": True}) == (
        document["type"],
        document["type_digest"],
        document["uid"],
        document["params"],
    )
    assert [{"resource": TICKETS, "actions": ["ticket:read"]}] == document["grants"]
    assert task.holder.pid == document["holder"]["pid"]
    assert row.boot_id


class TestWhatWasLeft:
    @pytest.fixture(params=["real", "fake"])
    def store(self, request, table):
        return table if request.param == "real" else FakeTaskStore()

    async def test_unfinished(self, store, task):
        """Tasks that an earlier run left alive are given back, with all that was written of them."""
        await store.save(task.record(), SAID)
        done = make("tsk_2", task.holder)
        done.finish("completed", "success")
        await store.save(done.record(), SAID)
        asleep = make("tsk_3", task.holder)
        asleep.suspend("operator", "because")
        await store.save(asleep.record(), SAID)
        found = {each.id: each for each in await store.unfinished()}
        assert {"tsk_1", "tsk_3"} == set(found)
        assert (task.version, True) == (found["tsk_1"].unverified_version, found["tsk_1"].same_boot)
        assert dict(asleep.record().document) == json.loads(found["tsk_3"].unverified_document)

    async def test_take_over(self, store, database, journal, task):
        """All changes of a start are written together with their records."""
        others = [make("tsk_2", task.holder), make("tsk_3", task.holder)]
        for each in others:
            await store.save(each.record(), SAID)
        others[0].finish("revoked", "agent_restart")
        others[1].suspend("agent_restart", "agent_restart")
        await store.take_over([(each.record(), Event(2, f"said {each.id}", "{}")) for each in others])
        assert {"tsk_2": "revoked", "tsk_3": "suspended"} == {
            name: state for name, (state, _) in (await rows(store, database)).items()
        }
        assert ["said", "said", "said tsk_2", "said tsk_3"] == await names(store, journal)
        assert ["tsk_3"] == [each.id for each in await store.unfinished()]

    async def test_another_boot(self, database, table, task):
        """A task that was written before the machine was started again is told apart."""
        await table.save(task.record(), SAID)
        await database.write(lambda connection: connection.execute(tables.tasks.update().values(boot_id="another")))
        assert [False] == [each.same_boot for each in await table.unfinished()]

    @pytest.mark.parametrize("damaged", ["x'ff00fe'", "NULL", "7", "'{'"])
    async def test_a_damaged_document_is_given_as_it_is(self, tmp_path, damaged):
        """Whatever stands in a document's place, all rows are read."""
        path = tmp_path / "damaged.db"
        with opened(path):
            pass
        with contextlib.closing(sqlite3.connect(path)) as raw:
            # As damage would leave it: SQLite itself keeps the declared rules.
            raw.execute("PRAGMA writable_schema = ON")
            raw.execute("UPDATE sqlite_schema SET sql = replace(sql, 'document TEXT NOT NULL', 'document TEXT')")
            raw.execute("PRAGMA writable_schema = RESET")
            raw.execute(f"INSERT INTO tasks VALUES ('tsk_1', 'active', 1, 'b', {damaged})")
            raw.commit()
        with opened(path) as database:
            (found,) = await TaskTable(database, AuditTable(database)).unfinished()
        assert ("tsk_1", {"x'ff00fe'": b"\xff\x00\xfe", "NULL": b"", "7": b"7", "'{'": b"{"}[damaged]) == (
            found.id,
            found.unverified_document,
        )


async def test_epochs_grow(tmp_path):
    """Each start of the agent has a number of its own that is larger than any before."""
    found = []
    for _ in range(3):
        with opened(tmp_path / "epochs.db") as database:
            found.append(await RestorationTable(database, AuditTable(database)).begin(0))
    assert [1, 2, 3] == found
