"""Google Cloud: workload identity federation, and by it a service account's access token for as long as a task runs.

The workload's JWT-SVID is exchanged at Google's STS for a federated token. With `service_account` that token is shown
to the IAM Credentials API alone, and what is handed out is an access token of the service account, whose life is the
task's. Without one the federated token itself is handed out: Google gives it up to an hour, and knows no shorter.
With `boundary` what is handed out is narrowed to objects of Cloud Storage (a Credential Access Boundary).

None of these can be recalled: after the task's end they are good until they expire.
"""

import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Final
from urllib.parse import quote

from pydantic import Field, model_validator

from sojourn.errors import InvalidInput
from sojourn.limits import ACTIONS_PER_GRANT
from sojourn.providers.answers import expiring, life_of, odd, text_of, time_of, token_of, unfailing
from sojourn.providers.ask_by_action import of_actions
from sojourn.providers.errors import ProviderRefused
from sojourn.providers.gcp_answers import refusal_of, sts_refusal_of
from sojourn.providers.http import Http
from sojourn.providers.provider import ACCESS_TOKEN, Ended, Mint, Obtained, ProviderTable, Recall, Step, Wanted
from sojourn.providers.settings import Endpoint, read_ask
from sojourn.runtime.clock import Clock, SystemClock
from sojourn.settings.models import read_settings
from sojourn.settings.tables import Table

SUBJECT_MAX_BYTES: Final = 127  # of google.subject
_HOUR: Final = timedelta(hours=1)  # the longest that Google gives without an organization's leave
_SKEW: Final = timedelta(minutes=5)  # of Google's clock against ours, in an expiry that it states as a time
_IAM: Final = "https://www.googleapis.com/auth/iam"  # for the IAM Credentials API and no more
_GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
_RULES_MAX: Final = 10  # of a Credential Access Boundary
_DOMAIN: Final = r"^[a-z0-9-]+(\.[a-z0-9-]+)+$"
_PROVIDER: Final = (
    r"^//iam\.googleapis\.com/projects/[0-9]{1,20}/locations/global/workloadIdentityPools/[a-z0-9-]{4,32}"
    r"/providers/[a-z0-9-]{4,32}$"
)

_ServiceAccount = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}@[a-z0-9.-]{1,200}$")]
_Scope = Annotated[str, Field(pattern=r"^[!#-\[\]-~]{1,255}$")]


class GcpSettings(ProviderTable):
    """[providers.NAME] with `kind = "gcp"`."""

    audience: Annotated[str, Field(pattern=_PROVIDER)]  # of STS: the pool's provider, as the console shows it
    jwt_audience: Annotated[str, Field(min_length=1, max_length=255)] | None = None  # default: https: and `audience`
    service_account: _ServiceAccount | None = None  # for asks that name none
    subject_mapped: Annotated[bool, Field(strict=True)] = False  # google.subject is not the SPIFFE ID, but shorter
    project_id: Annotated[str, Field(pattern=r"^[a-z0-9.:-]{4,64}$")] | None = None  # for programs
    universe_domain: Annotated[str, Field(pattern=_DOMAIN)] = "googleapis.com"
    sts: Endpoint | None = None  # default: https://sts.DOMAIN/v1/token
    iam_credentials: Endpoint | None = None  # default: https://iamcredentials.DOMAIN


class BoundaryRule(Table):
    """One rule of a Credential Access Boundary."""

    resource: Annotated[str, Field(pattern=r"^//storage\.googleapis\.com/projects/_/buckets/[a-z0-9._-]{3,222}$")]
    permissions: Annotated[tuple[Annotated[str, Field(pattern=r"^inRole:[!-~]{1,255}$")], ...], Field(min_length=1)]
    condition: Annotated[str, Field(min_length=1, max_length=2_048)] | None = None  # CEL on resource.name, and the like

    @property
    def told(self) -> dict[str, Any]:
        """As Google's API has it."""
        told: dict[str, Any] = {"availableResource": self.resource, "availablePermissions": list(self.permissions)}
        return {**told, "availabilityCondition": {"expression": self.condition}} if self.condition else told


