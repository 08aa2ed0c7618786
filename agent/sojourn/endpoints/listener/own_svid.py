"""The agent's own X.509-SVID, for its node ID: what it shows to validators on other machines."""

from dataclasses import dataclass

from sojourn.authority.embedded_ca import EmbeddedAuthority
from sojourn.identity.entries import Entry
from sojourn.identity.svid_issuer import SvidIssuer
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.x509svid import X509Svid
from sojourn.workloadapi.messages import X509Context, X509SvidWithHint

ENTRY_ID = "agent/listener"  # no registered entry can have a slash in its ID


@dataclass(frozen=True, slots=True)
class ServerSvid:
    """What is shown at one moment, and the authorities that vouch for others."""

    version: int
    context: X509Context


class OwnSvid:
    """Issued, renewed, replaced after a taint and recorded as every SVID in use is; a source for TLS contexts.

    The bundle in it is that of our own trust domain and no other.
    """

    def __init__(self, node_id: SpiffeId, authority: EmbeddedAuthority, issuing: SvidIssuer) -> None:
        self._entry = Entry(ENTRY_ID, node_id, node_id, frozenset())
        self._authority = authority
        self._issuing = issuing
        self._of: tuple[X509Svid, Bundle] | None = None
        self._shown: ServerSvid | None = None

    @property
    def spiffe_id(self) -> SpiffeId:
        return self._entry.spiffe_id

    def watch(self) -> None:
        """Renew it in time from now on."""
        self._issuing.x509.watch(self._entry.key)

    @property
    def present(self) -> ServerSvid:
        """What to show now. Raise Unavailable if no SVID can be issued."""
        svid, bundle = self._issuing.x509.get(self._entry), self._authority.bundle
        if self._shown is None or self._of is None or self._of[0] is not svid or self._of[1] is not bundle:
            shown = X509SvidWithHint(svid.spiffe_id, svid.chain, svid.key)
            context = X509Context((shown,), {bundle.trust_domain: bundle.x509_authorities})
            self._of = svid, bundle
            self._shown = ServerSvid(self._shown.version + 1 if self._shown else 1, context)
        return self._shown
