"""Asking issuers again and again whether the tokens of people are active, for as long as tasks live by them.

The text of a token is in the memory of this run of the agent, and nowhere else: until no task lives by it, or it has
expired. A token that is not active ends the tasks that live by it. While the issuer does not answer they go on for the
grace that is configured, are suspended then, and end after ten times that.
"""

import asyncio
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

import structlog

from sojourn.errors import LimitExceeded, SojournError
from sojourn.errors.people import PersonRefused
from sojourn.limits import (
    PERSON_RECHECK_ENDS_AFTER,
    PERSON_RECHECKS_AT_ONCE,
    PERSON_TOKEN_UNUSED_SECONDS,
    PERSON_TOKENS_UNUSED,
)
from sojourn.people.issuer_rules import IssuerRules
from sojourn.people.person import Person
from sojourn.runtime.background import Background
from sojourn.runtime.clock import Alarm, Alarms
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.for_person import ends_of
from sojourn.tasks.mass_end import end_all
from sojourn.tasks.people import digest_of
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasks.task import PENDING, REVOKED, Task
from sojourn.tasktoken.end_reasons import PERSON_UNCHECKED, RECHECK, SESSION_ENDED

log = structlog.get_logger()


class Asked(Protocol):
    """An issuer that is asked about tokens."""

    @property
    def rules(self) -> IssuerRules: ...

    async def is_active(self, text: str, person: Person) -> bool:
        """Raise PersonRefused if it does not say."""
        ...


@dataclass(slots=True, eq=False)
class _Watched:
    """A token that its issuer is asked about. Times are of the boot clock.

    It expires at `ends`. Its issuer answered well to a question that was put at `since`. `is_late`: it has not answered
    for too long.
    """

    issuer: Asked
    person: Person
    text: str = field(repr=False)
    ends: float
    since: float = -inf
    is_late: bool = False
    is_asked: bool = False  # a question is under way
    unanswered: bool = False  # the last one had no answer
    again: Alarm | None = None  # when it is asked next
    late: Alarm | None = None  # when something is done since it has not answered
    unused: Alarm | None = None  # when it is forgotten unless a task lives by it

    def cancel(self) -> None:
        for each in (self.again, self.late, self.unused):
            if each is not None:
                each.cancel()


