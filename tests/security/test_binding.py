"""Tokens that are bound, and for one request, before a guard of a service (docs/security-cases.md)."""

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fakes.boundservice import BOUND, KEY, PATH, THIEFS, Service, refused, schemes, serving
from fakes.jws import joined
from fakes.task_feed import AUDIENCE, ISSUER, over
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.errors import TooLarge
from sojourn.sdk.guard.challenges import Refusal, ResourceMetadata
from sojourn.sdk.guard.guard import HttpRequest
from sojourn.sdk.integrations.asgi import Content
from sojourn.tasktoken import request_digest
from sojourn.tasktoken.grants import Grant
from sojourn.tasktoken.sender_constraint import X5T, Binding, thumbprint_of
from sojourn.tasktoken.task_claim import APPROVED, TaskClaim
from sojourn.tasktoken.tokens import TaskToken

pytestmark = pytest.mark.full


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path) as made:
        yield made


# --- what is good ---------------------------------------------------------------------------------------------------


async def test_the_good_requests_are_good(service: Service) -> None:
    """What the tests here change is let through: they fail for what they change."""
    assert isinstance(await service.bearer(service.token()), TaskToken)
    token = service.token(binding=BOUND)
    assert isinstance(await service.dpop(token, service.proof(token)), TaskToken)
    token = service.token(binding=Binding(X5T, thumbprint_of(b"leaf")))
    assert isinstance(await service.bearer(token, certificate=b"leaf"), TaskToken)
    assert 0 == service.contents


# --- F.8 14, C5 51: tokens in other hands -----------------------------------------------------------------------------


async def test_a_bound_token_without_its_key(service: Service) -> None:
    """Whoever has but the token of another gets nothing: without proof, with a proof by another key, as Bearer."""
    token = service.token(binding=BOUND)
    answer = refused(await service.bearer(token), 401, "invalid_token", "without a DPoP proof")
    assert ["DPoP"] == schemes(answer)
    stolen = service.proof(token, key=THIEFS)
    refused(await service.dpop(token, stolen), 401, "invalid_token", "does not hold")
    refused(await service.send(("authorization", f"DPoP {token}")), 401, "invalid_dpop_proof", "no DPoP header")
    both = (("authorization", f"Bearer {token}"), ("dpop", service.proof(token)))
    refused(await service.send(*both), 401, "invalid_dpop_proof", "not Bearer")


async def test_an_unbound_token_with_a_proof(service: Service) -> None:
    """A token that is bound to nothing is not made another by a proof."""
    token = service.token()
    refused(await service.dpop(token, service.proof(token)), 401, "invalid_token", "not bound to the key")


async def test_a_certificate_token_with_a_proof(service: Service) -> None:
    """A token that is bound to a certificate is none under the scheme DPoP, also over that certificate's connection."""
    token = service.token(binding=Binding(X5T, thumbprint_of(b"leaf")))
    refused(await service.dpop(token, service.proof(token), certificate=b"leaf"), 401, "invalid_token")


@pytest.mark.parametrize("cnf", [{}, None, "", [], {"jkt": 5}, {"jkt": ""}, {"jwk": {}}, {"kid": "a"}, {"x5t": "a"}])
async def test_a_binding_that_is_not_known(service: Service, cnf: Any) -> None:
    """A confirmation claim that we cannot check is not taken for none, nor is one of two members."""
    header = {"alg": "ES256", "typ": "at+jwt", "kid": "k1"}
    both = {"jkt": BOUND.thumbprint, "x5t#S256": BOUND.thumbprint}
    for each in (cnf, both):
        claims = {**service.claims(), "cnf": each}
        token = joined(header, json.dumps(claims).encode(), KEY)
        refused(await service.bearer(token), 401, "invalid_token", "bound")
        refused(await service.dpop(token, service.proof(token)), 401, "invalid_token", "bound")


# --- F.8 17, 18: certificates ----------------------------------------------------------------------------------------


