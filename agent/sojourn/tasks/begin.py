"""How tasks begin: who asks, what of it policy allows, and on disk before anything is true."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any

from sojourn.attestation.process import Process
from sojourn.errors import Refused, SojournError, TaskOver
from sojourn.errors.oauth import ShuttingDown
from sojourn.identity.entries import Entry
from sojourn.limits import LIVES_KEPT
from sojourn.people.person import Person
from sojourn.policy import person_rules, rules
from sojourn.policy.cedar_schema import SOME_TASK, Context, Param, Principal
from sojourn.policy.task_types import TaskType
from sojourn.policy.user import User
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.approval import Approvals
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.for_person import ForPerson, ends_of
from sojourn.tasks.holders import Hold
from sojourn.tasks.idempotency import Repeats
from sojourn.tasks.origin import shared_origin
from sojourn.tasks.recorded import asked_for, held_by
from sojourn.tasks.requester import Asker, owner_of
from sojourn.tasks.spent import NOTHING
from sojourn.tasks.task import ACTIVE, PENDING, REVOKED, Task
from sojourn.tasktoken.end_reasons import ADMIN, DEADLINE, HOLDER_DISCONNECTED, NOT_WRITTEN, REASONS
from sojourn.tasktoken.grants import Authority, Details
from sojourn.tasktoken.task_id import new_task_id


@dataclass(frozen=True, slots=True)
class BeginRequest:
    """What a caller wants to begin. `wanted` None: all that the type allows. `max_seconds` 0: as long as the type.

    It goes whole to where the task is made. Where a task is handed on, the parent and what it gave say the type, the
    parameters, what is wanted and for how long. A request that is repeated with the same `key` by the same process
    begins one task.
    """

    type_name: str
    params: Mapping[str, str]
    wanted: Authority | None = None
    spiffe_id: SpiffeId | None = None
    max_seconds: float = 0
    key: str = ""
    svids: Mapping[tuple[str, str], float] = field(default_factory=dict)  # by which: it ends with one of them
    person: Person | None = None  # whom it is for: as a token says that was verified for the caller
    person_token: str = ""  # the digest of that, for the audit


@dataclass(frozen=True, slots=True)
class Bond:
    """What a task will live with: `holder`, and `heir`, who takes a one-shot task over. Whoever gets it owns both."""

    holder: Process
    binding: str  # STREAM | PROCESS | ONE_SHOT
    session: bool = False
    heir: Process | None = None

    def close(self) -> None:
        for each in (self.holder, self.heir):
            if each is not None:
                each.close()


@dataclass(frozen=True, slots=True)
class HeldBond:
    """A bond whose processes are held."""

    holder: Hold
    heir: Hold | None
    bond: Bond

    def release(self) -> None:
        for each in (self.holder, self.heir):
            if each is not None:
                each.release()


class BeginService:
    """Begins tasks of the engine."""

    def __init__(self, engine: TaskEngine, approving: Approvals) -> None:
        self._engine = engine
        self._approving = approving
        self._repeats = Repeats(engine.tasks)

    def waits(self, entries: Sequence[Entry], request: BeginRequest) -> bool:
        """Whether a task that is begun in this very step by a caller with these identities waits for someone to agree.

        True for a request that will be refused.
        """
        kind = self._engine.type_named(request.type_name)
        rule = self._approving.rule(kind)
        if rule is None or rule.when is None:
            return rule is not None
        try:
            workload = str(rules.entry_for(kind, entries, request.spiffe_id).spiffe_id)
            about = [] if request.person is None else [self._engine.pseudonyms.of_person(request.person)]
            context = self._engine.known(kind, workload, kind.read_params(request.params), *about)
            user = None if request.person is None else User.of(request.person, self._engine.clock.now().timestamp())
            principal = Principal(SOME_TASK, kind.name, workload, ACTIVE, 0, 0, 0, (), user=user)
            authority = rules.authorize(kind, principal, request.wanted, context)
            authority = person_rules.within_details(_details_of(request), authority)
        except SojournError:
            return True
        return self._approving.needed(kind, principal, authority, context) is not None

    def check_reviewed(self, kind: TaskType) -> None:
        """Raise ReviewOverdue if no new task of a type begins now."""
        self._approving.check_reviewed(kind)

    def check_handed_on(self, task: Task, parent: Task, context: Context) -> None:
        """Raise NeedsApproval if nobody has agreed to what `task` was handed on by, and by now somebody must."""
        self._approving.check_handed_on(task, (parent, *self._engine.family.line(parent)), context)

    async def begin(self, peer: Asker, entries: Sequence[Entry], request: BeginRequest, bond: Bond) -> Task:
        """Begin a task for a caller with these identities. Takes ownership of `bond`. If someone must agree first, the
        task is pending.

        Raises UnknownTaskType, PolicyDenied, ActionOutsideType, InvalidTarget, InvalidInput, LimitExceeded, or what
        the store raises; nothing has begun then.
        """
        name = (*peer.process.key, request.key)

        def begin() -> Awaitable[Task]:
            return self._begin(peer, entries, request, bond)

        if not request.key:
            return await begin()
        try:
            known = self._repeats.known(name, request)
        except BaseException:
            bond.close()
            raise
        if known is None:
            return await self._repeats.once(name, request, begin)
        bond.close()
        return await known

    async def _begin(self, peer: Asker, entries: Sequence[Entry], request: BeginRequest, bond: Bond) -> Task:
        held = self.hold(bond, peer.uid)
        try:
            task = self._authorized(peer, entries, request, held)
        except BaseException:
            held.release()
            raise
        shown = {} if request.person is None else {"token": request.person_token, "presenter": str(task.spiffe_id)}
        await self.start(task, **shown)
        return task

    def hold(self, bond: Bond, uid: int) -> HeldBond:
        """Hold the processes of a bond, all or none."""
        try:
            holder = self._engine.holders.hold(bond.holder, uid)
        except BaseException:
            if bond.heir is not None:
                bond.heir.close()
            raise
        try:
            heir = None if bond.heir is None else self._engine.holders.hold(bond.heir, uid)
        except BaseException:
            holder.release()
            raise
        return HeldBond(holder, heir, bond)

    async def start(self, task: Task, event: str = "task_begun", **fields: Any) -> None:
        """Take a task among the live ones and have it written; it has not begun if that fails."""
        engine = self._engine
        engine.adopt(task)
        pending = task.state == PENDING
        said = {"pid": task.holder.pid, **task.decided_on, **held_by(task, engine.people_key), **fields}
        said |= self._approving.asked(task) if pending else {}
        said |= told_of(task.person)
        begun = engine.event("task_pending" if pending else event, task, **said)
        task.audited()
        version = task.version
        try:
            await engine.journal.now(task.record(), begun)
        except SojournError:
            if task.live and task.version != version:  # its change may be written although its beginning was not
                engine.end(task, REVOKED, NOT_WRITTEN)
            engine.forget(task)
            raise
        except BaseException:  # the caller has gone while the record is being written
            if task.live:
                engine.end(task, REVOKED, HOLDER_DISCONNECTED)
            raise
        boot = engine.clock.boot()
        if pending:
            task.check_live(boot)
            engine.waiting.show(task)
            return
        try:
            task.check_active(boot)  # the holder may have gone meanwhile
        except TaskOver:
            if task.live:  # suspended before anybody had it: nobody gets to know it
                self._end(task, task.reason or DEADLINE)
            raise
        engine.announce(task)

    def _end(self, task: Task, why: str) -> None:
        """`why` may be the text of an operator who suspended it, which is no reason of an end."""
        if why in REASONS:
            self._engine.end(task, REVOKED, why)
        else:
            self._engine.end(task, REVOKED, ADMIN, explanation=why)

    def make(
        self,
        kind: TaskType,
        entry: Entry,
        peer: Asker,
        request: BeginRequest,
        params: Mapping[str, Param],
        held: HeldBond,
    ) -> Task:
        """A task that has no authority yet, and that nobody knows of. `params`: in the place of those of the request,
        as the type reads them. Raise PolicyDenied if it may not be held so, AuditFull or LimitExceeded if it may
        add no record.
        """
        engine = self._engine
        engine.check_recordable(entry.spiffe_id)
        now, boot = engine.clock.now(), engine.clock.boot()
        life = min(kind.max_duration.total_seconds(), request.max_seconds or float("inf"))
        bond = held.bond
        selectors = peer.attested.selectors if peer.attested is not None else frozenset()
        task = Task(
            id=new_task_id(),
            type=kind,
            origin=shared_origin(entry.spiffe_id, entry.id, peer.uid, bond.binding, bond.session, selectors),
            authority=Authority(()),
            params=params or NOTHING,
            created=now.timestamp(),
            life=_lasting(life),
            deadline=boot + life,
            holder=held.holder,
            version=engine.next_version(),
            last_used=boot,
            heir=held.heir,
        )
        rules.check_binding(kind, task.held_as)
        task.be_due_to(request.svids)
        return task

    def _authorized(self, peer: Asker, entries: Sequence[Entry], request: BeginRequest, held: HeldBond) -> Task:
        engine = self._engine
        if engine.closing:
            raise ShuttingDown
        kind = engine.type_named(request.type_name)
        entry = rules.entry_for(kind, entries, request.spiffe_id)
        engine.blocks.check(kind.name, entry.spiffe_id)
        self._check_reviewed(kind, peer, entry)
        params = kind.read_params(request.params)
        kind.params_in_tokens(params)  # now, and not when the first token is needed
        engine.tasks.check_room(owner_of(peer, entry))
        rules.check_life(request.max_seconds)
        person_rules.check_person(kind, request.person, engine.clock.now().timestamp())
        person_rules.check_details(kind, _details_of(request), request.wanted, params)
        task = self.make(kind, entry, peer, request, params, held)
        if request.person is not None:
            self._be_for(task, request.person, request.person_token)
        decided = engine.decided(task)
        try:
            given = rules.authorize(kind, decided.principal, request.wanted, decided.context, decided)
            given = person_rules.within_details(_details_of(request), given)
        except Refused as error:
            engine.denied("begin_denied", task, error, **decided.record(params=True))
            raise
        task.give(given, {**decided.record(given.grants), **asked_for(request.wanted)})
        self._approving.prepare(task, peer, entries, decided.principal, decided.context)
        held.holder.process.check_alive()
        return task

    def _check_reviewed(self, kind: TaskType, peer: Asker, entry: Entry) -> None:
        """Raise ReviewOwed or ReviewOverdue, and record it: nobody has asked policy then."""
        try:
            self._approving.check(kind)
        except Refused as error:
            said = {**kind.named, "spiffe_id": str(entry.spiffe_id), "code": error.code, "reason": error.public}
            self._engine.audit.denied("begin_denied", owner_of(peer, entry), **said)
            raise

    def _be_for(self, task: Task, person: Person, token: str) -> None:
        """Have a task that is about to begin be for this person. Raise PersonRefused or LimitExceeded if it may not.

        `token`: the digest of that by which it is.
        """
        engine = self._engine
        engine.standing.check(person, token)  # again: their session may have ended since the token was verified
        theirs = engine.tasks.people.of_person(person.url, person.subject)
        ends = ends_of(person, engine.clock)
        whom = ForPerson(person.in_task(), engine.pseudonyms.of_person(person), ends, task.deadline, token)
        task.be_for(whom.sharing(each.whom for each in theirs))
        task.check_live(engine.clock.boot())
        engine.tasks.people.check_alone(task)
        # What was handed on counts by its type's [delegation]: no service takes a person's room by a token of theirs.
        person_rules.check_room(task.type, sum(each.type.name == task.type.name and not each.depth for each in theirs))


@lru_cache(LIVES_KEPT)
def _lasting(seconds: float) -> timedelta:
    """One for all tasks that live as long."""
    return timedelta(seconds=seconds)


def _details_of(request: BeginRequest) -> Details | None:
    """The most that the person's token lets begin."""
    return None if request.person is None else request.person.details


def told_of(person: Person | None) -> dict[str, Any]:
    """What records of a beginning and of a renewal say of how a person was authenticated."""
    if person is None:
        return {}
    return {"acr": person.acr or None, "amr": [*person.amr], "auth_time": person.auth_time or None}
