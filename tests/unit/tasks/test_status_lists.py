"""Token Status Lists: what they say of tasks, decoded here without any code of ours."""

import base64
import json
import zlib

import pytest
from fakes.clock import FakeClock
from fakes.task_room import EPOCH, ISSUER, Room
from fakes.task_types import TICKETS, task_type
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import NotFound
from sojourn.jose.jws import parse_unverified
from sojourn.limits import STATUS_LIST_ENTRIES
from sojourn.tasks import status_lists
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasktoken.grants import Authority, Grant

VALID, INVALID, SUSPENDED = 0, 1, 2
LEFT = Authority((Grant(TICKETS, ("ticket:read",)),))


def decoded(text):
    """The header and claims of a list, and the values of its entries, as the draft says that they are packed."""
    header, payload, _ = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in text.split("."))
    claims = json.loads(payload)
    packed = claims["status_list"]["lst"]
    content = zlib.decompress(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
    bits = claims["status_list"]["bits"]
    mask = (1 << bits) - 1
    values = [byte >> shift & mask for byte in content for shift in range(0, 8, bits)]
    return json.loads(header), claims, values


@pytest.fixture
async def room():
    async with Room(FakeClock(), {"triage": task_type()}).running() as running:
        yield running


def place(token):
    claim = token.claims["status"]["status_list"]
    assert {"idx", "uri"} == set(claim)
    return claim["uri"], claim["idx"]


def said(room, token):
    """What the list that a token names says of it by now."""
    uri, index = place(token)
    epoch, number = map(int, uri.removeprefix(f"{ISSUER}/status/").split("/"))
    room.clock.advance(1)  # within that what has changed is signed anew
    return decoded(room.engine.issuing.lists.token(epoch, number))[2][index]


class TestSays:
    async def test_good(self, room):
        """A token of a live task is good, and its list is what the draft says a list is."""
        task = await room.begin()
        token = await room.engine.token(task, TICKETS, ())
        assert VALID == said(room, token)
        header, claims, values = decoded(room.engine.issuing.lists.token(EPOCH, 0))
        assert {"typ": "statuslist+jwt", "alg": "ES256", "kid": "k1"} == header
        assert {"sub", "iat", "exp", "ttl", "status_list"} == set(claims)
        assert (place(token)[0], 2) == (claims["sub"], claims["status_list"]["bits"])
        assert claims["iat"] < claims["exp"] <= claims["iat"] + 15
        assert (5, STATUS_LIST_ENTRIES) == (claims["ttl"], len(values))

    async def test_signed_by_the_key_of_tokens(self, room):
        """A list is signed by a published key of tokens."""
        await room.engine.token(await room.begin(), TICKETS, ())
        parsed = parse_unverified(room.engine.issuing.lists.token(EPOCH, 0))
        parsed.check_signature(room.engine.keys.published[parsed.kid])

    async def test_ended(self, room):
        """A token of a task that has ended is invalid."""
        task = await room.begin()
        token = await room.engine.token(task, TICKETS, ())
        await room.engine.complete(task, failed=False)
        assert INVALID == said(room, token)

    async def test_superseded(self, room):
        """A token from before a change is invalid, and one from after it is good."""
        task = await room.begin()
        old = await room.engine.token(task, TICKETS, ())
        await TaskChanges(room.engine).narrow(task, LEFT, "holder")
        new = await room.engine.token(task, TICKETS, ())
        assert (INVALID, VALID) == (said(room, old), said(room, new))

    async def test_suspended_and_resumed(self, room):
        """While a task is suspended its tokens are suspended; resuming revives none, and the next one is good."""
        task, changing = await room.begin(), TaskChanges(room.engine)
        token = await room.engine.token(task, TICKETS, ())
        await changing.suspend(task, "operator", "look at it")
        assert SUSPENDED == said(room, token)
        await changing.resume(task, "operator")
        assert INVALID == said(room, token)
        assert VALID == said(room, await room.engine.token(task, TICKETS, ()))
        room.engine.end(task, "revoked", "over")
        assert INVALID == said(room, token)

    async def test_one_task_says_nothing_of_another(self, room):
        """The end of one task leaves the tokens of all others as they are."""
        tasks = [await room.begin() for _ in range(9)]
        tokens = [await room.engine.token(task, TICKETS, ()) for task in tasks]
        for task in tasks[::2]:
            room.engine.end(task, "revoked", "over")
        assert [INVALID, VALID] * 4 + [INVALID] == [said(room, token) for token in tokens]


class TestIndices:
    async def test_one_a_version(self, room):
        """All tokens of one version of a task share an index; of two tasks, or two versions, none is the same."""
        one, other = await room.begin(), await room.begin()
        first, again = [place(await room.engine.token(one, TICKETS, ())) for _ in range(2)]
        assert first == again
        second = place(await room.engine.token(other, TICKETS, ()))
        await TaskChanges(room.engine).narrow(one, LEFT, "holder")
        third = place(await room.engine.token(one, TICKETS, ()))
        assert 3 == len({first, second, third})

    async def test_lists_grow_and_no_index_is_used_again(self, room):
        """When a list is full there is another; an index is never given twice, whatever has ended since."""
        room.engine.issuing.lists.entries = 8
        seen = []
        for _ in range(50):
            task = await room.begin()
            seen.append(place(await room.engine.token(task, TICKETS, ())))
            room.engine.end(task, "revoked", "over")
        assert 50 == len(set(seen))
        assert {f"{ISSUER}/status/{EPOCH}/{number}" for number in range(7)} == {uri for uri, _ in seen}

    async def test_a_task_that_outlives_its_list(self, room):
        """A task whose list is full and over gets an index in the present one; memory holds no more than it must."""
        room.engine.issuing.lists.entries = 2
        lists = room.engine.issuing.lists
        long = await room.begin()
        old = await room.engine.token(long, TICKETS, ())
        for _ in range(10):
            await room.engine.token(await room.begin(), TICKETS, ())
            room.clock.advance(66)
        new = await room.engine.token(long, TICKETS, ())
        assert (INVALID, VALID) == (said(room, old), said(room, new))
        assert len(lists) <= 2
        assert place(new)[0] in lists.uris
        assert place(old)[0] not in lists.uris

    async def test_the_end_reaches_all_lists(self, room):
        """A task with tokens in two lists that are not over is ended in both."""
        room.engine.issuing.lists.entries = 2
        task = await room.begin()
        first = await room.engine.token(task, TICKETS, ())
        for _ in range(2):
            await room.engine.token(await room.begin(), TICKETS, ())
        second = await room.engine.token(task, TICKETS, ())
        assert place(first)[0] != place(second)[0]
        room.engine.end(task, "revoked", "over")
        assert (INVALID, INVALID) == (said(room, first), said(room, second))


class TestServed:
    @pytest.mark.parametrize("number", [0, 1, 9_999_999_999])
    @pytest.mark.parametrize("epoch", [1, EPOCH - 1])
    async def test_an_earlier_epoch(self, room, epoch, number):
        """Every list of an earlier run says of every index that it is invalid."""
        _, claims, values = decoded(room.engine.issuing.lists.token(epoch, number))
        assert {INVALID} == set(values)
        assert f"{ISSUER}/status/{epoch}/{number}" == claims["sub"]

    @pytest.mark.parametrize(("epoch", "number"), [(EPOCH, 1), (EPOCH + 1, 0), (0, 0), (EPOCH, -1), (-1, 0)])
    async def test_out_of_range(self, room, epoch, number):
        """There is no list that was not begun, and none of a run that has not been."""
        await room.engine.token(await room.begin(), TICKETS, ())
        with pytest.raises(NotFound, match="there is no such status list"):
            room.engine.issuing.lists.token(epoch, number)

    async def test_none_before_the_first_token(self, room):
        """Before there is a token there is no list."""
        with pytest.raises(NotFound):
            room.engine.issuing.lists.token(EPOCH, 0)

    async def test_kept_for_its_ttl(self, room):
        """An unchanged list is signed once in five seconds; one that has changed, at once, but not for every asker."""
        lists, task = room.engine.issuing.lists, await room.begin()
        await room.engine.token(task, TICKETS, ())
        first = lists.token(EPOCH, 0)
        room.clock.advance(4.9)
        assert first == lists.token(EPOCH, 0)
        room.clock.advance(0.1)
        second = lists.token(EPOCH, 0)
        assert first != second
        room.engine.end(task, "revoked", "over")
        assert second == lists.token(EPOCH, 0)
        room.clock.advance(0.2)
        assert INVALID in decoded(lists.token(EPOCH, 0))[2]

    @examples(100)
    @given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2)), max_size=60))
    def test_any_changes(self, changes):
        """Whatever is put where, in any order, each index reads as what was put there last, and all others as good."""
        made = status_lists._List()
        for index, status in changes:
            made.put(index, status)
        values = [byte >> shift & 3 for byte in made.bits for shift in (0, 2, 4, 6)]
        assert [dict(changes).get(index, VALID) for index in range(41)] == values[:41]
        assert {VALID} >= set(values[41:])
