"""What every guard refuses, whatever it stands before: WSGI, gRPC on threads and on a loop, MCP."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from fakes import services
from fakes.guarded import AUDIENCE, Agent, Credentials, Outcome, agent_at, token
from fakes.task_feed import HOLDER
from harness.looking import until

KINDS = {
    "wsgi": services.wsgi_service,
    "grpc": services.grpc_service,
    "grpc-aio": services.grpc_aio_service,
    "mcp": services.mcp_service,
}
Pair = tuple[Agent, services.Service]


@pytest.fixture(scope="module", params=sorted(KINDS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    if request.param == "mcp":
        pytest.importorskip("mcp")
    path: Path = tmp_path_factory.mktemp("agent") / "agent.sock"
    make: Any = KINDS[request.param]
    with agent_at(path) as agent:
        made: AbstractContextManager[services.Service] = make(path)
        with made as service:
            yield agent, service


@pytest.fixture
def service(pair: Pair) -> services.Service:
    return pair[1]


def proved(service: services.Service, text: str, url: str | None = None) -> tuple[Credentials, Outcome]:
    """Call with a proof, and again with a nonce if one is asked for: that call's credentials, and its outcome."""
    given = Credentials.proved(text, url or service.url())
    outcome = service.call(given)
    if outcome.error == "use_dpop_nonce":
        assert outcome.nonce
        given = Credentials.proved(text, url or service.url(), outcome.nonce)
        outcome = service.call(given)
    return given, outcome


class TestTokens:
    def test_the_action_of_the_token(self, service: services.Service) -> None:
        """A call that its token allows is served, and whoever serves it knows whose token it is, and the request."""
        assert Outcome(200, f"{HOLDER} hello") == service.call(Credentials.bearer(token()))

    def test_no_token(self, service: services.Service) -> None:
        """Without a token the challenges name both schemes and no error."""
        outcome = service.call(Credentials())
        assert (401, "no_token") == (outcome.status, outcome.error)
        assert ["Bearer", "DPoP"] == [each.partition(" ")[0] for each in outcome.challenges]
        assert all(f'realm="{AUDIENCE}"' in each for each in outcome.challenges)

    def test_another_action(self, service: services.Service) -> None:
        """An action that the token has not is refused."""
        outcome = service.call(Credentials.bearer(token()), "delete")
        assert (403, "insufficient_scope") == (outcome.status, outcome.error)
        assert any('error="insufficient_scope"' in each for each in outcome.challenges)

    def test_no_action(self, service: services.Service) -> None:
        """What is no action is refused, whatever the token allows."""
        outcome = service.call(Credentials.bearer(token(actions=("ticket:read", "ticket:delete"))), "nothing")
        assert (403, "insufficient_scope") == (outcome.status, outcome.error)

    @pytest.mark.parametrize("ticket", ["43", "042", "42 ", "x"])
    def test_another_ticket(self, service: services.Service, ticket: str) -> None:
        """A token for ticket 42 is none for another."""
        outcome = service.call(Credentials.bearer(token()), ticket=ticket.replace(" ", "%20"))
        assert (403, "insufficient_scope") == (outcome.status, outcome.error)

    def test_any_ticket(self, service: services.Service) -> None:
        """A token whose task names no ticket is for any."""
        assert 200 == service.call(Credentials.bearer(token(params={})), ticket="43").status

    def test_an_ended_task(self, service: services.Service) -> None:
        """A token of a task that is over is refused."""
        outcome = service.call(Credentials.bearer(token(task="gone")))
        assert (401, "invalid_token") == (outcome.status, outcome.error)

    @pytest.mark.parametrize("text", ["a b", "", " ", "a, Bearer b"])
    def test_not_a_token(self, service: services.Service, text: str) -> None:
        """A header that is not of a scheme and one token is no good request (RFC 6750, 3.1)."""
        outcome = service.call(Credentials.bearer(text))
        assert (400, "invalid_request") == (outcome.status, outcome.error)
        assert any('error="invalid_request"' in each for each in outcome.challenges)

    @pytest.mark.parametrize("text", ["garbage", "a.b.c"])
    def test_no_task_token(self, service: services.Service, text: str) -> None:
        """What is no token is refused."""
        assert (401, "invalid_token") == ((outcome := service.call(Credentials.bearer(text))).status, outcome.error)

    def test_two_tokens(self, service: services.Service) -> None:
        """Of two tokens neither is believed."""
        header = ("authorization", f"Bearer {token()}")
        outcome = service.call(Credentials([header, header]))
        assert (400, "invalid_request") == (outcome.status, outcome.error)

    def test_use_is_reported(self, pair: Pair) -> None:
        """A call that was let through is reported to the agent, with its action; one that was not, is not."""
        agent, service = pair
        good, bad = token(), token()
        service.call(Credentials.bearer(good))
        service.call(Credentials.bearer(bad), "delete")
        until(lambda: [each for each in agent.reported if each.token == good], "the use is reported")
        assert {"ticket:read"} == {each.action for each in agent.reported}
        assert bad not in {each.token for each in agent.reported}

    def test_refusals_are_reported(self, pair: Pair) -> None:
        """A call that was refused is reported, with why: under its token if that is good, and counted alone if not."""
        agent, service = pair
        good, bad = token(), "a.b.c"
        proved(service, token(bound=True))  # to be asked for a nonce is no refusal
        service.call(Credentials.bearer(good), "delete")
        service.call(Credentials.bearer(good), ticket="43")
        service.call(Credentials.bearer(bad))
        service.call(Credentials())

        def of(text: str) -> set[str]:
            return {each.code for each in agent.refused if getattr(each, "token", "") == text}

        until(lambda: of(good) >= {"action_not_allowed", "wrong_params"}, "the refusals are reported")
        until(lambda: "no_token" in of(""), "those without a token are counted")
        assert set() == of(bad)
        assert "nonce_needed" not in {each.code for each in agent.refused}
        about = {each.request.action for each in agent.refused if getattr(each, "token", "") == good}
        assert {"ticket:delete", "ticket:read"} == about


