"""cases.py: what a task type must answer, in files; and what it answers."""

import contextlib

import pytest
from fakes.task_types import PERMIT_ALL, TICKETS, TRIAGE, task_type, toml
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidPolicy
from sojourn.policy import cases

HEAD = f'[default]\nresource = "{TICKETS}"\naction = "ticket:read"\n'
CEDAR = """@id("few") permit (principal, action, resource) when { principal.tokens_issued < 2 && context.params has level };
@id("no-writes") forbid (principal, action == Sojourn::Action::"ticket:write", resource);
@id("idle") forbid (principal, action, resource) when { principal.reported_calls > 100 };"""
KIND = task_type(cedar=CEDAR)


def run(text, kind=KIND):
    return cases.run(kind, cases.parse("t.test.toml", HEAD + text, kind))


def case(**lines):
    given_lines = {"name": '"c"', "expect": '"allow"', "params": "{level = 1}", **lines}
    return "[[case]]\n" + "\n".join(f"{name} = {value}" for name, value in given_lines.items()) + "\n"


class TestAnswers:
    @pytest.mark.parametrize(
        "lines",
        [
            {"policies": '["few"]', "rule": '"policy"'},
            {"task": "{tokens_issued = 1}"},
            {"task": "{tokens_issued = 2}", "expect": '"deny"', "policies": "[]"},
            {"action": '"ticket:write"', "expect": '"deny"', "policies": '["no-writes"]'},
            {
                "task": "{reported_calls = 101}",
                "action": '"ticket:write"',
                "expect": '"deny"',
                "policies": '["no-writes", "idle"]',
            },
            {"task": '{state = "revoked"}', "expect": '"deny"', "policies": '["sojourn.task-not-active"]'},
            {"params": "{}", "expect": '"deny"', "rule": '"policy"'},
            {"params": '{level = "x"}', "expect": '"deny"', "rule": '"params"'},
            {"params": "{other = true}", "expect": '"deny"', "rule": '"params"'},
            {"action": '"page:read"', "expect": '"deny"', "rule": '"ceiling"'},
            {"workload": '"spiffe://example.org/other"', "expect": '"deny"', "rule": '"workload"'},
            {"workload": f'"{TRIAGE}"', "binding": '"session"'},
        ],
    )
    def test_as_expected(self, lines):
        """A case that says what is so has no differences."""
        assert [()] == [outcome.differences for outcome in run(case(**lines))]

    @pytest.mark.parametrize(("uses", "answer"), [(0, "allow"), (1, "allow"), (2, "deny"), (3, "deny")])
    def test_limits(self, uses, answer):
        """A task that has made all uses of an action is denied it by the limit, and nothing else."""
        kind = task_type(limits='{"ticket:write" = 2}')
        rule = '"limits"' if answer == "deny" else '"policy"'
        task = f'{{uses = {{"ticket:write" = {uses}}}}}'
        lines = {"action": '"ticket:write"', "task": task, "expect": f'"{answer}"', "rule": rule}
        assert [(), ()] == [each.differences for each in run(case(**lines) + case(name='"d"', task=task), kind)]

    def test_uses_without_a_limit(self):
        """A case about uses of an action that the type does not limit is a fault, and so is a count by its old name."""
        with pytest.raises(InvalidPolicy, match="its type does not limit action 'ticket:write'"):
            run(case(task='{uses = {"ticket:write" = 1}}'))
        with pytest.raises(InvalidPolicy, match="is now reported_calls"):
            run(case(task="{calls = 1}"))

    @pytest.mark.parametrize(
        ("lines", "says"),
        [
            ({"expect": '"deny"'}, "expected deny, got allow"),
            ({"action": '"ticket:write"'}, "expected allow, got deny (a policy forbids it)"),
            ({"policies": '["no-writes"]'}, "expected policies no-writes, got few"),
            ({"policies": "[]"}, "expected policies none, got few"),
            ({"expect": '"deny"', "params": "{}", "rule": '"params"'}, "expected to be decided by params, got policy"),
            ({"params": '{level = "x"}'}, "got deny (parameter 'level' is not a whole number of at most 18 digits)"),
        ],
    )
    def test_otherwise(self, lines, says):
        """A case that says what is not so has each difference, with what was expected and what came."""
        [outcome] = run(case(**lines))
        assert says in "; ".join(outcome.differences)

    def test_a_binding_that_the_type_does_not_have(self):
        """The binding decides too, if a case names one."""
        kind = task_type(binding='["stream"]')
        assert "binding" == run(case(binding='"process"', expect='"deny"'), kind)[0].answer.rule
        assert run(case(binding='"stream"'), kind)[0].answer

    def test_undecided(self):
        """Policies that decided no case are listed, in the order of the file."""
        outcomes = run(case())
        assert ["no-writes", "idle"] == cases.undecided(KIND, outcomes)
        outcomes += run(case(action='"ticket:write"', task="{reported_calls = 101}", expect='"deny"'))
        assert [] == cases.undecided(KIND, outcomes)


