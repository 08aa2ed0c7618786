"""What the key process signs: roots of its trust domain, intermediates below them, and lists in their names.

It is given no bytes to sign. It builds a certificate or list itself, of what it is asked for and of what it was told at
the start, and has no way to build another.
"""

import re
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from sojourn.authority import crl
from sojourn.authority.token.settings import TokenSettings
from sojourn.authority.x509_profile import TEST_NONCE_BYTES, Signer, is_issuer_name, self_sign
from sojourn.errors import FailedPrecondition, InvalidInput, LimitExceeded, SojournError
from sojourn.limits import (
    NOT_BEFORE_SLACK_SECONDS,
    REVOKED_SVIDS,
    ROOT_LISTS_AN_HOUR,
    ROOT_SIGNATURES_AN_HOUR,
    ROOT_TESTS_AN_HOUR,
)
from sojourn.spiffe.x509svid import check_authority

HOUR_SECONDS: Final = 3600.0
CURVES: Final = (ec.SECP256R1, ec.SECP384R1)
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")
_Leaves = list[tuple[int, datetime, x509.Name]]


class Keys(Protocol):
    """Where private keys are, each with a label. All raise KeysUnavailable."""

    def next_number(self, prefix: str) -> int:
        """One that no key has whose label is `prefix` and a number. Raise FailedPrecondition if there are too many."""

    def find(self, label: str) -> ec.EllipticCurvePrivateKey | None:
        """None: there is none."""

    def create(self, label: str, curve: ec.EllipticCurve) -> str:
        """Make a key. Return what it is called until it has its label; empty: it has that already."""

    def name(self, label: str, made: str) -> None:
        """Give a key its label, by what `create` has returned."""


