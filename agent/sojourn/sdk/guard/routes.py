"""Which action a request is, by its method and its path as it was sent."""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol
from urllib.parse import unquote, unquote_to_bytes

from sojourn.errors import InvalidInput
from sojourn.sdk.guard.param_places import BODY, OF_HTTP, PATH, ParamPlace, placed
from sojourn.sdk.guard.service_routes import Destination, Segments, as_sent, covers
from sojourn.tasktoken.task_claim import APPROVED

TAKING: Final = ("required", "optional", "refused")  # what an action says of tokens that are for a person
OF_PERSON: Final = ("sub", "iss")  # what parameters may be compared with
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Action:
    """What a request does: an action's `name`, and where its `params` stand, as places, or which they are, as values.

    A parameter of the task that is not among them stands in the segment, the message's field or the function's argument
    of its own name; where there is none the request is refused, but for those that are `unchecked`: a request does not
    have them. With `acr` set to APPROVED somebody must have approved its token's task.

    `person` says whether tokens are taken that are for a person: "required", "optional" or "refused"; '' leaves that to
    the guard, and "refused" is what that says by default. `person_params` name parameters of the request that are the
    person: `{"customer": "sub"}` compares the one of that name, or place, with their subject, and "iss" with their
    issuer. `acr_values` say how they must have logged in, one of them, and `max_age` how many seconds ago at most.
    Each of these three needs a person.
    """

    name: str
    params: Mapping[str, object] = field(default_factory=dict)
    acr: str = ""
    unchecked: Collection[str] = ()
    segments: Mapping[str, str] = field(default_factory=dict)  # of the path, by their names in the route, decoded
    person: str = ""
    person_params: Mapping[str, str] = field(default_factory=dict)
    acr_values: Collection[str] = ()
    max_age: int | None = None

    def __post_init__(self) -> None:
        """Raise InvalidInput for a text in the place of names: its letters would be unchecked; and for what is asked
        of a person where none need be.
        """
        for name in ("unchecked", "acr_values"):
            if isinstance(getattr(self, name), str):
                raise InvalidInput(f"{name} is several names: write ({getattr(self, name)[:64]!r},)")
        if self.person not in {"", *TAKING}:
            raise InvalidInput(f"person is one of {', '.join(TAKING)}, and not {self.person[:64]!r}")
        if self.asks_of_person and self.person not in {"", "required"}:
            raise InvalidInput("person_params, acr_values and max_age are asked of a person: write person='required'")
        if not set(self.person_params.values()) <= set(OF_PERSON) or set(self.person_params) & set(self.unchecked):
            raise InvalidInput(f"person_params are compared, each with one of {', '.join(OF_PERSON)}")
        if self.max_age is not None and self.max_age < 0:
            raise InvalidInput("max_age is seconds, and none is less than 0")

    @property
    def acr_wanted(self) -> tuple[str, ...]:
        """How its person must have logged in: one of these; none: as they like."""
        return (*self.acr_values, self.acr) if self.acr not in {"", APPROVED} else tuple(self.acr_values)

    @property
    def asks_of_person(self) -> bool:
        """Whether it asks something that only the token of a person has."""
        return bool(self.person_params or self.acr_wanted or self.max_age is not None)


# A request that needs a token which is valid here, for whatever action, as a greeting before the first call. It counts
# as no use of the token, and whom that is for does not matter yet.
ANY_ACTION: Final = Action("", person="optional")
ActionOf = Callable[[str, str], str | Action | None]
Actions = ActionOf | Mapping[str, str] | Mapping[str, Action] | Mapping[str, str | Action]


class ActionFinder(Protocol):
    """Says which Action a request is. None: no route matches."""

    def __call__(self, method: str, path: str, destination: Destination | None = None) -> Action | None:
        """`path` is as it was sent; `destination` is where the service's framework takes the request, if known."""


@dataclass(frozen=True, slots=True)
class Route:
    """What is known of a route before any request: its action, and which parameters its own names are."""

    text: str
    action: Action
    named: frozenset[str]
    kind: str = BODY  # where else a parameter most likely stands


def routes_of(actions: Actions) -> list[Route]:
    """The routes of a mapping; those of a function that has `routes`; of any other nothing is known."""
    if not isinstance(actions, Mapping):
        return list(getattr(actions, "routes", ()))
    parsed = {text: _Route.parse(text, action) for text, action in actions.items()}
    return [Route(text, route.action, frozenset(route.names.values())) for text, route in parsed.items()]


def by_segments(routes: Iterable[str]) -> dict[tuple[str, Segments], str]:
    """Routes as they were written, by their method and the segments of their path. Raise InvalidInput."""
    parsed = {text: _Route.parse(text, "") for text in routes}
    return {(route.method, route.literals): text for text, route in parsed.items()}


