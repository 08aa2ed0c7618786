"""jose.py: compact JWS, strictly. One fault a case; whatever comes in, only our errors come out."""

import base64
import contextlib
import json
import math
import socket
import warnings

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fakes.jws import joined
from fakes.task_feed import signing_key
from harness.examples import examples
from hypothesis import example, given
from hypothesis import strategies as st
from joserfc.errors import SecurityWarning
from sojourn.errors import InvalidToken
from sojourn.limits import TOKEN_MAX_BYTES
from sojourn.spiffe.jose import (
    ALGORITHMS,
    PublicKey,
    Signatures,
    SigningKey,
    UnverifiedJws,
    audiences,
    numeric_date,
    parse_unverified,
)

FREELY = examples(300)
HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
KEYS = {name: ec.generate_private_key(curve) for name, curve in CURVES.items()}
KEYS["RSA-1024"] = rsa.generate_private_key(65537, 1024)
KEYS["RSA-2047"] = rsa.generate_private_key(65537, 2047)
KEYS["RSA-2048"] = rsa.generate_private_key(65537, 2048)
with warnings.catch_warnings():  # weak keys: they can be made, and fit nothing
    warnings.simplefilter("ignore", SecurityWarning)
    PUBLIC = {name: PublicKey.from_key("k1", key.public_key()) for name, key in KEYS.items()}
