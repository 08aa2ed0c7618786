"""What stands in a task type's NAME.toml."""

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from sojourn.errors import SojournError
from sojourn.limits import (
    APPROVAL_MAX_SECONDS,
    APPROVAL_WHEN_MAX,
    APPROVALS_PER_TASK,
    BREAK_GLASS_MAX_SECONDS,
    CLAIMS_PER_TYPE,
    DELEGATION_CHILDREN,
    DELEGATION_DEPTH,
    FACT_MAX_AGE_SECONDS,
    FACTS_PER_TYPE,
    LOGIN_AGE_MAX_SECONDS,
    PARAMS_PER_TASK,
    PERSON_CHOICES,
    PERSON_TASKS,
    REVIEW_EVERY_MAX_SECONDS,
    REVIEW_EVERY_MIN_SECONDS,
    TASK_MAX_SECONDS,
    TASK_MIN_SECONDS,
    TOKEN_TTL_MAX_SECONDS,
    USES_MAX,
)
from sojourn.policy.params import BY_TYPE, Kind, ParamRule, typed
from sojourn.policy.user import ATTRIBUTES
from sojourn.settings.owners import check_owner
from sojourn.settings.tables import Duration, between
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.person_claims import GROUPS, check_told

OPERATOR = "operator"  # whoever may use the admin socket
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
Consequence = Literal["normal", "high"]
WhenOverdue = Literal["tell", "block_new"]
# What becomes of a type whose review is overdue: it is told, or no new task of it begins.
TELL: Final = "tell"
BLOCK_NEW: Final = "block_new"
PAIRWISE, NOTHING = "pairwise", "nothing"  # what a resource may be told of the person of a task, beside their subject
Binding = Literal["stream", "process", "session", "one-shot"]
BINDINGS: tuple[Binding, ...] = get_args(Binding)


def _spiffe_id(text: str) -> str:
    try:
        SpiffeId.parse(text)
    except SojournError as error:
        raise ValueError(f"{text[:100]!r} is not a SPIFFE ID: {error.public}") from None
    return text


def _operator_or_workload(text: str) -> str:
    return text if text == OPERATOR else _spiffe_id(text)


def _source(text: str) -> str:
    parts = urlsplit(text)
    return text if parts.scheme == "https" and parts.hostname else _operator_or_workload(text)


def renamed(now: str) -> AfterValidator:
    """For a key that has another name by now: whoever says it must not believe that it does something."""

    def refuse(_value: Any) -> Any:
        raise ValueError(f"is now {now}")

    return AfterValidator(refuse)


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text[:64]!r} is not a name of letters, digits and _")
    return text


def _tellable(names: tuple[str, ...]) -> tuple[str, ...]:
    for each in names:
        try:
            check_told(each)
        except SojournError as error:
            raise ValueError(f"{error.public}: it is told by no other") from None
    if len(set(names)) < len(names):
        raise ValueError("has a claim twice")
    return names


Name = Annotated[str, AfterValidator(_name)]
Workload = Annotated[str, AfterValidator(_spiffe_id)]
Owner = Annotated[str, AfterValidator(check_owner)]
ProviderName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
Seconds = between(timedelta(seconds=TASK_MIN_SECONDS), timedelta(seconds=TASK_MAX_SECONDS))


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ceiling(_Table):
    """What tasks of the type may do at most at one resource.

    `provider` names an outside token endpoint, [providers.NAME] of the configuration, that gives the credentials for
    the resource; without it they are our own task tokens. `ask` is what that provider needs to know beyond the
    resource: its keys are the provider's. `tell`: what tokens say of the person that a task is for: the `subject` at
    their issuer, a name for this resource alone (`pairwise`), or `nothing`, as if the task were the workload's own.
    `tell_claims`: which of the claims that [person] declares they tell it beside the subject, or `groups`.
    """

    resource: str
    actions: tuple[str, ...]
    provider: ProviderName | None = None
    ask: Mapping[str, Any] = Field(default_factory=dict)
    tell: Literal["subject", "pairwise", "nothing"] | None = None
    tell_claims: Annotated[tuple[Name, ...], Field(max_length=CLAIMS_PER_TYPE), AfterValidator(_tellable)] = ()

    @model_validator(mode="after")
    def _asked_of_someone(self) -> Self:
        if self.ask and self.provider is None:
            raise ValueError("ask is for a provider, and none is named")
        if self.tell is not None and self.provider is not None:
            raise ValueError("tell is of our own tokens, and a provider gives the resource's")
        if self.tell_claims and self.provider is not None:
            raise ValueError("tell_claims is of our own tokens, and a provider gives the resource's")
        if self.tell_claims and self.tell in {PAIRWISE, NOTHING}:
            raise ValueError(f"tell_claims would say by other words who it is, and tell is {self.tell!r}")
        return self


