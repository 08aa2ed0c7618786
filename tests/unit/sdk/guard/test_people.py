"""person_check.py, at every guard: whose tokens a service takes, how that person logged in, and which one it is."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fakes import services
from fakes.guarded import AUDIENCE, KEY, Agent, Credentials, agent_at, token
from fakes.task_feed import HOLDER, ISSUER
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidInput
from sojourn.errors.oauth import NotApproved, ParamNotBound
from sojourn.errors.people import PersonNotTaken, PersonRefused, PersonRequired, WrongPerson
from sojourn.limits import TOKEN_SKEW_SECONDS
from sojourn.sdk.client.client import Client
from sojourn.sdk.guard.challenges import Refusal
from sojourn.sdk.guard.guard import Guard, HttpRequest
from sojourn.sdk.guard.param_check import Arguments, compare, in_python
from sojourn.sdk.guard.param_places import argument, query
from sojourn.sdk.guard.person_check import OPTIONAL, REFUSED, REQUIRED, Taking, check_person
from sojourn.sdk.guard.routes import ANY_ACTION, Action, action_finder
from sojourn.sdk.guard.verifier import TaskVerifier
from sojourn.tasktoken import tokens
from sojourn.tasktoken.person_claims import PersonClaims
from sojourn.tasktoken.task_claim import APPROVED
from sojourn.tasktoken.tokens import TaskToken

LOGIN = "https://login.example.org"
ALICE, BOB = PersonClaims(LOGIN, "alice"), PersonClaims(LOGIN, "bob")
KINDS = {
    "wsgi": services.wsgi_service,
    "grpc": services.grpc_service,
    "grpc-aio": services.grpc_aio_service,
    "mcp": services.mcp_service,
}


def read(**given: Any) -> TaskToken:
    return tokens.verify(
        token(**given), keys={"k1": KEY.public}, issuer=ISSUER, audience=AUDIENCE, now=datetime.now(UTC)
    )


def outcome(verified: TaskToken, action: Action, by_default: str = REFUSED, now: float = 0) -> str:
    """'' if an action takes a token, else the code of what is raised."""
    try:
        check_person(verified, action, by_default, now)
    except (PersonRefused, NotApproved) as error:
        return error.code
    return ""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Agent, Path]]:
    path: Path = tmp_path_factory.mktemp("agent") / "agent.sock"
    with agent_at(path) as agent:
        yield agent, path


@pytest.mark.parametrize("kind", sorted(KINDS))
class TestEveryGuard:
    def test_refused_unless_it_says(self, running: tuple[Agent, Path], kind: str) -> None:
        """A service that says nothing of people takes no token that is for one, and says so to whoever sent it."""
        if kind == "mcp":
            pytest.importorskip("mcp")
        make: Any = KINDS[kind]
        with make(running[1]) as service:
            given = Credentials.bearer(token(person=ALICE))
            refused = service.call(given)
            assert (403, "person_not_taken") == (refused.status, refused.error)
            assert 200 == service.call(Credentials.bearer(token())).status

    def test_taken_where_it_says(self, running: tuple[Agent, Path], kind: str) -> None:
        """A service that takes people's tokens serves them, and finds the workload in `spiffe_id` as ever."""
        if kind == "mcp":
            pytest.importorskip("mcp")
        make: Any = KINDS[kind]
        with make(running[1], person="required") as service:
            served = service.call(Credentials.bearer(token(person=ALICE)))
            assert (200, f"{HOLDER} hello") == (served.status, served.said)
            refused = service.call(Credentials.bearer(token()))
            assert (401, "insufficient_user_authentication") == (refused.status, refused.error)


