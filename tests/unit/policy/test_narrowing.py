"""A narrower version of a type by what was used of it: what is proposed, and that it never allows more."""

import json
import os
import random
import tomllib

import pytest
from fakes.task_room import READ_TICKETS, Room
from fakes.task_types import PERMIT_ALL, TICKETS, TRIAGE, WIKI, toml
from fakes.varied_types import BASE, FORBID, LOW, USES, asked_of, drawn, made, question
from harness.examples import QUICK
from sojourn.audit.journal import Record
from sojourn.evidence.decisions import Decisions
from sojourn.evidence.faults import Faults
from sojourn.policy.narrower import wider_type
from sojourn.policy.narrowing import HEARD, USED, Narrowing
from sojourn.policy.narrowing_cases import failing, with_denials
from sojourn.policy.narrowing_edits import edits_of
from sojourn.policy.task_types import TaskType, TypeSet, parse
from sojourn.tasktoken.grants import Authority, Grant

ASKED = int(os.environ.get("SOJOURN_FUZZ_CASES", "10000" if QUICK else "30000"))  # `make fuzz` asks a million
DEAD = "spiffe://example.org/agent/retired"
TOML = f"""# Whoever works on tickets.
description = "triage"
allowed_workloads = [
  "{TRIAGE}", # the agent
  "{DEAD}", # since 2024
]
max_duration = "15m" # generous
max_tokens = 1000
token_ttl = "60s"

[limits]
"ticket:delete" = 1
"ticket:write" = 90

[params]
level = "long"
area = {{type = "string", required = true}}

[[ceiling]] # tickets
resource = "{TICKETS}"
actions = ["ticket:read", "ticket:write", "ticket:delete", "ticket:merge"]

[[ceiling]]
resource = "{WIKI}"
actions = ["page:read"]
"""
CEDAR = """// Reading and writing.
@id("work")
permit (principal, action, resource) when { context.params has area };

// Deleting: nobody does, and this goes with it.
@id("delete")
permit (principal, action == Sojourn::Action::"ticket:delete", resource);

@id("not-late")
forbid (principal, action == Sojourn::Action::"ticket:delete", resource)
when { principal.tokens_issued > 3 };
"""
WRITES = '@id("writes") permit (principal, action == Sojourn::Action::"ticket:write", resource);'
NEVER = '@id("never") forbid (principal, action == Sojourn::Action::"ticket:write", resource);'
POLICIES = [PERMIT_ALL, PERMIT_ALL + USES, PERMIT_ALL + LOW + WRITES, PERMIT_ALL + LOW + FORBID + NEVER, WRITES + LOW]
NOTHING = {"workloads": [], "delegates": [], "actions": [], "bindings": [], "policies": []}
SEEN = {"number": 50, "values": [], "many": False, "min": None, "max": None, "longest": None}


def use(tasks=50, **changes):
    """What `sojourn usage` says: by itself, that all was used to the full."""
    said = {
        "tasks": tasks,
        "since": "2026-05-01T00:00:00Z",
        "seconds_max": 900,
        **{name: {"max": 1_000, "p99": 1_000} for name in ("tokens", "depth", "children")},
        "calls": {"max": 0, "p99": 0},
        "actions": [{"action": "ticket:write", "most": 90}],
        "params": [],
        "unused": {**NOTHING, **changes.pop("unused", {})},
    }
    return {**said, **changes}


def triage(text=TOML, cedar=CEDAR) -> TaskType:
    return parse("triage", text, cedar)


def narrowing(said, cedar=CEDAR, *, tighten=False):
    kind = triage(cedar=cedar)
    return Narrowing(kind, TOML, cedar, edits_of(kind, said, tighten=tighten))


def gone(before, after):
    """Lines that went, and lines that came."""
    old, new = before.splitlines(), after.splitlines()
    return [each for each in old if each not in new], [each for each in new if each not in old]


def action(name, at=TICKETS):
    return {"resource": at, "action": name}


DEAD_PARTS = {
    "workloads": [DEAD],
    "actions": [action("ticket:delete"), action("ticket:merge"), action("page:read", WIKI)],
    "policies": ["delete", "not-late"],
}


