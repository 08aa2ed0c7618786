"""The token endpoint (RFC 8693), as standard HTTP clients see it."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from harness.agent import AgentProcess
from harness.exchanges import (
    ACCESS_TOKEN,
    DETAILS,
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
from harness.looking import until
from harness.program import Program
from harness.strangers import stranger
from harness.taskagent import ISSUER, PLACE_A, PLACE_B, THIRD_UID, TICKETS, TRIAGE
from harness.taskcalls import Feed
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from sojourn import SyncClient

FORM = "application/x-www-form-urlencoded"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SAML = "urn:ietf:params:oauth:token-type:saml2"


@pytest.fixture(scope="module")
def service(shared: AgentProcess) -> Iterator[SyncClient]:
    with SyncClient(shared.socket) as client:
        yield client


@pytest.fixture(scope="module")
def subject(service: SyncClient) -> str:
    """This process's own JWT-SVID for the token endpoint."""
    return service.fetch_jwt_svid(ISSUER).token


@pytest.fixture
def feed(shared: AgentProcess) -> Iterator[Feed]:
    with Feed(shared.socket, [TICKETS]) as opened:
        opened.hear("snapshot")
        yield opened


def refused(response: httpx.Response) -> tuple[int, str, str]:
    """Status, RFC code and sentence of a refusal; it must be well-formed (RFC 6749, 5.2) and must not be cached."""
    assert "no-store" == response.headers["cache-control"]
    assert "application/json" == response.headers["content-type"]
    body = response.json()
    assert {"error", "error_description", "code"} <= set(body)
    assert "access_token" not in body
    return response.status_code, body["error"], body["error_description"]


# --- what is given --------------------------------------------------------------------------------------------------


def check_answer(body: dict[str, Any], subject: str) -> None:
    """The shape of a success, and of the token in it."""
    token = body["access_token"]
    header, claims = part(token, 0), part(token, 1)
    details = json.loads(DETAILS)
    assert {
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "scope": "ticket:read",
        "authorization_details": details,
        "task_id": claims["task"]["id"],
    } == {name: value for name, value in body.items() if name not in {"access_token", "expires_in"}}
    assert 1 <= body["expires_in"] <= 60
    assert ("at+jwt", "ES256") == (header["typ"], header["alg"])
    assert {"typ", "alg", "kid"} == set(header)
    assert (ISSUER, TRIAGE, TRIAGE, TICKETS, details) == (
        claims["iss"],
        claims["sub"],
        claims["client_id"],
        claims["aud"],
        claims["authorization_details"],
    )
    assert ({"id", "type", "ver", "class"}, "triage-ticket") == (set(claims["task"]), claims["task"]["type"])
    assert claims["jti"]
    assert claims["exp"] - claims["iat"] <= 60
    assert claims["exp"] <= part(subject, 1)["exp"]


def test_an_exchange_over_httpx(shared: AgentProcess, service: SyncClient, subject: str) -> None:
    """A JWT-SVID is exchanged for a token of the documented shape, which is then valid for its action."""
    response = post(shared.socket, form(subject))
    assert (200, "no-store") == (response.status_code, response.headers["cache-control"])
    check_answer(response.json(), subject)
    assert service.validate_token(response.json()["access_token"], TICKETS, "ticket:read").valid


def test_every_token_is_another(shared: AgentProcess, subject: str) -> None:
    """Two exchanges of one subject token give tokens with different IDs, each of a task of its own."""
    one, two = (part(post(shared.socket, form(subject)).json()["access_token"], 1) for _ in range(2))
    assert one["jti"] != two["jti"]
    assert one["task"]["id"] != two["task"]["id"]


def curl(shared: AgentProcess, subject: str) -> list[str]:
    fields = [each for name, value in form(subject).items() for each in ("--data-urlencode", f"{name}={value}")]
    return ["curl", "-sS", "--fail-with-body", "--unix-socket", shared.socket, "http://localhost/token", *fields]


def test_an_exchange_with_curl(shared: AgentProcess, service: SyncClient, subject: str) -> None:
    """A token that curl fetched lives on with the process that ran curl, once curl has returned 0."""
    done = subprocess.run(curl(shared, subject), capture_output=True, text=True, timeout=15)
    assert (0, "") == (done.returncode, done.stderr)
    check_answer(json.loads(done.stdout), subject)
    token = json.loads(done.stdout)["access_token"]
    until(lambda: service.validate_token(token, TICKETS, "ticket:read").valid, "this process has taken over")
    task = shared.json("task", "show", part(token, 1)["task"]["id"])
    assert ("active", os.getpid()) == (task["state"], task["holder_pid"])


