"""What is recorded of decisions on a task that is for a person."""

import json
from dataclasses import replace

import pytest
from fakes.persons import person
from fakes.policies import user
from fakes.task_room import READ_TICKETS, Room
from fakes.task_types import TICKETS, task_type
from sojourn.cli import approval as approvals
from sojourn.endpoints.api.approvals import _approval as approval_message
from sojourn.errors import PolicyDenied
from sojourn.notices.messages import shown
from sojourn.policy.task_types import TypeSet
from sojourn.tasks.task import Task

WHO = user(subject="alice-8a1c", groups=("tier-2", "quiet-desk"), claims=(("department", "string", "mergers"),))
PERSON = person("alice-8a1c", groups=("tier-2", "quiet-desk"), claims={"department": "mergers"})
WORDS = ("alice", "8a1c", "tier-2", "quiet-desk", "mergers")
CEDAR = (
    '@id("a") permit (principal, action, resource) when'
    ' { principal.user in Sojourn::Group::"corp/tier-2" && principal.user.auth_age < 300 };'
)


@pytest.fixture
async def room(clock):
    kind = task_type(cedar=CEDAR, person='{need = "required", claims = {department = "string"}}')
    async with Room(clock, TypeSet(triage=kind)).running() as room:
        yield room


@pytest.fixture
def for_whom(monkeypatch):
    """Has all tasks be for somebody, who can be exchanged."""
    said, real = {"user": WHO}, Task.principal
    monkeypatch.setattr(Task, "principal", lambda task, now: replace(real(task, now), user=said["user"]))
    return said


async def test_no_word_of_them_in_the_audit(room, for_whom):
    """A beginning, a token and a refusal are recorded without subject, group or claim of the person in clear."""
    task = await room.begin(wanted=READ_TICKETS, person=PERSON)
    await room.engine.token(task, TICKETS, ["ticket:read"])
    for_whom["user"] = replace(WHO, auth_age=301)
    for attempt in (room.begin(wanted=READ_TICKETS, person=PERSON), room.engine.token(task, TICKETS, ["ticket:read"])):
        with pytest.raises(PolicyDenied) as refused:
            await attempt
        assert not any(word in str(refused.value) for word in WORDS)
    await room.audit.recorded()
    assert {"task_begun", "token_issued", "begin_denied", "token_denied"} <= set(room.store.names)
    text = " ".join(each.fields for each in room.store.events)
    assert not any(word in text for word in WORDS)


async def test_somebody_else_is_another_input(room, for_whom):
    """The digest of what was decided on is another for another person, and needs the agent's key to be tried."""
    task = await room.begin(wanted=READ_TICKETS, person=PERSON)
    digests = [room.engine.decided(task).record()["inputs"]]
    for_whom["user"] = replace(WHO, subject="bob")
    digests.append(room.engine.decided(task).record()["inputs"])
    for_whom["user"] = WHO
    digests.append(room.engine.decided(task).record()["inputs"])
    room.engine.people_key = bytes(32)
    digests.append(room.engine.decided(task).record()["inputs"])
    assert digests[0] == digests[2]
    assert 3 == len(set(digests))


async def test_whoever_is_to_agree_sees_for_whom(clock, stack):
    """Whoever is asked to agree to a task is told whom it is for, and what goes out of the machine has a pseudonym."""
    kind = task_type("approved", params=None, person='{need = "optional"}', approval='{within = "10m"}')
    room = await stack.enter_async_context(Room(clock, TypeSet({"approved": kind})).running())
    task, nobodys = await room.begin("approved", person=person("carol")), await room.begin("approved")
    said = [approvals._value(approval_message(each)) for each in (task, nobodys)]
    assert ["corp|carol", ""] == [each["person"] for each in said]
    assert [True, False] == [any("corp|carol" in line for line in approvals._lines(each)) for each in said]
    noticed = [shown(each) for each in (task, nobodys)]
    assert [room.engine.pseudonyms.of(task.person), ""] == [each["person"] for each in noticed]
    assert "carol" not in json.dumps(noticed)
