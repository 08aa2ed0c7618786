"""svid_rotation.py with a signer that keeps callers waiting, fails, or never answers."""

import asyncio
from datetime import timedelta

import pytest
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from fakes.journals import FakeAuditStore
from fakes.registrations import entry
from fakes.signers import LateSigner, late_signers
from harness.looking import idle
from sojourn.audit.journal import Audit
from sojourn.errors import Unavailable
from sojourn.identity import signatures as signatures_module
from sojourn.identity import svid_rotation as module
from sojourn.identity.signatures import Overtaken
from sojourn.identity.svid_issuer import SvidIssuer
from sojourn.identity.svid_rotation import Svids
from sojourn.identity.svid_signers import x509_signer
from sojourn.limits import (
    SIGNATURE_RETRY_MAX_SECONDS,
    SIGNATURE_RETRY_SECONDS,
    SIGNATURES_AT_ONCE,
    SIGNATURES_AT_ONCE_PER_ENTRY,
)
from sojourn.runtime.clock import Alarms
from structlog.testing import capture_logs

TTL = timedelta(hours=1)
DUE = TTL * 0.6
WEB, DB = entry("/web"), entry("/db")


class Room:
    def __init__(self, folder):
        self.clock = FakeClock()
        self.alarms = Alarms(self.clock)
        self.signer = LateSigner(x509_signer(authority_in(folder, self.clock), TTL))
        self.audited, self.rotated, self.forgotten = [], [], []
        self.svids = Svids(
            self.signer, self.clock, self.alarms, lambda entry, svid: self.audited.append((entry.id, svid.serial))
        )
        self.svids.on_rotation(self.rotated.append)
        self.svids.on_forget(lambda: self.forgotten.append(1))

    async def goes_by(self, time):
        self.clock.advance(time.total_seconds())
        self.alarms.ring_due()
        await idle()

    def ask(self, each=WEB):
        return asyncio.ensure_future(self.svids.get(each))

    async def first(self, each=WEB):
        """Have one that is watched in use, and keep whoever asks next waiting."""
        self.svids.watch(each.key)
        self.signer.let_go()
        svid = await self.svids.get(each)
        self.signer.hold()
        self.rotated.clear()
        return svid

    def asked(self):
        return [each.id for each in self.signer.asked]


@pytest.fixture
async def room(tmp_path):
    return Room(tmp_path / "keys")


async def test_what_cannot_be_recorded(room):
    """An SVID of which no record can be made is nobody's, and is not there for the next one either."""

    def fail(*_):
        raise Unavailable("no room for a record")

    room.svids._issued = fail
    room.signer.let_go()
    for _ in range(2):
        with pytest.raises(Unavailable, match="no room for a record"):
            await room.svids.get(WEB)
    assert [] == room.svids.kept()


async def test_a_signer_that_no_longer_vouches(room):
    """What was signed by a key that has gone is given to nobody else: whoever asks waits for another one."""
    first = await room.first()
    room.signer.trusted = False
    assert room.svids.look(WEB) is None
    room.signer.trusted = True
    assert first is room.svids.look(WEB)


