"""`POST /people/NAME/logout`: an issuer says that somebody has logged out (Back-Channel Logout 1.0, 2.5).

The answer tells nothing of whether anything was done for them: a session that nobody here has heard of ends as any
other does, so that no token of it is taken later. Issuers say it once: a token whose key is not known yet is answered
503, and is tried again by itself.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from sojourn.audit.journal import Audit
from sojourn.endpoints.http1.oauth_responses import NO_STORE, denied, described, form_of, holding
from sojourn.endpoints.http1.scope import SENDER
from sojourn.endpoints.oauth.pending_deliveries import PendingDeliveries, PendingDelivery
from sojourn.errors import InvalidInput, InvalidToken, LimitExceeded, SojournError
from sojourn.errors.people import IssuerUnavailable
from sojourn.limits import (
    LOGOUT_REQUESTS_PER_SECOND,
    LOGOUT_TOKENS_REMEMBERED,
    PUBLISHED_KEYS_ANEW_SECONDS,
    REFUSALS_LOGGED_PER_SECOND,
)
from sojourn.oauth.client_auth import ClientSender
from sojourn.people.service import People
from sojourn.quota.lru import Lru
from sojourn.quota.rate import Rate
from sojourn.runtime.clock import Alarms, Clock
from sojourn.tasks.end_people import EndPeople

log = structlog.get_logger()
_PATH: Final = re.compile(rb"/people/([a-z0-9][a-z0-9-]{0,63})/logout")
_FIELD: Final = "logout_token"


class LogoutApp:
    """Hears logouts, and nothing else. Who may say so is told by the token's signature alone."""

    def __init__(self, people: People, ending: EndPeople, audit: Audit, clock: Clock, alarms: Alarms) -> None:
        self._people = people
        self._ending = ending
        self._audit = audit
        self._clock = clock
        self.pending = PendingDeliveries(self._settle, clock, alarms)
        self._allowance = Rate(LOGOUT_REQUESTS_PER_SECOND)
        self._logged = Rate(REFUSALS_LOGGED_PER_SECOND)
        # A token that comes again, also in the next run, ends nothing that it has not ended before.
        self._used: Lru[tuple[str, str], bool] = Lru(LOGOUT_TOKENS_REMEMBERED, by_age=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        sender: ClientSender = request.scope[SENDER]
        if not self._allowance.allow(sender.who):
            return Response(status_code=429, headers={**NO_STORE, "Retry-After": "1"})
        path = _PATH.fullmatch(request.scope["raw_path"])
        name = path[1].decode() if path else ""
        if name not in self._people.issuers:
            return Response(status_code=404, headers=NO_STORE)
        if request.method != "POST":
            return Response(status_code=405, headers={**NO_STORE, "Allow": "POST"})
        text, came = "", 0.0
        try:
            with holding(request):
                text = _token_of(await form_of(request))
                came = self._clock.boot()  # whole: its key was there by then
                ended = await self._take(name, text, sender.details, came)
        except SojournError as error:
            denied(self._audit, "person_logout_refused", request, error)
            kept = PendingDelivery(name, sender.who, sender.details, text, came)
            pending = isinstance(error, IssuerUnavailable) and self.pending.keep(kept)
            self._log_refused(kept, error, pending=pending or None)
            return _refusal(error)
        except Exception:
            log.exception("http_failed", path=f"/people/{name}/logout", door="people")
            return _answer_with("server_error", "internal error; the log has it")
        self.pending.forget(name, text)
        log.info("person_logged_out", issuer=name, ended=ended)
        return Response(status_code=200, headers=NO_STORE)

    async def close(self) -> None:
        """Try nothing again."""
        await self.pending.close()

    async def _settle(self, pending: PendingDelivery) -> bool:
        """Take a token that came while its key was not known; False: that is still so, or it is not on disk."""
        try:
            ended = await self._take(pending.issuer, pending.unverified_text, pending.by, pending.since)
        except SojournError as error:
            if _is_ours(error):
                return False
            said = {"code": error.code, "reason": error.public}
            self._audit.denied("person_logout_refused", pending.who, **pending.by, **said)
            self._log_refused(pending, error)
        except Exception:
            log.exception("http_failed", path=f"/people/{pending.issuer}/logout", door="people")
        else:
            seconds = round(self._clock.boot() - pending.since, 1)
            log.info("person_logged_out", issuer=pending.issuer, ended=ended, pending_seconds=seconds)
        return True

    def _log_refused(self, delivery: PendingDelivery, error: SojournError, **more: bool | None) -> None:
        if self._logged.allow(delivery.who):
            said = {"code": error.code, "reason": error.public, "detail": error.detail or None, **more}
            log.info("person_logout_refused", issuer=delivery.issuer, **delivery.by, **said)

    async def _take(self, name: str, unverified_token: str, by: Mapping[str, Any], since: float) -> int:
        """Return how many tasks were ended, when that is on disk. Raise what verifying or ending does, and InvalidToken
        for a token that was used, or that names the session of one person and the subject of another.
        """
        logout = await self._people.verify_logout(name, unverified_token, since)
        if (name, logout.jti) in self._used:
            raise _not_taken("it was used before", "replayed")
        both = logout.session and logout.subject
        if both and self._ending.is_of_another(name, logout.session, logout.subject):
            raise _not_taken("its sid is of a session of another person than its sub", "wrong_person")
        ended = await self._ending.end(name, session=logout.session, subject=logout.subject, at=logout.at, by=by)
        self._used.put((name, logout.jti), True)  # what fails may come again
        return len(ended)


def _not_taken(why: str, reason_code: str) -> InvalidToken:
    """The refusal of a good token that ends nothing: one answer for all, which tells of no session whose it is."""
    told = "the logout token was used before, or its sid and its sub are not of one person"
    return InvalidToken(told, reason_code=reason_code, detail=why)


def _token_of(form: list[tuple[str, str]]) -> str:
    """What stands in the form beside it is passed over (Back-Channel Logout 1.0, 2.5). Raise InvalidInput."""
    found = [value for name, value in form if name == _FIELD]
    if len(found) != 1:
        raise InvalidInput(f"the form has not exactly one {_FIELD}")
    return found[0]


def _refusal(error: SojournError) -> Response:
    """Back-Channel Logout 1.0, 2.8: 400 for whatever was not done; 503 where nobody knows yet whether it is to be."""
    if isinstance(error, LimitExceeded):
        return Response(status_code=429, headers={**NO_STORE, "Retry-After": "1"})
    if isinstance(error, IssuerUnavailable):
        again = {"Retry-After": f"{PUBLISHED_KEYS_ANEW_SECONDS:.0f}"}
        return _answer_with(error.oauth_error, error.public, status=503, headers=again)
    return _answer_with(error.oauth_error if _is_ours(error) else "invalid_request", error.public)


def _is_ours(error: SojournError) -> bool:
    """Whether a token that was not taken is no worse for it, and may come again."""
    return error.oauth_error in {"server_error", "temporarily_unavailable"}


def _answer_with(error: str, sentence: str, *, status: int = 400, headers: Mapping[str, str] = NO_STORE) -> Response:
    body = {"error": error, "error_description": described(sentence)}
    return JSONResponse(body, status_code=status, headers={**NO_STORE, **headers})
