"""One registration with placeholders is many identities, and each caller has its own and no other's."""

import base64
import json
from dataclasses import replace

import pytest
from fakes.children import child, peer_of
from fakes.clock import FakeClock
from fakes.identity_room import TTL, Room
from fakes.registrations import NODE, OTHER_NODE, TRUST_DOMAIN, FakeEntryStore, entry, selectors
from sojourn.attestation.attestor import Answer
from sojourn.attestation.service import Attestation
from sojourn.errors import AttestationFailed, Bug, InvalidEntry, NoIdentity
from sojourn.identity.custom_claims import JwtClaims
from sojourn.identity.entries import Entry, IdentityKey, Registration, changed, check, registration
from sojourn.identity.registry import Registry
from sojourn.identity.templates import Unfilled, parse_id
from sojourn.limits import ATTESTATION_FRESH_SECONDS
from sojourn.runtime.clock import Alarms
from sojourn.spiffe.ids import SpiffeId, TrustDomain

POD = "spiffe://example.org/ns/{k8s.ns}/sa/{k8s.sa}"
PROD, WEB, SHOP = "k8s:ns:prod", "k8s:sa:web", "k8s:sa:shop"


def template(text=POD, *texts, **fields):
    given = {"id": "fleet", "parent_id": NODE, "selectors": selectors(*(texts or ("unix:uid:1000",)))}
    return registration({**given, "spiffe_id": parse_id(text), **fields})


def spiffe_id(path):
    return SpiffeId.from_parts("example.org", path)


def registry_of(*entries):
    clock = FakeClock()
    return Registry(FakeEntryStore(entries), TRUST_DOMAIN, [NODE], clock, Alarms(clock))


class TestRegistration:
    def test_what_it_is(self):
        """What has placeholders in its ID is no Entry, and can be made none; changed to an ID it is one."""
        assert type(template()) is Registration
        assert type(template("spiffe://example.org/web")) is Entry
        assert type(changed(template(), {"spiffe_id": spiffe_id("/web")})) is Entry
        assert type(changed(entry("/web"), {"spiffe_id": parse_id(POD)})) is Registration
        with pytest.raises(Bug):
            replace(entry("/web"), spiffe_id=parse_id(POD))

    def test_expand(self):
        """The entry of a caller has the registration's fields, and the ID and claims that were filled in."""
        made = template(jwt_claims=JwtClaims.parse({"at": "{k8s.ns}:{k8s.sa}"}), hint="h", revision=3)
        found = made.expand(selectors("unix:uid:1000", PROD, WEB))
        expected = entry("/ns/prod/sa/web", id="fleet", hint="h", revision=3)
        assert replace(expected, jwt_claims=JwtClaims.parse({"at": "prod:web"})) == found

    @pytest.mark.parametrize("held", [(PROD,), (PROD, WEB, SHOP), (PROD, "k8s:sa:a/b"), (PROD, "k8s:sa:..")])
    def test_not_without_a_value(self, held):
        """Without exactly one fitting value for each placeholder there is no entry."""
        assert isinstance(template().expand(selectors("unix:uid:1000", *held)), Unfilled)

    def test_claims_alone(self):
        """An entry that says its ID outright gives nothing either while its claims cannot be filled."""
        made = entry("/web", jwt_claims=JwtClaims.parse({"ns": "{k8s.ns}"}))
        assert isinstance(made.expand(selectors("unix:uid:1000")), Unfilled)
        assert {"ns": "prod"} == made.expand(selectors("unix:uid:1000", PROD)).jwt_claims.signable

    def test_without_placeholders_it_is_the_same(self):
        """An entry without placeholders is what a caller has."""
        only = entry("/web")
        assert only is only.expand(selectors("unix:uid:1000"))

    def test_known_by_its_id_alone(self):
        """The entry for an ID that it makes keeps the placeholders of its claims, so that none of them is signed."""
        made = template(jwt_claims=JwtClaims.parse({"team": "{docker.label:team}"}))
        found = made.expanded_to(spiffe_id("/ns/a/sa/b"))
        assert IdentityKey("fleet", spiffe_id("/ns/a/sa/b")) == found.key
        with pytest.raises(Bug):
            _ = found.jwt_claims.signable
        assert made.expanded_to(spiffe_id("/ns/a")) is None
        assert entry("/web").expanded_to(spiffe_id("/other")) is None

    @pytest.mark.parametrize("text", ["spiffe://other.example/{k8s.ns}", "spiffe://example.org/spire/{k8s.ns}"])
    def test_checked_as_any_other(self, text):
        """A template of another trust domain's IDs, or of the agent's own, is not registered."""
        check(template(), TRUST_DOMAIN)
        with pytest.raises(InvalidEntry, match="invalid spiffe ID"):
            check(template(text), TrustDomain("example.org"))


