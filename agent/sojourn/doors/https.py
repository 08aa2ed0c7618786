"""The door for clients of the token service on other machines: HTTPS, with or without an X.509-SVID of theirs.

A certificate that a client shows must be an X.509-SVID of our trust domain that is good, is not revoked and may come
in; otherwise there is no connection. The system's certificate store counts for nothing, and no header tells who a
client is.
"""

import asyncio
import os
import ssl
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sojourn import trusted
from sojourn.authority.embedded import EmbeddedAuthority
from sojourn.clock import Alarms, Clock
from sojourn.configtables import ListenConfig
from sojourn.doors.doorway import Caller
from sojourn.doors.httpprotocol import HttpProtocols
from sojourn.doors.ownsvid import OwnSvid, Shown
from sojourn.doors.tlsdoor import Listener, TlsDoor, TlsPeer, address_of, bind_tcp
from sojourn.errors import CannotStart, InvalidInput, SojournError
from sojourn.identity.issued import X509
from sojourn.identity.revocations import Revocations
from sojourn.limits import (
    CERTIFICATE_LOOK_SECONDS,
    HTTPS_CONNECTIONS,
    HTTPS_CONNECTIONS_PER_ADDRESS,
    HTTPS_CONNECTIONS_PER_ID,
    HTTPS_DESCRIPTORS_SHARE,
    HTTPS_UNKNOWN_SHARE,
    PEM_MAX_BYTES,
)
from sojourn.sdk.authorize import Authorize, authorize_member_of
from sojourn.sdk.parse import X509Context
from sojourn.sdk.peer import PeerCheck, refuse
from sojourn.sdk.tls import InnerContext, SpiffeContext, load_pem
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.clients import Certificate, Sender
from sojourn.tasks.tokens import thumbprint_of

log = structlog.get_logger()


class PemFiles:
    """A certificate and its key from files, read again when they have changed."""

    def __init__(self, certificate: Path, key: Path, clock: Clock) -> None:
        """Raise CannotStart if they cannot be used."""
        self._paths = (certificate, key)
        self._clock = clock
        self._looked_at = clock.boot()
        self._seen = self._state()
        try:
            self.content = self._read()
        except InvalidInput as error:
            raise CannotStart(f"{error.public}: set listen.https_certificate and listen.https_key") from error

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
            log.error("https_certificate_refused", reason=error.public)
        else:
            log.info("https_certificate_read", path=str(self._paths[0]))

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
            try:
                texts.append(trusted.read(path, PEM_MAX_BYTES))
            except InvalidInput as error:
                raise InvalidInput(f"{path}: {error.public}") from error
        if os.stat(self._paths[1]).st_mode & 0o007:
            raise InvalidInput(f"{self._paths[1]}: the key is open to every user: chmod o-rwx it")
        content = "\n".join(texts).encode()
        try:
            load_pem(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), content)
        except (ssl.SSLError, ValueError) as error:
            raise InvalidInput(f"{self._paths[0]}: not a certificate in PEM with its key: {error}") from error
        return content


class HttpsSource:
    """What is shown now: the certificate of the files if there are any, otherwise the agent's own X.509-SVID."""

    def __init__(self, own: OwnSvid, files: PemFiles | None) -> None:
        self._own = own
        self._files = files
        self._of: tuple[Shown, bytes] | None = None
        self._shown: Shown | None = None

    @property
    def present(self) -> Shown:
        """Raise Unavailable if no SVID can be issued."""
        if self._files is not None:
            self._files.look()
        now = (self._own.present, self._files.content if self._files is not None else b"")
        if self._shown is None or self._of != now:
            self._of = now
            self._shown = Shown(self._shown.version + 1 if self._shown else 1, now[0].context)
        return self._shown

    def pem(self, context: X509Context) -> bytes:
        """Chain and key."""
        return self._files.content if self._files is not None else context.default.chain_pem + context.default.key_pem


class HttpsContext(SpiffeContext):
    """A server's context whose clients may show an X.509-SVID, and need not."""

    source: HttpsSource
    revocations: Revocations
    authorize: Authorize

    @classmethod
    def of(cls, source: HttpsSource, authorize: Authorize, revocations: Revocations) -> "HttpsContext":
        made = cls(source, authorize, server_side=True)
        made.source = source
        made.revocations, made.authorize = revocations, authorize
        made.set_alpn_protocols(["http/1.1"])
        return made

    def complete(self, inner: InnerContext, context: X509Context) -> None:
        load_pem(inner, self.source.pem(context))
        inner.verify_mode = ssl.CERT_OPTIONAL
        inner.check_peer = ClientCheck(PeerCheck(context, self.authorize), self.revocations)


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
        if self._revocations.names(X509, f"{serial:x}"):
            refuse(f"certificate of {str(spiffe_id)!r} is revoked")
        return spiffe_id


class HttpsDoor(TlsDoor):
    """The listener and its connections. There is no gRPC here."""

    def __init__(
        self,
        protocols: HttpProtocols,
        authority: EmbeddedAuthority,
        revocations: Revocations,
        clock: Clock,
        alarms: Alarms,
    ) -> None:
        super().__init__(None, authority, revocations, clock, alarms)
        self._protocols = protocols

    def places(self, peer: TlsPeer, connections: int) -> int:
        half = max(1, connections // 2)
        if peer.spiffe_id is not None:
            return min(HTTPS_CONNECTIONS_PER_ID, half)
        if self.unknown >= max(1, int(connections * HTTPS_UNKNOWN_SHARE)):
            return 0
        return min(HTTPS_CONNECTIONS_PER_ADDRESS, half)

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
        return self._protocols.make(Sender(certificate=_certificate(peer), address=peer.address))


def _certificate(peer: TlsPeer) -> Certificate | None:
    if peer.spiffe_id is None:
        return None
    leaf = peer.chain[0]
    return Certificate(peer.spiffe_id, peer.serial, thumbprint_of(leaf.public_bytes(Encoding.DER)), peer.not_after)


def open_https(
    listen: ListenConfig,
    door: HttpsDoor,
    own: OwnSvid,
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
    files = None
    if listen.https_certificate is not None and listen.https_key is not None:
        files = PemFiles(listen.https_certificate, listen.https_key, clock)
    own.watch()
    source = HttpsSource(own, files)
    context = HttpsContext.of(source, _authorize(own.spiffe_id, listen.https_allowed), revocations)
    listener = bind_tcp(listen.https, "listen.https")
    stack.callback(listener.close)
    stack.callback(door.close)
    share = max(1, int(descriptors * HTTPS_DESCRIPTORS_SHARE))
    door.open(listener, context, connections=min(HTTPS_CONNECTIONS, share))
    stack.callback(door.stop_accepting)
    return [Listener("https", address_of(listener), door)]


def _authorize(own: SpiffeId, allowed: Collection[str] | None) -> Authorize:
    if allowed is None:
        return authorize_member_of(own.trust_domain)
    named = frozenset(SpiffeId.parse(each) for each in allowed)
    return lambda peer: peer in named
