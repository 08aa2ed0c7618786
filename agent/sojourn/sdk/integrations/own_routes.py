"""The routes that a guarded application has itself, held against the guard's."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from sojourn.sdk.guard.routes import Actions, by_segments
from sojourn.sdk.guard.service_routes import Destination, siblings
from sojourn.sdk.integrations.frameworks import framework_of

log = logging.getLogger("sojourn.guard")


class OwnRoutes:
    """Those of an application whose framework can be asked; of any other nothing is known."""

    def __init__(self, app: object, actions: Actions, public: Iterable[str]) -> None:
        self._framework = framework_of(app)
        self._guarded = [*actions, *public] if isinstance(actions, Mapping) else [*public]
        self._told = False

    def tell_once(self, mounted: str) -> None:
        """Log a warning for each route of the service that is refused though one of the guard's matches its paths.

        This is for when the application starts or has its first request: its routes may come after the guard. Where it
        is `mounted`, the guard's routes may name that too, or whoever stands before it takes it away.
        """
        if self._told or self._framework is None:
            return
        self._told = True
        try:
            own = by_segments(self._guarded)
            found = [each for at in dict.fromkeys(("", mounted)) for each in siblings(own, self._framework, at)]
        except Exception:  # as where a module of the service's own cannot be imported: its requests tell that
            log.exception("the routes of the service cannot be read")
            return
        for each in found:
            log.warning("%s", each)

    def destination(self, request: Mapping[str, Any], mounted: str) -> Destination | None:
        """Where a request goes, by its ASGI scope or WSGI environment; `mounted` is what its path as sent begins with,
        decoded. None: nobody knows.
        """
        return None if self._framework is None else Destination(self._framework, request, mounted)
