"""What a node does not keep, since its server does: entries, and the bundles of other trust domains.

Whatever would change them here is refused at the door already; this is what stands behind that.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from cryptography import x509

from sojourn.audit.journal import Event
from sojourn.errors import HeldByServer
from sojourn.identity.entries import Registration
from sojourn.identity.svid_signers import MintedLeaf
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid


class NoEntries:
    """None is stored here."""

    def load(self) -> list[Registration]:
        return []

    async def write(
        self, _put: Sequence[Registration], _remove: Sequence[str], _events: Sequence[Event] = ()
    ) -> NoReturn:
        raise HeldByServer("this agent is a node, and its entries are the server's: run `spire-server entry` there")


class NoForeign:
    """Neither bundles nor relationships are stored here."""

    def load(self) -> tuple[list[Bundle], dict[TrustDomain, dict[str, Any]]]:
        return [], {}

    async def put_bundle(self, _bundle: Bundle, _events: Sequence[Event] = ()) -> NoReturn:
        self._refuse()

    async def remove_bundle(self, _trust_domain: TrustDomain, _events: Sequence[Event] = ()) -> NoReturn:
        self._refuse()

    async def put_relationship(
        self, _trust_domain: TrustDomain, _document: Mapping[str, Any], _events: Sequence[Event] = ()
    ) -> NoReturn:
        self._refuse()

    async def remove_relationship(self, _trust_domain: TrustDomain, _events: Sequence[Event] = ()) -> NoReturn:
        self._refuse()

    async def record(self, _events: Sequence[Event]) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise HeldByServer(
            "this agent is a node, and other trust domains' bundles are the server's: run `spire-server bundle` or"
            " `spire-server federation` there"
        )


class NoMinting:
    """A server signs for a node by entries alone."""

    async def sign_x509(self, _asked: MintedLeaf) -> tuple[x509.Certificate, ...]:
        raise HeldByServer("this agent is a node, and signs nothing: run `spire-server x509 mint` at the server")

    async def sign_jwt(self, _spiffe_id: SpiffeId, _audience: Sequence[str], _ttl: object) -> VerifiedJwtSvid:
        raise HeldByServer("this agent is a node, and signs nothing: run `spire-server jwt mint` at the server")
