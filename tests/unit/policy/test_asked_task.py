"""asked_task.py: what a question says of its task, as texts."""

import pytest
from fakes.policies import principal
from fakes.task_types import TRIAGE
from sojourn.errors import InvalidInput
from sojourn.limits import DELEGATION_DEPTH
from sojourn.policy.asked_task import read_texts
from sojourn.policy.cedar_schema import UNSAID, shown, some_task

SAID = {
    "state": "suspended",
    "tokens_issued": 3,
    "reported_calls": 4,
    "depth": DELEGATION_DEPTH,
    "uses": (("ticket:read", 2), ("ticket:write", 0)),
}
LIMITED = ("ticket:read", "ticket:write")


def test_all_of_them_are_tried():
    """Every attribute that a question may say has a value here, another than where it is not said."""
    assert SAID.keys() == UNSAID.keys()
    assert all(UNSAID[name] != value for name, value in SAID.items())


def test_nothing_said():
    """A task of which nothing is said has just begun."""
    assert dict(UNSAID) == read_texts({})
    assert {"active", 0, ()} == set(UNSAID.values())


@pytest.mark.parametrize("name", UNSAID)
def test_as_it_is_shown(name):
    """What an explanation shows of an attribute can be said in a question, and is the same attribute then."""
    task = principal(**{name: SAID[name]})
    prefix = f"principal.{name}"
    texts = {
        key.removeprefix("principal."): text
        for key, text in shown(task, LIMITED).items()
        if key == prefix or key.startswith(f"{prefix}[")
    }
    assert texts
    said = read_texts(texts)
    assert SAID[name] == said[name]
    assert some_task("triage", TRIAGE, **said) == some_task("triage", TRIAGE, **{name: SAID[name]})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("state", "ready"),
        ("tokens_issued", "-1"),
        ("reported_calls", "x"),
        ("depth", str(DELEGATION_DEPTH + 1)),
        ("depth[a]", "1"),
        ("uses", "1"),
        ("uses[ticket:read]", "-1"),
        ("uses[ticket:read", "1"),
        ("task_id", "tsk_1"),
        ("workload", TRIAGE),
        ("", "1"),
    ],
)
def test_what_is_none(name, text):
    """What is no attribute of a task that a question may say, or no value of one, is refused by its name."""
    with pytest.raises(InvalidInput, match="attribute"):
        read_texts({name: text})


def test_both_ways_at_once():
    """An attribute that is said whole and in parts is refused."""
    for texts in ({"uses": "1", "uses[ticket:read]": "1"}, {"uses[ticket:read]": "1", "uses": "1"}):
        with pytest.raises(InvalidInput, match="attribute"):
            read_texts(texts)