def test_what_curl_fetched_ends_with_the_shell(
    shared: AgentProcess, service: SyncClient, feed: Feed, subject: str, tmp_path: Path
) -> None:
    """A token that curl fetched for a shell is dead when the shell is killed."""
    config = tmp_path / "curl"
    config.write_text("\n".join(f'data-urlencode = "{name}={escaped(value)}"' for name, value in form(subject).items()))
    script = f"curl -sS --unix-socket {shared.socket} -K {config} http://localhost/token; echo; read line"
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        token = json.loads(shell.stdout.readline())["access_token"]
        task = part(token, 1)["task"]["id"]
        until(lambda: shared.json("task", "show", task)["holder_pid"] == shell.pid, "the shell has taken over")
        assert service.validate_token(token, TICKETS).valid
        shell.kill()
        feed.delta(task, live=False)
    assert "task_over" == service.validate_token(token, TICKETS).code


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def workload(shared: AgentProcess, clients: Path, *more: str) -> Program:
    arguments = ["--socket", shared.socket, "--audience", ISSUER, "--resource", TICKETS, "--type", "triage-ticket"]
    script = str(clients / "python" / "exchange.py")
    return Program([sys.executable, script, *arguments, "--actions", "ticket:read", *more], shared.environment)


def test_the_workload_is_killed(shared: AgentProcess, service: SyncClient, feed: Feed, clients: Path) -> None:
    """The token of an independent client lives as long as its process, and is dead when that is killed."""
    with workload(shared, clients, "--hold") as program:
        answer = program.hear()
        assert 200 == answer["status"]
        token = answer["body"]["access_token"]
        assert service.validate_token(token, TICKETS, "ticket:read").valid
        os.kill(program.pid, signal.SIGKILL)
        delta = feed.delta(part(token, 1)["task"]["id"], live=False)
        assert "revoked: holder_exited" == delta.reason
    verdict = service.validate_token(token, TICKETS, "ticket:read")
    assert ("task_over", "the task is over: revoked, holder_exited") == (verdict.code, verdict.reason)


@pytest.mark.parametrize(
    ("ending", "over"),
    [("sys.exit(0)", False), ("sys.exit(1)", True), ("os.kill(os.getpid(), signal.SIGKILL)", True),
     ("os.kill(os.getpid(), signal.SIGTERM)", True)],
    ids=["returns 0", "returns 1", "SIGKILL", "SIGTERM"],
)  # fmt: skip
def test_how_a_helper_ends(shared: AgentProcess, service: SyncClient, subject: str, ending: str, over: bool) -> None:
    """Only a helper that returns 0 hands its task to the process that ran it."""
    script = (
        "import httpx, json, os, signal, sys\n"
        "client = httpx.Client(transport=httpx.HTTPTransport(uds=sys.argv[1]))\n"
        "print(client.post('http://localhost/token', data=json.loads(sys.argv[2])).json()['access_token'], flush=True)\n"
        + ending
    )
    done = subprocess.run(
        [sys.executable, "-c", script, shared.socket, json.dumps(form(subject))],
        stdout=subprocess.PIPE, text=True, timeout=15,
    )  # fmt: skip
    token = done.stdout.strip()
    task = part(token, 1)["task"]["id"]
    shown = until(lambda: decided(shared.json("task", "show", task)), "it is decided what becomes of the task")
    assert ("revoked" if over else "active") == shown["state"]
    assert over != service.validate_token(token, TICKETS).valid


def decided(task: dict[str, Any]) -> dict[str, Any] | None:
    """The task once it has another holder, or none."""
    return task if task["state"] == "revoked" or task["holder_pid"] == os.getpid() else None


@pytest.mark.parametrize(
    "changes",
    [
        {"authorization_details": None},
        {"audience": None},
        {"audience": None, "resource": TICKETS},
        {"resource": TICKETS},
        {"requested_token_type": ACCESS_TOKEN},
        {"scope": "ticket:read"},
        {"authorization_details": None, "scope": "ticket:read"},
        {"client_id": TRIAGE},
    ],
    ids=lambda changes: " ".join(f"{name}={'-' if value is None else value}" for name, value in changes.items()),
)
def test_other_ways_to_say_it(shared: AgentProcess, subject: str, changes: dict[str, str | None]) -> None:
    """The target and the actions may be named by any of the standard parameters, with the same result."""
    response = post(shared.socket, form(subject, **changes))
    assert 200 == response.status_code, response.text
    check_answer(response.json(), subject)


@pytest.mark.parametrize("audience", [ISSUER, f"{ISSUER}/token", "spiffe://example.org"])
def test_names_of_the_endpoint(shared: AgentProcess, service: SyncClient, audience: str) -> None:
    """A subject token may be for any of the endpoint's documented names."""
    assert 200 == post(shared.socket, form(service.fetch_jwt_svid(audience).token)).status_code


