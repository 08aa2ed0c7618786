"""What the doors for HTTPS have in common: what they show, and who answers."""

import asyncio
import os
import ssl
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from cryptography.hazmat.primitives.serialization import Encoding

from sojourn.endpoints.http1.protocol import HttpProtocols
from sojourn.endpoints.listener.own_svid import AgentSvid, ServerSvid
from sojourn.endpoints.listener.protocol_switch import Caller
from sojourn.endpoints.listener.tls import Listener, TlsDoor, TlsPeer, address_of, bind_tcp
from sojourn.errors import CannotStart, InvalidInput, SojournError, told_as
from sojourn.files import trusted
from sojourn.identity.revocations import Revocations
from sojourn.identity.trust import TrustSource
from sojourn.limits import CERTIFICATE_LOOK_SECONDS, PEM_MAX_BYTES
from sojourn.net.networks import network_of
from sojourn.oauth.client_auth import Certificate, ClientSender
from sojourn.quota.rate import Rate
from sojourn.runtime.clock import Alarms, Clock
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffetls.context import InnerContext, SpiffeContext, load_pem
from sojourn.tasktoken.sender_constraint import thumbprint_of
from sojourn.workloadapi.messages import X509Context

if TYPE_CHECKING:
    from sojourn.endpoints.http1.connection import Conversation

log = structlog.get_logger()
CheckOf = Callable[[X509Context], Callable[[Sequence[bytes]], SpiffeId | None]]
"""Makes what checks the chain that a client shows, inside the handshake. It raises SSLCertVerificationError."""


class PemFiles:
    """A certificate and its key from files, read again when they have changed."""

    def __init__(self, name: str, certificate: Path, key: Path, clock: Clock) -> None:
        """`name`: of the listener, as in the configuration. Raise CannotStart if they cannot be used."""
        self._refused, self._taken = f"{name}_certificate_refused", f"{name}_certificate_read"  # events of the log
        self._paths = (certificate, key)
        self._clock = clock
        self._looked_at = clock.boot()
        self._seen = self._state()
        with told_as(CannotStart, f"listen.{name}_certificate, listen.{name}_key"):
            self.content = self._read()

    def look(self) -> None:
        """Take what is in the files now, if it is good; at most each CERTIFICATE_LOOK_SECONDS."""
        if self._clock.boot() < self._looked_at + CERTIFICATE_LOOK_SECONDS:
            return
        self._looked_at = self._clock.boot()
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self.content = self._read()
        except InvalidInput as error:  # it may be half written; until it changes again the old one is shown
            log.error(self._refused, reason=error.public)
        else:
            log.info(self._taken, path=str(self._paths[0]))

    def newest(self) -> bytes:
        """Certificate and key as they are in the files now, or were when they were good. Any thread may ask."""
        self.look()
        return self.content

    def _state(self) -> list[tuple[int, int, int]]:
        found = []
        for path in self._paths:
            try:
                status = os.stat(path)
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((status.st_dev, status.st_ino, status.st_mtime_ns))
        return found

    def _read(self) -> bytes:
        texts = []
        for path in self._paths:
            with told_as(InvalidInput, str(path)):
                texts.append(trusted.read(path, PEM_MAX_BYTES))
        if os.stat(self._paths[1]).st_mode & 0o007:
            raise InvalidInput(f"{self._paths[1]}: the key is open to every user: chmod o-rwx it")
        content = "\n".join(texts).encode()
        try:
            load_pem(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), content)
        except (ssl.SSLError, ValueError) as error:
            raise InvalidInput(f"{self._paths[0]}: not a certificate in PEM with its key: {error}") from error
        return content


class ShownSource:
    """What is shown now: the certificate of the files if there are any, otherwise the agent's own X.509-SVID."""

    def __init__(self, own: AgentSvid, files: PemFiles | None) -> None:
        self._own = own
        self._files = files
        self._of: tuple[ServerSvid, bytes] | None = None
        self._shown: ServerSvid | None = None

    @property
    def present(self) -> ServerSvid:
        """Raise Unavailable if no SVID can be issued."""
        if self._files is not None:
            self._files.look()
        now = (self._own.present, self._files.content if self._files is not None else b"")
        if self._shown is None or self._of != now:
            self._of = now
            self._shown = ServerSvid(self._shown.version + 1 if self._shown else 1, now[0].context)
        return self._shown

    def pem(self, context: X509Context) -> bytes:
        """Chain and key."""
        return self._files.content if self._files is not None else context.default.chain_pem + context.default.key_pem


