"""The root whose key is a file of ours: it answers at once. One whose key is in a token does not sign here."""

from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sojourn.authority.key_rotation import Slot
from sojourn.authority.root_signer import IntermediateRequest, SignedIntermediate
from sojourn.authority.roots import Roots, TokenRoot
from sojourn.authority.x509_profile import Signer, signer_id
from sojourn.errors import CannotStart, KeysUnavailable
from sojourn.limits import NOT_BEFORE_SLACK_SECONDS
from sojourn.runtime.clock import Clock

_ELSEWHERE: Final = 'the root\'s key is in a token, and the configuration has not keys.manager = "pkcs11"'


class FileRoot:
    """Signs by the root keys in a file."""

    def __init__(self, roots: Roots, clock: Clock) -> None:
        self._roots = roots
        self._clock = clock

    def root_for(self, asked: IntermediateRequest) -> Slot[Signer | TokenRoot]:
        """The root that is asked. Raise InvalidInput if it is not there."""
        return self._roots.active if not asked.root_id else self._roots.found(asked.root_id)

    def found(self, root_id: str) -> Slot[Signer | TokenRoot]:
        """Raise InvalidInput."""
        return self._roots.found(root_id)

    def at_once(self, asked: IntermediateRequest) -> SignedIntermediate:
        """Raise CannotStart if the root has ended."""
        now = self._clock.now()
        root = self.root_for(asked)
        if isinstance(root.key, TokenRoot):
            raise KeysUnavailable(_ELSEWHERE)
        if root.not_after <= now:
            raise CannotStart("the root certificate has expired: is the clock right?")
        slack = timedelta(seconds=NOT_BEFORE_SLACK_SECONDS)
        public_key = asked.key.public_key()
        signed = root.key.sign_authority(asked.trust_domain, public_key, now - slack, now + asked.ttl)
        return SignedIntermediate((signed,))

    async def sign(self, asked: IntermediateRequest) -> SignedIntermediate:
        return self.at_once(asked)

    def stands(self, chain: tuple[x509.Certificate, ...]) -> bool:
        return signer_id(chain[-1]) == self._roots.active.id

    def list_at_once(self, root_id: str, builder: x509.CertificateRevocationListBuilder) -> bytes | None:
        """None: the root's key is in a token."""
        root = self._roots.found(root_id).key
        return None if isinstance(root, TokenRoot) else root.sign_crl(builder).public_bytes(Encoding.DER)

    async def sign_list(self, root_id: str, builder: x509.CertificateRevocationListBuilder) -> bytes:
        signed = self.list_at_once(root_id, builder)
        if signed is None:
            raise KeysUnavailable(_ELSEWHERE)
        return signed

    async def sign_test(self, root_id: str, nonce: bytes) -> bytes:
        root = self._roots.found(root_id).key
        if isinstance(root, TokenRoot):
            raise KeysUnavailable(_ELSEWHERE)
        return root.sign_test(nonce)
