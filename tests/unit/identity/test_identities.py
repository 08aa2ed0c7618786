"""identities.py: who a caller is, and hearing at once when that changes."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from math import inf
from time import monotonic

import pytest
from fakes.attestations import FakeAttestor
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from fakes.identity_room import TTL, Room
from fakes.registrations import OTHER_NODE, entry, selectors
from sojourn.attestation.process import Process
from sojourn.attestation.service import Attestation
from sojourn.errors import AttestationFailed, InvalidToken, NoIdentity, Unavailable
from sojourn.identity import identities as identities_module
from sojourn.limits import ATTESTATION_FRESH_SECONDS, ATTESTOR_RETRY_SECONDS, STREAM_ATTESTED_SECONDS
from sojourn.spiffe.ids import SpiffeId, TrustDomain

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
            assert ((WEB,), [stream]) == (stream.entries, list(room.identities.streams))
        assert [] == list(room.identities.streams)

    async def test_hears_of_a_new_entry(self, room):
        """When registration returns, the streams of those who gain an identity have it."""
        async with room.stream() as stream:
            await room.registry.create([entry("/more")])
            assert (True, ["entry-web", "entry-more"]) == (stream.changed, sorted(ids(stream.entries))[::-1])

    async def test_hears_nothing_of_others(self, room):
        """An entry that does not match the caller wakes nobody."""
        async with room.stream() as stream:
            await room.registry.create([entry("/other", "unix:uid:1")])
            assert not stream.changed

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
            assert stays.changed

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
            assert not stream.changed

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

    async def test_begins_with_a_look(self, room, monkeypatch):
        """As a stream begins its caller was looked at in that very step, also if it was attested before that."""
        await room.identities.of(room.peer)
        monkeypatch.setattr(Process, "program", lambda _: None)
        with pytest.raises(AttestationFailed, match="connect again"):
            async with room.stream():
                pass
        assert [] == list(room.identities.streams)

    async def test_looks_again_at_one_that_waited(self, empty, monkeypatch):
        """A caller that is registered while its stream waits is looked at again before it has anything."""
        beginning = asyncio.ensure_future(empty.identities.begin(empty.peer, "FetchX509SVID", required=True))
        while not empty.identities.streams:
            await asyncio.sleep(0)
        monkeypatch.setattr(Process, "program", lambda _: None)
        await empty.registry.create([WEB])
        with pytest.raises(AttestationFailed, match="connect again"):
            await beginning
        assert [] == list(empty.identities.streams)

    async def test_none_begins_after_closing(self, room):
        """A client that comes back before the agent is gone is sent away again."""
        room.identities.close()
        with pytest.raises(Unavailable):
            async with room.stream():
                pass
        assert [] == list(room.identities.streams)


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

    async def test_are_asked_again_soon(self, room, docker, later):
        """A stream about which an attestor could not tell does not wait as long as others for the next look."""
        async with room.stream() as stream:
            for failure, seconds in ((RuntimeError("down"), ATTESTOR_RETRY_SECONDS), (None, STREAM_ATTESTED_SECONDS)):
                docker.failure = failure
                assert ({"entry-web", "entry-docker"}, failure is not None) == (await later(stream), stream.unsure)
                waiting = asyncio.ensure_future(stream.next_change())
                begun = monotonic()
                await asyncio.sleep(0)
                assert begun + seconds <= stream.due < begun + seconds + 1
                stream.wake()
                await waiting
                assert inf == stream.due


class TestNoSilentDowngrade:
    """The caller has `/web` by one attestor; another fails."""

    @pytest.fixture
    async def docker(self, room):
        attestor = FakeAttestor({"label:a"})
        attestor.failure = AttestationFailed("the engine is down")
        room.identities._attestation = Attestation({"unix": room.attestor, "docker": attestor}, room.clock)
        return attestor

    @pytest.fixture
    async def better(self, room):
        """An entry that the caller may have too."""
        (made,) = await room.registry.create([entry("/better", "unix:uid:1000", "docker:label:a")])
        return made.entry

    async def test_a_call(self, room, docker, better):
        """A caller that might have another identity gets none rather than the lesser one, and hears why."""
        with pytest.raises(AttestationFailed, match=r"could not tell \(docker: the engine is down\)"):
            await room.identities.of(room.peer)
        docker.failure = None
        assert ["entry-better", "entry-web"] == ids(await room.identities.of(room.peer))

    async def test_a_stream(self, room, docker, better):
        """No stream begins with the lesser one, be it one for which an identity is required or not."""
        for required in (True, False):
            with pytest.raises(AttestationFailed):
                async with room.identities.stream(room.peer, "FetchSecrets", required=required):
                    pass
        assert [] == list(room.identities.streams)

    @pytest.mark.parametrize(
        "other",
        [
            ("/unlike", ("unix:uid:1", "docker:label:a"), {}),  # the attestor that can tell says no
            ("/third", ("docker:label:a", "k8s:ns:a"), {}),  # an attestor that there is not
            ("/elsewhere", ("docker:label:a",), {"parent_id": OTHER_NODE}),
            ("/over", ("docker:label:a",), {"expires_at": 1}),
        ],
        ids=lambda other: other[0],
    )
    async def test_where_it_cannot_matter(self, room, docker, other):
        """A caller that could have nothing else, whatever the attestor said, is served."""
        path, asked, changes = other
        await room.registry.create([entry(path, *asked, **changes)])
        assert ["entry-web"] == ids(await room.identities.of(room.peer))
        async with room.stream() as stream:
            await room.identities.refresh(stream)
            assert ["entry-web"] == ids(stream.entries)

    async def test_nothing_is_nothing(self, empty):
        """Where no answer would have earned an identity the answer is no, and not "not now"."""
        down = FakeAttestor()
        down.failure = RuntimeError("down")
        empty.identities._attestation = Attestation({"unix": empty.attestor, "docker": down}, empty.clock)
        with pytest.raises(NoIdentity):
            await empty.identities.of(empty.peer)

    async def test_an_identity_asked_for_by_name(self, room, docker, better):
        """Asked for by its ID, a proved identity is given, one that may be is "not now", and another is a no."""
        assert WEB == await room.identities.entry_for(room.peer, WEB.spiffe_id)
        with pytest.raises(AttestationFailed):
            await room.identities.entry_for(room.peer, better.spiffe_id)
        with pytest.raises(NoIdentity):
            await room.identities.entry_for(room.peer, SpiffeId.parse("spiffe://example.org/admin"))

    async def test_whether_a_process_has_one(self, room, docker, better):
        """Whether a process has one of some identities is yes if one is proved, "not now" if one may be, and else a no."""
        pid, no = room.peer.process.pid, SpiffeId.parse("spiffe://example.org/admin")
        assert await room.identities.process_has(pid, {WEB.spiffe_id, better.spiffe_id})
        assert not await room.identities.process_has(pid, {no})
        with pytest.raises(AttestationFailed):
            await room.identities.process_has(pid, {better.spiffe_id})
        with pytest.raises(AttestationFailed):
            await room.identities.of_process(pid)

    async def test_a_process_that_is_not_there(self, room):
        """A process that is not there has nothing."""
        room.process.kill()
        room.process.wait()
        pid = room.peer.process.pid
        assert ((), False) == (
            await room.identities.of_process(pid),
            await room.identities.process_has(pid, {WEB.spiffe_id}),
        )

    async def test_a_stream_keeps_what_it_has(self, room, docker):
        """An entry that comes later and might be the caller's takes nothing from its stream, and nothing is added."""
        async with room.stream() as stream:
            await room.registry.create([entry("/better", "docker:label:a"), entry("/more", "unix:gid:1000")])
            await room.identities.refresh(stream)
            assert ["entry-web"] == ids(stream.entries)
            docker.failure = None
            await room.identities.refresh(stream)
            assert {"entry-web", "entry-better", "entry-more"} == set(ids(stream.entries))

    async def test_a_stream_hears_of_its_entrys_change(self, room, docker, better):
        """What it has is renewed meanwhile by what the entry says now."""
        docker.failure = None
        async with room.stream() as stream:
            await room.registry.update([("entry-web", lambda old: replace(old, hint="new"))])
            assert ["", "new"] == [each.hint for each in stream.entries]

    async def test_a_stream_whose_entry_asks_for_more(self, room, docker):
        """If an entry that it has asks for what cannot be told from now on, the stream ends with "not now"."""
        await room.registry.create([entry("/other", "unix:gid:1000")])
        async with room.stream() as stream:
            await room.registry.update(
                [("entry-web", lambda old: replace(old, selectors=selectors("unix:uid:1000", "docker:label:a")))]
            )
            with pytest.raises(AttestationFailed):
                stream.check_open()

    async def test_a_stream_that_loses_all_that_is_sure(self, room, docker):
        """If what it had is surely gone and the rest cannot be told, it ends with "not now" and not with a no."""
        async with room.stream() as stream:
            await room.registry.create([entry("/better", "docker:label:a")])
            room.attestor.values = frozenset()
            room.clock.advance(ATTESTATION_FRESH_SECONDS)
            with pytest.raises(AttestationFailed):
                await room.identities.refresh(stream)

    async def test_tokens_of_our_own(self, room, docker, better):
        """A token of our own trust domain is verified for anybody, whatever cannot be told."""
        token = room.identities.jwt_svid(WEB, ["a"]).token
        assert WEB.spiffe_id == (await room.identities.verify_for(room.peer, token, ["a"])).spiffe_id
        with pytest.raises(InvalidToken):
            await room.identities.verify_for(room.peer, token, ["b"])

    async def test_tokens_of_others(self, room, docker, tmp_path):
        """Whether a token of a partner is good, for a caller who may federate with that, is "not now"."""
        other = authority_in(tmp_path / "other", room.clock, trust_domain=TrustDomain("partner.example"))
        await room.foreign.put(other.bundle)
        await room.registry.create([entry("/friend", "docker:label:a", federates_with=(other.bundle.trust_domain,))])
        token = other.issue_jwt(SpiffeId.parse("spiffe://partner.example/x"), ["a"], TTL).token
        with pytest.raises(AttestationFailed):
            await room.identities.verify_for(room.peer, token, ["a"])
        docker.values, docker.failure = frozenset(), None
        with pytest.raises(InvalidToken):
            await room.identities.verify_for(room.peer, token, ["a"])
        docker.values = frozenset({"label:a"})
        room.clock.advance(ATTESTATION_FRESH_SECONDS)
        assert "spiffe://partner.example/x" == str(
            (await room.identities.verify_for(room.peer, token, ["a"])).spiffe_id
        )


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
            await empty.registry.create([entry("/down", "down:a")])
        with pytest.raises(error):
            async with empty.stream():
                pass
        assert [] == list(empty.identities.streams)

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
