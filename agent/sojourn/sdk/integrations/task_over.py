"""How an application hears, in the midst of a request, that the task of its caller is over."""

from sojourn.sdk.guard.challenges import Refusal


class TaskIsOver(OSError):
    """As servers raise it of a client that has gone: the task of whoever is served is over, and this is why."""

    def refusal(self) -> Refusal:
        """What the client is answered, if nothing was answered yet."""
        return Refusal(401, "invalid_token", str(self))
