"""dpop.py: proofs of possession (RFC 9449), made and read. One fault a case."""

import base64
import hashlib
import hmac
import json
import warnings
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from fakes.jws import encoded, joined
from joserfc import jws as library
from joserfc.jwk import ECKey, OKPKey, RSAKey
from sojourn.errors.oauth import InvalidProof
from sojourn.jose.jws import SigningKey
from sojourn.limits import DPOP_AGE_SECONDS, DPOP_JTI_MAX, DPOP_SKEW_SECONDS
from sojourn.tasktoken import dpop

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
KEY = SigningKey.from_private("k1", ec.generate_private_key(ec.SECP256R1()))
OTHER = SigningKey.from_private("k1", ec.generate_private_key(ec.SECP256R1()))
URL = "https://tickets.example.org/tickets/42"
JWK = {name: value for name, value in KEY.public.jwk.items() if name != "kid"}
LARGE = library.JWSRegistry(algorithms=["ES384", "PS256"])
LARGE.max_header_length = 4096
CLAIMS = {"jti": "j1", "htm": "GET", "htu": URL, "iat": SECONDS}


def proof(changes=None, *, without=None, header=None, key=KEY, headers_without=None):
    claims = {**CLAIMS, **(changes or {})}
    claims.pop(without, None)
    head = {"alg": "ES256", "typ": "dpop+jwt", "jwk": JWK, **(header or {})}
    head.pop(headers_without, None)
    return joined(head, json.dumps(claims).encode(), key)


def read(text, *, method="GET", url=URL, now=NOW, token=None):
    return dpop.read(text, method=method, url=url, now=now, token=token)


def refusal(text, **arguments):
    with pytest.raises(InvalidProof) as caught:
        read(text, **arguments)
    assert "invalid_dpop_proof" == caught.value.oauth_error
    return caught.value.reason_code


class TestMade:
    def test_is_read(self):
        """A proof that we make is read for the same request, and is its key's."""
        text = dpop.make(KEY, method="POST", url=URL + "?a=1#b", now=NOW, token="t", nonce="n")
        found = read(text, method="POST", token="t")
        assert (KEY.public.thumbprint, "n", SECONDS) == (found.jkt, found.nonce, found.issued_at)

    def test_by_an_independent_reader(self):
        """Header and claims are those of RFC 9449, 4.2, and a stock library checks the signature."""
        text = dpop.make(KEY, method="POST", url=URL + "?a=1", now=NOW, token="t")
        found = library.deserialize_compact(text, ECKey.import_key(JWK), algorithms=["ES256"])
        assert {"alg": "ES256", "typ": "dpop+jwt", "jwk": JWK} == found.headers()
        claims = json.loads(found.payload)
        assert 22 == len(claims.pop("jti"))  # 128 random bits
        ath = base64.urlsafe_b64encode(hashlib.sha256(b"t").digest()).decode().rstrip("=")
        assert {"htm": "POST", "htu": URL, "iat": SECONDS, "ath": ath} == claims

    def test_each_differs(self):
        """Two proofs for the same request have different ids."""
        assert (
            read(dpop.make(KEY, method="GET", url=URL, now=NOW)).jti
            != read(dpop.make(KEY, method="GET", url=URL, now=NOW)).jti
        )

    def test_thumbprint_of_the_standard(self):
        """The thumbprint is that of RFC 7638: SHA-256 over the required members in order."""
        members = {name: JWK[name] for name in ("crv", "kty", "x", "y")}
        text = json.dumps(members, separators=(",", ":"), sort_keys=True)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        assert digest == KEY.public.thumbprint == read(proof()).jkt


