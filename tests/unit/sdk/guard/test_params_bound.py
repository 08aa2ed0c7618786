"""What a task is bound to is compared with the request: where a parameter stands, and every way to say it twice."""

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fakes.keyverifier import KeyVerifier
from fakes.task_feed import signing_key, token
from sojourn.errors import InvalidInput
from sojourn.limits import GUARDED_CONTENT_MAX_BYTES, GUARDED_FIELDS_MAX, JSON_DEPTH, NAMES_ALIKE_MAX
from sojourn.sdk.guard.http_params import HttpStated
from sojourn.sdk.guard.param_places import body, field, form, header, path, query
from sojourn.sdk.guard.routes import Action, action_finder
from sojourn.sdk.guard.tools import guarded
from sojourn.sdk.integrations.asgi import TaskTokenMiddleware

KEY = signing_key()
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
ACTIONS = {
    "POST /orders/{order}/refunds": Action("refund:create", params={"cents": body()}),
    "PUT /orders/{order}/refunds": Action("refund:create", params={"cents": body("/refund/0/a~1b~0c")}),
    "POST /orders/{order}/forms": Action("refund:create", params={"cents": form()}),
    "GET /orders/{order_id}": "order:read",
    "GET /v2/orders/{order_id}": Action("order:read", params={"order": path("order_id")}, unchecked=("cents",)),
    "GET /orders": Action("order:read", params={"order": query()}, unchecked=("cents",)),
    "GET /header": Action("order:read", params={"order": header("X-Order")}, unchecked=("cents",)),
    "POST /orders/{order}/notes": Action("note:create", unchecked=("cents",)),
    "POST /orders/{order}/files": Action("note:create", params={"order": path()}, unchecked=("cents",)),
    "POST /amounts": "refund:create",
}
NAMED = ("refund:create", "order:read", "note:create")
PARAMS: dict[str, str | int | bool] = {"order": "O-1001", "cents": 2500}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the content that it has got."""
    content, more = b"", True
    while more:
        message = await receive()
        content, more = content + message.get("body", b""), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": content})


def guarded_app() -> TaskTokenMiddleware:
    return TaskTokenMiddleware(app, verifier=KeyVerifier(KEY), actions=ACTIONS)  # type: ignore[arg-type]  # all that is asked of it


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded_app()), base_url="http://shop") as opened:
        yield opened


async def ask(
    http: httpx.AsyncClient,
    method: str,
    target: str,
    content: Any = None,
    kind: str | None = JSON,
    *headers: tuple[str, str],
    params: dict[str, str | int | bool] | None = None,
    bind: dict[str, tuple[str, ...]] | None = None,
) -> tuple[int, str]:
    """Status and error, or what the application has got of the content."""
    text = token(KEY, actions=NAMED, params=PARAMS if params is None else params, bind=bind)
    lines = [("authorization", f"Bearer {text}"), *headers]
    if content is not None and kind is not None:
        lines.append(("content-type", kind))
    answer = await http.request(method, target, content=content, headers=lines)
    return answer.status_code, answer.text if answer.status_code == 200 else answer.json()["error"]


async def refund(http: httpx.AsyncClient, content: Any, kind: str | None = JSON, *headers: tuple[str, str]) -> Any:
    return await ask(http, "POST", "/orders/O-1001/refunds", content, kind, *headers)


WRONG, UNBOUND, BAD = (403, "insufficient_scope"), (403, "unbound_parameter"), (400, "invalid_request")


class TestJson:
    async def test_the_amount(self, http: httpx.AsyncClient) -> None:
        """A refund of what the task is for passes, and the application gets the content as it was compared."""
        content = b'{"note": "x",  "cents": 2500}'
        assert (200, content.decode()) == await refund(http, content)
        assert (200, content.decode()) == await refund(http, content, "application/vnd.shop+json; charset=UTF-8")
        assert (200, content.decode()) == await refund(http, content, None)

    @pytest.mark.parametrize(
        "said",
        [
            *("9900", "2500.0", '"2500"', "true", "2.5e3", "25e2", "-2500", "null", "[2500]", '{"cents": 2500}'),
            *("1" + "0" * 400, "1" + "0" * 4000, "2501"),
        ],
        ids=lambda said: said[:20],
    )
    async def test_another_amount(self, http: httpx.AsyncClient, said: str) -> None:
        """Another amount, and the same as another type than a whole number, is refused."""
        assert WRONG == await refund(http, f'{{"cents": {said}}}'.encode())

    @pytest.mark.parametrize("said", ["-0", "1" + "0" * 5000, "02500", "0x9c4", "2500.", "+2500", "NaN", "Infinity"])
    async def test_no_number(self, http: httpx.AsyncClient, said: str) -> None:
        """What readers of JSON read in different ways is no request."""
        assert BAD == await refund(http, f'{{"cents": {said}}}'.encode())

    async def test_minus_zero(self, http: httpx.AsyncClient) -> None:
        """A task for nothing is not for minus nothing."""
        given: dict[str, str | int | bool] = {**PARAMS, "cents": 0}
        for said, expected in (("0", 200), ("-0", 400)):
            content = f'{{"cents": {said}}}'.encode()
            assert expected == (await ask(http, "POST", "/orders/O-1001/refunds", content, params=given))[0]

    @pytest.mark.parametrize(
        "content",
        [
            b'{"cents": 2500, "cents": 9900}',
            b'{"cents": 9900, "cents": 2500}',
            b'{"cents": 2500, "\\u0063ents": 9900}',
            b'{"cents": 2500, "x": {"a": 1, "a": 2}}',
        ],
    )
    async def test_a_member_twice(self, http: httpx.AsyncClient, content: bytes) -> None:
        """JSON with a member twice is refused, wherever it is and however it is written."""
        assert BAD == await refund(http, content)

    @pytest.mark.parametrize(
        "name",
        ["Cents", "CENTS", "cents_", "_cents", "cen\\u017fs", "\\uff43ents", "cents[]", "cents.", "cents\\u0000"],
    )
    async def test_a_name_alike(self, http: httpx.AsyncClient, name: str) -> None:
        """A name that another reader takes for the same has the task's value too, or the request is refused."""
        name = name.replace("cen\\u017fs", "cent\\u017f")
        assert WRONG == await refund(http, f'{{"cents": 2500, "{name}": 9900}}'.encode())
        assert WRONG == await refund(http, f'{{"{name}": 9900, "cents": 2500}}'.encode())
        assert 200 == (await refund(http, f'{{"cents": 2500, "{name}": 2500}}'.encode()))[0]
        assert UNBOUND == await refund(http, f'{{"{name}": 2500}}'.encode())

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
    @pytest.mark.parametrize("kind", [JSON, None])
    async def test_encodings(self, http: httpx.AsyncClient, encoding: str, kind: str | None) -> None:
        """JSON in another encoding than UTF-8, or with a byte order mark, is refused: not all read the same in it."""
        assert BAD == await refund(http, '{"cents": 2500}'.encode(encoding), kind)

    @pytest.mark.parametrize("charset", ["utf-16", "utf-7", "latin-1", '"utf-16"', ""])
    async def test_charsets(self, http: httpx.AsyncClient, charset: str) -> None:
        """Content whose type names another charset than UTF-8 is refused."""
        assert BAD == await refund(http, b'{"cents": 2500}', f"application/json; charset={charset}")

    @pytest.mark.parametrize(
        "said", ["charset*=utf-8''utf-7", "charset*0=utf-7", "x=1; Charset = utf-7", "charset=utf-8 utf-7"]
    )
    async def test_charsets_in_other_words(self, http: httpx.AsyncClient, said: str) -> None:
        """A charset that only some readers find in the type (RFC 2231) is refused as any other."""
        assert BAD == await refund(http, b'{"cents": 2500}', f"application/json; {said}")

    @pytest.mark.parametrize("kind", ["text/plain; charset=utf-7", "text/plain; charset*=utf-8''utf-7"])
    async def test_charset_of_a_look(self, http: httpx.AsyncClient, kind: str) -> None:
        """A charset is refused without content too: some frameworks read the query by it."""
        assert 400 == (await ask(http, "GET", "/orders?order=O-1001", None, None, ("content-type", kind)))[0]

    def test_query_as_it_is(self) -> None:
        """A query with bytes beyond ASCII, of which two servers make two texts, is refused where it is compared."""
        with pytest.raises(InvalidInput, match="escaped"):
            HttpStated("order=O-1001&x=\xc3\xa9", [], {}).at(query("order"))

    async def test_compressed(self, http: httpx.AsyncClient) -> None:
        """Content that is packed is refused, also where it only says so."""
        content = b'{"cents": 2500}'
        assert BAD == await refund(http, gzip.compress(content), JSON, ("content-encoding", "gzip"))
        assert BAD == await refund(http, content, JSON, ("content-encoding", "br"))
        assert 200 == (await refund(http, content, JSON, ("content-encoding", "identity")))[0]

    async def test_in_chunks(self, http: httpx.AsyncClient) -> None:
        """Content in chunks is compared as a whole, and is there for the application as it was compared."""

        async def parts(last: bytes) -> AsyncIterator[bytes]:
            for each in (b'{"ce', b"", b'nts": ', last, b"}"):
                yield each

        assert (200, '{"cents": 2500}') == await refund(http, parts(b"2500"))
        assert WRONG == await refund(http, parts(b"9900"))

    async def test_depth(self, http: httpx.AsyncClient) -> None:
        """JSON that is nested deeper than the limit is refused."""
        deep = "[" * JSON_DEPTH + "]" * JSON_DEPTH
        assert BAD == await refund(http, f'{{"cents": 2500, "x": {deep}}}'.encode())

    async def test_beyond_the_limit(self, http: httpx.AsyncClient) -> None:
        """Content that is longer than what is read is refused, wherever the parameter stands in it."""
        content = b'{"cents": 2500, "x": "' + b"x" * GUARDED_CONTENT_MAX_BYTES + b'"}'
        assert (413, "invalid_request") == await refund(http, content)

    @pytest.mark.parametrize(
        "content", [b"", b"{}", b"[]", b"2500", b'"cents"', b'[{"cents": 2500}]', b'{"refund": {}}']
    )
    async def test_absent(self, http: httpx.AsyncClient, content: bytes) -> None:
        """A request that does not have the parameter is refused: the application would take a value of its own."""
        assert UNBOUND == await refund(http, content)

    @pytest.mark.parametrize("content", [b"x", b"{", b"{'cents': 2500}", b'{"cents": 2500} x', b"cents=2500", b"\xff"])
    async def test_no_json(self, http: httpx.AsyncClient, content: bytes) -> None:
        """What is no JSON is no request."""
        assert BAD == await refund(http, content)

    @pytest.mark.parametrize(
        "kind", ["text/plain", FORM, "multipart/form-data; boundary=x", "application/x-ndjson", "*/*"]
    )
    async def test_another_content_type(self, http: httpx.AsyncClient, kind: str) -> None:
        """JSON that goes as something else is refused: the application may read it as what it says."""
        assert UNBOUND == await refund(http, b'{"cents": 2500}', kind)

    async def test_two_content_types(self, http: httpx.AsyncClient) -> None:
        """A request with two content types is refused."""
        assert BAD == await refund(http, b'{"cents": 2500}', JSON, ("content-type", FORM))

    @pytest.mark.parametrize(
        ("said", "expected"),
        [
            ('[{"a/b~c": 2500}]', 200),
            ('[{"a/b~c": 9900}]', 403),
            ("[]", 403),
            ('{"0": {"a/b~c": 2500}}', 200),
            ('{"00": {"a/b~c": 2500}}', 403),
            ('[{"a~1b~0c": 2500}]', 403),
        ],
    )
    async def test_pointers(self, http: httpx.AsyncClient, said: str, expected: int) -> None:
        """A JSON pointer leads through members and elements, with its escapes (RFC 6901)."""
        content = f'{{"refund": {said}}}'.encode()
        assert expected == (await ask(http, "PUT", "/orders/O-1001/refunds", content))[0]

    async def test_a_path_alike(self, http: httpx.AsyncClient) -> None:
        """An object of a name alike on the way has the same value too, or the request is refused."""
        one, other = '[{"a/b~c": 2500}]', '[{"a/b~c": 9900}]'
        for twin, expected in ((one, 200), (other, 403), ("{}", 403)):
            content = f'{{"refund": {one}, "Refund": {twin}}}'.encode()
            assert expected == (await ask(http, "PUT", "/orders/O-1001/refunds", content))[0]

    @pytest.mark.parametrize("pointer", ["cents", "/~2", "/a~", "/" * (JSON_DEPTH + 1)])
    def test_no_pointer(self, pointer: str) -> None:
        """What is no JSON pointer is refused when the routes are made."""
        with pytest.raises(InvalidInput, match="JSON pointer"):
            action_finder({"POST /x": Action("x", params={"cents": body(pointer)})})


