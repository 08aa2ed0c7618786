"""Delegation under attack: facts F.8 cases 3, 4, 9, 10 and 11, and the races that an attacker would try to win."""

import asyncio
import random
import re
import time
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.families import WORKER_IDS, WORKERS, FamilyRoom, handed_on
from fakes.registrations import entry
from fakes.task_room import ISSUER, KEY, TRIAGE_ENTRY, end_all
from fakes.task_types import TICKETS, TRIAGE, WIKI
from harness.examples import examples
from harness.exchanges import encoded
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from sojourn.errors import (
    InvalidInput,
    InvalidToken,
    LimitExceeded,
    NotFound,
    PolicyDenied,
    SojournError,
    StoreFailed,
    TaskOver,
)
from sojourn.limits import DELEGATION_DEPTH
from sojourn.tasks import exchange, tokens
from sojourn.tasks.grants import Authority, Grant
from sojourn.tasks.reasons import OPERATOR
from sojourn.tasks.task import CASCADED

READ = Authority((Grant(TICKETS, ("ticket:read",)),))
PAGES = Authority((Grant(WIKI, ("page:read",)),))
NO_TICKET = "there is no such delegation ticket for the caller: each is good once, not for long, and for one workload"
RACES = 1_000


async def opened(room: FamilyRoom, stack: AsyncExitStack) -> FamilyRoom:
    await stack.enter_async_context(room.running())

    async def stop() -> None:
        room.store.gate = None
        room.store.failure = None
        end_all(room.engine)
        await room.engine.journal.drain()

    stack.push_async_callback(stop)
    return room


@pytest.fixture
async def room(stack: AsyncExitStack) -> FamilyRoom:
    return await opened(FamilyRoom(FakeClock()), stack)


