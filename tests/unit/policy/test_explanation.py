"""explanation.py: why policy answers so, and what would change that; every change that is named does."""

import pytest
from fakes.policies import question
from fakes.task_types import TICKETS, TRIAGE, WIKI, task_type
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sojourn.policy.cedar_schema import Reading
from sojourn.policy.explanation import explain

CEDAR = """@id("few") permit (
  principal in Sojourn::TaskType::"triage", action == Sojourn::Action::"ticket:read", resource
) when { context.params has level && context.params.level <= 10 && principal.tokens_issued < 3 };
@id("no-urgent") forbid (principal, action, resource == Sojourn::Resource::"https://tickets.example.org")
when { context.params has urgent && context.params.urgent } unless { principal.reported_calls == 0 };
@id("nor-this") forbid (principal, action, resource) when { context.params has ticket && context.params.ticket like "X(*" };"""
KIND = task_type(cedar=CEDAR)


def asked(action="ticket:read", resource=TICKETS, workload=TRIAGE, **more):
    params = more.pop("params", {"level": "5"})
    return explain(KIND, question(action, resource, params, workload=workload, **more))


def changes(found):
    return {each.what: each.allowed for each in found.changes}


def misses(found, id_):
    return next(each.misses for each in found.standings if each.id == id_)


class TestAllowed:
    def test_who_decided_on_what(self):
        """An answer has the policies that decided, and all attributes that it was decided on."""
        found = asked()
        assert (True, "policy", ("few",)) == (found.allowed, found.rule, found.policies)
        assert ("5", "0", TRIAGE) == (
            found.attributes["context.params.level"],
            found.attributes["principal.tokens_issued"],
            found.attributes["principal.workload"],
        )

    def test_what_would_end_it(self):
        """What is allowed would be denied without its permit, and with other values just beyond those that policies name."""
        found = changes(asked())
        assert {False} == set(found.values())
        for what in (
            "without permit few",
            "with parameter level '11'",
            "with parameter level left out",
            "with tokens_issued 3",
        ):
            assert what in found


class TestDenied:
    def test_by_a_condition(self):
        """A permit whose condition fails shows the part that does, and the change that would do."""
        found = asked(params={"level": "11"})
        assert ("no policy permits it", ()) == (found.reason, found.policies)
        assert ("when { context.params.level <= 10 } does not hold",) == misses(found, "few")
        assert found.standings[0].id == "few"
        assert changes(found)["with parameter level '10'"]

    def test_by_a_missing_parameter(self):
        """A guard that fails is shown in place of what it guards."""
        assert ("when { context.params has level } does not hold",) == misses(asked(params={}), "few")

    def test_by_scope(self):
        """A permit for another action or another type shows what it is for."""
        found = asked("ticket:write")
        assert ('it is for action == Action::"ticket:read"',) == misses(found, "few")
        assert {"with action ticket:read": True} == changes(found)

    def test_by_a_forbid(self):
        """A forbid that applies is named, and that it would be allowed without."""
        found = asked(params={"level": "1", "urgent": "true"}, reported_calls=1)
        assert ("a policy forbids it", ("no-urgent",)) == (found.reason, found.policies)
        assert () == misses(found, "no-urgent")
        said = changes(found)
        for what in ("without forbid no-urgent", "with parameter urgent 'false'", "with reported_calls 0"):
            assert said[what]

    def test_by_an_unless(self):
        """A forbid that an exception keeps from applying shows the exception."""
        found = asked(params={"level": "1", "urgent": "true"})
        assert ("unless { principal.reported_calls == 0 } holds",) == misses(found, "no-urgent")

    def test_by_two_forbids(self):
        """Of two forbids neither alone is in the way: that both together are is said."""
        found = asked(params={"level": "1", "urgent": "true", "ticket": "X(1"}, reported_calls=1)
        said = changes(found)
        assert said["without all of forbid no-urgent, nor-this"]
        assert "without forbid no-urgent" not in said

    def test_text_in_conditions_stays_whole(self):
        """Brackets within a text of a condition are left alone."""
        found = asked(params={"level": "1", "ticket": "Y"})
        assert ('when { context.params.ticket like "X(*" } does not hold',) == misses(found, "nor-this")

    def test_by_our_own_forbid(self):
        """A task that is over is forbidden by us, and the state would change it."""
        found = asked(state="revoked")
        assert (("sojourn.task-not-active",), True) == (found.policies, changes(found)["with state active"])

    @pytest.mark.parametrize(
        ("more", "rule", "what"),
        [
            ({"workload": "spiffe://example.org/other"}, "workload", f"with workload {TRIAGE}"),
            ({"params": {"level": "x"}}, "params", "with parameter level '1'"),
            ({"resource": "https://other.example.org"}, "ceiling", f"with resource {TICKETS}"),
        ],
    )
    def test_before_policy(self, more, rule, what):
        """What is refused before policy is asked has no policies, but what would change it."""
        found = asked(**more)
        assert (False, rule, (), True) == (found.allowed, found.rule, found.standings, changes(found)[what])

    def test_a_policy_that_cannot_be_evaluated(self):
        """A policy that cannot be evaluated is shown as an error, not as a no."""
        kind = task_type(
            cedar='@id("p") permit (principal, action, resource); @id("f") forbid (principal, action, resource)'
            f" when {{ context.params has level && context.params.level + {2**63 - 1} > 0 }};"
        )
        found = explain(kind, question("ticket:read", TICKETS, {"level": "1"}))
        assert (False, True) == (found.allowed, "could not be evaluated" in misses(found, "f")[0])