class TestProofs:
    def test_with_its_proof(self, service: services.Service) -> None:
        """A bound token with its proof is good, and that proof once."""
        given, outcome = proved(service, token(bound=True))
        assert 200 == outcome.status, outcome
        again = service.call(given)
        assert (401, "invalid_dpop_proof") == (again.status, again.error)

    def test_without_proof(self, service: services.Service) -> None:
        """A bound token alone is no use to whoever has got hold of it."""
        assert (401, "invalid_token") == (
            (outcome := service.call(Credentials.bearer(token(bound=True)))).status,
            outcome.error,
        )

    def test_for_another_url(self, service: services.Service) -> None:
        """A proof for another URL, or for another method, is refused."""
        for given in (
            Credentials.proved(token(bound=True), service.url() + "x"),
            Credentials.proved(token(bound=True), service.url(), method="GET"),
        ):
            outcome = service.call(given)
            assert (401, "invalid_dpop_proof") == (outcome.status, outcome.error)


class TestOneRequest:
    def test_this_one(self, service: services.Service) -> None:
        """A token for one request is good for that, of which the service sees all."""
        assert Outcome(200, f"{HOLDER} hello") == service.call(Credentials.bearer(token(digest=service.digest())))

    def test_another(self, service: services.Service) -> None:
        """A token for one request is good for no other, though its action and its ticket are those of the token."""
        outcome = service.call(Credentials.bearer(token(digest=service.digest("43"))))
        assert (403, "insufficient_scope") == (outcome.status, outcome.error)

    def test_once(self, service: services.Service) -> None:
        """A token of class high is good once."""
        given = Credentials.bearer(token(digest=service.digest(), high=True))
        assert 200 == service.call(given).status
        again = service.call(given)
        assert (401, "invalid_token") == (again.status, again.error)

    def test_what_it_is_used_for(self, pair: Pair) -> None:
        """With a token of class high the agent is told what it is used for, before that is served."""
        agent, service = pair
        assert 200 == service.call(Credentials.bearer(token(digest=service.digest(), high=True))).status
        said = agent.served[-1]
        assert ("ticket:read", ["ticket"]) == (said.action, list(said.compared))
        assert said.method
        assert said.target
