"""tools.py: which arguments of a tool are compared with the task."""

import functools
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from sojourn.errors import InvalidInput
from sojourn.sdk.guard.tools import _Tool, guarded

GRANT = SimpleNamespace(resource="https://a.example", actions=frozenset({"ticket:move"}))


def test_two_arguments_of_one_name() -> None:
    """A call that has an argument of one name twice, by place and among the others, is refused: one would hide the other."""

    def read_ticket(ticket: str, /, **more: Any) -> None:
        del ticket, more

    tool = _Tool(read_ticket, "ticket:read", {}, "")
    assert {"ticket": "42", "x": 1} == tool._arguments(("42",), {"x": 1})
    with pytest.raises(InvalidInput, match="twice"):
        tool._arguments(("43",), {"ticket": "42"})


@pytest.mark.parametrize("params", [{"source": "ticket", "target": "ticket"}, {"source": "ticket"}])
@pytest.mark.parametrize("given", [("42", "42", "43"), ("43", "42", "42"), ("42", "43", "42"), ("42", "42", "42")])
def test_several_arguments_of_one_parameter(params: dict[str, str], given: tuple[str, str, str]) -> None:
    """Each argument that is the parameter is compared, by whichever name, and also the one of its own name."""

    def move(source: str, target: str, ticket: str) -> None:
        del source, target, ticket

    task: Any = SimpleNamespace(status=SimpleNamespace(params={"ticket": "42"}), grants=[GRANT])
    compared = dict(zip(("source", "target", "ticket"), given, strict=True))
    good = all(value == "42" for name, value in compared.items() if name in params or name == "ticket")
    tool = _Tool(move, "ticket:move", params, "")
    if good:
        assert "https://a.example" == tool._ask(task, given, {})[0]
    else:
        with pytest.raises(InvalidInput, match="another 'ticket'"):
            tool._ask(task, given, {})


def _with_a_session(function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function("session", *args)

    return call


def test_other_decorators_below() -> None:
    """A function that another decorator calls with other arguments is refused where it is made; above it may stand."""

    def read(session: str, ticket: str) -> str:
        return session + ticket

    with pytest.raises(InvalidInput, match="below its other decorators"):
        guarded("ticket:read", params=["ticket"])(_with_a_session(read))
    with pytest.raises(InvalidInput, match="below its other decorators"):
        guarded("ticket:read", params=["ticket"])(functools.lru_cache(read))
    with pytest.raises(InvalidInput, match="below its other decorators"):
        guarded("ticket:find")(_with_a_session(guarded("ticket:read", params=["ticket"])(read)))
    twice = guarded("ticket:find")(guarded("ticket:read", params=["ticket"])(read))
    assert inspect.signature(read) == inspect.signature(twice)