class GcpAsk(Table):
    """What a task type asks of Google for a resource: by action, the scopes; and the boundary, if there is one."""

    scopes: Annotated[Mapping[str, Annotated[tuple[_Scope, ...], Field(min_length=1)]], Field(min_length=1)]
    service_account: _ServiceAccount | None = None  # default: that of the settings
    boundary: Annotated[
        Mapping[str, Annotated[tuple[BoundaryRule, ...], Field(min_length=1, max_length=_RULES_MAX)]],
        Field(max_length=ACTIONS_PER_GRANT),
    ] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _by_action(cls, values: Any) -> Any:
        # pydantic shows the sentence of a ValueError alone
        if isinstance(values, Mapping) and isinstance(values.get("scopes"), list | tuple | str):
            raise ValueError('scopes: is a table by action, such as { "objects:read" = ["https://…"] }')  # noqa: TRY004
        return values

    def of(self, actions: tuple[str, ...]) -> tuple[str, ...]:
        """The scopes of these actions, sorted."""
        return tuple(sorted({scope for action in actions for scope in self.scopes[action]}))

    def rules(self, actions: tuple[str, ...]) -> list[BoundaryRule]:
        """The boundary's rules of these actions, each once."""
        return list(dict.fromkeys(rule for action in actions for rule in self.boundary[action]))


