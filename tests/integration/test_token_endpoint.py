"""The token endpoint with a real agent: proofs, approvals, forms, errors and their records."""

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from harness.exchangers import NUMBERS, SECRET, Chain, by_itself, chain, details, with_jwt
from harness.exchanges import http, part, post
from harness.looking import until
from harness.taskagent import ISSUER, OTHER_UID, TICKETS, TRIAGE
from sojourn import SyncClient
from sojourn.jose.jws import SigningKey
from sojourn.tasktoken import dpop

READ = details("handed", "ticket:read")
FORM = "application/x-www-form-urlencoded"
KEY = SigningKey.generate("mine")


@pytest.fixture(scope="module")
def here() -> Iterator[Chain]:
    with chain() as made:
        yield made


def proof(url: str = f"{ISSUER}/token", nonce: str | None = None, key: SigningKey = KEY) -> str:
    return dpop.make(key, method="POST", url=url, now=datetime.now(UTC), nonce=nonce)


def ask(here: Chain, form: dict[str, str], headers: Any = None) -> httpx.Response:
    with http(here.agent.socket) as client:
        return client.post("/token", data=form, headers=headers)


def nonce_of(here: Chain) -> str:
    """The agent's DPoP nonce: it asks for one at the latest when a proof has one that is not its."""
    response = ask(here, by_itself(authorization_details=READ), {"DPoP": proof(nonce="x" * 32)})
    assert (400, "use_dpop_nonce") == (response.status_code, response.json()["error"])
    return response.headers["dpop-nonce"]


@pytest.mark.root
@pytest.mark.parametrize("url", [f"{ISSUER}/token", "http://localhost/token"])
def test_a_proof_binds_the_token(here: Chain, url: str) -> None:
    """A request with a DPoP proof gets a token for its key, of type DPoP; the proof is good once."""
    header = {"DPoP": proof(url, nonce_of(here))}
    body = ask(here, by_itself(authorization_details=READ), header).json()
    assert ("DPoP", {"jkt": KEY.public.thumbprint}) == (body["token_type"], part(body["access_token"], 1)["cnf"])
    again = ask(here, by_itself(authorization_details=READ), header)
    assert (400, "invalid_dpop_proof") == (again.status_code, again.json()["error"])


@pytest.mark.root
def test_proofs_that_are_not_good(here: Chain) -> None:
    """Two proofs, one for another URL or method, and one that is none are refused; no token is given unbound instead."""
    good = proof(nonce=nonce_of(here))
    elsewhere = proof("https://other.example.org/token", nonce_of(here))
    for headers in (
        [("DPoP", good), ("DPoP", proof(nonce=nonce_of(here)))],
        [("DPoP", elsewhere)],
        [("DPoP", "x")],
        [("DPoP", "")],
    ):
        refused = ask(here, by_itself(authorization_details=READ), headers)
        assert (400, "invalid_dpop_proof") == (refused.status_code, refused.json()["error"])


@pytest.mark.root
def test_params_in_details(here: Chain) -> None:
    """A stock client begins a task with parameters by its authorization_details, and the token carries them."""
    text = details("numbered", "ticket:read", at=NUMBERS, params={"ticket": 42})
    token = post(here.agent.socket, by_itself(authorization_details=text)).json()["access_token"]
    assert {"ticket": 42} == part(token, 1)["authorization_details"][0]["params"]
    refused = post(here.agent.socket, by_itself(resource=NUMBERS))
    assert (400, "parameter 'ticket' is required") == (refused.status_code, refused.json()["error_description"])


ASK = by_itself(authorization_details=details("asked", "secret:read", at=SECRET))


def waiting(here: Chain) -> dict[str, Any]:
    status, body = here.post(here.tickets, ASK)
    assert (400, "authorization_pending", 5) == (status, body["error"], body["interval"])
    assert body["approval"]["id"] in body["error_description"]
    return body


@pytest.mark.root
def test_an_approval(here: Chain) -> None:
    """A request that someone must agree to is pending; repeated with task_id it gets its token once they have."""
    body = waiting(here)
    again = {**ASK, "task_id": body["task_id"]}
    assert "authorization_pending" == here.post(here.tickets, again)[1]["error"]
    here.agent.run("approval", "approve", body["approval"]["id"])
    status, given = here.post(here.tickets, again)
    assert 200 == status, given
    claims = part(given["access_token"], 1)
    assert (SECRET, body["task_id"]) == (claims["aud"], claims["task"]["id"])
    with SyncClient(here.agent.socket) as client:
        assert client.validate_token(given["access_token"], SECRET, "secret:read").valid


