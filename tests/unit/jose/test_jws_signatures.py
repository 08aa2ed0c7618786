"""jws.py: a signature is good by the algorithm and the key that it should be of, and by no other."""

import base64
import json

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec
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
)
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidToken
from sojourn.jose.jws import (
    ALGORITHMS,
    PublicKey,
    Signatures,
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
