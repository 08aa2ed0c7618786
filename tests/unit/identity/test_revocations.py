"""revocations.py and issued_svids.py: what was issued is found, and is no longer good once it is on the list, or its identity."""

import asyncio
from datetime import timedelta

import pytest
from cryptography import x509
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from fakes.journals import FakeTaskStore
from fakes.revocations import FakeRevocationStore
from sojourn.audit.journal import Audit, Event, Record
from sojourn.audit.searchable import keys_of
from sojourn.authority import svid_stamps
from sojourn.authority.x509_profile import signer_id
from sojourn.errors import InvalidToken, LimitExceeded, StoreFull
from sojourn.errors.oauth import NotOnDisk
from sojourn.identity import revocations as module
from sojourn.identity.issued_svids import IssuedSvid, IssuedSvids
from sojourn.identity.revocation_list import ENTRY, NAME
from sojourn.identity.revocations import LOOK_SECONDS, RETRY_SECONDS, UNSETTLED_SECONDS, Revocations
from sojourn.runtime.clock import Alarms
from sojourn.spiffe.ids import SpiffeId

WEB = SpiffeId.parse("spiffe://example.org/web")
HOUR = timedelta(hours=1)
DAY = 86_400


async def nothing():
    return []


class Room:
    def __init__(self, folder):
        self.folder = folder
        self.clock = FakeClock()
        self.store = FakeRevocationStore()
        self.authority = authority_in(folder, self.clock)
        self.heard = 0
        self.epoch = 1
        self.open()

    def open(self):
        self.alarms = Alarms(self.clock)
        self.list = Revocations(self.store, self.authority, self.clock, self.alarms, epoch=self.epoch)
        self.list.on_change(self._hear)

    def restart(self, *, signer=True):
        """The next start of the agent, with what was written. Without `signer` the same authority goes on."""
        self.epoch += 1
        if signer:
            self.authority = authority_in(self.folder, self.clock)
        self.open()

    async def revoke(self, kind, in_use=(), find=nothing):
        identity = self.list.next_identity(kind, "e1" if kind == ENTRY else str(WEB))
        self.list.put_identity(identity, in_use)
        return await self.list.settle(identity, find, lambda _: Event(1, "svids_revoked", "{}"))

    def is_revoked(self, token):
        try:
            return self.list.check(token) is not token
        except InvalidToken as error:
            return error.reason_code == "revoked"

    def _hear(self):
        self.heard += 1

    def x509(self, ttl=HOUR):
        svid = self.authority.issue_x509(WEB, ttl, (), "e1")
        return IssuedSvid(
            "x509", svid.serial, str(WEB), "e1", int(svid.not_after.timestamp()),
            signer_id(svid.leaf), self.authority.root_of(svid),
        )  # fmt: skip

    def jwt(self):
        svid = self.authority.issue_jwt(WEB, ["a"], HOUR, None, "e1")
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
        room.restart()
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

    async def test_too_many(self, room):
        """Over the limit no single one is put on the list."""
        room.list.svids_max = 2
        with pytest.raises(LimitExceeded, match="--spiffe-id"):
            await room.list.revoke([room.x509() for _ in range(3)])
        assert 0 == len(room.list)

    async def test_what_has_ended_takes_no_room(self, room):
        """Those that have ended by now do not stand in the way of others."""
        room.list.svids_max = 2
        await room.list.revoke([room.x509(), room.x509()])
        room.clock.advance(3_601)
        assert 1 == len(await room.list.revoke([room.x509()]))


