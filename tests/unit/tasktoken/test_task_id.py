"""tasktoken/task_id.py: what is a task's ID."""

import pytest
from sojourn.tasktoken.task_id import is_task_id, new_task_id


def test_a_new_one() -> None:
    """A new ID has the form of one, and is another each time."""
    made = {new_task_id() for _ in range(100)}
    assert 100 == len(made)
    assert all(map(is_task_id, made))


@pytest.mark.parametrize(
    "text", ["", "tsk_", "tsk_" + "a" * 21, "tsk_" + "a" * 23, "tsk-" + "a" * 22, "a" * 26, "tsk_" + "a" * 21 + "+"]
)
def test_what_is_none(text: str) -> None:
    """A text of another length, beginning or alphabet is no ID."""
    assert not is_task_id(text)
    assert not is_task_id(new_task_id() + "\n")
