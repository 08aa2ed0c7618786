"""jwtsvid.py: which trust domain vouches, which other tokens are none, and JWT-SVIDs that were seen before."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.jwtsvids import BUNDLES, FOREIGN, HERE, KEY, NOW, SECONDS, THERE, WEB, refusal, token, verify
from sojourn.errors import InvalidToken
from sojourn.jose.jws import SigningKey
from sojourn.limits import JWT_LEEWAY_SECONDS, JWT_SVIDS_READ_SECONDS
from sojourn.spiffe import jwtsvid
from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.jwtsvid import ReadTokens
from sojourn.tasktoken import tokens
from sojourn.tasktoken.grants import Grant
from sojourn.tasktoken.task_claim import TaskClaim


class TestTrustDomains:
    """The key set is chosen by the trust domain in `sub`, nothing else (JWKS confusion)."""

    def test_each_by_its_own(self):
        """A token of a federated trust domain is verified by that domain's bundle."""
        foreign = "spiffe://other.org/web"
        assert foreign == str(verify(token({"sub": foreign}, key=FOREIGN)).spiffe_id)

    def test_unknown(self):
        """A token of a trust domain without bundle is refused."""
        expected = "unknown_trust_domain"
        assert expected == refusal(token({"sub": "spiffe://third.org/web"}))

    def test_foreign_key_does_not_vouch_here(self):
        """A key of another trust domain does not verify a token of ours."""
        expected = "unknown_key"
        assert expected == refusal(token(key=FOREIGN))

    def test_our_key_does_not_vouch_there(self):
        """Our key does not verify a token of another trust domain."""
        expected = "unknown_key"
        assert expected == refusal(token({"sub": "spiffe://other.org/web"}))

    def test_same_kid_in_both(self):
        """If two trust domains have a key of the same id, each verifies its own tokens only."""
        twin = SigningKey.from_private("k1", ec.generate_private_key(ec.SECP256R1()))
        bundles = {HERE: {"k1": KEY.public}, THERE: {"k1": twin.public}}
        expected = "bad_signature"
        assert expected == refusal(token(key=twin), bundles=bundles)
        assert expected == refusal(token({"sub": "spiffe://other.org/web"}), bundles=bundles)
        svid = verify(token({"sub": "spiffe://other.org/web"}, key=twin), bundles=bundles)
        trust_domain = THERE
        assert trust_domain == svid.spiffe_id.trust_domain

    def test_empty_bundle(self):
        """A trust domain whose bundle has no JWT key verifies nothing."""
        expected = "unknown_key"
        assert expected == refusal(token(), bundles={HERE: {}})

    @pytest.mark.parametrize("name", ["example.org.", "example.orgx", "xexample.org", "example", "org"])
    def test_names_near(self, name):
        """A trust domain whose name is near ours is another one."""
        expected = "unknown_trust_domain"
        assert expected == refusal(token(), bundles={TrustDomain(name): {"k1": KEY.public}})


class TestTokenKinds:
    def test_task_token_is_no_jwt_svid(self):
        """A task token of the same key, subject and audience is not a JWT-SVID."""
        task_token = tokens.issue(
            KEY,
            issuer="https://example.org",
            spiffe_id=WEB,
            grant=Grant.parse("https://db.example", ["read"]),
            task=TaskClaim("t1", "report", 1, "normal"),
            issued_at=NOW,
            expires_at=NOW + timedelta(seconds=60),
        )
        expected = "wrong_type"
        assert expected == refusal(task_token.token, audience=["https://db.example"])


