"""Cases of a task type: NAME.test.toml says what its policy must answer.

[[case]]
name = "reads its ticket"
action = "ticket:read"
resource = "https://tickets.example.org"
params = {ticket = "T-1"}
expect = "allow"
policies = ["triage-ticket.read"]
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from sojourn.errors import Fault, InvalidInput, InvalidPolicy
from sojourn.files import trusted
from sojourn.limits import CASES_PER_TYPE, CONFIG_MAX_BYTES
from sojourn.policy.asked_task import TaskTable, attributes_of
from sojourn.policy.asked_user import UserTable
from sojourn.policy.cedar import OWN
from sojourn.policy.cedar_schema import some_task
from sojourn.policy.params import texts_of
from sojourn.policy.questions import PolicyAnswer, Question, ask
from sojourn.policy.task_type_tables import Binding
from sojourn.policy.task_types import CASES, TaskType, TypeSet
from sojourn.policy.type_faults import faults_of, not_toml


class _Asked(BaseModel):
    """What a case asks. In `[default]` it counts for all cases that do not say otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workload: str | None = None
    action: str | None = None
    resource: str | None = None
    binding: Binding | None = None
    params: Mapping[str, StrictBool | StrictInt | StrictStr] | None = None
    facts: Mapping[str, StrictBool | StrictInt | StrictStr] | None = None  # values; from whom is the type's business
    task: TaskTable | None = None  # what it has done so far
    user: UserTable | Literal[False] | None = None  # whom it is for; false: nobody, whatever [default] says


class _Case(_Asked):
    name: Annotated[str, Field(min_length=1)]
    expect: Literal["allow", "deny"]
    policies: tuple[str, ...] | None = None  # those that decide, no more and no less; without: any
    approval: StrictBool | None = None  # whether somebody must agree to a task that asks for it; without: either
    # What decides; without: any.
    rule: Literal["workload", "binding", "person", "params", "ceiling", "limits", "facts", "policy"] | None = None


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    default: _Asked = _Asked()
    case: Annotated[tuple[_Case, ...], Field(min_length=1, max_length=CASES_PER_TYPE)]


@dataclass(frozen=True)
class Case:
    """One question, and what must be answered. `policies`, `rule` and `approval` None: whatever they are."""

    name: str
    question: Question
    allow: bool
    policies: tuple[str, ...] | None
    rule: str | None
    approval: bool | None = None
    line: int = 0  # of its file


@dataclass(frozen=True)
class CaseOutcome:
    """What became of a case; `differences` says in what the answer is not the expected one."""

    case: Case
    answer: PolicyAnswer
    differences: tuple[str, ...]


def load(folder: Path, kind: TaskType) -> list[Case]:
    """Read a type's cases; none if it has no file of them. Raise InvalidPolicy."""
    path = folder / f"{kind.name}{CASES}"
    if not path.exists():
        return []
    try:
        return parse(str(path), trusted.read(path, CONFIG_MAX_BYTES), kind)
    except InvalidPolicy:
        raise
    except InvalidInput as error:
        raise InvalidPolicy([Fault(str(path), 0, error.public)]) from error


def parse(file: str, toml: str, kind: TaskType) -> list[Case]:
    """Read the text of a file of cases. Raise InvalidPolicy."""
    try:
        read = _File.model_validate(tomllib.loads(toml))
    except tomllib.TOMLDecodeError as error:
        raise InvalidPolicy([not_toml(file, toml, error)]) from error
    except ValidationError as error:
        raise InvalidPolicy(faults_of(file, toml, error)) from None
    faults: list[Fault] = []
    made: list[Case] = []
    lines = [number for number, line in enumerate(toml.splitlines(), 1) if line.strip().startswith("[[case]]")]
    for number, case in enumerate(read.case):
        line = lines[number] if number < len(lines) else 0
        made.append(_made(kind, case, read.default, line))
        faults += (Fault(file, line, f"case {case.name!r}: {fault}") for fault in _wrong(kind, case, made))
    if faults:
        raise InvalidPolicy(faults)
    return made


def run(kind: TaskType, cases: Sequence[Case]) -> list[CaseOutcome]:
    """Ask every case."""
    return [_outcome(case, ask(kind, case.question)) for case in cases]


