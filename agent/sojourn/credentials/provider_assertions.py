"""The JWT-SVIDs that providers are shown: of the workload whose task a credential is for, and each for one call."""

from datetime import timedelta
from typing import Any

from sojourn.audit.journal import Audit
from sojourn.identity.signatures import in_time
from sojourn.identity.svid_signers import Assertion, AssertionSigner
from sojourn.limits import PROVIDER_ASSERTION_SECONDS
from sojourn.providers.provider import Mint
from sojourn.spiffe.ids import SpiffeId

LIFE = timedelta(seconds=PROVIDER_ASSERTION_SECONDS)


class Assertions:
    """Gives each workload its mint."""

    def __init__(self, signer: AssertionSigner, issuer: str, audit: Audit | None = None) -> None:
        """`issuer`: the `iss` of what is signed. `audit`: where it is recorded."""
        self._signer = signer
        self._issuer = issuer
        self._audit = audit

    def of(self, spiffe_id: SpiffeId) -> Mint:
        """What signs for one workload, whoever asks."""

        async def mint(audience: str, **options: Any) -> str:
            asked = Assertion(spiffe_id, audience, LIFE, self._issuer, **options)
            signed = self._signer.at_once(asked)
            if signed is None:
                signed = await in_time(self._signer.sign(asked))
            if self._audit is not None:
                self._audit.note(
                    "assertion_issued",
                    spiffe_id=str(spiffe_id),
                    audience=audience,
                    jti=signed.claims.get("jti") or "",
                    expires_at=int(signed.expires_at.timestamp()),
                )
            return signed.token

        return mint
