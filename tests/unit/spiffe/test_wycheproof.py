"""The JOSE vectors of Wycheproof, through our own functions.

They are read in place, beside the repository, and are no part of it: without them these tests are skipped.
"""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sojourn.errors import InvalidToken
from sojourn.errors.oauth import InvalidProof
from sojourn.jose.jws import ALGORITHMS, PublicKey, UnverifiedJws, parse_unverified
from sojourn.tasktoken import dpop, tokens

VECTORS = Path(__file__).resolve().parents[4] / "shared" / "vectors" / "wycheproof"
SIGNATURE, ENCRYPTION = VECTORS / "json_web_signature_test.json", VECTORS / "json_web_encryption_test.json"

# Invalid by the vectors, and good here. Each has its reason.
ACCEPTED = dict.fromkeys(
    (353, 354, 355, 356),
    "the signature is good; only `use` or `key_ops` of the JWK say that the key is for encryption. In SPIFFE the `use` of"
    " a key is that of the bundle (`jwt-svid`), and whoever reads a bundle picks by it; PublicKey does not see it",
)
# Valid by the vectors, and refused here. Each has its reason.
REFUSED = {
    **dict.fromkeys((259, 264, 268, 272, 320, 325), "an empty payload is no JSON object, so no token of any kind"),
    **dict.fromkeys(
        (1, 348, 352, 357, 358, 359, 372, 373, 376, 377), "HMAC: there are no shared keys in SPIFFE (JWT-SVID.md 2.1)"
    ),
    **dict.fromkeys((346, 347, 350, 351), "the key's own `alg` names another algorithm than the header"),
}


def load(path, member):
    """All vectors of a file: number, what is said of it, the key's JWK, the token, and whether it is valid."""
    if not path.exists():
        return [pytest.param(None, None, None, marks=pytest.mark.skip(reason=f"NOT RUN: no vectors at {path}"))]
    return [
        pytest.param(
            group.get("public") or group.get("private"),
            test[member] if isinstance(test[member], str) else json.dumps(test[member]),
            (test["tcId"], test["result"] == "valid"),
            id=f"{test['tcId']}-{test['comment']}",
        )
        for group in json.loads(path.read_text())["testGroups"]
        for test in group["tests"]
    ]


def accepted(jwk, token):
    """Whether we take the token; any error but ours goes through and fails the test.

    Payloads of these vectors are mostly not JSON, which is all that is overlooked here: it is the last that is looked
    at, so that everything else of the token was found good by then.
    """
    try:
        key = PublicKey.from_jwk({"kid": "k1", **jwk})
        try:
            parsed = parse_unverified(token)
        except InvalidToken as error:
            if error.public not in {
                "unable to parse JWT token: payload is not JSON",
                "unable to parse JWT token: payload is not a JSON object",
            }:
                return False
            header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
            parsed = UnverifiedJws(token, header["alg"], header.get("kid"), header.get("typ"), {})
        parsed.check_signature(key)
    except InvalidToken:
        return False
    return True


class TestSignature:
    @pytest.mark.parametrize(("jwk", "token", "verdict"), load(SIGNATURE, "jws"))
    def test_verdict(self, jwk, token, verdict):
        """Each vector has the verdict that it should have, or a listed reason for another."""
        number, valid = verdict
        expected = (valid or number in ACCEPTED) and number not in REFUSED
        assert expected == accepted(jwk, token)

    def test_exceptions_are_few(self):
        """The lists of exceptions are no longer than was looked at by hand, and do not overlap."""
        expected = (4, 20)
        assert expected == (len(ACCEPTED), len(REFUSED))
        assert not set(ACCEPTED) & set(REFUSED)

    @pytest.mark.skipif(not SIGNATURE.exists(), reason=f"NOT RUN: no vectors at {SIGNATURE}")
    def test_all_are_run(self):
        """The set of vectors is the one that the lists were made for."""
        vectors = load(SIGNATURE, "jws")
        expected = (401, 46)
        assert expected == (len(vectors), sum(vector.values[2][1] for vector in vectors))
        invalid = {vector.values[2][0] for vector in vectors if not vector.values[2][1]}
        assert set(ACCEPTED) <= invalid
        assert not set(REFUSED) & invalid


class TestEncryption:
    @pytest.mark.parametrize(("jwk", "token", "verdict"), load(ENCRYPTION, "jwe"))
    def test_refused_unparsed(self, jwk, token, verdict):
        """No encrypted token, valid or not, gets past the form of a JWS."""
        with pytest.raises(InvalidToken) as caught:
            parse_unverified(token)
        expected = "malformed"
        assert expected == caught.value.reason_code
        assert not accepted(jwk, token)


class TestVerifiers:
    """No vector is a token of ours or a proof: so none is taken, and none breaks a verifier."""

    @pytest.mark.parametrize(("jwk", "token", "verdict"), [*load(SIGNATURE, "jws"), *load(ENCRYPTION, "jwe")])
    def test_task_tokens_and_proofs(self, jwk, token, verdict):
        """The verifier of task tokens and the reader of proofs refuse each vector with an error of ours."""
        try:
            key = PublicKey.from_jwk({"kid": "k1", **jwk})
        except InvalidToken:
            key = None
        now = datetime.now(UTC)
        names = [each for each in (jwk.get("kid"), "k1", "") if isinstance(each, str)]
        with pytest.raises(InvalidToken) as caught:
            tokens.verify(
                token, keys=dict.fromkeys(names, key) if key else {}, issuer="joe", audience="https://a.b", now=now
            )
        assert caught.value.reason_code in {"malformed", "bad_algorithm", "wrong_type"}
        with pytest.raises(InvalidProof) as refused:
            dpop.read(token, method="GET", url="https://a.b/", now=now)
        assert refused.value.reason_code in {"malformed", "bad_algorithm", "wrong_type", "invalid_key"}

    @pytest.mark.parametrize(("jwk", "token", "verdict"), load(SIGNATURE, "jws"))
    def test_signatures_under_our_claims(self, jwk, token, verdict):
        """The signature of a vector is none of a token or of a proof that names the vector's key."""
        try:
            key = PublicKey.from_jwk({"kid": "k1", **jwk})
        except InvalidToken:
            return
        signature = token.rpartition(".")[2]
        algorithm = next((each for each in ALGORITHMS if key.fits(each)), "ES256")
        now = datetime.now(UTC)
        public = {name: value for name, value in key.jwk.items() if name != "kid"}
        claims = {"iss": "joe", "aud": "https://a.b", "iat": int(now.timestamp()), "exp": int(now.timestamp()) + 60}
        head = {"alg": algorithm, "typ": "at+jwt", "kid": "k1"}
        with pytest.raises(InvalidToken) as caught:
            tokens.verify(
                _text(head, claims, signature), keys={"k1": key}, issuer="joe", audience="https://a.b", now=now
            )
        assert caught.value.reason_code in {"malformed", "bad_signature", "bad_algorithm"}
        head = {"alg": algorithm, "typ": "dpop+jwt", "jwk": public}
        with pytest.raises(InvalidProof) as refused:
            dpop.read(_text(head, claims, signature), method="GET", url="https://a.b/", now=now)
        assert refused.value.reason_code in {"malformed", "bad_signature", "bad_algorithm"}


def _text(header, claims, signature):
    parts = (base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in (header, claims))
    return ".".join([*parts, signature])
