"""tools.py: which arguments of a tool are compared with the task."""

from typing import Any

import pytest
from sojourn.errors import InvalidInput
from sojourn.sdk.guard.tools import _Tool


def test_two_arguments_of_one_name() -> None:
    """A call that has an argument of one name twice, by place and among the others, is refused: one would hide the other."""

    def read_ticket(ticket: str, /, **more: Any) -> None:
        del ticket, more

    tool = _Tool(read_ticket, "ticket:read", {}, "")
    assert {"ticket": "42", "x": 1} == tool._arguments(("42",), {"x": 1})
    with pytest.raises(InvalidInput, match="twice"):
        tool._arguments(("43",), {"ticket": "42"})