async def test_the_certificate_of_another_connection(service: Service) -> None:
    """A token that is bound to a certificate is good over its connections, not over those of the one that follows."""
    token = service.token(binding=Binding(X5T, thumbprint_of(b"leaf")))
    refused(await service.bearer(token, certificate=b"next leaf"), 401, "invalid_token", "does not hold")
    answer = refused(await service.bearer(token), 401, "invalid_token", "without the certificate")
    assert ["Bearer", "DPoP"] == schemes(answer)


async def test_certificates_in_headers(service: Service) -> None:
    """What a header says of a certificate is not believed, by whatever name a proxy would give it."""
    token = service.token(binding=Binding(X5T, thumbprint_of(b"leaf")))
    text = base64.b64encode(b"leaf").decode()
    names = ("Client-Cert", "X-Forwarded-Client-Cert", "X-SSL-Client-Cert", "X-Client-Cert", "Ssl-Client-Cert")
    values = (text, f":{text}:", f'Cert="{text}"', f"Hash={hashlib.sha256(b'leaf').hexdigest()}")
    headers = [(name, value) for name in names for value in values]
    refused(await service.send(("Authorization", f"Bearer {token}"), *headers), 401, "invalid_token")


# --- what a token is for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["43", "042", "42 ", "%34%33", "4%320", "٤٢"])
async def test_another_parameter(service: Service, value: str) -> None:
    """A token of a task for ticket 42 reads no other ticket, whatever 42's text is like."""
    for param in (42, "42"):
        token = service.token(params={"ticket": param})
        answer = await service.bearer(token, path=f"/tickets/{value}")
        assert isinstance(answer, Refusal)
        assert (403, "insufficient_scope") == (answer.status, answer.error)
        assert isinstance(await service.bearer(token, path="/tickets/42"), TaskToken)


@pytest.mark.parametrize(
    ("param", "text"), [(True, "true"), (False, "false"), (-1, "-1"), ("a b", "a%20b"), ("ä", "%C3%A4")]
)
async def test_parameters_as_text(service: Service, param: Any, text: str) -> None:
    """In a path a parameter is its text, once decoded."""
    token = service.token(params={"ticket": param})
    assert isinstance(await service.bearer(token, path=f"/tickets/{text}"), TaskToken)


@pytest.mark.parametrize(
    "path",
    [
        "/admin/keys/", "/admin//keys", "//admin/keys", "/admin/./keys", "/admin/%2e/keys", "/x/../admin/keys",
        "/%61dmin/keys", "/%41dmin/keys", "/ADMIN/keys", "/Admin/keys", "/admin/%6beys", "/admin%2Fkeys",
        "/admin%2fkeys", "/%2561dmin/keys", "/%252e%252e/keys", "/../keys", "/%2e%2e/keys", "/%2E/keys", "/./keys",
        "/%2F/keys", "/a%2F..%2Fadmin/keys", "/a%5Cb/keys", "/a%00/keys", "/a%0A/keys", "/a%/keys", "/a%zz/keys",
        "/%ff/keys", "/%c0%ae/keys", "/admin;/keys", "/admin;a=b/keys", "/other;/../admin/keys", "/;/keys",
    ],
)  # fmt: skip
async def test_paths_that_look_like_another_routes(service: Service, path: str) -> None:
    """However a path is encoded, doubled or spelt, it is no way to another route's action."""
    token = service.token(grant=Grant.parse(AUDIENCE, ["ticket:read"]))
    refused(await service.bearer(token, path="/admin/keys"), 403, "insufficient_scope", "'key:read'")
    refused(await service.bearer(token, path=path), 403, "insufficient_scope", "no action is defined")
    assert isinstance(await service.bearer(token, path="/other/keys"), TaskToken)


