"""The person whom a task is for, and until when their token lets it live. A value: what is newer takes its place."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from sojourn.errors import InvalidInput
from sojourn.jose.canonical_json import exactly
from sojourn.people.person import Person
from sojourn.runtime.clock import Clock


@dataclass(frozen=True, slots=True)
class ForPerson:
    """Whom a task is for, as their last token says. No living task gains a person, or has another one than before.

    `pseudonym` is what records call them. Both times are of the boot clock: at `ends` the task ends by that token;
    `longest` is until when it may live, however often that is renewed. `token` is the digest of the token, which only
    this run of the agent knows.
    """

    person: Person
    pseudonym: str
    ends: float
    longest: float
    token: str = ""

    @property
    def latest(self) -> float:
        """When the task ends, at the latest, unless the token is renewed."""
        return min(self.ends, self.longest)

    def renewed(self, person: Person, ends: float, token: str) -> "ForPerson":
        """The same with a newer token, which lets nothing more be done than the ones before it. What was bound to a key
        stays bound to one.
        """
        bound = replace(person.no_more_than(self.person), key=person.key or self.person.key)
        return replace(self, person=bound, ends=ends, token=token)

    def by_token_alone(self) -> "ForPerson":
        """The same, but the task ends with the token at the latest."""
        person = self.person.by_token_alone()
        return replace(self, person=person, ends=self.ends - (self.person.ends_at - person.ends_at))

    def sharing(self, others: Iterable["ForPerson | None"]) -> "ForPerson":
        """The same, which has in common with one of the others what both say: there may be many tasks by one token."""
        for each in others:
            if each is not None and (each.token, each.pseudonym, each.person) == (
                self.token,
                self.pseudonym,
                self.person,
            ):
                return replace(each, ends=self.ends, longest=self.longest)
        return self

    def no_longer_than(self, longest: float) -> "ForPerson":
        """The same, but no renewal prolongs the task beyond this."""
        return replace(self, longest=min(self.longest, longest))

    def over(self) -> "ForPerson":
        """Whom a task was for that has ended: who they are, and nothing of what they may."""
        return replace(self, person=self.person.bare())

    def document(self, *, live: bool) -> dict[str, Any]:
        """As JSON, which `read` reads while the task lives; then there is nothing left that says who it was."""
        if not live:
            return {"issuer": self.person.issuer, "pseudonym": self.pseudonym}
        return {
            **self.person.document(),
            "pseudonym": self.pseudonym,
            "ends": self.ends,
            "longest": self.longest,
        }

    def told(self) -> dict[str, Any]:
        """As the message of a task has it; `until`: when the token ends, in seconds since the epoch."""
        person = self.person
        said = {"issuer": person.issuer, "iss": person.url, "subject": person.subject, "acr": person.acr}
        return {**said, "auth_time": person.auth_time, "until": person.ends_at}

    @classmethod
    def read(cls, document: Any) -> "ForPerson":
        """Read it again, strictly. Raises whatever it meets if it is not as it must be."""
        pseudonym = exactly(str, document["pseudonym"])
        if not pseudonym:
            raise InvalidInput("whom the task is for has no pseudonym")
        ends, longest = exactly(float, document["ends"]), exactly(float, document["longest"])
        return cls(Person.read(document), pseudonym, ends, longest)


def ends_of(person: Person, clock: Clock) -> float:
    """When tasks end by the token that tells of a person, on the boot clock."""
    return clock.boot() + person.ends_at - clock.now().timestamp()


def same_person(one: ForPerson | None, other: ForPerson | None) -> bool:
    """Whether two tasks are for one person, or both for nobody."""
    if one is None or other is None:
        return one is other
    return one.person.is_same(other.person)


def bare_document(document: dict[str, Any]) -> dict[str, Any]:
    """The document of a task that has ended, without what its person was told by, whatever is wrong with it."""
    person = document.get("person")
    if person is None:
        return document
    kept = {name: person[name] for name in ("issuer", "pseudonym") if name in person} if type(person) is dict else {}
    return {**document, "person": kept}


def ids_of(whom: ForPerson | None) -> tuple[str, ...]:
    """By what facts are about whoever a task is for: their pseudonym; none, if it is for nobody."""
    return () if whom is None else (whom.pseudonym,)
