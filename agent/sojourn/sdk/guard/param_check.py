"""Holds a request against the task of its token: each parameter that concerns the action, where the service says it is.

What a client can put anywhere binds nothing by its name alone: who refunds 9900 cents by `amount` could send
`?cents=2500` beside it. So a parameter stands where the service's author says, by a place or because the service itself
names it there: a segment of the route, a field of the message's type, an argument of the function. What else in the
request has its name must agree with it.
"""

import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Protocol

from sojourn.errors.oauth import ParamNotBound, WrongParams
from sojourn.errors.people import PersonRefused
from sojourn.sdk.guard.param_places import (
    ABSENT,
    FIELD,
    ParamPlace,
    argument,
    in_json,
    times_in_json,
)
from sojourn.sdk.guard.routes import Action
from sojourn.tasktoken.checks import Exact, check_stated
from sojourn.tasktoken.tokens import TaskToken

Hint = Callable[[str, str, ParamPlace], str]


class Source(Protocol):
    """A request, as what it states."""

    @property
    def has_content(self) -> bool:
        """Whether its content was waited for."""

    def at(self, place: ParamPlace) -> Sequence[object]:
        """What stands at a place: its value, or ABSENT, and whatever some reader could take for it; of a list all."""

    def times(self, place: ParamPlace) -> int:
        """How many values stand there, of a list or of a name that is repeated: so often the action is done."""

    def named(self, name: str) -> Sequence[object]:
        """The same of a name that the service itself gives a place; empty if it does not."""

    def likely(self, name: str) -> ParamPlace:
        """Where a parameter most likely stands that is not found."""


Stated = Callable[[Action, Collection[str]], Awaitable[Source | None]]


def stating(source: Source | None) -> Stated:
    """A source that is there already, or None, as the guard asks for it."""

    async def stated(action: Action, names: Collection[str]) -> Source | None:
        del action, names
        return source

    return stated


def compared_names(token: TaskToken, action: Action) -> frozenset[str]:
    """The parameters of a request that are compared: with the task's, and with the person that it is for."""
    return frozenset(token.concerning(action.name)) - frozenset(action.unchecked) | frozenset(action.person_params)


def stated_names(token: TaskToken, action: Action) -> frozenset[str]:
    """Those that are compared, and where uses of the action are counted all that stand somewhere: they say how many."""
    counted = action.params if action.name in token.asks else ()
    return compared_names(token, action) | {name for name in counted if isinstance(action.params[name], ParamPlace)}


def times_of(token: TaskToken, action: Action, source: Source) -> int:
    """How often a request does its action, by what it states: a batch of three does it three times.

    It is once for an action whose uses nobody counts.
    """
    if action.name not in token.asks:
        return 1
    given = (action.params.get(name, ParamPlace(FIELD, name)) for name in stated_names(token, action))
    return max((source.times(place) for place in given if isinstance(place, ParamPlace)), default=1) or 1


def compare(token: TaskToken, action: Action, source: Source, hint: Hint) -> None:
    """Raise WrongParams or PersonRefused, or ParamNotBound for a parameter that is compared with nothing: one that
    concerns the action, or that is the person.
    """
    for name, bound in token.concerning(action.name).items():
        if name not in action.unchecked:
            check_stated(name, bound, _stated(action, name, source, hint))
    for name, claim in action.person_params.items():
        if token.person is None:
            raise PersonRefused("person_required", "the token is for no person, and the request is compared with one")
        bound = token.person.issuer if claim == "iss" else token.person.sub
        try:
            check_stated(name, bound, _stated(action, name, source, hint))
        except WrongParams:
            said = f"token is for another person than the request's {name[:64]!r} is"
            raise PersonRefused("wrong_person", said) from None


def _stated(action: Action, name: str, source: Source, hint: Hint) -> Sequence[object]:
    given = action.params.get(name)
    if given is None:
        stated = source.named(name)
        if not stated:
            whose = "person" if name in action.person_params else "task"
            said = f"the {whose}'s parameter {name[:64]!r} is compared with nothing in this request"
            raise ParamNotBound(f"{said}: {hint(action.name, name, source.likely(name))}")
    else:
        stated = source.at(given) if isinstance(given, ParamPlace) else [given]
    if ABSENT in stated:
        where = f" at {given}" if isinstance(given, ParamPlace) else ""
        raise ParamNotBound(f"the task is for one {name[:64]!r}, and the request has none{where}")
    return stated


def in_python(action: str, name: str, place: ParamPlace) -> str:
    """How whoever writes the service in Python says where a parameter stands."""
    where = f"params={{{name[:64]!r}: {place.shown(name)}}}"
    return (
        f"map it, as Action({action[:64]!r}, {where}), or say that requests do not have it: unchecked=({name[:64]!r},)"
    )


class Nothing:
    """No request: what there is to compare the action itself says."""

    has_content = False

    def at(self, place: ParamPlace) -> Sequence[object]:
        """See Source."""
        del place
        return (ABSENT,)

    def times(self, place: ParamPlace) -> int:
        """See Source."""
        del place
        return 1

    def named(self, name: str) -> Sequence[object]:
        """See Source."""
        del name
        return ()

    def likely(self, name: str) -> ParamPlace:
        """See Source."""
        return argument(name)


class Arguments:
    """The arguments of a tool, as JSON. Which of them the tool has nobody says here: it may mind none of that name."""

    has_content = False

    def __init__(self, arguments: Mapping[str, object]) -> None:
        self._arguments = arguments

    @cached_property
    def _read(self) -> Mapping[str, object]:
        return {name: _read(value) for name, value in self._arguments.items()}

    def at(self, place: ParamPlace) -> Sequence[object]:
        """See Source."""
        found = list(in_json(self._arguments, place.tokens))
        if self._read != self._arguments:  # what a tool has may be either
            found += in_json(self._read, place.tokens)
        return [each if each is ABSENT else Exact(each) for each in found]

    def times(self, place: ParamPlace) -> int:
        """See Source."""
        return times_in_json(self._read, place.tokens)

    def named(self, name: str) -> Sequence[object]:
        """See Source."""
        del name
        return ()

    def likely(self, name: str) -> ParamPlace:
        """See Source."""
        return argument(name)


def _read(value: object) -> object:
    """An argument, as libraries of MCP read one that is a text and may be something else: as the JSON in it."""
    if not isinstance(value, str) or not (value.lstrip().startswith(("[", "{")) or value.strip() == "null"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
