"""What is asked of a request with content whose token is for it alone.

The digest in such a token is of the content's bytes, and of no header. So a sender who is held to the bytes could have
them read in another way than was meant when the token was asked for: JSON as the fields of a form, the parts of
a form by another boundary, what is packed as it is. Content that does not itself say what its headers say is refused.
"""

import re
from typing import Final

from sojourn.errors import InvalidInput
from sojourn.sdk.guard.http_params import URLENCODED, Headers, check_charset, check_encoding, kind_of, values_of

_NO_FORM: Final = re.compile(rb"[^!#-;=?-\[\]_a-z~]")  # what is always escaped when a form is made
_MULTIPART: Final = re.compile(r"multipart/", re.IGNORECASE)
_BOUNDARY: Final = re.compile(r";\s*boundary\s*=\s*(?:\"([^\"\\]+)\"|([^\s;\",]+))\s*(?=;|$)", re.IGNORECASE)
_NAMED: Final = re.compile(r";\s*boundary[^=;]*=", re.IGNORECASE)  # also `boundary*` (RFC 2231)


def check_content(headers: Headers, content: bytes) -> None:
    """Raise InvalidInput for content that its headers make something else of than it is by itself."""
    if not content:
        return
    headers = list(headers)
    check_encoding(headers)
    check_charset(headers)
    if kind_of(headers) == URLENCODED and (found := _NO_FORM.search(content)):
        raise InvalidInput(
            f"content for one request is sent as a form, in which its byte 0x{found[0][0]:02x} at {found.start()} is"
            " escaped; what is no form is sent as what it is"
        )
    for said in values_of(headers, "content-type"):
        if _MULTIPART.match(said):
            _check_parts(said, content)


def _check_parts(said: str, content: bytes) -> None:
    """The first line names the boundary: by any other the content would have no part, or others."""
    found = _BOUNDARY.findall(said)
    named = ["".join(each) for each in found]
    if len(named) != 1 or len(_NAMED.findall(said)) != 1 or not _begins(named[0], content):
        raise InvalidInput("content in parts for one request begins with the boundary that its type names")


def _begins(boundary: str, content: bytes) -> bool:
    """Whether content begins with a part behind this boundary, or is a form without parts (RFC 2046, 5.1.1).

    Spaces may follow a boundary, and end none: they would make another of it.
    """
    delimiter = b"--" + boundary.encode()
    if boundary[-1:].isspace() or not content.startswith(delimiter):
        return False
    line, end, rest = content.removeprefix(delimiter).partition(b"\r\n")
    behind = line.rstrip(b" \t")
    return behind == b"--" and not rest if behind else bool(end)