class FactRule(_Table):
    """A fact that the type's policies read, and whom they believe.

    `sources`: `operator`, SPIFFE IDs of workloads, and https issuers of signed events; the first that has the fact
    counts. `on_deny` is what becomes of a live task that a change of this fact takes authority from.
    """

    type: Kind
    required: Annotated[bool, Field(strict=True)] = False
    max_age: Annotated[Duration | None, between(timedelta(seconds=1), timedelta(seconds=FACT_MAX_AGE_SECONDS))] = None
    sources: Annotated[tuple[Annotated[str, AfterValidator(_source)], ...], Field(min_length=1)] = (OPERATOR,)
    on_deny: Literal["narrow", "suspend", "revoke"] = "revoke"

    def fits(self, value: str | int | bool) -> bool:
        """Whether a value is of the type that policies read."""
        return type(value) is {"string": str, "long": int, "boolean": bool}[self.type]

    def read(self, name: str, text: str) -> str | int | bool:
        """Give the text of a value its type. Raise InvalidInput naming the fact."""
        return typed(self.type, text, f"fact {name!r}")


class DelegationRule(_Table):
    """To whom a task of the type may hand a part of its authority, how often, and how far."""

    to: Annotated[tuple[Workload, ...], Field(min_length=1)]
    max_depth: Annotated[int, Field(ge=1, le=DELEGATION_DEPTH, strict=True)] = 1
    max_children: Annotated[int, Field(ge=1, le=DELEGATION_CHILDREN, strict=True)] = 5


class ApprovalRule(_Table):
    """Who must agree before a task of the type begins: `count` of the `approvers`, `within` that time.

    `when`: a condition in Cedar; to a task for which it does not hold nobody must. Default: to each.
    """

    approvers: Annotated[tuple[Annotated[str, AfterValidator(_operator_or_workload)], ...], Field(min_length=1)] = (
        OPERATOR,
    )
    count: Annotated[int, Field(ge=1, le=APPROVALS_PER_TASK, strict=True)] = 1
    within: Annotated[Duration, between(timedelta(seconds=1), timedelta(seconds=APPROVAL_MAX_SECONDS))] = timedelta(
        minutes=10
    )
    when: Annotated[str, Field(min_length=1, max_length=APPROVAL_WHEN_MAX)] | None = None


_Named = Annotated[str, Field(min_length=1, max_length=255)]
_Choices = Field(min_length=1, max_length=PERSON_CHOICES)


class PersonRule(_Table):
    """The people whom tasks of the type are for.

    `issuers` empty: any that is configured. `groups` are named as policies name them, `corp/support`; one of them must
    be the person's, and one of `acr` how they logged in. `max_auth_age`: how long ago, when their token is brought.
    `several`: one process may have tasks for several people at once. `max_live`: how many tasks one of them may have.
    """

    need: Literal["required", "optional"]
    issuers: Annotated[tuple[ProviderName, ...], _Choices] = ()
    groups: Annotated[tuple[_Named, ...], _Choices] = ()
    acr: Annotated[tuple[_Named, ...], _Choices] = ()
    max_auth_age: Annotated[
        Duration | None, between(timedelta(seconds=1), timedelta(seconds=LOGIN_AGE_MAX_SECONDS))
    ] = None
    claims: Annotated[Mapping[Name, Kind], Field(max_length=CLAIMS_PER_TYPE)] = Field(default_factory=dict)
    several: Annotated[bool, Field(strict=True)] = False
    max_live: Annotated[int, Field(ge=1, le=PERSON_TASKS, strict=True)] = 5

    @model_validator(mode="after")
    def _claims_hide_nothing(self) -> Self:
        taken = next((name for name in self.claims if name in ATTRIBUTES), None)
        if taken is not None:
            raise ValueError(f"claims: {taken!r} is there already, as principal.user.{taken}")
        return self

    @model_validator(mode="after")
    def _groups_of_its_issuers(self) -> Self:
        for each in self.groups:
            issuer, slash, name = each.partition("/")
            if not slash or not issuer or not name:
                raise ValueError(f"groups: {each[:64]!r} does not name its issuer: write ISSUER/GROUP")
            if self.issuers and issuer not in self.issuers:
                raise ValueError(f"groups: {each[:64]!r} is of an issuer that is not in issuers")
        return self


_EVERY: Final = between(timedelta(seconds=REVIEW_EVERY_MIN_SECONDS), timedelta(seconds=REVIEW_EVERY_MAX_SECONDS))


