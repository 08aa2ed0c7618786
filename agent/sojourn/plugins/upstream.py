"""What an upstream authority of one's own is made of: whoever signs the agent's intermediate.

A plugin is a class, registered under the entry-point group `sojourn.upstreams`; the entry point's name is the `kind` of
the configuration's table `[authority.upstream]`. It never sees a key: it is given requests (PKCS#10) and hands back
certificates, which are looked at before they count. It talks to the outside by what `Reach` gives it and no other way.
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from sojourn.authority.root_signer import SignedIntermediate
from sojourn.authority.upstream import Standing, Upstream
from sojourn.errors import InvalidConfig, InvalidInput, SojournError, UpstreamNotGood, UpstreamUnavailable
from sojourn.providers.http import HttpResponse
from sojourn.providers.provider import Mint
from sojourn.settings.models import read_settings
from sojourn.settings.outside import OutsideTable
from sojourn.settings.tables import Duration, FilePath, between
from sojourn.settings.upstream import UpstreamTable

__all__ = [
    "Duration",
    "FilePath",
    "HttpResponse",
    "InvalidConfig",
    "InvalidInput",
    "Mint",
    "OutsideTable",
    "Reach",
    "SignedIntermediate",
    "SojournError",
    "Standing",
    "Upstream",
    "UpstreamHttp",
    "UpstreamNotGood",
    "UpstreamPlugin",
    "UpstreamTable",
    "UpstreamUnavailable",
    "between",
    "read_settings",
]

Method = Literal["GET", "POST", "DELETE"]


class UpstreamHttp(Protocol):
    """Requests to the outside. Each raises UpstreamUnavailable if no answer came, or it was not to be had safely:

    an address that is not public and not allowed, a certificate that is not good, a redirect, an answer that is too
    large or too slow. What a status means is for the caller to say. `step` names the call in errors.
    """

    async def ask(
        self, method: Method, url: str, *, step: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> HttpResponse: ...

    async def close(self) -> None:
        """Let go of the connections that are kept. Its plugin does that, when it is closed itself."""


class Reach(Protocol):
    """Makes what the outside is asked by. `table` says how it is reached: a plugin's own settings, or others."""

    def __call__(self, table: OutsideTable, /) -> UpstreamHttp:
        """Raise InvalidConfig if `ca` is not a file of certificates."""


class UpstreamPlugin(Protocol):
    """How an upstream authority is made. `settings` is the table `[authority.upstream]`, with `kind`; `mint` gives
    JWT-SVIDs of the agent's own, which no upstream authority signs.

    Nothing is asked yet. Raise InvalidConfig with its faults, each beginning with the key.
    """

    def __call__(self, settings: Mapping[str, Any], reach: Reach, mint: Mint, /) -> Upstream: ...