class TestTaking:
    @pytest.mark.parametrize(
        ("said", "by_default", "persons", "workloads"),
        [
            ("", REFUSED, "person_not_taken", ""),
            ("", OPTIONAL, "", ""),
            ("", REQUIRED, "", "person_required"),
            (OPTIONAL, REFUSED, "", ""),
            (REQUIRED, REFUSED, "", "person_required"),
            (REFUSED, REQUIRED, "person_not_taken", ""),
            (REFUSED, OPTIONAL, "person_not_taken", ""),
        ],
    )
    def test_action_and_guard(self, said: str, by_default: Taking, persons: str, workloads: str) -> None:
        """What an action says counts, and of one that says nothing what its guard says."""
        action = Action("ticket:read", person=said)
        assert persons == outcome(read(person=ALICE), action, by_default)
        assert workloads == outcome(read(), action, by_default)

    def test_greetings(self) -> None:
        """A greeting, which is no action, is anybody's who has a good token."""
        assert "" == outcome(read(person=ALICE), ANY_ACTION) == outcome(read(), ANY_ACTION)

    @pytest.mark.parametrize("asked", [{"person_params": {"ticket": "sub"}}, {"acr_values": ["a"]}, {"max_age": 0}])
    def test_what_is_asked_of_a_person_needs_one(self, asked: dict[str, Any]) -> None:
        """Where something is asked of a person, no workload's token passes for want of anything to compare."""
        assert "person_required" == outcome(read(), Action("ticket:read", **asked), OPTIONAL)
        for said in (OPTIONAL, REFUSED):
            with pytest.raises(InvalidInput, match="required"):
                Action("ticket:read", person=said, **asked)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"person": "yes"},
            {"acr_values": "urn:example:mfa"},
            {"person_params": {"ticket": "email"}},
            {"person_params": {"ticket": "sub"}, "unchecked": ("ticket",)},
            {"max_age": -1},
        ],
        ids=["person", "text", "claim", "unchecked", "negative"],
    )
    def test_actions_that_cannot_be(self, wrong: dict[str, Any]) -> None:
        """An action that could not mean what it says is told when it is made."""
        with pytest.raises(InvalidInput):
            Action("ticket:read", **wrong)


class TestLogin:
    def test_how_the_person_logged_in(self) -> None:
        """A route that names ways to log in takes a person who has gone one of them, and nobody else."""
        action = Action("ticket:read", acr_values=["urn:example:mfa", "urn:example:key"])
        found = [outcome(read(person=ALICE._replace(acr=each)), action) for each in ("urn:example:key", "pwd", "")]
        assert ["", "insufficient_user_authentication", "insufficient_user_authentication"] == found

    @pytest.mark.parametrize(
        ("ago", "good"),
        [(0, True), (300, True), (301, False), (-TOKEN_SKEW_SECONDS, True), (-TOKEN_SKEW_SECONDS - 1, False)],
    )
    def test_how_long_ago(self, ago: int, good: bool) -> None:
        """A login that is older than the route says is too old, and one from the future is none."""
        verified, now = read(person=ALICE._replace(auth_time=1795800000)), 1795800000 + ago
        assert good == (not outcome(verified, Action("ticket:read", max_age=300), now=now))

    def test_nobody_knows_when(self) -> None:
        """Where nobody says when the person logged in, that was too long ago."""
        now = time.time()
        assert "insufficient_user_authentication" == outcome(read(person=ALICE), Action("a:b", max_age=10**9), now=now)

    def test_approval_is_another_thing(self) -> None:
        """A route for approved tasks takes a person's if somebody approved it, whatever their `acr` is, and none else."""
        action = Action("ticket:read", acr=APPROVED, person=OPTIONAL)
        strong = ALICE._replace(acr="urn:example:mfa")
        found = [
            outcome(read(**each), action)
            for each in ({"person": strong, "approved": True}, {"approved": True}, {"person": strong}, {})
        ]
        assert ["", "", "not_approved", "not_approved"] == found


