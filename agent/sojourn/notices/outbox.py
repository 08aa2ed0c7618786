"""Notices of requests for approval: each is delivered at least once while its request waits, and once it is over.

What is to be told is on disk before it is told first, so that a request of which somebody heard is told of as over
whatever becomes of the agent: a request ends with the agent that it was made of. Nothing here holds a request up.
Users and callers have their turns: whoever asks for much delays his own.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from sojourn.audit.journal import Audit
from sojourn.errors import SojournError, Unavailable
from sojourn.limits import (
    NOTICE_FAILURES_LOGGED_PER_SECOND,
    NOTICE_RETRY_MAX_SECONDS,
    NOTICE_RETRY_SECONDS,
    NOTICES,
    NOTICES_AT_ONCE,
    NOTICES_PER_OWNER,
)
from sojourn.notices import messages
from sojourn.quota.rate import Rate
from sojourn.runtime.clock import Alarm, Alarms, Clock
from sojourn.runtime.hooks import Hooks
from sojourn.tasks.task import Task

log = structlog.get_logger()
_TELL, _CLOSE, _FORGET = "tell", "close", "forget"
DELIVERED, FAILED, DROPPED = "delivered", "failed", "dropped"


class NotDelivered(Unavailable):
    """A notice did not reach whom it is for; it is tried again."""

    code = "not_delivered"


class NoticeStore(Protocol):
    """Where the newest message about each request is kept."""

    def load(self) -> Mapping[str, Any]: ...

    async def keep(self, approval_id: str, document: Mapping[str, Any]) -> None: ...

    async def forget(self, approval_id: str) -> None: ...


class Courier(Protocol):
    """Who takes notices to people."""

    def check(self) -> str:
        """Why none can be delivered as things are; empty if nothing is known against it."""

    async def deliver(self, message: Mapping[str, Any]) -> None:
        """Return once it has arrived. Raise NotDelivered."""

    async def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Notice:
    """What is to be told of one request. `todo` empty: nothing, before the request is over."""

    approval_id: str
    owner: int | str | None
    message: Mapping[str, Any]
    todo: str
    kept: bool = False  # the message is on disk
    heard: bool = False  # somebody may have heard of the request
    tried: int = 0
    due: float = 0.0  # boot clock
    busy: bool = False


class Notices:
    """All of them. `results` counts deliveries, failed attempts, and what was dropped."""

    def __init__(
        self,
        store: NoticeStore,
        courier: Courier,
        node: Mapping[str, str],
        audit: Audit,
        clock: Clock,
        alarms: Alarms,
        chance: Callable[[], float] = random.random,
        *,
        user_of: Callable[[int], int] = lambda uid: uid,
    ) -> None:
        """`node`: which agent this is, for who is told. `chance`: a number from 0 to 1, by which pauses differ.
        `user_of`: the user who may become a uid.
        """
        self.results: Counter[str] = Counter()
        self._store = store
        self._courier = courier
        self._node = dict(node)
        self._audit = audit
        self._clock = clock
        self._alarms = alarms
        self._chance = chance
        self._user_of = user_of
        self._logged = Rate(NOTICE_FAILURES_LOGGED_PER_SECOND, clock.boot)
        self._notices: dict[str, _Notice] = {}
        self._todo: dict[str, _Notice] = {}
        self._alarm: Alarm | None = None
        self._running = self._turn = 0
        self._turns: dict[int | str | None, int] = {}  # when each who asks had his last one
        self._wake = asyncio.Event()

    def follow(self, on_shown: Hooks[[Task]], on_over: Hooks[[Task]]) -> None:
        """Take over what an earlier run has left, and hear of requests from now on."""
        now = self._clock.now()
        for approval_id, said in self._store.load().items():
            try:
                closed = said["event"] == messages.CLOSED and bool(said["id"])
                message = said if closed else messages.closed_by_restart(said, now)
                self._add(_Notice(approval_id, None, message, _CLOSE, kept=closed, heard=True))
            except (KeyError, TypeError):  # a damaged row
                self._add(_Notice(approval_id, None, {}, _FORGET))
        if fault := self._courier.check():
            log.error("approval_notifier_unusable", reason=fault)
        on_shown(self._wanted)
        on_over(self._over)

    def __len__(self) -> int:
        """How many wait to be delivered."""
        return sum(each.todo in {_TELL, _CLOSE} for each in self._todo.values())

    def _wanted(self, task: Task) -> None:
        with _beside():
            assert task.approval is not None
            message = messages.wanted(task, self._node, self._clock.now())
            owner = self._user_of(task.owner) if isinstance(task.owner, int) else task.owner
            self._add(_Notice(task.approval.request.id, owner, message, _TELL))

    def _over(self, task: Task) -> None:
        with _beside():
            self._close(task)

    def _close(self, task: Task) -> None:
        notice = None if task.approval is None else self._notices.get(task.approval.request.id)
        if notice is None or notice.todo == _FORGET:
            return
        notice.tried, notice.due, notice.kept = 0, 0.0, False
        if notice.heard:
            notice.message = messages.closed(task, self._node, self._clock.now())
            self._have(notice, _CLOSE)
        else:  # who has not heard of it need not
            self._have(notice, _FORGET)

    def _add(self, notice: _Notice) -> None:
        kept = [each for each in self._notices.values() if each.todo != _FORGET]
        theirs = [each for each in kept if each.owner == notice.owner and notice.owner is not None]
        if len(theirs) >= NOTICES_PER_OWNER:
            self._drop(_least(theirs))
        elif len(kept) >= NOTICES:
            self._drop(_least(kept))
        self._notices[notice.approval_id] = notice
        self._have(notice, notice.todo)

    def _drop(self, notice: _Notice) -> None:
        self.results[DROPPED] += 1
        if self._logged.allow(DROPPED):
            log.error(
                "approval_notice_dropped",
                reason="too many notices wait to be delivered",
                approval=notice.approval_id,
                dropped=self.results[DROPPED],
            )
        self._audit.note("approval_notice_dropped", approval=notice.approval_id)
        notice.due = 0.0
        self._have(notice, _FORGET)

    def _have(self, notice: _Notice, todo: str) -> None:
        notice.todo = todo
        if todo:
            self._todo[notice.approval_id] = notice
        else:
            self._todo.pop(notice.approval_id, None)
        self._wake.set()

    # --- delivering -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                for notice in self._next():
                    self._begins(notice)
                    group.create_task(self._serve(notice))
                await self._wake.wait()

    def _next(self) -> list[_Notice]:
        """Those whose turn it is; an alarm wakes for the next one."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        now = self._clock.boot()
        idle = [each for each in self._todo.values() if not each.busy]
        due = [each for each in idle if each.due <= now]
        if len(due) < len(idle):
            self._alarm = self._alarms.at(min(each.due for each in idle if each.due > now), self._wake.set)
        room = NOTICES_AT_ONCE - self._running
        return self._in_turns(due)[:room] if room > 0 else []

    def _in_turns(self, due: "list[_Notice]") -> "list[_Notice]":
        """First one of each who asks, with none under way, whoever had his turn longest ago first; then the second of
        each.
        """
        ahead = Counter(each.owner for each in self._todo.values() if each.busy)
        placed = []
        for each in due:
            placed.append((ahead[each.owner], self._turns.get(each.owner, 0), each))
            ahead[each.owner] += 1
        return [each for *_, each in sorted(placed, key=lambda place: place[:2])]

    def _begins(self, notice: _Notice) -> None:
        notice.busy = True
        self._running += 1
        self._turn += 1
        self._turns[notice.owner] = self._turn
        if len(self._turns) > NOTICES:  # nobody else waits for a turn
            waiting = {each.owner for each in self._todo.values()}
            self._turns = {who: turn for who, turn in self._turns.items() if who in waiting}

    async def _serve(self, notice: _Notice) -> None:
        """Do one thing for a notice; what has changed meanwhile is done in its next turn."""
        todo, message = notice.todo, notice.message
        try:
            if todo == _FORGET:
                await self._store.forget(notice.approval_id)
                self._notices.pop(notice.approval_id, None)
                self._have(notice, "")
                return
            if not notice.kept:
                await self._store.keep(notice.approval_id, message)
            if notice.todo != todo or notice.message is not message:
                return
            notice.kept = notice.heard = True
            notice.tried += 1
            await self._courier.deliver(message)
        except SojournError as error:
            self._failed(notice, error)
        except Exception as error:
            log.exception("approval_notice_failed", approval=notice.approval_id)
            self._failed(notice, error)
        else:
            self.results[DELIVERED] += 1
            if notice.todo == todo:
                self._have(notice, "" if todo == _TELL else _FORGET)
        finally:
            notice.busy = False
            self._running -= 1
            self._wake.set()

    def _failed(self, notice: _Notice, error: Exception) -> None:
        self.results[FAILED] += 1
        pause = min(NOTICE_RETRY_SECONDS * 2 ** min(max(0, notice.tried - 1), 16), NOTICE_RETRY_MAX_SECONDS)
        notice.due = self._clock.boot() + pause * (0.5 + self._chance())
        if isinstance(error, SojournError) and self._logged.allow(FAILED):
            log.warning(
                "approval_notice_not_delivered",
                reason=error.public,
                detail=error.detail or None,
                approval=notice.approval_id,
                tried=notice.tried,
            )


@contextmanager
def _beside() -> Iterator[None]:
    """Whatever goes wrong with a notice, the request goes on."""
    try:
        yield
    except Exception:
        log.exception("approval_notice_failed")


def _least(some: list[_Notice]) -> _Notice:
    """The one that is missed least: the oldest of a request that is over, else the oldest."""
    return next((each for each in some if each.todo == _CLOSE), some[0])