FITTING = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
CLAIMS = {"sub": "spiffe://example.org/web", "exp": 1}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def segment(value):
    """Text, bytes, or a JSON value as a segment of a token."""
    raw = (
        value
        if isinstance(value, bytes)
        else json.dumps(value).encode()
        if not isinstance(value, str)
        else value.encode()
    )
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(algorithm, key, signed):
    """A signature by the algorithm, made without any JOSE library."""
    digest = HASHES[algorithm[2:]]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(digest)))
        size = (key.key_size + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    if algorithm.startswith("PS"):
        return key.sign(signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    return key.sign(signed, padding.PKCS1v15(), digest)


def forge(header, payload=CLAIMS, *, key="P-256", algorithm="ES256"):
    """A token with this header and payload and a signature that is good by `algorithm`."""
    text = f"{segment(header)}.{segment(payload)}"
    return f"{text}.{segment(sign(algorithm, KEYS[key], text.encode()))}"


def refusal(token):
    """The reason for which a token is refused before its signature is looked at."""
    with pytest.raises(InvalidToken) as caught:
        parse_unverified(token)
    return caught.value.reason_code


GOOD = forge({"alg": "ES256", "kid": "k1", "typ": "JWT"})
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")


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


class TestCheckSignature:
    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    @pytest.mark.parametrize("name", KEYS)
    def test_algorithm_and_key(self, algorithm, name):
        """An algorithm goes with its curve or with RSA of 2048 bits and more, and with no other key."""
        fits = name == FITTING.get(algorithm, "RSA-2048")
        assert fits == PUBLIC[name].fits(algorithm)
        made = PUBLIC[name].fits(algorithm) or algorithm.startswith("ES") != name.startswith("RSA")
        if not made or (name, algorithm) == ("RSA-1024", "PS512"):  # no such signature exists: take any
            token = f"{segment({'alg': algorithm})}.{PAYLOAD}.{SIGNATURE}"
        else:
            token = forge({"alg": algorithm}, key=name, algorithm=algorithm)
        if fits:
            parse_unverified(token).check_signature(PUBLIC[name])
            return
        with pytest.raises(InvalidToken) as caught:
            parse_unverified(token).check_signature(PUBLIC[name])
        expected = "bad_algorithm"
        assert expected == caught.value.reason_code

    @pytest.mark.parametrize(
        ("said", "done"),
        [(said, done) for said in ALGORITHMS for done in ALGORITHMS if said != done and "E" not in said + done],
    )
    def test_padding_and_hash_as_said(self, said, done):
        """A signature by another padding or hash than the header names is refused."""
        token = forge({"alg": said}, key="RSA-2048", algorithm=done)
        with pytest.raises(InvalidToken) as caught:
            parse_unverified(token).check_signature(PUBLIC["RSA-2048"])
        expected = "bad_signature"
        assert expected == caught.value.reason_code

    @pytest.mark.parametrize("form", ["pem", "der", "jwk", "ssh"])
    @pytest.mark.parametrize("name", ["P-256", "RSA-2048"])
    def test_hmac_with_the_public_key(self, name, form):
        """A MAC keyed with the text of the public key is refused (CVE-2022-29217, CVE-2024-33663)."""
        public = KEYS[name].public_key()
        secret = {
            "pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "ssh": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
            "jwk": json.dumps(dict(PUBLIC[name].jwk)).encode(),
        }[form]
        text = f"{segment({'alg': 'HS256', 'kid': 'k1'})}.{PAYLOAD}"
        mac = hmac.HMAC(secret, hashes.SHA256())
        mac.update(text.encode())
        token = f"{text}.{segment(mac.finalize())}"
        expected = "bad_algorithm"
        assert expected == refusal(token)
        with pytest.raises(InvalidToken):  # even past the parser
            UnverifiedJws(token, "HS256", "k1", None, CLAIMS).check_signature(PUBLIC[name])

    def test_none_past_the_parser(self):
        """A token with algorithm none would not get through the check either."""
        token = f"{segment({'alg': 'none'})}.{PAYLOAD}."
        with pytest.raises(InvalidToken):
            UnverifiedJws(token, "none", None, None, CLAIMS).check_signature(PUBLIC["P-256"])

    def test_header_of_the_text_counts(self):
        """The algorithm that is checked is the one in the signed text (CVE-2026-48523)."""
        token = forge({"alg": "RS512"}, key="RSA-2048", algorithm="RS256")
        with pytest.raises(InvalidToken):
            UnverifiedJws(token, "RS256", None, None, CLAIMS).check_signature(PUBLIC["RSA-2048"])

    def test_key_with_an_algorithm(self):
        """A key whose JWK names an algorithm checks signatures by no other (RFC 7517 4.4, CVE-2026-48523)."""
        key = PublicKey.from_jwk({**PUBLIC["RSA-2048"].jwk, "alg": "PS512"})
        parse_unverified(forge({"alg": "PS512"}, key="RSA-2048", algorithm="PS512")).check_signature(key)
        with pytest.raises(InvalidToken):
            parse_unverified(forge({"alg": "RS256"}, key="RSA-2048", algorithm="RS256")).check_signature(key)

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda raw: b"\0" * 64, id="zeros-CVE-2022-21449"),
            pytest.param(lambda raw: raw[:32] + b"\0" * 32, id="s-zero"),
            pytest.param(lambda raw: b"\0" * 32 + raw[32:], id="r-zero"),
            pytest.param(lambda raw: raw[:-1], id="short"),
            pytest.param(lambda raw: raw + b"\0", id="long"),
            pytest.param(lambda raw: b"\0" + raw[:32] + b"\0" + raw[32:], id="widened"),
            pytest.param(lambda raw: raw[32:] + raw[:32], id="halves-swapped"),
            pytest.param(lambda raw: raw * 2, id="doubled"),
            pytest.param(lambda raw: b"\0", id="one-byte"),
            pytest.param(
                lambda raw: KEYS["P-256"].sign(f"{HEADER}.{PAYLOAD}".encode(), ec.ECDSA(hashes.SHA256())), id="der"
            ),
        ],
    )
    def test_ecdsa_signature_form(self, change):
        """An ECDSA signature that is not just r and s of the curve's size, both in range, is refused."""
        raw = base64.urlsafe_b64decode(SIGNATURE + "==")
        with pytest.raises(InvalidToken) as caught:
            parse_unverified(f"{HEADER}.{PAYLOAD}.{segment(change(raw))}").check_signature(PUBLIC["P-256"])
        expected = "bad_signature"
        assert expected == caught.value.reason_code

    def test_other_key(self):
        """A signature by another key of the same kind and kid is refused."""
        other = PublicKey.from_key("k1", ec.generate_private_key(ec.SECP256R1()).public_key())
        with pytest.raises(InvalidToken) as caught:
            parse_unverified(GOOD).check_signature(other)
        expected = "bad_signature"
        assert expected == caught.value.reason_code

    def test_every_letter_counts(self):
        """A token with any one letter changed is refused."""
        for position, letter in enumerate(GOOD):
            changed = GOOD[:position] + ("A" if letter != "A" else "B") + GOOD[position + 1 :]
            with pytest.raises(InvalidToken):
                parse_unverified(changed).check_signature(PUBLIC["P-256"])

    def test_every_length_counts(self):
        """A token cut short anywhere is refused."""
        for length in range(len(GOOD)):
            with pytest.raises(InvalidToken):
                parse_unverified(GOOD[:length]).check_signature(PUBLIC["P-256"])

    def test_large_payload(self):
        """A token of nearly TOKEN_MAX_BYTES is checked like any other."""
        token = forge({"alg": "ES256"}, {**CLAIMS, "x": "a" * 11_500})
        assert 15_000 < len(token) < TOKEN_MAX_BYTES
        parse_unverified(token).check_signature(PUBLIC["P-256"])

    @FREELY
    @given(st.sampled_from(ALGORITHMS), st.binary(min_size=1, max_size=600), st.sampled_from(sorted(PUBLIC)))
    def test_any_signature(self, algorithm, signature, name):
        """Bytes that are no signature are InvalidToken with every algorithm and key."""
        token = f"{segment({'alg': algorithm})}.{PAYLOAD}.{segment(signature)}"
        with pytest.raises(InvalidToken):
            parse_unverified(token).check_signature(PUBLIC[name])


