"""Messages between the agent and its key process: JSON objects, read strictly, each behind its length in four bytes.

The agent asks, one question at a time, and the process answers:

    {"id", "do": "open", …}    the first, and once: where the keys are, and what is built (settings.py)
    {"id", "do": "login"}      the second, and once: what was answered to the first is recorded by then
    {"id", "do": "look"}       whether the place of the keys is there
    {"id", "do": "next"}       the number of a key that is not there yet
    {"id", "do": "create", "number"}                      the key of a root is made, unless it is there
    {"id", "do": "make", "number", "made"}                a root by that key; `made`: the answer to "create"
    {"id", "do": "sign", "root", "object", "key", "ttl"}  an intermediate
    {"id", "do": "list", "root", "object", "list"}        a CRL, of what a draft of it names
    {"id", "do": "test", "root", "object", "nonce"}       a signature of a text that is of no use to anybody

    {"id", "ok": {…}}, or {"id", "failed": a code, "said": a sentence, "more": {…}}

DER is base64; `ttl` is in seconds. Where the place wants it, each question but "open" and "look" has "login", a
JWT-SVID of the agent's.
"""

import json
import socket
import struct
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sojourn.jose import strict_json
from sojourn.limits import KEY_MESSAGE_MAX_BYTES

PIN_REFUSED, TOKEN_AWAY, LIMIT, NOT_BUILT = "pin_refused", "token_away", "limit", "not_built"
LENGTH: Final = struct.Struct(">I")
_TEXT_MAX: Final = 4_096
_CREDENTIALS: Final = struct.Struct("3i")


def peer_of(connection: socket.socket) -> tuple[int, int, int]:
    """The pid, uid and gid of who is at the other end of a Unix socket, as the kernel has them."""
    pid, uid, gid = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid, gid


def frame_of(message: Mapping[str, Any]) -> bytes:
    """A message as it is sent. Raise ValueError if it is too long."""
    content = json.dumps(message).encode()
    if len(content) > KEY_MESSAGE_MAX_BYTES:
        raise ValueError(f"a message of {len(content)} bytes")
    return LENGTH.pack(len(content)) + content


def length_of(head: bytes | bytearray) -> int:
    """How long the message behind these four bytes is. Raise ValueError if it is longer than any good one."""
    length: int = LENGTH.unpack(head)[0]
    if length > KEY_MESSAGE_MAX_BYTES:
        raise ValueError(f"a message of {length} bytes")
    return length


def read(content: bytes) -> dict[str, Any]:
    """A message. Raise ValueError if it is no JSON object, or could be read in two ways."""
    try:
        message = strict_json.loads(content.decode())
    except (ValueError, RecursionError):
        raise ValueError("a message that is no JSON") from None
    if not isinstance(message, dict):
        raise ValueError("a message that is no JSON object")  # noqa: TRY004  # it is what was sent that is wrong
    return message


def fields(message: Mapping[str, Any], **kinds: type) -> list[Any]:
    """The values of a message that has these members and no others, in this order. Raise ValueError.

    `bytes` is base64 in the message.
    """
    if message.keys() != kinds.keys():
        raise ValueError("a message with other members")
    return [_value(name, message[name], kind) for name, kind in kinds.items()]


def _value(name: str, value: object, kind: type) -> object:
    if type(value) is not (str if kind is bytes else kind):
        raise ValueError(f"{name} is of another kind")
    if kind is bytes:
        assert isinstance(value, str)
        return b64decode(value, validate=True)
    if isinstance(value, str) and len(value) > _TEXT_MAX:
        raise ValueError(f"{name} is too long")
    return value


def encoded(content: bytes) -> str:
    return b64encode(content).decode()


class Frames:
    """Puts the messages of one side together."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The messages that end in `data`. Raise ValueError if one is none."""
        self._held += data
        while len(self._held) >= LENGTH.size:
            end = LENGTH.size + length_of(self._held[: LENGTH.size])
            if len(self._held) < end:
                return
            content = bytes(self._held[LENGTH.size : end])
            del self._held[:end]
            yield read(content)
