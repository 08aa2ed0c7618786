"""A request that is being judged: what is known of it so far, for the records of what becomes of it."""

from dataclasses import dataclass

from sojourn.errors import InvalidToken, SojournError
from sojourn.sdk.guard.refusals import RefusedRequest
from sojourn.sdk.guard.request_credentials import Presented
from sojourn.sdk.guard.routes import Action
from sojourn.tasktoken.request_record import Served
from sojourn.tasktoken.tokens import TaskToken


@dataclass(slots=True)
class Attempt:
    """Filled in as the guard finds out. `method` and `target` are as records name it: of HTTP, or of MCP's message."""

    method: str = ""
    target: str = ""
    shown: Presented | None = None
    verified: TaskToken | None = None
    wanted: Action | None = None
    times: int = 1  # so often the request does the action

    @property
    def served(self) -> Served:
        """The request as it may stand in a record."""
        wanted, token = self.wanted, self.verified
        if wanted is None:
            return Served.of("", self.method, self.target)
        concerning = set(token.concerning(wanted.name)) if token is not None else set()
        unchecked = concerning & set(wanted.unchecked)
        return Served.of(wanted.name, self.method, self.target, concerning - unchecked, unchecked, self.times)

    def refused(self, code: str, reason: str) -> RefusedRequest:
        """That it is refused, and why."""
        shown = self.shown.unverified_token if self.shown is not None else ""
        return RefusedRequest(code, reason, self.served, self.verified, shown)


def code_of(error: Exception) -> str:
    """Why a request is refused for which this was raised, stably."""
    if isinstance(error, InvalidToken):
        return error.reason_code
    return error.code if isinstance(error, SojournError) else "internal"