class TestGet:
    async def test_once_for_all_who_ask(self, room):
        """Looking keeps nobody waiting; all who wait get the same SVID, which is recorded once and is there then."""
        assert room.svids.look(WEB) is None
        asking = [room.ask() for _ in range(5)]
        await idle()
        room.signer.let_go()
        first, *others = await asyncio.gather(*asking)
        assert all(each is first for each in others)
        assert room.svids.look(WEB) is first
        assert ([WEB.id], [(WEB.id, first.serial)]) == (room.asked(), room.audited)

    async def test_others_are_served_meanwhile(self, room):
        """A signature that hangs for one identity holds up no other, not to speak of what is there."""
        db = await room.first(DB)
        hanging = room.ask()
        await idle()
        assert db is room.svids.look(DB) is await room.svids.get(DB)
        other = room.ask(entry("/other"))
        await idle()
        assert [DB.id, WEB.id, entry("/other").id] == room.asked()
        room.signer.let_go()
        await asyncio.gather(hanging, other)

    async def test_a_waiter_that_goes(self, room):
        """Who goes away takes nothing from the others, and what nobody got is neither kept nor recorded."""
        gone, stays = room.ask(), room.ask()
        alone = room.ask(DB)
        await idle()
        gone.cancel()
        alone.cancel()
        await idle()
        room.signer.let_go()
        svid = await stays
        await idle()
        assert [(WEB.id, svid.serial)] == room.audited
        assert [WEB.id] == [kept.entry.id for kept in room.svids.kept()]

    async def test_never_answered(self, room, monkeypatch):
        """Who waits for a signer that never answers is told so in time."""
        monkeypatch.setattr(signatures_module, "SIGNATURE_WAIT_SECONDS", 0.02)
        with pytest.raises(Unavailable, match="not signed within"):
            await room.svids.get(WEB)
        assert [] == room.audited

    async def test_failure(self, room):
        """What signing fails with is told to whoever waits; the next who asks has it tried again."""
        room.signer.let_go()
        room.signer.failing = Unavailable("the signer is away")
        with pytest.raises(Unavailable, match="away"):
            await room.svids.get(WEB)
        room.signer.failing = None
        assert WEB.spiffe_id == (await room.svids.get(WEB)).spiffe_id

    async def test_that_is_not_good_by_our_clock(self, room):
        """What is signed by a clock that is wrong is not given."""
        asking = room.ask()
        await idle()
        room.clock.step_wall(-86_400)
        room.signer.let_go()
        with pytest.raises(Unavailable, match="clock"):
            await asking
        assert ([], []) == (room.audited, room.svids.kept())


class TestWhileItIsSigned:
    @pytest.mark.parametrize("how", ["entry", "identity", "revoked"])
    async def test_the_identity_goes(self, room, how):
        """An entry that is deleted, or an identity that is revoked, meanwhile: what was asked for is given to nobody."""
        asking = room.ask()
        await idle()
        {
            "entry": lambda: room.svids.forget_entry(WEB.id),
            "identity": lambda: room.svids.forget(WEB.key),
            "revoked": lambda: room.svids.give_up(lambda key: key == WEB.key),
        }[how]()
        room.signer.let_go()
        with pytest.raises(Overtaken):
            await asking
        await idle()
        assert ([], [], 1) == (room.audited, room.svids.kept(), room.signer.cancelled)

    async def test_another_identity_goes(self, room):
        """What others lose meanwhile is nothing to those who wait."""
        asking = room.ask()
        await idle()
        room.svids.forget_entry(DB.id)
        room.svids.give_up(lambda key: key == DB.key)
        room.signer.let_go()
        assert WEB.spiffe_id == (await asking).spiffe_id

    async def test_just_as_it_is_there(self, room):
        """What is forgotten in the moment in which it lands is not given to whoever waited for it."""
        asking = room.ask()
        await idle()
        room.svids.on_rotation(
            lambda _: asyncio.get_running_loop().call_soon(room.svids.forget_entry, WEB.id)
        )  # runs before the waiter
        room.signer.let_go()
        with pytest.raises(Overtaken):
            await asking
        assert [] == room.svids.kept()

    async def test_the_entry_changes(self, room):
        """Who asks with the changed entry gets an SVID for that, whatever was under way."""
        old = room.ask()
        await idle()
        changed = entry("/web", id=WEB.id, dns_names=("web.example",), revision=1)
        new = room.ask(changed)
        await idle()
        room.signer.let_go()
        with pytest.raises(Overtaken):
            await old
        await new
        assert [changed] == [kept.entry for kept in room.svids.kept()]

    async def test_its_authority_is_tainted(self, room):
        """What an authority has signed that is tainted by then is signed again; if that is so too, nobody gets it."""
        asking = room.ask()
        await idle()
        room.signer.trusted = False
        room.signer.let_go()
        with pytest.raises(Unavailable, match="authority"):
            await asking
        assert ([WEB.id, WEB.id], []) == (room.asked(), room.audited)


