"""replay.py: what was decided is asked of another set, by what the records say and nothing else."""

import json

import pytest
from fakes.task_room import READ_TICKETS, Room
from fakes.task_types import PERMIT_ALL, TICKETS, TRIAGE, WIKI, task_type
from sojourn.audit.journal import Record
from sojourn.errors import PolicyDenied
from sojourn.evidence.decisions import Decisions
from sojourn.evidence.faults import Faults
from sojourn.policy.replay import HIDDEN, LIMITS, OTHERS, PEOPLE, Replay
from sojourn.policy.task_types import TypeSet
from sojourn.tasktoken.grants import Authority, Grant

NO_WRITES = PERMIT_ALL + '@id("no-writes") forbid (principal, action == Sojourn::Action::"ticket:write", resource);'
LOW = (
    """@id("low") permit (principal, action, resource) when { context.params has level && context.params.level < 3 };"""
)
SECRET = '{ticket = {type = "string", in_journal = false}, level = "long"}'


@pytest.fixture
def room_of(clock, stack):
    async def made(kind):
        return await stack.enter_async_context(Room(clock, TypeSet(triage=kind)).running())

    return made


async def replayed(room, *kinds):
    """What the journal of a room comes to under another set of types."""
    await room.engine.journal.drain()
    await room.audit.flush()
    tried, faults = Replay(TypeSet({kind.name: kind for kind in kinds})), Faults()
    decisions = Decisions(faults, lambda record, *more: tried.take(record.event, record.seq, record.at_ms, *more))
    for seq, each in enumerate(room.store.events, 1):
        decisions.read(Record(seq, each.at_ms, each.event, each.fields, ""))
    assert [] == faults.found
    return tried


def pairs(found):
    return {
        (each.resource, each.action, each.rule): (times.count, times.tokens, times.begins)
        for each, times in found.items()
    }


def begins(tried):
    """How many tasks would not begin, by what they would not have."""
    return {(each.resource, each.action): times.begins for each, times in tried.denied.items()}


async def test_the_same_set(room_of):
    """The very set that decided decides the same: nothing is denied, and nothing allowed."""
    room = await room_of(task_type())
    task = await room.begin(params={"level": "3"})
    await room.engine.token(task, TICKETS, ["ticket:read"])
    tried = await replayed(room, task_type())
    assert (2, {}, {}) == (tried.asked, tried.denied, tried.allowed)


async def test_what_was_used_and_would_be_denied(room_of):
    """A narrower policy is told of each action that it would deny: how often, and for how many tokens."""
    room = await room_of(task_type())
    for number in range(3):
        task = await room.begin()
        if number:
            await room.engine.token(task, TICKETS, ["ticket:write"])
    tried = await replayed(room, task_type(cedar=NO_WRITES))
    assert {(TICKETS, "ticket:write", "policy"): (5, 2, 0)} == pairs(tried.denied)
    [found] = tried.denied
    assert ("triage", TRIAGE, ("no-writes",)) == (found.type, found.workload, found.policies)
    assert {} == tried.allowed


async def test_what_was_denied_and_would_be_allowed(room_of):
    """A wider policy is told of what it would newly allow, and a narrower one of nothing."""
    room = await room_of(task_type(cedar=NO_WRITES))
    await room.begin()
    tried = await replayed(room, task_type())
    assert {(TICKETS, "ticket:write", "policy"): (1, 0, 0)} == pairs(tried.allowed)
    only_wiki = task_type(cedar='@id("wiki") permit (principal, action == Sojourn::Action::"page:read", resource);')
    tried = await replayed(room, only_wiki)
    assert {} == tried.allowed


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"allowed_workloads": '["spiffe://example.org/another"]'}, "workload"),
        ({"ceiling": f'[{{resource = "{WIKI}", actions = ["page:read"]}}]'}, "ceiling"),
        ({"params": '{level = {type = "long", max = 2}}'}, "params"),
        ({"cedar": LOW}, "policy"),
        ({"facts": '{risk = {type = "string", required = true}}'}, "facts"),
    ],
)
async def test_by_which_rule(room_of, changes, rule):
    """Whatever of a type is narrower is what denies, by its own name."""
    room = await room_of(task_type())
    task = await room.begin(params={"level": "3"}, wanted=READ_TICKETS)
    await room.engine.token(task, TICKETS, ["ticket:read"])
    tried = await replayed(room, task_type(**changes))
    assert {(TICKETS, "ticket:read", rule): (2, 1, 1)} == pairs(tried.denied)


