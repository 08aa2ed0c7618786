"""An authority that stands, or stood, below an upstream one: what signs, and which roots are in the bundle.

There are four ways to start. Below an upstream authority as before: what was kept signs on. Below one for the first
time, with a root of our own from before: that signs on until the upstream authority's roots were published for long
enough, and stays in the bundle while anything under it may live. Below one from the first start on: nothing signs
before it answers. And no more below one: its last intermediate signs on until our own root was published long enough.
"""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from sojourn.authority.intermediates import Intermediates
from sojourn.authority.kept_intermediates import KeptIntermediates
from sojourn.authority.key_seal import KeySeal
from sojourn.authority.published_roots import PublishedRoots
from sojourn.authority.root_signer import RootSigner
from sojourn.authority.roots import Roots
from sojourn.authority.upstream import UpstreamRoot, UpstreamSetting
from sojourn.errors import SojournError
from sojourn.limits import SVID_TTL_MAX_SECONDS
from sojourn.runtime.clock import Clock
from sojourn.spiffe.ids import TrustDomain

ROOTS_FILE, INTERMEDIATES_FILE = "upstream.json", "intermediates.pem"


class Below:
    """That side of an authority. `upstream` is None when there is none any more."""

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        trust_domain: TrustDomain,
        own: Roots,
        signer: RootSigner,
        setting: UpstreamSetting | None,
        *,
        had_root: bool,
        seal: KeySeal | None,
    ) -> None:
        """`signer`: what signs by `own`. `had_root`: whether these were there before this start. `seal`: what keys are
        sealed with, if they are.

        Raise CannotStart if what is kept cannot be used.
        """
        self._own = own
        self._signer = signer
        self._kept = KeptIntermediates(folder / INTERMEDIATES_FILE, seal)
        self.trust = PublishedRoots(folder / ROOTS_FILE, clock, None if setting is None else setting.lead)
        self.upstream = None if setting is None else UpstreamRoot(setting, trust_domain, signer, self.trust, clock)
        self.root: RootSigner = self.upstream or signer
        if setting is not None and not self.trust.found:
            self.trust.begin(self._own_certificates() if had_root else (), timedelta(seconds=SVID_TTL_MAX_SECONDS))
        elif setting is None:
            self.trust.give(())
            self._publish_own()

    @classmethod
    def of(
        cls,
        folder: Path,
        clock: Clock,
        trust_domain: TrustDomain,
        own: Roots,
        signer: RootSigner,
        setting: UpstreamSetting | None,
        *,
        had_root: bool,
        seal: KeySeal | None = None,
    ) -> "Below | None":
        """None if there is no upstream authority, and nothing is left of one."""
        if setting is None and not (folder / ROOTS_FILE).exists():
            return None
        return cls(folder, clock, trust_domain, own, signer, setting, had_root=had_root, seal=seal)

    def begin(self, issuers: Intermediates) -> None:
        """Have what was kept sign, or an own root that does so still."""
        known = {each.id for each in self.trust.all}
        issuers.keep(self.trust, self._kept)
        issuers.take_over(each for each in self._kept.load() if each.root_id in known)
        if self._bridges(issuers):
            issuers.use_at_once(self._signer)

    async def bridge(self, issuers: Intermediates) -> None:
        """Have an own root that does so still sign, if it has to be waited for; without it the upstream one is."""
        if self._bridges(issuers):
            with suppress(SojournError):
                await issuers.use_waited(self._signer)

    def _bridges(self, issuers: Intermediates) -> bool:
        """Whether nothing signs, and an own root is to until the upstream authority's are known."""
        if self.upstream is None or self.trust.switched or issuers.current is not None or not self._own.are_there:
            return False
        return self._own.active.id in {each.id for each in self.trust.all}

    def tend(self, issuers: Intermediates) -> bool:
        """Take roots out that nothing needs. Return whether nothing is left of an upstream authority."""
        if self.upstream is not None:
            self.trust.forget_unneeded(besides=issuers.under_roots)
            return False
        self._publish_own()
        own = {slot.id for slot in self._own.all}
        self.trust.forget_unneeded(besides=own)
        if issuers.following is not None or {each.id for each in self.trust.all} - own:
            return False
        issuers.keep(None, None)
        self._kept.remove()
        self.trust.remove()
        return True

    def is_upstream(self, root_id: str) -> bool:
        """Whether a root of the bundle is the upstream authority's, and not one of our own."""
        own = {slot.id for slot in self._own.all}
        return root_id not in own and any(each.id == root_id for each in self.trust.all)

    def revoked(self, root_id: str) -> None:
        """An own root is to be trusted no more."""
        self.trust.drop(root_id)

    def certificates(self) -> tuple[x509.Certificate, ...]:
        """The roots of the bundle."""
        if self.upstream is not None:
            return self.trust.certificates
        own = self._own_certificates()
        return (*own, *(each for each in self.trust.certificates if each not in own))

    def root_certificate(self, root_id: str) -> x509.Certificate | None:
        """The certificate of a root that is in the bundle."""
        return next((each.certificate for each in self.trust.all if each.id == root_id), None)

    def due(self, issuers: Intermediates) -> Iterator[datetime]:
        """When there may be something to do."""
        stay = {slot.id for slot in self._own.all} if self.upstream is None else issuers.under_roots
        if (change := self.trust.next_change(besides=stay)) is not None:
            yield change

    def _publish_own(self) -> None:
        for each in self._own_certificates():
            self.trust.publish(each)

    def _own_certificates(self) -> tuple[x509.Certificate, ...]:
        return tuple(slot.key.certificate for slot in self._own.all)
