"""Task types: policy-as-code, one NAME.toml with its NAME.cedar beside it."""

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from sojourn.errors import Fault, InvalidInput, InvalidPolicy
from sojourn.files import trusted
from sojourn.limits import (
    BOUND_PARAMS_MAX_BYTES,
    CONFIG_MAX_BYTES,
    PARAMS_PER_TASK,
    TASK_TYPES,
    TOKEN_TTL_HIGH_CLASS_SECONDS,
    TYPE_DIGEST_SHOWN,
)
from sojourn.policy import approval_condition, clauses, param_binding
from sojourn.policy.approval_condition import ApprovalNeed
from sojourn.policy.cedar import Policy
from sojourn.policy.cedar_schema import Context, Fields, Param, Principal
from sojourn.policy.clauses import Clause
from sojourn.policy.params import ParamRule
from sojourn.policy.task_type_tables import BLOCK_NEW, ApprovalRule, DelegationRule, FactRule, PersonRule, TypeFile
from sojourn.policy.type_faults import faults_of, lines_of, not_toml, placed
from sojourn.policy.user import UserFields
from sojourn.settings.toml_lines import line_numbers
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.grants import Authority, Grant
from sojourn.tasktoken.task_claim import HIGH, NORMAL

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
CASES = ".test.toml"  # files of cases are named so; they are no task types


@dataclass(frozen=True, slots=True)
class ProvidedResource:
    """A resource whose credentials a provider gives: its name in the configuration, and what it is asked with.

    `line` and `ask_line`: where the type's TOML file says so.
    """

    provider: str
    ask: Mapping[str, Any]
    line: int = 0
    ask_line: int = 0


