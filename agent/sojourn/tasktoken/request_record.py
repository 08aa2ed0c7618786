"""What a service says of a request, as far as it may stand in a record: no value of its query or content, no token."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from sojourn.limits import PARAMS_PER_TASK, SERVED_NAME_MAX, SERVED_QUERY_NAMES, SERVED_TARGET_MAX
from sojourn.tasktoken.tokens import TaskToken

_CUT: Final = "..."


@dataclass(frozen=True, slots=True)
class Served:
    """A request that was let through or refused. `compared` names the task's parameters that it was compared with,
    `unchecked` those that concern its action and that the service says it does not have. It does its action so many
    `times`: a batch of three does it three times.

    The target is the path, and of the query the names alone: a value there may be anybody's secret. Everything is
    printable ASCII and short, whoever said it.
    """

    action: str = ""
    method: str = ""
    target: str = ""
    compared: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    times: int = 1

    @classmethod
    def of(
        cls,
        action: str,
        method: str,
        target: str,
        compared: Iterable[str] = (),
        unchecked: Iterable[str] = (),
        times: int = 1,
    ) -> Self:
        """Make it of what a service said, whatever that is. What was made so before stays as it is."""
        path, asked, query = target.partition("?")
        names = [each.partition("=")[0] for each in query.split("&")][:SERVED_QUERY_NAMES]
        shown = "&".join(_plain(each, SERVED_NAME_MAX) for each in names)
        return cls(
            _plain(action, SERVED_NAME_MAX),
            _plain(method, SERVED_NAME_MAX),
            _plain(f"{path}{asked}{shown}", SERVED_TARGET_MAX),
            _names(compared),
            _names(unchecked),
            max(times, 1),
        )

    def params(self, token: TaskToken) -> dict[str, Any]:
        """A token's parameters as a record has them: those that were compared, with their values, and the others."""
        left_out = [name for name in self.unchecked if name in token.params]
        values = {name: token.params[name] for name in self.compared if name in token.params}
        return {"params": values, "unchecked": left_out or None}

    def record(self) -> dict[str, str | None]:
        """As a record has it; what is not known is left out."""
        return {"action": self.action or None, "method": self.method or None, "target": self.target or None}


NOTHING_SAID: Final = Served()


def compared(token: TaskToken, given: Mapping[str, object]) -> tuple[str, ...]:
    """The parameters of a token that a request with these has been compared with."""
    return tuple(name for name in token.params if name in given)


def _names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of parameters: whoever tells of longer ones, or of more than a task has, means none of a task."""
    return tuple(sorted(each for each in names if len(each) <= SERVED_NAME_MAX))[:PARAMS_PER_TASK]


def _plain(text: str, most: int) -> str:
    # A request's text is Latin-1 as it came; what cannot be in a request line is escaped as a client should have.
    data = text[: most + 1].encode("utf-8", "surrogatepass")
    plain = "".join(chr(each) if 0x21 <= each <= 0x7E else f"%{each:02X}" for each in data)
    return plain if len(plain) <= most else plain[: most - len(_CUT)] + _CUT
