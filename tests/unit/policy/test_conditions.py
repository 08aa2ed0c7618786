"""conditions.py: who must agree, to whom a task may be handed on, and which facts are read."""

from datetime import timedelta

from fakes.task_types import task_type
from sojourn.policy.conditions import ApprovalCondition, conditions
from sojourn.policy.task_type_tables import ApprovalRule

READER = "spiffe://example.org/agent/read"
GLASS = {
    "consequence": '"high"',
    "break_glass": "true",
    "max_duration": '"30m"',
    "max_tokens": "5",
    "approval": f'{{approvers = ["operator", "{READER}"], count = 2, within = "90s"}}',
}
READS = '{freeze = {type = "boolean", required = true, max_age = "10m", on_deny = "suspend"}, level = "long"}'


def test_a_type_without_any():
    """Nothing stands around a plain type, and nothing is said of it."""
    found = conditions(task_type(), None)
    assert ((None, False, None, ()), "none", []) == (
        (found.approval, found.break_glass, found.delegation, found.facts),
        found.names(),
        list(found.lines()),
    )


def test_broken_glass_and_approval():
    """Who must agree is said, how many of them, and in which time; and that a review is owed."""
    kind = task_type(**GLASS)
    found = conditions(kind, kind.approval)
    assert (ApprovalCondition(("operator", READER), 2, 90), "approval, break-glass") == (found.approval, found.names())
    assert [
        "it is break-glass: a review is owed before the next one",
        f"2 of operator, {READER} must agree, within 90s",
    ] == list(found.lines())


def test_the_approval_of_a_class():
    """What the agent asks of a whole class counts, although the type does not say it."""
    found = conditions(task_type(), ApprovalRule(within=timedelta(minutes=1)))
    assert ApprovalCondition(("operator",), 1, 60) == found.approval


def test_limits():
    """How often an action may be done is a condition, by its name and number."""
    found = conditions(task_type(limits='{"ticket:write" = 1, "ticket:read" = 3}'), None)
    assert "limits ticket:read=3 ticket:write=1" == found.names()
    assert [
        "it may do ticket:read 3 times, together with all that it hands on",
        "it may do ticket:write once, together with all that it hands on",
    ] == list(found.lines())


def test_several():
    """Several workloads and several sources are told one after the other."""
    source = "https://issuer.example.org"
    kind = task_type(
        facts=f'{{freeze = {{type = "boolean", sources = ["operator", "{source}"]}}}}',
        delegation=f'{{to = ["{READER}", "{READER}er"]}}',
    )
    assert [
        f"it may be handed on to {READER}, {READER}er: 5 times, 1 deep",
        f"it reads fact freeze (boolean) of operator, {source}: revoke",
    ] == list(conditions(kind, None).lines())


def test_delegation_and_facts():
    """To whom, how often and how far; and each fact with whom it is believed of, and what a denial does."""
    found = conditions(task_type(facts=READS, delegation=f'{{to = ["{READER}"], max_depth = 2}}'), None)
    assert "delegation, facts freeze level" == found.names()
    assert [
        f"it may be handed on to {READER}: 5 times, 2 deep",
        "it reads fact freeze (boolean, required, at most 10m old) of operator: suspend",
        "it reads fact level (long) of operator: revoke",
    ] == list(found.lines())
