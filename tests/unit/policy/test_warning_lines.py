"""lint.py and person_lint.py: a warning names the line of the file that is to be changed."""

import pytest
from fakes.task_types import PERMIT_ALL, TICKETS, toml
from sojourn.policy import lint
from sojourn.policy.task_types import parse

EVERY_TICKET = '{"ticket:read" = ["ticket"], "ticket:write" = ["ticket"], "page:read" = ["ticket"]}'
PARAMS = '{amount = {type = "long", required = false}}'


def line_of(key, text):
    """The number of the line on which a key stands."""
    return next(number for number, line in enumerate(text.split("\n"), 1) if line.startswith(key))


def found(text, words, cedar=PERMIT_ALL):
    """File and line of the one warning with these words."""
    [warning] = [each for each in lint.warnings(parse("triage", text, cedar)) if words in each.message]
    return warning.file, warning.line, warning.message


@pytest.mark.parametrize(
    ("key", "words", "more"),
    [
        ("facts", "no policy reads it", {"facts": '{risk = "long"}'}),
        ("bind", "concern no action", {"params": '{ticket = "string", level = "long"}', "bind": EVERY_TICKET}),
        ("person", "no policy reads principal.user", {"person": '{need = "required", issuers = ["corp"]}'}),
        (
            "person",
            "is told their sub",
            {"person": '{need = "required", issuers = ["corp", "partner"]}'},
        ),
        (
            "ceiling",
            "no policy can permit action 'ticket:delete'",
            {"ceiling": f'[{{resource = "{TICKETS}", actions = ["ticket:read", "ticket:delete"]}}]'},
        ),
    ],
)
def test_of_the_type(key, words, more):
    """What a type's own file says in vain, or twice, is named by the line of its key."""
    text = "\n".join(["# a type", "", toml(**more)])
    cedar = '@id("r") permit (principal, action == Sojourn::Action::"ticket:read", resource);'
    file, line, _ = found(text, words, cedar if key == "ceiling" else PERMIT_ALL)
    assert ("triage.toml", line_of(key, text)) == (file, line)


def test_a_table_of_facts():
    """A fact that has a table of its own is named by the line of that."""
    text = toml() + '\n[facts.risk]\ntype = "long"\n'
    assert line_of("[facts.risk]", text) == found(text, "no policy reads it")[1]


def test_break_glass():
    """A break-glass type of low consequence is named by the line that makes it one."""
    text = "# a type\n" + toml(break_glass="true", approval='{approvers = ["operator"]}')
    file, line, message = found(text, "break_glass without")
    assert ("triage.toml", line_of("break_glass", text)) == (file, line)
    assert message.endswith('consequence = "high": what is done is counted, and no request is recorded')


def test_an_approval_that_is_left_out():
    """A condition that does not hold without a parameter is named by its line, with what to write."""
    approval = """{approvers = ["operator"], when = 'context.params has amount && context.params.amount > 5'}"""
    text = "# a type\n" + toml(params=PARAMS, approval=approval)
    file, line, message = found(text, "approval is not asked for")
    assert ("triage.toml", line_of("approval", text)) == (file, line)
    assert message.endswith(
        "make it required, or have when ask for that too, as if context.params has NAME then … else true"
    )
