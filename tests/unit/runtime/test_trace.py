"""trace.py: a caller's trace is taken if it is one, passed on as it came, and held for no longer than the request."""

import asyncio

import pytest
from fakes.clock import FakeClock
from sojourn.audit.journal import Audit
from sojourn.runtime import trace

ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{ID}-{PARENT}-01"


@pytest.mark.parametrize(
    ("value", "passed_on"),
    [
        (VALID, VALID),
        (f"00-{ID}-{PARENT}-00", f"00-{ID}-{PARENT}-00"),
        (f"01-{ID}-{PARENT}-01", VALID),
        (f"cc-{ID}-{PARENT}-01-what-the-future-will-be", VALID),
    ],
)
def test_taken(value: str, passed_on: str) -> None:
    """What the standard calls valid is taken, of a later version as much as this one has of it."""
    assert (ID, passed_on) == trace.parse([value.encode()])


@pytest.mark.parametrize(
    "value",
    [
        "", "00", ID, f"00-{ID}-{PARENT}", f"00-{ID}-{PARENT}-1", f"00-{ID}-{PARENT}-01-more", f"ff-{ID}-{PARENT}-01",
        f"00-{ID.upper()}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01", f"00-{ID}-{'0' * 16}-01", f"00-{ID[1:]}-{PARENT}-01",
        f" {VALID}", f"{VALID}\n", f"00_{ID}_{PARENT}_01", f"0x-{ID}-{PARENT}-01", f"01-{ID}-{PARENT}-01.more",
        f"cc-{ID}-{PARENT}-01-{'x' * 500}", "\xff" * 55,
    ],
)  # fmt: skip
def test_ignored(value: str) -> None:
    """What is malformed is ignored, whatever it is, and is no error."""
    assert trace.parse([value.encode("latin-1")]) is None
    with trace.following([value.encode("latin-1")]):
        assert (None, None) == (trace.trace_id(), trace.header())


def test_more_than_one_is_ignored() -> None:
    """Of two headers nobody knows which is meant: none counts."""
    assert trace.parse([]) is trace.parse([VALID.encode()] * 2) is None


async def test_no_longer_than_the_request() -> None:
    """What a request has begun is of its trace while that is under way, and of none afterwards."""
    heard, go_on = [], asyncio.Event()

    async def later() -> None:
        heard.append(trace.trace_id())
        await go_on.wait()
        heard.append((trace.trace_id(), trace.header()))

    with trace.following([VALID.encode()]):
        assert (ID, VALID) == (trace.trace_id(), trace.header())
        going = asyncio.ensure_future(later())
        await asyncio.sleep(0)
    go_on.set()
    await going
    assert [ID, (None, None)] == heard
    assert trace.trace_id() is None


def test_a_record_has_it() -> None:
    """A record that is made within the request has its trace; one that is made outside has none."""
    audit = Audit(None, FakeClock())  # type: ignore[arg-type]  # nothing is written
    assert "{}" == audit.event("one", {}).fields
    with trace.following([VALID.encode()]):
        assert f'{{"trace_id":"{ID}","uid":7}}' == audit.event("one", {"uid": 7}).fields
