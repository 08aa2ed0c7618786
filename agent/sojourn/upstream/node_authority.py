"""A SPIRE server's authority, as its node sees it: the bundle, and nothing that could sign."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, NoReturn, Protocol

from cryptography import x509

from sojourn.authority.crl import RevokedLeaf
from sojourn.authority.key_rotation import Slot, Slots
from sojourn.authority.root_tests import RootTest
from sojourn.authority.upstream_roots import UpstreamRoots
from sojourn.authority.x509_profile import known_signer_id
from sojourn.errors import HeldByServer
from sojourn.jose.jws import PublicKey
from sojourn.runtime.hooks import Hooks
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.x509svid import X509Svid
from sojourn.upstream.vouching import authority_id

# SPIRE publishes a key long before it signs, its very first one apart.
_PUBLISHED_BEFORE = timedelta(minutes=10)
_ALGORITHMS = ("ES256", "RS256")  # while the bundle has no key: those of SPIRE


class TrustedNode(Protocol):
    """What there is to verify by, and this node's own SVID."""

    @property
    def bundle(self) -> Bundle: ...

    @property
    def svid(self) -> X509Svid | None:
        """None: it has not joined yet."""

    @property
    def on_bundle(self) -> Hooks[[Bundle, frozenset[str]]]:
        """Told of another bundle, and which authorities are tainted or gone since."""


class NodeAuthority:
    """Has the server's bundle. What changes keys is the server's to do: HeldByServer names its command."""

    kind = "spire"
    stamps = False
    kinds: tuple[str, ...] = ()  # of keys here
    upstream = None  # its SVIDs are signed by the server itself
    upstream_roots = UpstreamRoots()

    def __init__(self, node: TrustedNode) -> None:
        self._node = node
        self.order = 0  # serial numbers are the server's, and say nothing
        self.on_change: Hooks[[]] = Hooks()
        self.on_list: Hooks[[]] = Hooks()  # of CRLs, which there are none of
        node.on_bundle(lambda _bundle, _lost: self.on_change.tell())

    @property
    def trust_domain(self) -> TrustDomain:
        return self.bundle.trust_domain

    @property
    def bundle(self) -> Bundle:
        return self._node.bundle

    @property
    def jwt_keys(self) -> Mapping[str, PublicKey]:
        return self.bundle.jwt_authorities

    @property
    def jwt_algorithms(self) -> tuple[str, ...]:
        return tuple(sorted({key.signs_by for key in self.jwt_keys.values()})) or _ALGORITHMS

    @property
    def jwt_key_overlap(self) -> timedelta:
        return _PUBLISHED_BEFORE

    @property
    def intermediates(self) -> tuple[x509.Certificate, ...]:
        """Those of this node's own SVID: the servers sign its workloads' by the same."""
        svid = self._node.svid
        return () if svid is None else tuple(svid.chain[1:])

    @property
    def issuer(self) -> x509.Certificate:
        """The authority that has signed this node's own SVID."""
        return self.intermediates[0] if self.intermediates else self.root

    @property
    def root(self) -> x509.Certificate:
        """The one of the bundle that it chains to."""
        wanted = "" if self._node.svid is None else self.root_of(self._node.svid)
        found = (each for each in self.bundle.x509_authorities if authority_id(each) == wanted)
        return next(found, self.bundle.x509_authorities[0])

    @property
    def whole_chain(self) -> tuple[x509.Certificate, ...]:
        return (*self.intermediates, self.root)

    def root_of(self, svid: X509Svid) -> str:
        """The ID of the first authority of the bundle that an X.509-SVID chains to. Empty: its chain does not say."""
        known = {authority_id(each) for each in self.bundle.x509_authorities}
        signers = [known_signer_id(each) for each in svid.chain]
        return next((each for each in signers if each in known), signers[-1])

    def sign_crls(self, _revoked: Iterable[RevokedLeaf]) -> tuple[bytes, ...]:
        """None: that takes the server's key. What is revoked here is refused here."""
        return ()

    # --- keys: there are none here ---

    def slots(self, _kind: str) -> Slots[Any]:
        return self._refuse("show")

    async def prepare_waited(self, _kind: str) -> Slot[Any]:
        return self._refuse("prepare")

    async def activate(self, _kind: str, _authority_id: str) -> Slot[Any]:
        return self._refuse("activate")

    async def try_roots(self) -> tuple[RootTest, ...]:
        return self._refuse("show")

    def taint(self, _kind: str, _authority_id: str) -> Slot[Any]:
        return self._refuse("taint")

    def replace(self, _kind: str, _authority_id: str) -> Slot[Any]:
        return self._refuse("taint")

    def revoke(self, _kind: str, _authority_id: str) -> Slot[Any]:
        return self._refuse("revoke")

    def _refuse(self, step: str) -> NoReturn:
        raise HeldByServer(
            f"this agent is a node and has no keys of an authority: run `spire-server localauthority x509 {step}`, or"
            f" `… jwt {step}`, at the server"
        )
