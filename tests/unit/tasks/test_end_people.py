"""end_people.py: whatever is done for a person ends with their session, and nothing of before begins again."""

import asyncio
from dataclasses import replace

import pytest
from fakes.blocks import KeptBlocks
from fakes.ended_sessions import KEY, FakeEndedStore
from fakes.families import FamilyRoom, handed_on
from fakes.next_run import NextRun
from fakes.persons import CORP, LIFE, ScriptedTokens, for_people, good_until, issuer_rules, person, refused
from fakes.task_types import TICKETS, task_type
from sojourn.errors import InvalidInput, NotFound, StoreFailed, TaskOver
from sojourn.errors.oauth import NotOnDisk
from sojourn.people.ended_sessions import EndedSessions
from sojourn.policy.task_types import TypeSet
from sojourn.tasks.end_people import EndPeople
from sojourn.tasks.kill_switch import KillSwitch
from sojourn.tasks.person_renewal import PersonRenewal
from sojourn.tasktoken.end_reasons import ADMIN

ALICE = person("alice")
NOW = ALICE.issued_at
SHARED = for_people("shared", several="true")
TYPES = {
    "shared": SHARED,
    "triage": handed_on(person='{need = "optional", several = true}'),
    "approved": task_type("approved", params=None, person='{need = "required"}', approval='{within = "10m"}'),
}


@pytest.fixture
async def room(clock, stack):
    made = await stack.enter_async_context(FamilyRoom(clock, types=TypeSet(TYPES)).running())
    made.ended_store = FakeEndedStore()
    made.sessions = made.engine.standing.sessions = EndedSessions(KEY, made.ended_store, clock, made.alarms)
    made.ending_people = EndPeople(made.engine, made.sessions, {"corp": issuer_rules()})
    made.block_store = KeptBlocks()
    made.switch = KillSwitch(made.engine, made.block_store, made.audit, clock, made.alarms)
    return made


def how(*tasks):
    return [(each.state, each.reason) for each in tasks]


OVER = ("revoked", "session_ended")


class TestEnds:
    async def test_a_session_and_its_tree(self, room):
        """All tasks of the session end with what was handed on; those of another session, of another person, and of
        nobody go on.
        """
        mine = await room.begin("triage", person=ALICE)
        below = await room.hand_on(mine, 0)
        deeper = await room.hand_on(below, 1)
        home = await room.begin("shared", person=replace(ALICE, session="at home"))
        bob, nobody = await room.begin("shared", person=person("bob")), await room.begin("triage")
        token = await room.engine.token(mine, TICKETS, ())
        ended = await room.ending_people.end("corp", session=ALICE.session, subject="alice", at=NOW)
        assert {mine.id, below.id, deeper.id} == {each.id for each in ended}
        assert not any(each.live for each in (mine, below, deeper))
        assert OVER == (mine.state, mine.reason)
        assert all(each.live for each in (home, bob, nobody))
        with pytest.raises(TaskOver):
            room.engine.check_token(token)
        [said] = [each for each in room.ended_store.events if each.event == "person_session_ended"]
        assert "alice" not in said.fields
        assert ALICE.session not in said.fields

    async def test_all_of_a_person(self, room):
        """A logout that names no session ends all that was begun with tokens of until then."""
        tasks = [await room.begin("shared", person=replace(ALICE, session=each)) for each in ("a", "b", "")]
        later = await room.begin("shared", person=replace(ALICE, session="c", issued_at=NOW + 1))
        await room.ending_people.end("corp", subject="alice", at=NOW)
        assert [OVER] * 3 == how(*tasks)
        assert later.live

    async def test_without_a_session(self, room):
        """A task whose token named no session ends with any session of its person."""
        task = await room.begin("shared", person=replace(ALICE, session=""))
        await room.ending_people.end("corp", session="some", subject="alice", at=NOW)
        assert [OVER] == how(task)

    async def test_pending_and_suspended(self, room):
        """A task that waits for approval, and one that is suspended, end as well, and cannot be resumed."""
        pending = await room.begin("approved", person=ALICE)
        held = await room.begin("shared", person=ALICE)
        await room.changing.suspend(held, "operator", "a look")
        await room.ending_people.end("corp", session=ALICE.session, at=NOW)
        assert [OVER, OVER] == how(pending, held)
        with pytest.raises(TaskOver):
            await room.changing.resume(held, "operator")

    async def test_many(self, room):
        """However many tasks there are for others, one session's end ends its own and no other."""
        mine = [await room.begin("shared", person=ALICE) for _ in range(5)]
        others = [await room.begin("shared", person=person(f"p{number}")) for number in range(30)]
        assert 5 == len(await room.ending_people.end("corp", session=ALICE.session, at=NOW))
        assert not any(each.live for each in mine)
        assert all(each.live for each in others)


