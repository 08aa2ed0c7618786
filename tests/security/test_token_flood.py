"""Abuse of the token service by those who are nobody to it, or are only one of many: what each may cost the others."""

import base64
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from urllib.parse import urlencode

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.task_types import task_type
from harness.agent import AgentProcess
from harness.exchanges import DETAILS, http
from harness.looking import until
from harness.taskagent import ISSUER, STRANGER_UID, TICKETS, TRIAGE, inner_failures, make_agent
from harness.webclients import web
from sojourn.endpoints.http1 import oauth_responses
from sojourn.endpoints.http1.oauth_responses import FORM
from sojourn.endpoints.http1.scope import HELD, SENDER
from sojourn.endpoints.oauth.metadata import MetadataDocuments
from sojourn.errors import InvalidToken, LimitExceeded
from sojourn.errors.oauth import InvalidProof
from sojourn.jose.jws import SigningKey, parse_unverified
from sojourn.limits import REFUSALS_LOGGED_PER_SECOND
from sojourn.oauth.client_auth import ClientSender
from sojourn.oauth.resource_servers import Audiences
from sojourn.policy.task_types import TypeSet
from sojourn.quota.usage import Held
from sojourn.settings.tables import ListenConfig
from sojourn.spiffe.ids import TrustDomain
from sojourn.tasktoken import dpop
from starlette.requests import Request

pytestmark = pytest.mark.full

ASKED = {"grant_type": "client_credentials", "resource": TICKETS, "authorization_details": DETAILS}
CONFIG = '\n[listen]\nhttps = "127.0.0.1:0"\n'


@pytest.fixture(scope="module")
def shared() -> Iterator[AgentProcess]:
    """An agent on which this user is /agent/triage."""
    with make_agent(extra=CONFIG) as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        agent.register("/service", f"unix:uid:{STRANGER_UID}")
        yield agent
        assert [] == inner_failures(agent)


# --- proofs of possession --------------------------------------------------------------------------------------------


def _proof(nonce: str | None = None) -> str:
    key = SigningKey.from_private("any", ec.generate_private_key(ec.SECP256R1()))
    return dpop.make(key, method="POST", url=f"{ISSUER}/token", now=datetime.now(UTC), nonce=nonce)


def test_nobody_fills_what_is_remembered_of_proofs(shared: AgentProcess) -> None:
    """A DPoP proof of a client that did not authenticate is neither used up nor remembered, nor is a nonce told: who the
    client is comes first.
    """
    with web(shared) as nobody, web(shared, TRIAGE) as client:
        said = client.post("/token", data=ASKED, headers={"DPoP": _proof()})
        proof = _proof(said.headers.get("dpop-nonce"))
        for _ in range(2):
            refused = nobody.post("/token", data=ASKED, headers={"DPoP": proof})
            assert (401, "invalid_client") == (refused.status_code, refused.json()["error"])
            assert "dpop-nonce" not in refused.headers
        answer = client.post("/token", data=ASKED, headers={"DPoP": proof})
        assert (200, "DPoP") == (answer.status_code, answer.json().get("token_type")), answer.text
        again = client.post("/token", data=ASKED, headers={"DPoP": proof})
    assert (400, "invalid_dpop_proof") == (again.status_code, again.json()["error"])


@pytest.mark.parametrize(("bits", "exponent_bits"), [(2048, 2047), (3072, 3071), (3072, 256), (4096, 64)])
def test_keys_that_are_dear_to_check(bits: int, exponent_bits: int) -> None:
    """An RSA key whose exponent makes a signature a hundred times as dear to check is refused unchecked: whoever sends a
    proof makes its key.
    """
    modulus = secrets.randbits(bits) | 1 | 1 << (bits - 1)
    exponent = secrets.randbits(exponent_bits) | 1 | 1 << (exponent_bits - 1)
    jwk = {"kty": "RSA", "n": _number(modulus), "e": _number(exponent)}
    header = _segment({"alg": "RS256", "typ": "dpop+jwt", "jwk": jwk})
    claims = {"jti": "1", "htm": "POST", "htu": f"{ISSUER}/token", "iat": int(datetime.now(UTC).timestamp())}
    text = f"{header}.{_segment(claims)}.{_number(modulus >> 1)}"
    with pytest.raises(InvalidProof) as caught:
        dpop.read(text, method="POST", url=f"{ISSUER}/token", now=datetime.now(UTC))
    assert "bad_signature" != caught.value.reason_code