class TestForms:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"cents=2500", 200),
            (b"a=b&cents=%32500&c", 200),
            (b"%63ents=2500", 200),
            (b"cents=2500&cents=2500", 200),
            (b"cents=2500&cents=9900", 403),
            (b"cents=2500&%63ents=9900", 403),
            (b"cents=2500&Cents=9900", 403),
            (b"cents=2500&cents[]=9900", 403),
            (b"cents=2500;cents=9900", 403),
            (b"x=1;cents=9900&cents=2500", 403),
            (b"cents=02500", 403),
            (b"cents=+2500", 403),
            (b"cents=2500%20", 403),
            (b"cents=2500.0", 403),
            (b"cents=", 403),
            (b"", 403),
            (b'{"cents": 2500}', 403),
        ],
    )
    async def test_fields(self, http: httpx.AsyncClient, content: bytes, expected: int) -> None:
        """A field of a form is compared by its text, however often it is there and under whichever name alike."""
        assert expected == (await ask(http, "POST", "/orders/O-1001/forms", content, FORM))[0]

    @pytest.mark.parametrize("kind", [JSON, None, "text/plain", "multipart/form-data; boundary=x"])
    async def test_another_content_type(self, http: httpx.AsyncClient, kind: str | None) -> None:
        """A form that goes as something else is refused, and so is one of several parts."""
        assert UNBOUND == await ask(http, "POST", "/orders/O-1001/forms", b"cents=2500", kind)


