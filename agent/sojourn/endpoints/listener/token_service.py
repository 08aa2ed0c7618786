"""The door for clients of the token service on other machines: HTTPS, with or without an X.509-SVID of theirs.

A certificate that a client shows must be an X.509-SVID of our trust domain that is good, is not revoked and may come
in; otherwise there is no connection. The system's certificate store counts for nothing, and no header tells who a
client is.
"""

from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack

from cryptography import x509

from sojourn.endpoints.listener.https import WebDoor, open_web
from sojourn.endpoints.listener.own_svid import AgentSvid
from sojourn.endpoints.listener.tls import Listener, TlsPeer
from sojourn.identity.issued_svids import X509
from sojourn.identity.revocations import Revocations
from sojourn.limits import (
    HTTPS_CONNECTIONS,
    HTTPS_CONNECTIONS_PER_ADDRESS,
    HTTPS_CONNECTIONS_PER_ID,
    HTTPS_DESCRIPTORS_SHARE,
    HTTPS_UNKNOWN_SHARE,
)
from sojourn.runtime.clock import Clock
from sojourn.settings.tables import ListenConfig
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffetls.authorize import Authorize, authorize_member_of
from sojourn.spiffetls.peer import PeerCheck, refuse


class ClientCheck:
    """The check of a client's chain, inside the handshake."""

    def __init__(self, check: PeerCheck, revocations: Revocations) -> None:
        self._check = check
        self._revocations = revocations

    def __call__(self, chain: Sequence[bytes]) -> SpiffeId | None:
        """Its SPIFFE ID; None if it shows no certificate. Raise SSLCertVerificationError."""
        if not chain:
            return None
        spiffe_id = self._check(chain)
        serial = x509.load_der_x509_certificate(chain[0]).serial_number
        if self._revocations.denies(X509, f"{serial:x}", spiffe_id):
            refuse(f"certificate of {str(spiffe_id)!r} is revoked")
        return spiffe_id


class HttpsDoor(WebDoor):
    """The listener and its connections."""

    name = "https"

    def places(self, peer: TlsPeer, connections: int) -> int:
        if peer.spiffe_id is not None:
            return min(HTTPS_CONNECTIONS_PER_ID, max(1, connections // 2))
        if self.unknown >= max(1, int(connections * HTTPS_UNKNOWN_SHARE)) and not self.made_room(peer.address):
            return 0
        return self.places_of_nobody(connections)

    def places_of_nobody(self, connections: int) -> int:
        return min(HTTPS_CONNECTIONS_PER_ADDRESS, max(1, connections // 2))


def open_https(
    listen: ListenConfig,
    door: HttpsDoor,
    own: AgentSvid,
    revocations: Revocations,
    clock: Clock,
    descriptors: int,
    stack: AsyncExitStack,
) -> list[Listener]:
    """Open the listener, if there is to be one. Raise CannotStart.

    Of `descriptors` it takes HTTPS_DESCRIPTORS_SHARE.
    """
    if listen.https is None:
        return []
    authorize = _authorize(own.spiffe_id, listen.https_allowed)
    return [
        open_web(
            "https",
            listen.https,
            (listen.https_certificate, listen.https_key),
            door,
            own,
            lambda context: ClientCheck(PeerCheck(context, authorize), revocations),
            min(HTTPS_CONNECTIONS, max(1, int(descriptors * HTTPS_DESCRIPTORS_SHARE))),
            clock,
            stack,
        )
    ]


def _authorize(own: SpiffeId, allowed: Collection[str] | None) -> Authorize:
    if allowed is None:
        return authorize_member_of(own.trust_domain)
    named = frozenset(SpiffeId.parse(each) for each in allowed)
    return lambda peer: peer in named
