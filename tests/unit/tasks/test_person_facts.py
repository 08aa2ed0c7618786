"""Facts about a person: read by the tasks of that person, and by those at once that live when one changes."""

from typing import Any

import pytest
from fakes.families import FamilyRoom, handed_on
from fakes.next_run import NextRun
from fakes.persons import CORP, person
from fakes.task_types import PERMIT_ALL, TICKETS, TRIAGE, task_type
from sojourn.errors import InvalidInput, PolicyDenied, TaskOver
from sojourn.facts.publications import Publication
from sojourn.policy.task_type_tables import OPERATOR
from sojourn.policy.task_types import TypeSet
from sojourn.tasks.pseudonyms import Pseudonyms
from sojourn.tasks.reevaluation import Reevaluation

MONITOR = "spiffe://example.org/monitor"
ALICE, BOB = person("alice"), person("bob")
UNLESS_RISKY = (
    PERMIT_ALL
    + '@id("risky") forbid (principal, action, resource) when { context.facts has risky && context.facts.risky };'
)
RISKY = '{risky = {type = "boolean", sources = ["operator", "' + MONITOR + '"]%s}}'
PEOPLE = '{need = "optional", several = true, max_live = 50}'
TYPES = TypeSet(
    {
        "triage": handed_on(UNLESS_RISKY, person=PEOPLE, facts=RISKY % ""),
        "waits": task_type("waits", UNLESS_RISKY, person=PEOPLE, facts=RISKY % ', on_deny = "suspend"'),
        "deaf": task_type("deaf", person=PEOPLE),
    }
)


@pytest.fixture
async def room(clock: Any, stack: Any) -> Any:
    made: Any = FamilyRoom(clock, types=TYPES)
    made.redeciding = Reevaluation(made.engine, made.changing, made.facts, made.alarms)
    return await stack.enter_async_context(made.running())


def called(room: Any, whom: Any = ALICE) -> str:
    name: str = room.engine.pseudonyms.named(whom.url, whom.subject)
    return name


async def say(room: Any, value: bool, subject: str, source: str = OPERATOR) -> None:
    at = room.facts.happens_now("risky", subject, source)
    await room.facts.publish(Publication("risky", subject, value, source, None, at), {})


class TestLiveTasks:
    async def test_hers_alone(self, room: Any) -> None:
        """When something is said of alice her tasks are decided again before that returns; bob's, nobody's, and those of
        types that do not read it go on.
        """
        hers = await room.begin("triage", person=ALICE)
        below = await room.hand_on(hers, 0)
        deaf = await room.begin("deaf", person=ALICE)
        others = [await room.begin("triage", person=BOB), await room.begin("triage"), deaf]
        await say(room, True, called(room))
        assert ("revoked", "context_changed") == (hers.state, hers.reason)
        assert not below.live
        assert ["active"] * 3 == [each.state for each in others]
        for each in others:
            await room.engine.token(each, TICKETS, ())

    async def test_no_more_for_her(self, room: Any) -> None:
        """As long as it is so nothing begins for her; once it is taken back it does."""
        await say(room, True, called(room))
        with pytest.raises(PolicyDenied):
            await room.begin("triage", person=ALICE)
        assert (await room.begin("triage", person=BOB)).live
        await room.facts.unset("risky", called(room), OPERATOR, {})
        assert (await room.begin("triage", person=ALICE)).live

    async def test_comes_back(self, room: Any) -> None:
        """A task that was suspended for it goes on when it is not so any more."""
        task = await room.begin("waits", person=ALICE)
        await say(room, True, called(room))
        assert "suspended" == task.state
        with pytest.raises(TaskOver):
            await room.engine.token(task, TICKETS, ())
        await say(room, False, called(room))
        assert "active" == task.state

    async def test_not_of_the_same_subject_elsewhere(self, room: Any) -> None:
        """Somebody with her subject at another issuer is somebody else."""
        task = await room.begin("triage", person=person("alice", issuer="partner", url=f"{CORP}/"))
        await say(room, True, called(room))
        assert task.live

    async def test_after_a_renewal_and_an_end(self, room: Any) -> None:
        """Whose tasks there are is known as they come and go."""
        first, second = await room.begin("triage", person=ALICE), await room.begin("waits", person=ALICE)
        find = room.engine.tasks.people.of_pseudonym
        assert {first.id, second.id} == {each.id for each in find(called(room))}
        room.engine.end(first, "completed", "success")
        assert [second.id] == [each.id for each in find(called(room))]
        room.engine.end(second, "completed", "success")
        assert [] == find(called(room))

    async def test_over_a_restart(self, room: Any, stack: Any) -> None:
        """The next run finds her tasks by the same pseudonym, and ends those that it denies."""
        task = await room.begin("triage", person=ALICE)
        later = await NextRun.after(room, stack)
        found = later.engine.tasks.people.of_pseudonym(later.engine.pseudonyms.named(CORP, "alice"))
        assert [task.id] == [each.id for each in found]

    async def test_with_another_key(self, room: Any, stack: Any) -> None:
        """Where the key of pseudonyms is another one, live tasks are those of whoever is called so from then on: what is
        said of her does not pass them by.
        """
        task = await room.begin("triage", person=ALICE)
        later = await NextRun.after(room, stack, pseudonyms=Pseudonyms(b"k" * 32))
        now = later.engine.pseudonyms.named(CORP, "alice")
        assert [task.id] == [each.id for each in later.engine.tasks.people.of_pseudonym(now)]
        assert (called(room) != now, now) == (True, later.only.whom.pseudonym)


