"""policyrules.py and policylines.py: the same rules in two languages, and questions that they decide differently."""

import pytest
from harness.taskagent import PLACE_A
from policylines import COUNTS, bare, sojourn
from policyrules import ACTIONS, TYPE, cedar, questions, rego, rules
from sojourn.policy.task_types import parse


@pytest.mark.parametrize("count", COUNTS)
def test_a_tenth_about_each_action(count):
    """No action has many more rules than another, so each decision is about a tenth of them."""
    about = [sum(rule.action == action for rule in rules(count)) for action in ACTIONS]
    assert max(about) - min(about) <= 1
    assert count == sum(about)


@pytest.mark.parametrize("count", COUNTS)
def test_each_rule_in_both_languages(count):
    """There are as many permits and as many forbids in Rego as in Cedar."""
    for effect in ("permit", "forbid"):
        in_rego = rego(count).count(f"\n{effect} if {{")
        assert in_rego == cedar(count).count(f" {effect} (")
    kind = parse("many", TYPE, cedar(count))
    assert count == len(kind.policy.clauses)


def test_decisions():
    """The questions are no two alike; both answers are given, and bare Cedar gives the same ones as the engine's rules."""
    some = questions(200)
    ours, decide = sojourn(50), bare(50)
    assert 200 == len({repr(each) for each in some})
    assert {PLACE_A} == {each.document()["resource"] for each in some}
    answers = [ours(each) for each in some]
    assert {True, False} == set(answers)
    assert answers == [decide(each) for each in some]
