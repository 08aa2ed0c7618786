"""jws.py: keys that are taken, made, shown and refused."""

import base64
import contextlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.tokenforge import CLAIMS, CURVES, FREELY, HEADER, KEYS, PAYLOAD, PUBLIC, json_values, segment
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidToken
from sojourn.jose.jws import (
    ALGORITHMS,
    PublicKey,
    SigningKey,
    parse_unverified,
)


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

    @pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
    @pytest.mark.parametrize("name", KEYS)
    @pytest.mark.parametrize("zeros", [1, 40])
    def test_one_thumbprint(self, name, zeros):
        """A key has one JWK and one thumbprint, also if it comes with zeros before its numbers (RFC 7518, 6.2.1.2 and 2):
        whoever proves to hold it is not another one each time.
        """
        key = PUBLIC[name]
        numbers = {each: key.jwk[each] for each in ("x", "y", "n", "e") if each in key.jwk}
        padded = {each: segment(bytes(zeros) + base64.urlsafe_b64decode(text + "==")) for each, text in numbers.items()}
        again = PublicKey.from_jwk({**key.jwk, **padded})
        assert (key.thumbprint, dict(key.jwk)) == (again.thumbprint, dict(again.jwk))

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