class TestWhichCounts:
    @pytest.mark.parametrize(
        ("said", "begins"),
        [
            ({"alice": False, TRIAGE: True, "": True}, True),
            ({"alice": True, TRIAGE: False, "": False}, False),
            ({TRIAGE: False, "": True}, True),
        ],
    )
    async def test_the_nearest(self, room: Any, said: dict[str, bool], begins: bool) -> None:
        """Of what one source says that counts which is of the person, then what is of the workload, then what is so
        everywhere.
        """
        for subject, value in said.items():
            await say(room, value, called(room) if subject == "alice" else subject)
        if begins:
            assert (await room.begin("triage", person=ALICE)).live
        else:
            with pytest.raises(PolicyDenied):
                await room.begin("triage", person=ALICE)

    async def test_not_before_a_better_source(self, room: Any) -> None:
        """What a later source says of the person does not overrule what the first says of all."""
        await say(room, True, "")
        await say(room, False, called(room), MONITOR)
        with pytest.raises(PolicyDenied):
            await room.begin("triage", person=ALICE)

    async def test_what_says_otherwise(self, room: Any) -> None:
        """Whoever says something of a person is told what counts before it for a task of theirs, and nothing of others."""
        task, other = await room.begin("triage", person=ALICE), await room.begin("triage", person=BOB)
        for subject in (task.id, other.id, called(room, BOB)):
            await say(room, False, subject)
        await say(room, True, called(room), MONITOR)
        said = room.facts.find(("risky", called(room), MONITOR))
        assert [task.id] == [fact.subject for fact, _ in room.redeciding.otherwise(said)]
        await say(room, False, TRIAGE)
        assert {task.id, TRIAGE} == {fact.subject for fact, _ in room.redeciding.otherwise(said)}


class TestKept:
    async def test_by_a_pseudonym(self, room: Any) -> None:
        """Neither store nor audit has who they are; and what is no pseudonym is no subject."""
        await say(room, True, called(room))
        (event,) = room.store.fields("fact_published")
        assert called(room) == event["subject"]
        kept = str([*room.fact_store.rows.items()]) + " ".join(each.fields for each in room.store.events)
        assert "alice" not in kept
        for subject in ("alice", "corp|alice", "psn_", "psn_short", called(room) + "x", called(room).upper()):
            with pytest.raises(InvalidInput):
                await say(room, True, subject)
