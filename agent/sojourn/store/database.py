"""The database: one writer thread that commits what waits in one go, and reads beside it.

What `write` has answered is on disk (SQLite: WAL with synchronous=FULL). Writes that wait together share a commit;
one that fails takes none of the others with it. Those of one turn of the event loop are handed over at its end: a
commit for each of them would cost more than all else, and have the loop wait for the interpreter meanwhile.
"""

import asyncio
import os
import queue
import sqlite3
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import URL, Connection, create_engine, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from sojourn.errors import Bug, CannotStart, LimitExceeded, SojournError, StoreFailed, StoreFull
from sojourn.errors.oauth import DatabaseDamaged
from sojourn.limits import WRITES_PER_COMMIT, WRITES_WAITING
from sojourn.runtime.hooks import Hooks
from sojourn.store.database_files import DatabaseFiles
from sojourn.store.prepared_statements import Prepared
from sojourn.store.room import is_no_room
from sojourn.store.schema_upgrade import bring_up
from sojourn.store.write_health import WriteHealth

T = TypeVar("T")
BUSY_MS = 5_000
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BEGIN, _BEGIN_WRITING = Prepared(text("BEGIN")), Prepared(text("BEGIN IMMEDIATE"))


@dataclass(slots=True)
class _Write:
    work: Callable[[Connection], Any]
    answer: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    result: Any = None
    error: SojournError | None = None


