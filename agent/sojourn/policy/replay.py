"""Decisions of the past, asked of another set of task types: what was allowed and would be denied, and the other way.

What was decided comes from records, and so does all that policy read of it. What no record says cannot be asked: who a
person is, and what a type keeps out of the journal. Such decisions are counted, and never guessed.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from sojourn.policy.cedar import Deny
from sojourn.policy.cedar_schema import UNSAID, Param, Principal
from sojourn.policy.params import texts_of
from sojourn.policy.questions import PolicyAnswer, Question, ask
from sojourn.policy.rules import may_hold
from sojourn.policy.task_types import TaskType, TypeSet

_TOKENS: Final = frozenset({"token_issued", "external_credential_issued"})
_DENIALS: Final = frozenset({"begin_denied", "token_denied"})
_BEGINNINGS: Final = frozenset({"task_begun", "task_pending", "delegation_accepted"})
# Why a decision cannot be asked again: of records of other events, what was decided stands in those as well.
PEOPLE, HIDDEN, LIMITS, OTHERS = "people", "hidden", "limits", "others"
Pair = tuple[str, str]  # resource, action
_NO_TYPE: Final = PolicyAnswer("type", Deny("there is no such task type"))
_NOT_ITS: Final = PolicyAnswer("workload", Deny("the workload may not have a task of this type, or not so deep"))
_BEYOND: Final = PolicyAnswer("ceiling", Deny("the ceiling does not have this action at this resource"))
_NOT_AGREED: Final = PolicyAnswer("approval", Deny("somebody would have to agree"))
_NO_BUDGET: Final = PolicyAnswer("budget", Deny("the task has had all the tokens that its type allows"))


@dataclass(frozen=True, slots=True)
class Otherwise:
    """What would be answered otherwise, by which rule, and by which policies if it is policy."""

    type: str
    workload: str  # SPIFFE ID
    resource: str
    action: str
    rule: str
    policies: tuple[str, ...]


@dataclass(slots=True)
class Times:
    """How often. Times are milliseconds since the epoch.

    `tokens`: how many of these were tokens that were issued; `begins`: and how many tasks that would not begin.
    """

    count: int = 0
    tokens: int = 0
    begins: int = 0
    first_ms: int = 0
    last_ms: int = 0
    last_seq: int = 0

    @property
    def used(self) -> int:
        """Of how many somebody made use."""
        return self.tokens + self.begins

    def add(self, at_ms: int, seq: int, *, token: bool, begin: bool) -> None:
        self.first_ms = self.first_ms or at_ms
        self.count, self.tokens, self.begins = self.count + 1, self.tokens + token, self.begins + begin
        self.last_ms, self.last_seq = at_ms, seq


@dataclass(frozen=True, slots=True)
class Answered:
    """What a set answers of one decision. `otherwise`: its actions of which it says another thing than was decided.

    `refused`: a token that was issued would not be, or a task that began would not begin.
    """

    otherwise: Mapping[Pair, PolicyAnswer]
    refused: bool


class Replay:
    """Asks a set of task types what others have decided."""

    def __init__(self, types: TypeSet, counted: Mapping[str, Collection[str]] = MappingProxyType({})) -> None:
        """`counted`: the actions whose uses were counted by a version of a type, as far as that is known."""
        self._types = types
        self._counted = counted
        self._hiding: dict[str, frozenset[str]] = {}
        self.denied: dict[Otherwise, Times] = {}  # that was allowed
        self.allowed: dict[Otherwise, Times] = {}  # that was denied
        self.asked = 0  # decisions
        self.unknown: Counter[str] = Counter()  # decisions that are not asked again, by why

    def take(
        self, event: str, seq: int, at_ms: int, fields: Mapping[str, Any], params: Mapping[str, Any]
    ) -> Answered | None:
        """Ask what a record has decided, with the parameters of its task, and count it; None: it cannot be asked."""
        answered = self.answer(event, fields, params)
        if isinstance(answered, str):
            self.unknown[answered] += 1
            return None
        self.asked += 1
        for pair, answer in answered.otherwise.items():
            found = self.allowed if answer else self.denied
            token, begin = answered.refused and event in _TOKENS, answered.refused and event in _BEGINNINGS
            found.setdefault(_otherwise(fields, pair, answer), Times()).add(at_ms, seq, token=token, begin=begin)
        return answered

    def answer(self, event: str, fields: Mapping[str, Any], params: Mapping[str, Any]) -> Answered | str:
        """Ask what a record has decided; or say why that cannot be asked.

        Each action that was denied is asked by itself: what else its request was for may be denied all the same. Where
        policy cannot be asked, what needs no policy is.
        """
        allowed, denied = _decided(event, fields)
        if not allowed and not denied:
            return OTHERS
        kind = self._types.get(str(fields["type"]))
        pairs = list(dict.fromkeys([*allowed, *denied]))
        why = None if kind is None else self._why_not(kind, event, fields, params, pairs)
        answers = {}
        for pair in pairs:
            answer = _outright(kind, event, fields, pair)
            if answer is None and why is None:
                answer = self.ask_policy(kind, event, fields, params, pair)
            if answer is not None:
                answers[pair] = answer
        lost = [pair for pair in dict.fromkeys(allowed) if pair in answers and not answers[pair]]
        if why is not None and not lost:
            return why
        otherwise = {pair: answer for pair, answer in answers.items() if bool(answer) != (pair in allowed)}
        return Answered(otherwise, bool(lost) and (_is_named(event, fields) or len(lost) == len(set(allowed))))

    def ask_policy(
        self,
        kind: TaskType | None,
        event: str,
        fields: Mapping[str, Any],
        params: Mapping[str, Param],
        pair: Pair,
    ) -> PolicyAnswer:
        """Ask a type whether what a record is about may be done. `event`: of a beginning no limit is asked."""
        assert kind is not None  # what is no type is no answer of policy
        principal, (resource, action) = _principal_of(fields), pair
        facts, absent = _facts_of(kind, fields)
        question = Question(principal, action, resource, texts_of(params), facts=facts, absent=absent)
        answer = ask(kind, question, limits=event not in _BEGINNINGS)
        agreed = "approved_by" in fields or event != "task_begun"
        return answer if agreed or not (answer and answer.approval) else _NOT_AGREED

    def _why_not(
        self,
        kind: TaskType,
        event: str,
        fields: Mapping[str, Any],
        params: Mapping[str, Any],
        pairs: Iterable[Pair],
    ) -> str | None:
        """Why policy cannot be asked of a decision; None: it can."""
        if fields["seen"].get("user") is not None:
            return PEOPLE
        counted = {action for action, _ in fields["seen"].get("uses", ())}
        counted |= set(self._counted.get(str(fields.get("type_version")), ()))
        new_limit = any(action in kind.limits and action not in counted for _, action in pairs)
        if event in _TOKENS and new_limit and fields["seen"].get("tokens_issued", 0):
            return LIMITS  # how often it had been done by then may have been counted by nobody
        hidden = [name for name, value in params.items() if isinstance(value, Mapping)]
        return HIDDEN if any(name in self._read_of(kind) or _has_rule(kind, name) for name in hidden) else None

    def _read_of(self, kind: TaskType) -> frozenset[str]:
        """The parameters that its policies read."""
        if kind.name not in self._hiding:
            self._hiding[kind.name] = frozenset(name for clause in kind.clauses for name in clause.params)
        return self._hiding[kind.name]


def _outright(kind: TaskType | None, event: str, fields: Mapping[str, Any], pair: Pair) -> PolicyAnswer | None:
    """The no of a rule that needs neither policy nor what no record says; None: there is none."""
    if kind is None:
        return _NO_TYPE
    seen = fields["seen"]
    if not may_hold(kind, fields["spiffe_id"], seen.get("depth", 0)):
        return _NOT_ITS
    resource, action = pair
    if action not in kind.ceiling.at(resource):
        return _BEYOND
    if event in _TOKENS and kind.max_tokens is not None and seen.get("tokens_issued", 0) >= kind.max_tokens:
        return _NO_BUDGET
    return None


def _decided(event: str, fields: Mapping[str, Any]) -> tuple[list[Pair], list[Pair]]:
    """What a record says was allowed, and what was denied."""
    if event in _TOKENS:
        return [(fields["resource"], action) for action in fields["actions"]], []
    if event in _BEGINNINGS:
        granted = pairs_of(fields["grants"])
        return granted, [pair for pair in _pairs(fields.get("asked", {})) if pair not in granted]
    if event in _DENIALS:
        asked = _pairs(fields.get("asked", {}))  # where nothing of it is the type's, it was refused for that
        return [], [(resource, action) for resource, action in fields.get("denied", asked)]
    return [], []


def pairs_of(grants: Iterable[Mapping[str, Any]]) -> list[Pair]:
    """The actions of grants as records have them."""
    return [(each["resource"], action) for each in grants for action in each["actions"]]


def _is_named(event: str, fields: Mapping[str, Any]) -> bool:
    """Whether all that was granted had been named, so that less of it is a refusal.

    With `wanted` "all" it was to be what there is. What somebody agreed to had been asked for in a record before.
    """
    return event in _TOKENS or not (fields.get("wanted") == "all" or "approved_by" in fields)


def _pairs(asked: Mapping[str, Iterable[str]]) -> Iterator[Pair]:
    return ((resource, action) for resource, actions in asked.items() for action in actions)


def _has_rule(kind: TaskType, name: str) -> bool:
    """Whether the type says of a parameter's values more than their type: a value that nobody knows may break that."""
    rule = kind.params.get(name)
    return rule is None or rule.type != "string" or (rule.one_of, rule.pattern, rule.max_length) != (None, None, None)


def _principal_of(fields: Mapping[str, Any]) -> Principal:
    seen = {**UNSAID, **fields["seen"]}
    uses = tuple((str(action), int(number)) for action, number in seen.pop("uses"))
    seen.pop("user", None)
    return Principal(fields["task"], fields["type"], fields["spiffe_id"], uses=uses, user=None, **seen)


def _facts_of(kind: TaskType, fields: Mapping[str, Any]) -> tuple[dict[str, Param], dict[str, str]]:
    """Those that the type believes, by where they came from and how old they were; and why it does not others."""
    believed, absent = {}, {}
    for name, fact in fields.get("facts", {}).items():
        rule = kind.facts.get(name)
        if rule is None or fact["source"] not in rule.sources:
            continue
        if rule.max_age is not None and fact["age_seconds"] > rule.max_age.total_seconds():
            absent[name] = "stale"
        else:
            believed[name] = fact["value"]
    return believed, absent


def _otherwise(fields: Mapping[str, Any], pair: Pair, answer: PolicyAnswer) -> Otherwise:
    resource, action = pair
    return Otherwise(
        fields["type"], fields["spiffe_id"], resource, action, answer.rule, tuple(answer.decision.policies)
    )
