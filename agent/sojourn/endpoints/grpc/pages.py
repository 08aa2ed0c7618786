"""Lists in pages, as Google's AIP-158 has them: `page_size`, `page_token`, `next_page_token`.

A page token is the key of the last thing that was told, which that has for as long as it is there. So whoever reads on
misses nothing that is there all the while and is told nothing twice, whatever comes and goes between two pages; and
nothing is kept for a reader. However much a workload has made, a page is small and is made in some milliseconds.
"""

import asyncio
import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import nsmallest
from itertools import chain, islice
from operator import itemgetter
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from sojourn.errors import InvalidInput
from sojourn.limits import LISTED_AT_ONCE, LISTED_TEXT, PAGE_BYTES, PAGE_ITEMS, PAGE_TOKEN_MAX

Item = TypeVar("Item")
Told = TypeVar("Told", bound=Message)
Key = tuple[Any, ...]
FIRST = itemgetter(0)


class PageRequest(Protocol):
    """A request for a page."""

    @property
    def page_size(self) -> int: ...

    @property
    def page_token(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Pages(Generic[Item, Told]):
    """How things of one kind are listed: in the order of `key`, whose parts are of these `kinds`, each as `message`.

    None in the place of a message: it has gone meanwhile, and is left out.
    """

    kinds: tuple[type[datetime | int | str], ...]
    key: Callable[[Item], Key]
    message: Callable[[Item], Told | None]

    def page(self, items: Iterable[Item], asked: PageRequest) -> tuple[list[Told], str]:
        """The page that is asked for, and the token of the next one, '' if there is none. Raise InvalidInput."""
        most, after = self._asked(asked)
        return self._told(nsmallest(most + 1, self._keyed(items, after), key=FIRST), most)

    async def page_of_many(
        self, items: Iterable[Item], asked: PageRequest, fits: Callable[[Item], bool] = lambda _: True
    ) -> tuple[list[Told], str]:
        """As `page`, of the things that fit, where there may be so many that others have their turn while those are
        looked through.
        """
        most, after = self._asked(asked)
        found: list[tuple[Key, Item]] = []
        rest = iter(items)
        while some := list(islice(rest, LISTED_AT_ONCE)):
            found = nsmallest(most + 1, chain(found, self._keyed(filter(fits, some), after)), key=FIRST)
            await asyncio.sleep(0)
        return self._told(found, most)

    def _asked(self, asked: PageRequest) -> tuple[int, Key | None]:
        """How many at the most, and behind which key. Raise InvalidInput."""
        if asked.page_size < 0:
            raise InvalidInput("page_size is less than 0")
        after = key_of(asked.page_token, self.kinds) if asked.page_token else None
        return min(asked.page_size or PAGE_ITEMS, PAGE_ITEMS), after

    def _keyed(self, items: Iterable[Item], after: Key | None) -> Iterator[tuple[Key, Item]]:
        keyed = ((self.key(each), each) for each in items)
        return keyed if after is None else (each for each in keyed if each[0] > after)

    def _told(self, found: Sequence[tuple[Key, Item]], most: int) -> tuple[list[Told], str]:
        """As much of what was found as a page has room for."""
        told: list[Told] = []
        last, room = None, PAGE_BYTES
        for key, item in found[:most]:
            made = self.message(item)
            room -= 0 if made is None else made.ByteSize()
            if told and room < 0:
                break
            last = key
            if made is not None:
                told.append(made)
        return told, "" if last is None or last == found[-1][0] else token_of(last)


def token_of(key: Key) -> str:
    """The page token of what has this key."""
    text = json.dumps(key, default=datetime.isoformat, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode()


def key_of(unverified_token: str, kinds: Sequence[type[datetime | int | str]]) -> Key:
    """The key of a page token, whose parts are of these kinds. Raise InvalidInput."""
    if len(unverified_token) <= PAGE_TOKEN_MAX:
        try:
            parts = json.loads(base64.b64decode(unverified_token, altchars=b"-_", validate=True))
            return tuple(_part(kind, part) for kind, part in zip(kinds, parts, strict=True))
        except (ValueError, TypeError, RecursionError):
            pass
    raise InvalidInput("page_token is not one that this list has given")


def _part(kind: type[datetime | int | str], part: object) -> datetime | int | str:
    """One part of a key as it was. Raise ValueError or TypeError."""
    if kind is datetime:
        made = datetime.fromisoformat(part)  # type: ignore[arg-type]  # what is no text is a TypeError
        if made.tzinfo is None:
            raise ValueError
        return made
    if type(part) is not kind:
        raise TypeError
    return part


def fitting(texts: Iterable[str]) -> list[str]:
    """The first of these texts, as many as PAGE_BYTES has room for."""
    found, room = [], PAGE_BYTES
    for text in texts:
        room -= len(text.encode("utf-8", "surrogatepass"))
        if room < 0:
            break
        found.append(text)
    return found


def cut(text: str) -> str:
    """A text of a workload as it stands in lists: as long as people read, and no longer."""
    return text[:LISTED_TEXT]
