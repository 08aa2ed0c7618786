"""reevaluation.py: what becomes of live tasks when facts change, end, or become too old."""

import asyncio
from datetime import timedelta

import pytest
from fakes.task_room import READ_TICKETS, Room
from fakes.task_types import PERMIT_ALL, TICKETS, TRIAGE, WIKI, task_type
from sojourn.errors import PolicyDenied, StoreFailed, TaskOver
from sojourn.facts.publications import Publication
from sojourn.policy import rules
from sojourn.policy.task_type_tables import OPERATOR
from sojourn.policy.task_types import TypeSet
from sojourn.tasks.policy_reload import PolicyReload
from sojourn.tasks.reevaluation import Reevaluation
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasktoken.end_reasons import FACTS
from sojourn.tasktoken.grants import Authority, Grant

MONITOR, ISSUER = "spiffe://example.org/monitor", "https://risk.example.org"
UNLESS_FROZEN = (
    PERMIT_ALL
    + '@id("frozen") forbid (principal, action, resource) when { context.facts has freeze && context.facts.freeze };'
)
NO_WRITES_IF_RISKY = (
    PERMIT_ALL
    + '@id("risky") forbid (principal, action == Sojourn::Action::"ticket:write", resource) when { context.facts has risk && context.facts.risk > 5 };'
)
ONLY_IF_OPEN = '@id("open") permit (principal, action, resource) when { context.facts.open };'
EVERYTHING = Authority((Grant(TICKETS, ("ticket:read", "ticket:write")), Grant(WIKI, ("page:read",))))


def rule(kind="boolean", **more):
    fields = ", ".join(f"{name} = {value}" for name, value in more.items())
    return f'{{type = "{kind}"{", " if fields else ""}{fields}}}'


TYPES = TypeSet(
    revoked=task_type("revoked", UNLESS_FROZEN, facts=f"{{freeze = {rule()}}}"),
    suspended=task_type(
        "suspended", UNLESS_FROZEN, facts=f"{{freeze = {rule(on_deny=chr(34) + 'suspend' + chr(34))}}}"
    ),
    narrowed=task_type(
        "narrowed",
        NO_WRITES_IF_RISKY,
        facts=f'{{risk = {{type = "long", on_deny = "narrow", sources = ["{MONITOR}", "operator"]}}}}',
    ),
    opened=task_type(
        "opened",
        ONLY_IF_OPEN,
        facts='{open = {type = "boolean", required = true, max_age = "5m", on_deny = "suspend"}}',
    ),
    other=task_type("other"),
)


@pytest.fixture
async def room(clock):
    room = Room(clock, TYPES)
    room.changing = TaskChanges(room.engine)
    room.redeciding = Reevaluation(room.engine, room.changing, room.facts, room.alarms)
    async with room.running():
        yield room
        await room.facts.quiet()


def said(room, name, value, *, subject="", source=OPERATOR, valid=None):
    return Publication(name, subject, value, source, valid, room.facts.happens_now(name, subject, source))


async def say(room, name, value, **more):
    return await room.facts.publish(said(room, name, value, **more), {"by_uid": 0})


async def settled(room):
    """Return when what alarms have begun is done."""
    room.alarms.ring_due()
    await room.facts.quiet()
    await room.redeciding.quiet()
    await room.engine.journal.drain()


@pytest.fixture
def asked(monkeypatch):
    """The IDs of the tasks that policy is asked about, one by one."""
    found = []
    original = rules.still_allowed

    def spy(kind, principal, *arguments):
        found.append(principal.task_id)
        return original(kind, principal, *arguments)

    monkeypatch.setattr(rules, "still_allowed", spy)
    return found


