"""store/used_assertions.py: assertions are good once, over restarts and whatever the clock says."""

import asyncio

import pytest
from fakes.databases import opened
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import LimitExceeded
from sojourn.errors.oauth import InvalidGrant
from sojourn.limits import FORGOTTEN_SPANS, JWT_LEEWAY_SECONDS, USED_TOKENS_KEPT_SECONDS, USED_TOKENS_PURGE_SECONDS
from sojourn.oauth.assertion_ids import Assertion
from sojourn.runtime.forgotten_times import Forgotten
from sojourn.store import settings
from sojourn.store.tables import used_tokens
from sojourn.store.used_assertions import UsedTable
from structlog.testing import capture_logs

NOW = 1_800_000_000
LATER = NOW + USED_TOKENS_KEPT_SECONDS + 1_000


def assertion(jti="a", *, kind="jwt-svid", issuer="example.org", audience="us", expires_at=NOW + 300):
    return Assertion.named(kind, issuer, audience, jti, expires_at)


def rows(database):
    return database.read_now("rows", lambda connection: connection.execute(used_tokens.select()).all())


async def test_once(path):
    """An assertion is taken once, and then never again, by another table object either."""
    with opened(path) as database:
        await UsedTable(database).claim([assertion()], NOW)
        for table in (UsedTable(database), UsedTable(database)):
            with pytest.raises(InvalidGrant, match="used before"):
                await table.claim([assertion()], NOW)
    with opened(path) as database, pytest.raises(InvalidGrant, match="used before"):
        await UsedTable(database).claim([assertion()], NOW)


async def test_fifty_at_once(path):
    """Of fifty who claim one assertion at the same time one gets it."""
    with opened(path) as database:
        table = UsedTable(database)
        found = await asyncio.gather(*(table.claim([assertion()], NOW) for _ in range(50)), return_exceptions=True)
    assert 1 == found.count(None)
    assert 49 == sum(isinstance(each, InvalidGrant) for each in found)


@pytest.mark.parametrize(
    "other",
    [{"kind": "other"}, {"issuer": "example.com"}, {"audience": "them"}, {"jti": "b"}, {"kind": "jwt-svidexample.org"}],
    ids=str,
)
async def test_CVE_2026_4282_one_jti_of_two(path, other):
    """The same jti of another kind or issuer, or for another audience, is another assertion: each is taken once."""
    with opened(path) as database:
        table = UsedTable(database)
        for each in (assertion(), assertion(**other)):
            await table.claim([each], NOW)
            with pytest.raises(InvalidGrant):
                await table.claim([each], NOW)


def test_names_do_not_run_together():
    """What is moved from one part of the name to the next makes another name."""
    assert assertion(issuer="ab", audience="c").digest != assertion(issuer="a", audience="bc").digest


async def test_all_or_none(path):
    """If one of several was used, the others are not used up."""
    with opened(path) as database:
        table = UsedTable(database)
        await table.claim([assertion("a")], NOW)
        with pytest.raises(InvalidGrant):
            await table.claim([assertion("b"), assertion("a")], NOW)
        await table.claim([assertion("b")], NOW)


async def test_forgotten_a_day_after_the_end(path):
    """A record outlives its assertion by a day, and is gone then."""
    with opened(path) as database:
        table = UsedTable(database)
        await table.claim([assertion()], NOW)
        await table.claim([assertion("b", expires_at=LATER)], NOW + 300 + USED_TOKENS_KEPT_SECONDS - 1)
        assert 2 == len(rows(database))
        await table.claim([assertion("c", expires_at=LATER)], NOW + 300 + USED_TOKENS_KEPT_SECONDS + 60)
        assert 2 == len(rows(database))


@pytest.mark.parametrize("again", [False, True], ids=["same run", "restarted"])
async def test_the_clock_is_set_ahead_and_back(path, again):
    """What was forgotten because the clock ran ahead is refused when the clock is set back; what ends later is not."""
    with opened(path) as database:
        table = UsedTable(database)
        await table.claim([assertion()], NOW)
        ahead = NOW + 2 * USED_TOKENS_KEPT_SECONDS
        await table.claim([assertion("b", expires_at=ahead + 300)], ahead)
        table = UsedTable(database) if again else table
        for each in (assertion(), assertion("never seen, as old")):
            with pytest.raises(InvalidGrant, match="others did that are forgotten"):
                await table.claim([each], NOW)
        await table.claim([assertion("c", expires_at=NOW + 301)], NOW + USED_TOKENS_PURGE_SECONDS)


DAY = 86_400