async def after(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


def held(authority: Authority) -> set[tuple[str, str]]:
    return {(grant.resource, action) for grant in authority.grants for action in grant.actions}


def verified(room: FamilyRoom, token: str, audience: str = TICKETS) -> tokens.TaskToken:
    keys = {KEY.kid: KEY.public}
    return tokens.verify(token, keys=keys, issuer=ISSUER, audience=audience, now=room.clock.now())


# --- case 9: depth, fan-out, and cycles -----------------------------------------------------------------------------


async def test_case_9_depth(stack: AsyncExitStack) -> None:
    """A task is handed on as deep as its type says, and no deeper; the longest line that there can be gives tokens."""
    room = await opened(FamilyRoom(FakeClock()), stack)
    task = await room.begin()
    for depth in range(DELEGATION_DEPTH):
        task = await room.hand_on(task, depth)
        assert depth + 1 == task.depth
    token = verified(room, (await room.engine.token(task, TICKETS, ())).token)
    assert list(reversed(WORKER_IDS[:DELEGATION_DEPTH])) == [str(each) for each in token.actors]
    assert TRIAGE == str(token.spiffe_id)
    with pytest.raises(PolicyDenied, match=f"{DELEGATION_DEPTH} deep at most"):
        await room.ticket(task, DELEGATION_DEPTH)


async def test_case_9_depth_of_the_type(stack: AsyncExitStack) -> None:
    """A type that says one is handed on once, by nobody to nobody else."""
    room = await opened(FamilyRoom(FakeClock(), handed_on(delegation={"max_depth": 1})), stack)
    task = await room.hand_on(await room.begin(), 0)
    with pytest.raises(PolicyDenied, match="1 deep at most"):
        await room.ticket(task, 1)


async def test_case_9_fan_out(stack: AsyncExitStack) -> None:
    """Children that began count for good, also those that are over, and so does each ticket that may still be used."""
    room = await opened(FamilyRoom(FakeClock(), handed_on(delegation={"max_children": 2})), stack)
    task = await room.begin()
    first = await room.hand_on(task, 0)
    room.engine.end(first, "completed", "success")
    ticket = await room.ticket(task, 1)
    with pytest.raises(LimitExceeded, match="as often as its type allows"):
        await room.ticket(task, 2)
    room.clock.advance(61)
    room.alarms.ring_due()  # the ticket was not used in time: there is room for another
    with pytest.raises(NotFound):
        await room.accept(ticket, 1)
    await room.hand_on(task, 2)
    with pytest.raises(LimitExceeded):
        await room.ticket(task, 3)


async def test_case_9_fan_out_at_once(stack: AsyncExitStack) -> None:
    """Fifty who ask for tickets at once get as many as the type allows."""
    room = await opened(FamilyRoom(FakeClock(), handed_on(delegation={"max_children": 3})), stack)
    task = await room.begin()
    outcomes = await asyncio.gather(*(room.ticket(task, 1) for _ in range(50)), return_exceptions=True)
    assert 3 == sum(isinstance(each, str) for each in outcomes)
    assert {LimitExceeded} == {type(each) for each in outcomes if not isinstance(each, str)}


@pytest.mark.parametrize("to", [TRIAGE, WORKER_IDS[0], WORKER_IDS[1]], ids=["root", "between", "itself"])
async def test_case_9_cycle(room: FamilyRoom, to: str) -> None:
    """Nobody who has, or had, the task gets it a second time."""
    task = await room.hand_on(await room.hand_on(await room.begin(), 0), 1)
    with pytest.raises(PolicyDenied, match="not handed in a circle"):
        await room.delegating.delegate(task, entry(to.removeprefix("spiffe://example.org")).spiffe_id, None)


async def test_nobody_who_is_not_named(room: FamilyRoom) -> None:
    """A task is handed on to workloads that its type names, and the refusal is recorded."""
    task = await room.begin()
    with pytest.raises(PolicyDenied, match="not handed on to"):
        await room.delegating.delegate(task, entry("/stranger").spiffe_id, None)
    await room.engine.audit.flush()
    [denied] = room.store.fields("delegation_denied")
    assert (task.id, "spiffe://example.org/stranger") == (denied["task"], denied["to"])


# --- case 10: tickets stolen, used twice, used after the end ---------------------------------------------------------


async def test_case_10_a_stolen_ticket(room: FamilyRoom) -> None:
    """A ticket in other hands is worth nothing, says nothing, and is still good for whom it is for."""
    task = await room.begin()
    ticket = await room.ticket(task, 0)
    for thief in ((entry(WORKERS[1]),), (TRIAGE_ENTRY,), ()):
        with pytest.raises(NotFound, match=f"^{NO_TICKET}$"):
            await room.accept(ticket, 0, entries=thief)
    assert "active" == (await room.accept(ticket, 0)).state


async def test_case_10_all_bad_tickets_look_alike(room: FamilyRoom) -> None:
    """Unknown, used, expired, foreign and void tickets cannot be told apart."""
    task, other = await room.begin(), await room.begin()
    used, foreign, expired, void = [await room.ticket(task, number) for number in range(3)] + [
        await room.ticket(other, 0)
    ]
    await room.accept(used, 0)
    room.engine.end(other, "revoked", "test")
    tries = [(used, 0), (foreign, 0), (void, 0), ("dlg_unknown", 0), ("", 0), ("\udcff\0" * 9, 0)]
    found = []
    for ticket, worker in tries:
        with pytest.raises(NotFound) as error:
            await room.accept(ticket, worker)
        found.append((error.value.public, error.value.detail))
    room.clock.advance(61)
    with pytest.raises(NotFound) as error:
        await room.accept(expired, 2)
    assert {(NO_TICKET, "")} == {*found, (error.value.public, error.value.detail)}


@pytest.mark.timeout(120)
async def test_case_10_unknown_and_foreign_take_as_long(room: FamilyRoom) -> None:
    """The times of an unknown ticket and of one that is another's lie in one range."""
    ticket = await room.ticket(await room.begin(), 1)

    async def seconds(tried: str) -> float:
        began = time.perf_counter()
        with suppress(NotFound):
            await room.accept(tried, 0)
        return time.perf_counter() - began

    times: dict[str, list[float]] = {ticket: [], "dlg_" + "A" * 43: []}
    for _ in range(300):
        for tried, taken in times.items():
            taken.append(await seconds(tried))
    foreign, unknown = (sorted(taken)[len(taken) // 2] for taken in times.values())
    assert foreign < 2 * unknown + 0.0005
    assert unknown < 2 * foreign + 0.0005


async def test_case_10_fifty_with_one_ticket(room: FamilyRoom) -> None:
    """Of fifty who come with one ticket at once one begins a task; the others learn nothing."""
    task = await room.begin()
    for _ in range(20):
        ticket = await room.ticket(task, 0)
        outcomes = await asyncio.gather(*(room.accept(ticket, 0) for _ in range(50)), return_exceptions=True)
        winners = [each for each in outcomes if not isinstance(each, BaseException)]
        assert 1 == len(winners)
        assert [NO_TICKET] * 49 == [each.public for each in outcomes if isinstance(each, NotFound)]
        assert winners == room.engine.family.children(task)
        room.engine.end(winners[0], "completed", "success")


async def test_case_10_after_the_end_of_the_parent(room: FamilyRoom) -> None:
    """When a task is over its tickets are void; when it is suspended they are void too, and stay so."""
    over, paused = await room.begin(), await room.begin()
    first, second = await room.ticket(over, 0), await room.ticket(paused, 0)
    room.engine.end(over, "completed", "success")
    await room.changing.suspend(paused, OPERATOR, "test")
    await room.changing.resume(paused, OPERATOR)
    for ticket in (first, second):
        with pytest.raises(NotFound):
            await room.accept(ticket, 0)
    assert 0 == len(room.engine.tickets)
    assert 0 == paused.handed_on


async def test_case_10_of_a_type_that_is_for_breaking_glass_by_now(room: FamilyRoom) -> None:
    """A ticket from before its type became one for emergencies is good for nothing, and there are no more."""
    task = await room.begin()
    ticket = await room.ticket(task, 0)
    task.type = handed_on(break_glass="true", max_duration='"10m"', approval='{within = "60s"}')
    with pytest.raises(PolicyDenied, match="break-glass"):
        await room.accept(ticket, 0)
    with pytest.raises(PolicyDenied, match="break-glass"):
        await room.ticket(task, 0)
    assert [task] == room.engine.tasks.all()


async def test_case_10_a_narrowed_parent_cuts_its_tickets(room: FamilyRoom) -> None:
    """A ticket gives what its parent still has at the time; nothing left is no ticket."""
    task = await room.begin()
    ticket, gone = await room.ticket(task, 0), await room.ticket(task, 1, PAGES)
    await room.changing.narrow(task, READ, "holder")
    assert READ == (await room.accept(ticket, 0)).authority
    with pytest.raises((NotFound, PolicyDenied)):
        await room.accept(gone, 1)
    assert 1 == len(room.engine.family.children(task))


async def test_case_10_tickets_are_random_and_kept_as_digests(room: FamilyRoom) -> None:
    """No ticket stands in memory, a record or a repr; each has 256 random bits."""
    task = await room.begin()
    issued = [await room.delegating.delegate(task, entry(WORKERS[0]).spiffe_id, None) for _ in range(20)]
    texts = {each.ticket for each in issued}
    assert 20 == len(texts)
    assert all(re.fullmatch(r"dlg_[A-Za-z0-9_-]{43}", each) for each in texts)
    seen = [repr(each) for each in issued] + [str(vars(room.engine.tickets))]
    seen += [each.fields for each in room.store.events] + [each.decode() for each in room.store.documents.values()]
    assert not [text for text in texts if any(text in each for each in seen)]


async def test_case_10_no_record_no_ticket(room: FamilyRoom) -> None:
    """A ticket that cannot be recorded is none, and a task that cannot be written has not begun."""
    task = await room.begin()
    ticket = await room.ticket(task, 0)
    room.store.failure = StoreFailed("the disk is gone")
    with pytest.raises(StoreFailed):
        await room.ticket(task, 1)
    with pytest.raises(StoreFailed):
        await room.accept(ticket, 0)
    room.store.failure = None
    assert [] == room.engine.family.children(task)
    assert (0, 0) == (task.handed_on, len(room.engine.tickets))
    with pytest.raises(NotFound):  # it was used up all the same
        await room.accept(ticket, 0)


# --- case 10: the race against the parent's end ----------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["first", "second"])
async def test_case_10_the_parent_ends_while_the_child_is_written(room: FamilyRoom, ends: str) -> None:
    """Whichever is written first, a parent's end takes along the child that is just beginning."""
    task = await room.begin()
    ticket = await room.ticket(task, 0)
    room.store.gate = asyncio.Event()
    room.store.writing.clear()
    if ends == "first":
        room.engine.end(task, "revoked", "race")
        await room.store.writing.wait()
        accepting = asyncio.ensure_future(room.accept(ticket, 0))
        await after(3)
        expected: Any = NotFound
    else:
        accepting = asyncio.ensure_future(room.accept(ticket, 0))
        await room.store.writing.wait()
        room.engine.end(task, "revoked", "race")
        expected = TaskOver
    room.store.gate.set()
    room.store.gate = None
    with pytest.raises(expected):
        await accepting
    await room.engine.journal.drain()
    assert [] == room.engine.tasks.all()
    assert {"revoked"} | ({CASCADED} if ends == "second" else set()) == {state for state, _ in room.store.rows.values()}


@pytest.mark.timeout(120)
async def test_case_10_a_thousand_races(room: FamilyRoom) -> None:
    """Whenever the parent ends, no child of it lives on, and no token of a child is good after that."""
    chance, begun, refused, tokens_seen = random.Random(5), 0, 0, 0
    for _ in range(RACES):
        task = await room.begin()
        ticket = await room.ticket(task, 0)

        async def work(ticket: str = ticket) -> tuple[Any, Any]:
            child = await room.accept(ticket, 0)
            return child, await room.engine.token(child, TICKETS, ())

        working = asyncio.ensure_future(work())
        await after(chance.randrange(14))
        room.engine.end(task, "revoked", "race")
        assert [] == room.engine.tasks.all()
        [outcome] = await asyncio.gather(working, return_exceptions=True)
        assert [] == room.engine.tasks.all()
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, NotFound | TaskOver)
            refused += 1
            continue
        child, token = outcome
        begun += 1
        tokens_seen += 1
        assert (CASCADED, "parent_ended") == (child.state, child.reason)
        with pytest.raises(TaskOver):
            room.engine.check_token(token)
    assert refused > RACES / 20
    assert begun > RACES / 20


async def test_case_10_the_parent_is_suspended_while_the_child_is_written(room: FamilyRoom) -> None:
    """A child whose parent is suspended before it is on disk has not begun: nobody is left with a task unknown."""
    task = await room.begin()
    ticket = await room.ticket(task, 0)
    room.store.gate = asyncio.Event()
    room.store.writing.clear()
    accepting = asyncio.ensure_future(room.accept(ticket, 0))
    await room.store.writing.wait()
    suspending = asyncio.ensure_future(room.changing.suspend(task, OPERATOR, "race"))
    await after(2)
    room.store.gate.set()
    room.store.gate = None
    with pytest.raises(TaskOver):
        await accepting
    await suspending
    assert [task] == room.engine.tasks.all()


# --- case 11 and 4: who says who acts --------------------------------------------------------------------------------


async def test_case_11_actors_are_attested(room: FamilyRoom) -> None:
    """Who acts is who was attested; what a request says of it is a choice among its own identities at most."""
    task = await room.begin()
    ticket = await room.ticket(task, 0)
    with pytest.raises(NotFound):
        await room.accept(ticket, 0, entries=(entry(WORKERS[1]),), spiffe_id=entry(WORKERS[0]).spiffe_id)
    both = (entry(WORKERS[1]), entry(WORKERS[0]))
    child = await room.accept(ticket, 0, entries=both)
    assert WORKER_IDS[0] == str(child.spiffe_id)
    claims = (await room.engine.token(child, TICKETS, ())).claims
    assert (TRIAGE, WORKER_IDS[0], {"sub": WORKER_IDS[0]}) == (claims["sub"], claims["client_id"], claims["act"])


def _deep(count: int) -> dict[str, Any]:
    act: dict[str, Any] = {"sub": "spiffe://example.org/last"}
    for number in range(count - 1):
        act = {"sub": f"spiffe://example.org/a{number}", "act": act}
    return act


ACTS = {
    "text": "spiffe://example.org/a",
    "null": None,
    "list": [{"sub": WORKER_IDS[0]}],
    "empty": {},
    "no subject": {"act": {"sub": WORKER_IDS[0]}},
    "number": {"sub": 7},
    "not a SPIFFE ID": {"sub": "https://example.org/a"},
    "other members": {"sub": WORKER_IDS[0], "iss": "https://elsewhere.example.org"},
    "inner other members": {"sub": WORKER_IDS[0], "act": {"sub": WORKER_IDS[1], "type": "human"}},
    "inner null": {"sub": WORKER_IDS[0], "act": None},
    "fifty levels": _deep(50),
    "one too many": {**_deep(DELEGATION_DEPTH + 1), "sub": WORKER_IDS[0]},
    "its subject": {"sub": WORKER_IDS[0], "act": {"sub": TRIAGE}},
    "a circle": {"sub": WORKER_IDS[0], "act": {"sub": WORKER_IDS[1], "act": {"sub": WORKER_IDS[0]}}},
    "another client": {"sub": WORKER_IDS[1]},
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())
async def test_case_11_chains_that_are_none(room: FamilyRoom, act: Any) -> None:
    """A token with a chain that we would not write is refused, though its signature is good."""
    child = await room.hand_on(await room.begin(), 0)
    good = await room.engine.token(child, TICKETS, ())
    verified(room, good.token)
    with pytest.raises(InvalidToken) as error:
        verified(room, KEY.sign({**good.claims, "act": act}, typ=tokens.TYP))
    assert "malformed" == error.value.reason_code


async def test_case_4_the_chain_cannot_be_shed(room: FamilyRoom) -> None:
    """A token of a child without its act claim, or with another subject, has no good signature; narrowing keeps it."""
    child = await room.hand_on(await room.begin(), 0)
    token = await room.engine.token(child, TICKETS, ("ticket:read",))
    header, _, signature = token.token.split(".")
    for changes in ({"act": None}, {"sub": WORKER_IDS[0]}, {"act": {"sub": WORKER_IDS[1]}}):
        forged = {name: value for name, value in {**token.claims, **changes}.items() if value is not None}
        with pytest.raises(InvalidToken) as error:
            verified(room, f"{header}.{encoded(forged)}.{signature}")
        assert "bad_signature" == error.value.reason_code
    await room.changing.narrow(child, READ, "holder")
    assert "act" in (await room.engine.token(child, TICKETS, ())).claims


@pytest.mark.parametrize("name", ["actor", "actors", "may_act", "act"])
def test_case_3_no_actor_by_parameter(name: str) -> None:
    """The token endpoint takes no actor from a request: an actor token is verified, and all else is refused."""
    form = [
        ("grant_type", exchange.GRANT_TYPE),
        ("subject_token", "x"),
        ("subject_token_type", exchange.TOKEN_TYPE_JWT),
        (name, "spiffe://example.org/agent/w0"),
    ]
    with pytest.raises(InvalidInput, match=f"'{name}' is not supported") as error:
        exchange.read(form)
    assert "invalid_request" == error.value.oauth_error


# --- what is handed on is never more ---------------------------------------------------------------------------------


async def test_budgets_are_the_familys(stack: AsyncExitStack) -> None:
    """Handing a task on makes no new budget, neither of the type's nor of a policy that counts calls."""
    once = '@id("all") permit (principal, action, resource) when { principal.calls < 2 };'
    room = await opened(FamilyRoom(FakeClock(), handed_on(once, max_tokens="3")), stack)
    task = await room.begin()
    child, second = await room.hand_on(task, 0), await room.hand_on(task, 1)
    room.engine.report_use(child, TICKETS, "ticket:read")
    room.engine.report_use(second, TICKETS, "ticket:read")
    for each in (task, child, second):
        with pytest.raises(PolicyDenied):
            await room.engine.token(each, TICKETS, ())
    task.spent.calls = 0
    for each in (task, child, second):
        await room.engine.token(each, TICKETS, ())
    for each in (task, child, second):
        with pytest.raises(LimitExceeded):
            await room.engine.token(each, TICKETS, ())


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["hand_on", "hand_on", "hand_on", "narrow", "suspend", "resume", "token", "end", "time"]),
        st.integers(0, 30),
        st.integers(0, 9),
        st.sets(st.sampled_from(sorted(held(Authority((*READ.grants, Grant(WIKI, ("page:read",)))))))),
        st.integers(0, 400),
    ),
    max_size=25,
)


