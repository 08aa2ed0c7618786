"""The door for validators on other machines: mutual TLS on TCP, with SPIFFE IDs at both ends.

TLS ends here. Who is at the other end is known, and checked by our own rules, before a byte goes inward to gRPC.
"""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog
from cryptography import x509

from sojourn.authority.embedded import EmbeddedAuthority
from sojourn.clock import Alarm, Alarms, Clock
from sojourn.configtables import ListenConfig
from sojourn.doors.admission import Allowance
from sojourn.doors.calls import Call, Calls
from sojourn.doors.doorway import Caller, Doorway, Visitor
from sojourn.doors.ownsvid import OwnSvid
from sojourn.doors.servers import end, serve
from sojourn.doors.validation import SERVICE, Standing, ValidationApi
from sojourn.errors import CannotStart, InvalidSvid, Refused, SojournError, SvidExpired, SvidRefused, Unavailable
from sojourn.identity.issued import X509
from sojourn.identity.revocations import Revocations
from sojourn.limits import (
    CHAINS_CHECKED_AT_ONCE,
    LISTEN_BACKLOG,
    PUBLIC_REQUEST_MAX_BYTES,
    REFUSALS_LOGGED_PER_SECOND,
    REMOTE_CONNECTIONS,
    REMOTE_CONNECTIONS_PER_ID,
    REMOTE_DESCRIPTORS_PER_CONNECTION,
    REMOTE_DESCRIPTORS_SHARE,
    REMOTE_HANDSHAKE_SECONDS,
    REMOTE_HANDSHAKES,
    REMOTE_HANDSHAKES_PER_ADDRESS,
    REMOTE_LINGER_SECONDS,
    REMOTE_STREAMS_PER_ID,
)
from sojourn.oversight.audit import Audit
from sojourn.sdk.authorize import authorize_member_of
from sojourn.sdk.tcp import set_options
from sojourn.sdk.tls import SpiffeContext
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.x509svid import verify_chain

log = structlog.get_logger()
ACCEPT_RETRY_SECONDS = 0.1  # when no descriptor is left


@dataclass(slots=True, eq=False)
class RemotePeer:
    """A workload at the other end of a TLS connection, by its X.509-SVID. `over`: why nothing is answered any more."""

    spiffe_id: SpiffeId
    chain: tuple[x509.Certificate, ...]
    address: str
    over: SojournError | None = None
    expiry: Alarm | None = None

    @property
    def who(self) -> str:
        return str(self.spiffe_id)

    @property
    def serial(self) -> str:
        """The serial number of its leaf, lower-case hex."""
        return f"{self.chain[0].serial_number:x}"

    @property
    def not_after(self) -> datetime:
        return self.chain[0].not_valid_after_utc

    @property
    def details(self) -> dict[str, str]:
        return {"serial": self.serial, "address": self.address}