def test_what_nobody_used():
    """Three dead actions and one dead workload are what goes, with all that was said of them alone, and nothing else."""
    made_of = narrowing(use(unused=DEAD_PARTS))
    new = made_of.narrowed
    assert [] == made_of.left_out
    assert {
        "without policy 'delete'",
        f"allowed_workloads without {DEAD}",
        *(f"ceiling without ticket:{each} at {TICKETS}" for each in ("delete", "merge")),
        f"ceiling without page:read at {WIKI}",
    } == {each.what for each in new.edits}
    assert all("50 tasks since 2026-05-01" in each.evidence for each in new.edits)
    assert (Grant(TICKETS, ("ticket:read", "ticket:write")),) == new.kind.ceiling.grants
    assert {TRIAGE} == {str(each) for each in new.kind.allowed_workloads}
    assert ["work"] == [each.id for each in new.kind.policy.clauses]
    lost, came = gone(TOML, new.texts["triage.toml"])
    assert ['actions = ["ticket:read", "ticket:write"]'] == came
    assert not any("agent" in each and DEAD not in each for each in lost)
    assert {
        "# Whoever works on tickets.",
        '  "spiffe://example.org/agent/triage", # the agent',
        "[[ceiling]] # tickets",
    } <= set(new.texts["triage.toml"].splitlines())
    assert "// Reading and writing." in new.texts["triage.cedar"]
    assert "Deleting" not in new.texts["triage.cedar"]


def test_all_was_used():
    """Where everything was used to the full, nothing is proposed, and the files stay as they are."""
    made_of = narrowing(use())
    assert ((), []) == (made_of.narrowed.edits, made_of.left_out)
    assert {"triage.toml": TOML, "triage.cedar": CEDAR} == made_of.narrowed.texts


def test_numbers_have_room():
    """Where it is wanted, a number is cut to twice the greatest that was seen, a duration to no less than a token lives."""
    said = use(
        seconds_max=100,
        tokens={"max": 7, "p99": 5},
        actions=[{"action": "ticket:write", "most": 4}],
        params=[{**SEEN, "name": "level", "min": 3, "max": 9}],
    )
    file = tomllib.loads(narrowing(said, tighten=True).narrowed.texts["triage.toml"])
    assert ("200s", 14, 8) == (file["max_duration"], file["max_tokens"], file["limits"]["ticket:write"])
    assert {"type": "long", "min": 1, "max": 18} == file["params"]["level"]
    assert () == narrowing(said).narrowed.edits
    assert (
        "60s"
        == tomllib.loads(narrowing(use(seconds_max=2), tighten=True).narrowed.texts["triage.toml"])["max_duration"]
    )


@pytest.mark.parametrize(("number", "left"), [(10, ["eu", "us"]), (9, None)])
def test_texts(number, left):
    """A text is one of those that were seen, if each was seen five times on the average."""
    seen = {**SEEN, "name": "area", "number": number, "values": ["eu", "us"]}
    assert left == tomllib.loads(narrowing(use(params=[seen]), tighten=True).narrowed.texts["triage.toml"])["params"][
        "area"
    ].get("one_of")


def test_texts_that_nobody_can_read():
    """What a workload said comes into no file if a person does not see what it is."""
    for value in ("\u202eeu", "eu\n", "e\u200bu"):
        seen = {**SEEN, "name": "area", "values": [value]}
        assert () == narrowing(use(params=[seen]), tighten=True).narrowed.edits


def test_one_is_left():
    """The last workload, the last action and the last policy stay, even if nobody used them."""
    unused = {
        "workloads": [TRIAGE, DEAD],
        "actions": [action(each) for each in ("ticket:read", "ticket:write", "ticket:delete", "ticket:merge")]
        + [action("page:read", WIKI)],
        "policies": ["work", "delete", "not-late"],
    }
    assert () == narrowing(use(unused=unused)).narrowed.edits


def test_a_policy_that_names_others():
    """An action that a policy names beside others stays: the text of a policy is for a person to change."""
    cedar = (
        CEDAR
        + '@id("both") forbid (principal, action in [Sojourn::Action::"ticket:merge", Sojourn::Action::"ticket:read"], resource) when { principal.tokens_issued > 9 };'
    )
    made_of = narrowing(use(unused=DEAD_PARTS), cedar=cedar)
    (left_out,) = made_of.left_out
    assert f"ceiling without ticket:merge at {TICKETS}" == left_out.edit.what
    assert "it cannot be made: " in left_out.why
    assert 0 == left_out.seq
    assert 4 == len(made_of.narrowed.edits)


