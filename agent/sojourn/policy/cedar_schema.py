"""What a decision reads: the task as policies see it, and what is said beside it.

Each field is named once, here, with its Cedar type. From these fields come Cedar's schema, entity and context, the key
under which a decision is kept, what the audit has of its inputs, the digest of what an approval is asked for, and what
an explanation shows, and what a question may say of its task: a field that is added cannot be left out of one.
"""

import hmac
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, StrictInt

from sojourn.jose.canonical_json import canonical
from sojourn.limits import DELEGATION_DEPTH
from sojourn.policy import user as of_user
from sojourn.policy.clauses import NAMESPACE
from sojourn.policy.user import User, UserFields

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
class Declared:
    """What a task type declares of its tasks: the actions whose uses it limits, and people; None: they are for none."""

    limited: Sequence[str] = ()
    user: UserFields | None = None


@dataclass(frozen=True, slots=True)
class Attribute:
    """How a field of the task stands in Cedar, in a type that declares something of it.

    `name` '': it is no attribute, but says which entity the task is. `parent`: of which kind its parent is by it.
    `mark`: '?' if a task need not have it, None if none of the type has it. `value` None: this task has it not.
    `said`: as what pydantic reads it where a question says it, which is `unsaid` where it does not; None: it cannot.
    `audited`: as digests that are kept have it, which are keyed; None: as it is.
    """

    name: str
    schema: Callable[[Declared], str]
    value: Callable[[Any, Declared], Any] = lambda value, _declared: value
    shown: Callable[[Any, Declared], Mapping[str, str]] = lambda value, _declared: {"": str(value)}
    mark: Callable[[Declared], str | None] = lambda _declared: ""
    parent: str = ""
    said: Any = None
    unsaid: Any = None
    audited: Callable[[Any, bytes], Any] | None = None


