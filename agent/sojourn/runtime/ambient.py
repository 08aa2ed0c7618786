"""Ambient capabilities: those that a program has by nothing but who starts it.

A unit of systemd gives the agent its capabilities so, and whatever the agent starts would have them too. They are taken
off at the start, whereby the agent keeps its own; a child that needs them gets them by `passed_on`.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sojourn.errors import CannotStart

_PR_CAP_AMBIENT: Final = 47
_IS_SET, _RAISE, _CLEAR_ALL = 1, 2, 4
_MOST: Final = 64  # the kernel's sets of capabilities have so many bits
_prctl = ctypes.CDLL(None, use_errno=True).prctl
_taken: set[int] = set()


def take_off() -> None:
    """Have no child of this process get capabilities by being its child. Before other threads are started, since each
    has a set of its own, and gets that of who starts it. Raise CannotStart if the kernel refuses.
    """
    if not (found := _ambient()):
        return
    if _prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0) != 0 or _ambient():
        raise CannotStart(
            "the kernel does not take the ambient capabilities off, which the programs that the agent starts would get:"
            " allow prctl in the unit's SystemCallFilter="
        )
    _taken.update(found)


@contextmanager
def passed_on() -> Iterator[None]:
    """While this lasts, what this thread starts gets what was taken off, and what others start does not. Let nothing
    else run in this thread meanwhile. Raise OSError if the kernel refuses.
    """
    try:
        for number in sorted(_taken):
            if _prctl(_PR_CAP_AMBIENT, _RAISE, number, 0, 0) != 0:
                code = ctypes.get_errno()
                raise OSError(code, f"the agent cannot pass capability {number} on: {os.strerror(code)}")
        yield
    finally:
        if _taken:
            _prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)


def _ambient() -> set[int]:
    """Those that this thread has."""
    return {number for number in range(_MOST) if _prctl(_PR_CAP_AMBIENT, _IS_SET, number, 0, 0) == 1}