class TestRegistry:
    def test_match(self):
        """A caller has the entries that are filled in for it, among the others, in the stated order."""
        first, second = template(created_at=5), entry("/a", created_at=5)
        held = selectors("unix:uid:1000", PROD, WEB)
        assert ["/a", "/ns/prod/sa/web"] == [each.spiffe_id.path for each in registry_of(first, second).match(held)]
        high = replace(first, priority=1)
        assert ["/ns/prod/sa/web", "/a"] == [each.spiffe_id.path for each in registry_of(high, second).match(held)]
        assert all(type(each) is Entry for each in registry_of(first, second).match(held))

    def test_the_order_goes_by_what_is_filled_in(self):
        """Where all else is the same the SPIFFE ID that the caller has decides, and not the text of the template."""
        one = template("spiffe://example.org/{k8s.ns}", id="one")
        two = template("spiffe://example.org/{k8s.sa}", id="two")
        held = selectors("unix:uid:1000", "k8s:ns:zz", "k8s:sa:aa")
        assert ["two", "one"] == [each.id for each in registry_of(one, two).match(held)]

    def test_registered(self):
        """A workload that is known by its SVID has the registrations that say its ID, and those that make it."""
        registry = registry_of(template(parent_id=OTHER_NODE), entry("/ns/prod/sa/web", id="said"), entry("/x"))
        found = registry.registered(spiffe_id("/ns/prod/sa/web"))
        assert ({"fleet", "said"}, {spiffe_id("/ns/prod/sa/web")}) == (
            {each.id for each in found},
            {each.spiffe_id for each in found},
        )
        assert () == registry.registered(spiffe_id("/ns/prod"))

    async def test_registered_no_more(self):
        """What is deleted, changed or over makes no ID any more."""
        clock = FakeClock()
        alarms = Alarms(clock)
        soon = int(clock.now().timestamp()) + 60
        registry = Registry(FakeEntryStore([template(expires_at=soon)]), TRUST_DOMAIN, [NODE], clock, alarms)
        one = spiffe_id("/ns/a/sa/b")
        assert [IdentityKey("fleet", one)] == [each.key for each in registry.registered(one)]
        await registry.update([("fleet", lambda old: changed(old, {"spiffe_id": parse_id(POD + "/x")}))])
        assert ((), 1) == (registry.registered(one), len(registry.registered(spiffe_id("/ns/a/sa/b/x"))))
        clock.advance(60)
        alarms.ring_due()
        assert () == registry.registered(spiffe_id("/ns/a/sa/b/x"))
        await registry.create([template(id="next")])
        await registry.delete(["next"])
        assert () == registry.registered(one)

    async def test_still_what_it_was(self):
        """What was found is no more what it was once it is changed, over or deleted, whether a template made it or not."""
        clock = FakeClock()
        soon = int(clock.now().timestamp()) + 60
        store = FakeEntryStore([template(expires_at=soon), entry("/said", id="said")])
        registry = Registry(store, TRUST_DOMAIN, [NODE], clock, Alarms(clock))
        found = [registry.registered(spiffe_id(path))[0] for path in ("/ns/a/sa/b", "/said")]
        assert [True, True] == [registry.has_still(each) for each in found]
        clock.advance(60)
        assert [False, True] == [registry.has_still(each) for each in found]
        await registry.update([("said", lambda old: changed(old, {"hint": "x"}))])
        assert not registry.has_still(found[1])
        (now,) = registry.registered(spiffe_id("/said"))
        assert registry.has_still(now)
        await registry.delete(["said"])
        assert not registry.has_still(now)

    async def test_another_by_the_same_id(self):
        """An entry that was deleted, and made again by its ID for another SPIFFE ID, is not what was found."""
        clock = FakeClock()
        registry = Registry(FakeEntryStore([entry("/said", id="said")]), TRUST_DOMAIN, [NODE], clock, Alarms(clock))
        (found,) = registry.registered(spiffe_id("/said"))
        await registry.delete(["said"])
        await registry.create([entry("/other", id="said")])
        assert not registry.has_still(found)
        (found,) = registry.registered(spiffe_id("/other"))
        assert registry.has_still(found)

    def test_known(self):
        """An entry is known as it is for an ID that can be had by it, and not for another."""
        registry = registry_of(template(), entry("/web"))
        assert IdentityKey("fleet", spiffe_id("/ns/a/sa/b")) == registry.known("fleet", spiffe_id("/ns/a/sa/b")).key
        assert registry.known("fleet", spiffe_id("/web")) is None
        assert entry("/web") == registry.known("entry-web", spiffe_id("/web"))
        assert registry.known("nobody", spiffe_id("/web")) is None

    async def test_a_twin(self):
        """Two templates of the same text, parent and selectors are one too many; of another text they are two."""
        registry = registry_of(template())
        twin, other = await registry.create([template(id="twin"), template(POD + "/x", id="other")])
        assert ("already_exists", None) == (twin.error.code, other.error)

    @pytest.mark.full
    def test_ten_thousand(self):
        """Ten thousand templates of many shapes are found by the IDs that they make, and none for what they do not."""
        shapes = ["/t{n}/ns/{{k8s.ns}}", "/x/{{k8s.ns}}-t{n}", "/t{n}-{{k8s.ns}}/y", "/{{k8s.ns}}/t{n}"]
        many = [
            template(f"spiffe://example.org{shapes[n % 4].format(n=n)}", f"unix:uid:{n}", id=f"t{n}")
            for n in range(10_000)
        ]
        registry = registry_of(*many)
        for path, expected in [
            ("/t4/ns/prod", "t4"),
            ("/x/prod-t9997", "t9997"),
            ("/t9998-prod/y", "t9998"),
            ("/prod/t9999", "t9999"),
        ]:
            assert [expected] == [each.id for each in registry.registered(spiffe_id(path))]
        assert () == registry.registered(spiffe_id("/t5/ns/prod"))
        assert ["t8"] == [each.id for each in registry.match(selectors("unix:uid:8", PROD))]


