"""HashiCorp Vault and OpenBao: a token by the JWT auth method, or one secret that it may read; revoked at the end.

Revoking the token ends with it what was leased by it: a database user that Vault made goes, though some moments later,
since Vault works its leases off in the background. What is not leased, as a secret of a KV store, stays what it is.
"""

import json
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, Field, model_validator

from sojourn.errors import SojournError
from sojourn.limits import ACTIONS_PER_GRANT, PROVIDER_ROLES_KEPT, PROVIDER_STRANDED, PROVIDER_TOKEN_MAX_SECONDS
from sojourn.providers.answers import life_of, odd, table_of, token_of, unfailing
from sojourn.providers.ask_by_action import by_action, chosen
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.http import Http, HttpResponse
from sojourn.providers.provider import NOT_OAUTH, Ended, Mint, Obtained, ProviderTable, Recall, Step, Wanted
from sojourn.providers.settings import Endpoint, read_ask
from sojourn.providers.vault_answers import refusal_of
from sojourn.quota.lru import Lru
from sojourn.runtime.clock import Clock, SystemClock
from sojourn.settings.models import read_settings
from sojourn.settings.tables import Duration, Table, between

VAULT_TOKEN: Final = "urn:sojourn:token-type:vault-token"  # noqa: S105  # a name
VAULT_SECRET: Final = "urn:sojourn:token-type:vault-secret"  # noqa: S105  # a name
_LOGIN, _SECRET, _RIGHTS, _REVOKE = "login", "secret", "rights", "revoke"
_SELF: Final = ("auth/token/revoke-self", "auth/token/lookup-self")
_PLACE: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.@+-]*)*")
_NOT_SECRETS: Final = ("auth/", "sys/", "identity/")
_LONGEST: Final = timedelta(seconds=PROVIDER_TOKEN_MAX_SECONDS)
_EVER: Final = timedelta(days=36_500)  # of what Vault may say of a life: added to a date it is still one
_SLACK: Final = timedelta(minutes=1)  # by which a role's tokens may outlive a task before a check says so


def _place(value: str) -> str:
    if len(value) > 512 or not _PLACE.fullmatch(value):
        raise ValueError("is not a path of Vault, without slashes at its ends")
    return value


def _secret_path(value: str) -> str:
    if _place(value).startswith(_NOT_SECRETS):
        raise ValueError("is not the path of a secret")
    return value


_Place = Annotated[str, AfterValidator(_place)]
_Role = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]


class VaultSettings(ProviderTable):
    """[providers.NAME] with `kind = "vault"`."""

    address: Endpoint
    mount: _Place = "jwt"  # of the auth method
    namespace: _Place | None = None
    role: _Role | None = None  # for asks that name none
    audience: Annotated[str, Field(min_length=1, max_length=255)] | None = None  # default: the address
    longest_token: Annotated[Duration, between(timedelta(seconds=1), _LONGEST)] = _LONGEST


class VaultAsk(Table):
    """What a task type asks of Vault for a resource: the role, one for all actions or by action, and maybe a secret."""

    role: _Role | None = None  # default: that of the settings
    roles: Annotated[Mapping[str, _Role], Field(max_length=ACTIONS_PER_GRANT)] = Field(default_factory=dict)
    path: Annotated[str, AfterValidator(_secret_path)] | None = None  # of a secret, handed out instead of the token
    standing: Annotated[bool, Field(strict=True)] = False  # the secret may be one that Vault cannot take back

    @model_validator(mode="after")
    def _said_once(self) -> Self:
        if self.roles and self.role is not None:
            raise ValueError("roles: says it by action, and role for all: one of them")
        if self.standing and self.path is None:
            raise ValueError("standing: is of a secret, and there is no path")
        return self


@dataclass(frozen=True, slots=True)
class VaultAsked:
    """An ask as it was read: the role by action."""

    roles: Mapping[str, str]
    actions: tuple[str, ...]
    path: str
    standing: bool


