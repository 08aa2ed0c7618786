"""tokens.py: issuing, what tokens are bound to, and which other tokens are no task tokens."""

import base64
import json
from datetime import timedelta

import pytest
from fakes.tasktokens import CLAIMS, DB, ISSUER, KEY, NOW, SECONDS, WEB, issue, refusal, token, verify
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidToken
from sojourn.spiffe import jwtsvid
from sojourn.tasktoken import sender_constraint, tokens
from sojourn.tasktoken.grants import Grant
from sojourn.tasktoken.task_claim import TaskClaim


class TestIssue:
    def test_claims(self):
        """An issued token has the claims of RFC 9068 and its task, and no other."""
        claims = dict(issue().claims)
        assert len(claims.pop("jti")) >= 22
        expected = {name: value for name, value in CLAIMS.items() if name != "jti"}
        assert expected == claims

    def test_header(self):
        """The header has alg, kid and typ at+jwt, and no other (RFC 9068 2.1)."""
        header = issue().token.split(".")[0]
        expected = {"alg": "ES256", "kid": "k1", "typ": "at+jwt"}
        assert expected == json.loads(base64.urlsafe_b64decode(header + "=="))

    def test_identifiers_differ(self):
        """Two tokens issued of the same data have different ids."""
        assert issue().claims["jti"] != issue().claims["jti"]

    def test_repr_hides_the_token(self):
        """The repr of a task token has no part of the token."""
        issued = issue()
        assert not [part for part in issued.token.split(".") if part in repr(issued)]
        assert "t1" in repr(issued)

    def test_largest_grant(self):
        """A token for the largest grant that a task can have verifies."""
        issued = issue(grant=Grant.parse(DB, ["a" * 100 + str(number) for number in range(50)]))
        assert issued == verify(issued.token)

    @examples(50)
    @given(
        st.sets(st.sampled_from(["read", "write", "list:all", "Read"]), min_size=1),
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=30),
        st.integers(0, 2**40),
        st.integers(1, 600),
    )
    def test_round_trip(self, actions, task_id, version, life):
        """What is issued verifies with the same values."""
        issued = issue(
            grant=Grant.parse(DB, actions),
            task=TaskClaim(task_id, "report", version, "high"),
            expires_at=NOW + timedelta(seconds=life),
        )
        assert issued == verify(issued.token)


class TestTokenKinds:
    """A token of one kind never stands in for one of another (JWT-SVID, task token, and others)."""

    def test_jwt_svid_is_no_task_token(self):
        """A JWT-SVID of the same key, subject and audience is not a task token."""
        svid = jwtsvid.issue(KEY, WEB, [DB], issued_at=NOW, expires_at=NOW + timedelta(seconds=60), issuer=ISSUER)
        expected = "wrong_type"
        assert expected == refusal(svid.token)

    @pytest.mark.parametrize("typ", ["JWT", "JOSE"])
    def test_task_claims_under_the_type_of_a_jwt_svid(self, typ):
        """The claims of a task token under the type of a JWT-SVID are not a task token."""
        expected = "wrong_type"
        assert expected == refusal(token(typ=typ))

    def test_claims_of_a_jwt_svid_under_the_type_of_a_task_token(self):
        """The claims of a JWT-SVID under the type of a task token are not a task token."""
        claims = {"iss": ISSUER, "sub": str(WEB), "aud": [DB], "exp": SECONDS + 60, "iat": SECONDS}
        expected = "malformed"
        assert expected == refusal(KEY.sign(claims, typ="at+jwt"))

    def test_task_token_is_no_jwt_svid(self):
        """A task token of the same key, subject and audience is not a JWT-SVID."""
        with pytest.raises(InvalidToken) as caught:
            jwtsvid.verify(issue().token, [DB], {WEB.trust_domain: {"k1": KEY.public}}, NOW)
        expected = "wrong_type"
        assert expected == caught.value.reason_code


JKT, X5T = (
    sender_constraint.Binding(sender_constraint.JKT, "k" * 43),
    sender_constraint.Binding(sender_constraint.X5T, "c" * 43),
)


def verified(binding, proven):
    """Verify a token with this binding, sent by who has proved so much."""
    text = issue(binding=binding).token
    return tokens.verify(text, keys={"k1": KEY.public}, issuer=ISSUER, audience=DB, now=NOW, proven=proven)


class TestBinding:
    @pytest.mark.parametrize(
        ("binding", "proven"),
        [
            (None, sender_constraint.Proven()),
            (None, sender_constraint.Proven(x5t="d" * 43)),
            (JKT, sender_constraint.Proven(jkt=JKT.thumbprint)),
            (JKT, sender_constraint.Proven(jkt=JKT.thumbprint, x5t="d" * 43)),
            (X5T, sender_constraint.Proven(x5t=X5T.thumbprint)),
        ],
    )
    def test_proved(self, binding, proven):
        """A token whose sender holds what it is bound to is good, and says to what that is."""
        assert binding == verified(binding, proven).binding

    @pytest.mark.parametrize(
        ("binding", "proven", "reason"),
        [
            (JKT, sender_constraint.Proven(), "unproved_binding"),
            (JKT, sender_constraint.Proven(x5t=JKT.thumbprint), "unproved_binding"),
            (JKT, sender_constraint.Proven(jkt="d" * 43), "wrong_binding"),
            (X5T, sender_constraint.Proven(), "unproved_binding"),
            (X5T, sender_constraint.Proven(jkt=X5T.thumbprint), "unproved_binding"),
            (X5T, sender_constraint.Proven(jkt="d" * 43, x5t=X5T.thumbprint), "unproved_binding"),
            (X5T, sender_constraint.Proven(x5t="d" * 43), "wrong_binding"),
            (None, sender_constraint.Proven(jkt="d" * 43), "wrong_binding"),
        ],
    )
    def test_not_proved(self, binding, proven, reason):
        """A bound token without its proof, or with another's, is refused; so is a proof beside an unbound token."""
        with pytest.raises(InvalidToken) as caught:
            verified(binding, proven)
        assert reason == caught.value.reason_code

    @pytest.mark.parametrize(
        "cnf",
        [
            None,
            {},
            [],
            "x",
            {"jkt": "k" * 42},
            {"jkt": "k" * 43 + "\n"},
            {"jkt": 1},
            {"jkt": None},
            {"jwk": {}},
            {"JKT": "k" * 43},
            {"jkt": "k" * 43, "x5t#S256": "c" * 43},
            {"jkt": "k" * 43, "kid": "x"},
        ],
    )
    def test_unknown(self, cnf):
        """A binding that is not known here cannot be checked, whatever is proved."""
        with pytest.raises(InvalidToken) as caught:
            tokens.verify(
                token({"cnf": cnf}), keys={"k1": KEY.public}, issuer=ISSUER, audience=DB, now=NOW,
                proven=sender_constraint.Proven("k" * 43, "c" * 43),
            )  # fmt: skip
        assert "unproved_binding" == caught.value.reason_code

    def test_parameters(self):
        """Parameters and the digest of a request are issued, and read as they were."""
        found = verify(issue(params={"ticket": "42", "count": 7, "dry": True}, params_digest="A" * 43).token)
        assert ({"ticket": "42", "count": 7, "dry": True}, "A" * 43) == (found.params, found.params_digest)

    def test_thumbprint_of_a_certificate(self):
        """The thumbprint of a certificate is SHA-256 over its DER, base64url (RFC 8705, 3.1)."""
        assert "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0" == sender_constraint.thumbprint_of(b"abc")
