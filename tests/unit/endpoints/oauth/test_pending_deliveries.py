"""pending_deliveries.py: what came before its key is tried again by itself, and whoever floods takes only their own room."""

import asyncio

import pytest
from fakes.clock import FakeClock
from harness.looking import idle
from sojourn.endpoints.oauth.pending_deliveries import PendingDeliveries, PendingDelivery
from sojourn.limits import (
    PENDING_DELIVERIES,
    PENDING_DELIVERIES_OF_ISSUER,
    PENDING_DELIVERY_MAX_BYTES,
    PENDING_DELIVERY_PAUSE_SECONDS,
    PENDING_DELIVERY_SECONDS,
)
from sojourn.runtime.clock import Alarms
from structlog.testing import capture_logs


class Room:
    """Deliveries by their texts; those of `unknown` issuers have no keys yet."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.alarms = Alarms(self.clock)
        self.unknown = {"corp"}
        self.tried: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.pending = PendingDeliveries(self.settle, self.clock, self.alarms)

    async def settle(self, delivery: PendingDelivery) -> bool:
        self.tried.append(delivery.unverified_text)
        await self.gate.wait()
        return delivery.issuer not in self.unknown

    def came(self, text: str, who: int | str = "192.0.2.1", issuer: str = "corp") -> bool:
        return self.pending.keep(PendingDelivery(issuer, who, {"address": who}, text, self.clock.boot()))

    def kept(self) -> list[str]:
        return [each.unverified_text for each in self.pending._kept.values()]

    async def passes(self, seconds: float = PENDING_DELIVERY_PAUSE_SECONDS) -> None:
        """Let time go by, and what is due then be done."""
        self.clock.advance(seconds)
        self.alarms.ring_due()
        await self.quiet()

    async def quiet(self) -> None:
        await idle()


@pytest.fixture
async def room():
    made = Room()
    yield made
    await made.pending.close()


async def test_in_the_order_of_their_coming(room):
    """While the keys are not to be had the first alone is tried; when they are, all are, the first that came first."""
    assert all(room.came(each) for each in ("a", "b", "c"))
    await room.passes()
    await room.passes()
    assert (["a", "a"], 3) == (room.tried, len(room.pending))
    room.unknown.clear()
    await room.passes()
    assert (["a", "a", "a", "b", "c"], 0) == (room.tried, len(room.pending))
    await room.passes()
    assert 5 == len(room.tried)


async def test_no_issuer_waits_for_another(room):
    """An issuer whose keys are slow to come, or do not come, keeps nothing of another's away."""
    room.came("a")
    room.gate.clear()
    await room.passes()
    room.came("b", issuer="other")
    await room.passes()
    room.gate.set()
    await room.quiet()
    assert (["a", "b"], ["a"]) == (room.tried, room.kept())


async def test_one_that_comes_again(room):
    """One that comes again is kept once; when it was taken in the meantime it is not tried any more."""
    assert [True, True] == [room.came("a"), room.came("a", "192.0.2.2")]
    assert 1 == len(room.pending)
    room.pending.forget("corp", "a")
    await room.passes()
    assert [] == room.tried
    room.came("b")
    await room.passes()
    assert ["b"] == room.tried


async def test_one_that_comes_again_while_another_is_tried(room):
    """One that was taken while those before it were tried is not tried either."""
    room.unknown.clear()
    room.gate.clear()
    room.came("a")
    room.came("b")
    await room.passes()
    room.pending.forget("corp", "b")
    room.gate.set()
    await room.quiet()
    assert (["a"], []) == (room.tried, room.kept())


async def test_a_flood(room):
    """Whoever sends made-up ones without end has the room that others leave, and no more: one of another sender finds
    its place before and after.
    """
    assert room.came("early", "198.51.100.1")
    for number in range(10 * PENDING_DELIVERIES_OF_ISSUER):
        room.came(f"x{number}")
    assert PENDING_DELIVERIES_OF_ISSUER == len(room.pending)
    assert room.came("late", "198.51.100.2")
    for number in range(10):
        room.came(f"y{number}")
    assert {"early", "late", "x0"} <= set(room.kept())
    assert not room.came("one more")


async def test_many_senders(room):
    """Nobody of many senders has more than the others, and what one of them sends takes no other's place."""
    for number in range(PENDING_DELIVERIES_OF_ISSUER):
        assert room.came(f"x{number}", f"192.0.2.{number}")
    assert not room.came("one too many", "198.51.100.1")
    assert not room.came("another of mine", "192.0.2.1")


async def test_over_all_issuers(room):
    """All issuers' have a limit together, within which again whoever has the most gives way."""
    issuers = PENDING_DELIVERIES // PENDING_DELIVERIES_OF_ISSUER + 2
    for number in range(issuers * PENDING_DELIVERIES_OF_ISSUER):
        room.came(f"x{number}", issuer=f"i{number // PENDING_DELIVERIES_OF_ISSUER}")
    assert PENDING_DELIVERIES == len(room.pending)
    assert room.came("mine", "198.51.100.1", issuer="another")
    assert PENDING_DELIVERIES == len(room.pending)


async def test_a_long_one(room):
    """One that is longer than any that an issuer writes takes no room."""
    assert not room.came("x" * (PENDING_DELIVERY_MAX_BYTES + 1))
    assert room.came("x" * PENDING_DELIVERY_MAX_BYTES)


async def test_given_up(room):
    """One whose keys do not come is not kept for ever, and that is told."""
    room.came("a")
    await room.passes(PENDING_DELIVERY_SECONDS)
    assert ["a"] == room.kept()
    with capture_logs() as lines:
        await room.passes()
    assert ([], ["a"]) == (room.kept(), room.tried)
    [line] = [each for each in lines if each["event"] == "pending_delivery_given_up"]
    assert ("warning", "corp", "192.0.2.1") == (line["log_level"], line["issuer"], line["address"])


async def test_nothing_of_it_is_shown(room):
    """A delivery has no text of its token where it is shown."""
    room.came("canary")
    assert "canary" not in repr(list(room.pending._kept.values()))


async def test_closed(room):
    """After the end nothing is tried, and what is under way is left."""
    room.came("a")
    room.gate.clear()
    await room.passes()
    await room.pending.close()
    room.gate.set()
    await room.passes()
    assert (["a"], ["a"]) == (room.tried, room.kept())
