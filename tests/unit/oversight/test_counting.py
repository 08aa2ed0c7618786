"""oversight/counting.py, oversight/sums.py: what each record adds to the sums."""

import json

import pytest
from fakes.usage_records import DAY, RECORDS, START_MS, TICKETS, TRIAGE, ended, event, named, use
from hypothesis import given
from sojourn.oversight.counting import COUNTED, count
from sojourn.oversight.sums import DAY_MS, ActionKey, ActionSum, Sums, TypeKey, TypeSum, Window

KEY = TypeKey(DAY, "triage", "0123456789abcdef", TRIAGE)
READ = ActionKey(*KEY, TICKETS, "ticket:read")


def sums_of(events, room=None):
    found = Sums(room=room)
    for each in events:
        count(found, each.at_ms, each.event, json.loads(each.fields))
    return found


def late(*late_rows, rows, **fields):
    calls = sum(row["calls"] for row in rows)
    spent = [sum(row["tokens"] for row in rows), calls]
    said = {"late": [list(row) for row in late_rows], "use": rows, "calls": calls, "spent": spent, **named(), **fields}
    return event("task_used", START_MS + 5, **said)


class TestEnds:
    def test_grades_are_apart(self):
        """A task that had an action, one that took a token for it, and one of which calls were told count each apart."""
        found = sums_of([ended(use()), ended(use(tokens=3)), ended(use(tokens=2, calls=5), at_ms=START_MS + 9)])
        expected = ActionSum(granted=3, taken=2, called=1, calls=5, unused_tokens=3)
        expected.used_at(START_MS + 9)
        assert expected == found.actions[READ]

    def test_a_life(self):
        """How long tasks lived, and what each family spent, is known by the greatest and by shares of them."""
        found = sums_of([ended(use(tokens=2), seconds=2.5), ended(use(tokens=1), seconds=0.25)]).types[KEY]
        assert (2, 2500, 2, {"stream": 2}) == (
            found.tasks,
            found.milliseconds.greatest,
            found.tokens.greatest,
            found.bindings,
        )

    def test_budgets_are_the_family_s(self):
        """Of a task that was handed on budgets are counted with the first of its line, and not by themselves."""
        child = ended(use(tokens=4), depth=1, spent=None)
        first = ended(use(tokens=1), spent=[5, 0], children=1)
        found = sums_of([child, first]).types[KEY]
        assert (2, 5, 1, 1, 1) == (
            found.tasks,
            found.tokens.greatest,
            sum(found.tokens.counts.values()),
            found.depth.greatest,
            found.children.greatest,
        )

    def test_one_that_never_began(self):
        """A task to which nobody agreed was granted nothing, and is none that was there."""
        assert Sums() == sums_of([ended(use(), seconds=None)])

    def test_uses_that_are_counted(self):
        """The most uses that one family made of an action with a limit are known."""
        rows = [ended(use(counted=each, limit=9)) for each in (2, 7, 3)]
        assert 7 == sums_of(rows).actions[READ].most


class TestLate:
    @pytest.mark.parametrize("first", [0, 2])
    def test_as_if_in_time(self, first):
        """Calls that were told after the end leave what they would have left before it, but for the time."""
        rows = [use(tokens=1, calls=first + 3)]
        told = sums_of([ended(use(tokens=1, calls=first)), late((TICKETS, "ticket:read", 3), rows=rows)])
        in_time = sums_of([ended(*rows)])
        assert in_time.types == told.types
        for each in (told.actions[READ], in_time.actions[READ]):
            each.first_ms = each.last_ms = 0
        assert in_time.actions == told.actions

    def test_in_two_parts(self):
        """Each record of late calls says what no other has said."""
        told = [
            ended(use(tokens=1)),
            late((TICKETS, "ticket:read", 1), rows=[use(tokens=1, calls=1)]),
            late((TICKETS, "ticket:read", 2), rows=[use(tokens=1, calls=3)]),
        ]
        found = sums_of(told).actions[READ]
        assert (1, 3, 0) == (found.called, found.calls, found.unused_tokens)

    def test_of_a_family(self):
        """Where others of its family may have told more since, the greatest is set right."""
        rows = [use(tokens=1, calls=2)]
        told = late((TICKETS, "ticket:read", 2), rows=rows, children=1, spent=[1, 40])
        assert 40 == sums_of([ended(use(tokens=1), children=1), told]).types[KEY].calls.greatest

    def test_nothing_more(self):
        """A record that says no more than the one before changes nothing."""
        assert Sums() == sums_of([late(rows=[use(tokens=1, calls=2)])])