class TestWhichPerson:
    @pytest.mark.parametrize("claim", ["sub", "iss"])
    def test_compared(self, claim: str) -> None:
        """The request's parameter is the person's subject or issuer, or it is refused as another's."""
        action = Action("ticket:read", {"customer": argument("customer")}, person_params={"customer": claim})
        verified = read(person=ALICE, params={})
        mine = {"sub": "alice", "iss": LOGIN}[claim]
        compare(verified, action, Arguments({"customer": mine}), in_python)
        for other in ("bob", "", mine + " ", mine.upper(), 7, True):
            with pytest.raises(WrongPerson):
                compare(verified, action, Arguments({"customer": other}), in_python)

    def test_compared_with_nothing(self) -> None:
        """A request that does not say whom it is about is refused, and so is one that nobody knows the place of."""
        verified = read(person=ALICE, params={})
        for places in ({"customer": argument("customer")}, {}):
            action = Action("ticket:read", places, person_params={"customer": "sub"})
            with pytest.raises(ParamNotBound):
                compare(verified, action, Arguments({}), in_python)

    def test_no_person(self) -> None:
        """The token of a workload is compared with nobody: it is refused, and no pass."""
        action = Action("ticket:read", {"customer": argument("customer")}, person_params={"customer": "sub"})
        with pytest.raises(PersonRequired):
            compare(read(params={}), action, Arguments({"customer": str(HOLDER)}), in_python)

    def test_with_the_tasks_own_parameters(self) -> None:
        """Those of the task are compared as ever beside the person."""
        action = Action(
            "ticket:read", {"ticket": argument("ticket"), "who": argument("who")}, person_params={"who": "sub"}
        )
        verified = read(person=ALICE)
        compare(verified, action, Arguments({"ticket": "42", "who": "alice"}), in_python)
        with pytest.raises(Exception, match="another 'ticket'"):
            compare(verified, action, Arguments({"ticket": "43", "who": "alice"}), in_python)

    @pytest.mark.parametrize(("about", "fits"), [("corp|alice", True), ("alice", False), ("other|alice", False)])
    def test_of_which_issuer(self, about: str, fits: bool) -> None:
        """Where the agent has people of several issuers the whole `sub` is compared: the same subject at another issuer
        is somebody else.
        """
        action = Action("ticket:read", {"customer": argument("customer")}, person_params={"customer": "sub"})
        verified = read(person=PersonClaims(LOGIN, "alice", prefix="corp|"), params={})
        try:
            compare(verified, action, Arguments({"customer": about}), in_python)
        except WrongPerson:
            assert not fits
        else:
            assert fits

    @examples(100)
    @given(st.sampled_from(["alice", "bob", "carol"]), st.sampled_from(["alice", "bob", "carol", "Alice", "bob "]))
    def test_nobody_reaches_anothers(self, whose: str, about: str) -> None:
        """Whoever a token is for, a request about anybody else is refused."""
        action = Action("ticket:read", {"customer": argument("customer")}, person_params={"customer": "sub"})
        verified = read(person=PersonClaims(LOGIN, whose), params={})
        try:
            compare(verified, action, Arguments({"customer": about}), in_python)
        except WrongPerson:
            assert whose != about
        else:
            assert whose == about


ACTIONS = {
    "GET /orders/{customer}": Action("ticket:read", person_params={"customer": "sub"}),
    "GET /search": Action("ticket:read", {"customer": query()}, person_params={"customer": "sub"}),
    "GET /payouts": Action("ticket:read", acr_values=("urn:example:mfa", "urn:example:key"), max_age=300),
    "GET /approved": Action("ticket:read", acr=APPROVED, person=OPTIONAL),
    "GET /plain": "ticket:read",
}


async def answered(path: Path, text: str, target: str) -> TaskToken | Refusal:
    """What a guard with these actions says of a request."""
    where, _, asked = target.partition("?")
    async with Client(str(path)) as client, TaskVerifier(client, AUDIENCE) as verifier:
        guard = Guard(verifier, ACTIONS)
        request = HttpRequest("GET", where, asked, [("authorization", f"Bearer {text}")])

        async def content() -> bytes:
            return b""

        verdict = await guard.check(request, content)
        assert isinstance(verdict, TaskToken | Refusal)
        return verdict