@examples(60)
@given(
    st.sampled_from(["ticket:read", "ticket:write", "page:read"]),
    st.sampled_from([TICKETS, WIKI]),
    st.fixed_dictionaries(
        {},
        optional={
            "level": st.sampled_from(["-1", "10", "11", "x"]),
            "urgent": st.sampled_from(["true", "false"]),
            "ticket": st.sampled_from(["X(1", "Y"]),
        },
    ),
    st.integers(0, 4),
    st.sampled_from([0, 1]),
)
def test_every_change_is_a_change(action, resource, params, tokens, calls):
    """Whatever is asked: what would change the answer never has the answer as it is; what applies has decided."""
    found = asked(action, resource, params=params, tokens_issued=tokens, reported_calls=calls)
    assert all(each.allowed is not found.allowed for each in found.changes)
    applying = {each.id for each in found.standings if each.applies}
    assert set(found.policies) <= applying
    if found.rule == "policy":
        assert found.allowed == ("few" in applying and applying <= {"few"})


class TestFacts:
    KIND = task_type(
        cedar="""@id("all") permit (principal, action, resource);
@id("risky") forbid (principal, action, resource) when { context.facts has risk && context.facts.risk > 5 };
@id("frozen") forbid (principal, action, resource) when { context.facts.freeze };""",
        facts='{risk = "long", freeze = {type = "boolean", required = true}}',
    )

    def explained(self, facts, absent=None, known=None):
        asked = question("ticket:read", TICKETS, facts=facts, absent=absent or {})
        return explain(self.KIND, asked, known or {})

    def test_decided_on(self):
        """Facts are among what was decided on: source and age of those in force, and why others are not there."""
        why = "stale: 9 s old, at most 5 s"
        found = self.explained({"freeze": False}, {"risk": why}, {"freeze": Reading(False, "operator", 12.4)})
        assert found.allowed
        assert "false (operator, 12 s old)" == found.attributes["context.facts.freeze"]
        assert f"absent: {why}" == found.attributes["context.facts.risk"]

    def test_what_would_change_it(self):
        """Other values of facts are tried, just beyond those that policies name, and leaving them out."""
        allowed = changes(self.explained({"freeze": False}))
        assert {"with fact freeze true", "with fact freeze absent", "with fact risk 6"} <= set(allowed)
        denied = self.explained({"freeze": False, "risk": 9})
        assert ("policy", ("risky",)) == (denied.rule, denied.policies)
        assert {"with fact risk 5": True, "with fact risk absent": True}.items() <= changes(denied).items()

    def test_a_required_one_that_is_not_there(self):
        """Without it the answer names it, and what it would have to be."""
        found = self.explained({})
        assert ("facts", "fact 'freeze' is missing") == (found.rule, found.reason)
        assert {"with fact freeze false": True} == changes(found)
