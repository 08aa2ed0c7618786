"""Tokens that are bound, for one request, replayed or forged, before a guard of a service (docs/security-cases.md)."""

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fakes.clock import FakeClock
from fakes.fake_agent import FakeAgent
from fakes.jws import encoded, joined
from fakes.task_feed import AUDIENCE, HOLDER, ISSUER, live, over, signing_key, snapshot
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.errors import TooLarge
from sojourn.limits import DPOP_AGE_SECONDS, DPOP_NONCE_SECONDS, DPOP_SKEW_SECONDS, TOKEN_MAX_BYTES
from sojourn.sdk.answers import Answer
from sojourn.sdk.asgi import Content
from sojourn.sdk.client import Client
from sojourn.sdk.guard import Action, Guard, HttpRequest, Metadata, Refusal
from sojourn.sdk.routes import APPROVED
from sojourn.sdk.verifier import TaskVerifier
from sojourn.spiffe import dpop, replays
from sojourn.spiffe.jose import SigningKey
from sojourn.tasks import bound, tokens
from sojourn.tasks.grants import Grant
from sojourn.tasks.tokens import JKT, X5T, Binding, TaskToken, thumbprint_of

KEY, HOLDERS, THIEFS = signing_key(), signing_key("holder"), signing_key("thief")
BOUND = Binding(JKT, HOLDERS.public.thumbprint)
PATH = "/tickets/42"
ACTIONS = {
    "GET /tickets/{ticket}": "ticket:read",
    "POST /tickets/{ticket}/pay": Action("ticket:pay", acr=APPROVED),
    "DELETE /tickets/{ticket}": "ticket:read",
    "GET /admin/keys": "key:read",
    "GET /{any}/keys": "ticket:read",
}


class Service:
    """A guarded service, its agent's feed, and a clock that both go by."""

    def __init__(self, client: Client, agent: FakeAgent) -> None:
        self.clock = FakeClock()
        self.agent = agent
        self.verifier = TaskVerifier(client, AUDIENCE, now=self.clock.now)
        self.guard = self.another_guard()
        self.clock.advance(2 * DPOP_SKEW_SECONDS)
        self.contents = 0

    def another_guard(self, **options: Any) -> Guard:
        """The guard of the service's next process."""
        return Guard(self.verifier, ACTIONS, now=self.clock.now, boot=self.clock.boot, **options)

    def token(self, *, key: SigningKey = KEY, audience: str = AUDIENCE, seconds: int = 60, **fields: Any) -> str:
        now = self.clock.now()
        values: dict[str, Any] = {
            "issuer": ISSUER,
            "spiffe_id": HOLDER,
            "grant": Grant.parse(audience, ["ticket:read", "ticket:pay"]),
            "task_id": "t1",
            "task_type": "triage-ticket",
            "task_version": 5,
            "task_class": "normal",
            "issued_at": now,
            "expires_at": now + timedelta(seconds=seconds),
        }
        return tokens.issue(key, **{**values, **fields}).token

    def claims(self, **changes: Any) -> dict[str, Any]:
        """The claims of a good token, changed; None leaves one out."""
        made = json.loads(base64.urlsafe_b64decode(self.token().split(".")[1] + "=="))
        return {name: value for name, value in {**made, **changes}.items() if value is not None}

    def proof(self, of: str, /, *, key: SigningKey = HOLDERS, url: str = AUDIENCE + PATH, **fields: Any) -> str:
        return dpop.make(key, **{"method": "GET", "url": url, "now": self.clock.now(), "token": of, **fields})

    async def send(
        self,
        *headers: tuple[str, str],
        method: str = "GET",
        path: str = PATH,
        query: str = "",
        certificate: bytes | None = None,
        content: bytes = b"",
        guard: Guard | None = None,
    ) -> TaskToken | Answer:
        async def read() -> bytes:
            self.contents += 1
            return content

        request = HttpRequest(method, path, query, list(headers), certificate)
        return await (guard or self.guard).check(request, read)

    async def bearer(self, token: str, **request: Any) -> TaskToken | Answer:
        return await self.send(("Authorization", f"Bearer {token}"), **request)

    async def dpop(self, token: str, proof: str, **request: Any) -> TaskToken | Answer:
        return await self.send(("authorization", f"DPoP {token}"), ("dpop", proof), **request)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    socket = tmp_path / "agent.sock"
    agent = FakeAgent()
    agent.push("WatchTasks", snapshot([KEY], live("t1", 5), over("gone")))
    async with agent.serve(socket), Client(str(socket), deadline_seconds=5) as client:
        made = Service(client, agent)
        async with made.verifier as verifier:
            await verifier.feed.wait_ready(10)
            yield made