@pytest.mark.parametrize("again", [False, True], ids=["same run", "restarted"])
async def test_a_clock_that_stood_days_ahead(path, again):
    """Once the clock is right again fresh assertions are taken, although some were forgotten that end days from now. Those
    are never taken again: neither now, nor when their time has come, when others that end elsewhen are taken.
    """
    with opened(path) as database:
        table = UsedTable(database)
        await table.claim([assertion("now")], NOW)
        ahead = NOW + 10 * DAY
        for number in range(3):
            await table.claim([assertion(f"ahead {number}", expires_at=ahead + 300 + number)], ahead + number)
        await table.claim([assertion("later", expires_at=NOW + 12 * DAY + 300)], NOW + 12 * DAY)
        with capture_logs() as logs:
            table = UsedTable(database) if again else table
            for number in range(5):
                fresh = assertion(f"fresh {number}", expires_at=NOW + 600 + number)
                await table.claim([fresh], NOW + 120 + 70 * number)
                with pytest.raises(InvalidGrant, match="used before"):
                    await table.claim([fresh], NOW + 120 + 70 * number)
        (told,) = [each for each in logs if each["event"] == "assertions_used_ahead"]
        assert ("warning", "2027-01-25T08:05:00+00:00 to 2027-01-25T08:05:02+00:00") == (
            told["log_level"],
            told["reason"].partition("end from ")[2].partition(" will")[0],
        )
        used = [
            assertion("now"),
            *(assertion(f"ahead {number}", expires_at=ahead + 300 + number) for number in range(3)),
        ]
        for now in (NOW + 500, ahead + 10):
            for each in used:
                with pytest.raises(InvalidGrant):
                    await table.claim([each], now)
        await table.claim([assertion("its time", expires_at=ahead + 310)], ahead + 10)
        with pytest.raises(InvalidGrant, match="used before"):
            await table.claim([assertion("later", expires_at=NOW + 12 * DAY + 300)], NOW + 12 * DAY)


async def test_what_an_earlier_release_had_forgotten(path):
    """Of a database that knows the latest end alone, nothing is taken that ends so early."""
    with opened(path) as database:
        await database.write(lambda connection: settings.put(connection, "used_tokens_forgotten", str(NOW + 300)))
        for early in (NOW + 300, NOW - 300):
            with pytest.raises(InvalidGrant, match="forgotten"):
                await UsedTable(database).claim([assertion(expires_at=early)], NOW)
        await UsedTable(database).claim([assertion(expires_at=NOW + 301)], NOW)


@given(
    st.lists(st.lists(st.integers(0, 10_000), min_size=1, max_size=40), max_size=30),
    st.lists(st.integers(0, 10_000), max_size=20),
)
def test_what_is_forgotten_stays_so(purges, others):
    """Whatever was forgotten is known as such for good, over a restart too, in a bounded number of spans."""
    forgotten = Forgotten()
    for ends in purges:
        forgotten = Forgotten.parse(forgotten.and_of((end, end) for end in ends).text)
        assert len(forgotten.spans) <= FORGOTTEN_SPANS
        assert list(forgotten.spans) == sorted(forgotten.spans)
    gone = {end for ends in purges for end in ends}
    assert all(forgotten.has(end) for end in gone)
    if len(gone) <= FORGOTTEN_SPANS:
        assert {end for end in others if forgotten.has(end)} == gone & set(others)


def test_the_least_between_two_is_what_is_lost():
    """Where there are too many spans, those next to each other become one: a clock that stood years ahead shuts nobody
    out until then, however many came meanwhile.
    """
    years = 9 * 365 * DAY
    now = [(NOW + 600 * number, NOW + 600 * number + 5) for number in range(FORGOTTEN_SPANS)]
    ahead = [(first + years, last + years) for first, last in now]
    forgotten = Forgotten().and_of(now).and_of(ahead)
    assert FORGOTTEN_SPANS == len(forgotten.spans)
    assert all(forgotten.has(end) for span in (*now, *ahead) for end in span)
    assert not any(forgotten.has(end) for end in (NOW - 1, now[-1][1] + 1, NOW + years - 1, ahead[-1][1] + 1))
    assert ahead[-1] == forgotten.ahead(NOW)
    assert None is forgotten.ahead(ahead[-1][0])
    assert None is Forgotten().ahead(NOW)


async def test_full(path):
    """When no more can be remembered those that ended are forgotten early; if none has, claims are refused."""
    with opened(path) as database:
        table = UsedTable(database, room=3)
        for name in "abc":
            await table.claim([assertion(name)], NOW)
        with pytest.raises(LimitExceeded):
            await table.claim([assertion("d")], NOW)
        ended = NOW + 300 + JWT_LEEWAY_SECONDS
        await table.claim([assertion("e", expires_at=ended + 300)], ended)
        assert 1 == len(rows(database))
        with pytest.raises(InvalidGrant):
            await table.claim([assertion("a")], NOW)


async def test_a_write_that_fails_beside_it(path):
    """Another's write that fails in the same commit takes nothing from what is remembered here."""

    def broken(_connection):
        raise LimitExceeded("test")

    with opened(path) as database:
        table = UsedTable(database, room=2)
        done = await asyncio.gather(
            table.claim([assertion()], NOW), database.write(broken), table.claim([assertion("b")], NOW),
            return_exceptions=True,
        )  # fmt: skip
        assert [None, None] == [done[0], done[2]]
        with pytest.raises(LimitExceeded):
            await table.claim([assertion("c")], NOW)
        assert 2 == len(rows(database))
