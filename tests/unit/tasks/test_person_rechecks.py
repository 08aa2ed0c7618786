"""person_rechecks.py: tasks live by a person's token only while its issuer says that it is active."""

import asyncio
from dataclasses import replace

import pytest
from fakes.approvals import approve
from fakes.families import FamilyRoom, handed_on
from fakes.next_run import NextRun
from fakes.persons import ISSUERS, LIFE, ScriptedTokens, good_until, issuer_rules, person, refused
from fakes.task_room import TRIAGE_ENTRY
from fakes.task_types import TICKETS, task_type
from harness.looking import idle
from sojourn.errors import LimitExceeded, TaskOver
from sojourn.errors.people import PersonRefused
from sojourn.limits import PERSON_RECHECKS_AT_ONCE, PERSON_TOKEN_UNUSED_SECONDS, PERSON_TOKENS_UNUSED
from sojourn.policy.task_types import TypeSet
from sojourn.tasks.people import PersonToken, digest_of
from sojourn.tasks.person_rechecks import PersonRechecks
from sojourn.tasks.person_renewal import PersonRenewal

ALICE = good_until(person("alice"), person("alice").issued_at + 3600, rechecked=True)
RECHECK, GRACE = 30, 60
RULES = issuer_rules(recheck="30s", recheck_grace="60s")
CHAT, DESK = "spiffe://example.org/agent/chat", "spiffe://example.org/agent/desk"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
TYPES = {
    "shared": task_type("shared", params=None, max_duration='"1h"', person='{need = "required", several = true}'),
    "triage": handed_on(person='{need = "optional", several = true}'),
    "approved": task_type("approved", params=None, person='{need = "required"}', approval='{within = "10m"}'),
}


class FakeIssuer:
    """Says what it is told to: True, False, or None for nothing. `asked` are the tokens that it was asked about."""

    def __init__(self, rules=RULES):
        self.rules, self.says, self.asked, self.gate = rules, True, [], None
        self.not_active = set()
        self.at_once = self.most = 0

    async def is_active(self, text, _person):
        self.asked.append(text)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.at_once -= 1
        if self.says is None:
            raise PersonRefused("issuer_unavailable", "it does not say")
        return self.says and text not in self.not_active


