"""Clients of the token service: who asks, and how that was proved.

By the attested socket, by a JWT-SVID as client assertion (RFC 7523, 2.2), or by an X.509-SVID in mutual TLS (RFC 8705).
There are no shared secrets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Protocol

from sojourn.attestation.peer import Peer
from sojourn.errors import InvalidInput, InvalidSpiffeId, InvalidToken, NoIdentity
from sojourn.errors.oauth import InvalidClient, InvalidProof
from sojourn.identity.entries import Entry
from sojourn.identity.identities import Identities
from sojourn.identity.issued_svids import JWT, X509
from sojourn.limits import JWT_SVIDS_READ_KEPT_PER_ID
from sojourn.net.networks import network_of
from sojourn.oauth.assertion_ids import Assertion
from sojourn.runtime.clock import Clock
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid
from sojourn.tasktoken.sender_constraint import X5T, Binding

SOCKET, ASSERTION, CERTIFICATE = "socket", "assertion", "certificate"  # how a client authenticated
ASSERTION_TYPES: Final = (
    "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
)
AUTH_FIELDS: Final = frozenset({"client_id", "client_assertion", "client_assertion_type", "client_secret"})


@dataclass(frozen=True, slots=True)
class Certificate:
    """The X.509-SVID of a TLS connection, which the listener has checked. `serial`: lower-case hex."""

    spiffe_id: SpiffeId
    serial: str
    thumbprint: str  # x5t#S256
    not_after: datetime


@dataclass(frozen=True, slots=True)
class ClientSender:
    """At the other end of the connection: a process on this machine, or a TLS peer that may have shown an SVID."""

    peer: Peer | None = None
    certificate: Certificate | None = None
    address: str = ""  # of a TLS peer

    @property
    def who(self) -> int | str:
        """Whose limits count before a client has authenticated: a uid, a SPIFFE ID, or where it comes from."""
        if self.peer is not None:
            return self.peer.who
        return str(self.certificate.spiffe_id) if self.certificate is not None else network_of(self.address)

    @property
    def details(self) -> dict[str, int | str]:
        """What else is to be said of it, for log and audit."""
        if self.peer is not None:
            return dict(self.peer.details)
        return {"address": self.address} if self.address else {}


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """What a request says of its client."""

    client_id: str = ""
    unverified_assertion: str = field(default="", repr=False)
    unverified_proof: str | None = None  # DPoP (RFC 9449); an empty header is a proof, and not a good one

    @classmethod
    def read(
        cls, fields: Mapping[str, str], authorization: str | None = None, proofs: Sequence[str] = ()
    ) -> "ClientCredentials":
        """Read what a form's fields, those that have a value, and the headers Authorization and DPoP say of the client.

        Raise InvalidClient, InvalidInput, InvalidProof.
        """
        if len(proofs) > 1:
            raise InvalidProof("the request has more than one DPoP header", reason_code="several_proofs")
        if authorization is not None:
            scheme = authorization.partition(" ")[0][:32]
            raise InvalidClient(
                f"clients do not authenticate by an Authorization header ({scheme!r}): use the agent's socket,"
                " a client_assertion, or an X.509-SVID in TLS"
            )
        if "client_secret" in fields:
            raise InvalidClient(
                "there are no client secrets here: use the agent's socket, a client_assertion, or an X.509-SVID in TLS"
            )
        kind, assertion = fields.get("client_assertion_type"), fields.get("client_assertion", "")
        if (kind is None) != (not assertion):
            raise InvalidInput("client_assertion and client_assertion_type go together")
        if kind is not None and kind not in ASSERTION_TYPES:
            raise InvalidClient(f"client_assertion_type is not {ASSERTION_TYPES[0]}")
        return cls(fields.get("client_id", ""), assertion, *proofs)


@dataclass(frozen=True, slots=True)
class ShownSvid:
    """An SVID that a client has shown: a task that was begun by it ends when it is revoked."""

    kind: str  # JWT | X509
    id: str  # `jti`, or the serial number; '': a JWT-SVID that has none
    expires_at: datetime
    spiffe_id: SpiffeId


@lru_cache(JWT_SVIDS_READ_KEPT_PER_ID)
def ends_of(shown: tuple[ShownSvid, ...]) -> Mapping[tuple[str, str], float]:
    """When SVIDs end, by kind and ID. Tasks that were begun by the same share it."""
    return MappingProxyType({(each.kind, each.id): each.expires_at.timestamp() for each in shown if each.id})


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """A client that has authenticated. `entries`: its registrations, of one SPIFFE ID unless it came by the socket."""

    method: str  # SOCKET | ASSERTION | CERTIFICATE
    entries: tuple[Entry, ...]
    peer: Peer | None = None  # the process, if it came by the socket
    certificate: Certificate | None = None  # of its connection
    svid: ShownSvid | None = None  # by which it authenticated
    assertion: Assertion | None = None  # that it has used up with this request

    @property
    def identities(self) -> tuple[SpiffeId, ...]:
        """Its SPIFFE IDs, the preferred one first."""
        return tuple(dict.fromkeys(entry.spiffe_id for entry in self.entries))

    @property
    def uid(self) -> int | None:
        return self.peer.uid if self.peer is not None else None

    @property
    def who(self) -> int | str:
        """As audit records name it: a uid, or the SPIFFE ID of a client that is no process here."""
        return self.peer.who if self.peer is not None else str(self.identities[0])

    def has(self, spiffe_id: SpiffeId) -> bool:
        return any(entry.spiffe_id == spiffe_id for entry in self.entries)

    def as_only(self, spiffe_id: SpiffeId) -> "OAuthClient":
        """The same client, as one of its identities."""
        own = tuple(entry for entry in self.entries if entry.spiffe_id == spiffe_id)
        return self if len(own) == len(self.entries) else replace(self, entries=own)


class AssertionStore(Protocol):
    """Where it is remembered which assertions were used."""

    async def claim(self, assertions: Sequence[Assertion], now: int) -> None:
        """Use them up, all or none, durably. Raise InvalidGrant if one was used before."""


class Clients:
    """Authenticates clients."""

    def __init__(self, identities: Identities, used: AssertionStore, issuer: str, clock: Clock) -> None:
        self._identities = identities
        self._used = used
        self._issuer = issuer
        self._clock = clock

    async def authenticate(
        self, sender: ClientSender, credentials: ClientCredentials, *, claim: bool = True
    ) -> OAuthClient:
        """Say who the client is. Raise InvalidClient, NoIdentity, AttestationFailed, or what the store raises.

        Its assertion, if it sent one, is used up; without `claim` that is left to the caller, who does it before
        anything is signed.
        """
        client = self._by_assertion(sender, credentials) if credentials.unverified_assertion else None
        if sender.peer is not None:
            client = await self._by_socket(sender.peer, client)
        elif client is None:
            client = self._by_certificate(sender)
        elif sender.certificate is not None and not client.has(sender.certificate.spiffe_id):
            raise InvalidClient("client_assertion is another workload's than the certificate of the connection")
        client = _named(client, credentials.client_id)
        if claim and client.assertion is not None:
            await self.claim([client.assertion])
        return client

    async def claim(self, assertions: Sequence[Assertion]) -> None:
        """Use assertions up, all or none. Raise InvalidGrant if one was used before."""
        distinct = list({each.digest: each for each in assertions}.values())
        if distinct:
            await self._used.claim(distinct, int(self._clock.now().timestamp()))

    def read_assertion(self, unverified_token: str, what: str, audiences: Sequence[str] = ()) -> VerifiedJwtSvid:
        """Verify a JWT-SVID that is for us alone (by default: for our issuer). Raise InvalidToken that names `what`."""
        wanted = tuple(audiences) or (self._issuer,)
        try:
            svid = self._identities.verify_jwt_svid(unverified_token, wanted)
        except InvalidToken as error:
            hint = f"; it must be for {wanted[0]!r}" if error.reason_code == "wrong_audience" else ""
            raise InvalidToken(
                f"{what}: {error.public}{hint}", reason_code=error.reason_code, detail=error.detail
            ) from (error)
        for name in ("act", "may_act"):  # nothing of a chain may be lost in an exchange (RFC 8693, 4.1 and 4.4)
            if name in svid.claims:
                raise InvalidToken(f"{what}: it has {name}; hand a task on instead", reason_code="has_actor")
        if len(svid.audience) != 1:
            raise InvalidToken(f"{what}: it is for others too", reason_code="wrong_audience")
        if svid.expires_at <= self._clock.now():  # the leeway is for clocks of other machines; this token is our own
            raise InvalidToken(f"{what}: token has expired", reason_code="expired")
        return svid

    def check_still(self, client: OAuthClient, svids: Sequence[ShownSvid]) -> OAuthClient:
        """The client with those of its registrations that are what they were. Raise InvalidClient if none is any more,
        or if one of the SVIDs has been revoked meanwhile.
        """
        if any(each.id and self._identities.is_revoked(each.kind, each.id, each.spiffe_id) for each in svids):
            raise InvalidClient("an SVID that the client has shown is revoked")
        entries = self._identities.are_still(client.entries)
        if not entries:
            raise InvalidClient("the client's registration has changed meanwhile: ask again")
        return client if len(entries) == len(client.entries) else replace(client, entries=entries)

    def remote(self, spiffe_id: SpiffeId) -> tuple[Entry, ...]:
        """The registrations of a workload that is not at the socket. Raise InvalidClient if it has none (any more)."""
        entries = self._identities.registered(spiffe_id)
        if not entries:
            raise InvalidClient(f"the client {str(spiffe_id)!r} is not registered")
        return entries

    def _by_assertion(self, sender: ClientSender, credentials: ClientCredentials) -> OAuthClient:
        try:
            svid = self.read_assertion(credentials.unverified_assertion, "client_assertion")
        except InvalidToken as error:
            raise InvalidClient(error.public, detail=error.detail) from error
        entries = (
            self._identities.registered(svid.spiffe_id) if sender.peer is not None else self.remote(svid.spiffe_id)
        )
        return OAuthClient(ASSERTION, entries, sender.peer, sender.certificate, shown(svid), Assertion.of(svid))

    async def _by_socket(self, peer: Peer, asserted: OAuthClient | None) -> OAuthClient:
        """The caller by attestation; what it asserts must be its own."""
        try:
            entries = await self._identities.of(peer)
        except NoIdentity as error:
            raise InvalidClient(
                "the caller has no identity: ask the operator, whom `sojourn explain` tells why"
            ) from error
        if asserted is None:
            return OAuthClient(SOCKET, entries, peer)
        asserted_ids = set(asserted.identities)
        own = tuple(entry for entry in entries if entry.spiffe_id in asserted_ids)
        if not own:
            raise InvalidClient("client_assertion is not the caller's: the caller has no such identity")
        return OAuthClient(ASSERTION, own, peer, None, asserted.svid, asserted.assertion)

    def _by_certificate(self, sender: ClientSender) -> OAuthClient:
        shown_ = sender.certificate
        if shown_ is None:
            raise InvalidClient(
                f"the client did not authenticate: send a client_assertion ({ASSERTION_TYPES[0]}),"
                " or connect with an X.509-SVID"
            )
        gone = self._identities.is_revoked(X509, shown_.serial, shown_.spiffe_id)
        if gone or shown_.not_after <= self._clock.now():
            raise InvalidClient(
                "the X.509-SVID of the connection is revoked, or has ended: connect with the present one"
            )
        svid = ShownSvid(X509, shown_.serial, shown_.not_after, shown_.spiffe_id)
        return OAuthClient(CERTIFICATE, self.remote(shown_.spiffe_id), None, shown_, svid)


def own_names(issuer: str, trust_domain: TrustDomain) -> tuple[str, ...]:
    """The token service's names: a subject token is for one of them and for nobody else; an assertion for the first."""
    return (issuer, f"{issuer}/token", str(trust_domain.id))


