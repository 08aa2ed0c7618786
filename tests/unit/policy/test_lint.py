"""lint.py: what is legal, but not what its author wants, is told with its place."""

import pytest
from fakes.task_types import PERMIT_ALL, TICKETS, WIKI, task_type
from sojourn.errors import InvalidPolicy
from sojourn.policy import cedar as policy_module
from sojourn.policy import lint
from sojourn.spiffe.ids import TrustDomain

READ = 'action == Sojourn::Action::"ticket:read"'
AT_TICKETS = f'resource == Sojourn::Resource::"{TICKETS}"'


def warned(cedar, **changes):
    return [str(fault) for fault in lint.warnings(task_type(cedar=cedar, **changes))]


class TestWarnings:
    def test_nothing(self):
        """A type whose policies cover its ceiling has nothing to look at."""
        assert [] == warned(PERMIT_ALL)

    @pytest.mark.parametrize(
        ("scope", "expected"),
        [
            ("action, resource", "permits any action and any resource"),
            (f"{READ}, resource", "permits any resource"),
            (f"action, {AT_TICKETS}", "permits any action"),
        ],
    )
    def test_an_open_permit_of_high_consequence(self, scope, expected):
        """A permit that leaves action or resource open is told in a type of high consequence, and only there."""
        cedar = f'\n@id("wide") permit (principal, {scope});{PERMIT_ALL}'
        found = [each for each in warned(cedar, consequence='"high"') if "'wide'" in each]
        assert [f"triage.cedar:2: policy 'wide' {expected}, in a type of high consequence"] == found
        assert [] == warned(cedar)

    def test_broken_glass_of_which_nothing_is_recorded(self):
        """A type for broken glass whose consequence is not high is told: its reviewer sees no request."""
        glass = {"break_glass": "true", "approval": '{approvers = ["operator"]}'}
        (found,) = warned(PERMIT_ALL, **glass)
        assert found.startswith("triage.toml:")
        assert "no request is recorded" in found
        narrow = f'@id("n") permit (principal, {READ}, {AT_TICKETS});'
        ceiling = f'[{{resource = "{TICKETS}", actions = ["ticket:read"]}}]'
        assert [] == warned(narrow, **glass, consequence='"high"', ceiling=ceiling)

    def test_a_narrow_permit_of_high_consequence(self):
        """A permit for one action at one resource, and an open forbid, are as they should be."""
        cedar = f'@id("n") permit (principal, {READ}, {AT_TICKETS}); @id("f") forbid (principal, action, resource);'
        assert [] == [each for each in warned(cedar, consequence='"high"') if "high consequence" in each]

    def test_an_action_that_nothing_permits(self):
        """What the ceiling has and no permit can reach is told, for each resource."""
        found = warned(f'@id("n") permit (principal, {READ}, {AT_TICKETS});')
        assert [
            f"triage.toml:5: no policy can permit action 'ticket:write' at {TICKETS!r}, which is in the ceiling",
            f"triage.toml:5: no policy can permit action 'page:read' at {WIKI!r}, which is in the ceiling",
        ] == found

    @pytest.mark.parametrize(
        ("rule", "passed"),
        [
            ('"string"', "'043'"),
            ('{type = "string", pattern = "[0-9]+"}', "'043'"),
            ('{type = "string", pattern = "[1-9][0-9.]*"}', "'43.0'"),
            ('{type = "string", pattern = "[1-9][0-9]*"}', ""),
            ('{type = "string", one_of = ["42", "43"]}', ""),
            ('{type = "string", pattern = "[A-Z]-[0-9]+"}', ""),
        ],
    )
    def test_a_text_that_is_compared_as_a_number(self, rule, passed):
        """A text that policy compares with digits is told where another that is the same number passes by it."""
        for condition in ('context.params.ticket == "43"', '["7", "43"].contains(context.params.ticket)'):
            cedar = f'{PERMIT_ALL}@id("no") forbid (principal, action, resource) when {{ {condition} }};'
            cedar = cedar.replace("when { ", "when { context.params has ticket && ")
            found = [each for each in warned(cedar, params=f"{{ticket = {rule}}}") if "'43'" in each]
            assert bool(passed) == bool(found)
            assert all(f"is passed by {passed}" in each for each in found)

    @pytest.mark.parametrize(
        ("condition", "required", "expected"),
        [
            ("context.params has cents && context.params.cents > 5000", "false", 1),
            ("context.params has cents && context.params.cents > 5000", "true", 0),
            ("if context.params has cents then context.params.cents > 5000 else true", "false", 0),
            ('resource in Sojourn::Resource::"x"', "false", 0),
        ],
    )
    def test_an_approval_that_is_left_out(self, condition, required, expected):
        """An approval that is not asked for where the parameter is missing by which it goes is told."""
        params = f'{{cents = {{type = "long", required = {required}}}}}'
        approval = f"{{approvers = [\"operator\"], when = '{condition}'}}"
        found = [each for each in warned(PERMIT_ALL, params=params, approval=approval) if "left out" in each]
        assert expected == len(found)

    def test_a_parameter_that_concerns_nothing(self):
        """A parameter that tokens carry and that [bind] has concern no action is told, with the table's line."""
        every = dict.fromkeys(("ticket:read", "ticket:write", "page:read"), '["ticket"]')
        params = '{ticket = "string", level = "long", note = {type = "string", in_tokens = false}}'
        bind = ", ".join(f'"{action}" = {names}' for action, names in every.items())
        kind = task_type(params=params, bind=f"{{{bind}}}")
        [found] = [each for each in lint.warnings(kind) if "concern no action" in each.message]
        assert ("triage.toml", True, True) == (found.file, found.line > 0, "'level'" in found.message)
        assert [] == [each for each in lint.warnings(task_type()) if "concern no action" in each.message]

    def test_a_resource_outside_of_the_ceiling(self):
        """A policy about a resource that the type cannot reach is told."""
        cedar = (
            PERMIT_ALL
            + '\n@id("far") permit (principal, action, resource == Sojourn::Resource::"https://far.example.org");'
        )
        assert [
            "triage.cedar:2: policy 'far' is about resource 'https://far.example.org', which is not in the ceiling"
        ] == warned(cedar)

    @pytest.mark.parametrize(
        "principal",
        ['principal in Sojourn::TaskType::"other"', 'principal in Sojourn::Workload::"spiffe://example.org/other"'],
    )
    def test_a_principal_that_cannot_be(self, principal):
        """A policy for another type, or for a workload that may not begin this one, is told, and permits nothing."""
        found = warned(f'@id("never") permit ({principal}, action, resource);')
        assert "triage.cedar:1: policy 'never' can never apply" in found[0]
        assert 4 == len(found)


