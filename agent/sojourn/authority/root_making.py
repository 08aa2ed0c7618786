"""Roots, where a token makes their keys: the first, those that are due, and those that an operator wants."""

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from sojourn.authority.asking import Asking, Sleep
from sojourn.authority.key_rotation import Slot
from sojourn.authority.roots import Roots, TokenRoot
from sojourn.errors import CannotStart, SojournError, Unavailable
from sojourn.files import atomic
from sojourn.limits import ROOT_SECONDS

log = structlog.get_logger()
AWAITED: Final = "root-awaited"  # in the folder of keys, while there are other keys and the first root is to be made


class RootMaker(Protocol):
    """Makes roots in a token."""

    async def make(self, used: Collection[str]) -> TokenRoot:
        """A new one; `used` are the labels of the keys that have one."""

    def settle(self, used: Collection[str]) -> None:
        """Forget what was to be made by one of these keys: the certificate of that is on disk."""


class RootMaking:
    """Has roots made, and gives them to `roots`. `fault`: why there was none when one was last asked for."""

    def __init__(self, roots: Roots, maker: RootMaker, folder: Path, sleep: Sleep = asyncio.sleep) -> None:
        self.fault = ""
        self._roots = roots
        self._maker = maker
        self._folder = folder
        self._asking: Asking[TokenRoot] = Asking(self._failed, sleep)
        maker.settle(roots.objects)

    async def prepare(self) -> Slot[Any]:
        """Have the next one made and prepared. Raise Unavailable if it is not made in time, or the first one is not."""
        self._roots.active  # noqa: B018  # the first one comes before
        try:
            async with asyncio.timeout(ROOT_SECONDS):
                made = await self._maker.make(self._roots.objects)
        except TimeoutError:
            raise Unavailable(f"the token has made no root within {ROOT_SECONDS:g} s: nothing was changed") from None
        self._roots.offer(made)
        slot = self._roots.prepare()
        self._maker.settle(self._roots.objects)
        return slot

    def look(self, made: Callable[[], object]) -> None:
        """Have one made if it is due; `made` is called when it is there."""
        if self._roots.is_wanted:
            self._asking.begin(partial(self._maker.make, self._roots.objects), partial(self._take, made))

    async def wait(self, seconds: float) -> None:
        """Wait for what was asked for, but no longer than this."""
        await self._asking.wait(seconds)

    def hurry(self) -> None:
        """End a pause between two tries."""
        self._asking.hurry()

    async def close(self) -> None:
        await self._asking.close()

    def _take(self, made: Callable[[], object], root: TokenRoot) -> None:
        if self._roots.is_wanted:  # no operator was quicker
            self._roots.take(root)
            note_awaited(self._folder, awaited=False)
        self._maker.settle(self._roots.objects)
        self.fault = ""
        made()

    def _failed(self, error: Exception) -> None:
        said = error.public if isinstance(error, SojournError) else type(error).__name__
        if said != self.fault:
            log.error("root_not_made", reason=said, detail=getattr(error, "detail", ""))
        self.fault = said


def note_awaited(folder: Path, *, awaited: bool) -> None:
    """Have it on disk whether the first root is still to be made, so that other keys without one are no loss of it.

    Raise CannotStart.
    """
    path = folder / AWAITED
    try:
        if not awaited:
            path.unlink(missing_ok=True)
        elif not path.exists():
            atomic.write(path, b"")
    except OSError as error:
        raise CannotStart(f"{str(path)!r} cannot be written: {error.strerror}") from error