class Fleet(Room):
    """Callers that are all `unix:uid:1000`, and each of whom a second attestor says something else."""

    def __init__(self, folder, entries):
        super().__init__(folder, entries)
        self.said = {}
        self.broken = False
        self.identities._attestation = Attestation({"unix": self.attestor, "k8s": self}, self.clock)

    async def attest(self, subject):
        if self.broken:
            raise AttestationFailed("the kubelet does not answer")
        return Answer(frozenset(self.said.get(subject.pid, ())))

    def caller(self, *values):
        """Another process, of which the second attestor says `values`."""
        process = self._closing.enter_context(child())
        peer = peer_of(process)
        self._closing.callback(peer.close)
        self.said[process.pid] = values
        return peer

    def stream_of(self, peer):
        return self.identities.stream(peer, "FetchX509SVID")

    def serials(self):
        return {str(kept.svid.spiffe_id): kept.svid.serial for kept in self.issuing.x509.kept()}


FLEET = template(jwt_claims=JwtClaims.parse({"at": "{k8s.ns}:{k8s.sa}", "level": 2}))
ONE, TWO = "spiffe://example.org/ns/prod/sa/web", "spiffe://example.org/ns/prod/sa/shop"


@pytest.fixture
async def fleet(tmp_path):
    fleet = Fleet(tmp_path / "keys", [FLEET])
    yield fleet
    fleet.close()


@pytest.fixture
async def two(fleet):
    """Two streams of two callers of one registration, each with its SVID."""
    one, other = fleet.caller("ns:prod", "sa:web"), fleet.caller("ns:prod", "sa:shop")
    async with fleet.stream_of(one) as first, fleet.stream_of(other) as second:
        for stream in (first, second):
            fleet.identities.x509_svid(stream.entries[0])
        yield first, second