class TestOnDeny:
    async def test_revoke(self, room):
        """A task that a fact leaves nothing is over at once: its tokens too, validators and the journal know why."""
        task = await room.begin("revoked")
        token = await room.engine.token(task, TICKETS, ())
        await say(room, "freeze", False)
        room.engine.check_token(token)
        await say(room, "freeze", True)
        assert ("revoked", "context_changed") == (task.state, task.reason)
        with pytest.raises(TaskOver):
            room.engine.check_token(token)
        await room.engine.journal.drain()
        [ended] = room.store.fields("task_ended")
        assert (["freeze"], ["frozen"]) == (ended["facts_changed"], ended["policies"])
        assert {"value": True, "source": OPERATOR, "age_seconds": 0.0} == ended["facts"]["freeze"]
        assert 64 == len(ended["inputs"])
        with pytest.raises(PolicyDenied):
            await room.begin("revoked")

    async def test_suspend_and_back(self, room):
        """A task that waits gives no token until the fact allows all of it again; then it goes on, older tokens not."""
        task = await room.begin("suspended")
        token = await room.engine.token(task, TICKETS, ())
        await say(room, "freeze", True)
        assert ("suspended", [FACTS]) == (task.state, list(task.suspensions))
        assert "'freeze'" in task.reason
        with pytest.raises(TaskOver):
            await room.engine.token(task, TICKETS, ())
        await say(room, "freeze", False)
        assert "active" == task.state
        assert await room.engine.token(task, TICKETS, ())
        with pytest.raises(TaskOver):
            room.engine.check_token(token)
        [resumed] = room.store.fields("task_resumed")
        assert ("facts", False) == (resumed["cause"], resumed["facts"]["freeze"]["value"])
        assert 64 == len(resumed["inputs"])
        assert ("active", task.version) == room.store.rows[task.id]

    async def test_unset(self, room):
        """What nobody says any more counts no more."""
        task = await room.begin("suspended")
        await say(room, "freeze", True)
        assert await room.facts.unset("freeze", "", OPERATOR, {})
        assert "active" == task.state
        assert not await room.facts.unset("freeze", "", OPERATOR, {})

    async def test_narrow(self, room):
        """What is denied is gone for good; what is left goes on. Nothing comes back with the fact."""
        task = await room.begin("narrowed", wanted=EVERYTHING)
        only_writes = await room.begin("narrowed", wanted=Authority((Grant(TICKETS, ("ticket:write",)),)))
        await say(room, "risk", 9)
        assert "active" == task.state
        assert ("ticket:read",) == task.authority.at(TICKETS)
        assert ("revoked", "context_changed") == (only_writes.state, only_writes.reason)
        await say(room, "risk", 1)
        assert ("ticket:read",) == task.authority.at(TICKETS)

    async def test_operators_have_their_say(self, room):
        """A task that an operator suspended too stays so when the fact allows it again, and the other way round."""
        first, second = await room.begin("suspended"), await room.begin("suspended")
        await say(room, "freeze", True)
        for task in (first, second):
            await room.changing.suspend(task, "operator", "why")
        await room.changing.resume(second, "operator")
        assert ("suspended", [FACTS]) == (second.state, list(second.suspensions))
        await say(room, "freeze", False)
        assert ("suspended", ["operator"]) == (first.state, list(first.suspensions))
        assert "active" == second.state