class TestPublicKey:
    @pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
    @pytest.mark.parametrize("name", KEYS)
    def test_round_trip(self, name):
        """A key made of its own JWK has the same JWK."""
        key = PUBLIC[name]
        assert dict(key.jwk) == dict(PublicKey.from_jwk(json.loads(json.dumps(dict(key.jwk)))).jwk)

    @pytest.mark.parametrize("name", KEYS)
    def test_jwk_is_public(self, name):
        """A key's JWK has the public members and kid, and no others."""
        expected = {"kid", "kty", "n", "e"} if name.startswith("RSA") else {"kid", "kty", "crv", "x", "y"}
        assert expected == set(PUBLIC[name].jwk)

    def test_kid_is_as_given(self):
        """A key's id is the one it was given, in its JWK too."""
        kid = "key \u00e4 of ours"
        key = PublicKey.from_key(kid, KEYS["P-256"].public_key())
        assert (kid, kid) == (key.kid, key.jwk["kid"])

    @pytest.mark.parametrize(("name", "algorithm"), [("P-256", "ES256"), ("RSA-2048", "PS256")])
    def test_algorithm_is_as_given(self, name, algorithm):
        """A key of a stated algorithm is for that one alone, and has the id that it was given."""
        key = PublicKey.from_key("k7", KEYS[name].public_key(), algorithm)
        assert ("k7", "k7", algorithm) == (key.kid, key.jwk["kid"], key.algorithm)
        assert [algorithm] == [each for each in ALGORITHMS if key.fits(each)]

    def test_says_why_in_the_log(self):
        """What the library said of a key, or of a signature, is in the error's detail."""
        with pytest.raises(InvalidToken) as caught:
            PublicKey.from_jwk({**PUBLIC["P-256"].jwk, "x": "AA"})
        assert caught.value.detail == str(caught.value.__cause__) != ""
        with pytest.raises(InvalidToken) as caught:
            parse_unverified(f"{HEADER}.{PAYLOAD}.{segment(b'short')}").check_signature(PUBLIC["P-256"])
        assert "signature has a wrong length" == caught.value.detail

    @pytest.mark.parametrize("name", ["use", "key_ops", "x5c", "foo"])
    def test_drops_other_members(self, name):
        """Members that are neither the key's nor kid are not kept."""
        key = PublicKey.from_jwk({**PUBLIC["P-256"].jwk, name: ["sig"]})
        assert name not in key.jwk

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param({"kid": None}, id="kid-null"),
            pytest.param({"kid": ""}, id="kid-empty"),
            pytest.param({"kid": 1}, id="kid-number"),
            pytest.param({"kid": ["k1"]}, id="kid-list"),
            pytest.param({"kty": None}, id="kty-null"),
            pytest.param({"kty": "oct", "k": "AAAA"}, id="symmetric"),
            pytest.param({"kty": "OKP", "crv": "Ed25519"}, id="ed25519"),
            pytest.param({"kty": "ec"}, id="kty-case"),
            pytest.param({"kty": "RSA"}, id="kty-of-another-kind"),
            pytest.param({"kty": ["EC"]}, id="kty-list"),
            pytest.param({"kty": {"EC": 1}}, id="kty-object"),
            pytest.param({"d": "AAAA"}, id="private"),
            pytest.param({"d": None}, id="private-null"),
            pytest.param({"crv": "P-384"}, id="curve-of-another-size"),
            pytest.param({"crv": "P-192"}, id="curve-too-small"),
            pytest.param({"crv": "secp256k1"}, id="curve-of-no-allowed-algorithm"),
            pytest.param({"crv": "Ed25519"}, id="curve-of-another-kind"),
            pytest.param({"crv": ["P-256"]}, id="curve-list"),
            pytest.param({"crv": None}, id="curve-null"),
            pytest.param({"x": PUBLIC["P-256"].jwk["y"]}, id="not-on-the-curve-CVE-2015-6924"),
            pytest.param({"x": "", "y": ""}, id="empty-point"),
            pytest.param({"x": "AA", "y": "AA"}, id="zero-point"),
            pytest.param({"x": 1}, id="x-number"),
            pytest.param({"x": None}, id="x-null"),
            pytest.param({"x": "!"}, id="x-not-base64"),
            pytest.param({"x": "\u00e4"}, id="x-not-ascii"),
        ],
    )
    def test_bad_ec(self, change):
        """An EC JWK with one fault is refused as a key."""
        with pytest.raises(InvalidToken) as caught:
            PublicKey.from_jwk({**PUBLIC["P-256"].jwk, **change})
        expected = "invalid_key"
        assert expected == caught.value.reason_code

    @pytest.mark.parametrize("curve", [ec.SECP256K1, ec.SECP192R1, ec.SECP224R1, ec.BrainpoolP256R1])
    def test_other_curves(self, curve):
        """A key of a curve that no allowed algorithm has is refused, however it comes."""
        with pytest.raises(InvalidToken) as caught:
            PublicKey.from_key("k1", ec.generate_private_key(curve()).public_key())
        expected = "invalid_key"
        assert expected == caught.value.reason_code

    @pytest.mark.parametrize("name", ["kid", "kty", "crv", "x", "y"])
    def test_ec_member_missing(self, name):
        """An EC JWK without one of its members is refused."""
        with pytest.raises(InvalidToken):
            PublicKey.from_jwk({key: value for key, value in PUBLIC["P-256"].jwk.items() if key != name})

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param({"d": "AQAB"}, id="private-exponent"),
            pytest.param({"p": "AQAB", "q": "AQAB"}, id="primes"),
            pytest.param({"e": "AQ"}, id="exponent-1"),
            pytest.param({"e": "Ag"}, id="exponent-even"),
            pytest.param({"e": ""}, id="exponent-empty"),
            pytest.param({"n": ""}, id="modulus-empty"),
            pytest.param({"n": "AA"}, id="modulus-zero"),
            pytest.param({"n": 1}, id="modulus-number"),
            pytest.param({"n": ["AQAB"]}, id="modulus-list"),
        ],
    )
    def test_bad_rsa(self, change):
        """An RSA JWK with one fault is refused as a key."""
        with pytest.raises(InvalidToken) as caught:
            PublicKey.from_jwk({**PUBLIC["RSA-2048"].jwk, **change})
        expected = "invalid_key"
        assert expected == caught.value.reason_code

    @FREELY
    @given(
        st.fixed_dictionaries(
            {},
            optional={
                "kid": st.just("k1") | json_values,
                "kty": st.sampled_from(["EC", "RSA"]) | json_values,
                "crv": st.sampled_from([*CURVES, "secp256k1"]) | json_values,
                "x": st.just(PUBLIC["P-256"].jwk["x"]) | json_values,
                "y": st.just(PUBLIC["P-256"].jwk["y"]) | json_values,
                "n": st.just(PUBLIC["RSA-2048"].jwk["n"]) | json_values,
                "e": st.just("AQAB") | json_values,
                "use": json_values,
                "alg": st.sampled_from(ALGORITHMS) | json_values,
            },
        )
    )
    def test_any_jwk(self, jwk):
        """Any JSON object is a key with the same id, or InvalidToken."""
        with contextlib.suppress(InvalidToken):
            assert jwk.get("kid") == PublicKey.from_jwk(jwk).kid

    def test_repr_is_public(self):
        """A public key's repr has its JWK only."""
        assert "ECKey" not in repr(PUBLIC["P-256"])

    @pytest.mark.parametrize("name", KEYS)
    @pytest.mark.parametrize("algorithm", ["none", "HS256", "EdDSA", "ES256K", "", "RS1"])
    def test_fits_no_other_algorithm(self, name, algorithm):
        """No key goes with an algorithm that is not on the list."""
        assert not (PUBLIC[name].fits(algorithm) and algorithm in ALGORITHMS)

    @pytest.mark.parametrize("exponent", [2**32 + 1, 2**2040 - 1])
    def test_rsa_that_takes_long(self, exponent):
        """An RSA key whose exponent makes checking slow checks nothing: who sends a proof chooses the key of it."""
        e = base64.urlsafe_b64encode(exponent.to_bytes(256, "big").lstrip(b"\0")).rstrip(b"=").decode()
        key = PublicKey.from_jwk({**PUBLIC["RSA-2048"].jwk, "e": e})
        assert not any(key.fits(algorithm) for algorithm in ALGORITHMS)