def test_a_token_of_a_task_that_lives(shared: AgentProcess, service: SyncClient, subject: str) -> None:
    """With `task_id` the token is one of a live task of the caller's, and dies with that task."""
    with service.task("triage-ticket") as task:
        body = post(shared.socket, form(subject, task_id=task.id)).json()
        assert task.id == part(body["access_token"], 1)["task"]["id"] == body["task_id"]
        assert service.validate_token(body["access_token"], TICKETS).valid
    assert "task_over" == service.validate_token(body["access_token"], TICKETS).code
    over = refused(post(shared.socket, form(subject, task_id=task.id)))
    assert (400, "invalid_grant", "the task is over: completed, success") == over
    unknown = refused(post(shared.socket, form(subject, task_id="tsk_unknown")))
    assert (400, "invalid_grant", "there is no such task") == unknown


def test_a_token_ends_with_the_subject_token(shared: AgentProcess) -> None:
    """A token ends no later than the subject token that it was exchanged for."""
    with SyncClient(shared.socket) as client, short_lived(shared):
        subject = client.fetch_jwt_svid(ISSUER, f"{TRIAGE}").token
        left = part(subject, 1)["exp"] - time.time()
        body = post(shared.socket, form(subject)).json()
        claims = part(body["access_token"], 1)
        assert left <= 10
        assert claims["exp"] <= part(subject, 1)["exp"]
        assert body["expires_in"] <= 10


# --- what is refused ------------------------------------------------------------------------------------------------


class short_lived:
    """While it lasts, this user's JWT-SVIDs live for ten seconds."""

    def __init__(self, agent: AgentProcess) -> None:
        self._agent = agent
        found = agent.json("entry", "list", "--selector", f"unix:uid:{os.getuid()}")["entries"]
        self._entry = next(entry["id"] for entry in found if entry["spiffe_id"] == TRIAGE)

    def __enter__(self) -> None:
        self._agent.run("entry", "update", self._entry, "--jwt-svid-ttl", "10s")

    def __exit__(self, *_: object) -> None:
        self._agent.run("entry", "update", self._entry, "--jwt-svid-ttl", "5m")


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


def test_one_connection_serves_many_requests(shared: AgentProcess, subject: str) -> None:
    """A connection goes on after a refusal."""
    with http(shared.socket) as client:
        statuses = [
            client.post("/token", data=fields).status_code
            for fields in (form("garbage"), form(subject), {}, form(subject))
        ]
    assert [400, 200, 400, 200] == statuses


# --- keys and discovery ---------------------------------------------------------------------------------------------


def test_the_keys_verify_both_kinds_of_token(shared: AgentProcess, subject: str) -> None:
    """The published JWK Set verifies a task token and a JWT-SVID with a library that is not ours."""
    token = post(shared.socket, form(subject)).json()["access_token"]
    with http(shared.socket) as client:
        response = client.get("/keys")
    assert (200, "application/json") == (response.status_code, response.headers["content-type"])
    keys = KeySet.import_key_set(response.json())
    for each, audience in ((token, TICKETS), (subject, [ISSUER])):
        decoded = jwt.decode(each, keys, algorithms=["ES256"])
        assert (TRIAGE, audience) == (decoded.claims["sub"], decoded.claims["aud"])
        assert part(each, 0)["kid"] in {key["kid"] for key in response.json()["keys"]}
    for key in response.json()["keys"]:
        assert ("EC", "P-256", "sig", "ES256") == (key["kty"], key["crv"], key["use"], key["alg"])
        assert "d" not in key
        assert 32 == len(base64.urlsafe_b64decode(key["x"] + "="))


@pytest.mark.parametrize("name", ["openid-configuration", "oauth-authorization-server"])
def test_discovery(shared: AgentProcess, name: str) -> None:
    """Both discovery documents say what the token endpoint really does."""
    with http(shared.socket) as client:
        response = client.get(f"/.well-known/{name}")
    assert (200, "application/json") == (response.status_code, response.headers["content-type"])
    document = response.json()
    assert (ISSUER, f"{ISSUER}/token", f"{ISSUER}/keys", [GRANT, "client_credentials", JWT_BEARER], ["ES256"]) == (
        document["issuer"],
        document["token_endpoint"],
        document["jwks_uri"],
        document["grant_types_supported"],
        document["id_token_signing_alg_values_supported"],
    )
    assert "triage-ticket" in document["authorization_details_types_supported"]
    assert not {"authorization_endpoint", "registration_endpoint"} & set(document)
