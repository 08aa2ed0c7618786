"""`POST /events` on the public socket: signed events are handed in (RFC 8935, push delivery)."""

import structlog
from prometheus_client import Counter as Metric
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sojourn.attestation.peer import Peer
from sojourn.endpoints.http1.oauth_responses import content_of, holding
from sojourn.endpoints.http1.scope import SENDER
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
from sojourn.ssf import security_events
from sojourn.ssf.receiver import Issuer, Signals

log = structlog.get_logger()
PATH = "/events"
SIGNALS = Metric("sojourn_signals_total", "Signed events that were handed in, by result.", ["result"])
NO_STORE = {"Cache-Control": "no-store"}
_RETRY = {**NO_STORE, "Retry-After": str(SIGNAL_RETRY_SECONDS)}


class _OtherMediaType(InvalidInput):
    """A signed event came with another media type than RFC 8935 has."""

    code = "unsupported_media_type"


class EventsApi:
    """The receiver. Who may hand an event in is asked here, what it says and whether it is good in `Signals`."""

    def __init__(
        self, signals: Signals, identities: Identities, per_uid_per_second: int = SIGNALS_PER_UID_PER_SECOND
    ) -> None:
        self._signals = signals
        self._identities = identities
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
                unverified = security_events.parse_unverified_event(await _body(request))
                await self._check_publisher(peer, self._signals.issuer_of(unverified))
                by = {"by_uid": peer.uid, "by_pid": peer.process.pid}
                SIGNALS.labels(await self._signals.take(unverified, by)).inc()
            return Response(status_code=202, headers=NO_STORE)
        except SojournError as error:
            self._signals.refused(unverified, error, peer.who, peer.details)
            if self._logged.allow(peer.who):
                log.info("signal_refused", path=PATH, code=error.code, reason=error.public, detail=error.detail or None)
            return _refusal(error)
        except Exception:
            log.exception("http_failed", path=PATH)
            return _answer(500, "", "internal error; the log has it")

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
