"""What a provider answers: read strictly, and refused with a sentence when it is none. It may be hostile."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog

from sojourn.errors import SojournError, quoted
from sojourn.limits import PROVIDER_RETRY_AFTER_MAX_SECONDS, PROVIDER_TOKEN_MAX_BYTES
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.http import HttpResponse
from sojourn.providers.provider import Step
from sojourn.runtime.clock import Clock, synchronised

log = structlog.get_logger()

_WORD: Final = re.compile(r"[^\s'\"]+")
_WORD_MAX: Final = 40
_SAID_MAX: Final = 1_000
_RANDOM_MIN: Final = 20  # from here on a word with a digit may be a token: Vault's have 26 letters
_CODE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_RFC3339: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]{1,9})?[Zz]")


def text_of(answer: Mapping[str, Any], key: str, step: str) -> str:
    """A member that must be there: a string that is not empty. Raise ProviderUnavailable."""
    value = answer.get(key)
    if not isinstance(value, str) or not value:
        raise odd(f"the answer has no {key}", step)
    if len(value) > PROVIDER_TOKEN_MAX_BYTES:
        raise odd(f"the answer's {key} is larger than {PROVIDER_TOKEN_MAX_BYTES} bytes", step)
    return value


def token_of(answer: Mapping[str, Any], key: str, step: str) -> str:
    """A member that goes into a header: visible ASCII. Raise ProviderUnavailable."""
    value = text_of(answer, key, step)
    if not all("!" <= letter <= "~" for letter in value):
        raise odd(f"the answer's {key} has characters that no token has", step)
    return value


def table_of(answer: Mapping[str, Any], key: str, step: str) -> dict[str, Any]:
    """A member that is an object. Raise ProviderUnavailable."""
    value = answer.get(key)
    if not isinstance(value, dict):
        raise odd(f"the answer has no {key}", step)
    return value


def life_of(answer: Mapping[str, Any], key: str, step: str, longest: timedelta) -> timedelta:
    """A number of seconds, more than none and at most `longest`. Raise ProviderUnavailable."""
    value = answer.get(key)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise odd(f"the answer's {key} is not a number of seconds", step)
    if value <= 0:
        raise odd("what it gave has expired already", step)
    if value > longest.total_seconds():
        raise odd(f"the answer's {key} is longer than any credential of this provider is good", step)
    return timedelta(seconds=value)


def time_of(text: str, step: str) -> datetime:
    """RFC 3339 in UTC, cut to whole seconds. Raise ProviderUnavailable."""
    found = _RFC3339.fullmatch(text)
    try:
        if found is not None:
            return datetime.fromisoformat(f"{found[1]}T{found[2]}+00:00").astimezone(UTC)
    except ValueError:
        pass
    raise odd("the answer's expiry is not a time in UTC (RFC 3339)", step)


def expiring(expires: datetime, now: datetime, longest: timedelta, step: str) -> datetime:
    """An expiry by the provider's clock: at most `longest` from now. Raise ProviderUnavailable if it is past."""
    if expires <= now:
        raise odd("what it gave has expired already", step, hint="set this machine's clock, or the provider's")
    return min(expires, now + longest)


def odd(what: str, step: str, *, hint: str = "") -> ProviderUnavailable:
    """An answer that came and is none: what it gave, if anything, is lost."""
    return ProviderUnavailable(what, step=step, sent=True, hint=hint)


def code_of(value: object) -> str:
    """An error code as the provider told it, if it is one that may be shown; else ''."""
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


def said(text: object) -> str:
    """What a provider said of an error, for the log: without what may be a token or a key, escaped, and cut."""
    return quoted(_WORD.sub(_tame, text[:_SAID_MAX])) if isinstance(text, str) and text else ""


def _tame(word: re.Match[str]) -> str:
    text = word[0]
    random = len(text) >= _RANDOM_MIN and any(letter.isdigit() for letter in text)
    return "…" if random or len(text) >= _WORD_MAX else text


def unanswered(answer: HttpResponse, step: str, *, detail: str = "") -> ProviderUnavailable:
    """The error that an answer becomes whose status is no success and no refusal, such as 429 or 503."""
    if answer.status == 429:
        told, sent = "the provider has too many requests", False
    elif answer.status >= 500:
        told, sent = "the provider failed", answer.status != 503  # 503: it was not looked at
    else:
        told, sent = "the provider did not answer as it should", True
    return ProviderUnavailable(
        f"{told} (HTTP {answer.status})", step=step, sent=sent, retry_after=retry_after(answer), detail=detail
    )


def retry_after(answer: HttpResponse) -> float:
    """Seconds, as Retry-After says (RFC 9110, 10.2.3); 0: it does not, or names a date."""
    value = answer.headers.get("retry-after", "")
    if not (value.isascii() and value.isdecimal()) or len(value) > 9:
        return 0.0
    return min(float(value), PROVIDER_RETRY_AFTER_MAX_SECONDS)


async def unfailing(steps: AsyncGenerator[Step, None], otherwise: str = "check") -> AsyncIterator[Step]:
    """A check's steps, with one more for what it raises: of the step that the error names, or `otherwise`.

    It is closed with this.
    """
    try:
        async with aclosing(steps):
            async for step in steps:
                yield step
    except SojournError as error:
        yield failed(getattr(error, "step", "") or otherwise, error)
    except Exception as error:
        log.exception("check_raised")
        yield Step("check", "failed", f"it failed in a way that nobody foresaw: {type(error).__name__}")


def own_clock(clock: Clock) -> Step:
    """The step of a check that tells this machine's time, and whether anything keeps it right."""
    said = f"this machine's clock says {clock.now().replace(microsecond=0, tzinfo=None).isoformat()}Z"
    if synchronised():
        return Step("own_clock", "ok", f"{said}, and is kept right")
    hint = "let chrony or systemd-timesyncd keep it right: what is signed is refused by a clock that differs"
    return Step("own_clock", "ok", f"{said}; the kernel does not know of anything that keeps it right", hint)


def failed(name: str, error: SojournError) -> Step:
    """A step of a check that did not go well."""
    return Step(name, "failed", error.public, getattr(error, "hint", ""))
