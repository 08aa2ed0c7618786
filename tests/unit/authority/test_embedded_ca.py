"""embedded_ca.py: our own certificate authority, over restarts and renewals."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.authorities import authority_in
from fakes.registrations import TRUST_DOMAIN
from sojourn.authority.embedded_ca import JWT, RS256
from sojourn.authority.key_steps import X509
from sojourn.errors import CannotStart, FailedPrecondition, InvalidInput, InvalidSvid, InvalidToken, Unavailable
from sojourn.files import atomic
from sojourn.jose.jws import parse_unverified
from sojourn.limits import NOT_BEFORE_SLACK_SECONDS
from sojourn.spiffe import jwtsvid
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import verify_chain

WEB = SpiffeId.parse("spiffe://example.org/web")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "keys"


@pytest.fixture
def authority(folder, clock):
    return authority_in(folder, clock)


def verify(svid, authority, clock):
    return verify_chain(svid.chain, authority.bundle.x509_authorities, TRUST_DOMAIN, clock.now())


def verify_jwt(svid, authority, clock):
    return jwtsvid.verify(svid.token, ["a"], {TRUST_DOMAIN: authority.jwt_keys}, clock.now())


class TestX509:
    @pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=["P-256", "P-384"])
    def test_chains_to_the_bundle(self, folder, clock, curve):
        """An SVID chains to the bundle, for the SPIFFE ID that was asked for, by keys of the chosen curve."""
        authority = authority_in(folder, clock, curve=curve)
        svid = authority.issue_x509(WEB, HOUR, ["web.example"])
        assert WEB == verify(svid, authority, clock)
        assert {curve.name} == {each.public_key().curve.name for each in (*svid.chain, authority.root)}
        assert svid.key.public_key() == svid.leaf.public_key()

    def test_each_has_its_own_key(self, authority):
        """No two SVIDs share a key."""
        assert 2 == len({authority.issue_x509(WEB, HOUR).key_der for _ in range(2)})

    def test_life(self, authority, clock):
        """An SVID begins a little in the past, for clocks that run behind, and ends after its time."""
        svid = authority.issue_x509(WEB, HOUR)
        assert (clock.now() - timedelta(seconds=NOT_BEFORE_SLACK_SECONDS), clock.now() + HOUR) == (
            svid.leaf.not_valid_before_utc,
            svid.not_after,
        )

    def test_life_is_clipped(self, authority, clock):
        """An SVID does not outlive the intermediate that signed it."""
        assert clock.now() + DAY == authority.issue_x509(WEB, 7 * DAY).not_after


class TestSteps:
    """A wall clock that is set, or a machine that slept, before any upkeep came."""

    @pytest.mark.parametrize("step", [DAY, -DAY, 40 * DAY], ids=["a day", "a day back", "forty days"])
    def test_what_is_signed_is_valid(self, authority, clock, step):
        """What is signed just after a step of the clock is valid by it."""
        clock.advance(2 * DAY.total_seconds())
        authority.maintain()
        clock.step_wall(step.total_seconds())
        assert WEB == verify(authority.issue_x509(WEB, HOUR), authority, clock)
        assert WEB == verify_jwt(authority.issue_jwt(WEB, ["a"], HOUR), authority, clock).spiffe_id

    def test_beyond_the_root(self, authority, clock):
        """When the root has ended nothing is signed, and the reason is told."""
        clock.step_wall((5000 * DAY).total_seconds())
        with pytest.raises(Unavailable, match="root certificate has expired"):
            authority.issue_x509(WEB, HOUR)
        with pytest.raises(Unavailable, match="root certificate has expired"):
            authority.issue_jwt(WEB, ["a"], HOUR)

    def test_is_told(self, authority, clock):
        """If a new JWT key was needed, those who follow the bundle hear of it."""
        told = []
        authority.on_change(lambda: told.append(len(authority.jwt_keys)))
        clock.advance(timedelta(days=40).total_seconds())
        authority.issue_jwt(WEB, ["a"], HOUR)
        assert [1] == told


class TestJwt:
    def test_verifies_by_the_bundle(self, authority, clock):
        """A JWT-SVID verifies by the bundle's keys."""
        svid = authority.issue_jwt(WEB, ["a"], HOUR)
        assert (WEB, clock.now() + HOUR) == (verify_jwt(svid, authority, clock).spiffe_id, svid.expires_at)

    def test_issuer(self, folder, clock, authority):
        """A JWT-SVID has no `iss` unless it is to have one."""
        with_issuer = authority_in(folder, clock, jwt_issuer="https://i.example")
        assert "iss" not in authority.issue_jwt(WEB, ["a"], HOUR).claims
        assert "https://i.example" == with_issuer.issue_jwt(WEB, ["a"], HOUR).claims["iss"]

    def test_life_is_clipped(self, folder, clock):
        """A JWT-SVID does not outlive the key that signed it."""
        authority = authority_in(folder, clock, jwt_key_ttl=HOUR)
        assert clock.now() + HOUR == authority.issue_jwt(WEB, ["a"], DAY).expires_at


