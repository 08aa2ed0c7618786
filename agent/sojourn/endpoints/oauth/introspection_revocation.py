"""Introspection (RFC 7662) and revocation (RFC 7009) over HTTP."""

from collections.abc import Sequence

from prometheus_client import Counter as Metric
from starlette.requests import Request
from starlette.responses import Response

from sojourn.audit.journal import Audit
from sojourn.endpoints.http1.oauth_responses import NO_STORE, Answer, denied, form_of
from sojourn.endpoints.http1.request_queue import Lines
from sojourn.endpoints.http1.scope import SENDER
from sojourn.errors import SojournError
from sojourn.oauth import forms
from sojourn.oauth.client_auth import AUTH_FIELDS, ClientCredentials, Clients, OAuthClient
from sojourn.oauth.introspection import INTROSPECTION_TYP, Introspection
from sojourn.oauth.revocation import TokenRevocation
from sojourn.oauth.token_query import TokenQuery

JWT_ANSWER = f"application/{INTROSPECTION_TYP}"
FIELDS = AUTH_FIELDS | {"token", "token_type_hint"}
INTROSPECTIONS = Metric("sojourn_introspections_total", "Introspections, by result.", ["result"])
REVOCATIONS = Metric("sojourn_revocations_total", "Revocations of tokens by clients, by result.", ["result"])


class TokenState:
    """Answers what has become of a token, and revokes it."""

    def __init__(
        self,
        clients: Clients,
        introspection: Introspection,
        revocation: TokenRevocation,
        lines: Lines,
        audit: Audit,
    ) -> None:
        self._clients = clients
        self._introspection = introspection
        self._revocation = revocation
        self._lines = lines
        self._audit = audit

    async def introspect(self, request: Request) -> Response:
        """RFC 7662, 2; as a JWT for whoever asks for one (RFC 9701, 4). Raise errors of ours."""
        try:
            form = await form_of(request)
            async with self._lines.one(request):
                client, query = await self._asked(request, form)
                answer = self._introspection.introspect(client, query)
        except SojournError as error:
            INTROSPECTIONS.labels(error.oauth_error).inc()
            denied(self._audit, "introspection_denied", request, error)
            raise
        INTROSPECTIONS.labels("active" if answer["active"] else "inactive").inc()
        if _wants_jwt(request.headers.getlist("accept")):
            return Response(self._introspection.signed(client, answer), media_type=JWT_ANSWER, headers=NO_STORE)
        return Answer(dict(answer), headers=NO_STORE)

    async def revoke(self, request: Request) -> Response:
        """RFC 7009, 2: 200 for every token that is not good any more, whatever it was. Raise errors of ours."""
        try:
            form = await form_of(request)
            async with self._lines.one(request):
                client, query = await self._asked(request, form)
                task = await self._revocation.revoke(client, query)
        except SojournError as error:
            REVOCATIONS.labels(error.oauth_error).inc()
            denied(self._audit, "revocation_denied", request, error)
            raise
        REVOCATIONS.labels("revoked" if task is not None else "nothing").inc()
        return Response(status_code=200, headers=NO_STORE)

    async def _asked(self, request: Request, form: list[tuple[str, str]]) -> tuple[OAuthClient, TokenQuery]:
        fields = forms.single(forms.read(form, FIELDS))
        query = TokenQuery.of(fields)
        credentials = ClientCredentials.read(fields, request.headers.get("authorization"))
        return await self._clients.authenticate(request.scope[SENDER], credentials), query


def _wants_jwt(accept: Sequence[str]) -> bool:
    """Whether an Accept header names the JWT answer, and does not rule it out. A wildcard is for JSON."""
    for each in ",".join(accept).split(","):
        kind, _, parameters = each.partition(";")
        if kind.strip().casefold() == JWT_ANSWER:
            weight = parameters.replace(" ", "").casefold().partition("q=")[2].partition(";")[0]
            return weight.strip("0.") != "" or not weight
    return False
