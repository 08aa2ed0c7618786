"""Tasks as requests use them, without an agent: one of threads, and one of an event loop."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from sojourn.sdk.task.clients import AsyncUse, SyncUse
from sojourn.sdk.task.values import AccessToken, Outside
from sojourn.tasktoken.grants import Grant

RESOURCE = "https://tickets.example.org/v1"
GRANT = Grant.parse(RESOURCE, ["ticket:read"])


class FakeHeld:
    """A task that gives the tokens t1, t2, … and the proofs p1, p2, …; `failures` are in the place of tokens."""

    id, type, state, why, ended, grants = "t1", "triage", "active", "", False, (GRANT,)
    outside: tuple[Outside, ...] = ()
    person: Any = None
    version = 1

    def __init__(self, *failures: BaseException | None) -> None:
        self.failures = list(failures)
        self.tokens: list[dict[str, Any]] = []
        self.proof_failures: list[Exception] = []
        self._numbers = count(1)

    @property
    def status(self) -> "FakeHeld":
        return self

    def next_token(self, resource: str, options: dict[str, Any]) -> AccessToken:
        self.tokens.append(options)
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        expires_at = datetime.now(UTC) + timedelta(seconds=60)
        return AccessToken(f"t{len(self.tokens)}", resource, ("ticket:read",), expires_at, "DPoP")

    def next_proof(self) -> str:
        if self.proof_failures:
            raise self.proof_failures.pop(0)
        return f"p{next(self._numbers)}"


class FakeSyncTask(FakeHeld, SyncUse):
    """For threads."""

    def token(self, resource: str = "", _actions: Any = (), **options: Any) -> AccessToken:
        return self.next_token(resource, options)

    def proof(self, _method: str, _url: str, _token: Any, _nonce: str | None = None) -> str:
        return self.next_proof()


class FakeAsyncTask(FakeHeld, AsyncUse):
    """For an event loop."""

    async def token(self, resource: str = "", _actions: Any = (), **options: Any) -> AccessToken:
        return self.next_token(resource, options)

    async def proof(self, _method: str, _url: str, _token: Any, _nonce: str | None = None) -> str:
        return self.next_proof()
