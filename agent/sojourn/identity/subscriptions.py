"""The open streams, and which of them have an identity: whose SVIDs are watched, and who hears when those change."""

from collections.abc import Callable, Collection, Iterator
from datetime import datetime

from sojourn.attestation.attestor import Attested
from sojourn.attestation.peer import Peer
from sojourn.identity.entries import Entry, IdentityKey
from sojourn.identity.streams import IdentityStream, Waking

_ProcessKey = tuple[int, int]  # pid and start time


class Streams:
    """All open streams, and by their processes and identities, so that nobody looks through all of them for a few."""

    def __init__(self, watch: Callable[[IdentityKey], None], unwatch: Callable[[IdentityKey], None]) -> None:
        """`watch` is told of an identity when the first stream has it, `unwatch` when none has it any more."""
        self._watch = watch
        self._unwatch = unwatch
        self._turns = Waking()
        self._all: dict[IdentityStream, None] = {}  # in the order in which they were opened
        self._of_process: dict[_ProcessKey, dict[IdentityStream, None]] = {}
        self._of_identity: dict[IdentityKey, dict[IdentityStream, None]] = {}

    def __iter__(self) -> Iterator[IdentityStream]:
        """The oldest first."""
        return iter(tuple(self._all))

    def __len__(self) -> int:
        return len(self._all)

    def open(self, method: str, peer: Peer, attested: Attested, since: datetime) -> IdentityStream:
        """A new stream, of a caller that has nothing yet."""
        stream = IdentityStream(method, peer, attested, (), since, self._turns, unsure=bool(attested.failures))
        self._all[stream] = None
        self._of_process.setdefault(_process_of(stream), {})[stream] = None
        return stream

    def close(self, stream: IdentityStream) -> None:
        self.give(stream, ())
        del self._all[stream]
        others = self._of_process[_process_of(stream)]
        del others[stream]
        if not others:
            del self._of_process[_process_of(stream)]

    def give(self, stream: IdentityStream, entries: tuple[Entry, ...]) -> None:
        """From now on the stream's caller has these and no others."""
        before, stream.entries = stream.entries, entries
        kept = {entry.key for entry in entries}
        for key in kept:
            having = self._of_identity.get(key)
            if having is None:
                having = self._of_identity[key] = {}
                self._watch(key)
            having[stream] = None
        for entry in before:
            key = entry.key
            if key not in kept:
                having = self._of_identity[key]
                del having[stream]
                if not having:
                    del self._of_identity[key]
                    self._unwatch(key)

    def having(self, key: IdentityKey) -> Collection[IdentityStream]:
        """Those whose callers have this identity now."""
        return self._of_identity.get(key, {})

    def by_process(self) -> Iterator[Collection[IdentityStream]]:
        """Those of each process that holds any."""
        return iter(tuple(self._of_process.values()))


def _process_of(stream: IdentityStream) -> _ProcessKey:
    return stream.peer.process.key
