"""oversight/report.py: what of a type was used, and what was not, and whether that says anything."""

import json

import pytest
from fakes.task_types import PERMIT_ALL, TICKETS, TRIAGE, WIKI, task_type
from fakes.usage_records import DAY, START_MS, ended, event, use
from hypothesis import given
from hypothesis import strategies as st
from sojourn.oversight.counting import count
from sojourn.oversight.report import NO_REPORTS, OUTSIDE, Asked, WorkloadUse, report
from sojourn.oversight.sums import DAY_MS, Sums, Window

OTHER, THIRD = "spiffe://example.org/agent/other", "spiffe://example.org/agent/third"
KIND = task_type(
    cedar=f'{PERMIT_ALL} @id("no-freeze") forbid (principal, action, resource) when {{ context.facts has freeze }};',
    allowed_workloads=f'["{TRIAGE}", "{OTHER}"]',
    facts='{freeze = "boolean", level = "long"}',
    binding='["stream", "process"]',
    delegation=f'{{to = ["{THIRD}"]}}',
    limits='{"ticket:write" = 5}',
)
LATER_MS = START_MS + 89 * DAY_MS
ASKED = Asked(START_MS, LATER_MS, START_MS - 1)
PAGE = {"resource": WIKI, "action": "page:read", "tokens": 0, "calls": 0}


