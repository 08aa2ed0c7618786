"""The door of a Unix socket: accepts callers and pins who they are."""

import asyncio
import socket
from collections.abc import Callable

import structlog

from sojourn.allowance import Allowance
from sojourn.attestation.peer import Peer
from sojourn.attestation.subordinate import Subordinates
from sojourn.doors.admission import Admission
from sojourn.doors.doorway import Caller, Doorway
from sojourn.errors import SojournError
from sojourn.limits import LISTEN_BACKLOG, REFUSALS_LOGGED_PER_SECOND

log = structlog.get_logger()
HttpFactory = Callable[[Peer], asyncio.Protocol]


class Door(Doorway[Peer]):
    """One public socket and what stands behind it."""

    def __init__(
        self,
        admission: Admission,
        subordinates: Subordinates,
        *,
        http: HttpFactory | None = None,
        admit: frozenset[int] | None = None,
    ) -> None:
        """`admit`: the uids that may use this door; None: all."""
        super().__init__()
        self._admission = admission
        self._subordinates = subordinates
        self._http = http
        self._admit = admit
        self._refusals = Allowance(REFUSALS_LOGGED_PER_SECOND)
        self._server: asyncio.Server | None = None

    async def open(self, listener: socket.socket) -> None:
        """Begin to accept on a listening socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Caller(self), sock=listener, backlog=LISTEN_BACKLOG)

    def stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()

    # --- for Caller -------------------------------------------------------------------------------------------------

    def enter(self, caller: Caller[Peer], transport: asyncio.Transport) -> Peer | None:
        """Pin the process behind a new connection, or return None if it may not come in."""
        connection = transport.get_extra_info("socket")
        try:
            uid = Peer.uid_of_socket(connection)
        except OSError as error:
            return self._refuse("no credentials", -1, -1, detail=str(error))
        owner = self._subordinates.owner(uid)
        if self._admit is not None and uid not in self._admit:
            return self._refuse("the user may not use this socket", uid, owner)
        reason = self._admission.enter(owner)
        if reason:
            return self._refuse(reason, uid, owner)
        try:
            peer = Peer.of_socket(connection, owner)
        except (SojournError, OSError) as error:
            self._admission.leave(owner)
            return self._refuse(str(error), uid, owner, detail=getattr(error, "detail", ""))
        self._callers.add(caller)
        peer.process.on_exit(caller.abort)  # the process is gone: so are its streams and what it was about to ask
        return peer

    def _refuse(self, reason: str, uid: int, owner: int, *, detail: str = "") -> Peer | None:
        """Close a connection without a word to the caller, and with a few to the log."""
        if self._refusals.allow(owner):
            log.info("caller_refused", reason=reason, uid=uid, detail=detail or None)
        return None

    def leave(self, caller: Caller[Peer], peer: Peer) -> None:
        self._callers.discard(caller)
        self._admission.leave(peer.who)
        peer.close()

    def http_protocol(self, peer: Peer) -> asyncio.Protocol | None:
        return self._http(peer) if self._http else None