def action_finder(actions: Actions) -> ActionFinder:
    """Return a function from method, path and destination to the Action, or None where no route matches.

    In a mapping, `{"GET /tickets/{id}": "ticket:read"}`, a `{name}` stands for one whole segment, and becomes one of
    the Action's segments; all else is compared byte for byte with the path as it was sent, and the first route that
    matches counts. A path that could be read as another route's, once it is decoded or its case is changed, matches
    none. A route that the service has as well matches only what goes there, where the destination is known. A function
    is given the path as it was sent. Raise InvalidInput for a route that could match nothing, as one behind another
    that takes all of its requests.
    """
    if not isinstance(actions, Mapping):
        return lambda method, path, destination=None: _placed(_action(actions(method, path)))  # noqa: ARG005 - it knows
    routes = {route: _Route.parse(route, action) for route, action in actions.items()}
    for place, (text, route) in enumerate(routes.items()):
        for before in list(routes.items())[:place]:
            if before[1].covers(route):
                raise InvalidInput(f"route {text[:200]!r} never counts: put it before {before[0][:200]!r}")
    return _Table(list(routes.values())).find


class _Table:
    def __init__(self, routes: "list[_Route]") -> None:
        self._routes = routes

    def find(self, method: str, path: str, destination: Destination | None = None) -> Action | None:
        segments = path.split("/")
        for place, route in enumerate(self._routes):
            if route.method != method or not route.matches(segments):
                continue
            if destination is not None and not destination.is_for(route.literals):
                continue
            named = {name: _plain(segments[at]) for at, name in route.names.items()}
            if None in named.values():
                return None
            decoded = list(segments)
            for at, name in route.names.items():
                decoded[at] = named[name] or ""
            if named and any(other.mistaken_for(segments, decoded, method) for other in self._routes[:place]):
                return None
            return replace(route.action, segments={name: value for name, value in named.items() if value is not None})
        return None


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    literals: Segments
    names: Mapping[int, str]
    action: Action

    @classmethod
    def parse(cls, route: str, action: str | Action) -> "_Route":
        method, _, path = route.partition(" ")
        if not method or not path.startswith("/"):
            raise InvalidInput(f"route {route[:200]!r} is not a method, a space, and a path that begins with a slash")
        literals: list[str | None] = []
        names: dict[int, str] = {}
        for at, segment in enumerate(path.split("/")):
            is_name = segment.startswith("{") and segment.endswith("}") and segment[1:-1].isidentifier()
            if not is_name and ("{" in segment or "}" in segment):
                raise InvalidInput(f"route {route[:200]!r}: a name in braces stands for one whole segment")
            if is_name and segment[1:-1] in names.values():
                raise InvalidInput(f"route {route[:200]!r} has a name twice")
            if is_name:
                names[at] = segment[1:-1]
            literals.append(None if is_name else as_sent(segment))
        return cls(method, tuple(literals), names, _in_route(route, _action(action) or Action(""), names.values()))

    def matches(self, segments: list[str]) -> bool:
        return covers(self.literals, segments)

    def covers(self, other: "_Route") -> bool:
        """Whether this one matches whatever the other does."""
        return self.method == other.method and covers(self.literals, other.literals)

    def mistaken_for(self, segments: list[str], decoded: list[str], method: str) -> bool:
        """Whether an application that decodes more than we do, or minds case less, could take the path for this."""
        if self.method != method or len(self.literals) != len(segments) or self.matches(segments):
            return False
        return all(
            wanted is None or not {_same(wanted), _same(unquote(wanted))}.isdisjoint({_same(segment), _same(plain)})
            for wanted, segment, plain in zip(self.literals, segments, decoded, strict=True)
        )


def _action(found: str | Action | None) -> Action | None:
    return Action(found) if isinstance(found, str) else found


def _placed(action: Action | None) -> Action | None:
    return replace(action, params=placed(action.params, OF_HTTP)) if action is not None and action.params else action


def _in_route(route: str, action: Action, names: Collection[str]) -> Action:
    """The action with its places named.

    Raise InvalidInput for a segment that the route does not have, and for a person's parameter that stands nowhere.
    """
    params = placed(action.params, OF_HTTP)
    for place in params.values():
        if isinstance(place, ParamPlace) and place.kind == PATH and place.name not in names:
            raise InvalidInput(f"route {route[:200]!r} has no segment {place.name[:64]!r}")
    lost = sorted(set(action.person_params) - set(params) - set(names))
    if lost:
        raise InvalidInput(f"route {route[:200]!r} does not say where the person's {lost[0][:64]!r} stands: use params")
    return replace(action, params=params)


def _same(text: str) -> str:
    """What two segments have in common that an application could take for the same."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _plain(segment: str) -> str | None:
    """Decode one segment, once. None for what others might read as more than one, as a step up, or decode again."""
    if _BAD_ESCAPE.search(segment) or ";" in segment:  # from there on it is no part of the path to some (RFC 3986, 3.3)
        return None
    try:
        text = unquote_to_bytes(segment).decode("utf-8")
    except ValueError:
        return None
    if text in {"", ".", ".."} or "/" in text or "\\" in text or _ESCAPE.search(text):
        return None
    if any(each < " " or each == "\x7f" for each in text):
        return None
    return text