class TestRead:
    def test_other_algorithms(self):
        """Proofs by other keys of the closed list are read too: P-384, RSA."""
        for key, algorithm in (
            (ECKey.import_key(ec.generate_private_key(ec.SECP384R1())), "ES384"),
            (RSAKey.import_key(rsa.generate_private_key(65537, 2048)), "PS256"),
        ):
            header = {"alg": algorithm, "typ": "dpop+jwt", "jwk": key.as_dict(private=False)}
            text = library.serialize_compact(header, json.dumps(CLAIMS).encode(), key, registry=LARGE)
            assert key.thumbprint() == read(text).jkt

    @pytest.mark.parametrize("url", [URL + "?x=1", URL + "#f", URL + "?x=1#f"])
    def test_query_does_not_count(self, url):
        """Query and fragment are no part of what is compared, on either side."""
        assert read(proof({"htu": url})) == read(proof(), url=url)

    @pytest.mark.parametrize("seconds", [-DPOP_AGE_SECONDS, -1, 0, DPOP_SKEW_SECONDS])
    def test_of_now(self, seconds):
        """A proof is good for a minute, and for a clock that runs a little ahead."""
        assert read(proof({"iat": SECONDS + seconds}))

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"htm": "POST"}, "wrong_method"),
            ({"htm": "get"}, "wrong_method"),
            ({"htm": None}, "wrong_method"),
            ({"htu": "https://tickets.example.org/tickets/43"}, "wrong_url"),
            ({"htu": "https://tickets.example.org/tickets/42/"}, "wrong_url"),
            ({"htu": "https://tickets.example.org/tickets/%34%32"}, "wrong_url"),
            ({"htu": "https://tickets.example.org/Tickets/42"}, "wrong_url"),
            ({"htu": "HTTPS://tickets.example.org/tickets/42"}, "wrong_url"),
            ({"htu": "https://tickets.example.org:443/tickets/42"}, "wrong_url"),
            ({"htu": "http://tickets.example.org/tickets/42"}, "wrong_url"),
            ({"htu": "https://tickets.example.org"}, "wrong_url"),
            ({"htu": [URL]}, "wrong_url"),
            ({"htu": None}, "wrong_url"),
            ({"iat": SECONDS - DPOP_AGE_SECONDS - 1}, "not_of_now"),
            ({"iat": SECONDS + DPOP_SKEW_SECONDS + 1}, "not_of_now"),
            ({"iat": str(SECONDS)}, "malformed"),
            ({"iat": True}, "malformed"),
            ({"iat": -1}, "malformed"),
            ({"iat": None}, "malformed"),
            ({"jti": ""}, "malformed"),
            ({"jti": 1}, "malformed"),
            ({"jti": "x" * (DPOP_JTI_MAX + 1)}, "malformed"),
            ({"jti": "x"}, None),
            ({"jti": "x" * DPOP_JTI_MAX}, None),
            ({"nonce": 1}, "malformed"),
            ({"nonce": None}, None),
        ],
    )
    def test_claims(self, changes, reason):
        """Each claim that is not the request's, or not of its type, is refused with its reason."""
        if reason is None:
            assert read(proof(changes))
        else:
            assert reason == refusal(proof(changes))

    @pytest.mark.parametrize("name", ["jti", "iat", "htm", "htu"])
    def test_claim_missing(self, name):
        """A proof that lacks a claim is refused."""
        assert refusal(proof(without=name)) in {"malformed", "wrong_method", "wrong_url"}

    @pytest.mark.parametrize("ath", [None, "", dpop.digest("other"), dpop.digest("t") + "=", [dpop.digest("t")]])
    def test_ath(self, ath):
        """With an access token its digest must be in the proof."""
        assert "wrong_token" == refusal(proof({"ath": ath}), token="t")
        assert "wrong_token" == refusal(proof(), token="t")

    def test_private_key(self):
        """A key that is shown with its private part is refused: whoever reads the log has it too."""
        private = {**JWK, "d": encoded(b"\1" * 32)}
        assert "invalid_key" == refusal(proof(header={"jwk": private}))

    def test_symmetric(self):
        """A symmetric key, and HMAC by any key, are refused."""
        secret = {"kty": "oct", "k": encoded(b"s" * 32)}
        assert "invalid_key" == refusal(proof(header={"jwk": secret}))
        head = encoded(json.dumps({"alg": "HS256", "typ": "dpop+jwt", "jwk": secret}).encode())
        text = f"{head}.{encoded(json.dumps(CLAIMS).encode())}"
        signed = f"{text}.{encoded(hmac.digest(b's' * 32, text.encode(), 'sha256'))}"
        assert "bad_algorithm" == refusal(signed)

    @pytest.mark.parametrize(
        "header",
        [
            {"alg": "none"},
            {"alg": "None"},
            {"alg": "HS256"},
            {"alg": "EdDSA"},
            {"alg": "ES384"},
            {"alg": "RS256"},
            {"typ": None},
            {"jwk": None},
            {"jwk": []},
            {"jwk": "x"},
            {"jwk": {}},
            {"jwk": {"kty": "EC"}},
            {"jwk": {**JWK, "crv": "P-384"}},
            {"jwk": {**JWK, "x": encoded(b"\0" * 32)}},
            {"kid": 1},
            {"crit": ["b64"], "b64": False},
            {"x5c": ["MII"]},
            {"jku": "https://evil.example"},
        ],
    )
    def test_header(self, header):
        """Each header that is not a proof's is refused."""
        assert refusal(proof(header=header))

    @pytest.mark.parametrize("typ", ["at+jwt", "JWT", "DPOP+JWT", ""])
    def test_type(self, typ):
        """A token of another type is no proof."""
        assert "wrong_type" == refusal(proof(header={"typ": typ}))

    @pytest.mark.parametrize("name", ["alg", "typ", "jwk"])
    def test_header_missing(self, name):
        """A proof without one of its headers is refused."""
        assert refusal(proof(headers_without=name))

    def test_ed25519(self):
        """A key of a kind out of the closed list is refused."""
        private = ed25519.Ed25519PrivateKey.generate()
        jwk = OKPKey.import_key(private).as_dict(private=False)
        head = encoded(json.dumps({"alg": "EdDSA", "typ": "dpop+jwt", "jwk": jwk}).encode())
        text = f"{head}.{encoded(json.dumps(CLAIMS).encode())}"
        assert "bad_algorithm" == refusal(f"{text}.{encoded(private.sign(text.encode()))}")

    def test_short_rsa(self):
        """An RSA key of less than 2048 bits is refused."""
        private = rsa.generate_private_key(65537, 1024)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            key = RSAKey.import_key(private)
        header = {"alg": "RS256", "typ": "dpop+jwt", "jwk": key.as_dict(private=False)}
        text = library.serialize_compact(header, json.dumps(CLAIMS).encode(), key, algorithms=["RS256"])
        assert "bad_algorithm" == refusal(text)

    def test_signature_of_another(self):
        """A proof that another key than the one that it shows has signed is refused."""
        assert "bad_signature" == refusal(proof(key=OTHER))

    @pytest.mark.parametrize(
        "text", ["", ".", "..", "a.b.c", "é", "x" * 20_000, "a.b.c.d.e", proof() + "\n", proof()[:-1]]
    )
    def test_no_proof(self, text):
        """Any text is a proof or InvalidProof."""
        assert refusal(text)

    def test_tells_nothing(self):
        """What is refused is not repeated in the error."""
        with pytest.raises(InvalidProof) as caught:
            read(proof({"htu": "https://secret.example/canary"}))
        assert "canary" not in f"{caught.value.public} {caught.value.detail}"
        assert caught.value.public.startswith("DPoP proof is not good")

    def test_says_why(self):
        """The public text names the fault; what the library said of a signature is in the detail, for the log."""
        with pytest.raises(InvalidProof) as caught:
            read(proof(key=OTHER, header={"alg": "RS256"}))
        assert "DPoP proof is not good: token's algorithm does not fit its key" == caught.value.public
        with pytest.raises(InvalidProof) as caught:
            read(proof(header={"jwk": {**JWK, "x": "AA"}}))
        assert "DPoP proof is not good: key cannot be parsed" == caught.value.public
        assert caught.value.detail == caught.value.__cause__.detail != ""
        with pytest.raises(InvalidProof) as caught:
            read(proof(), method="POST")
        assert "" == caught.value.detail


class TestUnverifiedUrl:
    @pytest.mark.parametrize(
        ("text", "url"),
        [
            pytest.param(proof({"htu": URL + "?a=1#b"}, key=OTHER), URL, id="of-any-signature"),
            pytest.param(proof(without="htu"), "", id="none"),
            pytest.param(proof({"htu": 7}), "", id="no-text"),
            pytest.param(KEY.sign(CLAIMS, typ="dpop+jwt"), "", id="shows-no-key"),
            pytest.param("x", "", id="no-token"),
        ],
    )
    def test_of(self, text, url):
        """The URL that a proof says it is for, without query and fragment, or nothing."""
        assert url == dpop.unverified_url(text)


def test_age_is_of_the_reader():
    """How old a proof is, is measured by the reader's clock."""
    text = proof()
    assert read(text, now=NOW + timedelta(seconds=DPOP_AGE_SECONDS))
    assert "not_of_now" == refusal(text, now=NOW + timedelta(seconds=DPOP_AGE_SECONDS + 1))
