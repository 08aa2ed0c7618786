"""The credentials that may be handed out again."""

from datetime import UTC, datetime, timedelta

import pytest
from fakes.handing_room import ORDERS
from fakes.task_types import TRIAGE
from sojourn.credentials.cache import CachedCredential, KeptCredentials, Key
from sojourn.credentials.credential import Credential
from sojourn.limits import PROVIDER_CREDENTIALS_PER_TASK
from sojourn.providers.provider import Obtained
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.grants import Grant

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def key(task="task_1", action="read", version=1, digest="d"):
    return Key(task, Grant(ORDERS, (action,)), version, digest)


def kept(began=0.0, ends=100.0, token="t"):
    grant = Grant(ORDERS, ("read",))
    credential = Credential("ext_1", "task_1", "triage", SpiffeId.parse(TRIAGE), "corp", grant, NOW, NOW, 0.0)
    return CachedCredential(credential, Obtained(token, NOW + timedelta(seconds=ends - began)), "corp", began, ends)


@pytest.fixture
def gone():
    return []


@pytest.fixture
def shelf(gone):
    return KeptCredentials(lambda task, each: gone.append((task, each.obtained.token)))


def test_only_by_all_of_its_key(shelf):
    """It is found by task, grant, version and type together, and by nothing less."""
    one = kept()
    shelf.put(key(), one)
    assert one is shelf.find(key(), 1.0, NOW)
    for other in (key(task="task_2"), key(action="list"), key(version=2), key(digest="e")):
        assert shelf.find(other, 1.0, NOW) is None


@pytest.mark.parametrize(("boot", "seconds"), [(100.0, 0), (1.0, 100)])
def test_it_ends_by_either_clock(shelf, gone, boot, seconds):
    """What has ended by one clock is dropped, whatever the other says."""
    shelf.put(key(), kept())
    assert shelf.find(key(), boot, NOW + timedelta(seconds=seconds)) is None
    assert (0, [("task_1", "t")]) == (len(shelf), gone)


def test_another_takes_its_place(shelf, gone):
    """Of one key there is one; whoever counts hears of the one that went."""
    shelf.put(key(), kept(token="old"))
    shelf.put(key(), kept(token="new"))
    assert (1, [("task_1", "old")]) == (len(shelf), gone)


def test_so_many_of_a_task_and_in_all(shelf, gone, monkeypatch):
    """The oldest of a task goes when it has too many, and the oldest of all when there are too many."""
    for number in range(PROVIDER_CREDENTIALS_PER_TASK + 1):
        shelf.put(key(action=f"a{number}"), kept(token=str(number)))
    assert (PROVIDER_CREDENTIALS_PER_TASK, [("task_1", "0")]) == (len(shelf), gone)
    monkeypatch.setattr("sojourn.credentials.cache.PROVIDER_CREDENTIALS", PROVIDER_CREDENTIALS_PER_TASK)
    shelf.put(key(task="task_2"), kept())
    assert ("task_1", "1") == gone[-1]


def test_forgetting(shelf, gone):
    """All of a task go with it, or all but those of its present version; those of others stay."""
    for each in (key(), key(action="list"), key(version=2), key(task="task_2")):
        shelf.put(each, kept())
    shelf.forget("task_1", 2)
    assert (2, 2) == (len(shelf), len(gone))
    shelf.forget("task_1")
    assert shelf.find(key(task="task_2"), 1.0, NOW)
    shelf.forget("task_2")
    assert ({}, 0) == (shelf._of_task, len(shelf))


@pytest.mark.parametrize(
    ("boot", "stale", "ending"), [(74.0, False, False), (75.0, True, False), (94.0, True, False), (95.0, True, True)]
)
def test_its_age(boot, stale, ending):
    """Past three quarters another one should be on its way; with five seconds left it should be waited for."""
    assert (stale, ending) == (kept().stale(boot), kept().ending(boot))


def test_the_age_of_a_short_one():
    """Of one that is short it is a tenth of its life."""
    one = kept(ends=10.0)
    assert (False, True) == (one.ending(8.9), one.ending(9.0))