@examples(60, *HealthCheck)
@given(steps=STEPS)
def test_no_child_has_more_than_its_parent(steps: list[Any]) -> None:
    """Whatever is done to a family, no child has an action, a second or a state that its parent has not."""
    asyncio.run(_live_through(steps))


async def _live_through(steps: list[Any]) -> None:
    async with AsyncExitStack() as stack:
        room = await opened(FamilyRoom(FakeClock()), stack)
        tasks = [await room.begin(max_seconds=900)]
        for step, which, worker, pairs, seconds in steps:
            task = tasks[which % len(tasks)]
            part = Authority.of(Grant(resource, (action,)) for resource, action in sorted(pairs))
            with suppress(SojournError):
                match step:
                    case "hand_on":
                        tasks.append(await room.hand_on(task, worker, part if pairs else None, seconds))
                    case "narrow":
                        await room.changing.narrow(task, part, "holder")
                    case "suspend":
                        await room.changing.suspend(task, OPERATOR, "test")
                    case "resume":
                        await room.changing.resume(task, OPERATOR)
                    case "token":
                        token = await room.engine.token(task, "", ())
                        assert token.expires_at <= min(
                            each.expires_at for each in (task, *room.engine.family.line(task))
                        )
                    case "end":
                        if task.live and which:
                            room.engine.end(task, "completed", "success")
                    case "time":
                        room.clock.advance(seconds / 10)
                        room.alarms.ring_due()
            _check_family(room, tasks)


