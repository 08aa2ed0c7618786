"""Which action a request is, by its method and path."""

from collections.abc import Callable, Mapping

from sojourn.errors import InvalidInput

ActionOf = Callable[[str, str], str | None]
Actions = ActionOf | Mapping[str, str]


def action_finder(actions: Actions) -> ActionOf:
    """Return a function from method and path to the action, or None where no route matches.

    In a mapping, `{"GET /tickets/{id}": "ticket:read"}`, a `{name}` stands for one whole segment; all else is compared
    byte for byte, and the first route that matches counts. Raise InvalidInput for a route that could match nothing.
    """
    if not isinstance(actions, Mapping):
        return actions
    routes = [(*_parse(route), action) for route, action in actions.items()]

    def find(method: str, path: str) -> str | None:
        segments = path.split("/")
        return next((action for verb, pattern, action in routes if verb == method and _fits(pattern, segments)), None)

    return find


def _parse(route: str) -> tuple[str, list[str | None]]:
    method, _, path = route.partition(" ")
    if not method or not path.startswith("/"):
        raise InvalidInput(f"route {route[:200]!r} is not a method, a space, and a path that begins with a slash")
    pattern: list[str | None] = []
    for segment in path.split("/"):
        is_name = segment.startswith("{") and segment.endswith("}") and segment[1:-1].isidentifier()
        if not is_name and ("{" in segment or "}" in segment):
            raise InvalidInput(f"route {route[:200]!r}: a name in braces stands for one whole segment")
        pattern.append(None if is_name else segment)
    return method, pattern


def _fits(pattern: list[str | None], segments: list[str]) -> bool:
    return len(pattern) == len(segments) and all(
        segment not in {"", ".", ".."} if wanted is None else segment == wanted
        for wanted, segment in zip(pattern, segments, strict=True)
    )