class TestSeenBefore:
    """A token that was good is not read again, nor its signature checked; all else is, each time."""

    @pytest.fixture
    def read(self):
        return ReadTokens()

    def test_not_read_again(self, read, monkeypatch):
        """The very same token gives the same again, without being read."""
        text = token({"nbf": SECONDS, "iat": SECONDS})
        first = jwtsvid.verify(text, ["db"], BUNDLES, NOW, read)
        monkeypatch.setattr(jwtsvid, "parse_unverified", lambda _: pytest.fail("read again"))
        assert first is jwtsvid.verify("".join(text), ["web", "db"], BUNDLES, NOW, read)

    def test_until_its_end(self, read):
        """A token is known until it has ended, the leeway included, and it is not read again before."""
        text = token({"exp": SECONDS + 10})
        first = jwtsvid.verify(text, ["db"], BUNDLES, NOW, read)
        for seconds in (0, 10, 10 + JWT_LEEWAY_SECONDS - 1):
            assert first is jwtsvid.verify(text, ["db"], BUNDLES, NOW + timedelta(seconds=seconds), read)

    @pytest.mark.parametrize("seconds", [-1, JWT_SVIDS_READ_SECONDS])
    def test_not_for_ever(self, read, seconds):
        """After a while, or when the clock was set back behind its reading, a token is read again."""
        text = token({"exp": SECONDS + 86_400})
        first = jwtsvid.verify(text, ["db"], BUNDLES, NOW, read)
        then = NOW + timedelta(seconds=seconds)
        assert first is not jwtsvid.verify(text, ["db"], BUNDLES, then, read)

    def test_nothing_of_what_was_refused(self, read):
        """A token that was refused is not remembered, so a reason that is gone does not last."""
        for text, audience, bundles in (
            (token(), ["other"], BUNDLES),
            (token(), ["db"], {}),
            (token({"exp": SECONDS - 3_600}), ["db"], BUNDLES),
            (token(key=FOREIGN), ["db"], BUNDLES),
            (token({"nbf": SECONDS + 3_600}), ["db"], BUNDLES),
        ):
            with pytest.raises(InvalidToken):
                jwtsvid.verify(text, audience, bundles, NOW, read)
        assert 0 == len(read)

    def test_another_token_by_one_bit(self, read):
        """A token is known by all of its text: one whose signature was changed is refused."""
        text = token()
        jwtsvid.verify(text, ["db"], BUNDLES, NOW, read)
        other = text[:-4] + ("AAAA" if text[-4:] != "AAAA" else "BBBB")
        with pytest.raises(InvalidToken):
            jwtsvid.verify(other, ["db"], BUNDLES, NOW, read)

    def test_before_its_time(self, read):
        """A token that was good is refused where the clock was set back before its beginning."""
        text = token({"nbf": SECONDS})
        jwtsvid.verify(text, ["db"], BUNDLES, NOW, read)
        early = NOW - timedelta(seconds=JWT_LEEWAY_SECONDS + 1)
        with pytest.raises(InvalidToken) as caught:
            jwtsvid.verify(text, ["db"], BUNDLES, early, read)
        assert "not_yet_valid" == caught.value.reason_code

    def test_ended_ones_go(self, read):
        """A token that has ended is not kept once it was shown again."""
        text = token()
        jwtsvid.verify(text, ["db"], BUNDLES, NOW, read)
        late = NOW + timedelta(seconds=300 + JWT_LEEWAY_SECONDS)
        with pytest.raises(InvalidToken):
            jwtsvid.verify(text, ["db"], BUNDLES, late, read)
        assert 0 == len(read)

    def test_a_limit(self, monkeypatch):
        """So many are remembered, and of one SPIFFE ID no more than its share."""
        monkeypatch.setattr(jwtsvid, "JWT_SVIDS_READ_KEPT_PER_ID", 3)
        read = ReadTokens()
        others = token({"sub": "spiffe://example.org/other"})
        first = jwtsvid.verify(others, ["db"], BUNDLES, NOW, read)
        for number in range(9):
            jwtsvid.verify(token({"jti": f"j{number}"}), ["db"], BUNDLES, NOW, read)
        assert 4 == len(read)
        assert first is jwtsvid.verify(others, ["db"], BUNDLES, NOW, read)
        read.clear()
        assert 0 == len(read)

    def test_all_else_is_checked(self, read):
        """A token whose signature is known is for its audience, until its end, and by a key of its trust domain."""
        text = token()
        assert WEB == jwtsvid.verify(text, ["db"], BUNDLES, NOW, read).spiffe_id
        late = NOW + timedelta(seconds=300 + JWT_LEEWAY_SECONDS)
        other = SigningKey.from_private("k1", ec.generate_private_key(ec.SECP256R1()))
        for audience, bundles, now, reason in (
            (["web"], BUNDLES, NOW, "wrong_audience"),
            (["db"], BUNDLES, late, "expired"),
            (["db"], {HERE: {}}, NOW, "unknown_key"),
            (["db"], {HERE: {"k1": other.public}}, NOW, "bad_signature"),
        ):
            with pytest.raises(InvalidToken) as caught:
                jwtsvid.verify(text, audience, bundles, now, read)
            assert reason == caught.value.reason_code
