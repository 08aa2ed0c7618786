"""What doors on TCP have in common: TLS, limits for those who are not known yet, and the end of a certificate's time.

TLS ends here. A certificate that a peer shows is checked by our own rules inside the handshake.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

import structlog
from cryptography import x509

from sojourn.endpoints.listener.eviction import makes_room
from sojourn.endpoints.listener.protocol_switch import Caller, Doorway
from sojourn.endpoints.listener.refusals import Refusal
from sojourn.errors import CannotStart, InvalidSvid, SojournError, SvidExpired, SvidRefused, Unavailable
from sojourn.identity.issued_svids import X509
from sojourn.identity.revocations import Revocations
from sojourn.identity.trust import TrustSource
from sojourn.limits import (
    CHAINS_CHECKED_AT_ONCE,
    LISTEN_BACKLOG,
    REFUSALS_LOGGED_PER_SECOND,
    REMOTE_CONNECTIONS,
    REMOTE_HANDSHAKE_SECONDS,
    REMOTE_HANDSHAKES,
    REMOTE_HANDSHAKES_PER_ADDRESS,
    REMOTE_LINGER_SECONDS,
)
from sojourn.net.networks import network_of
from sojourn.quota.rate import Rate
from sojourn.quota.usage import Usage
from sojourn.runtime.clock import Alarm, Alarms, Clock
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.x509svid import verify_chain
from sojourn.spiffetls.peer import CheckedObject, CheckedSocket
from sojourn.spiffetls.tcp import set_options

log = structlog.get_logger()
ACCEPT_RETRY_SECONDS = 0.1  # when no descriptor is left


@dataclass(slots=True, eq=False)
class TlsPeer:
    """Who is at the other end of a TLS connection, by its X.509-SVID if it showed one. `over`: why nothing is answered
    any more.
    """

    spiffe_id: SpiffeId | None
    chain: tuple[x509.Certificate, ...]
    address: str
    over: SojournError | None = None
    expiry: Alarm | None = None

    @property
    def who(self) -> str:
        return str(self.spiffe_id) if self.spiffe_id is not None else network_of(self.address)

    @property
    def serial(self) -> str:
        """The serial number of its leaf, lower-case hex."""
        return f"{self.chain[0].serial_number:x}"

    @property
    def not_after(self) -> datetime:
        return self.chain[0].not_valid_after_utc

    @property
    def details(self) -> dict[str, str]:
        return {**({"serial": self.serial} if self.chain else {}), "address": self.address}


class TlsCaller(Caller[TlsPeer]):
    """The outward side of one TLS connection, which cannot be open in one direction only."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