def test_policies_that_name_several():
    """Where all that a policy names is dead, it goes with all of that, whatever else cannot go."""
    both = '@id("two") forbid (principal, action in [Sojourn::Action::"ticket:merge", Sojourn::Action::"page:read"], resource);'
    stays = '@id("one") forbid (principal, action in [Sojourn::Action::"ticket:delete", Sojourn::Action::"ticket:read"], resource) when { principal.tokens_issued > 9 };'
    made_of = narrowing(use(unused=DEAD_PARTS), cedar=CEDAR + both + stays)
    assert [f"ceiling without ticket:delete at {TICKETS}"] == [each.edit.what for each in made_of.left_out]
    assert "two" not in {each.id for each in made_of.narrowed.kind.policy.clauses}


def test_what_stands_twice():
    """A value that stands in an array twice goes twice."""
    twice = TOML.replace('[\n  "' + TRIAGE, f'[\n  "{DEAD}", "{TRIAGE}').replace(
        '"ticket:merge"]', '"ticket:merge", "ticket:merge"]'
    )
    assert TOML != twice
    new = Narrowing(triage(twice), twice, CEDAR, edits_of(triage(twice), use(unused=DEAD_PARTS))).narrowed
    assert DEAD not in new.texts["triage.toml"]
    assert "ticket:merge" not in new.texts["triage.toml"]


def test_comments_stay_where_they_belong():
    """The comment of a table that goes goes with it, and that of the one before it or behind it does not."""
    commented = TOML.replace("[[ceiling]] # tickets", "# The tickets.\n[[ceiling]] # tickets").replace(
        f'[[ceiling]]\nresource = "{WIKI}"', f'# The wiki: never more.\n[[ceiling]]\nresource = "{WIKI}"'
    )
    commented += '# The archive.\n[[ceiling]]\nresource = "https://archive.example.org"\nactions = ["doc:read"]\n'
    new = Narrowing(triage(commented), commented, CEDAR, edits_of(triage(commented), use(unused=DEAD_PARTS))).narrowed
    text = new.texts["triage.toml"]
    assert "The wiki" not in text
    assert '# The archive.\n[[ceiling]]\nresource = "https://archive' in text
    assert "# The tickets.\n[[ceiling]] # tickets" in text


def test_a_forbidding_policy_stays():
    """A policy that forbids is never proposed to go by itself."""
    made_of = narrowing(use(unused={"policies": ["not-late"]}))
    assert () == made_of.narrowed.edits


@pytest.fixture
async def room(clock, stack):
    """In which tasks of the type begin."""
    return await stack.enter_async_context(Room(clock, TypeSet(triage=triage())).running())


async def kept(room, made_of):
    """Have the journal of a room looked at for what was used."""
    await room.engine.journal.drain()
    await room.audit.flush()
    faults = Faults()
    while True:
        decisions = Decisions(faults, lambda record, *more: made_of.take(record.event, record.seq, record.at_ms, *more))
        for seq, each in enumerate(room.store.events, 1):
            if each.event in HEARD:
                made_of.hear(each.event, seq, json.loads(each.fields))
            decisions.read(Record(seq, each.at_ms, each.event, each.fields, ""))
        assert [] == faults.found
        if not made_of.again():
            break
    return {each.edit.what: each.seq for each in made_of.left_out if each.why == USED}


async def test_what_was_used_stays(room):
    """A change that would have refused a token that was issued is left out, with the record that says so; others stay."""
    task = await room.begin(params={"area": "eu"})
    await room.engine.token(task, TICKETS, ["ticket:delete"])
    made_of = narrowing(use(unused=DEAD_PARTS))
    assert {f"ceiling without ticket:delete at {TICKETS}"} <= (found := await kept(room, made_of)).keys()
    assert all(found.values())
    actions = {each for grant in made_of.narrowed.kind.ceiling.grants for each in grant.actions}
    assert {"ticket:read", "ticket:write", "ticket:delete"} == actions
    assert {TRIAGE} == {str(each) for each in made_of.narrowed.kind.allowed_workloads}


async def test_what_was_named_stays(room):
    """An action that a task named as it began stays, though no token was taken; one that came with all others goes."""
    await room.begin(params={"area": "eu"})
    assert {} == await kept(room, narrowing(use(unused=DEAD_PARTS)))
    await room.begin(params={"area": "eu"}, wanted=Authority.of([Grant(TICKETS, ("ticket:read", "ticket:merge"))]))
    assert {f"ceiling without ticket:merge at {TICKETS}": 2} == await kept(room, narrowing(use(unused=DEAD_PARTS)))


