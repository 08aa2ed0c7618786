"""A provider of one's own: a help desk that gives keys to who shows it a JWT-SVID, and takes them back.

    [providers.helpdesk]                           # the agent's configuration
    kind = "desk"
    url = "https://desk.example.org"

    [[ceiling]]                                    # a task type
    resource = "https://desk.example.org/tickets"
    actions = ["ticket:read", "ticket:close"]
    provider = "helpdesk"
    ask = { queue = "printers" }

What the desk has: `POST /keys {"assertion", "queue", "rights", "seconds"}` answers `{"key", "id", "seconds"}`;
`POST /keys/end {"assertion", "id"}` answers 200, whether it knew the key or not.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError, field_validator
from sojourn.plugins.provider import (
    Ended,
    Http,
    HttpResponse,
    InvalidConfig,
    InvalidInput,
    Mint,
    Obtained,
    ProviderRefused,
    ProviderTable,
    ProviderUnavailable,
    Recall,
    SojournError,
    Step,
    Wanted,
)

LONGEST = timedelta(minutes=30)


class DeskTable(ProviderTable):
    """Its keys in [providers.NAME]; those that every kind has are there already."""

    url: str

    @field_validator("url")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not value.startswith(("https://", "http://")) or value.endswith("/"):
            raise ValueError("is not a URL without a slash at its end")
        return value


@dataclass(frozen=True)
class DeskAsk:
    queue: str


class DeskProvider:
    kind = "desk"
    recall: Recall = "revoke"
    offline = False  # the desk itself is asked with each key
    longest = LONGEST

    def __init__(self, name: str, settings: Mapping[str, Any], http: Http) -> None:
        try:
            self._table = DeskTable.model_validate(dict(settings))
        except ValidationError as error:
            # The value itself may be a secret that stands in the wrong place: only the key and the reason are told.
            faults = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
            raise InvalidConfig(faults) from None
        self.audiences = frozenset({self._table.url})  # what the desk takes: for tasks alone
        self._name = name
        self._http = http

    def read_ask(self, ask: Mapping[str, Any], actions: tuple[str, ...]) -> DeskAsk:  # noqa: ARG002
        queue = ask.get("queue")
        if set(ask) != {"queue"} or not isinstance(queue, str) or not queue.isidentifier():
            raise InvalidInput('ask must be { queue = "NAME" }, the queue whose tickets the key is for')
        return DeskAsk(queue)

    def describe(self, ask: DeskAsk) -> Mapping[str, str]:
        return {"url": self._table.url, "queue": ask.queue}

    async def exchange(self, wanted: Wanted, mint: Mint) -> Obtained:
        left = wanted.ends - datetime.now(UTC)
        answer = await self._http.post_json(
            f"{self._table.url}/keys",
            {
                "assertion": await mint(self._table.url),
                "queue": wanted.ask.queue,
                "rights": list(wanted.actions),
                "seconds": int(min(left, LONGEST).total_seconds()),
            },
            step="key",
        )
        value = _good(answer, "key", "let the desk trust this agent's keys, and give the SPIFFE ID the queue")
        key, number, seconds = value.get("key"), value.get("id"), value.get("seconds")
        if not (isinstance(key, str) and key.isascii() and key.isalnum() and isinstance(number, str) and number):
            raise ProviderUnavailable("the answer has no key", step="key", sent=True)
        if isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 < seconds <= LONGEST.total_seconds():
            raise ProviderUnavailable("the answer does not say for how long the key is good", step="key", sent=True)
        ends = datetime.now(UTC) + timedelta(seconds=seconds)
        return Obtained(key, ends, handle={"id": number}, public={"queue": wanted.ask.queue})

    async def take_back(self, ended: Ended, mint: Mint) -> None:
        if not ended.handle:
            return  # its answer was lost, and the desk knows it by nothing else
        body = {"assertion": await mint(self._table.url), "id": ended.handle["id"]}
        _good(
            await self._http.post_json(f"{self._table.url}/keys/end", body, step="end"), "end", "ask the desk's owner"
        )

    async def check(self, wanted: Wanted | None, mint: Mint) -> AsyncIterator[Step]:
        if wanted is None:
            yield Step("key", "skipped", "there is nobody to ask for")
            return
        obtained: Obtained | None = None
        try:
            obtained = await self.exchange(wanted, mint)
            yield Step("key", "ok", f"the desk gives a key for {wanted.ask.queue}")
            await self._end(wanted, obtained, mint)
            obtained = None
            yield Step("end", "ok", "and takes it back")
        except SojournError as error:
            name = "end" if obtained else "key"
            yield Step(name, "failed", error.public, getattr(error, "hint", "") or "see whether the desk is well")
        finally:
            if obtained is not None:  # nobody reads on, or it was not taken back
                with suppress(SojournError):
                    await self._end(wanted, obtained, mint)

    async def _end(self, wanted: Wanted, obtained: Obtained, mint: Mint) -> None:
        ended = Ended(
            task_id=wanted.task_id,
            spiffe_id=wanted.spiffe_id,
            resource=wanted.resource,
            ask=wanted.ask,
            handle=obtained.handle,
            public=obtained.public,
            expires_at=obtained.expires_at,
        )
        await self.take_back(ended, mint)

    async def close(self) -> None:
        await self._http.close()


def _good(answer: HttpResponse, step: str, hint: str) -> dict[str, Any]:
    """The JSON of an answer with 200. Raise ProviderRefused or ProviderUnavailable, without the answer's own text."""
    if answer.status in {400, 401, 403, 404}:
        raise ProviderRefused(f"the desk says no ({answer.status})", step=step, hint=hint)
    if answer.status != 200:
        raise ProviderUnavailable(f"the desk answers {answer.status}", step=step, sent=answer.status < 500)
    return answer.json(step)
