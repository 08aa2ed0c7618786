"""validation.py of the API, and the SDK's reading of it: the person of a token, as a service is told."""

from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.fake_agent import ScriptedAgent
from fakes.guarded import token
from fakes.persons import made_for
from fakes.task_room import Room
from fakes.task_types import TICKETS, TRIAGE, task_type
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.endpoints.api.validation import ValidationApi
from sojourn.oauth.resource_servers import Audiences
from sojourn.oauth.validation import TokenValidation
from sojourn.sdk.client.client import Client
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.refusal_reports import RefusalCounts
from sojourn.tasktoken.dpop_replays import Replays
from sojourn.tasktoken.person_claims import PersonClaims

ALICE = PersonClaims("https://login.example.org", "alice", 1795800000, "urn:example:mfa", ("pwd", "otp"))


async def told(person: PersonClaims | None) -> pb.ValidateTokenResponse:
    """What the API says of a good token for this person."""
    nobody: Any = None  # nobody calls, and no JWT-SVIDs come here
    async with Room(FakeClock(), {"triage": task_type(person='{need = "optional"}')}).running() as room:
        judging = TokenValidation(room.engine, nobody, Replays(room.clock.now, room.clock.boot), room.clock)
        refusals = RefusalCounts(room.engine, room.audit, room.alarms, room.clock)
        api = ValidationApi(judging, room.engine, Audiences(), room.clock, nobody, refusals)
        token = await room.engine.token(made_for(await room.begin(), person), TICKETS, ["ticket:read"])
        answer = await api.validate_token(nobody, pb.ValidateTokenRequest(token=token.token, audience=TICKETS))
        assert answer.valid
        return answer


async def test_a_person() -> None:
    """The subject of a person's token is the person; nobody who reads `spiffe_id` alone takes it for a workload's."""
    answer = await told(ALICE)
    assert ("", [TRIAGE]) == (answer.spiffe_id, list(answer.actors))
    assert ("alice", ALICE.issuer) == (answer.person.subject, answer.person.issuer)
    assert "alice" == answer.claims["sub"]


async def test_no_person() -> None:
    """A workload's token has no person, and is told as ever."""
    answer = await told(None)
    assert (False, TRIAGE, []) == (answer.HasField("person"), answer.spiffe_id, list(answer.actors))


@pytest.mark.parametrize("person", [ALICE, None], ids=["person", "workload"])
async def test_in_the_sdk(tmp_path: Any, person: PersonClaims | None) -> None:
    """The SDK's verdict has the person as they were told, and who acts for them."""
    agent = ScriptedAgent()
    agent.answers["ValidateToken"] = await told(person)
    async with agent.serve(tmp_path / "agent.sock"), Client(str(tmp_path / "agent.sock")) as client:
        verdict = await client.validate_token("t", TICKETS)
    assert (person, SpiffeId.parse(TRIAGE)) == (verdict.person, verdict.actor)
    assert (verdict.spiffe_id is None) == (person is not None)


async def test_what_the_service_may_read_in_the_sdk(tmp_path: Any) -> None:
    """What else a service may read of the person is in the SDK's verdict, whole numbers to the last digit."""
    whom = ALICE._replace(claims={"groups": ("corp/lead",), "level": 2**60 + 1})
    agent, answer, text = ScriptedAgent(), await told(ALICE), token(person=whom)
    answer.claims.update({"person": whom.listed()})
    agent.answers["ValidateToken"] = answer
    async with agent.serve(tmp_path / "agent.sock"), Client(str(tmp_path / "agent.sock")) as client:
        verdict = await client.validate_token(text, TICKETS)
    assert whom == verdict.person
