"""store/usage.py: sums are written with their records, and are what the records say, whatever happens meanwhile."""

import asyncio
import itertools
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fakes.clock import FakeClock
from fakes.databases import BlockedWriter, opened
from fakes.usage_records import DAY, RECORDS, START_MS, TICKETS, TRIAGE, ended, event, named, use
from hypothesis import given, settings
from hypothesis import strategies as st
from sojourn.audit.journal import Audit
from sojourn.errors import StoreFailed
from sojourn.oversight.room import DayRoom
from sojourn.oversight.sums import DAY_MS, ActionKey, Sums, TypeKey, Window
from sojourn.store.audit import AuditTable
from sojourn.store.usage import UsageTable
from structlog.testing import capture_logs

ALL = Window(0, 10**6)
READ = ActionKey(0, "triage", "0123456789abcdef", TRIAGE, TICKETS, "ticket:read")


@pytest.fixture
def usage(database, journal):
    return UsageTable(database, journal)


async def both(usage, window=ALL):
    """What the sums say, and what the journal does."""
    await usage.flush()
    read, recounted = await usage.read(window), await usage.recount(window, 0)
    recounted.unread, recounted.entries = 0, {}
    return read, recounted


async def granted(usage, window=ALL):
    await usage.flush()
    return {key.action: each.granted for key, each in (await usage.read(window)).actions.items()}


class TestEqual:
    @pytest.mark.full
    @settings(max_examples=40, deadline=None)
    @given(RECORDS, st.lists(st.integers(0, 30), max_size=3), st.integers(DAY, DAY + 3), st.integers(DAY, DAY + 3))
    def test_to_the_journal(self, records, cuts, since, until):
        """However records come into the journal, and over starts of the agent, sums and journal say the same."""

        async def check(folder: Path) -> None:
            places = [0, *sorted(cuts), len(records)]
            for begin, end in itertools.pairwise(places):
                with opened(folder / "sojourn.db") as database:
                    journal = AuditTable(database)
                    usage = UsageTable(database, journal)
                    parts = [records[place : place + 3] for place in range(begin, end, 3)]
                    await asyncio.gather(*(journal.append(part) for part in parts))
            with opened(folder / "sojourn.db") as database:
                usage = UsageTable(database, AuditTable(database))
                for window in (ALL, Window(since, until), Window(since, until, {"triage": since + 1})):
                    read, recounted = await both(usage, window)
                    assert recounted == read

        with TemporaryDirectory() as name:
            asyncio.run(check(Path(name)))

    async def test_of_what_was_just_made(self, usage, journal):
        """A record that is at hand counts as the same record does that is read again."""
        audit = Audit(journal, FakeClock())
        facts = {"freeze": {"value": True, "source": "operator", "age_seconds": 0.123}}
        said = {**named(), "policies": ("a", "b"), "facts": facts, "denied": [(TICKETS, "ticket:read")], "code": None}
        audit.note("token_denied", **said)
        audit.note("task_ended", seconds=1.234, binding="stream", use=[use(tokens=1)], spent=[1, 0], **named())
        audit.note("task_begun", params={"ticket": "T-1"}, policies=["a"], **named())
        await audit.flush()
        read, recounted = await both(usage)
        assert recounted == read
        assert 1 == read.actions[READ].denied

    async def test_over_many_pages(self, usage, journal, monkeypatch):
        """A journal that is longer than what is read at once is counted to its end."""
        monkeypatch.setattr("sojourn.store.usage.USAGE_RECORDS_AT_ONCE", 4)
        await journal.append([ended(use(tokens=1), at_ms=START_MS + each) for each in range(23)])
        read, recounted = await both(usage)
        assert recounted == read
        assert 23 == read.actions[READ].granted


