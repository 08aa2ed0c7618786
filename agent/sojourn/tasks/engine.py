"""The task engine: begins tasks, issues tokens under them, and ends them whatever happens.

The journal is written before an answer is given. An ending is made true in memory and told to validators first, and
written then: an end that is not on disk yet is an end all the same.
"""

import asyncio
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog

from sojourn.attestation.peer import Peer
from sojourn.attestation.process import Process
from sojourn.clock import Alarms, Clock
from sojourn.errors import (
    InvalidInput,
    LimitExceeded,
    NotFound,
    SojournError,
    TaskOver,
    UnknownTaskType,
)
from sojourn.identity.entries import Entry
from sojourn.identity.registry import Change
from sojourn.limits import ENDED_TASKS_KEPT, LIVE_TASKS, LIVE_TASKS_PER_UID, TASK_MIN_SECONDS
from sojourn.oversight.audit import Audit, Event
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.jose import SigningKey
from sojourn.tasks import rules, tokens
from sojourn.tasks.feed import Feed
from sojourn.tasks.grants import Authority
from sojourn.tasks.holders import Hold, Holders
from sojourn.tasks.task import ACTIVE, COMPLETED, EXPIRED, REVOKED, Task
from sojourn.tasks.tokens import TaskToken
from sojourn.tasks.types import TaskType

log = structlog.get_logger()
JOURNAL_RETRY_SECONDS = 1.0
HANDOVER_FIRST_SECONDS = 0.001  # a parent collects its child at once, or not for long
HANDOVER_LAST_SECONDS = 1.0
HOLDER_LOOK_SECONDS = 1.0


class TaskStore(Protocol):
    """Where tasks are journaled, each change together with its audit record."""

    async def save(self, task: Task, event: Event) -> None: ...

    async def record(self, event: Event) -> None: ...


@dataclass(frozen=True, slots=True)
class BeginRequest:
    """What a caller wants to begin. `wanted` None: all that the type allows. `max_seconds` 0: as long as the type."""

    type_name: str
    params: Mapping[str, str]
    wanted: Authority | None = None
    spiffe_id: SpiffeId | None = None
    max_seconds: float = 0


