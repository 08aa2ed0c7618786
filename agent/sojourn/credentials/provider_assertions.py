"""The JWT-SVIDs that providers are shown: of the workload whose task a credential is for, and each for one call."""

from datetime import timedelta
from typing import Any

from sojourn.audit.journal import Audit
from sojourn.authority.embedded_ca import EmbeddedAuthority
from sojourn.limits import PROVIDER_ASSERTION_SECONDS
from sojourn.providers.provider import Mint
from sojourn.spiffe.ids import SpiffeId

LIFE = timedelta(seconds=PROVIDER_ASSERTION_SECONDS)


class Assertions:
    """Gives each workload its mint."""

    def __init__(self, authority: EmbeddedAuthority, issuer: str, audit: Audit | None = None) -> None:
        """`issuer`: the `iss` of what is signed. `audit`: where it is recorded."""
        self._authority = authority
        self._issuer = issuer
        self._audit = audit

    def of(self, spiffe_id: SpiffeId) -> Mint:
        """What signs for one workload, whoever asks."""

        def mint(audience: str, **options: Any) -> str:
            signed = self._authority.issue_assertion(spiffe_id, audience, LIFE, issuer=self._issuer, **options)
            if self._audit is not None:
                self._audit.note(
                    "assertion_issued",
                    spiffe_id=str(spiffe_id),
                    audience=audience,
                    jti=signed.claims["jti"],
                    expires_at=int(signed.expires_at.timestamp()),
                )
            return signed.token

        return mint
