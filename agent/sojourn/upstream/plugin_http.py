"""The HTTP of plugins for upstream authorities: guarded and bounded as that of providers is."""

from collections.abc import Mapping

from sojourn.errors import SojournError
from sojourn.plugins.upstream import Method
from sojourn.providers.guarded_http import GuardedHttp
from sojourn.providers.http import HttpResponse
from sojourn.settings.outside import OutsideTable
from sojourn.upstream.unavailable import raise_unavailable


class PluginHttp:
    """Over TLS, or plainly to this host where that is allowed; nothing is followed elsewhere."""

    def __init__(self, table: OutsideTable) -> None:
        """Raise InvalidConfig if `ca` is not a file of certificates."""
        self._http = GuardedHttp(table)

    async def ask(
        self, method: Method, url: str, *, step: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> HttpResponse:
        try:
            return await self._http.ask(method, url, content, step, headers)
        except SojournError as error:
            raise_unavailable(error)

    async def close(self) -> None:
        await self._http.close()
