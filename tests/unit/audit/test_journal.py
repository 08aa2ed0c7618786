"""audit/journal.py: the journal's writer side: nothing is lost quietly, nobody floods it, no secret is in it."""

import asyncio
import json

import pytest
from fakes.clock import FakeClock
from fakes.journals import FakeAuditStore
from hypothesis import given
from hypothesis import strategies as st
from sojourn.audit.journal import DENIALS_PER_SECOND, LOST_NAMED, Audit, Event, digest_of
from sojourn.errors import StoreFailed

DEADLINE_SECONDS = 20


@pytest.fixture
def store():
    return FakeAuditStore()


@pytest.fixture
def audit(store, clock):
    return Audit(store, clock)


class TestEvent:
    def test_canonical(self, audit, clock):
        """Fields are sorted JSON in ASCII without spaces, at wall time in milliseconds; None is left out."""
        event = audit.event("x", {"b": "é\n", "a": 1, "c": None})
        assert Event(int(clock.now().timestamp() * 1000), "x", '{"a":1,"b":"\\u00e9\\n"}') == event

    @given(st.dictionaries(st.text(), st.text() | st.integers() | st.booleans()))
    def test_one_line(self, fields):
        """Whatever the fields hold, an event is one line of printable ASCII that says the same."""
        event = Audit(FakeAuditStore(), FakeClock()).event("x", fields)
        assert event.fields.isascii()
        assert event.fields.isprintable()
        assert fields == json.loads(event.fields)

    @given(*[st.tuples(st.text(max_size=4), st.integers(0, 9), st.text(max_size=4), st.text(max_size=4))] * 2)
    def test_digest_is_of_all(self, one, other):
        """Records that differ in anything have different digests, if names and fields have no newline, as ours have."""
        digests = [
            digest_of("0", at, Event(at, name.replace("\n", ""), (first + last).replace("\n", "")))
            for first, at, name, last in (one, other)
        ]
        same = [
            (at, name.replace("\n", ""), (first + last).replace("\n", "")) for first, at, name, last in (one, other)
        ]
        assert (same[0] == same[1]) is (digests[0] == digests[1])


class TestNote:
    async def test_written_by_flush(self, audit, store):
        """What is noted is written in order by the next flush, once."""
        audit.note("a")
        audit.note("b")
        assert [] == store.names
        await audit.flush()
        await audit.flush()
        assert ["a", "b"] == store.names

    async def test_nothing_is_lost_when_the_store_fails(self, audit, store):
        """What the store did not take is written later, before what came after."""
        audit.note("a")
        audit.note("b")
        store.failure = StoreFailed("no")
        with pytest.raises(StoreFailed):
            await audit.flush()
        audit.note("c")
        store.failure = None
        await audit.flush()
        assert ["a", "b", "c"] == store.names

    async def test_a_bounded_number_waits(self, store, clock, capsys):
        """If too many wait the oldest are dropped, the log says so, and the journal has how many, once."""
        audit = Audit(store, clock, waiting_max=2)
        for name in "abcd":
            audit.note(name)
        await audit.flush()
        assert (["records_lost", "c", "d"], [{"count": 2}]) == (store.names, store.fields("records_lost"))
        audit.note("e")
        await audit.flush()
        assert ["c", "d", "e"] == store.names[1:]
        assert "audit_record_lost" in capsys.readouterr().out

    async def test_lost_while_it_cannot_be_written(self, store, clock):
        """Of what is lost while the disk takes nothing the number is written with the first that it takes."""
        audit = Audit(store, clock, waiting_max=2)
        store.failure = StoreFailed("no")
        for name in "abcd":
            audit.note(name)
            with pytest.raises(StoreFailed):
                await audit.flush()
        store.failure = None
        await audit.flush()
        assert (["records_lost", "c", "d"], [{"count": 2}]) == (store.names, store.fields("records_lost"))

    async def test_whose_are_lost(self, store, clock):
        """Of whoever has most waiting the oldest are dropped, and it is said whose: a flood takes no other's."""
        audit = Audit(store, clock, waiting_max=10)
        audit.user_of = lambda uid: 14001 if uid >= 165536 else uid
        audit.note("agent_ready")
        audit.note("task_ended", by_uid=0, uid=4002)
        for number in range(4):
            audit.note("of_other", uid=4002, number=number)
        for number in range(100):
            audit.note("of_flood", uid=165536 + number, number=number)
        await audit.flush()
        assert [{"count": 96, "uid": 14001}] == store.fields("records_lost")
        assert [96, 97, 98, 99] == [each["number"] for each in store.fields("of_flood")]
        assert ["agent_ready", "task_ended", *["of_other"] * 4, *["of_flood"] * 4] == store.names[1:]

    async def test_whose_of_many(self, store, clock):
        """It is said one by one of those with most, and of the others how many it is in all."""
        audit = Audit(store, clock, waiting_max=1)
        for number in range(30):
            for _ in range(1 + number):
                audit.note("a", address=f"192.0.2.{number}")
        await audit.flush()
        told = store.fields("records_lost")
        assert LOST_NAMED + 1 == len(told)
        assert (29, {"address", "count"}, {"count"}) == (told[0]["count"], {*told[0]}, {*told[-1]})
        assert sum(range(1, 31)) - 1 == sum(each["count"] for each in told)

    async def test_no_more_wait_after_each_failure(self, store, clock):
        """A write that fails puts its records back among those that have come since, and the room is the same."""
        audit = Audit(store, clock, waiting_max=3)
        appended = asyncio.Event()

        async def append(events):
            appended.set()
            await asyncio.sleep(0)
            raise StoreFailed("no")

        store.append = append
        for rounds in range(1, 5):
            audit.note("of_other", uid=1)
            for _ in range(3):
                audit.note("of_flood", uid=2)
            flushing = asyncio.create_task(audit.flush())
            await appended.wait()
            appended.clear()
            for _ in range(3):
                audit.note("meanwhile", uid=2)
            with pytest.raises(StoreFailed):
                await flushing
            assert (3, 7 * rounds - 3) == (audit.waiting, audit.lost)

    async def test_many_lost_ones_do_not_fill_the_log(self, store, clock, capsys):
        """However many records are lost, the log has a line a second, with their number."""
        audit = Audit(store, clock, waiting_max=2)
        for _ in range(1_000):
            audit.note("a")
        assert 1 == capsys.readouterr().out.count("audit_record_lost")

    async def test_counts_what_is_lost(self, store, clock):
        """Whoever records something once can tell that its record may have gone."""
        audit = Audit(store, clock, waiting_max=2)
        for name in "abc":
            audit.note(name)
        assert 1 == audit.lost

    async def test_flush_waits_for_what_is_being_written(self, audit, store):
        """What another has begun to write is written too when this returns: a revocation then looks for it."""
        begun, goes_on = asyncio.Event(), asyncio.Event()
        append = store.append

        async def slowly(events):
            begun.set()
            await goes_on.wait()
            await append(events)

        store.append = slowly
        audit.note("a")
        async with asyncio.TaskGroup() as group:
            group.create_task(audit.flush())
            await begun.wait()
            second = group.create_task(audit.flush())
            await asyncio.sleep(0)
            assert not second.done()
            goes_on.set()
        assert ["a"] == store.names

    async def test_run_writes_by_itself(self, audit, store):
        """The background writer writes what is noted."""
        running = asyncio.ensure_future(audit.run())
        audit.note("a")
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not store.names:
                await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert ["a"] == store.names


