"""jwtsvid.py: JWT-SVIDs, issued and verified (JWT-SVID.md 2 to 4). One fault a case."""

import base64
import json
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.jws import joined
from fakes.jwtsvids import CLAIMS, HERE, KEY, NOW, SECONDS, WEB, refusal, token, verify, with_header
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidToken
from sojourn.jose.jws import SigningKey
from sojourn.limits import JWT_LEEWAY_SECONDS
from sojourn.spiffe import jwtsvid

# every claim set to each of these is refused, but for what is good for it
WRONG = {
    "null": None,
    "true": True,
    "number": 7,
    "negative": -1,
    "fraction": 0.5,
    "string": "canary",
    "digits": str(SECONDS + 300),
    "list": [],
    "list-of-number": [SECONDS + 300],
    "object": {},
    "huge": 10**400,
    "over-2-53": 2**53 + 1,
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


class TestIssue:
    SVID = jwtsvid.issue(KEY, WEB, ["db", "web"], issued_at=NOW, expires_at=NOW + timedelta(minutes=5))

    def test_claims(self):
        """An issued JWT-SVID has sub, aud as a list, exp, iat and jti, and no other claim (JWT-SVID.md 3)."""
        svid = jwtsvid.issue(KEY, WEB, ["db", "web"], issued_at=NOW, expires_at=NOW + timedelta(minutes=5))
        claims = dict(svid.claims)
        assert 22 == len(claims.pop("jti"))  # 128 random bits
        expected = {"sub": str(WEB), "aud": ["db", "web"], "exp": SECONDS + 300, "iat": SECONDS}
        assert expected == claims

    def test_one_audience_is_a_list(self):
        """The audience is a list even if it is one."""
        svid = jwtsvid.issue(KEY, WEB, ("db",), issued_at=NOW, expires_at=NOW + timedelta(minutes=5))
        expected = ["db"]
        assert expected == svid.claims["aud"]

    def test_one_audience_as_text(self):
        """An audience that is given as a text is a text in the token."""
        svid = jwtsvid.issue(KEY, WEB, "db", issued_at=NOW, expires_at=NOW + timedelta(minutes=5))
        assert ("db", ("db",)) == (svid.claims["aud"], svid.audience)
        assert svid == verify(svid.token)

    def test_header(self):
        """The header has alg, kid and typ JWT, and no other (JWT-SVID.md 2)."""
        header = self.SVID.token.split(".")[0]
        expected = {"alg": "ES256", "kid": "k1", "typ": "JWT"}
        assert expected == json.loads(base64.urlsafe_b64decode(header + "=="))

    def test_issuer(self):
        """The issuer is in the token if it was given."""
        svid = jwtsvid.issue(
            KEY, WEB, ["db"], issued_at=NOW, expires_at=NOW + timedelta(minutes=5), issuer="https://example.org"
        )
        issuer = "https://example.org"
        assert issuer == svid.claims["iss"]

    def test_identifiers_differ(self):
        """Two tokens issued of the same data have different ids."""
        other = jwtsvid.issue(KEY, WEB, ["db", "web"], issued_at=NOW, expires_at=NOW + timedelta(minutes=5))
        assert self.SVID.claims["jti"] != other.claims["jti"]

    def test_repr_hides_the_token(self):
        """The repr of a JWT-SVID has neither the token nor any part of it."""
        text = repr(self.SVID)
        assert not [part for part in self.SVID.token.split(".") if part in text]
        assert str(WEB) in text

    @examples(50)
    @given(
        st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30), min_size=1, max_size=5),
        st.integers(0, 59),
        st.integers(1, 86_400),
    )
    def test_round_trip(self, audience, age, life):
        """What is issued verifies for each of its audiences, with the same values."""
        issued = NOW - timedelta(seconds=age)
        svid = jwtsvid.issue(KEY, WEB, audience, issued_at=issued, expires_at=NOW + timedelta(seconds=life))
        for each in audience:
            assert svid == verify(svid.token, audience=[each])