async def test_a_value_that_was_used_stays(room):
    """A parameter's bound that would have refused a task is left out."""
    await room.begin(params={"area": "eu", "level": "40"}, wanted=READ_TICKETS)
    said = use(params=[{**SEEN, "name": "level", "min": 3, "max": 9}, {**SEEN, "name": "area", "values": ["eu"]}])
    made_of = narrowing(said, tighten=True)
    assert ["params.level: min = 1, max = 18"] == list(await kept(room, made_of))
    assert ["params.area: one_of = ['eu']"] == [each.what for each in made_of.narrowed.edits]


async def test_a_person_s_and_a_hidden_one_s(clock, stack):
    """An action that is used by a task of which policy cannot be asked again stays all the same."""
    hidden = TOML.replace("area = {", "area = {in_journal = false, max_length = 9, ")
    kind = triage(hidden)
    room = await stack.enter_async_context(Room(clock, TypeSet(triage=kind)).running())
    task = await room.begin(params={"area": "eu"})
    await room.engine.token(task, TICKETS, ["ticket:merge"])
    made_of = Narrowing(kind, hidden, CEDAR, edits_of(kind, use(unused=DEAD_PARTS)))
    assert [f"ceiling without ticket:merge at {TICKETS}"] == list(await kept(room, made_of))


ENDED = {"task": "t", "type": "triage", "binding": "stream", "seconds": 10.0, "spent": [1, 0]}


@pytest.mark.parametrize(
    ("said", "left_out"),
    [
        ({}, []),
        ({"binding": "process"}, ["binding = ['stream']"]),
        ({"seconds": 400.0}, ['max_duration = "200s"']),
        ({"spent": [15, 0]}, ["max_tokens = 14"]),
        ({"spent": [1, 9]}, ["max_reported_calls = 8"]),
    ],
)
def test_what_a_task_used_in_all(said, left_out):
    """What a task, of whatever version of the type, had more of than the narrower one allows stays as it is."""
    unused = {"bindings": ["process", "session", "one-shot"]}
    spreads = {"tokens": {"max": 7, "p99": 1}, "calls": {"max": 4, "p99": 1}}
    made_of = narrowing(use(seconds_max=100, unused=unused, **spreads), tighten=True)
    assert 4 == len(made_of.narrowed.edits)
    made_of.hear("task_ended", 7, {**ENDED, **said})
    assert bool(left_out) == made_of.again()
    assert [(each, 7) for each in left_out] == [(each.edit.what, each.seq) for each in made_of.left_out]


def test_what_was_handed_on_or_kept():
    """What a ticket was for, accepted or not, and what a holder kept by name, stays."""
    grants = [{"resource": TICKETS, "actions": ["ticket:merge"]}]
    for event, said in (
        ("task_delegated", {"to": DEAD, "grants": grants}),
        ("task_narrowed", {"reason": "holder", "grants": grants}),
    ):
        made_of = narrowing(use(unused=DEAD_PARTS))
        made_of.hear(event, 7, {"type": "triage", **said})
        assert made_of.again()
        assert [f"ceiling without ticket:merge at {TICKETS}"] == [each.edit.what for each in made_of.left_out]
    made_of = narrowing(use(unused=DEAD_PARTS))
    made_of.hear("task_delegated", 7, {"to": DEAD, "grants": grants, "wanted": "all"})
    made_of.hear("task_narrowed", 8, {"reason": "policy_changed", "grants": grants})
    assert not made_of.again()


def test_many_edits(monkeypatch):
    """However many there are, what one record shows to be used is found without trying one after the other."""
    many = [f"spiffe://example.org/agent/{number}" for number in range(300)]
    text = TOML.replace(f'"{DEAD}", # since 2024', ", ".join(f'"{each}"' for each in many))
    kind = triage(text)
    made_of = Narrowing(kind, text, CEDAR, edits_of(kind, use(unused={**DEAD_PARTS, "workloads": many})))
    count = 0

    def parsed(*arguments):
        nonlocal count
        count += 1
        return parse(*arguments)

    monkeypatch.setattr("sojourn.policy.type_files.parse", parsed)
    for event in ("task_delegated", "task_delegated"):
        grants = [{"resource": TICKETS, "actions": ["ticket:merge", "ticket:delete"]}]
        made_of.hear(event, 7, {"type": "triage", "to": DEAD, "grants": grants})
    assert made_of.again()
    assert 2 == len(made_of.left_out)
    assert count < 5