class TestAssertion:
    """A JWT-SVID for an outside token endpoint."""

    def test_verifies_by_the_bundle(self, authority, clock):
        """An assertion is a JWT-SVID that verifies by the bundle, with `iss`, and with `aud` as a string."""
        svid = authority.issue_assertion(WEB, "a", HOUR, issuer="https://sojourn.example.org", claims={"x": 1})
        verified = verify_jwt(svid, authority, clock)
        assert (WEB, "https://sojourn.example.org", "a", 1) == (
            verified.spiffe_id, verified.claims["iss"], verified.claims["aud"], verified.claims["x"]
        )  # fmt: skip
        assert ("a",) == svid.audience

    def test_each_is_new(self, authority):
        """No two have the same `jti`."""
        made = [authority.issue_assertion(WEB, "a", HOUR, issuer="https://i.example") for _ in range(2)]
        assert made[0].claims["jti"] != made[1].claims["jti"]

    def test_life_is_clipped(self, folder, clock):
        """An assertion does not outlive the key that signed it."""
        authority = authority_in(folder, clock, jwt_key_ttl=HOUR)
        assert clock.now() + HOUR == authority.issue_assertion(WEB, "a", DAY, issuer="https://i.example").expires_at

    @pytest.mark.parametrize("claim", ["sub", "aud", "exp", "iat", "jti", "iss", "nbf"])
    def test_own_claims_stay(self, authority, claim):
        """What is a JWT-SVID's own is never replaced by a claim that is asked for."""
        with pytest.raises(InvalidInput, match=claim):
            authority.issue_assertion(WEB, "a", HOUR, issuer="https://i.example", claims={claim: "x"})

    def test_rs256(self, folder, clock):
        """With RSA keys an assertion by RS256 verifies by the bundle, also after a restart; others stay ES256."""
        authority = authority_in(folder, clock, rs256=True)
        made = [
            authority.issue_assertion(WEB, "a", HOUR, issuer="https://i.example", algorithm="RS256"),
            authority.issue_assertion(WEB, "a", HOUR, issuer="https://i.example"),
            authority.issue_jwt(WEB, ["a"], HOUR),
        ]
        assert ["RS256", "ES256", "ES256"] == [parse_unverified(svid.token).algorithm for svid in made]
        for each in (authority, authority_in(folder, clock, rs256=True)):
            assert {WEB} == {verify_jwt(svid, each, clock).spiffe_id for svid in made}

    def test_rs256_switched_off(self, folder, clock):
        """When RSA keys are switched off, what they signed verifies no more, and they are there when they are on."""
        svid = authority_in(folder, clock, rs256=True).issue_assertion(
            WEB, "a", HOUR, issuer="https://i.example", algorithm="RS256"
        )
        with pytest.raises(InvalidToken):
            verify_jwt(svid, authority_in(folder, clock), clock)
        assert WEB == verify_jwt(svid, authority_in(folder, clock, rs256=True), clock).spiffe_id

    def test_a_tainted_rsa_key(self, folder, clock):
        """An RSA key that is tainted signs nothing from then on; when it is revoked, nothing of it verifies."""
        authority = authority_in(folder, clock, rs256=True)
        first = authority.slots(RS256).active.id
        svid = authority.issue_assertion(WEB, "a", HOUR, issuer="https://i.example", algorithm="RS256")
        assert authority.replace(RS256, first).tainted
        after = authority.issue_assertion(WEB, "a", HOUR, issuer="https://i.example", algorithm="RS256")
        authority.revoke(RS256, first)
        with pytest.raises(InvalidToken):
            verify_jwt(svid, authority, clock)
        assert WEB == verify_jwt(after, authority, clock).spiffe_id

    def test_no_key_of_the_algorithm(self, authority):
        """Without RSA keys nothing is signed by RS256, and the reason is told."""
        with pytest.raises(Unavailable, match="RS256"):
            authority.issue_assertion(WEB, "a", HOUR, issuer="https://i.example", algorithm="RS256")


