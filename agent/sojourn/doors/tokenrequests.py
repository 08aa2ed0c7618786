"""The token endpoint (RFC 6749, 3.2)."""

import structlog
from prometheus_client import Counter as Metric
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sojourn.clock import Clock
from sojourn.doors.answers import NO_STORE, decision_of, form_of
from sojourn.doors.httpprotocol import SENDER
from sojourn.errors import SojournError
from sojourn.oautherrors import InvalidProof
from sojourn.oversight.audit import Audit
from sojourn.tasks import exchange
from sojourn.tasks.clients import Credentials, Sender
from sojourn.tasks.exchange import TokenRequest
from sojourn.tasks.granting import Granting
from sojourn.tasks.proving import Proving
from sojourn.tasks.tokens import Binding, TaskToken

log = structlog.get_logger()
REQUESTS = Metric("sojourn_token_requests_total", "Requests to the token endpoint, by result.", ["result"])


class TokenRequests:
    """Answers requests for tokens."""

    def __init__(self, granting: Granting, proving: Proving, audit: Audit, clock: Clock) -> None:
        self._granting = granting
        self._proving = proving
        self._audit = audit
        self._clock = clock

    async def answer(self, request: Request) -> Response:
        """Give a token. Raise errors of ours; the record of a refusal has the same `decision_id` as its answer."""
        sender: Sender = request.scope[SENDER]
        try:
            asked = exchange.read(await form_of(request))
            credentials = Credentials.read(asked.fields, request.headers.get("authorization"))
            proof = self._proof(request, sender)
            token = await self._granting.grant(sender, credentials, asked, proof)
        except SojournError as error:
            REQUESTS.labels(error.oauth_error).inc()
            self._denied(sender, error, decision_of(request))
            raise
        REQUESTS.labels("issued").inc()
        return JSONResponse(self._body(asked, token), headers=NO_STORE)

    def _proof(self, request: Request, sender: Sender) -> Binding | None:
        """The key of the request's DPoP proof (RFC 9449, 5), if it has one; the proof is used up."""
        proofs = request.headers.getlist("dpop")
        if not proofs:
            return None
        if len(proofs) > 1:
            raise InvalidProof("the request has more than one DPoP header", reason_code="several_proofs")
        return self._proving.by_proof(proofs[0], at_socket=sender.peer is not None)

    def _denied(self, sender: Sender, error: SojournError, decision_id: str) -> None:
        fields = {"code": error.code, "reason": error.public, "decision_id": decision_id}
        if sender.peer is not None:
            self._audit.denied("exchange_denied", sender.peer.uid, pid=sender.peer.process.pid, **fields)
        elif sender.certificate is not None:
            self._audit.denied(
                "exchange_denied", str(sender.certificate.spiffe_id), address=sender.address or None, **fields
            )
        else:  # nobody that we know: by the address, so that one of them cannot flood the journal
            self._audit.denied("exchange_denied", sender.address, address=sender.address or None, **fields)

    def _body(self, asked: TokenRequest, token: TaskToken) -> dict[str, object]:
        left = int(token.expires_at.timestamp() - self._clock.now().timestamp())
        body = {
            "access_token": token.token,
            "token_type": token.token_type,
            "expires_in": max(left, 0),
            "scope": " ".join(token.actions),
            "authorization_details": token.claims["authorization_details"],
            "task_id": token.task_id,
        }
        if asked.grant_type == exchange.GRANT_TYPE:
            body["issued_token_type"] = asked.issued_type
        return body
