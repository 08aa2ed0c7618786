"""database.py: what is answered is durable, writes share commits, and none takes another with it. Real SQLite."""

import asyncio
import os
import sqlite3
import threading
from contextlib import contextmanager

import pytest
from fakes.databases import BlockedWriter, opened
from harness.looking import WAIT_SECONDS
from sojourn.errors import AlreadyExists, Bug, CannotStart, LimitExceeded, SojournError, StoreFailed, StoreFull
from sojourn.errors.oauth import DatabaseDamaged
from sojourn.store import database as database_module
from sojourn.store import tables
from sqlalchemy import event, select, text
from sqlalchemy.exc import DatabaseError

DEADLINE_SECONDS = 20
OF_TESTS = text("name != 'readable_by'")


def put(name, value="1"):
    """Work that adds a setting."""
    return lambda connection: connection.execute(tables.settings.insert().values(name=name, value=value)).rowcount


def failing(error):
    def work(connection):
        connection.execute(tables.settings.insert().values(name="half", value="done"))
        raise error

    return work


def names_in(connection):
    """The settings that tests have written, beside that of the schema."""
    return sorted(connection.execute(select(tables.settings.c.name).where(OF_TESTS)).scalars())


async def names(database):
    return await database.read(names_in)


@contextmanager
def counted_commits(database):
    """How many commits there were meanwhile."""
    found = []

    def note(_connection):
        found.append(1)

    event.listen(database._engine, "commit", note)
    yield found
    event.remove(database._engine, "commit", note)


async def together(database, works):
    """Queue writes while the writer is busy, so that they share a commit; return their outcomes."""
    async with BlockedWriter(database):
        waiting = [asyncio.ensure_future(database.write(work)) for work in works]
        await asyncio.sleep(0)
    return await asyncio.gather(*waiting, return_exceptions=True)


class TestWrite:
    async def test_returns_what_the_work_returned(self, database):
        """A write gives the result of its work."""
        assert 1 == await database.write(put("a"))

    async def test_is_durable_when_answered(self, database, path):
        """What is answered can be read by another connection to the same file."""
        await database.write(put("a"))
        other = sqlite3.connect(path)
        assert [("a",)] == other.execute(f"SELECT name FROM settings WHERE {OF_TESTS}").fetchall()
        other.close()

    async def test_many_at_once(self, database):
        """Of many concurrent writes each is done, once."""
        found = await asyncio.gather(*(database.write(put(f"n{number:03}")) for number in range(600)))
        assert [1] * 600 == found
        assert [f"n{number:03}" for number in range(600)] == await names(database)

    async def test_in_order(self, database):
        """Writes are done in the order in which they came."""
        order = []
        await together(database, [lambda _, number=number: order.append(number) for number in range(300)])
        assert list(range(300)) == order

    async def test_share_a_commit(self, database):
        """Writes that wait together are committed together."""
        with counted_commits(database) as commits:
            await together(database, [put(f"n{number}") for number in range(100)])
        assert 2 == len(commits)  # the one that kept the writer busy, and one for all the others

    async def test_of_one_turn_share_a_commit(self, database):
        """Writes that are asked for in one turn of the loop are committed together, though the writer is idle."""
        with counted_commits(database) as commits:
            await asyncio.gather(*(database.write(put(f"n{number}")) for number in range(50)))
        assert 1 == len(commits)
        assert 50 == len(await names(database))

    async def test_asked_for_as_it_closes(self, path):
        """What was asked for in the turn of the loop in which the database closes is written."""
        with opened(path) as database:
            last = asyncio.ensure_future(database.write(put("last")))
            await asyncio.sleep(0)
        await last
        with opened(path) as database:
            assert ["last"] == await names(database)

    async def test_a_commit_has_a_limit(self, database, monkeypatch):
        """One commit takes a bounded number of writes."""
        monkeypatch.setattr(database_module, "WRITES_PER_COMMIT", 10)
        with counted_commits(database) as commits:
            await together(database, [put(f"n{number}") for number in range(100)])
        assert 11 == len(commits)

    async def test_a_full_queue(self, database, monkeypatch):
        """More writes than may wait are refused at once, and those that wait are done."""
        async with BlockedWriter(database):
            monkeypatch.setattr(database_module, "WRITES_WAITING", 1)
            waiting = asyncio.ensure_future(database.write(put("waits")))
            await asyncio.sleep(0)
            with pytest.raises(LimitExceeded):
                await database.write(put("too-many"))
        await waiting
        assert ["waits"] == await names(database)

    async def test_goes_on_when_nobody_waits(self, database):
        """A write whose caller gave up is done all the same, and the writer lives on."""
        async with BlockedWriter(database):
            waiting = asyncio.ensure_future(database.write(put("a")))
            await asyncio.sleep(0)
            waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await database.write(put("b"))
        assert ["a", "b"] == await names(database)

    async def test_outlives_a_closed_loop(self, database):
        """A write whose event loop has closed meanwhile harms nobody."""
        async with BlockedWriter(database):

            def elsewhere():
                loop = asyncio.new_event_loop()
                task = loop.create_task(database.write(put("left")))
                loop.run_until_complete(asyncio.sleep(0))
                task.cancel()
                loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
                loop.close()

            await asyncio.to_thread(elsewhere)
        await database.write(put("b"))
        assert ["b", "left"] == await names(database)


