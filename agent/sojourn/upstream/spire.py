"""A SPIRE server as the authority above the agent's own: the agent is a downstream of it, as a nested SPIRE server is.

The server's bundle has the roots. It is followed, with what is tainted and revoked there.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sojourn._pb.spire.api.server.node.v1 import node_pb2 as pb
from sojourn.authority.root_signer import SignedIntermediate
from sojourn.authority.upstream import Standing
from sojourn.errors import SojournError, Unavailable, UpstreamNotGood
from sojourn.httpclient.lookups import Lookups
from sojourn.limits import ROOT_SECONDS, UPSTREAM_CHAIN, UPSTREAM_ROOTS
from sojourn.runtime.clock import Clock
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.x509svid import X509Svid
from sojourn.upstream.authorized_entries import own_bundle
from sojourn.upstream.connection import ServerConnection
from sojourn.upstream.downstream_identities import DownstreamIdentity, hint_of
from sojourn.upstream.server_addresses import ServerAddresses
from sojourn.upstream.server_link import ServerLink
from sojourn.upstream.unavailable import raise_unavailable

SIGN: Final = "/spire.api.server.svid.v1.SVID/NewDownstreamX509CA"


class _Shown:
    """What a connection shows and trusts, as it was had last."""

    def __init__(self) -> None:
        self.now: tuple[X509Svid, Bundle] | None = None

    @property
    def trusted(self) -> Bundle:
        return self._had[1]

    @property
    def own_svid(self) -> X509Svid:
        return self._had[0]

    async def settled(self) -> None:
        """Another is had before each call."""

    @property
    def _had(self) -> tuple[X509Svid, Bundle]:
        if self.now is None:
            raise Unavailable("there is no X.509-SVID to ask a SPIRE server by")
        return self.now


class SpireUpstream:
    """Asks for an intermediate by `NewDownstreamX509CA`."""

    kind = "spire"

    def __init__(
        self, servers: Sequence[str], trust_domain: TrustDomain, identity: DownstreamIdentity, clock: Clock
    ) -> None:
        """`servers`: each HOST:PORT, of which all addresses are used. Raise InvalidInput for one that is none."""
        self._servers = servers
        self._trust_domain = trust_domain
        self._identity = identity
        self._clock = clock
        self._shown = _Shown()
        self._link = ServerLink(ServerAddresses(servers, Lookups(len(servers))), self._shown)

    async def sign(self, csr: x509.CertificateSigningRequest, ttl: timedelta) -> SignedIntermediate:
        """The server gives less than `ttl` where its own authority has less left."""
        asked = pb.NewDownstreamX509CaRequest(
            csr=csr.public_bytes(Encoding.DER), preferred_ttl=int(ttl.total_seconds())
        )

        async def work(server: ServerConnection) -> pb.NewDownstreamX509CaResponse:
            return await server.unary(SIGN, asked, pb.NewDownstreamX509CaResponse, ROOT_SECONDS)

        try:
            self._shown.now = await self._identity.have()
            answer = await self._link.call(work)
        except SojournError as error:
            raise_unavailable(error, hint_of(error))
        chain = _certificates(answer.ca_cert_chain, UPSTREAM_CHAIN)
        roots = self._living(_certificates(answer.x509_authorities, UPSTREAM_ROOTS))
        # A SPIRE server sets no path length in the authorities that it signs.
        return SignedIntermediate(chain, roots, unlimited=True, revokes=True)

    async def look(self) -> Standing:
        try:
            self._shown.now = await self._identity.have()
            bundle = await self._link.call(lambda server: own_bundle(server, self._trust_domain))
        except SojournError as error:
            raise_unavailable(error, hint_of(error))
        return Standing(None, self._living(bundle.x509_authorities), tainted=bundle.tainted, revokes=True)

    def describe(self) -> Mapping[str, str]:
        return {"servers": ", ".join(self._servers), **self._identity.describe()}

    async def close(self) -> None:
        await self._link.close()
        await self._identity.close()

    def _living(self, roots: Iterable[x509.Certificate]) -> tuple[x509.Certificate, ...]:
        """Those that have not ended: a SPIRE server has the others in its bundle for another day."""
        now = self._clock.now()
        return tuple(each for each in roots if now < each.not_valid_after_utc)


def _certificates(told: Sequence[bytes], most: int) -> tuple[x509.Certificate, ...]:
    if len(told) > most:
        raise UpstreamNotGood(f"what came back has more than {most} certificates in one place")
    try:
        return tuple(map(x509.load_der_x509_certificate, told))
    except ValueError as error:
        raise UpstreamNotGood("what came back has something that is no certificate", detail=str(error)) from error
