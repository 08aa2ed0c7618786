"""write_health.py and write_probe.py: whether the database takes writes is known, also when nobody writes."""

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from sojourn.errors import AlreadyExists, StoreFailed, StoreFull
from sojourn.limits import STORE_IDLE_SECONDS, STORE_STUCK_SECONDS
from sojourn.store import settings
from sojourn.store.database import Database
from sojourn.store.write_health import WriteHealth
from sojourn.store.write_probe import NAME, WriteProbe


class _Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TestWriteHealth:
    def test_a_refused_write_is_a_fault_until_one_is_taken(self) -> None:
        """What the store has refused last is told until a write has reached the disk."""
        health = WriteHealth()
        health.begin()
        health.done([None, StoreFull("the data folder has no room left")])
        assert "the data folder has no room left" == health.fault
        health.begin()
        health.done([None])
        assert "" == health.fault

    def test_what_a_write_raises_of_its_own_says_nothing(self) -> None:
        """A write that was refused for what it wanted neither makes a fault nor mends one."""
        health = WriteHealth()
        health.done([AlreadyExists("twin")])
        assert "" == health.fault
        health.done([StoreFailed("the data folder is read-only")])
        health.done([AlreadyExists("twin")])
        assert "the data folder is read-only" == health.fault

    def test_a_write_that_does_not_come_back(self) -> None:
        """A commit that the disk keeps for longer than STORE_STUCK_SECONDS counts as refused, until it comes back."""
        time = _Time()
        health = WriteHealth(time)
        health.begin()
        time.now = STORE_STUCK_SECONDS
        assert "" == health.fault
        time.now += 1
        assert f"a write has not come back from the disk for {time.now:.0f} seconds" == health.fault
        health.done([None])
        assert "" == health.fault


class TestDatabase:
    async def test_a_file_that_is_gone_and_back(self, database: Database, path: Path) -> None:
        """A database whose file was moved away is known to refuse, and known to be well once a write was taken."""
        path.rename(path.with_name("away"))
        with pytest.raises(StoreFailed):
            await database.write(lambda connection: settings.put(connection, "one", "1"))
        assert "is gone" in database.health.fault
        path.with_name("away").rename(path)
        await WriteProbe(database).look()
        assert "" == database.health.fault

    async def test_a_disk_that_keeps_a_write(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        """While the writer thread waits for the disk, whoever asks is told, without waiting too."""
        monkeypatch.setattr("sojourn.store.write_health.STORE_STUCK_SECONDS", 0.0)
        busy, go_on = threading.Event(), threading.Event()

        def work(_connection: Any) -> None:
            busy.set()
            go_on.wait(20)

        writing = asyncio.ensure_future(database.write(work))
        await asyncio.to_thread(busy.wait, 20)
        assert "has not come back" in database.health.fault
        go_on.set()
        await writing
        assert "" == database.health.fault


class TestProbe:
    async def test_it_writes_where_nobody_has(self, database: Database, path: Path) -> None:
        """Where nothing was written for STORE_IDLE_SECONDS a setting is, so that a disk that refuses is noticed."""
        database.health.looked_at -= STORE_IDLE_SECONDS
        await WriteProbe(database).look()
        assert [(NAME,)] == sqlite3.connect(path).execute(
            "SELECT name FROM settings WHERE name != 'readable_by'"
        ).fetchall()
        path.rename(path.with_name("away"))
        database.health.looked_at -= STORE_IDLE_SECONDS
        await WriteProbe(database).look()
        assert "is gone" in database.health.fault

    async def test_it_writes_nothing_where_somebody_has(self, database: Database, path: Path) -> None:
        """A database that took a write a moment ago is left alone."""
        await database.write(lambda connection: settings.put(connection, "one", "1"))
        await WriteProbe(database).look()
        assert [("one",)] == sqlite3.connect(path).execute(
            "SELECT name FROM settings WHERE name != 'readable_by'"
        ).fetchall()