class VaultProvider:
    """Settings: VaultSettings. Asks: VaultAsk."""

    kind = "vault"
    recall: Recall = "revoke"
    offline = False  # Vault itself reads its tokens

    def __init__(self, name: str, settings: Mapping[str, Any], http: Http, clock: Clock | None = None) -> None:
        self.name = name
        self._settings = read_settings(VaultSettings, settings)
        self._http = http
        self._clock = clock or SystemClock()
        self._address = self._settings.address.removesuffix("/")
        self.longest = self._settings.longest_token
        self._audience = self._settings.audience or self._address
        self.audiences = frozenset({self._audience})
        self._stranded: OrderedDict[tuple[str, str], list[str]] = OrderedDict()  # tokens that nobody got, by task
        # The policies by which tokens can revoke themselves.
        self._able: Lru[tuple[str, ...], bool] = Lru(PROVIDER_ROLES_KEPT, by_age=True)

    def read_ask(self, ask: Mapping[str, Any], actions: tuple[str, ...]) -> VaultAsked:
        """See VaultAsk. Raise InvalidInput."""
        read = read_ask(VaultAsk, ask)
        roles = by_action(read.roles, read.role or self._settings.role, actions, "roles", "role")
        return VaultAsked(roles, actions, read.path or "", read.standing)

    def describe(self, ask: Any) -> Mapping[str, str]:
        """`kind`, `address`, `mount`, `gives` (token or secret), and if there are such `namespace` and `path`."""
        told = {
            "kind": self.kind,
            "address": self._address,
            "mount": self._settings.mount,
            "gives": "secret" if ask.path else "token",
            "namespace": self._settings.namespace or "",
            "path": ask.path,
        }
        return {key: value for key, value in told.items() if value}

    async def exchange(self, wanted: Wanted, mint: Mint) -> Obtained:
        """A token of the role that these actions are, or the secret that it reads. One that is of no use is revoked."""
        role = chosen(wanted.ask.roles, wanted.ask.actions, wanted.actions, "roles", "a role")
        auth = await self._login(role, mint)
        token = token_of(auth, "client_token", _LOGIN)
        stranded = self._stranded.setdefault((wanted.task_id, wanted.resource), [])
        stranded.append(token)  # a deadline may come at any moment from here on
        try:
            obtained = await self._obtained(wanted, role, auth)
        except SojournError as error:
            if await self._dropped(token):
                self._found(wanted, token)
                if isinstance(error, ProviderUnavailable):
                    error.sent = False  # nothing came of it
            elif isinstance(error, ProviderRefused):
                error.left = True
            raise
        finally:
            while len(self._stranded) > PROVIDER_STRANDED:
                self._stranded.popitem(last=False)
        self._found(wanted, token)
        return obtained

    def _found(self, wanted: Wanted, token: str) -> None:
        """A token that is in somebody's hands again, or no more."""
        key = (wanted.task_id, wanted.resource)
        left = [each for each in self._stranded.pop(key, ()) if each != token]
        if left:
            self._stranded[key] = left

    async def _login(self, role: str, mint: Mint) -> dict[str, Any]:
        """What Vault tells of the token that it gave. From here on there is one, whatever is wrong with it."""
        body = {"role": role, "jwt": await mint(self._audience, algorithm="ES256")}
        answer = await self._post(f"auth/{self._settings.mount}/login", body, _LOGIN)
        if answer.status != 200:
            raise refusal_of(answer, _LOGIN)
        auth = table_of(answer.json(_LOGIN), "auth", _LOGIN)
        if auth.get("mfa_requirement"):
            raise ProviderRefused("Vault wants a second factor, which a workload has not", step=_LOGIN)
        return auth

    async def _obtained(self, wanted: Wanted, role: str, auth: dict[str, Any]) -> Obtained:
        token = token_of(auth, "client_token", _LOGIN)
        if auth.get("lease_duration") == 0:
            raise ProviderRefused(
                "the role gives tokens that never expire",
                step=_LOGIN,
                hint="set the role's token_ttl and token_max_ttl",
            )
        life = life_of(auth, "lease_duration", _LOGIN, _EVER)
        if auth.get("token_type") == "batch" or token.startswith(("b.", "hvb.")):
            raise ProviderRefused(
                "the role gives batch tokens, which cannot be revoked",
                step=_LOGIN,
                hint="set its token_type to service",
            )
        if auth.get("num_uses"):
            raise ProviderRefused(
                "the role gives tokens for a number of uses, of which revoking is one",
                step=_LOGIN,
                hint="set the role's token_num_uses to 0",
            )
        if life > self.longest:
            raise ProviderRefused(
                f"the role gives tokens for {int(life.total_seconds())} s, longer than longest_token",
                step=_LOGIN,
                hint="set the role's token_ttl and token_max_ttl to a task's length, or set longest_token",
            )
        await self._able_to_revoke(role, token, auth)
        public = {"role": role, "mount": self._settings.mount}
        if isinstance(auth.get("accessor"), str) and auth["accessor"].replace(".", "").isalnum():
            public["accessor"] = auth["accessor"][:128]
        expires = self._clock.now() + life
        handle = {"token": token, "address": self._address}
        if not wanted.ask.path:
            return Obtained(token, expires, NOT_OAUTH, VAULT_TOKEN, handle, public)
        secret, leased, standing = await self._secret(wanted, token)
        if leased is not None:
            expires = min(expires, self._clock.now() + leased)
        public = {**public, "path": wanted.ask.path, **({"standing": "yes"} if standing else {})}
        handle |= {"standing": "yes"} if standing else {}
        return Obtained(secret, expires, NOT_OAUTH, VAULT_SECRET, handle, public)

    async def _able_to_revoke(self, role: str, token: str, auth: Mapping[str, Any]) -> None:
        """See once for a role and its policies that its tokens may revoke and look up themselves. Raise otherwise."""
        named = auth.get("token_policies")
        policies = (role, *map(str, named)) if isinstance(named, list) else (role,)
        if policies in self._able:
            return
        answer = await self._post("sys/capabilities-self", {"paths": list(_SELF)}, _RIGHTS, token)
        if answer.status not in {200, 403, 404}:
            raise refusal_of(answer, _RIGHTS)
        told = table_of(answer.json(_RIGHTS), "data", _RIGHTS) if answer.status == 200 else {}
        rights = [told.get(path) for path in _SELF]
        wanted = ({"update", "root"}, {"read", "root"})
        if not all(
            isinstance(each, list) and set(map(str, each)) & one for each, one in zip(rights, wanted, strict=True)
        ):
            raise ProviderRefused(
                "the role's tokens may not revoke and look up themselves, so they could not be taken back",
                step=_RIGHTS,
                hint="leave the role its default policy, or allow by another what it says of auth/token/revoke-self, "
                "auth/token/lookup-self and sys/capabilities-self",
            )
        self._able.put(policies, True)

    async def _secret(self, wanted: Wanted, token: str) -> tuple[str, timedelta | None, bool]:
        """The secret as JSON, how long it is leased, and whether it is not leased at all."""
        answer = await self._get(wanted.ask.path, _SECRET, token)
        if answer.status != 200:
            raise refusal_of(answer, _SECRET)
        told = answer.json(_SECRET)
        data = table_of(told, "data", _SECRET)
        if told.get("lease_id"):
            return json.dumps(data), life_of(told, "lease_duration", _SECRET, _EVER), False
        if not wanted.ask.standing:
            raise ProviderRefused(
                "the secret is not leased: Vault cannot take it back, and it stays good after the task",
                step=_SECRET,
                hint="read a dynamic secret, such as database/creds/ROLE, or say standing = true in the ask",
            )
        return json.dumps(data), None, True

    async def take_back(self, ended: Ended, mint: Mint) -> None:  # noqa: ARG002  # the token itself is what it takes
        """Revoke the token, and with it what it leased. A lost one too, if it is known here."""
        token, key = ended.handle.get("token", ""), (ended.task_id, ended.resource)
        given_by = ended.handle.get("address", self._address)
        if given_by != self._address:  # another would refuse a token that it does not know as one that is revoked
            raise ProviderRefused(
                f"{given_by} gave it, and the provider is another by now", step=_REVOKE, hint="set address as it was"
            )
        if not token and key in self._stranded:
            for each in tuple(self._stranded[key]):
                await self._revoked(each)
            self._stranded.pop(key, None)
            return
        if not token:
            raise ProviderRefused("the token was lost, and without it there is nothing to revoke", step=_REVOKE)
        await self._revoked(token)
        if ended.handle.get("standing"):
            raise ProviderRefused("the token is revoked; the secret that it read has no lease, and stays", step=_REVOKE)

    async def _revoked(self, token: str) -> None:
        """Return when it is gone. A refusal alone does not say so: it may be for want of a policy."""
        answer = await self._post("auth/token/revoke-self", {}, _REVOKE, token)
        if answer.status in {200, 204}:
            return
        if answer.status != 403:
            raise refusal_of(answer, _REVOKE)
        looked = await self._get("auth/token/lookup-self", _REVOKE, token)
        if looked.status == 403:  # it was seen at the exchange that it may look itself up: so it is no more
            return
        if looked.status != 200:
            raise refusal_of(looked, _REVOKE)
        raise ProviderUnavailable(
            "the token may not revoke itself any more",
            step=_REVOKE,
            hint='allow it in the role\'s policies: path "auth/token/revoke-self" { capabilities = ["update"] }',
        )

    async def _dropped(self, token: str) -> bool:
        """Revoke a token that nobody gets, if that can be."""
        try:
            await self._revoked(token)
        except SojournError:
            return False
        return True

    def check(self, wanted: Wanted | None, mint: Mint) -> AsyncIterator[Step]:
        """Ask for Vault's health; then log in, read the secret if there is one, and revoke the token."""
        return unfailing(self._steps(wanted, mint), _LOGIN)

    async def _steps(self, wanted: Wanted | None, mint: Mint) -> AsyncGenerator[Step, None]:
        url = f"{self._address}/v1/sys/health?standbyok=true&perfstandbyok=true"  # of no namespace
        answer = await self._http.get(url, step="health")
        if answer.status != 200:
            raise refusal_of(answer, "health")
        if answer.json("health").get("initialized") is not True:
            raise odd("what answers is not Vault, or not initialized", "health")
        yield Step("health", "ok", f"Vault answers at {self._address}, and is unsealed")
        if wanted is None:
            yield Step(_LOGIN, "skipped", "there is no workload to log in")
            return
        obtained = await self.exchange(wanted, mint)
        told, left = self._told(wanted, obtained), True
        try:
            yield told
            left = False
            await self._revoked(obtained.handle["token"])
            yield Step(_REVOKE, "ok", "the token was revoked")
        finally:
            if left:  # nobody reads on
                await self._dropped(obtained.handle["token"])

    def _told(self, wanted: Wanted, obtained: Obtained) -> Step:
        what = f"the secret at {wanted.ask.path}" if wanted.ask.path else "a token"
        left = obtained.expires_at - self._clock.now()
        hint = ""
        if obtained.expires_at > wanted.ends + _SLACK:
            hint = "it would outlive the task, were it not revoked: set the role's token_ttl and token_max_ttl to less"
        elif obtained.handle.get("standing"):
            hint = "the secret has no lease: it stays good after the task"
        return Step(
            _LOGIN, "ok", f"role {obtained.public['role']} gave {what}, for {int(left.total_seconds())} s", hint
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.close()

    async def _get(self, path: str, step: str, token: str = "") -> HttpResponse:
        return await self._http.get(f"{self._address}/v1/{path}", step=step, headers=self._headers(token))

    async def _post(self, path: str, body: Mapping[str, Any], step: str, token: str = "") -> HttpResponse:
        url = f"{self._address}/v1/{path}"
        return await self._http.post_json(url, body, step=step, headers=self._headers(token))

    def _headers(self, token: str) -> dict[str, str]:
        """`X-Vault-Request` is what Vault may demand, so that nobody's browser or proxy asks by mistake."""
        named = {"X-Vault-Request": "true"}
        if self._settings.namespace is not None:
            named["X-Vault-Namespace"] = self._settings.namespace
        return {**named, "X-Vault-Token": token} if token else named
