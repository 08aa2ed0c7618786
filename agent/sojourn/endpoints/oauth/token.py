"""The token endpoint (RFC 6749, 3.2)."""

import structlog
from prometheus_client import Counter as Metric
from starlette.requests import Request
from starlette.responses import Response

from sojourn.audit.journal import Audit
from sojourn.endpoints.http1.oauth_responses import NO_STORE, Answer, denied, form_of
from sojourn.endpoints.http1.request_queue import Lines
from sojourn.endpoints.http1.scope import SENDER
from sojourn.errors import SojournError
from sojourn.oauth import token_request
from sojourn.oauth.client_auth import ClientCredentials
from sojourn.oauth.issued_tokens import IssuedToken
from sojourn.oauth.token_grants import TokenGrants
from sojourn.oauth.token_request import TokenRequest
from sojourn.runtime.clock import Clock

log = structlog.get_logger()
REQUESTS = Metric("sojourn_token_requests_total", "Requests to the token endpoint, by result.", ["result"])
ISSUED = REQUESTS.labels("issued")


class TokenRequests:
    """Answers requests for tokens. Those for a provider outside wait in a line of their own: it may be slow."""

    def __init__(self, granting: TokenGrants, lines: Lines, audit: Audit, clock: Clock) -> None:
        self._granting = granting
        self._lines = lines
        self._outside: dict[str, Lines] = {}  # by provider; there are as many as the configuration has
        self._audit = audit
        self._clock = clock

    async def answer(self, request: Request) -> Response:
        """Give a token. Raise errors of ours; the record of a refusal has the same `decision_id` as its answer."""
        try:
            asked = token_request.read(await form_of(request), self._granting.provider_of)
            async with self._line(asked).one(request):
                headers = request.headers
                credentials = ClientCredentials.read(
                    asked.fields, headers.get("authorization"), headers.getlist("dpop")
                )
                given = await self._granting.grant(request.scope[SENDER], credentials, asked)
        except SojournError as error:
            REQUESTS.labels(error.oauth_error).inc()
            denied(self._audit, "exchange_denied", request, error)
            raise
        ISSUED.inc()
        return Answer(self._body(asked, given), headers=NO_STORE)

    def _line(self, asked: TokenRequest) -> Lines:
        provider = self._granting.provider_of(asked.target, asked.task_id)
        return self._outside.setdefault(provider, Lines()) if provider else self._lines

    def _body(self, asked: TokenRequest, given: IssuedToken) -> dict[str, object]:
        left = int(given.expires_at.timestamp() - self._clock.now().timestamp())
        body: dict[str, object] = {
            "access_token": given.token,
            "token_type": given.token_type,
            "expires_in": max(left, 0),
            "scope": " ".join(given.actions),
            "authorization_details": [given.details],
            "task_id": given.task_id,
        }
        if asked.grant_type == token_request.GRANT_TYPE or given.provider:
            body["issued_token_type"] = given.issued_type
        if given.provider:
            body |= {"provider": given.provider, "recall": given.recall}
        return body
