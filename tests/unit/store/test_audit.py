"""store/audit.py: the journal is one unbroken chain, whatever happens. The fake keeps the same contract."""

import asyncio
import json
import sqlite3

import pytest
from fakes.databases import BlockedWriter, opened
from fakes.journals import FakeAuditStore
from sojourn.audit.journal import FIRST, Event, digest_of
from sojourn.errors import AlreadyExists, StoreFailed
from sojourn.store import audit as audit_module
from sojourn.store.audit import AuditTable

HEAD = """UPDATE settings SET value =
    (SELECT seq || ' ' || digest FROM audit ORDER BY seq DESC LIMIT 1) WHERE name = 'audit_head'"""


def event(number):
    return Event(1_000 + number, f"event_{number}", f'{{"n":{number}}}')


async def names(journal):
    return [record.event for record in await journal.tail(1000)]


class TestContract:
    @pytest.mark.parametrize("kind", ["real", "fake"])
    async def test_keeps_order(self, journal, kind):
        """Events are kept in the order in which they were appended."""
        store = journal if kind == "real" else FakeAuditStore()
        await store.append([event(1), event(2)])
        await store.append([event(3)])
        found = await names(store) if kind == "real" else store.names
        assert ["event_1", "event_2", "event_3"] == found


class TestChain:
    async def test_an_empty_one(self, journal):
        """A journal without records is intact."""
        assert ((0, 0, ""), []) == (await journal.verify(), await journal.tail(10))

    async def test_each_record_is_bound_to_the_one_before(self, journal):
        """A record's digest is over the one before it, its number and what it says."""
        await journal.append([event(1), event(2)])
        first, second = await journal.tail(10)
        assert (1, digest_of(FIRST, 1, event(1))) == (first.seq, first.digest)
        assert (2, digest_of(first.digest, 2, event(2))) == (second.seq, second.digest)
        assert (2, 0, "") == await journal.verify()

    async def test_many_at_once(self, journal):
        """Concurrent appends make one chain without gaps."""
        await asyncio.gather(*(journal.append([event(number)]) for number in range(300)))
        assert (300, 0, "") == await journal.verify()

    async def test_over_a_restart(self, path):
        """A journal goes on where it stopped."""
        for number in range(3):
            with opened(path) as database:
                await AuditTable(database).append([event(number)])
        with opened(path) as database:
            assert (3, 0, "") == await AuditTable(database).verify()

    @pytest.mark.parametrize("company", [False, True], ids=["alone", "in company"])
    async def test_after_a_rollback(self, database, journal, company):
        """A write that is rolled back takes its record with it and leaves no gap."""
        await journal.append([event(1)])

        def failing(connection):
            journal.append_in(connection, [event(99)])
            raise AlreadyExists("no")

        async with BlockedWriter(database):
            waiting = [asyncio.ensure_future(journal.append([event(2)]))] if company else []
            waiting.append(asyncio.ensure_future(database.write(failing)))
            waiting += [asyncio.ensure_future(journal.append([event(3)]))] if company else []
            await asyncio.sleep(0)
        await asyncio.gather(*waiting, return_exceptions=True)
        await journal.append([event(4)])
        expected = ["event_1", *(["event_2", "event_3"] if company else []), "event_4"]
        assert (expected, (len(expected), 0, "")) == (await names(journal), await journal.verify())

    @pytest.mark.parametrize(
        ("statement", "seq", "says"),
        [
            ("UPDATE audit SET fields = '{}' WHERE seq = 3", 3, "not what was written"),
            ("UPDATE audit SET event = 'other' WHERE seq = 3", 3, "not what was written"),
            ("UPDATE audit SET at_ms = 0 WHERE seq = 3", 3, "not what was written"),
            ("UPDATE audit SET digest = 'x' WHERE seq = 3", 3, "not what was written"),
            ("DELETE FROM audit WHERE seq = 3", 3, "missing"),
            ("DELETE FROM audit WHERE seq = 1", 1, "missing"),
            ("UPDATE audit SET seq = 50 WHERE seq = 3", 3, "missing"),
            (
                "UPDATE audit SET event = (SELECT event FROM audit WHERE seq = 4) WHERE seq = 3",
                3,
                "not what was written",
            ),
        ],
    )
    async def test_tampering_shows(self, path, journal, statement, seq, says):
        """A change, a gap or another order anywhere is found, with its place."""
        await journal.append([event(number) for number in range(5)])
        other = sqlite3.connect(path)
        other.execute(statement)
        other.commit()
        other.close()
        _, found, why = await journal.verify()
        assert seq == found
        assert says in why

    @pytest.mark.parametrize(
        ("statements", "seq", "says"),
        [
            (["DELETE FROM audit WHERE seq > 3", HEAD], 4, "this agent has written 5"),
            (["DELETE FROM audit", "DELETE FROM settings WHERE name LIKE 'audit%'"], 1, "this agent has written 5"),
            (
                ["UPDATE audit SET at_ms = 0 WHERE seq = 5", "REMAKE", HEAD],
                5,
                "not the one that this agent has written",
            ),
        ],
        ids=["cut", "wiped", "made anew"],
    )
    async def test_S6_what_fits_in_itself(self, path, journal, statements, seq, says):
        """A journal that was cut, wiped or made anew under the agent so that it fits in itself is not what the agent has
        written, and another run, which knows only what lies there, finds no fault with it.
        """
        await journal.append([event(number) for number in range(5)])
        other = sqlite3.connect(path)
        for statement in statements:
            if statement == "REMAKE":
                before, at, name, fields = other.execute(
                    "SELECT b.digest, a.at_ms, a.event, a.fields FROM audit a JOIN audit b ON b.seq = 4 WHERE a.seq = 5"
                ).fetchone()
                made = digest_of(before, 5, Event(at, name, fields))
                other.execute("UPDATE audit SET digest = ? WHERE seq = 5", (made,))
            else:
                other.execute(statement)
        other.commit()
        other.close()
        _, found, why = await journal.verify()
        assert seq == found
        assert says in why
        with opened(path) as database:
            assert 0 == (await AuditTable(database).verify())[1]


