"""The token endpoint (RFC 8693): what it refuses, and what is no good HTTP."""

import json
import time
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from harness.agent import AgentProcess
from harness.exchanges import (
    ACCESS_TOKEN,
    GRANT,
    JWT,
    form,
    http,
    part,
    post,
    unsigned,
    with_claims,
    with_header,
)
from harness.exchanging import FORM, SAML, refused, short_lived
from harness.looking import until
from harness.strangers import stranger
from harness.taskagent import ISSUER, PLACE_A, PLACE_B, THIRD_UID, TICKETS
from joserfc import jwt
from joserfc.jwk import ECKey
from sojourn import SyncClient

DEEP = "[" * 10_000 + "]" * 10_000


def details(**changes: Any) -> str:
    element = {"type": "triage-ticket", "actions": ["ticket:read"], "locations": [TICKETS], **changes}
    return json.dumps([{name: value for name, value in element.items() if value is not None}])


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"grant_type": None}, "invalid_request", "grant_type is missing"),
        ({"grant_type": "authorization_code"}, "unsupported_grant_type", f"grant_type is none of {GRANT}, *"),
        ({"grant_type": "client_credentials"}, "invalid_request", "parameter 'subject_token' is not supported here"),
        ({"subject_token": None}, "invalid_request", "subject_token is missing"),
        ({"subject_token": ""}, "invalid_request", "subject_token is missing"),
        ({"subject_token_type": None}, "invalid_request", "subject_token_type is not *"),
        ({"subject_token_type": ACCESS_TOKEN}, "invalid_request", "subject_token: token is not a task token: *"),
        ({"subject_token_type": SAML}, "invalid_request", "subject_token_type is not *"),
        ({"requested_token_type": SAML}, "invalid_request", "requested_token_type is not *"),
        ({"actor_token": "x"}, "invalid_request", "actor_token and actor_token_type go together"),
        ({"actor_token_type": ACCESS_TOKEN}, "invalid_request", "actor_token and actor_token_type go together"),
        ({"actor_token": ""}, "invalid_request", "parameter 'actor_token' has no value: *"),
        ({"actor_token": "x", "actor_token_type": ACCESS_TOKEN}, "invalid_request", "actor_token_type is not *"),
        ({"actor_token": "x", "actor_token_type": JWT}, "invalid_request", "actor_token: *"),
        ({"task_id": ""}, "invalid_request", "parameter 'task_id' has no value: *"),
        ({"assertion": "x"}, "invalid_request", "parameter 'assertion' is not supported here"),
        ({"Grant_Type": "x"}, "invalid_request", "parameter 'Grant_Type' is not supported here"),
        ({"subject_token": "garbage"}, "invalid_request", "subject_token: *"),
        ({"subject_token": "a.b.c"}, "invalid_request", "subject_token: *"),
        ({"subject_token": "." * 10_000}, "invalid_request", "subject_token: *"),
        ({"subject_token": "é☃.\x00.x"}, "invalid_request", "subject_token: *"),
        ({"authorization_details": details(type="no-such")}, "invalid_authorization_details",
         "there is no task type 'no-such'"),
        ({"authorization_details": details(actions=["ticket:close"])}, "invalid_authorization_details",
         f"task type 'triage-ticket' does not have action 'ticket:close' at '{TICKETS}'"),
        ({"authorization_details": details(locations=[PLACE_A]), "audience": PLACE_A}, "invalid_target",
         f"task type 'triage-ticket' does not reach '{PLACE_A}'"),
        ({"audience": f"{TICKETS}/"}, "invalid_target", "authorization_details must have exactly *"),
        ({"audience": TICKETS, "resource": PLACE_A}, "invalid_target",
         "audience and resource name several targets: a token has one audience"),
        ({"authorization_details": details(locations=[TICKETS, PLACE_A])}, "invalid_target",
         "authorization_details must have exactly *"),
        ({"authorization_details": None, "audience": None}, "invalid_target", "name the target: *"),
        ({"authorization_details": None, "audience": PLACE_B + "/x"}, "invalid_target", "no task type *"),
        ({"authorization_details": "{"}, "invalid_authorization_details", "authorization_details are not JSON"),
        ({"authorization_details": "{}"}, "invalid_authorization_details", "authorization_details are not a list *"),
        ({"authorization_details": "[]"}, "invalid_authorization_details", "authorization_details are not a list *"),
        ({"authorization_details": "[1]"}, "invalid_authorization_details", "authorization_details are not a list *"),
        ({"authorization_details": "NaN"}, "invalid_authorization_details", "authorization_details are not *"),
        ({"authorization_details": DEEP}, "invalid_authorization_details", "authorization_details are not *"),
        ({"authorization_details": details(privileges=["admin"])}, "invalid_authorization_details",
         "authorization_details have an unknown member 'privileges'"),
        ({"authorization_details": details(type=None)}, "invalid_authorization_details", "*more than one type, or none"),
        ({"authorization_details": details(type=["triage-ticket"])}, "invalid_authorization_details", "*"),
        ({"authorization_details": details(actions=None)}, "invalid_authorization_details", "*need actions and *"),
        ({"authorization_details": details(actions=[1])}, "invalid_authorization_details", "*need actions and *"),
        ({"authorization_details": details(actions="ticket:read")}, "invalid_authorization_details", "*need actions *"),
        ({"authorization_details": details(locations=None)}, "invalid_authorization_details", "*need actions and *"),
        ({"authorization_details": details(locations=["tickets"])}, "invalid_authorization_details",
         "*is not an absolute URI without fragment"),
        ({"scope": "ticket:close"}, "invalid_*", "scope names 'ticket:close', *"),
        ({"authorization_details": None, "scope": "ticket:close"}, "invalid_*", "scope names 'ticket:close', *"),
        ({"authorization_details": details(type="not-for-triage", actions=["doc:read"], locations=[PLACE_B]),
          "audience": PLACE_B}, "*", "*may *begin task type 'not-for-triage'"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_what_is_refused(
    shared: AgentProcess, subject: str, changes: dict[str, str | None], error: str, sentence: str
) -> None:
    """A request that breaks a rule is refused with the RFC's code and one sentence that names the rule."""
    status, code, said = refused(post(shared.socket, form(subject, **changes)))
    assert 400 == status
    assert fits(error, code), code
    assert fits(sentence, said), said
    assert "\n" not in said


def fits(pattern: str, text: str) -> bool:
    from fnmatch import fnmatchcase

    return pattern == text or ("*" in pattern and fnmatchcase(text, pattern))


@pytest.mark.parametrize("name", ["grant_type", "subject_token", "authorization_details", "scope"])
def test_a_parameter_twice(shared: AgentProcess, subject: str, name: str) -> None:
    """A parameter that is given twice is refused, even with the same value."""
    fields = [*form(subject, scope="ticket:read").items()]
    fields.append((name, dict(fields)[name]))
    with http(shared.socket) as client:
        body = str(httpx.QueryParams(fields))
        response = client.post("/token", content=body, headers={"Content-Type": FORM})
    assert (400, "invalid_request", f"parameter {name!r} is given twice") == refused(response)


def test_two_audiences(shared: AgentProcess, subject: str) -> None:
    """Two audiences are refused: a token has one."""
    with http(shared.socket) as client:
        body = str(httpx.QueryParams([*form(subject).items(), ("audience", PLACE_A)]))
        response = client.post("/token", content=body, headers={"Content-Type": FORM})
    assert "invalid_target" == refused(response)[1]


def own_key(subject: str, **claims: Any) -> str:
    """A well-made JWT-SVID, signed by a key that nobody knows."""
    key = ECKey.import_key(ec.generate_private_key(ec.SECP256R1()))
    header = {"alg": "ES256", "typ": "JWT", "kid": part(subject, 0)["kid"]}
    return jwt.encode(header, {**part(subject, 1), **claims}, key)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (unsigned, "*"),
        (lambda token: unsigned(token) + token.split(".")[2], "*"),
        (lambda token: with_header(token, alg="HS256"), "*"),
        (lambda token: with_header(token, kid="../../etc/passwd"), "*"),
        (lambda token: with_header(token, crit=["exp"]), "*"),
        (lambda token: with_claims(token, sub="spiffe://example.org/agent/admin"), "*signature*"),
        (lambda token: with_claims(token, exp=2**40), "*signature*"),
        (own_key, "*signature*"),
        (lambda token: own_key(token, sub="spiffe://other.example/agent/triage"), "*trust domain*"),
        (lambda token: token[:-8] + "AAAAAAAA", "*signature*"),
        (lambda token: token + "=", "*"),
        (lambda token: token.rpartition(".")[0] + ".", "*"),
    ],
    ids=["alg none", "alg none, signed", "HS256", "kid path", "crit", "other sub", "other exp", "own key",
         "foreign trust domain", "changed signature", "padding", "no signature"],
)  # fmt: skip
def test_forged_subject_tokens(shared: AgentProcess, subject: str, made: Any, sentence: str) -> None:
    """A subject token that this agent did not sign is refused, whatever it says."""
    status, code, said = refused(post(shared.socket, form(made(subject))))
    assert (400, "invalid_request") == (status, code)
    assert said.startswith("subject_token: ")
    assert fits(sentence, said), said


