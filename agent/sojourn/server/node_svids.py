"""SVIDs of entries, signed for nodes: for keys that the nodes have made, and for nobody's entry but the node's own."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

from sojourn.audit.journal import Audit
from sojourn.authority.x509_profile import signer_id
from sojourn.errors import InvalidInput, NotFound
from sojourn.identity.entries import Entry
from sojourn.limits import AUDITED_AUDIENCES, AUDITED_TEXT
from sojourn.server.authorized_entries import AuthorizedEntries
from sojourn.server.certificate_requests import key_of
from sojourn.server.node_records import Node
from sojourn.server.nodes import Chain, Nodes, NodeSigner
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid


class SvidSigner(NodeSigner, Protocol):
    """What signs SVIDs of either kind."""

    def issue_jwt(
        self,
        spiffe_id: SpiffeId,
        audience: Sequence[str],
        ttl: timedelta,
        claims: Mapping[str, Any] | None = ...,
        entry_id: str = ...,
    ) -> VerifiedJwtSvid: ...


class NodeSvids:
    """Signs, and records for which node. The TTLs are for entries that name none."""

    def __init__(
        self,
        signer: SvidSigner,
        nodes: Nodes,
        authorized: AuthorizedEntries,
        x509_ttl: timedelta,
        jwt_ttl: timedelta,
        audit: Audit,
        recordable: Callable[[SpiffeId], None],
    ) -> None:
        """`recordable` raises AuditFull or LimitExceeded if no further issue may be recorded of a SPIFFE ID."""
        self._signer = signer
        self._nodes = nodes
        self._authorized = authorized
        self._x509_ttl = x509_ttl
        self._jwt_ttl = jwt_ttl
        self._audit = audit
        self._recordable = recordable

    def sign_x509(self, node: Node, entry_id: str, request: bytes) -> tuple[Entry, Chain]:
        """Sign for the key of a certificate request; what else that says does not count.

        Raise InvalidInput, NotFound for an entry that is not the node's, AgentDenied, Unavailable.
        """
        if not entry_id:
            raise InvalidInput("missing entry ID")
        if not request:
            raise InvalidInput("missing CSR")
        entry = self._entry(node, entry_id)
        key = key_of(request, "malformed CSR", "invalid CSR signature")
        ttl = timedelta(seconds=entry.x509_svid_ttl) or self._x509_ttl
        chain = self._signer.sign_x509(entry.spiffe_id, key, ttl, entry.dns_names, entry.id)
        leaf = chain[0]
        self._audit.note(
            "x509_svid_issued",
            entry_id=entry.id,
            spiffe_id=str(entry.spiffe_id),
            serial=f"{leaf.serial_number:x}",
            expires_at=int(leaf.not_valid_after_utc.timestamp()),
            issuer_id=signer_id(leaf),
            root_id=signer_id(chain[-1]),
            node=str(node.spiffe_id),
        )
        return entry, chain

    def sign_jwt(self, node: Node, entry_id: str, audience: Sequence[str]) -> VerifiedJwtSvid:
        """Raise NotFound for an entry that is not the node's, AgentDenied, Unavailable, AuditFull."""
        entry = self._entry(node, entry_id)
        self._recordable(entry.spiffe_id)
        ttl = timedelta(seconds=entry.jwt_svid_ttl) or self._jwt_ttl
        svid = self._signer.issue_jwt(entry.spiffe_id, audience, ttl, entry.jwt_claims.signable, entry.id)
        self._audit.note(
            "jwt_svid_issued",
            spiffe_id=str(entry.spiffe_id),
            entry_id=entry.id,
            audience=[each[:AUDITED_TEXT] for each in svid.audience[:AUDITED_AUDIENCES]],
            jti=svid.claims["jti"],
            expires_at=svid.claims["exp"],
            node=str(node.spiffe_id),
        )
        return svid

    def _entry(self, node: Node, entry_id: str) -> Entry:
        self._nodes.check_stands(node)
        entry = self._authorized.of(node).get(entry_id)
        if entry is None:
            raise NotFound("entry not found or not authorized")
        return entry