class TestExactly:
    async def test_only_who_depends_on_it(self, room, asked):
        """Only tasks whose type reads the fact are decided again, and only if the fact is about them."""
        one, two = await room.begin("narrowed"), await room.begin("narrowed")
        for name in ("revoked", "suspended", "other"):
            await room.begin(name)
        for value, subject, concerned in [
            (1, "", {one.id, two.id}),
            (2, TRIAGE, {one.id, two.id}),
            (3, MONITOR, set()),
            (4, two.id, {two.id}),
            (5, TRIAGE, {one.id}),  # of the other something nearer is said
            (6, "", set()),
        ]:
            asked.clear()
            await say(room, "risk", value, subject=subject)
            assert concerned == set(asked)
        asked.clear()
        await say(room, "unknown_to_all", True)
        assert [] == asked

    async def test_who_is_not_believed(self, room, asked):
        """What a source says that a type does not list changes nothing for its tasks: they are not even asked."""
        revoked, narrowed = await room.begin("revoked"), await room.begin("narrowed", wanted=EVERYTHING)
        asked.clear()
        await say(room, "freeze", True, source=MONITOR)
        await say(room, "risk", 9, source=ISSUER)
        assert [] == asked
        assert ("active", "active") == (revoked.state, narrowed.state)
        assert EVERYTHING == narrowed.authority
        await room.engine.token(revoked, TICKETS, ())

    async def test_the_same_again(self, room, asked):
        """Who only repeats what counts already has nobody decided again."""
        await room.begin("revoked")
        await say(room, "freeze", False)
        asked.clear()
        await say(room, "freeze", False)
        assert [] == asked

    async def test_about_one_task(self, room):
        """A fact about one task ends that task and no other, and is forgotten with it."""
        one, two = await room.begin("revoked"), await room.begin("revoked")
        await say(room, "freeze", True, subject=one.id)
        assert ("revoked", "active") == (one.state, two.state)
        await settled(room)
        assert ([], {}) == (room.facts.all(), room.fact_store.rows)
        assert "task_over" == room.store.fields("fact_expired")[0]["reason"]

    async def test_the_nearest_counts(self, room):
        """What is said of a task counts before what is said of its workload, and that before what is so everywhere."""
        task = await room.begin("suspended")
        await say(room, "freeze", False, subject=task.id)
        await say(room, "freeze", True)
        await say(room, "freeze", True, subject=TRIAGE)
        assert "active" == task.state
        with pytest.raises(PolicyDenied):
            await room.begin("suspended")


class TestTime:
    async def test_required(self, room):
        """Without a fact that its type requires nothing begins, and the answer names it."""
        with pytest.raises(PolicyDenied, match="open"):
            await room.begin("opened")
        await say(room, "open", True)
        assert await room.begin("opened")

    async def test_too_old(self, room, clock):
        """When a fact becomes older than the type takes, its tasks are decided again; said anew they come back."""
        await say(room, "open", True)
        task = await room.begin("opened")
        clock.advance(299)
        await settled(room)
        assert "active" == task.state
        await say(room, "open", True)
        clock.advance(299)
        await settled(room)
        assert "active" == task.state
        clock.advance(2)
        await settled(room)
        assert "suspended" == task.state
        with pytest.raises(PolicyDenied, match="stale: 301 s old, at most 300 s"):
            await room.begin("opened")
        await say(room, "open", True)
        assert "active" == task.state

    async def test_over(self, room, clock):
        """A fact whose validity is over is none any more: tasks are decided again, and the journal has it."""
        task = await room.begin("suspended")
        await say(room, "freeze", True, valid=60)
        clock.advance(59)
        await settled(room)
        assert "suspended" == task.state
        clock.advance(1)
        await settled(room)
        assert "active" == task.state
        assert ["expired"] == [each["reason"] for each in room.store.fields("fact_expired")]
        assert {} == room.fact_store.rows

    @pytest.mark.parametrize("step", [-86_400 * 365, 86_400 * 365])
    async def test_the_wall_clock(self, room, clock, step):
        """A step of the wall clock ends nothing, and makes nothing last: what is said after it counts as well."""
        await say(room, "open", True, valid=100)
        task = await room.begin("opened")
        clock.step_wall(step)
        await settled(room)
        assert "active" == task.state
        assert await say(room, "open", False)
        assert "suspended" == task.state
        assert await say(room, "open", True, valid=100)
        assert "active" == task.state
        clock.advance(100)
        await settled(room)
        assert "suspended" == task.state