class TestQueries:
    @pytest.mark.parametrize(
        ("target", "expected"),
        [
            ("/orders?order=O-1001", 200),
            ("/orders?x=%ff&order=O-1001&y=%zz", 200),
            ("/orders?%6Frder=O%2D1001", 200),
            ("/orders?order=O-1001&order=O-1001", 200),
            ("/orders?order=O-9999", 403),
            ("/orders?order=O-1001&order=O-9999", 403),
            ("/orders?order=O-9999&order=O-1001", 403),
            ("/orders?order=O-1001&%6Frder=O-9999", 403),
            ("/orders?order=O-1001&ORDER=O-9999", 403),
            ("/orders?order=O-1001&order[]=O-9999", 403),
            ("/orders?order=O-1001&order%5B0%5D=O-9999", 403),
            ("/orders?order=O-1001;order=O-9999", 403),
            ("/orders?x=1;order=O-9999&order=O-1001", 403),
            ("/orders?order=O-1001&%C3%B6rder=1", 200),
            ("/orders?order=O-1001%00", 403),
            ("/orders?order=O+1001", 403),
            ("/orders?order=", 403),
            ("/orders?order", 403),
            ("/orders?__proto__=O-1001", 403),
            ("/orders?order.__proto__=O-1001", 403),
            ("/orders?%256Frder=O-1001", 403),
            ("/orders", 403),
        ],
    )
    async def test_parameters(self, http: httpx.AsyncClient, target: str, expected: int) -> None:
        """A parameter of the query is compared however often it is there, in each way in which some server reads it."""
        assert expected == (await ask(http, "GET", target))[0]

    async def test_spaces(self, http: httpx.AsyncClient) -> None:
        """A plus and `%20` are both a space in a query, and `%2B` is a plus."""
        for text, target in (("a b", "a+b"), ("a b", "a%20b"), ("a+b", "a%2Bb")):
            answer = await ask(http, "GET", f"/orders?order={target}", params={"order": text})
            assert 200 == answer[0], target
        assert 403 == (await ask(http, "GET", "/orders?order=a+b", params={"order": "a+b"}))[0]