class TestOne:
    async def test_one_write(self, usage, journal, database):
        """Where records cannot be written nothing is counted, and nothing twice once they are."""

        def fail(connection):
            journal.append_in(connection, [ended(use())])
            raise StoreFailed("test")

        async with BlockedWriter(database):
            good = asyncio.ensure_future(journal.append([ended(use())]))
            bad = asyncio.ensure_future(database.write(fail))
        await good
        with pytest.raises(StoreFailed):
            await bad
        await journal.append([ended(use())])
        assert {"ticket:read": 2} == await granted(usage)
        read, recounted = await both(usage)
        assert recounted == read

    async def test_one_commit_one_row(self, usage, journal, path):
        """A thousand ends of one kind are one row of a day."""
        await journal.append([ended(use(tokens=1), at_ms=START_MS + each) for each in range(1_000)])
        await usage.flush()
        with sqlite3.connect(path) as connection:
            assert [(1_000,)] == connection.execute("SELECT granted FROM usage_actions").fetchall()
            assert 1 == connection.execute("SELECT count(*) FROM usage_types").fetchone()[0]

    async def test_sums_that_cannot_be_written(self, usage, journal, path):
        """Where sums cannot be written, records are all the same, and the sums are right again afterwards."""
        await usage.begin(START_MS)
        await journal.append([ended(use())])
        with sqlite3.connect(path) as connection:
            connection.execute("ALTER TABLE usage_actions RENAME TO elsewhere")
        with pytest.raises(StoreFailed):
            await usage.flush()
        assert usage.behind
        await journal.append([ended(use())])  # a record is worth more than its sum
        with sqlite3.connect(path) as connection:
            connection.execute("ALTER TABLE elsewhere RENAME TO usage_actions")
        await journal.append([ended(use())])
        read, recounted = await both(usage)
        assert recounted == read
        assert 3 == read.actions[READ].granted
        assert not usage.behind

    async def test_a_damaged_record(self, usage, journal):
        """A record that cannot be counted is written all the same, and said in the log."""
        with capture_logs() as logs:
            await journal.append([event("task_ended", seconds=1, binding="stream", use=[{}], **named())])
            await usage.flush()
        assert 1 == len(await journal.tail(10))
        (said,) = [each for each in logs if each["event"] == "usage_not_counted"]
        assert 1 == said["records"]
        assert 1 == (await usage.recount(ALL, 0)).unread


class TestTimes:
    async def test_first_and_last(self, usage, journal):
        """The first and the last use of days together are the first and the last; a day without use changes neither."""
        times = [START_MS + DAY_MS, START_MS, START_MS + 3 * DAY_MS]
        await journal.append([ended(use(calls=1), at_ms=each) for each in times])
        await journal.append([ended(use(), at_ms=START_MS), ended(use(), at_ms=START_MS + 4 * DAY_MS)])
        await journal.append([ended(use(calls=1), at_ms=START_MS - 5), ended(use(calls=1), at_ms=START_MS + 5)])
        await usage.flush()
        found = (await usage.read(ALL)).actions[READ]
        assert (START_MS - 5, times[2]) == (found.first_ms, found.last_ms)

    async def test_counted_since(self, usage, journal):
        """From when on all is counted is known, and stays as it is."""
        await usage.begin(START_MS + 7)
        await usage.begin(START_MS + 9)
        assert START_MS + 7 == await usage.since_ms()

    async def test_a_journal_of_before(self, journal, database):
        """Records of a release that did not count are left alone, however many they are; from then on all count."""
        await journal.append([ended(use()) for _ in range(3)])
        usage = UsageTable(database, other := AuditTable(database))
        await usage.begin(START_MS)
        assert {} == await granted(usage)
        await other.append([ended(use())])
        assert {"ticket:read": 1} == await granted(usage)

    async def test_what_a_run_before_left(self, usage, journal, database, path):
        """What was counted and not written when a run was killed is counted by the next, once."""
        await usage.begin(START_MS)
        await journal.append([ended(use())])
        assert usage.behind
        with sqlite3.connect(path) as connection:
            assert [] == connection.execute("SELECT * FROM usage_actions").fetchall()
        usage._forget()  # as a kill does
        again = AuditTable(database)
        second = UsageTable(database, again)
        await second.begin(START_MS)
        assert not second.behind
        await again.append([ended(use())])
        assert {"ticket:read": 2} == await granted(second)

    async def test_more_than_is_read_at_once(self, usage, journal, database, monkeypatch):
        """However many records a run before has left, they are counted some at a time, to the last."""
        monkeypatch.setattr("sojourn.store.usage.USAGE_RECORDS_AT_ONCE", 4)
        await usage.begin(START_MS)
        await journal.append([ended(use(tokens=1), at_ms=START_MS + each) for each in range(21)])
        usage._forget()
        assert usage.behind
        read, recounted = await both(usage)
        assert recounted == read
        assert (21, False) == (read.actions[READ].granted, usage.behind)


