"""`with sojourn.acting_for(token)`: for whom a request is handled, so that no task of somebody else is used for it.

Where one process has tasks for several people, a wrong task ID would give one person what is another's. Each use of a
task within the block says for whom it is, and the agent refuses it unless the task is theirs. Guards begin such a block
for each request that they let in, by its token.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from sojourn.errors import InvalidInput
from sojourn.errors.people import PersonRefused
from sojourn.sdk.task.values import TaskPerson
from sojourn.tasktoken.person_claims import NOBODY, PersonClaims

_UNSAID: Final = ""
_acting: ContextVar[str] = ContextVar("sojourn_acting_for", default=_UNSAID)


@contextmanager
def acting_for(whom: Any) -> Iterator[None]:
    """Have each use of a task within the block be for this person: raise WrongPerson where the task is not theirs.

    `whom`: a verified task token of the caller, whose person it is; what a task says of its person; or a person's name,
    ISSUER|SUBJECT, the issuer by its name in the agent's configuration or its `iss`. It goes with the context, as
    `current_task` does: asyncio tasks have their own, and threads that were started with a copy. Raise InvalidInput for
    a token that is for nobody.
    """
    before = _acting.set(name_of(whom))
    try:
        yield
    finally:
        _acting.reset(before)


@contextmanager
def acting_for_nobody() -> Iterator[None]:
    """Have each use of a task within the block be for nobody, whatever block is around it: raise WrongPerson where the
    task is for somebody.

    For what a service does on its own account while it handles somebody's request: by its own task, which is for no
    person. What is for a person after all, such as a task that is begun for whoever logs in on a public route, stands
    in `acting_for(task.person)`.
    """
    before = _acting.set(NOBODY)
    try:
        yield
    finally:
        _acting.reset(before)


@contextmanager
def acting_for_request(person: PersonClaims | None) -> Iterator[None]:
    """The block around a request that a guard has let in: for the person of its token; None: as `acting_for_nobody`.

    Whomever the context had before, the request does not have: a server may begin a request in the context of the one
    before it on the same connection.
    """
    with acting_for_nobody() if person is None else acting_for(person):
        yield


def act_from_here(person: PersonClaims | None) -> None:
    """The same for the rest of this context, which is one request's alone."""
    _acting.set(NOBODY if person is None else name_of(person))


def go_on_for(said: str) -> None:
    """Have what comes within the block around be for whom `expected` said before."""
    _acting.set(said)


def name_of(whom: Any) -> str:
    """What a use says of whom it is for."""
    if isinstance(whom, str):
        issuer, bar, subject = whom.partition("|")
        if not (issuer and bar and subject):
            raise InvalidInput("a person is named ISSUER|SUBJECT: who has this subject depends on the issuer")
        return whom
    if isinstance(whom, TaskPerson):
        return whom.name
    if isinstance(whom, PersonClaims):
        return f"{whom.issuer}|{whom.subject}"
    of_token = getattr(whom, "person", None)
    if isinstance(of_token, PersonClaims | TaskPerson):
        return name_of(of_token)
    raise InvalidInput("the token is for nobody: nothing says for whom the request is handled")


def expected(named: str = _UNSAID) -> str:
    """Whom a use is for that names them itself, or else the block around it. NOBODY: it is for nobody; '': that was not
    said.
    """
    return named or _acting.get()


def check(person: TaskPerson | None) -> None:
    """Raise PersonRefused if a use here is not for the person whom its task is for: before what the agent was asked
    once is used again. The agent looks at each use that it hears of.
    """
    said = expected()
    if said == NOBODY:
        if person is not None:
            raise PersonRefused(
                "wrong_person",
                "the task is for a person, and what is done here for nobody: say whom by `with sojourn.acting_for`",
            )
    elif said and (person is None or said not in {person.name, f"{person.iss}|{person.subject}"}):
        raise PersonRefused("wrong_person", "the task is not for the person whom this use is for")
    elif not said and person is not None and person.several:
        raise PersonRefused(
            "person_not_named", "this process may have tasks for several people: say whom by `with sojourn.acting_for`"
        )
