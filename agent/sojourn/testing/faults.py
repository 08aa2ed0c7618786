"""What goes wrong with requests to the outside, one fault each, by name."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from sojourn.limits import PROVIDER_ANSWER_MAX_BYTES
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.http import HttpResponse
from sojourn.testing.outside import Fault, Sent

ELSEWHERE: Final = "https://elsewhere.example.net/"
_DEEP: Final = 20_000
_WRONG: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1.5, 10**30, 1e308, "", " ", "x\x00\r\ny", "💥" * 1000, "9" * 400, [], {}, [[]]),
    *({"x": {"x": []}}, ["a", 1, None], "2020-01-01T00:00:00Z", "not a date"),
)
_STATUSES: Final = (301, 302, 307, 400, 401, 403, 404, 409, 429, 500, 502, 503)
_BODIES: Final[Mapping[str, bytes]] = {
    "nothing": b"",
    "bytes": bytes(range(256)),
    "a list": b"[]",
    "null": b"null",
    "an empty object": b"{}",
    "half an object": b'{"access_token": "abc',
    "a member twice": b'{"access_token": "a", "access_token": "b"}',
    "no number": b'{"expires_in": NaN, "access_token": "a"}',
    "HTML": b"<html><head><title>Sign in</title></head><body>please sign in</body></html>",
    "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
    "deep": b'{"access_token":' + b"[" * _DEEP + b"]" * _DEEP + b"}",
    "huge": b'{"padding": "' + b"x" * (PROVIDER_ANSWER_MAX_BYTES - 100) + b'"}',
}


async def hangs(_sent: Sent, answer: Callable[[], HttpResponse]) -> HttpResponse:
    """No answer ever comes."""
    await asyncio.Event().wait()
    return answer()


async def unreachable(sent: Sent, _answer: Callable[[], HttpResponse]) -> HttpResponse:
    """Nobody is there: nothing was sent."""
    raise ProviderUnavailable("cannot connect", step=sent.step)


async def lost(sent: Sent, answer: Callable[[], HttpResponse]) -> HttpResponse:
    """It is done, and the answer is lost on the way."""
    answer()
    raise ProviderUnavailable("the connection broke", step=sent.step, sent=True)


def down(status: int = 503) -> Fault:
    """Nothing is done, and said so by a status and no more."""

    async def fault(_sent: Sent, _answer: Callable[[], HttpResponse]) -> HttpResponse:
        return HttpResponse(status, {"location": ELSEWHERE, "retry-after": "soon"}, b"")

    return fault


def echoing(status: int = 400) -> Fault:
    """It is refused, and the answer repeats all that was sent."""

    async def fault(sent: Sent, _answer: Callable[[], HttpResponse]) -> HttpResponse:
        said = {"error": "invalid_grant", "error_description": sent.text, "errors": [sent.text], "message": sent.text}
        return HttpResponse(
            status, {"content-type": "application/json", "x-said": sent.text}, json.dumps(said).encode()
        )

    return fault


def saying(status: int, body: bytes) -> Fault:
    """The answer is garbage. By its status it is done, or is not."""

    async def fault(_sent: Sent, answer: Callable[[], HttpResponse]) -> HttpResponse:
        if status < 300:
            answer()
        return HttpResponse(status, {"content-type": "application/json", "location": ELSEWHERE}, body)

    return fault


def spoilt(spoil: Callable[[bytes], bytes]) -> Fault:
    """It is done, and something in the answer's body is not as it should be."""

    async def fault(_sent: Sent, answer: Callable[[], HttpResponse]) -> HttpResponse:
        good = answer()
        return HttpResponse(good.status, good.headers, spoil(good.body))

    return fault


def plain() -> Iterator[tuple[str, Fault]]:
    """Those that any request may meet."""
    yield "unreachable", unreachable
    yield "lost", lost
    for status in _STATUSES:
        yield f"down with {status}", down(status)
    for status in (400, 401, 403, 500):
        yield f"echo with {status}", echoing(status)
    for name, body in _BODIES.items():
        yield f"200 with {name}", saying(200, body)
        yield f"400 with {name}", saying(400, body)


def of(body: bytes) -> Iterator[tuple[str, Fault]]:
    """Those of an answer with this body: each member wrong in each way, or missing; of what is no object, parts."""
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        for share in (0.25, 0.5, 0.75):
            yield f"cut at {share:g}", spoilt(lambda good, share=share: good[: int(len(good) * share)])  # type: ignore[misc]
        yield "all that is a digit is 9", spoilt(lambda good: bytes(57 if 48 <= each <= 57 else each for each in good))
        yield "all that is a digit is x", spoilt(lambda good: bytes(120 if 48 <= each <= 57 else each for each in good))
        return
    for path in _paths(value):
        where = ".".join(map(str, path))
        yield f"without {where}", spoilt(lambda good, path=path: _with(good, path, ...))  # type: ignore[misc]
        for wrong in _WRONG:
            shown = repr(wrong)[:30]
            spoil = lambda good, path=path, wrong=wrong: _with(good, path, wrong)  # noqa: E731
            yield f"{where} is {shown}", spoilt(spoil)


def _paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where everything is in a value of JSON."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield (*before, key)
        yield from _paths(member, (*before, key))


def _with(body: bytes, path: tuple[Any, ...], wrong: Any) -> bytes:
    """The body with another member at the path, or with none for `...`. One that has no such path stays as it is."""
    try:
        inner = value = json.loads(body)
        for key in path[:-1]:
            inner = inner[key]
        if wrong is ...:
            del inner[path[-1]]
        else:
            inner[path[-1]] = wrong
    except (ValueError, KeyError, IndexError, TypeError):
        return body
    return json.dumps(value).encode()
