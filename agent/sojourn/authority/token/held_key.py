"""A private key that somebody else holds and that never leaves there, as `cryptography` takes one to sign by."""

from collections.abc import Callable
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from sojourn.errors import KeysUnavailable

SignDigest = Callable[[bytes, hashes.HashAlgorithm], bytes]
_NEVER: Final = "the key does not leave its place"


class HeldKey(ec.EllipticCurvePrivateKey):
    """Signs by `sign`, which is given a digest and what made it, and returns a signature as X.509 has it (DER).

    `sign` raises KeysUnavailable.
    """

    def __init__(self, public: ec.EllipticCurvePublicKey, sign: SignDigest) -> None:
        self._public = public
        self._sign = sign

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public.curve

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Sign, and look whether it is a signature. Raise KeysUnavailable if none comes."""
        algorithm = signature_algorithm.algorithm
        if isinstance(algorithm, Prehashed) or not isinstance(signature_algorithm, ec.ECDSA):
            raise TypeError("what is signed by a held key is given whole")
        digest = hashes.Hash(algorithm)
        digest.update(data)
        signature = self._sign(digest.finalize(), algorithm)
        try:
            self._public.verify(signature, data, signature_algorithm)
        except Exception as error:
            raise KeysUnavailable(f"what came back is no signature by this key: {type(error).__name__}") from error
        return signature

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        raise NotImplementedError(_NEVER)

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        raise NotImplementedError(_NEVER)

    def private_bytes(self, encoding: Any, format: Any, encryption_algorithm: Any) -> bytes:  # noqa: A002
        raise NotImplementedError(_NEVER)

    def __copy__(self) -> "HeldKey":
        return self

    def __deepcopy__(self, memo: object) -> "HeldKey":
        return self
