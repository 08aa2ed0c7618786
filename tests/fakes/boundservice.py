"""A guarded service that takes bound tokens, and the tokens, proofs and requests that tests send it."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from fakes.clock import FakeClock
from fakes.fake_agent import ScriptedAgent
from fakes.task_feed import AUDIENCE, HOLDER, ISSUER, live, over, signing_key, snapshot
from sojourn.jose.jws import SigningKey
from sojourn.limits import DPOP_AGE_SECONDS, DPOP_SKEW_SECONDS
from sojourn.sdk.client.client import Client
from sojourn.sdk.guard.challenges import GuardAnswer, Refusal
from sojourn.sdk.guard.guard import Guard, HttpRequest
from sojourn.sdk.guard.routes import Action
from sojourn.sdk.guard.verifier import TaskVerifier
from sojourn.tasktoken import dpop, tokens
from sojourn.tasktoken.grants import Grant
from sojourn.tasktoken.sender_constraint import JKT, Binding
from sojourn.tasktoken.task_claim import APPROVED, TaskClaim
from sojourn.tasktoken.tokens import TaskToken

KEY, HOLDERS, THIEFS = signing_key(), signing_key("holder"), signing_key("thief")
BOUND = Binding(JKT, HOLDERS.public.thumbprint)
PATH = "/tickets/42"
ACTIONS = {
    "GET /tickets/{ticket}": "ticket:read",
    "POST /tickets/{ticket}/pay": Action("ticket:pay", acr=APPROVED),
    "DELETE /tickets/{ticket}": "ticket:read",
    "GET /admin/keys": "key:read",
    "GET /{any}/keys": "ticket:read",
}


class Service:
    """A guarded service, its agent's feed, and a clock that both go by."""

    def __init__(self, client: Client, agent: ScriptedAgent) -> None:
        self.clock = FakeClock()
        self.agent = agent
        self.verifier = TaskVerifier(client, AUDIENCE, now=self.clock.now)
        self.guard = self.another_guard()
        self.clock.advance(DPOP_AGE_SECONDS + DPOP_SKEW_SECONDS)
        self.contents = 0

    def another_guard(self, **options: Any) -> Guard:
        """The guard of the service's next process."""
        return Guard(self.verifier, ACTIONS, now=self.clock.now, boot=self.clock.boot, **options)

    def token(
        self, *, key: SigningKey = KEY, audience: str = AUDIENCE, seconds: int = 60, task_id: str = "t1", **fields: Any
    ) -> str:
        now = self.clock.now()
        values: dict[str, Any] = {
            "issuer": ISSUER,
            "spiffe_id": HOLDER,
            "grant": Grant.parse(audience, ["ticket:read", "ticket:pay"]),
            "task": TaskClaim(task_id, "triage-ticket", 5, "normal"),
            "issued_at": now,
            "expires_at": now + timedelta(seconds=seconds),
        }
        return tokens.issue(key, **{**values, **fields}).token

    def claims(self, **changes: Any) -> dict[str, Any]:
        """The claims of a good token, changed; None leaves one out."""
        made = json.loads(base64.urlsafe_b64decode(self.token().split(".")[1] + "=="))
        return {name: value for name, value in {**made, **changes}.items() if value is not None}

    def proof(self, of: str, /, *, key: SigningKey = HOLDERS, url: str = AUDIENCE + PATH, **fields: Any) -> str:
        return dpop.make(key, **{"method": "GET", "url": url, "now": self.clock.now(), "token": of, **fields})

    async def send(
        self,
        *headers: tuple[str, str],
        method: str = "GET",
        path: str = PATH,
        query: str = "",
        certificate: bytes | None = None,
        content: bytes = b"",
        guard: Guard | None = None,
    ) -> TaskToken | GuardAnswer:
        async def read() -> bytes:
            self.contents += 1
            return content

        request = HttpRequest(method, path, query, list(headers), certificate)
        return await (guard or self.guard).check(request, read)

    async def bearer(self, token: str, **request: Any) -> TaskToken | GuardAnswer:
        return await self.send(("Authorization", f"Bearer {token}"), **request)

    async def dpop(self, token: str, proof: str, **request: Any) -> TaskToken | GuardAnswer:
        return await self.send(("authorization", f"DPoP {token}"), ("dpop", proof), **request)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Service]:
    """The service, once it knows the tasks t1, which lives, and gone, which is over; its agent's socket in `folder`."""
    socket = folder / "agent.sock"
    agent = ScriptedAgent()
    agent.push("WatchTasks", snapshot([KEY], live("t1", 5), over("gone")))
    async with agent.serve(socket), Client(str(socket), deadline_seconds=5) as client:
        made = Service(client, agent)
        async with made.verifier as verifier:
            await verifier.feed.wait_ready(10)
            yield made


def refused(answer: TaskToken | GuardAnswer, status: int, error: str, said: str = "") -> Refusal:
    """The answer, which refuses with this status and error, and tells that in its first challenge."""
    assert isinstance(answer, Refusal), answer
    assert (status, error) == (answer.status, answer.error), answer.description
    assert said in answer.description
    challenges = [value for name, value in answer.headers() if name == "www-authenticate"]
    assert all(f'realm="{AUDIENCE}"' in each and "resource_metadata=" in each for each in challenges)
    if error and status in {400, 401, 403}:
        assert f'error="{error}"' in challenges[0]
        assert not any("error=" in each for each in challenges[1:])
    return answer


def schemes(answer: Refusal) -> list[str]:
    return [value.partition(" ")[0] for name, value in answer.headers() if name == "www-authenticate"]
