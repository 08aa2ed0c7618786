"""store/credentials.py: a credential and the record of its change are one write. The fake keeps the same contract."""

import asyncio
from datetime import UTC, datetime

import pytest
from fakes.clock import FakeClock
from fakes.credentials import FakeCredentialStore
from fakes.databases import BlockedWriter
from fakes.registrations import entry
from fakes.task_types import TICKETS
from sojourn.audit.journal import Event
from sojourn.credentials.credential import GONE, HELD, Credential
from sojourn.store import tables
from sojourn.store.credentials import CredentialTable
from sojourn.tasktoken.grants import Grant
from sqlalchemy import select

NOW = datetime(2030, 1, 1, tzinfo=UTC)
CLOCK = FakeClock()
SAID = Event(1, "said", "{}")


@pytest.fixture(params=["real", "fake"])
def store(request, database, journal):
    return CredentialTable(database, journal) if request.param == "real" else FakeCredentialStore()


@pytest.fixture
def credential():
    return make("ext_1")


def make(name):
    return Credential(
        id=name,
        task_id="tsk_1",
        task_type="triage",
        spiffe_id=entry("/agent/triage").spiffe_id,
        provider="corp",
        grant=Grant(TICKETS, ("ticket:read", "ticket:write")),
        asked_at=NOW,
        expires_at=NOW,
        expires_boot=7.5,
    )


async def names(store, journal):
    return store.names if isinstance(store, FakeCredentialStore) else [each.event for each in await journal.tail(9)]


async def test_given_back(store, credential):
    """A credential is given back as it was written last, but for what is in memory only."""
    await store.save(credential.record(), None)
    credential.state, credential.sealed_handle, credential.public = HELD, b"\x01\xff", {"session": "7"}
    credential.over_at, credential.over_for, credential.fault, credential.lost = NOW, "success", "down", True
    await store.save(credential.record(), SAID)
    (found,) = store.load()
    assert credential.record() == found.parse(CLOCK).record()


async def test_never_too_early(store, credential):
    """The end that is given back is the one that was written, or within the second after: not before it is over."""
    credential.expires_at = datetime.fromtimestamp(NOW.timestamp() + 0.25, UTC)
    await store.save(credential.record(), None)
    (found,) = store.load()
    assert 0 <= (found.parse(CLOCK).expires_at - credential.expires_at).total_seconds() < 1


async def test_gone(store, journal, credential):
    """What is gone leaves its record, and no row."""
    await store.save(credential.record(), None)
    await store.save(make("ext_2").record(), None)
    credential.state = GONE
    await store.save(credential.record(), SAID)
    assert (["ext_2"], ["said"]) == ([each.id for each in store.load()], await names(store, journal))


async def test_as_it_was_when_asked(store, credential):
    """What is saved is the credential as it was at the call, however it changes meanwhile."""
    saving = asyncio.ensure_future(store.save(credential.record(), SAID))
    await asyncio.sleep(0)
    credential.state = HELD
    await saving
    assert ["asking"] == [each.unverified_state for each in store.load()]


async def test_one_write(database, journal, credential, monkeypatch):
    """If the record cannot be written, the credential is not saved either."""

    def refuse(*_):
        raise OSError("no")

    table = CredentialTable(database, journal)
    monkeypatch.setattr(journal, "append_in", refuse)
    (found,) = await asyncio.gather(table.save(credential.record(), SAID), return_exceptions=True)
    assert ("store_failed", []) == (found.code, table.load())


async def test_columns(database, journal, credential):
    """What an operator looks for is in columns; the handle is in the document, sealed."""
    credential.sealed_handle = b"\x01\x02"
    await CredentialTable(database, journal).save(credential.record(), None)
    (row,) = await database.read(lambda connection: connection.execute(select(tables.external_credentials)).all())
    assert ("tsk_1", "corp", "asking", int(NOW.timestamp())) == (row.task_id, row.provider, row.state, row.expires_at)
    assert '"0102"' in row.document


async def test_a_caller_that_gave_up(database, journal, credential):
    """A save whose caller gave up is done all the same, and what is saved after it comes after it."""
    table = CredentialTable(database, journal)
    async with BlockedWriter(database):
        saving = asyncio.ensure_future(table.save(credential.record(), None))
        await asyncio.sleep(0)
        saving.cancel()
        credential.state = GONE
        removing = asyncio.ensure_future(table.save(credential.record(), SAID))
    await removing
    assert [] == table.load()


async def test_damaged_rows_are_read(database, journal, credential):
    """A damaged document is given as it is, and keeps no other row from being read."""
    table = CredentialTable(database, journal)
    await table.save(credential.record(), None)
    await table.save(make("ext_2").record(), None)
    damage = tables.external_credentials.update().where(tables.external_credentials.c.id == "ext_1")
    await database.write(lambda connection: connection.execute(damage.values(document=b"\xff\xfe")))
    found = {each.id: each.unverified_document for each in table.load()}
    assert (b"\xff\xfe", {"ext_1", "ext_2"}) == (found["ext_1"], set(found))
