"""A private key that somebody else holds: what it signs verifies, and it never leaves."""

import copy

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sojourn.authority.token.held_key import HeldKey
from sojourn.errors import KeysUnavailable

KEY = ec.generate_private_key(ec.SECP256R1())
SHA256 = ec.ECDSA(hashes.SHA256())


def held(key=KEY):
    """One whose holder signs by `key`."""
    return HeldKey(KEY.public_key(), lambda digest, algorithm: key.sign(digest, ec.ECDSA(Prehashed(algorithm))))


def test_signs():
    """What it signs verifies by its public key."""
    key = held()
    KEY.public_key().verify(key.sign(b"text", SHA256), b"text", SHA256)
    assert (256, "secp256r1", KEY.public_key()) == (key.key_size, key.curve.name, key.public_key())


@pytest.mark.parametrize("answer", [b"", b"\x30\x00", b"\xff" * 70], ids=["nothing", "empty", "noise"])
def test_no_signature(answer):
    """What is no signature by this key is none."""
    with pytest.raises(KeysUnavailable, match="no signature"):
        HeldKey(KEY.public_key(), lambda *_: answer).sign(b"text", SHA256)
    with pytest.raises(KeysUnavailable, match="no signature"):
        held(ec.generate_private_key(ec.SECP256R1())).sign(b"text", SHA256)


def test_it_stays():
    """It signs what it is given whole, and gives nothing of itself."""
    key = held()
    with pytest.raises(TypeError):
        key.sign(b"0" * 32, ec.ECDSA(Prehashed(hashes.SHA256())))
    for ask in (
        key.private_numbers,
        lambda: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        lambda: key.exchange(ec.ECDH(), KEY.public_key()),
    ):
        with pytest.raises(NotImplementedError):
            ask()
    assert key is copy.copy(key) is copy.deepcopy(key)
