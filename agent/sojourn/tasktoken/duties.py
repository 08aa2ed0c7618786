"""What a token asks of whoever accepts it: which parameters to compare, and which uses to ask the agent about."""

from collections.abc import Mapping, Sequence
from typing import Any

from sojourn.errors import InvalidToken

Bind = Mapping[str, tuple[str, ...]]  # action -> the parameters that concern it


def duties_claimed(bind: Bind, asks: Sequence[str]) -> dict[str, Any]:
    """The members of the claim, without those that say nothing."""
    claimed: dict[str, Any] = {"asks": list(asks)} if asks else {}
    return claimed | ({"bind": {action: list(names) for action, names in bind.items()}} if bind else {})


def read_actions(task: Mapping[str, Any], member: str) -> tuple[str, ...]:
    """Read a member that lists actions, strictly: what is not understood must not be ignored. Raise InvalidToken."""
    actions = task.get(member, [])
    if not isinstance(actions, list) or not all(isinstance(each, str) for each in actions):
        raise InvalidToken("token's task is malformed", reason_code="malformed")
    return tuple(actions)


def read_bind(task: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Read which parameters concern which action, strictly: of an action that is not there all do.

    Raise InvalidToken.
    """
    bind = task.get("bind", {})
    if not isinstance(bind, dict) or not all(isinstance(names, list) for names in bind.values()):
        raise InvalidToken("token does not say which parameters concern its actions", reason_code="malformed")
    if not all(isinstance(name, str) for names in bind.values() for name in names):
        raise InvalidToken("token does not say which parameters concern its actions", reason_code="malformed")
    return {action: tuple(names) for action, names in bind.items()}
