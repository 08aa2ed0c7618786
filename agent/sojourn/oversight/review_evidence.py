"""The evidence of an item: what of it was used, by the sums of the journal's records, as plain values.

Each list has a limit, and says how much it left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from sojourn.attestation.selectors import text_of
from sojourn.identity.entries import Registration
from sojourn.identity.templates import IdTemplate
from sojourn.operating_limits import REVIEW_ROWS
from sojourn.oversight.report import ActionUse, Asked, TypeUse, WorkloadUse
from sojourn.oversight.review_items import Inventory, Item
from sojourn.oversight.review_names import CREDENTIAL, PROVIDER, TYPE
from sojourn.oversight.sums import IssuedSum
from sojourn.policy.task_types import TaskType
from sojourn.spiffe.ids import SpiffeId

Document = dict[str, Any]
_GRADES: Final = ("granted", "taken", "called", "tokens", "calls", "denied")


class Evidence:
    """Makes the evidence of items, all of one report."""

    def __init__(
        self, inventory: Inventory, uses: Sequence[TypeUse], issued: Mapping[str, IssuedSum], asked: Asked
    ) -> None:
        """`issued`: by an entry's ID."""
        self._inventory = inventory
        self._uses = {use.type: use for use in uses}
        self._issued = issued
        self._asked = asked
        self._actions: dict[str, list[tuple[str, ActionUse]]] = {}  # by workload, with the name of the type
        self._tasks: dict[str, list[tuple[str, WorkloadUse]]] = {}
        for use in uses:
            for action in use.actions:
                self._actions.setdefault(action.workload, []).append((use.type, action))
            for each in use.workloads:
                self._tasks.setdefault(each.workload, []).append((use.type, each))
        self._allowed = _allowed(inventory.types.values())
        self._credentials = {each.id: each for each in inventory.credentials}

    def of(self, item: Item) -> Document:
        """All that is shown of an item. `used`: whether it was used at all in this time."""
        if item.kind == TYPE:
            found = self._of_type(self._inventory.types[item.name])
        elif item.kind == PROVIDER:
            found = self._of_provider(item.name)
        elif item.kind == CREDENTIAL:
            found = self._of_credential(item.name)
        else:
            found = self._of_workload(item.name)
        return {
            "item": item.id,
            "owners": [*item.owners],
            "sponsors": [*item.sponsors],
            "reviewed": item.subject,
            "since_ms": self._asked.since_ms,
            "until_ms": self._asked.until_ms,
            "counted_since_ms": self._asked.counted_since_ms,
            **found,
        }

    def _of_type(self, kind: TaskType) -> Document:
        use = self._uses[kind.name]
        unused = {name: _rows(each) for name, each in asdict(use.unused).items() if each}
        return {
            **_totals((kind.name, each) for each in use.actions),
            "since_ms": use.since_ms,
            "used": bool(use.tasks),
            "tasks": use.tasks,
            "tasks_before": use.before,
            "enough": use.enough,
            "lacking": use.lacking,
            "type_digest": kind.digest,
            "allowed_workloads": _rows(sorted(map(str, kind.allowed_workloads))),
            "ceiling": _rows([[each.resource, *each.actions] for each in kind.ceiling.grants]),
            "max_duration_seconds": int(kind.max_duration.total_seconds()),
            "longest_ms": round(use.seconds_max * 1_000),
            "most": {name: getattr(use, name).greatest for name in ("tokens", "calls", "depth", "children")},
            "workloads": _rows([[each.workload, each.began, each.accepted] for each in use.workloads]),
            "denials": dict(sorted(use.denials.items())),
            "unused": unused,
        }

    def _of_workload(self, name: str) -> Document:
        entries = self._inventory.by_workload[name]
        made = self._made_by(name, entries)
        actions = [each for workload in made for each in self._actions.get(workload, ())]
        tasks = [(kind, use) for workload in made for kind, use in self._tasks.get(workload, ())]
        issued = [self._issued[each.id] for each in entries if each.id in self._issued]
        last_ms = max((each.last_ms for each in issued), default=0)
        totals = _totals(actions)
        return {
            **totals,
            "used": last_ms >= self._asked.since_ms or bool(tasks),
            "last_ms": max(last_ms, totals["last_ms"]),
            "tasks": sum(use.began + use.accepted for _, use in tasks),
            "began": _rows([[kind, use.began, use.accepted] for kind, use in tasks]),
            "svids": sum(each.number for each in issued),
            "svid_last_ms": last_ms,
            "may_begin": _rows(sorted({kind for workload in made for kind in self._allowed.get(workload, ())})),
            "entries": _rows(
                [
                    {
                        "id": each.id,
                        "revision": each.revision,
                        "selectors": text_of(each.selectors),
                        "created_at": each.created_at,
                        "expires_at": each.expires_at,
                    }
                    for each in sorted(entries, key=lambda one: one.id)
                ]
            ),
        }

    def _made_by(self, name: str, entries: Sequence[Registration]) -> list[str]:
        """The SPIFFE IDs that something is known of and that these entries give."""
        template = entries[0].spiffe_id
        if not isinstance(template, IdTemplate):
            return [name]
        known = {*self._actions, *self._tasks, *self._allowed}
        return sorted(each for each in known if template.makes(SpiffeId.parse(each)))

    def _of_provider(self, name: str) -> Document:
        kinds = self._inventory.by_provider[name]
        theirs = {(kind.name, each) for kind in kinds for each, of in kind.outside.items() if of.provider == name}
        actions = [
            (kind.name, each)
            for kind in kinds
            for each in self._uses[kind.name].actions
            if (kind.name, each.resource) in theirs
        ]
        totals = _totals(actions)
        outliving = [each for each in self._inventory.credentials if each.provider == name]
        return {
            **totals,
            "used": bool(totals["taken"]),
            "tasks": None,
            "types": _rows(sorted(kind.name for kind in kinds)),
            "resources": _rows(sorted({resource for _, resource in theirs})),
            "outliving": len(outliving),
        }

    def _of_credential(self, name: str) -> Document:
        each = self._credentials[name]
        return {
            **_totals(()),
            "used": False,  # nobody tells of its use: it is held beyond its task
            "tasks": None,
            "provider": each.provider,
            "workload": each.spiffe_id,
            "resource": each.resource,
            "over_ms": each.over_ms,
            "ends_ms": each.until_ms,
        }


