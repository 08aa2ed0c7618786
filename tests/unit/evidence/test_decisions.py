"""decisions.py: what a decision was made on, made again from records alone."""

import json
from dataclasses import fields, replace

import pytest
from fakes.approvals import TYPES, approve
from fakes.task_room import READ_TICKETS, Room
from fakes.task_types import PERMIT_ALL, TICKETS, task_type
from sojourn.audit.journal import Record
from sojourn.errors import PolicyDenied
from sojourn.evidence.decisions import _FRESH, NO_BEGINNING, OLD, Decisions, inputs_of
from sojourn.evidence.faults import Faults
from sojourn.jose.canonical_json import canonical, digest_of
from sojourn.policy.cedar_schema import _NAMED, UNSAID, Principal
from sojourn.policy.task_types import TypeSet
from sojourn.tasks.policy_reload import PolicyReload
from sojourn.tasks.suspension import TaskChanges

PARAMS = {"ticket": "T-1", "level": "3"}
SECRET = '{ticket = {type = "string", in_journal = false}, level = "long"}'
NO_WRITES = PERMIT_ALL + '@id("no-writes") forbid (principal, action == Sojourn::Action::"ticket:write", resource);'


@pytest.fixture
async def room(clock):
    async with Room(clock, TypeSet({**TYPES, "triage": task_type()})).running() as room:
        yield room


async def worked(room, **more):
    """A task that had two tokens, and was refused a third by policy of just now."""
    task = await room.begin(params=PARAMS, **more)
    for _ in range(2):
        await room.engine.token(task, TICKETS, ["ticket:read"])
    await PolicyReload(room.engine, TaskChanges(room.engine)).apply(TypeSet(triage=task_type(cedar=NO_WRITES)))
    return task


def records_of(room):
    """The journal of a room, as an export has it."""
    return [Record(seq, each.at_ms, each.event, each.fields, "") for seq, each in enumerate(room.store.events, 1)]


def read(records):
    """What is found in records, and the codes of what is wrong with them."""
    faults = Faults()
    decisions = Decisions(faults)
    for each in records:
        decisions.read(each)
    return decisions, [each.code for each in faults.found]


def changed(record, **to):
    return replace(record, fields=canonical({**json.loads(record.fields), **to}))


async def test_all_of_a_task(room):
    """A beginning, tokens, what a policy takes and a refusal are replayed from their records, each."""
    task = await worked(room)
    with pytest.raises(PolicyDenied):
        await room.begin(params=PARAMS, wanted=room.engine.types["triage"].ceiling)
    await room.engine.revoke(task, "operator")
    await room.audit.flush()
    decisions, wrong = read(records_of(room))
    assert ([], {}) == (wrong, dict(decisions.unknown))
    decided = [each.event for each in records_of(room) if '"inputs"' in each.fields]
    assert {"task_begun", "token_issued", "begin_denied"} <= set(decided)
    assert len(decided) == decisions.replayed


async def test_what_was_granted_stands_in_the_records(room):
    """Where a task begins, its record has what was granted and with which parameters; where it is narrowed, what is left."""
    await worked(room)
    await room.engine.journal.drain()
    (begun,), (narrowed,) = room.store.fields("task_begun"), room.store.fields("task_narrowed")
    assert {"ticket": "T-1", "level": 3} == begun["params"]
    assert "ticket:write" in str(begun["grants"])
    assert "ticket:write" not in str(narrowed["grants"])
    assert "ticket:read" in str(narrowed["grants"])


async def test_what_was_agreed_to_stands_in_the_records(room):
    """Who asks and who agrees leave a record of what to: grants, parameters, and the type as it was then."""
    task = await room.begin("asked", params=PARAMS)
    await approve(room, task)
    (asked,), (decided,), (begun,) = map(room.store.fields, ("task_pending", "approval_decided", "task_begun"))
    for each in (asked, decided, begun):
        assert {"ticket": "T-1", "level": 3} == each["params"]
        assert task.authority.document() == each["grants"]
    assert TYPES["asked"].digest == asked["type_digest"]
    assert asked["digest"] == decided["digest"]
    decisions, wrong = read(records_of(room))
    assert ([], 2) == (wrong, decisions.replayed)