def test_cases():
    """Of what is kept out there is a case each, which the narrower type answers and the other one does not; a case that
    fails is told.
    """
    before = f"""
[default]
params = {{area = "eu"}}

[[case]] # kept
name = "reads"
action = "ticket:read"
resource = "{TICKETS}"
expect = "allow"

[[case]]
name = "merges"
action = "ticket:merge"
resource = "{TICKETS}"
expect = "allow"
"""
    said = use(unused=DEAD_PARTS, params=[{**SEEN, "name": "level", "min": 3, "max": 9}])
    new = narrowing(said, tighten=True).narrowed
    (failed,) = failing(new.kind, before)
    assert "triage.test.toml: merges: expected allow, got deny" in failed
    text, added = with_denials(triage(), new.kind, before, new.edits)
    assert text.startswith(before.rstrip("\n"))
    assert 5 == len(added)
    assert [failed] == failing(new.kind, text)
    assert 5 == len(failing(triage(), text))
    again, more = with_denials(triage(), new.kind, text, new.edits)
    assert (text, []) == (again, more)


@pytest.mark.parametrize(
    "before",
    [
        f'[[case]]\nname = "reads"\naction = "ticket:read"\nresource = "{TICKETS}"\nparams = {{area = "x"}}\nexpect = "allow"',
        "this is no TOML",
        'case = "x"',
        f'case = [{{name = "reads", action = "ticket:read", resource = "{TICKETS}", params = {{area = "x"}}, expect = "allow"}}]',
    ],
    ids=["no last newline", "no TOML", "no cases", "inline"],
)
def test_files_of_cases_that_are_odd(before):
    """A file of cases is whole after it, or as it was."""
    new = narrowing(use(unused=DEAD_PARTS)).narrowed
    text, added = with_denials(triage(), new.kind, before, new.edits)
    assert text == before or (added and [] == failing(new.kind, text))


def test_cases_where_there_were_none():
    """A file of cases is made, with a made-up value of the parameters that the type requires."""
    said = use(unused=DEAD_PARTS, params=[{**SEEN, "name": "area", "values": ["eu"]}])
    new = narrowing(said, tighten=True).narrowed
    text, added = with_denials(triage(), new.kind, "", new.edits)
    assert 4 == len(added)
    assert [] == failing(new.kind, text)


# --- any type, and any use of it --------------------------------------------------------------------------------------


def any_use(draw: random.Random, kind: TaskType):
    """What might have been used of a type, in numbers and in parts."""
    names = [(each.resource, name) for each in kind.ceiling.grants for name in each.actions]

    def some(of):
        found = sorted(of)
        return draw.sample(found, draw.randrange(len(found) + 1))

    unused = {
        "workloads": some(map(str, kind.allowed_workloads)),
        "delegates": some(kind.delegation.to if kind.delegation else []),
        "actions": [action(name, at) for at, name in some(names)],
        "bindings": some(kind.bindings),
        "policies": some([each.id for each in kind.policy.clauses]),
    }
    seen = [
        {**SEEN, "name": "level", "min": draw.randrange(-3, 5), "max": draw.randrange(5, 12)},
        {**SEEN, "name": "kind", "values": some(["a", "b", "c"]), "number": draw.randrange(1, 30)},
    ]
    most = [{"action": name, "most": draw.randrange(4)} for _, name in names]
    spreads = {name: {"max": draw.randrange(4), "p99": 1} for name in ("tokens", "calls", "depth", "children")}
    return use(seconds_max=draw.random() * 900, params=seen, actions=most, unused=unused, **spreads)


@pytest.mark.full
def test_nothing_is_granted():
    """Whatever was used of whatever type: what is proposed answers yes to no question that the type answers with no."""
    draw, asked, edits = random.Random(7), 0, 0
    while asked < ASKED:
        said = drawn(draw, {**BASE, "cedar": draw.choice(POLICIES)}, draw.randrange(3))
        if made(said) is None:
            continue
        text = toml(**{name: value for name, value in said.items() if name != "cedar"})
        old = parse("triage", text, said["cedar"])
        new = Narrowing(
            old, text, said["cedar"], edits_of(old, any_use(draw, old), tighten=draw.random() < 0.5)
        ).narrowed
        assert [] == wider_type(old, new.kind)
        edits += len(new.edits)
        for _ in range(100):
            one, asked = question(draw), asked + 1
            if asked_of(new.kind, one):
                assert asked_of(old, one)
    assert edits > asked // 100
