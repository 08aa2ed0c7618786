"""The steps by which a request gets its token and proof, whatever sends it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sojourn.errors import InvalidInput, InvalidToken, PolicyDenied, TaskOver, TooLarge
from sojourn.errors.oauth import ActionUsedUp, DigestNeeded, OutsideTask, SendAgain
from sojourn.limits import ONE_REQUEST_MAX_BYTES, TOKENS_KEPT
from sojourn.sdk.request import authorization
from sojourn.sdk.request.authorization import AskProof, AskToken, HttpAnswer, ReadContent, Send, Shelf, WantedRequest
from sojourn.sdk.task.values import VAULT_TOKEN, AccessToken, Outside
from sojourn.tasktoken import request_digest
from sojourn.tasktoken.grants import Grant

RESOURCE = "https://tickets.example.org/v1"
GRANT = Grant.parse(RESOURCE, ["ticket:read", "ticket:write"])
URL = f"{RESOURCE}/tickets/42?all=1"
OK = HttpAnswer(200, (), None)
STALE = HttpAnswer(401, ('DPoP error="invalid_token", error_description="the task has changed"',), None)
NONCE = HttpAnswer(401, ('DPoP error="use_dpop_nonce"',), "n1")


def lacking(scope: str) -> HttpAnswer:
    return HttpAnswer(403, (f'Bearer realm="x", error="insufficient_scope", scope="{scope}"',), None)


def token(
    text: str = "t", seconds: float = 60, kind: str = "DPoP", actions: tuple[str, ...] = GRANT.actions
) -> AccessToken:
    return AccessToken(text, RESOURCE, actions, datetime.now(UTC) + timedelta(seconds=seconds), kind)


def wanted(**changes: Any) -> WantedRequest:
    return WantedRequest(**{"grant": GRANT, "method": "GET", "url": URL, **changes})


class Task:
    """A task of the caller's, and its status in one."""

    id, type, state, reason, ended, grants = "t1", "triage", "active", "", False, (GRANT,)
    version = 1
    outside: tuple[Outside, ...] = ()
    person: Any = None

    @property
    def status(self) -> "Task":
        return self


class TestHeader:
    """What stands in an Authorization header."""

    def test_of_a_vault(self) -> None:
        """A Vault takes its token as a Bearer token too."""
        found = AccessToken("hvs.x", RESOURCE, (), datetime.now(UTC), "N_A", VAULT_TOKEN, "v")
        assert "Bearer hvs.x" == found.header

    def test_what_is_no_token(self) -> None:
        """Credentials of AWS are for no such header, and nothing of them is in the error."""
        found = AccessToken("{secret}", RESOURCE, (), datetime.now(UTC), "N_A", "urn:x", "aws")
        with pytest.raises(InvalidInput, match="no token for an Authorization header") as caught:
            found.header  # noqa: B018  # a property
        assert "secret" not in str(caught.value)


class TestWant:
    def test_grant(self) -> None:
        """A request belongs to the grant of its URL; actions are those named, once each."""
        found = authorization.want(Task(), "GET", URL, ["ticket:read", "ticket:read"])
        assert (GRANT, ("ticket:read",)) == (found.grant, found.actions)

    def test_of_a_provider(self) -> None:
        """What a provider outside gives is bound to no key of the task: it is asked for as it is."""
        task = Task()
        assert authorization.want(task, "GET", URL).bound
        task.outside = (Outside(RESOURCE, "corp", "keycloak", {}),)
        assert not authorization.want(task, "GET", URL).bound
        task.outside = (Outside("https://other.example", "corp", "keycloak", {}),)
        assert authorization.want(task, "GET", URL).bound

    def test_outside(self) -> None:
        """Another URL is outside of the task, and the error names what was wanted."""
        with pytest.raises(OutsideTask, match="has no grant for this URL") as caught:
            authorization.want(Task(), "GET", "https://evil.example/x")
        assert ("https://evil.example", ("GET",)) == (caught.value.resource, caught.value.actions)

    def test_another_action(self) -> None:
        """Another action at a resource of the task is outside of it."""
        with pytest.raises(OutsideTask) as caught:
            authorization.want(Task(), "GET", URL, ["ticket:delete"])
        assert (RESOURCE, ("ticket:delete",)) == (caught.value.resource, caught.value.actions)

    def test_over(self) -> None:
        """Of a task that is over nothing is wanted any more."""
        task = Task()
        task.ended, task.state, task.why = True, "revoked", "admin"
        with pytest.raises(TaskOver, match="task is revoked: admin"):
            authorization.want(task, "GET", URL)