class TestAfter:
    async def test_a_token_of_before(self, room):
        """No token of the session begins a task or renews one; a new login does, and revives nothing."""
        task = await room.begin("shared", person=ALICE)
        await room.ending_people.end("corp", session=ALICE.session, subject="alice", at=NOW)
        for each in (ALICE, replace(ALICE, issued_at=NOW + 50), replace(ALICE, session="")):
            with refused("session_ended"):
                await room.begin("shared", person=each)
        again = await room.begin("shared", person=replace(ALICE, session="new", issued_at=NOW + 50))
        assert again.live
        assert not task.live

    async def test_a_logout_between_the_token_and_the_task(self, room):
        """A logout that comes when the token was verified, and the task has not begun, is no later than one before."""
        triage = await room.begin("triage")
        verified = await ScriptedTokens({"text": ALICE}).verify("text", "", triage.spiffe_id)
        await room.ending_people.end("corp", session=ALICE.session, at=NOW)
        with refused("session_ended"):
            await room.begin("shared", person=verified)

    async def test_a_logout_while_a_task_is_written(self, room):
        """A task whose beginning is being written is ended by a logout, and its caller gets none."""
        room.store.gate = asyncio.Event()
        beginning = asyncio.ensure_future(room.begin("shared", person=ALICE))
        while not room.engine.tasks.people.of_session(CORP, ALICE.session):
            await asyncio.sleep(0)
        ending = asyncio.ensure_future(room.ending_people.end("corp", session=ALICE.session, at=NOW))
        await asyncio.sleep(0)
        room.store.gate.set()
        assert 1 == len(await ending)
        with pytest.raises(TaskOver):
            await beginning

    async def test_no_renewal(self, room):
        """A newer token of a session that has ended renews nothing, also of a task that names no session."""
        task = await room.begin("shared", person=replace(ALICE, session=""))
        room.sessions.end(CORP, session="other", subject="", at=NOW, longest=3600)
        renewal = PersonRenewal(room.engine, room.changing, ScriptedTokens({}))
        newer = good_until(ALICE, NOW + 2 * LIFE, session="other", issued_at=NOW + 1)
        with refused("session_ended"):
            await renewal.renew_verified(task, newer, "digest")
        assert LIFE == task.person.expires_at - NOW

    async def test_the_disk_does_not_take_it(self, room):
        """Where the disk does not take it, the tasks are over all the same, and whoever says so hears that it is not
        written.
        """
        task = await room.begin("shared", person=ALICE)
        room.ended_store.failure = StoreFailed("no room")
        with pytest.raises(NotOnDisk):
            await room.ending_people.end("corp", session=ALICE.session, at=NOW)
        assert [OVER] == how(task)
        with refused("session_ended"):
            await room.begin("shared", person=ALICE)


class TestOverARestart:
    async def test_killed_in_between(self, room, stack):
        """Where the agent is killed when the session's end is on disk, and those of its tasks are not, the next start
        ends them; a task of another session comes back.
        """
        mine = await room.begin("shared", person=ALICE)
        home = await room.begin("shared", person=replace(ALICE, session="at home"))
        room.sessions.end(CORP, session=ALICE.session, subject="", at=NOW, longest=3600)
        await room.sessions.settle([])
        kept = EndedSessions(KEY, room.ended_store, room.clock, room.alarms)
        later = await NextRun.after(room, stack, sessions=kept)
        assert home.id == later.only.id
        [over] = room.store.fields("task_ended")
        assert (mine.id, *OVER) == (over["task"], over["state"], over["reason"])


class TestOperators:
    async def test_end(self, room):
        """An operator ends all that is done for somebody, with the tokens that their tasks have, and says why."""
        task = await room.begin("shared", person=replace(ALICE, issued_at=NOW + 30))
        await room.ending_people.end("corp", subject="alice", reason=ADMIN, explanation="left the company")
        assert ("revoked", "admin", "left the company") == (task.state, task.reason, task.explanation)
        with refused("session_ended"):
            await room.begin("shared", person=replace(ALICE, issued_at=NOW + 30))
        assert (await room.begin("shared", person=replace(ALICE, issued_at=NOW + 31))).live

    async def test_nobody(self, room):
        """An issuer that there is not, and a call that names nobody, are refused."""
        with pytest.raises(NotFound):
            await room.ending_people.end("other", session="s")
        with pytest.raises(InvalidInput):
            await room.ending_people.end("corp")
        assert 0 == len(room.sessions)

    async def test_block(self, room):
        """For somebody who is blocked all tasks end and none begins, however new the token, until they are unblocked;
        the list has no name of theirs.
        """
        task, bobs = await room.begin("shared", person=ALICE), await room.begin("shared", person=person("bob"))
        name = room.engine.pseudonyms.named(CORP, "alice")
        assert [task] == list(await room.switch.switch_off("person", name, "left", {}))
        assert [("revoked", "blocked"), ("active", "")] == how(task, bobs)
        with refused("person_blocked"):
            await room.begin("shared", person=replace(ALICE, session="new", issued_at=NOW + 100))
        assert "alice" not in str(room.block_store.kept)
        await room.switch.switch_on("person", name, {})
        assert (await room.begin("shared", person=ALICE)).live
