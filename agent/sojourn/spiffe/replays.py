"""Each DPoP proof once: what was seen, and from when on we know that we saw all."""

import hashlib
import hmac
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Final

from sojourn.errors import LimitExceeded
from sojourn.limits import (
    DPOP_AGE_SECONDS,
    DPOP_NONCE_SECONDS,
    DPOP_PROOFS_OF_ONE,
    DPOP_PROOFS_REMEMBERED,
    DPOP_SKEW_SECONDS,
)
from sojourn.oautherrors import InvalidProof, NonceNeeded
from sojourn.spiffe.dpop import Proof

# On the boot clock: longer than a proof can be good by its iat, and than the nonce in it is.
_REMEMBERED_SECONDS: Final = max(DPOP_AGE_SECONDS + 2 * DPOP_SKEW_SECONDS, 2 * DPOP_NONCE_SECONDS) + 1


class Replays:
    """Claims proofs, each once.

    A proof from before this memory began, or by a wall clock that has been set back since, might have been used
    without our remembering: then it must carry a nonce, which nobody can have had before.
    """

    def __init__(self, now: Callable[[], datetime], boot: Callable[[], float]) -> None:
        self._boot = boot
        self._now = now
        self._secret = secrets.token_bytes(32)
        self._latest = self._began = now().timestamp()  # wall time
        self._seen: OrderedDict[bytes, tuple[float, int | str]] = OrderedDict()  # until when (boot clock), and whose
        self._per: Counter[int | str] = Counter()

    def __len__(self) -> int:
        return len(self._seen)

    def claim(self, proof: Proof, who: int | str) -> None:
        """Take a proof that `dpop.read` found good. Raise InvalidProof if it was used, NonceNeeded, or LimitExceeded.

        `who` sent it, as a uid or a SPIFFE ID: nobody takes all the room there is.
        """
        boot = self._boot()
        self._latest = max(self._latest, self._now().timestamp())
        if proof.nonce is not None:
            given = proof.nonce.encode("utf-8", "surrogatepass")
            if not any(hmac.compare_digest(given, self._nonce(boot, age).encode()) for age in (0, 1)):
                raise NonceNeeded("DPoP proof has a nonce that is over, or not of this server", self.nonce())
        elif int(proof.issued_at) <= self._began or proof.issued_at < self._latest - DPOP_AGE_SECONDS:
            raise NonceNeeded("DPoP proof may be from before this server knew: add its nonce", self.nonce())
        self._forget(boot)
        # With the key in the name nobody uses up what another key's owner will send.
        name = hashlib.sha256(f"{proof.jkt}\0{proof.jti}".encode("utf-8", "surrogatepass")).digest()
        if name in self._seen:
            raise InvalidProof("DPoP proof was used before: make one for each request", reason_code="replayed")
        if len(self._seen) >= DPOP_PROOFS_REMEMBERED or self._per[who] >= DPOP_PROOFS_OF_ONE:
            raise LimitExceeded("too many requests with a DPoP proof within two minutes")
        self._seen[name] = (boot + _REMEMBERED_SECONDS, who)
        self._per[who] += 1

    def nonce(self) -> str:
        """The nonce of now (RFC 9449, 8)."""
        return self._nonce(self._boot(), 0)

    def _nonce(self, boot: float, age: int) -> str:
        period = int(boot // DPOP_NONCE_SECONDS) - age
        return hmac.new(self._secret, str(period).encode(), hashlib.sha256).hexdigest()[:32]

    def _forget(self, boot: float) -> None:
        while self._seen:
            name, (until, who) = next(iter(self._seen.items()))
            if until > boot:
                return
            del self._seen[name]
            self._per[who] -= 1
            if self._per[who] <= 0:
                del self._per[who]
