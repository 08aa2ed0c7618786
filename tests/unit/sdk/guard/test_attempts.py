"""sdk/guard/attempts.py: what is known of a request when it is refused, and that nothing of telling it keeps it from that."""

import logging

import pytest
from sojourn.errors import InvalidToken, Unavailable
from sojourn.errors.oauth import WrongParams
from sojourn.sdk.guard.attempts import Attempt, code_of
from sojourn.sdk.guard.challenges import Refusal
from sojourn.sdk.guard.guard import Guard, HttpRequest
from sojourn.sdk.guard.refusals import RefusedRequest
from sojourn.sdk.guard.verifier import TaskVerifier


class Broken(TaskVerifier):
    """Knows no token, and cannot tell of refusals."""

    def __init__(self) -> None:
        self.audience = "https://tickets.example.org"

    @property
    def issuer(self) -> str:
        return ""

    def refused(self, request: RefusedRequest) -> None:
        raise ValueError(request.code)


async def no_content() -> bytes:
    return b""


async def test_a_refusal_that_cannot_be_told(caplog: pytest.LogCaptureFixture) -> None:
    """A request that is refused stays refused, whatever goes wrong with telling it; the log says so."""
    guard = Guard(Broken(), {"GET /": "read"})
    with caplog.at_level(logging.ERROR, "sojourn.guard"):
        answer = await guard.check(HttpRequest("GET", "/"), no_content)
    assert isinstance(answer, Refusal)
    assert (401, 1) == (answer.status, sum("cannot be told" in each.getMessage() for each in caplog.records))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidToken("no", reason_code="task_over"), "task_over"),
        (WrongParams("no"), "wrong_params"),
        (Unavailable("no"), "unavailable"),
        (ValueError("no"), "internal"),
    ],
)
def test_codes(error: Exception, expected: str) -> None:
    """Each refusal has a stable code: the token's own reason, the error's, or that something went wrong here."""
    assert expected == code_of(error)


def test_nothing_known() -> None:
    """Of a request without a token and an action its method and target are told, and of its query no value."""
    made = Attempt("GET", "/a?key=s3cret").refused("no_token", "a task token is required")
    assert ("", "GET", "/a?key", ()) == (
        made.request.action,
        made.request.method,
        made.request.target,
        made.request.compared,
    )
    assert (None, "") == (made.token, made.unverified_token)