class RemoteCaller(Caller[RemotePeer]):
    """The outward side of one TLS connection, which cannot be open in one direction only."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


class RemoteDoor(Doorway[RemotePeer]):
    """The listener and its connections."""

    def __init__(
        self,
        inward: Path,
        own: OwnSvid,
        authority: EmbeddedAuthority,
        revocations: Revocations,
        clock: Clock,
        alarms: Alarms,
    ) -> None:
        super().__init__(inward)
        self._authority = authority
        self._revocations = revocations
        self._clock = clock
        self._alarms = alarms
        self._own = own
        self._allowed: frozenset[SpiffeId] | None = None
        self._connections = REMOTE_CONNECTIONS
        self._context = SpiffeContext(own, authorize_member_of(authority.trust_domain), server_side=True)
        self._context.set_alpn_protocols(["h2"])
        self._peers_of: dict[Caller[RemotePeer], RemotePeer] = {}
        self._per_id: Counter[SpiffeId] = Counter()
        self._handshakes: dict[asyncio.Task[None], str] = {}  # with the address
        self._refusals = Allowance(REFUSALS_LOGGED_PER_SECOND)
        self._accepting: asyncio.Task[None] | None = None
        self._roots = frozenset(authority.bundle.x509_authorities)
        revocations.on_change(self._check_revoked)
        authority.on_change(self._check_authorities)

    def open(self, listener: socket.socket, *, allowed: Collection[SpiffeId] | None, connections: int) -> None:
        """Begin to accept on a listening socket that does not block, and show the agent's SVID from now on.

        `allowed`: the SPIFFE IDs that may come in; None: all of our trust domain. `connections`: so many at most.
        """
        self._allowed = None if allowed is None else frozenset(allowed)
        self._connections = connections
        self._own.watch()
        self._accepting = asyncio.ensure_future(self._accept(listener))

    def stop_accepting(self) -> None:
        for task in (self._accepting, *self._handshakes):
            if task is not None:
                task.cancel()

    def end_all(self, error: SojournError) -> None:
        """Let each connection end: its streams say why."""
        for caller in list(self._peers_of):
            self._end(caller, error)

    def check(self, visitor: Visitor) -> None:
        """Raise what a caller's calls are refused with, if they are."""
        if not isinstance(visitor, RemotePeer):
            raise Refused("not a caller of this listener")
        if visitor.over is None and self._clock.now() >= visitor.not_after:
            visitor.over = _expired()
        if visitor.over is not None:
            raise visitor.over

    @asynccontextmanager
    async def standing(self, call: Call) -> AsyncIterator[Standing]:
        """Within what a caller may watch tasks: as long as its X.509-SVID is good."""
        yield _Standing(self, call.visitor)

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
            if reason := self._no_room(host):
                connection.close()
                self._log_refusal(host, reason)
                continue
            task = asyncio.ensure_future(self._shake_hands(connection, host))
            self._handshakes[task] = host
            task.add_done_callback(self._shaken)

    def _no_room(self, host: str) -> str:
        if self.connections + len(self._handshakes) >= self._connections:
            return "all connections are taken"
        if len(self._handshakes) >= REMOTE_HANDSHAKES:
            return "too many handshakes are under way"
        if sum(each == host for each in self._handshakes.values()) >= REMOTE_HANDSHAKES_PER_ADDRESS:
            return "too many handshakes of this address are under way"
        return ""

    async def _shake_hands(self, connection: socket.socket, host: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection.setblocking(False)
            set_options(connection)
            await loop.connect_accepted_socket(
                lambda: RemoteCaller(self),
                connection,
                ssl=self._context,
                ssl_handshake_timeout=REMOTE_HANDSHAKE_SECONDS,
            )
        except (OSError, SojournError, TimeoutError) as error:  # ssl.SSLError is an OSError
            connection.close()
            said = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
            self._log_refusal(host, f"no TLS connection: {said or type(error).__name__}")
        except BaseException:
            connection.close()
            raise

    def _shaken(self, task: "asyncio.Task[None]") -> None:
        del self._handshakes[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("remote_handshake_failed", exc_info=error)

    def _log_refusal(self, host: str, reason: str) -> None:
        if self._refusals.allow(host):
            log.info("caller_refused", reason=reason, address=host)

    # --- connections ------------------------------------------------------------------------------------------------

    def enter(self, caller: Caller[RemotePeer], transport: asyncio.Transport) -> RemotePeer | None:
        """Know the workload by its certificate, which the handshake has checked."""
        shown, host = transport.get_extra_info("ssl_object"), str((transport.get_extra_info("peername") or ("?",))[0])
        if not isinstance(shown, ssl.SSLObject | ssl.SSLSocket) or getattr(shown, "peer_spiffe_id", None) is None:
            self._log_refusal(host, "the peer was not checked")
            return None
        chain = tuple(x509.load_der_x509_certificate(der) for der in shown.peer_chain)  # type: ignore[union-attr]
        peer = RemotePeer(shown.peer_spiffe_id, chain, host)  # type: ignore[union-attr]
        if self._per_id[peer.spiffe_id] >= min(REMOTE_CONNECTIONS_PER_ID, max(1, self._connections // 2)):
            self._log_refusal(host, f"{peer.who!r} has too many connections")
            return None
        self._per_id[peer.spiffe_id] += 1
        self._callers.add(caller)
        self._peers_of[caller] = peer
        left = (peer.not_after - self._clock.now()).total_seconds()
        peer.expiry = self._alarms.after(left, lambda: self._end(caller, _expired()))
        if self._allowed is not None and peer.spiffe_id not in self._allowed:
            self._end(caller, Refused(f"{peer.who!r} is not allowed here: listen.allowed does not name it"))
        elif self._revocations.names(X509, peer.serial):
            self._end(caller, _revoked())
        self._check_chains([caller])  # again: the bundle may have changed since the handshake began
        return peer

    def leave(self, caller: Caller[RemotePeer], peer: RemotePeer) -> None:
        self._callers.discard(caller)
        self._peers_of.pop(caller, None)
        self._per_id[peer.spiffe_id] -= 1
        if self._per_id[peer.spiffe_id] <= 0:
            del self._per_id[peer.spiffe_id]
        if peer.expiry is not None:
            peer.expiry.cancel()

    def _end(self, caller: Caller[RemotePeer], error: SojournError) -> None:
        """Answer nothing more on a connection but why, and close it in a while."""
        peer = self._peers_of.get(caller)
        if peer is not None:
            peer.over = peer.over or error
            asyncio.get_running_loop().call_later(REMOTE_LINGER_SECONDS, caller.abort)

    def _check_revoked(self) -> None:
        for caller, peer in list(self._peers_of.items()):
            if self._revocations.names(X509, peer.serial):
                self._end(caller, _revoked())

    def _check_authorities(self) -> None:
        """If an authority is gone from our bundle, whom it vouched for is to go too."""
        before, self._roots = self._roots, frozenset(self._authority.bundle.x509_authorities)
        if before - self._roots:
            self._check_chains(list(self._peers_of))

    def _check_chains(self, callers: Sequence[Caller[RemotePeer]]) -> None:
        bundle = self._authority.bundle
        for caller in callers[:CHAINS_CHECKED_AT_ONCE]:
            peer = self._peers_of.get(caller)
            if peer is None:
                continue
            try:
                verify_chain(peer.chain, bundle.x509_authorities, bundle.trust_domain, self._clock.now())
            except InvalidSvid:
                self._end(caller, SvidRefused("the authority that signed the X.509-SVID is revoked"))
        if rest := callers[CHAINS_CHECKED_AT_ONCE:]:
            self._alarms.after(0, lambda: self._check_chains(rest))


class _Standing:
    def __init__(self, door: RemoteDoor, visitor: Visitor) -> None:
        self._door = door
        self._visitor = visitor

    async def check(self, *, anew: bool) -> None:
        del anew  # it costs nothing
        self._door.check(self._visitor)

    def pushed(self) -> None:
        """There is no list of remote streams."""


async def open_listener(
    listen: ListenConfig,
    door: RemoteDoor,
    api: Callable[[Callable[[Call], AbstractAsyncContextManager[Standing]]], ValidationApi],
    audit: Audit,
    descriptors: int,
    stack: AsyncExitStack,
) -> str:
    """Open the listener, if there is to be one, and return its address or ''. Raise CannotStart.

    `api` makes the service for callers that have a standing. Of `descriptors` it takes REMOTE_DESCRIPTORS_SHARE.
    """
    if listen.tcp is None:
        return ""
    calls = Calls(door.peers, audit, header=False, streams=REMOTE_STREAMS_PER_ID, check=door.check)
    listener = bind_tcp(listen.tcp)
    stack.callback(listener.close)
    services = {SERVICE: calls.service(SERVICE, api(door.standing).methods())}
    server = await serve(door.inward, services, calls, message_max_bytes=PUBLIC_REQUEST_MAX_BYTES, reflects=False)
    stack.push_async_callback(end, door, server)
    share = int(descriptors * REMOTE_DESCRIPTORS_SHARE / REMOTE_DESCRIPTORS_PER_CONNECTION)
    allowed = None if listen.allowed is None else [SpiffeId.parse(each) for each in listen.allowed]
    door.open(listener, allowed=allowed, connections=min(REMOTE_CONNECTIONS, max(1, share)))
    stack.callback(door.end_all, Unavailable("the agent is shutting down"))
    stack.callback(door.stop_accepting)
    return address_of(listener)


def bind_tcp(address: str) -> socket.socket:
    """Return a listening socket at ADDRESS:PORT that does not block. Raise CannotStart with what to do."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        listener = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise CannotStart(f"cannot listen on {address}: {error.strerror}: set listen.tcp") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotStart(f"cannot listen on {address}: {error.strerror}: set listen.tcp") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """ADDRESS:PORT of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _expired() -> SvidExpired:
    return SvidExpired("the X.509-SVID of this connection has ended: connect again with the present one")


def _revoked() -> SvidRefused:
    return SvidRefused("the X.509-SVID of this connection is revoked")
