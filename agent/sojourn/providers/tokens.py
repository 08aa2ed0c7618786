"""What an OAuth token endpoint answers, read strictly (RFC 6749, 5; RFC 8693, 2.2)."""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

from sojourn.errors import quoted
from sojourn.jose import strict_json
from sojourn.limits import (
    JWT_LEEWAY_SECONDS,
    PROVIDER_RETRY_AFTER_MAX_SECONDS,
    PROVIDER_TOKEN_MAX_SECONDS,
    TOKEN_MAX_BYTES,
)
from sojourn.providers.answers import retry_after
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.http import HttpResponse
from sojourn.providers.provider import ACCESS_TOKEN, NOT_OAUTH

TYPE_PREFIX: Final = "urn:ietf:params:oauth:token-type:"
_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, 2.1: nothing else fits into a header
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-]+")
_LONG: Final = re.compile(r"[A-Za-z0-9._~+/=-]{64,}")  # as tokens are, and words are not
_ERROR: Final = re.compile(r"[a-z_]{1,64}")
_LATER: Final = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
_TOLD_MAX: Final = 200

Hints = Callable[[str, str], str]
"""What to set where, one sentence, for an OAuth error code and what a provider told of it; "": nothing is known."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What an answer must be. `asked`: the scope of the request. `scopes`: at most these; None: whatever comes."""

    asked: str = ""
    scopes: frozenset[str] | None = None
    issued_type: str = ""  # exactly this; "": an access token, as such or as a JWT
    bearer: bool = True  # whether nothing but a bearer token will do


@dataclass(frozen=True, slots=True)
class Granted:
    """A token that was given. `claims`: what it says of itself if it is a JWT; nobody has checked that."""

    token: str = field(repr=False)
    refresh_token: str = field(repr=False)  # "": there is none
    expires_at: datetime
    token_type: str
    issued_type: str
    scope: str
    unverified_claims: Mapping[str, Any] = field(repr=False)

    def public(self) -> dict[str, str]:
        """What may be shown of it."""
        jti = self.unverified_claims.get("jti")
        shown = {"scope": self.scope, "jti": jti if isinstance(jti, str) else ""}
        return {name: _tame(value) for name, value in shown.items() if value}


class Unfit(ProviderRefused):
    """A token was given that is not to be used: `tokens` are to be taken back at once."""

    def __init__(self, public: str, tokens: tuple[str, ...], *, step: str, hint: str = "") -> None:
        super().__init__(public, step=step, hint=hint)
        self.tokens = tokens


class _Bad(Exception):
    def __init__(self, public: str, hint: str = "") -> None:
        super().__init__(public)
        self.public = public
        self.hint = hint


def read_token(
    answer: HttpResponse, expected: Expected, *, step: str, asked_at: datetime, now: datetime, hints: Hints
) -> Granted:
    """Read the answer to a token request that was made at `asked_at`.

    Raise ProviderRefused (Unfit, if there is something to take back) or ProviderUnavailable.
    """
    if answer.status != 200:
        raise refusal(answer, step=step, now=now, hints=hints)
    body = answer.json(step)
    tokens = tuple(
        each for name in ("access_token", "refresh_token") if isinstance(each := body.get(name), str) and each
    )
    try:
        return _granted(body, expected, answer, asked_at, now)
    except _Bad as error:
        if not tokens:  # one may have been given all the same
            raise ProviderUnavailable(error.public, step=step, hint=error.hint, sent=True) from None
        raise Unfit(error.public, tokens, step=step, hint=error.hint) from None


def _granted(
    body: dict[str, Any], expected: Expected, answer: HttpResponse, asked_at: datetime, now: datetime
) -> Granted:
    token, refresh = body.get("access_token"), body.get("refresh_token", "")
    if not isinstance(token, str) or not isinstance(refresh, str):
        raise _Bad("the answer has no access_token")
    if len(token) > TOKEN_MAX_BYTES:
        raise _Bad(f"the token is longer than {TOKEN_MAX_BYTES} bytes")
    if not _BEARER.fullmatch(token):
        raise _Bad("the token has characters that no header takes")
    token_type, issued = body.get("token_type"), body.get("issued_token_type", "")
    kind = _check_types(token_type, issued, expected)
    lasts = body.get("expires_in")
    if type(lasts) is not int or not 0 < lasts <= PROVIDER_TOKEN_MAX_SECONDS:
        raise _Bad(
            f"the answer does not say how long the token is good: expires_in is no number from 1 to "
            f"{PROVIDER_TOKEN_MAX_SECONDS}",
            "let tokens live for minutes",
        )
    claims = unverified_claims(token)
    ends = min(asked_at + timedelta(seconds=lasts), _expiry(claims))
    if ends <= now:
        raise _Bad("the token is over already" + clock_note(answer, now), "set the clocks of both hosts by NTP")
    scope = _scope(body, expected)
    named = str(issued) or expected.issued_type or ACCESS_TOKEN
    return Granted(token, refresh, ends, kind, named, scope, claims)


