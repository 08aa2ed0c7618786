"""People whom tasks are for, the tokens that they are shown by, and task types that take them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.people import table
from fakes.task_types import PERMIT_ALL, TRIAGE, task_type
from sojourn.errors.people import PersonRefused
from sojourn.people.id_jag import IdJag
from sojourn.people.issuer_rules import IssuerRules
from sojourn.people.person import Person
from sojourn.policy.task_types import TaskType
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.for_person import ForPerson
from sojourn.tasktoken.person_claims import PersonClaims

CORP = "https://kc.example.org/realms/corp"
LIFE = 300  # seconds of a token
IN_SUPPORT = (
    '@id("support") permit (principal, action, resource)'
    ' when { principal has user && principal.user in Sojourn::Group::"corp/support" };'
)


def issuer_rules(**changes: Any) -> IssuerRules:
    """Of `corp`; `changes` are keys of its table."""
    return IssuerRules.of("corp", table(issuer=CORP, **changes))


ISSUERS = {"corp": CORP}


@contextmanager
def refused(code: str) -> Iterator[Any]:
    """Within it a PersonRefused of this code is raised; what it is of stands in `value` of what this gives."""
    with pytest.raises(PersonRefused) as raised:
        yield raised
    assert code == raised.value.code


def person(subject: str = "alice", **changes: Any) -> Person:
    """Somebody of `corp`, logged in a minute ago when a fake clock begins."""
    begun = int(FakeClock().now().timestamp())
    said: dict[str, Any] = {
        "issuer": "corp",
        "url": CORP,
        "issued_at": begun,
        "expires_at": begun + LIFE,
        "ends_at": changes.get("expires_at", begun + LIFE),
        "session": f"session-of-{subject}",
        "auth_time": begun - 60,
        "acr": "mfa",
        "amr": ("pwd", "otp"),
        "groups": ("support",),
        "claims": {"department": "toys"},
    }
    return Person(subject=subject, **{**said, **changes})


def good_until(whom: Person, expires_at: int, **changes: Any) -> Person:
    """The same by a token that expires then, and tasks with it."""
    return replace(whom, expires_at=expires_at, ends_at=expires_at, **changes)


def for_people(name: str = "for-people", cedar: str = PERMIT_ALL, **rule: Any) -> TaskType:
    """A task type for people: `rule` are keys of its [person]."""
    said = {"need": '"required"', "claims": '{department = "string"}', **rule}
    fields = ", ".join(f"{key} = {value}" for key, value in said.items() if value is not None)
    return task_type(name, cedar, params=None, person=f"{{{fields}}}")


@dataclass
class ScriptedTokens:
    """Says of each text in `people` whose it is, to the presenter that it is for; `asked` are those who asked."""

    people: dict[str, Person] = field(default_factory=dict)
    presenter: str = TRIAGE
    opaque: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, SpiffeId]] = field(default_factory=list)

    async def verify(self, text: str, token_type: str, presenter: SpiffeId) -> Person:
        self.asked.append((text, token_type, presenter))
        if text not in self.people:
            raise PersonRefused("unknown_issuer", "the token is of nobody")
        if str(presenter) != self.presenter:
            raise PersonRefused("wrong_presenter", "the token was given to another workload")
        return self.people[text]

    async def verify_id_jag(self, text: str, clients: Sequence[SpiffeId]) -> IdJag:
        raise PersonRefused("unknown_issuer", "no ID-JAG is of anybody")

    def is_issuer(self, url: str) -> bool:
        return url == CORP

    def may_be_opaque(self, text: str) -> bool:
        return text in self.opaque


def made_for(task: Any, claims: PersonClaims | None) -> Any:
    """A task that has begun, as if it were for this person since, and lived as long as it does; None: for nobody."""
    if claims is not None:
        whom = person(
            claims.subject, url=claims.issuer, auth_time=claims.auth_time, acr=claims.acr, amr=claims.amr, session=""
        )
        task.be_for(ForPerson(whom, "psn_made", task.deadline, task.deadline))
    return task
