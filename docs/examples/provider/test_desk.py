"""The promises that every provider keeps, tried on this one: `pytest test_desk.py`."""

import secrets

import pytest
from sojourn.plugins.provider import HttpResponse
from sojourn.testing import Case, Promise, ProviderContract, Sent, answer_of
from sojourn_desk import DeskProvider


class Desk:
    """The help desk, as it should behave."""

    def __init__(self) -> None:
        self.secrets: set[str] = set()
        self._live: set[str] = set()

    def answer(self, sent: Sent) -> HttpResponse:
        if not sent.body.get("assertion"):
            return answer_of({"error": "who are you?"}, 401)
        if sent.url.endswith("/keys/end"):
            self._live.discard(sent.body["id"])
            return answer_of({})
        key, number = secrets.token_hex(16), secrets.token_hex(4)
        self.secrets.add(key)
        self._live.add(number)
        return answer_of({"key": key, "id": number, "seconds": sent.body["seconds"]})

    def live(self) -> int:
        return len(self._live)


CONTRACT = ProviderContract(
    Case(
        plugin=DeskProvider,
        settings={"kind": "desk", "url": "https://desk.example.org"},
        resource="https://desk.example.org/tickets",
        ask={"queue": "printers"},
        words={"ticket:read": "ticket:read", "ticket:close": "ticket:close"},
        outside=Desk,
    )
)


@pytest.mark.parametrize("promise", CONTRACT.promises, ids=str)
def test_contract(promise: Promise) -> None:
    promise.run()
