"""Microsoft Entra ID: an application's access token for a workload whose SVID is a federated credential of it.

Entra takes assertions signed by RS256 alone. What it gives is for all that the application may do at one resource
(`…/.default`): it cannot be narrowed, so a task type's action is an application, or all its actions are one. A token is
good for 60 to 90 minutes, whatever the task's end, services accept it without asking, and it cannot be recalled.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from sojourn.errors import SojournError
from sojourn.limits import ACTIONS_PER_GRANT, PROVIDER_ASSERTION_SECONDS, PROVIDER_TOKEN_MAX_SECONDS
from sojourn.providers.answers import code_of, life_of, odd, said, token_of, unanswered, unfailing
from sojourn.providers.ask_by_action import by_action, chosen
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.http import Http, HttpResponse
from sojourn.providers.provider import NOT_OAUTH, Ended, Mint, Obtained, ProviderTable, Recall, Step, Wanted
from sojourn.providers.settings import Endpoint, read_ask
from sojourn.runtime.clock import Clock, SystemClock
from sojourn.settings.models import read_settings
from sojourn.settings.tables import Duration, Table, between

JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
_BEARER_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LONGEST: Final = timedelta(seconds=PROVIDER_TOKEN_MAX_SECONDS)
_FEDERATED: Final = "App registrations, this application, Certificates & secrets, Federated credentials"

# Error codes of Entra (AADSTS…): what happened, and what to set.
_REFUSALS: Final[Mapping[int, tuple[str, str]]] = {
    700211: ("no federated credential has this agent's issuer", f"{_FEDERATED}: Issuer = the agent's issuer"),
    700212: (
        "no federated credential has the JWT-SVID's audience",
        f"{_FEDERATED}: Audience = the provider's `audience`",
    ),
    700213: (
        "no federated credential has this SPIFFE ID",
        f"{_FEDERATED}: Subject identifier = the SPIFFE ID, exactly",
    ),
    70021: ("no federated credential fits the JWT-SVID", f"{_FEDERATED}: issuer, subject and audience, byte for byte"),
    700016: (
        "the tenant has no such application",
        "compare client_id with App registrations, and tenant_id with Overview",
    ),
    7000112: ("the application is disabled", "Enterprise applications, this application, Properties: enable it"),
    90002: ("there is no such tenant", "compare tenant_id with Entra ID, Overview, Tenant ID"),
    700024: ("Entra finds the JWT-SVID not yet or no longer good", "set this machine's clock: it was made just now"),
    700027: (
        "Entra could not verify the JWT-SVID's signature",
        "the issuer's JWKS, over https, has to have the agent's RS256 keys",
    ),
    50013: (
        "Entra could not verify the JWT-SVID's signature",
        "the issuer's JWKS, over https, has to have the agent's RS256 keys",
    ),
    50027: ("Entra does not take the JWT-SVID", "the issuer's JWKS, over https, has to have the agent's RS256 keys"),
    500011: ("the tenant has no such resource", "compare ask.scope with Enterprise applications, Application ID URI"),
    501051: (
        "the application has no role at this resource",
        "Enterprise applications, the resource, Users and groups: assign the application a role",
    ),
    70011: ("Entra does not take the scope", "ask.scope is the resource's Application ID URI with /.default"),
    1002012: ("Entra does not take the scope", "ask.scope is the resource's Application ID URI with /.default"),
    53003: (
        "Conditional Access blocks this workload",
        "Conditional Access, Policies: look at those for workload identities",
    ),
}
_TRANSIENT: Final = frozenset({90033})

_ClientId = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]


class EntraSettings(ProviderTable):
    """[providers.NAME] with `kind = "entra"`."""

    tenant_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{2,252}$")]  # its ID, or a domain of it
    client_id: _ClientId | None = None  # the application's, for asks that name none
    authority: Endpoint = "https://login.microsoftonline.com"
    audience: Annotated[str, Field(min_length=1, max_length=600)] = (
        "api://AzureADTokenExchange"  # as the credential has
    )
    longest_token: Annotated[Duration, between(timedelta(minutes=10), _LONGEST)] = _LONGEST


class EntraAsk(Table):
    """What a task type asks of Entra for a resource: `scope`, and the application, one for all or by action."""

    scope: Annotated[str, Field(pattern=r"^[!#-\[\]-~]{1,500}/\.default$")]
    client_id: _ClientId | None = None  # default: that of the settings
    clients: Annotated[Mapping[str, _ClientId], Field(max_length=ACTIONS_PER_GRANT)] = Field(default_factory=dict)
    gives: Literal["token", "assertion"] = "token"  # an assertion: the program's SDK makes the exchange itself

    @model_validator(mode="after")
    def _one_of_both(self) -> "EntraAsk":
        if self.clients and self.client_id is not None:
            raise ValueError("clients: says it by action, and client_id for all: one of them")
        return self


@dataclass(frozen=True, slots=True)
class EntraAsked:
    """An ask as it was read: the application by action."""

    scope: str
    clients: Mapping[str, str]
    actions: tuple[str, ...]
    gives: str = "token"


class EntraProvider:
    """Settings: EntraSettings. Asks: EntraAsk."""

    kind = "entra"
    recall: Recall = "none"
    offline = True  # its access tokens are JWTs, which services verify by Entra's keys

    def __init__(self, name: str, settings: Mapping[str, Any], http: Http, clock: Clock | None = None) -> None:
        self.name = name
        self._settings = read_settings(EntraSettings, settings)
        self._http = http
        self._clock = clock or SystemClock()
        self._tenant = f"{self._settings.authority.removesuffix('/')}/{self._settings.tenant_id}"
        self.longest = self._settings.longest_token
        self.audiences = frozenset({self._settings.audience})

    def read_ask(self, ask: Mapping[str, Any], actions: tuple[str, ...]) -> EntraAsked:
        """See EntraAsk. Raise InvalidInput."""
        read = read_ask(EntraAsk, ask)
        clients = by_action(read.clients, read.client_id or self._settings.client_id, actions, "clients", "client_id")
        return EntraAsked(read.scope, clients, actions, read.gives)

    def describe(self, ask: Any) -> Mapping[str, str]:
        """`kind`, `tenant_id`, `authority`, `scope`, `client_id` if it is one for all actions, `gives` an assertion."""
        told = {
            "kind": self.kind,
            "tenant_id": self._settings.tenant_id,
            "authority": self._settings.authority.removesuffix("/"),
            "scope": ask.scope,
            **({"gives": ask.gives} if ask.gives != "token" else {}),
        }
        clients = set(ask.clients.values())
        return {**told, "client_id": clients.pop()} if len(clients) == 1 else told

    async def exchange(self, wanted: Wanted, mint: Mint) -> Obtained:
        """An access token of the application that these actions are; or an assertion, by which its SDK gets one."""
        client = chosen(wanted.ask.clients, wanted.ask.actions, wanted.actions, "clients", "an application")
        if wanted.ask.gives == "assertion":
            return await self._assertion(client, wanted, mint)
        form = {
            "grant_type": "client_credentials",
            "client_id": client,
            "client_assertion_type": _BEARER_ASSERTION,
            "client_assertion": await mint(self._settings.audience, algorithm="RS256"),
            "scope": wanted.ask.scope,
        }
        answer = await self._http.post_form(f"{self._tenant}/oauth2/v2.0/token", form, step="token")
        if answer.status != 200:
            raise refusal_of(answer, "token")
        told = answer.json("token")
        if str(told.get("token_type", "")).lower() != "bearer":
            raise odd("the answer's token_type is not Bearer", "token")
        life = life_of(told, "expires_in", "token", self.longest)
        return Obtained(
            token=token_of(told, "access_token", "token"),
            expires_at=self._clock.now() + life,
            public={"tenant_id": self._settings.tenant_id, "client_id": client, "scope": wanted.ask.scope},
        )

    async def _assertion(self, client: str, wanted: Wanted, mint: Mint) -> Obtained:
        """Nothing is asked of Entra: what a program gets there by it, nobody here knows, and it outlives the task."""
        return Obtained(
            token=await mint(self._settings.audience, algorithm="RS256"),
            expires_at=self._clock.now() + timedelta(seconds=PROVIDER_ASSERTION_SECONDS),
            token_type=NOT_OAUTH,
            issued_type=JWT,
            public={
                "tenant_id": self._settings.tenant_id,
                "client_id": client,
                "scope": wanted.ask.scope,
                "gives": "assertion",
            },
        )

    async def take_back(self, ended: Ended, mint: Mint) -> None:  # noqa: ARG002  # there is nothing to do with them
        """Never: see the module."""
        raise ProviderRefused("Entra cannot recall an access token", step="recall")

    def check(self, wanted: Wanted | None, mint: Mint) -> AsyncIterator[Step]:
        """Read the tenant's metadata; then get a token, which is dropped."""
        return unfailing(self._steps(wanted, mint), "token")

    async def _steps(self, wanted: Wanted | None, mint: Mint) -> AsyncGenerator[Step, None]:
        answer = await self._http.get(f"{self._tenant}/v2.0/.well-known/openid-configuration", step="tenant")
        if answer.status != 200:
            raise refusal_of(answer, "tenant")
        if not isinstance(answer.json("tenant").get("token_endpoint"), str):
            raise odd("the tenant's metadata has no token_endpoint", "tenant")
        yield Step("tenant", "ok", f"Entra knows the tenant {self._settings.tenant_id}")
        if wanted is None:
            yield Step("token", "skipped", "there is no workload to get a token for")
            return
        obtained = await self.exchange(wanted, mint)
        left = int((obtained.expires_at - self._clock.now()).total_seconds())
        hint = "it cannot be recalled: a token lifetime policy of the resource's application makes it shorter"
        yield Step("token", "ok", f"Entra gave an access token, good for {left} s", hint)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.close()


def refusal_of(answer: HttpResponse, step: str) -> SojournError:
    """The error that an answer other than 200 is: by Entra's own code first, and by OAuth's else."""
    told = answer.told()
    error, detail, codes = code_of(told.get("error")), said(told.get("error_description")), told.get("error_codes")
    known = [code for code in codes if isinstance(code, int)] if isinstance(codes, list) else []
    if answer.status == 429 or answer.status >= 500 or not error or _TRANSIENT & set(known):
        return unanswered(answer, step, detail=detail)
    if error == "temporarily_unavailable":
        return ProviderUnavailable("Entra says that it cannot now", step=step, detail=detail)
    for code in known:
        if code in _REFUSALS:
            sentence, hint = _REFUSALS[code]
            return ProviderRefused(f"{sentence} (AADSTS{code})", step=step, hint=hint, detail=detail)
    shown = f"AADSTS{known[0]}" if known and 0 < known[0] < 10**9 else error
    return ProviderRefused(f"Entra refused ({shown})", step=step, detail=detail)
