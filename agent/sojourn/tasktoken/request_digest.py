"""One request, as a digest: what a token that is for one request alone is compared with.

SHA-256, base64url, over JSON whose members are sorted, without spaces, in UTF-8 (as RFC 8785 has it for what is
allowed here). Who asks for the token and who serves the request each make it of what they have.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sojourn.errors import InvalidInput
from sojourn.limits import CLAIMS_NESTED_MAX

_EXACT = 2**53  # whole numbers up to here are the same to every JSON parser


def of_http(method: str, target: str, content: bytes) -> str:
    """An HTTP request: its method, its target as sent (path and query), and its content."""
    return of_json({"content": _sha256(content), "method": method, "target": target})


def of_tool(name: str, arguments: Mapping[str, Any]) -> str:
    """A call of a tool by name, as MCP's `tools/call` has it."""
    return of_json({"arguments": dict(arguments), "tool": name})


def of_grpc(method: str, message: bytes) -> str:
    """A gRPC call: `/package.Service/Method`, and its serialized request."""
    return of_json({"message": _sha256(message), "method": method})


def of_json(value: Mapping[str, Any]) -> str:
    """The digest of any parameters. Raise InvalidInput for what two parsers might read in two ways, as fractions."""
    text = json.dumps(_sorted(value, 0), separators=(",", ":"), ensure_ascii=False)
    try:
        return _sha256(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput("parameters have text that is not Unicode") from error


def _sha256(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _sorted(value: object, depth: int) -> object:
    """The value with the members of its objects by their UTF-16 (RFC 8785, 3.2.3)."""
    if depth > CLAIMS_NESTED_MAX:
        raise InvalidInput(f"parameters are nested more than {CLAIMS_NESTED_MAX} deep")
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise InvalidInput("parameters have a name that is no string")
        return {name: _sorted(value[name], depth + 1) for name in sorted(value, key=_utf16)}
    if isinstance(value, list | tuple):
        return [_sorted(each, depth + 1) for each in value]
    if isinstance(value, int) and abs(value) > _EXACT:
        raise InvalidInput("parameters have a number of more than 53 bits: send it as text")
    if value is not None and not isinstance(value, str | int):
        raise InvalidInput("parameters have a fraction or something that is no JSON: send it as text")
    return value


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")
