"""What a token says of the task that it is of: its claim `task`. Whoever issues it and whoever reads it has this value.

A member of the claim is a field of it, a line of `claimed` and one of `read`; nobody else names it on the way.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from sojourn.errors import InvalidToken
from sojourn.tasktoken.duties import Bind, duties_claimed, read_actions, read_bind

CLAIM = "task"
NORMAL, HIGH = "normal", "high"  # the classes of tasks
APPROVED: Final = "urn:sojourn:acr:approved"  # `acr` of tokens without a person whose task somebody approved (RFC 9470)
_NONE: Final[Bind] = MappingProxyType({})


# One is made for every token, and a dataclass that is frozen takes a microsecond longer to make.
class TaskClaim(NamedTuple):
    """The task of a token, as the token says it."""

    id: str
    type: str
    version: int
    task_class: str  # NORMAL | HIGH
    bind: Bind = _NONE  # which parameters concern which action
    asks: tuple[str, ...] = ()  # those of the token's actions whose uses the agent counts: it must be asked about each
    approved: bool = False  # somebody has agreed to the task
    also: tuple[str, ...] = ()  # what it may do there by a token of its own: for lists, and no permission

    def claimed(self) -> dict[str, Any]:
        """The claim."""
        claim: dict[str, Any] = {"id": self.id, "type": self.type, "ver": self.version, "class": self.task_class}
        if self.approved:
            claim["approved"] = True
        if self.also:
            claim["also"] = list(self.also)
        return claim | duties_claimed(self.bind, self.asks) if self.bind or self.asks else claim

    @classmethod
    def read(cls, task: Mapping[str, Any]) -> "TaskClaim":
        """Read the claim, strictly. Raise InvalidToken."""
        task_id, type_, version = task.get("id"), task.get("type"), task.get("ver")
        if not isinstance(task_id, str) or not isinstance(type_, str) or type(version) is not int:
            raise InvalidToken("token's task is malformed", reason_code="malformed")
        bind, asks = read_bind(task), read_actions(task, "asks")
        return cls(task_id, type_, version, _class(task), bind, asks, _approved(task), read_actions(task, "also"))


def class_of(claims: Mapping[str, Any]) -> str:
    """NORMAL if the token of these claims says exactly that; HIGH if it says anything else, or nothing."""
    task = claims.get(CLAIM)
    return _class(task) if isinstance(task, dict) else HIGH


def _approved(task: Mapping[str, Any]) -> bool:
    approved = task.get("approved", False)
    if not isinstance(approved, bool):
        raise InvalidToken("token's task is malformed", reason_code="malformed")
    return approved


def _class(task: Mapping[str, Any]) -> str:
    return NORMAL if task.get("class") == NORMAL else HIGH
