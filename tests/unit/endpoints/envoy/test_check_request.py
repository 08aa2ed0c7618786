"""check_request.py: what an Envoy says of a request, and what its route says that the request is."""

from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.ca import FakeCa
from sojourn._pb.envoy.service.auth.v3 import attribute_context_pb2 as pb
from sojourn.endpoints.envoy.check_request import Ruling, content_of, read_request
from sojourn.errors import InvalidInput
from sojourn.sdk.guard.param_places import body, parse_places, path

AUDIENCE = "https://tickets.example.org"
GOOD = {"sojourn.audience": AUDIENCE, "sojourn.action": "ticket:read", "sojourn.route": "GET /tickets/{ticket}"}


def context(**http):
    made = pb.AttributeContext()
    headers = http.pop("headers", {})
    raw = http.pop("raw", ())
    said = {"method": "GET", "path": "/tickets/42", **http}
    for name, value in said.items():
        setattr(made.request.http, name, value)
    made.request.http.headers.update(headers)
    for key, value in raw:
        made.request.http.header_map.headers.add(key=key, raw_value=value)
    return made


class TestRuling:
    def test_a_good_one(self):
        """The texts and flags are taken as they are; what is not ours is nobody's business here."""
        ruling = Ruling.read({**GOOD, "sojourn.content": "true", "sojourn.keep_token": "false", "virtual_host": "x"})
        assert (AUDIENCE, "ticket:read", "GET /tickets/{ticket}", "", True, False, False) == (
            ruling.audience,
            ruling.action,
            ruling.route,
            ruling.base_url,
            ruling.content,
            ruling.keep_token,
            ruling.approved,
        )

    def test_where_parameters_stand(self):
        """Where the task's parameters stand is a list of places, and what requests do not have one of names."""
        said = {"sojourn.params": "cents = body:/refund/cents , order=path:", "sojourn.unchecked": "note, ,reason"}
        ruling = Ruling.read({**GOOD, **said})
        assert {"cents": body("/refund/cents"), "order": path("order")} == parse_places(ruling.params)
        assert ("note", "reason") == ruling.unchecked

    @pytest.mark.parametrize(
        "text", ["cents", "cents=", "cents=/cents", "a=body:/a,a=body:/b", "a=field:a", "a b=query:", "a=body:a"]
    )
    def test_no_places(self, text):
        """What is no list of places is refused, with how one looks."""
        with pytest.raises(InvalidInput, match="cents"):
            parse_places(text)

    def test_of_people(self):
        """A route says whether tokens for a person pass, which parameters are that person, and how they logged in."""
        said = {"person": "required", "person_params": "customer = sub, at=iss", "acr_values": "a  b", "max_age": "300"}
        ruling = Ruling.read({**GOOD, **{f"sojourn.{name}": value for name, value in said.items()}})
        assert ("required", (("customer", "sub"), ("at", "iss")), ("a", "b"), 300) == (
            ruling.person,
            ruling.person_params,
            ruling.acr_values,
            ruling.max_age,
        )
        assert not Ruling.read(GOOD).of_person
        hash(ruling)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("person_params", "customer"),
            ("person_params", "customer ="),
            ("person_params", "a=sub,a=iss"),
            ("max_age", "5m"),
            ("max_age", "-1"),
            ("max_age", "9" * 10),
            ("people", "yes"),
        ],
    )
    def test_no_word_of_people(self, name, value):
        """What is not written as it must be lets nobody in."""
        with pytest.raises(InvalidInput, match=name):
            Ruling.read({**GOOD, f"sojourn.{name}": value})

    @pytest.mark.parametrize("name", ["person", "person_params", "acr_values", "max_age"])
    def test_of_people_and_no_action(self, name):
        """A route that asks something of people, and is no action, is a slip of the pen."""
        value = {"person": "optional", "person_params": "a=sub", "acr_values": "a", "max_age": "0"}[name]
        with pytest.raises(InvalidInput, match="action"):
            Ruling.read({"sojourn.audience": AUDIENCE, f"sojourn.{name}": value})

    def test_a_route_for_nobody(self):
        """A route without an action has a ruling all the same: no token is good there."""
        assert "" == Ruling.read({"sojourn.audience": AUDIENCE}).action

    @pytest.mark.parametrize(
        "extensions",
        [
            {},
            {**GOOD, "sojourn.audience": ""},
            {**GOOD, "sojourn.Action": "x"},
            {**GOOD, "sojourn.acton": "x"},
            {**GOOD, "sojourn.": "x"},
            {**GOOD, "sojourn.content": "True"},
            {**GOOD, "sojourn.content": "1"},
            {"sojourn.audience": AUDIENCE, "sojourn.route": "GET /"},
            {"sojourn.audience": AUDIENCE, "sojourn.approved": "true"},
            {"sojourn.audience": AUDIENCE, "sojourn.params": "a = query:"},
            {"sojourn.audience": AUDIENCE, "sojourn.unchecked": "a"},
        ],
    )
    def test_slips_of_the_pen(self, extensions):
        """What is missing, unknown or neither true nor false is no ruling."""
        with pytest.raises(InvalidInput):
            Ruling.read(extensions)


