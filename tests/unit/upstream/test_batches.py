"""batches.py: what is asked for one by one goes together, and each hears its own answer."""

import asyncio

import pytest
from sojourn.errors import LimitExceeded, NodeRefused, NotFound, Unavailable, UpstreamUnavailable
from sojourn.upstream import batches
from sojourn.upstream.batches import Batches


class Server:
    """Answers with what was asked, when it is let go. `calls`: what each call had."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failing: Exception | None = None

    async def work(self, asked):
        self.calls.append(list(asked))
        await self.gate.wait()
        if self.failing is not None:
            raise self.failing
        return [NotFound(f"there is no {each}") if each < 0 else each for each in asked]


class TestTogether:
    async def test_one_call(self) -> None:
        """What is asked for in one moment is one call, in its order."""
        server = Server()
        made = Batches(server.work)
        assert list(range(10)) == await asyncio.gather(*map(made.make, range(10)))
        assert [list(range(10))] == server.calls

    async def test_while_a_call_is_under_way(self) -> None:
        """What is asked for while a call is under way goes with the next."""
        server = Server()
        server.gate.clear()
        made = Batches(server.work)
        first = asyncio.ensure_future(made.make(1))
        while not server.calls:
            await asyncio.sleep(0.001)
        others = [asyncio.ensure_future(made.make(each)) for each in (2, 3)]
        await asyncio.sleep(0)
        server.gate.set()
        assert [1, 2, 3] == await asyncio.gather(first, *others)
        assert [[1], [2, 3]] == server.calls

    async def test_each_has_its_own_answer(self) -> None:
        """What the server refuses of one is told to that one alone."""
        server = Server()
        made = Batches(server.work)
        found = await asyncio.gather(*map(made.make, (1, -1, 2)), return_exceptions=True)
        assert (1, 2) == (found[0], found[2])
        assert isinstance(found[1], NotFound)

    async def test_who_has_gone(self) -> None:
        """What nobody waits for any more is not asked for."""
        server = Server()
        made = Batches(server.work)
        gone, stays = asyncio.ensure_future(made.make(1)), asyncio.ensure_future(made.make(2))
        await asyncio.sleep(0)
        gone.cancel()
        assert 2 == await stays
        assert [[2]] == server.calls


class TestFailures:
    @pytest.mark.parametrize("error", [UpstreamUnavailable("away"), NodeRefused("no", reason_code="banned")])
    async def test_a_call_that_fails(self, error: Exception) -> None:
        """A call that fails is told to all in it, to each as an error of its own."""
        server = Server()
        server.failing = error
        found = await asyncio.gather(*map(Batches(server.work).make, (1, 2)), return_exceptions=True)
        assert [type(error)] * 2 == [type(each) for each in found]
        assert found[0] is not found[1]
        assert [str(error)] * 2 == [str(each) for each in found]
        assert [getattr(error, "reason_code", "")] * 2 == [getattr(each, "reason_code", "") for each in found]

    async def test_size(self) -> None:
        """After a call that failed the next is half as large, down to one, and after good ones it grows again."""
        server = Server()
        server.failing = UpstreamUnavailable("away")
        made = Batches(server.work)
        for _ in range(12):
            await asyncio.gather(made.make(1), return_exceptions=True)
        assert 1 == made.size
        server.failing = None
        server.calls.clear()
        await asyncio.gather(*map(made.make, range(7)))
        assert [[0], [1, 2], [3, 4, 5, 6]] == server.calls
        for _ in range(12):
            await made.make(1)
        assert 500 == made.size

    async def test_a_fault_of_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever goes wrong nobody waits for ever, and the next call is made."""
        server = Server()
        server.failing = ZeroDivisionError()
        made = Batches(server.work)
        with pytest.raises(Unavailable):
            await made.make(1)
        server.failing = None
        assert 2 == await made.make(2)

    async def test_too_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Beyond what may wait nothing more does."""
        monkeypatch.setattr(batches, "UPSTREAM_SIGN_WAITING", 2)
        server = Server()
        made = Batches(server.work)
        found = await asyncio.gather(*map(made.make, (1, 2, 3)), return_exceptions=True)
        assert [1, 2] == found[:2]
        assert isinstance(found[2], LimitExceeded)
