"""Workloads that verify each other at each moment, each by the bundle that it was pushed, while others come and go."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import grpc
from cryptography import x509
from sojourn.authority.x509_profile import signer_id
from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.x509svid import parse_certificates, verify_chain

from harness.raw import Wire

HOME = TrustDomain("example.org")
Chain = tuple[x509.Certificate, ...]


class Held:
    """What one workload has by its stream: its chain, and the roots that it verifies others by."""

    def __init__(self, address: str) -> None:
        self.wire = Wire(address)
        self.now: tuple[Chain, Chain] | None = None
        self.streams = 0
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
                    svid = message.svids[0]
                    self.now = parse_certificates(svid.x509_svid), parse_certificates(svid.bundle)
                    self.streams += 1
            except (grpc.RpcError, ValueError):  # the agent is down, or this is closed: what there is is held on to
                self._over.wait(0.05)


class Mesh:
    """Some workloads. `faults`: each pair that could not verify, and each new one that was refused."""

    def __init__(self, address: str, workloads: int) -> None:
        self.faults: list[str] = []
        self.checked = 0
        self.fetched = 0
        self.roots_seen: list[str] = []  # that SVIDs chained to, in order
        self.bundles: list[frozenset[str]] = []  # the authority IDs of the bundle, in order
        self.may_be_down = False  # whether new workloads may find nobody
        self._address = address
        self._held = [Held(address) for _ in range(workloads)]
        self._over = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._verify, self._come_and_go)]
        for each in self._threads:
            each.start()

    def close(self) -> None:
        self._over.set()
        for each in self._threads:
            each.join(20)
        for held in self._held:
            held.close()

    @property
    def now(self) -> tuple[Chain, Chain]:
        found = self._held[0].now
        assert found is not None
        return found

    @property
    def ready(self) -> bool:
        return all(each.now is not None for each in self._held)

    def _verify(self) -> None:
        while not self._over.wait(0.03):
            # A bundle that comes with an SVID comes first: whoever is verified by it may have got his before it.
            held = [each.now for each in self._held]
            for mine in held:
                for other in held:
                    if mine is not None and other is not None:
                        self._look(mine[0], other[1])
            if held[0] is not None:
                self._note(*held[0])

    def _look(self, chain: Chain, roots: Chain) -> None:
        self.checked += 1
        now = datetime.now(UTC)
        if chain[0].not_valid_after_utc <= now:
            self.faults.append(f"{now:%H:%M:%S}: an SVID had ended at {chain[0].not_valid_after_utc:%H:%M:%S}")
            return
        try:
            verify_chain(chain, roots, HOME, now)
        except Exception as error:
            self.faults.append(f"{now:%H:%M:%S}: {error} ({getattr(error, 'detail', '')})")

    def _note(self, chain: Chain, roots: Chain) -> None:
        root, named = signer_id(chain[-1]), frozenset(map(root_id, roots))
        if self.roots_seen[-1:] != [root]:
            self.roots_seen.append(root)
        if self.bundles[-1:] != [named]:
            self.bundles.append(named)

    def _come_and_go(self) -> None:
        while not self._over.wait(0.01):
            with Wire(self._address) as wire:
                try:
                    message: Any = wire.x509()
                except grpc.RpcError as error:
                    if not self.may_be_down:
                        self.faults.append(f"refused: {error}")
                    time.sleep(0.05)
                    continue
            svid = message.svids[0]
            self._look(parse_certificates(svid.x509_svid), parse_certificates(svid.bundle))
            self.fetched += 1


def root_id(certificate: x509.Certificate) -> str:
    """The authority ID of a root, as `sojourn authority show` has it."""
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex()


@contextmanager
def mesh(address: str, workloads: int = 4) -> Iterator[Mesh]:
    """Workloads for as long as the block; at its end none of them may have noticed anything."""
    made = Mesh(address, workloads)
    try:
        yield made
    finally:
        made.close()
    assert [] == made.faults[:5]
    assert made.checked > 10