class TestSigningKey:
    KEY = SigningKey.from_private("k1", KEYS["P-256"])

    def test_signs_what_it_is_given(self):
        """A signed token parses to the same claims, kid and typ, and its signature is good."""
        claims = {"sub": "spiffe://example.org/web", "name": "\u00e4 \u4e16 \U0001f600", "n": 2**60}
        parsed = parse_unverified(self.KEY.sign(claims, typ="JWT"))
        parsed.check_signature(self.KEY.public)
        assert claims == parsed.unverified_claims
        expected = ("ES256", "k1", "JWT")
        assert expected == (parsed.algorithm, parsed.kid, parsed.typ)

    def test_generated(self):
        """A new key is one of P-256 for ES256, with the id that it was given, and signs under it."""
        made, other = SigningKey.generate("k8"), SigningKey.generate("k8")
        assert ("k8", "ES256", "k8", "P-256") == (made.kid, made.algorithm, made.public.kid, made.public.jwk["crv"])
        assert "k8" == parse_unverified(made.sign({}, typ="JWT")).kid
        assert made.public.thumbprint != other.public.thumbprint

    @pytest.mark.parametrize(("name", "algorithm"), [("P-256", "ES256"), ("RSA-2048", "RS256")])
    def test_for_one_algorithm(self, name, algorithm):
        """What a key signs says its id and its one algorithm, and its public half is for that one alone."""
        key = SigningKey.from_private("k9", KEYS[name])
        token = parse_unverified(key.sign(CLAIMS, typ="JWT"))
        token.check_signature(key.public)
        assert ("k9", algorithm, algorithm) == (token.kid, token.algorithm, key.algorithm)
        assert ("k9", algorithm) == (key.public.kid, key.public.algorithm)

    def test_header_has_three_members(self):
        """The header of a signed token has alg, kid and typ, and no other (JWT-SVID.md 2)."""
        header = self.KEY.sign({}, typ="JWT").split(".")[0]
        expected = {"alg": "ES256", "kid": "k1", "typ": "JWT"}
        assert expected == json.loads(base64.urlsafe_b64decode(header + "=="))

    def test_repr_hides_the_key(self):
        """A signing key's repr does not have the private number."""
        secret = KEYS["P-256"].private_numbers().private_value
        text = repr(self.KEY)
        assert str(secret) not in text
        assert base64.urlsafe_b64encode(secret.to_bytes(32, "big")).rstrip(b"=").decode() not in text
        assert "d" not in self.KEY.public.jwk

    @examples(50)
    @given(st.dictionaries(st.text(max_size=10), st.text(max_size=50) | st.integers() | st.booleans(), max_size=8))
    def test_round_trip(self, claims):
        """Whatever claims are signed, the same come out."""
        parsed = parse_unverified(self.KEY.sign(claims, typ="JWT"))
        parsed.check_signature(self.KEY.public)
        assert claims == parsed.unverified_claims