@pytest.mark.parametrize(
    "audience", [["https://elsewhere.example"], [ISSUER, "https://elsewhere.example"], [f"{ISSUER}/"], [ISSUER.upper()]]
)
def test_a_subject_token_for_another_audience(shared: AgentProcess, service: SyncClient, audience: list[str]) -> None:
    """A subject token that is not for the token endpoint, and for it alone, is refused."""
    status, code, said = refused(post(shared.socket, form(service.fetch_jwt_svid(audience).token)))
    assert (400, "invalid_request") == (status, code)
    assert said.startswith("subject_token: ")


@pytest.mark.forked
def test_an_expired_subject_token(shared: AgentProcess, service: SyncClient) -> None:
    """A subject token that has expired is refused, without any leeway."""
    with short_lived(shared):
        token = service.fetch_jwt_svid(ISSUER).token
    until(lambda: time.time() > part(token, 1)["exp"], "the subject token has expired")
    assert (400, "invalid_request", "subject_token: token has expired") == refused(post(shared.socket, form(token)))


@pytest.mark.root
def test_a_subject_token_of_somebody_else(shared: AgentProcess) -> None:
    """A JWT-SVID that was issued to another user is no use to the caller."""
    with stranger(shared.socket, THIRD_UID) as other:
        token = other.ask("jwt", audience=ISSUER)["token"]
    status, code, said = refused(post(shared.socket, form(token)))
    assert (400, "invalid_request") == (status, code)
    assert "subject_token: it is not the client's: the client has no such identity" == said


