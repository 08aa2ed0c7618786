"""Workloads that shake hands by TLS with each other all the time, each by what it was pushed last, while others have
JWT-SVIDs validated, and new ones come.
"""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from sojourn.authority.x509_profile import signer_id
from sojourn.spiffetls.authorize import authorize_any
from sojourn.spiffetls.context import SpiffeContext
from sojourn.workloadapi.messages import X509Context, x509_context

from harness.raw import Wire

AUDIENCE = "https://a.example"


@dataclass(frozen=True)
class State:
    """What a workload has at one moment."""

    version: int
    context: X509Context | None


class Workload:
    """One that has an open stream. While the agent is down it goes on with what it has."""

    def __init__(self, address: str) -> None:
        self.present = State(0, None)
        self.wire = Wire(address, ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200))
        self.client = SpiffeContext(self, authorize_any(), server_side=False)
        self.server = SpiffeContext(self, authorize_any(), server_side=True)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self.wire.close()
        self._thread.join(10)

    def _follow(self) -> None:
        while not self._over.is_set():
            try:
                for message in self.wire.x509_stream():
                    self.present = State(self.present.version + 1, x509_context(message))
            except (grpc.RpcError, ValueError):  # the agent is down, or this is closed
                self._over.wait(0.05)


class TlsLoad:
    """Some workloads. `faults`: whatever failed. `first_seen`: wall times of the first SVID below each root."""

    def __init__(self, address: str, workloads: int) -> None:
        self.faults: list[str] = []
        self.handshakes = self.validated = self.fetched = 0
        self.first_seen: dict[str, float] = {}
        self.may_be_down = False
        self._address = address
        self._workloads = [Workload(address) for _ in range(workloads)]
        self._over = threading.Event()
        work = (self._shake_hands, self._validate, self._come_and_go)
        self._threads = [threading.Thread(target=self._again, args=(each,), daemon=True) for each in work]
        for each in self._threads:
            each.start()

    def close(self) -> None:
        self._over.set()
        for each in self._threads:
            each.join(20)
        for workload in self._workloads:
            workload.close()

    @property
    def ready(self) -> bool:
        enough = min(self.handshakes, self.validated, self.fetched) > 3
        return enough and all(each.present.context is not None for each in self._workloads)

    @property
    def versions(self) -> list[int]:
        """How often each workload was sent something."""
        return [each.present.version for each in self._workloads]

    def _again(self, work: Callable[[], None]) -> None:
        """Work, again and again. What fails while the agent is there is a fault."""
        while not self._over.wait(0.02):
            down = self.may_be_down
            try:
                work()
            except grpc.RpcError as error:
                if not down and not self.may_be_down:
                    self.faults.append(f"{work.__name__}: {error}")
                self._over.wait(0.05)
            except Exception as error:
                self.faults.append(f"{work.__name__}: {type(error).__name__}: {error}")

    def _shake_hands(self) -> None:
        held = [each for each in self._workloads if each.present.context is not None]
        for client in held:
            for server in held:
                shake_hands(client.client, server.server)
                self.handshakes += 1
            context = client.present.context
            assert context is not None  # it is held
            self.first_seen.setdefault(signer_id(context.default.chain[-1]), time.time())

    def _validate(self) -> None:
        with Wire(self._address) as wire:
            token = wire.jwt(AUDIENCE).svids[0].svid
            assert wire.validate(AUDIENCE, token).spiffe_id == "spiffe://example.org/me"
        self.validated += 1

    def _come_and_go(self) -> None:
        with Wire(self._address) as wire:
            context = x509_context(wire.x509())
        other = next((each for each in self._workloads if each.present.context is not None), None)
        if other is not None:
            shake_hands(SpiffeContext(Fixed(context), authorize_any(), server_side=False), other.server)
        self.fetched += 1


class Fixed:
    """A source of what was fetched once."""

    def __init__(self, context: X509Context) -> None:
        self.present = State(1, context)


def shake_hands(client: SpiffeContext, server: SpiffeContext) -> None:
    """In memory. Raise what either side does."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    waiting: list[Any] = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(20):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
        if not waiting:
            return
    raise AssertionError("the two do not come to an end")


@contextmanager
def tls_load(address: str, workloads: int = 2) -> Iterator[TlsLoad]:
    """Load for as long as the block; at its end nothing may have failed."""
    made = TlsLoad(address, workloads)
    try:
        yield made
    finally:
        made.close()
    assert not made.faults, f"{len(made.faults)}: {made.faults[:5]}"