def refused(answer: TaskToken | Answer, status: int, error: str, said: str = "") -> Refusal:
    """The answer, which refuses with this status and error, and tells that in its first challenge."""
    assert isinstance(answer, Refusal), answer
    assert (status, error) == (answer.status, answer.error), answer.description
    assert said in answer.description
    challenges = [value for name, value in answer.headers() if name == "www-authenticate"]
    assert all(f'realm="{AUDIENCE}"' in each and "resource_metadata=" in each for each in challenges)
    if error and status in {400, 401, 403}:
        assert f'error="{error}"' in challenges[0]
        assert not any("error=" in each for each in challenges[1:])
    return answer


def schemes(answer: Refusal) -> list[str]:
    return [value.partition(" ")[0] for name, value in answer.headers() if name == "www-authenticate"]


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


# --- F.8 16, C5 58: proofs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"method": "POST"}, "htm", id="htm"),
        pytest.param({"method": "get"}, "htm", id="htm-case"),
        pytest.param({"url": f"{AUDIENCE}/tickets/43"}, "htu", id="htu"),
        pytest.param({"url": f"https://other.example.org{PATH}"}, "htu", id="htu-host"),
        pytest.param({"url": f"http://tickets.example.org{PATH}"}, "htu", id="htu-scheme"),
        pytest.param({"url": f"https://tickets.example.org:443{PATH}"}, "htu", id="htu-port"),
        pytest.param({"url": f"{AUDIENCE}/tickets/%34%32"}, "htu", id="htu-escaped"),
        pytest.param({"url": f"{AUDIENCE}/x/../tickets/42"}, "htu", id="htu-dots"),
        pytest.param({"url": f"{AUDIENCE}{PATH}/"}, "htu", id="htu-slash"),
        pytest.param({"token": "another"}, "ath", id="ath"),
        pytest.param({"token": None}, "ath", id="no-ath"),
    ],
)
async def test_a_proof_of_something_else(service: Service, fields: dict[str, Any], said: str) -> None:
    """A proof is for one method, one URL and one token, byte for byte."""
    token = service.token(binding=BOUND)
    answer = refused(await service.dpop(token, service.proof(token, **fields)), 401, "invalid_dpop_proof", said)
    assert ["DPoP"] == schemes(answer)
    assert not answer.nonce


async def test_the_host_header_says_nothing(service: Service) -> None:
    """The URL of a proof is judged by who the service is, not by what a request says of that."""
    token = service.token(binding=BOUND)
    proof = service.proof(token, url=f"https://evil.example.org{PATH}")
    said = [("Host", "evil.example.org"), ("X-Forwarded-Host", "evil.example.org"), ("Forwarded", "host=evil")]
    answer = await service.send(("authorization", f"DPoP {token}"), ("dpop", proof), *said)
    refused(answer, 401, "invalid_dpop_proof", "htu")


async def test_a_base_url(service: Service) -> None:
    """Where clients find the service at another place than its audience's origin, proofs are for that place."""
    token = service.token(binding=BOUND)
    guard = service.another_guard(base_url="https://gateway.example.org/api/")
    service.clock.advance(DPOP_SKEW_SECONDS + 1)
    proof = service.proof(token, url=f"https://gateway.example.org/api{PATH}")
    assert isinstance(await service.dpop(token, proof, guard=guard), TaskToken)
    refused(await service.dpop(token, service.proof(token), guard=guard), 401, "invalid_dpop_proof", "htu")


@pytest.mark.parametrize(
    ("seconds", "good"),
    [(-DPOP_AGE_SECONDS - 1, False), (-1, True), (DPOP_SKEW_SECONDS - 1, True), (DPOP_SKEW_SECONDS + 1, False)],
)
async def test_old_and_future_iat(service: Service, seconds: int, good: bool) -> None:
    """A proof is of now: neither older than it may be nor of a clock that is far ahead."""
    token = service.token(binding=BOUND)
    proof = service.proof(token, now=service.clock.now() + timedelta(seconds=seconds))
    answer = await service.dpop(token, proof)
    if good:
        assert isinstance(answer, TaskToken)
    else:
        refused(answer, 401, "invalid_dpop_proof", "iat")


