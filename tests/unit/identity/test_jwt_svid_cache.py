"""jwt_svid_cache.py: JWT-SVIDs are served again while they are young, and never past their end."""

from dataclasses import replace
from datetime import timedelta

import pytest
from fakes.authorities import authority_in
from fakes.registrations import entry
from sojourn.identity import jwt_svid_cache
from sojourn.identity.custom_claims import JwtClaims
from sojourn.identity.jwt_svid_cache import JwtSvids
from sojourn.identity.svid_signers import JwtSignerAtOnce

TTL = timedelta(minutes=5)
WEB, DB = entry("/web"), entry("/db")


class Issuer:
    """A real authority that refuses when told to."""

    def __init__(self, folder, clock):
        self.authority = authority_in(folder, clock)
        self.failing = False

    def issue_jwt(self, *arguments):
        if self.failing:
            raise RuntimeError("the issuer fails")
        return self.authority.issue_jwt(*arguments)


@pytest.fixture
def issuer(tmp_path, clock):
    return Issuer(tmp_path / "keys", clock)


@pytest.fixture
def svids(issuer, clock):
    return JwtSvids(JwtSignerAtOnce(issuer, TTL), clock)


def test_served_again(svids, clock):
    """Until half of its life is over the same token is served for the same entry and audiences."""
    first = svids.look(WEB, ["a", "b"])
    clock.advance(149)
    assert first is svids.look(WEB, ["a", "b"])
    clock.advance(1)
    renewed = svids.look(WEB, ["a", "b"])
    assert (True, clock.now() + TTL) == (renewed.claims["jti"] != first.claims["jti"], renewed.expires_at)


@pytest.mark.parametrize(
    ("other", "audience"),
    [(DB, ["a", "bc"]), (WEB, ["a"]), (WEB, ["bc", "a"]), (WEB, ["ab", "c"]), (replace(WEB, revision=1), ["a", "bc"])],
)
def test_not_for_another(svids, other, audience):
    """Another entry, another revision of it, and other audiences, however they are cut, get tokens of their own."""
    first = svids.look(WEB, ["a", "bc"])
    found = svids.look(other, audience)
    assert (True, other.spiffe_id, tuple(audience)) == (
        first.claims["jti"] != found.claims["jti"],
        found.spiffe_id,
        found.audience,
    )


def test_renewing_that_fails(svids, issuer, clock):
    """If renewing fails, the token at hand is served while it is good, and then the failure shows."""
    first = svids.look(WEB, ["a"])
    issuer.failing = True
    clock.advance(299)
    assert first is svids.look(WEB, ["a"])
    clock.advance(1)
    with pytest.raises(RuntimeError):
        svids.look(WEB, ["a"])
    issuer.failing = False
    assert first is not svids.look(WEB, ["a"])


@pytest.mark.parametrize("step", [86_400, -86_400])
def test_a_step_of_the_wall_clock(svids, clock, step):
    """After the wall clock was set, neither an expired token nor one of the future is served."""
    first = svids.look(WEB, ["a"])
    clock.step_wall(step)
    found = svids.look(WEB, ["a"])
    assert first is not found
    assert found.issued_at <= clock.now() < found.expires_at


def test_forgetting(svids):
    """What is forgotten is made anew: of some identities, of an entry, or of all."""
    web, db = svids.look(WEB, ["a"]), svids.look(DB, ["a"])
    svids.forget_some(lambda key: key == WEB.key)
    assert (False, True) == (web is svids.look(WEB, ["a"]), db is svids.look(DB, ["a"]))
    web = svids.look(WEB, ["a"])
    svids.forget_entry(WEB.id)
    assert (False, True) == (web is svids.look(WEB, ["a"]), db is svids.look(DB, ["a"]))
    svids.forget()
    assert db is not svids.look(DB, ["a"])


def test_a_limit(issuer, clock, monkeypatch):
    """Of many audiences those that were used last are kept."""
    monkeypatch.setattr(jwt_svid_cache, "JWT_SVIDS_KEPT", 3)
    svids = JwtSvids(JwtSignerAtOnce(issuer, TTL), clock)
    kept = [svids.look(WEB, [each]) for each in "abc"]
    svids.look(WEB, ["a"])
    svids.look(WEB, ["d"])
    assert (kept[0], kept[2]) == (svids.look(WEB, ["a"]), svids.look(WEB, ["c"]))
    assert kept[1] is not svids.look(WEB, ["b"])


@pytest.mark.parametrize("limit", ["JWT_SVIDS_KEPT_PER_ENTRY", "JWT_SVIDS_KEPT_PER_ENTRY_BYTES"])
def test_one_entry_does_not_take_the_room_of_others(issuer, clock, monkeypatch, limit):
    """Who asks for ever other audiences loses its own tokens by that, and nobody else's."""
    monkeypatch.setattr(jwt_svid_cache, limit, 3 if limit == "JWT_SVIDS_KEPT_PER_ENTRY" else 1_200)
    svids = JwtSvids(JwtSignerAtOnce(issuer, TTL), clock)
    db = svids.look(DB, ["a"])
    first = svids.look(WEB, ["a0"])
    for number in range(1, 50):
        svids.look(WEB, [f"a{number}"])
    assert db is svids.look(DB, ["a"])
    assert first is not svids.look(WEB, ["a0"])
    assert len(svids) <= 4


def test_a_long_one_is_not_kept(issuer, clock, monkeypatch):
    """A token that is more than an entry's share is made each time."""
    monkeypatch.setattr(jwt_svid_cache, "JWT_SVIDS_KEPT_PER_ENTRY_BYTES", 1_000)
    svids = JwtSvids(JwtSignerAtOnce(issuer, TTL), clock)
    long = ["a" * 800]
    assert svids.look(WEB, long) is not svids.look(WEB, long)


def test_other_claims(svids):
    """Callers with other claims, by what is attested of them, get tokens of their own."""
    of = [replace(WEB, jwt_claims=JwtClaims.parse({"pod": each})) for each in "ab"]
    tokens = [svids.look(each, ["x"]) for each in of]
    assert ["a", "b"] == [each.claims["pod"] for each in tokens]
    assert tokens == [svids.look(each, ["x"]) for each in of]


def test_all_anew(issuer, clock):
    """Told that every audience takes a JWT-SVID once, none is kept."""
    svids = JwtSvids(JwtSignerAtOnce(issuer, TTL), clock, each_anew=[jwt_svid_cache.ALL_AUDIENCES])
    assert 3 == len({svids.look(WEB, ["a"]).claims["jti"] for _ in range(3)})
    assert 0 == len(svids)


def test_each_anew(issuer, clock):
    """For an audience that takes a JWT-SVID once, also among others, each is another, and none is kept."""
    svids = JwtSvids(JwtSignerAtOnce(issuer, TTL), clock, each_anew=["once"])
    for audience in (["once"], ["once", "often"]):
        assert 3 == len({svids.look(WEB, audience).claims["jti"] for _ in range(3)})
    assert 0 == len(svids)
    assert svids.look(WEB, ["often"]) is svids.look(WEB, ["often"])