async def test_a_type_that_is_gone(room_of):
    """All that was allowed by a type that the set has not is denied."""
    room = await room_of(task_type())
    await room.begin(wanted=READ_TICKETS)
    tried = await replayed(room, task_type("other"))
    assert {(TICKETS, "ticket:read", "type"): (1, 0, 1)} == pairs(tried.denied)


async def test_whether_less_would_have_done(room_of):
    """A task that asked for all there is would begin with less; one that named an action would not without it."""
    room = await room_of(task_type())
    await room.begin()
    without = task_type(ceiling=f'[{{resource = "{TICKETS}", actions = ["ticket:read"]}}]')
    assert {(TICKETS, "ticket:write"): 0, (WIKI, "page:read"): 0} == begins(await replayed(room, without))
    await room.begin(wanted=Authority.of([Grant(TICKETS, ("ticket:read", "ticket:write"))]))
    assert {(TICKETS, "ticket:write"): 1, (WIKI, "page:read"): 0} == begins(await replayed(room, without))
    nothing = task_type(cedar='@id("no") forbid (principal, action, resource);')
    assert {(TICKETS, "ticket:read"): 2, (TICKETS, "ticket:write"): 2, (WIKI, "page:read"): 1} == begins(
        await replayed(room, nothing)
    )


async def test_what_was_used_by_then(room_of):
    """Policies that read how much a task has used see it as it was, at each token."""
    room = await room_of(task_type())
    task = await room.begin(wanted=READ_TICKETS)
    for _ in range(4):
        await room.engine.token(task, TICKETS, ["ticket:read"])
    few = '@id("few") permit (principal, action, resource) when { principal.tokens_issued < 3 };'
    tried = await replayed(room, task_type(cedar=few))
    assert {(TICKETS, "ticket:read", "policy"): (1, 1, 0)} == pairs(tried.denied)


async def test_what_is_kept_out_of_the_journal(room_of):
    """Where policies read what no record has, or a type has a rule for it, nothing is asked, and that is told."""
    room = await room_of(task_type(params=SECRET))
    task = await room.begin(params={"ticket": "T-1", "level": "3"}, wanted=READ_TICKETS)
    await room.engine.token(task, TICKETS, ["ticket:read"])
    assert 2 == (await replayed(room, task_type(params=SECRET))).asked
    reads = '@id("t") permit (principal, action, resource) when { context.params has ticket && context.params.ticket == "x" };'
    for kind in (
        task_type(params=SECRET, cedar=reads),
        task_type(params=SECRET.replace("in_journal = false", "max_length = 2")),
    ):
        tried = await replayed(room, kind)
        assert (0, {HIDDEN: 2}, {}) == (tried.asked, dict(tried.unknown), tried.denied)


def test_for_people():
    """What was decided for a person is not asked: no record says who they are."""
    tried = Replay(TypeSet(triage=task_type()))
    fields = {"task": "tsk_1", "type": "triage", "spiffe_id": TRIAGE, "resource": TICKETS, "actions": ["ticket:read"]}
    tried.take("token_issued", 1, 1, {**fields, "seen": {"user": {"hmac": "x", "auth_age": 1}}}, {})
    assert ({PEOPLE: 1}, 0) == (dict(tried.unknown), tried.asked)