class TestFailures:
    @pytest.mark.parametrize(
        ("work", "error"),
        [
            pytest.param(failing(AlreadyExists("twin")), AlreadyExists, id="ours"),
            pytest.param(failing(OSError("disk")), StoreFailed, id="system"),
            pytest.param(failing(RuntimeError("oops")), Bug, id="unknown"),
            pytest.param(lambda connection: connection.execute(text("SELECT nothing")), StoreFailed, id="SQL"),
            pytest.param(put(None), StoreFailed, id="constraint"),
        ],
    )
    @pytest.mark.parametrize("company", [False, True], ids=["alone", "in company"])
    async def test_one_takes_no_other_with_it(self, database, work, error, company):
        """A write that fails gets an error of ours, changes nothing, and all others are done."""
        works = [put("a"), work, put("b")] if company else [work]
        if company:
            first, found, last = await together(database, works)
            assert (1, 1) == (first, last)
        else:
            (found,) = await asyncio.gather(database.write(work), return_exceptions=True)
        assert error is type(found)
        assert (["a", "b"] if company else []) == await names(database)

    @pytest.mark.parametrize("company", [False, True], ids=["alone", "in company"])
    async def test_rollback_hooks(self, database, company):
        """Whoever remembers what was written hears, in the writer thread, that it was not."""
        heard = []
        database.on_rollback(lambda: heard.append(threading.current_thread().name))
        works = [put("a"), failing(AlreadyExists("twin"))] if company else [failing(AlreadyExists("twin"))]
        await together(database, works)
        assert {"store-writer"} == set(heard)

    async def test_no_hooks_without_rollback(self, database):
        """What went well tells no rollback hook."""
        heard = []
        database.on_rollback(lambda: heard.append(1))
        await database.write(put("a"))
        assert [] == heard

    @pytest.mark.parametrize(
        ("works", "seen"),
        [
            pytest.param([put("a"), put("b")], [["a", "b"]], id="together"),
            pytest.param([put("a"), failing(AlreadyExists("twin")), put("b")], [["a"], ["a", "b"]], id="apart"),
        ],
    )
    async def test_finish_hooks(self, database, works, seen):
        """What writes leave to be finished is finished once for all that share a commit, or behind each savepoint."""
        heard = []
        database.on_finish(lambda connection: heard.append(names_in(connection)))
        await together(database, works)
        assert [[], *seen] == heard  # the first is of the write that they waited for

    async def test_a_finish_hook_fails(self, database):
        """What cannot be finished is not written."""
        database.on_finish(failing(AlreadyExists("twin")))
        with pytest.raises(AlreadyExists):
            await database.write(put("a"))
        assert [] == await names(database)

    async def test_damage(self, database, path):
        """What is damaged is told as that, with what to do, whether it is read or written: not as a write that failed."""
        await database.write(put("name"))
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE settings SET value = CAST(x'ff' AS TEXT) WHERE name = 'name'")
        connection.close()

        def read(connection):
            return connection.execute(select(tables.settings.c.value)).scalars().all()

        def malformed(_connection):
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT_INDEX
            raise DatabaseError("SELECT", None, error)

        for work in (database.read, database.write):
            for each in (read, malformed):
                with pytest.raises(DatabaseDamaged, match="is damaged: stop the agent and restore it from a backup"):
                    await work(each)
        with pytest.raises(CannotStart, match="the database's things cannot be read: it is damaged; restore"):
            database.read_now("things", read)

    async def test_errors_hide_the_database_s_words(self, database):
        """The public text of a failed write has none of the database's own words; the detail has."""
        (found,) = await asyncio.gather(
            database.write(lambda connection: connection.execute(text("SELECT secret_column"))), return_exceptions=True
        )
        assert "secret_column" not in found.public
        assert "secret_column" in found.detail


