"""Abuse of the token service by those who are nobody to it, or are only one of many: what each may cost the others."""

import base64
import json
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from harness.agent import AgentProcess
from harness.exchanges import DETAILS
from harness.taskagent import ISSUER, STRANGER_UID, TICKETS, TRIAGE, inner_failures, make_agent
from harness.webclients import web
from sojourn.oautherrors import InvalidProof
from sojourn.spiffe import dpop
from sojourn.spiffe.jose import SigningKey

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
    return base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()


def _segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=").decode()
