"""What a node and a server say to each other where a key is bound to the node's name: the attestor `bound_key`, ours.

Messages are JSON, in which bytes are base64 (RFC 4648, 4). A node shows its public key, and a token if it has one; the
server sends a nonce; the node signs it, with what it will be known by the next time. That is a stamp, 32 random bytes
of which the server keeps the digest: a copy of the node's files that has joined in between has another one.
"""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from sojourn.errors import InvalidInput
from sojourn.limits import BOUND_KEY_MESSAGE_MAX_BYTES

TYPE: Final = "bound_key"
TOKEN_PREFIX: Final = "bound."  # noqa: S105  # of the tokens that bind a key, and of no others
STAMP_BYTES: Final = 32
NONCE_BYTES: Final = 32
_ABOUT: Final = b"sojourn bound_key 1"  # what is signed is about, and nothing else is
_STAMPS: Final = 2  # the one that the node was known by, and the one of a join whose answer it has not had


@dataclass(frozen=True, repr=False)
class Asked:
    """What a node says first. `key`: its public key, P-256. `token` and `name`, what it is called: empty: none."""

    key: ec.EllipticCurvePublicKey
    token: str = ""
    name: str = ""

    @property
    def key_der(self) -> bytes:
        return self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def text(self) -> bytes:
        return _json({"key": _b64(self.key_der), "token": self.token, "name": self.name})

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Raise InvalidInput, without what may be a token."""
        found = _object(text, "failed to unmarshal data")
        token, name = found.get("token", ""), found.get("name", "")
        if not isinstance(token, str) or not isinstance(name, str):
            raise InvalidInput("failed to unmarshal data: token or name is no text")
        return cls(_public_key(_bytes(found.get("key"), "key")), token, name)


@dataclass(frozen=True, repr=False)
class Answer:
    """What a node answers to a nonce. `held`: its stamps, of which the server knows one; `following`: the digest of the
    stamp that it will have.
    """

    nonce: bytes
    signature: bytes
    held: Sequence[bytes]
    following: bytes

    def text(self) -> bytes:
        held = [_b64(each) for each in self.held]
        said = {"nonce": _b64(self.nonce), "signature": _b64(self.signature), "held": held}
        return _json({**said, "following": _b64(self.following)})

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Raise InvalidInput."""
        found = _object(text, "unable to unmarshal challenge response")
        held = found.get("held")
        if not isinstance(held, list) or len(held) > _STAMPS:
            raise InvalidInput(f"unable to unmarshal challenge response: held is no list of up to {_STAMPS} stamps")
        nonce, following = _bytes(found.get("nonce"), "nonce"), _bytes(found.get("following"), "following")
        if len(nonce) != NONCE_BYTES or len(following) != STAMP_BYTES:
            raise InvalidInput("unable to unmarshal challenge response: nonce or following has another length")
        stamps = [_bytes(each, "held") for each in held]
        return cls(nonce, _bytes(found.get("signature"), "signature"), stamps, following)


def challenge(nonce: bytes) -> bytes:
    return _json({"nonce": _b64(nonce)})


def nonce_of(text: bytes) -> bytes:
    """The nonce of a challenge. Raise InvalidInput, else a node would sign what somebody else has made up."""
    nonce = _bytes(_object(text, "the server's challenge cannot be read").get("nonce"), "nonce")
    if len(nonce) != NONCE_BYTES:
        raise InvalidInput("the server's challenge is not as it should be")
    return nonce


def proof(trust_domain: str, theirs: bytes, ours: bytes, asked: Asked, following: bytes) -> bytes:
    """What a node signs. `theirs`: the server's nonce, `ours`: the node's."""
    token = hashlib.sha256(asked.token.encode()).digest()
    key = hashlib.sha256(asked.key_der).digest()
    return b"\0".join((_ABOUT, trust_domain.encode(), theirs + ours + token + key + following))


def is_proof(trust_domain: str, theirs: bytes, asked: Asked, answer: Answer) -> bool:
    """Whether who answers has the key that it has shown."""
    said = proof(trust_domain, theirs, answer.nonce, asked, answer.following)
    try:
        asked.key.verify(answer.signature, said, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def digest_of(content: bytes) -> str:
    """SHA-256 in lower-case hex: of a key as DER, or of a stamp, as a server knows it."""
    return hashlib.sha256(content).hexdigest()


def _public_key(der: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = load_der_public_key(der)
    except Exception as error:  # hostile input: whatever the library raises
        raise InvalidInput("failed to unmarshal data: key is no public key", detail=str(error)) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInput("failed to unmarshal data: key is not of P-256")
    return key


def _object(text: bytes, what: str) -> dict[str, Any]:
    if len(text) > BOUND_KEY_MESSAGE_MAX_BYTES:
        raise InvalidInput(f"{what}: it is too large")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{what}: it is not JSON") from error
    if not isinstance(found, dict):
        raise InvalidInput(f"{what}: it is no JSON object")
    return found


def _bytes(text: object, name: str) -> bytes:
    try:
        return b64decode(text, validate=True)  # type: ignore[arg-type]  # TypeError if it is no text
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{name} is not base64") from error


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _b64(content: bytes) -> str:
    return b64encode(content).decode()
