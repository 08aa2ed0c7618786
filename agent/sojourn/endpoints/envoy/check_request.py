"""What an Envoy says of a request that is to be authorized, and what its route says that the request is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sojourn._pb.envoy.service.auth.v3 import attribute_context_pb2 as pb
from sojourn.errors import InvalidInput
from sojourn.errors.oauth import ContentUnknown
from sojourn.limits import CERTIFICATE_MAX_BYTES, CERTIFICATES_REMEMBERED
from sojourn.sdk.guard.guard import HttpRequest

PREFIX: Final = "sojourn."
_WITHOUT_CONTENT: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
PARTIAL_BODY: Final = "x-envoy-auth-partial-body"  # Envoy sets it beside each content that it sends


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the `context_extensions` of Envoy's route say: for which audience it is, and which action.

    It is the owner of the Envoy who says that, as one who writes a service says it in the service's code.
    """

    audience: str
    action: str  # '': the route is for nobody
    route: str  # which requests the action is, as `GET /tickets/{ticket}`; '': all that Envoy's route matches
    base_url: str  # where clients find the service; '': at the audience's origin
    approved: bool  # somebody must have approved the task
    content: bool  # Envoy sends us each request's content
    keep_token: bool  # the service sees the token
    params: str = ""  # where the task's parameters stand, as `cents = body:/cents, order = path:order_id`
    unchecked: tuple[str, ...] = ()  # those that requests do not have
    person: str = ""  # whether tokens for a person are taken: required | optional | refused; '': only if it asks of one
    person_params: tuple[tuple[str, str], ...] = ()  # parameters that are the person, and by which claim
    acr_values: tuple[str, ...] = ()  # how the person must have logged in: one of these
    max_age: int | None = None  # how many seconds ago at most

    @classmethod
    def read(cls, extensions: Mapping[str, str]) -> Self:
        """Raise InvalidInput for what is missing, and for what is not known: it might be a slip of the pen."""
        said = {name.removeprefix(PREFIX): value for name, value in extensions.items() if name.startswith(PREFIX)}
        made = cls(
            audience=said.pop("audience", ""),
            action=said.pop("action", ""),
            route=said.pop("route", ""),
            base_url=said.pop("base_url", ""),
            approved=_flag(said, "approved"),
            content=_flag(said, "content"),
            keep_token=_flag(said, "keep_token"),
            params=said.pop("params", ""),
            unchecked=tuple(filter(None, map(str.strip, said.pop("unchecked", "").split(",")))),
            person=said.pop("person", ""),
            person_params=_pairs(said, "person_params"),
            acr_values=tuple(said.pop("acr_values", "").split()),
            max_age=_seconds(said, "max_age"),
        )
        if said:
            raise InvalidInput(f"context extension {PREFIX + min(said)[:64]!r} is not known")
        if not made.audience:
            raise InvalidInput(f"the route has no context extension {PREFIX}audience")
        of_action = made.route or made.approved or made.params or made.unchecked or made.of_person
        if of_action and not made.action:
            raise InvalidInput(f"the route has no context extension {PREFIX}action")
        return made

    @property
    def of_person(self) -> bool:
        """Whether it says anything of tokens that are for a person."""
        return bool(self.person or self.person_params or self.acr_values or self.max_age is not None)


def read_request(said: pb.AttributeContext) -> HttpRequest:
    """The request, its target and headers as they go to the service. Raise InvalidInput for what no Envoy says."""
    http = said.request.http
    if not http.method or not http.path.startswith("/"):
        raise InvalidInput("the request has no method, or no path that begins with a slash")
    path, _, query = http.path.partition("?")
    return HttpRequest(http.method, path, query, list(_headers(http)), _certificate(said.source.certificate))


def content_of(said: pb.AttributeContext, ruling: Ruling) -> bytes:
    """The request's whole content. Raise InvalidInput unless Envoy has surely sent it."""
    http = said.request.http
    if not ruling.content:
        raise ContentUnknown(
            "the content is not known here: set with_request_body, and sojourn.content; or, where it names nothing that"
            " stands in the path, sojourn.params: NAME = path:NAME"
        )
    if http.body:
        raise InvalidInput("Envoy must send contents as bytes: set pack_as_bytes in with_request_body")
    headers = list(_headers(http))
    _check_whole(headers, http.raw_body)
    told = http.raw_body or "content-length" in {name for name, _ in headers}
    if not told and http.method not in _WITHOUT_CONTENT and not http.protocol.startswith("HTTP/1."):
        raise InvalidInput("nobody says that the request has no content: it needs a content-length of 0")
    return http.raw_body


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
    # A header about content that Envoy has not sent is not believed: a client may have written it.
    if not content and "transfer-encoding" in said:
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


def _pairs(said: dict[str, str], name: str) -> tuple[tuple[str, str], ...]:
    """What is written as `customer = sub, tenant = iss`."""
    pairs: list[tuple[str, str]] = []
    for each in filter(None, map(str.strip, said.pop(name, "").split(","))):
        left, equals, right = map(str.strip, each.partition("="))
        if not left or not equals or not right or left in dict(pairs):
            raise InvalidInput(f"context extension {PREFIX + name!r} is not like 'customer = sub'")
        pairs.append((left, right))
    return tuple(pairs)


def _seconds(said: dict[str, str], name: str) -> int | None:
    value = said.pop(name, "")
    if value and not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise InvalidInput(f"context extension {PREFIX + name!r} is not a number of seconds")
    return int(value) if value else None


def _flag(said: dict[str, str], name: str) -> bool:
    value = said.pop(name, "")
    if value not in {"", "true", "false"}:
        raise InvalidInput(f"context extension {PREFIX + name!r} is neither 'true' nor 'false'")
    return value == "true"
