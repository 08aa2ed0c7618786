"""The fields of a task that outlive the agent: one table, from which the journal's document is written and read again,
and from which the message comes that tells of a task.

Each is read as what it must be: a file may be damaged, and what cannot be told is not guessed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sojourn.attestation.selectors import Selector, text_of
from sojourn.errors import InvalidInput
from sojourn.jose.canonical_json import exactly, texts
from sojourn.limits import DELEGATION_DEPTH
from sojourn.policy.params import texts_of
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.for_person import ForPerson
from sojourn.tasks.spent import NOTHING, Spent, Use
from sojourn.tasktoken.grants import Authority, Grant

STREAM, PROCESS, ONE_SHOT = "stream", "process", "one-shot"


@dataclass(frozen=True, slots=True)
class KeptField:
    """A field of Task: its name there, its member in the document, and how its value is written and read.

    `told`: how it stands in the message of a task, under the member's name; None: it is not told, or not so.
    """

    field: str
    member: str
    written: Callable[[Any], Any]
    read: Callable[[Any], Any]
    told: Callable[[Any], Any] | None = None


def document_of(task: Any) -> dict[str, Any]:
    """The members of a Task's document."""
    written = {each.member: each.written(getattr(task, each.field)) for each in FIELDS}
    whom = task.whom and task.whom.document(live=task.live)
    return {**written, "person": whom, "depth": task.depth, **({"hidden": sorted(task.hidden)} if task.hidden else {})}


def told_of(task: Any) -> dict[str, Any]:
    """The fields of the message that tells of a Task, as far as they are kept ones."""
    return {each.member: each.told(getattr(task, each.field)) for each in FIELDS if each.told is not None}


def fields_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Task that a document tells. Raises whatever it meets if one of them is not as it must be."""
    found = {each.field: each.read(document[each.member]) for each in FIELDS}
    depth = len(found["ancestors"])
    if exactly(int, document["depth"]) != depth or depth > DELEGATION_DEPTH or bool(found["parent_id"]) != bool(depth):
        raise InvalidInput("the line of the task is broken")
    hidden = frozenset(exactly(str, each) for each in exactly(list, document.get("hidden", [])))
    # Who reads the records of this run need not have those of its beginning, nor the key of another run.
    return {**found, "hidden": hidden, "own_params": True}


def _same(value: Any) -> Any:
    return value


def _exact(name: str, kind: type, *, told: bool = False) -> KeptField:
    return KeptField(name, name, _same, lambda value: exactly(kind, value), _same if told else None)


def _moment(name: str) -> KeptField:
    return KeptField(
        name,
        name,
        datetime.timestamp,
        lambda value: datetime.fromtimestamp(exactly(float, value), UTC),
        lambda value: int(value.timestamp()),
    )


def _spiffe_id(value: Any) -> SpiffeId:
    return SpiffeId.parse(exactly(str, value))


def _count(value: Any) -> int:
    if exactly(int, value) < 0:
        raise InvalidInput("less than nothing")
    return int(value)


def _params(value: Any) -> dict[str, str | int | bool]:
    for each in value.values():
        if not isinstance(each, str | int):
            raise InvalidInput("not a parameter")
    return {exactly(str, name): each for name, each in value.items()}


def _binding(value: Any) -> str:
    if value not in (STREAM, PROCESS, ONE_SHOT):
        raise InvalidInput("not a binding")
    return exactly(str, value)


def _uses(value: Sequence[Any]) -> dict[tuple[str, str], Use]:
    return {
        (exactly(str, resource), exactly(str, action)): Use(exactly(int, tokens), exactly(int, calls))
        for resource, action, tokens, calls in value
    }


def _spent(value: Mapping[str, Any]) -> Spent:
    counted = {exactly(str, name): _count(number) for name, number in value["counted"].items()}
    return Spent(exactly(int, value["tokens"]), exactly(int, value["calls"]), counted or NOTHING)


FIELDS: Final = (
    KeptField("spiffe_id", "spiffe_id", str, _spiffe_id, str),
    _exact("entry_id", str),
    _exact("uid", int),
    KeptField(
        "authority",
        "grants",
        Authority.document,
        lambda value: Authority.of(Grant.parse(each["resource"], each["actions"]) for each in value),
        Authority.document,
    ),
    KeptField("params", "params", dict, _params, texts_of),
    _moment("created_at"),
    _moment("expires_at"),
    _exact("deadline", float),
    _exact("last_used", float),
    KeptField("binding", "binding", _same, _binding),
    _exact("session", bool),
    KeptField("selectors", "selectors", text_of, lambda value: frozenset(Selector.parse(text) for text in value)),
    KeptField("suspensions", "suspensions", dict, lambda value: texts(exactly(dict, value))),
    _exact("tokens_issued", int, told=True),
    _exact("calls", int, told=True),
    KeptField("uses", "uses", lambda uses: [[*of, use.tokens, use.calls] for of, use in uses.items()], _uses),
    KeptField(
        "spent",
        "spent",
        lambda spent: {"tokens": spent.tokens, "calls": spent.calls, "counted": dict(spent.counted)},
        _spent,
    ),
    KeptField("handed_on", "handed_on", _same, _count),
    _exact("parent_id", str, told=True),
    KeptField(
        "ancestors",
        "ancestors",
        lambda line: [str(each) for each in line],
        lambda value: tuple(_spiffe_id(each) for each in exactly(list, value)),
    ),
    _exact("approved", bool),
    KeptField(
        "whom",
        "person",
        _same,  # `document_of` writes it: less is kept of whom a task was for that has ended
        lambda value: None if value is None else ForPerson.read(value),
        lambda whom: whom and whom.told(),
    ),
    KeptField("passes", "passes", list, lambda value: tuple(exactly(str, each) for each in exactly(list, value)), list),
)
