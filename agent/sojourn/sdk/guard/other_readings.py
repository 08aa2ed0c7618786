"""Reads content as a service might that looks at no type: as JSON, as a form, and in parts.

Beside a parameter that stands in the route's segment each of these must agree with it.
"""

import json
import re
from collections.abc import Collection, Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from sojourn.errors import InvalidInput
from sojourn.jose import strict_json
from sojourn.limits import GUARDED_FIELDS_MAX, NAMES_ALIKE_MAX
from sojourn.sdk.guard.param_places import ABSENT, alike

_BEFORE_JSON: Final = b"\xef\xbb\xbf\xfe\xff\x00 \t\r\n"  # byte order marks, the zeros of UTF-16, spaces
# A name that is text, after the beginning or a separator; in binary content there are few.
_FIELD: Final = re.compile(rb"(?:^|[&;\r\n])([^\x00-\x1f\x7f-\xff&;=]{1,200})=([^&;\r\n]*)")
# Of parts, which some readers end lines of by \n or \r alone.
_PART: Final = re.compile(rb"(?:^|[\r\n])[ \t]*content-disposition[ \t]*:((?:[^\r\n]|\r?\n[ \t])*)", re.IGNORECASE)
_NAME: Final = re.compile(rb"(?<![\w-])name(\*?\d*)\*?\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"?|([^;\s]*))", re.IGNORECASE)
_LINE_ENDS: Final = rb"(?>\r\n|\r|\n)"
_HEAD_ENDS: Final = re.compile(_LINE_ENDS + _LINE_ENDS)
_VALUE_ENDS: Final = re.compile(_LINE_ENDS + rb"--")
_ENCODED: Final = re.compile(
    rb"content-transfer-encoding\s*+:\s*+(?!7bit|8bit|binary)|charset[^\w=]*+=\W*+(?!utf-8|us-ascii)", re.IGNORECASE
)


def read_json(content: bytes) -> object:
    """JSON, strictly. Raise InvalidInput for what is none."""
    try:
        return strict_json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise InvalidInput("content that is compared is JSON, in UTF-8, with each member once") from error


def json_in(content: bytes) -> object:
    """The JSON that content is whatever it calls itself, or ABSENT. Raise InvalidInput for what some reader takes for
    JSON, and another reads otherwise.
    """
    if not content.lstrip(_BEFORE_JSON).startswith((b"{", b"[")):
        return ABSENT
    try:
        return read_json(content)
    except InvalidInput:
        try:
            json.loads(content)
        except ValueError:
            return ABSENT
        except RecursionError:
            pass
        raise


def fields_in(content: bytes, like: Collection[str]) -> Iterator[tuple[str, str]]:
    """The fields of a form, whatever it calls itself, whose names are like one of these.

    Raise InvalidInput for more fields than are looked through.
    """
    for number, found in enumerate(_FIELD.finditer(content)):
        if number == GUARDED_FIELDS_MAX:
            raise InvalidInput(f"content that is compared has at most {GUARDED_FIELDS_MAX} fields")
        if alike(name := unescaped(found[1])) in like:
            yield name, unescaped(found[2])


def parts_in(content: bytes, like: Collection[str]) -> Iterator[tuple[str, str | None]]:
    """The same of content in parts (multipart/*), by whichever boundary; None: a value that not all read the same."""
    alike_found = 0
    for number, part in enumerate(_PART.finditer(content)):
        if number == GUARDED_FIELDS_MAX:
            raise InvalidInput(f"content that is compared has at most {GUARDED_FIELDS_MAX} parts")
        for piece, quoted, token in _NAME.findall(part[1]):
            if piece.strip(b"*"):
                raise InvalidInput("the name of a part that is compared is in one piece")
            name = (quoted or token).replace(b"\\", b"").rpartition(b"'")[2]  # RFC 2231: utf-8''order
            if alike(plain := unquote_to_bytes(name).decode("utf-8", "replace")) in like:
                alike_found += 1
                if alike_found > NAMES_ALIKE_MAX:
                    raise InvalidInput(f"content that is compared has at most {NAMES_ALIKE_MAX} names that are alike")
                yield plain, _value(content, part.end())


def _value(content: bytes, at: int) -> str | None:
    """The value of the part whose header is there, as it stands. None: it is cut short, or encoded in some way."""
    head = _HEAD_ENDS.search(content, at)
    end = _VALUE_ENDS.search(content, head.end()) if head is not None else None
    if head is None or end is None or _ENCODED.search(content):
        return None
    value = content[head.end() : end.start()] if not content.startswith(b"--", head.end()) else b""
    return value.decode("utf-8", "replace")


def unescaped(data: bytes) -> str:
    """A name or a value of a form or a query, as text."""
    return unquote_to_bytes(data.replace(b"+", b" ")).decode("utf-8", "replace")