class TestHttp:
    @pytest.mark.parametrize("target", ["/orders/{}", "/search?customer={}"])
    def test_injection_across_people(self, running: tuple[Agent, Path], target: str) -> None:
        """A run for alice that names bob's orders is refused as another person's, and her own are served."""
        text = token(person=ALICE, params={})
        assert isinstance(asyncio.run(answered(running[1], text, target.format("alice"))), TaskToken)
        refused = asyncio.run(answered(running[1], text, target.format("bob")))
        assert isinstance(refused, Refusal)
        assert (403, "wrong_person") == (refused.status, refused.error)
        twice = asyncio.run(answered(running[1], text, "/search?customer=alice&customer=bob"))
        assert not isinstance(twice, TaskToken)

    def test_what_a_challenge_asks_for(self, running: tuple[Agent, Path]) -> None:
        """The challenge to a weak login names the ways that would do, and how old it may be (RFC 9470, 3)."""
        weak = token(person=ALICE._replace(acr="pwd", auth_time=int(time.time())), params={})
        refused = asyncio.run(answered(running[1], weak, "/payouts"))
        assert isinstance(refused, Refusal)
        assert (401, "insufficient_user_authentication") == (refused.status, refused.error)
        challenge = next(value for name, value in refused.headers() if name == "www-authenticate")
        assert 'acr_values="urn:example:mfa urn:example:key"' in challenge
        assert 'max_age="300"' in challenge
        strong = token(person=ALICE._replace(acr="urn:example:key", auth_time=int(time.time())), params={})
        assert isinstance(asyncio.run(answered(running[1], strong, "/payouts")), TaskToken)

    def test_approved_for_a_person(self, running: tuple[Agent, Path]) -> None:
        """A route for approved tasks names our own `acr` in its challenge, also to a person's token."""
        refused = asyncio.run(answered(running[1], token(person=ALICE, params={}), "/approved"))
        assert isinstance(refused, Refusal)
        assert (401, f'acr_values="{APPROVED}"' in refused.headers()[2][1]) == (refused.status, True)
        good = token(person=ALICE, approved=True, params={})
        assert isinstance(asyncio.run(answered(running[1], good, "/approved")), TaskToken)

    def test_whose_it_is(self, running: tuple[Agent, Path]) -> None:
        """The application finds the person, and who acts for them."""
        found = asyncio.run(answered(running[1], token(person=ALICE, params={}), "/orders/alice"))
        assert isinstance(found, TaskToken)
        assert (ALICE, "alice", HOLDER) == (found.person, found.subject, found.actor)

    def test_a_plain_route_beside(self, running: tuple[Agent, Path]) -> None:
        """A route that says nothing of people takes no token for one, though others of the same service do."""
        refused = asyncio.run(answered(running[1], token(person=ALICE, params={}), "/plain"))
        assert isinstance(refused, Refusal)
        assert "person_not_taken" == refused.error


class TestPlaces:
    def test_a_route_that_has_none(self) -> None:
        """A route that compares a parameter with the person, and has no place for it, is told when it is made."""
        action = Action("ticket:read", person_params={"customer": "sub"})
        with pytest.raises(InvalidInput, match="customer"):
            action_finder({"GET /orders/{order}": action})
        assert action_finder({"GET /orders/{customer}": action})("GET", "/orders/alice") is not None


@pytest.fixture(scope="module", params=["grpc", "grpc-aio"])
def service(request: pytest.FixtureRequest, running: tuple[Agent, Path]) -> Iterator[services.GrpcService]:
    """Each of its methods is for the person whom the field `ticket` names."""
    action = Action("ticket:read", person_params={"ticket": "sub"})
    actions = {f"{services.SERVICE}{name}": action for name in ("Read", "Collect", "Chat")}
    make = services.grpc_service if request.param == "grpc" else services.grpc_aio_service
    with make(running[1], actions=actions) as made:
        yield made


