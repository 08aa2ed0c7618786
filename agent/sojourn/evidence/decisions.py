"""Decisions that are replayed from records: whether what policy read is what the record's digest is of.

`inputs` is SHA-256 over canonical JSON of `asked`, `facts`, `params` and `principal`. What it was made of stands in the
records: the task's parameters where it began, the rest where it was decided. This writes the document down once more,
by docs/oversight.md, and not by the code that made the digest.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from sojourn.audit.journal import Record
from sojourn.errors import InvalidInput
from sojourn.evidence.faults import Faults
from sojourn.jose.canonical_json import digest_of, exactly

# Records that say with which parameters a task begins; what is decided for it then has others only where it says so.
_BEGIN: Final = frozenset({"task_pending", "task_begun", "delegation_accepted"})
_OVER: Final = "task_ended"
# Refusals of a beginning before policy was asked: they are no decisions.
_UNASKED: Final = frozenset({"review_overdue", "review_owed"})
# Records of decisions alone: one that does not say what it was made on is wrong.
_DECIDED: Final = frozenset({"token_issued", "task_begun", "delegation_accepted", "begin_denied", "token_denied"})
_FRESH: Final[Mapping[str, Any]] = {
    "state": "active",
    "tokens_issued": 0,
    "reported_calls": 0,
    "depth": 0,
    "uses": [],
    "user": None,
}
_NONE: Final[Mapping[str, Any]] = {}
# A decision: its record, the record's fields, and the parameters of its task.
Told = Callable[[Record, Mapping[str, Any], Mapping[str, Any]], object]
# Why a decision cannot be replayed.
OLD, NO_BEGINNING = "old", "no_beginning"
_KEPT: Final = 10


class Decisions:
    """One walk along records, in their order. `replayed`: decisions whose digest is the one that was recorded;
    `unknown`: how many cannot be replayed, by why.
    """

    def __init__(self, faults: Faults, told: Told = lambda *_: None) -> None:
        """`told` hears of each decision that is replayed."""
        self._faults = faults
        self._told = told
        self._params: dict[str, Mapping[str, Any]] = {}  # of tasks that are not over
        self.replayed = 0
        self.wrong = 0  # decisions that differ from what was recorded, or do not say what they were made on
        self.wrong_seqs: list[int] = []  # the first of them
        self.sets: set[str] = set()  # of task types, by which something was decided
        self.unknown: Counter[str] = Counter()

    def read(self, record: Record, fields: Mapping[str, Any] | None = None) -> None:
        """Look at the next record; what is no decision, and tells of no task's parameters, is passed over.

        `fields`: the record's, where somebody has parsed them already.
        """
        decided = record.event in _DECIDED or '"inputs":' in record.fields
        if not decided and record.event not in _BEGIN and record.event != _OVER:
            return
        try:
            fields = fields_of(record) if fields is None else fields
            task = exactly(str, fields.get("task", ""))
            if record.event in _BEGIN and "params" in fields:
                self._params[task] = exactly(dict, fields["params"])
            params = self._replayed(record, fields, task) if decided else None
            if record.event == _OVER:
                self._params.pop(task, None)
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError, InvalidInput):
            if decided:
                self._is_wrong("inputs_unreadable", record.seq)
            return
        if params is not None:
            self._told(record, fields, params)

    def _is_wrong(self, code: str, seq: int) -> None:
        self._faults.add(code, seq=seq)
        self.wrong += 1
        if len(self.wrong_seqs) < _KEPT:
            self.wrong_seqs.append(seq)

    def _replayed(self, record: Record, fields: Mapping[str, Any], task: str) -> Mapping[str, Any] | None:
        """The parameters with which a decision was replayed; None: it was not."""
        if record.event == "begin_denied" and fields.get("code") in _UNASKED:
            return None
        if "seen" not in fields:
            self.unknown[OLD] += 1
            return None
        digest = exactly(str, fields["inputs"])
        params = exactly(dict, fields["params"]) if "params" in fields else self._params.get(task)
        if params is None:
            self.unknown[NO_BEGINNING] += 1
            return None
        inputs = inputs_of(fields, params)
        if digest_of(inputs) != digest or not _are_asked(fields, inputs["asked"]):
            self._is_wrong("inputs_differ", record.seq)
            return None
        self.sets.add(exactly(str, fields["policy_set"]))
        self.replayed += 1
        return params


def fields_of(record: Record) -> dict[str, Any]:
    """The fields of a record, which may be anybody's. Raise ValueError, RecursionError, InvalidInput."""
    return exactly(dict, json.loads(record.fields, parse_constant=_no_number))


def inputs_of(fields: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """All that a decision was made on, by the fields of its record and the parameters of its task."""
    seen = exactly(dict, fields["seen"])
    if not seen.keys() <= _FRESH.keys():
        raise InvalidInput("something is seen of a task that no policy sees")
    named = {"task_id": fields["task"], "task_type": fields["type"], "workload": fields["spiffe_id"]}
    principal = {**named, **_FRESH, **seen}
    facts = {name: fact["value"] for name, fact in fields.get("facts", _NONE).items()}
    return {"asked": _asked(fields), "facts": facts, "params": params, "principal": principal}


def _asked(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The actions by their resources: where the record does not say, those that it names as granted."""
    if "asked" in fields:
        asked: Mapping[str, Any] = fields["asked"]
        return asked
    return _granted(fields)


def _granted(fields: Mapping[str, Any]) -> dict[str, list[str]]:
    if "grants" in fields:
        return {each["resource"]: sorted(each["actions"]) for each in fields["grants"]}
    return {fields["resource"]: sorted(fields["actions"])} if "actions" in fields else {}


def _are_asked(fields: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether policy was asked of all that the record says was granted."""
    granted = _granted(fields)
    return all(set(actions) <= set(asked.get(resource, ())) for resource, actions in granted.items())


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON's")
