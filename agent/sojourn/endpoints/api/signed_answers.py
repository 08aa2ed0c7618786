"""Which SVIDs a stream's answer has while some of them have to be waited for.

An answer is the whole set: what is not in it its client has no more, and the first is its default (Workload API, 5.2).
So none takes from a client what it holds, or makes another one its default, because a signature is slow. A first answer
waits until all is signed, and is sent without what cannot be had in time only where the default is there. A later one
is sent at once if it has all that the client holds, so that bundles and revocations wait for nobody: what is new to the
client follows when it is signed.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from sojourn.errors import Unavailable
from sojourn.identity.entries import Entry
from sojourn.identity.identities import Identities
from sojourn.identity.signatures import Overtaken
from sojourn.identity.streams import IdentityStream
from sojourn.limits import SIGNATURE_WAIT_SECONDS


class Signing(Protocol):
    """What has SVIDs of one kind: `Svids`."""

    def look(self, entry: Entry) -> Any | None: ...
    async def get(self, entry: Entry) -> Any: ...
    def begin(self, entry: Entry) -> None: ...


class Waited(NamedTuple):
    """What there is to know of answers that may have to be waited for: of which entries of a stream they are, and what
    makes one of some of these; it returns None if one of them is not there.
    """

    svids: Signing
    entries_of: Callable[[IdentityStream], Sequence[Entry]]
    make: Callable[[IdentityStream, Sequence[Entry]], bytes | None]


async def entries_to_send(
    identities: Identities, waited: Waited, stream: IdentityStream, held: Sequence[Entry]
) -> Sequence[Entry]:
    """Return when the stream's next answer can be made, and of which entries. The client was sent the SVIDs of those
    that are `held`.

    Raise Unavailable if what must be in it cannot be had in time, and what the stream ends with, if it does.
    """
    until = asyncio.get_running_loop().time() + SIGNATURE_WAIT_SECONDS
    svids = waited.svids
    error: Exception | None = None
    while True:
        entries = waited.entries_of(stream)
        missing = [entry for entry in entries if svids.look(entry) is None]
        if not missing:
            return entries
        lacking = {entry.key for entry in missing}
        at_hand = [entry for entry in entries if entry.key not in lacking]
        enough = at_hand and (not any(entry.key in lacking for entry in held) if held else error is not None)
        if enough and (held or entries[0].key not in lacking):
            _begin(svids, missing)
            return at_hand
        if error is not None:
            raise error
        error = await _signed_or_changed(svids, stream, missing, until)
        await identities.refresh(stream)  # the caller may be another by now, or have nothing any more
        stream.check_open()


def _begin(svids: Signing, missing: Sequence[Entry]) -> None:
    for entry in missing:
        svids.begin(entry)


async def _signed_or_changed(
    svids: Signing, stream: IdentityStream, missing: Sequence[Entry], until: float
) -> Exception | None:
    """Wait for signatures up to the loop's time `until`, or for a change. Return why one cannot be had."""
    signed = asyncio.gather(*(svids.get(entry) for entry in missing), return_exceptions=True)
    change = asyncio.ensure_future(stream.next_change())
    waiting: set[asyncio.Future[Any]] = {signed, change}
    try:
        left = until - asyncio.get_running_loop().time()
        await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if change.done():
            change.result()
            return None
        if not signed.done():
            return Unavailable(f"an SVID was not signed within {SIGNATURE_WAIT_SECONDS:g} s: ask again")
        errors = [each for each in signed.result() if isinstance(each, Exception) and not isinstance(each, Overtaken)]
        return errors[0] if errors else None
    finally:
        signed.cancel()
        change.cancel()
        await asyncio.gather(signed, change, return_exceptions=True)