class TestRotation:
    async def test_what_is_in_use_is_served_meanwhile(self, room):
        """Until its successor is there the SVID in use is served, at once; then those who watch are told."""
        old = await room.first()
        await room.goes_by(DUE)
        assert (old, [], [WEB.id] * 2) == (room.svids.look(WEB), room.rotated, room.asked())
        room.signer.let_go()
        await idle()
        assert [WEB.key] == room.rotated
        assert old is not room.svids.look(WEB)
        assert 2 == len(room.audited)

    async def test_again_and_again(self, room):
        """It goes on for as long as somebody watches."""
        await room.first()
        room.signer.let_go()
        for count in range(1, 6):
            await room.goes_by(DUE)
            assert count == len(room.rotated)

    async def test_failure_is_tried_again(self, room):
        """It is tried again after pauses that grow, up to a limit; what is in use is served on, and nobody is told."""
        old = await room.first()
        room.signer.let_go()
        room.signer.failing = Unavailable("away")
        await room.goes_by(DUE)
        tries, pause = [], SIGNATURE_RETRY_SECONDS
        for _ in range(8):
            before = len(room.asked())
            await room.goes_by(timedelta(seconds=pause))
            tries.append(len(room.asked()) - before)
            pause = min(2 * pause, SIGNATURE_RETRY_MAX_SECONDS)
        assert ([1] * 8, old, []) == (tries, room.svids.look(WEB), room.rotated)
        room.signer.failing = None
        await room.goes_by(timedelta(seconds=SIGNATURE_RETRY_MAX_SECONDS))
        assert [WEB.key] == room.rotated
        assert {} == room.svids._tries

    async def test_until_its_end(self, room):
        """If it cannot be renewed until it ends, those who watch are told, and it is not served any more."""
        await room.first()
        room.signer.let_go()
        room.signer.failing = Unavailable("away")
        for _ in range(200):
            await room.goes_by(timedelta(seconds=20))
        assert WEB.key in room.rotated
        assert room.svids.look(WEB) is None
        assert 1.0 <= room.svids.oldest_share()
        with pytest.raises(Unavailable, match="away"):
            await room.svids.get(WEB)

    async def test_a_hanging_signer(self, room, monkeypatch):
        """A signer that never answers is given up, and asked again; what is in use is served."""
        old = await room.first()
        monkeypatch.setattr(signatures_module, "SIGNATURE_SECONDS", 0.01)
        await room.goes_by(DUE)
        await asyncio.sleep(0.05)
        await room.goes_by(timedelta(seconds=SIGNATURE_RETRY_SECONDS))
        assert (3, old) == (len(room.asked()), room.svids.look(WEB))

    async def test_the_watcher_goes_meanwhile(self, room):
        """What is renewed for nobody any more replaces what is kept for who comes next."""
        old = await room.first()
        await room.goes_by(DUE)
        room.svids.unwatch(WEB.key)
        assert old is room.svids.look(WEB)
        room.signer.let_go()
        await idle()
        assert old is not room.svids.look(WEB)

    async def test_nobody_watches(self, room):
        """One that is due while nobody watches is kept for who comes next, who has it renewed behind it."""
        old = await room.first()
        room.svids.unwatch(WEB.key)
        await room.goes_by(DUE)
        assert [WEB.id] == room.asked()
        assert old is room.svids.look(WEB)
        room.signer.let_go()
        await idle()
        assert ([WEB.id] * 2, True) == (room.asked(), room.svids.look(WEB) is not old)

    async def test_nobody_watches_and_nobody_comes(self, room):
        """It is dropped at its end, and no copy of its key stays."""
        await room.first()
        room.svids.unwatch(WEB.key)
        await room.goes_by(DUE)
        assert (1, []) == (len(room.svids.kept()), room.forgotten)
        await room.goes_by(TTL)
        assert ([], [1]) == (room.svids.kept(), room.forgotten)

    async def test_revoked_meanwhile(self, room):
        """One that is forgotten while its successor is signed is replaced by what is asked for from then on alone."""
        await room.first()
        await room.goes_by(DUE)
        room.svids.forget(WEB.key)
        room.signer.let_go()
        await idle()
        assert ([], 1) == (room.rotated, len(room.audited))
        await room.svids.get(WEB)
        assert 3 == len(room.asked())


