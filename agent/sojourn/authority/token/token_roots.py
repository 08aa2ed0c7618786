"""Roots whose keys are in a token: what signs in their names, and what makes the next one."""

import asyncio
from collections.abc import Callable, Collection
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sojourn.authority.file_root import FileRoot
from sojourn.authority.root_signer import IntermediateRequest, SignedIntermediate
from sojourn.authority.roots import TokenRoot
from sojourn.authority.token.key_process import KeyProcess
from sojourn.authority.token.messages import encoded, fields
from sojourn.authority.token.settings import TokenSettings
from sojourn.authority.x509_profile import Signer, key_id, signer_id
from sojourn.errors import CannotStart, InvalidInput, KeysUnavailable, StoreFailed
from sojourn.files import atomic
from sojourn.runtime.clock import Clock
from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.x509svid import check_authority

_DRAFT: Final = ec.generate_private_key(ec.SECP256R1())  # signs the drafts of lists, and nothing that anybody believes
_SLACK: Final = timedelta(minutes=5)  # of two clocks of one machine, one of which was read a moment before
ROOT, INTERMEDIATE, LIST, TEST = "root", "intermediate", "list", "test"
Told = Callable[[str, str], None]


class TokenRoots:
    """Signs by a token's keys, and by those that are files still. `told` is told of each signature in a token: what was
    signed, and the authority ID of the root.
    """

    def __init__(self, own: FileRoot, process: KeyProcess, told: Told, clock: Clock) -> None:
        self._own = own
        self._process = process
        self._told = told
        self._clock = clock

    def at_once(self, asked: IntermediateRequest) -> SignedIntermediate | None:
        return self._own.at_once(asked) if isinstance(self._own.root_for(asked).key, Signer) else None

    async def sign(self, asked: IntermediateRequest) -> SignedIntermediate:
        """Raise KeysUnavailable, also if what comes back is not what was asked for; LimitExceeded."""
        root = self._own.root_for(asked).key
        if isinstance(root, Signer):
            return self._own.at_once(asked)
        public = asked.key.public_key()
        answer = await self._process.ask(
            "sign",
            root=encoded(root.certificate.public_bytes(Encoding.DER)),
            object=root.object,
            key=encoded(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
            ttl=int(asked.ttl.total_seconds()),
        )
        signed = _certificate(answer, "certificate")
        _check_signed(signed, root.certificate, asked.trust_domain)
        if signed.public_key() != public or signed.not_valid_after_utc > self._clock.now() + asked.ttl + _SLACK:
            raise KeysUnavailable("the key process has signed another intermediate than it was asked for")
        self._told(INTERMEDIATE, root.id)
        return SignedIntermediate((signed,))

    def stands(self, chain: tuple[x509.Certificate, ...]) -> bool:
        return self._own.stands(chain)

    def list_at_once(self, root_id: str, builder: x509.CertificateRevocationListBuilder) -> bytes | None:
        return self._own.list_at_once(root_id, builder)

    async def sign_list(self, root_id: str, builder: x509.CertificateRevocationListBuilder) -> bytes:
        root = self._own.found(root_id).key
        if isinstance(root, Signer):
            return root.sign_crl(builder).public_bytes(Encoding.DER)
        draft = await asyncio.to_thread(_draft, builder, root.certificate.subject)
        answer = await self._process.ask(
            "list",
            root=encoded(root.certificate.public_bytes(Encoding.DER)),
            object=root.object,
            list=encoded(draft.public_bytes(Encoding.DER)),
        )
        signed = await asyncio.to_thread(_list, answer, root.certificate, len(draft))
        self._told(LIST, root.id)
        return signed

    async def sign_test(self, root_id: str, nonce: bytes) -> bytes:
        root = self._own.found(root_id).key
        if isinstance(root, Signer):
            return root.sign_test(nonce)
        answer = await self._process.ask(
            "test",
            root=encoded(root.certificate.public_bytes(Encoding.DER)),
            object=root.object,
            nonce=encoded(nonce),
        )
        try:
            [signature] = fields(answer, signature=bytes)
        except ValueError as error:
            raise KeysUnavailable("the key process sent what is no signature") from error
        self._told(TEST, root.id)
        return bytes(signature)


class RootMaker:
    """Makes roots whose keys are made where the others are.

    The number of a key is on disk before the key is made, in the file `root-number`, then what it is called until it
    has its label, and that until the root's certificate is on disk: so a start that was interrupted, or may not do the
    next step, goes on with the same key.
    """

    def __init__(self, process: KeyProcess, settings: TokenSettings, folder: Path, told: Told) -> None:
        self._process = process
        self._settings = settings
        self._path = folder / "root-number"
        self._told = told
        self._making = asyncio.Lock()

    async def make(self, used: Collection[str]) -> TokenRoot:
        """A new root. `used`: the labels of the keys that have one. Raise KeysUnavailable, StoreFailed and others."""
        async with self._making:
            number, called = self._intended()
            if number is None or f"{self._settings.prefix}{number}" in used:
                number, called = _answer(await self._process.ask("next"), number=int), ""
                self._intend(number)
            if not called:
                called = _answer(await self._process.ask("create", number=number), made=str)
                if called:
                    self._intend(number, called)
            answer = await self._process.ask("make", number=number, made=called)
            label, place = str(answer.pop("object", "")), self._settings.place
            made = TokenRoot(_certificate(answer, "certificate"), label, place.label, place.kind)
            _check_signed(made.certificate, made.certificate, self._settings.trust_domain)
            if made.object != f"{self._settings.prefix}{number}":
                raise KeysUnavailable("the key process has made another root than it was asked for")
            self._told(ROOT, made.id)
            return made

    def settle(self, used: Collection[str]) -> None:
        """Forget the number of a key that is one of these: it has its certificate. Raise CannotStart."""
        number, _ = self._intended()
        if number is not None and f"{self._settings.prefix}{number}" in used:
            self._path.unlink(missing_ok=True)

    def _intended(self) -> tuple[int | None, str]:
        try:
            number, _, called = self._path.read_text().partition(" ")
            return int(number), called
        except FileNotFoundError:
            return None, ""
        except (OSError, ValueError) as error:
            raise CannotStart(f"{str(self._path)!r} cannot be read: remove it") from error

    def _intend(self, number: int, called: str = "") -> None:
        try:
            atomic.write(self._path, f"{number} {called}".strip().encode())
        except OSError as error:
            raise StoreFailed("the number of the root's key cannot be written", detail=str(error)) from error


def _answer(answer: dict[str, Any], **kind: type) -> Any:
    """The one member of an answer. Raise KeysUnavailable."""
    try:
        [value] = fields(answer, **kind)
    except ValueError as error:
        raise KeysUnavailable(f"the key process sent what is no answer: {error}") from error
    return value


def _certificate(answer: dict[str, Any], name: str) -> x509.Certificate:
    try:
        [content] = fields(answer, **{name: bytes})
        return x509.load_der_x509_certificate(content)
    except ValueError as error:
        raise KeysUnavailable("the key process sent what is no certificate") from error


def _check_signed(signed: x509.Certificate, root: x509.Certificate, trust_domain: TrustDomain) -> None:
    """Raise KeysUnavailable unless what came back is an authority of this trust domain, below this root."""
    try:
        check_authority(signed, trust_domain)
        signed.verify_directly_issued_by(root)
        if signer_id(signed) != key_id(root):
            raise ValueError("it names another signer")
    except (InvalidInput, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
        raise KeysUnavailable("the key process has signed what cannot be used") from error


def _draft(builder: x509.CertificateRevocationListBuilder, subject: x509.Name) -> x509.CertificateRevocationList:
    return builder.issuer_name(subject).sign(_DRAFT, hashes.SHA256())


def _list(answer: dict[str, Any], root: x509.Certificate, entries: int) -> bytes:
    """The list in an answer. Raise KeysUnavailable unless it is of this root, with so many entries."""
    try:
        [content] = fields(answer, list=bytes)
        listed, key = x509.load_der_x509_crl(content), root.public_key()
        good = isinstance(key, ec.EllipticCurvePublicKey) and listed.is_signature_valid(key)
        if not good or listed.issuer != root.subject or len(listed) != entries:
            raise ValueError("it is another list")
    except (ValueError, TypeError) as error:
        raise KeysUnavailable("the key process sent what is no list of this root") from error
    return bytes(content)
