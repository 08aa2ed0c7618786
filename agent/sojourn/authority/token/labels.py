"""Labels of root keys as names of services that allow fewer characters.

A label is `sojourn/TRUST_DOMAIN/NODE/root/N`. In a name each of its characters that is not allowed is an underscore and
a letter, and so is an underscore: no two labels have one name.
"""

import re
from collections.abc import Iterable
from typing import Final

from sojourn.errors import FailedPrecondition
from sojourn.limits import KEYS_OF_NODE_IN_TOKEN

_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")
_LETTERS: Final = {"_": "_u", "/": "_s", ".": "_d", ":": "_c"}


def name_of(label: str, allowed: str) -> str:
    """The name of a label where, beside letters, digits and underscores, these characters are allowed."""
    return "".join(letter if letter in allowed else _LETTERS.get(letter, letter) for letter in label)


def numbers_in(names: Iterable[str], prefix: str) -> set[int]:
    """The numbers of those of the names that are `prefix` and a number."""
    ends = (each.removeprefix(prefix) for each in names if each.startswith(prefix))
    return {int(each) for each in ends if _NUMBER.fullmatch(each)}


def next_of(numbers: set[int], where: str) -> int:
    """One that no key has yet. Raise FailedPrecondition if so many keys are there that something makes them."""
    if len(numbers) >= KEYS_OF_NODE_IN_TOKEN:
        raise FailedPrecondition(
            f"{where} has {len(numbers)} keys of this node, and no more are made: delete those whose roots are gone, by"
            " its own means"
        )
    return max(numbers, default=0) + 1
