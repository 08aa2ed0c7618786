"""The HTTP side of a witness: POST /add-checkpoint, and nothing else. Paths are compared byte for byte."""

from typing import Final

import structlog
from starlette.types import Receive, Scope, Send

from sojourn.endpoints.http1.scope import SENDER
from sojourn.errors import SojournError
from sojourn.limits import REFUSALS_LOGGED_PER_SECOND
from sojourn.operating_limits import WITNESS_REQUEST_MAX_BYTES, WITNESS_REQUESTS_PER_SECOND
from sojourn.quota.rate import Rate
from sojourn.tlog.add_checkpoint import PATH
from sojourn.witness.witness import Answer, Witness

log = structlog.get_logger()
_TOO_LARGE: Final = Answer.refusal(413, f"the request has more than {WITNESS_REQUEST_MAX_BYTES} bytes")
_TOO_OFTEN: Final = Answer.refusal(429, "too many requests from there: try again in a second")


class WitnessApp:
    """Reads requests within limits, and says in the log what was refused, a line or a few a second for each network."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._allowance = Rate(WITNESS_REQUESTS_PER_SECOND)
        self._logged = Rate(REFUSALS_LOGGED_PER_SECOND)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sender = scope[SENDER]
        try:
            answer = await self._answer(scope, receive)
        except SojournError as error:
            log.error("witness_failed", reason=error.public, detail=error.detail or None)
            answer = Answer.refusal(500, "the witness cannot keep what it would cosign; its log says why")
        except Exception:
            log.exception("witness_failed", reason="a fault of the witness")
            answer = Answer.refusal(500, "internal error; the witness's log has it")
        if answer.said and answer.status < 500 and self._logged.allow(sender.who):
            log.info("witness_refused", status=answer.status, reason=answer.said, **sender.details)
        headers = [(b"content-type", answer.content_type.encode()), (b"content-length", b"%d" % len(answer.body))]
        headers += [(b"allow", b"POST")] if answer.status == 405 else []
        headers += [(b"retry-after", b"1")] if answer.status == 429 else []
        # What of a body was not read would be taken for the next request.
        headers += [(b"connection", b"close")] if answer.status in {404, 405, 413} else []
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        if scope["raw_path"] != PATH.encode():
            return Answer.refusal(404, f"there is {PATH} here, and nothing else")
        if scope["method"] != "POST":
            return Answer.refusal(405, f"{PATH} is for POST")
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if len(length) > 9 or int(length) > WITNESS_REQUEST_MAX_BYTES:
            return _TOO_LARGE
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return Answer.refusal(400, "the request broke off")
            body += message.get("body", b"")
            if len(body) > WITNESS_REQUEST_MAX_BYTES:
                return _TOO_LARGE
            if not message.get("more_body", False):
                # Counted once it is whole, so that nobody's halves keep their neighbours out.
                return await self._witness.add(bytes(body)) if self._allowance.allow(scope[SENDER].who) else _TOO_OFTEN