async def test_fifty_racers_with_one_proof(service: Service) -> None:
    """Of fifty requests at once with the same proof one is let through."""
    token = service.token(binding=BOUND)
    proof = service.proof(token)
    answers = await asyncio.gather(*(service.dpop(token, proof) for _ in range(50)))
    assert 1 == sum(isinstance(each, TaskToken) for each in answers)
    for each in answers:
        if not isinstance(each, TaskToken):
            refused(each, 401, "invalid_dpop_proof", "used before")


async def test_a_proof_after_a_restart(service: Service) -> None:
    """A service that was restarted does not take what it may have taken before: it asks for a nonce, and takes that."""
    token = service.token(binding=BOUND)
    proof = service.proof(token)
    assert isinstance(await service.dpop(token, proof), TaskToken)
    anew = service.another_guard()
    answer = refused(await service.dpop(token, proof, guard=anew), 401, "use_dpop_nonce")
    assert ("dpop-nonce", answer.nonce) in answer.headers()
    proof = service.proof(token, nonce=answer.nonce)
    assert isinstance(await service.dpop(token, proof, guard=anew), TaskToken)
    refused(await service.dpop(token, proof, guard=anew), 401, "invalid_dpop_proof", "used before")


async def test_a_proof_over_a_clock_step(service: Service) -> None:
    """A wall clock that is set back makes no proof good again that had been used and forgotten."""
    token = service.token(binding=BOUND, seconds=3600)
    proof = service.proof(token)
    assert isinstance(await service.dpop(token, proof), TaskToken)
    service.clock.advance(600)
    later = service.token(binding=BOUND, seconds=3600)
    assert isinstance(await service.dpop(later, service.proof(later)), TaskToken)  # and the first is forgotten
    service.clock.step_wall(-600)
    refused(await service.dpop(token, proof), 401, "use_dpop_nonce")


async def test_a_proof_of_a_fast_clock_after_a_restart(service: Service) -> None:
    """A service that was started anew takes no proof whose iat is ahead, by a client's fast clock: it may have been used before."""
    token = service.token(binding=BOUND)
    ahead = service.clock.now() + timedelta(seconds=DPOP_SKEW_SECONDS)
    proof = service.proof(token, now=ahead)
    assert isinstance(await service.dpop(token, proof), TaskToken)
    anew = service.another_guard()
    service.clock.advance(1)
    refused(await service.dpop(token, proof, guard=anew), 401, "use_dpop_nonce")
    service.clock.advance(DPOP_SKEW_SECONDS)
    assert isinstance(await service.dpop(token, service.proof(token), guard=anew), TaskToken)


async def test_a_proof_over_a_clock_step_soon_after_it(service: Service) -> None:
    """A wall clock that is set back while a proof is remembered makes it no good either once it is forgotten."""
    token = service.token(binding=BOUND, seconds=3600)
    proof = service.proof(token)
    assert isinstance(await service.dpop(token, proof), TaskToken)
    service.clock.advance(30)
    service.clock.step_wall(-100)
    answers = []
    for _ in range(40):
        service.clock.advance(5)
        answers.append(await service.dpop(token, proof))
    assert all(isinstance(each, Refusal) for each in answers)
    assert "use_dpop_nonce" in {each.error for each in answers if isinstance(each, Refusal)}
    assert isinstance(await service.dpop(token, service.proof(token)), TaskToken)  # and others are none the worse


