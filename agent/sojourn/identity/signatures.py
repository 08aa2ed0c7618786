"""Signatures that have to be waited for: one at a time for each key, whoever asks, and none for what has changed since.

A signature goes on although whoever asked for it has gone. It is given up when what it is for changes, or goes, or is
revoked: whoever waits for it is told that at once, and looks again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Generic, TypeVar

from sojourn.errors import LimitExceeded, Unavailable
from sojourn.identity.entries import Entry, IdentityKey
from sojourn.limits import SIGNATURE_SECONDS, SIGNATURE_WAIT_SECONDS, SIGNATURES_AT_ONCE, SIGNATURES_AT_ONCE_PER_ENTRY
from sojourn.quota.fair_semaphore import FairSemaphore

Key = TypeVar("Key", bound=Hashable)
Made = TypeVar("Made")


class Overtaken(Unavailable):
    """What was being signed may not be given any more: its entry has changed, or it was revoked. Look again."""

    def __init__(self) -> None:
        super().__init__("what was to be signed has changed meanwhile: ask again")


def places() -> FairSemaphore:
    """Room for all signatures of one kind that are under way; entries take turns, so that one with many holds up no
    other. Each kind has a room of its own: where the signer of one hangs, a few entries fill that, and no other.
    """
    return FairSemaphore(SIGNATURES_AT_ONCE_PER_ENTRY, in_all=SIGNATURES_AT_ONCE)


async def in_time(signing: Awaitable[Made]) -> Made:
    """What is signed for one caller alone. Raise Unavailable if it takes longer than SIGNATURE_WAIT_SECONDS."""
    try:
        async with asyncio.timeout(SIGNATURE_WAIT_SECONDS):
            return await signing
    except TimeoutError:
        raise Unavailable(f"an SVID was not signed within {SIGNATURE_WAIT_SECONDS:g} s: ask again") from None


class Signature(Generic[Key, Made]):
    """One that is under way, or is there and has not been taken yet by those who hold it."""

    __slots__ = ("done", "entry", "holders", "key", "void", "work")

    def __init__(self, key: Key, entry: Entry) -> None:
        self.key = key
        self.entry = entry
        self.done: asyncio.Future[Made] = asyncio.get_running_loop().create_future()
        self.work: asyncio.Future[None] | None = None
        self.holders = 0
        self.void = False  # what was signed, or will be, may not be given

    def take(self) -> Made:
        """What was signed. Raise Overtaken if it may not be given any more, or what signing failed with."""
        if self.void:
            raise Overtaken
        return self.done.result()


class Signatures(Generic[Key, Made]):
    """Those of one kind of SVID."""

    def __init__(
        self,
        at_once: FairSemaphore,
        land: Callable[[Signature[Key, Made], Made], None],
        failed: Callable[[Signature[Key, Made], Exception], None],
        *,
        wanted: Callable[[Key], bool] = lambda _: False,
        per_entry: float = inf,
    ) -> None:
        """`land` is told of what was signed before anybody has it, and raises if it is not good; `failed` of what could
        not be signed. `wanted`: whether a key is although nobody waits. `per_entry`: how many of one there may be.
        """
        self._at_once = at_once
        self._land = land
        self._failed = failed
        self._wanted = wanted
        self._per_entry = per_entry
        self._under_way: dict[Key, Signature[Key, Made]] = {}
        self._of_entry: dict[str, dict[Signature[Key, Made], None]] = {}  # also those that are held

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._under_way)

    def of(self, key: Key) -> Signature[Key, Made] | None:
        """The one that is under way for a key."""
        return self._under_way.get(key)

    def begin(self, key: Key, entry: Entry, sign: Callable[[], Awaitable[Made]]) -> Signature[Key, Made]:
        """The signature for a key that is under way for this very entry; a new one if there is none. Raise
        LimitExceeded.
        """
        found = self._under_way.get(key)
        if found is not None:
            if found.entry is entry or found.entry == entry:
                return found
            self._give_up(found)
        if len(self._of_entry.get(entry.id, ())) >= self._per_entry:
            raise LimitExceeded("too many SVIDs of this entry are waited for: come again in a while")
        signature = self._under_way[key] = Signature[Key, Made](key, entry)
        self._of_entry.setdefault(entry.id, {})[signature] = None
        signature.work = asyncio.ensure_future(self._work(signature, sign))
        return signature

    @contextmanager
    def held(self, signature: Signature[Key, Made]) -> Iterator[Signature[Key, Made]]:
        """While it is held, a signature that may not be given any more is known as such."""
        signature.holders += 1
        try:
            yield signature
        finally:
            signature.holders -= 1
            if not signature.holders and signature.done.done():
                self._drop(signature)

    async def wait(self, signature: Signature[Key, Made]) -> Made:
        """What is signed. Raise Unavailable if it takes over SIGNATURE_WAIT_SECONDS, and what `take` raises."""
        with self.held(signature):
            await asyncio.wait({signature.done}, timeout=SIGNATURE_WAIT_SECONDS)
            if not signature.done.done():
                raise Unavailable(f"an SVID was not signed within {SIGNATURE_WAIT_SECONDS:g} s: ask again")
            return signature.take()

    def give_up(self, which: Callable[[Entry], bool]) -> None:
        """Give up what is for entries that are so: what was asked for is not to be given."""
        for signature in [each for those in self._of_entry.values() for each in those if which(each.entry)]:
            self._give_up(signature)

    def give_up_entry(self, entry_id: str) -> None:
        """Give up what is for one entry."""
        for signature in list(self._of_entry.get(entry_id, ())):
            self._give_up(signature)

    def give_up_identity(self, identity: IdentityKey) -> None:
        """Give up what is for one identity."""
        for signature in [each for each in self._of_entry.get(identity.entry_id, ()) if each.entry.key == identity]:
            self._give_up(signature)

    def _give_up(self, signature: Signature[Key, Made]) -> None:
        signature.void = True
        self._drop(signature)
        if not signature.done.done():
            self._fail(signature, Overtaken())
            assert signature.work is not None  # set as it began
            signature.work.cancel()

    def _drop(self, signature: Signature[Key, Made]) -> None:
        if self._under_way.get(signature.key) is signature:
            del self._under_way[signature.key]
        those = self._of_entry.get(signature.entry.id)
        if those is not None:
            those.pop(signature, None)
            if not those:
                del self._of_entry[signature.entry.id]

    def _fail(self, signature: Signature[Key, Made], error: Exception) -> None:
        signature.done.set_exception(error)
        signature.done.exception()  # noted as seen: those who asked may all have gone

    async def _work(self, signature: Signature[Key, Made], sign: Callable[[], Awaitable[Made]]) -> None:
        try:
            async with self._at_once.one(signature.entry.id):
                if not signature.holders and not self._wanted(signature.key):
                    raise Overtaken  # nobody asks for it any more
                async with asyncio.timeout(SIGNATURE_SECONDS):
                    made = await sign()
            self._landed(signature, made)
        except TimeoutError:
            self._ended(signature, Unavailable(f"an SVID was not signed within {SIGNATURE_SECONDS:g} s"))
        except Exception as error:  # noqa: BLE001  # whatever signs may be a plugin's, or a library's
            self._ended(signature, error)
        finally:
            self._drop_if_free(signature)

    def _landed(self, signature: Signature[Key, Made], made: Made) -> None:
        if signature.void:
            return
        del self._under_way[signature.key]  # whoever asks from here on looks at what is kept
        if signature.holders or self._wanted(signature.key):
            self._land(signature, made)
        signature.done.set_result(made)

    def _ended(self, signature: Signature[Key, Made], error: Exception) -> None:
        if signature.void:
            return
        self._under_way.pop(signature.key, None)
        if not isinstance(error, Overtaken):
            self._failed(signature, error)
        if not signature.done.done():
            self._fail(signature, error)

    def _drop_if_free(self, signature: Signature[Key, Made]) -> None:
        if not signature.done.done():  # the agent ends
            self._fail(signature, Overtaken())
        if not signature.holders:
            self._drop(signature)