@dataclass(frozen=True, slots=True)
class ReviewRule:
    """How often a type is reviewed, and whether no new task of it begins while its review is overdue."""

    every: timedelta
    block: bool
    every_ms: int = field(init=False, repr=False, compare=False)  # at hand: it is asked for at each beginning

    def __post_init__(self) -> None:
        object.__setattr__(self, "every_ms", self.every // timedelta(milliseconds=1))


@dataclass(frozen=True)
class TaskType:
    """One task type, checked and compiled. `digest` is SHA-256 over both files, lower-case hex."""

    name: str
    description: str
    allowed_workloads: frozenset[SpiffeId]
    max_duration: timedelta
    token_ttl: timedelta
    idle_timeout: timedelta | None
    max_tokens: int | None
    max_reported_calls: int | None
    consequence: str  # the highest of its actions
    bindings: frozenset[str]
    params: Mapping[str, ParamRule]
    facts: Mapping[str, FactRule]
    delegation: DelegationRule | None
    approval: ApprovalRule | None
    break_glass: bool
    bound: bool  # its tasks are given no token at all that whoever holds it may use
    ceiling: Authority
    policy: Policy
    digest: str
    lines: Mapping[str, int]  # where each key of its TOML file stands
    outside: Mapping[str, ProvidedResource] = field(default_factory=dict)  # resource -> who gives credentials for it
    bind: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # action -> the parameters that concern it
    high: frozenset[str] = frozenset()  # its actions of high consequence
    limits: Mapping[str, int] = field(default_factory=dict)  # action -> how often a task may do it
    need: ApprovalNeed | None = None  # where `approval` is needed; None: of each task
    person: PersonRule | None = None  # None: its tasks are for nobody but their workloads
    tell: Mapping[str, str] = field(default_factory=dict)  # resource -> what it is told of a task's person, if it says
    tell_claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # resource -> and which claims of theirs
    owner: str = ""
    sponsor: str = ""
    review: ReviewRule | None = None  # None: it is reviewed when somebody likes to

    @cached_property
    def named(self) -> Mapping[str, str]:
        """Which type it is, as records of the journal say it: its name, and the first digits of its digest."""
        return {"type": self.name, "type_version": self.digest[:TYPE_DIGEST_SHOWN]}

    @property
    def user(self) -> UserFields | None:
        """What its policies may read of people."""
        return _user_fields(self.person)

    @cached_property
    def clauses(self) -> tuple[Clause, ...]:
        """All that is asked of its tasks: its policies, and when somebody has to agree."""
        return (*self.policy.clauses, *([self.need.clause] if self.need is not None else []))

    @cached_property
    def beginners(self) -> frozenset[str]:
        """The SPIFFE IDs that may begin it, as texts."""
        return frozenset(map(str, self.allowed_workloads))

    @cached_property
    def hidden_params(self) -> frozenset[str]:
        """The parameters whose values no audit record has."""
        return frozenset(name for name, rule in self.params.items() if not rule.in_journal)

    def concerning(self, action: str) -> tuple[str, ...]:
        """The parameters with which services compare a request for this action: by default all that tokens carry."""
        carried = tuple(name for name, rule in self.params.items() if rule.in_tokens)
        return self.bind.get(action, carried)

    def class_of(self, actions: Iterable[str]) -> str:
        """The class of a token for these actions: the highest of theirs."""
        return NORMAL if self.high.isdisjoint(actions) else HIGH

    def needs_approval(self, principal: Principal, authority: Authority, context: Context) -> bool:
        """Whether somebody must agree before a task that has `authority` begins."""
        return self.approval is not None and (self.need is None or self.need.of(principal, authority, context))

    def read_params(self, given: Mapping[str, str]) -> dict[str, Param]:
        """Check parameters against the type's and give each its type. Raise InvalidInput naming the first fault."""
        if len(given) > PARAMS_PER_TASK:
            raise InvalidInput(f"more than {PARAMS_PER_TASK} parameters")
        read: dict[str, Param] = {}
        for name, text in given.items():
            rule = self.params.get(name)
            if rule is None:
                raise InvalidInput(f"task type {self.name!r} has no parameter {name[:64]!r}")
            read[name] = rule.read(name, text)
        for name, rule in self.params.items():
            if rule.required and name not in read:
                raise InvalidInput(f"parameter {name!r} is required")
        return read

    def params_in_tokens(self, params: Mapping[str, Param]) -> dict[str, Param]:
        """Those of a task's parameters that its tokens carry. Raise InvalidInput if they are too long together."""
        if not params:
            return {}
        rules = self.params
        kept = {name: value for name, value in params.items() if name not in rules or rules[name].in_tokens}
        if len(json.dumps(kept, ensure_ascii=False).encode("utf-8", "surrogatepass")) > BOUND_PARAMS_MAX_BYTES:
            raise InvalidInput(
                f"the parameters are longer than {BOUND_PARAMS_MAX_BYTES} bytes together, and every token carries them:"
                " shorten them, or have the task type say in_tokens = false of those that services do not check"
            )
        return kept

    def read_facts(self, given: Mapping[str, str]) -> dict[str, Param]:
        """Give the texts of facts that the type reads their types. Raise InvalidInput naming the first fault."""
        for name in given:
            if name not in self.facts:
                raise InvalidInput(f"task type {self.name!r} reads no fact {name[:64]!r}")
        return {name: self.facts[name].read(name, text) for name, text in given.items()}


class TypeSet(dict[str, TaskType]):
    """Task types by their names, as they were loaded together. It is not changed any more.

    `texts` are those of the files that it was read from, by their names.
    """

    texts: Mapping[str, str] = MappingProxyType({})

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the names and digests of all, lower-case hex."""
        return hashlib.sha256("".join(f"{name} {self[name].digest}\n" for name in sorted(self)).encode()).hexdigest()

    @cached_property
    def providers(self) -> Mapping[str, str]:
        """The provider of each resource for which one gives credentials; of several, that of the first type."""
        found: dict[str, str] = {}
        for kind in self.values():
            for resource, outside in kind.outside.items():
                found.setdefault(resource, outside.provider)
        return found


def parse(name: str, toml: str, cedar: str) -> TaskType:
    """Make a task type of its two files. Raise InvalidPolicy with all that is wrong."""
    if not _NAME.fullmatch(name):
        raise InvalidPolicy("a task type's name has lower-case letters, digits and dashes, at most 64")
    faults: list[Fault] = []
    try:
        file = TypeFile.model_validate(tomllib.loads(toml))
        ceiling = Authority.of(Grant.parse(each.resource, each.actions) for each in file.ceiling)
        faults += param_binding.faults(f"{name}.toml", toml, file)
        faults += _of_no_action(name, toml, file, ceiling)
    except tomllib.TOMLDecodeError as error:
        faults.append(not_toml(f"{name}.toml", toml, error))
    except ValidationError as error:
        faults += faults_of(f"{name}.toml", toml, error)
    except InvalidInput as error:
        faults.append(Fault(f"{name}.toml", line_numbers(toml).get("ceiling", 0), f"ceiling: {error.public}"))
    when: Clause | None = None
    try:
        if not faults and file.approval is not None and file.approval.when is not None:
            when = approval_condition.read(file.approval.when)
    except InvalidPolicy as error:
        faults += _of_when(name, toml, error)
    try:
        if faults:
            clauses.read(cedar)  # what can be said of it without its type
        else:
            policy = _policy(cedar, file, ceiling, when)
    except InvalidPolicy as error:
        faults += (replace(each, file=f"{name}.cedar") for each in error.faults)
    try:
        need = (
            None
            if when is None or faults
            else ApprovalNeed(when, policy, file.params, file.facts, _user_fields(file.person))
        )
    except InvalidPolicy as error:
        faults += _of_when(name, toml, error)
    if faults:
        raise InvalidPolicy(faults)
    actions = {action for grant in ceiling.grants for action in grant.actions}
    high = file.high_of(actions)
    token_ttl = file.token_ttl
    if high == actions:
        token_ttl = min(token_ttl, timedelta(seconds=TOKEN_TTL_HIGH_CLASS_SECONDS))
    return TaskType(
        name=name,
        description=file.description,
        allowed_workloads=frozenset(SpiffeId.parse(text) for text in file.allowed_workloads),
        max_duration=file.max_duration,
        token_ttl=token_ttl,
        idle_timeout=file.idle_timeout,
        max_tokens=file.max_tokens,
        max_reported_calls=file.max_reported_calls,
        consequence=HIGH if high else NORMAL,
        bindings=frozenset(file.binding),
        params=dict(file.params),
        facts=dict(file.facts),
        delegation=file.delegation,
        approval=file.approval,
        break_glass=file.break_glass,
        bound=file.bound or high == actions,
        ceiling=ceiling,
        policy=policy,
        digest=hashlib.sha256(f"{toml}\0{cedar}".encode()).hexdigest(),
        lines=line_numbers(toml),
        outside=_outside(file, toml),
        bind={action: tuple(dict.fromkeys(names)) for action, names in file.bind.items()},
        high=high,
        limits=dict(file.limits),
        need=need,
        person=file.person,
        tell={each.resource: each.tell for each in file.ceiling if each.tell is not None},
        tell_claims={each.resource: tuple(sorted(each.tell_claims)) for each in file.ceiling if each.tell_claims},
        owner=file.owner,
        sponsor=file.sponsor,
        review=None if file.review_every is None else ReviewRule(file.review_every, file.when_overdue == BLOCK_NEW),
    )


def _of_when(name: str, toml: str, error: InvalidPolicy) -> list[Fault]:
    """What is wrong with the condition of an approval, where it stands."""
    lines = line_numbers(toml)
    line = lines.get("approval.when", lines.get("approval", 0))
    return [Fault(f"{name}.toml", line, f"approval.when: {each.message}") for each in error.faults]


def _outside(file: TypeFile, toml: str) -> dict[str, ProvidedResource]:
    lines = lines_of(toml)
    found = {}
    for number, each in enumerate(file.ceiling):
        if each.provider is not None:
            places = [f"ceiling.{number}.ask", f"ceiling.{number}.provider", f"ceiling.{number}", "ceiling"]
            at = [next((lines[place] for place in places[first:] if place in lines), 0) for first in (1, 0)]
            found[each.resource] = ProvidedResource(each.provider, each.ask, *at)
    return found


def _of_no_action(name: str, toml: str, file: TypeFile, ceiling: Authority) -> list[Fault]:
    """What is said of single actions that the type does not have."""
    actions = {action for grant in ceiling.grants for action in grant.actions}
    lines = line_numbers(toml)
    return [
        Fault(f"{name}.toml", lines.get(table, 0), f"{table}: the ceiling has no action {action[:64]!r}")
        for table, said in (("limits", file.limits), ("consequence_of", file.consequence_of))
        for action in sorted(set(said) - actions)
    ]


def _policy(cedar: str, file: TypeFile, ceiling: Authority, when: Clause | None) -> Policy:
    actions = sorted({action for grant in ceiling.grants for action in grant.actions})
    beside = () if when is None else (when,)
    params, facts = _fields(file.params), _fields(file.facts)
    return Policy(cedar, actions, params, facts, sorted(file.limits), beside, _user_fields(file.person))


def _user_fields(rule: PersonRule | None) -> UserFields | None:
    return None if rule is None else UserFields(rule.claims, rule.need == "required")


def _fields(rules: Mapping[str, ParamRule] | Mapping[str, FactRule]) -> Fields:
    kinds = {name: rule.type for name, rule in rules.items()}
    return Fields(kinds, frozenset(name for name, rule in rules.items() if rule.required))


def load(folder: Path) -> TypeSet:
    """Load every task type of a folder, whole or not at all. Raise InvalidPolicy with the faults of all files."""
    try:
        trusted.check_folder(folder)
        names = type_names(folder)
    except OSError as error:
        raise InvalidPolicy(f"{folder}: cannot be read: {error.strerror}") from error
    except InvalidInput as error:
        raise InvalidPolicy(f"{folder}: {error.public}") from error
    if len(names) > TASK_TYPES:
        raise InvalidPolicy(f"{folder}: more than {TASK_TYPES} task types")
    faults: list[Fault] = []
    texts: dict[str, str] = {}
    for name in names:
        for path in (folder / f"{name}.toml", folder / f"{name}.cedar"):
            try:
                if path.suffix == ".cedar" and not path.exists():
                    faults.append(Fault(str(path), 0, f"there is no policy beside {name}.toml"))
                else:
                    texts[path.name] = trusted.read(path, CONFIG_MAX_BYTES)
            except InvalidInput as error:
                faults.append(Fault(str(path), 0, error.public))
    return made_of(folder, texts, faults)


def made_of(folder: Path, texts: Mapping[str, str], faults: Iterable[Fault] = ()) -> TypeSet:
    """Make a set of texts by the names of their files in `folder`. Raise InvalidPolicy: `faults`, and all others."""
    found, wrong = TypeSet(), list(faults)
    for name in sorted(file.removesuffix(".cedar") for file in texts if file.endswith(".cedar")):
        if f"{name}.toml" not in texts:
            continue
        try:
            found[name] = parse(name, texts[f"{name}.toml"], texts[f"{name}.cedar"])
        except InvalidPolicy as error:
            wrong += placed(folder, error.faults, f"{name}.toml")
    if wrong:
        raise InvalidPolicy(wrong)
    found.texts = texts
    return found


def type_names(folder: Path) -> list[str]:
    """The names of a folder's task types, sorted. Raises OSError."""
    files = (name for name in os.listdir(folder) if name.endswith(".toml") and not name.endswith(CASES))
    return sorted(name.removesuffix(".toml") for name in files)