class TestSteps:
    def test_bound(self) -> None:
        """A token for all actions, a proof for method and URL without its query, and the request with both."""
        flow = authorization.attach(wanted(), Shelf())
        assert AskToken(RESOURCE, (), True) == authorization.go_on(flow)
        assert AskProof("GET", f"{RESOURCE}/tickets/42", "t", None) == authorization.go_on(flow, token())
        assert Send({"Authorization": "DPoP t", "DPoP": "p"}) == authorization.go_on(flow, "p")
        assert authorization.go_on(flow, OK) is None

    @pytest.mark.parametrize("method", ["TRACE", "Trace", "TRACK", "CONNECT"])
    def test_methods_that_tell(self, method: str) -> None:
        """For a request that the service hands back as it came there is neither token nor proof."""
        with pytest.raises(OutsideTask, match="would be told"):
            authorization.go_on(authorization.attach(wanted(method=method), Shelf()))

    def test_bearer(self) -> None:
        """Without a binding there is no proof."""
        flow = authorization.attach(wanted(bound=False), Shelf())
        authorization.go_on(flow)
        assert Send({"Authorization": "Bearer t"}) == authorization.go_on(flow, token(kind="Bearer"))

    def test_nonce(self) -> None:
        """With a nonce that is asked for the proof is made again, once; the next request has it from the start."""
        shelf = Shelf()
        flow = authorization.attach(wanted(), shelf)
        authorization.go_on(flow)
        authorization.go_on(flow, token())
        authorization.go_on(flow, "p")
        assert isinstance(authorization.go_on(flow, NONCE), AskToken)
        assert AskProof("GET", f"{RESOURCE}/tickets/42", "t", "n1") == authorization.go_on(flow, token())
        authorization.go_on(flow, "p")
        assert authorization.go_on(flow, NONCE) is None
        assert "n1" == shelf.nonce(RESOURCE)

    def test_stale(self) -> None:
        """With a token that is not taken any more the request is sent again with a new one, once."""
        flow = authorization.attach(wanted(bound=False), Shelf())
        authorization.go_on(flow)
        authorization.go_on(flow, token())
        assert isinstance(authorization.go_on(flow, STALE), AskToken)
        authorization.go_on(flow, token("t2"))
        assert authorization.go_on(flow, STALE) is None

    @pytest.mark.parametrize(
        "answer",
        [
            HttpAnswer(403, ('DPoP error="invalid_token"',), None),
            HttpAnswer(401, (), "n1"),
            HttpAnswer(401, ('DPoP error="insufficient_scope"',), None),
            HttpAnswer(401, ('DPoP error="use_dpop_nonce"',), None),
            HttpAnswer(401, ('DPoP error="use_dpop_nonce"',), 'a"b'),
            HttpAnswer(401, ('DPoP error="use_dpop_nonce"',), "n" * 257),
            HttpAnswer(500, (), None),
        ],
    )
    def test_no_other_answer(self, answer: HttpAnswer) -> None:
        """After any other answer nothing is sent again."""
        flow = authorization.attach(wanted(bound=False), Shelf())
        authorization.go_on(flow)
        authorization.go_on(flow, token())
        assert authorization.go_on(flow, answer) is None

    def test_not_repeatable(self) -> None:
        """Content that is gone is not sent again; a new token is there for the next request all the same."""
        shelf, kept = Shelf(), token()
        flow = authorization.attach(wanted(repeatable=False), shelf)
        ask = authorization.go_on(flow)
        assert isinstance(ask, AskToken)
        shelf.keep(ask, kept, 1)
        authorization.go_on(flow, kept)
        authorization.go_on(flow, "p")
        assert ask == authorization.go_on(flow, STALE)
        assert shelf.token(ask, 1) is None
        with pytest.raises(SendAgain):
            authorization.go_on(flow, token())

    def test_not_repeatable_and_over(self) -> None:
        """Where the content is gone and the task is over, that is what is told."""
        flow = authorization.attach(wanted(repeatable=False, bound=False), Shelf())
        authorization.go_on(flow)
        authorization.go_on(flow, token())
        authorization.go_on(flow, STALE)
        with pytest.raises(TaskOver):
            authorization.go_on_without(flow, TaskOver("the task is over: completed"))

    def test_proof_of_a_stale_token(self) -> None:
        """If the agent makes no proof for a token any more there is a new one, once."""
        flow = authorization.attach(wanted(), Shelf())
        authorization.go_on(flow)
        authorization.go_on(flow, token())
        assert isinstance(authorization.go_on_without(flow, InvalidToken("superseded")), AskToken)
        authorization.go_on(flow, token("t2"))
        with pytest.raises(InvalidToken):
            authorization.go_on_without(flow, InvalidToken("superseded"))

    def test_a_digest_that_cannot_be_told(self) -> None:
        """If what a token for one request is over cannot be told, the agent's refusal is the end: it is not asked on."""
        shelf = Shelf()
        flow = authorization.attach(wanted(), shelf, lambda _: "")
        assert isinstance(authorization.go_on(flow), AskToken)
        assert ReadContent() == authorization.go_on_without(flow, DigestNeeded("name the request"))
        assert isinstance(authorization.go_on(flow, b""), AskToken)
        with pytest.raises(DigestNeeded):
            authorization.go_on_without(flow, DigestNeeded("name the request"))

    def test_one_request(self) -> None:
        """If tokens are for one request, the digest is of method, target and content; from then on at once."""
        shelf = Shelf()
        flow = authorization.attach(wanted(method="POST"), shelf)
        authorization.go_on(flow)
        assert ReadContent() == authorization.go_on_without(flow, DigestNeeded("name the request"))
        digest = request_digest.of_http("POST", "/v1/tickets/42?all=1", b"hello")
        assert AskToken(RESOURCE, (), True, digest) == authorization.go_on(flow, b"hello")
        assert ReadContent() == authorization.go_on(authorization.attach(wanted(), shelf))

    def test_what_the_service_needs(self) -> None:
        """Where nobody named an action and the service names one of the task's, it is sent again with a token for that."""
        shelf, lacks = Shelf(), lacking("ticket:write")
        flow = authorization.attach(wanted(bound=False), shelf)
        assert AskToken(RESOURCE, (), False) == authorization.go_on(flow)
        authorization.go_on(flow, token(actions=("ticket:read",)))
        assert AskToken(RESOURCE, ("ticket:write",), False) == authorization.go_on(flow, lacks)
        assert ReadContent() == authorization.go_on_without(flow, DigestNeeded("name the request"))
        assert authorization.go_on(flow, b"") is not None
        assert isinstance(authorization.go_on(flow, token(actions=("ticket:write",))), Send)
        assert authorization.go_on(flow, lacks) is None
        assert ReadContent() == authorization.go_on(
            authorization.attach(wanted(bound=False, url=URL + "&more=2"), shelf)
        )
        other = wanted(bound=False, url=f"{RESOURCE}/tickets/43")
        assert AskToken(RESOURCE, (), False) == authorization.go_on(authorization.attach(other, shelf))

    @pytest.mark.parametrize(
        ("change", "scope", "has"),
        [
            ({"actions": ("ticket:read",)}, "ticket:write", ("ticket:read",)),
            ({}, "ticket:delete", ("ticket:read",)),
            ({}, "ticket:write ticket:delete", ("ticket:read",)),
            ({}, "ticket:read", ("ticket:read",)),
            ({}, "", ("ticket:read",)),
        ],
    )
    def test_what_is_not_to_be_had(self, change: dict[str, Any], scope: str, has: tuple[str, ...]) -> None:
        """What was named, what the task does not have and what the token had already is not asked for anew."""
        flow = authorization.attach(wanted(bound=False, **change), Shelf())
        authorization.go_on(flow)
        authorization.go_on(flow, token(actions=has))
        assert authorization.go_on(flow, lacking(scope)) is None

    def test_needed_and_not_repeatable(self) -> None:
        """Content that is gone is not sent again for that; the next such request begins with the right token."""
        shelf = Shelf()
        flow = authorization.attach(wanted(bound=False, repeatable=False), shelf)
        authorization.go_on(flow)
        authorization.go_on(flow, token(actions=("ticket:read",)))
        with pytest.raises(SendAgain):
            authorization.go_on(flow, lacking("ticket:write"))
        again = authorization.attach(wanted(bound=False, repeatable=False), shelf)
        assert AskToken(RESOURCE, ("ticket:write",), False) == authorization.go_on(again)

    def test_needed_no_more(self) -> None:
        """What a service said of one request is not held against another, once the agent gives no token for it."""
        shelf = Shelf()
        shelf.note_actions(wanted(), ("ticket:write",))
        flow = authorization.attach(wanted(bound=False), shelf)
        assert AskToken(RESOURCE, ("ticket:write",), False) == authorization.go_on(flow)
        assert AskToken(RESOURCE, (), False) == authorization.go_on_without(flow, ActionUsedUp("once, and has done so"))
        authorization.go_on(flow, token(actions=("ticket:read",)))
        assert AskToken(RESOURCE, ("ticket:write",), False) == authorization.go_on(flow, lacking("ticket:write"))
        with pytest.raises(ActionUsedUp):  # it was for that after all
            authorization.go_on_without(flow, ActionUsedUp("once, and has done so"))

    def test_calls_at_one_place(self) -> None:
        """Of tools that are called at one URL each has the action that the service named for it."""
        shelf = Shelf()
        shelf.note_actions(wanted(calls="tools/call refund"), ("ticket:write",))
        look, refund = (
            authorization.attach(wanted(bound=False, calls=f"tools/call {each}"), shelf) for each in ("look", "refund")
        )
        assert AskToken(RESOURCE, (), False) == authorization.go_on(look)
        assert AskToken(RESOURCE, ("ticket:write",), False) == authorization.go_on(refund)

    def test_one_large_request(self) -> None:
        """Content that is too large to be read whole is refused, and nothing sent."""
        shelf = Shelf()
        shelf.note_one_request(RESOURCE, ())
        flow = authorization.attach(wanted(), shelf)
        authorization.go_on(flow)
        with pytest.raises(TooLarge):
            authorization.go_on(flow, b"x" * (ONE_REQUEST_MAX_BYTES + 1))

    @pytest.mark.parametrize("error", [PolicyDenied("no"), InvalidInput("no"), TaskOver("over")])
    def test_refusals(self, error: Exception) -> None:
        """What the agent refuses is the caller's to see; nothing is sent."""
        flow = authorization.attach(wanted(), Shelf())
        authorization.go_on(flow)
        with pytest.raises(type(error)):
            authorization.go_on_without(flow, error)


