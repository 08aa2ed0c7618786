"""hand_out.py: an exchange is for all who wait, ahead of the end, noted before and after, and fails alone."""

import asyncio
from datetime import timedelta

import pytest
from fakes.handing_room import CLOUD, LIFE, room_fixture, started, task_fixture  # noqa: F401 - fixtures
from fakes.task_types import TICKETS
from sojourn.errors import LimitExceeded, StoreFailed, TaskOver
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.provider import Obtained


class TestSingleFlight:
    async def test_all_wait_for_one(self, room, task):
        """A hundred that ask at once for the same are given one credential, obtained once."""
        room.corp.gate = asyncio.Event()
        asking = [asyncio.ensure_future(room.give(task)) for _ in range(100)]
        await started(room.corp)
        room.corp.gate.set()
        assert len({each.token for each in await asyncio.gather(*asking)}) == 1
        assert len(room.corp.wanted) == 1

    async def test_one_that_goes_away_takes_nobody_along(self, room, task):
        """When the first who asked is gone the others are given what it asked for."""
        room.corp.gate = asyncio.Event()
        first = asyncio.ensure_future(room.give(task))
        await started(room.corp)
        second = asyncio.ensure_future(room.give(task))
        await asyncio.sleep(0)
        first.cancel()
        room.corp.gate.set()
        assert (await second).token.endswith("|1")

    async def test_when_all_go_away_it_is_kept(self, room, task):
        """An exchange goes on though nobody waits for it, and whoever comes next is given what it brought."""
        room.corp.gate = asyncio.Event()
        first = asyncio.ensure_future(room.give(task))
        await started(room.corp)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        room.corp.gate.set()
        await room.quiet()
        assert (await room.give(task)).token.endswith("|1")

    async def test_a_failure_is_everybody_s(self, room, task):
        """All who waited are told the same; the next who asks has it tried anew."""
        room.corp.gate = asyncio.Event()
        room.corp.script = [ProviderRefused("no such client")]
        asking = [asyncio.ensure_future(room.give(task)) for _ in range(3)]
        await started(room.corp)
        room.corp.gate.set()
        for each in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(each, ProviderRefused)
        assert (await room.give(task)).token.endswith("|2")


class TestRefreshedAhead:
    @pytest.mark.parametrize("life", [8, LIFE, 3600])
    async def test_behind_what_is_there(self, room, life):
        """Past three quarters of its life another one is obtained, while what is there is handed out at once."""
        task = await room.begin()
        room.corp.life = min(life, 700)
        first = await room.give(task)
        room.clock.advance(room.corp.life * 0.76)
        room.corp.gate = asyncio.Event()
        assert first.token == (await room.give(task)).token
        await started(room.corp)
        assert first.token == (await room.give(task)).token
        room.corp.gate.set()
        await room.quiet()
        second = await room.give(task)
        assert (first.token, 2) != (second.token, len(room.corp.wanted))
        assert len(room.corp.wanted) == 2

    async def test_not_before(self, room, task):
        """What has most of its life left is left alone."""
        await room.give(task)
        room.clock.advance(LIFE * 0.74)
        await room.give(task)
        await room.quiet()
        assert len(room.corp.wanted) == 1

    async def test_with_next_to_nothing_left_the_next_one_is_waited_for(self, room, task):
        """Nobody is given what would end on its way."""
        first = await room.give(task)
        room.clock.advance(LIFE - 4)
        assert first.token != (await room.give(task)).token

    async def test_a_provider_that_is_down_takes_nothing_away(self, room, task):
        """What is there is handed out to its end, though another one cannot be had."""
        first = await room.give(task)
        for seconds in (LIFE - 20, 17):
            room.clock.advance(seconds)
            room.corp.script = [ProviderUnavailable("down") for _ in range(10)]
            assert first.token == (await room.give(task)).token
            await room.quiet()
        room.clock.advance(3)
        with pytest.raises(ProviderUnavailable):
            await room.give(task)

    async def test_not_for_what_ends_with_its_task(self, room):
        """A credential that is good as long as its task needs no successor."""
        task = await room.begin(max_seconds=100)
        first = await room.give(task)
        room.clock.advance(97)
        assert first.token == (await room.give(task)).token
        await room.quiet()
        assert len(room.corp.wanted) == 1


class TestStore:
    @pytest.mark.parametrize("which", ["task", "book"])
    async def test_nothing_is_asked_for_if_it_cannot_be_written(self, room, task, which):
        """Without the records on disk no provider is asked, and what one of them says is taken back."""
        (room.store if which == "task" else room.book).failure = StoreFailed("disk full")
        with pytest.raises(StoreFailed):
            await room.give(task)
        assert ([], 0) == (room.corp.wanted, task.tokens_issued)
        assert (which == "task") == (("refused", "ext_1") in room.book.written)

    async def test_what_cannot_be_noted_is_not_handed_out(self, room, task):
        """A credential that the book cannot hold is lost: nobody is given it."""
        room.corp.gate = asyncio.Event()
        asking = asyncio.ensure_future(room.give(task))
        await started(room.corp)
        room.book.failure = StoreFailed("disk full")
        room.corp.gate.set()
        with pytest.raises(StoreFailed):
            await asking
        assert ("lost", "ext_1") == room.book.written[-1]
        assert (0, 0) == (len(room.handing), task.tokens_issued)

    async def test_too_many_credentials(self, room, task):
        """A task that has as many as it may is told so."""
        room.book.failure = LimitExceeded("too many")
        with pytest.raises(LimitExceeded):
            await room.give(task)

    async def test_what_is_no_credential(self, room, task):
        """What a plugin gives that is none leaves no credential behind that nobody tells of: it is lost."""
        room.corp.script = [Obtained("t", "tomorrow")]
        with pytest.raises(AttributeError):
            await room.give(task)
        assert [("asking", "ext_1"), ("lost", "ext_1")] == room.book.written
        room.corp.script = [Obtained(b"t", room.clock.now() + timedelta(minutes=5))]
        with pytest.raises(ProviderUnavailable, match="no token"):
            await room.give(task)
        assert ("over", "ext_2") == room.book.written[-1]

    async def test_one_that_has_expired_already(self, room, task):
        """What a provider whose clock is wrong gives is noted, taken back at once, and not handed out."""
        room.clock.advance(600)
        exchange = room.corp.exchange

        async def early(wanted, mint):
            await exchange(wanted, mint)
            return room.corp.obtained(wanted, expires_at=room.clock.now() - timedelta(minutes=5))

        room.corp.exchange = early
        with pytest.raises(ProviderUnavailable, match="expired already"):
            await room.give(task)
        assert [("asking", "ext_1"), ("held", "ext_1"), ("over", "ext_1")] == room.book.written
        assert (0, 0) == (len(room.handing), task.tokens_issued)


class TestOthers:
    async def test_a_provider_that_is_down_fails_its_own_resources_alone(self, room, task):
        """Another provider, our own tokens, and other tasks go on as if nothing were."""
        room.corp.gate = asyncio.Event()
        hanging = asyncio.ensure_future(room.give(task))
        await started(room.corp)
        assert (await room.give(task, CLOUD)).provider == "cloud"
        assert (await room.giving.give(task, TICKETS, ())).provider == ""
        await room.engine.complete(task, failed=False)
        room.corp.gate.set()
        with pytest.raises(TaskOver):
            await hanging
