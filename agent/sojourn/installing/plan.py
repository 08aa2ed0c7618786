"""What is to be done, step by step: each knows whether it is done already, so that a second time does nothing."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

_UMASK: Final = 0o022


@dataclass(frozen=True)
class Step:
    """`is_done` is asked when the plan is shown, and again before `act`: what comes before may have done it."""

    what: str
    is_done: Callable[[], bool]
    act: Callable[[], None]


@dataclass(frozen=True)
class Shown:
    """A step as it is told."""

    what: str
    needed: bool


def shown(steps: Sequence[Step]) -> list[Shown]:
    """The plan, for who is to agree."""
    return [Shown(step.what, not step.is_done()) for step in steps]


def carry_out(steps: Sequence[Step], told: Callable[[str], None]) -> bool:
    """Do what is not done, and say each; whether there was anything. Raise CannotInstall where one fails.

    Whatever the umask of whoever installs: everybody may go through folders that are made on the way, root alone write.
    """
    before = os.umask(_UMASK)
    try:
        acted = False
        for step in steps:
            if not step.is_done():
                told(step.what)
                step.act()
                acted = True
        return acted
    finally:
        os.umask(before)
