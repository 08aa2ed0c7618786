"""Messages between the agent and the process of an attestor: JSON objects, each behind its length in four bytes."""

import json
import struct
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from typing import Any

from sojourn.limits import HOST_MESSAGE_MAX_BYTES

_LENGTH = struct.Struct(">I")


def frame_of(message: Mapping[str, Any]) -> bytes:
    """A message as it is sent. Dates and times, which TOML has and JSON has not, become text (ISO 8601).

    Raise ValueError if it is too long, and TypeError if something in it is no JSON.
    """
    content = json.dumps(message, default=_text).encode()  # halves of characters are escaped, and stay what they are
    if len(content) > HOST_MESSAGE_MAX_BYTES:
        raise ValueError(f"the message is longer than {HOST_MESSAGE_MAX_BYTES} bytes")
    return _LENGTH.pack(len(content)) + content


def _text(value: object) -> str:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON")


class Frames:
    """Puts together the messages of one side."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The messages that end in `data`. Raise ValueError if one is too long or is no JSON object."""
        self._held += data
        while len(self._held) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._held)
            if length > HOST_MESSAGE_MAX_BYTES:
                raise ValueError(f"a message of {length} bytes")
            end = _LENGTH.size + length
            if len(self._held) < end:
                return
            content = bytes(self._held[_LENGTH.size : end])
            del self._held[:end]
            try:
                message = json.loads(content)
            except (ValueError, RecursionError) as error:
                raise ValueError("a message that is no JSON") from error
            if not isinstance(message, dict):
                raise ValueError("a message that is no JSON object")  # noqa: TRY004  # it is what was sent that is wrong
            yield message