def _allowed(kinds: Iterable[TaskType]) -> dict[str, list[str]]:
    """The types that each workload may begin, or that may be handed on to it."""
    found: dict[str, list[str]] = {}
    for kind in kinds:
        to = kind.delegation.to if kind.delegation is not None else ()
        for name in {*map(str, kind.allowed_workloads), *to}:
            found.setdefault(name, []).append(kind.name)
    return found


def _totals(actions: Iterable[tuple[str, ActionUse]]) -> Document:
    """Each grade of evidence for itself, and by action. `blind`: resources of which nobody tells of calls, with why."""
    found = sorted(actions, key=lambda each: (-each[1].sum.taken, each[0], *_place(each[1])))
    made: Document = {name: sum(getattr(each.sum, name) for _, each in found) for name in _GRADES}
    return {
        **made,
        "last_ms": max((each.sum.last_ms for _, each in found), default=0),
        "blind": {each.resource: each.blind for _, each in found if each.blind},
        "actions": _rows(
            [
                {
                    "type": kind,
                    "workload": each.workload,
                    "resource": each.resource,
                    "action": each.action,
                    **{name: getattr(each.sum, name) for name in _GRADES},
                    "first_ms": each.sum.first_ms,
                    "last_ms": each.sum.last_ms,
                }
                for kind, each in found
            ]
        ),
    }


def _place(each: ActionUse) -> tuple[str, str, str]:
    return each.workload, each.resource, each.action


def _rows(values: Sequence[Any]) -> Document:
    """As many as a person reads."""
    return {"rows": [*values[:REVIEW_ROWS]], "left_out": max(0, len(values) - REVIEW_ROWS)}