class TestDecisions:
    def test_what_decided(self):
        """Policies that decided and what they read of facts are known, and what they denied of the type."""
        facts = {"freeze": {"value": True, "source": "operator", "age_seconds": 1.5}}
        said = {
            "policies": ["no-freeze"],
            "facts": facts,
            "denied": [[TICKETS, "ticket:read"]],
            "code": "policy_denied",
        }
        found = sums_of([event("token_denied", **said, **named())])
        assert (1, {"no-freeze": 1}, {"policy_denied": 1}, [True]) == (
            found.actions[READ].denied,
            found.types[KEY].policies,
            found.types[KEY].denials,
            found.types[KEY].facts["freeze"].shown,
        )

    def test_tokens_have_their_times(self):
        """The first and the last token of an action are known to the moment; a token of a provider counts as one."""
        fields = {"resource": TICKETS, "actions": ["ticket:read"], "policies": [], **named()}
        found = sums_of(
            [event("token_issued", START_MS + 7, **fields), event("external_credential_issued", START_MS + 3, **fields)]
        ).actions[READ]
        assert (2, START_MS + 3, START_MS + 7) == (found.tokens, found.first_ms, found.last_ms)

    def test_refusals_of_services(self):
        """What services refused is counted by its code, under no name that a service made up."""
        fields = {"code": "wrong_params", "count": 4, "resource": "made:up", "action": "made-up"}
        found = sums_of([event("request_refused", **fields, **named())])
        assert ({"wrong_params": 4}, {}) == (found.types[KEY].denials, found.actions)

    def test_params(self):
        """Parameters of tasks are seen as they began; one that is not to be in the journal is not seen."""
        params = {"ticket": "T-1", "amount": 7, "secret": {"sha256": "00"}}
        found = sums_of([event("task_begun", params=params, policies=[], **named())]).types[KEY].params
        assert {"ticket": ["T-1"], "amount": [7]} == {name: seen.shown for name, seen in found.items()}


class TestRecords:
    def test_of_before(self):
        """A record of an older release, which does not say which type it was, counts nothing, and is no fault."""
        assert Sums() == sums_of([ended(use(), type_version=None)])

    def test_that_are_damaged(self):
        """A record that is not as the agent writes it is told as such, and hinders no other."""
        damaged = event("task_ended", seconds=1, use=[{}], binding="stream", **named())
        found = sums_of([damaged, ended(use())])
        assert (1, 1) == (found.unread, found.actions[READ].granted)

    @pytest.mark.parametrize("name", sorted(COUNTED))
    def test_that_say_nothing(self, name):
        """No record whatever raises."""
        for fields in (
            {},
            {"type_version": 1, "spiffe_id": 2, "type": 3},
            {**named(), "policies": 7},
            {"entry_id": []},
        ):
            count(Sums(), 0, name, fields)

    def test_that_do_not_count(self):
        """A record of something else is of no account."""
        assert Sums() == sums_of([event("agent_started", **named())])


class TestSums:
    @given(RECORDS, RECORDS)
    def test_two_make_a_third(self, one, other):
        """Sums of two parts of a journal together are those of the whole, in whatever order they are put together."""
        first, second = sums_of(one), sums_of(other)
        first.merge(sums_of(other))
        second.merge(sums_of(one))
        assert sums_of(one + other) == first == second

    @given(RECORDS)
    def test_they_come_back(self, records):
        """What is written of a type's sums is what is read."""
        for each in sums_of(records).types.values():
            assert each == TypeSum.read(json.loads(json.dumps(each.document())))

    def test_the_greatest_comes_back(self):
        """The most calls are written although they are in the same bucket as what was told before."""
        rows = [use(tokens=1, calls=12)]
        found = sums_of([late((TICKETS, "ticket:read", 1), rows=rows)]).types[KEY]
        assert (12, 12) == (found.calls.greatest, TypeSum.read(found.document()).calls.greatest)

    def test_a_window(self):
        """A window has its days and no others, of a type those since it is as it is, and says no day any more."""
        days = [ended(use(), at_ms=START_MS + day * DAY_MS) for day in range(5)]
        found = Sums()
        found.merge(sums_of(days), Window(DAY + 1, DAY + 3, since_of={"triage": DAY + 2}))
        assert {READ._replace(day=0): 2} == {key: each.granted for key, each in found.actions.items()}