class TlsDoor(Doorway[TlsPeer]):
    """A listener and its connections."""

    name: ClassVar[str]  # as the log and the configuration have it

    def __init__(
        self,
        authority: TrustSource,
        revocations: Revocations,
        clock: Clock,
        alarms: Alarms,
    ) -> None:
        super().__init__()
        self._context: ssl.SSLContext | None = None
        self._authority = authority
        self._revocations = revocations
        self._clock = clock
        self._alarms = alarms
        self._connections = REMOTE_CONNECTIONS
        self._peers_of: dict[Caller[TlsPeer], TlsPeer] = {}
        self._per = Usage[str]()  # of each SPIFFE ID, and of each network of those who have none
        self.unknown = 0  # connections on which no SVID was shown
        self._handshakes: dict[asyncio.Task[None], str] = {}  # with the address that the peer comes from
        self._refusals = Rate(REFUSALS_LOGGED_PER_SECOND)
        self._accepting: asyncio.Task[None] | None = None
        self._roots = frozenset(authority.bundle.x509_authorities)
        revocations.on_change(self._check_revoked)
        authority.on_change(self._check_authorities)

    def open(self, listener: socket.socket, context: ssl.SSLContext, *, connections: int) -> None:
        """Begin to accept on a listening socket that does not block. `connections`: so many at most."""
        self._connections = connections
        self._context = context
        self._accepting = asyncio.ensure_future(self._accept(listener))

    def stop_accepting(self) -> None:
        for task in (self._accepting, *self._handshakes):
            if task is not None:
                task.cancel()

    def end_all(self, error: SojournError) -> None:
        """Let each connection end: its streams say why."""
        for caller in list(self._peers_of):
            self.end(caller, error)

    # --- for each kind of door --------------------------------------------------------------------------------------

    def places(self, peer: TlsPeer, connections: int) -> int:
        """How many connections whoever counts as the same as this peer may have, where there are `connections`."""
        raise NotImplementedError

    def idle(self, peer: TlsPeer) -> bool:
        """Whether nothing is lost with the peer's connection, so that it may make room for others."""
        del peer
        return False

    def objection(self, peer: TlsPeer) -> SojournError | None:
        """What to refuse a peer's calls with."""
        raise NotImplementedError

    def end(self, caller: Caller[TlsPeer], error: SojournError) -> None:
        """Answer nothing more on a connection but why, and close it in a while."""
        peer = self._peers_of.get(caller)
        if peer is not None:
            peer.over = peer.over or error
            asyncio.get_running_loop().call_later(REMOTE_LINGER_SECONDS, caller.abort)

    # --- handshakes -------------------------------------------------------------------------------------------------

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("remote_accept_failed", reason=str(error))
                await asyncio.sleep(ACCEPT_RETRY_SECONDS)
                continue
            host = str(address[0])
            if reason := self.no_room(host):
                connection.close()
                self._refused(Refusal.NO_ROOM, host, reason)
                continue
            task = asyncio.ensure_future(self._shake_hands(connection, host))
            self._handshakes[task] = host
            task.add_done_callback(self._shaken)

    def no_room(self, host: str) -> str:
        """Why a new connection from there is not taken; '' if it is.

        Where all is full, whoever has more connections to spare makes room, or more handshakes under way.
        """
        network = network_of(host)
        if sum(network_of(each) == network for each in self._handshakes.values()) >= REMOTE_HANDSHAKES_PER_ADDRESS:
            return "too many handshakes of this address are under way"
        full = self.connections + len(self._handshakes) >= self._connections
        if not full and len(self._handshakes) < REMOTE_HANDSHAKES:
            return ""
        if full and self.made_room(host):
            return ""
        oldest = makes_room(host, self._handshakes, lambda _: True)
        if oldest is None:
            return "all connections are taken" if full else "too many handshakes are under way"
        crowd = self._handshakes.pop(oldest)
        oldest.cancel()
        self._refused(Refusal.MADE_ROOM, crowd, "no TLS connection: others wait, who have fewer handshakes under way")
        return ""

    def made_room(self, host: str) -> bool:
        """Whether a connection of those who are nobody was closed for a newcomer from there."""
        nobodies = {
            caller: peer.address
            for caller, peer in self._peers_of.items()
            if peer.spiffe_id is None and peer.over is None
        }
        oldest = makes_room(host, nobodies, lambda caller: self.idle(self._peers_of[caller]))
        if oldest is None:
            return False
        self._peers_of[oldest].over = Unavailable("others wait, who have fewer connections")
        oldest.abort()
        reason = "closed while no request was under way: others wait, who have fewer"
        self._refused(Refusal.MADE_ROOM, nobodies[oldest], reason)
        return True

    async def _shake_hands(self, connection: socket.socket, host: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection.setblocking(False)
            set_options(connection)
            await loop.connect_accepted_socket(
                lambda: TlsCaller(self),
                connection,
                ssl=self._context,
                ssl_handshake_timeout=REMOTE_HANDSHAKE_SECONDS,
            )
        except (OSError, SojournError, TimeoutError) as error:  # ssl.SSLError is an OSError
            connection.close()
            said = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
            self._refused(Refusal.NO_TLS, host, f"no TLS connection: {said or type(error).__name__}")
        except BaseException:
            connection.close()
            raise

    def _shaken(self, task: "asyncio.Task[None]") -> None:
        self._handshakes.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("remote_handshake_failed", door=self.name, exc_info=error)

    def _refused(self, refusal: Refusal, host: str, reason: str) -> None:
        self.on_refused.tell(refusal)
        if self._refusals.allow(network_of(host)):
            log.info("caller_refused", door=self.name, reason=reason, address=host)

    # --- connections ------------------------------------------------------------------------------------------------

    def enter(self, caller: Caller[TlsPeer], transport: asyncio.Transport) -> TlsPeer | None:
        """Know the workload by its certificate, which the handshake has checked."""
        shown, host = transport.get_extra_info("ssl_object"), str((transport.get_extra_info("peername") or ("?",))[0])
        if not isinstance(shown, CheckedObject | CheckedSocket) or not shown.checked:
            self._refused(Refusal.NOT_ADMITTED, host, "the peer was not checked")
            return None
        chain = tuple(x509.load_der_x509_certificate(der) for der in shown.peer_chain)
        peer = TlsPeer(shown.peer_spiffe_id, chain, host)
        if self._per[peer.who] >= self.places(peer, self._connections):
            self._refused(Refusal.TOO_MANY, host, f"{peer.who!r} has too many connections")
            return None
        self._per.add(peer.who)
        self.unknown += peer.spiffe_id is None
        self._callers.add(caller)
        self._peers_of[caller] = peer
        if error := self.objection(peer):
            self.end(caller, error)
        elif chain:
            self._watch(caller, peer)
        return peer

    def _watch(self, caller: Caller[TlsPeer], peer: TlsPeer) -> None:
        """End a connection with the certificate that was shown on it."""
        left = (peer.not_after - self._clock.now()).total_seconds()
        peer.expiry = self._alarms.after(left, lambda: self.end(caller, expired()))
        if self._revocations.denies(X509, peer.serial, peer.spiffe_id):
            self.end(caller, revoked())
        self._check_chains([caller])  # again: the bundle may have changed since the handshake began

    def leave(self, caller: Caller[TlsPeer], peer: TlsPeer) -> None:
        self._callers.discard(caller)
        self._peers_of.pop(caller, None)
        self._per.remove(peer.who)
        self.unknown -= peer.spiffe_id is None
        if peer.expiry is not None:
            peer.expiry.cancel()

    def _check_revoked(self) -> None:
        for caller, peer in list(self._peers_of.items()):
            if peer.chain and self._revocations.denies(X509, peer.serial, peer.spiffe_id):
                self.end(caller, revoked())

    def _check_authorities(self) -> None:
        """If an authority is gone from our bundle, whom it vouched for is to go too."""
        before, self._roots = self._roots, frozenset(self._authority.bundle.x509_authorities)
        if before - self._roots:
            self._check_chains([caller for caller, peer in self._peers_of.items() if peer.chain])

    def _check_chains(self, callers: Sequence[Caller[TlsPeer]]) -> None:
        bundle = self._authority.bundle
        for caller in callers[:CHAINS_CHECKED_AT_ONCE]:
            peer = self._peers_of.get(caller)
            if peer is None:
                continue
            try:
                verify_chain(peer.chain, bundle.x509_authorities, bundle.trust_domain, self._clock.now())
            except InvalidSvid:
                self.end(caller, SvidRefused("the authority that signed the X.509-SVID is revoked"))
        if rest := callers[CHAINS_CHECKED_AT_ONCE:]:
            self._alarms.after(0, self._check_chains, rest)


@dataclass(frozen=True, slots=True)
class Listener:
    """A door that is open. `name`: its key below `listen` in the configuration. `certificate`: what it shows, as PEM,
    where that is of files.
    """

    name: str
    address: str
    door: TlsDoor
    certificate: Callable[[], bytes] | None = None


def bind_tcp(address: str, key: str = "listen.tcp") -> socket.socket:
    """Return a listening socket at ADDRESS:PORT that does not block. `key` of the configuration. Raise CannotStart."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        listener = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise CannotStart(f"cannot listen on {address}: {error.strerror}: set {key}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotStart(f"cannot listen on {address}: {error.strerror}: set {key}") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """ADDRESS:PORT of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def expired() -> SvidExpired:
    return SvidExpired("the X.509-SVID of this connection has ended: connect again with the present one")


def revoked() -> SvidRefused:
    return SvidRefused("the X.509-SVID of this connection is revoked")
