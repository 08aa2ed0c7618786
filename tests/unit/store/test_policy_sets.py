"""store/policy_sets.py: what was in force when something was decided is there for as long as a record names it."""

import hashlib
from pathlib import Path

import pytest
from fakes.task_types import PERMIT_ALL, toml
from sojourn.audit.journal import Event
from sojourn.errors import InvalidInput
from sojourn.evidence.policy_sets import digest_of_set, parse, written
from sojourn.policy import task_types
from sojourn.store import policy_sets as sets_module
from sojourn.store.policy_sets import PolicySetTable
from sojourn.store.tables import policy_texts
from sqlalchemy import func, select

ONE = {"one.toml": "a", "one.cedar": "b"}
TWO = {"one.toml": "a", "one.cedar": "c", "one.test.toml": ""}


@pytest.fixture
def sets(database, monkeypatch):
    monkeypatch.setattr(sets_module, "WRITES_WAITING", 2)
    return PolicySetTable(database)


@pytest.fixture
def record(journal):
    async def record(number):
        await journal.append([Event(each, "said", "{}") for each in range(number)])

    return record


async def texts(database):
    """How many texts there are."""
    return await database.read(
        lambda connection: connection.execute(select(func.count()).select_from(policy_texts)).scalar()
    )


async def named(sets, begin, end):
    """The sets that records may name: the texts of each by their names."""
    found = {}
    for digest in await sets.named(begin, end):
        digests, texts = await sets.files(digest)
        found[digest] = {name: texts[each] for name, each in digests.items()}
    return found


async def test_each_text_once(database, sets):
    """A set comes back as it was in force; a text that two sets have lies there once."""
    await sets.keep("1" * 64, ONE)
    await sets.keep("2" * 64, TWO)
    assert {"1" * 64: ONE, "2" * 64: TWO} == await named(sets, 1, 1)
    assert 4 == await texts(database)


async def test_those_of_a_time(sets, record):
    """An export has the sets that its records may name, and no other."""
    await sets.keep("1" * 64, ONE)
    await record(10)
    await sets.keep("2" * 64, TWO)
    await record(10)
    assert ["1" * 64] == await sets.named(1, 5)
    assert ["1" * 64, "2" * 64] == await sets.named(1, 20)
    assert ["2" * 64] == await sets.named(13, 20)


async def test_one_that_comes_back(sets, record):
    """A set that is in force again is there on both sides."""
    for digest, files in (("1" * 64, ONE), ("2" * 64, TWO), ("1" * 64, ONE)):
        await sets.keep(digest, files)
        await record(10)
    assert "1" * 64 in await sets.named(1, 3)
    assert "1" * 64 in await sets.named(25, 30)


async def test_pruned(database, sets, record, journal):
    """What no record names any more goes with the records, and the one in force stays however old."""
    journal._kept_least = 0
    await sets.keep("1" * 64, ONE)
    await record(10)
    await sets.keep("2" * 64, TWO)
    await record(10)
    assert 11 == await journal.prune(11, 0)
    assert ["1" * 64, "2" * 64] == await sets.named(1, 30)
    assert 5 == await journal.prune(5, 0)
    assert {"2" * 64: TWO} == await named(sets, 1, 30)
    assert 3 == await texts(database)
    assert ({}, {}) == await sets.files("1" * 64)


def of_files(files):
    """The digest of a set by its files."""
    octets = {hashlib.sha256(text.encode()).hexdigest(): text.encode() for text in files.values()}
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    return digest_of_set(parse(written(digests)), octets.__getitem__)


def test_the_digest_by_the_files_alone():
    """Whoever checks a folder finds the digest of a set by its files as the agent does, and another for other files."""
    files = {
        "one.toml": toml(),
        "one.cedar": PERMIT_ALL,
        "two.toml": toml(),
        "two.cedar": PERMIT_ALL,
        "one.test.toml": "",
    }
    made = task_types.made_of(Path("/etc/types"), files)
    assert made.digest == of_files(files)
    assert made.digest == of_files({**files, "two.test.toml": "x"})
    assert made.digest != of_files({**files, "two.cedar": "x"})
    assert made.digest != of_files({name: text for name, text in files.items() if not name.startswith("two")})


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"[]",
        b'{"one.toml":5}',
        b'{"../x":"%s"}' % (b"0" * 64),
        b'{"one.toml":"../x"}',
        b'{"\\ud800":"1"}',
        b"[" * 9999,
    ],
)
def test_what_is_no_set(octets):
    """What is not as a set is written is refused, and no name in it leads anywhere."""
    with pytest.raises(InvalidInput):
        parse(octets)
