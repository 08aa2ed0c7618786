"""What signed events do to people: their sessions end as by a logout, and their accounts are blocked as by an operator.

An account that is disabled stays blocked until its issuer enables it, or until an operator does. What an operator has
blocked no event unblocks. Events may come in another order than they happened: one of before the account was enabled
blocks nobody. Where both are of one second, the block counts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sojourn.errors import InvalidEvent
from sojourn.limits import PEOPLE_BLOCKED_BY_SIGNALS
from sojourn.quota.lru import Lru
from sojourn.ssf.caep import PersonAct
from sojourn.ssf.subjects import PeopleIssuer, Whose
from sojourn.tasks.end_people import EndPeople
from sojourn.tasks.kill_switch import KillSwitch


class PeopleSignals:
    """Does what events say to the people whom tasks are for."""

    def __init__(self, ending: EndPeople, switch: KillSwitch) -> None:
        self._ending = ending
        self._switch = switch
        # When who was enabled last, by source and pseudonym. What is forgotten of it lets one block more.
        self._enabled: Lru[tuple[str, str], int] = Lru(PEOPLE_BLOCKED_BY_SIGNALS)

    def check(self, people: PeopleIssuer, acts: Sequence[PersonAct], tasks: Sequence[tuple[str, Whose]]) -> None:
        """Raise InvalidEvent if an event names the session or the task of one person with the subject of another."""
        for act in acts:
            whose = act.whose
            both = whose.session and whose.subject
            if both and self._ending.is_of_another(people.name, whose.session, whose.subject):
                raise InvalidEvent("the event names one person, and the session of another")
        for task, whose in tasks:
            if self._ending.is_task_of_another(people.name, task, whose.subject):
                raise InvalidEvent("the event names one person, and a task that is not for them")

    def pseudonym_of(self, people: PeopleIssuer, subject: str) -> str:
        """What facts and records call somebody."""
        return self._ending.pseudonym_of(people.name, subject)

    async def apply(self, people: PeopleIssuer, act: PersonAct, source: str, by: Mapping[str, Any]) -> None:
        """Do one of these things; it is on disk when this returns.

        Raise NotOnDisk or what the store does: what takes away is in force then, and may come again to be written.
        """
        at = int(act.happened_at.timestamp())
        if act.deed == "end":
            said = {**by, "source": source, "event": act.event}
            await self._ending.end(people.name, session=act.whose.session, subject=act.whose.subject, at=at, by=said)
            return
        person = self.pseudonym_of(people, act.whose.subject)
        key = (source, person)
        if act.deed == "block":
            if at >= (self._enabled.get(key) or 0):
                await self._switch.block_by_signal(person, act.event, source, at, by)
            return
        self._enabled.put(key, max(at, self._enabled.get(key) or 0))
        await self._switch.unblock_by_signal(person, source, at, by)
