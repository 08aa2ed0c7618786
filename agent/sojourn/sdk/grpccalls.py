"""What gRPC calls show of their sender and their request, and how a refusal of one is told."""

import ssl
from collections.abc import Iterable, Mapping
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from sojourn.sdk.answers import Answer
from sojourn.sdk.guard import Guard, HttpRequest
from sojourn.sdk.guards import Verdict
from sojourn.sdk.routes import Action
from sojourn.tasks import bound

METHOD: Final = "POST"  # as gRPC is sent, and as a proof for it says
_STATUS: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_ABOUT: Final = frozenset({"www-authenticate", "dpop-nonce"})


async def judge(guard: Guard, method: str, action: Action | None, raw: bytes | None, context: Any) -> Verdict:
    """Have a call judged. `raw` is its one request, as it came; None: it streams them."""
    metadata = [(key, value) for key, value in context.invocation_metadata() or () if isinstance(value, str)]
    request = HttpRequest(METHOD, method, "", metadata, certificate_of(context))

    async def digest() -> str:
        return bound.of_grpc(method, raw) if raw is not None else ""

    return await guard.check_request(request, lambda: action, digest)


def status_of(refusal: Answer) -> grpc.StatusCode:
    return _STATUS.get(refusal.status, grpc.StatusCode.UNAVAILABLE)


def trailers(refusal: Answer) -> tuple[tuple[str, str], ...]:
    """The challenge, as trailing metadata."""
    return tuple((name.lower(), value) for name, value in refusal.headers() if name.lower() in _ABOUT)


def certificate_of(context: Any) -> bytes | None:
    """The leaf that the connection was made with, DER."""
    found: Mapping[str, Any] = context.auth_context() or {}
    [pem, *_] = [*found.get("x509_pem_cert", ()), None]
    return ssl.PEM_cert_to_DER_cert(pem.decode("ascii")) if pem else None


def said(refusal: Answer) -> str:
    return getattr(refusal, "description", "")


def fields_of(message: object) -> dict[str, object]:
    """The top fields of a request by name, set or not: one that is not set is not what a token says either."""
    if not isinstance(message, Message):
        return {}
    return {each.name: getattr(message, each.name) for each in message.DESCRIPTOR.fields}
