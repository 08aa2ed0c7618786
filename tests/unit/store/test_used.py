"""store/used.py: assertions are good once, over restarts and whatever the clock says."""

import asyncio

import pytest
from fakes.databases import opened
from sojourn.errors import LimitExceeded
from sojourn.limits import JWT_LEEWAY_SECONDS, USED_TOKENS_KEPT_SECONDS, USED_TOKENS_PURGE_SECONDS
from sojourn.oautherrors import InvalidGrant
from sojourn.store.tables import used_tokens
from sojourn.store.used import UsedTable
from sojourn.tasks.assertions import Assertion

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
            with pytest.raises(InvalidGrant, match="as old as others"):
                await table.claim([each], NOW)
        await table.claim([assertion("c", expires_at=NOW + 301)], NOW + USED_TOKENS_PURGE_SECONDS)


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