class TestHeaders:
    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ([("x-order", "O-1001")], 200),
            ([("X-ORDER", " O-1001 ")], 200),
            ([("x-order", "O-1001"), ("X-Order", "O-1001")], 200),
            ([("x-order", "O-1001"), ("x-order", "O-9999")], 403),
            ([("x-order", "O-9999"), ("x-order", "O-1001")], 403),
            ([("x-order", "O-1001"), ("x_order", "O-9999")], 403),
            ([("x-order", "O-1001, O-9999")], 403),
            ([("x_order", "O-1001")], 403),
            ([], 403),
        ],
    )
    async def test_lines(self, http: httpx.AsyncClient, headers: list[tuple[str, str]], expected: int) -> None:
        """A header is compared whatever the case of its name, however often it is there."""
        assert expected == (await ask(http, "GET", "/header", None, None, *headers))[0]


class TestOwnNames:
    async def test_a_segment_of_another_name(self, http: httpx.AsyncClient) -> None:
        """A route that names its segment otherwise than the task its parameter is refused, and says what to write."""
        text = token(KEY, actions=NAMED, params={"order": "O-1001"})
        answer = await http.get("/orders/O-1001", headers={"Authorization": f"Bearer {text}"})
        said = answer.json()
        assert (403, "unbound_parameter") == (answer.status_code, said["error"])
        assert "Action('order:read', params={'order': path('order_id')})" in said["error_description"]
        assert "unchecked=('order',)" in said["error_description"]
        assert 'error="unbound_parameter"' in answer.headers["www-authenticate"]

    @pytest.mark.parametrize("order", ["O-1001", "O-9999"])
    async def test_what_a_client_adds_binds_nothing(self, http: httpx.AsyncClient, order: str) -> None:
        """A client that puts the task's value beside the one that the application reads is refused."""
        assert UNBOUND == await ask(http, "GET", f"/orders/{order}?order=O-1001", params={"order": "O-1001"})
        content = json.dumps({"cents": 2500, "order": "O-1001", "amount": 9900}).encode()
        assert UNBOUND == await ask(http, "POST", "/amounts?cents=2500&order=O-1001", content)

    async def test_mapped(self, http: httpx.AsyncClient) -> None:
        """A segment that the route maps is compared."""
        assert 200 == (await ask(http, "GET", "/v2/orders/O-1001"))[0]
        assert WRONG == await ask(http, "GET", "/v2/orders/O-9999")

    @pytest.mark.parametrize(
        ("target", "content", "kind", "expected"),
        [
            ("?order=O-1001", b"{}", JSON, 200),
            ("?order=O-9999", b"{}", JSON, 403),
            ("?Order=O-9999", b"{}", JSON, 403),
            ("", b'{"order": "O-1001"}', JSON, 200),
            ("", b'{"order": "O-9999"}', JSON, 403),
            ("", b'{"ORDER": "O-9999"}', JSON, 403),
            ("", b'{"order": "O-9999"}', None, 403),
            ("", b'\xef\xbb\xbf{"order": "O-9999"}', None, 400),
            ("", b"order=O-9999", FORM, 403),
            ("", b"order=O-1001", FORM, 200),
            ("", b'{"order": "O-9999"}', "text/plain", 403),
            ("", b"\x89PNG", None, 200),
            ("", b'["O-9999"]', JSON, 200),
            ("", b"{", JSON, 400),
        ],
    )
    async def test_elsewhere_too(
        self, http: httpx.AsyncClient, target: str, content: bytes, kind: str | None, expected: int
    ) -> None:
        """A parameter that stands in the segment of its name must agree with whatever else has that name."""
        assert expected == (await ask(http, "POST", "/orders/O-1001/notes" + target, content, kind))[0]

    async def test_mapped_alone(self, http: httpx.AsyncClient) -> None:
        """Where a route says where a parameter stands nothing else is looked at, and its content is not read."""
        content = b"{" + b"x" * GUARDED_CONTENT_MAX_BYTES
        assert 200 == (await ask(http, "POST", "/orders/O-1001/files?order=O-9999", content))[0]
        assert WRONG == await ask(http, "POST", "/orders/O-9999/files?order=O-1001", content)

    async def test_content_of_a_get(self, http: httpx.AsyncClient) -> None:
        """A GET with content is compared like any other."""
        assert 403 == (await ask(http, "GET", "/orders?order=O-9999", b'{"order": "O-1001"}'))[0]

    async def test_a_task_without_the_parameter(self, http: httpx.AsyncClient) -> None:
        """A task that does not name a parameter is for all its values."""
        assert 200 == (await ask(http, "GET", "/orders/O-9999", params={}))[0]