def payload(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


class TestFleet:
    async def test_each_has_its_own(self, fleet, two):
        """Callers of one registration have SVIDs of their own IDs, with keys of their own, also again and again."""
        svids = [fleet.identities.x509_svid(stream.entries[0]) for stream in two]
        assert [ONE, TWO] == [str(each.spiffe_id) for each in svids]
        assert 2 == len({each.serial for each in svids}) == len({each.key_der for each in svids})
        assert svids == [fleet.identities.x509_svid(stream.entries[0]) for stream in two]

    async def test_who_cannot_be_filled_in(self, fleet):
        """A caller of whom the placeholders are not attested has no identity."""
        with pytest.raises(NoIdentity):
            await fleet.identities.of(fleet.caller("ns:prod"))

    async def test_claims(self, fleet, two):
        """A JWT-SVID has its caller's claims, and is served again to that identity alone."""
        tokens = [fleet.identities.jwt_svid(stream.entries[0], ["a"]) for stream in two]
        assert [(ONE, "prod:web", 2), (TWO, "prod:shop", 2)] == [
            (found["sub"], found["at"], found["level"]) for found in (payload(each.token) for each in tokens)
        ]
        assert tokens == [fleet.identities.jwt_svid(stream.entries[0], ["a"]) for stream in two]

    async def test_one_id_with_two_sets_of_claims(self, tmp_path):
        """Callers with one SPIFFE ID and different claims share the certificate, and have tokens of their own."""
        fleet = Fleet(tmp_path / "keys", [entry("/web", jwt_claims=JwtClaims.parse({"sa": "{k8s.sa}"}))])
        try:
            (one,), (other,) = [await fleet.identities.of(fleet.caller(each)) for each in ("sa:web", "sa:shop")]
            assert fleet.identities.x509_svid(one) is fleet.identities.x509_svid(other)
            tokens = [fleet.identities.jwt_svid(each, ["a"]) for each in (one, other, one, other)]
            assert ["web", "shop", "web", "shop"] == [each.claims["sa"] for each in tokens]
            assert (tokens[0], tokens[1]) == (tokens[2], tokens[3])
        finally:
            fleet.close()

    async def test_rotation(self, fleet, two):
        """Each is renewed by its own alarm, on its own stream."""
        before = fleet.serials()
        due = min(fleet.issuing.x509.kept(), key=lambda kept: kept.rotate_at)
        fleet.clock.advance((due.rotate_at - fleet.clock.now()).total_seconds() + 0.001)
        fleet.alarms.ring_due()
        after = fleet.serials()
        changed_ids = {each for each in before if before[each] != after[each]}
        woken = {str(stream.entries[0].spiffe_id) for stream in two if stream.changed}
        assert {str(due.entry.spiffe_id)} == changed_ids == woken

    async def test_only_whose_stream_is_open(self, fleet):
        """An identity that nobody watches is dropped, though another of its registration is watched."""
        one, other = fleet.caller("ns:prod", "sa:web"), fleet.caller("ns:prod", "sa:shop")
        async with fleet.stream_of(one) as first:
            async with fleet.stream_of(other) as second:
                for stream in (first, second):
                    fleet.identities.x509_svid(stream.entries[0])
            fleet.clock.advance(TTL.total_seconds() * 0.6)
            fleet.alarms.ring_due()
            assert {ONE} == set(fleet.serials())

    async def test_rotate_now(self, fleet, two):
        """By its registration all of a fleet are replaced; by one identity that one alone."""
        before = fleet.serials()
        key = two[0].entries[0].key
        assert 1 == await fleet.issuing.rotate(lambda each: each == key)
        middle = fleet.serials()
        assert (True, True) == (before[ONE] != middle[ONE], before[TWO] == middle[TWO])
        assert 2 == await fleet.issuing.rotate(lambda each: each.entry_id == "fleet")
        assert not set(middle.values()) & set(fleet.serials().values())

    async def test_a_change_of_the_template(self, fleet, two):
        """When its template changes every stream has the new ID at once, and no key of the old one stays."""
        text = "spiffe://example.org/{k8s.sa}"
        await fleet.registry.update([("fleet", lambda old: changed(old, {"spiffe_id": parse_id(text)}))])
        assert [["/web"], ["/shop"]] == [[each.spiffe_id.path for each in stream.entries] for stream in two]
        assert {} == fleet.serials()
        assert all(stream.changed for stream in two)

    async def test_deleted(self, fleet, two):
        """When the registration goes all of the fleet lose what they had by it."""
        await fleet.registry.delete(["fleet"])
        assert ([(), ()], {}) == ([stream.entries for stream in two], fleet.serials())

    async def test_when_another_value_is_attested(self, fleet):
        """A stream whose caller is attested with another value has the ID of that, and not of the one before."""
        peer = fleet.caller("ns:prod", "sa:web")
        async with fleet.stream_of(peer) as stream:
            fleet.said[peer.process.pid] = ("ns:prod", "sa:shop")
            fleet.clock.advance(ATTESTATION_FRESH_SECONDS)
            await fleet.identities.refresh(stream)
            assert [TWO] == [str(each.spiffe_id) for each in stream.entries]

    async def test_two_values_at_once(self, fleet):
        """A stream whose caller is attested with two values has nothing: which of them it is cannot be told."""
        peer = fleet.caller("ns:prod", "sa:web")
        async with fleet.stream_of(peer) as stream:
            fleet.said[peer.process.pid] = ("ns:prod", "sa:web", "sa:shop")
            fleet.clock.advance(ATTESTATION_FRESH_SECONDS)
            await fleet.identities.refresh(stream)
            with pytest.raises(NoIdentity):
                stream.check_open()

    async def test_forgotten_one_by_one(self, fleet, two):
        """Forgetting one identity leaves the others of its registration; forgetting the registration none."""
        fleet.issuing.forget(two[0].entries[0].key)
        assert {TWO} == set(fleet.serials())
        fleet.issuing.forget_entry("fleet")
        assert {} == fleet.serials()

    async def test_many(self, tmp_path):
        """A fleet of a hundred has a hundred identities of one registration, all told of a change at once."""
        fleet = Fleet(tmp_path / "keys", [FLEET])
        try:
            peer = fleet.caller("ns:prod", "sa:web")  # attested under many names: processes are dear, identities not
            expanded = [FLEET.expand(selectors("unix:uid:1000", PROD, f"k8s:sa:n{n}")) for n in range(100)]
            async with fleet.stream_of(peer):
                assert 100 == len({fleet.identities.x509_svid(each).serial for each in expanded})
            assert 100 == len(fleet.issuing.x509.kept())
            await fleet.registry.delete(["fleet"])
            assert [] == fleet.issuing.x509.kept()
        finally:
            fleet.close()


class TestAnAttestorThatCannotTell:
    async def test_is_no_refusal(self, fleet):
        """While what would fill the placeholders in cannot be told, a caller is told that, not that it has nothing."""
        peer = fleet.caller("ns:prod", "sa:web")
        fleet.broken = True
        with pytest.raises(AttestationFailed, match="could not tell"):
            await fleet.identities.of(peer)

    async def test_asked_for_by_its_id(self, fleet):
        """Whether it has one ID of the template's cannot be told either; that it has not another can."""
        peer = fleet.caller("ns:prod", "sa:web")
        fleet.broken = True
        with pytest.raises(AttestationFailed):
            await fleet.identities.entry_for(peer, SpiffeId.parse(ONE))
        with pytest.raises(NoIdentity):
            await fleet.identities.entry_for(peer, spiffe_id("/elsewhere"))

    async def test_a_stream_keeps_what_it_has(self, fleet):
        """A stream keeps its identity while the attestor fails, and has the next one when that says so."""
        peer = fleet.caller("ns:prod", "sa:web")
        async with fleet.stream_of(peer) as stream:
            fleet.broken = True
            fleet.clock.advance(ATTESTATION_FRESH_SECONDS)
            await fleet.identities.refresh(stream)
            assert [ONE] == [str(each.spiffe_id) for each in stream.entries]
            fleet.said[peer.process.pid] = ("ns:prod", "sa:shop")
            fleet.broken = False
            fleet.clock.advance(ATTESTATION_FRESH_SECONDS)
            await fleet.identities.refresh(stream)
            assert [TWO] == [str(each.spiffe_id) for each in stream.entries]