class TestIdentities:
    @pytest.mark.parametrize("kind", [ENTRY, NAME])
    async def test_all_that_was_issued(self, room, kind):
        """One row takes away all that an identity was given, however much, and nothing that it is given afterwards, also
        within the same second, and over a restart.
        """
        before, leaf = [room.jwt()[0] for _ in range(50)], room.x509()
        await room.revoke(kind)
        after, fresh = room.jwt()[0], room.x509()
        for _ in range(2):
            assert [True] * 50 == [room.is_revoked(each) for each in before]
            assert not room.is_revoked(after)
            assert (True, False) == (room.list.denies("x509", leaf.id, WEB), room.list.denies("x509", fresh.id, WEB))
            assert 1 == len(room.store.identities) == len(room.list.identities())
            room.restart()
        later = room.jwt()[0]
        await room.revoke(kind)
        assert [True, True] == [room.is_revoked(each) for each in (after, later)]

    async def test_another_identity(self, room):
        """Another SPIFFE ID, and another entry of the same one, keep what they have."""
        other = room.authority.issue_jwt(SpiffeId.parse("spiffe://example.org/web2"), ["a"], HOUR, None, "e2")
        same = room.authority.issue_jwt(WEB, ["a"], HOUR, None, "e2")
        await room.revoke(ENTRY)
        assert [False, False] == [room.is_revoked(each) for each in (other, same)]
        await room.revoke(NAME)
        assert [False, True] == [room.is_revoked(each) for each in (other, same)]

    async def test_what_says_nothing(self, room):
        """An SVID whose own ID does not say when it was issued is older than every revocation of its SPIFFE ID."""
        await room.revoke(NAME)
        assert [True, True, False] == [
            room.list.denies("jwt", "", WEB),
            room.list.denies("x509", "7b", WEB),
            room.list.denies("jwt", "A" * 22, SpiffeId.parse("spiffe://example.org/other")),
        ]

    @pytest.mark.parametrize("steps", [(2, -2), (3, -1), (6, -6)])
    async def test_a_clock_that_is_set(self, room, steps):
        """Days that the wall clock is set ahead before a revocation, and back after it, change nothing of what is revoked."""
        before = room.jwt()[0]
        room.clock.step_wall(86_400 * steps[0])
        await room.revoke(NAME)
        after = room.jwt()[0]
        room.clock.step_wall(86_400 * steps[1])
        assert (True, False, False) == (room.is_revoked(before), room.is_revoked(after), room.is_revoked(room.jwt()[0]))

    async def test_room_for_others(self, room):
        """An identity's X.509-SVIDs take half of the room in the CRLs that is left, those that end last; the others are
        denied all the same, and there is room for another identity.
        """
        room.list.svids_max = 8
        svids = [room.x509(HOUR + timedelta(minutes=each)) for each in range(10)]
        shown = await room.revoke(NAME, svids)
        assert (4, 6) == (shown.x509_svids, shown.left_out)
        assert {each.id for each in svids[6:]} == room.listed()
        assert all(room.list.denies("x509", each.id, WEB) for each in svids)
        assert ([], [shown]) == (room.list.svids(), room.list.identities())
        assert 4 == len(room.list.of_identity(shown))
        single = room.x509()
        await room.list.revoke([single])
        assert single.id in room.listed()

    async def test_a_repeated_revocation(self, room):
        """What was listed and left out before is told again, and each once: also of what is found in two ways."""
        room.list.svids_max = 8
        svids = [room.x509(HOUR + timedelta(minutes=each)) for each in range(10)]

        async def found():
            return svids

        shown = await room.revoke(NAME, svids, found)
        assert (6, 4) == (shown.x509_svids, shown.left_out)
        again = await room.revoke(NAME, [], found)
        assert (7, 3) == (again.x509_svids, again.left_out)
        assert 7 == len(room.listed())

    async def test_two_at_once(self, room):
        """Of two revocations of one identity the later counts, whichever is put on the list first."""
        first = room.list.next_identity(NAME, str(WEB))
        between = room.jwt()[0]
        second = room.list.next_identity(NAME, str(WEB))
        for identity in (second, first):
            room.list.put_identity(identity)
        for identity in (second, first):
            await room.list.settle(identity, nothing, lambda _: Event(1, "svids_revoked", "{}"))
        assert room.is_revoked(between)
        room.restart()
        assert room.is_revoked(between)

    async def test_what_fails_midway(self, room):
        """A revocation that is not settled, whatever failed, is written all the same."""

        def fails(_):
            raise RuntimeError("test")

        for settles in (False, True):
            token = room.jwt()[0]
            identity = room.list.next_identity(NAME, str(WEB))
            room.list.put_identity(identity)
            if settles:
                with pytest.raises(RuntimeError):
                    await room.list.settle(identity, nothing, fails)
            for seconds in (RETRY_SECONDS,) if settles else (UNSETTLED_SECONDS, RETRY_SECONDS):
                room.clock.advance(seconds)
                room.alarms.ring_due()
            await room.list._background.quiet()
            assert [identity.order] == [each.order for each in room.store.identities]
            room.restart()
            assert room.is_revoked(token)

    async def test_svids_that_cannot_be_looked_for(self, room):
        """If the journal cannot be read, the identity is revoked, and what is in use of it is in the CRLs."""
        svid = room.x509()

        async def fails():
            raise StoreFull("no room")

        await room.revoke(NAME, [svid], fails)
        assert ({svid.id}, 1) == (room.listed(), len(room.store.identities))

    async def test_too_many(self, room, monkeypatch):
        """Over the limit no further identity is revoked; one that is can be again."""
        monkeypatch.setattr(module, "REVOKED_IDENTITIES", 1)
        await room.revoke(NAME)
        await room.revoke(NAME)
        with pytest.raises(LimitExceeded):
            await room.revoke(ENTRY)


