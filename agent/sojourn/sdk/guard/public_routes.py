"""Which requests a guard lets through without a token: health, API descriptions, and CORS preflights."""

from collections.abc import Iterable, Mapping
from typing import Final

from sojourn.errors import InvalidInput
from sojourn.sdk.guard.routes import Action, Actions, action_finder
from sojourn.sdk.guard.service_routes import Destination

CORS_PREFLIGHT: Final = "CORS preflight"
_PREFLIGHT_HEADERS: Final = frozenset({"origin", "access-control-request-method"})
_PUBLIC, _GUARDED = Action("(public)"), Action("(guarded)")


class PublicRoutes:
    """The routes of a service that need no token.

    Each is written as a guarded route is, `"GET /health"`; one for GET is one for HEAD too. `"CORS preflight"` is every
    OPTIONS request that asks a browser's question before the request itself (Fetch, 3.3). Where a route with a name in
    braces and a guarded one could both be meant, the guarded one is, for HEAD as for GET. A request whose path could be
    read as a guarded route's, once it is decoded, is not public.
    """

    def __init__(self, public: Iterable[str], actions: Actions) -> None:
        """Raise InvalidInput for a route that is guarded too, or that could match nothing."""
        if isinstance(public, str):
            raise InvalidInput("public is a list of routes: write public=[…]")
        named = list(dict.fromkeys(public))
        self._preflight = CORS_PREFLIGHT in named
        self._written = [each for each in named if each != CORS_PREFLIGHT]
        routes = _with_head(self._written)
        guarded = actions if isinstance(actions, Mapping) else {}
        both = [each for each in routes if each in guarded]
        if both:
            raise InvalidInput(f"route {both[0][:200]!r} is public and has an action: it can be one of them")
        if not isinstance(actions, Mapping) and any("{" in each for each in routes):
            raise InvalidInput("beside a function that says what an action is, public routes have no names in braces")
        literal = {each: _PUBLIC for each in routes if "{" not in each}
        with_names = {each: _PUBLIC for each in routes if "{" in each}
        heads = dict.fromkeys(
            (each for each in _with_head(list(guarded)) if each not in {*guarded, *literal}), _GUARDED
        )
        self._find = action_finder({**literal, **guarded, **heads, **with_names})

    @property
    def routes(self) -> Iterable[str]:
        """Those that were written, but for the preflights."""
        return self._written

    def __bool__(self) -> bool:
        """Whether any request is public."""
        return bool(self._written) or self._preflight

    def has(
        self, method: str, path: str, header_names: Iterable[str] = (), destination: Destination | None = None
    ) -> bool:
        """Whether a request needs no token. `path` is as it was sent, and header names are in any case."""
        if self._written:
            found = self._find(method, path, destination)
            if found is not None and found.name == _PUBLIC.name:
                return True
        if self._preflight and method == "OPTIONS":
            return {name.lower() for name in header_names} >= _PREFLIGHT_HEADERS
        return False


def _with_head(routes: list[str]) -> list[str]:
    head = ["HEAD " + each.removeprefix("GET ") for each in routes if each.startswith("GET ")]
    return list(dict.fromkeys([*routes, *head]))
