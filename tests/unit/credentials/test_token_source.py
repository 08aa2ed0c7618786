"""What a task asks for at a resource: a token of ours, or what a provider gives, by one way for all doors."""

import pytest
from fakes.handing_room import CLOUD, ORDERS, OutsideRoom, outside_type
from fakes.persons import person
from fakes.task_types import TICKETS
from sojourn.errors import InvalidInput
from sojourn.errors.oauth import BindingNotOffered
from sojourn.providers.provider import ACCESS_TOKEN
from sojourn.tasktoken.grants import Authority, Grant
from sojourn.tasktoken.sender_constraint import JKT, Binding

NAMED = ((ORDERS, "orders:read"), (TICKETS, "ticket:read"))
BINDING = Binding(JKT, "A" * 43)


@pytest.fixture
async def room():
    async with OutsideRoom().running() as made:
        yield made


async def test_ours(room):
    """A token of ours is told of as one of nobody else's, and may be bound."""
    given = await room.giving.give(await room.begin(), TICKETS, (), binding=BINDING)
    assert ("DPoP", ACCESS_TOKEN, "", "") == (given.token_type, given.issued_type, given.provider, given.recall)
    assert given.details == {"type": "triage", "actions": ["ticket:read"], "locations": [TICKETS]}
    assert given.token not in repr(given)


async def test_a_provider_s(room):
    """What a provider gives is told of as that provider's."""
    given = await room.giving.give(await room.begin(), CLOUD, ())
    assert ("N_A", "urn:example:keys", "cloud") == (given.token_type, given.issued_type, given.provider)
    assert given.token not in repr(given)


@pytest.mark.parametrize("options", [{"binding": BINDING}, {"agent_key": True}, {"params_digest": "A" * 43}])
async def test_nothing_of_a_provider_s_is_bound(room, options):
    """What cannot be had is refused by its own code, and no provider is asked."""
    with pytest.raises(BindingNotOffered) as found:
        await room.giving.give(await room.begin(), ORDERS, (), **options)
    assert ("binding_not_offered", []) == (found.value.code, room.corp.wanted)


async def test_a_person_s_key():
    """A task that lives by a person's token that is bound to a key gets nothing of a provider, which binds nothing."""
    kind = outside_type(person='{need = "required"}')
    async with OutsideRoom({"triage": kind}).running() as room:
        with pytest.raises(BindingNotOffered):
            await room.giving.give(await room.begin(person=person("alice", key="A" * 43)), ORDERS, ())
        assert [] == room.corp.wanted
        assert (await room.giving.give(await room.begin(person=person("alice")), ORDERS, ())).provider == "corp"


async def test_the_only_resource():
    """Without a resource it is the task's only one, a provider's too."""
    ceiling = f'[{{resource = "{ORDERS}", actions = ["orders:read"], provider = "corp"}}]'
    async with OutsideRoom({"triage": outside_type(ceiling=ceiling)}).running() as room:
        task = await room.begin()
        assert (await room.giving.give(task, "", ())).provider == "corp"
        with pytest.raises(BindingNotOffered):
            await room.giving.give(task, "", (), agent_key=True)


async def test_whose_answer_is_waited_for(room):
    """A request names the provider by its target, or by a task that has one resource alone."""
    task, ours = [await room.begin(wanted=Authority((Grant(at, (action,)),))) for at, action in NAMED]
    assert ["corp", "", "corp", "", "cloud", ""] == [
        room.giving.provider_of(*each)
        for each in (
            (ORDERS,),
            (TICKETS,),
            ("", task.id),
            ("", ours.id),
            (CLOUD, task.id),
            ("", (await room.begin()).id),
        )
    ]


async def test_several_resources(room):
    """Of several one must be named."""
    with pytest.raises(InvalidInput, match="several resources"):
        await room.giving.give(await room.begin(), "", ())