def _number(value: int) -> str:
    return _encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _segment(value: object) -> str:
    return _encoded(json.dumps(value, separators=(",", ":")).encode())


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


# --- the log and the journal -----------------------------------------------------------------------------------------


def _logged(agent: AgentProcess, event: str) -> int:
    return sum(line["event"] == event for line in agent.log_lines())


def _a_new_second() -> None:
    """Wait for what the agent counts as the next second: what another test was refused in this one is logged no more."""
    time.sleep(1 - time.monotonic() % 1)


def test_refusals_do_not_fill_the_log(shared: AgentProcess) -> None:
    """Of one user's refused requests so many a second are logged, and no more."""
    _a_new_second()
    before, began = _logged(shared, "http_refused"), time.monotonic()
    with http(shared.socket) as client:
        for _ in range(300):
            assert 400 == client.post("/token", data={"grant_type": "client_credentials"}).status_code
    seconds = time.monotonic() - began
    logged = _logged(shared, "http_refused") - before
    assert 0 < logged <= REFUSALS_LOGGED_PER_SECOND * (int(seconds) + 2)


def test_malformed_requests_do_not_fill_the_log(shared: AgentProcess) -> None:
    """What is no HTTP, or asks for another protocol, does not fill the log; and each is answered all the same."""
    began = time.monotonic()
    for _ in range(200):
        assert b" 400 " in _said(shared, b"NONSENSE\r\n\r\n")
    upgrade = b"GET /keys HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    for _ in range(100):
        assert b" 200 " in _said(shared, upgrade)
    seconds = time.monotonic() - began
    until(lambda: _logged(shared, "http_malformed"), "a line in the log")
    assert _logged(shared, "http_malformed") <= REFUSALS_LOGGED_PER_SECOND * (int(seconds) + 2)
    assert 0 == _logged(shared, "library_message")


def test_requests_that_break_off_do_not_fill_the_log(shared: AgentProcess) -> None:
    """Whoever goes before his request is whole is logged as any refusal is, so often and no more: nothing has failed."""
    _a_new_second()
    before, began = _logged(shared, "http_refused"), time.monotonic()
    head = f"POST /token HTTP/1.1\r\nhost: x\r\ncontent-type: {FORM}\r\ncontent-length: 10\r\n\r\na="
    for _ in range(200):
        with socket.socket(socket.AF_UNIX) as plain:
            plain.connect(shared.socket)
            plain.sendall(head.encode())
            plain.shutdown(socket.SHUT_WR)
            plain.settimeout(15)
            assert not plain.recv(100).startswith(b"HTTP/1.1 2")
    until(lambda: _logged(shared, "http_refused") > before, "a line in the log")
    seconds = time.monotonic() - began
    assert _logged(shared, "http_refused") - before <= REFUSALS_LOGGED_PER_SECOND * (int(seconds) + 2)
    assert 0 == _logged(shared, "http_failed")


async def test_contents_that_are_held() -> None:
    """The contents of one sender's requests that are under way are held up to a limit, all together; those that have
    been answered count no more, nor do others'.
    """
    held = Held(25)

    def request(who: str) -> Request:
        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b"x" * 10, "more_body": False}

        return Request({"type": "http", SENDER: SimpleNamespace(who=who), HELD: held}, receive)

    with oauth_responses.holding(first := request("one")), oauth_responses.holding(second := request("one")):
        assert [b"x" * 10] * 2 == [await oauth_responses.content_of(each, 10) for each in (first, second)]
        with oauth_responses.holding(third := request("one")), pytest.raises(LimitExceeded):
            await oauth_responses.content_of(third, 10)
        with oauth_responses.holding(others := request("other")):
            assert b"x" * 10 == await oauth_responses.content_of(others, 10)
        assert {"one": 20} == held
    assert {} == held


def _said(agent: AgentProcess, request: bytes) -> bytes:
    """The first of an answer on a connection of its own."""
    with socket.socket(socket.AF_UNIX) as plain:
        plain.settimeout(15)
        plain.connect(agent.socket)
        plain.sendall(request)
        return plain.recv(100)


