"""prefetch.py: SVIDs are there before anybody asks, are kept fresh, and go with their entries."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from fakes.journals import FakeAuditStore
from fakes.registrations import NODE, TRUST_DOMAIN, FakeEntryStore, entry
from fakes.signers import late_signers
from harness.looking import idle
from sojourn.audit.journal import Audit
from sojourn.errors import Unavailable
from sojourn.identity.prefetch import Prefetch
from sojourn.identity.registry import Registry
from sojourn.identity.svid_issuer import SvidIssuer
from sojourn.limits import PREFETCHED_AT_ONCE, SIGNATURE_RETRY_SECONDS
from sojourn.runtime.clock import Alarms
from structlog.testing import capture_logs

A, B, C = (entry(f"/{name}", created_at=number) for number, name in enumerate("abc"))


class Room:
    def __init__(self, folder, entries, most):
        self.clock = FakeClock()
        self.alarms = Alarms(self.clock)
        self.signers = late_signers(authority_in(folder, self.clock), held=False)
        self.registry = Registry(FakeEntryStore(entries), TRUST_DOMAIN, [NODE], self.clock, self.alarms)
        audit = Audit(FakeAuditStore(), self.clock)
        self.issuing = SvidIssuer(authority_in(folder, self.clock), self.signers, self.clock, self.alarms, audit)
        self.registry.on_change(self._changed)
        self.prefetch = Prefetch(self.registry, self.issuing, most)
        self.running = None

    def _changed(self, changes):
        """As Identities does."""
        for change in changes:
            if change.old is not None:
                self.issuing.forget_entry(change.old.id)

    async def __aenter__(self):
        self.prefetch.begin()
        self.running = asyncio.ensure_future(self.prefetch.run())
        await idle()
        return self

    async def __aexit__(self, *_):
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    def ahead(self):
        return sorted(kept.entry.id for kept in self.issuing.x509.kept())


async def test_those_that_are_there(tmp_path):
    """The oldest entries have their SVIDs at once, and no more than so many."""
    async with Room(tmp_path, [C, B, A], 2) as room:
        assert [A.id, B.id] == room.ahead()
        assert 2 == len(room.prefetch)


async def test_what_comes_and_goes(tmp_path):
    """An entry that comes has its SVID; one that goes makes room for the next."""
    async with Room(tmp_path, [A], 2) as room:
        room.registry.follow_server(NODE, {B.id: B, C.id: C})
        await idle()
        assert [A.id, B.id] == room.ahead()
        room.registry.follow_server(NODE, {}, [A.id])
        await idle()
        assert [B.id, C.id] == room.ahead()


async def test_a_changed_entry(tmp_path):
    """An entry that was changed at the server has another SVID, and one for another ID is for that."""
    async with Room(tmp_path, [A], 2) as room:
        before = room.issuing.x509.kept()[0].svid.serial
        room.registry.follow_server(NODE, {A.id: replace(A, spiffe_id=B.spiffe_id, revision=1)})
        await idle()
        (kept,) = room.issuing.x509.kept()
        assert (B.spiffe_id, True) == (kept.svid.spiffe_id, kept.svid.serial != before)


@pytest.mark.parametrize("field", ["store_svid", "disable_x509_svid_prefetch"])
async def test_those_that_want_none(tmp_path, field):
    """Entries that say so have none before somebody asks."""
    async with Room(tmp_path, [replace(A, **{field: True})], 2) as room:
        assert [] == room.ahead()


async def test_they_are_kept_fresh(tmp_path):
    """One that nobody has asked for yet is renewed in time."""
    async with Room(tmp_path, [A], 1) as room:
        before = room.issuing.x509.kept()[0].svid.serial
        room.clock.advance(timedelta(minutes=40).total_seconds())
        room.alarms.ring_due()
        await idle()
        assert before != room.issuing.x509.kept()[0].svid.serial


async def test_a_signer_that_fails(tmp_path):
    """What could not be signed is signed once it can be."""
    room = Room(tmp_path, [A], 1)
    room.signers.x509.failing = Unavailable("away")
    async with room:
        assert [] == room.ahead()
        room.signers.x509.failing = None
        room.clock.advance(SIGNATURE_RETRY_SECONDS)
        room.alarms.ring_due()
        await idle()
        assert [A.id] == room.ahead()


async def test_a_fault_of_one(tmp_path, monkeypatch):
    """A fault of the agent's over one entry is told, and the others have their SVIDs."""
    async with Room(tmp_path, [], 5) as room:
        sound = room.issuing.x509.get

        async def get(asked):
            if asked.id == A.id:
                raise ValueError("odd")
            if asked.id == B.id:
                raise asyncio.CancelledError
            return await sound(asked)

        monkeypatch.setattr(room.issuing.x509, "get", get)
        with capture_logs() as lines:
            room.registry.follow_server(NODE, {A.id: A, B.id: B})
            await idle()
        assert [("svid_not_prefetched", A.id)] == [(each["event"], each["entry_id"]) for each in lines]
        room.registry.follow_server(NODE, {C.id: C})
        await idle()
        assert [C.id] == room.ahead()
        assert not room.running.done()


async def test_some_at_a_time(tmp_path):
    """However many there are, places are left for those who ask."""
    many = [entry(f"/many/{number}", id=f"many-{number}") for number in range(3 * PREFETCHED_AT_ONCE)]
    async with Room(tmp_path, many, 1_000) as room:
        await idle()
        assert PREFETCHED_AT_ONCE == room.signers.x509.most_at_work
        for _ in range(20):
            await idle()
        assert len(many) == len(room.ahead())