class TestRestored:
    async def test_what_was_issued_before(self, room):
        """After a restore each SVID of before is denied, of either kind and whatever its identity, and what is issued
        since is not.
        """
        (jwt, _), x509_svid = room.jwt(), room.x509()
        room.store.svids_from = svid_stamps.first_order(room.epoch + 1)
        room.restart()
        assert room.is_revoked(jwt)
        assert room.list.denies("x509", x509_svid.id, WEB)
        assert room.list.denies("x509", x509_svid.id, None)
        (later, _), later_x509 = room.jwt(), room.x509()
        assert not room.is_revoked(later)
        assert not room.list.denies("x509", later_x509.id, WEB)

    async def test_an_identity_that_is_revoked_since(self, room):
        """What was issued after a restore can be revoked as ever."""
        room.store.svids_from = svid_stamps.first_order(room.epoch + 1)
        room.restart()
        jwt, _ = room.jwt()
        await room.revoke(ENTRY)
        assert room.is_revoked(jwt)


class TestWrites:
    @pytest.mark.parametrize("again", ["by the caller", "behind"])
    async def test_a_store_that_fails(self, room, again):
        """What cannot be written is in force, and the caller is told what it is; the next call writes it, and so does the
        agent behind it, with the audit record.
        """
        room.store.failure = StoreFull("no room")
        token, (_, single), event = room.jwt()[0], room.jwt(), Event(1, "svids_revoked", "{}")
        with pytest.raises(NotOnDisk, match="not on disk yet: no room"):
            await room.list.revoke([single], [event])
        with pytest.raises(NotOnDisk):
            await room.revoke(NAME)
        assert room.is_revoked(token)
        assert [False, False] == [room.list.is_written(each) for each in (*room.list.svids(), *room.list.identities())]
        room.store.failure = None
        if again == "behind":
            room.clock.advance(RETRY_SECONDS)
            room.alarms.ring_due()
            await room.list._background.quiet()
        else:
            assert [] == await room.list.revoke([single])
        assert (1, 1) == (len(room.store.svids), len(room.store.identities))
        assert ["svids_revoked"] * 2 == [each.event for each in room.store.events]
        assert [True, True] == [room.list.is_written(each) for each in (*room.list.svids(), *room.list.identities())]
        room.restart()
        assert room.is_revoked(token)

    async def test_an_agent_that_stops(self, room):
        """What is not on disk when the agent stops is written then, if there is room."""
        room.store.failure = StoreFull("no room")
        with pytest.raises(NotOnDisk):
            await room.revoke(NAME)
        await room.list.close()
        assert [] == room.store.identities
        room.store.failure = None
        await room.list.close()
        assert 1 == len(room.store.identities)

    async def test_a_caller_that_goes(self, room):
        """A caller who goes away while it is being written, or while what was issued is looked for, stops nothing."""
        for find in (nothing, asyncio.Event().wait):
            token = room.jwt()[0]
            waiting = asyncio.ensure_future(room.revoke(NAME, find=find))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            room.clock.advance(RETRY_SECONDS)
            room.alarms.ring_due()
            await room.list._background.quiet()
            assert (True, 1) == (room.is_revoked(token), len(room.store.identities))
            room.store.rows.clear()