@pytest.mark.parametrize(
    ("event", "to"),
    [
        ("task_begun", {"params": {"ticket": "T-2", "level": 3}}),
        ("token_issued", {"actions": ["ticket:write"]}),
        ("token_issued", {"resource": "https://elsewhere.example.org"}),
        ("token_issued", {"seen": {"tokens_issued": 7}}),
        ("token_issued", {"asked": {TICKETS: ["ticket:read", "ticket:write"]}}),
        ("token_issued", {"facts": {"risk": {"value": "LOW", "source": "x", "age_seconds": 1}}}),
        ("token_issued", {"spiffe_id": "spiffe://example.org/another"}),
        ("task_begun", {"type": "another"}),
    ],
)
async def test_what_is_not_as_it_was(room, event, to):
    """A record that says of a decision what was not so is found, by its number."""
    await worked(room)
    records = records_of(room)
    at = next(number for number, each in enumerate(records) if each.event == event)
    records[at] = changed(records[at], **to)
    faults = Faults()
    decisions = Decisions(faults)
    for each in records:
        decisions.read(each)
    assert "inputs_differ" == faults.found[0].code
    assert records[at].seq == faults.found[0].seq


async def test_a_secret_parameter(clock):
    """What a type keeps out of the journal is in no record, and another value is another input."""
    made = []
    for value in ("T-1", "T-2"):
        async with Room(clock, TypeSet(triage=task_type(params=SECRET))).running() as room:
            room.engine.people_key = bytes(32)
            task = await room.begin(params={"ticket": value, "level": "3"})
            await room.engine.token(task, TICKETS, ["ticket:read"])
            text = " ".join(each.fields for each in room.store.events)
            assert value not in text
            (begun,) = room.store.fields("task_begun")
            made.append(begun["params"]["ticket"])
            assert (3, {"hmac"}) == (begun["params"]["level"], set(begun["params"]["ticket"]))
            decisions, wrong = read(records_of(room))
            assert ([], 2) == (wrong, decisions.replayed)
    assert made[0] != made[1]


@pytest.mark.parametrize("params", [SECRET, '{ticket = "string", level = "string"}'], ids=["hidden", "of another type"])
async def test_a_type_that_reads_parameters_otherwise(room, params):
    """Where a task's type has its parameters otherwise by now, what is decided then says so, and is replayed."""
    task = await room.begin(params=PARAMS, wanted=READ_TICKETS)
    await PolicyReload(room.engine, TaskChanges(room.engine)).apply(TypeSet(triage=task_type(params=params)))
    await room.engine.token(task, TICKETS, ["ticket:read"])
    (issued,) = room.store.fields("token_issued")
    assert {"ticket", "level"} == set(issued["params"])
    decisions, wrong = read(records_of(room))
    assert ([], {}) == (wrong, dict(decisions.unknown))


@pytest.mark.parametrize(
    "params",
    ['{level = "long"}', '{ticket_id = "string", level = "long"}', None],
    ids=["gone", "renamed", "not hidden"],
)
async def test_what_was_given_in_secret_stays_so(clock, params):
    """A parameter that was given to be kept out of the journal stays out, whatever its type says of it later."""
    async with Room(clock, TypeSet(triage=task_type(params=SECRET))).running() as room:
        task = await room.begin(params={"ticket": "T-SECRET", "level": "3"}, wanted=READ_TICKETS)
        changes = {} if params is None else {"params": params}
        await PolicyReload(room.engine, TaskChanges(room.engine)).apply(TypeSet(triage=task_type(**changes)))
        if task.live:
            await room.engine.token(task, TICKETS, ["ticket:read"])
            assert task.record().document["hidden"] == ["ticket"]
        await room.audit.flush()
        await room.engine.journal.drain()
        assert "T-SECRET" not in " ".join(each.fields for each in room.store.events)


async def test_a_refusal_that_is_written_late(room):
    """A refusal whose record comes behind a change of its type, or behind its task's end, is replayed by itself."""
    task = await room.begin(params=PARAMS)
    room.engine.types = TypeSet(triage=task_type(cedar=NO_WRITES))
    task.retype(room.engine.types["triage"])
    with pytest.raises(PolicyDenied):
        await room.engine.token(task, TICKETS, ["ticket:write"])
    await PolicyReload(room.engine, TaskChanges(room.engine)).apply(
        TypeSet(triage=task_type(params='{ticket = "string", level = "string"}'))
    )
    await room.engine.revoke(task, "operator")
    assert "token_denied" not in room.store.names
    await room.audit.flush()
    decisions, wrong = read(records_of(room))
    assert ([], {}) == (wrong, dict(decisions.unknown))
    (denied,) = room.store.fields("token_denied")
    assert [[TICKETS, "ticket:write"]] == denied["denied"]


