"""Proofs of possession before a guard of a service: another's, old, twice, over restarts and clock steps, misshapen."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes.boundservice import BOUND, HOLDERS, PATH, THIEFS, Service, refused, schemes, serving
from fakes.jws import joined
from fakes.task_feed import AUDIENCE
from sojourn.jose.jws import SigningKey
from sojourn.limits import DPOP_AGE_SECONDS, DPOP_NONCE_SECONDS, DPOP_SKEW_SECONDS
from sojourn.sdk.guard.challenges import Refusal
from sojourn.tasktoken import dpop, dpop_replays
from sojourn.tasktoken.tokens import TaskToken


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path) as made:
        yield made


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
    token = service.token(binding=BOUND, seconds=3600)
    guard = service.another_guard(base_url="https://gateway.example.org/api/")
    service.clock.advance(DPOP_AGE_SECONDS + DPOP_SKEW_SECONDS)
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


@pytest.mark.parametrize("back", [0, 15, 40])
async def test_a_proof_after_a_restart_with_the_clock_set_back(service: Service, back: int) -> None:
    """A service that was started anew takes no proof that it took before, however its clock was set and ran since."""
    token = service.token(binding=BOUND, seconds=3600)
    ahead = service.clock.now() + timedelta(seconds=DPOP_SKEW_SECONDS)  # by a client's fast clock
    proof = service.proof(token, now=ahead)
    assert isinstance(await service.dpop(token, proof), TaskToken)
    service.clock.step_wall(-back)
    anew = service.another_guard()
    for _ in range(DPOP_AGE_SECONDS + DPOP_SKEW_SECONDS - 1):
        service.clock.advance(1)
        assert isinstance(await service.dpop(token, proof, guard=anew), Refusal)
    service.clock.advance(1)
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
    monkeypatch.setattr(dpop_replays, "DPOP_PROOFS_REMEMBERED", 10)
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