class TypeFile(_Table):
    """NAME.toml."""

    description: str = ""
    owner: Owner = ""
    sponsor: Owner = ""
    review_every: Annotated[Duration | None, _EVERY] = None
    when_overdue: WhenOverdue = TELL
    allowed_workloads: Annotated[tuple[Workload, ...], Field(min_length=1)]
    max_duration: Annotated[Duration, Seconds] = timedelta(minutes=15)
    token_ttl: Annotated[Duration, between(timedelta(seconds=1), timedelta(seconds=TOKEN_TTL_MAX_SECONDS))] = timedelta(
        seconds=TOKEN_TTL_MAX_SECONDS
    )
    idle_timeout: Annotated[Duration | None, Seconds] = None
    max_tokens: Annotated[int, Field(ge=1, strict=True)] | None = None
    max_reported_calls: Annotated[int, Field(ge=1, strict=True)] | None = None
    max_calls: Annotated[Any, renamed("max_reported_calls: services tell of calls about a second late")] = None
    consequence: Consequence = "normal"
    consequence_of: Mapping[str, Consequence] = Field(default_factory=dict)  # of single actions
    limits: Mapping[str, Annotated[int, Field(ge=1, le=USES_MAX, strict=True)]] = Field(default_factory=dict)
    binding: Annotated[tuple[Binding, ...], Field(min_length=1)] = BINDINGS
    break_glass: Annotated[bool, Field(strict=True)] = False
    bound: Annotated[bool, Field(strict=True)] | None = None  # default: whether consequence is high
    params: Annotated[Mapping[Name, Annotated[ParamRule, BY_TYPE]], Field(max_length=PARAMS_PER_TASK)] = Field(
        default_factory=dict
    )
    facts: Annotated[Mapping[Name, Annotated[FactRule, BY_TYPE]], Field(max_length=FACTS_PER_TYPE)] = Field(
        default_factory=dict
    )
    bind: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)  # action -> the parameters that concern it
    delegation: DelegationRule | None = None
    approval: ApprovalRule | None = None
    person: PersonRule | None = None
    ceiling: Annotated[tuple[Ceiling, ...], Field(min_length=1)]

    def high_of(self, actions: Iterable[str]) -> frozenset[str]:
        """Those of some actions that are of high consequence."""
        return frozenset(each for each in actions if self.consequence_of.get(each, self.consequence) == "high")

    @model_validator(mode="after")
    def _high_is_bound(self) -> Self:
        if self.bound is False and any(self.high_of(each.actions) for each in self.ceiling):
            raise ValueError("bound = false is not for high consequence: its tokens are always bound")
        return self

    @model_validator(mode="after")
    def _outside_is_not_bound(self) -> Self:
        for each in self.ceiling:
            if each.provider is None:
                continue
            if self.bound or self.high_of(each.actions):
                raise ValueError(
                    f"tokens of the type are bound to their sender, which those of provider {each.provider!r} are not"
                )
            counted = next((action for action in each.actions if action in self.limits), None)
            if counted is not None:
                raise ValueError(
                    f"limits: uses of {counted[:64]!r} cannot be counted at {each.resource[:200]!r}: provider"
                    f" {each.provider!r} gives its credentials, and nobody asks us there"
                )
        return self

    @model_validator(mode="after")
    def _provider_once(self) -> Self:
        outside = [each.resource for each in self.ceiling if each.provider is not None]
        twice = next((each for each in outside if [each.resource for each in self.ceiling].count(each) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is there twice, and is a provider's: put it into one [[ceiling]]")
        return self

    @model_validator(mode="after")
    def _told_one_thing(self) -> Self:
        told: dict[str, tuple[str | None, frozenset[str]]] = {}
        for each in self.ceiling:
            if (each.tell is not None or each.tell_claims) and self.person is None:
                key = "tell_claims" if each.tell_claims else "tell"
                raise ValueError(f"{key} says what {each.resource!r} hears of a person, and the type has no [person]")
            said = each.tell, frozenset(each.tell_claims)
            if told.setdefault(each.resource, said) != said:
                raise ValueError(f"{each.resource!r} is there twice, and is to be told different things of a person")
        return self

    @model_validator(mode="after")
    def _told_what_is_read(self) -> Self:
        declared = {GROUPS} | (set(self.person.claims) if self.person is not None else set())
        for each in self.ceiling:
            unread = next((name for name in each.tell_claims if name not in declared), None)
            if unread is not None:
                raise ValueError(f"tell_claims: {unread[:64]!r} is no claim of [person.claims], and not groups")
        return self

    @model_validator(mode="after")
    def _overdue_by_a_date(self) -> Self:
        if self.when_overdue == BLOCK_NEW and self.review_every is None:
            raise ValueError('when_overdue = "block_new" needs review_every: without it no review is ever overdue')
        return self

    @model_validator(mode="after")
    def _break_glass_is_bounded(self) -> Self:
        if self.break_glass and self.approval is None:
            raise ValueError("break_glass needs an [approval]: a second person must know")
        if self.break_glass and self.approval is not None and self.approval.when is not None:
            raise ValueError("break_glass needs the approval of each task: approval.when is not for it")
        if self.break_glass and self.max_duration > timedelta(seconds=BREAK_GLASS_MAX_SECONDS):
            raise ValueError(f"max_duration of a break_glass type is at most {BREAK_GLASS_MAX_SECONDS // 60}m")
        return self
