"""What the providers have in common that ask an OAuth authorization server."""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Final, Generic, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from sojourn.errors import InvalidInput
from sojourn.limits import PROVIDER_SCOPES
from sojourn.providers.answers import unfailing
from sojourn.providers.authorization_server import AuthorizationServer, OAuthTable
from sojourn.providers.dry_run import Check
from sojourn.providers.errors import ProviderRefused
from sojourn.providers.http import Http
from sojourn.providers.provider import Ended, Mint, Obtained, Recall, Step, Wanted
from sojourn.providers.settings import read_ask
from sojourn.providers.tokens import Expected, Granted
from sojourn.runtime.clock import Clock, SystemClock
from sojourn.settings.models import read_settings
from sojourn.settings.outside import Text

EXCHANGE: Final = "exchange"


def _scope(value: str) -> str:
    if not value or not all("!" <= each <= "~" and each not in '"\\' for each in value):
        raise ValueError(f"{value[:100]!a} is not one scope (RFC 6749, 3.3)")
    return value


Scope = Annotated[str, AfterValidator(_scope)]
Scopes = Annotated[tuple[Scope, ...], Field(max_length=PROVIDER_SCOPES)]


class OAuthAsk(BaseModel):
    """`ask` of a task type. `scopes`: of each action, those that it needs; of none: what the server gives unasked.

    `tolerated_scopes`: those that the server may add to what is asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    audience: Text | None = None
    scopes: Annotated[Mapping[str, Scopes], Field(max_length=PROVIDER_SCOPES)] = Field(default_factory=dict)
    tolerated_scopes: Scopes = ()

    @model_validator(mode="after")
    def _tolerated_beside_some(self) -> Self:
        if self.tolerated_scopes and not self.scopes:
            raise ValueError("tolerated_scopes are beside scopes, and there are none")
        return self

    def of(self, actions: tuple[str, ...]) -> str:
        """The scope to ask for, for these actions; "" if none is asked for."""
        return " ".join(sorted({scope for action in actions for scope in self.scopes.get(action, ())}))

    def most(self, actions: tuple[str, ...]) -> frozenset[str] | None:
        """The scopes that the answer may have; None: any."""
        return frozenset(self.of(actions).split()) | set(self.tolerated_scopes) if self.scopes else None


TableT = TypeVar("TableT", bound=OAuthTable)
AskT = TypeVar("AskT", bound=OAuthAsk)


class OAuthProvider(Generic[TableT, AskT]):
    """A Provider whose credentials are tokens of one authorization server, and are revoked there (RFC 7009)."""

    table_model: type[TableT]
    ask_model: type[AskT]

    @property
    def grant_type(self) -> str:
        """What `check` looks for in the metadata."""
        raise NotImplementedError

    def __init__(self, name: str, settings: Mapping[str, Any], http: Http, clock: Clock | None = None) -> None:
        self.table = read_settings(self.table_model, settings)
        self.kind = self.table.kind
        self.name = name
        self.http = http
        self.clock = clock or SystemClock()
        self.server = AuthorizationServer(self.table, http, self.clock, self.hint)
        self.recall: Recall = "revoke"
        if self.table.token_endpoint is not None and self.table.revocation_endpoint is None:
            self.recall = "none"
        self.audiences = self.server.audiences
        self.offline = self.table.offline
        self.longest = self.table.longest

    def hint(self, error: str, _told: str) -> str:
        """What to set at the provider when it refuses; "" if that is not known."""
        return _HINTS.get(error, "")

    def read_ask(self, ask: Mapping[str, Any], actions: tuple[str, ...]) -> AskT:
        found = read_ask(self.ask_model, ask)
        if found.scopes and (more := found.scopes.keys() ^ set(actions)):
            what = "no actions of the resource" if more - set(actions) else "actions without scopes"
            raise InvalidInput(f"ask.scopes: {', '.join(sorted(more))}: {what}")
        return found

    def describe(self, ask: Any) -> Mapping[str, str]:
        audience = getattr(ask, "audience", None)
        return {"issuer": self.table.issuer, **({"audience": audience} if audience else {})}

    async def exchange(self, wanted: Wanted, mint: Mint) -> Obtained:
        raise NotImplementedError

    async def take_back(self, ended: Ended, mint: Mint) -> None:
        given_by = ended.public.get("issuer", self.table.issuer)
        if given_by != self.table.issuer:  # another would say that it is revoked, of a token that it does not know
            raise ProviderRefused(
                f"{given_by} gave it, and the provider is another by now", step="revoke", hint="set issuer as it was"
            )
        tokens = [
            ended.handle[name] for name in ("refresh_token", "access_token", "first_token") if name in ended.handle
        ]
        if not tokens:
            raise ProviderRefused("its answer was lost, and what it is revoked by with it", step="revoke")
        await self.server.revoke(tokens, mint)

    def check(self, wanted: Wanted | None, mint: Mint) -> AsyncIterator[Step]:
        return unfailing(Check(self, self.server, self.clock).steps(wanted, mint))

    async def close(self) -> None:
        await self.server.close()
        await self.http.close()

    def expected(self, wanted: Wanted) -> Expected:
        """What a token for this must be."""
        return Expected(wanted.ask.of(wanted.actions), wanted.ask.most(wanted.actions))

    def obtained(self, granted: Granted, first: Granted | None = None) -> Obtained:
        """What is handed out, with what takes it back. `first`: a token that was only needed to get it."""
        handle = {"access_token": granted.token}
        if granted.refresh_token:
            handle["refresh_token"] = granted.refresh_token
        if first is not None:
            handle["first_token"] = first.token
        return Obtained(
            granted.token,
            granted.expires_at,
            granted.token_type,
            granted.issued_type,
            handle,
            {"issuer": self.table.issuer, **granted.public()},
        )


_HINTS: Final = {
    "invalid_client": "register the SPIFFE ID as a client there, and let it know this agent's keys "
    "(its issuer's discovery document, or the trust domain's SPIFFE bundle)",
    "invalid_grant": "let it trust this agent's issuer for this subject, and the audience of its JWT-SVIDs",
    "unauthorized_client": "allow this grant type to the client there",
    "unsupported_grant_type": "allow this grant type there",
    "invalid_scope": "allow these scopes to the client there, or ask for others in ask.scopes",
    "invalid_target": "allow this audience or resource to the client there, or ask for another in ask",
    "access_denied": "allow this to the client there",
}
