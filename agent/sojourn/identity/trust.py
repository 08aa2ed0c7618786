"""What verifies SVIDs of our own trust domain: its bundle, whoever signs by it."""

from typing import Protocol

from sojourn.runtime.hooks import Hooks
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import TrustDomain


class TrustSource(Protocol):
    """Has the bundle of our trust domain as it is now; it is another object once it says anything else."""

    @property
    def trust_domain(self) -> TrustDomain: ...

    @property
    def bundle(self) -> Bundle: ...

    @property
    def on_change(self) -> Hooks[[]]:
        """Told when the bundle is another one."""
