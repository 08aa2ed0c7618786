"""Ending what is done for people: their session has ended at its issuer, or an operator says so.

Taking away comes first, in memory: from then on no token of before begins a task, and those of that session end, with
all that was handed on. Then it is written, and only when that is on disk is anybody told that it is done. Should the
agent be killed between the two, the issuer hears that it was not; between the record of the session and those of its
tasks, the next start ends them.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sojourn.errors import InvalidInput, NotFound
from sojourn.people.ended_sessions import EndedSessions
from sojourn.people.issuer_rules import IssuerRules
from sojourn.people.person import Person
from sojourn.runtime.background import whole
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.mass_end import end_all
from sojourn.tasks.task import REVOKED, Task
from sojourn.tasktoken.end_reasons import SESSION_ENDED

_NOBODY: Mapping[str, Any] = MappingProxyType({})


class EndPeople:
    """Ends sessions of people, or all that was begun for them."""

    def __init__(self, engine: TaskEngine, sessions: EndedSessions, issuers: Mapping[str, IssuerRules]) -> None:
        """`issuers`: by their names in the configuration."""
        self._engine = engine
        self._sessions = sessions
        self._issuers = issuers

    def rules_of(self, issuer: str) -> IssuerRules:
        """Raise NotFound if the configuration has no issuer of this name."""
        rules = self._issuers.get(issuer)
        if rules is None:
            raise NotFound("the configuration has no [people.NAME] of this name")
        return rules

    def pseudonym_of(self, issuer: str, subject: str) -> str:
        """Of whoever has this `sub` at the issuer of this name. Raise NotFound, as `end` does."""
        return self._engine.pseudonyms.named(self.rules_of(issuer).url, subject)

    @whole
    async def end(
        self,
        issuer: str,
        *,
        session: str = "",
        subject: str = "",
        at: int | None = None,
        reason: str = SESSION_ENDED,
        explanation: str = "",
        by: Mapping[str, Any] = _NOBODY,
    ) -> Sequence[Task]:
        """End a session, or without one all that was begun for a person with tokens of until `at`, seconds since the
        epoch; None: until now, and with all tokens that live tasks have. Return the tasks that were live.

        `explanation`: an operator's words. `by`: who says so, for the audit. When this returns, it is on disk. Raise
        NotOnDisk if it is in force alone, NotFound for an issuer that there is not, or InvalidInput.
        """
        rules = self.rules_of(issuer)
        if not session and not subject:
            raise InvalidInput("neither a session nor a person is named")
        until = self._latest(rules.url, subject) if at is None else at
        self._sessions.end(rules.url, session=session, subject=subject, at=until, longest=rules.longest)
        found = self._of(rules.url, session, subject, until)
        await end_all(self._engine, found, REVOKED, reason, explanation)
        named = self._engine.pseudonyms.of(Person(issuer, rules.url, subject, 0, 0, 0)) if subject else None
        said = {"issuer": issuer, "person": named, "all": not session, "explanation": explanation or None}
        event = self._engine.audit.event("person_session_ended", {**said, "ended": len(found), **by})
        await self._sessions.settle([event])
        return found

    def is_of_another(self, issuer: str, session: str, subject: str) -> bool:
        """Whether a live task is of this session, and for somebody else. Raise NotFound, as `end` does."""
        people = self._engine.tasks.people
        found = people.of_session(self.rules_of(issuer).url, session)
        return any(task.person is not None and task.person.subject != subject for task in found)

    def is_task_of_another(self, issuer: str, task_id: str, subject: str) -> bool:
        """Whether a live task is for somebody else, or for nobody. Raise NotFound, as `end` does."""
        rules, task = self.rules_of(issuer), self._engine.tasks.find(task_id)
        if task is None or not task.live:
            return False
        return task.person is None or (task.person.url, task.person.subject) != (rules.url, subject)

    def _of(self, url: str, session: str, subject: str, until: int) -> list[Task]:
        """The live tasks that are of it. One whose token named no session may be of any of its person."""
        people = self._engine.tasks.people
        found = people.of_session(url, session) if session else []
        for task in people.of_person(url, subject) if subject else ():
            person = task.person
            if person is not None and person.issued_at <= until and not (session and person.session):
                found.append(task)
        return found

    def _latest(self, url: str, subject: str) -> int:
        """Now; or when the last token was issued, should the issuer's clock be ahead."""
        told = [task.person.issued_at for task in self._engine.tasks.people.of_person(url, subject) if task.person]
        return max([int(self._engine.clock.now().timestamp()), *told])
