"""identities.py, svid_issuer.py: nothing that made a kept JWT-SVID, or a kept validation, untrue leaves it in use."""

from dataclasses import replace

import pytest
from fakes.authorities import authority_in
from fakes.children import child, peer_of
from fakes.identity_room import TTL, Room
from fakes.registrations import entry
from sojourn.authority.embedded_ca import JWT
from sojourn.errors import AttestationFailed, InvalidToken
from sojourn.identity.issued_svids import JWT as OF_JWT
from sojourn.identity.issued_svids import IssuedSvid
from sojourn.spiffe import jwtsvid
from sojourn.spiffe.ids import SpiffeId, TrustDomain

WEB, OTHER = entry("/web"), entry("/other", "unix:uid:1")
PARTNER = TrustDomain("partner.example")


@pytest.fixture
async def room(tmp_path):
    room = Room(tmp_path / "keys", [WEB, OTHER])
    room.alarms.on_step(room.issuing.check_clock)  # as the daemon does
    yield room
    room.close()


@pytest.fixture
def partner(room, tmp_path):
    return authority_in(tmp_path / "partner", room.clock, trust_domain=PARTNER)


def of_partner(partner):
    return partner.issue_jwt(SpiffeId.parse("spiffe://partner.example/x"), ["a"], TTL).token


async def refusal(room, token, audience="a", peer=None):
    with pytest.raises(InvalidToken) as caught:
        await room.identities.verify_for(peer or room.peer, token, [audience])
    return caught.value.reason_code


class TestKept:
    """A JWT-SVID that was handed out is handed out again until something is another."""

    @pytest.fixture
    def kept(self, room):
        web, other = room.identities.jwt_svid(WEB, ["a"]), room.identities.jwt_svid(OTHER, ["a"])
        assert (web, other) == (room.identities.jwt_svid(WEB, ["a"]), room.identities.jwt_svid(OTHER, ["a"]))
        return web, other

    def again(self, room, kept):
        """Which of the two are handed out again."""
        web, other = kept
        return room.identities.jwt_svid(WEB, ["a"]) is web, room.identities.jwt_svid(OTHER, ["a"]) is other

    async def test_an_entry_that_changes(self, room, kept):
        """When an entry has changed, what was made of it before is dropped, and nothing else."""
        await room.registry.update([(WEB.id, lambda old: replace(old, jwt_svid_ttl=60))])
        assert 1 == len(room.issuing.jwt)
        (changed,) = await room.identities.of(room.peer)
        svid = room.identities.jwt_svid(changed, ["a"])
        assert (60, True) == ((svid.expires_at - svid.issued_at).total_seconds(), self.again(room, kept)[1])

    async def test_an_entry_that_goes(self, room, kept):
        """When an entry has gone, its tokens are dropped."""
        await room.registry.delete([WEB.id])
        assert (1, (False, True)) == (len(room.issuing.jwt), self.again(room, kept))

    @pytest.mark.parametrize("step", [3, -3, 86_400, -86_400])
    async def test_a_step_of_the_clock(self, room, kept, step):
        """When the wall clock was set, be it by little, all are made anew."""
        room.clock.step_wall(step)
        room.alarms.look_at_wall()
        assert (False, False) == self.again(room, kept)

    async def test_keys_that_are_prepared_activated_and_tainted(self, room, kept):
        """What the key before has signed is good, and handed out again, until that is tainted: at once no more."""
        first = room.authority.slots(JWT).active.id
        prepared = room.authority.prepare(JWT)
        await room.authority.activate(JWT, prepared.id)
        assert (True, True) == self.again(room, kept)
        room.authority.taint(JWT, first)
        assert (False, False) == self.again(room, kept)
        by_new = room.identities.jwt_svid(WEB, ["a"])
        jwtsvid.verify(by_new.token, ["a"], {WEB.spiffe_id.trust_domain: keys(room, prepared.id)}, room.clock.now())

    async def test_the_key_that_signs_is_replaced(self, room, kept):
        """When the key that signs is tainted, nothing that it signed is handed out again."""
        tainted = room.authority.slots(JWT).active.id
        room.authority.replace(JWT, tainted)
        await room.issuing.replace_signed_by(JWT, tainted)
        found = room.identities.jwt_svid(WEB, ["a"])
        room.authority.revoke(JWT, tainted)
        room.identities.verify_jwt_svid(found.token, ["a"])

    async def test_revoked(self, room, kept, monkeypatch):
        """A kept JWT-SVID that is revoked is dropped as soon as that is in force, before it is on disk; others are not."""
        seen = []
        revocations = room.identities._revocations

        async def put(_, _events, _times):
            seen.append(self.again(room, kept))

        monkeypatch.setattr(revocations._store, "put", put)
        await room.identities.revoke([issued(kept[0], WEB)])
        assert [(False, True)] == seen

    async def test_rotated_by_hand(self, room, kept):
        """`rotate now` of an entry makes its tokens anew."""
        await room.issuing.rotate(lambda key: key.entry_id == WEB.id)
        assert (False, True) == self.again(room, kept)


