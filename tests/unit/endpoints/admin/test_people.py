"""Operators name people: whom they list, see, block and end is somebody, and what is done is done to them."""

from types import SimpleNamespace

import pytest
from fakes.blocks import KeptBlocks
from fakes.ended_sessions import KEY, FakeEndedStore
from fakes.families import FamilyRoom
from fakes.persons import CORP, for_people, issuer_rules, person
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.endpoints.admin.people import PeopleApi
from sojourn.endpoints.admin.tasks import TaskAdminApi
from sojourn.endpoints.api.task_messages import TaskMessages
from sojourn.errors import InvalidInput, NotFound
from sojourn.people.ended_sessions import EndedSessions
from sojourn.policy.task_types import TypeSet
from sojourn.tasks.blocks import PERSON, Block
from sojourn.tasks.end_people import EndPeople
from sojourn.tasks.kill_switch import KillSwitch
from sojourn.tasks.people_names import PeopleNames

BY = SimpleNamespace(by={"by_uid": 0, "by_pid": 1})
NOBODY_CAN_HAVE = ["psn_typo", "alice", "corp/", "corp/alice\n", "corp/spiffe://x/y", "corp/Jose\u0301", "psn_/alice\t"]


@pytest.fixture
async def room(clock, stack):
    types = TypeSet({"shared": for_people("shared", several="true")})
    made = await stack.enter_async_context(FamilyRoom(clock, types=types).running())
    sessions = made.engine.standing.sessions = EndedSessions(KEY, FakeEndedStore(), clock, made.alarms)
    names = PeopleNames(made.engine.pseudonyms, {"corp": CORP})
    refusals = SimpleNamespace(of=lambda _id: SimpleNamespace(count=0, last=()))
    message = TaskMessages(SimpleNamespace(described=lambda _task: ()))
    switch = KillSwitch(made.engine, KeptBlocks(), made.audit, clock, made.alarms)
    made.tasks_api = TaskAdminApi(made.engine, made.changing, switch, message, made.audit, refusals, names)
    made.people_api = PeopleApi(made.engine, EndPeople(made.engine, sessions, {"corp": issuer_rules()}), names)
    made.alice = made.engine.pseudonyms.named(CORP, "alice")
    return made


@pytest.mark.parametrize("said", NOBODY_CAN_HAVE)
async def test_whom_nobody_can_be(room, said):
    """A name that nobody can have is refused, wherever an operator gives it, and not taken as done."""
    calls = [
        room.tasks_api.block(BY, pb.BlockTasksRequest(block=pb.Block(person=said))),
        room.tasks_api.unblock(BY, pb.UnblockTasksRequest(block=pb.Block(person=said))),
        room.tasks_api.list(BY, pb.ListTasksRequest(person=said)),
        room.people_api.get(BY, pb.GetPersonRequest(person=said)),
        room.people_api.end(BY, pb.EndPersonRequest(person=said)),
    ]
    for call in calls:
        with pytest.raises((InvalidInput, NotFound)):
            await call
    assert [] == room.engine.blocks.all()


@pytest.mark.parametrize("said", ["corp/alice", "corp|alice", f"{CORP}|alice", "by their pseudonym"])
async def test_somebody(room, said):
    """Somebody's tasks are listed and their beginnings stopped, however they are named; nobody else's are."""
    said = room.alice if said == "by their pseudonym" else said
    theirs, other = await room.begin("shared", person=person()), await room.begin("shared", person=person("bob"))
    listed = await room.tasks_api.list(BY, pb.ListTasksRequest(person=said))
    assert [theirs.id] == [each.id for each in listed.tasks]
    answer = await room.tasks_api.block(BY, pb.BlockTasksRequest(block=pb.Block(person=said)))
    assert [theirs.id] == [each.id for each in answer.ended]
    assert (False, True) == (theirs.live, other.live)
    shown = await room.people_api.get(BY, pb.GetPersonRequest(person="corp/alice"))
    assert room.alice == shown.block.person
    await room.tasks_api.unblock(BY, pb.UnblockTasksRequest(block=pb.Block(person=said)))
    assert [] == room.engine.blocks.all()
    over = await room.tasks_api.list(BY, pb.ListTasksRequest(person=said, include_ended=True))
    assert [theirs.id] == [each.id for each in over.tasks]


async def test_a_block_of_before(room):
    """A block whose name would not be taken today can be lifted by that name."""
    room.engine.blocks.replace([Block(PERSON, "psn_typo", "of before", 0)])
    await room.tasks_api.unblock(BY, pb.UnblockTasksRequest(block=pb.Block(person="psn_typo")))
    assert [] == room.engine.blocks.all()


async def test_a_person_alone_is_looked_at(room, monkeypatch):
    """A block of a person looks at the tasks of that person, and not at all that there are."""
    theirs, other = await room.begin("shared", person=person()), await room.begin("shared", person=person("bob"))
    monkeypatch.setattr(room.engine.tasks, "all", lambda: pytest.fail("all tasks were looked at"))
    answer = await room.tasks_api.block(BY, pb.BlockTasksRequest(block=pb.Block(person="corp/alice")))
    assert [theirs.id] == [each.id for each in answer.ended]
    assert other.live