class TestBind:
    async def test_which_concern_the_action(self, http: httpx.AsyncClient) -> None:
        """Of an action that the type binds to some parameters only those are compared; of another all."""
        bind = {"order:read": ("order",), "note:create": ()}
        assert 200 == (await ask(http, "GET", "/orders?order=O-1001", bind=bind))[0]
        assert 403 == (await ask(http, "GET", "/orders?order=O-9999", bind=bind))[0]
        assert 200 == (await ask(http, "POST", "/orders/O-9999/notes", bind=bind))[0]
        assert 403 == (await ask(http, "POST", "/orders/O-1001/refunds", b'{"cents": 1}', bind=bind))[0]

    @pytest.mark.parametrize(
        "params", [{"order": path("id")}, {"order": field("order.id")}, {"order": header("a b")}, {"order": header("")}]
    )
    def test_a_place_that_the_route_has_not(self, params: dict[str, object]) -> None:
        """A segment that the route does not have, what is no place of HTTP, and no header's name are told at once."""
        if params == {"order": header("")}:
            params = {"or der": header("")}
        with pytest.raises(InvalidInput):
            action_finder({"GET /orders/{order}": Action("order:read", params=params)})


def test_one_text_for_several_names() -> None:
    """A text in the place of names that are unchecked is told at once: what is in it would be unchecked as well."""
    with pytest.raises(InvalidInput, match=r"write \('cents',\)"):
        Action("order:read", unchecked="cents")
    with pytest.raises(InvalidInput, match=r"write \['cents'\]"):
        guarded("order:read", unchecked="cents")


