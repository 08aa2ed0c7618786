"""HTTP/1.1: the token endpoint, keys and discovery."""

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import parse_qsl

import structlog
from prometheus_client import Counter as Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sojourn.authority.embedded import EmbeddedAuthority
from sojourn.clock import Clock
from sojourn.doors.httpprotocol import SENDER
from sojourn.errors import InvalidInput, InvalidToken, SojournError, TooLarge
from sojourn.limits import HTTP_BODY_MAX_BYTES
from sojourn.oversight.audit import Audit
from sojourn.tasks import exchange
from sojourn.tasks.clients import Sender
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.service import TokenService

log = structlog.get_logger()
EXCHANGES = Metric("sojourn_token_requests_total", "Requests to the token endpoint, by result.", ["result"])
FORM = "application/x-www-form-urlencoded"
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_FIELDS_MAX = 64


class HttpApi:
    """The HTTP side of the token service."""

    def __init__(
        self,
        service: TokenService,
        engine: TaskEngine,
        authority: EmbeddedAuthority,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self._service = service
        self._engine = engine
        self._authority = authority
        self._audit = audit
        self._clock = clock

    def app(self, others: Sequence[Route] = ()) -> Starlette:
        """`others`: routes of other APIs beside ours."""
        app = Starlette(
            routes=[
                Route("/token", self._guard(self.token), methods=["POST"]),
                Route("/keys", self._guard(self.keys), methods=["GET"]),
                Route("/.well-known/openid-configuration", self._guard(self.metadata), methods=["GET"]),
                Route("/.well-known/oauth-authorization-server", self._guard(self.metadata), methods=["GET"]),
                *others,
            ]
        )
        app.router.redirect_slashes = False  # a redirect would send a subject token again
        return app

    async def token(self, request: Request) -> Response:
        """RFC 8693, 2."""
        sender: Sender = request.scope[SENDER]
        peer = sender.peer
        assert peer is not None
        try:
            form = await _form(request)
            asked = exchange.read(form)
            token = await self._service.exchange(peer, asked)
        except SojournError as error:
            EXCHANGES.labels(error.oauth_error).inc()
            self._audit.denied("exchange_denied", peer.uid, pid=peer.process.pid, code=error.code, reason=error.public)
            raise
        EXCHANGES.labels("issued").inc()
        left = int(token.expires_at.timestamp() - self._clock.now().timestamp())
        body = {
            "access_token": token.token,
            "issued_token_type": exchange.TOKEN_TYPE_ACCESS,
            "token_type": "Bearer",
            "expires_in": max(left, 0),
            "scope": " ".join(token.actions),
            "authorization_details": token.claims["authorization_details"],
            "task_id": token.task_id,
        }
        return JSONResponse(body, headers=NO_STORE)

    async def keys(self, request: Request) -> Response:
        """The JWK Set of JWT-SVIDs and of task tokens (RFC 7517)."""
        del request
        keys = [*self._authority.jwt_keys.values(), self._engine.key.public]
        jwks = {"keys": [{**key.jwk, "use": "sig", "alg": "ES256"} for key in keys]}
        return JSONResponse(jwks, headers={"Cache-Control": "max-age=60"})

    async def metadata(self, request: Request) -> Response:
        """RFC 8414 and OpenID Connect Discovery 1.0: what this endpoint really does, and no more."""
        del request
        issuer = self._engine.issuer
        return JSONResponse(
            {
                "issuer": issuer,
                "token_endpoint": f"{issuer}/token",
                "jwks_uri": f"{issuer}/keys",
                "grant_types_supported": [exchange.GRANT_TYPE],
                "response_types_supported": [],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
                "token_endpoint_auth_methods_supported": ["none"],
                "authorization_details_types_supported": sorted(self._engine.types),
                "subject_token_audiences_supported": list(self._service.audiences),
            },
            headers={"Cache-Control": "max-age=60"},
        )

    def _guard(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            try:
                return await handler(request)
            except SojournError as error:
                log.info(
                    "http_refused",
                    path=request.url.path,
                    code=error.code,
                    reason=error.public,
                    detail=error.detail or None,
                )
                return _error(error)
            except Exception:
                log.exception("http_failed", path=request.url.path)
                return JSONResponse(
                    {"error": "server_error", "error_description": "internal error; the log has it"},
                    status_code=500,
                    headers=NO_STORE,
                )

        return guarded


def _error(error: SojournError) -> Response:
    """RFC 6749, 5.2: the registered code, one sentence, and our own stable code."""
    body = {"error": error.oauth_error, "error_description": error.public, "code": error.code}
    if isinstance(error, InvalidToken):
        body["reason"] = error.reason_code
    status = {"invalid_client": 401, "temporarily_unavailable": 503}.get(error.oauth_error, 400)
    if isinstance(error, TooLarge):
        status = 413
    return JSONResponse(body, status_code=status, headers=NO_STORE)


async def _form(request: Request) -> list[tuple[str, str]]:
    """The form of a request, strictly. Raise InvalidInput, or TooLarge."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind.casefold() != FORM:
        raise InvalidInput(f"content type is not {FORM}")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > HTTP_BODY_MAX_BYTES:
            raise TooLarge(f"the request is larger than {HTTP_BODY_MAX_BYTES} bytes")
    try:
        return parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_FIELDS_MAX,
        )
    except ValueError as error:
        raise InvalidInput("the body is not a form") from error
