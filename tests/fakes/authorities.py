"""The embedded authority in a test's folder, and an issuer that fails when told to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.asymmetric import ec
from fakes.clock import FakeClock
from fakes.registrations import TRUST_DOMAIN
from sojourn.authority import embedded_ca
from sojourn.authority.embedded_ca import EmbeddedAuthority
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.x509svid import X509Svid

DEFAULTS = {
    "root_ttl": timedelta(days=3650),
    "issuer_ttl": timedelta(days=1),
    "jwt_key_ttl": timedelta(days=30),
    "curve": ec.SECP256R1(),
}


def authority_in(folder: Path, clock: FakeClock, **changes: Any) -> EmbeddedAuthority:
    """A real authority of `example.org` whose keys are in `folder`; `changes` are lifetimes, curve or trust domain."""
    arguments = {"trust_domain": TRUST_DOMAIN, **DEFAULTS, **changes}
    return EmbeddedAuthority(arguments.pop("trust_domain"), folder, clock, **arguments)


@contextmanager
def forging() -> Iterator[None]:
    """Within it authorities sign whatever they are asked for, as an attacker's does; ours signs for itself alone."""
    with mock.patch.object(embedded_ca, "check_signable"):
        yield


class FailingIssuer:
    """Signs by another issuer, or raises while `failing`."""

    def __init__(self, issuer: EmbeddedAuthority) -> None:
        self._issuer = issuer
        self.failing = False

    def issue_x509(
        self, spiffe_id: SpiffeId, ttl: timedelta, dns_names: Sequence[str] = (), entry_id: str = ""
    ) -> X509Svid:
        if self.failing:
            raise RuntimeError("the issuer fails")
        return self._issuer.issue_x509(spiffe_id, ttl, dns_names, entry_id)
