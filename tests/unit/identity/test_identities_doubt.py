"""identities.py: attestors that cannot tell take nothing away, and lend no lesser identity than one might have."""

import asyncio
from dataclasses import replace
from math import inf
from time import monotonic

import pytest
from fakes.attestations import FakeAttestor
from fakes.authorities import authority_in
from fakes.identity_room import TTL, WEB, empty_fixture, ids, room_fixture  # noqa: F401 - fixtures
from fakes.registrations import OTHER_NODE, entry, selectors
from sojourn.attestation.process import Process
from sojourn.attestation.service import Attestation
from sojourn.errors import AttestationFailed, InvalidToken, NoIdentity
from sojourn.limits import ATTESTATION_FRESH_SECONDS, ATTESTOR_RETRY_SECONDS, STREAM_ATTESTED_SECONDS
from sojourn.spiffe.ids import SpiffeId, TrustDomain


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
                assert begun <= stream.due - seconds <= monotonic()
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
