"""Claims of a token as a protobuf Struct, which cannot hold all that JSON can."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value

from sojourn.errors import InvalidToken
from sojourn.limits import CLAIMS_NESTED_MAX


def put(target: Struct, claims: Mapping[str, Any]) -> None:
    """Put `claims` into `target`; numbers become doubles. Raise InvalidToken if they do not go into it."""
    _check_depth(claims, CLAIMS_NESTED_MAX)
    try:
        target.update(claims)
    except (ValueError, OverflowError) as error:  # lone surrogates, numbers that no double holds
        raise InvalidToken(
            "token has a claim that cannot be told", reason_code="malformed", detail=str(error)[:200]
        ) from error


def read(source: Struct) -> dict[str, Any]:
    """What is in a Struct, as JSON has it; its numbers are doubles."""
    return {name: _value(each) for name, each in source.fields.items()}


def _value(message: Value) -> Any:
    match message.WhichOneof("kind"):
        case "struct_value":
            return read(message.struct_value)
        case "list_value":
            return [_value(each) for each in message.list_value.values]
        case "null_value" | None:
            return None
        case kind:
            return getattr(message, kind)


def _check_depth(value: object, left: int) -> None:
    if not isinstance(value, dict | list):
        return
    if not left:
        raise InvalidToken(f"token's claims are nested deeper than {CLAIMS_NESTED_MAX}", reason_code="malformed")
    for each in value.values() if isinstance(value, dict) else value:
        _check_depth(each, left - 1)
