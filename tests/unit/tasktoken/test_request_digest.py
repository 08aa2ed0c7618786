"""request_digest.py: the digest of one request."""

import base64
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidInput
from sojourn.tasktoken import request_digest

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


VECTORS = json.loads((Path(__file__).parents[3] / "docs" / "examples" / "request-digests.json").read_text())


def sha256(text):
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


class TestVectors:
    @pytest.mark.parametrize("vector", VECTORS["http"], ids=lambda each: each["what"])
    def test_http(self, vector):
        """The digests of HTTP requests are those of the vectors that are published, and each is of the JSON there."""
        content = base64.b64decode(vector["content_base64"])
        assert vector["digest"] == request_digest.of_http(vector["method"], vector["target"], content)
        assert vector["digest"] == sha256(vector["canonical"])

    @pytest.mark.parametrize("vector", VECTORS["grpc"], ids=lambda each: each["what"])
    def test_grpc(self, vector):
        """The digests of gRPC calls are those of the vectors that are published, and each is of the JSON there."""
        assert vector["digest"] == request_digest.of_grpc(vector["method"], base64.b64decode(vector["message_base64"]))
        assert vector["digest"] == sha256(vector["canonical"])

    @pytest.mark.parametrize("vector", VECTORS["mcp"], ids=lambda each: each["what"])
    def test_mcp(self, vector):
        """The digests of tools' calls are those of the vectors that are published, and each is of the JSON there."""
        assert vector["digest"] == request_digest.of_tool(vector["tool"], vector["arguments"])
        assert vector["digest"] == sha256(vector["canonical"])

    @pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda each: each["what"])
    def test_refused(self, vector):
        """What has no digest there has none here."""
        with pytest.raises(InvalidInput):
            request_digest.of_tool("any", json.loads(vector["arguments_json"]))

    def test_page(self):
        """The page that tells of them shows a vector, and the members of each form."""
        page = (Path(__file__).parents[3] / "docs" / "request-digests.md").read_text()
        first = VECTORS["http"][0]
        assert first["canonical"] in page
        assert f"\n    {first['digest']}=\n" in page
        for each in (VECTORS["http"][0], VECTORS["grpc"][0], VECTORS["mcp"][0]):
            assert all(f"| `{member}` |" in page for member in json.loads(each["canonical"]))


class TestDigest:
    def test_known(self):
        """The digest is that of the sorted JSON without spaces, as anyone can compute it."""
        # printf '{"a":[1,true,null],"b":"é"}' | sha256sum | xxd -r -p | basenc --base64url
        assert "bqsVNwHvYMmVNRdlx3IBG8pnOYeCVPMTrMPxHh_vR2s" == request_digest.of_json({"b": "é", "a": [1, True, None]})

    @pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"a": [value]}])
    def test_order_of_members(self, wrap):
        """Members are sorted by their UTF-16, as RFC 8785 (3.2.3) has it: the digest is that of other languages."""
        value = wrap({"\ufb33": 1, "\U0001f600": 2, "\u20ac": 3, "\r": 4, "1": 5, "\x80": 6, "\xf6": 7})
        sorted_ = '{"\\r":4,"1":5,"\x80":6,"\xf6":7,"\u20ac":3,"\U0001f600":2,"\ufb33":1}'
        text = sorted_ if len(value) > 1 else f'{{"a":[{sorted_}]}}'
        expected = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())[:-1].decode()
        assert expected == request_digest.of_json(value)

    def test_of_what(self):
        """A request's digest is of its method, target and content's digest; a tool's and a gRPC call's as they say."""
        # printf x | sha256sum | xxd -r -p | basenc --base64url
        x = "LXEWQrcmsEQBYnyp-6wy9chTD7GQPMTbAiWHF5IaSIE"
        for found, members in (
            (request_digest.of_http("GET", "/a?b", b"x"), {"method": "GET", "target": "/a?b", "content": x}),
            (request_digest.of_tool("sort", {"by": "date"}), {"tool": "sort", "arguments": {"by": "date"}}),
            (request_digest.of_grpc("/a.B/C", b"x"), {"method": "/a.B/C", "message": x}),
        ):
            assert request_digest.of_json(members) == found

    def test_requests_differ(self):
        """Requests that differ in method, path, query or content have different digests; so do tools and gRPC calls."""
        found = {
            request_digest.of_http("GET", "/a", b""),
            request_digest.of_http("POST", "/a", b""),
            request_digest.of_http("GET", "/a?", b""),
            request_digest.of_http("GET", "/a?b=1", b""),
            request_digest.of_http("GET", "/a", b"1"),
            request_digest.of_tool("a", {}),
            request_digest.of_tool("a", {"b": 1}),
            request_digest.of_tool("a", {"b": "1"}),
            request_digest.of_tool("a", {"b": True}),
            request_digest.of_tool("b", {}),
            request_digest.of_grpc("/a.B/C", b""),
            request_digest.of_grpc("/a.B/C", b"1"),
        }
        assert 12 == len(found)

    @given(st.dictionaries(st.text(max_size=3), values, max_size=4).filter(lambda value: str(value).isprintable()))
    def test_order_does_not_matter(self, value):
        """The order of members is nothing, and what JSON's parsers make of it neither."""
        try:
            turned = dict(reversed(json.loads(json.dumps(value)).items()))
        except UnicodeEncodeError:
            return
        assert request_digest.of_json(value) == request_digest.of_json(turned)

    @pytest.mark.parametrize(
        "value", [1.5, 1.0, 1e300, float("nan"), 2**53 + 1, -(2**53) - 1, b"x", {1: 2}, {"a": {"b": [0.1]}}, "\ud800"]
    )
    def test_refused(self, value):
        """What two parsers might read in two ways has no digest."""
        with pytest.raises(InvalidInput):
            request_digest.of_json({"x": value})

    def test_too_deep(self):
        """What is nested without end is refused before anything recurses far."""
        value: object = 1
        for _ in range(5000):
            value = [value]
        with pytest.raises(InvalidInput, match="nested"):
            request_digest.of_json({"x": value})
