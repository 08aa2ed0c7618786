"""shadow_policy.py: a candidate is asked beside, what it says otherwise is remembered, and it changes nothing."""

import pytest
from fakes.task_room import READ_TICKETS, Room
from fakes.task_types import PERMIT_ALL, TICKETS, TRIAGE, WIKI, task_type
from sojourn.errors import ActionOutsideType, PolicyDenied
from sojourn.policy.task_types import TypeSet
from sojourn.tasks import shadow_policy as shadow_module
from sojourn.tasks.policy_reload import PolicyReload
from sojourn.tasks.shadow_policy import Shadow
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasktoken.end_reasons import OPERATOR
from sojourn.tasktoken.grants import Authority, Grant

NO_WRITES = PERMIT_ALL + '@id("no-writes") forbid (principal, action == Sojourn::Action::"ticket:write", resource);'


def types(cedar=PERMIT_ALL, **changes):
    return TypeSet(triage=task_type(cedar=cedar, **changes))


@pytest.fixture
async def room(clock):
    async with Room(clock, types()).running() as room:
        yield room


@pytest.fixture
def told():
    return []


@pytest.fixture
def shadow(room, clock, told):
    room.engine.shadow = Shadow(clock, lambda found, _digest: told.append(found))
    return room.engine.shadow


class TestDifferences:
    async def test_what_the_candidate_denies(self, room, shadow, told, clock):
        """A decision that the candidate would not make is remembered, told once, counted, and made all the same."""
        shadow.replace(types(NO_WRITES))
        for _ in range(2):
            task = await room.begin()
            assert "ticket:write" in task.authority.at(TICKETS)
            clock.advance(5)
        [found] = told
        assert (TRIAGE, "ticket:write", TICKETS) == (found.spiffe_id, found.action, found.resource)
        assert (True, ("all",)) == (found.allowed, found.policies)
        assert (False, "policy", ("no-writes",)) == (
            found.candidate_allows,
            found.candidate_rule,
            found.candidate_policies,
        )
        seen = shadow.differences[found]
        assert (2, 5) == (seen.count, (seen.last_at - seen.first_at).total_seconds())
        assert (6, 0, 0) == (shadow.compared, shadow.errors, shadow.beyond)

    async def test_what_the_candidate_allows(self, room, shadow, told):
        """What is refused and the candidate would allow is remembered too, and refused."""
        room.engine.types = types(NO_WRITES)
        shadow.replace(types())
        with pytest.raises(PolicyDenied):
            await room.begin(wanted=Authority((Grant(TICKETS, ("ticket:write",)),)))
        assert [(False, ("no-writes",), True, ("all",))] == [
            (each.allowed, each.policies, each.candidate_allows, each.candidate_policies) for each in told
        ]

    async def test_a_wider_ceiling(self, room, shadow, told):
        """What the ceiling does not have and the candidate's has is a difference."""
        shadow.replace(types(ceiling='[{resource = "https://new.example.org", actions = ["new"]}]'))
        with pytest.raises(ActionOutsideType):
            await room.begin(wanted=Authority((Grant(TICKETS, ("other",)),)))
        assert [] == told
        with pytest.raises(Exception, match="does not reach"):
            await room.begin(wanted=Authority((Grant("https://new.example.org", ("new",)),)))
        assert [(False, True)] == [(each.allowed, each.candidate_allows) for each in told]

    @pytest.mark.parametrize(
        ("candidate", "rule"),
        [
            (TypeSet(), "type"),
            (types(allowed_workloads='["spiffe://example.org/other"]'), "workload"),
            (types(binding='["stream"]'), "binding"),
            (types(params='{need = {type = "long", required = true}}'), "params"),
            (types(ceiling=f'[{{resource = "{WIKI}", actions = ["page:read"]}}]'), "ceiling"),
            (types(""), "policy"),
        ],
    )
    async def test_by_which_rule(self, room, shadow, told, candidate, rule):
        """A difference says which of the candidate's rules would decide."""
        shadow.replace(candidate)
        await room.begin(wanted=READ_TICKETS)
        assert [rule] == [each.candidate_rule for each in told]

    async def test_tokens_and_resumed_tasks(self, room, shadow, told):
        """The candidate is asked for each token, and when a task is resumed."""
        task = await room.begin()
        changing = TaskChanges(room.engine)
        await changing.suspend(task, OPERATOR, "why")
        shadow.replace(types(NO_WRITES))
        await changing.resume(task, OPERATOR)
        assert 3 == shadow.compared
        await room.engine.token(task, TICKETS, ["ticket:write"])
        assert (4, 1) == (shadow.compared, len(told))
        assert 2 == shadow.differences[told[0]].count

    async def test_bounded(self, room, shadow, told, monkeypatch):
        """Differences that there is no room for are counted, not kept."""
        monkeypatch.setattr(shadow_module, "SHADOW_DIFFERENCES", 1)
        shadow.replace(types(""))
        await room.begin()
        assert (1, 1, 2) == (len(told), len(shadow.differences), shadow.beyond)

    async def test_another_set(self, room, shadow):
        """When either set is another, what was seen is of no account."""
        shadow.replace(types(NO_WRITES))
        await room.begin()
        assert 1 == len(shadow.differences)
        await PolicyReload(room.engine, TaskChanges(room.engine)).apply(types(NO_WRITES))
        assert ({}, 0) == (shadow.differences, shadow.compared)
        await room.begin()
        assert ({}, 3) == (shadow.differences, shadow.compared)


class TestHarmless:
    @pytest.mark.full
    async def test_an_error_changes_nothing(self, room, shadow, told):
        """A candidate that cannot be asked is counted as an error; the answer is what it is."""
        shadow.replace(types())
        broken = task_type()
        object.__setattr__(broken, "policy", None)
        shadow.types["triage"] = broken
        task = await room.begin()
        assert (3, []) == (shadow.errors, told)
        assert await room.engine.token(task, TICKETS, ())

    async def test_without_a_candidate(self, room, shadow, told):
        """As long as there is none, nothing is compared."""
        await room.begin()
        assert (0, []) == (shadow.compared, told)
