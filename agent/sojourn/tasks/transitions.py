"""How a task changes: each change is a value, and all are carried out by one protocol.

What grants something, such as the beginning of an approved task, is

    settled      what was written of the task before is on disk
    decided      by policy, on all that it reads as that is now
    journaled    the task as it will be, with the audit's record
    looked at    the task is unchanged, and policy says the same if it might read something else by now
    made true
    announced
    journaled again, if another record of the task was asked for meanwhile: that one does not have the change

in this order, so that whatever fails on the way leaves the task as it was, or over. What takes something away needs
nobody's yes: it is made true, announced, and journaled then. A change that is not on disk yet is in force all the same.

A task's own beginning (`BeginService.start`) goes the same way, but that the task stands among the live ones while its
record is written. So whatever takes something away meanwhile finds it, as a fact that policy reads does, and what is
looked at once it is on disk is the task itself: it is active as it was decided, or it never began for anybody.
"""

from abc import ABC, abstractmethod
from typing import Any

from sojourn.audit.journal import Event
from sojourn.errors import TaskOver
from sojourn.policy import rules
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.shadow_policy import Decided
from sojourn.tasks.task import Task
from sojourn.tasks.task_record import TaskRecord
from sojourn.tasktoken.grants import Authority


class Transition(ABC):
    """A change that gives a task something, by what policy leaves of `asked`; None: of all that it holds then."""

    def __init__(self, engine: TaskEngine, task: Task, asked: Authority | None = None) -> None:
        self.engine = engine
        self.task = task
        self.asked = asked

    @property
    def wanted(self) -> Authority:
        """What is asked for now."""
        return self.task.authority if self.asked is None else self.asked

    @abstractmethod
    def check(self) -> None:
        """Raise unless the change may be made of the task as it is now. Asked first, and again once it is on disk."""

    def decide(self, decided: Decided) -> Authority:
        """What policy leaves of it now."""
        return rules.still_allowed(self.task.type, decided.principal, self.wanted, decided.context, decided)

    @abstractmethod
    def left(self, authority: Authority) -> None:
        """Take it that policy leaves this. Raise if that is not enough: the change is not made then."""

    @abstractmethod
    def record(self) -> TaskRecord:
        """The task as it will be."""

    @abstractmethod
    def event(self, decided: Decided) -> Event:
        """What the audit has of the change."""

    @abstractmethod
    def make_true(self, decided: Decided) -> None:
        """Change the task."""

    def denied(self) -> None:
        """Policy denies by now what is on disk as granted: say on disk what is so instead."""
        raise NotImplementedError


async def grant(change: Transition) -> None:
    """Carry out what grants something. Raise what the change does, TaskOver, or what the store raises."""
    engine, task = change.engine, change.task
    await engine.journal.settled(task.id)
    change.check()
    version, read = task.version, _read(engine, task)
    decided = engine.decided(task)
    left = change.decide(decided)
    change.left(left)
    written_over = await engine.journal.now(change.record(), change.event(decided))
    change.check()
    if task.version != version:
        raise TaskOver("the task has changed meanwhile")
    if _read(engine, task) != read:
        change.asked = left
        if change.decide(engine.decided(task)) != left:
            change.denied()
            raise TaskOver("what policy reads has changed meanwhile")
    change.make_true(decided)
    if task.version != version:
        engine.announce(task)
    if written_over:  # by what was made of the task as it was before
        engine.journal.later(task.record(), None)


def _read(engine: TaskEngine, task: Task) -> tuple[object, ...]:
    """Another value whenever policy might say something else of the task."""
    return task.type.digest, engine.facts_revision, task.principal(engine.clock.now())


def take(engine: TaskEngine, task: Task, event: str, *, before: Authority | None = None, **fields: Any) -> None:
    """A change that takes something away was made: announce it, and have it written. `before`: what the task held."""
    task.change()
    engine.announce(task, before)
    engine.journal.later(task.record(), engine.event(event, task, **fields))
