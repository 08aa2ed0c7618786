"""people_signals.py: what signed events do to people is what a logout and an operator's block do."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from fakes.blocks import KeptBlocks
from fakes.ended_sessions import KEY, FakeEndedStore
from fakes.families import FamilyRoom, handed_on
from fakes.people import table
from fakes.persons import CORP, for_people, person, refused
from sojourn.errors import AlreadyExists, InvalidEvent, LimitExceeded, StoreFailed
from sojourn.errors.oauth import NotOnDisk
from sojourn.people.ended_sessions import EndedSessions
from sojourn.people.issuer_rules import IssuerRules
from sojourn.policy.task_types import TypeSet
from sojourn.ssf.caep import PersonAct
from sojourn.ssf.subjects import PeopleIssuer, Whose
from sojourn.tasks import kill_switch
from sojourn.tasks.blocks import Block
from sojourn.tasks.end_people import EndPeople
from sojourn.tasks.kill_switch import KillSwitch
from sojourn.tasks.people_signals import PeopleSignals

ALICE = person("alice")
NOW = ALICE.issued_at
PEOPLE = PeopleIssuer("corp", CORP, is_itself=True)
SOURCE, ANOTHER = "https://signals.example.org", "https://others.example.org"
BY = {"by_uid": 1, "signal": "d1"}
TYPES = {"shared": for_people("shared", several="true"), "triage": handed_on(person='{need = "optional"}')}


@pytest.fixture
async def room(clock, stack):
    made = await stack.enter_async_context(FamilyRoom(clock, types=TypeSet(TYPES)).running())
    made.ended_store = FakeEndedStore()
    made.sessions = made.engine.standing.sessions = EndedSessions(KEY, made.ended_store, clock, made.alarms)
    made.blocks = KeptBlocks()
    made.switch = KillSwitch(made.engine, made.blocks, made.audit, clock, made.alarms)
    rules = replace(IssuerRules.of("corp", table()), url=CORP)
    made.ending_people = EndPeople(made.engine, made.sessions, {"corp": rules})
    made.signals = PeopleSignals(made.ending_people, made.switch)
    made.alice = made.engine.pseudonyms.named(CORP, "alice")
    return made


def act(deed, subject="alice", session="", at=NOW):
    return PersonAct(deed, "account-x", Whose(subject, session), datetime.fromtimestamp(at, UTC))


async def say(room, *deeds, source=SOURCE, **changes):
    for deed in deeds:
        await room.signals.apply(PEOPLE, act(deed, **changes), source, BY)


def later(seconds):
    """Alice's token of a new login."""
    return replace(ALICE, session=f"of {seconds}", issued_at=NOW + seconds)


class TestEnds:
    async def test_as_by_a_logout(self, room):
        """What is revoked at the issuer ends with what was handed on from it, of that session alone, and for good."""
        mine = await room.begin("triage", person=ALICE)
        below = await room.hand_on(mine, 0)
        home = await room.begin("shared", person=replace(ALICE, session="at home"))
        await say(room, "end", session=ALICE.session)
        assert [("revoked", "session_ended"), False, True] == [(mine.state, mine.reason), below.live, home.live]
        with refused("session_ended"):
            await room.begin("shared", person=ALICE)
        [said] = [each for each in room.ended_store.events if each.event == "person_session_ended"]
        assert SOURCE in said.fields
        assert "alice" not in said.fields

    async def test_all_sessions_until_then(self, room):
        """Without a session all of the person's ends that was begun with tokens of until it happened."""
        old = [await room.begin("shared", person=replace(ALICE, session=each)) for each in ("a", "b", "")]
        new, bobs = await room.begin("shared", person=later(10)), await room.begin("shared", person=person("bob"))
        await say(room, "end", at=NOW + 5)
        assert ([False] * 3, True, True) == ([each.live for each in old], new.live, bobs.live)

    async def test_in_force_before_it_is_on_disk(self, room):
        """Where it cannot be written the task is over all the same, and the issuer hears that it is not on disk."""
        task = await room.begin("shared", person=ALICE)
        room.ended_store.failure = StoreFailed("no room")
        with pytest.raises(NotOnDisk):
            await say(room, "end")
        assert not task.live
        room.ended_store.failure = None
        await say(room, "end")

    async def test_another_persons_session(self, room):
        """An event that names alice and the session of bob's task is refused; one that fits is not."""
        bobs = await room.begin("shared", person=person("bob"))
        with pytest.raises(InvalidEvent, match="another"):
            room.signals.check(PEOPLE, [act("end", session="session-of-bob")], [])
        fits = [act("end"), act("end", "bob", "session-of-bob"), act("end", "", "session-of-bob")]
        room.signals.check(PEOPLE, fits, [(bobs.id, Whose("bob"))])
        assert bobs.live

    async def test_another_persons_task(self, room):
        """An event that names alice, and as her session a live task for bob or for nobody, is refused; one that is over
        is nobody's.
        """
        bobs, nobodys = await room.begin("shared", person=person("bob")), await room.begin("triage")
        elsewhere = await room.begin("shared", person=replace(ALICE, url="https://elsewhere.example.org"))
        for task in (bobs, nobodys, elsewhere):
            with pytest.raises(InvalidEvent, match="not for them"):
                room.signals.check(PEOPLE, [], [(task.id, Whose("alice"))])
        hers = await room.begin("shared", person=ALICE)
        await say(room, "end", "end", subject="bob")
        room.signals.check(PEOPLE, [], [(hers.id, Whose("alice")), (bobs.id, Whose("alice"))])


