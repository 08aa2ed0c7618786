"""At its start a guard holds its routes against the task types in force for its audience: what would it refuse?"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol

from sojourn.errors import SojournError
from sojourn.errors.oauth import RoutesNotBound
from sojourn.sdk.guard.param_check import in_python
from sojourn.sdk.guard.param_places import ParamPlace, nearest, one_of_a_list
from sojourn.sdk.guard.routes import Route

log = logging.getLogger("sojourn.guard")
_TOLD: Final = 5  # in the error of a guard that is strict; the log has all
InForce = Mapping[str, Mapping[str, Sequence[str]]]  # type -> action -> the parameters that concern it


class Knower(Protocol):
    """Who knows the types. TaskVerifier says what it does."""

    @property
    def audience(self) -> str: ...

    async def types_in_force(self) -> InForce: ...


async def hold(knower: Knower, routes: Sequence[Route], *, strict: bool) -> None:
    """Log a warning for each route, type and parameter that would be refused, and for what routes leave unchecked.

    With `strict` raise RoutesNotBound for the former, and where the types are not known.
    """
    for route in routes:
        if route.action.unchecked:
            names = ", ".join(sorted(route.action.unchecked))
            log.warning("%s: requests are not compared with the task's %s (unchecked)", route.text, names)
        for name, place in route.action.params.items():
            if isinstance(place, ParamPlace) and one_of_a_list(place) and name not in route.action.unchecked:
                said = "%s: %s names one of a list, and longer lists are refused: write /*/ for all of them"
                log.warning(said, route.text, place)
    if not routes and not strict:
        return
    try:
        types = await knower.types_in_force()
    except SojournError as error:
        said = f"the guard of {knower.audience} cannot hold its routes against the task types in force: {error.public}"
        if strict:
            raise RoutesNotBound(said) from error
        log.warning("%s", said)
        return
    found = list(refused(types, routes))
    for each in found:
        log.warning("%s", each)
    if strict and found:
        more = f", and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
        raise RoutesNotBound("; ".join(found[:_TOLD]) + more)


def refused(types: InForce, routes: Sequence[Route]) -> Iterator[str]:
    """What would be refused of tasks that have the parameter, a sentence each."""
    for route in routes:
        for name, actions in types.items():
            for param in actions.get(route.action.name, ()):
                if param not in {*route.action.params, *route.action.unchecked, *route.named}:
                    place = nearest(param, route.named) or ParamPlace(route.kind)
                    yield (
                        f"{route.text}: tasks of type {name!r} that have {param!r} are refused, which is compared with"
                        f" nothing: {in_python(route.action.name, param, place)}"
                    )
