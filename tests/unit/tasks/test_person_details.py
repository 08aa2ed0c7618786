"""A task that begins by a person's access token is within its authorization_details, however it goes on."""

from dataclasses import replace
from typing import Any

import pytest
from fakes.approvals import approve
from fakes.families import FamilyRoom
from fakes.persons import ScriptedTokens, for_people, person, refused
from fakes.task_types import TICKETS, WIKI, task_type
from sojourn.errors import PolicyDenied
from sojourn.people.person import Person
from sojourn.policy.task_types import TypeSet
from sojourn.tasks.people import PersonToken
from sojourn.tasks.person_renewal import PersonRenewal
from sojourn.tasks.task import Task
from sojourn.tasktoken.grants import Authority, Details, Grant

ACCESS = "urn:ietf:params:oauth:token-type:access_token"
READS, WRITES = (Grant(TICKETS, each) for each in (("ticket:read",), ("ticket:read", "ticket:write")))
PAGES = Grant(WIKI, ("page:read",))
ALL = Authority((WRITES, PAGES))
DENIES_WIKI = (
    '@id("all") permit (principal, action, resource);'
    ' @id("no") forbid (principal, action == Sojourn::Action::"page:read", resource);'
)
PARAMS = '{order = {type = "string", max_length = 9}, cents = {type = "long", min = 1, max = 100}}'
TYPES = TypeSet(
    {
        "for-people": for_people(),
        "no-wiki": for_people("no-wiki", DENIES_WIKI),
        "orders": task_type("orders", params=PARAMS, person='{need = "required"}'),
        "approved": task_type("approved", params=None, person='{need = "required"}', approval='{within = "10m"}'),
    }
)


def bound(*grants: Grant, kind: str = "for-people", later: int = 0, **params: Any) -> Person:
    """Alice, whose access token has such authorization_details; one that was issued later lives longer."""
    alice = person("alice", details=Details(kind, Authority(grants), params, ""))
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
    async def test_no_more_than_they_have(self, room: Any) -> None:
        """Whoever names nothing gets what is in the type, in policy and in the details, at each resource by itself."""
        task = await room.begin("for-people", person=bound(READS))
        assert Authority((READS,)) == task.authority
        task = await room.begin("for-people", person=bound(Grant(WIKI, ("page:read", "ticket:read")), WRITES))
        assert ALL == task.authority
        task = await room.begin("no-wiki", person=bound(READS, PAGES, kind="no-wiki"))
        assert Authority((READS,)) == task.authority

    async def test_nothing_of_them_is_kept(self, room: Any) -> None:
        """A task has no details of its person's: it is within them from its beginning, and its record says so."""
        task = await room.begin("for-people", person=bound(READS))
        assert task.person.details is None
        assert "details" not in str(task.whom.document(live=True))

    async def test_what_is_named(self, room: Any) -> None:
        """What is asked for by name and is not in them is refused, at another resource of theirs too."""
        for wanted in (WRITES, PAGES):
            with refused("not_in_scope"):
                await room.begin("for-people", wanted=Authority((wanted,)), person=bound(READS))
        with refused("not_in_scope"):
            await room.begin("for-people", wanted=Authority((PAGES,)), person=bound(Grant(TICKETS, ("page:read",))))
        task = await room.begin("for-people", wanted=Authority((READS,)), person=bound(WRITES))
        assert Authority((READS,)) == task.authority
        assert 1 == len(room.engine.tasks)

    async def test_nothing_in_common(self, room: Any) -> None:
        """Details that have nothing of the type, or nothing that policy allows, begin no task."""
        for whom, kind in (
            (bound(Grant("https://other.example.org", ("ticket:read",))), "for-people"),
            (bound(Grant(TICKETS, ("ticket:drop",))), "for-people"),
            (bound(PAGES, kind="no-wiki"), "no-wiki"),
        ):
            with refused("not_in_scope"):
                await room.begin(kind, person=whom)
        with pytest.raises(PolicyDenied):
            await room.begin("no-wiki", wanted=Authority((PAGES,)), person=bound(PAGES, kind="no-wiki"))
        assert 0 == len(room.engine.tasks)

    async def test_of_another_type(self, room: Any) -> None:
        """Details of one task type begin no task of another, though it has the same actions."""
        with refused("not_in_scope"):
            await room.begin("no-wiki", person=bound(READS))

    @pytest.mark.parametrize(
        ("said", "fits"),
        [
            ({}, True),
            ({"order": "1001"}, True),
            ({"order": "1001", "cents": 5}, True),
            ({"order": "1002"}, False),
            ({"cents": 6}, False),
            ({"cents": "5"}, False),
            ({"cents": True}, False),
            ({"other": "1001"}, False),
        ],
    )
    async def test_params(self, room: Any, said: dict[str, Any], fits: bool) -> None:
        """What they say of parameters is true of the task, or it does not begin."""
        given = {"order": "1001", "cents": "5"}
        if fits:
            task = await room.begin("orders", params=given, person=bound(READS, kind="orders", **said))
            assert Authority((READS,)) == task.authority
        else:
            with refused("not_in_scope"):
                await room.begin("orders", params=given, person=bound(READS, kind="orders", **said))

    async def test_after_somebody_has_agreed(self, room: Any) -> None:
        """Whoever agrees to a task agrees to what the details have: it gets no more by that."""
        task = await room.begin("approved", person=bound(READS, kind="approved"))
        assert "pending" == task.state
        await approve(room, task)
        assert Authority((READS,)) == task.authority


class TestRenewed:
    async def test_wider_ones(self, room: Any) -> None:
        """A newer token with wider details, or without, has the task go on, and gives it nothing more."""
        task = await room.begin("for-people", person=bound(READS))
        for whom in (bound(WRITES, PAGES, later=10), replace(bound(later=20), details=None)):
            await renew(room, task, whom)
            assert whom.expires_at == task.person.expires_at
            assert (Authority((READS,)), None) == (task.authority, task.person.details)

    async def test_narrower_ones(self, room: Any) -> None:
        """By a newer token whose details do not have all of the task it does not go on: it ends with what it had."""
        task = await room.begin("for-people", person=bound(WRITES, PAGES))
        before = task.person.expires_at
        for whom in (bound(READS, PAGES, later=10), bound(WRITES, PAGES, kind="no-wiki", later=10)):
            with refused("not_in_scope"):
                await renew(room, task, whom)
        assert (before, ALL, True) == (task.person.expires_at, task.authority, task.live)
