"""What gRPC calls show of their sender, their action and their request, and how a refusal of one is told."""

import ssl
from collections.abc import Iterable, Mapping, MutableMapping, MutableSequence, Sequence, Sized
from dataclasses import replace
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Value

from sojourn.errors import InvalidInput
from sojourn.errors.oauth import ParamNotBound
from sojourn.limits import GUARDED_MEMBERS_MAX
from sojourn.sdk.guard.challenges import GuardAnswer
from sojourn.sdk.guard.guard import HttpRequest
from sojourn.sdk.guard.param_places import ABSENT, FIELD, ParamPlace, placed
from sojourn.sdk.guard.routes import Action, Route
from sojourn.tasktoken import request_digest

METHOD: Final = "POST"  # as gRPC is sent, and as a proof for it says
_STATUS: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_ABOUT: Final = frozenset({"www-authenticate", "dpop-nonce", "retry-after"})


ActionsOfMethods = Mapping[str, str] | Mapping[str, Action] | Mapping[str, str | Action]


class GuardedMethods:
    """Which action a method is, by its full name."""

    def __init__(self, actions: ActionsOfMethods, open_methods: Iterable[str]) -> None:
        named = {method: Action(each) if isinstance(each, str) else each for method, each in actions.items()}
        self.actions = {method: replace(each, params=placed(each.params, {FIELD})) for method, each in named.items()}
        self.open = frozenset(open_methods) - set(actions)
        for method in {*self.actions, *self.open}:
            if not method.startswith("/") or method.count("/") != 2:
                raise InvalidInput(f"method {method[:200]!r} is not like /package.Service/Method")

    @property
    def routes(self) -> list[Route]:
        """What is known before any call: the methods whose messages are those of generated code."""
        named = {method: fields_at(method) for method in self.actions}
        return [Route(each, self.actions[each], found, FIELD) for each, found in named.items() if found is not None]


def request_of(method: str, context: Any) -> HttpRequest:
    """A call as a request by HTTP, which it is."""
    metadata = [(key, value) for key, value in context.invocation_metadata() or () if isinstance(value, str)]
    return HttpRequest(METHOD, method, "", metadata, certificate_of(context))


def digest_of(method: str, raw: bytes | None) -> str:
    """The digest of the one request of a call, as it came. `raw` None: the call streams requests, and has none."""
    return request_digest.of_grpc(method, raw) if raw is not None else ""


def status_of(refusal: GuardAnswer) -> grpc.StatusCode:
    return _STATUS.get(refusal.status, grpc.StatusCode.UNAVAILABLE)


def trailers(refusal: GuardAnswer) -> tuple[tuple[str, str], ...]:
    """The challenge, as trailing metadata."""
    return tuple((name.lower(), value) for name, value in refusal.headers() if name.lower() in _ABOUT)


def certificate_of(context: Any) -> bytes | None:
    """The leaf that the connection was made with, DER."""
    found: Mapping[str, Sequence[bytes]] = context.auth_context() or {}
    chain = found.get("x509_pem_cert") or ()
    return ssl.PEM_cert_to_DER_cert(chain[0].decode("ascii")) if chain else None


def said(refusal: GuardAnswer) -> str:
    return getattr(refusal, "description", "")


def fields_at(method: str) -> frozenset[str] | None:
    """The fields of a method's request, by what generated code has told of it; None if nothing was told."""
    try:
        found = descriptor_pool.Default().FindMethodByName(method[1:].replace("/", "."))
    except KeyError:
        return None
    return frozenset(each.name for each in found.input_type.fields)


class MessageFields:
    """The request's message as a Source (see `comparing`). What its type has as a field is what the service reads."""

    has_content = False

    def __init__(self, message: object) -> None:
        self._message = message

    def at(self, place: ParamPlace) -> Sequence[object]:
        """See Source."""
        return _found(self._message, place.name.split("."))

    def times(self, place: ParamPlace) -> int:
        """See Source."""
        return len(_found(self._message, place.name.split(".")))

    def named(self, name: str) -> Sequence[object]:
        """See Source. A field that is not set is what its reader finds in it."""
        has = isinstance(self._message, Message) and name in self._message.DESCRIPTOR.fields_by_name
        return _found(self._message, [name]) if has else ()

    def likely(self, name: str) -> ParamPlace:
        """See Source."""
        return ParamPlace(FIELD, name)


def _found(message: object, names: Sequence[str]) -> list[object]:
    """What stands at a path: of a field that is repeated, or a map, all of its elements, and ABSENT if it has none.

    Raise ParamNotBound for more elements than are looked through.
    """
    if not names:
        return _listed(message)
    value = _field(message, names[0])
    if not isinstance(value, MutableSequence | MutableMapping):
        return _found(value, names[1:])
    _check_number(value)
    elements = value.values() if isinstance(value, MutableMapping) else value
    found = [found for each in elements for found in _found(each, names[1:])] or [ABSENT]
    _check_number(found)
    return found


def _check_number(elements: Sized) -> None:
    if len(elements) > GUARDED_MEMBERS_MAX:
        raise ParamNotBound(f"a field that is compared has at most {GUARDED_MEMBERS_MAX} elements")


def _listed(value: object) -> list[object]:
    """A value, or those of the list that it is (google.protobuf.Value and ListValue)."""
    if isinstance(value, Value) and value.WhichOneof("kind") == "list_value":
        value = value.list_value
    if not isinstance(value, ListValue) or not value.values:
        return [value]
    _check_number(value.values)
    return [found for each in value.values for found in _listed(each)]


def _field(message: object, name: str) -> object:
    """A field's value. ABSENT where there is none, or where whoever reads it can tell that it was not set."""
    if not isinstance(message, Message):
        return ABSENT
    found = message.DESCRIPTOR.fields_by_name.get(name)
    if found is None or (found.has_presence and not message.HasField(name)):
        return ABSENT
    return getattr(message, name)