def _is(name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {_CEDAR: Attribute(name, lambda _declared: kind, **more)}


def _workload(spiffe_id: str, _declared: Declared) -> dict[str, Any]:
    return {"__entity": uid("Workload", spiffe_id)}


def _uses_of(value: tuple[tuple[str, int], ...], declared: Declared) -> dict[str, int]:
    used = dict(value)
    return {action: used.get(action, 0) for action in declared.limited}


def _mark_of_user(declared: Declared) -> str | None:
    return None if declared.user is None else "" if declared.user.required else "?"


def _user(user: User | None, _declared: Declared) -> dict[str, Any] | None:
    """The reference to them. A type that is for nobody has no such attribute: Cedar then permits nothing."""
    return None if user is None else {"__entity": uid("User", user.name)}


def _user_shown(user: User | None, declared: Declared) -> dict[str, str]:
    if user is None:
        return {}
    claims = declared.user.claims if declared.user is not None else {}
    made = user.attributes(claims)
    return {"": user.name, **{f".{name}": _text_of(value) for name, value in made.items()}}


def _text_of(value: Any) -> str:
    """The value of an attribute of a user, for people."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | bool) else str(value)


_Count = Annotated[StrictInt, Field(ge=0)]
_Depth = Annotated[StrictInt, Field(ge=0, le=DELEGATION_DEPTH)]
_State = Literal["active", "suspended", "completed", "revoked", "expired", "cascaded"]
_USES: Final = {
    _CEDAR: Attribute(
        "uses",
        lambda declared: Fields(dict.fromkeys(declared.limited, "long"), declared.limited).schema(),
        _uses_of,
        lambda value, declared: {f"[{action}]": str(n) for action, n in sorted(_uses_of(value, declared).items())},
        said=Annotated[Mapping[str, _Count], AfterValidator(lambda uses: tuple(uses.items()))],
        unsaid=(),
    )
}


_USER: Final = {
    _CEDAR: Attribute(
        "user",
        lambda _declared: "User",
        _user,
        _user_shown,
        _mark_of_user,
        audited=lambda user, key: None if user is None else user.hidden(key),
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
    user: User | None = field(metadata=_USER)  # whom it is for


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
_AUDITED: Final = tuple((name, each.audited) for name, each in ATTRIBUTES if each.audited is not None)
_NAMED: Final = frozenset({"task_id", "task_type", "workload"})  # records have fields of their own for these
SEEN_OF: Final[Callable[[Principal], tuple[Any, ...]]] = attrgetter(*SEEN)
_BESIDE: Final[tuple[tuple[str, Callable[[Context], Mapping[str, Any]]], ...]] = tuple(
    (each.name, attrgetter(each.name)) for each in fields(Context) if _CEDAR in each.metadata
)


def some_task(task_type: str, workload: str, *, user: User | None = None, **said: Any) -> Principal:
    """A task that there is not, for a question about it: as one that has just begun, but for what is said."""
    return Principal(task_id=SOME_TASK, task_type=task_type, workload=workload, user=user, **{**UNSAID, **said})


def context_key(context: Context) -> tuple[object, ...]:
    """All that Cedar reads of a context, with the types of values: in Python 1 and true are equal."""
    return tuple(
        [tuple([(name, type(bare := _bare(value)), bare) for name, value in of(context).items()]) for _, of in _BESIDE]
    )


def entity(principal: Principal, limited: Sequence[str] = (), user: UserFields | None = None) -> dict[str, Any]:
    """The task as an entity of Cedar's JSON. `limited`, `user`: what its type declares, see `Declared`."""
    declared = Declared(limited, user)
    each = [(getattr(principal, name), attribute) for name, attribute in ATTRIBUTES]
    values = {attribute.name: attribute.value(value, declared) for value, attribute in each if attribute.name}
    return {
        "uid": uid("Task", principal.task_id),
        "attrs": {name: value for name, value in values.items() if value is not None},
        "parents": [uid(attribute.parent, value) for value, attribute in each if attribute.parent],
    }


def user_entity(user: User, declared: UserFields | None) -> dict[str, Any]:
    """A person as an entity of Cedar's JSON. Groups have no attributes: to be in one Cedar needs no entity of it."""
    return {
        "uid": uid("User", user.name),
        "attrs": user.attributes(declared.claims if declared is not None else {}),
        "parents": [uid("Group", name) for name in user.group_names],
    }


def schema_text(
    actions: Sequence[str],
    params: Fields,
    facts: Fields = NO_FIELDS,
    limited: Sequence[str] = (),
    user: UserFields | None = None,
) -> str:
    """The Cedar schema of a task type: its actions, its parameters and facts in the context, and its people."""
    declared = Declared(limited, user)
    named = ", ".join(json.dumps(action) for action in actions)
    attributes = ", ".join(
        f"{each.name}{mark}: {each.schema(declared)}"
        for _, each in ATTRIBUTES
        if each.name and (mark := each.mark(declared)) is not None
    )
    beside = {"params": params, "facts": facts}
    context = ", ".join(f"{name}: {beside[name].schema()}" for name, _ in _BESIDE)
    return f"""
namespace {NAMESPACE} {{
  entity TaskType;
  entity Workload;
  entity Resource;{_schema_of_users(user)}
  entity Task in [TaskType, Workload] {{ {attributes} }};
  action {named} appliesTo {{ principal: [Task], resource: [Resource], context: {{ {context} }} }};
}}
"""


def _schema_of_users(user: UserFields | None) -> str:
    if user is None:
        return ""
    attributes = [f"{name}: {kind}" for name, kind in of_user.ATTRIBUTES.items()]
    attributes += [f"{json.dumps(name)}?: {PARAM_TYPES[kind]}" for name, kind in user.claims.items()]
    return f"""
  entity Group;
  entity User in [Group] {{ {", ".join(attributes)} }};"""


def shown(principal: Principal, limited: Sequence[str], user: UserFields | None = None) -> dict[str, str]:
    """The attributes of the task by the names that policies have for them, as text."""
    declared = Declared(limited, user)
    return {
        f"principal.{attribute.name}{part}": text
        for name, attribute in ATTRIBUTES
        if attribute.name
        for part, text in attribute.shown(getattr(principal, name), declared).items()
    }


def inputs_of(principal: Principal, context: Context, key: bytes, hidden: Collection[str] = ()) -> dict[str, Any]:
    """All that a decision on this task reads, for a digest that is kept. `key`: of what is to stay hidden, as these
    parameters are.
    """
    said = dict(zip(SEEN, SEEN_OF(principal), strict=True))
    for name, audited in _AUDITED:
        said[name] = audited(said[name], key)
    document = context.document()
    return {"principal": said, **document, "params": recorded_params(document["params"], hidden, key)}


def seen_of(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of the task in `inputs` beside its own fields: what is not as of one that has just begun."""
    said = inputs["principal"].items()
    return {name: value for name, value in said if name not in _NAMED and value != UNSAID.get(name)}


def recorded_params(params: Mapping[str, Param], hidden: Collection[str], key: bytes) -> Mapping[str, Any]:
    """Parameters as records have them: of those that are `hidden` a keyed digest, which nobody can guess them from."""
    if not hidden:
        return params
    return {name: _hidden(name, value, key) if name in hidden else value for name, value in params.items()}


def _hidden(name: str, value: Param, key: bytes) -> dict[str, str]:
    return {"hmac": hmac.digest(key, canonical(["param", name, value]).encode(), "sha256").hex()}
