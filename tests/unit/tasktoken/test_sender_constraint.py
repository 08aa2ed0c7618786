"""tasktoken/sender_constraint.py: what a sender has proved to hold."""

from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sojourn.errors.oauth import InvalidProof
from sojourn.jose.jws import SigningKey
from sojourn.tasktoken import dpop
from sojourn.tasktoken.sender_constraint import Proven, Sender, thumbprint_of

NOW = datetime(2030, 1, 1, tzinfo=UTC)
KEY = SigningKey.from_private("a", ec.generate_private_key(ec.SECP256R1()))
URL, TOKEN, CERTIFICATE = "https://a.example/x", "token", b"certificate"
PROOF = dpop.make(KEY, method="GET", url=URL, now=NOW, token=TOKEN)
JKT = KEY.public.thumbprint


def test_a_proof_and_a_certificate() -> None:
    """By a proof the sender has its key, and by a TLS connection its certificate, also both at once."""
    sender = Sender(dpop_proof=PROOF, method="GET", url=URL, client_certificate=CERTIFICATE)
    proven, proof = sender.prove(TOKEN, NOW)
    assert Proven(jkt=JKT, x5t=thumbprint_of(CERTIFICATE)) == proven
    assert proof is not None
    assert JKT == proof.jkt


def test_thumbprints() -> None:
    """What somebody else has checked is taken as it is, also beside a proof."""
    assert (Proven(jkt=JKT, x5t="b"), None) == Sender(jkt=JKT, x5t="b").prove(TOKEN, NOW)
    assert Proven(jkt=JKT, x5t="b") == Sender(dpop_proof=PROOF, method="GET", url=URL, x5t="b").prove(TOKEN, NOW)[0]


def test_nothing() -> None:
    """Of whom nothing is known nothing is proved."""
    assert (Proven(), None) == Sender().prove(TOKEN, NOW)


@pytest.mark.parametrize("known", [{}, {"method": "GET"}, {"url": URL}])
def test_a_proof_for_no_request(known: dict[str, str]) -> None:
    """A proof whose request is not known proves nothing: it is refused as malformed."""
    with pytest.raises(InvalidProof) as refused:
        Sender(dpop_proof=PROOF, **known).prove(TOKEN, NOW)  # type: ignore[arg-type]
    assert "malformed" == refused.value.reason_code


@pytest.mark.parametrize("other", [{"method": "POST"}, {"url": URL + "y"}])
def test_a_proof_for_another_request(other: dict[str, str]) -> None:
    """A proof is for its method and its URL, and with its token."""
    with pytest.raises(InvalidProof):
        Sender(dpop_proof=PROOF, **{"method": "GET", "url": URL, **other}).prove(TOKEN, NOW)  # type: ignore[arg-type]
    with pytest.raises(InvalidProof):
        Sender(dpop_proof=PROOF, method="GET", url=URL).prove("another", NOW)