class TestPruning:
    async def test_before_records_go(self, database):
        """Records that are pruned from the journal were counted before."""
        journal = AuditTable(database, kept_least=0)
        usage = UsageTable(database, journal)
        await usage.begin(START_MS)
        await journal.append([ended(use()) for _ in range(5)])
        assert 4 == await journal.prune(4, START_MS)
        usage._forget()
        assert {"ticket:read": 5} == await granted(usage)

    async def test_days_that_are_over(self, usage, journal, path, monkeypatch):
        """Days before one are gone, with the names that no later day has; the rest is as it was, and can be added to."""
        monkeypatch.setattr("sojourn.store.usage.USAGE_ROWS_AT_ONCE", 2)
        await usage.begin(START_MS)
        for day in range(4):
            rows = [use(f"a:{each}") for each in range(5)] if day < 2 else [use()]
            await journal.append([ended(*rows, at_ms=START_MS + day * DAY_MS)])
        await usage.flush()
        assert 12 == await usage.prune(DAY + 2)
        assert {"ticket:read": 2} == await granted(usage)
        assert START_MS + 2 * DAY_MS == await usage.since_ms()
        with sqlite3.connect(path) as connection:
            names = {name for (name,) in connection.execute("SELECT action FROM usage_keys")}
        assert {"", "ticket:read"} == names
        await journal.append([ended(use("a:1"), at_ms=START_MS + 3 * DAY_MS)])
        assert {"ticket:read": 2, "a:1": 1} == await granted(usage)
        assert 0 == await usage.prune(DAY + 2)

    async def test_entries(self, usage, journal):
        """When an entry's last SVID was issued is known for as long, and how many there were."""
        await usage.begin(START_MS)
        events = [("x509_svid_issued", 0), ("jwt_svid_issued", 5), ("x509_svid_issued", 3)]
        await journal.append([event(name, START_MS + at * DAY_MS, entry_id=f"e{at % 2}") for name, at in events])
        await usage.flush()
        found = await usage.entries()
        assert {"e0": (1, START_MS), "e1": (2, START_MS + 5 * DAY_MS)} == {
            name: (each.number, each.last_ms) for name, each in found.items()
        }
        await usage.prune(DAY + 1)
        assert {"e1"} == (await usage.entries()).keys()


class TestRoom:
    async def test_more_names_than_a_day_has_room_for(self, journal, database, monkeypatch):
        """Names beyond the room of a day are others, in the sums and when counted again, over a start too."""

        def room(*_args, known=lambda _day: (), **_more):
            return DayRoom(4, known)

        monkeypatch.setattr("sojourn.store.usage.DayRoom", room)
        usage = UsageTable(database, journal)
        await journal.append([ended(use(f"a:{each}")) for each in range(3)])
        await usage.flush()
        again = UsageTable(database, other := AuditTable(database))
        await other.append([ended(use(f"a:{each}")) for each in range(6)])
        read, recounted = await both(again)
        assert recounted == read
        assert {"a:0": 2, "a:1": 2, "a:2": 2, "": 3} == {key.action: each.granted for key, each in read.actions.items()}
        others = TypeKey(0, "", "", "")
        assert others not in read.types
        assert Sums() != read

    async def test_more_names_than_are_at_hand(self, usage, journal, monkeypatch):
        """Sums of more names than the writer has at hand are right all the same."""
        monkeypatch.setattr("sojourn.store.usage.USAGE_KEYS_AT_HAND", 2)
        for _ in range(3):
            await journal.append([ended(use(), type=f"t{each}") for each in range(5)])
        read, recounted = await both(usage)
        assert recounted == read
        assert [3] * 5 == [each.tasks for each in read.types.values()]
