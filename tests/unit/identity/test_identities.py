"""identities.py: who a caller is, and that one who has no identity yet is kept waiting a moment."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from fakes.attestations import FakeAttestor
from fakes.identity_room import WEB, empty_fixture, ids, room_fixture  # noqa: F401 - fixtures
from fakes.registrations import entry, selectors
from sojourn.attestation.service import Attestation
from sojourn.errors import AttestationFailed, NoIdentity, Unavailable
from sojourn.identity import identities as identities_module
from sojourn.spiffe.ids import SpiffeId


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
