"""What a provider is, for those that come with Sojourn and for anyone's own: an outside system that gives credentials.

A plugin is a class, registered under the entry-point group `sojourn.providers`; the entry point's name is the `kind` of
the configuration's tables `[providers.NAME]`. It is made once for each such table. It never sees a task, a key or a
store: it is asked for a credential by what it needs to know, is given JWT-SVIDs as it asks for them, and talks to the
outside through the `Http` that it is given and no other way.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Protocol

from sojourn.providers.http import Http
from sojourn.settings.outside import OutsideTable
from sojourn.spiffe.ids import SpiffeId

ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  # a name
NOT_OAUTH: Final = "N_A"  # token_type of what is no OAuth access token (RFC 8693, 2.2.1)

Recall = Literal["revoke", "deny", "none"]
"""What a provider can do at a task's end: end the credential, have it denied, or nothing but to wait for its expiry."""


class ProviderTable(OutsideTable):
    """The keys that `[providers.NAME]` has whatever its kind. A kind's own settings are a subclass of this."""

    kind: str


class Mint(Protocol):
    """Gives JWT-SVIDs of the workload that a credential is for: each is new, with a `jti` of its own."""

    async def __call__(
        self, audience: str, *, algorithm: Literal["ES256", "RS256"] = "ES256", claims: Mapping[str, Any] | None = None
    ) -> str:
        """A JWT-SVID, compact JWS, good for a minute: `iss` (our issuer), `sub`, `aud` (a string), `iat`, `exp`, `jti`.

        `claims`: more, none of those. Raise Unavailable if there is no key for it now, or it is not signed in time.
        """


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a task wants of a provider."""

    task_id: str
    task_type: str
    spiffe_id: SpiffeId
    resource: str  # as the task names it
    actions: tuple[str, ...]  # those that are asked for now, sorted: a part of the task's
    ask: Any  # what the task type's `ask` says for this resource, as `read_ask` made it
    ends: datetime  # of the task: the credential need not be good for longer


@dataclass(frozen=True, slots=True)
class Obtained:
    """A credential that a provider gave.

    `token` is what is handed out: an access token, or for `NOT_OAUTH` a text that `issued_type` says how to read.
    `handle` is what it is taken back by, and may be secret: it is sealed wherever it is kept. `public` is about it, and
    may be shown and recorded.
    """

    token: str = field(repr=False)
    expires_at: datetime
    token_type: str = "Bearer"  # noqa: S105  # a name
    issued_type: str = ACCESS_TOKEN
    handle: Mapping[str, str] = field(default_factory=dict, repr=False)  # empty: there is nothing to take it back by
    public: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ended:
    """A credential whose task is over, to be taken back."""

    task_id: str
    spiffe_id: SpiffeId
    resource: str
    ask: Any  # None if the task type does not say any more how to ask for it
    handle: Mapping[str, str] = field(repr=False)  # empty: the answer was lost, and the credential with it
    public: Mapping[str, str]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a check: what was tried, and how it went. `hint` says what to set, and where."""

    name: str  # stable, snake_case
    outcome: Literal["ok", "failed", "skipped"]
    told: str  # one sentence
    hint: str = ""


class Provider(Protocol):
    """One outside system, as its table of the configuration says."""

    kind: str
    recall: Recall
    offline: bool
    """Whether a service may accept its credentials without asking it: then one that was taken back may be accepted
    by such a service until it expires."""
    longest: timedelta
    """For how long a credential can be good whose answer was lost."""

    def read_ask(self, ask: Mapping[str, Any], actions: tuple[str, ...]) -> Any:
        """Read what a task type says of a resource beyond its name, for these actions at most. Raise InvalidInput."""

    def describe(self, ask: Any) -> Mapping[str, str]:
        """What programs must know to use its credentials: addresses and names, nothing secret."""

    async def exchange(self, wanted: Wanted, mint: Mint) -> Obtained:
        """Obtain a credential for no more than `wanted.actions`, and where it can no longer than `wanted.ends`.

        Raise ProviderRefused or ProviderUnavailable. It is called again only if nothing came of it.
        """

    async def take_back(self, ended: Ended, mint: Mint) -> None:
        """End a credential, or have it denied; return when that is confirmed. It may be called again, and late.

        Called of those with a `recall` alone. Raise as `exchange` does; ProviderRefused: it never will be.
        """

    def check(self, wanted: Wanted | None, mint: Mint) -> AsyncIterator[Step]:
        """Try what can be tried without leaving anything behind, step by step, up to a step that fails.

        `wanted` None: there is nobody to exchange for, so the exchange itself is skipped. Never raises.
        """

    async def close(self) -> None:
        """Let go of everything, the Http that it was given among it."""


def audiences_of(provider: Provider) -> frozenset[str]:
    """The `aud` of the JWT-SVIDs that a provider's outside system takes, as its attribute `audiences` has them.

    A workload that has such a JWT-SVID needs no task to have the outside system's credentials. A plugin without the
    attribute reserves none.
    """
    return frozenset(getattr(provider, "audiences", ()))


class ProviderPlugin(Protocol):
    """How a provider is made. `settings` is its own table of the configuration, with `kind`.

    Raise InvalidConfig with its faults, each beginning with the key.
    """

    def __call__(self, name: str, settings: Mapping[str, Any], http: Http) -> Provider: ...
