"""Handing a part of a task on to another workload: a ticket for it, and the task that the ticket begins.

What the other has is never more than the ticket says, than its parent has at that moment, or than policy gives it; and
it ends with its parent, at the latest.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sojourn.attestation.peer import Peer
from sojourn.audit.journal import Event
from sojourn.errors import InvalidInput, LimitExceeded, NotFound, PolicyDenied, Refused, SojournError
from sojourn.errors.oauth import ShuttingDown
from sojourn.identity.entries import Entry
from sojourn.limits import DELEGATION_TICKET_SECONDS
from sojourn.policy import rules
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.begin import BeginRequest, BeginService, Bond, HeldBond
from sojourn.tasks.delegation_tickets import Ticket, digest_of
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.kept_fields import ONE_SHOT
from sojourn.tasks.recorded import asked_for
from sojourn.tasks.requester import Asker, owner_of
from sojourn.tasks.shadow_policy import Decided
from sojourn.tasks.task import Task
from sojourn.tasks.task_record import TaskRecord
from sojourn.tasks.transitions import Transition, grant
from sojourn.tasktoken.end_reasons import NOT_WRITTEN
from sojourn.tasktoken.grants import Authority, Grant

# The same words whatever the reason: to whom it is not given, a ticket shall not say that it is one.
_NO_TICKET = "there is no such delegation ticket for the caller: each is good once, not for long, and for one workload"


@dataclass(frozen=True, slots=True)
class IssuedTicket:
    """A ticket for the other workload. `ticket` is a credential: the repr hides it."""

    ticket: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"IssuedTicket(exp={self.expires_at.isoformat()})"


class HandOn(Transition):
    """A task may be handed on to one workload once more: a ticket is made for it.

    Policy is asked by whoever accepts it, who then has no more than it allows to that one.
    """

    def __init__(
        self, engine: TaskEngine, task: Task, to: SpiffeId, wanted: Authority | None, max_seconds: float
    ) -> None:
        super().__init__(engine, task, wanted)
        self._to = to
        self._max_seconds = max_seconds
        self._ticket: Ticket | None = None

    def check(self) -> None:
        self.engine.check_active(self.task)

    def decide(self, _decided: Decided) -> Authority:
        return self.wanted

    def left(self, authority: Authority) -> None:
        engine, task = self.engine, self.task
        try:
            self._check(authority)
        except Refused as error:
            engine.denied("delegation_denied", task, error, to=str(self._to))
            raise
        life = min(DELEGATION_TICKET_SECONDS, task.deadline - engine.clock.boot())
        expires_at = engine.clock.now() + timedelta(seconds=life)
        self._given = authority
        text, self._ticket = engine.tickets.make(
            task, self._to, authority, self._max_seconds, life, whole=self.asked is None
        )
        self.issued = IssuedTicket(text, expires_at)

    def _check(self, authority: Authority) -> None:
        task = self.task
        if task.binding == ONE_SHOT:
            raise PolicyDenied(f"a task of type {task.type.name!r} that is {task.binding} cannot be handed on")
        rules.check_delegate(task.type, self._to, task.line)
        rules.check_life(self._max_seconds)
        if not authority.grants:
            raise InvalidInput("nothing would be handed on")
        rules.check_held(task.authority, authority)
        _check_room(task, 1)

    def record(self) -> TaskRecord:
        return self.task.record()

    def event(self, _decided: Decided) -> Event:
        assert self._ticket is not None
        fields = {"ticket": self._ticket.name, "to": str(self._to), "grants": self._given.document()}
        fields |= asked_for(self.asked)
        return self.engine.event("task_delegated", self.task, **fields)

    def make_true(self, _decided: Decided) -> None:
        """The ticket is there; until now nobody had its text."""

    def drop(self) -> None:
        """Have no ticket after all."""
        if self._ticket is not None:
            self.engine.tickets.drop(self._ticket)


class DelegationService:
    """Hands tasks of the engine on."""

    def __init__(self, engine: TaskEngine, beginning: BeginService) -> None:
        self._engine = engine
        self._beginning = beginning

    async def delegate(
        self, task: Task, to: SpiffeId, wanted: Authority | None, max_seconds: float = 0
    ) -> IssuedTicket:
        """Make a ticket by which `to`, and nobody else, may begin a task that has `wanted` of this one (None: all).

        Raises TaskOver, PolicyDenied, ActionOutsideType, LimitExceeded, InvalidInput, or what the store raises; there
        is no ticket then.
        """
        self._engine.check_active(task)
        change = HandOn(self._engine, task, to, wanted, max_seconds)
        try:
            await grant(change)
        except BaseException:
            change.drop()
            raise
        return change.issued

    async def accept(
        self, peer: Peer, entries: Sequence[Entry], unverified_ticket: str, request: BeginRequest, bond: Bond
    ) -> Task:
        """Begin the task that a ticket is for. Takes ownership of `bond`. `request`: what is not the ticket's to say.

        Raises NotFound for a ticket that is not this caller's, whatever the reason; and what beginning a task raises.
        """
        engine, beginning = self._engine, self._beginning
        held = beginning.hold(bond, peer.uid)
        try:
            ticket = self._ticket(entries, unverified_ticket, request.spiffe_id)
            entry = next(entry for entry in entries if entry.spiffe_id == ticket.to)
            request = replace(request, max_seconds=ticket.max_seconds)
            task = self._made(peer, entry, ticket.parent, ticket.authority, request, held, more=0)
            # From here to the first await of `start` nobody else has a turn: the ticket is used up, the parent is
            # active, and the task stands among its children, all at once.
            if not engine.tickets.use(ticket):
                raise NotFound(_NO_TICKET)
        except BaseException as error:
            held.release()
            if isinstance(error, NotFound | Refused):
                engine.audit.denied(
                    "delegation_denied",
                    peer.uid,
                    pid=peer.process.pid,
                    ticket=digest_of(unverified_ticket)[:16],
                    reason=error.public,
                )
            raise
        asked = asked_for(None if ticket.whole else ticket.authority)
        return await self._start(task, ticket.parent, {"ticket": ticket.name, **asked})

    # --- by exchange ------------------------------------------------------------------------------------------------

    async def exchange(
        self,
        parent: Task,
        asker: Asker,
        entry: Entry,
        grant: Grant,
        request: BeginRequest,
        bond: Bond,
        *,
        jti: str,
    ) -> Task:
        """Begin the task of a service that was given a token of `parent`, for a call of its own. Takes ownership of
        `bond`. `grant`: what of the token it asks for, in a `request` for what is left of its life; `jti`: the token's.

        Raises what `accept` raises, but NotFound.
        """
        engine, beginning = self._engine, self._beginning
        held = beginning.hold(bond, asker.uid)
        try:
            engine.check_active(parent)
            authority = Authority((grant,))
            rules.check_held(parent.authority, authority)
            task = self._made(asker, entry, parent, authority, request, held, more=1)
            parent.count_child()
        except BaseException:
            held.release()
            raise
        return await self._start(task, parent, {"by_token": jti})

    async def _start(self, task: Task, parent: Task, by: Mapping[str, str]) -> Task:
        """Begin what `parent` has handed on; if that was never written, it has handed on nothing."""
        fields = {**by, "parent": parent.id, "depth": task.depth}
        actors = [str(each) for each in task.actors]
        try:
            await self._beginning.start(task, "delegation_accepted", subject=str(task.subject), actors=actors, **fields)
        except SojournError:
            if task.reason == NOT_WRITTEN:
                parent.count_child(-1)
            raise
        return task

    def _ticket(self, entries: Sequence[Entry], unverified_ticket: str, spiffe_id: SpiffeId | None) -> Ticket:
        """The ticket, if it is this caller's and its parent is active. NotFound says nothing of why it is not."""
        ticket = self._engine.tickets.find(unverified_ticket)
        theirs = {entry.spiffe_id for entry in entries if spiffe_id in {None, entry.spiffe_id}}
        if ticket is not None and ticket.to in theirs:
            with suppress(SojournError):
                self._engine.check_active(ticket.parent)
                return ticket
        raise NotFound(_NO_TICKET)

    def _made(
        self,
        asker: Asker,
        entry: Entry,
        parent: Task,
        authority: Authority,
        request: BeginRequest,
        held: HeldBond,
        *,
        more: int,
    ) -> Task:
        """A task under `parent` that nobody knows of yet. `more`: children by which it has one more, if it counts not
        already.
        """
        engine = self._engine
        if engine.closing:
            raise ShuttingDown
        kind = parent.type
        rules.check_delegate(kind, entry.spiffe_id, parent.line)  # the type may be another by now
        _check_room(parent, more)
        engine.blocks.check(kind.name, entry.spiffe_id)
        self._beginning.check_reviewed(kind)
        engine.tasks.check_room(owner_of(asker, entry))
        task = self._beginning.make(kind, entry, asker, request, parent.params, held)
        task.stand_under(parent)
        engine.tasks.people.check_alone(task)
        decided = engine.decided(task)
        left = authority.within(parent.authority)
        left = rules.still_allowed(kind, decided.principal, left, decided.context, decided)
        task.give(left, decided.record(left.grants))
        if not task.authority.grants:
            raise PolicyDenied("policy leaves nothing of what was handed on")
        self._beginning.check_handed_on(task, parent, decided.context)
        held.holder.process.check_alive()
        return task


def _check_room(task: Task, more: int) -> None:
    rule = task.type.delegation
    if rule is None or task.handed_on + more > rule.max_children:
        raise LimitExceeded("the task has been handed on as often as its type allows")