async def test_a_provider_that_takes_its_time(room):
    """A record that is made when the type is another by now says with which parameters it was decided."""
    task = await room.begin(params=PARAMS, wanted=READ_TICKETS)
    verdict = room.engine.decide(task, READ_TICKETS.grants[0])
    await PolicyReload(room.engine, TaskChanges(room.engine)).apply(TypeSet(triage=task_type(params=SECRET)))
    said = {**verdict.decided.record(params=True), "resource": TICKETS, "actions": ["ticket:read"]}
    await room.engine.journal.note(room.engine.event("external_credential_issued", task, **said))
    assert [] == read(records_of(room))[1]


async def test_what_cannot_be_replayed(room):
    """Records of an earlier release, and of tasks that began before the first record, are counted as such."""
    await worked(room)
    token = next(each for each in records_of(room) if each.event == "token_issued")
    old = json.loads(token.fields)
    del old["seen"]
    decisions, wrong = read([token, replace(token, fields=canonical(old))])
    assert [] == wrong
    assert ({NO_BEGINNING: 1, OLD: 1}, 0) == (dict(decisions.unknown), decisions.replayed)


@pytest.mark.parametrize(
    "broken",
    [
        lambda record: changed(record, seen=5),
        lambda record: changed(record, task=["x"]),
        lambda record: changed(record, facts={"risk": 5}),
        lambda record: replace(record, fields='{"inputs":"x"'),
        lambda record: changed(record, inputs=None),
        lambda record: changed(record, seen={"task_id": "tsk_other"}),
        lambda record: changed(record, policy_set=5),
        lambda record: replace(record, fields=record.fields.replace('"inputs":', '"in":')),
        lambda record: replace(record, fields=record.fields.replace('"expires_at":', '"expires_at":NaN,"x":')),
        lambda record: replace(record, fields='["inputs",{"inputs":"x"}]'),
        lambda record: replace(record, fields="[" * 10_000 + '"inputs":"'),
    ],
)
async def test_what_is_no_decision(room, broken):
    """The record of a decision that does not say what it was made on is wrong, whatever it looks like."""
    await worked(room)
    records = records_of(room)
    at = next(number for number, each in enumerate(records) if each.event == "token_issued")
    records[at] = broken(records[at])
    decisions, wrong = read(records)
    assert ["inputs_unreadable"] == wrong
    assert decisions.replayed


async def test_what_nobody_asked(room):
    """A token for what policy was not asked is wrong, however well its digest fits."""
    await worked(room)
    records = records_of(room)
    at = next(number for number, each in enumerate(records) if each.event == "token_issued")
    said = {**json.loads(records[at].fields), "actions": ["ticket:write"], "asked": {TICKETS: ["ticket:read"]}}
    begun = json.loads(next(each for each in records if each.event == "task_begun").fields)
    said["inputs"] = digest_of(inputs_of(said, begun["params"]))
    records[at] = replace(records[at], fields=canonical(said))
    assert ["inputs_differ"] == read(records)[1]


async def test_a_refusal_before_policy(room):
    """A beginning that was refused for a review that is overdue is no decision; another record that says so is."""
    await worked(room)
    records = records_of(room)
    said = canonical({"type": "triage", "code": "review_overdue", "reason": "no"})
    decisions, wrong = read([*records, replace(records[-1], event="begin_denied", fields=said)])
    assert ([], {}) == (wrong, dict(decisions.unknown))
    decisions, _ = read([*records, replace(records[-1], event="token_issued", fields=said)])
    assert {OLD: 1} == dict(decisions.unknown)


async def test_nothing_is_kept_of_what_is_over(room):
    """Of a task that has ended nothing is kept, however many there were."""
    task = await worked(room)
    await room.engine.revoke(task, "operator")
    decisions, _ = read(records_of(room))
    assert {} == decisions._params


def test_all_that_policy_sees():
    """What a task is seen as that has just begun is said here by itself, and for each attribute that policies have."""
    assert {each.name for each in fields(Principal)} - _NAMED == set(_FRESH)
    assert {name: list(value) if isinstance(value, tuple) else value for name, value in UNSAID.items()} == {
        name: value for name, value in _FRESH.items() if name != "user"
    }
