"""jws.py: a signature is good by the algorithm and the key that it should be of, and by no other."""

import base64
import json

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fakes.jws import joined
from fakes.task_feed import signing_key
from fakes.tokenforge import (
    CLAIMS,
    FITTING,
    FREELY,
    GOOD,
    HEADER,
    KEYS,
    PAYLOAD,
    PUBLIC,
    SIGNATURE,
    forge,
    refusal,
    segment,
    sign,
)
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidToken
from sojourn.jose.jws import (
    ALGORITHMS,
    PublicKey,
    UnverifiedJws,
    parse_unverified,
)
from sojourn.limits import TOKEN_MAX_BYTES


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

    @pytest.mark.parametrize(
        "more", [{"pi.atm": "1"}, {"x5t": 1}, {"kid": "k" * 2_000}], ids=["not-known", "of-another-type", "long"]
    )
    def test_header_beside_rsa(self, more):
        """Beside a signature by an RSA key the header is short, and has what is registered alone, as it must be: each
        time, whatever was found good before.
        """
        parse_unverified(forge({"alg": "RS256"}, key="RSA-2048", algorithm="RS256")).check_signature(PUBLIC["RSA-2048"])
        parsed = parse_unverified(forge({"alg": "RS256", **more}, key="RSA-2048", algorithm="RS256"), more_headers=True)
        for _ in range(2):
            with pytest.raises(InvalidToken) as caught:
                parsed.check_signature(PUBLIC["RSA-2048"])
            assert "bad_signature" == caught.value.reason_code

    def test_long_rsa_signature(self):
        """A signature by an RSA key that takes long to check is refused: who sends a proof chooses its key."""
        one, other, exponent = 2**4253 - 1, 2**2281 - 1, 65537  # primes that need not be searched for
        secret = pow(exponent, -1, (one - 1) * (other - 1))
        parts = secret % (one - 1), secret % (other - 1), pow(other, -1, one)
        numbers = rsa.RSAPrivateNumbers(one, other, secret, *parts, rsa.RSAPublicNumbers(exponent, one * other))
        key = numbers.private_key(unsafe_skip_rsa_key_validation=True)
        text = f"{segment({'alg': 'RS256'})}.{PAYLOAD}"
        token = f"{text}.{segment(sign('RS256', key, text.encode()))}"
        with pytest.raises(InvalidToken):
            parse_unverified(token).check_signature(PublicKey.from_key("k1", key.public_key()))

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
