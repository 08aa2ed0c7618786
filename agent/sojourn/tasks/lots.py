"""Live tasks in lots: those of one type, workload, entry, process and owner are filed together, once for all of these.

A process that exchanges tokens has thousands of tasks that are alike in all of it. Found by each of them are lots, of
which there are few, and not tasks.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from sojourn.attestation.descent import ProcessKey
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.task import Task


class _Alike(NamedTuple):
    """In what the tasks of a lot are alike."""

    type_name: str
    workload: SpiffeId
    entry_id: str
    process: ProcessKey
    owner: int | str  # as whose they count


@dataclass(slots=True, eq=False)
class _Lot:
    alike: _Alike
    tasks: dict[str, Task] = field(default_factory=dict)  # by ID


class Lots:
    """All of them."""

    def __init__(self) -> None:
        self._of_task: dict[str, _Lot] = {}  # by its ID, in the order in which they came
        self._lots: dict[_Alike, _Lot] = {}
        self._found_by: dict[tuple[str, Hashable], dict[_Lot, None]] = {}  # (in what, which)

    def __len__(self) -> int:
        """How many tasks there are."""
        return len(self._of_task)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._of_task

    def __iter__(self) -> Iterator[Task]:
        return (lot.tasks[task_id] for task_id, lot in self._of_task.items())

    def find(self, task_id: str) -> Task | None:
        lot = self._of_task.get(task_id)
        return None if lot is None else lot.tasks[task_id]

    def of_type(self, name: str, spiffe_id: str = "") -> list[Task]:
        """Those of a type: all, or those of one workload."""
        return self._found("workload", (name, spiffe_id)) if spiffe_id else self._found("type", name)

    def of_entry(self, entry_id: str) -> list[Task]:
        """Those that were begun with the identity of an entry."""
        return self._found("entry", entry_id)

    def of_process(self, process: ProcessKey) -> list[Task]:
        """Those that a process holds."""
        return self._found("process", process)

    def add(self, task: Task, owner: int | str) -> None:
        """File a task, which counts as this owner's."""
        alike = _Alike(task.type.name, task.spiffe_id, task.entry_id, task.holder.key, owner)
        lot = self._lots.get(alike)
        if lot is None:
            lot = self._lots[alike] = _Lot(alike)
            for name in _names(alike):
                self._found_by.setdefault(name, {})[lot] = None
        lot.tasks[task.id] = task
        self._of_task[task.id] = lot

    def remove(self, task_id: str) -> int | str | None:
        """Take a task out, and return as whose it counted; None: it is not here."""
        lot = self._of_task.pop(task_id, None)
        if lot is None:
            return None
        self._unfile(task_id, lot)
        return lot.alike.owner

    def held_anew(self, task: Task) -> None:
        """Another process holds a task than before: it keeps its place among the others."""
        lot = self._of_task[task.id]
        self._unfile(task.id, lot)
        self.add(task, lot.alike.owner)

    def _unfile(self, task_id: str, lot: _Lot) -> None:
        del lot.tasks[task_id]
        if lot.tasks:
            return
        del self._lots[lot.alike]
        for name in _names(lot.alike):
            del self._found_by[name][lot]
            if not self._found_by[name]:
                del self._found_by[name]

    def _found(self, what: str, which: Hashable) -> list[Task]:
        return [task for lot in self._found_by.get((what, which), ()) for task in lot.tasks.values()]


def _names(alike: _Alike) -> tuple[tuple[str, Hashable], ...]:
    """By what a lot is found."""
    return (
        ("type", alike.type_name),
        ("workload", (alike.type_name, str(alike.workload))),
        ("entry", alike.entry_id),
        ("process", alike.process),
    )
