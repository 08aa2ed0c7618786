"""subscriptions.py: what the callers of open streams have, and whom a change wakes when."""

import asyncio
from datetime import UTC, datetime
from math import inf
from types import SimpleNamespace

import pytest
from fakes.registrations import entry
from harness.looking import idle
from sojourn.attestation.attestor import Attested
from sojourn.errors import Unavailable
from sojourn.identity import streams as streams_module
from sojourn.identity.subscriptions import Streams

WEB, SHOP = entry("/web"), entry("/shop")
ATTESTED = Attested(frozenset(), {}, {}, 0.0)
DEADLINE_SECONDS = 20


@pytest.fixture
def told():
    """What was said of identities: ("watch" or "unwatch", path)."""
    return []


@pytest.fixture
def streams(told):
    return Streams(
        lambda key: told.append(("watch", key.spiffe_id.path)), lambda key: told.append(("unwatch", key.spiffe_id.path))
    )


def opened(streams, *entries, pid=1):
    peer = SimpleNamespace(process=SimpleNamespace(pid=pid, key=(pid, pid)))
    stream = streams.open("FetchX509SVID", peer, ATTESTED, datetime.now(UTC))
    streams.give(stream, entries)
    return stream


class TestIdentities:
    def test_watched_while_one_has_it(self, streams, told):
        """An identity is watched from the first stream that has it to the last."""
        first, second = opened(streams, WEB), opened(streams, WEB)
        streams.close(first)
        assert [("watch", "/web")] == told
        streams.close(second)
        assert [("watch", "/web"), ("unwatch", "/web")] == told

    def test_what_stays_is_watched_throughout(self, streams, told):
        """What a caller has before and after a change is not let go of in between."""
        stream = opened(streams, WEB)
        streams.give(stream, (WEB, SHOP))
        streams.give(stream, (SHOP,))
        assert [("watch", "/web"), ("watch", "/shop"), ("unwatch", "/web")] == told

    def test_those_who_have_one(self, streams):
        """The streams of an identity are those whose callers have it now."""
        web, both = opened(streams, WEB), opened(streams, WEB, SHOP)
        assert ([web, both], [both]) == (list(streams.having(WEB.key)), list(streams.having(SHOP.key)))
        streams.give(both, (SHOP,))
        streams.close(web)
        assert ([], [both]) == (list(streams.having(WEB.key)), list(streams.having(SHOP.key)))

    def test_by_process(self, streams):
        """The streams of one process are found together, until they are closed."""
        first, second, other = opened(streams), opened(streams), opened(streams, pid=2)
        assert [[first, second], [other]] == [list(each) for each in streams.by_process()]
        streams.close(other)
        streams.close(first)
        assert ([[second]], [second]) == ([list(each) for each in streams.by_process()], list(streams))


class TestTurns:
    @pytest.fixture
    async def waiting(self, streams, monkeypatch):
        """Five streams that wait, of which two are woken in a turn; and who was woken, in order."""
        monkeypatch.setattr(streams_module, "STREAMS_WOKEN_AT_ONCE", 2)
        woken = []

        async def wait(number, stream):
            await stream.next_change()
            woken.append(number)

        held = [opened(streams) for _ in range(5)]
        tasks = [asyncio.ensure_future(wait(*each)) for each in enumerate(held)]
        await asyncio.sleep(0)
        yield held, woken
        async with asyncio.timeout(DEADLINE_SECONDS):
            await asyncio.wait(tasks)

    async def test_others_are_answered_in_between(self, waiting):
        """A change for many streams keeps nobody waiting who calls meanwhile: few are woken between two of its steps."""
        held, woken = waiting
        for stream in held:
            stream.wake()
        seen = []
        while len(woken) < 5:
            seen.append(len(woken))
            await asyncio.sleep(0)
        assert max(after - before for before, after in zip(seen, [*seen[1:], 5], strict=True)) <= 2
        assert [0, 1, 2, 3, 4] == woken

    async def test_one_that_is_woken_later_comes_last(self, waiting):
        """Nobody overtakes those who were woken before."""
        held, woken = waiting
        for number in (3, 1, 4):
            held[number].wake()
        await asyncio.sleep(0)
        for number in (0, 2):
            held[number].wake()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(woken) < 5:
                await asyncio.sleep(0)
        assert [3, 1, 4, 0, 2] == woken

    async def test_known_before_its_turn(self, waiting):
        """That something has changed is known of every stream at once, though it is woken later."""
        held, _ = waiting
        for stream in held:
            stream.wake()
        assert [True] * 5 == [stream.changed for stream in held]

    async def test_one_that_has_gone(self, waiting):
        """A stream whose caller has gone before its turn keeps nobody from theirs."""
        held, woken = waiting
        gone = opened(Streams(print, print))
        gone.turns = held[0].turns
        leaving = asyncio.ensure_future(gone.next_change())
        await asyncio.sleep(0)
        gone.wake()
        leaving.cancel()
        for stream in held:
            stream.wake()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(woken) < 5:
                await asyncio.sleep(0)
        assert (True, [0, 1, 2, 3, 4]) == (leaving.cancelled(), woken)

    async def test_an_end_comes_with_its_reason(self, streams):
        """Whoever waits hears why the stream ends, and whoever asks after that, too."""
        stream = opened(streams)
        waiting = asyncio.ensure_future(stream.next_change())
        await asyncio.sleep(0)
        stream.end(Unavailable("closing"))
        for each in (waiting, stream.next_change()):
            with pytest.raises(Unavailable):
                await each