class TestTime:
    async def test_leaves_the_list(self, room):
        """A day after an SVID would have ended it leaves the CRLs, and what is revoked is forgotten once the agent has run
        for longer than any SVID lives.
        """
        await room.list.revoke([room.x509()])
        await room.revoke(NAME)
        for hour in range(8 * 24 + 1):
            assert (2, hour < 25) == (len(room.list), bool(room.listed())), hour
            room.clock.advance(LOOK_SECONDS)
            room.alarms.ring_due()
            room.authority.maintain()
            await room.list._background.quiet()
            if not len(room.list):
                break
        assert (8 * 24 - 1, 0, {}, ()) == (hour, len(room.list), room.store.rows, room.list.crls)
        assert not room.list.denies("jwt", "", WEB)

    @pytest.mark.parametrize("days", [2, 400])
    async def test_a_start_with_a_clock_that_is_ahead(self, room, days):
        """A start whose clock stands ahead, for hours too, forgets nothing: once it is right, all is as revoked as before."""
        token, (_, single), svid = room.jwt()[0], room.jwt(), room.x509()
        await room.list.revoke([single, svid])
        await room.revoke(NAME)
        room.clock.step_wall(86_400 * days)
        room.restart(signer=False)
        for _ in range(3):
            room.clock.advance(LOOK_SECONDS)
            room.alarms.ring_due()
            await room.list._background.quiet()
        assert set() == room.listed()
        room.clock.step_wall(-86_400 * days)
        room.alarms.ring_due()
        room.restart(signer=False)
        assert (True, True, {svid.id}) == (
            room.is_revoked(token),
            room.list.denies("jwt", single.id, None),
            room.listed(),
        )

    async def test_running_time_is_counted_over_starts(self, room):
        """An agent that is started anew each day forgets, too: it counts for how long it has run."""
        await room.revoke(NAME)
        for _ in range(9):
            for _ in range(24):
                room.clock.advance(LOOK_SECONDS)
                room.alarms.ring_due()
                await room.list._background.quiet()
            room.restart(signer=False)
        assert (0, {}) == (len(room.list), room.store.rows)

    @pytest.mark.parametrize(
        "back", ["by a step", "while it does not run", "while it does not run, and at its end it was killed"]
    )
    async def test_what_a_clock_that_was_ahead_has_made(self, room, back):
        """What was issued while the clock stood a month ahead ends a month later: it is denied until then, whether it was
        revoked by itself or with its identity, then or once the clock is right, and forgotten after.
        """
        room.clock.step_wall(30 * DAY)
        if back == "by a step":
            room.alarms.ring_due()
        else:
            room.restart(signer=False)
        room.alarms.ring_due()
        await room.list._background.quiet()
        token, (_, single) = room.jwt()[0], room.jwt()
        await room.list.revoke([single])
        if back == "while it does not run":
            await room.list.close()
        room.clock.step_wall(-30 * DAY)
        if back == "by a step":
            room.alarms.ring_due()
        else:
            room.restart(signer=False)
        await room.revoke(NAME)
        for day in range(42):
            expected = (day < 32, day < 38)
            assert expected == (room.list.denies("jwt", single.id, None), room.is_revoked(token)), day
            await self.run_a_day(room)
        assert (0, {}) == (len(room.list), room.store.rows)

    async def run_a_day(self, room):
        room.clock.advance(DAY)
        room.alarms.ring_due()
        await room.list._background.quiet()

    async def test_what_takes_away_with_a_clock_that_is_far_ahead(self, room):
        """A step that the agent notices late counts as it went on: it was so far ahead until then."""
        room.clock.step_wall(20 * DAY)
        room.alarms.ring_due()
        room.clock.advance(10 * DAY)
        token = room.jwt()[0]
        room.clock.step_wall(-30 * DAY)
        await room.revoke(NAME)
        for _ in range(30):
            await self.run_a_day(room)
        assert room.is_revoked(token)

    async def test_identities_of_a_clock_in_another_year(self, room, monkeypatch):
        """Those that were revoked more than eight days of running ago make room for others, the oldest first, if the clock
        once stood years ahead; sooner they do not.
        """
        monkeypatch.setattr(module, "REVOKED_IDENTITIES", 2)
        room.clock.step_wall(2_000 * DAY)
        room.alarms.ring_due()
        room.clock.step_wall(-2_000 * DAY)
        room.alarms.ring_due()
        await room.revoke(NAME)
        await room.revoke(ENTRY)
        with pytest.raises(LimitExceeded):
            room.list.next_identity(NAME, "spiffe://example.org/third")
        for _ in range(9):
            await self.run_a_day(room)
        assert 2 == len(room.list)
        third = room.list.next_identity(NAME, "spiffe://example.org/third")
        room.list.put_identity(third)
        await room.list.settle(third, nothing, lambda _: Event(1, "svids_revoked", "{}"))
        await room.list._background.quiet()
        assert ["e1", third.name] == sorted(each.name for each in room.list.identities())
        assert ["e1", third.name] == sorted(each.name for each in room.store.identities)

    @pytest.mark.parametrize("ending", ["stops", "is killed after a revocation"])
    async def test_an_agent_that_runs_for_minutes_at_a_time(self, room, ending):
        """It counts how long it has run when it stops, and with each revocation, and not by the hour alone."""
        await room.revoke(NAME)
        for number in range(20):
            room.clock.advance(DAY // 2 if ending == "stops" else 3_000)
            if ending == "stops":
                await room.list.close()
            else:
                await room.list.revoke([room.jwt()[1]])
            assert (number + 1) * (DAY // 2 if ending == "stops" else 3_000) == room.store.times.ran
            room.restart(signer=False)

    async def test_signed_anew(self, room):
        """A list is signed anew before it would be too old for those who read it."""
        await room.list.revoke([room.x509(timedelta(days=7))])
        before, heard = room.list.crls, room.heard
        for _ in range(26):
            room.clock.advance(LOOK_SECONDS)
            room.alarms.ring_due()
        await room.list._background.quiet()
        assert (True, heard + 1) == (before != room.list.crls, room.heard)

    async def test_what_has_ended_and_what_has_not(self, room):
        """No more SVIDs go out in the lists than a client takes: first what has not ended, then what ended last."""
        room.list.svids_max = 4
        ended = [room.x509(HOUR + timedelta(minutes=each)) for each in range(4)]
        await room.list.revoke(ended)
        room.clock.advance(2 * 3_600)
        alive = [room.x509() for _ in range(2)]
        await room.list.revoke(alive)
        assert {each.id for each in (*alive, *ended[2:])} == room.listed()

    async def test_what_has_ended_is_not_shown(self, room):
        """What would have ended by now is not shown as revoked."""
        svid = room.x509()
        await room.list.revoke([svid])
        room.clock.advance(3_601)
        assert [] == room.list.svids()

    async def test_rows_of_what_has_ended(self, room, monkeypatch):
        """Of an identity's X.509-SVIDs that have ended no more than a limit are remembered."""
        monkeypatch.setattr(module, "REVOCATION_ROWS", 3)
        first = [room.x509() for _ in range(3)]
        await room.revoke(NAME, first)
        room.clock.advance(3_600 + 86_400)
        await room.revoke(NAME, [room.x509(), room.x509()])
        await room.list._background.quiet()
        assert (3, 3) == (len(room.store.svids), len(room.list) - 1)
        assert all(room.list.denies("x509", each.id, WEB) for each in first)


class FakeJournal:
    """Finds records that were written, as a database does."""

    def __init__(self, store):
        self._store = store

    async def of_events(self, events, since_ms, key):
        return [
            Record(seq, event.at_ms, event.event, event.fields, "")
            for seq, event in enumerate(self._store.events, 1)
            if event.event in events and event.at_ms >= since_ms and key in keys_of(event.event, event.fields)
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
        return IssuedSvids(FakeJournal(audit._store), audit, clock)

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
