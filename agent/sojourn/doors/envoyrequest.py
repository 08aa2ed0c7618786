"""What an Envoy says of a request that is to be authorized, and what its route says that the request is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self
from urllib.parse import unquote_to_bytes, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sojourn._pb.envoy.service.auth.v3 import attribute_context_pb2 as pb
from sojourn.errors import InvalidInput
from sojourn.limits import CERTIFICATE_MAX_BYTES, CERTIFICATES_REMEMBERED

PREFIX: Final = "sojourn."
PARTIAL_BODY: Final = "x-envoy-auth-partial-body"  # Envoy sets it beside each content that it sends
_YES: Final = "true"


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the `context_extensions` of Envoy's route say: for which audience it is, and which action.

    It is the owner of the Envoy who says that, as one who writes a service says it in the service's code.
    """

    audience: str
    action: str  # '': the route is for nobody
    route: str  # which requests the action is, as `GET /tickets/{ticket}`; '': all that Envoy's route matches
    origin: str  # scheme and host as clients write them, for DPoP proofs
    whole_content: bool  # the filter sends us each request's content
    keeps_token: bool  # the service sees the token

    @classmethod
    def read(cls, extensions: Mapping[str, str]) -> Self:
        """Raise InvalidInput for what is missing, and for what is not known: it might be a slip of the pen."""
        said = {name.removeprefix(PREFIX): value for name, value in extensions.items() if name.startswith(PREFIX)}
        audience, action, route = (said.pop(name, "") for name in ("audience", "action", "route"))
        base = said.pop("base_url", "") or audience
        content, keeps = (_flag(said, name) for name in ("content", "keep_token"))
        if said:
            raise InvalidInput(f"context extension {PREFIX + min(said)[:64]!r} is not known")
        if not audience:
            raise InvalidInput(f"the route has no context extension {PREFIX}audience")
        return cls(audience, action, route, _origin(base), content, keeps)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """The request itself. Header names are in lower case; `content` is None if Envoy does not send it."""

    method: str
    target: str  # path and query, as sent
    headers: Sequence[tuple[str, str]]
    content: bytes | None
    certificate: bytes | None  # of the client's TLS connection, DER

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def all_of(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each == name]

    @classmethod
    def read(cls, said: pb.AttributeContext, *, whole_content: bool) -> Self:
        """Raise InvalidInput for what no Envoy says."""
        http = said.request.http
        headers = list(_headers(http))
        if not http.method or not http.path.startswith("/"):
            raise InvalidInput("the request has no method, or no path that begins with a slash")
        if http.body:
            raise InvalidInput("Envoy must send contents as bytes: set pack_as_bytes in with_request_body")
        content = None
        if whole_content:
            content = http.raw_body
            _check_whole(headers, content)
        return cls(http.method, http.path, headers, content, _certificate(said.source.certificate))


def _headers(http: pb.AttributeContext.HttpRequest) -> Iterator[tuple[str, str]]:
    """Pseudo headers apart. Those that Envoy has joined, by a comma, stay so: no token has one."""
    for name, value in http.headers.items():
        if not name.startswith(":"):
            yield name.lower(), value
    for header in http.header_map.headers:
        if not header.key.startswith(":"):
            yield header.key.lower(), header.value or header.raw_value.decode("latin-1")


def _check_whole(headers: Sequence[tuple[str, str]], content: bytes) -> None:
    """Raise InvalidInput if the request has more content than Envoy has sent us."""
    said = dict(headers)
    partial = any(name == PARTIAL_BODY and value != "false" for name, value in headers)
    if partial or said.get("content-length", str(len(content))) != str(len(content)):
        raise InvalidInput("Envoy does not send whole contents: set with_request_body, and no partial messages")
    if not content and "transfer-encoding" in said and PARTIAL_BODY not in said:
        raise InvalidInput("Envoy does not send contents: set with_request_body")


@lru_cache(CERTIFICATES_REMEMBERED)
def _certificate(escaped_pem: str) -> bytes | None:
    """The leaf that the connection was made with, if the listener asks for one and the filter passes it on."""
    if not escaped_pem:
        return None
    if len(escaped_pem) > CERTIFICATE_MAX_BYTES:
        raise InvalidInput("the client's certificate is too large")
    try:
        return x509.load_pem_x509_certificate(unquote_to_bytes(escaped_pem)).public_bytes(Encoding.DER)
    except Exception as error:
        raise InvalidInput("the client's certificate is not PEM with percent escapes") from error


def _flag(said: dict[str, str], name: str) -> bool:
    value = said.pop(name, "")
    if value not in {"", _YES, "false"}:
        raise InvalidInput(f"context extension {PREFIX + name!r} is neither 'true' nor 'false'")
    return value == _YES


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in {"https", "http"} else ""
