"""What was proved of processes a moment ago, for their other connections.

A process that connects for each call would be attested for each. What is proved is of the process, and not of its
connection: so a result serves the connections that come within ATTESTATION_SHARED_SECONDS, if they are of the very same
process, with the same ids and program. Whatever is looked at on each call is looked at on theirs too.
"""

import os
from typing import NamedTuple

from sojourn.attestation.attestor import Attested
from sojourn.attestation.peer import Peer
from sojourn.attestation.process import Program
from sojourn.limits import ATTESTATION_SHARED_SECONDS, ATTESTATIONS_SHARED
from sojourn.quota.lru import Lru
from sojourn.runtime.clock import Clock


class _Same(NamedTuple):
    """`pidfd`: device and inode, which the kernel gives to one process and, until it starts anew, to no other."""

    pidfd: tuple[int, int]
    uid: int
    gid: int
    groups: frozenset[int]
    program: Program | None


class Shared:
    """The last results, ATTESTATIONS_SHARED at the most: those in which every attestor could tell."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: Lru[_Same, Attested] = Lru(ATTESTATIONS_SHARED, by_age=True)
        self._anonymous = _anonymous()

    def get(self, peer: Peer) -> Attested | None:
        """What was proved of the process of `peer` just now, when it was what it was at this connect."""
        if not self._kept or peer.process.pidfd < 0:  # it has left: what is asked for it next will find that
            return None
        kept = self._kept.get(self._same(peer))
        return kept if kept is not None and kept.at > self._clock.boot() - ATTESTATION_SHARED_SECONDS else None

    def put(self, peer: Peer, attested: Attested) -> None:
        """Keep what was proved of `peer`."""
        same = self._same(peer)
        if attested.failures or same.pidfd == self._anonymous:
            return
        self._kept.put(same, attested)
        self._kept.drop_while(lambda each: each.at <= attested.at - ATTESTATION_SHARED_SECONDS)

    def _same(self, peer: Peer) -> _Same:
        return _Same(_file(peer.process.pidfd), peer.uid, peer.gid, peer.groups, peer.program)


def _anonymous() -> tuple[int, int]:
    """The file behind all descriptors for which the kernel has none, as it was behind pidfds before Linux 6.9."""
    descriptor = os.eventfd(0)
    try:
        return _file(descriptor)
    finally:
        os.close(descriptor)


def _file(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
