"""identities.py: who a caller is, and hearing at once when that changes."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from fakes.attestations import FakeAttestor
from fakes.clock import FakeClock
from fakes.identity_room import TTL, Room
from fakes.registrations import entry, selectors
from sojourn.attestation.process import Process
from sojourn.attestation.service import Attestation
from sojourn.errors import AttestationFailed, NoIdentity, Unavailable
from sojourn.identity import identities as identities_module
from sojourn.limits import ATTESTATION_FRESH_SECONDS
from sojourn.spiffe.ids import SpiffeId

DEADLINE_SECONDS = 20
WEB = entry("/web")


@pytest.fixture
async def room(tmp_path):
    room = Room(tmp_path / "keys", [WEB])
    yield room
    room.close()


@pytest.fixture
async def empty(tmp_path):
    room = Room(tmp_path / "keys", [])
    yield room
    room.close()


def ids(entries):
    return [each.id for each in entries]


async def change_of(stream):
    async with asyncio.timeout(DEADLINE_SECONDS):
        await stream.next_change()


class TestOf:
    async def test_entries_of_the_caller(self, room):
        """A caller has the entries that match its selectors."""
        assert (WEB,) == await room.identities.of(room.peer)

    async def test_in_the_stated_order(self, room):
        """Entries come with most selectors first, then oldest, then by ID."""
        await room.registry.create(
            [entry("/b"), entry("/a"), entry("/c", "unix:uid:1000", "unix:gid:1000"), entry("/no", "unix:uid:1")]
        )
        assert ["entry-c", "entry-web", "entry-a", "entry-b"] == ids(await room.identities.of(room.peer))

    async def test_hints_are_unique(self, room):
        """Of entries that share a hint only the oldest is given."""
        await room.registry.create([entry("/a", hint="x")])
        room.clock.advance(1)
        await room.registry.create([entry("/b", hint="x")])
        assert ["entry-web", "entry-a"] == ids(await room.identities.of(room.peer))

    async def test_nothing(self, empty):
        """A caller without entry has no identity."""
        with pytest.raises(NoIdentity):
            await empty.identities.of(empty.peer)

    async def test_an_attestor_that_cannot_tell_is_no_refusal(self, empty):
        """If an attestor could not tell, having no entry is "not now" and not "no"."""
        empty.attestor.failure = RuntimeError("down")
        with pytest.raises(AttestationFailed):
            await empty.identities.of(empty.peer)

    async def test_a_process_that_has_gone(self, room):
        """A caller that has ended has no answer."""
        room.process.kill()
        room.process.wait()
        with pytest.raises(AttestationFailed):
            await room.identities.of(room.peer)

    async def test_one_of_them(self, room):
        """A caller may ask for one of its own SPIFFE IDs and for no other."""
        assert WEB == await room.identities.entry_for(room.peer, WEB.spiffe_id)
        with pytest.raises(NoIdentity):
            await room.identities.entry_for(room.peer, SpiffeId.parse("spiffe://example.org/admin"))

    @pytest.mark.parametrize(("ttl", "expected"), [(0, timedelta(minutes=5)), (30, timedelta(seconds=30))])
    async def test_jwt(self, room, ttl, expected):
        """A JWT-SVID is for the entry's SPIFFE ID and lives as long as the entry, or the default, says."""
        svid = room.identities.jwt_svid(replace(WEB, jwt_svid_ttl=ttl), ["a"])
        assert (WEB.spiffe_id, ("a",), room.clock.now() + expected) == (
            svid.spiffe_id,
            svid.audience,
            svid.expires_at,
        )


