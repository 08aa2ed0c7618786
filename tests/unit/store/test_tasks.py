"""store/tasks.py: a task and the record of its change are one write. The fake keeps the same contract."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from fakes.children import child, holder_of
from fakes.databases import BlockedWriter, opened
from fakes.journals import FakeTaskStore
from fakes.registrations import entry
from fakes.task_types import TICKETS, task_type
from sojourn.oversight.audit import Event
from sojourn.store import tables
from sojourn.store.audit import AuditTable
from sojourn.store.settings import next_epoch
from sojourn.store.tasks import TaskTable, Unfinished
from sojourn.tasks.grants import Authority, Grant
from sojourn.tasks.holders import Holders
from sojourn.tasks.task import Task
from sqlalchemy import select

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TYPE = task_type()
SAID = Event(1, "said", "{}")


@pytest.fixture
def database(tmp_path):
    with opened(tmp_path / "sojourn.db") as database:
        yield database


@pytest.fixture
def journal(database):
    return AuditTable(database)


@pytest.fixture
def table(database, journal):
    return TaskTable(database, journal)


@pytest.fixture
async def task():
    with child() as process:
        holder = Holders(9).hold(holder_of(process), 1000, lambda: None)
        yield make("tsk_1", holder)
        holder.release()


def make(task_id, holder):
    return Task(
        id=task_id,
        type=TYPE,
        spiffe_id=entry("/agent/triage").spiffe_id,
        entry_id="entry-1",
        uid=1000,
        authority=Authority((Grant(TICKETS, ("ticket:read",)),)),
        params={"ticket": 'T-"1"', "level": 3, "urgent": True},
        created_at=NOW,
        expires_at=NOW,
        deadline=1.0,
        holder=holder,
        binding="process",
        session=False,
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


class TestEndUnfinished:
    async def test_what_an_earlier_run_left(self, database, journal, table, task):
        """Tasks that an earlier run left alive are revoked, each with a record; ended ones stay as they are."""
        await table.save(task.record(), SAID)
        done = make("tsk_2", task.holder)
        done.finish("completed", "success")
        await table.save(done.record(), SAID)
        asleep = make("tsk_3", task.holder)
        asleep.suspend("handover", "holder_exited")
        await table.save(asleep.record(), SAID)
        found = await table.end_unfinished(lambda left: Event(5, "task_ended", json.dumps({"task": left.id})))
        spiffe_id = "spiffe://example.org/agent/triage"
        assert [Unfinished(name, "triage", spiffe_id, 1000) for name in ("tsk_1", "tsk_3")] == found
        assert {"tsk_1": "revoked", "tsk_2": "completed", "tsk_3": "revoked"} == {
            name: state for name, (state, _) in (await rows(table, database)).items()
        }
        assert 2 == [record.event for record in await journal.tail(9)].count("task_ended")

    async def test_version_grows(self, database, table, task):
        """The end that a restart gives is a later version."""
        await table.save(task.record(), SAID)
        await table.end_unfinished(lambda _: SAID)
        assert task.version + 1 == (await rows(table, database))["tsk_1"][1]

    async def test_nothing_left(self, journal, table):
        """Where nothing was left alive nothing is recorded."""
        assert [] == await table.end_unfinished(lambda _: SAID)
        assert [] == await journal.tail(9)


async def test_epochs_grow(tmp_path):
    """Each start of the agent has a number of its own that is larger than any before."""
    found = []
    for _ in range(3):
        with opened(tmp_path / "epochs.db") as database:
            found.append(await next_epoch(database))
    assert [1, 2, 3] == found