class WebContext(SpiffeContext):
    """A server's context that shows what its source has. Its clients may show a certificate if there is a check of it,
    are asked for none otherwise, and need not show one.
    """

    source: ShownSource
    check_of: CheckOf | None

    @classmethod
    def of(cls, source: ShownSource, check_of: CheckOf | None) -> "WebContext":
        made = cls(source, lambda _: False, server_side=True)
        made.source, made.check_of = source, check_of
        made.set_alpn_protocols(["http/1.1"])
        return made

    def complete(self, inner: InnerContext, context: X509Context) -> None:
        load_pem(inner, self.source.pem(context))
        inner.verify_mode = ssl.CERT_NONE if self.check_of is None else ssl.CERT_OPTIONAL
        inner.check_peer = (lambda _: None) if self.check_of is None else self.check_of(context)


class WebDoor(TlsDoor):
    """A listener and its connections. There is no gRPC here."""

    new_per_second: int | None = None  # connections of one address, before any TLS; None: as many as there are places

    def __init__(
        self,
        protocols: HttpProtocols,
        authority: TrustSource,
        revocations: Revocations,
        clock: Clock,
        alarms: Alarms,
    ) -> None:
        super().__init__(authority, revocations, clock, alarms)
        self._protocols = protocols
        self._often = None if self.new_per_second is None else Rate(self.new_per_second)
        self._conversations: dict[TlsPeer, Conversation] = {}

    def no_room(self, host: str) -> str:
        if self._often is not None and not self._often.allow(network_of(host)):
            return "the address connects too often"
        return super().no_room(host)

    def objection(self, peer: TlsPeer) -> SojournError | None:
        del peer  # whoever may not come in has been refused in the handshake
        return None

    def end(self, caller: Caller[TlsPeer], error: SojournError) -> None:
        """Nothing can be said on a connection on which nothing is asked."""
        peer = self._peers_of.get(caller)
        if peer is not None:
            peer.over = peer.over or error
            asyncio.get_running_loop().call_soon(caller.abort)

    def http_protocol(self, peer: TlsPeer) -> asyncio.Protocol | None:
        if peer.over is not None:
            return None
        made = self._protocols.make(ClientSender(certificate=_certificate(peer), address=peer.address))
        self._conversations[peer] = made
        return made

    def places_of_nobody(self, connections: int) -> int:
        """How many connections an address may have whose clients show no certificate."""
        raise NotImplementedError

    def made_room(self, host: str) -> bool:
        return self._per[network_of(host)] < self.places_of_nobody(self._connections) and super().made_room(host)

    def idle(self, peer: TlsPeer) -> bool:
        """Whether no whole request of the peer's waits for an answer."""
        conversation = self._conversations.get(peer)
        return conversation is None or not conversation.answering

    def leave(self, caller: Caller[TlsPeer], peer: TlsPeer) -> None:
        self._conversations.pop(peer, None)
        super().leave(caller, peer)


def _certificate(peer: TlsPeer) -> Certificate | None:
    if peer.spiffe_id is None:
        return None
    leaf = peer.chain[0]
    return Certificate(peer.spiffe_id, peer.serial, thumbprint_of(leaf.public_bytes(Encoding.DER)), peer.not_after)


def open_web(
    name: str,
    address: str,
    files: tuple[Path | None, Path | None],
    door: WebDoor,
    own: AgentSvid,
    check_of: CheckOf | None,
    connections: int,
    clock: Clock,
    stack: AsyncExitStack,
) -> Listener:
    """Open a listener that shows what is in `files`, certificate and key, or else the agent's own X.509-SVID.

    `name`: its key below `listen` in the configuration. `check_of`: what checks a certificate that a client shows;
    None: it is asked for none. `connections`: so many at most. Raise CannotStart.
    """
    certificate, key = files
    pem = None if certificate is None or key is None else PemFiles(name, certificate, key, clock)
    own.watch()
    context = WebContext.of(ShownSource(own, pem), check_of)
    listener = bind_tcp(address, f"listen.{name}")
    stack.callback(listener.close)
    stack.callback(door.close)
    door.open(listener, context, connections=connections)
    stack.callback(door.stop_accepting)
    return Listener(name, address_of(listener), door, None if pem is None else pem.newest)
