"""May a request pass that an Envoy asks about? The same answer as a service with our middleware would give."""

from collections.abc import Mapping

from sojourn.clock import Clock
from sojourn.doors.envoyrequest import HttpRequest, Ruling
from sojourn.errors import InvalidToken, TaskOver
from sojourn.sdk.asgi import Refusal
from sojourn.sdk.routes import action_finder
from sojourn.spiffe.jose import VerifiedClaims
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.service import TASK, TokenService
from sojourn.tasks.tokens import TaskToken, read_vouched


class Judge:
    """Judges by the token service, and counts each request that passes as a use of its task."""

    def __init__(self, service: TokenService, engine: TaskEngine, clock: Clock) -> None:
        self._service = service
        self._engine = engine
        self._clock = clock

    async def judge(self, ruling: Ruling, request: HttpRequest) -> TaskToken | Refusal:
        try:
            unverified_token = _bearer(request)
            if unverified_token is None:
                return Refusal(401, "", "a task token is required")
            verdict = self._service.validate(unverified_token, ruling.audience, kind=TASK)
            if not verdict.valid:
                return Refusal(401, "invalid_token", verdict.reason)
            claims = VerifiedClaims(verdict.claims or {})
            token = read_vouched(unverified_token, claims, ruling.audience, self._clock.now())
            return self._allow(token, ruling, request)
        except (InvalidToken, TaskOver) as error:
            return Refusal(401, "invalid_token", error.public)

    def _allow(self, token: TaskToken, ruling: Ruling, request: HttpRequest) -> TaskToken | Refusal:
        named = _named_by(ruling, request)
        if not ruling.action or named is None:
            return Refusal(403, "insufficient_scope", "no action is defined for this method and path")
        if ruling.action not in token.actions:
            return Refusal(403, "insufficient_scope", f"token does not allow the action {ruling.action!r}")
        for name, value in token.params.items():
            if name in named and named[name] != str(value):
                return Refusal(403, "insufficient_scope", f"token is for another {name!r}")
        task = self._engine.tasks.find(token.task_id)
        if task is not None:
            self._engine.report_use(task, ruling.audience, ruling.action)
        return token


def _named_by(ruling: Ruling, request: HttpRequest) -> Mapping[str, str] | None:
    """What the route names in the path; None if the request is not of the route."""
    if not ruling.route:
        return {}
    found = action_finder({ruling.route: ruling.action})(request.method, request.path)
    if found is None:
        return None
    pattern = ruling.route.partition(" ")[2].split("/")
    segments = request.path.split("/")
    return {each[1:-1]: segment for each, segment in zip(pattern, segments, strict=True) if each.startswith("{")}


def _bearer(request: HttpRequest) -> str | None:
    values = request.all_of("authorization")
    if len(values) > 1:
        raise InvalidToken("request has more than one Authorization header", reason_code="malformed")
    if not values:
        return None
    scheme, _, token = values[0].partition(" ")
    if scheme.lower() != "bearer":
        return None
    token = token.strip(" ")
    if not token or " " in token:
        raise InvalidToken("Authorization header has no single token", reason_code="malformed")
    return token
