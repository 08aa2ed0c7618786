"""Everything that changes tasks, at the same time and in any order, with writes that wait or fail, and crashes.

After each step, whatever came before it:
- a task is active only if all that it was handed on from is, and has no more than they, than its type, than before;
- what has ended stays as it is, versions only grow, and what was begun or issued has its audit record on disk;
- the agent and a validator agree on each token that was ever issued, and one that was dead once is dead for good;
- the next start would give back nothing that ended, nothing that was given up, and not one token of a budget, if the
  answer that it was so had been given.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import pytest
from fakes.families import handed_on
from fakes.task_types import PERMIT_ALL, TICKETS, WIKI, task_type
from fakes.task_worlds import ALICE, BOB, ENTRIES, Turnstile, World
from harness.examples import examples
from hypothesis import HealthCheck, currently_in_test_context, given, note
from hypothesis import strategies as st
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.errors import SojournError, TaskOver
from sojourn.policy.task_types import TypeSet
from sojourn.sdk.guard.task_feed import TaskFeed
from sojourn.tasks.blocks import Block
from sojourn.tasks.validator_feed import state_of
from sojourn.tasktoken.end_reasons import OPERATOR
from sojourn.tasktoken.grants import Authority, Grant

pytestmark = pytest.mark.full

BUDGET = 6
FACTS = (
    '{freeze = {type = "boolean", on_deny = "suspend"}, risk = {type = "boolean", on_deny = "narrow"},'
    ' alarm = {type = "boolean", on_deny = "revoke"}}'
)
BY_FACTS = (
    PERMIT_ALL
    + '@id("frozen") forbid (principal, action, resource) when { context.facts has freeze && context.facts.freeze };'
    + '@id("alarm") forbid (principal, action, resource) when { context.facts has alarm && context.facts.alarm };'
    + '@id("risky") forbid (principal, action == Sojourn::Action::"ticket:write", resource)'
    " when { context.facts has risk && context.facts.risk };"
)
STRICTER = BY_FACTS + '@id("no wiki") forbid (principal, action == Sojourn::Action::"page:read", resource);'


def _types(cedar: str, *, glass: bool, idle: str) -> TypeSet:
    types = {
        "triage": handed_on(cedar, facts=FACTS, max_tokens=str(BUDGET), idle_timeout=idle),
        "asked": task_type("asked", cedar, facts=FACTS, approval='{within = "60s"}', params=None),
        "two": task_type("two", cedar, facts=FACTS, approval='{within = "60s", count = 2}', params=None),
    }
    if glass:
        types["glass"] = task_type("glass", cedar, facts=FACTS, approval="{}", break_glass="true", params=None)
    return TypeSet(types)


SETS = (
    _types(BY_FACTS, glass=True, idle='"120s"'),
    _types(STRICTER, glass=True, idle='"60s"'),
    _types(BY_FACTS, glass=False, idle='"60s"'),
)
NAMES = ("triage", "triage", "triage", "asked", "two", "glass")
ALL = ((TICKETS, "ticket:read"), (TICKETS, "ticket:write"), (WIKI, "page:read"))
ABOUT_ONE = ("hand_on", "hand_on", "narrow", "suspend", "resume", "resume", "token", "token", "complete", "revoke")
GIVES = ("resume", "resume", "token", "approve", "hand_on", "attach")
TAKES = ("narrow", "suspend", "complete", "deny", "freeze", "risk", "reload", "resume")
STEP = st.one_of(
    st.tuples(
        st.just("race"),
        st.integers(0, 9),
        st.booleans(),
        st.sampled_from(GIVES),
        st.lists(st.tuples(st.sampled_from(TAKES), st.integers(0, 2)), min_size=1, max_size=3),
    ),
    st.tuples(st.just("begin"), st.sampled_from(NAMES)),
    st.tuples(st.sampled_from(ABOUT_ONE), st.integers(0, 9), st.sets(st.sampled_from(ALL), min_size=1)),
    st.tuples(st.sampled_from(("approve", "approve", "deny", "attach", "attach")), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("say"), st.sampled_from(("freeze", "freeze", "risk", "alarm")), st.booleans()),
    st.tuples(st.just("reload"), st.integers(0, len(SETS) - 1)),
    st.tuples(st.just("block"), st.sampled_from(("triage", "asked")), st.booleans()),
    st.tuples(st.just("time"), st.integers(1, 50), st.booleans()),
    st.tuples(st.just("writes"), st.integers(1, 3)),
    st.tuples(st.just("fact writes"), st.just(1)),
    st.tuples(st.sampled_from(("hold up", "hold up", "hold up facts", "go"))),
    st.tuples(st.just("fail"), st.integers(1, 2)),
    st.tuples(st.sampled_from(("turns", "quiet", "quiet", "crash", "cancel"))),
)
FIRST = (
    ("begin", "triage"),
    ("hand_on", 0, set(ALL)),
    ("hand_on", 1, set(ALL[:2])),
    ("begin", "asked"),
    ("begin", "glass"),
    ("token", 0, set()),
    ("token", 2, set()),
)


def pairs(authority: Authority) -> set[tuple[str, str]]:
    return {(grant.resource, action) for grant in authority.grants for action in grant.actions}


class Life:
    """A world that is lived through, and what was ever true in it."""

    def __init__(self) -> None:
        self.worlds: list[World] = []
        self.running: set[asyncio.Future[Any]] = set()
        self.tokens: dict[str, list[Any]] = {}  # by task
        self.dead: set[str] = set()
        self.versions: dict[str, int] = {}
        self.held: dict[str, set[tuple[str, str]]] = {}
        self.over: dict[str, tuple[Any, ...]] = {}
        self.begun: set[str] = set()  # answered to the holder as active
        self.ended_for_sure: set[str] = set()
        self.held_for_sure: dict[str, set[tuple[str, str]]] = {}
        self.suspended_for_sure: set[str] = set()
        self.resumed: Counter[str] = Counter()
        self.used_for_sure: dict[str, int] = {}  # by root
        self.events = 0
        self.recorded: set[tuple[str, str]] = set()
        self.root: dict[str, str] = {}

    @property
    def world(self) -> World:
        return self.worlds[-1]

    def run(self, work: Awaitable[Any]) -> None:
        running = asyncio.ensure_future(work)
        self.running.add(running)
        running.add_done_callback(self.running.discard)

    async def open(self) -> None:
        before = self.worlds[-1] if self.worlds else None
        types = before.engine.types if before else SETS[0]
        world = World(types, before, epoch=7 + len(self.worlds))
        self.worlds.append(world)
        if before is not None:
            world.engine.blocks.replace(before.engine.blocks.all())
        world.writer = asyncio.ensure_future(world.engine.journal.run())  # type: ignore[attr-defined]
        await world.start()
        world.store.gate, world.fact_store.gate = Turnstile(), Turnstile()  # type: ignore[assignment]
        watching = world.engine.feed.watch([TICKETS, WIKI])
        world.watcher = world.add(watching)  # type: ignore[attr-defined]
        world.feed = TaskFeed(None, [TICKETS, WIKI])  # type: ignore[attr-defined, arg-type]
        for task in world.engine.tasks.all():
            if task.state != "pending":
                self._note(task)

    def _note(self, task: Any) -> None:
        self.world.feed._note(_message(state_of(task)))  # type: ignore[attr-defined]

    def pick(self, number: int) -> Any:
        tasks = [*self.world.engine.tasks.all(), *self.world.engine.tasks.ended()[-2:]]
        return tasks[number % len(tasks)] if tasks else None

    async def step(self, step: tuple[Any, ...]) -> None:
        world, what = self.world, step[0]
        task = self.pick(step[1]) if len(step) > 2 and isinstance(step[1], int) else None
        match what:
            case "race" if task is not None:
                await self._race(task, *step[2:])
            case "begin":
                self.run(self._begin(step[1]))
            case "say":
                self.run(_quietly(world.say(step[1], step[2])))
            case "reload":
                self.run(_quietly(world.reloading.apply(SETS[step[1]])))
            case "block":
                self._block(step[1], off=step[2])
            case "time":
                world.clock.advance(step[1])
                if step[2]:
                    world.alarms.ring_due()
            case "hold up":
                world.store.gate.close()
            case "hold up facts":
                world.fact_store.gate.close()
            case "go":
                world.store.gate.open(), world.fact_store.gate.open()
            case "writes":
                world.store.gate.pass_(step[1])
            case "fact writes":
                world.fact_store.gate.pass_(step[1])
            case "fail":
                world.store.gate.failures = step[1]
            case "quiet":
                await self.quiet()
            case "cancel":
                for each in list(self.running):
                    each.cancel()
            case "crash":
                await self.crash()
            case "turns":
                pass
            case _ if task is not None and what != "race":
                self.run(getattr(self, f"_{what}")(task, step[2]))
        await turns()

    async def _race(self, task: Any, suspended: bool, gives: str, takes: list[tuple[str, int]]) -> None:
        """While something that grants is being written, something takes away."""
        world = self.world
        if suspended:
            self.run(self._suspend(task, None))
            await turns()
        world.store.gate.close()
        self.run(getattr(self, f"_{gives}")(task, set(ALL)))
        await turns()
        for what, writes in takes:
            if what in {"freeze", "risk"}:
                self.run(_quietly(world.say(what, bool(writes))))
            elif what == "reload":
                self.run(_quietly(world.reloading.apply(SETS[writes])))
            else:
                self.run(getattr(self, f"_{what}")(task, set(ALL[:1])))
            await turns()
            world.store.gate.pass_(writes)

    async def quiet(self) -> None:
        world = self.world
        world.store.gate.open(), world.fact_store.gate.open()
        for _ in range(2):
            if self.running:
                await asyncio.wait(set(self.running), timeout=20)
            world.alarms.ring_due()
            await world.quiet()
        for task in [*world.engine.tasks.all(), *world.engine.tasks.ended()]:
            self._check_written(task)

    def _check_written(self, task: Any) -> None:
        record = task.record()
        assert self.world.store.rows[task.id] == (record.state, record.version)
        document = json.loads(self.world.store.documents[task.id])
        for name in ("grants", "suspensions", "reason"):
            assert json.loads(json.dumps(record.document[name])) == document[name], name

    async def crash(self) -> None:
        """The agent is killed, and starts again on what is on disk."""
        old = self.world
        old.writer.cancel()
        running = list(self.running)
        for each in running:
            each.cancel()
        await asyncio.gather(old.writer, *running, return_exceptions=True)
        self.dead |= {token.token for each in self.tokens.values() for token in each}
        # What was taken away, and nobody had been told so, may be back.
        self.over = {task_id: how for task_id, how in self.over.items() if task_id in self.ended_for_sure}
        self.held = dict(self.held_for_sure)
        await self.open()
        for task in self.world.engine.tasks.all():
            currently_in_test_context() and note(f"back: {task.id} {task.state} {dict(task.suspensions)}")
            assert task.state == "suspended"
            assert task.id not in self.ended_for_sure, "an end was forgotten"
            assert pairs(task.authority) <= self.held_for_sure.get(task.id, set(ALL)), "what was given up came back"
            assert task.id not in self.suspended_for_sure or OPERATOR in task.suspensions, "a suspension was forgotten"
            if not task.parent_id:
                assert task.spent.tokens >= self.used_for_sure.get(task.id, 0), "a budget came back"

    # --- what may be done ------------------------------------------------------------------------------------------

    async def _begin(self, name: str) -> None:
        with suppress(SojournError):
            task = await self.world.begin(name)
            self.root[task.id] = task.id
            if task.state == "active":
                self.begun.add(task.id)

    async def _hand_on(self, task: Any, wanted: set[tuple[str, str]]) -> None:
        part = Authority.of(Grant(resource, (action,)) for resource, action in sorted(wanted))
        with suppress(SojournError):
            worker = task.depth
            ticket = await self.world.ticket(task, worker, part)
            child = await self.world.accept(ticket, worker)
            self.root[child.id] = self.root[task.id]
            self.begun.add(child.id)

    async def _narrow(self, task: Any, kept: set[tuple[str, str]]) -> None:
        part = Authority.of(Grant(resource, (action,)) for resource, action in sorted(kept & pairs(task.authority)))
        with suppress(SojournError):
            await self.world.changing.narrow(task, part, "holder")
            self.held_for_sure[task.id] = self.held_for_sure.get(task.id, set(ALL)) & pairs(part)

    async def _suspend(self, task: Any, _: Any) -> None:
        resumed = self.resumed[task.id]
        with suppress(SojournError):
            await self.world.changing.suspend(task, OPERATOR, "test")
            if resumed == self.resumed[task.id]:
                self.suspended_for_sure.add(task.id)

    async def _resume(self, task: Any, _: Any) -> None:
        self.resumed[task.id] += 1
        self.suspended_for_sure.discard(task.id)
        with suppress(SojournError):
            await self.world.changing.resume(task, OPERATOR)

    async def _token(self, task: Any, _: Any) -> None:
        with suppress(SojournError):
            token = await self.world.engine.token(task, TICKETS, ())
            self.tokens.setdefault(task.id, []).append(token)
            self.check_recorded()
            assert ("token_issued", token.claims["jti"]) in self.recorded
            root = self.root[task.id]
            self.used_for_sure[root] = self.used_for_sure.get(root, 0) + 1

    async def _complete(self, task: Any, _: Any) -> None:
        with suppress(SojournError):
            await self.world.engine.complete(task, failed=False)
            self.ended_for_sure.add(task.id)

    async def _revoke(self, task: Any, _: Any) -> None:
        with suppress(SojournError):
            await self.world.engine.revoke(task, "admin")
            self.ended_for_sure.add(task.id)

    async def _approve(self, task: Any, alice: bool) -> None:
        if task.approval is not None:
            with suppress(SojournError):
                await self.world.approve(task, ALICE if alice else BOB)

    async def _deny(self, task: Any, alice: bool) -> None:
        if task.approval is not None:
            with suppress(SojournError):
                await self.world.deny(task, ALICE if alice else BOB)
                self.ended_for_sure.add(task.id)

    async def _attach(self, task: Any, _: Any) -> None:
        peer = self.world.worker_peer if task.depth else self.world.peer
        with suppress(SojournError):
            await self.world.attaching.of_caller(peer, ENTRIES, task.id)

    def _block(self, name: str, *, off: bool) -> None:
        engine = self.world.engine
        engine.blocks.replace([Block("type", name, "test", 0)] if off else [])
        for task in engine.tasks.all() if off else ():
            if task.type.name == name:
                engine.end(task, "revoked", "blocked")

    # --- what must be true ------------------------------------------------------------------------------------------

    def check(self) -> None:
        self.check_recorded()
        engine = self.world.engine
        for task in [*engine.tasks.all(), *engine.tasks.ended()]:
            self._check_task(task)
        watcher, feed = self.world.watcher, self.world.feed  # type: ignore[attr-defined]
        for state in watcher.take():
            feed._note(_message(state))
        for task_id, tokens in self.tokens.items():
            for token in tokens:
                self._check_token(task_id, token)

    def _check_task(self, task: Any) -> None:
        engine = self.world.engine
        assert task.version >= self.versions.get(task.id, 0)
        self.versions[task.id] = task.version
        assert pairs(task.authority) <= self.held.get(task.id, set(ALL))
        self.held[task.id] = pairs(task.authority)
        if task.id in self.over:
            assert (task.state, task.reason, task.version) == self.over[task.id], "what has ended was changed"
        if not task.live:
            self.over[task.id] = (task.state, task.reason, task.version)
            return
        assert (task.state == "suspended") == bool(task.suspensions)
        if task.state == "active" and task.approval is not None:
            assert len(task.approval.given) >= task.approval.request.count
            assert ("task_begun", task.id) in self.recorded
        if task.id in self.begun:
            assert ("begun", task.id) in self.recorded
        if task.state == "active" and task.type.break_glass:
            assert task.id in {each.task_id for each in self.world.review_store.kept}
        parent = engine.family.parent(task)
        if task.parent_id:
            assert parent is not None
            assert parent.live
            assert task.state != "active" or parent.state == "active"
            assert pairs(task.authority) <= pairs(parent.authority)
            assert task.deadline <= parent.deadline
            assert task.spent is parent.spent

    def _check_token(self, task_id: str, token: Any) -> None:
        engine, known = self.world.engine, self.world.feed.lookup(task_id)  # type: ignore[attr-defined]
        by_validator = known is not None and known.live and token.task_version >= known.version
        task = engine.tasks.find(task_id)
        if task is None or task.state != "active" or token.task_version < task.version:
            self.dead.add(token.token)
            assert not by_validator, "a validator takes a dead token"
            if task is not None and task.live:
                with suppress(TaskOver):
                    engine.check_token(token)
                    raise AssertionError("the agent takes a dead token")
        else:
            assert by_validator, "a validator refuses a good token"
            assert token.token not in self.dead, "a token was revived"

    def check_recorded(self) -> None:
        for event in self.world.store.events[self.events :]:
            fields = json.loads(event.fields)
            if event.event == "token_issued":
                self.recorded.add(("token_issued", fields["jti"]))
            if event.event in {"task_begun", "delegation_accepted"}:
                self.recorded |= {(event.event, fields["task"]), ("begun", fields["task"])}
        self.events = len(self.world.store.events)

    def close(self) -> None:
        for world in reversed(self.worlds):
            world.end_everything()


async def turns() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


def _message(state: Any) -> Any:
    return pb.TaskState(
        id=state.id, version=state.version, live=state.live, reason=state.reason, suspended=state.suspended
    )


async def _quietly(work: Awaitable[Any]) -> None:
    with suppress(SojournError):
        await work


async def _live(steps: list[tuple[Any, ...]]) -> None:
    life = Life()
    try:
        await life.open()
        for step in (*FIRST, *steps):
            await life.step(step)
            life.check()
        await life.quiet()
        life.check()
        await life.crash()
        life.check()
    finally:
        running = [*life.running, *(world.writer for world in life.worlds)]
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        life.close()
        for each in asyncio.all_tasks() - {asyncio.current_task()}:
            each.cancel()


_NARROWED = ("race", 0, False, "resume", [("narrow", 0)])
FOUND = {
    # What a child had used was written of its family after the resumption, and of the task as it was before that.
    "a record written over": [
        *[_NARROWED] * 4,
        *[("begin", "triage")] * 3,
        ("say", "freeze", True),
        ("quiet",),
        ("race", 1, False, "resume", [("freeze", 0), ("complete", 0)]),
    ],
    # What a child's child had used was forgotten at a start at which the child did not come back.
    "a grandchild's token": [
        ("writes", 1),
        ("hand_on", 0, {ALL[1]}),
        ("narrow", 0, {ALL[0]}),
        ("reload", 1),
        ("race", 0, False, "resume", [("narrow", 1)]),
        ("hand_on", 0, {ALL[0]}),
        *[_NARROWED] * 2,
        ("race", 8, False, "token", [("narrow", 0)]),
        ("begin", "triage"),
    ],
}


def live(steps: list[tuple[Any, ...]]) -> None:
    asyncio.run(_live(steps))


@pytest.mark.parametrize("found", FOUND)
def test_found_before(found: str) -> None:
    """What was found once, in thousands of lives, is tried in each run."""
    live(FOUND[found])


@examples(60, *HealthCheck)
@given(steps=st.lists(STEP, min_size=10, max_size=50))
def test_in_any_order(steps: list[tuple[Any, ...]]) -> None:
    """Whatever is done to tasks, and in whatever order it is written, all of the above is true."""
    live(steps)