class TestFullDisk:
    LARGE = "x" * 100_000

    async def fill(self, database):
        """Let the database grow no further."""
        await database.write(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count=1"))

    async def test_alone(self, database):
        """A write for which there is no room is refused as such, and changes nothing."""
        await self.fill(database)
        with pytest.raises(StoreFull):
            await database.write(put("large", self.LARGE))
        assert [] == await names(database)

    async def test_in_company(self, database):
        """What is answered as done is there, and what is not there was answered with an error: also on a full disk."""
        await database.write(put("before"))
        await self.fill(database)
        found = await together(database, [put("a"), put("large", self.LARGE), put("b")])
        done = {name for name, each in zip(("a", "large", "b"), found, strict=True) if each == 1}
        assert {"before", *done} == set(await names(database))
        assert all(each == 1 or isinstance(each, SojournError) for each in found)
        assert isinstance(found[1], StoreFull)

    async def test_recovers(self, database):
        """Once there is room again, writes are done."""
        await self.fill(database)
        with pytest.raises(StoreFull):
            await database.write(put("large", self.LARGE))
        await database.write(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count=1000000"))
        assert 1 == await database.write(put("large", self.LARGE))


class TestClose:
    async def test_what_waits_is_written_first(self, path):
        """Closing waits for the writes that are queued."""
        with opened(path) as database:
            async with BlockedWriter(database):
                waiting = [asyncio.ensure_future(database.write(put(f"n{number}"))) for number in range(10)]
                await asyncio.sleep(0)
            await asyncio.to_thread(database.close)
            assert [1] * 10 == await asyncio.gather(*waiting)
        with opened(path) as database:
            assert 10 == len(await names(database))

    async def test_afterwards_writes_are_refused(self, path):
        """A closed database refuses writes, and keeps nobody waiting."""
        with opened(path) as database:
            database.close()
            async with asyncio.timeout(WAIT_SECONDS):
                with pytest.raises(SojournError):
                    await database.write(put("late"))

    async def test_twice(self, path):
        """A database may be closed twice."""
        with opened(path) as database:
            database.close()
            database.close()


class TestOpen:
    async def test_pragmas(self, database):
        """Every connection has the write-ahead log, full synchronisation and foreign keys."""

        def work(connection):
            return [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]

        assert ["wal", 2, 1] == await database.write(work)
        assert ["wal", 2, 1] == await database.read(work)

    def test_only_ours(self, database, path):
        """The database and its side files can be read by us alone."""
        assert {0o600} == {
            os.stat(each).st_mode & 0o777 for each in path.parent.iterdir() if each.name.startswith(path.name)
        }

    async def test_again(self, path):
        """What was written is there when the database is opened again."""
        with opened(path) as database:
            await database.write(put("a"))
        with opened(path) as database:
            assert ["a"] == await names(database)

    def test_not_a_database(self, path):
        """A file that is no database is refused with what to do, and left as it is."""
        path.write_bytes(b"this is no database" * 100)
        path.chmod(0o600)
        with pytest.raises(CannotStart, match="backup"), opened(path):
            pass
        assert path.read_bytes().startswith(b"this is no database")

    def test_writable_by_others(self, path):
        """A database that others can write is refused."""
        path.touch()
        path.chmod(0o622)
        with pytest.raises(CannotStart), opened(path):
            pass

    def test_a_link(self, path, tmp_path):
        """A symbolic link in the place of the database is refused, and nothing is made at its end."""
        path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(CannotStart), opened(path):
            pass
        assert not (tmp_path / "elsewhere").exists()

    def test_no_folder(self, tmp_path):
        """A database in a folder that is not there is refused."""
        with pytest.raises(CannotStart), opened(tmp_path / "none" / "sojourn.db"):
            pass


async def test_what_is_written_over_is_gone(tmp_path):
    """What a row had is in no page of the file any more once it has something else, whatever SQLite was built with."""
    with opened(tmp_path / "sojourn.db") as database:
        assert 1 == await database.read(lambda connection: connection.execute(text("PRAGMA secure_delete")).scalar())
        await database.write(put("whom", "carol-8a1c" * 100))
        changed = tables.settings.update().where(tables.settings.c.name == "whom").values(value="-")
        await database.write(lambda connection: connection.execute(changed).rowcount)
    assert b"carol-8a1c" not in (tmp_path / "sojourn.db").read_bytes()


async def test_moved_away_while_a_connection_is_made(tmp_path, monkeypatch):
    """A connection that is made while the file is moved away makes no empty one in its place."""
    path = tmp_path / "a?b#c%d e.db"  # whatever its name
    with opened(path) as database:
        await database.write(put("x"))
        look = database._files.check

        def move_after_looking():
            look()
            path.rename(tmp_path / "kept")

        monkeypatch.setattr(database._files, "check", move_after_looking)
        database._engine.dispose()  # so that another connection is made
        with pytest.raises(StoreFailed):
            await names(database)
        assert not path.exists()
        monkeypatch.undo()
        (tmp_path / "kept").rename(path)
        assert ["x"] == await names(database)