class TaskEngine:
    """All tasks of this agent."""

    def __init__(
        self,
        types: Mapping[str, TaskType],
        store: TaskStore,
        audit: Audit,
        key: SigningKey,
        issuer: str,
        epoch: int,
        clock: Clock,
        alarms: Alarms,
        holders: Holders,
    ) -> None:
        self.feed = Feed()
        self.types = dict(types)
        self.key = key
        self.issuer = issuer
        self.epoch = epoch
        self._store = store
        self._audit = audit
        self._clock = clock
        self._alarms = alarms
        self._holders = holders
        self._live: dict[str, Task] = {}
        self._ended: OrderedDict[str, Task] = OrderedDict()
        self._per_uid: Counter[int] = Counter()
        self._counter = 0
        self._unwritten: asyncio.Queue[tuple[Task, Event]] = asyncio.Queue()
        self._written: dict[str, asyncio.Event] = {}
        self._hooks: dict[str, Callable[[], None]] = {}

    # --- begin ------------------------------------------------------------------------------------------------------

    async def begin(
        self,
        peer: Peer,
        entries: Sequence[Entry],
        request: BeginRequest,
        *,
        holder: Process,
        binding: str,
        session: bool = False,
        heir: Process | None = None,
    ) -> Task:
        """Begin a task for a caller with these identities. Takes ownership of `holder` and `heir`.

        Raises UnknownTaskType, PolicyDenied, ActionOutsideType, InvalidTarget, InvalidInput, LimitExceeded, or what
        the store raises; nothing has begun then.
        """
        held: list[Hold] = []
        try:
            hold = self._holders.hold(holder, peer.uid, lambda: self._holder_gone(task))
            held.append(hold)
            inherits = None
            if heir is not None:
                inherits, heir = self._holders.hold(heir, peer.uid, lambda: None), None
                held.append(inherits)
            task = self._make(peer, entries, request, hold, binding, session, inherits)
        except BaseException:
            for each in held:
                each.release()
            if heir is not None:
                heir.close()
            raise
        self._live[task.id] = task
        self._per_uid[task.uid] += 1
        task.alarm = self._alarms.at(task.deadline, lambda: self._time_up(task))
        try:
            await self._store.save(task, self._event("task_begun", task, pid=hold.pid))
        except SojournError:
            self._forget(task)
            raise
        except BaseException:  # the caller has gone while the record is being written
            if task.live:
                self.end(task, REVOKED, "holder_disconnected")
            raise
        task.check_active(self._clock.boot())  # the holder may have gone meanwhile
        self.feed.publish(task)
        return task

    def _make(
        self,
        peer: Peer,
        entries: Sequence[Entry],
        request: BeginRequest,
        holder: Hold,
        binding: str,
        session: bool,
        heir: Hold | None,
    ) -> Task:
        kind = self.type_named(request.type_name)
        entry = rules.entry_for(kind, entries, request.spiffe_id)
        params = kind.read_params(request.params)
        if len(self._live) >= LIVE_TASKS or self._per_uid[peer.uid] >= LIVE_TASKS_PER_UID:
            raise LimitExceeded("too many tasks are live")
        if request.max_seconds and request.max_seconds < TASK_MIN_SECONDS:
            raise InvalidInput(f"a task lives for at least {TASK_MIN_SECONDS} s")
        self._counter += 1
        life = kind.max_duration.total_seconds()
        life = min(life, request.max_seconds) if request.max_seconds else life
        now = self._clock.now()
        task = Task(
            id="tsk_" + secrets.token_urlsafe(16),
            type=kind,
            spiffe_id=entry.spiffe_id,
            entry_id=entry.id,
            uid=peer.uid,
            authority=Authority(()),
            params=params,
            created_at=now,
            expires_at=now + timedelta(seconds=life),
            deadline=self._clock.boot() + life,
            holder=holder,
            binding=binding,
            session=session,
            version=(self.epoch << 32) | self._counter,
            heir=heir,
        )
        task.authority = rules.authorize(kind, task.principal(), request.wanted, params)
        holder.process.check_alive()
        return task

    def type_named(self, name: str) -> TaskType:
        kind = self.types.get(name)
        if kind is None:
            raise UnknownTaskType(f"there is no task type {name[:64]!r}")
        return kind

    # --- tokens -----------------------------------------------------------------------------------------------------

    async def token(
        self, task: Task, resource: str, actions: Sequence[str], *, not_after: datetime | None = None
    ) -> TaskToken:
        """Issue a token for one resource of a live task; its life ends with the type's, the task's and `not_after`.

        Raises TaskOver, InvalidTarget, ActionOutsideType, PolicyDenied, or what the store raises; no token then.
        """
        self._check_holder(task)
        task.check_active(self._clock.boot())
        grant = rules.narrow(task.authority, resource, actions)
        rules.authorize(task.type, task.principal(), Authority((grant,)), task.params)
        now = self._clock.now()
        left = timedelta(seconds=max(0.0, task.deadline - self._clock.boot()))
        ends = min(now + task.type.token_ttl, now + left, *([not_after] if not_after else []))
        if int(ends.timestamp()) <= now.timestamp():
            raise TaskOver("less than a second is left for a token")
        version = task.version
        token = tokens.issue(
            self.key,
            issuer=self.issuer,
            spiffe_id=task.spiffe_id,
            grant=grant,
            task_id=task.id,
            task_type=task.type.name,
            task_version=version,
            issued_at=now,
            expires_at=ends,
        )
        fields = {"resource": grant.resource, "actions": list(grant.actions), "jti": token.claims["jti"]}
        await self._store.record(self._event("token_issued", task, expires_at=token.claims["exp"], **fields))
        # The task may have ended while the record was written: then the token never leaves here.
        task.check_active(self._clock.boot())
        task.tokens_issued += 1
        return token

    # --- looking ----------------------------------------------------------------------------------------------------

    def of_caller(self, peer: Peer, entries: Sequence[Entry], task_id: str) -> Task:
        """A task that the caller may use. Raise NotFound for any other, whether it exists or not."""
        task = self.find(task_id)
        if task is not None and any(entry.spiffe_id == task.spiffe_id for entry in entries):
            caller, holder = peer.process, task.holder.process
            if (caller.pid, caller.start_time) == (holder.pid, holder.start_time):
                return task
            if task.session and caller.descends_from(holder):
                return task
        raise NotFound("there is no such task")

    def find(self, task_id: str) -> Task | None:
        """A live or recently ended task."""
        return self._live.get(task_id) or self._ended.get(task_id)

    def live(self) -> list[Task]:
        return list(self._live.values())

    def ended(self) -> list[Task]:
        """Recently ended tasks, oldest first."""
        return list(self._ended.values())

    def check_token(self, token: TaskToken) -> None:
        """Raise TaskOver unless the token's task lives and the token is not older than its last change."""
        task = self.find(token.task_id)
        if task is None:
            raise TaskOver("the task is over")
        self._check_holder(task)
        task.check_active(self._clock.boot())
        if token.task_version < task.version:
            raise TaskOver("the task has changed since the token was issued")

    # --- end --------------------------------------------------------------------------------------------------------

    def on_end(self, task: Task, hook: Callable[[], None]) -> None:
        """Call `hook` when the task has ended: for the stream that is the task."""
        self._hooks[task.id] = hook

    async def complete(self, task: Task, *, failed: bool) -> None:
        """End a task as its holder wishes, and return when that is on disk. An ended task stays what it is."""
        if task.live:
            self.end(task, COMPLETED, "failure" if failed else "success")
        await self.written(task)

    async def revoke(self, task: Task, reason: str) -> None:
        """End a task against its holder's will, and return when that is on disk."""
        if task.live:
            self.end(task, REVOKED, reason)
        await self.written(task)

    def end(self, task: Task, state: str, reason: str) -> None:
        """End a live task now, tell validators, and have it written. `written` waits for that."""
        task.finish(state, reason)
        self._settle(task)
        self.feed.publish(task)
        self._ended[task.id] = task
        if len(self._ended) > ENDED_TASKS_KEPT:
            self._ended.popitem(last=False)
        self._written[task.id] = asyncio.Event()
        self._unwritten.put_nowait((task, self._event("task_ended", task, state=state, reason=reason)))
        hook = self._hooks.pop(task.id, None)
        if hook is not None:
            hook()

    async def written(self, task: Task) -> None:
        """Return when the end of `task` is on disk."""
        done = self._written.get(task.id)
        if done is not None:
            await done.wait()

    def entries_changed(self, changes: Sequence[Change]) -> None:
        """End the tasks whose holder has lost the entry that earned it its identity."""
        lost = {
            change.old.id
            for change in changes
            if change.old is not None
            and (
                change.new is None
                or not change.served
                or change.new.spiffe_id != change.old.spiffe_id
                or not change.new.selectors <= change.old.selectors
            )
        }
        for task in [task for task in self._live.values() if task.entry_id in lost]:
            self.end(task, REVOKED, "attestation_changed")

    def end_all(self, reason: str) -> None:
        for task in self.live():
            self.end(task, REVOKED, reason)

    async def run(self) -> None:
        """Write endings, until cancelled."""
        while True:
            task, event = await self._unwritten.get()
            while True:
                try:
                    await self._store.save(task, event)
                    break
                except SojournError as error:
                    log.error("task_end_not_written", task=task.id, reason=error.public, detail=error.detail)
                    await asyncio.sleep(JOURNAL_RETRY_SECONDS)
            self._written.pop(task.id).set()
            self._unwritten.task_done()

    async def drain(self) -> None:
        """Return when every ending is on disk."""
        await self._unwritten.join()

    def _holder_gone(self, task: Task) -> None:
        if not task.live:
            return
        if task.heir is None:
            self.end(task, REVOKED, "holder_exited")
            return
        # A one-shot token belongs to whoever ran the helper that fetched it, once that has returned 0. Until the
        # kernel tells how it ended nobody may use the token.
        task.suspend("holder_exited")
        self.feed.publish(task)
        self._hand_over(task, HANDOVER_FIRST_SECONDS)

    def _hand_over(self, task: Task, wait: float) -> None:
        if not task.live:
            return
        status = task.holder.process.exit_status()
        if status is None and wait < HANDOVER_LAST_SECONDS:
            self._alarms.after(wait, lambda: self._hand_over(task, wait * 2))
            return
        if status != 0 or task.heir is None or task.heir.process.exited:
            self.end(task, REVOKED, "holder_exited")
            return
        try:
            heir = self._holders.hold(task.heir.process.again(), task.uid, lambda: self._holder_gone(task))
        except Exception as error:  # noqa: BLE001  # it may go at any moment; whatever it is, nobody inherits
            log.info("task_not_handed_over", task=task.id, reason=str(error))
            self.end(task, REVOKED, "holder_exited")
            return
        for gone in (task.holder, task.heir):
            gone.release()
        task.holder, task.heir = heir, None
        task.resume()
        self._audit.note("task_handed_over", task=task.id, pid=heir.pid)
        self.feed.publish(task)

    def look_at_holders(self) -> None:
        """End the tasks whose holder runs another program by now, and look again in a while."""
        replaced = self._holders.replaced()
        for task in self.live():
            if task.holder in replaced and task.state == ACTIVE and not task.holder.process.exited:
                self.end(task, REVOKED, "attestation_changed")
        self._alarms.after(HOLDER_LOOK_SECONDS, self.look_at_holders)

    def _check_holder(self, task: Task) -> None:
        if task.state == ACTIVE and not task.holder.process.exited and self._holders.changed(task.holder):
            self.end(task, REVOKED, "attestation_changed")

    def _time_up(self, task: Task) -> None:
        if task.live:
            self.end(task, EXPIRED, "deadline")

    def _settle(self, task: Task) -> None:
        """Let go of what a live task holds."""
        if self._live.pop(task.id, None) is not None:
            self._per_uid[task.uid] -= 1
            if self._per_uid[task.uid] <= 0:
                del self._per_uid[task.uid]
        if task.alarm is not None:
            task.alarm.cancel()
        task.holder.release()
        if task.heir is not None:
            task.heir.release()

    def _forget(self, task: Task) -> None:
        """A task that never began: nobody was told of it."""
        if task.live:
            task.finish(REVOKED, "not_written")
            self._settle(task)

    def _event(self, event: str, task: Task, **fields: Any) -> Event:
        named = {"task": task.id, "type": task.type.name, "spiffe_id": str(task.spiffe_id), "uid": task.uid}
        return self._audit.event(event, {**named, **fields})