class TestGrpc:
    def test_one_request(self, service: services.GrpcService) -> None:
        """A call for alice whose message names bob is refused."""
        given = Credentials.bearer(token(person=ALICE, params={}))
        assert 200 == service.call(given, ticket="alice").status
        refused = service.call(given, ticket="bob")
        assert (403, "wrong_person") == (refused.status, refused.error)

    @pytest.mark.parametrize("name", ["Collect", "Chat"])
    def test_each_request_of_a_stream(self, service: services.GrpcService, name: str) -> None:
        """Of a stream each request is compared with the person, when it comes, and one without any is refused."""
        given = Credentials.bearer(token(person=ALICE, params={}))
        hers, his = services.GrpcService.message("alice"), services.GrpcService.message("bob")
        assert 200 == service.ask(name, [hers, hers], given).status
        for requests in ([his], [hers, his], []):
            assert 403 == service.ask(name, requests, given).status


class TestMcp:
    def test_sessions_are_a_persons(self) -> None:
        """The library holds a session to whom its token names: two people of one `sub` at two issuers are two."""
        provider = pytest.importorskip("mcp.server.auth.provider")
        from sojourn.sdk.integrations.mcp_server import _access_token

        people = [None, ALICE, BOB, ALICE._replace(issuer="https://other.example.org")]
        found = [provider.principal_components(_access_token(read(person=each, params={}))) for each in people]
        assert 4 == len(set(found))
        assert f"{HOLDER}|t1" == found[0][2]
        assert {str(HOLDER)} == {each[0] for each in found}

    def test_sessions_are_a_tasks(self) -> None:
        """The library holds a session to the task that began it, by each of that task's tokens."""
        provider = pytest.importorskip("mcp.server.auth.provider")
        from sojourn.sdk.integrations.mcp_server import _access_token

        tokens = [read(task="t1"), read(task="t1", actions=("ticket:other",)), read(task="t2")]
        mine, also_mine, another = (provider.principal_components(_access_token(each)) for each in tokens)
        assert mine == also_mine != another

    def test_tools_that_are_listed(self) -> None:
        """A list of tools has those alone that take the token, by whether it is a person's."""
        pytest.importorskip("mcp")
        from sojourn.sdk.integrations.mcp_server import _Tools

        said = {"mine": REQUIRED, "any": OPTIONAL, "plain": ""}
        tools = _Tools({name: Action("ticket:read", person=each) for name, each in said.items()}, None)
        listed = [{name for name in said if tools.may_call(read(person=each), name)} for each in (ALICE, None)]
        assert [{"mine", "any"}, {"any", "plain"}] == listed


class TestVerifier:
    def test_verify(self, running: tuple[Agent, Path]) -> None:
        """Whoever verifies tokens by hand takes those of workloads alone, unless it says otherwise."""

        async def run() -> None:
            async with Client(str(running[1])) as client, TaskVerifier(client, AUDIENCE) as verifier:
                text = token(person=BOB, params={})
                with pytest.raises(PersonNotTaken):
                    await verifier.verify(text, "ticket:read")
                assert BOB == (await verifier.verify(text, "ticket:read", person=OPTIONAL)).person
                with pytest.raises(PersonRequired):
                    await verifier.verify(token(params={}), "ticket:read", person=REQUIRED)

        asyncio.run(run())

    def test_check_call(self, running: tuple[Agent, Path]) -> None:
        """A call that is no HTTP request is held against the person by the same rules."""

        async def run() -> None:
            async with Client(str(running[1])) as client, TaskVerifier(client, AUDIENCE) as verifier:
                guard = Guard(verifier, {})
                text = token(person=ALICE, params={})
                action = Action("ticket:read", person_params={"customer": "sub"})
                assert isinstance(await guard.check_call(text, action, {"customer": "alice"}), TaskToken)
                found = [await guard.check_call(text, action, given) for given in ({"customer": "bob"}, {})]
                found.append(await guard.check_call(text, "ticket:read"))
                assert ["wrong_person", "unbound_parameter", "person_not_taken"] == [
                    each.error for each in found if isinstance(each, Refusal)
                ]

        asyncio.run(run())