class Builder:
    """Builds and signs by the keys of one node. All that is asked wrongly raises InvalidInput."""

    def __init__(
        self,
        keys: Keys,
        settings: TokenSettings,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        boot: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._keys = keys
        self._settings = settings
        self._now = now
        self._boot = boot
        self._all: deque[float] = deque()
        self._lists: deque[float] = deque()
        self._tests: deque[float] = deque()

    def next_number(self) -> int:
        """The number of a key that is not there. Raise FailedPrecondition if there are too many."""
        return self._keys.next_number(self._settings.prefix)

    def create(self, number: int) -> str:
        """Make the key of this number, unless it is there. Return what it is called until it has its label, if that."""
        label = self._label(number)
        if self._keys.find(label) is not None:
            return ""
        if number != self.next_number():
            raise InvalidInput("the next key has the next number")
        self._check_rate(self._all, ROOT_SIGNATURES_AN_HOUR)
        return self._keys.create(label, self._settings.curve)

    def make(self, number: int, made: str) -> tuple[x509.Certificate, str]:
        """A root by the key of this number, and the label of that key. `made`: what `create` has returned."""
        label = self._label(number)
        key = self._keys.find(label)
        if key is None and made:
            self._keys.name(label, made)
            key = self._keys.find(label)
        if key is None:
            raise FailedPrecondition(f"there is no key {label!r}, and it was said that it was made")
        self._count(self._all, ROOT_SIGNATURES_AN_HOUR)
        now, slack = self._now(), timedelta(seconds=NOT_BEFORE_SLACK_SECONDS)
        return self_sign(self._settings.trust_domain, key, now - slack, now + self._settings.root_ttl), label

    def sign(self, root: bytes, label: str, public_key: bytes, ttl: int) -> x509.Certificate:
        """An intermediate for a public key (SubjectPublicKeyInfo), that lives for `ttl` seconds."""
        if not 0 < ttl <= self._settings.issuer_ttl.total_seconds():
            raise InvalidInput(f"an intermediate may live for {self._settings.issuer_ttl} at the most")
        try:
            key = load_der_public_key(public_key)
        except ValueError as error:
            raise InvalidInput("the public key cannot be parsed") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
            raise InvalidInput("the public key is neither P-256 nor P-384")
        signer = self._signer(root, label)
        self._count(self._all, ROOT_SIGNATURES_AN_HOUR)
        now, slack = self._now(), timedelta(seconds=NOT_BEFORE_SLACK_SECONDS)
        return signer.sign_authority(self._settings.trust_domain, key, now - slack, now + timedelta(seconds=ttl))

    def list(self, root: bytes, label: str, draft: bytes) -> x509.CertificateRevocationList:
        """A list of those leaves that a draft names: DER, signed by anybody."""
        leaves = self._leaves(draft)
        signer = self._signer(root, label)
        self._check_rate(self._all, ROOT_SIGNATURES_AN_HOUR)
        self._count(self._lists, ROOT_LISTS_AN_HOUR)
        self._count(self._all, ROOT_SIGNATURES_AN_HOUR)
        return signer.sign_crl(crl.indirect_list(leaves, self._now()))

    def _label(self, number: int) -> str:
        if not 0 < number < 10**9:
            raise InvalidInput("a key's number is from 1 on")
        return f"{self._settings.prefix}{number}"

    def test(self, root: bytes, label: str, nonce: bytes) -> bytes:
        """A signature of a text that is of no use to anybody."""
        if len(nonce) != TEST_NONCE_BYTES:
            raise InvalidInput(f"a test is of {TEST_NONCE_BYTES} bytes")
        signer = self._signer(root, label)
        self._count(self._tests, ROOT_TESTS_AN_HOUR)
        return signer.sign_test(nonce)

    def _leaves(self, draft: bytes) -> _Leaves:
        """What a draft lists. Raise InvalidInput if that is more, or something else, than such lists have."""
        try:
            listed = x509.load_der_x509_crl(draft)
            if len(listed) > REVOKED_SVIDS:
                raise InvalidInput(f"a list has {REVOKED_SVIDS} certificates at the most")
            return [self._leaf(each) for each in listed]
        except (ValueError, TypeError) as error:
            raise InvalidInput("the draft of a list cannot be parsed") from error

    def _leaf(self, entry: x509.RevokedCertificate) -> tuple[int, datetime, x509.Name]:
        if [each.oid for each in entry.extensions] != [x509.CertificateIssuer.oid]:
            raise InvalidInput("an entry of a list says who signed the certificate, and nothing else")
        said = entry.extensions.get_extension_for_class(x509.CertificateIssuer).value
        names = said.get_values_for_type(x509.DirectoryName)
        if (
            len(names) != len(list(said))
            or len(names) != 1
            or not is_issuer_name(self._settings.trust_domain, names[0])
        ):
            raise InvalidInput("an entry of a list names an intermediate of this trust domain")
        return entry.serial_number, entry.revocation_date_utc, names[0]

    def _signer(self, root: bytes, label: str) -> Signer:
        """The root that a certificate is of, by its key: it must have signed that certificate itself."""
        if not label.startswith(self._settings.prefix) or not _NUMBER.fullmatch(label[len(self._settings.prefix) :]):
            raise InvalidInput("the key is not one of this node's roots")
        try:
            certificate = x509.load_der_x509_certificate(root)
            check_authority(certificate, self._settings.trust_domain)
            certificate.verify_directly_issued_by(certificate)
        except SojournError:
            raise
        except (ValueError, TypeError, InvalidSignature) as error:
            raise InvalidInput("the root certificate is none, or was not signed by its own key") from error
        key = self._keys.find(label)
        if key is None:
            raise FailedPrecondition(f"the token has no key {label!r}: if it is gone, rotate to another root")
        if key.public_key() != certificate.public_key():
            raise FailedPrecondition(f"the token's key {label!r} is not that of the root certificate")
        return Signer(certificate, key)

    def _check_rate(self, times: deque[float], most: int) -> None:
        """Raise LimitExceeded if so many were signed within the last hour."""
        now = self._boot()
        while times and times[0] <= now - HOUR_SECONDS:
            times.popleft()
        if len(times) >= most:
            wait = times[0] + HOUR_SECONDS - now
            raise LimitExceeded(f"roots sign so {most} times an hour at the most: the next time in {wait:.0f} s")

    def _count(self, times: deque[float], most: int) -> None:
        self._check_rate(times, most)
        times.append(self._boot())


def encoded(made: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return made.public_bytes(Encoding.DER)
