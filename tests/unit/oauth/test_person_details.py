"""The authorization_details of a person's access token, at the token endpoint: as those of an ID-JAG bound a request."""

from dataclasses import replace

import pytest
from fakes.exchangeroom import details
from fakes.granting_room import Room
from fakes.persons import CORP, for_people, person, refused
from fakes.task_types import TICKETS, WIKI, task_type
from sojourn.errors import InvalidAuthorizationDetails, InvalidScope, InvalidTarget
from sojourn.jose.jws import SigningKey
from sojourn.oauth.token_request import TOKEN_TYPE_ACCESS
from sojourn.policy.task_types import TypeSet
from sojourn.tasktoken.grants import Authority, Details, Grant

PAGES = f'[{{resource = "{WIKI}/all", actions = ["ticket:read"]}}]'
TYPES = TypeSet({"for-people": for_people(), "triage": task_type(params=None, ceiling=PAGES)})
TOKEN = SigningKey.generate("k").sign({"iss": CORP, "sub": "alice"}, typ="JWT")
LATER = SigningKey.generate("k").sign({"iss": CORP, "sub": "alice", "jti": "later"}, typ="JWT")
READS = Details("for-people", Authority((Grant(TICKETS, ("ticket:read",)),)), {}, "")
ALICE = person("alice", details=READS)


@pytest.fixture
async def room(tmp_path):
    made = Room(tmp_path, TYPES)
    made.people.people |= {TOKEN: ALICE}
    yield made
    await made.renewal.quiet()
    made.close()


async def ask(room, text=TOKEN, **fields):
    return await room.exchange(text, subject_token_type=TOKEN_TYPE_ACCESS, **({"resource": TICKETS} | fields))


async def test_what_a_request_leaves_open(room):
    """A request that names nothing is for what the details have: their task type, and their actions alone."""
    for fields in ({}, {"authorization_details": details("ticket:read", name="for-people")}, {"scope": "ticket:read"}):
        given = await ask(room, **fields)
        assert (("ticket:read",), "for-people") == (given.actions, given.task_type)


async def test_what_a_request_names_beyond(room):
    """What it names beyond is refused, and no task has begun."""
    with pytest.raises(InvalidAuthorizationDetails):
        await ask(room, authorization_details=details("ticket:write", name="for-people"))
    with pytest.raises(InvalidAuthorizationDetails):
        await ask(room, authorization_details=details("ticket:read", name="triage"))
    with pytest.raises(InvalidScope):
        await ask(room, scope="ticket:read ticket:write")
    with pytest.raises(InvalidTarget):
        await ask(room, resource=WIKI)
    assert 0 == len(room.engine.tasks)


async def test_with_a_task_of_before(room):
    """A token of a task that has more is for what the newer token's details have, and such a task does not live longer
    by it.
    """
    task = await room.begin("for-people", person=replace(ALICE, details=None))
    assert {"ticket:read", "ticket:write"} <= set(task.authority.at(TICKETS))
    before = task.person.expires_at
    room.people.people[LATER] = replace(ALICE, issued_at=ALICE.issued_at + 10, expires_at=ALICE.expires_at + 10)
    given = await ask(room, LATER, task_id=task.id)
    assert (("ticket:read",), before) == (given.actions, task.person.expires_at)
    with pytest.raises(InvalidScope):
        await ask(room, LATER, task_id=task.id, scope="ticket:write")


async def test_of_a_type_that_there_is_not(room):
    """Details of a task type that is not here begin nothing."""
    room.people.people[TOKEN] = replace(ALICE, details=replace(READS, type_name="another"))
    with pytest.raises(Exception, match="another"):
        await ask(room)
    with refused("not_in_scope"):
        await room.begin("for-people", person=room.people.people[TOKEN])