def of(*events, kind=KIND, asked=ASKED, workload="", more=()):
    """The report of one type."""
    made, found = Sums(), Sums()
    for each in events:
        fields = json.loads(each.fields)
        if "type" in fields and fields.get("type_version") == "0123456789abcdef":
            fields |= kind.named
        count(made, each.at_ms, each.event, fields)
    found.merge(made, Window(asked.since_ms // DAY_MS, asked.until_ms // DAY_MS))
    return report([*more, kind], found, asked, workload)[-1]


class TestUnused:
    def test_of_a_type_that_nobody_used(self):
        """All that a type allows is unused if no task of it was there."""
        found = of().unused
        assert ((OTHER, TRIAGE), (THIRD,), (TICKETS, WIKI)) == (found.workloads, found.delegates, found.resources)
        assert ((TICKETS, "ticket:read"), (TICKETS, "ticket:write"), (WIKI, "page:read")) == found.actions
        assert (("process", "stream"), ("all", "no-freeze"), ("freeze", "level")) == (
            found.bindings,
            found.policies,
            found.facts,
        )

    def test_what_was_used(self):
        """An action is used by whoever took a token for it; a grant alone is no use."""
        found = of(ended(use(tokens=1), use("ticket:write"), PAGE))
        assert ((TICKETS, "ticket:write"), (WIKI, "page:read")) == found.unused.actions
        assert (WIKI,) == found.unused.resources
        assert ((OTHER,), ("process",)) == (found.unused.workloads, found.unused.bindings)

    def test_a_token_without_an_end(self):
        """A token of a task that has no end in the journal is use all the same."""
        token = event(
            "token_issued", resource=TICKETS, actions=["ticket:write"], policies=["all"], type="triage",
            type_version="0123456789abcdef", spiffe_id=TRIAGE,
        )  # fmt: skip
        assert (TICKETS, "ticket:write") not in of(token).unused.actions

    def test_what_was_handed_on(self):
        """Whoever began tasks and whoever accepted them are apart: the one is no use of the other."""
        child = ended(use(), depth=1, spent=None, spiffe_id=THIRD)
        found = of(ended(use()), child)
        assert (WorkloadUse(THIRD, 0, 1), WorkloadUse(TRIAGE, 1, 0)) == found.workloads
        assert ((OTHER,), ()) == (found.unused.workloads, found.unused.delegates)
        assert (TRIAGE, OTHER) != of(child).unused.workloads
        assert (OTHER, TRIAGE) == of(child).unused.workloads

    def test_without_a_call(self):
        """An action with tokens and without a call is told where the service tells of others; where it tells of none,
        nothing is said.
        """
        both = use("ticket:write", tokens=1)
        assert ((TICKETS, "ticket:write"),) == of(ended(use(tokens=1, calls=1), both)).unused.uncalled
        assert () == of(ended(use(tokens=1), both)).unused.uncalled

    def test_policies_and_facts(self):
        """A policy that decided, and a fact that had two values, were of use; one that was constant changed nothing."""
        named = {"type": "triage", "type_version": "0123456789abcdef", "spiffe_id": TRIAGE, "policies": ["all"]}
        facts = [{"freeze": {"value": False}, "level": {"value": each}} for each in (1, 2)]
        found = of(*(event("task_begun", facts=each, **named) for each in facts))
        assert (("no-freeze",), ("freeze",)) == (found.unused.policies, found.unused.facts)
        assert {"all": 2, "no-freeze": 0} == found.policies


class TestBlind:
    def test_without_reports(self):
        """A resource of which no service told a single call is blind; a call by any type tells that it is not."""
        (row,) = of(ended(use(tokens=1))).actions
        assert NO_REPORTS == row.blind
        other = ended(use(tokens=1, calls=1), type="export", type_version="other")
        (row,) = of(ended(use(tokens=1)), other).actions
        assert "" == row.blind

    def test_of_a_provider(self):
        """A provider's resource is blind always, whatever else is told of it."""
        ceiling = f'[{{resource = "{TICKETS}", actions = ["ticket:read"], provider = "cloud"}}]'
        kind = task_type(ceiling=ceiling)
        (row,) = of(ended(use(tokens=1, calls=1)), kind=kind).actions
        assert OUTSIDE == row.blind
        assert () == of(ended(use(tokens=1)), kind=kind).unused.uncalled


class TestEnough:
    @pytest.mark.parametrize(
        ("days", "tasks", "lacking"),
        [
            (30, 20, ""),
            (29, 20, "not enough evidence: 29 of 30 days, 20 of 20 tasks"),
            (90, 19, "not enough evidence: 90 of 30 days, 19 of 20 tasks"),
            (0, 0, "not enough evidence: 0 of 30 days, 0 of 20 tasks"),
        ],
    )
    def test_days_and_tasks(self, days, tasks, lacking):
        """Below thirty days or twenty tasks nothing is concluded, and the figures are there all the same."""
        asked = Asked(START_MS, START_MS + days * DAY_MS + 1, 0)
        found = of(*(ended(use()) for _ in range(tasks)), asked=asked)
        assert (lacking, not lacking, tasks) == (found.lacking, found.enough, found.tasks)

    @pytest.mark.parametrize(
        ("counted", "in_force", "since"),
        [(0, {}, START_MS), (START_MS + 5, {}, START_MS + 5), (0, {"triage": START_MS + 7}, START_MS + 7)],
    )
    def test_no_earlier_than_it_is_so(self, counted, in_force, since):
        """A report begins no earlier than the type is as it is, and than anything was counted."""
        asked = Asked(START_MS, LATER_MS, counted, in_force)
        assert since == of(asked=asked).since_ms

    def test_a_type_that_is_newer_than_the_time(self):
        """A time that was over before the type was as it is has nothing of it."""
        asked = Asked(START_MS, LATER_MS, 0, {"triage": LATER_MS + DAY_MS})
        found = of(asked=asked)
        assert (LATER_MS, False) == (found.since_ms, found.enough)

    def test_as_it_was_before(self):
        """Tasks of the type as it was before are a number, and are evidence of nothing."""
        found = of(ended(use(tokens=1), type_version="another"), ended(use()))
        assert (1, 1) == (found.before, found.tasks)
        assert (TICKETS, "ticket:read") in found.unused.actions


class TestNumbers:
    def test_spreads(self):
        """The greatest is exact, and so is what small budgets need."""
        ends = [ended(use(tokens=3, calls=1), seconds=1.5)] * 99 + [ended(use(tokens=5, calls=40), seconds=60)]
        found = of(*ends)
        assert (60, 5, 40) == (found.seconds_max, found.tokens.greatest, found.calls.greatest)
        assert (3, 1) == (found.tokens.p99, found.calls.p99)
        assert 1.5 <= found.seconds_p99 <= 1.8

    def test_limits(self):
        """Uses of an action with a limit stand beside the limit."""
        (row,) = of(ended(use("ticket:write", counted=3, limit=5))).actions
        assert (3, 5) == (row.sum.most, row.limit)

    def test_of_one_workload(self):
        """With a workload the report is of that one, and says nothing of what others did not use."""
        found = of(ended(use(tokens=1)), ended(use(), spiffe_id=OTHER), workload=OTHER)
        assert (1, [OTHER]) == (found.tasks, [each.workload for each in found.actions])
        assert ((), ()) == (found.unused.workloads, found.unused.delegates)
        assert (TICKETS, "ticket:read") in found.unused.actions
        assert (TRIAGE,) == of(workload=TRIAGE).unused.workloads


@given(
    st.lists(st.tuples(st.sampled_from(["ticket:read", "ticket:write"]), st.integers(0, 2), st.integers(0, 2))),
)
def test_nothing_used_is_called_unused(rows):
    """Whatever was used is in no list of what was not; and what is in a list was not used."""
    ends = [ended(use(action, tokens=tokens, calls=calls), at_ms=DAY * DAY_MS) for action, tokens, calls in rows]
    unused = {action for _, action in of(*ends).unused.actions}
    used = {action for action, tokens, calls in rows if tokens or calls}
    assert {"ticket:read", "ticket:write", "page:read"} - used == unused