class TestShelf:
    def test_until_shortly_before_its_end(self) -> None:
        """A token is used again until some seconds before its end, on a clock that nobody can set."""
        now = [100.0]
        shelf, ask = Shelf(lambda: now[0]), AskToken(RESOURCE, (), True)
        shelf.keep(ask, token(seconds=60), 1)
        now[0] += 54
        assert shelf.token(ask, 1) is not None
        now[0] += 2
        assert shelf.token(ask, 1) is None

    def test_of_this_version(self) -> None:
        """A token of an earlier version of the task is not used again."""
        shelf, ask = Shelf(), AskToken(RESOURCE, (), True)
        shelf.keep(ask, token(), 1)
        assert shelf.token(ask, 2) is None

    def test_by_actions_and_binding(self) -> None:
        """A token for other actions, or bound otherwise, is another one."""
        shelf = Shelf()
        shelf.keep(AskToken(RESOURCE, (), True), token(), 1)
        assert shelf.token(AskToken(RESOURCE, ("ticket:read",), True), 1) is None
        assert shelf.token(AskToken(RESOURCE, (), False), 1) is None

    def test_for_one_request(self) -> None:
        """A token for one request is not kept."""
        shelf, ask = Shelf(), AskToken(RESOURCE, (), True, "digest")
        shelf.keep(ask, token(), 1)
        assert shelf.token(ask, 1) is None

    def test_full(self) -> None:
        """When there are as many kept tokens as may be, the oldest goes."""
        shelf = Shelf()
        asks = [AskToken(RESOURCE, (f"a{number}",), True) for number in range(TOKENS_KEPT + 1)]
        for ask in asks:
            shelf.keep(ask, token(), 1)
        assert shelf.token(asks[0], 1) is None
        assert shelf.token(asks[1], 1) is not None

    def test_no_secret_in_reprs(self) -> None:
        """Steps do not show the tokens that they carry."""
        assert "secret" not in repr([Send({"Authorization": "secret"}), AskProof("GET", URL, "secret", None)])
