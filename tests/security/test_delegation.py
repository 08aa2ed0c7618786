"""Delegation under attack: facts F.8 cases 3, 4, 9 and 11."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.delegations import READ
from fakes.families import WORKER_IDS, WORKERS, FamilyRoom, handed_on, opened
from fakes.registrations import entry
from fakes.task_room import ISSUER, KEY
from fakes.task_types import TICKETS, TRIAGE
from harness.exchanges import encoded
from sojourn.errors import InvalidInput, InvalidToken, LimitExceeded, NotFound, PolicyDenied
from sojourn.limits import DELEGATION_DEPTH
from sojourn.oauth import token_request
from sojourn.tasktoken import tokens


@pytest.fixture
async def room(stack: AsyncExitStack) -> FamilyRoom:
    return await opened(FamilyRoom(FakeClock()), stack)


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
        ("grant_type", token_request.GRANT_TYPE),
        ("subject_token", "x"),
        ("subject_token_type", token_request.TOKEN_TYPE_JWT),
        (name, "spiffe://example.org/agent/w0"),
    ]
    with pytest.raises(InvalidInput, match=f"'{name}' is not supported") as error:
        token_request.read(form)
    assert "invalid_request" == error.value.oauth_error
