"""HTTP/1.1: the token endpoint, keys and discovery."""

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Protocol

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from sojourn.endpoints.api.trust_documents import key_set
from sojourn.endpoints.http1.direct_routes import Handler, Straight
from sojourn.endpoints.http1.oauth_responses import NO_STORE, decision_of, denied, holding, refusal
from sojourn.endpoints.http1.scope import SENDER
from sojourn.endpoints.oauth.introspection_revocation import TokenState
from sojourn.endpoints.oauth.metadata import PATHS, RESOURCE_PATH, MetadataDocuments
from sojourn.endpoints.oauth.token import TokenRequests
from sojourn.errors import InvalidInput, SojournError
from sojourn.errors.oauth import Confined
from sojourn.jose.jws import PublicKey
from sojourn.limits import REFUSALS_LOGGED_PER_SECOND
from sojourn.oauth.client_auth import ClientSender
from sojourn.quota.rate import Rate
from sojourn.tasks.engine import TaskEngine

log = structlog.get_logger()
# Browsers and proxies say by these that they pass on what somebody else asks for.
_PASSED_ON = (b"origin", b"referer", b"via", b"forwarded")
_PASSED_ON_PREFIX = b"x-forwarded-"


class JwtKeySource(Protocol):
    """What JWT-SVIDs of our trust domain are verified by."""

    @property
    def jwt_keys(self) -> Mapping[str, PublicKey]: ...


class HttpApi:
    """The HTTP side of the token service."""

    def __init__(
        self,
        engine: TaskEngine,
        authority: JwtKeySource,
        tokens: TokenRequests,
        state: TokenState,
        metadata: MetadataDocuments,
    ) -> None:
        self._engine = engine
        self._authority = authority
        self._tokens = tokens
        self._state = state
        self._metadata = metadata
        self._logged = Rate(REFUSALS_LOGGED_PER_SECOND)

    def app(self, others: Sequence[Route] = ()) -> ASGIApp:
        """`others`: routes of other APIs beside ours."""
        handlers: dict[str, Handler] = {
            "/token": self._tokens.answer,  # RFC 6749, 3.2
            "/introspect": self._state.introspect,  # RFC 7662, 2
            "/revoke": self._state.revoke,  # RFC 7009, 2
        }
        posts = {path: self._guard(_direct(handler)) for path, handler in handlers.items()}
        app = Starlette(
            routes=[
                *(Route(path, handler, methods=["POST"]) for path, handler in posts.items()),
                Route("/keys", self._guard(self.keys), methods=["GET"]),
                *(Route(path, self._guard(self._metadata.service), methods=["GET"]) for path in PATHS),
                *(
                    Route(path, self._guard(self._metadata.resource), methods=["GET"])
                    for path in (RESOURCE_PATH, RESOURCE_PATH + "/{path:path}")
                ),
                *others,
            ]
        )
        app.router.redirect_slashes = False  # a redirect would send a subject token again
        return Straight(posts, app)

    async def keys(self, request: Request) -> Response:
        """The JWK Set of JWT-SVIDs and of task tokens (RFC 7517)."""
        del request
        keys = [*self._authority.jwt_keys.values(), *self._engine.keys.published.values()]
        return JSONResponse(key_set(keys), headers={"Cache-Control": "max-age=60"})

    def _check_not_confined(self, request: Request) -> None:
        """Raise Confined for whom this agent gives nothing, and record it."""
        sender: ClientSender = request.scope[SENDER]
        if sender.peer is None:
            return
        try:
            sender.peer.check_not_confined()
        except Confined as error:
            denied(self._engine.audit, "exchange_denied", request, error)
            raise

    def _guard(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            begun = monotonic()
            try:
                with holding(request):
                    self._check_not_confined(request)
                    return await handler(request)
            except SojournError as error:
                sender: ClientSender = request.scope[SENDER]
                if self._logged.allow(sender.who):
                    log.info(
                        "http_refused",
                        path=request.url.path,
                        code=error.code,
                        door=_door_of(request),
                        duration_ms=_took(begun),
                        **sender.details,
                        reason=error.public,
                        detail=error.detail or None,
                        decision_id=decision_of(request),
                    )
                return refusal(error, decision_of(request), request, self._engine.issuer)
            except Exception:
                log.exception(
                    "http_failed",
                    path=request.url.path,
                    decision_id=decision_of(request),
                    door=_door_of(request),
                    duration_ms=_took(begun),
                )
                return JSONResponse(
                    {
                        "error": "server_error",
                        "error_description": "internal error; the log has it",
                        "decision_id": decision_of(request),
                    },
                    status_code=500,
                    headers=NO_STORE,
                )

        return guarded


def _door_of(request: Request) -> str:
    """By which door a request came, as the log has it."""
    sender: ClientSender = request.scope[SENDER]
    return "public" if sender.peer is not None else "https"


def _took(begun: float) -> float:
    return round((monotonic() - begun) * 1000, 3)


def _direct(handler: Handler) -> Handler:
    """A handler for those who ask for themselves.

    A process that passes requests on to a Unix socket would have its own identity used by whoever sent them. Over TCP
    it is the client's certificate that counts.
    """

    async def asked(request: Request) -> Response:
        sender: ClientSender = request.scope[SENDER]
        if sender.peer is not None:
            for name, _ in request.scope["headers"]:  # in small letters, as ASGI has them
                if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIX):
                    said = name.decode("latin-1")
                    raise InvalidInput(f"a request with {said!r} was passed on by a process here: ask for yourself")
        return await handler(request)

    return asked