def read_all(folder: Path, types: TypeSet) -> TypeSet:
    """The same set with the texts of its files of cases beside. Raise InvalidPolicy if one cannot be read."""
    texts, faults = dict(types.texts), []
    for name in types:
        path = folder / f"{name}{CASES}"
        try:
            if path.exists():
                texts[path.name] = trusted.read(path, CONFIG_MAX_BYTES)
        except InvalidInput as error:
            faults.append(Fault(str(path), 0, error.public))
    if faults:
        raise InvalidPolicy(faults)
    types.texts = texts
    return types


def unmet(folder: Path, types: TypeSet) -> list[Fault]:
    """Why a set does not stand by its own cases, which are among its texts: a type has none, its file is wrong, or a
    case is answered otherwise.
    """
    found: list[Fault] = []
    for kind in types.values():
        name = f"{kind.name}{CASES}"
        if name not in types.texts:
            said = f"it has no cases, and tasks.require_cases is set: write {name}"
            found.append(Fault(str(folder / f"{kind.name}.toml"), 0, said))
            continue
        file = str(folder / name)
        try:
            outcomes = run(kind, parse(file, types.texts[name], kind))
        except InvalidPolicy as error:
            found += error.faults
            continue
        found += (
            Fault(file, each.case.line, f"case {each.case.name!r} fails: {'; '.join(each.differences)}")
            for each in outcomes
            if each.differences
        )
    return found


def undecided(kind: TaskType, outcomes: Sequence[CaseOutcome]) -> list[str]:
    """The policies of a type that decided none of its cases, in the order of the file."""
    decided = {id_ for outcome in outcomes for id_ in outcome.answer.decision.policies}
    return [clause.id for clause in kind.policy.clauses if clause.id not in decided]


def _wrong(kind: TaskType, case: _Case, made: Sequence[Case]) -> list[str]:
    """What is wrong with a case, which is the last of those that are made."""
    known = {clause.id for clause in (*OWN, *kind.policy.clauses)}
    found = [f"there is no policy {id_!r}" for id_ in case.policies or () if id_ not in known]
    found += [f"{part} is missing" for part in ("action", "resource") if not getattr(made[-1].question, part)]
    found += [f"its type reads no fact {name[:64]!r}" for name in made[-1].question.facts if name not in kind.facts]
    unlimited = sorted(set(made[-1].question.uses) - set(kind.limits))
    found += [f"its type does not limit action {name[:64]!r}" for name in unlimited]
    declared = kind.person.claims if kind.person is not None else {}
    claims = user.claims if (user := made[-1].question.principal.user) is not None else ()
    found += [f"its type declares no claim {name[:64]!r}" for name, _, _ in claims if name not in declared]
    if any(each.name == case.name for each in made[:-1]):
        found.append("another case has this name")
    return found


def _made(kind: TaskType, case: _Case, default: _Asked, line: int) -> Case:
    def given(name: str, otherwise: Any) -> Any:
        own, of_all = getattr(case, name), getattr(default, name)
        return own if own is not None else of_all if of_all is not None else otherwise

    workload = given("workload", str(min(kind.allowed_workloads, key=str)))
    said = given("user", None)
    user = said.user() if said else None
    question = Question(
        some_task(kind.name, workload, user=user, **attributes_of(given("task", None))),
        action=given("action", ""),
        resource=given("resource", ""),
        params=texts_of(given("params", {})),
        binding=given("binding", ""),
        facts=given("facts", {}),
    )
    policies = None if case.policies is None else tuple(sorted(case.policies))
    return Case(case.name, question, case.expect == "allow", policies, case.rule, case.approval, line)


def _outcome(case: Case, answer: PolicyAnswer) -> CaseOutcome:
    differences = []
    if case.allow != bool(answer):
        got = "allow" if answer else f"deny ({answer.decision.reason})"  # type: ignore[union-attr]  # only a deny is false
        differences.append(f"expected {'allow' if case.allow else 'deny'}, got {got}")
    if case.policies is not None and case.policies != answer.decision.policies:
        differences.append(f"expected policies {_listed(case.policies)}, got {_listed(answer.decision.policies)}")
    if case.rule is not None and case.rule != answer.rule:
        differences.append(f"expected to be decided by {case.rule}, got {answer.rule}")
    if case.approval is not None and case.approval != answer.approval:
        differences.append(f"expected {_agreed(case.approval)}, got {_agreed(answer.approval)}")
    return CaseOutcome(case, answer, tuple(differences))


def _agreed(needed: bool) -> str:
    return "approval to be needed" if needed else "no approval to be needed"


def _listed(policies: Sequence[str]) -> str:
    return ", ".join(policies) or "none"