class RecheckRoom(FamilyRoom):
    def __init__(self, clock, **more):
        super().__init__(clock, types=TypeSet(TYPES), **more)
        self.issuer = FakeIssuer()
        self.rechecks = PersonRechecks(self.engine, self.changing, self.alarms)
        self.engine.standing.check_watched = self.rechecks.check
        self.tokens = ScriptedTokens({})
        self.renewal = PersonRenewal(self.engine, self.changing, self.tokens)

    async def begin_by(self, text, name="shared", whom=ALICE, **more):
        """A task that is begun by a token of which its issuer has just said that it is active."""
        self.rechecks.note(self.issuer, whom, text, CHAT, self.clock.boot())
        return await self.begin(name, person=whom, person_token=digest_of(text), **more)

    async def later(self, seconds):
        """So much later, after all that is due then."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            self.alarms.ring_due()
            await idle()

    async def renew(self, task, text, whom=None):
        whom = whom or task.person
        self.tokens.people[text] = whom
        self.rechecks.note(self.issuer, whom, text, CHAT, self.clock.boot())
        await self.renewal.renew(task, PersonToken(text, ID_TOKEN))


@pytest.fixture
async def room(clock, stack):
    return await stack.enter_async_context(RecheckRoom(clock).running())


def how(task):
    return task.state, task.reason


class TestAsks:
    async def test_again_and_again(self, room):
        """The issuer is asked about the very token as often as it is configured, for as long as a task lives by it."""
        task = await room.begin_by("first")
        for times in (1, 2, 3):
            await room.later(RECHECK)
            assert ["first"] * times == room.issuer.asked
        room.engine.end(task, "completed", "success")
        await room.later(RECHECK)
        assert (["first"] * 3, 0) == (room.issuer.asked, len(room.rechecks))

    async def test_once_for_all_tasks(self, room):
        """Tasks that live by the same token make one question."""
        tasks = [await room.begin_by("first") for _ in range(3)]
        await room.later(RECHECK)
        assert (["first"], {"active"}) == (room.issuer.asked, {each.state for each in tasks})

    async def test_for_nothing(self, room):
        """A token by which nothing began is forgotten before its issuer is asked about it again."""
        room.rechecks.note(room.issuer, ALICE, "first", CHAT, room.clock.boot())
        assert 1 == len(room.rechecks)
        await room.later(RECHECK)
        assert ([], 0) == (room.issuer.asked, len(room.rechecks))

    async def test_the_newer_token(self, room):
        """After a renewal the issuer is asked about the newer token alone."""
        task = await room.begin_by("first")
        await room.renew(task, "newer", good_until(ALICE, ALICE.expires_at + 60))
        await room.later(RECHECK)
        assert (["newer"], 1) == (room.issuer.asked, len(room.rechecks))

    async def test_not_all_at_once(self, room):
        """However many tokens there are, one issuer has few questions at a time."""
        several = 3 * PERSON_RECHECKS_AT_ONCE
        for number in range(several):
            await room.begin_by(f"token {number}", whom=person(f"user {number}", rechecked=True))
        room.issuer.gate = asyncio.Event()
        await room.later(RECHECK)
        assert PERSON_RECHECKS_AT_ONCE == room.issuer.most
        room.issuer.gate.set()
        await idle()
        assert (several, PERSON_RECHECKS_AT_ONCE) == (len(set(room.issuer.asked)), room.issuer.most)

    async def test_expired(self, room):
        """Of a token that has expired no issuer says anything: where tasks outlive it, nobody is asked any more."""
        whom = replace(person("alice"), ends_at=ALICE.ends_at, rechecked=True)
        task = await room.begin_by("first", whom=whom)
        await room.later(LIFE + RECHECK)
        assert ("active", 0) == (task.state, len(room.rechecks))
        assert LIFE // RECHECK - 1 == len(room.issuer.asked)

    async def test_gone_with_its_last_task(self, room):
        """A text is forgotten when the last task ends that lives by it, or has a newer one, and not only when its issuer
        would be asked next.
        """
        tasks = [await room.begin_by("first") for _ in range(2)]
        room.engine.end(tasks[0], "completed", "success")
        assert 1 == len(room.rechecks)
        await room.renew(tasks[1], "newer", good_until(ALICE, ALICE.expires_at + 60))
        assert ["newer"] == [each.text for each in room.rechecks._watched.values()]
        room.engine.end(tasks[1], "completed", "success")
        assert 0 == len(room.rechecks)

    async def test_many_for_nothing(self, room):
        """A workload that brings tokens without end, and begins nothing by them, is refused after some, and another one is
        not; a while later it may again.
        """
        for number in range(PERSON_TOKENS_UNUSED):
            room.rechecks.note(room.issuer, ALICE, f"token {number}", CHAT, room.clock.boot())
        with pytest.raises(LimitExceeded):
            room.rechecks.note(room.issuer, ALICE, "one more", CHAT, room.clock.boot())
        room.rechecks.note(room.issuer, ALICE, "another's", DESK, room.clock.boot())
        await room.later(PERSON_TOKEN_UNUSED_SECONDS)
        assert 0 == len(room.rechecks) == len(room.rechecks._unused)
        await room.begin_by("first")

    async def test_many_for_something(self, room):
        """However many tasks a workload begins, each by a token of its own, that is no reason to refuse the next."""
        for number in range(PERSON_TOKENS_UNUSED + 1):
            await room.begin_by(f"token {number}", whom=person(f"user {number}", rechecked=True))
        assert PERSON_TOKENS_UNUSED + 1 == len(room.rechecks)

    async def test_one_question_at_a_time(self, room):
        """An issuer that does not answer has one question about each token, however often it was to be asked; about a
        token by which nothing lives any more it has none.
        """
        room.issuer.gate = asyncio.Event()
        tasks = [
            await room.begin_by(
                f"token {number}", whom=person(f"user {number}", rechecked=True, expires_at=ALICE.ends_at)
            )
            for number in range(2 * PERSON_RECHECKS_AT_ONCE)
        ]
        await room.later(RECHECK + GRACE - 1)
        assert PERSON_RECHECKS_AT_ONCE == len(room.issuer.asked)
        for each in tasks:
            room.engine.end(each, "completed", "success")
        room.issuer.gate.set()
        await idle()
        assert (PERSON_RECHECKS_AT_ONCE, 0) == (len(room.issuer.asked), len(room.rechecks))

    async def test_clock_step(self, room):
        """A clock that is set ahead, and back, ends no watch: a token ends when it does, by the clock that nobody sets."""
        task = await room.begin_by("first")
        room.clock.step_wall(7200)
        await room.later(RECHECK)
        room.clock.step_wall(-7200)
        room.issuer.says = False
        await room.later(RECHECK)
        assert ("revoked", "session_ended") == how(task)

    async def test_nobodys_text_is_shown(self, room):
        """What is kept of a token shows itself nowhere, and is gone when the agent stops."""
        await room.begin_by("secret text")
        assert "secret" not in repr(list(room.rechecks._watched.values()))
        room.rechecks.close()
        await room.later(2 * RECHECK)
        assert ([], 0) == (room.issuer.asked, len(room.rechecks))


class TestNotActive:
    async def test_ends(self, room):
        """A token that is not active ends the tasks that live by it, with what was handed on, and no others."""
        task = await room.begin_by("first", "triage", wanted=None)
        child = await room.hand_on(task, 1)
        other = await room.begin_by("second")
        room.issuer.not_active = {"first"}
        await room.later(RECHECK)
        assert (("revoked", "session_ended"), ("cascaded", "parent_ended")) == (how(task), how(child))
        assert "active" == other.state
        assert 0 == sum(each.text == "first" for each in room.rechecks._watched.values())

    async def test_nothing_begins_by_it(self, room):
        """A token about which its issuer is not asked begins nothing, whoever took it for good; nor does it renew."""
        with refused("issuer_unavailable"):
            await room.begin("shared", person=ALICE, person_token=digest_of("unheard of"))
        task = await room.begin_by("first")
        room.tokens.people["newer"] = good_until(ALICE, ALICE.expires_at + 60)
        with refused("issuer_unavailable"):
            await room.renewal.renew(task, PersonToken("newer", ID_TOKEN))
        assert digest_of("first") == task.whom.token


class TestNoAnswer:
    async def test_within_the_grace(self, room):
        """While the issuer does not answer, tasks go on for the grace, and it is asked more often."""
        task = await room.begin_by("first")
        room.issuer.says = None
        await room.later(RECHECK + GRACE - 1)
        assert "active" == task.state
        assert len(room.issuer.asked) > 2
        room.issuer.says = True
        await room.later(GRACE / 4)
        await room.later(RECHECK)
        assert "active" == task.state

    async def test_suspended_and_back(self, room):
        """After the grace they are suspended, and their tokens are dead; when it answers again they are active."""
        task = await room.begin_by("first")
        token = await room.engine.token(task, TICKETS, ())
        room.issuer.says = None
        await room.later(RECHECK + GRACE)
        assert ("suspended", "person_unchecked") == how(task)
        with pytest.raises(TaskOver):
            room.engine.check_token(token)
        room.issuer.says = True
        await room.later(GRACE / 4)
        assert "active" == task.state
        with pytest.raises(TaskOver):
            room.engine.check_token(token)
        await room.engine.token(task, TICKETS, ())

    async def test_a_question_without_an_end(self, room):
        """A question that is never answered keeps no task alive."""
        task = await room.begin_by("first")
        room.issuer.gate = asyncio.Event()
        await room.later(RECHECK + GRACE)
        assert ("suspended", "person_unchecked") == how(task)
        room.issuer.gate.set()
        await idle()
        assert "active" == task.state

    async def test_ends(self, room):
        """After ten times the grace they end, and what the issuer says then revives none."""
        task = await room.begin_by("first", max_seconds=3000)
        room.issuer.says = None
        await room.later(RECHECK + 10 * GRACE - 1)
        assert "suspended" == task.state
        await room.later(1)
        assert ("revoked", "person_unchecked") == how(task)
        room.issuer.says = True
        await room.later(RECHECK)
        assert (("revoked", "person_unchecked"), 0) == (how(task), len(room.rechecks))

    async def test_nothing_begins_meanwhile(self, room):
        """By a token about which the issuer has not answered for too long nothing begins, and no approval begins one."""
        waiting = await room.begin_by("first", "approved")
        room.issuer.says = None
        await room.later(RECHECK + GRACE)
        assert "pending" == waiting.state
        with refused("issuer_unavailable"):
            await room.begin("shared", person=ALICE, person_token=digest_of("first"))
        with refused("issuer_unavailable"):
            await approve(room, waiting)
        room.issuer.says = True
        await room.later(GRACE / 4)
        await approve(room, waiting)
        assert "active" == waiting.state

    async def test_suspended_by_another_too(self, room):
        """A task that an operator has suspended meanwhile stays so when the issuer answers again."""
        task = await room.begin_by("first")
        room.issuer.says = None
        await room.later(RECHECK + GRACE)
        await room.changing.suspend(task, "operator", "look into it")
        room.issuer.says = True
        await room.later(GRACE / 4)
        assert (("suspended", "look into it"), ["operator"]) == (how(task), list(task.suspensions))

    async def test_what_was_handed_on(self, room):
        """What was handed on is suspended with its task, and comes back with it."""
        task = await room.begin_by("first", "triage", wanted=None)
        child = await room.hand_on(task, 1)
        room.issuer.says = None
        await room.later(RECHECK + GRACE)
        assert ["suspended"] * 2 == [task.state, child.state]
        room.issuer.says = True
        await room.later(GRACE / 4)
        assert ["active"] * 2 == [task.state, child.state]

    async def test_expired_meanwhile(self, room):
        """Where tasks outlive their token, one that expires while its issuer says nothing suspends them all the same, and
        ends them in time.
        """
        whom = replace(person("alice"), ends_at=ALICE.ends_at, rechecked=True)
        task = await room.begin_by("first", whom=whom)
        await room.later(LIFE - RECHECK - 5)
        room.issuer.says = None
        await room.later(RECHECK + GRACE + 5)
        assert ("suspended", "person_unchecked") == how(task)
        await room.later(10 * GRACE)
        assert ("revoked", "person_unchecked") == how(task)
        assert 0 == len(room.rechecks)

    async def test_an_id_jag_does_not_do(self, room):
        """An ID-JAG, about which its issuer is not asked, neither brings a suspended task back nor frees one from being
        asked about.
        """
        task = await room.begin_by("first")
        jag = good_until(ALICE, ALICE.expires_at + 60, rechecked=False)
        await room.renewal.renew_verified(task, jag, digest_of("jag"))
        assert digest_of("first") == task.whom.token
        room.issuer.says = None
        await room.later(RECHECK + GRACE)
        await room.renewal.renew_verified(task, jag, digest_of("jag"))
        assert (("suspended", "person_unchecked"), True) == (how(task), task.person.rechecked)

    async def test_an_answer_to_an_older_question(self, room):
        """What an issuer says to a question of long ago counts from when it was asked."""
        task = await room.begin_by("first")
        room.issuer.gate = asyncio.Event()
        await room.later(RECHECK + GRACE - 1)
        room.issuer.gate.set()
        await idle()
        room.issuer.says = None
        await room.later(RECHECK + 1)
        assert "suspended" == task.state

    async def test_a_token_again(self, room):
        """Its holder need not wait: a token of the same person, the same one too, of which the issuer says that it is
        active brings a suspended task back.
        """
        task = await room.begin_by("first")
        room.issuer.says = None
        await room.later(RECHECK + GRACE)
        await room.renew(task, "first")
        await idle()
        assert ("active", ALICE) == (task.state, task.person)


class TestAnotherRun:
    @pytest.fixture
    async def later(self, room, stack):
        """The next run, in which issuers are asked."""

        async def run(**changes):
            made = await NextRun.after(room, stack, types=TypeSet(TYPES), issuers=ISSUERS, **changes)
            made.rechecks = PersonRechecks(made.engine, made.changing, made.alarms)
            made.engine.standing.check_watched = made.rechecks.check
            made.renewal = PersonRenewal(made.engine, made.changing, room.tokens)
            return made

        return run

    async def test_waits_for_a_token(self, room, later):
        """The text of no token is on disk: after a restart a task waits for a token of its person, whoever holds it."""
        task = await room.begin_by("first")
        assert "first" not in room.store.documents[task.id].decode()
        run = await later()
        found = await run.attach(room.peer, run.find(task), TRIAGE_ENTRY)
        assert (("suspended", "person_unchecked"), ["recheck"]) == (how(found), list(found.suspensions))
        room.tokens.people["first"] = ALICE
        run.rechecks.note(room.issuer, ALICE, "first", CHAT, run.clock.boot())
        await run.renewal.renew(found, PersonToken("first", ID_TOKEN))
        assert ("active", digest_of("first")) == (found.state, found.whom.token)

    async def test_not_without_it(self, room, later):
        """Without one it ends with the token by which it began."""
        task = await room.begin_by("first", whom=person("alice", rechecked=True))
        run = await later()
        found = await run.attach(room.peer, run.find(task), TRIAGE_ENTRY)
        run.advance(LIFE)
        assert ("expired", "person_expired") == how(found)

    async def test_where_it_outlived_the_token(self, room, stack):
        """While no agent ran, nobody heard who logged out: a task that would have gone on until the end of the session
        ends with the token, and has ended if that has.
        """
        room.engine.standing.check_watched = lambda _person, _token: None
        whom = replace(person("alice"), ends_at=ALICE.ends_at)
        task = await room.begin("shared", person=whom)
        assert 3600 == task.deadline - room.clock.boot()
        run = await NextRun.after(room, stack, types=TypeSet(TYPES), issuers=ISSUERS)
        found = await run.attach(room.peer, run.find(task), TRIAGE_ENTRY)
        assert (LIFE, LIFE) == (
            found.deadline - room.clock.boot(), (found.expires_at - room.clock.now()).total_seconds(),
        )  # fmt: skip
        run.advance(LIFE)
        assert ("expired", "person_expired") == how(found)