class TestStream:
    async def test_has_what_the_caller_has(self, room):
        """A stream begins with the caller's entries and is counted while it is open."""
        async with room.stream() as stream:
            assert ((WEB,), [stream]) == (stream.entries, room.identities.streams)
        assert [] == room.identities.streams

    async def test_hears_of_a_new_entry(self, room):
        """When registration returns, the streams of those who gain an identity have it."""
        async with room.stream() as stream:
            await room.registry.create([entry("/more")])
            assert (True, ["entry-web", "entry-more"]) == (stream.changed.is_set(), sorted(ids(stream.entries))[::-1])

    async def test_hears_nothing_of_others(self, room):
        """An entry that does not match the caller wakes nobody."""
        async with room.stream() as stream:
            await room.registry.create([entry("/other", "unix:uid:1")])
            assert not stream.changed.is_set()

    async def test_hears_of_a_change(self, room):
        """When an entry changes its SVID is made anew, and the stream hears of it."""
        async with room.stream() as stream:
            old = room.identities.x509_svid(WEB)
            await room.registry.update([(WEB.id, lambda each: replace(each, dns_names=("a.example",)))])
            await change_of(stream)
            (now,) = stream.entries
            assert ("a.example",) == now.dns_names
            assert old is not room.identities.x509_svid(now)

    async def test_loses_what_is_deleted(self, room):
        """When its last entry goes, a stream has nothing and says so."""
        async with room.stream() as stream:
            stream.check_open()
            await room.registry.delete([WEB.id])
            await change_of(stream)
            with pytest.raises(NoIdentity):
                stream.check_open()

    async def test_loses_what_expires(self, tmp_path):
        """When its entry expires, a stream hears of it."""
        room = Room(tmp_path / "keys", [entry("/web", expires_at=int(FakeClock().now().timestamp()) + 60)])
        try:
            async with room.stream() as stream:
                room.clock.advance(60)
                room.alarms.ring_due()
                await change_of(stream)
                assert () == stream.entries
        finally:
            room.close()

    async def test_hears_of_a_rotation(self, room):
        """When the SVID of one of its entries is renewed, a stream hears of it."""
        async with room.stream() as stream:
            old = room.identities.x509_svid(WEB)
            room.clock.advance(TTL.total_seconds() * 0.6)
            room.alarms.ring_due()
            await change_of(stream)
            assert old is not room.identities.x509_svid(WEB)

    async def test_rotates_only_while_open(self, room):
        """Once its streams are closed an entry's SVID is not renewed."""
        async with room.stream():
            room.identities.x509_svid(WEB)
        room.clock.advance(TTL.total_seconds() * 0.6)
        room.alarms.ring_due()
        assert [] == room.issuing.x509.kept()

    async def test_two_streams(self, room):
        """While one of two streams is open the SVID is renewed; only what is open hears of it."""
        async with room.stream() as stays:
            async with room.stream():
                room.identities.x509_svid(WEB)
            room.clock.advance(TTL.total_seconds() * 0.6)
            room.alarms.ring_due()
            assert stays.changed.is_set()

    async def test_hears_of_the_bundle(self, room):
        """When the bundle changes every stream hears of it."""
        async with room.stream() as stream:
            before = room.identities.bundle
            room.clock.advance(timedelta(days=15).total_seconds())
            room.authority.maintain()
            await change_of(stream)
            assert before is not room.identities.bundle

    async def test_changes_are_not_lost(self, room):
        """A change between two waits is seen by the next."""
        async with room.stream() as stream:
            await room.registry.create([entry("/a")])
            await change_of(stream)
            await room.registry.create([entry("/b")])
            await change_of(stream)
            assert not stream.changed.is_set()

    async def test_closing_ends_them(self, room):
        """When the agent closes, streams end as unavailable, so that their clients come back."""
        async with room.stream() as stream:
            waiting = asyncio.ensure_future(stream.next_change())
            await asyncio.sleep(0)
            room.identities.close()
            with pytest.raises(Unavailable):
                await waiting
            with pytest.raises(Unavailable):
                await stream.next_change()

    async def test_none_begins_after_closing(self, room):
        """A client that comes back before the agent is gone is sent away again."""
        room.identities.close()
        with pytest.raises(Unavailable):
            async with room.stream():
                pass
        assert [] == room.identities.streams


class TestRefresh:
    async def test_when_more_is_proved(self, room):
        """A stream whose caller is attested anew has what is proved now."""
        await room.registry.create([entry("/more", "unix:gid:5")])
        async with room.stream() as stream:
            room.attestor.values = frozenset({"uid:1000", "gid:5"})
            await room.identities.refresh(stream)
            assert ["entry-web"] == ids(stream.entries)  # what was proved a moment ago still counts
            room.clock.advance(ATTESTATION_FRESH_SECONDS)
            await room.identities.refresh(stream)
            assert {"entry-web", "entry-more"} == set(ids(stream.entries))

    async def test_when_less_is_proved(self, room):
        """A stream whose caller has lost what it proved has nothing any more."""
        async with room.stream() as stream:
            room.attestor.values = frozenset()
            room.clock.advance(ATTESTATION_FRESH_SECONDS)
            await room.identities.refresh(stream)
            with pytest.raises(NoIdentity):
                stream.check_open()

    async def test_of_an_entry_whose_time_is_up(self, tmp_path):
        """An entry that has ended by the wall clock is in no answer, though its alarm has not rung yet."""
        room = Room(tmp_path / "keys", [WEB, entry("/brief", expires_at=int(FakeClock().now().timestamp()) + 60)])
        try:
            async with room.stream() as stream:
                room.clock.step_wall(60)
                await room.identities.refresh(stream)
                assert ["entry-web"] == ids(stream.entries)
        finally:
            room.close()

    async def test_of_one_that_has_gone(self, room):
        """A stream whose caller has ended gets no further answer."""
        async with room.stream() as stream:
            room.process.kill()
            room.process.wait()
            with pytest.raises(AttestationFailed):
                await room.identities.refresh(stream)