class Database:
    """Writes in order, each durable when answered. `close` waits for those that are queued."""

    def __init__(self, engine: Engine, files: DatabaseFiles) -> None:
        """`files`: those that `engine` has open."""
        self._engine = engine
        self._files = files
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._asked: deque[_Write] = deque()  # in this turn of the loop
        self._handing_over: asyncio.AbstractEventLoop | None = None  # at the end of whose turn that is handed over
        # How many writes were asked for, and taken by the writer thread; each is counted by one thread alone.
        self._put = self._taken = 0
        self._closed = False
        self.health = WriteHealth()
        self._writing: Connection | None = None  # the writer thread's own, kept until something fails
        # Called in the writer thread: when a commit failed, so that what was remembered of it is forgotten; and when
        # writes are done and not yet committed, for what they left to it.
        self.on_rollback: Hooks[[]] = Hooks()
        self.on_finish: Hooks[[Connection]] = Hooks()
        self.on_commit: Hooks[[float]] = Hooks()  # in the writer thread too: so many seconds it took, well or not
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in the writer thread and return its result once it is durable.

        Raises StoreFull if there is no room, StoreFailed if the database refused, LimitExceeded if too many writes
        wait, and what `work` raised of ours; nothing was changed then. `work` may be run again after a rollback.
        """
        if self._closed:
            raise StoreFailed("the agent is shutting down")
        loop = asyncio.get_running_loop()
        write = _Write(work, loop.create_future(), loop)
        if self._put - self._taken >= WRITES_WAITING:
            raise LimitExceeded("too many writes wait for the database")
        self._put += 1
        self._asked.append(write)
        if self._handing_over is not loop:
            self._handing_over = loop
            loop.call_soon(self._hand_over)
        result: T = await write.answer
        return result

    def _hand_over(self) -> None:
        """Give the writer thread what was asked for in the turn of the loop that is over."""
        self._handing_over = None
        with suppress(IndexError):
            while True:
                self._queue.put(self._asked.popleft())

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on a connection of its own, in a thread."""
        return await asyncio.to_thread(self._read, work)

    def read_now(self, what: str, work: Callable[[Connection], T]) -> T:
        """Run `work` in the calling thread: for the start, before anything is served. Raise CannotStart: `what` is not
        as an agent has written it.
        """
        try:
            return self._read(work)
        except Exception as error:
            reason = error.public if isinstance(error, SojournError) else type(error).__name__
            reason = "it is damaged" if isinstance(error, DatabaseDamaged) else reason
            raise CannotStart(
                f"the database's {what} cannot be read: {reason}; restore it from a backup or give another --data-dir",
                detail=str(error),
            ) from error

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._engine.connect() as connection:
                return work(connection)
        except (SQLAlchemyError, UnicodeError) as error:
            raise _ours(error, "the database cannot be read") from error

    def close(self) -> None:
        self._closed = True
        self._hand_over()
        self._queue.put(None)
        self._thread.join()
        self._let_go()
        self._engine.dispose()
        self._files.close()

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            batch, last = [first], False
            while len(batch) < WRITES_PER_COMMIT:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    last = True
                    break
                batch.append(following)
            self._taken += len(batch)
            began = monotonic()
            self.health.begin()
            self._commit(batch)
            self.health.done(write.error for write in batch)
            self.on_commit.tell(monotonic() - began)
            _answer(batch)
            if last:
                return

    def _commit(self, batch: list[_Write]) -> None:
        try:
            self._files.check()
            if not self._together(batch):
                self._apart(batch)
        except Exception as error:  # noqa: BLE001  # whatever it is, those who wait get an answer
            for write in batch:
                write.error = write.error or _told(error)
            self.on_rollback.tell()
            self._let_go()
            if isinstance(error, DBAPIError) and "readonly" in str(error.orig):
                self._engine.dispose()  # what was opened on a read-only disk stays so when that can be written again

    def _together(self, batch: list[_Write]) -> bool:
        """Commit writes as if they were one. False: one of several has failed, and nothing was written."""
        if self._writing is None:
            self._writing = self._engine.connect()
        connection = self._writing
        with connection.begin() as transaction:
            try:
                for write in batch:
                    write.result = write.work(connection)
                self.on_finish.tell(connection)
            except Exception:
                transaction.rollback()
                if len(batch) == 1:
                    raise
                self.on_rollback.tell()
                return False
        return True

    def _apart(self, batch: list[_Write]) -> None:
        """Commit those of the writes that do not fail. It takes longer: a savepoint for each."""
        assert self._writing is not None
        with self._writing.begin():
            for write in batch:
                self._behind_savepoint(self._writing, write)

    def _behind_savepoint(self, connection: Connection, write: _Write) -> None:
        savepoint = connection.begin_nested()
        try:
            write.result = write.work(connection)
            self.on_finish.tell(connection)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this write's alone
            write.error = _told(error)
            self.on_rollback.tell()
            try:
                savepoint.rollback()
            except SQLAlchemyError:
                # The database has rolled the whole transaction back, as SQLite does when there is no room: then none
                # of the batch was written.
                raise write.error from error
            return
        savepoint.commit()

    def _let_go(self) -> None:
        connection, self._writing = self._writing, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.close()


def _answer(batch: Iterable[_Write]) -> None:
    """Tell those who wait: a loop is woken once for all of its own."""
    of_loop: dict[asyncio.AbstractEventLoop, list[_Write]] = {}
    for write in batch:
        of_loop.setdefault(write.loop, []).append(write)
    for loop, writes in of_loop.items():
        with suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, writes)


def _settle(writes: Iterable[_Write]) -> None:
    for write in writes:
        if write.answer.done():
            continue
        if write.error is not None:
            write.answer.set_exception(write.error)
        else:
            write.answer.set_result(write.result)


def _told(error: Exception) -> SojournError:
    return error if isinstance(error, SojournError) else _ours(error)


def _ours(error: Exception, refused: str = "the database did not take the write") -> SojournError:
    detail = f"{type(error).__name__}: {error}"
    if _is_damage(error):
        return DatabaseDamaged("the database is damaged: stop the agent and restore it from a backup", detail=detail)
    if isinstance(error, DBAPIError):
        said = str(error.orig)
        detail = f"{said} ({getattr(error.orig, 'sqlite_errorname', type(error).__name__)})"
        if is_no_room(error):
            return StoreFull("the data folder has no room left", detail=detail)
        if "readonly" in said:
            return StoreFailed("the data folder is read-only", detail=detail)
        if "disk I/O" in said:  # SQLite says no more of a disk that has turned read-only under it
            refused += ": the disk of the data folder has turned read-only, or fails"
        return StoreFailed(refused, detail=detail)
    if isinstance(error, OSError):
        return StoreFailed(refused, detail=detail)
    return Bug("the database work failed", detail=detail)


