"""revocations.py and issued.py: what was issued is found, and is no longer good once it is on the list."""

import asyncio
from datetime import timedelta

import pytest
from cryptography import x509
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from fakes.journals import FakeTaskStore
from fakes.revocations import FakeRevocationStore
from sojourn.authority.profile import signer_id
from sojourn.clock import Alarms
from sojourn.errors import InvalidToken, LimitExceeded, StoreFull
from sojourn.identity import revocations as module
from sojourn.identity.issued import Issued, IssuedSvid
from sojourn.identity.revocations import LOOK_SECONDS, Revocations
from sojourn.oversight.audit import Audit, Record
from sojourn.spiffe.ids import SpiffeId

WEB = SpiffeId.parse("spiffe://example.org/web")
HOUR = timedelta(hours=1)


class Room:
    def __init__(self, folder):
        self.folder = folder
        self.clock = FakeClock()
        self.alarms = Alarms(self.clock)
        self.store = FakeRevocationStore()
        self.authority = authority_in(folder, self.clock)
        self.heard = 0
        self.open()

    def open(self):
        self.list = Revocations(self.store, self.authority, self.clock, self.alarms)
        self.list.on_change(self._hear)

    def _hear(self):
        self.heard += 1

    def x509(self, ttl=HOUR):
        svid = self.authority.issue_x509(WEB, ttl)
        return IssuedSvid(
            "x509", svid.serial, str(WEB), "e1", int(svid.not_after.timestamp()),
            signer_id(svid.leaf), self.authority.root_of(svid),
        )  # fmt: skip

    def jwt(self):
        svid = self.authority.issue_jwt(WEB, ["a"], HOUR)
        return svid, IssuedSvid("jwt", svid.claims["jti"], str(WEB), "e1", svid.claims["exp"])

    def listed(self):
        return {f"{entry.serial_number:x}" for der in self.list.crls for entry in x509.load_der_x509_crl(der)}


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path / "keys")


class TestRevoking:
    async def test_x509(self, room):
        """A revoked X.509-SVID is in the CRLs, everybody is told, and after a restart it still is."""
        svid = room.x509()
        [revoked] = await room.list.revoke([svid])
        assert ({svid.id}, 1, svid) == (room.listed(), room.heard, revoked.svid)
        room.authority = authority_in(room.folder, room.clock)
        room.open()
        assert {svid.id} == room.listed()

    async def test_jwt(self, room):
        """A revoked JWT-SVID is refused; another one is not, and the CRLs stay as they are."""
        (good, _), (bad, issued) = room.jwt(), room.jwt()
        await room.list.revoke([issued])
        assert good is room.list.check(good)
        with pytest.raises(InvalidToken, match="revoked"):
            room.list.check(bad)
        assert ((), 0) == (room.list.crls, room.heard)

    async def test_twice(self, room):
        """What is on the list already is not put there again."""
        svid = room.x509()
        await room.list.revoke([svid])
        assert ([], 1) == (await room.list.revoke([svid]), len(room.list))

    async def test_a_store_that_fails(self, room):
        """If the list cannot be kept, the caller hears of it, and it is in force all the same."""
        room.store.failure = StoreFull("no room")
        svid = room.x509()
        with pytest.raises(StoreFull):
            await room.list.revoke([svid])
        assert {svid.id} == room.listed()

    async def test_too_many(self, room, monkeypatch):
        """Over the limit nothing is put on the list."""
        monkeypatch.setattr(module, "REVOKED_SVIDS", 2)
        with pytest.raises(LimitExceeded, match="taint"):
            await room.list.revoke([room.x509() for _ in range(3)])
        assert 0 == len(room.list)


class TestTime:
    async def test_leaves_the_list(self, room):
        """A day after an SVID would have ended it leaves the list, the CRLs and the store."""
        await room.list.revoke([room.x509()])
        for _ in range(27):
            assert 1 == len(room.list) == len(room.store.revoked)
            room.clock.advance(LOOK_SECONDS)
            room.alarms.ring_due()
            room.authority.maintain()
            await asyncio.sleep(0)
            if room.clock.boot() and not len(room.list):
                break
        await asyncio.sleep(0)
        assert (0, [], ()) == (len(room.list), room.store.revoked, room.list.crls)

    async def test_signed_anew(self, room):
        """A list is signed anew before it would be too old for those who read it."""
        await room.list.revoke([room.x509(timedelta(days=7))])
        before, heard = room.list.crls, room.heard
        for _ in range(26):
            room.clock.advance(LOOK_SECONDS)
            room.alarms.ring_due()
        assert (True, heard + 1) == (before != room.list.crls, room.heard)

    def test_what_has_ended_is_not_shown(self, room):
        """What would have ended by now is not shown as revoked."""
        svid = room.x509()
        asyncio.run(room.list.revoke([svid]))
        room.clock.advance(3_601)
        assert [] == room.list.all()


class FakeJournal:
    """Finds records that were written, as a database does."""

    def __init__(self, store):
        self._store = store

    async def of_events(self, events, since_ms, containing):
        return [
            Record(seq, event.at_ms, event.event, event.fields, "")
            for seq, event in enumerate(self._store.events, 1)
            if event.event in events and event.at_ms >= since_ms and containing in event.fields
        ]


class TestIssued:
    @pytest.fixture
    def clock(self):
        return FakeClock()

    @pytest.fixture
    def audit(self, clock):
        return Audit(FakeTaskStore(), clock)

    @pytest.fixture
    def issued(self, audit, clock):
        return Issued(FakeJournal(audit._store), audit, clock)

    async def test_finds_what_was_issued(self, audit, issued, clock):
        """X.509- and JWT-SVIDs are found by their own ID, by entry and by SPIFFE ID, once each."""
        ends = int(clock.now().timestamp()) + 3_600
        web = {"spiffe_id": "spiffe://example.org/web", "expires_at": ends}
        audit.note("x509_svid_issued", **web, entry_id="e1", serial="ab", issuer_id="cd", root_id="ef")
        audit.note("jwt_svid_issued", **web, entry_id="e1", jti="J")
        audit.note("jwt_svid_issued", **web, entry_id="e1", jti="J")
        audit.note("x509_svid_minted", **web, serial="aa", issuer_id="cd", root_id="ef")
        audit.note("x509_svid_issued", **{**web, "spiffe_id": "spiffe://example.org/web/2"}, entry_id="e2", serial="ac")
        audit.note("task_begun", spiffe_id="spiffe://example.org/web")
        assert [IssuedSvid("x509", "ab", web["spiffe_id"], "e1", ends, "cd", "ef")] == await issued.find(svid_id="ab")
        assert {"ab", "J"} == {svid.id for svid in await issued.find(entry_id="e1")}
        assert {"ab", "J", "aa"} == {svid.id for svid in await issued.find(spiffe_id=web["spiffe_id"])}
        assert [] == await issued.find(svid_id="spiffe")

    async def test_what_has_ended_is_not_found(self, audit, issued, clock):
        """An SVID that no validator accepts any more, leeway and all, need not be revoked."""
        ends = int(clock.now().timestamp()) + 100
        audit.note("jwt_svid_issued", spiffe_id="spiffe://example.org/a", entry_id="e", jti="J", expires_at=ends)
        clock.advance(159)
        assert 1 == len(await issued.find(entry_id="e"))
        clock.advance(2)
        assert [] == await issued.find(entry_id="e")