class TestRewritten:
    @pytest.mark.parametrize(
        ("raw", "path", "root", "expected"),
        [
            (b"/v2/orders/O-1001", "/v2/orders/O-1001", "", 200),
            (b"/v2/orders/O%2D1001", "/v2/orders/O-1001", "", 200),
            (b"/v2/orders/O-1001?x=1", "/v2/orders/O-1001", "", 200),
            (b"/v2/orders/O-1001", "/orders/O-1001", "/v2", 200),
            (b"/v2/orders/O-1001", "/v2/orders/O-1001", "/v2", 200),
            (b"/v2/orders/O-1001", "/v2/orders/O-9999", "", 400),
            (b"/v2/orders/O-1001", "/orders/O-9999", "/v2", 400),
            (b"/v2/orders/\xc3\xb6", "/v2/orders/\xf6", "", 400),
            (b"", "/v2/orders/O-1001", "", 200),
        ],
    )
    async def test_before_the_guard(self, raw: bytes, path: str, root: str, expected: int) -> None:
        """A path that was rewritten before the guard is refused: the application routes by another than was judged."""
        seen: list[Any] = []

        async def send(message: Any) -> None:
            seen.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        headers = [(b"authorization", f"Bearer {token(KEY, actions=NAMED, params=PARAMS)}".encode())]
        scope = {"type": "http", "method": "GET", "path": path, "root_path": root, "query_string": b""}
        await guarded_app()({**scope, "raw_path": raw, "headers": headers}, receive, send)
        assert expected == seen[0]["status"]


class TestLiterals:
    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            ("/tickets/gr%C3%B6%C3%9Fe", "admin"),
            ("/tickets/gr%C3%B6%C3%9F%65", None),
            ("/tickets/gro%CC%88%C3%9Fe", None),
            ("/tickets/GR%C3%96SSE", None),
            ("/tickets/all%20tickets", "list"),
            ("/tickets/all%20ticket%73", None),
            ("/tickets/All%20tickets", None),
            ("/tickets/7", "read"),
            ("/tickets/7;x=1", None),
            ("/tickets/..", None),
            ("/tickets/%2E%2E", None),
            ("/tickets/.", None),
        ],
    )
    def test_that_need_escapes(self, sent: str, expected: str | None) -> None:
        """A path that decoded, or in another case, is another route's is no action, where that has letters to escape."""
        find = action_finder(
            {
                "GET /tickets/größe": "admin",
                "GET /tickets/all tickets": "list",
                "GET /tickets/{ticket}": "read",
            }
        )
        found = find("GET", sent)
        assert expected == (found.name if found is not None else None)


class TestMuch:
    async def test_fields(self, http: httpx.AsyncClient) -> None:
        """A query, a form or an object with more fields than are looked through is refused."""
        many = "&".join(f"a{number}" for number in range(GUARDED_FIELDS_MAX))
        assert BAD == await ask(http, "GET", f"/orders?order=O-1001&{many}")
        assert BAD == await ask(http, "POST", "/orders/O-1001/forms", f"cents=2500&{many}".encode(), FORM)
        members = ", ".join(f'"a{number}": 1' for number in range(GUARDED_FIELDS_MAX))
        assert BAD == await refund(http, f'{{"cents": 2500, {members}}}'.encode())

    async def test_names_alike(self, http: httpx.AsyncClient) -> None:
        """More names alike than are looked at are refused."""
        names = ", ".join(f'"{"_" * number}cents": 2500' for number in range(1, NAMES_ALIKE_MAX + 2))
        assert BAD == await refund(http, f'{{"cents": 2500, {names}}}'.encode())