@pytest.mark.parametrize(
    "request_",
    [
        {"method": "GET"},
        {"path": "/tickets/43"},
        {"query": ""},
        {"query": "force=0"},
        {"query": "force=1&x"},
        {"content": b"something"},
    ],
    ids=str,
)
async def test_another_request(service: Service, request_: dict[str, Any]) -> None:
    """A token for one request is for its method, target and content, and for nothing that is nearly that."""
    good: dict[str, Any] = {"method": "DELETE", "path": PATH, "query": "force=1", "content": b""}
    token = service.token(params_digest=request_digest.of_http("DELETE", f"{PATH}?force=1", b""))
    assert isinstance(await service.bearer(token, **good), TaskToken)
    refused(await service.bearer(token, **{**good, **request_}), 403, "insufficient_scope", "another request")
    assert 2 == service.contents


async def test_the_same_content_as_something_else(service: Service) -> None:
    """A token for one request with JSON, or with parts, is not good for the same bytes as a form, or packed."""
    parts = b'--b1\r\nContent-Disposition: form-data; name="note"\r\n\r\n&cents=9900&\r\n--b1--\r\n'
    for content, honest in (
        (b'{"a=1&cents=9900&b": 1}', "application/json"),
        (parts, "multipart/form-data; boundary=b1"),
        (b"--b1--\r\n", "multipart/form-data; boundary=b1"),
    ):
        await _as_something_else(service, content, honest)


async def _as_something_else(service: Service, content: bytes, honest: str) -> None:
    token = service.token(params_digest=request_digest.of_http("DELETE", PATH, content))
    shown = ("Authorization", f"Bearer {token}")
    request = {"method": "DELETE", "path": PATH, "content": content}
    assert isinstance(await service.send(shown, ("content-type", honest), **request), TaskToken)
    for header in (("content-type", "application/x-www-form-urlencoded"), ("content-encoding", "gzip")):
        refused(await service.send(shown, header, **request), 400, "invalid_request")


async def test_content_that_is_too_long(service: Service) -> None:
    """Content that would have to be held whole is held up to a limit."""

    async def endless() -> bytes:
        raise TooLarge("too long")

    token = service.token(params_digest=request_digest.of_http("DELETE", PATH, b""))
    request = HttpRequest("DELETE", PATH, "", [("Authorization", f"Bearer {token}")])
    answer = await service.guard.check(request, endless)
    assert isinstance(answer, Refusal)
    assert (413, "invalid_request") == (answer.status, answer.error)


async def test_a_task_that_ends_while_its_request_comes(service: Service) -> None:
    """A task that ends while the content of its request is still coming is over: the request is refused."""

    async def slow() -> bytes:
        service.agent.push("WatchTasks", pb.TaskFeed(delta=pb.Delta(tasks=[over("t1", 6)]), epoch=1))
        async with asyncio.timeout(20):
            while (known := service.verifier.feed.lookup("t1")) is None or known.live:
                await asyncio.sleep(0.01)
        return b""

    token = service.token(params_digest=request_digest.of_http("DELETE", PATH, b""))
    request = HttpRequest("DELETE", PATH, "", [("Authorization", f"Bearer {token}")])
    refused(await service.guard.check(request, slow), 401, "invalid_token", "the task is over")


async def test_an_action_that_needs_approval(service: Service) -> None:
    """An action that needs an approved task says so (RFC 9470), and is done with a token that says that it is."""
    request = {"method": "POST", "path": f"{PATH}/pay"}
    answer = refused(await service.bearer(service.token(), **request), 401, "insufficient_user_authentication")
    assert any(f'acr_values="{APPROVED}"' in value for _, value in answer.headers())
    header = {"alg": "ES256", "typ": "at+jwt", "kid": "k1"}
    for acr, good in ((APPROVED, True), ("urn:sojourn:acr:other", False), ([APPROVED], False), (True, False)):
        token = joined(header, json.dumps(service.claims(acr=acr)).encode(), KEY)
        assert good == isinstance(await service.bearer(token, **request), TaskToken)


