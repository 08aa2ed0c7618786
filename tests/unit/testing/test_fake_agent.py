"""`sojourn.testing.FakeAgent`: a service's guard before it says yes and no as before an agent of ours."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sojourn.errors import InvalidInput
from sojourn.sdk.task.values import AccessToken
from sojourn.tasktoken.task_claim import APPROVED
from sojourn.testing import FakeAgent
from sojourn.web import Action, TaskTokenWsgi, body

SERVICE = "https://shop.example.org"
REFUND = "refund:create"
ITEMS = {"order": body("/items/*/order"), "cents": body("/items/*/cents")}
ACTIONS: dict[str, str | Action] = {
    "POST /refunds": Action(REFUND, params=ITEMS),
    "GET /orders/{order}": "order:read",
    "GET /orders": Action("order:list", unchecked=("order", "cents")),
    "GET /live": "order:watch",
    "GET /payouts": Action("payout:read", acr=APPROVED),
    "GET /people/{customer}": Action("person:read", person_params={"customer": "sub"}),
}
OF_ORDER: dict[str, str | int | bool] = {"order": "O-1", "cents": 2500}
ALICE = {"issuer": "https://login.example.org", "subject": "alice"}


def service(environ: Any, start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Says everything to everybody, and at /live for ever."""
    start_response("200 OK", [])
    yield b"one"
    while environ["PATH_INFO"] == "/live":
        yield b"one"


@pytest.fixture
def agent() -> Iterator[FakeAgent]:
    with FakeAgent() as agent:
        yield agent


@pytest.fixture
def http(agent: FakeAgent) -> Iterator[httpx.Client]:
    guarded = TaskTokenWsgi(service, audience=SERVICE, actions=ACTIONS, strict=True)
    with httpx.Client(transport=httpx.WSGITransport(guarded), base_url=SERVICE) as client:
        yield client
    guarded.close()


def get(http: httpx.Client, path: str, token: AccessToken) -> httpx.Response:
    return http.get(path, headers={"Authorization": token.header})


def refund(http: httpx.Client, token: AccessToken, *cents: int) -> httpx.Response:
    content = {"items": [{"order": "O-1", "cents": each} for each in cents]}
    return http.post("/refunds", json=content, headers={"Authorization": token.header})


class TestWhatTheGuardSays:
    def test_its_parameters(self, agent: FakeAgent, http: httpx.Client) -> None:
        """A token of the stand-in is good for the parameters of its task, by value and type, and for no other."""
        token = agent.token(SERVICE, [REFUND], params=OF_ORDER)
        assert [200, 403] == [refund(http, token, each).status_code for each in (2500, 9900)]
        text = agent.token(SERVICE, [REFUND], params={"order": "O-1", "cents": "2500"})
        assert 403 == refund(http, text, 2500).status_code

    def test_its_actions(self, agent: FakeAgent, http: httpx.Client) -> None:
        """A token of the stand-in is good for the actions it was made for."""
        token = agent.token(SERVICE, ["order:list"], params=OF_ORDER)
        assert [200, 403] == [get(http, each, token).status_code for each in ("/orders", "/orders/O-1")]

    def test_bind(self, agent: FakeAgent, http: httpx.Client) -> None:
        """`bind` says which parameters concern an action, as a task type does; without it all do."""
        bound = agent.token(SERVICE, ["order:read"], params=OF_ORDER, bind={"order:read": ["order"]})
        assert [200, 403] == [get(http, each, bound).status_code for each in ("/orders/O-1", "/orders/O-2")]
        whole = get(http, "/orders/O-1", agent.token(SERVICE, ["order:read"], params=OF_ORDER))
        assert (403, "unbound_parameter") == (whole.status_code, whole.json()["error"])

    def test_limits(self, agent: FakeAgent, http: httpx.Client) -> None:
        """`limits` count each use of an action: a batch whole or not at all, and by each token apart."""
        limited = {"params": OF_ORDER, "limits": {REFUND: 3}}
        token = agent.token(SERVICE, [REFUND], **limited)  # type: ignore[arg-type]
        answers = [refund(http, token, *[2500] * each) for each in (2, 2, 1, 1)]
        assert [200, 403, 200, 403] == [each.status_code for each in answers]
        assert "limit_reached" == answers[-1].json()["error"]
        other = agent.token(SERVICE, [REFUND], **limited)  # type: ignore[arg-type]
        assert 200 == refund(http, other, 2500).status_code

    def test_people(self, agent: FakeAgent, http: httpx.Client) -> None:
        """A token for a person is taken where the route takes one, and compared with the person."""
        token = agent.token(SERVICE, ["person:read", "order:list"], person=ALICE)
        paths = ("/people/alice", "/people/bob", "/orders")
        assert [200, 403, 403] == [get(http, each, token).status_code for each in paths]

    def test_approval(self, agent: FakeAgent, http: httpx.Client) -> None:
        """A route that needs an approved task takes a token that was made `approved`, and no other."""
        tokens = [agent.token(SERVICE, ["payout:read"], approved=each) for each in (True, False)]
        assert [200, 401] == [get(http, "/payouts", each).status_code for each in tokens]

    def test_others(self, agent: FakeAgent, http: httpx.Client) -> None:
        """A token for another service is refused, and one of another stand-in."""
        with FakeAgent() as other:
            stranger = other.token(SERVICE, ["order:list"])
        elsewhere = agent.token("https://elsewhere.example.org", ["order:list"])
        assert [401, 401] == [get(http, "/orders", each).status_code for each in (stranger, elsewhere)]


