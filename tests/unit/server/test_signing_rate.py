"""signing_rate.py: one node has its share of signatures, and waits for more."""

import pytest
from fakes.clock import FakeClock
from fakes.server_room import agent_id
from sojourn.errors import LimitExceeded
from sojourn.limits import NODE_SIGNATURES_BURST, NODE_SIGNATURES_PER_SECOND, NODE_SIGNATURES_WAIT_SECONDS
from sojourn.server.signing_rate import SigningRate

A, B = agent_id("a"), agent_id("b")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def rate(clock: FakeClock) -> SigningRate:
    return SigningRate(clock.boot)


def test_a_node_that_begins(rate: SigningRate) -> None:
    """Who has many entries has them signed at once, and what is over that in its turn."""
    assert 0 == rate.wait_for(A, NODE_SIGNATURES_BURST)
    assert 1 == rate.wait_for(A, NODE_SIGNATURES_PER_SECOND)
    assert 2 == rate.wait_for(A, NODE_SIGNATURES_PER_SECOND)


def test_too_much(rate: SigningRate, clock: FakeClock) -> None:
    """Who asks for much more is told to come again, is charged nothing for that, and has its turn then."""
    rate.wait_for(A, NODE_SIGNATURES_BURST)
    most = int(NODE_SIGNATURES_WAIT_SECONDS * NODE_SIGNATURES_PER_SECOND)
    rate.wait_for(A, most)
    for _ in range(3):
        with pytest.raises(LimitExceeded):
            rate.wait_for(A, 1)
    clock.advance(1)
    assert NODE_SIGNATURES_WAIT_SECONDS == rate.wait_for(A, NODE_SIGNATURES_PER_SECOND)


def test_others_wait_for_nothing(rate: SigningRate) -> None:
    """What one node has asked for is no other's burden."""
    rate.wait_for(A, NODE_SIGNATURES_BURST + 500)
    assert 0 == rate.wait_for(B, 500)


def test_it_comes_back(rate: SigningRate, clock: FakeClock) -> None:
    """What is not used is saved up to the burst, and no further."""
    rate.wait_for(A, NODE_SIGNATURES_BURST)
    clock.advance(3_600)
    assert 0 == rate.wait_for(A, NODE_SIGNATURES_BURST)
    assert 0 < rate.wait_for(A, 1)
    rate.forget(A)
    assert 0 == rate.wait_for(A, NODE_SIGNATURES_BURST)