def test_nobody_is_recorded_as_a_workload(shared: AgentProcess) -> None:
    """A record of a refusal to somebody unknown says from where it came, and names no SPIFFE ID."""
    with web(shared) as nobody:
        refused = nobody.post("/token", data=ASKED)
    assert 401 == refused.status_code
    named = refused.json()["decision_id"]

    def found() -> list[dict[str, str]]:
        records = shared.json("audit", "tail", "--lines", "200")["records"]
        return [each["fields"] for each in records if each["fields"].get("decision_id") == named]

    until(found, "the record")
    (fields,) = found()
    assert ("127.0.0.1", None) == (fields["address"], fields.get("spiffe_id"))


# --- turns -----------------------------------------------------------------------------------------------------------

FLOOD = """
import asyncio, os, sys
os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))

async def ask(form):
    reader, writer = await asyncio.open_unix_connection(sys.argv[1])
    head = f"POST /token HTTP/1.1\\r\\nhost: x\\r\\ncontent-type: application/x-www-form-urlencoded\\r\\n"
    while True:
        writer.write(f"{head}content-length: {len(form)}\\r\\n\\r\\n{form}".encode())
        answer = await reader.readuntil(b"\\r\\n\\r\\n")
        (length,) = (line for line in answer.split(b"\\r\\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.partition(b":")[2]))
        asked.append(1)
        if len(asked) == 100:
            print("flooding", flush=True)

async def main():
    await asyncio.gather(*(ask(sys.argv[3]) for _ in range(600)))

asked = []
asyncio.run(main())
"""


@pytest.mark.root
def test_one_user_s_requests_do_not_make_others_wait() -> None:
    """While one user asks for tokens on 600 connections at once, another's request does not wait for all of those."""
    with make_agent() as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        agent.register("/agent/triage", f"unix:uid:{STRANGER_UID}")
        form = urlencode(ASKED)
        with http(agent.socket) as client:
            flood = subprocess.Popen(
                [sys.executable, "-c", FLOOD, agent.socket, str(STRANGER_UID), form], stdout=subprocess.PIPE, text=True
            )
            try:
                assert flood.stdout is not None
                assert "flooding\n" == flood.stdout.readline()
                waited = sorted(_seconds(client) for _ in range(20))
            finally:
                flood.kill()
                flood.communicate()
        assert waited[10] < 2, waited
        assert waited[-1] < 10, waited


def _seconds(client: httpx.Client) -> float:
    began = time.perf_counter()
    assert 200 == client.get("/keys").status_code
    return time.perf_counter() - began


# --- texts that are no Unicode ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", ["iss", "jti", "sub", "other"])
def test_tokens_with_half_a_character(claim: str) -> None:
    """A token that has half a character in its JSON is no token: what cannot be written again is not taken apart."""
    claims = f'{{"aud": ["x"], "{claim}": "\\ud800"}}'
    text = f"{_segment({'alg': 'ES256', 'kid': '1'})}.{_encoded(claims.encode())}.{_encoded(b's' * 64)}"
    with pytest.raises(InvalidToken) as caught:
        parse_unverified(text)
    assert "malformed" == caught.value.reason_code
    whole = text.replace(_encoded(claims.encode()), _encoded(claims.replace("\\ud800", "\\ud83d\\ude00").encode()))
    assert "\U0001f600" == parse_unverified(whole).unverified_claims[claim]


# --- documents for everybody -----------------------------------------------------------------------------------------


async def test_the_metadata_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What anybody may ask for costs the same with a thousand task types: it is made when they change, not when somebody
    asks.
    """
    engine = SimpleNamespace(issuer=ISSUER, types=TypeSet({"triage": task_type()}))
    authority = SimpleNamespace(jwt_algorithms=("ES256",), trust_domain=TrustDomain("example.org"))
    metadata = MetadataDocuments(engine, Audiences(), authority, ListenConfig())  # type: ignore[arg-type]
    made, document = [], metadata.document

    def counted(*, at_socket: bool) -> dict[str, object]:
        made.append(at_socket)
        return document(at_socket=at_socket)

    monkeypatch.setattr(metadata, "document", counted)
    request = Request({"type": "http", "headers": [], SENDER: ClientSender(address="192.0.2.1")})
    for _ in range(3):
        told = json.loads((await metadata.service(request)).body)
        assert ["triage"] == told["authorization_details_types_supported"]
    assert [False] == made
    engine.types = TypeSet({"other": task_type("other")})
    told = json.loads((await metadata.service(request)).body)
    assert ["other"] == told["authorization_details_types_supported"]