class TestEnd:
    def test_the_next_request(self, agent: FakeAgent, http: httpx.Client) -> None:
        """Once `end` has returned, the token's next request is refused with the reason that was given."""
        token, other = (agent.token(SERVICE, ["order:list"]) for _ in range(2))
        assert 200 == get(http, "/orders", token).status_code
        agent.end(token, "revoked: admin")
        refused = get(http, "/orders", token)
        assert (401, True) == (refused.status_code, "revoked: admin" in refused.json()["error_description"])
        assert 200 == get(http, "/orders", other).status_code

    def test_an_answer_that_goes_on(self, agent: FakeAgent, http: httpx.Client) -> None:
        """An answer in parts that a token of the stand-in has begun ends with its task."""
        token = agent.token(SERVICE, ["order:watch"])
        with http.stream("GET", "/live", headers={"Authorization": token.header}) as answer:
            parts = answer.iter_raw()
            assert b"one" == next(parts)
            agent.end(token)
            with pytest.raises(OSError, match="the task is over: completed: success"):  # as the server is told
                any(part != b"one" for part in parts)


def test_where_it_is() -> None:
    """Its block sets SOJOURN_SOCKET, and leaves it as it was; its socket is gone then."""
    before = os.environ.get("SOJOURN_SOCKET")
    with FakeAgent() as agent:
        assert agent.socket == os.environ["SOJOURN_SOCKET"]
        assert os.path.exists(agent.socket)
    assert before == os.environ.get("SOJOURN_SOCKET")
    assert not os.path.exists(agent.socket)


@pytest.mark.parametrize(
    "wrong", [{"resource": "no url"}, {"actions": []}, {"workload": "nobody"}, {"person": {**ALICE, "subject": ""}}]
)
def test_what_no_agent_gives(agent: FakeAgent, wrong: dict[str, Any]) -> None:
    """What would be no token of an agent's is InvalidInput."""
    with pytest.raises(InvalidInput):
        agent.token(**{"resource": SERVICE, "actions": ["order:list"], **wrong})


def test_light() -> None:
    """A service's tests need no library of the agent for it."""
    heavy = ["pydantic", "sqlalchemy", "starlette", "structlog", "uvloop"]
    code = (
        f"import sys; from sojourn.testing import FakeAgent; print([each for each in {heavy} if each in sys.modules])"
    )
    assert "[]\n" == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
