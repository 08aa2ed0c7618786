"""The door of a Unix socket: accepts callers, and pins who they are when it is their turn."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from sojourn.attestation.peer import Peer
from sojourn.attestation.subordinate_ids import Subordinates
from sojourn.endpoints.listener.accept import Accepting, Opening
from sojourn.endpoints.listener.connection_limits import REFUSALS, Admission
from sojourn.endpoints.listener.protocol_switch import Caller, Doorway
from sojourn.endpoints.listener.refusals import Refusal
from sojourn.errors import SojournError
from sojourn.limits import REFUSALS_LOGGED_PER_SECOND
from sojourn.quota.rate import Rate
from sojourn.quota.turns import Turn, Turns

log = structlog.get_logger()
HttpFactory = Callable[[Peer], asyncio.Protocol]


class Door(Doorway[Peer]):
    """One public socket and what stands behind it."""

    def __init__(
        self,
        admission: Admission,
        subordinates: Subordinates,
        *,
        turns: Turns | None = None,
        http: HttpFactory | None = None,
        admit: frozenset[int] | None = None,
        name: str = "public",
    ) -> None:
        """`turns`: those in which connections are taken in; None: some of its own. `admit`: the uids that may use this
        door; None: all. `name`: as the log has it.
        """
        super().__init__()
        self._name = name
        self.turns = turns or Turns()
        self._admission = admission
        self._subordinates = subordinates
        self._http = http
        self._admit = admit
        self._refusals = Rate(REFUSALS_LOGGED_PER_SECOND)
        self._arrivals: set[_Arrival] = set()
        self._accepting: Accepting | None = None

    async def open(self, listener: socket.socket) -> None:
        """Begin to accept on a listening socket."""
        self._accepting = Accepting(listener, self._came)

    def leave_in_line(self) -> None:
        """Accept nothing more. Who was accepted is served; who connects from now on waits for whoever listens next."""
        if self._accepting is not None:
            self._accepting.stop()

    def stop_accepting(self) -> None:
        if self._accepting is not None:
            self._accepting.stop()
        for arrival in list(self._arrivals):
            self._turn_away(arrival)

    # --- who comes ---------------------------------------------------------------------------------------------------

    def _came(self, connection: socket.socket) -> bool:
        """A connection was accepted: it waits for its user's turn. Return whether it does, and is not closed."""
        try:
            uid = Peer.uid_of_socket(connection)
        except OSError as error:
            self._refuse(connection, Refusal.NOT_IDENTIFIED, "no credentials", -1, -1, detail=str(error))
            return False
        owner = self._subordinates.owner(uid)
        if self._admit is not None and uid not in self._admit:
            self._refuse(connection, Refusal.NOT_ADMITTED, "the user may not use this socket", uid, owner)
        elif reason := self._admission.enter(owner):
            self._refuse(connection, REFUSALS[reason], reason, uid, owner)
        else:
            arrival = _Arrival(self, connection, uid, owner)
            self._arrivals.add(arrival)
            self.turns.ask(owner, arrival)
            return True
        return False

    def take_in(self, arrival: "_Arrival") -> None:
        """Pin the process behind a connection, and hear what it says."""
        if arrival not in self._arrivals:
            return  # turned away
        try:
            peer = Peer.of_socket(arrival.connection, arrival.owner)
        except BaseException as error:
            foreseen = isinstance(error, (SojournError, OSError))
            if foreseen:
                detail = getattr(error, "detail", "")
                self._tell(Refusal.NOT_IDENTIFIED, str(error), arrival.uid, arrival.owner, detail)
            self._turn_away(arrival)
            if not foreseen:
                raise
            return
        self._arrivals.discard(arrival)
        caller = Caller(self, peer)
        self._callers.add(caller)
        try:
            peer.process.on_exit(caller.abort)  # the process is gone: so are its streams and what it was about to ask
            Opening(arrival.connection, caller, lambda: self.leave(caller, peer))
        except BaseException:
            arrival.connection.close()
            self.leave(caller, peer)
            raise

    def _turn_away(self, arrival: "_Arrival") -> None:
        self._arrivals.discard(arrival)
        self._admission.leave(arrival.owner)
        arrival.connection.close()

    def _refuse(
        self, connection: socket.socket, refusal: Refusal, reason: str, uid: int, owner: int, *, detail: str = ""
    ) -> None:
        """Close a connection without a word to the caller, and with a few to the log."""
        self._tell(refusal, reason, uid, owner, detail)  # first: whoever sees the end finds why in the log
        connection.close()

    def _tell(self, refusal: Refusal, reason: str, uid: int, owner: int, detail: str) -> None:
        self.on_refused.tell(refusal)
        if self._refusals.allow(owner):
            log.info("caller_refused", door=self._name, reason=reason, uid=uid, detail=detail or None)

    # --- for Caller -------------------------------------------------------------------------------------------------

    def leave(self, caller: Caller[Peer], peer: Peer) -> None:
        if caller not in self._callers:
            return  # it has left before
        self._callers.discard(caller)
        self._admission.leave(peer.who)
        peer.close()

    def http_protocol(self, peer: Peer) -> asyncio.Protocol | None:
        return self._http(peer) if self._http else None


@dataclass(slots=True, eq=False)
class _Arrival:
    """A connection that was accepted. `owner`: whose turn it is in."""

    door: Door
    connection: socket.socket
    uid: int
    owner: int

    def read(self, turn: Turn) -> bool:
        """Have the connection taken in. Return that there is nothing more to be done."""
        turn.spend(0, calls=1)
        self.door.take_in(self)
        return False