class TestBlocks:
    async def test_until_enabled(self, room):
        """Whose account is disabled begins nothing, however new the token, until the same issuer enables it."""
        task = await room.begin("shared", person=ALICE)
        await say(room, "end", "block")
        assert not task.live
        with refused("person_blocked"):
            await room.begin("shared", person=later(100))
        [kept] = room.blocks.kept
        assert (room.alice, SOURCE, NOW) == (kept.name, kept.source, kept.since)
        assert SOURCE in kept.reason
        assert "alice" not in str(kept)
        await say(room, "unblock", at=NOW + 1)
        assert [] == room.blocks.kept
        assert (await room.begin("shared", person=later(100))).live
        with refused("session_ended"):
            await room.begin("shared", person=replace(ALICE, session="x"))

    async def test_not_by_another(self, room):
        """What one issuer has disabled another does not enable, nor the same one for somebody else."""
        await say(room, "block")
        await say(room, "unblock", source=ANOTHER, at=NOW + 9)
        await say(room, "unblock", subject="bob", at=NOW + 9)
        with refused("person_blocked"):
            await room.begin("shared", person=later(100))

    async def test_an_operators_block(self, room):
        """What an operator has blocked no event unblocks, also where one has blocked it too, before or after."""
        await say(room, "block")
        await room.switch.switch_off("person", room.alice, "under review", {})
        await say(room, "block", at=NOW + 1)
        assert 2 == len(room.engine.blocks.all())
        await say(room, "unblock", at=NOW + 9)
        [left] = room.engine.blocks.all()
        assert ("under review", "") == (left.reason, left.source)
        with refused("person_blocked") as raised:
            await room.begin("shared", person=later(100))
        assert "under review" in raised.value.public
        await room.switch.switch_on("person", room.alice, {})
        assert (await room.begin("shared", person=later(100))).live

    async def test_an_operator_lifts_all(self, room):
        """An operator unblocks whoever was blocked, by whomever."""
        await say(room, "block")
        await say(room, "block", source=ANOTHER)
        await room.switch.switch_on("person", room.alice, {})
        assert ([], []) == (room.engine.blocks.all(), room.blocks.kept)

    async def test_in_another_order(self, room):
        """An event that comes late changes nothing of what has happened since: enabled before it was disabled once
        more, or disabled before it was enabled.
        """
        await say(room, "block", at=NOW + 10)
        await say(room, "block", at=NOW + 30)
        await say(room, "unblock", at=NOW + 20)
        with refused("person_blocked"):
            await room.begin("shared", person=later(100))
        await say(room, "unblock", at=NOW + 40)
        await say(room, "block", at=NOW + 35)
        assert (await room.begin("shared", person=later(100))).live

    @pytest.mark.parametrize("deeds", [("unblock", "block"), ("block", "unblock"), ("block", "unblock", "block")])
    async def test_of_the_same_second(self, room, deeds):
        """Enabled and disabled within one second, in whatever order they come: the account stays blocked."""
        for number, deed in enumerate(deeds):
            await say(room, deed, at=NOW + 10 + 0.2 * number)
        with refused("person_blocked"):
            await room.begin("shared", person=later(100))
        await say(room, "unblock", at=NOW + 11)
        assert (await room.begin("shared", person=later(100))).live

    async def test_again(self, room):
        """The same once more is not written again."""
        await say(room, "block")
        writes = room.blocks.writes
        await say(room, "block")
        assert writes == room.blocks.writes
        await room.switch.switch_off("person", room.alice, "", {})
        with pytest.raises(AlreadyExists):
            await room.switch.switch_off("person", room.alice, "", {})

    async def test_in_force_before_it_is_on_disk(self, room):
        """Where a block cannot be written it is in force, and is written when the event comes again."""
        room.blocks.failure = StoreFailed("no room")
        with pytest.raises(StoreFailed):
            await say(room, "block")
        with refused("person_blocked"):
            await room.begin("shared", person=later(100))
        room.blocks.failure = None
        await say(room, "block")
        assert [room.alice] == [each.name for each in room.blocks.kept]

    async def test_a_flood(self, room, monkeypatch):
        """Issuers that disable people without end fill their own room, and leave operators theirs."""
        monkeypatch.setattr(kill_switch, "PEOPLE_BLOCKED_BY_SIGNALS", 3)
        for number in range(3):
            await say(room, "block", subject=f"p{number}")
        with pytest.raises(LimitExceeded):
            await say(room, "block", subject="p3")
        await room.switch.switch_off("person", room.alice, "", {})
        assert 4 == len(room.engine.blocks.all())

    async def test_records_of_before(self):
        """A block of an earlier release is an operator's."""
        assert "" == Block(kind="person", name="psn_x", reason="r", since=1).source
