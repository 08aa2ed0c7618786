"""Requests and answers that the endpoints of the token service have in common."""

import json
import math
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sojourn.audit.journal import Audit
from sojourn.endpoints.http1.scope import HELD, SENDER
from sojourn.errors import InvalidInput, InvalidToken, LimitExceeded, SojournError, TooLarge, Unavailable
from sojourn.errors.oauth import AuthorizationPending, Confined, NonceNeeded
from sojourn.errors.people import PersonRefused
from sojourn.limits import HTTP_BODY_MAX_BYTES, HTTP_RETRY_SECONDS
from sojourn.oauth import forms
from sojourn.oauth.client_auth import ClientSender
from sojourn.providers.errors import ProviderUnavailable
from sojourn.quota.usage import Held

FORM = "application/x-www-form-urlencoded"
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_FIELDS_MAX = 64
_DECISION = "sojourn.decision"  # in the scope
_SIZE = "sojourn.size"  # in the scope: bytes of the content that are held
_STATUS = {"invalid_client": 401, "temporarily_unavailable": 503}


class Answer(JSONResponse):
    """JSON, as JSONResponse has it: which makes an encoder for each."""

    def render(self, content: Any) -> bytes:
        return _JSON.encode(content).encode()


def decision_of(request: Request) -> str:
    """The ID of the decision on a request, by which the audit has it. It is made when it is first asked for."""
    if _DECISION not in request.scope:
        request.scope[_DECISION] = uuid.uuid4().hex
    made: str = request.scope[_DECISION]
    return made


def denied(audit: Audit, event: str, request: Request, error: SojournError) -> None:
    """Record it, under the same ID as the answer has."""
    sender: ClientSender = request.scope[SENDER]
    said = {"code": error.code, "reason": error.public, "decision_id": decision_of(request)}
    audit.denied(event, sender.who, **sender.details, **said)


def http_status(kind: type[SojournError]) -> int:
    """With which status the token service answers an error of this class."""
    fixed = 413 if issubclass(kind, TooLarge) else 403 if issubclass(kind, Confined) else 0
    return fixed or _STATUS.get(kind.oauth_error, 400)


def refusal(error: SojournError, decision_id: str, request: Request, realm: str) -> Response:
    """RFC 6749, 5.2: the registered code and one sentence; our own stable code, and by what the audit has it."""
    body: dict[str, Any] = {
        "error": error.oauth_error,
        "error_description": described(error.public),
        "code": error.code,
        "decision_id": decision_id,
    }
    headers = dict(NO_STORE)
    if isinstance(error, InvalidToken):
        body["reason"] = error.reason_code
    if isinstance(error, NonceNeeded):
        headers["DPoP-Nonce"] = error.nonce
    if isinstance(error, AuthorizationPending):
        body |= {"task_id": error.task_id, "interval": error.interval, "expires_in": error.seconds}
        body["approval"] = {"id": error.approval_id, "approvers": list(error.approvers)}
    if isinstance(error, PersonRefused):  # RFC 9470, 3, in the form of a token response
        body |= {"acr_values": " ".join(error.acr_values)} if error.acr_values else {}
        body |= {"max_age": error.max_age} if error.max_age is not None else {}
    status = http_status(type(error))
    if status == 503:
        wanted = error.retry_after if isinstance(error, ProviderUnavailable) else 0
        headers["Retry-After"] = str(max(HTTP_RETRY_SECONDS, math.ceil(wanted)))
    if status == 401:
        # By the scheme that was tried (RFC 6749, 5.2); SVIDs have none that is registered.
        tried = request.headers.get("authorization", "").partition(" ")[0].casefold()
        headers["WWW-Authenticate"] = f'{"Basic" if tried == "basic" else "SPIFFE"} realm="{realm}"'
    return JSONResponse(body, status_code=status, headers=headers)


def described(sentence: str) -> str:
    """A sentence in the characters that an error_description may have (RFC 6749, 5.2)."""
    plain = sentence.replace('"', "'")
    return "".join(each if " " <= each <= "~" and each != "\\" else "?" for each in plain)


async def form_of(request: Request) -> list[tuple[str, str]]:
    """The form of a request, strictly. Raise InvalidInput, or what `content_of` does."""
    kinds = request.headers.getlist("content-type")
    kind, _, parameters = kinds[0].partition(";") if len(kinds) == 1 else ("", "", "")
    if kind.strip().casefold() != FORM:
        raise InvalidInput(f"content type is not {FORM}")
    if parameters.strip().casefold() not in {"", "charset=utf-8", 'charset="utf-8"'}:
        raise InvalidInput("the form is not in UTF-8")
    body = await content_of(request, HTTP_BODY_MAX_BYTES)
    try:
        return forms.decode(body, _FIELDS_MAX)
    except ValueError as error:
        raise InvalidInput("the body is not a form") from error


async def content_of(request: Request, most: int) -> bytearray:
    """The content of a request, of so many bytes at the most, to be read within `holding`. Raise TooLarge, Unavailable
    if its sender has gone, or LimitExceeded if all of his requests hold too much.
    """
    content, more = bytearray(), True
    while more:
        message = await request.receive()
        if message["type"] != "http.request":  # nothing of ours has failed: the log needs no traceback of it
            raise Unavailable("whoever asked went before the request was whole")
        chunk, more = message.get("body", b""), message.get("more_body", False)
        content += chunk
        if len(content) > most:
            raise TooLarge(f"the request is larger than {most} bytes")
        _hold(request, len(chunk))
    return content


@contextmanager
def holding(request: Request) -> Iterator[None]:
    """Within it a request is answered: what is held of its content counts as its sender's, and no longer."""
    try:
        yield
    finally:
        _hold(request, -request.scope.get(_SIZE, 0))


def _hold(request: Request, size: int) -> None:
    """Count so many bytes more, or fewer. Raise LimitExceeded."""
    request.scope[_SIZE] = request.scope.get(_SIZE, 0) + size
    held: Held = request.scope[HELD]
    if not held.hold(request.scope[SENDER].who, size):
        raise LimitExceeded("too much is held of requests that are under way")
