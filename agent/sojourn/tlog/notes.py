"""Signed notes (C2SP signed-note), with Ed25519: 0x01, a signature of the text, and 0x04, a cosignature with its time.

A note is a text that ends in a newline, an empty line, and a line for each signature:
`— NAME BASE64(key ID of 4 bytes || signature)`. A verifier key is `NAME+KEYID in hex+BASE64(type || public key)`.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sojourn.errors import InvalidInput

SIGNATURE, COSIGNATURE = 0x01, 0x04
NOTE_MAX_BYTES: Final = 1 << 20
_SIGNATURES_MOST: Final = 100
_NAME: Final = re.compile(r"[^\s+]+")
_VKEY: Final = re.compile(r"([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+=*)")
_LINE: Final = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+=*)")


def _key_id(name: str, kind: int, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


def unbase64(text: str, what: str) -> bytes:
    """Raise InvalidInput, which names `what` it is, unless it is base64 as it is written by everybody."""
    try:
        found = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InvalidInput(f"{what} is not base64") from error
    if base64.b64encode(found).decode() != text:
        raise InvalidInput(f"{what} is not base64 as it is written")
    return found


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public key of a log: by it both signatures and cosignatures of the log are verified."""

    name: str
    public: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise InvalidInput, also for a key of another algorithm."""
        return cls._parse(text, {SIGNATURE: "Ed25519 (0x01)"})

    @classmethod
    def parse_cosigner(cls, text: str) -> Self:
        """The key of a witness: of Ed25519 cosignatures (0x04), or, as some witnesses write theirs, of Ed25519 (0x01).

        Raise InvalidInput.
        """
        return cls._parse(text, {COSIGNATURE: "an Ed25519 cosigner (0x04)", SIGNATURE: ""})

    @classmethod
    def _parse(cls, text: str, kinds: Mapping[int, str]) -> Self:
        matched = _VKEY.fullmatch(text)
        if matched is None:
            raise InvalidInput("it is no verifier key: those are NAME+KEYID+BASE64, as `sojourn audit key` prints them")
        name, key_id, encoded = matched.groups()
        key = unbase64(encoded, "the verifier key")
        if key[0] not in kinds or len(key) != 33:
            raise InvalidInput(f"the verifier key is not of {next(iter(kinds.values()))}")
        if _key_id(name, key[0], key[1:]).hex() != key_id:
            raise InvalidInput("the verifier key is not as it was printed: its ID is another key's")
        return cls(name, key[1:])

    def __str__(self) -> str:
        return self._text(SIGNATURE)

    @property
    def cosigner(self) -> str:
        """The same key as that of a cosigner."""
        return self._text(COSIGNATURE)

    def _text(self, kind: int) -> str:
        encoded = base64.b64encode(bytes([kind]) + self.public).decode()
        return f"{self.name}+{self.key_id(kind).hex()}+{encoded}"

    def key_id(self, kind: int) -> bytes:
        """The 4 bytes that stand before its signatures of a kind."""
        return _key_id(self.name, kind, self.public)

    def verifies(self, message: bytes, signature: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """A signature as it stands in a note: not verified."""

    name: str
    key_id: bytes
    unverified_signature: bytes

    def __str__(self) -> str:
        return f"— {self.name} {base64.b64encode(self.key_id + self.unverified_signature).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text with its signatures."""

    text: str
    lines: tuple[SignatureLine, ...]

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Raise InvalidInput. Nothing is verified."""
        if len(octets) > NOTE_MAX_BYTES:
            raise InvalidInput("the note is too long")
        try:
            whole = octets.decode()
        except UnicodeError as error:
            raise InvalidInput("the note is not UTF-8") from error
        if any(char < " " and char != "\n" for char in whole):
            raise InvalidInput("the note has control characters")
        text, empty, rest = whole.rpartition("\n\n")
        if not empty or not rest.endswith("\n"):
            raise InvalidInput("the note has no signatures")
        lines = rest[:-1].split("\n")
        if len(lines) > _SIGNATURES_MOST:
            raise InvalidInput("the note has too many signatures")
        return cls(f"{text}\n", tuple(map(_line, lines)))

    def __str__(self) -> str:
        return f"{self.text}\n{''.join(map(str, self.lines))}"

    def is_signed(self, key: VerifierKey) -> bool:
        """Whether it has a good signature (0x01) by this key, and no bad one."""
        found = self._lines_of(key, SIGNATURE)
        return bool(found) and all(key.verifies(self.text.encode(), each.unverified_signature) for each in found)

    def cosigned_at(self, key: VerifierKey) -> int | None:
        """When the key has cosigned (0x04), seconds since the epoch; None: it has not, or not well."""
        times = [self._cosigned_at(key, each) for each in self.cosignatures(key)]
        good = [each for each in times if each is not None]
        return max(good) if good and len(good) == len(times) else None

    def good_lines(self, key: VerifierKey) -> tuple[SignatureLine, ...]:
        """One line of each kind that verifies by this key: a signature, and the latest cosignature.

        Anybody may put others beside them, which are left out.
        """
        signed = [
            each
            for each in self._lines_of(key, SIGNATURE)
            if key.verifies(self.text.encode(), each.unverified_signature)
        ]
        cosigned = [each for each in self.cosignatures(key) if self._cosigned_at(key, each) is not None]
        latest = sorted(cosigned, key=lambda each: each.unverified_signature[:8])
        return (*signed[:1], *latest[-1:])

    def with_lines(self, more: Iterable[SignatureLine]) -> Self:
        """The same note with these signatures behind its own, each once."""
        return replace(self, lines=tuple(dict.fromkeys([*self.lines, *more])))

    def cosignatures(self, key: VerifierKey) -> list[SignatureLine]:
        """The lines that are said to be cosignatures by this key. Nothing is verified."""
        return self._lines_of(key, COSIGNATURE)

    def _lines_of(self, key: VerifierKey, kind: int) -> list[SignatureLine]:
        return [each for each in self.lines if (each.name, each.key_id) == (key.name, key.key_id(kind))]

    def _cosigned_at(self, key: VerifierKey, line: SignatureLine) -> int | None:
        octets = line.unverified_signature
        at = int.from_bytes(octets[:8])
        good = len(octets) == 72 and at < 1 << 63 and key.verifies(_cosigned(self.text, at), octets[8:])
        return at if good else None


def parse_lines(text: str) -> tuple[SignatureLine, ...]:
    """Signature lines alone, as a witness answers with them. Raise InvalidInput. Nothing is verified."""
    if not text.endswith("\n"):
        raise InvalidInput("the signatures do not end in a newline")
    lines = text[:-1].split("\n")
    if len(lines) > _SIGNATURES_MOST:
        raise InvalidInput("there are too many signatures")
    return tuple(map(_line, lines))


def _line(text: str) -> SignatureLine:
    matched = _LINE.fullmatch(text)
    octets = b"" if matched is None else unbase64(matched[2], "a signature")
    if matched is None or len(octets) < 5:
        raise InvalidInput("the note has a line that is no signature")
    return SignatureLine(matched[1], octets[:4], octets[4:])


def _cosigned(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()


class Signer:
    """A private key with its name."""

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        if _NAME.fullmatch(name) is None:
            raise InvalidInput("a key's name has neither spaces nor plus signs")
        self._private = private
        self.key = VerifierKey(name, private.public_key().public_bytes_raw())

    def sign(self, text: str) -> SignatureLine:
        """Sign a text (0x01)."""
        return SignatureLine(self.key.name, self.key.key_id(SIGNATURE), self._private.sign(text.encode()))

    def cosign(self, text: str, at: int) -> SignatureLine:
        """Cosign a checkpoint's text (0x04) at a time, seconds since the epoch."""
        if not 0 <= at < 1 << 63:
            raise InvalidInput("the time of a cosignature is out of range")
        made = at.to_bytes(8) + self._private.sign(_cosigned(text, at))
        return SignatureLine(self.key.name, self.key.key_id(COSIGNATURE), made)
