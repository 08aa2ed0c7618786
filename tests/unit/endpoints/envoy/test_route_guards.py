"""route_guards.py: whose tokens pass at an Envoy whose routes say something of people."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.persons import made_for
from fakes.task_room import Room
from fakes.task_types import TICKETS, task_type
from sojourn.endpoints.envoy.check_request import Ruling
from sojourn.endpoints.envoy.route_guards import RouteGuards
from sojourn.errors import InvalidInput
from sojourn.oauth.validation import TokenValidation
from sojourn.sdk.guard.challenges import Refusal
from sojourn.sdk.guard.guard import HttpRequest
from sojourn.tasks.refusal_reports import RefusalCounts
from sojourn.tasktoken.dpop_replays import Replays
from sojourn.tasktoken.person_claims import PersonClaims
from sojourn.tasktoken.tokens import TaskToken

ALICE = PersonClaims("https://login.example.org", "alice", 0, "urn:example:mfa")


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    async with Room(FakeClock(), {"triage": task_type(person='{need = "optional"}')}).running() as running:
        yield running


async def outcome(room: Room, whose: PersonClaims | None, target: str = "/orders/alice", /, **said: str) -> str:
    """'' if a request with a token for this person passes a route that says this, else the error of the refusal."""
    nobody: Any = None  # no JWT-SVIDs come here
    judging = TokenValidation(room.engine, nobody, Replays(room.clock.now, room.clock.boot), room.clock)
    guards = RouteGuards(
        judging, room.engine, room.clock, RefusalCounts(room.engine, room.audit, room.alarms, room.clock)
    )
    route = {"audience": TICKETS, "action": "ticket:read", "route": "GET /orders/{customer}", **said}
    ruling = Ruling.read({f"sojourn.{name}": value for name, value in route.items()})
    token = await room.engine.token(made_for(await room.begin(), whose), TICKETS, ["ticket:read"])

    async def content() -> bytes:
        return b""

    request = HttpRequest("GET", target, "", [("authorization", f"Bearer {token.token}")])
    verdict = await guards.judge(ruling, request, content)
    if isinstance(verdict, TaskToken):
        assert whose == verdict.person
        return ""
    assert isinstance(verdict, Refusal)
    return verdict.error


async def test_a_route_that_says_nothing(room: Room) -> None:
    """No token for a person passes a route whose owner does not say so."""
    assert ["", "person_not_taken"] == [await outcome(room, None), await outcome(room, ALICE)]


async def test_a_route_for_people(room: Room) -> None:
    """A route for people takes no token of a workload, and one for either takes both."""
    found = [await outcome(room, person, person=said) for said in ("required", "optional") for person in (ALICE, None)]
    assert ["", "insufficient_user_authentication", "", ""] == found


async def test_which_person(room: Room) -> None:
    """A segment that is the person is compared with them: alice's run reaches no order of bob's."""
    said = {"person_params": "customer = sub"}
    assert "" == await outcome(room, ALICE, **said)
    assert "wrong_person" == await outcome(room, ALICE, "/orders/bob", **said)
    assert "insufficient_user_authentication" == await outcome(room, None, **said)


async def test_how_they_logged_in(room: Room) -> None:
    """A route may ask how, and how long ago, the person has logged in."""
    strong, weak = {"acr_values": "urn:a urn:example:mfa"}, {"acr_values": "urn:a urn:b"}
    recent = {"max_age": "60"}
    assert ["", "insufficient_user_authentication"] == [await outcome(room, ALICE, **each) for each in (strong, weak)]
    now = int(room.clock.now().timestamp())
    found = [await outcome(room, ALICE._replace(auth_time=each), **recent) for each in (now - 10, now - 61, 0)]
    assert ["", "insufficient_user_authentication", "insufficient_user_authentication"] == found


@pytest.mark.parametrize(
    "said", [{"person": "yes"}, {"person_params": "customer = mail"}, {"person_params": "x = sub"}]
)
async def test_no_such_route(room: Room, said: dict[str, str]) -> None:
    """A route that cannot mean what it says is none, and lets nobody in."""
    with pytest.raises(InvalidInput):
        await outcome(room, ALICE, **said)
