"""validator_feed.py: validators hear of the tasks at their audiences, and a slow one misses no end."""

import asyncio
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from fakes.task_types import TICKETS, WIKI
from hypothesis import given
from hypothesis import strategies as st
from sojourn.tasks import validator_feed as feed_module
from sojourn.tasks.validator_feed import Feed, TaskState, state_of
from sojourn.tasktoken.grants import Authority, Grant


def task(task_id="t1", version=1, state="active", reason="", *, at=(TICKETS,)):
    """As much of a task as the feed looks at."""
    return SimpleNamespace(
        id=task_id,
        version=version,
        state=state,
        live=state == "active",
        reason=reason,
        explanation="",
        authority=Authority(tuple(Grant(resource, ("a",)) for resource in at)),
    )


@pytest.fixture
def feed():
    return Feed()


def test_what_an_operator_said():
    """A validator hears what the operator said who ended a task, beside the reason."""
    ended = task(state="revoked", reason="admin")
    ended.explanation = "key copied"
    assert "revoked: admin (key copied)" == state_of(ended).reason


def test_state():
    """A validator hears whether a task lives, and why not."""
    assert TaskState("t1", 1, True, "active", False) == state_of(task())
    assert TaskState("t1", 2, False, "revoked: because", False) == state_of(
        task(version=2, state="revoked", reason="because")
    )


def test_only_of_its_audiences(feed):
    """A validator hears of tasks that have one of its audiences, and of no other."""
    with feed.watch([TICKETS]) as tickets, feed.watch([WIKI, TICKETS]) as both, feed.watch([]) as nothing:
        feed.publish(task("a"))
        feed.publish(task("b", at=(WIKI,)))
        feed.publish(task("c", at=(WIKI, TICKETS)))
        assert [["a", "c"], ["a", "b", "c"], []] == [
            [state.id for state in watcher.take()] for watcher in (tickets, both, nothing)
        ]


def test_names_are_compared_byte_for_byte(feed):
    """An audience that is spelled differently is another."""
    with feed.watch([TICKETS.upper(), TICKETS + "/"]) as watcher:
        feed.publish(task())
        assert ([], False) == (watcher.take(), watcher.changed.is_set())


def test_the_newest_state(feed):
    """Of several changes of a task between two looks a validator gets the last."""
    with feed.watch([TICKETS]) as watcher:
        feed.publish(task())
        feed.publish(task(version=2, state="revoked"))
        assert [(2, False)] == [(state.version, state.live) for state in watcher.take()]


def test_is_woken(feed):
    """A change wakes, and taking it lets sleep again."""
    with feed.watch([TICKETS]) as watcher:
        assert not watcher.changed.is_set()
        feed.publish(task())
        assert watcher.changed.is_set()
        watcher.take()
        assert ([], False) == (watcher.take(), watcher.changed.is_set())


def test_who_left_hears_nothing(feed):
    """A validator that has left is forgotten, also when it leaves by an error."""
    leaving = ExitStack()
    watcher = leaving.enter_context(feed.watch([TICKETS]))
    assert 1 == len(feed)
    leaving.__exit__(RuntimeError, RuntimeError(), None)
    feed.publish(task())
    assert (0, []) == (len(feed), watcher.take())


class TestSlow:
    def test_starts_anew(self, feed, monkeypatch):
        """A validator for which too much waits is told to start anew, and nothing more is held for it."""
        monkeypatch.setattr(feed_module, "FEED_CHANGES_HELD", 3)
        with feed.watch([TICKETS]) as watcher:
            for number in range(9):
                feed.publish(task(f"t{number}"))
            assert (True, True, []) == (watcher.lost, watcher.changed.is_set(), watcher.take())

    def test_changes_of_the_same_task_are_one(self, feed, monkeypatch):
        """Many changes of few tasks do not make a validator start anew."""
        monkeypatch.setattr(feed_module, "FEED_CHANGES_HELD", 2)
        with feed.watch([TICKETS]) as watcher:
            for version in range(50):
                feed.publish(task(f"t{version % 2}", version))
            assert (False, {48, 49}) == (watcher.lost, {state.version for state in watcher.take()})

    @given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=40))
    def test_never_misses_an_end(self, moves):
        """Whatever a validator reads when: unless it is told to start anew, it knows the last state of each task."""
        feed, known, last = Feed(), {}, {}
        with feed.watch([TICKETS]) as watcher:
            for version, (number, looks) in enumerate(moves):
                last[f"t{number}"] = version
                feed.publish(task(f"t{number}", version))
                if looks:
                    known.update({state.id: state.version for state in watcher.take()})
            known.update({state.id: state.version for state in watcher.take()})
        assert last == known


async def test_how_long_until_all_hear_of_an_end(feed, monkeypatch):
    """Once the last validator of an end is woken it is told how long that took; of what is no end nothing is."""
    monkeypatch.setattr(feed_module, "STREAMS_WOKEN_AT_ONCE", 2)
    took = []
    feed.on_told(took.append)
    with ExitStack() as stack:
        watchers = [stack.enter_context(feed.watch([TICKETS], number)) for number in range(5)]
        feed.publish(task())
        while not all(each.changed.is_set() for each in watchers):
            await asyncio.sleep(0)
        assert [] == took
        for each in watchers:
            each.take()
        feed.publish(task(version=2, state="revoked"))
        assert [] == took
        while not all(each.changed.is_set() for each in watchers):
            await asyncio.sleep(0)
        assert 1 == len(took)
        assert took[0] > 0
    feed.publish(task(version=3, state="revoked"))
    assert 1 == len(took)
