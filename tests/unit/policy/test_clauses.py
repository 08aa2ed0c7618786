"""clauses.py: the single policies of a text, and what the scope of each can match."""

import pytest
from sojourn.errors import InvalidPolicy
from sojourn.limits import POLICIES_PER_TYPE, POLICY_MAX_BYTES, POLICY_NESTED_MAX
from sojourn.policy import clauses


def one(scope="principal, action, resource", rest="", effect="permit"):
    [found] = clauses.read(f'@id("p")\n{effect} ({scope}) {rest};')
    return found


def refusal(text):
    with pytest.raises(InvalidPolicy) as caught:
        clauses.read(text)
    return [(fault.line, fault.message) for fault in caught.value.faults]


class TestScope:
    def test_of_everything(self):
        """A scope that names nothing is about every task, action and resource."""
        found = one()
        assert (None, None, None, True) == (found.principals, found.actions, found.resources, found.permits)
        assert found.can_match("a", "b")

    def test_of_what_it_names(self):
        """What a scope names is told, and it can match that alone: both the action and the resource."""
        found = one(
            'principal in Sojourn::TaskType::"t", action in [Sojourn::Action::"a", Sojourn::Action::"b"],'
            ' resource == Sojourn::Resource::"r"',
            effect="forbid",
        )
        assert (frozenset({("TaskType", "t")}), {"a", "b"}, {"r"}, False) == (
            found.principals,
            found.actions,
            found.resources,
            found.permits,
        )
        for action, resource, can in (("a", "r", True), ("b", "r", True), ("c", "r", False), ("a", "s", False)):
            assert can is found.can_match(action, resource)

    def test_of_one_thing_alone(self):
        """A scope that names an action or a resource alone leaves the other free."""
        by_action = one('principal, action == Sojourn::Action::"a", resource')
        by_resource = one('principal, action, resource == Sojourn::Resource::"r"')
        assert [True, False] == [by_action.can_match(action, "any") for action in ("a", "b")]
        assert [True, False] == [by_resource.can_match("any", resource) for resource in ("r", "s")]

    def test_of_a_kind(self):
        """A scope that asks for a kind is about all of that kind, or about those of it that it names."""
        assert one("principal is Sojourn::Task, action, resource").principals is None
        narrow = one('principal is Sojourn::Task in Sojourn::Workload::"w", action, resource is Sojourn::Resource')
        assert (frozenset({("Workload", "w")}), None) == (narrow.principals, narrow.resources)

    def test_of_nothing(self):
        """A scope that names an empty list matches nothing."""
        found = one("principal, action in [], resource")
        assert (frozenset(), False) == (found.actions, found.can_match("a", "r"))


class TestConditions:
    def test_facts(self):
        """The facts that conditions read or ask for are told, wherever they stand; parameters are none."""
        found = one(
            rest="when { context.facts has a && [context.facts.b, 1].contains(2) } unless { context.params.c == context.facts.d }"
        )
        assert {"a", "b", "d"} == found.facts
        assert {"a", "b", "c", "d", "facts", "params"} == found.attributes

    def test_none(self):
        """A policy without conditions reads nothing."""
        assert (frozenset(), frozenset(), False) == (one().facts, one().attributes, one().names_tasks)

    @pytest.mark.parametrize(
        ("scope", "rest", "names"),
        [
            ('principal == Sojourn::Task::"t", action, resource', "", True),
            ("principal, action, resource", 'when { principal == Sojourn::Task::"t" }', True),
            ("principal, action, resource", 'when { [Sojourn::Task::"t"].contains(principal) }', True),
            ("principal is Sojourn::Task, action, resource", "", False),
            ('principal in Sojourn::TaskType::"t", action, resource', 'when { principal.workload == Sojourn::Workload::"w" }', False),
        ],
    )  # fmt: skip
    def test_names_tasks(self, scope, rest, names):
        """A policy that names a task by its ID anywhere says so; one that names its type or workload does not."""
        assert names is one(scope, rest).names_tasks


class TestRead:
    def test_pieces(self):
        """Each policy has its own text and the line on which it begins; comments and texts end none."""
        text = '// ; a comment\n\n@id("one") permit (principal, action, resource);\n@id("two;")\nforbid (principal, action, resource);  // the end'
        found = clauses.read(text)
        assert [("one", 3), ("two;", 4)] == [(each.id, each.line) for each in found]
        assert '@id("one") permit (principal, action, resource);' == found[0].text
        assert [each.id for each in found] == [each.id for each in clauses.read(clauses.joined(found))]
        assert [] == clauses.read("  \n// nothing\n")

    def test_ours(self):
        """Our own policies stand on no line of anybody's file, and their ids nobody else may have."""
        assert [("sojourn.task-not-active", 0, False)] == [
            (each.id, each.line, each.permits) for each in clauses.ours()
        ]
        said = "policy id 'sojourn.mine': ids that begin with 'sojourn.' are ours"
        assert [(1, said)] == refusal('@id("sojourn.mine") permit (principal, action, resource);')

    def test_ids(self):
        """Every policy has an id of its own."""
        text = '@id("a") permit (principal, action, resource);\n' * 3
        said = "policy id 'a' is taken: line 1 has it"
        assert [(2, said), (3, said)] == refusal(text)
        assert "needs an id" in refusal("permit (principal, action, resource);")[0][1]

    def test_so_many(self):
        """A text has no more policies than a limit."""
        text = [f'@id("p{number}") permit (principal, action, resource);' for number in range(POLICIES_PER_TYPE + 1)]
        assert POLICIES_PER_TYPE == len(clauses.read("\n".join(text[:-1])))
        assert [(POLICIES_PER_TYPE + 1, f"more than {POLICIES_PER_TYPE} policies")] == refusal("\n".join(text))

    def test_so_long(self):
        """A policy has no more bytes than a limit, whatever characters they are."""
        head, tail = '@id("p") permit (principal, action, resource) when { context.params.a == "', '" };'
        room = POLICY_MAX_BYTES - len(head) - len(tail)
        clauses.read(head + "é" * (room // 2) + "x" * (room % 2) + tail)
        assert [(1, f"policy is longer than {POLICY_MAX_BYTES} bytes")] == refusal(head + "x" * (room + 1) + tail)
        assert "longer" in refusal(head + "é" * (room // 2 + 1) + tail)[0][1]

    def test_so_deep(self):
        """A policy has no more brackets in one another than a limit; those in texts do not count."""

        def nested(depth):
            inner = depth - 1  # the braces around it
            return f'@id("p") permit (principal, action, resource) when {{ {"(" * inner}true{")" * inner} && "((((" != "" }};'

        clauses.read(nested(POLICY_NESTED_MAX))
        said = f"policy has more than {POLICY_NESTED_MAX} brackets in one another"
        assert [(1, said)] == refusal(nested(POLICY_NESTED_MAX + 1))