class TestDisk:
    async def test_what_takes_away_does_not_wait(self, room):
        """While a fact is being written what it forbids is in force, and what it allows is not."""
        await say(room, "freeze", True)
        waiting = await self._suspended(room)
        room.fact_store.gate = asyncio.Event()
        allowing = asyncio.ensure_future(say(room, "freeze", False))
        await asyncio.sleep(0.01)
        with pytest.raises(PolicyDenied):
            await room.begin("suspended")
        assert "suspended" == waiting.state
        room.fact_store.gate.set()
        await allowing
        assert "active" == waiting.state
        room.fact_store.gate = asyncio.Event()
        forbidding = asyncio.ensure_future(say(room, "freeze", True))
        await asyncio.sleep(0.01)
        assert ("suspended", False) == (waiting.state, forbidding.done())
        with pytest.raises(PolicyDenied):
            await room.begin("suspended")
        room.fact_store.gate.set()
        await forbidding

    async def _suspended(self, room):
        await say(room, "freeze", False)
        task = await room.begin("suspended")
        await say(room, "freeze", True)
        return task

    async def test_not_written(self, room):
        """A fact that cannot be written is refused, and says so; what it forbids is in force, what it allows is not."""
        task = await room.begin("revoked")
        room.fact_store.failure = StoreFailed("the data folder is read-only")
        with pytest.raises(StoreFailed, match="in force until the agent stops"):
            await say(room, "freeze", True)
        assert "revoked" == task.state
        with pytest.raises(StoreFailed):
            await say(room, "freeze", False)
        assert await room.begin("revoked")
        room.fact_store.failure = None
        await say(room, "freeze", True)
        room.fact_store.failure = StoreFailed("the data folder is read-only")
        with pytest.raises(StoreFailed):
            await say(room, "freeze", False)
        with pytest.raises(PolicyDenied):
            await room.begin("revoked")

    async def test_a_caller_that_leaves(self, room):
        """Who says something and does not wait for the answer has said it: it is carried out whole."""
        task = await room.begin("suspended")
        await say(room, "freeze", True)
        saying = asyncio.ensure_future(say(room, "freeze", False))
        await asyncio.sleep(0)
        saying.cancel()
        await settled(room)
        assert "active" == task.state

    async def test_a_token_under_way(self, room):
        """A token that was decided before a fact changed does not leave after it."""
        task = await room.begin("narrowed", wanted=EVERYTHING)
        room.store.gate = asyncio.Event()
        issuing = asyncio.ensure_future(room.engine.token(task, TICKETS, ["ticket:write"]))
        await room.store.writing.wait()
        await asyncio.sleep(0)
        saying = asyncio.ensure_future(say(room, "risk", 9))
        await asyncio.sleep(0.01)
        room.store.gate.set()
        with pytest.raises((TaskOver, PolicyDenied)):
            await issuing
        await saying
        assert 0 == task.tokens_issued


class TestReload:
    async def test_other_types(self, room):
        """A task that waits for a fact survives another set of types, and comes back if that does not read it."""
        task, stays = await room.begin("suspended"), await room.begin("suspended", wanted=READ_TICKETS)
        await say(room, "freeze", True)
        reloading = PolicyReload(room.engine, room.changing)
        reloading.on_applied(room.redeciding.reloaded)
        commented = task_type(
            "suspended", UNLESS_FROZEN + "// more", facts=f"{{freeze = {rule(on_deny=chr(34) + 'suspend' + chr(34))}}}"
        )
        await reloading.apply(TypeSet(TYPES, suspended=commented))
        assert ("suspended", "suspended") == (task.state, stays.state)
        await reloading.apply(TypeSet(TYPES, suspended=task_type("suspended")))
        assert ("active", "active") == (task.state, stays.state)

    async def test_another_age(self, room, clock):
        """Another set may take facts for longer or shorter: from then on that counts."""
        await say(room, "open", True)
        task = await room.begin("opened")
        reloading = PolicyReload(room.engine, room.changing)
        reloading.on_applied(room.redeciding.reloaded)
        short = '{open = {type = "boolean", required = true, max_age = "10s", on_deny = "suspend"}}'
        await reloading.apply(TypeSet(TYPES, opened=task_type("opened", ONLY_IF_OPEN, facts=short)))
        assert "active" == task.state
        clock.advance(11)
        await settled(room)
        assert "suspended" == task.state
        long = short.replace("10s", "20s")
        await reloading.apply(TypeSet(TYPES, opened=task_type("opened", ONLY_IF_OPEN, facts=long)))
        assert "active" == task.state

    async def test_at_the_start(self, room, clock):
        """Tasks of an earlier run are decided by the facts as they are at the start."""
        await say(room, "open", True)
        task = await room.begin("opened")
        clock.advance(timedelta(minutes=6).total_seconds())
        room.redeciding.start()
        assert "suspended" == task.state
