"""identities.py: a stream hears at once when its caller's identities change."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from fakes.clock import FakeClock
from fakes.identity_room import TTL, WEB, Room, empty_fixture, ids, room_fixture  # noqa: F401 - fixtures
from fakes.registrations import entry
from sojourn.attestation.process import Process
from sojourn.errors import AttestationFailed, NoIdentity, Unavailable
from sojourn.errors.oauth import ShuttingDown
from sojourn.limits import ATTESTATION_FRESH_SECONDS

DEADLINE_SECONDS = 20


async def change_of(stream):
    async with asyncio.timeout(DEADLINE_SECONDS):
        await stream.next_change()


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
        with pytest.raises(ShuttingDown):
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
