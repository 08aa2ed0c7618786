"""acting.py: for whom a request is handled."""

import asyncio
import contextvars
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from sojourn.errors import InvalidInput
from sojourn.errors.people import PersonNotNamed, WrongPerson
from sojourn.sdk.task import acting
from sojourn.sdk.task.values import PersonToken, TaskPerson
from sojourn.tasktoken.person_claims import NOBODY, PersonClaims

CORP = "https://kc.example.org"
ALICE = TaskPerson("corp", "alice", None, "", datetime(2030, 1, 1, tzinfo=UTC), CORP)
OF_MANY = TaskPerson("corp", "alice", None, "", datetime(2030, 1, 1, tzinfo=UTC), CORP, several=True)


class Token:
    """A verified token, as far as it is read here."""

    def __init__(self, person: Any) -> None:
        self.person = person


@pytest.mark.parametrize(
    ("whom", "name"),
    [
        ("corp|alice", "corp|alice"),
        ("corp|auth0|alice", "corp|auth0|alice"),
        (ALICE, "corp|alice"),
        (PersonClaims(CORP, "alice"), f"{CORP}|alice"),
        (Token(PersonClaims(CORP, "alice")), f"{CORP}|alice"),
        (Token(ALICE), "corp|alice"),
    ],
)
def test_named(whom: Any, name: str) -> None:
    """Within the block each use is for the person, as the token, the task or the name says; outside for nobody."""
    assert "" == acting.expected()
    with acting.acting_for(whom):
        assert name == acting.expected()
        assert "corp|bob" == acting.expected("corp|bob")
    assert "" == acting.expected()


@pytest.mark.parametrize("whom", ["alice", "|alice", "corp|", "", NOBODY, None, Token(None), object(), 7])
def test_nobody(whom: Any) -> None:
    """What is of nobody, or does not say of which issuer somebody is, does not begin a block that nobody checks."""
    with pytest.raises(InvalidInput), acting.acting_for(whom):
        pass
    assert "" == acting.expected()


def test_checked() -> None:
    """A task is used for its own person alone: by the issuer's name or its `iss`, and by no other."""
    for whom in ("corp|alice", f"{CORP}|alice"):
        with acting.acting_for(whom):
            acting.check(ALICE)
            acting.check(OF_MANY)
    for whom in ("corp|bob", f"{CORP}/|alice", "partner|alice"):
        with acting.acting_for(whom):
            for person in (ALICE, OF_MANY, None):
                with pytest.raises(WrongPerson):
                    acting.check(person)


def test_must_be_said() -> None:
    """Outside of a block a task is used whose process has tasks for one person alone, or that is for nobody."""
    acting.check(ALICE)
    acting.check(None)
    with pytest.raises(PersonNotNamed):
        acting.check(OF_MANY)


def test_on_its_own_account() -> None:
    """A service does what is its own by its own task, whoever the request is of; by that of a person only where it says
    so, and not because that is the only person whom its process has a task for.
    """
    with acting.acting_for(ALICE):
        with acting.acting_for_nobody():
            acting.check(None)
            for person in (ALICE, OF_MANY):
                with pytest.raises(WrongPerson):
                    acting.check(person)
            with acting.acting_for(ALICE):
                acting.check(ALICE)
        assert "corp|alice" == acting.expected()


@pytest.mark.parametrize(("person", "name"), [(PersonClaims(CORP, "bob"), f"{CORP}|bob"), (None, NOBODY)])
def test_a_request(person: PersonClaims | None, name: str) -> None:
    """A request is of the person of its token, or of nobody: never of whoever the context was of before."""
    with acting.acting_for(ALICE):
        with acting.acting_for_request(person):
            assert name == acting.expected()
        inside = contextvars.copy_context()
        inside.run(acting.act_from_here, person)
        assert name == inside.run(acting.expected)
        assert "corp|alice" == acting.expected()


async def test_of_its_own_context() -> None:
    """Asyncio tasks beside each other have each its own person; a thread has it with a copy of the context alone."""

    async def one(name: str) -> str:
        with acting.acting_for(f"corp|{name}"):
            await asyncio.sleep(0)
            return acting.expected()

    assert ["corp|a", "corp|b"] == [*await asyncio.gather(one("a"), one("b"))]
    found = []
    with acting.acting_for("corp|alice"):
        assert "corp|alice" == await asyncio.to_thread(acting.expected)
        bare = threading.Thread(target=lambda: found.append(contextvars.Context().run(acting.expected)))
        bare.start()
        bare.join()
    assert [""] == found


def test_a_token_hides_itself() -> None:
    """The text of a person's token is in no representation of it."""
    for made in (PersonToken.id_token("secret"), PersonToken.access_token("secret")):
        assert "secret" not in repr(made)
        assert "secret" == made.message().token