class TestVerify:
    def test_good(self):
        """A good token gives its SPIFFE ID, audience, times and claims."""
        svid = verify(token())
        audience = ("db",)
        expected = WEB
        assert expected == svid.spiffe_id
        assert audience == svid.audience
        expected = NOW
        assert expected == svid.issued_at
        assert NOW + timedelta(seconds=300) == svid.expires_at
        expected = CLAIMS
        assert expected == svid.claims

    @pytest.mark.parametrize("typ", ["JWT", "JOSE"])
    def test_types(self, typ):
        """The type may be JWT or JOSE (JWT-SVID.md 2.3)."""
        expected = WEB
        assert expected == verify(token(typ=typ)).spiffe_id

    def test_type_absent(self):
        """The type may be absent."""
        expected = WEB
        assert expected == verify(with_header({"alg": "ES256", "kid": "k1"})).spiffe_id

    @pytest.mark.parametrize(
        "typ", ["", "jwt", "JWT ", "at+jwt", "wit+jwt", "dpop+jwt", "logout+jwt", "jose", "\u212aWT"]
    )
    def test_other_types(self, typ):
        """Any other type is refused, with its case as it is."""
        expected = "wrong_type"
        assert expected == refusal(token(typ=typ))

    @pytest.mark.parametrize("name", ["kid", "typ"])
    def test_null_header(self, name):
        """A kid or typ that is there and null is refused (JWT-SVID.md 2.3)."""
        with pytest.raises(InvalidToken):
            verify(with_header({"alg": "ES256", "kid": "k1", "typ": "JWT", name: None}))

    @pytest.mark.parametrize(
        ("kid", "reason"),
        [
            pytest.param("", "malformed", id="empty"),
            pytest.param("k1 ", "unknown_key", id="space-behind"),
            pytest.param("K1", "unknown_key", id="case"),
            pytest.param("k", "unknown_key", id="prefix"),
            pytest.param("k11", "unknown_key", id="longer"),
            pytest.param("k1\0", "unknown_key", id="nul"),
            pytest.param("../k1", "unknown_key", id="path"),
            pytest.param("' OR 1=1 --", "unknown_key", id="sql"),
            pytest.param("k1\ud800", "malformed", id="lone-surrogate"),
            pytest.param("k" * 8_000, "unknown_key", id="huge"),
            pytest.param("k2", "unknown_key", id="key-of-another-trust-domain"),
        ],
    )
    def test_kid(self, kid, reason):
        """The key is found by its exact id within the trust domain of the subject, and nowhere else."""
        assert reason == refusal(with_header({"alg": "ES256", "kid": kid, "typ": "JWT"}))

    def test_kid_absent(self):
        """A token without key id is refused, also if there is just one key."""
        expected = "malformed"
        assert expected == refusal(with_header({"alg": "ES256", "typ": "JWT"}))

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param(token(typ="t" * 8_000), id="typ"),
            pytest.param(token({"aud": ["a" * 8_000]}), id="aud"),
            pytest.param(token({"aud": ["\u4e16" * 500] * 5}), id="aud-of-five"),
            pytest.param(token({"sub": "spiffe://" + "a" * 8_000}), id="sub"),
            pytest.param(with_header({"alg": "ES256", "kid": "k" * 8_000}), id="kid"),
        ],
    )
    def test_public_text_is_short(self, text):
        """What a hostile token says does not make an error's public text long: it goes into metadata."""
        with pytest.raises(InvalidToken) as caught:
            verify(text)
        assert len(caught.value.public) <= 1024

    @pytest.mark.parametrize(
        ("name", "reason"), [("sub", "malformed"), ("aud", "wrong_audience"), ("exp", "malformed")]
    )
    def test_claim_absent(self, name, reason):
        """A token without sub, aud or exp is refused."""
        assert reason == refusal(token(without=name))

    @pytest.mark.parametrize("name", ["iat", "jti"])
    def test_claim_optional(self, name):
        """A token without iat or jti is good."""
        expected = WEB
        assert expected == verify(token(without=name)).spiffe_id

    @pytest.mark.parametrize("name", ["sub", "aud", "exp"])
    @pytest.mark.parametrize("value", [pytest.param(value, id=name) for name, value in WRONG.items()])
    def test_claim_types(self, name, value):
        """A token whose sub, aud or exp has a wrong type or range is refused."""
        with pytest.raises(InvalidToken):
            verify(token({name: value}))

    @pytest.mark.parametrize("name", ["iat", "nbf"])
    @pytest.mark.parametrize(
        "value", [None, True, "1", [], {}, -1, 10**400, 2**53 + 1], ids=lambda value: repr(value)[:9]
    )
    def test_optional_claim_types(self, name, value):
        """A token whose iat or nbf has a wrong type or range is refused."""
        expected = "malformed"
        assert expected == refusal(token({name: value}))

    @pytest.mark.parametrize(
        ("claims", "fault"),
        [
            pytest.param('"exp":1e400', "exp", id="1e400"),
            pytest.param('"exp":NaN', "exp", id="nan"),
            pytest.param('"exp":Infinity', "exp", id="infinity"),
            pytest.param('"exp":9,"exp":4102444800', "exp", id="exp-twice"),
            pytest.param(
                '"exp":4102444800,"sub":"spiffe://example.org/a","sub":"spiffe://example.org/b"', "", id="sub-twice"
            ),
        ],
    )
    def test_payload(self, claims, fault):
        """A payload that is not JSON, or says a thing twice, is refused though it is signed."""
        base = {name: value for name, value in CLAIMS.items() if name not in {"exp", "sub" if not fault else ""}}
        payload = json.dumps(base)[:-1] + "," + claims + "}"
        expected = "malformed"
        assert expected == refusal(joined({"alg": "ES256", "kid": "k1"}, payload.encode(), KEY))

    @pytest.mark.parametrize(
        "subject",
        [
            "spiffe://EXAMPLE.org/web",
            "SPIFFE://example.org/web",
            "https://example.org/web",
            "spiffe://example.org/web\n",
            "spiffe://example.org//web",
            "spiffe://example.org/a/../web",
            "spiffe://example.org/web?x=1",
            "example.org/web",
            "",
        ],
    )
    def test_subject(self, subject):
        """A subject that is not a SPIFFE ID is refused."""
        expected = "malformed"
        assert expected == refusal(token({"sub": subject}))

    @pytest.mark.parametrize(
        "mine",
        [
            pytest.param(["DB"], id="case"),
            pytest.param(["d"], id="prefix"),
            pytest.param(["dbx"], id="longer"),
            pytest.param(["db/"], id="trailing-slash"),
            pytest.param([" db"], id="space"),
            pytest.param(["db\0"], id="nul"),
            pytest.param(["d\u0131b"], id="unicode"),
            pytest.param(["\uff44\uff42"], id="full-width"),
            pytest.param([""], id="empty-text"),
            pytest.param([], id="none"),
            pytest.param(["*"], id="wildcard"),
            pytest.param(["['db']"], id="list-as-text"),
        ],
    )
    def test_audience_of_mine(self, mine):
        """A token for another audience is refused; audiences are compared byte for byte (CVE-2024-5798)."""
        expected = "wrong_audience"
        assert expected == refusal(token(), audience=mine)

    def test_says_the_audiences(self):
        """What was expected and what the token has is told in SPIRE's words, three of each at most."""
        with pytest.raises(InvalidToken) as caught:
            verify(token({"aud": ["a", 'b"', "c", "d"]}), audience=["1", "2", "3", "4"])
        expected = 'expected audience in ["1" "2" "3"] (audience=["a" "b\\"" "c"])'
        assert expected == caught.value.public

    @pytest.mark.parametrize("value", ["db", ["db"], ["web", "db"], ["db", "web"]], ids=repr)
    def test_audience_of_the_token(self, value):
        """One of the token's audiences must be one of mine; a single one may be a string."""
        expected = WEB
        assert expected == verify(token({"aud": value}), audience=["x", "db"]).spiffe_id

    @pytest.mark.parametrize("value", [[], ["web"], "web", "d", "dbb"], ids=repr)
    def test_audience_missing(self, value):
        """A token without my audience is refused."""
        expected = "wrong_audience"
        assert expected == refusal(token({"aud": value}))

    @pytest.mark.parametrize(
        ("claim", "ahead", "reason"),
        [
            pytest.param("exp", 1, None, id="exp-next-second"),
            pytest.param("exp", 0, None, id="exp-now"),
            pytest.param("exp", 1 - JWT_LEEWAY_SECONDS, None, id="exp-in-the-leeway"),
            pytest.param("exp", -JWT_LEEWAY_SECONDS, "expired", id="exp-at-the-leeway"),
            pytest.param("exp", -JWT_LEEWAY_SECONDS - 1, "expired", id="exp-past-the-leeway"),
            pytest.param("exp", -SECONDS, "expired", id="exp-zero"),
            pytest.param("nbf", JWT_LEEWAY_SECONDS, None, id="nbf-at-the-leeway"),
            pytest.param("nbf", JWT_LEEWAY_SECONDS + 1, "not_yet_valid", id="nbf-past-the-leeway"),
            pytest.param("iat", JWT_LEEWAY_SECONDS, None, id="iat-at-the-leeway"),
            pytest.param("iat", JWT_LEEWAY_SECONDS + 1, "not_yet_valid", id="iat-past-the-leeway"),
            pytest.param("iat", -86_400, None, id="iat-long-ago"),
        ],
    )
    def test_times(self, claim, ahead, reason):
        """Times have a leeway of JWT_LEEWAY_SECONDS and no more."""
        text = token({claim: SECONDS + ahead})
        if reason is None:
            expected = WEB
            assert expected == verify(text).spiffe_id
        else:
            assert reason == refusal(text)

    @pytest.mark.parametrize("expires", [253_402_300_799, 253_402_300_800, 2**53, 253_402_300_799.5])
    def test_far_expiry(self, expires):
        """A token that ends beyond the calendar is read without a foreign error."""
        year = 9999
        assert year == verify(token({"exp": expires})).expires_at.year

    @pytest.mark.parametrize("name", ["jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "cty"])
    def test_other_headers(self, name):
        """A header beyond alg, kid and typ is refused though it is signed."""
        expected = "malformed"
        assert expected == refusal(with_header({"alg": "ES256", "kid": "k1", "typ": "JWT", name: "x"}))

    def test_signature_is_checked(self):
        """A token signed by another key under a known id is refused."""
        forged = SigningKey.from_private("k1", ec.generate_private_key(ec.SECP256R1()))
        expected = "bad_signature"
        assert expected == refusal(token(key=forged))

    def test_claims_are_the_signed_ones(self):
        """A token with another payload under the same signature is refused."""
        header, _, signature = token().split(".")
        other = token({"sub": "spiffe://example.org/admin"}).split(".")[1]
        expected = "bad_signature"
        assert expected == refusal(f"{header}.{other}.{signature}")

    def test_signature_is_judged_before_times_and_audience(self):
        """An unsigned token learns nothing of clocks and audiences."""
        forged = SigningKey.from_private("k1", ec.generate_private_key(ec.SECP256R1()))
        expected = "bad_signature"
        assert expected == refusal(token({"exp": 1, "aud": ["x"]}, key=forged))

    @examples(300)
    @given(st.text())
    def test_any_text(self, text):
        """No text that we did not sign is a JWT-SVID, and none lets a foreign error out."""
        with pytest.raises(InvalidToken):
            verify(text)

    @examples(200)
    @given(
        st.fixed_dictionaries(
            {},
            optional={
                name: json_values | st.just(CLAIMS.get(name, SECONDS))
                for name in ("sub", "aud", "exp", "iat", "nbf", "jti", "iss")
            },
        )
    )
    def test_any_claims(self, claims):
        """Any claims that are signed by the right key are a JWT-SVID of the trust domain, or InvalidToken."""
        text = joined({"alg": "ES256", "kid": "k1"}, json.dumps(claims).encode(), KEY)
        try:
            svid = verify(text)
        except InvalidToken:
            return
        expected = HERE
        assert expected == svid.spiffe_id.trust_domain
        assert "db" in svid.audience