def shown(svid: VerifiedJwtSvid) -> ShownSvid:
    """A JWT-SVID as what a client has shown."""
    jti: Any = svid.claims.get("jti")
    return ShownSvid(JWT, jti if isinstance(jti, str) else "", svid.expires_at, svid.spiffe_id)


def _named(client: OAuthClient, client_id: str) -> OAuthClient:
    """The client as the one that it says it is. Raise InvalidClient if it is not."""
    if not client_id:
        return client
    try:
        spiffe_id = SpiffeId.parse(client_id)
    except InvalidSpiffeId as error:
        raise InvalidClient(f"client_id is not a SPIFFE ID: {error.public}") from error
    if not client.has(spiffe_id):
        raise InvalidClient("client_id is not the client's: leave it out, or give its SPIFFE ID")
    return client.as_only(spiffe_id)


def bound_to(client: OAuthClient, proof: Binding | None) -> Binding | None:
    """To what the token is bound: the key of a proof, or the certificate that the client authenticated by."""
    if proof is not None or client.method != CERTIFICATE:
        return proof
    return to_certificate(client)


def to_certificate(client: OAuthClient) -> Binding:
    """The binding to the certificate of a client that has one."""
    assert client.certificate is not None
    return Binding(X5T, client.certificate.thumbprint, client.certificate.not_after)