class TestAttestorsThatCannotTell:
    """The caller has `/web` by one attestor and `/docker` by another, which fails."""

    @pytest.fixture
    async def docker(self, room):
        attestor = FakeAttestor({"label:a"})
        room.identities._attestation = Attestation({"unix": room.attestor, "docker": attestor}, room.clock)
        await room.registry.create([entry("/docker", "docker:label:a")])
        return attestor

    @pytest.fixture
    def later(self, room):
        """Attest a stream again after the last attestation is no longer fresh."""

        async def refresh(stream):
            room.clock.advance(ATTESTATION_FRESH_SECONDS)
            await room.identities.refresh(stream)
            return set(ids(stream.entries))

        return refresh

    async def test_nothing_is_taken_away(self, room, docker, later):
        """A stream keeps what was proved before while an attestor fails, and loses it when that says so."""
        async with room.stream() as stream:
            docker.failure = RuntimeError("down")
            assert {"entry-web", "entry-docker"} == await later(stream)
            docker.failure, docker.values = None, frozenset()
            assert {"entry-web"} == await later(stream)

    async def test_what_else_is_proved_counts(self, room, docker, later):
        """What an attestor that can tell gives anew is there although another fails."""
        async with room.stream() as stream:
            docker.values = frozenset()
            assert {"entry-web"} == await later(stream)
            await room.registry.create([entry("/more", "unix:gid:5")])
            docker.failure, room.attestor.values = RuntimeError("down"), frozenset({"uid:1000", "gid:5"})
            assert {"entry-web", "entry-more"} == await later(stream)

    async def test_in_another_cgroup(self, room, docker, later, monkeypatch):
        """A stream whose process has moved ends with "not now", if an attestor cannot tell of the new place."""
        async with room.stream() as stream:
            docker.failure = RuntimeError("down")
            monkeypatch.setattr(Process, "cgroup", lambda _: "0::/elsewhere")
            with pytest.raises(AttestationFailed):
                await later(stream)

    async def test_in_another_cgroup_without_loss(self, room, docker, later, monkeypatch):
        """If it loses nothing by it, it goes on."""
        async with room.stream() as stream:
            docker.values = frozenset()
            assert {"entry-web"} == await later(stream)
            docker.failure = RuntimeError("down")
            monkeypatch.setattr(Process, "cgroup", lambda _: "0::/elsewhere")
            assert {"entry-web"} == await later(stream)

    async def test_are_asked_again_soon(self, room, docker, later, monkeypatch):
        """A stream about which an attestor could not tell does not wait as long as others for the next look."""
        monkeypatch.setattr(identities_module, "ATTESTOR_RETRY_SECONDS", 0.01)
        docker.failure = RuntimeError("down")
        async with room.stream() as stream:
            assert {"entry-web"} == set(ids(stream.entries))
            await change_of(stream)
            docker.failure = None
            await room.identities.refresh(stream)
            assert ({"entry-web", "entry-docker"}, False) == (set(ids(stream.entries)), stream.unsure)


class TestHold:
    async def test_not_where_no_identity_is_required(self, empty):
        """A caller without identity gets a stream at once for what anybody may have."""
        async with empty.identities.stream(empty.peer, "FetchX509Bundles", required=False) as stream:
            assert ((), 1) == (stream.entries, len(empty.identities.streams))

    async def test_a_registration_just_behind(self, empty):
        """A caller without identity waits a moment, and has it when it is registered meanwhile."""

        async def register():
            while not empty.identities.streams:
                await asyncio.sleep(0)
            await empty.registry.create([entry("/web")])

        registering = asyncio.ensure_future(register())
        async with empty.stream() as stream:
            assert ["entry-web"] == ids(stream.entries)
        await registering

    @pytest.mark.parametrize(("failure", "error"), [(None, NoIdentity), (RuntimeError("down"), AttestationFailed)])
    async def test_only_a_moment(self, empty, monkeypatch, failure, error):
        """A caller for whom nothing comes is refused, or told "not now" if an attestor could not tell."""
        monkeypatch.setattr(identities_module, "UNMATCHED_HOLD_SECONDS", 0.01)
        if failure:
            attestors = {"unix": empty.attestor, "down": FakeAttestor()}
            attestors["down"].failure = failure
            empty.identities._attestation = Attestation(attestors, empty.clock)
        with pytest.raises(error):
            async with empty.stream():
                pass
        assert [] == empty.identities.streams

    async def test_closing_ends_the_wait(self, empty):
        """When the agent closes, nobody is kept waiting for an identity."""

        async def close():
            while not empty.identities.streams:
                await asyncio.sleep(0)
            empty.identities.close()

        closing = asyncio.ensure_future(close())
        with pytest.raises(Unavailable):
            async with empty.stream():
                pass
        await closing


def test_selectors_are_namespaced():
    """What the fake attestor gives is what the entries ask for."""
    assert WEB.selectors == selectors("unix:uid:1000")
