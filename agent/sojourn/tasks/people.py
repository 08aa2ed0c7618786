"""The people whom tasks are for: which tokens of theirs a beginning takes, and whose task a use is of."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from sojourn.errors.people import PersonRefused
from sojourn.identity.entries import Entry
from sojourn.people.id_jag import IdJag
from sojourn.people.person import Person
from sojourn.policy import rules
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.begin import BeginRequest
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.task import Task
from sojourn.tasktoken.person_claims import NOBODY


class PeopleTokens(Protocol):
    """Verifies tokens of people."""

    async def verify(self, text: str, token_type: str, presenter: SpiffeId) -> Person:
        """What a token says of a person. Raise PersonRefused unless this workload may bring it, or InvalidToken."""
        ...

    async def verify_id_jag(self, text: str, clients: Sequence[SpiffeId]) -> IdJag:
        """What an ID-JAG says, which a client brings that has authenticated as one of these. Raise as `verify` does.

        It is good once: whoever takes it uses its `jti` up.
        """
        ...

    def is_issuer(self, url: str) -> bool:
        """Whether tokens with this `iss` are of people."""
        ...

    def may_be_opaque(self, text: str) -> bool:
        """Whether a text may be a person's access token that is no JWT."""
        ...


@dataclass(frozen=True, slots=True)
class PersonToken:
    """A token as it was brought, and as what: a token type of RFC 8693. It stays in memory, and is in no record."""

    unverified_text: str = field(repr=False)
    token_type: str


def digest_of(text: str) -> str:
    """The digest of a token, for records: SHA-256, lower-case hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class PeopleService:
    """Verifies what is brought for a beginning, before anything else is done for it."""

    def __init__(self, engine: TaskEngine, tokens: PeopleTokens) -> None:
        self._engine = engine
        self.tokens = tokens

    async def for_person(
        self, entries: Sequence[Entry], request: BeginRequest, brought: PersonToken | None
    ) -> BeginRequest:
        """The request, for the person whose token was brought by a caller with these identities; None: for nobody.

        It is for the one identity then that the token was verified for. Raises PersonRefused, or what the beginning
        would.
        """
        if brought is None:
            return request
        kind = self._engine.type_named(request.type_name)
        presenter = rules.entry_for(kind, entries, request.spiffe_id).spiffe_id
        if kind.person is None:  # said before anybody's issuer is asked for keys
            raise PersonRefused("person_not_taken", f"tasks of type {kind.name!r} are for nobody: bring no token")
        person = await self.tokens.verify(brought.unverified_text, brought.token_type, presenter)
        return replace(request, person=person, person_token=digest_of(brought.unverified_text), spiffe_id=presenter)


def check_expected(task: Task, expected: str, *, may_be_unnamed: bool = False) -> None:
    """Raise PersonRefused if a use that is for the person `expected` is of a task for another, or for nobody.

    Where a process may have tasks for several people, each use says whom it is for. `expected` is the name of their
    issuer in the configuration or its `iss`, a bar, and their `sub`. NOBODY: the use is for nobody, and so of no task
    that is for somebody, whatever its type. '': nobody said. `may_be_unnamed`: of what takes away, from which nobody is
    to be kept who says nothing.
    """
    person = task.person
    if expected == NOBODY:
        if person is not None:
            raise PersonRefused("wrong_person", "the task is for a person, and this use is for nobody")
    elif expected:
        if person is None or expected not in {person.name, f"{person.url}|{person.subject}"}:
            raise PersonRefused("wrong_person", "the task is not for the person whom this use is for")
    elif person is not None and not may_be_unnamed and (task.type.person is None or task.type.person.several):
        raise PersonRefused(
            "person_not_named",
            f"tasks of type {task.type.name!r} may be for several people at once: say whom this use is for"
            " (expect_person, `sojourn.acting_for`)",
        )