class TestRsaSigningKey:
    """Of an RSA key: by RS256 and nothing else."""

    KEY = SigningKey.from_private("k1", KEYS["RSA-2048"])

    def test_signs(self):
        """What it signs says RS256, and its public key verifies it."""
        token = parse_unverified(self.KEY.sign(CLAIMS, typ="JWT"))
        token.check_signature(self.KEY.public)
        assert ("RS256", "RS256", CLAIMS) == (token.algorithm, self.KEY.algorithm, token.unverified_claims)

    @pytest.mark.parametrize("algorithm", [each for each in ALGORITHMS if each != "RS256"])
    def test_its_algorithm_is_its_own(self, algorithm):
        """No signature by another algorithm is its, though the same key could make some of them."""
        assert not self.KEY.public.fits(algorithm)

    def test_repr_hides_the_key(self):
        """Neither the key nor a private member shows."""
        assert str(KEYS["RSA-2048"].private_numbers().d) not in repr(self.KEY)


class TestNumericDate:
    @pytest.mark.parametrize("value", [0, 1, 1.5, 1_893_456_000, 2**53, 0.0, float(2**53)])
    def test_good(self, value):
        """A number from 0 to 2**53 is a date."""
        assert float(value) == numeric_date({"exp": value}, "exp")

    def test_absent(self):
        """A claim that is absent is no date."""
        assert numeric_date({"iat": 1}, "exp") is None

    @pytest.mark.parametrize(
        "value",
        [
            *(
                None,
                True,
                False,
                "",
                "1",
                "1893456000",
                "1e9",
                [],
                [1],
                {},
                {"a": 1},
                -1,
                -0.5,
                2**53 + 1,
                1e17,
                10**400,
            ),
            *(-(10**400), math.nan, math.inf, -math.inf),
        ],
        ids=lambda value: repr(value)[:20],
    )
    def test_bad(self, value):
        """Any other type or range is refused, null and truth values among them."""
        with pytest.raises(InvalidToken) as caught:
            numeric_date({"exp": value}, "exp")
        expected = "malformed"
        assert expected == caught.value.reason_code

    @FREELY
    @given(json_values)
    def test_any_json(self, value):
        """Any JSON value is a finite number in range, or InvalidToken."""
        try:
            date = numeric_date({"exp": value}, "exp")
        except InvalidToken:
            return
        assert isinstance(date, float)
        assert 0 <= date <= 2**53
        assert not isinstance(value, bool)