class GcpProvider:
    """Settings: GcpSettings. Asks: GcpAsk."""

    kind = "gcp"
    recall: Recall = "none"
    offline = False  # its tokens are opaque: Google alone reads them
    longest = _HOUR

    def __init__(self, name: str, settings: Mapping[str, Any], http: Http, clock: Clock | None = None) -> None:
        self.name = name
        self._settings = read_settings(GcpSettings, settings)
        self._http = http
        self._clock = clock or SystemClock()
        domain = self._settings.universe_domain
        named = self._settings.audience
        self._audience = self._settings.jwt_audience or f"https:{named}"
        self.audiences = frozenset({self._audience, named, f"https:{named}"})
        self._sts = self._settings.sts or f"https://sts.{domain}/v1/token"
        self._iam = (self._settings.iam_credentials or f"https://iamcredentials.{domain}").removesuffix("/")

    def read_ask(self, ask: Mapping[str, Any], actions: tuple[str, ...]) -> GcpAsk:
        """See GcpAsk. Raise InvalidInput."""
        read = read_ask(GcpAsk, ask)
        of_actions(read.scopes, actions, "scopes")
        if read.boundary:
            of_actions(read.boundary, actions, "boundary")
            if len(read.rules(actions)) > _RULES_MAX:
                raise InvalidInput(f"ask.boundary: all actions together have more than {_RULES_MAX} rules")
        return read

    def describe(self, ask: Any) -> Mapping[str, str]:
        """`kind`, `audience`, `universe_domain`, and if there are such `service_account` and `project_id`."""
        told = {
            "kind": self.kind,
            "audience": self._settings.audience,
            "universe_domain": self._settings.universe_domain,
            "service_account": self._service_account(ask),
            "project_id": self._settings.project_id or "",
        }
        return {key: value for key, value in told.items() if value}

    async def exchange(self, wanted: Wanted, mint: Mint) -> Obtained:
        """An access token: the service account's if there is one, narrowed by the boundary if there is one."""
        account, scopes = self._service_account(wanted.ask), wanted.ask.of(wanted.actions)
        if wanted.ends <= self._clock.now():
            raise ProviderRefused("the task ends before a token could be used", step="exchange")
        token, life = await self._federated(wanted, (_IAM,) if account else scopes, mint)
        expires = self._clock.now() + life
        if account:
            needed = timedelta(seconds=max(1, math.ceil((wanted.ends - self._clock.now()).total_seconds())))
            asked = min(needed, _HOUR)
            body = {"scope": list(scopes), "lifetime": f"{int(asked.total_seconds())}s"}
            url = f"{self._iam}/v1/projects/-/serviceAccounts/{quote(account, safe='@')}:generateAccessToken"
            answer = await self._http.post_json(
                url, body, step="impersonate", headers={"Authorization": f"Bearer {token}"}
            )
            if answer.status != 200:
                raise refusal_of(answer, "impersonate", account, self._principal(wanted))
            told = answer.json("impersonate")
            token = token_of(told, "accessToken", "impersonate")
            at, now = time_of(text_of(told, "expireTime", "impersonate"), "impersonate"), self._clock.now()
            if at > now + asked + _SKEW:
                raise odd(
                    "the answer's expireTime is later than was asked for",
                    "impersonate",
                    hint="set this machine's clock",
                )
            expires = expiring(at, now, asked, "impersonate")
        if wanted.ask.boundary:
            token = await self._bounded(token, wanted.ask.rules(wanted.actions))
        public = {"audience": self._settings.audience, "scopes": " ".join(scopes)}
        return Obtained(
            token=token, expires_at=expires, public={**public, **({"service_account": account} if account else {})}
        )

    async def _federated(self, wanted: Wanted, scopes: tuple[str, ...], mint: Mint) -> tuple[str, timedelta]:
        subject = str(wanted.spiffe_id).encode()
        if len(subject) > SUBJECT_MAX_BYTES and not self._settings.subject_mapped:
            raise ProviderRefused(
                f"the SPIFFE ID has {len(subject)} bytes, and google.subject has {SUBJECT_MAX_BYTES} at most",
                step="exchange",
                hint="IAM, Workload Identity Pools, this provider, Attribute mapping: map google.subject to a part, "
                "such as assertion.sub.extract('/agent/{name}'), and set subject_mapped = true",
            )
        body = {
            "grant_type": _GRANT,
            "audience": self._settings.audience,
            "scope": " ".join(scopes),
            "requested_token_type": ACCESS_TOKEN,
            "subject_token": await mint(self._audience, algorithm="ES256"),
            "subject_token_type": _JWT,
        }
        answer = await self._http.post_form(self._sts, body, step="exchange")
        if answer.status != 200:
            raise sts_refusal_of(answer, "exchange")
        told = answer.json("exchange")
        return token_of(told, "access_token", "exchange"), life_of(told, "expires_in", "exchange", _HOUR)

    async def _bounded(self, token: str, rules: list[BoundaryRule]) -> str:
        """The same token for what a boundary lets through. It expires when that token does."""
        options = json.dumps({"accessBoundary": {"accessBoundaryRules": [rule.told for rule in rules]}})
        body = {
            "grant_type": _GRANT,
            "requested_token_type": ACCESS_TOKEN,
            "subject_token": token,
            "subject_token_type": ACCESS_TOKEN,
            "options": options,
        }
        answer = await self._http.post_form(self._sts, body, step="boundary")
        if answer.status != 200:
            raise sts_refusal_of(answer, "boundary")
        bounded = token_of(answer.json("boundary"), "access_token", "boundary")
        if bounded == token:
            raise odd("the answer is the token that was to be narrowed", "boundary")
        return bounded

    async def take_back(self, ended: Ended, mint: Mint) -> None:  # noqa: ARG002  # there is nothing to do with them
        """Never: see the module."""
        raise ProviderRefused("Google cannot recall an access token", step="recall")

    def check(self, wanted: Wanted | None, mint: Mint) -> AsyncIterator[Step]:
        """Ask STS for nothing, which it has to refuse; then a token, which is dropped."""
        return unfailing(self._steps(wanted, mint), "exchange")

    async def _steps(self, wanted: Wanted | None, mint: Mint) -> AsyncGenerator[Step, None]:
        answer = await self._http.post_form(self._sts, {}, step="endpoint")
        if answer.status not in {400, 401} or not isinstance(answer.json("endpoint").get("error"), str | dict):
            raise sts_refusal_of(answer, "endpoint")
        yield Step("endpoint", "ok", f"Google's STS answers at {self._sts}")
        if wanted is None:
            yield Step("exchange", "skipped", "there is no workload to exchange for")
            return
        obtained = await self.exchange(wanted, mint)
        account = self._service_account(wanted.ask)
        whose = f"of {account}" if account else "of the federated identity"
        hint = "" if account else "set service_account for tokens that live no longer than the task"
        left = max(0, int((obtained.expires_at - self._clock.now()).total_seconds()))
        yield Step("exchange", "ok", f"Google gave an access token {whose}, good for {left} s", hint)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.close()

    def _service_account(self, ask: Any) -> str:
        named = ask.service_account if isinstance(ask, GcpAsk) else None
        return named or self._settings.service_account or ""

    def _principal(self, wanted: Wanted) -> str:
        """As IAM's policies name the workload."""
        pool = self._settings.audience.partition("/providers/")[0]
        subject = "SUBJECT" if self._settings.subject_mapped else str(wanted.spiffe_id)
        return f"principal:{pool}/subject/{subject}"