def keys(room, kid):
    return {kid: room.authority.jwt_keys[kid]}


def issued(svid, of):
    return IssuedSvid(OF_JWT, svid.claims["jti"], str(svid.spiffe_id), of.id, svid.claims["exp"])


class TestValidated:
    """A token that was good is remembered, and answered for only while everything that made it good is so."""

    @pytest.fixture
    async def token(self, room):
        token = room.identities.jwt_svid(WEB, ["a"]).token
        first = await room.identities.verify_for(room.peer, token, ["a"])
        assert first is await room.identities.verify_for(room.peer, token, ["a"])
        return token

    async def test_another_audience(self, room, token):
        """A JWT-SVID that was found good is good for its audiences and no other."""
        assert "wrong_audience" == await refusal(room, token, "b")

    async def test_its_end(self, room, token):
        """A JWT-SVID that was found good is not good after its end."""
        room.clock.advance(300 + 60)
        assert "expired" == await refusal(room, token)

    async def test_a_clock_that_is_set(self, room, token):
        """A JWT-SVID that was found good is not good before its time, nor after it, however the clock came there."""
        room.clock.step_wall(-3_600)
        assert "not_yet_valid" == await refusal(room, token)
        room.clock.step_wall(7_200)
        assert "expired" == await refusal(room, token)

    async def test_revoked(self, room, token):
        """A JWT-SVID that was found good is refused once it is revoked."""
        await room.identities.revoke([issued(await room.identities.verify_for(room.peer, token, ["a"]), WEB)])
        assert "revoked" == await refusal(room, token)

    async def test_a_key_that_is_revoked(self, room, token):
        """A JWT-SVID that was found good is so after its key was tainted, and no more once that is revoked."""
        tainted = room.authority.slots(JWT).active.id
        room.authority.replace(JWT, tainted)
        await room.identities.verify_for(room.peer, token, ["a"])
        room.authority.revoke(JWT, tainted)
        assert "unknown_key" == await refusal(room, token)

    async def test_a_caller_that_has_gone(self, room, token):
        """A caller that has ended has no answer, whatever is remembered."""
        room.process.kill()
        room.process.wait()
        with pytest.raises(AttestationFailed):
            await room.identities.verify_for(room.peer, token, ["a"])


class TestOfOthers:
    """A token of a partner is answered for to those who federate with it, whoever had it validated before."""

    @pytest.fixture
    async def token(self, room, partner):
        await room.foreign.put(partner.bundle)
        await room.registry.update([(WEB.id, lambda old: replace(old, federates_with=(PARTNER,)))])
        token = of_partner(partner)
        first = await room.identities.verify_for(room.peer, token, ["a"])
        assert first is await room.identities.verify_for(room.peer, token, ["a"])
        return token

    async def test_another_caller(self, room, token):
        """One who does not federate is refused what another one was told."""
        room.attestor.values = frozenset({"uid:1"})  # of callers that are attested from now on
        with child() as process:
            peer = peer_of(process)
            assert "unknown_trust_domain" == await refusal(room, token, peer=peer)
            peer.close()
        await room.identities.verify_for(room.peer, token, ["a"])

    async def test_who_federates_no_more(self, room, token):
        """The same caller is refused once its entry federates no more."""
        await room.registry.update([(WEB.id, lambda old: replace(old, federates_with=()))])
        assert "unknown_trust_domain" == await refusal(room, token)

    async def test_a_bundle_that_goes(self, room, token):
        """All are refused once the partner's bundle is gone."""
        await room.registry.update([(WEB.id, lambda old: replace(old, hint="new"))])
        await room.foreign.remove(PARTNER, "dissociate")
        assert "unknown_trust_domain" == await refusal(room, token)

    async def test_another_bundle(self, room, token, tmp_path):
        """A bundle with other keys has no good word for it, be there one of the same id."""
        twin = authority_in(tmp_path / "twin", room.clock, trust_domain=PARTNER)
        await room.foreign.put(twin.bundle)
        assert "unknown_key" == await refusal(room, token)
        (known,) = room.identities.bundles_of(await room.identities.of(room.peer))[PARTNER].jwt_authorities
        bundle = replace(twin.bundle, jwt_authorities={})
        await room.foreign.put(bundle)
        assert (True, "unknown_key") == (bool(known), await refusal(room, token))

    async def test_another_key_of_the_same_id(self, room, partner, token, tmp_path):
        """A key that is another under the same id is asked, and did not sign it."""
        (kid,) = partner.jwt_keys
        (other,) = authority_in(tmp_path / "twin", room.clock, trust_domain=PARTNER).jwt_keys.values()
        await room.foreign.put(replace(partner.bundle, jwt_authorities={kid: replace(other, kid=kid)}))
        assert "bad_signature" == await refusal(room, token)
