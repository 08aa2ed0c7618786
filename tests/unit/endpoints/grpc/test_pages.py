"""endpoints/grpc/pages.py: lists in pages, whatever comes and goes between two of them."""

import asyncio
import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn.endpoints.grpc import pages
from sojourn.endpoints.grpc.pages import Pages, cut, fitting
from sojourn.errors import InvalidInput
from sojourn.limits import LISTED_TEXT, PAGE_BYTES, PAGE_ITEMS, PAGE_TOKEN_MAX

BEGAN = datetime(2026, 1, 1, 12, 0, 0, 123456, UTC)


@dataclass(frozen=True)
class Thing:
    at: datetime
    name: str
    note: str = ""

    @property
    def message(self):
        return tasks_pb2.Task(id=self.name, reason=self.note)


def thing(number, note=""):
    """One of three that were made in the same moment."""
    return Thing(BEGAN + timedelta(seconds=number // 3), f"tsk_{number:05}", note)


LISTED = Pages((datetime, str), lambda each: (each.at, each.name), lambda each: each.message)


def asked(token="", size=0):
    return pb.ListTasksRequest(page_token=token, page_size=size)


def all_of(things, size=0, between=lambda: None, listed=LISTED):
    """The names on each page."""
    found, token = [], ""
    while True:
        told, token = listed.page(things, asked(token, size))
        found.append([each.id for each in told])
        if not token:
            return found
        between()


@pytest.mark.parametrize("count", [0, 1, 25, 26, 90])
async def test_of_many(monkeypatch, count):
    """Pages of many things are those of a few, and others have their turn while the things are looked through."""
    monkeypatch.setattr(pages, "LISTED_AT_ONCE", 25)
    things = [thing(number) for number in range(count)]
    mixed, token, turns = things[::2] + things[1::2], "", [0]

    async def others():
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    meanwhile = asyncio.ensure_future(others())
    while True:
        before = turns[0]
        found = await LISTED.page_of_many(mixed, asked(token, 10))
        assert LISTED.page(mixed, asked(token, 10)) == found
        assert turns[0] - before >= count // 25
        token = found[1]
        if not token:
            break
    meanwhile.cancel()


@pytest.mark.parametrize("count", [0, 1, 3, PAGE_ITEMS - 1, PAGE_ITEMS, PAGE_ITEMS + 1, 3 * PAGE_ITEMS])
def test_all_are_told_once_and_in_order(count):
    """All pages together have everything once, in the order of the key, however it lies there."""
    things = [thing(number) for number in range(count)]
    told = all_of(things[::2] + things[1::2])
    assert [each.name for each in things] == [name for page in told for name in page]
    assert max(1, -(-count // PAGE_ITEMS)) == len(told)


@pytest.mark.parametrize(("size", "most"), [(1, 1), (7, 7), (0, PAGE_ITEMS), (10**6, PAGE_ITEMS)])
def test_as_many_as_are_asked_for(size, most):
    """A page has what is asked for, and never more than a page has."""
    told = all_of([thing(number) for number in range(2 * PAGE_ITEMS)], size)
    assert [most] * (2 * PAGE_ITEMS // most) == [len(page) for page in told[: 2 * PAGE_ITEMS // most]]


def test_long_things_make_more_pages():
    """A page has no more bytes than PAGE_BYTES; what alone has more is a page of its own."""
    things = [thing(number, "x" * (PAGE_BYTES // 3)) for number in range(5)]
    things[3] = thing(3, "x" * PAGE_BYTES * 2)
    assert [2, 1, 1, 1] == [len(page) for page in all_of(things)]


def test_what_comes_and_goes():
    """What is there all the while is told once, whatever goes before and behind, and whatever comes."""
    there = {number: thing(number) for number in range(0, 100, 2)}
    stays = {there[number].name for number in there if number % 4 == 0}

    def change():
        for number in [number for number in there if number % 4][:9]:
            del there[number]
        for number in range(1, 60, 20):
            there[1000 * len(there) + number] = thing(number + 2 * len(there))

    found = []
    token = ""
    while True:
        told, token = LISTED.page(there.values(), asked(token, 7))
        found += [each.id for each in told]
        if not token:
            break
        change()
    assert stays <= set(found)
    assert len(found) == len(set(found))


def test_what_has_gone_is_left_out():
    """Of what has gone by the time that it is told nothing is said, and the list goes on behind it."""
    gone = {thing(number).name for number in (0, 4, 5, 6, 7, 8)}
    listed = Pages(LISTED.kinds, LISTED.key, lambda each: None if each.name in gone else each.message)
    told = all_of([thing(number) for number in range(10)], 2, listed=listed)
    assert [thing(number).name for number in (1, 2, 3, 9)] == [name for page in told for name in page]


def test_a_page_makes_no_more_than_it_tells(monkeypatch):
    """Of ten thousand things with four kilobytes each, a page looks at as many as it has room for."""
    made = []
    things = [thing(number, "x" * 4_000) for number in range(10_000)]
    listed = Pages(LISTED.kinds, LISTED.key, lambda each: made.append(each) or each.message)
    told, token = listed.page(things, asked())
    assert token
    assert (len(told) + 1, True) == (len(made), sum(each.ByteSize() for each in told) <= PAGE_BYTES)


def _token(*parts):
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


NOW = BEGAN.isoformat()


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "....",
        base64.urlsafe_b64encode(b"[" * 5_000).decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        base64.urlsafe_b64encode(b'{"a": 1}').decode(),
        base64.urlsafe_b64encode(b"7").decode(),
        _token(),
        _token(NOW),
        _token(NOW, "tsk_1", "tsk_2"),
        _token(NOW, 7),
        _token(7, "tsk_1"),
        _token(None, "tsk_1"),
        _token("yesterday", "tsk_1"),
        _token("2026-01-01T12:00:00", "tsk_1"),
        "A" * (PAGE_TOKEN_MAX + 4),
    ],
    ids=range(15),
)
def test_a_token_that_is_none(token):
    """A page token that this list did not give is refused, whatever it is."""
    with pytest.raises(InvalidInput, match="page_token is not one that this list has given"):
        LISTED.page([thing(1)], asked(token))


def test_a_size_below_nothing():
    """A page of less than nothing is refused."""
    with pytest.raises(InvalidInput, match="page_size"):
        LISTED.page([thing(1)], asked(size=-1))


def test_keys_of_numbers():
    """Numbers in keys are numbers: no flag and no text passes for one."""
    listed = Pages((int, str), lambda each: (-each[0], each[1]), lambda each: tasks_pb2.Task(id=each[1]))
    things = [(2, "a"), (10, "b"), (2, "c")]
    first, token = listed.page(things, asked(size=1))
    rest, _ = listed.page(things, asked(token))
    assert ["b", "a", "c"] == [each.id for each in (*first, *rest)]
    for wrong in (_token(True, "a"), _token("2", "a"), _token(2.0, "a")):
        with pytest.raises(InvalidInput):
            listed.page(things, asked(wrong))


def test_as_many_as_fit():
    """Of texts an answer has the first, as many as there is room for; of a few it has all."""
    texts = [f"{number:04}" + "é" * 2_046 for number in range(2_000)]  # of 4,096 bytes
    assert texts[: PAGE_BYTES // 4_096] == fitting(texts)
    assert ["a", "\ud800"] == fitting(["a", "\ud800"])
    assert [] == fitting([])


def test_cut():
    """A text in a list has LISTED_TEXT characters at the most."""
    assert (LISTED_TEXT, "short") == (len(cut("é" * 4_000)), cut("short"))
    assert LISTED_TEXT == pages.LISTED_TEXT