class TestRestart:
    def test_root_and_jwt_keys_stay(self, folder, clock, authority):
        """After a restart the bundle is the same, and what was signed before is good."""
        x509_svid, jwt_svid = authority.issue_x509(WEB, HOUR), authority.issue_jwt(WEB, ["a"], HOUR)
        again = authority_in(folder, clock)
        assert authority.bundle.x509_der == again.bundle.x509_der
        assert authority.bundle.jwks == again.bundle.jwks
        assert WEB == verify(x509_svid, again, clock)
        assert WEB == verify_jwt(jwt_svid, again, clock).spiffe_id

    def test_intermediate_is_new(self, folder, clock, authority):
        """The intermediate's key is never on disk: each start makes a new one."""
        assert authority.issuer != authority_in(folder, clock).issuer

    def test_root_keeps_its_curve(self, folder, clock, authority):
        """A root that is there keeps its curve when another is configured."""
        again = authority_in(folder, clock, curve=ec.SECP384R1())
        assert ("secp256r1", "secp384r1") == (
            again.root.public_key().curve.name,
            again.issuer.public_key().curve.name,
        )
        assert WEB == verify(again.issue_x509(WEB, HOUR), again, clock)

    def test_folder_is_ours_alone(self, folder, authority):
        """The folder and the keys can be read by us alone."""
        assert [0o700, 0o600, 0o600] == [
            each.stat().st_mode & 0o777 for each in (folder, folder / "root.pem", folder / "jwt.pem")
        ]

    def test_another_trust_domain(self, folder, clock, authority):
        """The root of another trust domain is refused and left as it is."""
        before = (folder / "root.pem").read_bytes()
        with pytest.raises(CannotStart, match="trust domain"):
            authority_in(folder, clock, trust_domain=TrustDomain("other.example"))
        assert before == (folder / "root.pem").read_bytes()

    @pytest.mark.parametrize(
        "damage", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n"]
    )
    def test_damaged_root(self, folder, clock, authority, damage):
        """A root that cannot be parsed is refused with what to do, never replaced."""
        atomic.write(folder / "root.pem", damage)
        with pytest.raises(CannotStart, match="backup"):
            authority_in(folder, clock)
        assert damage == (folder / "root.pem").read_bytes()

    def test_key_of_another_certificate(self, folder, clock, authority, tmp_path):
        """A root whose key is another one's is refused."""
        authority_in(tmp_path / "other", clock)
        mine, theirs = ((each / "root.pem").read_bytes() for each in (folder, tmp_path / "other"))
        mark = b"-----BEGIN PRIVATE KEY-----"
        atomic.write(folder / "root.pem", mine[: mine.index(mark)] + theirs[theirs.index(mark) :])
        with pytest.raises(CannotStart, match="do not belong together"):
            authority_in(folder, clock)

    def test_root_that_has_expired(self, folder, clock, authority):
        """A root whose life is over is refused with what to do."""
        clock.advance(timedelta(days=3651).total_seconds())
        with pytest.raises(CannotStart, match="expired"):
            authority_in(folder, clock)


class TestMaintain:
    def test_intermediate_at_half_of_its_life(self, authority, clock):
        """The intermediate is renewed at half of its life, so that leaves always have some."""
        before = authority.issuer
        wait = authority.maintain()
        clock.advance(wait.total_seconds() - 60)
        authority.maintain()
        assert before == authority.issuer
        clock.advance(60)
        authority.maintain()
        assert before != authority.issuer

    def test_what_the_old_one_signed_stays_good(self, authority, clock):
        """An SVID of the intermediate before verifies as it did."""
        svid = authority.issue_x509(WEB, DAY)
        clock.advance(DAY.total_seconds() * 0.7)
        authority.maintain()
        assert WEB == verify(svid, authority, clock)

    def test_jwt_keys_change_the_bundle(self, authority, clock):
        """When there is a new JWT key the bundle has both before it signs, hooks run, and old tokens verify."""
        svid = authority.issue_jwt(WEB, ["a"], 29 * DAY)
        heard = []
        authority.on_change(lambda: heard.append(len(authority.jwt_keys)))
        before = authority.bundle.sequence
        clock.advance(timedelta(days=15).total_seconds())
        authority.maintain()
        assert ([2], WEB) == (heard, verify_jwt(svid, authority, clock).spiffe_id)
        assert authority.bundle.sequence > before

    def test_nothing_to_do(self, authority):
        """When nothing is due nothing changes and nobody is told."""
        heard = []
        authority.on_change(lambda: heard.append(1))
        before = authority.bundle
        assert authority.maintain() > HOUR
        assert (before, []) == (authority.bundle, heard)

    def test_never_in_a_rush(self, folder, clock):
        """The next look is at least a second away, also when everything is about to end."""
        authority = authority_in(folder, clock, root_ttl=DAY, issuer_ttl=timedelta(minutes=1))
        for _ in range(200):
            wait = authority.maintain()
            assert wait >= timedelta(seconds=1)
            clock.advance(min(wait.total_seconds(), 600))

    def test_a_wall_clock_that_was_ahead(self, folder, clock):
        """After the wall clock was set back beyond the intermediate's begin, SVIDs are issued again."""
        authority_in(folder, clock)  # the root is made at the right time
        clock.step_wall(DAY.total_seconds())
        authority = authority_in(folder, clock)
        clock.step_wall(-DAY.total_seconds() / 2)
        authority.maintain()
        assert authority.issue_x509(WEB, HOUR)


