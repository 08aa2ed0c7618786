"""person_renewal.py: a task goes on by a newer token of its person, and gets nothing more by it."""

import json
from dataclasses import replace

import pytest
from fakes.approvals import approve
from fakes.families import FamilyRoom, handed_on
from fakes.persons import CORP, IN_SUPPORT, LIFE, ScriptedTokens, for_people, good_until, person, refused
from fakes.task_room import READ_TICKETS
from fakes.task_types import TICKETS, WIKI, task_type
from sojourn.errors import InvalidInput, PolicyDenied, StoreFailed, TaskOver
from sojourn.policy.task_types import TypeSet
from sojourn.tasks.people import PersonToken, digest_of
from sojourn.tasks.person_renewal import PersonRenewal
from sojourn.tasktoken.grants import Authority, Grant

ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
ALICE = person("alice")
LATER = good_until(ALICE, ALICE.expires_at + 200, issued_at=ALICE.issued_at + 200)
WIKI_FOR_SUPPORT = (
    '@id("tickets") permit (principal, action, resource == Sojourn::Resource::"https://tickets.example.org");'
    + IN_SUPPORT
)
TYPES = {
    "for-people": for_people(),
    "for-support": for_people("for-support", WIKI_FOR_SUPPORT),
    "supporters": for_people("supporters", IN_SUPPORT),
    "strict": for_people("strict", groups='["corp/support"]', acr='["mfa"]'),
    "approved": task_type("approved", params=None, person='{need = "required"}', approval='{within = "10m"}'),
    "triage": handed_on(IN_SUPPORT, person='{need = "optional"}'),
}


@pytest.fixture
async def room(clock, stack):
    made = await stack.enter_async_context(FamilyRoom(clock, types=TypeSet(TYPES)).running())
    made.tokens = ScriptedTokens({"first": ALICE, "later": LATER})
    made.renewal = PersonRenewal(made.engine, made.changing, made.tokens)
    return made


async def renew(room, task, whom=LATER, text="newer"):
    room.tokens.people[text] = whom
    await room.renewal.renew(task, PersonToken(text, ID_TOKEN))


class TestGoesOn:
    async def test_longer(self, room):
        """The task lives until the newer token ends, by both clocks, and its tokens until then."""
        task = await room.begin("for-people", person=ALICE)
        token, version = await room.engine.token(task, TICKETS, ()), task.version
        room.clock.advance(200)
        await renew(room, task)
        assert (LIFE, LATER, version) == (task.deadline - room.clock.boot(), task.person, task.version)
        assert LIFE == (task.expires_at - room.clock.now()).total_seconds()
        room.engine.check_token(token)
        room.clock.advance(LIFE - 1)
        room.alarms.ring_due()
        assert LATER.expires_at == (await room.engine.token(task, TICKETS, ())).claims["exp"]
        room.clock.advance(1)
        room.alarms.ring_due()
        assert ("expired", "person_expired") == (task.state, task.reason)

    async def test_never_beyond_its_own_time(self, room):
        """However long the newer token is good, the task ends when the time of its type is up."""
        task = await room.begin("for-people", person=ALICE, max_seconds=400)
        await renew(room, task, good_until(LATER, ALICE.expires_at + 3600))
        assert 400 == task.deadline - room.clock.boot()
        room.clock.advance(400)
        room.alarms.ring_due()
        assert ("expired", "deadline") == (task.state, task.reason)

    async def test_the_same_again(self, room):
        """A token that ends no later changes nothing, and is no error: a call may be repeated."""
        task = await room.begin("for-people", person=ALICE)
        for each in (ALICE, good_until(ALICE, ALICE.expires_at - 1)):
            await renew(room, task, each)
            assert ALICE == task.person
        assert [] == room.store.fields("person_renewed")

    async def test_on_disk(self, room):
        """It is on disk before it is true: with the digest of the token, and without the token."""
        task = await room.begin("for-people", person=ALICE)
        await renew(room, task)
        (event,) = room.store.fields("person_renewed")
        assert (digest_of("newer"), LATER.expires_at) == (event["token"], event["until"])
        kept = json.loads(room.store.documents[task.id])
        assert (task.deadline, LATER.expires_at) == (kept["deadline"], kept["person"]["expires_at"])
        room.store.failure = StoreFailed("no room")
        with pytest.raises(StoreFailed):
            await renew(room, task, good_until(LATER, LATER.expires_at + 100), "a third")
        assert LATER == task.person

    async def test_its_holder_sees_it(self, room):
        """The stream that is the task hears of it, and is told anew a minute before the newer token ends."""
        task = await room.begin("for-people", person=ALICE)
        told = []
        room.engine.announcements.to_holder(task, lambda: told.append(room.clock.boot()))
        await renew(room, task)
        assert 1 == len(told)
        for seconds, times in ((LIFE - 1, 1), (200 - 60 + 1, 2)):
            room.clock.advance(seconds)
            room.alarms.ring_due()
            assert times == len(told)

    async def test_its_session_is_known_from_then(self, room):
        """A session that only the newer token tells is that of the task from then on."""
        task = await room.begin("for-people", person=replace(ALICE, session=""))
        people = room.engine.tasks.people
        assert [] == people.of_session(CORP, LATER.session)
        await renew(room, task)
        assert [task] == people.of_session(CORP, LATER.session) == people.of_person(CORP, "alice")
        room.engine.end(task, "completed", "success")
        assert {} == people._by_session == people._by_person


