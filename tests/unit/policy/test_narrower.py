"""narrower.py: what is said to be no wider allows nothing that was not allowed; of the rest it says what it is."""

import os
import random
from dataclasses import fields

import pytest
from fakes.task_types import PERMIT_ALL, TICKETS, task_type
from fakes.varied_types import BASE, CHANGES, FORBID, LOW, asked_of, drawn, made, question
from harness.examples import QUICK
from sojourn.policy.narrower import OF_FIELDS, wider, wider_type
from sojourn.policy.params import ParamRule
from sojourn.policy.task_type_tables import ApprovalRule, DelegationRule, FactRule
from sojourn.policy.task_types import TaskType

ASKED = int(os.environ.get("SOJOURN_FUZZ_CASES", "10000" if QUICK else "30000"))  # `make fuzz` asks a million
BOLD = {"a permit less": (PERMIT_ALL + LOW, LOW, False), "a forbid less": (PERMIT_ALL + FORBID, PERMIT_ALL, True)}
NO_PAGES = '@id("no-pages") forbid (principal, action == Sojourn::Action::"page:read", resource);'


def kind(**changes) -> TaskType:
    return task_type(**{**BASE, **changes})


@pytest.mark.parametrize("what", CHANGES)
def test_one_change(what):
    """Each change of a type is told as one that may allow more, or is none."""
    changes, more = CHANGES[what]
    assert more == bool(wider_type(kind(), kind(**changes)))


@pytest.mark.parametrize("what", BOLD)
def test_a_policy_less(what):
    """A permit may go, a forbid may not."""
    before, after, more = BOLD[what]
    assert more == bool(wider_type(kind(cedar=before), kind(cedar=after)))


def test_a_policy_of_no_action():
    """A policy that forbids may go together with all the actions that it is about."""
    tickets = {"ceiling": f'[{{resource = "{TICKETS}", actions = ["ticket:read", "ticket:write"]}}]'}
    assert wider_type(kind(cedar=PERMIT_ALL + NO_PAGES), kind(cedar=PERMIT_ALL))
    assert [] == wider_type(kind(cedar=PERMIT_ALL + NO_PAGES), kind(cedar=PERMIT_ALL, **tickets))
    assert wider_type(kind(cedar=PERMIT_ALL + FORBID), kind(cedar=PERMIT_ALL, **tickets))


LIMITED = {
    "ceiling": f'[{{resource = "{TICKETS}", actions = ["ticket:read", "ticket:write"]}}]',
    "limits": '{"ticket:write" = 3}',
    "bind": None,
    "approval": None,
}
ONLY_READS = {**LIMITED, "limits": None, "ceiling": f'[{{resource = "{TICKETS}", actions = ["ticket:read"]}}]'}
BY_USES = (
    """@id("u") forbid (principal, action, resource) when {
  principal.uses has "ticket:write" && principal.uses["ticket:write"] > 0 };""",
    '@id("u") permit (principal, action, resource) when { !(principal.uses has "ticket:write") };',
)


@pytest.mark.parametrize("uses", BY_USES)
def test_a_limit_that_policies_read(uses):
    """A limit does not just go with its action where a policy asks whether there is one; else it does."""
    cedar = PERMIT_ALL + uses
    assert wider_type(kind(cedar=cedar, **LIMITED), kind(cedar=cedar, **ONLY_READS))
    assert [] == wider_type(kind(**LIMITED), kind(**ONLY_READS))


def test_a_limit_that_the_approval_reads():
    """The same goes for when somebody has to agree."""
    when = 'principal.uses has "ticket:write"'
    approval = f"""{{approvers = ["operator"], when = '{when}'}}"""
    assert wider_type(kind(**{**LIMITED, "approval": approval}), kind(**{**ONLY_READS, "approval": approval}))


def test_a_policy_that_may_fail():
    """A policy that permits, and computes, may not go: what fails as it is asked is denied."""
    large = '@id("x") permit (principal, action, resource) when { context.params.level * 1000000 < 0 };'
    assert wider_type(kind(cedar=PERMIT_ALL + large), kind(cedar=PERMIT_ALL))


def test_the_other_way():
    """What may allow more one way is, for what is only more or less of a thing, no wider the other way."""
    for what in (
        "workload more",
        "longer",
        "more tokens",
        "binding more",
        "choices more",
        "limit more",
        "a permit more",
    ):
        assert [] == wider_type(kind(**CHANGES[what][0]), kind())


def test_sets():
    """A type may be left out of a set; one that is new, or has another name, may allow what there was not."""
    old, new = {"one": task_type("one"), "two": task_type("two")}, {"two": task_type("two")}
    assert [] == wider(old, new)
    assert ["one: it is a type that there was not"] == wider(new, old)


def test_every_field():
    """Each field of a type is compared, or it is said why not; so is each of the tables within."""
    assert [each.name for each in fields(TaskType)] == list(OF_FIELDS)
    assert {"type", "required", "min", "max", "one_of", "pattern", "max_length", "in_tokens", "in_journal"} == set(
        ParamRule.model_fields
    )
    assert {"type", "required", "max_age", "sources", "on_deny"} == set(FactRule.model_fields)
    assert {"to", "max_depth", "max_children"} == set(DelegationRule.model_fields)
    assert {"approvers", "count", "within", "when"} == set(ApprovalRule.model_fields)


@pytest.mark.full
def test_nothing_more_is_allowed():
    """Whatever is said to be no wider answers yes to no question that was answered no."""
    draw, asked, allowed, narrower = random.Random(25), 0, 0, 0
    while asked < ASKED:
        before = drawn(draw, {**BASE, "cedar": PERMIT_ALL}, draw.randrange(3))
        old, new = made(before), made(drawn(draw, before, draw.randrange(1, 3)))
        if old is None or new is None or wider_type(old, new):
            continue
        narrower += 1
        for _ in range(100):
            one, asked = question(draw), asked + 1
            if asked_of(new, one):
                allowed += 1
                assert asked_of(old, one)
    assert allowed > asked // 50
    assert narrower >= asked // 100
