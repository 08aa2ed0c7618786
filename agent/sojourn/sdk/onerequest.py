"""What is asked of a request with content whose token is for it alone.

The digest in such a token is of the content's bytes, and of no header. So a sender who is held to the bytes could have
them read in another way than was meant when the token was asked for: JSON as the name of a form's field, the parts of
a form by another boundary, what is packed as it is. Content that does not itself say what its headers say is refused.
"""

import re
from typing import Final

from sojourn.errors import InvalidInput
from sojourn.sdk.httpstated import URLENCODED, Headers, check_charset, check_encoding, kind_of, values_of
from sojourn.spiffe import strictjson

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
    if kind_of(headers) == URLENCODED and _is_json(content):
        raise InvalidInput("content for one request that is JSON is sent as JSON, and not as a form")
    for said in values_of(headers, "content-type"):
        if _MULTIPART.match(said):
            _check_parts(said, content)


def _is_json(content: bytes) -> bool:
    try:
        document = strictjson.loads(content.decode())
    except ValueError:
        return content.lstrip().startswith((b"{", b"["))
    return isinstance(document, dict | list)


def _check_parts(said: str, content: bytes) -> None:
    """The first line names the boundary: by any other the content would have no part, or others."""
    found = _BOUNDARY.findall(said)
    named = ["".join(each) for each in found]
    if len(named) != 1 or len(_NAMED.findall(said)) != 1 or content.partition(b"\r\n")[0] != b"--" + named[0].encode():
        raise InvalidInput("content in parts for one request begins with the boundary that its type names")