async def test_a_memory_of_proofs_that_others_fill(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends more proofs than are remembered keeps nobody out, and none is good twice: each needs a nonce then."""
    monkeypatch.setattr(replays, "DPOP_PROOFS_REMEMBERED", 10)
    token = service.token(binding=BOUND)
    answer = refused(await service.dpop(token, service.proof(token, nonce="")), 401, "use_dpop_nonce")
    flood = [service.proof(token, nonce=answer.nonce) for _ in range(11)]
    for each in flood:
        assert isinstance(await service.dpop(token, each), TaskToken)
    mine = service.proof(token)
    answer = refused(await service.dpop(token, mine), 401, "use_dpop_nonce")
    again = service.proof(token, nonce=answer.nonce)
    assert isinstance(await service.dpop(token, again), TaskToken)
    for each in (*flood, mine, again):
        assert isinstance(await service.dpop(token, each), Refusal)


async def test_nonces(service: Service) -> None:
    """A nonce of another server, an old one, and one that was made up are answered with the nonce of now."""
    token = service.token(binding=BOUND, seconds=3600)
    other = service.another_guard()
    answer = refused(
        await service.dpop(token, service.proof(token, now=service.clock.now()), guard=other), 401, "use_dpop_nonce"
    )
    for nonce in (answer.nonce, "made-up", ""):
        found = refused(await service.dpop(token, service.proof(token, nonce=nonce)), 401, "use_dpop_nonce")
        assert found.nonce not in {nonce, answer.nonce}
    service.clock.advance(3 * DPOP_NONCE_SECONDS)
    proof = service.proof(token, nonce=found.nonce)
    refused(await service.dpop(token, proof), 401, "use_dpop_nonce")


def _shown(service: Service, token: str, jwk: dict[str, Any], key: SigningKey = HOLDERS, **header: Any) -> str:
    """A proof whose header shows this key, whatever it is."""
    claims = {"jti": "a", "htm": "GET", "htu": AUDIENCE + PATH, "iat": int(service.clock.now().timestamp())}
    claims["ath"] = dpop.digest(token)
    return joined({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk, **header}, json.dumps(claims).encode(), key)


def _public() -> dict[str, Any]:
    return {name: value for name, value in HOLDERS.public.jwk.items() if name != "kid"}


async def test_a_private_key_in_it(service: Service) -> None:
    """A proof that shows a private key shows it to everyone, and is refused."""
    token = service.token(binding=BOUND)
    assert isinstance(await service.dpop(token, _shown(service, token, _public())), TaskToken)
    private = {**_public(), "d": "AAAA"}
    refused(await service.dpop(token, _shown(service, token, private)), 401, "invalid_dpop_proof")


@pytest.mark.parametrize("algorithm", ["HS256", "HS512", "none", "None", "", None, "EdDSA", "ES256K", ["ES256"]])
async def test_a_symmetric_key_or_algorithm(service: Service, algorithm: Any) -> None:
    """A proof by a shared secret, or by none, is none: also if its thumbprint is that of the token."""
    token = service.token(binding=BOUND)
    refused(await service.dpop(token, _shown(service, token, _public(), alg=algorithm)), 401, "invalid_dpop_proof")
    secret = {"kty": "oct", "k": "c2VjcmV0"}
    refused(await service.dpop(token, _shown(service, token, secret, alg=algorithm)), 401, "invalid_dpop_proof")


async def test_a_key_that_did_not_sign_it(service: Service) -> None:
    """A proof shows the key that signed it, and not the one that the token is bound to."""
    token = service.token(binding=BOUND)
    refused(await service.dpop(token, _shown(service, token, _public(), THIEFS)), 401, "invalid_dpop_proof")


@pytest.mark.parametrize(
    "header", [{"typ": "at+jwt"}, {"typ": "JWT"}, {"typ": "DPOP+JWT"}, {"crit": ["x"]}, {"x5u": "a"}]
)
async def test_headers_of_a_proof(service: Service, header: dict[str, Any]) -> None:
    """A proof is of the type of proofs, and its header says nothing that we do not know."""
    token = service.token(binding=BOUND)
    refused(await service.dpop(token, _shown(service, token, _public(), **header)), 401, "invalid_dpop_proof")


async def test_two_headers(service: Service) -> None:
    """Of two tokens, and of two proofs, neither is believed: in two headers or in one."""
    token = service.token(binding=BOUND)
    scheme, proof = ("authorization", f"DPoP {token}"), ("dpop", service.proof(token))
    refused(await service.send(scheme, scheme, proof), 400, "invalid_request", "more than one Authorization")
    mixed = (scheme, ("Authorization", f"Bearer {service.token()}"), proof)
    refused(await service.send(*mixed), 400, "invalid_request", "more than one Authorization")
    refused(await service.send(scheme, proof, proof), 401, "invalid_dpop_proof", "more than one DPoP")
    refused(await service.send(scheme, proof, ("DPoP", service.proof(token))), 401, "invalid_dpop_proof")
    folded = ("dpop", f"{proof[1]}, {proof[1]}")
    refused(await service.send(scheme, folded), 401, "invalid_dpop_proof")
    folded = ("authorization", f"DPoP {token}, DPoP {token}")
    refused(await service.send(folded, proof), 400, "invalid_request")


async def test_a_token_elsewhere_in_a_request(service: Service) -> None:
    """A token is in the header Authorization or nowhere (RFC 6750, 2.2 and 2.3): URLs are logged, and forms are not ours."""
    token = service.token()
    refused(await service.send(query=f"access_token={token}"), 401, "")
    form = ("content-type", "application/x-www-form-urlencoded")
    refused(await service.send(form, method="DELETE", content=f"access_token={token}".encode()), 401, "")
    for name in ("access_token", "x-access-token", "cookie", "proxy-authorization"):
        refused(await service.send((name, f"Bearer {token}")), 401, "")
    assert 0 == service.contents


async def test_a_bad_token_uses_up_no_memory(service: Service) -> None:
    """Proofs with tokens that are not good are not remembered: nobody without a good token can fill that memory."""
    for fields in ({"task_id": "gone"}, {"audience": "https://other.example.org"}, {"seconds": -1}):
        token = service.token(binding=BOUND, **fields)
        assert isinstance(await service.dpop(token, service.proof(token)), Refusal)
    assert 0 == len(service.guard._replays)


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
    token = service.token(params={"ticket": param, "urgent": True})
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
    token = service.token(params_digest=bound.of_http("DELETE", f"{PATH}?force=1", b""))
    assert isinstance(await service.bearer(token, **good), TaskToken)
    refused(await service.bearer(token, **{**good, **request_}), 403, "insufficient_scope", "another request")
    assert 2 == service.contents


async def test_content_that_is_too_long(service: Service) -> None:
    """Content that would have to be held whole is held up to a limit."""

    async def endless() -> bytes:
        raise TooLarge("too long")

    token = service.token(params_digest=bound.of_http("DELETE", PATH, b""))
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

    token = service.token(params_digest=bound.of_http("DELETE", PATH, b""))
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
    token = service.token(task_class="high", params_digest=bound.of_http("DELETE", PATH, b""))
    request = {"method": "DELETE", "path": PATH}
    service.agent.answers["ValidateToken"] = pb.ValidateTokenResponse(valid=True, kind=pb.TOKEN_KIND_TASK)
    assert isinstance(await service.bearer(token, **request), TaskToken)
    (asked,) = [message for method, message in service.agent.requests if method == "ValidateToken"]
    assert (True, bound.of_http("DELETE", PATH, b"")) == (asked.use, asked.params_digest)
    used = pb.ValidateTokenResponse(valid=False, code="used", reason="token is good once, and was used")
    service.agent.answers["ValidateToken"] = used
    refused(await service.bearer(token, **request), 401, "invalid_token", "was used")
    del service.agent.answers["ValidateToken"]
    refused(await service.bearer(token, **request), 401, "invalid_token")


# --- F.8 19, C4 41 to 48: forged and broken tokens ------------------------------------------------------------------


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "nOnE", "", None, "HS256", "RS256", "ES384", "EdDSA", ["ES256"], {}]
)
async def test_algorithms(service: Service, algorithm: Any) -> None:
    """A token by another algorithm than its key's is refused, signed or not."""
    good = joined({"alg": algorithm, "typ": "at+jwt", "kid": "k1"}, json.dumps(service.claims()).encode(), KEY)
    for token in (good, good.rpartition(".")[0] + ".", good.rpartition(".")[0] + ".AA"):
        refused(await service.bearer(token), 401, "invalid_token")


async def test_the_public_key_as_a_secret(service: Service) -> None:
    """A MAC keyed with the agent's public key, which everybody has, is no signature."""
    public = KEY.public._key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for secret in (public, json.dumps(dict(KEY.public.jwk)).encode()):
        header = {"alg": "HS256", "typ": "at+jwt", "kid": "k1"}
        text = ".".join(encoded(json.dumps(each).encode()) for each in (header, service.claims()))
        mac = HMAC(secret, hashes.SHA256())
        mac.update(text.encode())
        refused(await service.bearer(f"{text}.{encoded(mac.finalize())}"), 401, "invalid_token")


@pytest.mark.parametrize(
    "kid", [None, "", "k2", "K1", "k1 ", "k" * 5_000, "../k1", "k1' OR '1'='1", "k1\0", 1, ["k1"], {}]
)
async def test_key_ids(service: Service, kid: Any) -> None:
    """A key is found by its name, byte for byte, or it is not found."""
    header = {"alg": "ES256", "typ": "at+jwt", **({} if kid is None else {"kid": kid})}
    refused(await service.bearer(joined(header, json.dumps(service.claims()).encode(), KEY)), 401, "invalid_token")


@pytest.mark.parametrize("name", ["jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "cty", "x5t", "enc", "x-unknown"])
async def test_headers(service: Service, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that would name a key, or a rule, is refused, and nothing is fetched."""
    value: Any = {"jwk": dict(THIEFS.public.jwk), "crit": ["b64"], "b64": False, "x5c": ["AA"]}.get(
        name, "https://a.b/c"
    )
    header = {"alg": "ES256", "typ": "at+jwt", "kid": "k1", name: value}
    token = joined(header, json.dumps(service.claims()).encode(), THIEFS if name == "jwk" else KEY)

    def fail(*_: Any) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr("socket.socket.connect", fail)
    refused(await service.bearer(token), 401, "invalid_token")


@pytest.mark.parametrize(
    "audience",
    [
        None, "", [], [AUDIENCE, "https://other.example.org"], [AUDIENCE, AUDIENCE], AUDIENCE + "/", AUDIENCE.upper(),
        AUDIENCE[:-1], AUDIENCE + "x", f" {AUDIENCE}", AUDIENCE.replace("e", "\u0435"), {"a": AUDIENCE}, True, 1,
    ],
    ids=repr,
)  # fmt: skip
async def test_audiences(service: Service, audience: Any) -> None:
    """A token is for this service alone, byte for byte."""
    header = {"alg": "ES256", "typ": "at+jwt", "kid": "k1"}
    token = joined(header, json.dumps(service.claims(aud=audience)).encode(), KEY)
    refused(await service.bearer(token), 401, "invalid_token")


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", ["1", True, None, [], {}, -1, 10**400, 1e300, "NaN"], ids=repr)
async def test_times_of_wrong_types(service: Service, name: str, value: Any) -> None:
    """A time that is none is refused, and nothing else happens."""
    header = {"alg": "ES256", "typ": "at+jwt", "kid": "k1"}
    claims = {**service.claims(), name: value}
    refused(await service.bearer(joined(header, json.dumps(claims).encode(), KEY)), 401, "invalid_token")
    for literal in ("NaN", "Infinity", "1e400"):
        payload = json.dumps({**claims, name: "@"}).replace('"@"', literal).encode()
        refused(await service.bearer(joined(header, payload, KEY)), 401, "invalid_token")


async def test_times(service: Service) -> None:
    """A token that has expired, is of the future, or says no end is refused."""
    now = service.clock.now().timestamp()
    header = {"alg": "ES256", "typ": "at+jwt", "kid": "k1"}
    for changes in ({"exp": now}, {"exp": now - 1}, {"nbf": now + 60}, {"iat": now + 60}, {"exp": None}, {"iat": None}):
        token = joined(header, json.dumps(service.claims(**changes)).encode(), KEY)
        refused(await service.bearer(token), 401, "invalid_token")


def _broken(good: str) -> list[str]:
    header, payload, signature = good.split(".")
    doubled = base64.urlsafe_b64decode(payload + "==").replace(b'{"iss"', b'{"iss":"https://evil.example.org","iss"', 1)
    deep = b'{"a":' * 20_000 + b"1" + b"}" * 20_000
    last = signature[-1]
    other_tail = signature[:-1] + chr(ord(last) + 1)  # the same bytes with other bits behind them, or other bytes
    return [
        f"{header}.{encoded(doubled)}.{signature}",
        f"{header}.{encoded(deep)[: TOKEN_MAX_BYTES - 500]}.{signature}",
        f"{header}.{payload}=.{signature}",
        f"{header}.{payload}.{signature}=",
        f"{header}.{payload}.{other_tail}",
        f"{header}.{payload}..{signature}",
        f"{header}.{payload}.{signature}.x",
        f"{header}.{payload}",
        "." * 5,
        "." * 1_000_000,
        "a" * (TOKEN_MAX_BYTES + 1),
        f"{header}.{payload}.{signature}\t",
        f"{header}.\u0430{payload}.{signature}",
        f"{header}.{payload}.+/{signature}",
    ]


async def test_broken_texts(service: Service) -> None:
    """A text that is not exactly a token is none: and nobody pays for it with more than a glance."""
    for number, text in enumerate(_broken(service.token())):
        answer = await service.bearer(text)
        assert isinstance(answer, Refusal), number
        assert (401, "invalid_token") == (answer.status, answer.error), number


async def test_claims_that_are_huge_or_deep(service: Service) -> None:
    """Claims that are nested deeply or of many members break nothing, and change nothing."""
    header = {"alg": "ES256", "typ": "at+jwt", "kid": "k1"}
    nested: Any = 1
    for _ in range(200):
        nested = [nested]
    for changes in (
        {"authorization_details": [*service.claims()["authorization_details"], {"type": "other"}] * 30},
        {"authorization_details": nested},
        {"task": nested},
        {"act": nested},
        {"sub": "spiffe://example.org/" + "a" * 5_000},
    ):
        token = joined(header, json.dumps(service.claims(**changes)).encode(), KEY)
        refused(await service.bearer(token), 401, "invalid_token")


async def test_a_key_that_is_no_longer_published(service: Service) -> None:
    """A token of a key that the agent has withdrawn is refused from then on, also one that was good before."""
    token = service.token()
    assert isinstance(await service.bearer(token), TaskToken)
    following = signing_key("k2")
    jwks = json.dumps({"keys": [dict(following.public.jwk)]}).encode()
    service.agent.push("WatchTasks", pb.TaskFeed(delta=pb.Delta(), epoch=1, keys=jwks))
    async with asyncio.timeout(20):
        while "k1" in service.verifier.feed.keys:
            await asyncio.sleep(0.01)
    refused(await service.bearer(token), 401, "invalid_token", "unknown key")
    assert isinstance(await service.bearer(service.token(key=following)), TaskToken)


async def test_a_key_of_the_same_name(service: Service) -> None:
    """A token that another key of the same name has signed is refused: also if one that is alike was good before."""
    token = service.token()
    assert isinstance(await service.bearer(token), TaskToken)
    refused(await service.bearer(service.token(key=signing_key("k1"))), 401, "invalid_token", "signature")
    head, _, signature = token.rpartition(".")
    forged = f"{head}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
    refused(await service.bearer(forged), 401, "invalid_token", "signature")


# --- the answers -----------------------------------------------------------------------------------------------------


async def test_metadata(service: Service) -> None:
    """The guard answers for its resource by RFC 9728, to anyone, and to nothing but a GET of that place."""
    path = "/.well-known/oauth-protected-resource"
    answer = await service.send(path=path)
    assert isinstance(answer, Metadata)
    found = json.loads(answer.body())
    assert (AUDIENCE, [ISSUER]) == (found["resource"], found["authorization_servers"])
    assert ["key:read", "ticket:pay", "ticket:read"] == found["scopes_supported"]
    for request in ({"method": "POST"}, {"path": path + "/"}, {"path": path.upper()}, {"path": path + "/x"}):
        assert not isinstance(await service.send(**{"path": path, **request}), Metadata)
    silent = service.another_guard(metadata=False)
    refusal = await service.send(path=path, guard=silent)
    assert isinstance(refusal, Refusal)
    assert not any("resource_metadata" in value for _, value in refusal.headers())


async def test_whatever_fails_is_a_refusal(service: Service) -> None:
    """What breaks while a request is judged lets nobody through, and says nothing of what broke."""

    async def breaks() -> bytes:
        raise RuntimeError("secret")

    token = service.token(params_digest=bound.of_http("DELETE", PATH, b""))
    request = HttpRequest("DELETE", PATH, "", [("Authorization", f"Bearer {token}")])
    answer = refused(await service.guard.check(request, breaks), 401, "invalid_token")
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
