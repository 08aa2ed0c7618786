"""Each DPoP proof once: what was seen, and from when on we know that we saw all."""

import hashlib
import hmac
import math
import secrets
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Final

from sojourn.errors import LimitExceeded
from sojourn.errors.oauth import InvalidProof, NonceNeeded
from sojourn.limits import (
    DPOP_AGE_SECONDS,
    DPOP_NONCE_SECONDS,
    DPOP_PROOFS_OF_ONE,
    DPOP_PROOFS_REMEMBERED,
    DPOP_SKEW_SECONDS,
)
from sojourn.quota.usage import Usage
from sojourn.tasktoken.dpop import Proof

# On the boot clock: longer than a proof can be good by its iat, and than the nonce in it is.
_REMEMBERED_SECONDS: Final = max(DPOP_AGE_SECONDS + 2 * DPOP_SKEW_SECONDS, 2 * DPOP_NONCE_SECONDS) + 1


class Replays:
    """Claims proofs, each once.

    A proof that is no newer than one which may have been forgotten might have been used: before this memory began, by
    a wall clock that was set back since, or before so many that there was no room. Then it must carry a nonce, which
    nobody can have had before. So must any proof while this memory is younger than a proof can be good for, whatever
    its iat says: the wall clock may have been set back just before. By then the token of such a proof has ended too.
    """

    def __init__(self, now: Callable[[], datetime], boot: Callable[[], float]) -> None:
        self._boot = boot
        self._now = now
        self._secret = secrets.token_bytes()
        self._whole = boot() + DPOP_AGE_SECONDS + DPOP_SKEW_SECONDS  # from then on a proof without a nonce may be good
        # The greatest iat of what was used and is remembered no more. Before the start nobody was further ahead.
        self._latest = now().timestamp()  # wall time
        self._newest = self._forgotten = self._latest + DPOP_SKEW_SECONDS
        # Until when (boot clock), iat, and whose.
        self._seen: OrderedDict[bytes, tuple[float, float, int | str]] = OrderedDict()
        self._per = Usage[int | str]()

    def __len__(self) -> int:
        return len(self._seen)

    def claim(self, proof: Proof, who: int | str) -> None:
        """Take a proof that `dpop.read` found good. Raise InvalidProof if it was used, NonceNeeded, or LimitExceeded.

        `who` sent it, as a uid or a SPIFFE ID: nobody takes all the room there is.
        """
        boot = self._boot()
        self._forget(boot)
        self._latest = max(self._latest, self._now().timestamp())
        if proof.nonce is not None:
            given = proof.nonce.encode(errors="surrogatepass")
            if not any(hmac.compare_digest(given, self._nonce(boot, age).encode()) for age in (0, 1)):
                raise NonceNeeded("DPoP proof has a nonce that is over, or not of this server", self.nonce())
        elif boot < self._whole or proof.issued_at <= max(self._forgotten, self._latest - DPOP_AGE_SECONDS - 1):
            raise NonceNeeded("DPoP proof may be from before this server knew: add its nonce", self.nonce())
        # With the key in the name nobody uses up what another key's owner will send.
        name = hashlib.sha256(f"{proof.jkt}\0{proof.jti}".encode(errors="surrogatepass")).digest()
        if name in self._seen:
            raise InvalidProof("DPoP proof was used before: make one for each request", reason_code="replayed")
        if self._per[who] >= DPOP_PROOFS_OF_ONE:
            raise LimitExceeded("too many requests with a DPoP proof within two minutes")
        self._newest = max(self._newest, proof.issued_at)
        self._seen[name] = boot + _REMEMBERED_SECONDS, proof.issued_at, who
        self._per.add(who)
        if len(self._seen) > DPOP_PROOFS_REMEMBERED:  # those who fill it together keep nobody out
            self._forget_all()

    def nonce(self) -> str:
        """The nonce of now (RFC 9449, 8)."""
        return self._nonce(self._boot(), 0)

    def _nonce(self, boot: float, age: int) -> str:
        period = math.floor(boot / DPOP_NONCE_SECONDS) - age
        return hmac.new(self._secret, str(period).encode(), hashlib.sha256).hexdigest()[:32]

    def _forget(self, boot: float) -> None:
        while self._seen:
            name, (until, issued_at, who) = next(iter(self._seen.items()))
            if until > boot:
                return
            self._forgotten = max(self._forgotten, issued_at)
            del self._seen[name]
            self._per.remove(who)

    def _forget_all(self) -> None:
        """Begin anew: the nonces that were used with what is forgotten are none any more."""
        self._secret = secrets.token_bytes()
        self._forgotten = self._newest
        self._seen = OrderedDict()
        self._per.clear()