@pytest.mark.root
def test_an_approval_that_is_denied(here: Chain) -> None:
    """A request that was denied is access_denied from then on."""
    body = waiting(here)
    here.agent.run("approval", "deny", body["approval"]["id"])
    status, refused = here.post(here.tickets, {**ASK, "task_id": body["task_id"]})
    assert (400, "access_denied") == (status, refused["error"])


@pytest.mark.root
@pytest.mark.curl
def test_an_approval_over_curl(here: Chain) -> None:
    """The task of a request that a helper made waits with the process that ran the helper, for any other of its helpers."""
    fields = " ".join(f"--data-urlencode '{name}={value}'" for name, value in ASK.items())
    curl = f"curl -sS --unix-socket {here.agent.socket} http://localhost/token {fields}"
    script = f'{curl}; echo; read task; {curl} --data-urlencode "task_id=$task"; echo; read task'
    with subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, user=OTHER_UID, cwd="/"
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        body = json.loads(shell.stdout.readline())
        here.agent.run("approval", "approve", body["approval"]["id"])
        shell.stdin.write(body["task_id"] + "\n")
        shell.stdin.flush()
        assert "access_token" in json.loads(shell.stdout.readline())
        shell.kill()


@pytest.mark.forked
@pytest.mark.root
@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        ("", FORM, 400), ("&&&", FORM, 400), ("grant_type", FORM, 400), ("=&=", FORM, 400),
        ("grant_type=client_credentials&grant_type=client_credentials", FORM, 400),
        ("grant_type=client_credentials&resource=%zz", FORM, 400), ("grant_type=%ff%fe", FORM, 400),
        ("grant_type=client_credentials", "application/json", 400), ("grant_type=client_credentials", "", 400),
        ("grant_type=client_credentials", FORM + "; charset=utf-16", 400), ("a=b&" * 70, FORM, 400),
        ("grant_type=client_credentials&scope=" + "x" * 70_000, FORM, 413), ("\x00" * 100, FORM, 400),
        ("grant_type=client_credentials&subject_token=", FORM, 400),
        ("grant_type=client_credentials&resource=%00", FORM, 400),
        ("grant_type=client_credentials\n", FORM, 400), ("grant_type=é".encode("latin-1"), FORM, 400),
    ],
    ids=lambda value: repr(value)[:50],
)  # fmt: skip
def test_forms_that_are_none(here: Chain, content: Any, kind: str, status: int) -> None:
    """A body that is no form, or says something twice, is refused in one sentence with a decision's ID."""
    with http(here.agent.socket) as client:
        answer = client.post("/token", content=content, headers={"Content-Type": kind})
    body = answer.json()
    assert (status, "no-store") == (answer.status_code, answer.headers["cache-control"])
    assert {"error", "error_description", "code", "decision_id"} <= set(body)
    assert "\n" not in body["error_description"]
    assert 32 == len(body["decision_id"])


@pytest.mark.root
def test_the_record_of_a_refusal(here: Chain) -> None:
    """A refusal and its record in the audit have the same decision_id; no token is in the record."""
    with SyncClient(here.agent.socket) as client:
        svid = client.fetch_jwt_svid(ISSUER, TRIAGE).token
    body = post(here.agent.socket, with_jwt(svid, resource="https://nobody.example.org")).json()

    def found() -> str:
        text = here.agent.run("audit", "tail", "--lines", "50", "--output", "json").stdout
        return text if body["decision_id"] in text else ""

    assert svid.split(".")[2] not in until(found, "the refusal is on record")


@pytest.mark.root
def test_basic_and_its_challenge(here: Chain) -> None:
    """A client that tries HTTP Basic gets 401 with a challenge of that scheme, and is told what to do instead."""
    refused = ask(here, by_itself(resource=TICKETS), {"Authorization": "Basic eDp5"})
    assert (401, "invalid_client") == (refused.status_code, refused.json()["error"])
    assert refused.headers["www-authenticate"].startswith("Basic realm=")
    assert "client_assertion" in refused.json()["error_description"]


@pytest.mark.root
def test_used_assertions_outlive_the_agent(here: Chain) -> None:
    """An assertion that was used is not good again after kill -9, nor when the tasks of the first use are over."""
    with SyncClient(here.agent.socket) as client:
        svid = client.fetch_jwt_svid(ISSUER, TRIAGE).token
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": svid, "authorization_details": READ,
    }  # fmt: skip
    assert 200 == post(here.agent.socket, form).status_code
    here.agent.kill()
    here.agent.start()
    refused = post(here.agent.socket, form)
    assert (400, "invalid_grant") == (refused.status_code, refused.json()["error"])
