"""The agent's own X.509-SVID, for its node ID: what it shows to validators on other machines."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sojourn.errors import Unavailable
from sojourn.identity.entries import Entry
from sojourn.identity.svid_issuer import SvidIssuer
from sojourn.identity.trust import TrustSource
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


class AgentSvid(Protocol):
    """Where the agent's own SVID is had: a source for TLS contexts. The bundle in it is that of our own trust domain
    and no other.
    """

    @property
    def spiffe_id(self) -> SpiffeId: ...

    def watch(self) -> None:
        """Renew it in time from now on."""

    @property
    def present(self) -> ServerSvid:
        """What to show now. Raise Unavailable if there is none, or not yet."""


class _Showing:
    """What is shown is another object once SVID or bundle is another one."""

    def __init__(self) -> None:
        self._of: tuple[X509Svid, Bundle] | None = None
        self._shown: ServerSvid | None = None

    def of(self, svid: X509Svid, bundle: Bundle) -> ServerSvid:
        if self._shown is None or self._of is None or self._of[0] is not svid or self._of[1] is not bundle:
            shown = X509SvidWithHint(svid.spiffe_id, svid.chain, svid.key)
            context = X509Context((shown,), {bundle.trust_domain: bundle.x509_authorities})
            self._of = svid, bundle
            self._shown = ServerSvid(self._shown.version + 1 if self._shown else 1, context)
        return self._shown


class OwnSvid:
    """Issued, renewed, replaced after a taint and recorded as every SVID in use is, by an entry of its own."""

    def __init__(self, node_id: SpiffeId, authority: TrustSource, issuing: SvidIssuer) -> None:
        self._entry = Entry(ENTRY_ID, node_id, node_id, frozenset())
        self._authority = authority
        self._issuing = issuing
        self._showing = _Showing()

    @property
    def spiffe_id(self) -> SpiffeId:
        return self._entry.spiffe_id

    def watch(self) -> None:
        self._issuing.x509.watch(self._entry.key)

    @property
    def present(self) -> ServerSvid:
        svid, bundle = self._issuing.x509.look(self._entry), self._authority.bundle
        if svid is None:
            self._issuing.x509.begin(self._entry)
            raise Unavailable("the agent's own SVID is being signed: try again")
        return self._showing.of(svid, bundle)


class GivenSvid:
    """The SVID that a server has given this node: whoever gives it renews it."""

    def __init__(self, node_id: SpiffeId, given: Callable[[], X509Svid], trust: TrustSource) -> None:
        """`given` raises Unavailable while there is none."""
        self.spiffe_id = node_id
        self._given = given
        self._trust = trust
        self._showing = _Showing()

    def watch(self) -> None:
        """There is nothing to do."""

    @property
    def present(self) -> ServerSvid:
        return self._showing.of(self._given(), self._trust.bundle)
