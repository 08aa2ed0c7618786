"""What a service could read in content, whatever its type says: each reading agrees with the segment, or is refused.

The readers are real: what Starlette and Werkzeug find in a content is held against what the guard says of it.
"""

import contextlib
import io
import json
from typing import Any

import pytest
from fakes.keyverifier import verified
from fakes.task_feed import signing_key, token
from sojourn.errors import InvalidInput, SojournError, TooLarge
from sojourn.limits import GUARDED_FIELDS_MAX, NAMES_ALIKE_MAX
from sojourn.sdk.guard.http_params import read_stated
from sojourn.sdk.guard.other_readings import fields_in, json_in, parts_in
from sojourn.sdk.guard.param_check import compare, in_python
from sojourn.sdk.guard.param_places import ABSENT, path
from sojourn.sdk.guard.routes import Action

pytest.importorskip("starlette")
pytest.importorskip("werkzeug")
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request as WerkzeugRequest

KEY = signing_key()
OURS, OTHER = "O-1", "O-2"
NOTE = Action("note:create", segments={"order": OURS})
FORM, PARTS, JSON = "application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "application/json"


def part(name: str, value: str = OTHER, *, disposition: str = "form-data; name=", headers: str = "") -> bytes:
    return f"--b\r\n{headers}Content-Disposition: {disposition}{name}\r\n\r\n{value}\r\n--b--\r\n".encode()


async def said(kind: str, content: bytes, action: Action = NOTE) -> str:
    """What the guard says of a note on order O-1 with this content: '' if it goes on, else a code."""

    async def whole() -> bytes:
        return content

    made = verified(KEY, token(KEY, actions=(NOTE.name,), params={"order": OURS}))
    headers = [("content-type", kind)] if kind else []
    try:
        compare(made, action, await read_stated("", headers, action, ["order"], whole), in_python)
    except SojournError as error:
        return error.code
    return ""


async def read_by_services(kind: str, content: bytes) -> set[str]:
    """The orders that services find in this content: by JSON, whatever its type, and as the fields of a form."""

    async def receive() -> Any:
        return {"type": "http.request", "body": content}

    found: list[Any] = []
    headers = [(b"content-type", kind.encode())] if kind else []
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    with contextlib.suppress(HTTPException, MultiPartException):
        async with Request(scope, receive).form() as form:
            found.append(dict(form))
    with contextlib.suppress(ValueError):
        found.append(await Request(scope, receive).json())
    environ = EnvironBuilder(method="POST", input_stream=io.BytesIO(content), content_type=kind or None).get_environ()
    with WerkzeugRequest({**environ, "CONTENT_LENGTH": str(len(content))}) as flask:
        found += [flask.get_json(force=True, silent=True), flask.values.to_dict(), flask.files.to_dict()]
    return {str(each["order"]) for each in found if isinstance(each, dict) and "order" in each}


READ_OTHERWISE = [
    ("text/plain", b'{"order": "O-2"}'),
    ("application/octet-stream", b'{"order": "O-2"}'),
    ("", b'{"order": "O-2"}'),
    (FORM, b'{"order": "O-2"}'),
    (PARTS, b'{"order": "O-2"}'),
    ("text/plain", b' \r\n {"order": "O-2"}'),
    ("text/plain", b'{"order": "O-1", "order": "O-2"}'),
    ("text/plain", '{"order": "O-2"}'.encode("utf-16")),
    ("text/plain", '{"order": "O-2"}'.encode("utf-32-le")),
    ("text/plain", b'{"order": "O-2", "x": NaN}'),
    (FORM, b"order=O-2"),
    (FORM, b"x=1&%6frder=O-2"),
    (PARTS, part('"order"')),
    (PARTS, part("order")),
    (PARTS, part('"order"', disposition='form-data; filename="x"; name=')),
    (PARTS, part("utf-8''order", disposition="form-data; name*=")),
    (PARTS, part('"or"; name*1="der"', disposition="form-data; name*0=")),
    (PARTS, part('"order"', headers="Content-Type: text/plain\r\n")),
    (PARTS, part('"order"', disposition="form-data;\r\n name=")),
    (PARTS, part('"x"', "O-1") + part('"order"')),
    (PARTS, part('"order"').replace(b"\r\n", b"\n")),
    (PARTS, part('"order"').replace(b"Content-Disposition", b"content-DISPOSITION")),
    (PARTS.replace("form-data", "FORM-Data"), part('"order"')),
    (PARTS, part('"or\\der"')),
]


