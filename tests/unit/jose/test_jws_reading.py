"""jws.py: compact JWS, read strictly. One fault a case; whatever comes in, only our errors come out."""

import contextlib
import json
import socket

import pytest
from fakes.tokenforge import (
    CLAIMS,
    FREELY,
    GOOD,
    HEADER,
    PAYLOAD,
    PUBLIC,
    SIGNATURE,
    forge,
    json_values,
    refusal,
    segment,
)
from hypothesis import example, given
from hypothesis import strategies as st
from sojourn.errors import InvalidToken
from sojourn.jose.jws import (
    ALGORITHMS,
    parse_unverified,
)
from sojourn.limits import TOKEN_MAX_BYTES


class TestParseUnverified:
    def test_good(self):
        """A good token is taken apart."""
        parsed = parse_unverified(GOOD)
        expected = GOOD
        assert expected == parsed.text
        expected = ("ES256", "k1", "JWT")
        assert expected == (parsed.algorithm, parsed.kid, parsed.typ)
        expected = CLAIMS
        assert expected == parsed.unverified_claims

    def test_kid_and_typ_may_be_absent(self):
        """The headers kid and typ are optional here; who needs them asks."""
        parsed = parse_unverified(forge({"alg": "ES256"}))
        assert parsed.kid is None
        assert parsed.typ is None

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_allowed_algorithms(self, algorithm):
        """Each algorithm of JWT-SVID.md 2.1 is read as it stands."""
        assert algorithm == parse_unverified(f"{segment({'alg': algorithm})}.{PAYLOAD}.{SIGNATURE}").algorithm

    def test_closed_list(self):
        """The algorithms are those of JWT-SVID.md 2.1 and no other."""
        expected = {family + size for family in ("RS", "ES", "PS") for size in ("256", "384", "512")}
        assert expected == set(ALGORITHMS)

    @pytest.mark.parametrize(
        "algorithm",
        [
            *("none", "None", "NONE", "nOnE", "none ", "", "HS256", "HS384", "HS512", "hs256", "EdDSA", "Ed25519"),
            *(
                "ES256K",
                "es256",
                "ES256 ",
                " ES256",
                "ES256\n",
                "ES256\0",
                "RS1",
                "RSA-OAEP",
                "dir",
                "A128GCM",
                "ES521",
            ),
            *(None, True, 0, 256, 1.5, [], ["ES256"], {}, {"ES256": 1}),
        ],
        ids=repr,
    )
    def test_other_algorithms(self, algorithm):
        """Any algorithm that is not on the list is refused, in whatever spelling or type (CVE-2017-11424)."""
        expected = "bad_algorithm"
        assert expected == refusal(f"{segment({'alg': algorithm, 'kid': 'k1'})}.{PAYLOAD}.{SIGNATURE}")

    def test_no_algorithm(self):
        """A header without alg is refused."""
        expected = "bad_algorithm"
        assert expected == refusal(f"{segment({'kid': 'k1'})}.{PAYLOAD}.{SIGNATURE}")

    def test_algorithm_is_judged_first(self):
        """A forbidden algorithm is refused before payload and other headers are looked at (JWT-SVID.md 4)."""
        expected = "bad_algorithm"
        assert expected == refusal(f"{segment({'alg': 'none', 'crit': ['x']})}.{segment('not JSON')}.{SIGNATURE}")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            pytest.param("jku", "http://127.0.0.1:1/keys", id="jku"),
            pytest.param("jwk", dict(PUBLIC["P-256"].jwk), id="jwk-CVE-2026-27962"),
            pytest.param("x5u", "http://127.0.0.1:1/chain", id="x5u"),
            pytest.param("x5c", ["MIIB"], id="x5c"),
            pytest.param("x5t", "AAAA", id="x5t"),
            pytest.param("x5t#S256", "AAAA", id="x5t-S256"),
            pytest.param("crit", ["exp"], id="crit-CVE-2025-59420"),
            pytest.param("crit", [], id="crit-empty"),
            pytest.param("b64", False, id="b64-false"),
            pytest.param("b64", True, id="b64-true"),
            pytest.param("zip", "DEF", id="zip"),
            pytest.param("cty", "JWT", id="cty"),
            pytest.param("enc", "A128GCM", id="enc"),
            pytest.param("Kid", "k1", id="kid-capital"),
            pytest.param("", 1, id="empty-name"),
            pytest.param("x", None, id="unknown-null"),
        ],
    )
    def test_other_headers(self, monkeypatch, name, value):
        """A header beyond alg, kid and typ is refused, and nothing is fetched for it."""

        def connect(*_):
            pytest.fail("a socket was opened")

        monkeypatch.setattr(socket.socket, "connect", connect)
        expected = "malformed"
        assert expected == refusal(forge({"alg": "ES256", "kid": "k1", name: value}))

    @pytest.mark.parametrize("name", ["kid", "typ"])
    @pytest.mark.parametrize("value", [0, 1.5, True, [], ["k1"], {}], ids=repr)
    def test_header_types(self, name, value):
        """The headers kid and typ are strings if they are there at all."""
        expected = "malformed"
        assert expected == refusal(forge({"alg": "ES256", name: value}))

    @pytest.mark.parametrize(
        "token",
        [
            pytest.param("", id="empty"),
            pytest.param(".", id="one-dot"),
            pytest.param("..", id="two-dots"),
            pytest.param("." * 5, id="five-dots"),
            pytest.param("." * 10**6, id="million-dots-CVE-2025-66506"),
            pytest.param(f"{HEADER}.{PAYLOAD}", id="two-parts"),
            pytest.param(f"{HEADER}.{PAYLOAD}.", id="no-signature"),
            pytest.param(f"{HEADER}..{SIGNATURE}", id="no-payload"),
            pytest.param(f".{PAYLOAD}.{SIGNATURE}", id="no-header"),
            pytest.param(f"{GOOD}.", id="dot-behind"),
            pytest.param(f".{GOOD}", id="dot-before"),
            pytest.param(f"{HEADER}.AA.AA.AA.AA", id="jwe"),
            pytest.param(f"{GOOD}\n", id="newline-behind"),
            pytest.param(f" {GOOD}", id="space-before"),
            pytest.param(f"{HEADER} .{PAYLOAD}.{SIGNATURE}", id="space-inside"),
            pytest.param(f"{HEADER}.{PAYLOAD}\n.{SIGNATURE}", id="newline-inside"),
            pytest.param(f"{HEADER}.{PAYLOAD}.{SIGNATURE}==", id="padding-signature"),
            pytest.param(f"{HEADER}.{PAYLOAD}=.{SIGNATURE}", id="padding-payload"),
            pytest.param(f"{HEADER}.{PAYLOAD}.{SIGNATURE[:-1]}+", id="standard-base64-plus"),
            pytest.param(f"{HEADER}.{PAYLOAD}.{SIGNATURE[:-1]}/", id="standard-base64-slash"),
            pytest.param(f"{HEADER}.{PAYLOAD}.{SIGNATURE}AAA", id="impossible-length"),
            pytest.param(f"{HEADER}.{PAYLOAD}.A", id="one-letter"),
            pytest.param(f"{HEADER}.{PAYLOAD}.AB", id="trailing-bits-signature"),
            pytest.param(f"{HEADER}.{PAYLOAD}.\uff21\uff21", id="full-width-letters"),
            pytest.param(f"{HEADER}.{PAYLOAD}.{SIGNATURE}\0", id="nul-behind"),
            pytest.param(f"{HEADER}.{PAYLOAD}.{SIGNATURE}\ud800", id="lone-surrogate"),
            pytest.param(json.dumps({"payload": PAYLOAD, "protected": HEADER, "signature": SIGNATURE}), id="json-flat"),
            pytest.param(json.dumps({"payload": PAYLOAD, "signatures": []}), id="json-general"),
            pytest.param(f"Bearer {GOOD}", id="bearer"),
        ],
    )
    def test_form(self, token):
        """What is not three segments of base64url is refused."""
        expected = "malformed"
        assert expected == refusal(token)

    @pytest.mark.parametrize("place", ["header", "payload"])
    @pytest.mark.parametrize(
        "raw",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"foo", id="text"),
            pytest.param(b"null", id="null"),
            pytest.param(b"true", id="true"),
            pytest.param(b"1", id="number"),
            pytest.param(b'"a"', id="string"),
            pytest.param(b"[]", id="list"),
            pytest.param(b'[{"alg":"ES256"}]', id="list-of-object"),
            pytest.param(b'{"alg":"ES256"', id="cut"),
            pytest.param(b'{"alg":"ES256"}}', id="brace-behind"),
            pytest.param(b'{"alg":"ES256"}\0', id="nul-behind"),
            pytest.param(b'{"alg":"ES256",}', id="trailing-comma"),
            pytest.param(b"{'alg':'ES256'}", id="single-quotes"),
            pytest.param(b'{"alg":"ES256","alg":"ES256"}', id="duplicate-alike"),
            pytest.param(b'{"alg":"ES256","alg":"none"}', id="duplicate"),
            pytest.param(b'{"alg":"ES256","\\u0061lg":"none"}', id="duplicate-escaped"),
            pytest.param(b'{"alg":"ES256","x":{"a":1,"a":2}}', id="duplicate-nested"),
            pytest.param(b'{"alg":"ES256","x":[{"a":1,"a":2}]}', id="duplicate-in-list"),
            pytest.param(b'{"alg":"ES256","x":NaN}', id="nan"),
            pytest.param(b'{"alg":"ES256","x":Infinity}', id="infinity"),
            pytest.param(b'{"alg":"ES256","x":-Infinity}', id="minus-infinity"),
            pytest.param(b'{"alg":"ES256","x":1e400}', id="1e400"),
            pytest.param(b'{"alg":"ES256","x":' + b"1" * 5000 + b"}", id="5000-digits"),
            pytest.param(b'{"alg":"ES256","x":"\n"}', id="raw-newline"),
            pytest.param(b'\xef\xbb\xbf{"alg":"ES256"}', id="byte-order-mark"),
            pytest.param(b'{"alg":"ES256","x":"\xff"}', id="not-utf-8"),
            pytest.param(b'{"alg":"ES256","x":"\xed\xa0\x80"}', id="encoded-surrogate"),
            pytest.param('{"alg":"ES256"}'.encode("utf-16"), id="utf-16"),
            pytest.param('{"alg":"ES256"}'.encode("utf-32"), id="utf-32"),
            pytest.param(b'{"alg":"ES256","x":' + b"[" * 9_000 + b"}", id="9000-lists"),
            pytest.param(b'{"alg":"ES256","x":' + b"[" * 4_500 + b"]" * 4_500 + b"}", id="4500-closed-lists"),
            pytest.param(b'{"alg":' * 1_250 + b"1" + b"}" * 1_250, id="1250-objects"),
            pytest.param(b'{"alg":"ES256","x":' + b"[" * 20_000 + b"]" * 20_000 + b"}", id="20000-lists"),
        ],
    )
    def test_json(self, place, raw):
        """A header or payload that is not one JSON object without duplicate members is refused."""
        good, bad = segment({"alg": "ES256"}), segment(raw)
        token = f"{bad}.{PAYLOAD}.{SIGNATURE}" if place == "header" else f"{good}.{bad}.{SIGNATURE}"
        expected = "malformed"
        assert expected == refusal(token)

    @pytest.mark.parametrize(
        ("place", "payload"),
        [pytest.param(0, {}, id="header"), pytest.param(1, {}, id="payload"), pytest.param(2, {}, id="signature")],
    )
    def test_canonical(self, place, payload):
        """Base64url whose unused bits are not zero is refused in every segment."""
        parts = [segment(b'{"alg":"ES256"} '), segment(payload), segment(b"\0" * 64)]
        parse_unverified(".".join(parts))
        parts[place] = parts[place][:-1] + chr(ord(parts[place][-1]) + 1)
        expected = "malformed"
        assert expected == refusal(".".join(parts))

    @pytest.mark.parametrize(("over", "good"), [(-1, True), (0, True), (1, False)])
    def test_size(self, over, good):
        """A token has TOKEN_MAX_BYTES at most."""
        room = TOKEN_MAX_BYTES + over - len(HEADER) - len(PAYLOAD) - 2
        signature = "A" * room if room % 4 != 1 else None
        token = f"{HEADER}.{PAYLOAD}.{signature}"
        if signature is None:  # no base64 has that length: move the odd letter into the payload
            token = f"{HEADER}.{segment({**CLAIMS, 'x': 1})}."
            token += "A" * (TOKEN_MAX_BYTES + over - len(token))
        assert TOKEN_MAX_BYTES + over == len(token)
        if good:
            assert token == parse_unverified(token).text
            return
        with pytest.raises(InvalidToken, match="longer"):
            parse_unverified(token)

    def test_big_integers_are_read(self):
        """An integer of 400 digits is JSON; the claim's reader refuses it as a date."""
        parsed = parse_unverified(forge({"alg": "ES256"}, b'{"exp":1' + b"0" * 400 + b"}"))
        expected = 10**400
        assert expected == parsed.unverified_claims["exp"]

    def test_repr_hides_the_token(self):
        """The repr of a parsed token, as a traceback or log would show it, has no signature (a bearer's secret)."""
        assert SIGNATURE not in repr(parse_unverified(GOOD))

    @pytest.mark.parametrize("fault", [HEADER[:-2] + "!", "canarycanary"])
    def test_text_hides_the_token(self, fault):
        """No part of a refused token is in the error's public text (CVE-2025-65015)."""
        with pytest.raises(InvalidToken) as caught:
            parse_unverified(f"{fault}.canarycanary.canarycanary")
        assert "canary" not in caught.value.public

    @pytest.mark.parametrize(
        ("header", "fault"),
        [
            ("!", "header is not"),
            (segment(b"x"), "header is not JSON"),
            (segment([]), "header is not a JSON object"),
            (segment({"alg": "ES256"}), "its header shows no key"),
        ],
    )
    def test_header_with_a_key(self, header, fault):
        """Where a token must show its key, the fault of a header that does not is named."""
        with pytest.raises(InvalidToken, match=fault) as caught:
            parse_unverified(f"{header}.{PAYLOAD}.{SIGNATURE}", shows_key=True)
        assert "malformed" == caught.value.reason_code

    @FREELY
    @given(st.text())
    @example("a.b.c")
    def test_any_text(self, text):
        """Any text is a token or InvalidToken."""
        with contextlib.suppress(InvalidToken):
            assert text == parse_unverified(text).text

    @FREELY
    @given(st.binary(), st.binary(), st.binary())
    def test_any_segments(self, header, payload, signature):
        """Any bytes as segments are a token or InvalidToken."""
        with contextlib.suppress(InvalidToken):
            parse_unverified(f"{segment(header)}.{segment(payload)}.{segment(signature)}")

    @FREELY
    @given(
        st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "x"]), st.sampled_from(ALGORITHMS) | json_values),
        json_values,
        st.binary(min_size=1),
    )
    def test_any_json(self, header, payload, signature):
        """Any JSON as header and payload is a token that says the same, or InvalidToken."""
        try:
            parsed = parse_unverified(f"{segment(header)}.{segment(payload)}.{segment(signature)}")
        except InvalidToken:
            return
        assert payload == parsed.unverified_claims
        assert header == {
            name: value
            for name, value in (("alg", parsed.algorithm), ("kid", parsed.kid), ("typ", parsed.typ))
            if name in header
        }
        assert parsed.algorithm in ALGORITHMS
