"""How each framework is asked for its routes: FastAPI, Starlette, Litestar, Flask and Django."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from sojourn.sdk.guard.service_routes import Framework, ServiceRoute

_MOST_DEEP: Final = 64  # middleware around middleware
_WHATEVER_FOLLOWS: Final = "/{path:path}"  # at what is mounted and cannot be asked itself


def framework_of(app: object) -> Framework | None:
    """The framework of an application, through the middleware that keeps what it wraps as `app`. None: of no kind that
    can be asked.
    """
    for _ in range(_MOST_DEEP):
        owner = getattr(app, "__self__", app)  # Flask is wrapped at a method of its own
        for each in type(owner).__mro__:
            reader = _READERS.get(f"{each.__module__}.{each.__qualname__}")
            if reader is not None:
                found: Framework = reader(owner)
                return found
        app = getattr(owner, "app", None)
    return None


class _Starlette:
    """Starlette, and what is made of it, as FastAPI. Its routes are asked in turn, those of what is mounted as well."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def routes(self) -> Iterator[ServiceRoute]:
        return self._below(self._app.routes, "")

    def path_of(self, request: Mapping[str, Any]) -> str | None:
        scope, routes, before = dict(request), self._app.routes, ""
        while True:
            for route in _flat(routes):
                match, child = route.matches(scope)
                if match.name == "FULL":
                    break
            else:
                return None
            before += _path(route)
            routes = getattr(route, "routes", None)
            if not routes:
                return before if routes is None else before + _WHATEVER_FOLLOWS
            scope.update(child)

    def _below(self, routes: Iterable[Any], before: str) -> Iterator[ServiceRoute]:
        for route in _flat(routes):
            path, inner = before + _path(route), getattr(route, "routes", None)
            if inner:
                yield from self._below(inner, path)
            elif inner is None:
                yield ServiceRoute(path, frozenset(getattr(route, "methods", None) or ()))
            else:
                yield ServiceRoute(path + _WHATEVER_FOLLOWS)


def _flat(routes: Iterable[Any]) -> Iterable[Any]:
    """FastAPI keeps routers that it includes as one route each; what is in them it says itself, in their order."""
    contexts = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", None)
    found: Iterable[Any] = routes if contexts is None else contexts(routes)
    return found


def _path(route: Any) -> str:
    return getattr(route, "path", None) or ""  # one that goes by the host has none


class _Litestar:
    def __init__(self, app: Any) -> None:
        self._app = app

    def routes(self) -> Iterator[ServiceRoute]:
        for route in self._app.routes:
            yield ServiceRoute(route.path, frozenset(getattr(route, "methods", ())))

    def path_of(self, request: Mapping[str, Any]) -> str | None:
        from litestar.exceptions import HTTPException
        from litestar.utils.path import normalize_path

        path, mounted = request["path"], request.get("root_path")
        path = normalize_path(path.split(mounted, maxsplit=1)[-1] if mounted else path)
        try:
            found: str = self._app.asgi_router.handle_routing(path=path, method=request.get("method"))[-1]
        except HTTPException:
            return None
        return found


class _Flask:
    def __init__(self, app: Any) -> None:
        self._app = app

    def routes(self) -> Iterator[ServiceRoute]:
        for rule in self._app.url_map.iter_rules():
            yield ServiceRoute(rule.rule, frozenset(rule.methods or ()))

    def path_of(self, request: Mapping[str, Any]) -> str | None:
        from werkzeug.exceptions import HTTPException

        try:
            asked = self._app.request_class(request, populate_request=False)
            found: str = self._app.create_url_adapter(asked).match(return_rule=True)[0].rule
        except HTTPException:  # a redirect as well
            return None
        return found


class _Django:
    """Django's views mind the method, and not its routes. What a middleware of it routes otherwise is not seen."""

    def __init__(self, app: Any) -> None:
        del app  # routes are of the process

    def routes(self) -> Iterator[ServiceRoute]:
        from django.urls import get_resolver

        return self._below(get_resolver().url_patterns, "/")

    def path_of(self, request: Mapping[str, Any]) -> str | None:
        from django.urls import Resolver404, get_resolver

        if "PATH_INFO" in request:
            path = request["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
        else:
            path = request["path"].removeprefix(request.get("root_path") or "")
        try:
            return f"/{get_resolver().resolve(path).route}"
        except Resolver404:
            return None

    def _below(self, patterns: Iterable[Any], before: str) -> Iterator[ServiceRoute]:
        for each in patterns:
            path, inner = f"{before}{each.pattern}", getattr(each, "url_patterns", None)
            if inner is None:
                yield ServiceRoute(path)
            else:
                yield from self._below(inner, path)


_READERS: Final[Mapping[str, Any]] = {
    "starlette.applications.Starlette": _Starlette,
    "starlette.routing.Router": _Starlette,
    "litestar.app.Litestar": _Litestar,
    "flask.app.Flask": _Flask,
    "django.core.handlers.wsgi.WSGIHandler": _Django,
    "django.core.handlers.asgi.ASGIHandler": _Django,
}