class TestAudiences:
    @pytest.mark.parametrize(
        ("claims", "expected"),
        [
            pytest.param({}, (), id="absent"),
            pytest.param({"aud": []}, (), id="empty-list"),
            pytest.param({"aud": "a"}, ("a",), id="string"),
            pytest.param({"aud": ["a"]}, ("a",), id="list-of-one"),
            pytest.param({"aud": ["b", "a"]}, ("b", "a"), id="list-in-its-order"),
            pytest.param({"aud": " A/\u00e4 "}, (" A/\u00e4 ",), id="byte-for-byte"),
        ],
    )
    def test_good(self, claims, expected):
        """The audience is a string or a list of strings, taken as it stands."""
        assert expected == audiences(claims)

    @pytest.mark.parametrize(
        "value",
        [None, True, 1, 1.5, {}, {"a": 1}, "", [""], ["a", ""], [None], ["a", 1], [["a"]], [{}]],
        ids=repr,
    )
    def test_bad(self, value):
        """Any other type, and the empty string, is refused."""
        with pytest.raises(InvalidToken) as caught:
            audiences({"aud": value})
        expected = "malformed"
        assert expected == caught.value.reason_code

    @FREELY
    @given(json_values)
    def test_any_json(self, value):
        """Any JSON value is a tuple of texts that are not empty, or InvalidToken."""
        try:
            named = audiences({"aud": value})
        except InvalidToken:
            return
        assert all(isinstance(each, str) and each for each in named)


