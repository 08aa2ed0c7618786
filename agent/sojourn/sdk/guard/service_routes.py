"""Which of a service's own routes a request goes to, as its framework says: what matches its path may be another's.

The guard's `GET /orders/{order}` matches `/orders/summary` too. Where the service has a route for each of them, the
first says nothing of the second: a route of the guard that is also the service's is for that one alone.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final, Protocol
from urllib.parse import quote

log = logging.getLogger("sojourn.guard")
_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F)))
_NAME: Final = re.compile(r"\{\w+(?::(\w+))?\}|<(?:(\w+)(?:\([^<>]*\))?:)?\w+>")  # of ASGI's frameworks; of WSGI's
_NOT_LITERAL: Final = frozenset("{}<>^$\\")
_SEVERAL_SEGMENTS: Final = "path"  # the converter of that name, in every framework

# A path's segments: None for one with a name, the others as clients send them.
Segments = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class ServiceRoute:
    """A route as the framework has it: its path, as the framework writes it, and its methods; none: whatever method."""

    path: str
    methods: frozenset[str] = frozenset()


class Framework(Protocol):
    """A service's framework, which can be asked for its routes."""

    def routes(self) -> Iterable[ServiceRoute]:
        """All of them, below what the application is mounted at."""

    def path_of(self, request: Mapping[str, Any]) -> str | None:
        """The path of the route that takes a request, given as its ASGI scope or WSGI environment. None: none does."""


class Destination:
    """Where one request goes. `mounted` is the path that the application is at, decoded, without a slash at its end."""

    def __init__(self, framework: Framework, request: Mapping[str, Any], mounted: str = "") -> None:
        self._framework, self._request, self._mounted = framework, request, mounted
        self._lost = False

    @cached_property
    def path(self) -> str | None:
        """The path of the service's route, as its framework writes it. None: to none, or the framework fails."""
        try:
            found = self._framework.path_of(self._request)
        except Exception:
            log.exception("the framework of the service does not say which route a request goes to: it is refused")
            self._lost, found = True, None
        return None if found is None else self._mounted + found

    def is_for(self, route: Segments) -> bool:
        """Whether a route of the guard says what the request is: it goes to just that one, or the service has none
        such.
        """
        if self.path is not None and segments_of(self.path) == route:
            return True
        return not self._lost and route not in self._served

    @cached_property
    def _served(self) -> frozenset[Segments | None]:
        """All that the service has: asked once, whatever routes of the guard match the request."""
        return frozenset(segments_of(self._mounted + each.path) for each in self._framework.routes())


def covers(route: Segments, other: Sequence[str | None]) -> bool:
    """Whether a route matches whatever another one does, or one path, by its segments."""
    return len(route) == len(other) and all(
        mine is None or mine == theirs for mine, theirs in zip(route, other, strict=True)
    )


def as_sent(segment: str) -> str:
    """A literal segment of a route as clients send it: escaped where it has to be."""
    return quote(segment, safe=_PRINTABLE)


@lru_cache(maxsize=1024)
def segments_of(path: str) -> Segments | None:
    """The segments of a framework's path. None where a name stands for less than one of them, or for more."""
    found: list[str | None] = []
    for segment in path.split("/"):
        name = _NAME.fullmatch(segment)
        if name is None and not _NOT_LITERAL.isdisjoint(segment):
            return None
        if name is not None and _SEVERAL_SEGMENTS in name.groups():
            return None
        found.append(as_sent(segment) if name is None else None)
    return tuple(found)


def siblings(guarded: Mapping[tuple[str, Segments], str], framework: Framework, mounted: str) -> Iterator[str]:
    """Which of the service's routes are refused though one of the guard's matches their paths, a sentence each.

    `guarded` are the guard's own as they were written, those that need no token too, by method and segments.
    """
    theirs = [(each, mounted + each.path, segments_of(mounted + each.path)) for each in framework.routes()]
    own = {segments for _, _, segments in theirs}
    for (method, segments), text in guarded.items():
        if segments not in own:  # it stands for all that it matches
            continue
        for each, path, other in theirs:
            takes = not each.methods or method in each.methods
            if takes and other is not None and covers(segments, other) and (method, other) not in guarded:
                yield (
                    f"{method} {path} is refused, though {text} matches its path: that is another route of this"
                    " service. Give it an action of its own, or make it public"
                )