def _is_damage(error: Exception) -> bool:
    """Whether SQLite says that what it reads is not what was written, or Python that a text in it is none."""
    orig = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(orig, "sqlite_errorcode", 0) & 0xFF
    return code in _DAMAGED or isinstance(orig, UnicodeError) or "Could not decode" in str(orig)


def open_sqlite(path: Path, *, had_content: bool = False) -> Database:
    """Open, or make, the SQLite database at `path` and bring its schema up to date. Raise CannotStart.

    `had_content`: the agent has run on it before, so that an empty file is a damaged one.
    """
    _check_file(path, had_content=had_content)
    engine = create_engine(
        # The file is there. Where it is moved away while a connection is made, SQLite would make an empty one.
        URL.create("sqlite", database=f"file:{quote(str(path))}", query={"mode": "rw", "uri": "true"}),
        connect_args={"timeout": BUSY_MS / 1000, "check_same_thread": False},
        hide_parameters=True,  # errors go to the log
    )

    files: DatabaseFiles | None = None

    @event.listens_for(engine, "do_connect")
    def look(*_: Any) -> None:
        """A connection that is made later makes no files anew where those of this run are gone."""
        if files is not None:
            files.check()

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, see below
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_MS}"):
            connection.execute(f"PRAGMA {pragma}")
        # What is written over is gone, as who a task was for. Not all builds of SQLite do that by themselves.
        connection.execute("PRAGMA secure_delete=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        (_BEGIN_WRITING if threading.current_thread().name == "store-writer" else _BEGIN).run(connection, {})

    try:
        bring_up(engine, path)
        files = DatabaseFiles(path)
    except Exception as error:
        engine.dispose()
        if isinstance(error, SojournError):
            raise
        raise _unusable(path, error) from error
    return Database(engine, files)


def _check_file(path: Path, *, had_content: bool) -> None:
    """Make the file 0600 before SQLite would make it with the umask's mode; refuse what is not ours, untouched."""
    existed = os.path.lexists(path)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(f"the database {str(path)!r} cannot be opened: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
        raise CannotStart(f"the database {str(path)!r} is not a file of this agent's own that only it can write")
    if existed and status.st_size == 0 and had_content:
        raise CannotStart(f"the database {str(path)!r} is empty, and was not: restore it from a backup, or remove it")
    if status.st_size:
        _check_ours(path)


def _check_ours(path: Path) -> None:
    """Look at a database that is there without changing a byte of it."""
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY_MS / 1000)
        try:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeError) as error:  # its own error may have text of the file that is none
        raise _unusable(path, error) from error
    if names and "alembic_version" not in names:
        raise CannotStart(f"the database {str(path)!r} is not Sojourn's: it has other tables; it was left alone")


def _unusable(path: Path, error: Exception) -> CannotStart:
    reason, room = _sentence(error), os.statvfs(path.parent)
    # What ran out may be there again, now that it was rolled back.
    if is_no_room(error) or room.f_bavail == 0 or room.f_favail == 0 < room.f_files:
        return CannotStart(f"the data folder {str(path.parent)!r} has no room left: make some", detail=reason)
    return CannotStart(
        f"the database {str(path)!r} cannot be used: {reason}; restore it from a backup or give another --data-dir",
        detail=reason,
    )


def _sentence(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "it is damaged"
    if isinstance(error, sqlite3.Error):
        return str(error)
    if isinstance(error, OSError):
        return str(error.strerror)
    return str(error.orig) if isinstance(error, DBAPIError) else f"{type(error).__name__}"
