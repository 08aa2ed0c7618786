"""turns.py: how much is read of one caller before others have their turn."""

import asyncio

import pytest
from sojourn.limits import (
    COMPANY_SECONDS,
    MESSAGES_PER_ROUND,
    PRECEDENCE_SECONDS,
    TURN_SECONDS,
    TURNS_BEGUN_PER_ROUND,
    TURNS_GIVEN_PER_ROUND,
)
from sojourn.quota.turns import Paces, Turn, Turns


class Reader:
    """A connection with so much to be read; notes its name as often as it is read from."""

    def __init__(self, name: str, much: int, order: list[str]) -> None:
        self.name, self.left, self.order = name, much, order

    def read(self, turn: Turn) -> bool:
        while self.left and not turn.over:
            self.left -= 1
            self.order.append(self.name)
            turn.spend(0, calls=1)
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
    def test_of_calls(self) -> None:
        """A turn is over with the last call that may be begun in it, and not before; it is not late then."""
        turn = Turn(2)
        seen = []
        for _ in range(3):
            seen.append((turn.over, turn.late))
            turn.spend(0, calls=1)
        assert [(False, False), (False, False), (True, False)] == seen

    def test_of_time(self) -> None:
        """It is over with its time as well, and late."""
        turn = Turn(100)
        turn.spend(TURN_SECONDS / 2)
        assert (False, False) == (turn.over, turn.late)
        turn.spend(TURN_SECONDS / 2)
        assert (True, True) == (turn.over, turn.late)


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

    async def test_in_company(self, order: list[str]) -> None:
        """Turns are short from the moment on in which another caller asks, and long again once none has for a while."""
        now = [100.0]
        turns = Turns(3, 1, lambda: now[0])
        turns.ask(7, Reader("a", 9, order))
        assert "aaa" == "".join(order)
        turns.ask(8, Reader("b", 1, order))
        turns.served(8)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert "aaabaa" == "".join(order)
        await rounds(turns)
        now[0] += COMPANY_SECONDS
        turns.ask(7, Reader("c", 3, order))
        assert "ccc" == "".join(order)[-3:]

    async def test_of_many_who_wait(self, order: list[str]) -> None:
        """However many callers wait for their next turns, of a round so many are given some, and all in the end; whoever
        asks meanwhile has his own at once.
        """
        turns = Turns(1, 1)
        many = 3 * TURNS_GIVEN_PER_ROUND
        for number in range(many):
            turns.ask(number, Reader("a", 2, order))
        assert many == len(order)
        await asyncio.sleep(0)
        assert many + TURNS_GIVEN_PER_ROUND == len(order)
        turns.ask(many, Reader("b", 1, order))
        assert "b" == order[-1]
        turns.served(many)
        assert 2 <= await rounds(turns)
        assert 2 * many + 1 == len(order)

    async def test_of_very_many_who_ask(self, order: list[str]) -> None:
        """However many callers ask in one round, so many turns are begun in it, and the others in the next ones."""
        turns = Turns(1, 1, seconds=lambda: 0.0)
        for number in range(TURNS_BEGUN_PER_ROUND + 20):
            turns.ask(number, Reader("a", 1, order))
        assert TURNS_BEGUN_PER_ROUND == len(order)
        turns.served(0)
        await asyncio.sleep(0)
        assert TURNS_BEGUN_PER_ROUND + TURNS_GIVEN_PER_ROUND == len(order)
        await rounds(turns)
        assert TURNS_BEGUN_PER_ROUND + 20 == len(order)

    async def test_of_one_that_breaks(self, order: list[str]) -> None:
        """A connection that cannot be read takes nobody else's turn."""

        class Broken(Reader):
            def read(self, turn: Turn) -> bool:
                if not self.left:
                    raise OSError("it broke")
                self.left = 0
                turn.spend(0, calls=1)
                return True

        told: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, said: told.append(said["exception"]))
        turns = Turns(1, 1)
        turns.ask(7, Broken("x", 1, order))
        turns.ask(8, Reader("a", 2, order))
        await rounds(turns)
        assert ["a", "a"] == order
        assert ["it broke"] == [str(each) for each in told]


class TestPrecedence:
    """Who asks for little goes first."""

    @pytest.fixture
    def now(self) -> list[float]:
        return [100.0]

    @pytest.fixture
    def turns(self, now: list[float]) -> Turns:
        return Turns(1, 1, lambda: now[0])

    async def test_nobody_who_waits_has_a_turn(self, turns: Turns, order: list[str]) -> None:
        """While something is under way for a caller who asks for little, whoever floods waits, until it is answered."""
        turns.ask(7, Reader("a", 4, order))
        turns.ask(8, Reader("b", 1, order))
        for _ in range(5):
            await asyncio.sleep(0)
        assert "ab" == "".join(order)
        turns.ask(8, Reader("b", 1, order))  # the next that comes on its connection
        turns.served(8)
        await rounds(turns)
        assert "abbaaa" == "".join(order)

    async def test_for_a_moment_only(self, turns: Turns, now: list[float], order: list[str]) -> None:
        """What is not answered soon holds nobody up."""
        turns.ask(7, Reader("a", 3, order))
        turns.ask(8, Reader("b", 1, order))
        await asyncio.sleep(0)
        now[0] += PRECEDENCE_SECONDS
        await rounds(turns)
        assert "abaa" == "".join(order)

    async def test_half_of_the_time_at_the_most(self, turns: Turns, now: list[float], order: list[str]) -> None:
        """After somebody went first nobody does for as long, whoever it is that asks for little."""
        turns.ask(7, Reader("a", 3, order))
        turns.ask(8, Reader("b", 1, order))
        now[0] += PRECEDENCE_SECONDS / 2
        turns.served(8)
        turns.ask(9, Reader("c", 1, order))
        await asyncio.sleep(0)
        assert "abca" == "".join(order)
        now[0] += PRECEDENCE_SECONDS / 2
        turns.ask(10, Reader("d", 1, order))
        for _ in range(5):
            await asyncio.sleep(0)
        assert "abcad" == "".join(order)

    async def test_not_who_asks_for_much(self, turns: Turns, order: list[str]) -> None:
        """A caller for whom something waits does not go first, though nothing did when it asked."""
        turns.ask(7, Reader("a", 3, order))
        turns.ask(8, Reader("b", 2, order))
        await rounds(turns)
        assert "ababa" == "".join(order)

    async def test_what_is_answered_to_others(self, turns: Turns, order: list[str]) -> None:
        """The answers to whoever floods do not end it."""
        turns.ask(7, Reader("a", 3, order))
        turns.ask(8, Reader("b", 1, order))
        turns.served(7)
        for _ in range(5):
            await asyncio.sleep(0)
        assert "ab" == "".join(order)


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
