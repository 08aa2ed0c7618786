"""Promises: tests of a plugin that come with Sojourn, for whichever kind of plugin.

A contract is a class whose coroutines are marked by `promised`. Each is run in an event loop of its own and is watched:
whatever it tests must leave no open file, no running task and no thread behind, and make no connection by itself. If
the contract's `connects` is true, it may connect, and it is for the contract to look where it must not: `Outward`.
"""

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Self, TypeVar

PROMISE_SECONDS: Final = 60.0  # one that takes longer hangs
THREADS_END_SECONDS: Final = 2.0  # what takes longer was left
_OPEN_FILES: Final = "/dev/fd"
_MARK: Final = "__promised__"
_Test = TypeVar("_Test", bound=Callable[[Any], Awaitable[None]])


class Broken(AssertionError):
    """A promise is not kept; the text says what was seen."""


def expect(kept: object, seen: str) -> None:
    """Raise Broken with `seen` unless `kept`."""
    if not kept:
        raise Broken(seen)


def promised(sentence: str) -> Callable[[_Test], _Test]:
    """Mark a coroutine of a contract as one of its promises. `sentence` says what holds."""

    def mark(test: _Test) -> _Test:
        setattr(test, _MARK, sentence)
        return test

    return mark


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise of one plugin. `str` of it is its name."""

    name: str
    sentence: str
    test: Callable[[], Awaitable[None]]
    connects: bool = False

    def run(self) -> None:
        """Try it. Raise Broken if it is not kept."""
        with Outward() as outward, _threads():
            asyncio.run(self._watched())
        expect(self.connects or not outward.seen, f"it reached the outside by itself: {', '.join(outward.seen)}")

    async def _watched(self) -> None:
        tasks, files = asyncio.all_tasks(), _open_files()
        try:
            async with asyncio.timeout(PROMISE_SECONDS):
                await self.test()
        except TimeoutError:
            raise Broken(f"{self.sentence}: it hung for {PROMISE_SECONDS:g} s") from None
        await asyncio.sleep(0)  # so that what was cancelled ends
        left = asyncio.all_tasks() - tasks
        expect(not left, f"it left tasks running: {sorted(each.get_name() for each in left)}")
        gc.collect()
        expect(_open_files() <= files, f"it left files open: {files} before, {_open_files()} after")

    def __str__(self) -> str:
        return self.name


def promises_of(contract: object) -> Sequence[Promise]:
    """The promises of a contract, in the order in which they are written, those of its bases first."""
    tests = {name: each for kind in reversed(type(contract).__mro__) for name, each in vars(kind).items()}
    marked = [(name, each) for name, each in tests.items() if hasattr(each, _MARK)]
    connects = bool(getattr(contract, "connects", False))
    return [Promise(name, getattr(each, _MARK), getattr(contract, name), connects) for name, each in marked]


@contextmanager
def told(where: str) -> Iterator[None]:
    """Have a Broken that is raised in the block say where it was."""
    try:
        yield
    except Broken as broken:
        raise Broken(f"{where}: {broken}") from broken


def _open_files() -> int:
    return len(os.listdir(_OPEN_FILES))


@contextmanager
def _threads() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    ends = time.monotonic() + THREADS_END_SECONDS
    for each in [each for each in threading.enumerate() if each not in before and not each.daemon]:
        each.join(max(0.0, ends - time.monotonic()))  # one of a pool that was shut down ends in a moment
    left = [each for each in threading.enumerate() if each not in before and not each.daemon]
    expect(not left, f"it left threads running: {sorted(each.name for each in left)}")


class Outward:
    """Notes what connects anywhere, or starts a program, while it is open: the audit events of Python, by `seen`."""

    CONNECTS: Final = frozenset({"socket.connect"})
    STARTS: Final = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn"})

    def __init__(self, watched: frozenset[str] = CONNECTS | {"subprocess.Popen", "os.system"}) -> None:
        self.seen: list[str] = []
        self._watched = watched

    def __enter__(self) -> Self:
        _hook()
        _OPEN.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _OPEN.remove(self)

    def heard(self, event: str) -> None:
        """Note an event, if it is one of those that are looked for."""
        if event in self._watched:
            self.seen.append(event)


_OPEN: Final[list[Outward]] = []


@cache
def _hook() -> None:
    """One for all of a process: there is no taking a hook back, and each is called at every event ever after."""
    sys.addaudithook(_heard)


def _heard(event: str, _arguments: tuple[Any, ...]) -> None:
    for each in _OPEN:
        each.heard(event)
