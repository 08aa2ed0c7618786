"""A task for a person does no more than the scope of their access token lets be done, however it goes on."""

import json
from dataclasses import replace
from typing import Any

import pytest
from fakes.approvals import approve
from fakes.families import FamilyRoom
from fakes.next_run import NextRun
from fakes.persons import ScriptedTokens, for_people, person, refused
from fakes.recovery_room import damage
from fakes.task_types import TICKETS, WIKI, task_type
from sojourn.errors import PolicyDenied, TaskOver
from sojourn.people.person import Person
from sojourn.policy.task_types import TypeSet
from sojourn.tasks.people import PersonToken
from sojourn.tasks.person_renewal import PersonRenewal
from sojourn.tasks.task import Task
from sojourn.tasktoken.grants import Authority, Grant

ACCESS = "urn:ietf:params:oauth:token-type:access_token"
READS = Grant(TICKETS, ("ticket:read",))
WRITES = Grant(TICKETS, ("ticket:read", "ticket:write"))
ALL = Authority((WRITES, Grant(WIKI, ("page:read",))))
DENIES_WIKI = (
    '@id("all") permit (principal, action, resource);'
    ' @id("no") forbid (principal, action == Sojourn::Action::"page:read", resource);'
)
TYPES = TypeSet(
    {
        "for-people": for_people(),
        "no-wiki": for_people("no-wiki", DENIES_WIKI),
        "approved": task_type("approved", params=None, person='{need = "required"}', approval='{within = "10m"}'),
    }
)


def letting(*actions: str, later: int = 0) -> Person:
    """Alice, whose access token lets these be done; one that was issued later lives longer."""
    alice = person("alice", may=tuple(sorted(actions)))
    return replace(alice, issued_at=alice.issued_at + later, expires_at=alice.expires_at + later)


@pytest.fixture
async def room(clock: Any, stack: Any) -> Any:
    made: Any = await stack.enter_async_context(FamilyRoom(clock, types=TYPES).running())
    made.tokens = ScriptedTokens()
    made.renewal = PersonRenewal(made.engine, made.changing, made.tokens)
    return made


async def renew(room: Any, task: Task, whom: Person) -> None:
    text = f"of {whom.issued_at}"
    room.tokens.people[text] = whom
    await room.renewal.renew(task, PersonToken(text, ACCESS))


class TestBegins:
    async def test_no_more_than_the_scope(self, room: Any) -> None:
        """Whoever names nothing gets what is in the type, in policy and in the scope, and no more."""
        task = await room.begin("for-people", person=letting("ticket:read", "order:drop"))
        assert Authority((READS,)) == task.authority
        task = await room.begin("no-wiki", person=letting("ticket:read", "page:read"))
        assert Authority((READS,)) == task.authority
        with pytest.raises(PolicyDenied):
            await room.begin("no-wiki", person=letting("page:read"))

    async def test_what_is_named(self, room: Any) -> None:
        """What is asked for by name and is not in the scope is refused, and nothing has begun."""
        with refused("not_in_scope") as raised:
            await room.begin("for-people", wanted=Authority((WRITES,)), person=letting("ticket:read"))
        assert "ticket:write" in raised.value.public
        assert (
            Authority((READS,))
            == (await room.begin("for-people", wanted=Authority((READS,)), person=letting("ticket:read"))).authority
        )

    @pytest.mark.parametrize("actions", [(), ("order:drop",), ("ticket:*",), ("TICKET:READ",)])
    async def test_nothing(self, room: Any, actions: tuple[str, ...]) -> None:
        """A scope that lets nothing of the type be done begins no task, whatever policy says."""
        with refused("not_in_scope"):
            await room.begin("for-people", person=letting(*actions))
        assert 0 == len(room.engine.tasks)

    async def test_one_that_does_not_say(self, room: Any) -> None:
        """An ID token narrows nothing."""
        assert ALL == (await room.begin("for-people", person=person("alice"))).authority

    async def test_after_somebody_has_agreed(self, room: Any) -> None:
        """Whoever agrees to a task agrees to what the scope lets be done: it gets no more by that."""
        task = await room.begin("approved", person=letting("ticket:read"))
        assert "pending" == task.state
        await approve(room, task)
        assert Authority((READS,)) == task.authority


class TestRenewed:
    async def test_a_wider_one(self, room: Any) -> None:
        """A newer token with a wider scope, or one that has none, gives a task nothing more; neither does a third."""
        task = await room.begin("for-people", person=letting("ticket:read"))
        wider = letting("ticket:read", "ticket:write", later=10)
        says_nothing = replace(letting(later=20), may=None)
        for whom in (wider, says_nothing, letting("ticket:read", "ticket:write", "page:read", later=30)):
            await renew(room, task, whom)
            assert whom.expires_at == task.person.expires_at
            assert (Authority((READS,)), ("ticket:read",)) == (task.authority, task.person.may)

    async def test_a_narrower_one(self, room: Any) -> None:
        """A newer token with a narrower scope takes away what it does not let be done, and it does not come back."""
        task = await room.begin("for-people", person=letting("ticket:read", "ticket:write", "page:read"))
        assert ALL == task.authority
        await renew(room, task, letting("ticket:read", "page:read", later=10))
        assert Authority((READS, Grant(WIKI, ("page:read",)))) == task.authority
        await renew(room, task, letting("ticket:read", "ticket:write", later=20))
        assert Authority((READS,)) == task.authority
        with pytest.raises(TaskOver):
            await renew(room, task, letting("ticket:write", later=30))
        assert ("revoked", "policy_changed") == (task.state, task.reason)

    async def test_over_a_restart(self, room: Any, stack: Any) -> None:
        """The next run of the agent knows what the scope lets be done, and a record without it is none."""
        task = await room.begin("for-people", person=letting("ticket:read"))
        document = json.loads(room.store.documents[task.id])
        assert ["ticket:read"] == document["person"]["may"]
        other = await room.begin("for-people", person=letting("page:read"))
        damage(room.store, other, person={name: each for name, each in document["person"].items() if name != "may"})
        later = await NextRun.after(room, stack)
        (found,) = later.engine.tasks.all()
        assert (task.id, ("ticket:read",), Authority((READS,))) == (found.id, found.person.may, found.authority)