class TestReaders:
    @pytest.mark.parametrize(("kind", "content"), READ_OTHERWISE)
    async def test_another_order(self, kind: str, content: bytes) -> None:
        """Content in which a service could read another order than the segment's is refused."""
        assert "" != await said(kind, content)

    async def test_they_are_what_services_read(self) -> None:
        """All but a file, and parts behind the end, are what frameworks do read: the other order, as JSON or a field."""
        read = [OTHER in await read_by_services(kind, content) for kind, content in READ_OTHERWISE]
        assert [False] * 2 == [each for each in read if not each]

    @pytest.mark.parametrize(
        ("kind", "content"),
        [
            ("text/plain", b'{"order": "O-1"}'),
            ("text/plain", b"order=O-1"),
            (FORM, b"order=O-1&text=x"),
            (PARTS, part('"order"', OURS)),
            (
                PARTS,
                part(
                    '"order"',
                    OURS,
                    headers="Content-Transfer-Encoding: 8bit\r\nContent-Type: text/plain; charset=UTF-8\r\n",
                ),
            ),
            (PARTS, part('"text"; filename="order"', '{"order": "O-2"}')),
            (PARTS, part('"text"', "name=order&order=O-2")),
            ("text/plain", b"A note on order O-2: it is fine."),
            ("text/rtf", rb"{\rtf1 order O-2}"),
            ("text/plain", b"[a note]"),
            ("image/png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 500),
            (JSON, b'{"text": "https://shop.example/?a=1&order=O-2"}'),
            ("", b""),
        ],
    )
    async def test_what_goes_on(self, kind: str, content: bytes) -> None:
        """Content that names no order, or this one, goes on."""
        assert "" == await said(kind, content)
        assert await read_by_services(kind, content) <= {OURS}

    async def test_a_route_that_says_path(self) -> None:
        """Where a route says that the segment alone is the order, the content is not read."""
        action = Action(NOTE.name, params={"order": path("order")}, segments=NOTE.segments)
        assert "" == await said("text/plain", b'{"order": "O-2"}', action)


class TestParts:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (part('"order"', ""), ""),
            (part('"order"', " O-1 "), " O-1 "),
            (part('"order"', "O-1\r\nx"), "O-1\r\nx"),
            (part('"order"', "\u00f6"), "\u00f6"),
            (part('"order"')[:-9], None),
            (part('"order"').partition(b"\r\n\r\n")[0], None),
            (part('"order"', OURS, headers="Content-Transfer-Encoding: base64\r\n"), None),
            (part('"order"', OURS, headers='Content-Type: text/plain; charset="utf-16"\r\n'), None),
            (part('"order"', OURS, headers='Content-Type: text/plain; charset="utf-8"\r\n'), OURS),
        ],
    )
    def test_values(self, content: bytes, expected: str | None) -> None:
        """A part's value is what stands in it; of one that is cut short or encoded none is agreed on."""
        assert [("order", expected)] == list(parts_in(content, {"order"}))

    def test_a_name_in_pieces(self) -> None:
        """A name in pieces (RFC 2231) is refused: some put them together."""
        with pytest.raises(InvalidInput, match="one piece"):
            list(parts_in(part('"or"', disposition="form-data; name*0="), {"order"}))

    def test_much(self) -> None:
        """More parts, names alike or fields than are looked through are refused."""
        for content, look in (
            (part('"x"') * (GUARDED_FIELDS_MAX + 1), parts_in),
            (part('"order"') * (NAMES_ALIKE_MAX + 1), parts_in),
            (b"x=1&" * (GUARDED_FIELDS_MAX + 1), fields_in),
        ):
            with pytest.raises(InvalidInput, match="at most"):
                list(look(content, {"order"}))


def test_json_too_deep() -> None:
    """JSON that is nested more deeply than is read is refused, and what is no JSON to any reader is none."""
    for content in (b"[" * 100_000 + b"]" * 100_000, json.dumps({"a": 1}).encode("utf-16")):
        with pytest.raises(InvalidInput):
            json_in(content)
    assert ABSENT is json_in(b"{,}")
    assert ABSENT is json_in(b'"order"')


async def test_what_is_too_long() -> None:
    """Content that is too long to be looked through is refused, with what a route writes that takes it, and it goes on there."""

    async def whole() -> bytes:
        raise TooLarge("content is at most so long")

    with pytest.raises(TooLarge, match=r"names no 'order', says so: params={'order': path\(\)}"):
        await read_stated("", [("content-type", "image/png")], NOTE, ["order"], whole)
    action = Action(NOTE.name, params={"order": path("order")}, segments=NOTE.segments)
    await read_stated("", [("content-type", "image/png")], action, ["order"], whole)