class PersonRechecks:
    """Watches tokens, by their digests."""

    def __init__(self, engine: TaskEngine, changing: TaskChanges, alarms: Alarms) -> None:
        self._engine = engine
        self._changing = changing
        self._alarms = alarms
        self._watched: dict[str, _Watched] = {}
        self._at_once: dict[str, asyncio.Semaphore] = {}  # by issuer: nobody waits for the answers of another
        self._unused: dict[str, set[str]] = {}  # by who brought them: tokens by which perhaps nothing lives yet
        self._background = Background("person_recheck_failed")
        engine.tasks.people.on_left(self._left)

    def __len__(self) -> int:
        return len(self._watched)

    def note(self, issuer: Asked, person: Person, text: str, presenter: str, since: float) -> None:
        """The issuer has said that a token is active: it is asked again while a task lives by it.

        It was asked at `since`, by the boot clock, as `presenter` brought the token. Raise LimitExceeded for one who
        brings many, and begins nothing by them.
        """
        digest = digest_of(text)
        watched = self._watched.get(digest)
        if watched is None:
            self._check_room(presenter)
            ends = ends_of(person.by_token_alone(), self._engine.clock)
            watched = self._watched[digest] = _Watched(issuer, person, text, ends)
            self._unused.setdefault(presenter, set()).add(digest)
            watched.unused = self._alarms.after(PERSON_TOKEN_UNUSED_SECONDS, self._forget_unused, digest, presenter)
        self._answered(digest, watched, since)

    def check(self, person: Person, token: str) -> None:
        """Raise PersonRefused if a person's issuer is to be asked about tokens, and has not answered about this one."""
        watched = self._watched.get(token)
        if person.rechecked and (watched is None or watched.is_late):
            raise PersonRefused("issuer_unavailable", "the issuer has not said lately that the token is active")

    def close(self) -> None:
        """The agent stops: ask no more, and forget all texts."""
        for digest in list(self._watched):
            self._forget(digest)

    # --- what is kept -----------------------------------------------------------------------------------------------

    def _check_room(self, presenter: str) -> None:
        unused = self._unused.get(presenter, set())
        if len(unused) >= PERSON_TOKENS_UNUSED:
            unused -= {each for each in unused if each not in self._watched or self._roots(each, self._watched[each])}
        if len(unused) >= PERSON_TOKENS_UNUSED:
            raise LimitExceeded(f"{PERSON_TOKENS_UNUSED} tokens were brought just now by which nothing has begun")

    def _forget_unused(self, digest: str, presenter: str) -> None:
        unused = self._unused.get(presenter, set())
        unused.discard(digest)
        if not unused:
            self._unused.pop(presenter, None)
        self._left(digest)

    def _left(self, digest: str) -> None:
        """A task does not live by a token any more, or perhaps none ever will: the last one takes the text along."""
        watched = self._watched.get(digest)
        if watched is not None and not self._roots(digest, watched):
            self._forget(digest)

    def _forget(self, digest: str) -> None:
        watched = self._watched.pop(digest, None)
        if watched is not None:
            watched.text = ""
            watched.cancel()

    def _roots(self, digest: str, watched: _Watched) -> list[Task]:
        """The live tasks that live by a token. What was handed on follows those."""
        theirs = self._engine.tasks.people.of_person(watched.person.url, watched.person.subject)
        return [task for task in theirs if task.whom is not None and task.whom.token == digest and not task.parent_id]

    # --- questions and answers --------------------------------------------------------------------------------------

    def _begin_asking(self, digest: str) -> None:
        self._background.run(self._ask(digest))

    async def _ask(self, digest: str) -> None:
        """Ask once, if there is still something to ask about, and see to it that it is asked again."""
        watched = self._watched.get(digest)
        if watched is None:
            return
        if self._engine.clock.boot() >= watched.ends:  # the issuer says no more of it
            self._expired(digest, watched)
            return
        rules = watched.issuer.rules
        watched.again = self._alarms.after(min(rules.recheck, rules.recheck_grace / 4), self._begin_asking, digest)
        if watched.is_asked:
            return
        watched.is_asked = watched.unanswered = True
        try:
            active, since = await self._answer(digest, watched)
        except SojournError:  # it does not say; the log has why
            return
        finally:
            watched.is_asked = False
        if self._watched.get(digest) is not watched:
            return
        if active:
            self._answered(digest, watched, since)
        else:
            log.info("person_token_not_active", issuer=rules.name)
            await self._end(digest, watched, SESSION_ENDED)

    async def _answer(self, digest: str, watched: _Watched) -> tuple[bool, float]:
        """Whether the token is active, and when that was asked. Raise SojournError if the issuer does not say."""
        async with self._at_once.setdefault(watched.issuer.rules.name, asyncio.Semaphore(PERSON_RECHECKS_AT_ONCE)):
            if self._watched.get(digest) is not watched:  # while others had their turns
                raise PersonRefused("issuer_unavailable", "nothing lives by the token any more")
            since = self._engine.clock.boot()
            return await watched.issuer.is_active(watched.text, watched.person), since

    def _answered(self, digest: str, watched: _Watched, since: float) -> None:
        """The token was active then: all goes on, and what was suspended for want of an answer comes back."""
        if since < watched.since:  # a newer answer is there already
            return
        rules = watched.issuer.rules
        watched.since, watched.is_late, watched.unanswered = since, False, False
        for each in (watched.again, watched.late):
            if each is not None:
                each.cancel()
        watched.again = self._alarms.at(since + rules.recheck, self._begin_asking, digest)
        watched.late = self._alarms.at(since + rules.recheck + rules.recheck_grace, self._suspend, digest)
        for task in self._roots(digest, watched):
            if RECHECK in task.suspensions:
                self._background.run(self._resume(task))

    def _expired(self, digest: str, watched: _Watched) -> None:
        """Where tasks outlive the token they go on, if its issuer's last word was that it was active."""
        if watched.unanswered and self._roots(digest, watched):
            watched.text = ""  # they are suspended and end, as `late` has it
        else:
            self._forget(digest)

    # --- what comes of it -------------------------------------------------------------------------------------------

    def _suspend(self, digest: str) -> None:
        """The issuer has not answered for the whole of the grace."""
        watched = self._watched.get(digest)
        if watched is None:
            return
        grace = watched.issuer.rules.recheck_grace
        watched.is_late = True
        watched.late = self._alarms.after((PERSON_RECHECK_ENDS_AFTER - 1) * grace, self._give_up, digest)
        for task in self._roots(digest, watched):
            if task.state != PENDING:  # which has no authority, and gets none before the issuer has answered
                self._changing.hold(task, RECHECK, PERSON_UNCHECKED)

    def _give_up(self, digest: str) -> None:
        watched = self._watched.get(digest)
        if watched is not None:
            self._background.run(self._end(digest, watched, PERSON_UNCHECKED))

    async def _end(self, digest: str, watched: _Watched, reason: str) -> None:
        tasks = self._roots(digest, watched)
        self._forget(digest)
        await end_all(self._engine, tasks, REVOKED, reason)

    async def _resume(self, task: Task) -> None:
        try:
            await self._changing.resume(task, RECHECK)
        except SojournError as error:  # it has ended, or something else was against it
            log.info("task_not_resumed", task_id=task.id, reason=error.public)
