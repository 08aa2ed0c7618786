"""The connections of a witness: who comes is known by address alone, and nobody keeps others out by holding many."""

import asyncio
import socket
import ssl
from dataclasses import dataclass

import structlog

from sojourn.endpoints.http1.connection import Conversation, Conversations
from sojourn.endpoints.listener.eviction import makes_room
from sojourn.endpoints.listener.protocol_switch import Caller, Doorway
from sojourn.endpoints.witness.app import WitnessApp
from sojourn.limits import REFUSALS_LOGGED_PER_SECOND, REMOTE_HANDSHAKE_SECONDS
from sojourn.net.networks import network_of
from sojourn.oauth.client_auth import ClientSender
from sojourn.operating_limits import WITNESS_CONNECTIONS, WITNESS_CONNECTIONS_PER_NETWORK, WITNESS_STOP_SECONDS
from sojourn.quota.rate import Rate
from sojourn.quota.turns import Turns

log = structlog.get_logger()
_ACCEPT_AGAIN_SECONDS = 0.1  # when no descriptor is left
_LOCAL = "local"  # where a Unix socket's callers are from


@dataclass(slots=True, eq=False)
class WitnessCaller:
    """Who is at the other end of a connection, and what is said there."""

    address: str
    conversation: Conversation | None = None

    @property
    def who(self) -> str:
        return network_of(self.address)

    @property
    def details(self) -> dict[str, int | str]:
        return {"address": self.address}


class _Connection(Caller[WitnessCaller]):
    """One connection, which cannot be open in one direction only."""

    def __init__(self, door: "WitnessDoor", address: str) -> None:
        super().__init__(door)
        self.caller = WitnessCaller(address)

    @property
    def idle(self) -> bool:
        """Whether nothing waits for an answer there."""
        return self.caller.conversation is None or not self.caller.conversation.answering

    def eof_received(self) -> bool:
        super().eof_received()
        return False


class WitnessDoor(Doorway[WitnessCaller]):
    """A listener and its connections. Where there are too many, the oldest that nothing was asked on whole goes."""

    def __init__(self, app: WitnessApp) -> None:
        super().__init__()
        self.context: ssl.SSLContext | None = None  # None: no TLS
        self._conversations = Conversations(app, Turns())
        self._present: dict[_Connection, str] = {}  # the oldest first, with their addresses
        self._handshakes: dict[asyncio.Task[None], str] = {}
        self._refusals = Rate(REFUSALS_LOGGED_PER_SECOND)

    async def serve(self, listener: socket.socket) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    connection, address = await loop.sock_accept(listener)
                except OSError as error:
                    log.warning("witness_accept_failed", reason=str(error))
                    await asyncio.sleep(_ACCEPT_AGAIN_SECONDS)
                    continue
                host = str(address[0]) if isinstance(address, tuple) else _LOCAL
                if not self._has_room(host):
                    connection.close()
                    self._refused(host, "all connections are taken")
                    continue
                task = asyncio.ensure_future(self._connect(connection, host))
                self._handshakes[task] = host
                task.add_done_callback(lambda done: self._handshakes.pop(done, None))
        finally:
            for task in tuple(self._handshakes):
                task.cancel()

    async def stop(self) -> None:
        """Have what was asked whole answered, where that is soon done, and close."""
        self._conversations.close()
        for _ in range(int(WITNESS_STOP_SECONDS / self.quiet_seconds)):
            if all(each.idle for each in self._present):
                break
            await asyncio.sleep(self.quiet_seconds)
        self.close()

    def _has_room(self, host: str) -> bool:
        """Whether a newcomer may come in, with somebody sent away for it if need be."""
        network = network_of(host)
        of_network = [each for each, address in self._present.items() if network_of(address) == network]
        shaking = [task for task, address in self._handshakes.items() if network_of(address) == network]
        if len(of_network) + len(shaking) >= WITNESS_CONNECTIONS_PER_NETWORK:
            return self._end(next((each for each in of_network if each.idle), None)) or self._break_off(shaking)
        if len(self._present) + len(self._handshakes) < WITNESS_CONNECTIONS:
            return True
        return self._end(makes_room(host, self._present, lambda each: each.idle)) or self._break_off(
            [found] if (found := makes_room(host, self._handshakes, lambda _: True)) is not None else []
        )

    def _end(self, caller: _Connection | None) -> bool:
        if caller is None:
            return False
        self._present.pop(caller, None)
        caller.abort()
        return True

    def _break_off(self, handshakes: "list[asyncio.Task[None]]") -> bool:
        for task in handshakes[:1]:
            self._handshakes.pop(task, None)
            task.cancel()
            return True
        return False

    async def _connect(self, connection: socket.socket, host: str) -> None:
        try:
            connection.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Connection(self, host),
                connection,
                ssl=self.context,
                ssl_handshake_timeout=None if self.context is None else REMOTE_HANDSHAKE_SECONDS,
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            connection.close()
            self._refused(host, f"no TLS connection: {getattr(error, 'reason', '') or error}")
        except BaseException:
            connection.close()
            raise

    def _refused(self, host: str, reason: str) -> None:
        if self._refusals.allow(network_of(host)):
            log.info("witness_caller_refused", address=host, reason=reason)

    # --- for Caller -------------------------------------------------------------------------------------------------

    def enter(self, caller: Caller[WitnessCaller], transport: asyncio.Transport) -> WitnessCaller | None:
        del transport
        if not isinstance(caller, _Connection):
            return None
        self._callers.add(caller)
        self._present[caller] = caller.caller.address
        return caller.caller

    def http_protocol(self, peer: WitnessCaller) -> asyncio.Protocol:
        peer.conversation = self._conversations.make(ClientSender(address=peer.address))
        return peer.conversation

    def leave(self, caller: Caller[WitnessCaller], peer: WitnessCaller) -> None:
        self._callers.discard(caller)
        if isinstance(caller, _Connection):
            self._present.pop(caller, None)
        peer.conversation = None
