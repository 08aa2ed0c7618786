"""Answers of an agent in which every field has something, for whoever looks at what a command makes of them."""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message
from sojourn.sdk.client.connection import AgentConnection

STRUCT = "google.protobuf.Struct"
NODE = "spiffe://example.org/spire/agent/sojourn/a"
JWT_SVID = f"e30.{base64.urlsafe_b64encode(json.dumps({'exp': 1}).encode()).decode().rstrip('=')}.AA"
# Fields that are read further by whoever gets them, each with a value that can be read.
READABLE: Mapping[str, Any] = {"node_id": NODE, "spiffe_bundle": "{}", "code": 0, "values": "1"}


def fill(message: Message, values: Mapping[str, Any] = READABLE, around: tuple[str, ...] = ()) -> Message:
    """Give every field of a message something, to any depth that does not repeat itself; `values`: those by name."""
    for field in message.DESCRIPTOR.fields:
        kind = field.message_type
        if field.name == "next_page_token" or (kind is not None and kind.full_name in around):
            continue
        value = getattr(message, field.name)
        if kind is not None and (kind.full_name == STRUCT or kind.GetOptions().map_entry):
            continue  # its keys are nobody's names
        if kind is not None:
            fill(value.add() if field.is_repeated else value, values, (*around, message.DESCRIPTOR.full_name))
        elif field.is_repeated:
            value.append(_simple(field, values))
        else:
            setattr(message, field.name, _simple(field, values))
    return message


def _simple(field: Any, values: Mapping[str, Any]) -> Any:
    """A text, a number or a truth; the one of that name if it is of the field's kind."""
    made: Any = 1
    if field.cpp_type == field.CPPTYPE_STRING:
        made = b"a" if field.type == field.TYPE_BYTES else "a"
    given = values.get(field.name, made)
    return given if type(given) is type(made) else made


def answer_all(patch: Callable[[Any, str, Any], None], values: Mapping[str, Any] = READABLE) -> None:
    """Have each call to an agent be answered so in this process. `patch`: as pytest's `monkeypatch.setattr`."""

    async def unary(_self: AgentConnection, _method: str, _request: Message, answer: Any, *_more: Any) -> Any:
        return fill(answer(), values)

    async def stream(_self: AgentConnection, _method: str, _request: Message, answer: Any) -> Any:
        yield fill(answer(), values)

    patch(AgentConnection, "unary", unary)
    patch(AgentConnection, "first", unary)
    patch(AgentConnection, "stream", stream)