class TestRefused:
    @pytest.mark.parametrize(("changes", "code"), [
        ({"subject": "bob"}, "other_person"),
        ({"url": CORP + "/"}, "other_person"),
        ({"session": "another"}, "other_person"),
        ({"session": ""}, "other_person"),
        ({"issued_at": ALICE.issued_at - 1}, "too_old"),
        ({"acr": "pwd"}, "insufficient_user_authentication"),
    ])  # fmt: skip
    async def test_not_the_same(self, room, changes, code):
        """A token of another person, issuer or session is refused, and so is one that is older or of a weaker login; the
        task goes on as it was.
        """
        task = await room.begin("strict", person=ALICE)
        with refused(code):
            await renew(room, task, replace(LATER, **changes))
        assert (ALICE, "active", LIFE) == (task.person, task.state, task.deadline - room.clock.boot())

    async def test_not_in_the_group_any_more(self, room):
        """A token of a person who is in none of the groups of the type by now renews nothing."""
        task = await room.begin("strict", person=ALICE)
        with pytest.raises(PolicyDenied):
            await renew(room, task, replace(LATER, groups=()))
        assert ALICE == task.person

    async def test_for_nobody(self, room):
        """A task that is for nobody gains no person, though its type might have had one."""
        task = await room.begin("triage", wanted=None, person=ALICE)
        room.engine.end(task, "completed", "success")
        room.engine.types = TypeSet({**TYPES, "whoever": for_people("whoever", need='"optional"')})
        with refused("person_not_taken"):
            await renew(room, await room.begin("whoever"))

    async def test_brought_by_another(self, room):
        """The token is verified for the workload of the task, and for no other."""
        room.tokens.presenter = "spiffe://example.org/other"
        with refused("wrong_presenter"):
            await renew(room, await room.begin("for-people", person=ALICE))

    async def test_over(self, room):
        """A task that has ended is not renewed: by no token does it live again."""
        task = await room.begin("for-people", person=ALICE)
        room.clock.advance(LIFE)
        with pytest.raises(TaskOver):
            await renew(room, task)

    async def test_pending(self, room):
        """A task that waits for approval is not renewed: it waits no longer than the first token is good."""
        task = await room.begin("approved", person=ALICE)
        assert ("pending", LIFE) == (task.state, task.deadline - room.clock.boot())
        with pytest.raises(TaskOver):
            await renew(room, task)


class TestApproved:
    async def test_no_longer_by_an_approval(self, room):
        """A task that somebody agreed to ends with the person's token too, and a newer one has it live as long as its type
        lets a task that began then.
        """
        task = await room.begin("approved", person=ALICE)
        room.clock.advance(100)
        await approve(room, task)
        assert ("active", LIFE - 100) == (task.state, task.deadline - room.clock.boot())
        await renew(room, task, good_until(LATER, ALICE.expires_at + 7200))
        assert 15 * 60 == task.deadline - room.clock.boot()

    async def test_not_approved_in_time(self, room):
        """A task whose person's token ends while it waits has ended for that reason."""
        task = await room.begin("approved", person=ALICE)
        room.clock.advance(LIFE)
        room.alarms.ring_due()
        assert ("expired", "person_expired") == (task.state, task.reason)


class TestNarrows:
    async def test_gets_nothing(self, room):
        """A token with more groups than the first gives the task nothing that it had not."""
        task = await room.begin("for-support", person=replace(ALICE, groups=()), wanted=READ_TICKETS)
        await renew(room, task)
        assert READ_TICKETS == task.authority

    async def test_loses_what_is_denied(self, room):
        """What policy denies the person as they are now is gone, with the tokens of before."""
        task = await room.begin("for-support", person=ALICE)
        token = await room.engine.token(task, WIKI, ())
        await renew(room, task, replace(LATER, groups=()))
        assert (TICKETS,) == task.authority.resources
        with pytest.raises(TaskOver):
            room.engine.check_token(token)
        await room.engine.journal.drain()
        assert ["policy_changed"] == [each["reason"] for each in room.store.fields("task_narrowed")]

    async def test_ends_with_nothing_left(self, room):
        """A task of which policy leaves nothing for the person as they are now is over."""
        task = await room.begin("supporters", person=ALICE)
        with pytest.raises(TaskOver):
            await renew(room, task, replace(LATER, groups=()))
        assert ("revoked", "policy_changed") == (task.state, task.reason)


class TestFamily:
    async def test_all_of_it_lives_longer(self, room):
        """What was handed on lives longer too, each within its own time, and is for the person as they are now."""
        root = await room.begin("triage", person=ALICE)
        short, long = await room.hand_on(root, 0, max_seconds=350), await room.hand_on(root, 1)
        await renew(room, root)
        boot = room.clock.boot()
        assert [LIFE + 200, 350, LIFE + 200] == [each.deadline - boot for each in (root, short, long)]
        assert {LATER.expires_at} == {each.person.expires_at for each in (root, short, long)}
        room.clock.advance(350)
        room.alarms.ring_due()
        assert ("active", "deadline", "active") == (root.state, short.reason, long.state)

    async def test_loses_it_too(self, room):
        """What policy denies by the newer token is gone of what was handed on, too."""
        root = await room.begin("triage", person=ALICE)
        below = await room.hand_on(root, 0, Authority((Grant(TICKETS, ("ticket:read",)),)))
        with pytest.raises(TaskOver):
            await renew(room, root, replace(LATER, groups=()))
        assert ("revoked", "cascaded") == (root.state, below.state)

    async def test_not_by_whom_it_was_handed_to(self, room):
        """Who was handed the task does not renew it: that is for who began it for the person."""
        below = await room.hand_on(await room.begin("triage", person=ALICE), 0)
        room.tokens.presenter = str(below.spiffe_id)
        with pytest.raises(InvalidInput, match="handed on"):
            await renew(room, below)