class TestRequest:
    def test_the_target_stays_as_it_is(self):
        """Nothing of path and query is decoded, and a second question mark is the query's."""
        request = read_request(context(path="/a%2Fb//%2e?x=%20?y"))
        assert ("/a%2Fb//%2e", "x=%20?y") == (request.path, request.query)

    @pytest.mark.parametrize("http", [{"method": ""}, {"path": ""}, {"path": "*"}, {"path": "http://x/"}])
    def test_what_no_envoy_says(self, http):
        """Without a method or a path there is no request."""
        with pytest.raises(InvalidInput):
            read_request(context(**http))

    def test_headers(self):
        """Pseudo headers are left out; names are in lower case; raw values, of any bytes, are taken one by one."""
        request = read_request(context(headers={":path": "/", "Accept": "x"}, raw=[("DPoP", b"a"), ("dpop", b"\xff")]))
        assert [("accept", "x"), ("dpop", "a"), ("dpop", "\xff")] == list(request.headers)

    def test_the_certificate(self):
        """The certificate of the connection comes as PEM with percent escapes; of a chain the first counts."""
        leaf, other = FakeCa.make().svid("/a").chain[0], FakeCa.make().svid("/b").chain[0]
        said = context()
        said.source.certificate = quote(b"".join(each.public_bytes(Encoding.PEM) for each in (leaf, other)))
        assert leaf.public_bytes(Encoding.DER) == read_request(said).certificate

    @pytest.mark.parametrize(
        "text", ["x", "%00", quote("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"), "a" * 40_000]
    )
    def test_a_certificate_that_is_none(self, text):
        """What is no certificate is an error of ours, and not one of the library's."""
        said = context()
        said.source.certificate = text
        with pytest.raises(InvalidInput):
            read_request(said)


class TestContent:
    WHOLE = Ruling.read({**GOOD, "sojourn.content": "true"})

    def test_whole(self):
        """Content that Envoy says is whole, and none where there is none."""
        headers = {"content-length": "1", "x-envoy-auth-partial-body": "false"}
        assert b"\xff" == content_of(context(raw_body=b"\xff", headers=headers), self.WHOLE)
        assert b"" == content_of(context(), self.WHOLE)
        assert b"" == content_of(context(headers={"content-length": "0"}), self.WHOLE)

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "QUERY"])
    def test_nothing_said_of_it(self, method):
        """By HTTP/2 a request need not say that it has content: none is believed only where Envoy must have said so."""
        for protocol in ("HTTP/2", "HTTP/3", ""):
            with pytest.raises(InvalidInput, match="content-length"):
                content_of(context(method=method, protocol=protocol), self.WHOLE)
            said = context(method=method, protocol=protocol, headers={"content-length": "0"})
            assert b"" == content_of(said, self.WHOLE)
            assert b"" == content_of(context(protocol=protocol), self.WHOLE)
        assert b"" == content_of(context(method=method, protocol="HTTP/1.1"), self.WHOLE)

    def test_of_unknown_length(self):
        """Content that came in chunks is whole if Envoy says so."""
        headers = {"transfer-encoding": "chunked", "x-envoy-auth-partial-body": "false"}
        assert b"ab" == content_of(context(raw_body=b"ab", headers=headers), self.WHOLE)

    @pytest.mark.parametrize(
        "http",
        [
            {"body": "text"},
            {"headers": {"content-length": "3"}},
            {"headers": {"transfer-encoding": "chunked"}},
            {"raw_body": b"ab", "headers": {"content-length": "3", "x-envoy-auth-partial-body": "false"}},
            {"raw_body": b"ab", "headers": {"x-envoy-auth-partial-body": "true"}},
            {
                "raw_body": b"ab",
                "raw": [("x-envoy-auth-partial-body", b"true"), ("x-envoy-auth-partial-body", b"false")],
            },
        ],
    )
    def test_not_whole(self, http):
        """Content that may have more to it than we see is no content."""
        with pytest.raises(InvalidInput):
            content_of(context(**http), self.WHOLE)

    @pytest.mark.parametrize("partial", ["false", "true", ""])
    @pytest.mark.parametrize("of", [{"headers": {"transfer-encoding": "chunked"}}, {"protocol": "HTTP/2"}])
    def test_said_of_nothing(self, of, partial):
        """That a content is whole which is not there is not believed: a client may have said so."""
        headers = {**of.get("headers", {}), "x-envoy-auth-partial-body": partial}
        with pytest.raises(InvalidInput):
            content_of(context(method="POST", **{**of, "headers": headers}), self.WHOLE)

    def test_not_promised(self):
        """Unless the route's owner says that contents are sent, none is believed to be there."""
        headers = {"x-envoy-auth-partial-body": "false", "content-length": "1"}
        with pytest.raises(InvalidInput):
            content_of(context(raw_body=b"a", headers=headers), Ruling.read(GOOD))