class TestReissue:
    async def test_it_waits_for_the_new_ones(self, room):
        """Whoever has SVIDs replaced waits until they are; what was under way before is given to nobody."""
        for each in (WEB, DB):
            await room.first(each)
        await room.goes_by(DUE)
        before = [kept.svid for kept in room.svids.kept()]
        replacing = asyncio.ensure_future(room.svids.reissue(lambda _: True))
        await idle()
        assert (False, 2) == (replacing.done(), room.signer.cancelled)
        room.signer.let_go()
        assert 2 == await replacing
        assert not {each.serial for each in before} & {kept.svid.serial for kept in room.svids.kept()}

    async def test_it_does_not_wait_for_ever(self, room, monkeypatch):
        """What takes too long is replaced behind it."""
        old = await room.first()
        monkeypatch.setattr(module, "REISSUE_WAIT_SECONDS", 0.01)
        assert 1 == await room.svids.reissue(lambda _: True)
        assert old is room.svids.look(WEB)
        room.signer.let_go()
        await idle()
        assert old is not room.svids.look(WEB)

    async def test_nobody_watches(self, room):
        """What nobody watches is dropped, and not kept for who comes next: it may be tainted."""
        await room.first()
        room.svids.unwatch(WEB.key)
        assert 1 == await room.svids.reissue(lambda _: True)
        assert [] == room.svids.kept()


class TestBegin:
    async def test_for_who_watches(self, room):
        """What is begun for a stream is told to it when it is there; asking again begins nothing more."""
        room.svids.watch(WEB.key)
        for _ in range(3):
            room.svids.begin(WEB)
        await idle()
        room.signer.let_go()
        await idle()
        assert ([WEB.id], [WEB.key]) == (room.asked(), room.rotated)

    async def test_failure_is_tried_again(self, room):
        """It is tried again in its time for as long as somebody watches, and no sooner by beginning it."""
        room.svids.watch(WEB.key)
        room.signer.let_go()
        room.signer.failing = Unavailable("away")
        for _ in range(3):
            room.svids.begin(WEB)
            await idle()
        assert [WEB.id] == room.asked()
        await room.goes_by(timedelta(seconds=SIGNATURE_RETRY_SECONDS))
        assert [WEB.id] * 2 == room.asked()
        room.svids.unwatch(WEB.key)
        await room.goes_by(timedelta(seconds=SIGNATURE_RETRY_MAX_SECONDS))
        assert ([WEB.id] * 2, {}) == (room.asked(), room.svids._tries)

    @pytest.mark.parametrize("how", ["forget_entry", "forget"])
    async def test_no_more_of_what_is_gone(self, room, how):
        """What could not be signed for an entry that is gone is not tried again."""
        room.svids.watch(WEB.key)
        room.signer.let_go()
        room.signer.failing = Unavailable("away")
        room.svids.begin(WEB)
        await idle()
        getattr(room.svids, how)(WEB.id if how == "forget_entry" else WEB.key)
        await room.goes_by(timedelta(seconds=SIGNATURE_RETRY_MAX_SECONDS))
        assert ([WEB.id], {}) == (room.asked(), room.svids._tries)


class TestSteps:
    async def test_a_step_of_the_wall_clock(self, room):
        """What is not good by the new time is not served; it is renewed, and those who watch are told then."""
        room.alarms.on_step(room.svids.check_clock)
        await room.first()
        room.clock.advance(86_400 * 2)
        room.alarms.ring_due()
        room.signer.let_go()
        await idle()
        room.signer.hold()
        room.rotated.clear()
        room.clock.step_wall(86_400)
        room.alarms.ring_due()
        await idle()
        assert room.svids.look(WEB) is None
        room.signer.let_go()
        await idle()
        assert room.svids.look(WEB) is not None
        assert [WEB.key] == room.rotated