def test_an_access_token_as_subject_token(shared: AgentProcess, subject: str) -> None:
    """An access token is no subject token, whatever the request calls it."""
    token = post(shared.socket, form(subject)).json()["access_token"]
    status, code, said = refused(post(shared.socket, form(token)))
    assert (400, "invalid_request") == (status, code)
    assert said.startswith("subject_token: ")


# --- HTTP itself ----------------------------------------------------------------------------------------------------


def test_a_body_that_is_too_large(shared: AgentProcess, subject: str) -> None:
    """A body over 64 KiB is refused as the client's fault."""
    response = post(shared.socket, form(subject, scope="x" * 70_000))
    status, code, said = refused(response)
    assert (413, "invalid_request", "the request is larger than 65536 bytes") == (status, code, said)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b'{"grant_type": "x"}'),
        ("multipart/form-data; boundary=x", b"--x--"),
        ("", b"grant_type=x"),
        (f"{FORM}x", b"grant_type=x"),
        (FORM, b""),
        (FORM, b"grant_type"),
        (FORM, b"\xff=\xfe"),
        (FORM, b"grant_type=%ff"),
        (FORM, b"&".join(b"a%d=1" % number for number in range(200))),
    ],
    ids=["JSON", "multipart", "none", "alike", "empty", "no value", "bytes", "not UTF-8", "many"],
)
def test_bodies_that_are_no_form(shared: AgentProcess, kind: str, body: bytes) -> None:
    """A body that is no form is refused as such."""
    with http(shared.socket) as client:
        response = client.post("/token", content=body, headers={"Content-Type": kind} if kind else {})
    assert (400, "invalid_request") == refused(response)[:2]


def test_the_content_type_may_name_a_charset(shared: AgentProcess, subject: str) -> None:
    """A content type with a charset, or in other letters, is a form all the same (RFC 9110, 8.3.1)."""
    with http(shared.socket) as client:
        for kind in (f"{FORM}; charset=UTF-8", FORM.title()):
            body = str(httpx.QueryParams(form(subject)))
            assert 200 == client.post("/token", content=body, headers={"Content-Type": kind}).status_code, kind


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/token", 405),
        ("PUT", "/token", 405),
        ("POST", "/keys", 405),
        ("GET", "/", 404),
        ("GET", "/token/", 404),
        ("GET", "//token", 404),
        ("GET", "/.well-known/", 404),
        ("POST", "/TOKEN", 404),
    ],
)
def test_other_methods_and_paths(shared: AgentProcess, method: str, path: str, status: int) -> None:
    """What the HTTP side does not have it refuses, by method or by path."""
    with http(shared.socket) as client:
        assert status == client.request(method, f"http://localhost{path}").status_code