def _check_types(token_type: Any, issued: Any, expected: Expected) -> str:
    kind = token_type.lower() if isinstance(token_type, str) else ""
    if kind != "bearer" and (expected.bearer or kind != NOT_OAUTH.lower()):
        raise _Bad(f"the token is of type {quoted(str(token_type))}, and a bearer token is needed")
    if not isinstance(issued, str):
        raise _Bad("issued_token_type is not a text")
    fit = {expected.issued_type} if expected.issued_type else {ACCESS_TOKEN, f"{TYPE_PREFIX}jwt"}
    if issued and issued not in fit:
        raise _Bad(f"issued_token_type is {quoted(issued)}, which was not asked for")
    return "Bearer" if kind == "bearer" else NOT_OAUTH


def _scope(body: Mapping[str, Any], expected: Expected) -> str:
    scope = body.get("scope")
    if scope is None:
        return expected.asked  # RFC 6749, 5.1
    if not isinstance(scope, str):
        raise _Bad("scope is not a text")
    more = set() if expected.scopes is None else set(scope.split()) - expected.scopes
    if more:
        raise _Bad(
            f"the token has more scope than was asked for: {quoted(' '.join(sorted(more)))}",
            "do not let the provider add it unasked, or name it in ask.tolerated_scopes",
        )
    return scope


def _expiry(claims: Mapping[str, Any]) -> datetime:
    latest = datetime.max.replace(tzinfo=UTC)
    exp = claims.get("exp")
    if not isinstance(exp, int | float) or isinstance(exp, bool):
        return latest
    try:
        return datetime.fromtimestamp(exp, UTC)
    except (ValueError, OverflowError, OSError):
        return latest if exp > 0 else datetime.min.replace(tzinfo=UTC)


def unverified_claims(token: str, part: int = 1) -> dict[str, Any]:
    """The claims of a token that is a compact JWS (`part` 0: its header); none if it is not. Nothing is verified."""
    segments = token.split(".")
    if len(segments) != 3 or not all(_SEGMENT.fullmatch(each) for each in segments):
        return {}
    try:
        value = strict_json.loads(base64.urlsafe_b64decode(segments[part] + "==").decode())
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def refusal(answer: HttpResponse, *, step: str, now: datetime, hints: Hints) -> ProviderRefused | ProviderUnavailable:
    """What an answer of an OAuth endpoint is that is not 200 (RFC 6749, 5.2)."""
    error, told = _error_of(answer)
    if answer.status >= 500 or answer.status == 429 or error in _LATER:
        sent = answer.status >= 500 and answer.status != 503  # 503: it was not looked at
        public = f"the provider answered {answer.status}" + (f" {error}" if error else "")
        return ProviderUnavailable(public, step=step, sent=sent, retry_after=_retry_after(answer, now))
    if not error:
        hint = "look whether its issuer or endpoint is right"
        sent = answer.status < 300  # something may have been given all the same
        told = f"the provider answered {answer.status}, which is not OAuth"
        return ProviderUnavailable(told, step=step, sent=sent, hint=hint)
    note = clock_note(answer, now) if error in {"invalid_client", "invalid_grant"} else ""
    text = f"the provider refused: {error}" + (f" ({quoted(told)})" if told else "") + note
    return ProviderRefused(text, step=step, said=error, hint=hints(error, told))


def _error_of(answer: HttpResponse) -> tuple[str, str]:
    """The code, and what is told of it: short, printable, and without anything that could be a token."""
    body = answer.told()
    error, told = body.get("error"), body.get("error_description")
    if not isinstance(error, str) or not _ERROR.fullmatch(error):
        return "", ""
    return error, _tame(told) if isinstance(told, str) else ""


def _tame(text: str) -> str:
    printable = "".join(each if each.isascii() and each.isprintable() else " " for each in text[: 4 * _TOLD_MAX])
    return " ".join(_LONG.sub("…", printable).split())[:_TOLD_MAX]


def _retry_after(answer: HttpResponse, now: datetime) -> float:
    date = _date(answer.headers.get("retry-after", ""))
    later = (date - now).total_seconds() if date else 0.0
    return retry_after(answer) or min(max(later, 0.0), PROVIDER_RETRY_AFTER_MAX_SECONDS)


def clock_note(answer: HttpResponse, now: datetime) -> str:
    """What to say of a provider's clock if it is far from ours: verifiers refuse tokens for that."""
    date = _date(answer.headers.get("date", ""))
    off = (date - now).total_seconds() if date else 0.0
    if abs(off) <= JWT_LEEWAY_SECONDS:
        return ""
    return f"; its clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} ours"


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
