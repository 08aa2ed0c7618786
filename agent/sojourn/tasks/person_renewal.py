"""Renewing the token of the person whom a task is for: it lives longer by that, and never gets more.

The newer token is of the same person and the same session. Policy is asked again with what it says; what policy denies
now is gone, of what was handed on as well.
"""

import asyncio
from contextlib import suppress
from copy import copy
from typing import Any

from sojourn.audit.journal import Event
from sojourn.errors import Bug, FailedPrecondition, InvalidInput
from sojourn.errors.people import PersonRefused
from sojourn.people.person import Person
from sojourn.policy import person_rules, rules
from sojourn.runtime.background import Background
from sojourn.tasks.begin import told_of
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.for_person import ForPerson, ends_of
from sojourn.tasks.people import PeopleTokens, PersonToken, digest_of
from sojourn.tasks.shadow_policy import Decided
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasks.task import ACTIVE, REVOKED, SUSPENDED, Task
from sojourn.tasks.task_record import TaskRecord
from sojourn.tasks.transitions import Transition, grant
from sojourn.tasktoken.end_reasons import POLICY_CHANGED, RECHECK
from sojourn.tasktoken.grants import Authority


class Renew(Transition):
    """A task has a newer token of its person."""

    def __init__(self, engine: TaskEngine, task: Task, person: Person, token: str) -> None:
        """`token`: its digest."""
        super().__init__(engine, task)
        self._person = person.in_task()
        self._ends = ends_of(person, engine.clock)
        self._token = token

    def check(self) -> None:
        check_unended(self.engine, self.task)
        check_same(self.task, self._person)
        self.engine.standing.check(self._person, self._token)

    def decide(self, _decided: Decided) -> Authority:
        """What policy leaves for the person as they are now. A suspended task is decided on when it is resumed."""
        if self.task.state != ACTIVE:
            return self.wanted
        after = self._after(self.task.authority)
        decided = self.engine.decided(after)
        return rules.still_allowed(after.type, decided.principal, self.wanted, decided.context, decided)

    def left(self, authority: Authority) -> None:
        if not authority.grants:
            self.engine.end(self.task, REVOKED, POLICY_CHANGED)
            self.task.check_live(self.engine.clock.boot())
        self.authority = authority

    def record(self) -> TaskRecord:
        return self._after(self.authority).record()

    def event(self, _decided: Decided) -> Event:
        decided = self.engine.decided(self._after(self.authority))
        shown: dict[str, Any] = {"token": self._token, "presenter": str(self.task.spiffe_id), **told_of(self._person)}
        shown |= {"until": self._person.expires_at, **decided.record()}
        return self.engine.event("person_renewed", self.task, **shown)

    def make_true(self, _decided: Decided) -> None:
        """With all that came of the task, whose person it is too."""
        for each in (self.task, *self.engine.family.descendants(self.task)):
            self.engine.deadlines.forget(each)
            each.be_for(self._whom(each))
            self.engine.tasks.people.renewed(each)
            self.engine.deadlines.watch(each)

    def denied(self) -> None:
        self.engine.journal.later(self.task.record(), None)  # it goes on as before, by the token that it has

    def _after(self, authority: Authority) -> Task:
        after = copy(self.task)
        after.be_for(self._whom(after))
        after.give(authority)
        return after

    def _whom(self, task: Task) -> ForPerson:
        if task.whom is None:
            raise Bug("the token of nobody was to be renewed")
        return task.whom.renewed(self._person, self._ends, self._token)


class PersonRenewal:
    """Renews persons' tokens."""

    def __init__(self, engine: TaskEngine, changing: TaskChanges, tokens: PeopleTokens) -> None:
        self._engine = engine
        self._changing = changing
        self._tokens = tokens
        self._background = Background("person_renewal_failed")

    async def renew(self, task: Task, brought: PersonToken) -> None:
        """Have the task go on by a newer token of its person, which its workload brought. One that is not newer changes
        nothing, but that a task is resumed which waited for the issuer's word on one.

        Raises PersonRefused, PolicyDenied, TaskOver, or what the store raises: the task goes on as before then, or is
        over. It goes on although the caller goes away meanwhile.
        """
        check_unended(self._engine, task)
        person = await self._tokens.verify(brought.unverified_text, brought.token_type, task.spiffe_id)
        await self.renew_verified(task, person, digest_of(brought.unverified_text))

    async def renew_verified(self, task: Task, person: Person, token: str) -> None:
        """The same by what was verified for the task's workload. `token`: the digest of the person's token."""
        await asyncio.shield(self._background.run(self._renew(task, person, token)))

    async def _renew(self, task: Task, person: Person, token: str) -> None:
        check_unended(self._engine, task)
        check_same(task, person)
        person_rules.check_person(task.type, person, self._engine.clock.now().timestamp())
        waits = RECHECK in task.suspensions
        if task.whom is None or task.whom.token == token:
            await self._come_back(task)
            return
        if person.expires_at <= task.whom.person.expires_at and not waits:
            return
        if task.whom.person.rechecked and not person.rechecked:  # an ID-JAG: the issuer would be asked no more
            return
        person_rules.check_details(task.type, person.details, task.authority, task.params)
        if task.parent_id:
            raise InvalidInput("the task was handed on: who handed it on renews the person's token for both")
        change = Renew(self._engine, task, person, token)
        await grant(change)
        if waits:
            await self._come_back(task)
        elif change.authority != task.authority:
            self._changing.take(task, change.authority, POLICY_CHANGED)
        else:
            self._engine.announcements.tell_holder(task)
        for each in self._engine.family.descendants(task):
            if each.live:
                self._decide_child(task, each)

    async def _come_back(self, task: Task) -> None:
        """Resume a task that waited for the issuer's word on a token. It may be resumed already, by that very word."""
        with suppress(FailedPrecondition):
            await self._changing.resume(task, RECHECK)

    def _decide_child(self, root: Task, task: Task) -> None:
        """Take away of what was handed on what policy denies for its person as they are now."""
        engine = self._engine
        engine.journal.later(task.record(), engine.event("person_renewed", task, by=root.id))
        if task.state != ACTIVE:  # it is decided when it comes back
            return
        decided = engine.decided(task)
        left = rules.still_allowed(task.type, decided.principal, task.authority, decided.context, decided)
        if not left.grants:
            engine.end(task, REVOKED, POLICY_CHANGED)
        elif left != task.authority:
            self._changing.take(task, left, POLICY_CHANGED)

    async def quiet(self) -> None:
        """Return when no renewal is under way."""
        await self._background.quiet()


def check_unended(engine: TaskEngine, task: Task) -> None:
    """Raise TaskOver unless a task is active or suspended, ApprovalRequired for one that has not begun."""
    if task.state == SUSPENDED:
        engine.end_what_is_over(task)
        task.check_live(engine.clock.boot())
    else:
        engine.check_active(task)


def check_same(task: Task, person: Person) -> None:
    """Raise PersonRefused unless a newer token is of the person, and the session, that a task is for."""
    before = task.person
    if before is None:
        raise PersonRefused("person_not_taken", "the task is for nobody, and gains no person while it lives")
    if not before.is_same(person) or (before.session and person.session != before.session):
        raise PersonRefused("other_person", "the token is of another person, or of another session, than the task")
    if person.issued_at < before.issued_at:
        raise PersonRefused("too_old", "the token is older than the one that the task has")
