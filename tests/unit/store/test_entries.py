"""store/entries.py: entries survive in the database whole. The fake store keeps the same contract."""

import asyncio
import json
from dataclasses import fields, replace

import pytest
from fakes.databases import BlockedWriter
from fakes.registrations import FakeEntryStore, entry, selectors
from sojourn.attestation.selectors import Selector
from sojourn.errors import AlreadyExists
from sojourn.identity.custom_claims import JwtClaims
from sojourn.identity.entries import Entry
from sojourn.spiffe.ids import TrustDomain
from sojourn.store.audit import AuditTable
from sojourn.store.entries import EntryTable
from sojourn.store.tables import entries
from sqlalchemy import select, update

FULL = Entry(
    id="full",
    spiffe_id=entry("/full").spiffe_id,
    parent_id=entry("/full").parent_id,
    selectors=selectors("unix:uid:1", "unix:path:/bin/a b:c", "docker:label:é=\u2028"),
    x509_svid_ttl=60,
    jwt_svid_ttl=30,
    hint="hint",
    dns_names=("b.example", "a.example"),
    federates_with=(TrustDomain("z.example"), TrustDomain("a.example")),
    admin=True,
    downstream=True,
    store_svid=True,
    disable_x509_svid_prefetch=True,
    jwt_svid_include_jti=True,
    expires_at=2**40,
    revision=7,
    created_at=123,
    priority=-3,
    origin="/etc/sojourn/entries",
    jwt_claims=JwtClaims.parse({"team": "{docker.label:team}", "level": 3, "more": {"a": [True, 1.5]}}),
    owner="support",
    sponsor="oidc:https://id.example.org#4711",
)


@pytest.fixture(params=["real", "fake"])
def store(request, database):
    return EntryTable(database, AuditTable(database)) if request.param == "real" else FakeEntryStore()


def loaded(store):
    return sorted(store.load(), key=lambda each: each.id)


class TestContract:
    async def test_whole(self, store):
        """Every field of an entry survives, in its order."""
        assert not [each.name for each in fields(Entry) if getattr(FULL, each.name) == each.default]
        await store.write([FULL, entry("/web")], [])
        assert [entry("/web"), FULL] == loaded(store)

    async def test_replace_and_remove(self, store):
        """One write replaces some entries and removes others."""
        await store.write([entry("/a"), entry("/b"), entry("/c")], [])
        changed = replace(entry("/a"), hint="x")
        await store.write([changed], ["entry-b", "nobody"])
        assert [changed, entry("/c")] == loaded(store)

    async def test_exchange_of_places(self, store):
        """Two entries may exchange what they are in one write."""
        first, second = entry("/a", id="1"), entry("/b", id="2")
        await store.write([first, second], [])
        await store.write([replace(first, spiffe_id=second.spiffe_id), replace(second, spiffe_id=first.spiffe_id)], [])
        assert ["spiffe://example.org/b", "spiffe://example.org/a"] == [str(each.spiffe_id) for each in loaded(store)]

    async def test_a_twin(self, store):
        """A write with a twin of what is there is refused whole."""
        await store.write([entry("/a", id="1")], [])
        with pytest.raises(AlreadyExists):
            await store.write([entry("/b"), entry("/a", id="2")], ["1x"])
        assert ["1"] == [each.id for each in store.load()]

    async def test_nothing(self, store):
        """An empty write is fine, and an empty store has no entries."""
        await store.write([], [])
        assert [] == store.load()

    async def test_many(self, store):
        """More entries than SQLite takes parameters are written and removed in one go."""
        many = [entry(f"/n{number}") for number in range(1200)]
        await store.write(many, [])
        await store.write([], [each.id for each in many[1:]])
        assert many[:1] == loaded(store)


class TestWhoeverWaits:
    async def test_real(self, database):
        """A write whose caller gave up is done all the same."""
        store = EntryTable(database, AuditTable(database))
        async with BlockedWriter(database):
            writing = asyncio.ensure_future(store.write([entry("/a")], []))
            await asyncio.sleep(0)
            writing.cancel()
        await store.write([], [])
        assert 1 == len(store.load())

    async def test_fake(self):
        """A write whose caller gave up is done all the same, by the fake too."""
        store = FakeEntryStore()
        store.gate = asyncio.Event()
        writing = asyncio.ensure_future(store.write([entry("/a")], []))
        await store.writing.wait()
        writing.cancel()
        store.gate.set()
        await store.quiet()
        assert 1 == len(store.load())


async def test_older_documents(database):
    """An entry that was written before there were priorities and followed folders has none."""
    store = EntryTable(database, AuditTable(database))
    await store.write([FULL], [])

    def age(connection):
        document = json.loads(connection.execute(select(entries.c.document)).scalar_one())
        del document["priority"], document["origin"]
        connection.execute(update(entries).values(document=json.dumps(document)))

    await database.write(age)
    assert [replace(FULL, priority=0, origin="")] == store.load()


async def test_any_selector_value(database):
    """A selector of any text is stored as it is."""
    store = EntryTable(database, AuditTable(database))
    odd = replace(FULL, selectors=frozenset({Selector("x", '"\\\n\x7f:é😀'), Selector("y", "a" * 4096)}))
    await store.write([odd], [])
    assert [odd] == store.load()