class TestLocalAuthorities:
    async def test_root_rotation(self, folder, clock, authority):
        """Over a rotation of the root both are in the bundle: what either signed verifies, also after a restart."""
        first = authority.slots(X509).active.id
        before = authority.issue_x509(WEB, HOUR)
        made = authority.prepare(X509)
        during = authority.issue_x509(WEB, HOUR)
        await authority.activate(X509, made.id)
        after = authority.issue_x509(WEB, HOUR)
        assert [first, first, made.id] == [authority.root_of(svid) for svid in (before, during, after)]
        again = authority_in(folder, clock)
        for svid in (before, during, after):
            assert WEB == verify(svid, authority, clock) == verify(svid, again, clock)
        assert made.id == again.root_of(again.issue_x509(WEB, HOUR))

    async def test_a_revoked_root(self, folder, clock, authority):
        """What a revoked root signed verifies no more, here and after a restart; what the new one signs does."""
        first = authority.slots(X509).active.id
        svid = authority.issue_x509(WEB, HOUR)
        await authority.activate(X509, authority.prepare(X509).id)
        authority.taint(X509, first)
        assert WEB == verify(svid, authority, clock)
        assert frozenset({first}) == authority.bundle.tainted
        authority.revoke(X509, first)
        for each in (authority, authority_in(folder, clock)):
            assert frozenset() == each.bundle.tainted
            with pytest.raises(InvalidSvid):
                verify(svid, each, clock)
            assert WEB == verify(each.issue_x509(WEB, HOUR), each, clock)

    async def test_a_revoked_jwt_key(self, authority, clock):
        """A JWT-SVID of a revoked key verifies no more; those of the next key do."""
        svid, first = authority.issue_jwt(WEB, ["a"], HOUR), authority.slots(JWT).active.id
        await authority.activate(JWT, authority.prepare(JWT).id)
        authority.taint(JWT, first)
        assert WEB == verify_jwt(svid, authority, clock).spiffe_id
        authority.revoke(JWT, first)
        with pytest.raises(InvalidToken):
            verify_jwt(svid, authority, clock)
        assert WEB == verify_jwt(authority.issue_jwt(WEB, ["a"], HOUR), authority, clock).spiffe_id

    def test_the_root_that_signs(self, authority):
        """A root that signs is not replaced in one step: whoever polls the bundle must know the next one first."""
        with pytest.raises(FailedPrecondition, match="current local authority"):
            authority.replace(X509, authority.slots(X509).active.id)

    async def test_each_step_is_told(self, authority):
        """Each step changes the bundle's sequence number and runs the hooks."""
        heard = []
        authority.on_change(lambda: heard.append(authority.bundle.sequence))
        first = authority.slots(X509).active.id
        await authority.activate(X509, authority.prepare(X509).id)
        authority.taint(X509, first)
        authority.revoke(X509, first)
        assert 4 == len(heard)
        assert heard == sorted(heard)

    def test_a_root_follows_by_itself(self, folder, clock):
        """A root is followed by the next in time, without a gap: SVIDs of either verify all the way."""
        authority = authority_in(folder, clock, root_ttl=10 * DAY)
        roots, issued = set(), []
        for _ in range(60):
            issued = [svid for svid in (*issued, authority.issue_x509(WEB, DAY)) if svid.not_after > clock.now()]
            roots.add(authority.root_of(issued[-1]))
            assert {WEB} == {verify(svid, authority, clock) for svid in issued}
            clock.advance(DAY.total_seconds() / 4)
            authority.maintain()
        assert len(roots) >= 3
