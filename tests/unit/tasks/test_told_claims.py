"""What a service may read of the person that a task is for, beyond who it is: `tell_claims` of the task's type."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.persons import made_for
from fakes.task_room import Room
from fakes.task_types import TICKETS, WIKI, task_type
from sojourn.errors import InvalidInput, InvalidPolicy
from sojourn.limits import PERSON_TOLD_MAX_BYTES
from sojourn.tasks.task import Task
from sojourn.tasktoken.person_claims import PersonClaims

ALICE = PersonClaims("https://login.example.org", "alice", 1795800000, "urn:example:mfa", ("pwd",))
PEOPLE = '{need = "optional", claims = {department = "string", level = "long", staff = "boolean", exp = "long"}}'


def telling(claims: str, more: str = "", person: str | None = PEOPLE) -> Any:
    """A type that tells TICKETS these claims, as TOML, and WIKI none."""
    tickets = f'{{resource = "{TICKETS}", actions = ["ticket:read"], tell_claims = {claims}{more}}}'
    return task_type(ceiling=f'[{tickets}, {{resource = "{WIKI}", actions = ["page:read"]}}]', person=person)


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    types = {"triage": telling('["level", "groups", "department"]')}
    async with Room(FakeClock(), types).running() as running:
        yield running


async def begun(room: Room, person: PersonClaims | None = ALICE, **changes: Any) -> Task:
    """A task for somebody of `corp` in these groups, with these claims."""
    task: Task = made_for(await room.begin("triage"), person)
    if task.whom is not None:
        task.be_for(replace(task.whom, person=replace(task.whom.person, **changes)))
    return task


class TestTold:
    async def test_what_the_type_names(self, room: Room) -> None:
        """The service is told what the type names of what the issuer says, its groups with the issuer before them; and
        nothing of what is not named, nor of what the issuer does not say.
        """
        task = await begun(room, groups=("lead", "support"), claims={"department": "toys", "staff": True})
        token = await room.engine.token(task, TICKETS, ())
        assert token.person is not None
        told = {"groups": ("corp/lead", "corp/support"), "department": "toys"}
        assert (told, ALICE) == (token.person.claims, token.person._replace(claims={}))

    async def test_nobody_else_is_told(self, room: Room) -> None:
        """Another service of the same task is told none of it, nor is one of a task that is for nobody."""
        token = await room.engine.token(await begun(room), WIKI, ())
        assert (ALICE, False) == (token.person, "person" in token.claims)
        assert "support" not in str(token.claims)
        assert "person" not in (await room.engine.token(await begun(room, None), TICKETS, ())).claims

    async def test_as_they_are_now(self, room: Room) -> None:
        """After a renewal a token says what the newer one of the person's says; in no group is a list of none."""
        task = await begun(room)
        assert task.whom is not None
        task.be_for(replace(task.whom, person=replace(task.whom.person, groups=(), claims={"level": 3})))
        token = await room.engine.token(task, TICKETS, ())
        assert token.person is not None
        assert {"groups": (), "level": 3} == token.person.claims

    async def test_too_much_for_a_token(self, room: Room) -> None:
        """More than fits into a header is refused whole: of some groups a service would think that they are all."""
        task = await begun(room, groups=tuple(f"group-{number:05}" for number in range(PERSON_TOLD_MAX_BYTES // 20)))
        with pytest.raises(InvalidInput, match="tell_claims"):
            await room.engine.token(task, TICKETS, ())
        assert ALICE == (await room.engine.token(task, WIKI, ())).person


class TestTypes:
    @pytest.mark.parametrize(
        ("claims", "match"),
        [
            ('["salary"]', "no claim of"),
            ('["Department"]', "no claim of"),
            ('["exp"]', "what tokens say of themselves"),
            ('["CNF"]', "what tokens say of themselves"),
            ('["sub_id"]', "what tokens say of themselves"),
            ('["act"]', "what tokens say of themselves"),
            ('["person"]', "what tokens say of themselves"),
            ('["task"]', "what tokens say of themselves"),
            ('["sid"]', "what tokens say of themselves"),
            ('["level", "level"]', "twice"),
            ('["a b"]', "not a name"),
            ('"groups"', "tell_claims"),
        ],
    )
    def test_refused(self, claims: str, match: str) -> None:
        """A claim that the type does not declare is refused when it is read, and so is one that is called like one of
        a token's own, although it is declared.
        """
        with pytest.raises(InvalidPolicy, match=match):
            telling(claims)

    @pytest.mark.parametrize("tell", ["pairwise", "nothing"])
    def test_who_is_not_to_be_known(self, tell: str) -> None:
        """A resource that is not to know who it is is told no claims either: they would say it by other words."""
        with pytest.raises(InvalidPolicy, match="by other words"):
            telling('["department"]', f', tell = "{tell}"')
        with pytest.raises(InvalidPolicy, match="by other words"):
            telling('["groups"]', f', tell = "{tell}"')

    def test_nobody_to_tell_of(self) -> None:
        """A type whose tasks are for nobody, and a provider's resource, tell no claims."""
        with pytest.raises(InvalidPolicy, match="has no \\[person\\]"):
            telling('["groups"]', person=None)
        with pytest.raises(InvalidPolicy, match="provider"):
            telling('["groups"]', ', provider = "corp"')

    def test_twice(self) -> None:
        """One resource is told one thing, in however many tables it stands; the order does not matter."""
        table = '{{resource = "' + TICKETS + '", actions = ["{}"], tell_claims = {}}}'
        same = [table.format("ticket:read", '["level", "groups"]'), table.format("ticket:write", '["groups", "level"]')]
        assert ("groups", "level") == task_type(ceiling=f"[{', '.join(same)}]", person=PEOPLE).tell_claims[TICKETS]
        with pytest.raises(InvalidPolicy, match="different things"):
            task_type(ceiling=f"[{same[0]}, {table.format('ticket:write', '[]')}]", person=PEOPLE)
