"""witsvid.py: WIT-SVIDs, as issued (WIT-SVID.md)."""

import json
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import ECKey
from sojourn.jose.jws import PublicKey, SigningKey, parse_unverified
from sojourn.spiffe import witsvid
from sojourn.spiffe.ids import SpiffeId

NOW = datetime(2030, 1, 1, 12, 0, 0, 600_000, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
WEB = SpiffeId.parse("spiffe://example.org/web")
SIGNER = SigningKey.from_private("w1", ec.generate_private_key(ec.SECP256R1()))
MEMBERS = {"kty", "crv", "x", "y"}


def issue():
    return witsvid.issue(SIGNER, WEB, issued_at=NOW, expires_at=NOW + timedelta(minutes=5))


class TestIssue:
    def test_token(self):
        """It is signed by its authority, is of type wit+jwt, and has sub, exp, iat, jti and cnf, and no other claim."""
        svid = issue()
        token = parse_unverified(svid.token)
        token.check_signature(SIGNER.public)
        assert ("wit+jwt", "w1", "w1") == (token.typ, token.kid, svid.kid)
        claims = dict(token.unverified_claims)
        assert svid.claims == claims
        assert 22 == len(claims.pop("jti"))  # 128 random bits
        assert {"jwk"} == set(claims.pop("cnf"))
        assert {"sub": str(WEB), "exp": SECONDS + 300, "iat": SECONDS} == claims

    def test_value(self):
        """The value has what the token says, with times of whole seconds, and is told from others by the `jti`."""
        svid, other = issue(), issue()
        assert WEB == svid.spiffe_id
        begins = NOW.replace(microsecond=0)
        assert (begins, begins + timedelta(minutes=5)) == (svid.not_before, svid.not_after)
        assert svid.serial == svid.claims["jti"] != other.serial

    def test_bound_to_a_key_of_its_own(self):
        """The token shows the public half of a new P-256 key for ES256, and nothing else of it."""
        svid, other = issue(), issue()
        jwk = svid.claims["cnf"]["jwk"]
        assert MEMBERS | {"alg"} == set(jwk)
        assert ("EC", "P-256", "ES256") == (jwk["kty"], jwk["crv"], jwk["alg"])
        shown = PublicKey.from_jwk({**jwk, "kid": "-"})
        assert shown.thumbprint == PublicKey.from_key("-", svid.key.public_key()).thumbprint
        assert jwk != other.claims["cnf"]["jwk"]

    def test_private_key(self):
        """The private key as a JWK is the one that the token shows, for ES256, and another library takes it."""
        svid = issue()
        jwk = json.loads(svid.key_jwk)
        assert jwk.pop("d")
        assert svid.claims["cnf"]["jwk"] == jwk
        taken = ECKey.import_key(json.loads(svid.key_jwk))
        assert svid.key.private_numbers() == taken.private_key.private_numbers()

    def test_repr_hides_token_and_key(self):
        """The repr has the ID and the end, and neither token nor key."""
        svid = issue()
        assert f"WitSvid({WEB}, exp=2030-01-01T12:05:00+00:00)" == repr(svid)