async def test_signers_that_come_and_go(room):
    """Whatever fails in between, and whoever goes, all who stay are served in the end and nothing is left behind."""
    entries = [entry(f"/n{number}") for number in range(30)]
    room.signer.let_go()
    for each in entries:
        room.svids.watch(each.key)
    for number in range(20):
        room.signer.failing = Unavailable("away") if number % 3 else None
        asking = [room.ask(each) for each in entries[number:]]
        await idle()
        if number % 4 == 0:
            room.svids.forget_entry(entries[number].id)
        await asyncio.gather(*asking, return_exceptions=True)
        await room.goes_by(TTL * 0.3)
    room.signer.failing = None
    await room.goes_by(timedelta(seconds=SIGNATURE_RETRY_MAX_SECONDS))
    assert len({(await room.svids.get(each)).serial for each in entries}) == len(entries)
    await idle()
    assert ({}, 0) == (room.svids._tries, len(room.svids._signatures))


class TestLog:
    """An outage meets every identity, and each is tried again for as long as it lasts: the log must not grow by that."""

    async def fails(self, room, error, times=6):
        room.signer.failing = error
        room.signer.let_go()
        with capture_logs() as lines:
            await room.goes_by(DUE)
            for _ in range(times):
                await room.goes_by(timedelta(seconds=SIGNATURE_RETRY_MAX_SECONDS))
        return [each for each in lines if each["event"] in {"svid_not_rotated", "svid_not_signed"}]

    async def test_an_outage(self, room):
        """That an SVID is not renewed since a server is away is one warning with its reason, and no traceback."""
        await room.first()
        await room.first(DB)
        lines = await self.fails(room, Unavailable("the server is away"))
        assert {WEB.id, DB.id} == {each["entry_id"] for each in lines}
        assert 2 == len(lines)
        assert all(each["log_level"] == "warning" and "exc_info" not in each for each in lines)
        assert {("unavailable", "the server is away")} == {(each["code"], each["reason"]) for each in lines}

    async def test_the_next_outage(self, room):
        """Once it was renewed, the next outage is told anew."""
        await room.first()
        assert 1 == len(await self.fails(room, Unavailable("away")))
        room.signer.failing = None
        await room.goes_by(timedelta(seconds=SIGNATURE_RETRY_MAX_SECONDS))
        assert 1 == len(await self.fails(room, Unavailable("away")))

    async def test_a_first_one(self, room):
        """The same of a first SVID, and of nobody's nothing is kept."""
        room.svids.watch(WEB.key)
        room.svids.begin(WEB)
        lines = await self.fails(room, Unavailable("away"))
        assert ["svid_not_signed"] == [each["event"] for each in lines]
        room.svids.unwatch(WEB.key)
        assert {} == room.svids._told

    async def test_a_fault_of_ours(self, room):
        """What should not be is told with where it is, each time."""
        await room.first()
        lines = await self.fails(room, ZeroDivisionError("a fault"))
        assert len(lines) > 2
        assert all(each["log_level"] == "error" and each["exc_info"] for each in lines)


async def test_another_kind_hangs(tmp_path):
    """Where the signer of JWT-SVIDs hangs, and entries ask for ever other audiences, X.509-SVIDs are had as before."""
    clock = FakeClock()
    authority = authority_in(tmp_path / "keys", clock)
    signers = late_signers(authority)
    issuing = SvidIssuer(authority, signers, clock, Alarms(clock), Audit(FakeAuditStore(), clock))

    async def again():
        """The caller may have it still."""

    asking = [
        asyncio.ensure_future(issuing.jwt.get([entry(f"/e{each}")], [f"a{number}"], again))
        for each in range(SIGNATURES_AT_ONCE // SIGNATURES_AT_ONCE_PER_ENTRY)
        for number in range(SIGNATURES_AT_ONCE_PER_ENTRY + 1)
    ]
    await idle()
    assert SIGNATURES_AT_ONCE == signers.jwt.at_work  # each place is taken
    signers.x509.let_go()
    svid = asyncio.ensure_future(issuing.x509.get(WEB))
    await idle()
    assert svid.done()
    for each in asking:
        each.cancel()
    await asyncio.wait(asking)
    issuing.jwt.forget()