async def test_what_a_refusal_asks_for(service: Service) -> None:
    """The challenge to a token that lacks an action names that action; more scope is not what the others lack."""
    token = service.token(grant=Grant.parse(AUDIENCE, ["ticket:read"]), params={"ticket": 42})
    for path, wanted in (("/admin/keys", ['scope="key:read"']), ("/tickets/43", []), ("/nowhere", [])):
        answer = refused(await service.bearer(token, path=path), 403, "insufficient_scope")
        challenges = [value for name, value in answer.headers() if name == "www-authenticate"]
        assert wanted == re.findall(r'scope="[^"]*"', challenges[0].partition("error_description=")[2])
        assert not any("scope=" in each for each in challenges[1:])


# --- single use ------------------------------------------------------------------------------------------------------


async def test_a_token_of_class_high_is_claimed_at_the_agent(service: Service) -> None:
    """Whether a token that is good once was used, its agent says; where nobody answers it is not good."""
    token = service.token(
        task=TaskClaim("t1", "triage-ticket", 5, "high"), params_digest=request_digest.of_http("DELETE", PATH, b"")
    )
    request = {"method": "DELETE", "path": PATH}
    service.agent.answers["ValidateToken"] = pb.ValidateTokenResponse(valid=True, kind=pb.TOKEN_KIND_TASK)
    assert isinstance(await service.bearer(token, **request), TaskToken)
    (asked,) = [message for method, message in service.agent.requests if method == "ValidateToken"]
    assert (True, request_digest.of_http("DELETE", PATH, b"")) == (asked.use, asked.params_digest)
    used = pb.ValidateTokenResponse(valid=False, code="used", reason="token is good once, and was used")
    service.agent.answers["ValidateToken"] = used
    refused(await service.bearer(token, **request), 401, "invalid_token", "was used")
    del service.agent.answers["ValidateToken"]
    refused(await service.bearer(token, **request), 503, "temporarily_unavailable")


# --- the answers -----------------------------------------------------------------------------------------------------


async def test_metadata(service: Service) -> None:
    """The guard answers for its resource by RFC 9728, to anyone, and to nothing but a GET of that place."""
    path = "/.well-known/oauth-protected-resource"
    answer = await service.send(path=path)
    assert isinstance(answer, ResourceMetadata)
    found = json.loads(answer.body())
    assert (AUDIENCE, [ISSUER]) == (found["resource"], found["authorization_servers"])
    assert ["key:read", "ticket:pay", "ticket:read"] == found["scopes_supported"]
    for request in ({"method": "POST"}, {"path": path + "/"}, {"path": path.upper()}, {"path": path + "/x"}):
        assert not isinstance(await service.send(**{"path": path, **request}), ResourceMetadata)
    silent = service.another_guard(metadata=False)
    refusal = await service.send(path=path, guard=silent)
    assert isinstance(refusal, Refusal)
    assert not any("resource_metadata" in value for _, value in refusal.headers())


async def test_whatever_fails_is_a_refusal(service: Service) -> None:
    """What breaks while a request is judged lets nobody through, and says nothing of what broke."""

    async def breaks() -> bytes:
        raise RuntimeError("secret")

    token = service.token(params_digest=request_digest.of_http("DELETE", PATH, b""))
    request = HttpRequest("DELETE", PATH, "", [("Authorization", f"Bearer {token}")])
    answer = refused(await service.guard.check(request, breaks), 503, "temporarily_unavailable")
    assert b"secret" not in answer.body()


async def test_content_that_comes_in_crumbs() -> None:
    """Content that is read to be judged is held once, however many messages it came in, and goes on as one."""
    crumbs = iter([{"type": "http.request", "body": b"x", "more_body": True}] * 5_000 + [{"type": "http.request"}])

    async def receive() -> Any:
        return next(crumbs, {"type": "http.disconnect"})

    content = Content(receive)
    assert b"x" * 5_000 == await content.read()
    expected = {"type": "http.request", "body": b"x" * 5_000, "more_body": False}
    assert [expected, {"type": "http.disconnect"}] == [await content.again(), await content.again()]
