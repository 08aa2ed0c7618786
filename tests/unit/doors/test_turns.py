"""doors/http2/turns.py: how much is read of one caller before others have their turn."""

import asyncio

import pytest
from sojourn.doors.http2.turns import Paces, Turn, Turns
from sojourn.limits import MESSAGES_PER_ROUND, TURN_SECONDS


class Reader:
    """A connection with so much to be read; notes its name as often as it is read from."""

    def __init__(self, name: str, much: int, order: list[str]) -> None:
        self.name, self.left, self.order = name, much, order

    def read(self, turn: Turn) -> bool:
        while self.left and not turn.over:
            self.left -= 1
            self.order.append(self.name)
            turn.spend(0)
        return bool(self.left)


@pytest.fixture
def order() -> list[str]:
    return []


async def rounds(turns: Turns, most: int = 100) -> int:
    """Let the loop go round until nobody has a turn any more; return how often."""
    for number in range(most):
        if not turns._lines:
            return number
        await asyncio.sleep(0)
    raise AssertionError("turns without end")


class TestTurn:
    def test_of_frames(self) -> None:
        """A turn is over with its last frame, and not before."""
        turn = Turn(2)
        seen = []
        for _ in range(3):
            seen.append(turn.over)
            turn.spend(0)
        assert [False, False, True] == seen

    def test_of_time(self) -> None:
        """It is over with its time as well."""
        turn = Turn(100)
        turn.spend(TURN_SECONDS / 2)
        assert turn.over is False
        turn.spend(TURN_SECONDS / 2)
        assert turn.over


class TestTurns:
    async def test_whoever_has_little(self, order: list[str]) -> None:
        """What fits into a turn is read at once, and of the caller nothing is remembered then."""
        turns = Turns(3)
        turns.ask(7, Reader("a", 2, order))
        assert ["a", "a"] == order
        assert 1 == await rounds(turns)

    async def test_one_after_the_other(self, order: list[str]) -> None:
        """A caller's connections have their turns one after the other, and each gets what is left of it."""
        turns = Turns(3)
        turns.ask(7, Reader("a", 5, order))
        turns.ask(7, Reader("b", 3, order))
        assert "aaa" == "".join(order)
        await asyncio.sleep(0)
        assert "aaaaab" == "".join(order)
        await rounds(turns)
        assert "aaaaabbb" == "".join(order)

    async def test_each_caller_has_his_own(self, order: list[str]) -> None:
        """Whoever asks while another's turn is over has a turn of his own, at once."""
        turns = Turns(1)
        turns.ask(7, Reader("a", 2, order))
        turns.ask("spiffe://example.org/web", Reader("b", 2, order))
        assert "ab" == "".join(order)
        await rounds(turns)
        assert "abab" == "".join(order)

    async def test_a_turn_for_each_round(self, order: list[str]) -> None:
        """In a round of the loop no more than a turn is read of a caller, however many ask."""
        turns = Turns(2)
        for _ in range(4):
            turns.ask(7, Reader("x", 2, order))
        seen = []
        while turns._lines:
            seen.append(len(order))
            await asyncio.sleep(0)
        assert [2, 4, 6, 8, 8][: len(seen)] == seen
        assert 8 == len(order)


async def test_messages_of_a_round() -> None:
    """Of one caller's messages so many are let go in a round; others' are let go beside them, and nothing is kept."""
    paces, gone = Paces(), list[int | str]()

    async def message(who: int | str) -> None:
        await paces.turn(who)
        gone.append(who)

    waiting = [asyncio.ensure_future(message(who)) for who in [7] * (MESSAGES_PER_ROUND + 1) + ["other"]]
    while "other" not in gone:
        await asyncio.sleep(0)
    assert MESSAGES_PER_ROUND == gone.count(7)
    await asyncio.gather(*waiting)
    assert (MESSAGES_PER_ROUND + 1, {}) == (gone.count(7), paces._lines)
