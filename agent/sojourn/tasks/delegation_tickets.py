"""Tickets by which a part of a task is handed on: single use, kept as digests, and in memory alone.

A restart of the agent voids them all.
"""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from sojourn.errors import LimitExceeded
from sojourn.limits import DELEGATION_TICKETS
from sojourn.quota.shares import may_take
from sojourn.quota.usage import Usage
from sojourn.runtime.clock import Alarm, Alarms, Clock
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.task import Task
from sojourn.tasktoken.grants import Authority

_DIGEST_SHOWN = 16  # hex digits: enough to tell tickets apart in records, and of no use to anybody else


@dataclass(slots=True, eq=False)
class Ticket:
    """One ticket. `digest` is SHA-256 of its text, lower-case hex."""

    digest: str
    parent: Task
    to: SpiffeId
    authority: Authority
    whole: bool  # whether it was to be all that the parent has
    max_seconds: float  # of the task that it begins; 0: as long as its type and its parent
    deadline: float  # boot clock, seconds
    user: int  # whose task's it is
    alarm: Alarm | None = field(default=None)

    @property
    def name(self) -> str:
        """What records call it."""
        return self.digest[:_DIGEST_SHOWN]


def digest_of(unverified_ticket: str) -> str:
    return hashlib.sha256(unverified_ticket.encode("utf-8", "surrogatepass")).hexdigest()


class Tickets:
    """All outstanding tickets: DELEGATION_TICKETS at most, and of one user's tasks half of what others leave."""

    def __init__(self, clock: Clock, alarms: Alarms, user_of: Callable[[int], int] = lambda uid: uid) -> None:
        """`user_of`: the user who may become a uid."""
        self._user_of = user_of
        self._clock = clock
        self._alarms = alarms
        self._tickets: dict[str, Ticket] = {}
        self._of_task: dict[str, dict[str, Ticket]] = {}
        self._per_user = Usage[int]()

    def __len__(self) -> int:
        return len(self._tickets)

    def make(
        self,
        parent: Task,
        to: SpiffeId,
        authority: Authority,
        max_seconds: float,
        seconds: float,
        *,
        whole: bool = False,
    ) -> tuple[str, Ticket]:
        """Make a ticket that is good for `seconds`; return its text, which nothing keeps, and it. Or LimitExceeded."""
        user = self._user_of(parent.uid)
        if not may_take(self._per_user[user], len(self._tickets), DELEGATION_TICKETS):
            raise LimitExceeded("too many delegation tickets are outstanding")
        text = "dlg_" + secrets.token_urlsafe(32)
        deadline = self._clock.boot() + seconds
        ticket = Ticket(digest_of(text), parent, to, authority, whole, max_seconds, deadline, user)
        self._tickets[ticket.digest] = ticket
        self._of_task.setdefault(parent.id, {})[ticket.digest] = ticket
        self._per_user.add(user)
        parent.count_child()
        ticket.alarm = self._alarms.at(ticket.deadline, self.drop, ticket)
        return text, ticket

    def find(self, unverified_ticket: str) -> Ticket | None:
        """The ticket of this text, if it may still be used."""
        ticket = self._tickets.get(digest_of(unverified_ticket))
        return ticket if ticket is not None and self._clock.boot() < ticket.deadline else None

    def drop(self, ticket: Ticket) -> None:
        """Make a ticket void, if it is not used: it counts among its task's children no more."""
        if self.use(ticket):
            ticket.parent.count_child(-1)

    def use(self, ticket: Ticket) -> bool:
        """Use a ticket up; say whether it was good until now."""
        if self._tickets.pop(ticket.digest, None) is None:
            return False
        of_task = self._of_task[ticket.parent.id]
        del of_task[ticket.digest]
        if not of_task:
            del self._of_task[ticket.parent.id]
        self._per_user.remove(ticket.user)
        if ticket.alarm is not None:
            ticket.alarm.cancel()
        return True

    def void(self, task: Task) -> None:
        """Make all tickets of a task void: it has ended, or is suspended."""
        for ticket in list(self._of_task.get(task.id, {}).values()):
            self.drop(ticket)
