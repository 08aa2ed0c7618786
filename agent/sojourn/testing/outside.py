"""An outside system as a test scripts it, and the `Http` by which a provider reaches it."""

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from sojourn.errors import Unavailable
from sojourn.providers.http import HttpResponse

ISSUER: Final = "https://sojourn.example.org"
SPIFFE_ID: Final = "spiffe://example.org/agent/contract"
_ASSERTION_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Sent:
    """One request of a provider."""

    method: Literal["GET", "POST", "DELETE"]
    url: str
    step: str
    headers: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)  # of JSON
    content: bytes = b""  # of plugins that make it themselves

    @property
    def text(self) -> str:
        """All that it says, as one text."""
        told = [self.method, self.url, dict(self.headers), dict(self.form), dict(self.body)]
        return json.dumps([*told, self.content.decode(errors="replace")])


class Answering(Protocol):
    """An outside system that a plugin talks to, as it should behave."""

    secrets: Collection[str]
    """Every text that it gave out and that nobody else may see."""

    def answer(self, sent: Sent) -> HttpResponse:
        """What it answers."""


class Outside(Answering, Protocol):
    """The outside system that a provider talks to. Each credential that it gives is another."""

    def live(self) -> int:
        """How many credentials it gave that are good, by its own account."""


Fault = Callable[[Sent, Callable[[], HttpResponse]], Awaitable[HttpResponse]]
"""What becomes of a request: it may be answered by calling the function that it is given, or not."""


async def well(_sent: Sent, answer: Callable[[], HttpResponse]) -> HttpResponse:
    """Nothing goes wrong."""
    return answer()


class ScriptedHttp:
    """`Http` to an `Outside`. Its request number `at` has the fault; if that is `lasting`, all that follow too."""

    def __init__(self, outside: Answering, fault: Fault = well, at: int = -1, *, lasting: bool = False) -> None:
        self.sent: list[Sent] = []
        self.answers: list[HttpResponse] = []
        self.closed = False
        self._outside = outside
        self._fault = fault
        self._at = at
        self._lasting = lasting

    def count(self) -> int:
        """How many requests were made."""
        return len(self.sent)

    async def get(self, url: str, *, step: str, headers: Mapping[str, str] | None = None) -> HttpResponse:
        return await self._ask(Sent("GET", url, step, headers or {}))

    async def post_form(
        self, url: str, form: Mapping[str, str], *, step: str, headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        return await self._ask(Sent("POST", url, step, headers or {}, form=form))

    async def post_json(
        self, url: str, body: Mapping[str, Any], *, step: str, headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        return await self._ask(Sent("POST", url, step, headers or {}, body=body))

    async def close(self) -> None:
        self.closed = True

    async def ask_content(
        self, method: Literal["GET", "POST", "DELETE"], url: str, step: str, headers: Mapping[str, str], content: bytes
    ) -> HttpResponse:
        return await self._ask(Sent(method, url, step, headers, content=content))

    async def _ask(self, sent: Sent) -> HttpResponse:
        number = len(self.sent)
        fault = self._fault if number == self._at or (self._lasting and number > self._at) else well
        self.sent.append(sent)
        await asyncio.sleep(0)  # as the network does, it lets others have a turn
        answer = await fault(sent, lambda: self._outside.answer(sent))
        self.answers.append(answer)
        return answer


class ScriptedMint:
    """Makes assertions with the right claims and no real signature. `made` has their claims, `given` the tokens."""

    def __init__(self, spiffe_id: str = SPIFFE_ID, *, broken: bool = False) -> None:
        """`broken`: there is no key."""
        self.made: list[Mapping[str, Any]] = []
        self.given: list[str] = []
        self._spiffe_id = spiffe_id
        self._broken = broken

    async def __call__(
        self, audience: str, *, algorithm: Literal["ES256", "RS256"] = "ES256", claims: Mapping[str, Any] | None = None
    ) -> str:
        if self._broken:
            raise Unavailable("there is no key to sign with")
        now = int(time.time())
        ours = {"iss": ISSUER, "sub": self._spiffe_id, "aud": audience, "iat": now, "exp": now + _ASSERTION_SECONDS}
        made = {**(claims or {}), **ours, "jti": secrets.token_hex(16)}
        parts = json.dumps({"alg": algorithm, "kid": "contract", "typ": "JWT"}), json.dumps(made)
        encoded = [_encoded(part.encode()) for part in parts]
        self.made.append(made)
        self.given.append(".".join([*encoded, _encoded(secrets.token_bytes(64))]))
        return self.given[-1]


def claims_of(assertion: str) -> dict[str, Any]:
    """The claims of an assertion, unverified, for the outside of a test."""
    part = assertion.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def answer_of(value: Any, status: int = 200, **headers: str) -> HttpResponse:
    """A JSON answer."""
    return HttpResponse(status, {"content-type": "application/json", **headers}, json.dumps(value).encode())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
