"""Reviews of broken glass: each break-glass task must be looked at before the next of its type may begin."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from sojourn.audit.journal import Audit, Event
from sojourn.errors import LimitExceeded, NotFound, PolicyDenied, ReviewOwed, SojournError
from sojourn.limits import REVIEWS_OWED
from sojourn.policy.approval_request import Person

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Review:
    """One that is owed. The rest is of the task; `uid`, `login_uid` and `subuid_of` are of whoever broke the glass."""

    task_id: str
    type: str
    spiffe_id: str
    uid: int
    login_uid: int | None
    pid: int
    since: int  # seconds since the epoch
    subuid_of: int | None = None

    @property
    def person(self) -> Person:
        return Person(self.uid, self.login_uid, self.pid, subuid_of=self.subuid_of)


class ReviewStore(Protocol):
    """Where they are kept, all together, each change with its audit record."""

    async def save(self, values: Sequence[Review], event: Event) -> None: ...


class Reviews:
    """All that are owed. They outlive the agent."""

    def __init__(self, store: ReviewStore, owed: Sequence[Review], audit: Audit) -> None:
        self._store = store
        self._audit = audit
        self._owed = {review.task_id: review for review in owed}
        self._turn = asyncio.Lock()

    def all(self) -> list[Review]:
        """The oldest first."""
        return sorted(self._owed.values(), key=lambda review: (review.since, review.task_id))

    def check(self, type_name: str) -> None:
        """Raise ReviewOwed if a task of this type has to be looked at first."""
        owed = next((review for review in self._owed.values() if review.type == type_name), None)
        if owed is not None:
            raise ReviewOwed(
                f"a review of break-glass task {owed.task_id} is owed before the next of type {type_name!r}: when it is"
                f" over, someone else does `sojourn review done {owed.task_id} --finding TEXT`"
            )

    async def owe(self, review: Review) -> None:
        """Have a review owed from now on. Raise ReviewOwed if one of the type is, and what the store raises."""
        async with self._turn:
            self.check(review.type)
            if len(self._owed) >= REVIEWS_OWED:
                raise LimitExceeded(f"more than {REVIEWS_OWED} reviews are owed")
            await self._save([*self._owed.values(), review], "review_owed", review)
            self._owed[review.task_id] = review

    async def withdraw(self, review: Review) -> None:
        """The glass was not broken after all. If that cannot be written the review stays owed."""
        async with self._turn:
            left = [each for each in self._owed.values() if each is not review]
            try:
                await self._save(left, "review_withdrawn", review)
            except SojournError as error:
                log.error("review_not_withdrawn", task_id=review.task_id, reason=error.public)
                return
            self._owed.pop(review.task_id, None)

    async def complete(self, task_id: str, finding: str, person: Person) -> None:
        """Someone has looked. Raise NotFound, PolicyDenied if they looked at themselves, and what the store raises."""
        async with self._turn:
            review = self._owed.get(task_id)
            if review is None:
                raise NotFound("no review of such a task is owed")
            if person.is_also(review.person):
                raise PolicyDenied("nobody reviews themselves: whoever broke the glass has the same user or login")
            left = [each for each in self._owed.values() if each is not review]
            by = {**person.record("by_"), "by_pid": person.pid}
            await self._save(left, "review_done", review, finding=finding, **by)
            del self._owed[task_id]

    async def _save(self, values: Sequence[Review], event: str, review: Review, **fields: object) -> None:
        named = {
            "task": review.task_id,
            "type": review.type,
            "spiffe_id": review.spiffe_id,
            **review.person.record(),
        }
        await self._store.save(values, self._audit.event(event, {**named, **fields}))