class TestFiles:
    @pytest.mark.parametrize(
        ("text", "line", "says"),
        [
            ("x = ", 1, "not TOML"),
            ("[default]\n", 0, "case"),
            (case(expect='"maybe"'), 3, "case.0.expect"),
            (case() + case(surprise="1"), 9, "case.1.surprise: unknown key"),
            (case(params="{level = 1.5}"), 4, "case.0.params.level"),
            (case(task="{tokens_issued = -1}"), 5, "case.0.task.tokens_issued"),
            (case(task='{state = "gone"}'), 5, "case.0.task.state"),
            (case(action='"a"', resource='"https://x"', policies='["nobody"]'), 1, "there is no policy 'nobody'"),
            (case(action='"a"'), 1, "resource is missing"),
            (case(action='"a"', resource='"b"') * 2, 7, "another case has this name"),
        ],
    )
    def test_refused(self, text, line, says):
        """A file of cases that cannot be used is refused, with the line and the case."""
        with pytest.raises(InvalidPolicy) as caught:
            cases.parse("t.test.toml", text, KIND)
        fault = next(each for each in caught.value.faults if says in each.message)
        assert ("t.test.toml", line) == (fault.file, fault.line)

    def test_beside_the_type(self, tmp_path):
        """Cases are in NAME.test.toml; a type without has none; the file is no task type itself."""
        from sojourn.policy.task_types import load

        (tmp_path / "triage.toml").write_text(toml())
        (tmp_path / "triage.cedar").write_text(PERMIT_ALL)
        assert [] == cases.load(tmp_path, KIND)
        (tmp_path / "triage.test.toml").write_text(HEAD + case())
        assert ["c"] == [each.name for each in cases.load(tmp_path, KIND)]
        assert ["triage"] == list(load(tmp_path))
        (tmp_path / "triage.test.toml").chmod(0o666)
        with pytest.raises(InvalidPolicy, match=r"triage.test.toml: can be written by others"):
            cases.load(tmp_path, KIND)

    @given(st.text(max_size=60))
    def test_ours_or_nothing(self, text):
        """Any text is a file of cases or an error of ours."""
        with contextlib.suppress(InvalidPolicy):
            cases.parse("x", text, KIND)


class TestFacts:
    KIND = task_type(
        cedar=PERMIT_ALL + '@id("late") forbid (principal, action, resource) unless { context.facts.hour < 18 };',
        facts='{hour = {type = "long", required = true}, holiday = "boolean"}',
    )

    @pytest.mark.parametrize(
        "lines",
        [
            {"facts": "{hour = 17}", "policies": '["all"]'},
            {"facts": "{hour = 18}", "expect": '"deny"', "policies": '["late"]', "rule": '"policy"'},
            {"expect": '"deny"', "rule": '"facts"'},
            {"facts": '{hour = "17"}', "expect": '"deny"', "rule": '"facts"'},
            {"facts": "{hour = true}", "expect": '"deny"', "rule": '"facts"'},
            {"facts": "{hour = 17, holiday = 3}", "policies": '["all"]'},
        ],
    )
    def test_as_expected(self, lines):
        """A case gives the facts; without a required one, or with a value of another type, it is denied by that."""
        assert [()] == [outcome.differences for outcome in run(case(**lines), self.KIND)]

    def test_a_default(self):
        """Facts of the defaults count for cases that do not give their own."""
        text = "facts = {hour = 18}\n" + case(expect='"deny"') + case(name='"d"', facts="{hour = 1}")
        assert [(), ()] == [outcome.differences for outcome in run(text, self.KIND)]

    def test_one_that_is_not_read(self):
        """A fact that the type does not declare is a fault of the case."""
        with pytest.raises(InvalidPolicy, match="its type reads no fact 'freeze'"):
            run(case(facts="{freeze = true}"), self.KIND)