class TestSignatures:
    def test_once_for_the_same_token_and_key(self, monkeypatch):
        """A signature that was found good is not checked again: for the very same text and key, and for no other."""
        signatures, checked = Signatures(), []
        real = UnverifiedJws.check_signature
        monkeypatch.setattr(UnverifiedJws, "check_signature", lambda self, key: (checked.append(self), real(self, key)))
        key, other = signing_key("k1"), signing_key("k1")
        parsed = parse_unverified(key.sign({"a": 1}, typ="JWT"))
        signatures.check(parsed, key.public)
        signatures.check(parse_unverified(parsed.text), key.public)
        assert 1 == len(checked)
        forged = parse_unverified(parsed.text.rpartition(".")[0] + "." + "A" * 86)
        for jws, by in ((parsed, other.public), (forged, key.public), (forged, key.public)):
            with pytest.raises(InvalidToken):
                signatures.check(jws, by)
        assert 4 == len(checked)

    def test_of_a_token_that_was_just_made(self, monkeypatch):
        """What was signed here need not be checked, by the key that signed it; by another it is, and is not good."""
        signatures, key, other = Signatures(), signing_key("k1"), signing_key("k1")
        parsed = parse_unverified(key.sign({"a": 1}, typ="JWT"))
        signatures.made(parsed.text, key.public)
        with monkeypatch.context() as patch:
            patch.setattr(UnverifiedJws, "check_signature", lambda self, key: pytest.fail("it was checked"))
            signatures.check(parsed, key.public)
        with pytest.raises(InvalidToken):
            signatures.check(parsed, other.public)

    def test_bounded(self, monkeypatch):
        """The tokens that were seen last are remembered, and no more of them than there is room for."""
        signatures, key = Signatures(2), signing_key("k1")
        parsed = [parse_unverified(key.sign({"a": number}, typ="JWT")) for number in range(3)]
        for each in (parsed[0], parsed[1], parsed[0], parsed[2]):
            signatures.check(each, key.public)
        assert 2 == len(signatures)
        checked = []
        monkeypatch.setattr(UnverifiedJws, "check_signature", lambda self, _: checked.append(self))
        for each in (parsed[0], parsed[2]):
            signatures.check(each, key.public)
        assert [] == checked
        signatures.check(parsed[1], key.public)
        assert [parsed[1]] == checked

    def test_read_once(self):
        """What came back with a good signature is read once for its text; a forged or a changed text is read anew."""
        signatures, key, other = Signatures(read=2), signing_key("k1"), signing_key("k1")
        text = key.sign({"a": 1}, typ="JWT")
        first = signatures.parse_unverified(text)
        with pytest.raises(InvalidToken):
            signatures.check(first, other.public)
        assert first is not signatures.parse_unverified(text)
        signatures.check(first, key.public)
        assert first is signatures.parse_unverified(text)
        with pytest.raises(InvalidToken):  # that it was read says nothing of another key
            signatures.check(signatures.parse_unverified(text), other.public)
        forged = text.rpartition(".")[0] + "." + "A" * 86
        with pytest.raises(InvalidToken):
            signatures.check(signatures.parse_unverified(forged), key.public)
        for number in range(2):
            signatures.check(parse_unverified(key.sign({"b": number}, typ="JWT")), key.public)
        assert first is not signatures.parse_unverified(text)

    @pytest.mark.parametrize("name", ["kid", "typ"])
    def test_null_header(self, name):
        """A header that is there and null is refused."""
        key = signing_key("k1")
        header = {"alg": "ES256", "kid": "k1", "typ": "JWT", name: None}
        with pytest.raises(InvalidToken) as caught:
            parse_unverified(joined(header, b"{}", key))
        assert "malformed" == caught.value.reason_code

    @pytest.mark.parametrize("segment", ["e", "e30=", "e3+/", "e3 0", "e31", "e3\u00e90", "", "e30\n"])
    def test_not_base64url(self, segment):
        """What is not base64url, or not the one way to write its bytes, is refused in every place."""
        good = signing_key("k1").sign({}, typ="JWT").split(".")
        for place in range(3):
            with pytest.raises(InvalidToken):
                parse_unverified(".".join([*good[:place], segment, *good[place + 1 :]]))