class TestPushes:
    @pytest.fixture
    async def hold(self, streams):
        """Holds a stream that waits with this push. Its waiters end with the test."""
        tasks = []

        async def hold(push):
            stream = opened(streams)
            tasks.append(asyncio.ensure_future(stream.next_change(push)))
            await asyncio.sleep(0)
            return stream, tasks[-1]

        yield hold
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def test_nobody_else_goes_on(self, hold):
        """What a push does is done: whoever waits for a change waits on, for the next."""
        pushed = []
        stream, waiting = await hold(lambda step: pushed.append(step) or True)
        for _ in range(2):
            stream.wake()
            await idle()
        assert (2, False, False) == (len(set(pushed)), waiting.done(), stream.changed)

    async def test_what_a_push_cannot_do(self, hold):
        """Where a push does not do, whoever waits goes on."""
        stream, waiting = await hold(lambda _: False)
        stream.wake()
        await idle()
        assert (None, False) == (waiting.result(), stream.changed)

    async def test_what_a_push_raises(self, hold):
        """What a push raises is raised where the change is waited for, and nobody else's turn suffers."""

        def fail(_):
            raise Unavailable("no")

        pushed = []
        first, failing = await hold(fail)
        second, _ = await hold(lambda _: pushed.append(True) or True)
        first.wake()
        second.wake()
        await idle()
        assert [True] == pushed
        with pytest.raises(Unavailable):
            await failing

    async def test_a_change_while_it_pushes(self, hold):
        """What changes while a push is made is pushed behind it."""
        pushed = []

        def push(_):
            pushed.append(True)
            if len(pushed) == 1:
                stream.wake()
            return True

        stream, _ = await hold(push)
        stream.wake()
        await idle()
        assert [True, True] == pushed

    async def test_one_that_ends(self, hold):
        """Nothing is pushed any more to a stream that ends."""
        pushed = []
        stream, waiting = await hold(lambda _: pushed.append(True) or True)
        stream.wake()
        stream.end(Unavailable("closing"))
        with pytest.raises(Unavailable):
            await waiting
        assert [] == pushed

    async def test_one_that_has_gone(self, hold):
        """Nothing is pushed to a stream whose caller has gone before its turn."""
        pushed = []
        stream, waiting = await hold(lambda _: pushed.append(True) or True)
        stream.wake()
        waiting.cancel()
        await idle()
        assert ([], True) == (pushed, waiting.cancelled())

    async def test_a_turn_is_over_after_a_time(self, hold, monkeypatch):
        """Pushes go on for PUSH_SECONDS, and then others are answered: what was found in a turn is not in the next."""
        now, steps = [0.0], []
        monkeypatch.setattr(streams_module, "monotonic", lambda: now[0])

        def push(step):
            steps.append(step)
            now[0] += streams_module.PUSH_SECONDS / 2
            return True

        for stream in [(await hold(push))[0] for _ in range(6)]:
            stream.wake()
        seen = []
        while len(steps) < 6:
            await asyncio.sleep(0)
            seen.append(len(steps))
        assert ([2, 4, 6], 3) == (seen, len(set(steps)))

    async def test_it_is_due_later(self, hold):
        """A stream that was pushed something is due to be attested again so much later."""
        stream, _ = await hold(lambda _: True)
        stream.due = before = 1.0
        stream.wake()
        await idle()
        assert before < stream.due < inf

    def test_answers_of_one_step(self, streams):
        """Streams with the very same entries have the same answer, made once; others have their own."""
        step, made = streams_module.StreamStep(), []
        both = (WEB, SHOP)
        first, second, other = opened(streams), opened(streams), opened(streams, WEB)
        for stream in (first, second):
            streams.give(stream, both)

        def make(stream):
            made.append(stream)
            return b"%d" % len(stream.entries)

        assert [b"2", b"2", b"1"] == [step.answer(make, stream) for stream in (first, second, other)]
        assert [first, other] == made
        assert b"another" == step.answer(lambda _: b"another", second)
