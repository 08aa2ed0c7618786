"""What a decision reads: the task as policies see it, and what is said beside it.

Each field is named once, here, with its Cedar type. From these fields come Cedar's schema, entity and context, the key
under which a decision is kept, what the audit has of its inputs, the digest of what an approval is asked for, and what
an explanation shows, and what a question may say of its task: a field that is added cannot be left out of one.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, StrictInt

from sojourn.limits import DELEGATION_DEPTH
from sojourn.policy.clauses import NAMESPACE

Param = str | int | bool
PARAM_TYPES: Final = {"string": "String", "long": "Long", "boolean": "Bool"}
SOME_TASK: Final = "tsk_asked"  # in the place of the ID of a task that there is not
_CEDAR: Final = "cedar"


@dataclass(frozen=True, slots=True)
class Fields:
    """What a record of the context may have: names with PARAM_TYPES' keys, and those of them that it always has."""

    types: Mapping[str, str] = field(default_factory=dict)
    required: Collection[str] = ()

    def schema(self) -> str:
        """As a record type of Cedar's schema language."""
        each = (
            f"{json.dumps(name)}{'' if name in self.required else '?'}: {PARAM_TYPES[kind]}"
            for name, kind in self.types.items()
        )
        return f"{{ {', '.join(each)} }}"


NO_FIELDS = Fields()


def uid(kind: str, name: str) -> dict[str, str]:
    """The unique identifier of an entity of ours, as Cedar's JSON has it."""
    return {"type": f"{NAMESPACE}::{kind}", "id": name}


@dataclass(frozen=True, slots=True)
class Attribute:
    """How a field of the task stands in Cedar. `limited`: the actions whose uses its type limits.

    `name` '': it is no attribute, but says which entity the task is. `parent`: of which kind its parent is by it.
    `said`: as what pydantic reads it where a question says it, which is `unsaid` where it does not; None: it cannot.
    """

    name: str
    schema: Callable[[Sequence[str]], str]
    value: Callable[[Any, Sequence[str]], Any] = lambda value, _limited: value
    shown: Callable[[Any, Sequence[str]], Mapping[str, str]] = lambda value, _limited: {"": str(value)}
    parent: str = ""
    said: Any = None
    unsaid: Any = None