class TestPruning:
    @pytest.fixture
    def journal(self, database):
        return AuditTable(database, kept_least=10)

    @pytest.fixture
    async def pruned(self, journal):
        """Thirty records, of which the first ten went, and the one that says so."""
        await journal.append([event(number) for number in range(1, 31)])
        assert 10 == await journal.prune(10, 5)
        return journal

    async def test_the_rest(self, pruned):
        """What is left verifies, and says which was the last record that went, with its digest."""
        assert (21, 0, "") == await pruned.verify()
        assert 11 == await pruned.first()
        records = await pruned.tail(100)
        assert list(range(11, 32)) == [record.seq for record in records]
        gone = FIRST
        for number in range(1, 11):
            gone = digest_of(gone, number, event(number))
        said = {"digest": gone, "records": 10, "until_seq": 10}
        assert (audit_module.PRUNED, 5, said) == (records[-1].event, records[-1].at_ms, json.loads(records[-1].fields))

    async def test_again_and_over_a_restart(self, path):
        """A journal that is pruned again and again, and over restarts, stays one chain."""
        for number in range(5):
            with opened(path) as database:
                journal = AuditTable(database, kept_least=10)
                await journal.append([event(number)] * 20)
                await journal.prune(7, 5)
                assert "" == (await journal.verify())[2]
        with opened(path) as database:
            assert (100 + 5 - 5 * 7, 0, "") == await AuditTable(database).verify()

    async def test_the_last_ones_stay(self, journal):
        """However many are to go, the last AUDIT_KEPT_LEAST stay, with the record of what went."""
        await journal.append([event(number) for number in range(15)])
        assert [5, 1, 1] == [await journal.prune(1000, 5) for _ in range(3)]
        assert 10 + 1 == (await journal.verify())[0]

    async def test_nothing_to_prune(self, journal):
        """A journal with no more than AUDIT_KEPT_LEAST records loses none."""
        await journal.append([event(number) for number in range(10)])
        assert 0 == await journal.prune(1000, 5)
        assert (10, 0, "") == await journal.verify()

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE audit SET fields = '{}' WHERE seq = 4",
            "DELETE FROM audit WHERE seq = 4",
            "DELETE FROM audit WHERE seq = 10",
            "INSERT INTO audit VALUES (0, 1, 'x', '{}', 'x')",
        ],
    )
    async def test_a_broken_part_stays(self, path, journal, statement):
        """What was changed, or is missing, is not pruned away unseen: nothing goes, and it is still found."""
        await journal.append([event(number) for number in range(1, 31)])
        behind_its_back(path, statement)
        with pytest.raises(StoreFailed, match="broken"):
            await journal.prune(10, 5)
        count, found, why = await journal.verify()
        assert count >= 29
        assert found
        assert why

    @pytest.mark.parametrize(
        "statement",
        [
            "DELETE FROM audit WHERE seq = 11",
            "UPDATE audit SET fields = '{}' WHERE seq = 11",
            "INSERT INTO audit VALUES (10, 1, 'x', '{}', 'x')",
            "DELETE FROM settings WHERE name = 'audit_start'",
            "UPDATE settings SET value = replace(value, '10 ', '9 ') WHERE name = 'audit_start'",
        ],
    )
    async def test_a_change_afterwards(self, path, pruned, statement):
        """Records that are taken away behind its back do not look as if they were pruned."""
        behind_its_back(path, statement)
        _, found, why = await pruned.verify()
        assert found
        assert why

    async def test_taken_away_as_if_pruned(self, path, pruned):
        """To move the beginning does not do either: the last record of a pruning says where it is."""
        digest = (await pruned.tail(100))[1].digest
        behind_its_back(
            path,
            f"UPDATE settings SET value = '12 {digest}' WHERE name = 'audit_start'",
            "DELETE FROM audit WHERE seq <= 12",
        )
        assert (19, 1, "it does not begin where it was pruned last") == await pruned.verify()


def behind_its_back(path, *statements):
    """Change the database as another program would."""
    other = sqlite3.connect(path)
    for statement in statements:
        assert other.execute(statement).rowcount > 0
    other.commit()
    other.close()


class TestTail:
    async def test_the_last_ones_oldest_first(self, journal):
        """The last records come, oldest first."""
        await journal.append([event(number) for number in range(5)])
        assert ["event_3", "event_4"] == [record.event for record in await journal.tail(2)]

    async def test_limited(self, journal, monkeypatch):
        """However many are asked for, there is a maximum."""
        monkeypatch.setattr(audit_module, "AUDIT_LISTED", 2)
        await journal.append([event(number) for number in range(5)])
        assert 2 == len(await journal.tail(1000))
