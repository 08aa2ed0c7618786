"""The token endpoint (RFC 8693), as standard HTTP clients see it."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.exchanges import (
    ACCESS_TOKEN,
    DETAILS,
    GRANT,
    form,
    http,
    part,
    post,
)
from harness.exchanging import refused, short_lived
from harness.looking import until
from harness.program import Program
from harness.taskagent import ISSUER, TICKETS, TRIAGE
from harness.taskcalls import Feed
from joserfc import jwt
from joserfc.jwk import KeySet
from sojourn import SyncClient
from sojourn.tasktoken.end_reasons import ASKER_ENDED

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


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
    assert ({"id", "type", "ver", "class", "at"}, "triage-ticket") == (set(claims["task"]), claims["task"]["type"])
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


@pytest.mark.curl
def test_an_exchange_with_curl(shared: AgentProcess, service: SyncClient, subject: str) -> None:
    """A token that curl fetched lives on with the process that ran curl, once curl has returned 0."""
    done = subprocess.run(curl(shared, subject), capture_output=True, text=True, timeout=15)
    assert (0, "") == (done.returncode, done.stderr)
    check_answer(json.loads(done.stdout), subject)
    token = json.loads(done.stdout)["access_token"]
    until(lambda: service.validate_token(token, TICKETS, "ticket:read").valid, "this process has taken over")
    task = shared.json("task", "show", part(token, 1)["task"]["id"])
    assert ("active", os.getpid()) == (task["state"], task["holder_pid"])


@pytest.mark.curl
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


@pytest.mark.forked
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
    said = f"the task is over: revoked, holder_exited ({ASKER_ENDED})"
    assert ("task_over", said) == (verdict.code, verdict.reason)


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
    absent = {"authorization_endpoint", "registration_endpoint", "authorization_grant_profiles_supported"}
    assert not absent & set(document)
