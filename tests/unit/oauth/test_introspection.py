"""introspection.py: what clients may know of a token."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.persons import made_for
from fakes.registrations import entry
from fakes.task_room import ISSUER, KEY, TRIAGE_ENTRY, Room
from fakes.task_types import TICKETS, TRIAGE, task_type
from sojourn.errors import InvalidToken
from sojourn.jose.jws import VerifiedClaims, parse_unverified
from sojourn.oauth.client_auth import SOCKET, OAuthClient
from sojourn.oauth.introspection import INACTIVE, Introspection
from sojourn.oauth.resource_servers import Audiences, Service
from sojourn.oauth.token_query import TokenQuery
from sojourn.policy.task_types import TypeSet
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid
from sojourn.tasktoken import tokens
from sojourn.tasktoken.person_claims import PersonClaims
from sojourn.tasktoken.tokens import TaskToken

SERVICE_ENTRY, STRANGER_ENTRY = entry("/tickets"), entry("/stranger")
HOLDER, SERVICE, STRANGER = (OAuthClient(SOCKET, (each,)) for each in (TRIAGE_ENTRY, SERVICE_ENTRY, STRANGER_ENTRY))


class NoSvids:
    """No JWT-SVID is good."""

    def verify_jwt_svid(self, *_: Any) -> Any:
        raise InvalidToken("token is not one of ours")


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    async with Room(FakeClock(), {"triage": task_type(person='{need = "optional"}')}).running() as room:
        yield room


@pytest.fixture
def used() -> set[str]:
    """The tokens that were good once, and were used."""
    return set()


@pytest.fixture
def inspect(room: Room, used: set[str]) -> Introspection:
    services = Audiences([Service(TICKETS, frozenset({SERVICE_ENTRY.spiffe_id}))])
    return Introspection(room.engine, services, NoSvids(), lambda token: token.token in used, room.clock)  # type: ignore[arg-type]


def told(inspect: Introspection, client: OAuthClient, token: TaskToken) -> dict[str, Any]:
    return dict(inspect.introspect(client, TokenQuery(token.token)))


class TestIntrospection:
    async def test_who_is_told(self, room: Room, inspect: Introspection) -> None:
        """Holder and audience are told all, nobody else anything."""
        token = await room.engine.token(await room.begin(), TICKETS, ())
        for client in (HOLDER, SERVICE):
            assert told(inspect, client, token)["jti"] == token.claims["jti"]
        assert dict(INACTIVE) == told(inspect, STRANGER, token)

    async def test_a_bound_token(self, room: Room, inspect: Introspection) -> None:
        """A bound token is told with what it is bound to, without a proof: that is the service's to ask for."""
        token = await room.engine.token(await room.begin(), TICKETS, (), agent_key=True)
        answer = told(inspect, SERVICE, token)
        assert (True, "DPoP") == (answer["active"], answer["token_type"])
        assert token.binding is not None
        assert token.binding.claim() == answer["cnf"]

    async def test_a_person(self, room: Room, inspect: Introspection) -> None:
        """Of a token for a person is told who that is, who acts for them, and how they logged in."""
        alice = PersonClaims("https://login.example.org", "alice", 1795800000, "urn:example:mfa", ("pwd", "otp"))
        token = await room.engine.token(made_for(await room.begin(), alice), TICKETS, ())
        for client in (HOLDER, SERVICE):
            answer = told(inspect, client, token)
            for name in ("sub", "sub_id", "client_id", "act", "auth_time", "acr", "amr"):
                assert token.claims[name] == answer[name]
        assert dict(INACTIVE) == told(inspect, STRANGER, token)

    async def test_counted_actions(self, room: Room, inspect: Introspection) -> None:
        """Actions whose uses are counted are in no answer: of a token with no others nothing is said but its task's state."""
        room.engine.types = TypeSet({"triage": task_type(limits='{"ticket:write" = 1}')})
        task = await room.begin()
        answer = told(inspect, SERVICE, await room.engine.token(task, TICKETS, ()))
        assert (True, "ticket:read") == (answer["active"], answer["scope"])
        assert ["ticket:read"] == answer["authorization_details"][0]["actions"]
        alone = await room.engine.token(task, TICKETS, ("ticket:write",))
        assert {"active": False, "task_state": "active"} == told(inspect, SERVICE, alone)
        assert INACTIVE == told(inspect, HOLDER, alone)

    async def test_an_expired_token(self, room: Room, inspect: Introspection) -> None:
        """An expired token is inactive, whatever its task does."""
        token = await room.engine.token(await room.begin(), TICKETS, ())
        room.clock.advance(61)
        assert {"active": False, "task_state": "active"} == told(inspect, SERVICE, token)
        assert dict(INACTIVE) == told(inspect, HOLDER, token)

    async def test_a_wall_clock_that_is_set_back(self, room: Room, inspect: Introspection) -> None:
        """A step of the wall clock revives no token of a task whose time is up."""
        task = await room.begin(max_seconds=30)
        token = await room.engine.token(task, TICKETS, ())
        room.clock.advance(31)
        room.clock.step_wall(-60)
        assert not told(inspect, SERVICE, token)["active"]

    async def test_a_token_that_was_used_up(self, room: Room, inspect: Introspection, used: set[str]) -> None:
        """A token that was good once is inactive once it was used; others of its task are not."""
        task = await room.begin()
        first, second = [await room.engine.token(task, TICKETS, ()) for _ in range(2)]
        used.add(first.token)
        assert [False, True] == [told(inspect, SERVICE, each)["active"] for each in (first, second)]

    async def test_foreign_keys_and_kinds(self, room: Room, inspect: Introspection) -> None:
        """What our keys signed for something else, or other keys signed, is no token."""
        token = await room.engine.token(await room.begin(), TICKETS, ())
        claims = dict(token.claims)
        others = [
            KEY.sign(claims, typ="JWT"),
            KEY.sign(claims, typ="token-introspection+jwt"),
            KEY.sign({**claims, "iss": "https://other.example"}, typ=tokens.TYP),
            KEY.sign({**claims, "aud": [TICKETS, "https://b.example"]}, typ=tokens.TYP),
            type(KEY).generate("k1").sign(claims, typ=tokens.TYP),
        ]
        for text in others:
            assert dict(INACTIVE) == dict(inspect.introspect(SERVICE, TokenQuery(text)))

    async def test_signed_answers_are_no_tokens(self, room: Room, inspect: Introspection) -> None:
        """A signed answer is for the client that asked, and stands in for no task token."""
        token = await room.engine.token(await room.begin(), TICKETS, ())
        text = inspect.signed(SERVICE, told(inspect, SERVICE, token))
        answer = parse_unverified(text)
        assert ("token-introspection+jwt", str(SERVICE_ENTRY.spiffe_id)) == (
            answer.typ,
            answer.unverified_claims["aud"],
        )
        with pytest.raises(InvalidToken, match="not a task token"):
            tokens.verify(text, keys=room.engine.keys.published, issuer=ISSUER, audience=TICKETS, now=room.clock.now())