FIELDS = {
    "task": "tsk_1",
    "type": "triage",
    "spiffe_id": TRIAGE,
    "resource": TICKETS,
    "actions": ["ticket:read"],
    "grants": [{"resource": TICKETS, "actions": ["ticket:read"]}],
}
TOKEN = "token_issued"


@pytest.mark.parametrize(
    ("changes", "event", "seen", "rule"),
    [
        ({"max_tokens": 5}, TOKEN, {"tokens_issued": 5}, "budget"),
        ({"max_tokens": 6}, TOKEN, {"tokens_issued": 5}, ""),
        ({"limits": '{"ticket:read" = 2}'}, TOKEN, {"tokens_issued": 5, "uses": [["ticket:read", 2]]}, "limits"),
        ({"limits": '{"ticket:read" = 2}'}, TOKEN, {"tokens_issued": 5}, "unknown"),
        ({"limits": '{"ticket:read" = 2}'}, TOKEN, {}, ""),
        ({"approval": "{}"}, "task_begun", {}, "approval"),
        ({"approval": "{}"}, TOKEN, {}, ""),
        ({"allowed_workloads": '["spiffe://example.org/x"]'}, "external_credential_issued", {}, "workload"),
    ],
)
def test_other_rules(changes, event, seen, rule):
    """Budgets, limits and approvals are asked too; what nobody counted then is not asked, and that is told."""
    tried = Replay(TypeSet(triage=task_type(**changes)))
    tried.take(event, 1, 1, {**FIELDS, "seen": seen}, {})
    assert [rule] * (rule not in {"", "unknown"}) == [each.rule for each in tried.denied]
    assert ({LIMITS: 1} if rule == "unknown" else {}) == dict(tried.unknown)


def test_what_is_no_decision_by_itself():
    """Records of other events are counted."""
    tried = Replay(TypeSet(triage=task_type()))
    tried.take("task_resumed", 1, 1, {**FIELDS, "seen": {}}, {})
    assert ({OTHERS: 1}, 0) == (dict(tried.unknown), tried.asked)


@pytest.mark.parametrize(("age", "denied"), [(59.0, 0), (61.0, 1)])
def test_facts_that_were_old(age, denied):
    """A fact that was older than the type lets it be is none."""
    known = '@id("k") permit (principal, action, resource) when { context.facts has risk };'
    kind = task_type(cedar=known, facts='{risk = {type = "string", max_age = "60s"}}')
    tried = Replay(TypeSet(triage=kind))
    facts = {"risk": {"value": "LOW", "source": "operator", "age_seconds": age}}
    tried.take(TOKEN, 1, 1, {**FIELDS, "seen": {}, "facts": facts}, {})
    assert denied == len(tried.denied)


async def test_a_part_of_what_was_refused(room_of):
    """Of a request that was refused for one action, that one is told as newly allowed, and none that was allowed."""
    room = await room_of(task_type(cedar=NO_WRITES))
    with pytest.raises(PolicyDenied):
        await room.begin(wanted=room.engine.types["triage"].ceiling)
    tried = await replayed(room, task_type())
    assert {(TICKETS, "ticket:write", "policy"): (1, 0, 0)} == pairs(tried.allowed)


def test_facts_of_a_source(room_of):
    """A fact counts where the type takes it from the source that it came from."""
    fields = {
        "task": "tsk_1",
        "type": "triage",
        "spiffe_id": TRIAGE,
        "resource": TICKETS,
        "actions": ["ticket:read"],
        "seen": {},
        "facts": {"risk": {"value": "LOW", "source": "operator", "age_seconds": 1.0}},
    }
    low = '@id("low") permit (principal, action, resource) when { context.facts has risk && context.facts.risk == "LOW" };'
    for source, denied in (("operator", 0), ("https://idp.example.net/", 1)):
        kind = task_type(cedar=low, facts=f'{{risk = {{type = "string", sources = {json.dumps([source])}}}}}')
        tried = Replay(TypeSet(triage=kind))
        tried.take("token_issued", 1, 1, fields, {})
        assert denied == len(tried.denied)