def _is(name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {_CEDAR: Attribute(name, lambda _limited: kind, **more)}


def _workload(spiffe_id: str, _limited: Sequence[str]) -> dict[str, Any]:
    return {"__entity": uid("Workload", spiffe_id)}


def _uses_of(value: tuple[tuple[str, int], ...], limited: Sequence[str]) -> dict[str, int]:
    used = dict(value)
    return {action: used.get(action, 0) for action in limited}


_Count = Annotated[StrictInt, Field(ge=0)]
_Depth = Annotated[StrictInt, Field(ge=0, le=DELEGATION_DEPTH)]
_State = Literal["active", "suspended", "completed", "revoked", "expired", "cascaded"]
_USES: Final = {
    _CEDAR: Attribute(
        "uses",
        lambda limited: Fields(dict.fromkeys(limited, "long"), limited).schema(),
        _uses_of,
        lambda value, limited: {f"[{action}]": str(n) for action, n in sorted(_uses_of(value, limited).items())},
        said=Annotated[Mapping[str, _Count], AfterValidator(lambda uses: tuple(uses.items()))],
        unsaid=(),
    )
}


@dataclass(frozen=True, slots=True)
class Principal:
    """A task, as policies see it. `depth`: how many delegations lie between it and a task that was begun."""

    task_id: str = field(metadata=_is("", ""))
    task_type: str = field(metadata=_is("type", "String", parent="TaskType"))
    workload: str = field(metadata=_is("workload", "Workload", value=_workload, parent="Workload"))  # SPIFFE ID
    state: str = field(metadata=_is("state", "String", said=_State, unsaid="active"))
    tokens_issued: int = field(metadata=_is("tokens_issued", "Long", said=_Count, unsaid=0))
    reported_calls: int = field(metadata=_is("reported_calls", "Long", said=_Count, unsaid=0))
    depth: int = field(metadata=_is("depth", "Long", said=_Depth, unsaid=0))
    uses: tuple[tuple[str, int], ...] = field(metadata=_USES)  # of actions that are counted


@dataclass(frozen=True, slots=True)
class Reading:
    """A fact as a decision reads it. `age`: seconds since it was published, on the boot clock."""

    value: Param
    source: str = ""
    age: float = 0


def _bare(value: Any) -> Any:
    return value.value if isinstance(value, Reading) else value


@dataclass(frozen=True, slots=True)
class Context:
    """What policies may read beside the task. `absent` says of facts why they are not there: missing, or stale.

    `also`: what it would be with facts that were said and are not on disk yet. Policy must allow in each of them too.
    """

    params: Mapping[str, Param] = field(default_factory=dict, metadata={_CEDAR: True})
    facts: Mapping[str, Reading] = field(default_factory=dict, metadata={_CEDAR: True})
    absent: Mapping[str, str] = field(default_factory=dict)
    also: "tuple[Context, ...]" = ()

    def document(self) -> dict[str, dict[str, Param]]:
        """As Cedar reads it."""
        return {name: {each: _bare(value) for each, value in of(self).items()} for name, of in _BESIDE}


SEEN: Final = tuple(each.name for each in fields(Principal))
ATTRIBUTES: Final[tuple[tuple[str, Attribute], ...]] = tuple(
    (each.name, each.metadata[_CEDAR]) for each in fields(Principal)
)
UNSAID: Final[Mapping[str, Any]] = {name: each.unsaid for name, each in ATTRIBUTES if each.said is not None}
SEEN_OF: Final[Callable[[Principal], tuple[Any, ...]]] = attrgetter(*SEEN)
_BESIDE: Final[tuple[tuple[str, Callable[[Context], Mapping[str, Any]]], ...]] = tuple(
    (each.name, attrgetter(each.name)) for each in fields(Context) if _CEDAR in each.metadata
)


def some_task(task_type: str, workload: str, **said: Any) -> Principal:
    """A task that there is not, for a question about it: as one that has just begun, but for what is said."""
    return Principal(task_id=SOME_TASK, task_type=task_type, workload=workload, **{**UNSAID, **said})


def context_key(context: Context) -> tuple[object, ...]:
    """All that Cedar reads of a context, with the types of values: in Python 1 and true are equal."""
    return tuple(
        [tuple([(name, type(bare := _bare(value)), bare) for name, value in of(context).items()]) for _, of in _BESIDE]
    )


def entity(principal: Principal, limited: Sequence[str] = ()) -> dict[str, Any]:
    """The task as an entity of Cedar's JSON. `limited`: the actions whose uses its type limits."""
    each = [(getattr(principal, name), attribute) for name, attribute in ATTRIBUTES]
    return {
        "uid": uid("Task", principal.task_id),
        "attrs": {attribute.name: attribute.value(value, limited) for value, attribute in each if attribute.name},
        "parents": [uid(attribute.parent, value) for value, attribute in each if attribute.parent],
    }


def schema_text(actions: Sequence[str], params: Fields, facts: Fields = NO_FIELDS, limited: Sequence[str] = ()) -> str:
    """The Cedar schema of a task type: its actions, and its parameters and facts in the context."""
    named = ", ".join(json.dumps(action) for action in actions)
    attributes = ", ".join(f"{each.name}: {each.schema(limited)}" for _, each in ATTRIBUTES if each.name)
    beside = {"params": params, "facts": facts}
    context = ", ".join(f"{name}: {beside[name].schema()}" for name, _ in _BESIDE)
    return f"""
namespace {NAMESPACE} {{
  entity TaskType;
  entity Workload;
  entity Resource;
  entity Task in [TaskType, Workload] {{ {attributes} }};
  action {named} appliesTo {{ principal: [Task], resource: [Resource], context: {{ {context} }} }};
}}
"""


def shown(principal: Principal, limited: Sequence[str]) -> dict[str, str]:
    """The attributes of the task by the names that policies have for them, as text."""
    return {
        f"principal.{attribute.name}{part}": text
        for name, attribute in ATTRIBUTES
        if attribute.name
        for part, text in attribute.shown(getattr(principal, name), limited).items()
    }


def inputs_of(principal: Principal, context: Context) -> dict[str, Any]:
    """All that a decision on this task reads, for a digest."""
    return {"principal": dict(zip(SEEN, SEEN_OF(principal), strict=True)), **context.document()}