class TestDenied:
    async def names(self, audit, store):
        await audit.flush()
        return store.names

    async def test_each_up_to_a_number(self, audit, store):
        """Refusals are recorded up to a number for each user and second."""
        for _ in range(DENIALS_PER_SECOND + 5):
            audit.denied("no", 1000, pid=7)
        assert ["no"] * DENIALS_PER_SECOND == await self.names(audit, store)
        assert {"uid": 1000, "pid": 7} == store.fields("no")[0]

    async def test_one_user_hides_no_other(self, audit, store):
        """One user's refusals take no room from another's."""
        for _ in range(DENIALS_PER_SECOND + 5):
            audit.denied("no", 1000)
        audit.denied("no", 1001)
        await audit.flush()
        assert 1 == [fields["uid"] for fields in store.fields("no")].count(1001)

    async def test_the_rest_is_counted(self, audit, store, clock):
        """How many were left out is recorded in the next second."""
        for _ in range(DENIALS_PER_SECOND + 5):
            audit.denied("no", 1000)
        clock.advance(1)
        audit.denied("no", 1001)
        await audit.flush()
        assert [{"uid": 1000, "count": 5}] == store.fields("denials_suppressed")

    async def test_waits_no_second_for_nothing(self, audit, store, monkeypatch):
        """Whoever writes the journal wakes each second only while there may be a number of refusals to tell."""
        waits, timeout = asyncio.Queue(), asyncio.timeout
        monkeypatch.setattr(asyncio, "timeout", lambda seconds: waits.put_nowait(seconds) or timeout(seconds))
        writing = asyncio.ensure_future(audit.run())
        try:
            async with timeout(DEADLINE_SECONDS):
                quiet = await waits.get()
                audit.denied("no", 1000)
                assert (None, 1.0) == (quiet, await waits.get())
        finally:
            writing.cancel()
            await asyncio.wait([writing])

    async def test_on_the_boot_clock(self, audit, store, clock):
        """A step of the wall clock opens no new second."""
        for _ in range(DENIALS_PER_SECOND + 5):
            audit.denied("no", 1000)
            clock.step_wall(10)
        assert DENIALS_PER_SECOND == len(await self.names(audit, store))