class TestFaults:
    def test_the_trust_domain(self):
        """Workloads outside of a given trust domain are a fault, with the line of the key."""
        kind = task_type()
        assert ([], []) == (lint.faults(kind, None), lint.faults(kind, TrustDomain("example.org")))
        [fault] = lint.faults(kind, TrustDomain("other.org"))
        assert ("triage.toml", 1, True) == (fault.file, fault.line, "not in trust domain 'other.org'" in fault.message)

    @pytest.mark.parametrize("params", ["{}", '{a = {type = "long", required = true}, b = "string"}'])
    def test_our_forbid_stands_before_all(self, params, monkeypatch):
        """Nothing is permitted without a live task: that is asked, and a type without our forbid would be found."""
        assert lint.forbidden_when_over(task_type(params=params))
        monkeypatch.setattr(policy_module, "OWN", ())
        assert not lint.forbidden_when_over(task_type(params=params))
        assert "not forbidden although the task is over" in lint.faults(task_type(params=params), None)[0].message


class TestFacts:
    def test_read_nowhere(self):
        """A fact that is declared and that no policy reads is told, with what it costs if it must be there."""
        found = warned(PERMIT_ALL, facts='{a = "long", b = {type = "boolean", required = true}}')
        expected = [
            "fact 'a' is declared, and no policy reads it",
            "fact 'b' is required, and no policy reads it",
        ]
        assert expected == [each.partition(": ")[2] for each in found]

    @pytest.mark.parametrize(
        "condition",
        ["context.facts.b", "true && (context.facts.b == true)", "if context.facts.b then true else false"],
    )
    def test_read_somewhere(self, condition):
        """A fact that a condition reads, wherever in it, is as it should be."""
        cedar = f'@id("p") permit (principal, action, resource) when {{ {condition} }};'
        assert [] == warned(cedar, facts='{b = {type = "boolean", required = true}}')
        assert [] == lint.faults(task_type(cedar=cedar, facts='{b = {type = "boolean", required = true}}'), None)

    @pytest.mark.parametrize("record", ["facts", "params"])
    def test_without_has(self, record):
        """A policy that reads what need not be there, without asking whether it is, cannot be loaded."""
        cedar = f'@id("p") permit (principal, action, resource) when {{ context.{record}.b }};'
        with pytest.raises(InvalidPolicy, match="optional"):
            task_type(cedar=cedar, **{record: '{b = "boolean"}'})