class OneSvid:
    """Knows one JWT-SVID, and for whom it is. `asked`: for which audiences it was verified."""

    def __init__(self, svid: VerifiedJwtSvid) -> None:
        self.svid = svid
        self.asked: list[Sequence[str]] = []

    def verify_jwt_svid(self, token: str, audiences: Sequence[str], _entries: object) -> VerifiedJwtSvid:
        self.asked.append(tuple(audiences))
        assert token == self.svid.token
        return self.svid


class TestSvids:
    """A JWT-SVID is told of to its subject and to its audience."""

    def told(self, room: Room, client: OAuthClient, *audience: str, life: int = 60) -> tuple[dict[str, Any], OneSvid]:
        ends = room.clock.now() + timedelta(seconds=life)
        claims = {"sub": TRIAGE, "aud": list(audience), "exp": int(ends.timestamp()), "jti": "j1", "private": "x"}
        text = KEY.sign(claims, typ="JWT")
        svid = VerifiedJwtSvid(TRIAGE_ENTRY.spiffe_id, text, audience, None, ends, VerifiedClaims(claims))
        identities = OneSvid(svid)
        services = Audiences([Service(TICKETS, frozenset({SERVICE_ENTRY.spiffe_id}))])
        inspect = Introspection(room.engine, services, identities, lambda _: False, room.clock)  # type: ignore[arg-type]
        return dict(inspect.introspect(client, TokenQuery(text))), identities

    @pytest.mark.parametrize(
        ("client", "audience"), [(SERVICE, TICKETS), (SERVICE, str(SERVICE_ENTRY.spiffe_id)), (HOLDER, "anybody")]
    )
    async def test_whom_it_concerns(self, room: Room, client: OAuthClient, audience: str) -> None:
        """Its subject, whoever is named by it, and whoever serves a resource that is, hear what it says of itself."""
        answer, _ = self.told(room, client, audience)
        assert {"active", "token_type", "client_id", "sub", "aud", "exp", "jti"} == set(answer)
        assert (True, "N_A", TRIAGE) == (answer["active"], answer["token_type"], answer["client_id"])

    async def test_strangers(self, room: Room) -> None:
        """Whoever is neither hears nothing."""
        assert dict(INACTIVE) == self.told(room, STRANGER, TICKETS, str(SERVICE_ENTRY.spiffe_id))[0]

    async def test_over(self, room: Room) -> None:
        """One that is over is not active."""
        assert dict(INACTIVE) == self.told(room, SERVICE, TICKETS, life=0)[0]

    async def test_for_which_audience(self, room: Room) -> None:
        """It is verified for those of its audiences that the client is, and for its subject for any."""
        assert [(TICKETS,)] == self.told(room, SERVICE, "https://b.example", TICKETS)[1].asked
        assert [("https://b.example", TICKETS)] == self.told(room, HOLDER, "https://b.example", TICKETS)[1].asked
