"""oauth_responses.py: what the token service's endpoints read of forms, and how they refuse."""

import json

import pytest
from fakes.clock import FakeClock
from fakes.journals import FakeAuditStore
from sojourn.audit.journal import Audit
from sojourn.endpoints.http1 import oauth_responses
from sojourn.endpoints.http1.scope import HELD, SENDER
from sojourn.errors import InvalidInput, InvalidToken, LimitExceeded, PolicyDenied, TooLarge
from sojourn.errors.oauth import AuthorizationPending, InvalidClient, NonceNeeded
from sojourn.errors.people import PersonRefused
from sojourn.limits import HTTP_BODY_MAX_BYTES, HTTP_RETRY_SECONDS
from sojourn.oauth.client_auth import ClientSender
from sojourn.providers.errors import ProviderUnavailable
from sojourn.quota.usage import Held
from starlette.requests import Request

FORM = (b"content-type", b"application/x-www-form-urlencoded")


def request(body=b"", *headers, pieces=1):
    """A request with these headers, whose body comes in so many pieces."""
    size = -(-len(body) // pieces) or 1
    left = [body[start : start + size] for start in range(0, len(body), size)] or [b""]

    async def receive():
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    scope = {"type": "http", "method": "POST", "path": "/token", "headers": list(headers)}
    return Request({**scope, SENDER: ClientSender(address="127.0.0.1"), HELD: Held(10**6)}, receive)


def refused(error, *headers):
    found = oauth_responses.refusal(error, "d1", request(b"", *headers), "https://sojourn.example.org")
    return found.status_code, json.loads(found.body), dict(found.headers)


class TestForm:
    @pytest.mark.parametrize(
        "kind",
        [
            b"application/x-www-form-urlencoded",
            b"Application/X-WWW-Form-Urlencoded",
            b" application/x-www-form-urlencoded ; charset=UTF-8 ",
            b'application/x-www-form-urlencoded;charset="utf-8"',
            b"application/x-www-form-urlencoded;",
        ],
    )
    async def test_read(self, kind):
        """A form is read in its order, with what is named twice and what is empty, in however many pieces it comes."""
        body = b"a=1&b=%C3%A4+x&a=&c=%26"
        for pieces in (1, 3, len(body)):
            found = await oauth_responses.form_of(request(body, (b"content-type", kind), pieces=pieces))
            assert [("a", "1"), ("b", "\u00e4 x"), ("a", ""), ("c", "&")] == found

    @pytest.mark.parametrize(
        ("headers", "said"),
        [
            ((), "content type"),
            ((FORM, FORM), "content type"),
            (((b"content-type", b"application/json"),), "content type"),
            (((b"content-type", b"text/plain; application/x-www-form-urlencoded"),), "content type"),
            (((b"content-type", FORM[1] + b"; charset=latin-1"),), "not in UTF-8"),
        ],
    )
    async def test_of_another_kind(self, headers, said):
        """What is not one form in UTF-8 is refused before its body is read."""
        with pytest.raises(InvalidInput, match=said):
            await oauth_responses.form_of(request(b"a=1", *headers))

    @pytest.mark.parametrize(
        "body",
        [b"a", b"a=1&", b"a=%ff", b"a=\xc3\xa4", b"&".join(b"a=1" for _ in range(65))],
        ids=["no-value", "empty-field", "no-utf-8", "no-ascii", "too-many"],
    )
    async def test_malformed(self, body):
        """What is no form is refused."""
        with pytest.raises(InvalidInput, match="the body is not a form"):
            await oauth_responses.form_of(request(body, FORM))

    async def test_sizes(self):
        """A body has so many bytes at most, and so many fields."""
        most = b"a=" + b"x" * (HTTP_BODY_MAX_BYTES - 2)
        assert [("a", most[2:].decode())] == await oauth_responses.form_of(request(most, FORM, pieces=7))
        with pytest.raises(TooLarge, match=f"larger than {HTTP_BODY_MAX_BYTES} bytes"):
            await oauth_responses.form_of(request(most + b"x", FORM, pieces=7))
        assert 64 == len(await oauth_responses.form_of(request(b"&".join([b"a=1"] * 64), FORM)))


class TestRefusal:
    def test_the_least(self):
        """The registered code, one sentence, our own code and the audit's ID; nobody may keep the answer."""
        status, body, headers = refused(PolicyDenied('no "x"'))
        assert (400, "no-store", "no-cache") == (status, headers["cache-control"], headers["pragma"])
        assert {
            "error": PolicyDenied.oauth_error,
            "error_description": "no 'x'",
            "code": "policy_denied",
            "decision_id": "d1",
        } == body
        assert not {"www-authenticate", "retry-after", "dpop-nonce"} & headers.keys()

    def test_reason_and_nonce(self):
        """Of a token that is not good the reason is told, and of a proof that lacks it the nonce."""
        assert "expired" == refused(InvalidToken("x", reason_code="expired"))[1]["reason"]
        _, body, headers = refused(NonceNeeded("x", "n1"))
        assert ("use_dpop_nonce", "nonce_needed", "n1") == (body["error"], body["reason"], headers["dpop-nonce"])

    def test_pending(self):
        """Of a task that waits for approval all is told by which it can be asked for again."""
        error = AuthorizationPending(
            "x", task_id="t1", approval_id="a1", approvers=["operator", "spiffe://example.org/b"], seconds=60
        )
        status, body, _ = refused(error)
        assert (400, "authorization_pending") == (status, body["error"])
        assert ("t1", 5, 60) == (body["task_id"], body["interval"], body["expires_in"])
        assert {"id": "a1", "approvers": ["operator", "spiffe://example.org/b"]} == body["approval"]

    def test_another_login(self):
        """Who must log in again is told how: by `acr_values` and `max_age`, where something is asked of them."""
        code = "insufficient_user_authentication"
        status, body, _ = refused(PersonRefused(code, "log in again", acr_values=("gold", "mfa"), max_age=0))
        assert (400, code, code, "gold mfa", 0) == (
            status, body["error"], body["code"], body["acr_values"], body["max_age"]
        )  # fmt: skip
        _, body, _ = refused(PersonRefused(code, "log in again"))
        assert not {"acr_values", "max_age"} & body.keys()

    def test_issuer_unavailable(self):
        """An issuer whose keys are not to be had is a reason to come again, and no refusal."""
        status, body, headers = refused(PersonRefused("issuer_unavailable", "not now"))
        assert (503, "temporarily_unavailable", "issuer_unavailable") == (status, body["error"], body["code"])
        assert "retry-after" in headers

    def test_too_large(self):
        """What is too large has a status of its own."""
        assert 413 == refused(TooLarge("x"))[0]

    @pytest.mark.parametrize(
        ("seconds", "told"), [(0, HTTP_RETRY_SECONDS), (HTTP_RETRY_SECONDS + 0.5, HTTP_RETRY_SECONDS + 1)]
    )
    def test_not_now(self, seconds, told):
        """What is not there for now says when to ask again: when the provider says, rounded up, or by our own rule."""
        status, _, headers = refused(ProviderUnavailable("x", retry_after=seconds))
        assert (503, str(told)) == (status, headers["retry-after"])

    @pytest.mark.parametrize(
        ("tried", "scheme"),
        [
            ((), "SPIFFE"),
            ((b"Basic eA==",), "Basic"),
            ((b"bAsIc eA==",), "Basic"),
            ((b"Basic e A==",), "Basic"),
            ((b"Bearer basic",), "SPIFFE"),
        ],
    )
    def test_client(self, tried, scheme):
        """A client that is not known is told by which scheme, that of its own if it has tried one that there is."""
        headers = [(b"authorization", each) for each in tried]
        status, _, found = refused(InvalidClient("x"), *headers)
        assert (401, f'{scheme} realm="https://sojourn.example.org"') == (status, found["www-authenticate"])


def test_described():
    """A sentence is told in the characters that an error_description may have."""
    assert "a'b ? ? ~!?" == oauth_responses.described('a"b \u00e4 \\ ~!\n')
    assert " #[]^~" == oauth_responses.described(" #[]^~")


def test_decision():
    """A request has one ID of its decision, which is made when it is first asked for, and another has another."""
    one, other = request(), request()
    assert oauth_responses.decision_of(one) == oauth_responses.decision_of(one) != oauth_responses.decision_of(other)
    assert 32 == len(oauth_responses.decision_of(one))


class TestHolding:
    async def test_content(self):
        """Content counts as its sender's while its request is answered, in however many pieces it came."""
        asked = request(b"x" * 100, pieces=4)
        held, who = asked.scope[HELD], asked.scope[SENDER].who
        held.hold(who, 50)  # of another request
        with oauth_responses.holding(asked):
            assert b"x" * 100 == await oauth_responses.content_of(asked, 100)
            assert {who: 150} == dict(held)
        assert {who: 50} == dict(held)

    async def test_too_much(self):
        """A sender whose requests hold too much is refused, and what was held of it is let go."""
        asked = request(b"x" * 100, pieces=2)
        asked.scope[HELD] = Held(99)
        with oauth_responses.holding(asked), pytest.raises(LimitExceeded, match="too much is held"):
            await oauth_responses.content_of(asked, 100)
        assert {} == dict(asked.scope[HELD])

    async def test_nothing(self):
        """A request without content holds nothing."""
        asked = request()
        with oauth_responses.holding(asked):
            assert {} == dict(asked.scope[HELD])
        assert {} == dict(asked.scope[HELD])


async def test_what_is_recorded():
    """A refusal is recorded with its sender, its code and reason, and the ID that the answer has."""
    store = FakeAuditStore()
    audit = Audit(store, FakeClock())
    asked = request()
    asked.scope[SENDER] = ClientSender(address="2001:db8::17")
    oauth_responses.denied(audit, "exchange_denied", asked, PolicyDenied("no"))
    await audit.flush()
    [record] = store.fields("exchange_denied")
    said = {"code": "policy_denied", "reason": "no", "decision_id": oauth_responses.decision_of(asked)}
    assert {"address": "2001:db8::17", **said} == record
