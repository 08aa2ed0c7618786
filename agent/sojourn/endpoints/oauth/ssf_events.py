"""`POST /events` on the public socket: signed events are handed in (RFC 8935, push delivery)."""

from collections.abc import Mapping
from typing import Any

import structlog
from prometheus_client import Counter as Metric
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sojourn.attestation.peer import Peer
from sojourn.endpoints.http1.oauth_responses import content_of, holding
from sojourn.endpoints.http1.scope import SENDER
from sojourn.endpoints.oauth.pending_deliveries import PendingDeliveries, PendingDelivery
from sojourn.errors import InvalidEvent, InvalidInput, LimitExceeded, NoIdentity, SojournError, TooLarge
from sojourn.identity.identities import Identities
from sojourn.limits import (
    REFUSALS_LOGGED_PER_SECOND,
    SIGNAL_RETRY_SECONDS,
    SIGNALS_PER_UID_PER_SECOND,
    TOKEN_MAX_BYTES,
)
from sojourn.oauth.client_auth import ClientSender
from sojourn.quota.rate import Rate
from sojourn.runtime.clock import Alarms, Clock
from sojourn.ssf import security_events
from sojourn.ssf.receiver import Issuer, KeysUnavailable, Signals

log = structlog.get_logger()
PATH = "/events"
SIGNALS = Metric("sojourn_signals_total", "Signed events that were handed in or fetched, by result.", ["result"])
NO_STORE = {"Cache-Control": "no-store"}
_RETRY = {**NO_STORE, "Retry-After": str(SIGNAL_RETRY_SECONDS)}


class _OtherMediaType(InvalidInput):
    """A signed event came with another media type than RFC 8935 has."""

    code = "unsupported_media_type"


def count(result: str) -> None:
    """Count an event that came in another way than by `EventsApi`, by what became of it."""
    SIGNALS.labels(result).inc()


class EventsApi:
    """The receiver. Who may hand an event in is asked here, what it says and whether it is good in `Signals`."""

    def __init__(
        self,
        signals: Signals,
        identities: Identities,
        clock: Clock,
        alarms: Alarms,
        per_uid_per_second: int = SIGNALS_PER_UID_PER_SECOND,
    ) -> None:
        self._signals = signals
        self._identities = identities
        self._clock = clock
        self.pending = PendingDeliveries(self._settle, clock, alarms)
        self._allowance = Rate(per_uid_per_second)
        self._logged = Rate(REFUSALS_LOGGED_PER_SECOND)

    def routes(self) -> list[Route]:
        """None of them if no issuer is heard."""
        return [Route(PATH, self.deliver, methods=["POST"])] if self._signals.issuers else []

    async def deliver(self, request: Request) -> Response:
        """Take one event, or say by RFC 8935, 2.4, why not."""
        sender: ClientSender = request.scope[SENDER]
        peer = sender.peer
        assert peer is not None  # events are handed in by processes of this machine alone
        unverified: security_events.UnverifiedEvent | None = None
        try:
            if not self._allowance.allow(peer.who):
                raise LimitExceeded("the user hands in too many events")
            with holding(request):
                text = await _body(request)
                came = self._clock.boot()  # whole: its key was there by then
                unverified = security_events.parse_unverified_event(text)
                await self._check_publisher(peer, self._signals.issuer_of(unverified))
                by = {"by_uid": peer.uid, "by_pid": peer.process.pid}
                kept = PendingDelivery(unverified.unverified_issuer, peer.who, by, text, came)
                SIGNALS.labels(await self._take(unverified, kept)).inc()
            return Response(status_code=202, headers=NO_STORE)
        except SojournError as error:
            self._refused(unverified, error, peer.who, peer.details)
            return _refusal(error)
        except Exception:
            log.exception("http_failed", path=PATH)
            return _answer(500, "", "internal error; the log has it")

    async def close(self) -> None:
        """Try nothing again."""
        await self.pending.close()

    async def _take(self, unverified: security_events.UnverifiedEvent, delivery: PendingDelivery) -> str:
        try:
            result = await self._signals.take(unverified, delivery.by, delivery.since)
        except KeysUnavailable:
            self.pending.keep(delivery)
            raise
        self.pending.forget(delivery.issuer, delivery.unverified_text)
        return result

    async def _settle(self, pending: PendingDelivery) -> bool:
        """Take an event that came while its key was not known; False: it may be taken by and by."""
        unverified = security_events.parse_unverified_event(pending.unverified_text)
        try:
            SIGNALS.labels(await self._signals.take(unverified, pending.by, pending.since)).inc()
        except InvalidEvent as error:
            self._refused(unverified, error, pending.who, pending.by)
            SIGNALS.labels(error.err).inc()
        except SojournError:
            return False
        except Exception:
            log.exception("http_failed", path=PATH)
        return True

    def _refused(
        self,
        unverified: security_events.UnverifiedEvent | None,
        error: SojournError,
        who: int | str,
        by: Mapping[str, Any],
    ) -> None:
        self._signals.refused(unverified, error, who, by)
        if self._logged.allow(who):
            log.info("signal_refused", path=PATH, code=error.code, reason=error.public, detail=error.detail or None)

    async def _check_publisher(self, peer: Peer, issuer: Issuer) -> None:
        peer.check_unchanged()
        if not issuer.publishers:
            return  # the signature says whose it is, whoever brings it
        try:
            entries = await self._identities.of(peer)
        except NoIdentity as error:
            raise InvalidEvent(
                "this process has no identity, and the issuer's events are taken from some only",
                err=security_events.AUTHENTICATION_FAILED,
            ) from error
        if not any(str(entry.spiffe_id) in issuer.publishers for entry in entries):
            raise InvalidEvent("this process may not hand in the issuer's events", err=security_events.ACCESS_DENIED)


async def _body(request: Request) -> str:
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind.casefold() != security_events.MEDIA_TYPE:
        raise _OtherMediaType(f"content type is not {security_events.MEDIA_TYPE}")
    body = await content_of(request, TOKEN_MAX_BYTES)
    try:
        return body.decode("ascii").rstrip("\r\n")  # a file of one event ends with its line
    except UnicodeDecodeError as error:
        raise InvalidEvent("the body is not a compact JWS") from error


def _refusal(error: SojournError) -> Response:
    if isinstance(error, _OtherMediaType):
        return _answer(415, error.code, error.public)
    if isinstance(error, TooLarge):
        return _answer(413, error.code, error.public)
    if isinstance(error, LimitExceeded):
        return _answer(429, error.code, error.public)
    if isinstance(error, InvalidInput):
        return _answer(400, error.err if isinstance(error, InvalidEvent) else "invalid_request", error.public)
    return _answer(503, error.code, error.public)


def _answer(status: int, code: str, sentence: str) -> Response:
    """RFC 8935, 2.3, is about 400; what is no fault of the event's has the same shape with our own code."""
    SIGNALS.labels(code or "internal").inc()
    headers = {**(_RETRY if status in {429, 503} else NO_STORE), "Content-Language": "en"}
    return JSONResponse({"err": code or "internal", "description": sentence}, status_code=status, headers=headers)