def _check_family(room: FamilyRoom, tasks: list[Any]) -> None:
    for task in tasks:
        parent = room.engine.family.parent(task)
        if parent is None or not task.live:
            continue
        assert parent.live
        assert task.state != "active" or parent.state == "active"
        assert held(task.authority) <= held(parent.authority)
        assert task.deadline <= parent.deadline
        assert task.expires_at <= parent.expires_at
        assert (*parent.ancestors, parent.spiffe_id) == task.ancestors
        assert len({*task.ancestors, task.spiffe_id}) == task.depth + 1


async def test_a_large_family_ends_at_once(room: FamilyRoom) -> None:
    """Eight hundred tasks, a hundred at each of eight depths, are over when their root is, within a moment."""
    root = await room.begin()
    line = root
    for depth in range(DELEGATION_DEPTH):
        wide = line
        line = await room.hand_on(wide, depth)
        for _ in range(99):
            await room.hand_on(wide, depth)
    assert 1 + 100 * DELEGATION_DEPTH == len(room.engine.tasks)
    began = time.perf_counter()
    room.engine.end(root, "completed", "success")
    taken = time.perf_counter() - began
    assert 0 == len(room.engine.tasks)
    assert taken < 1.0  # some 30 ms on a quiet machine
    await room.engine.journal.drain()
    assert {"completed", CASCADED} == {state for state, _ in room.store.rows.values()}
