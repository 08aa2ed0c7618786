"""Names of users and groups, which may have to be asked for far away: so never in the way of anything else.

What the machine is set up to ask (files, LDAP, …) may take any time. Few threads ask, each name is asked for once at a
time and kept for a while, and whoever wants a name waits no longer than a given time for it. Those who want many do not
keep others waiting, and nothing of theirs is forgotten for it: each has a line and a share of his own.
"""

import asyncio
import ctypes
import errno
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import Executor
from enum import Enum
from threading import Lock
from typing import Final

from sojourn.limits import NAMES_ASKED_AT_ONCE, NAMES_FRESH_SECONDS, NAMES_KEPT, NAMES_KEPT_PER_USER
from sojourn.quota.fair_queue import FairQueue
from sojourn.quota.lru import Recent, Room

from sojourn_attestors.kernel.bootclock import boot_seconds

_NOT_FOUND: Final = frozenset({0, errno.ENOENT, errno.ESRCH})
_BUFFER_BYTES: Final = 4096
_BUFFER_MAX_BYTES: Final = 4 * 1024 * 1024  # a group with 100,000 members


class Kind(Enum):
    USER = "user"
    GROUP = "group"


Key = tuple[Kind, int]
LookUp = Callable[[Kind, int], str | None]


class Names:
    """Belongs to one event loop."""

    def __init__(
        self,
        pool: Executor,
        look_up: "LookUp | None" = None,
        boot: Callable[[], float] = boot_seconds,
    ) -> None:
        """`look_up` gives a name, or None if there is none, and raises OSError if that cannot be told; it may block.
        `boot`: seconds on the boot clock.
        """
        self._pool = pool
        self._look_up = look_up or name_of
        self._boot = boot
        self._kept: Recent[Key, tuple[str | None, float]] = Recent(
            Room(NAMES_KEPT, NAMES_KEPT), Room(NAMES_KEPT_PER_USER, NAMES_KEPT_PER_USER)
        )
        self._asked: dict[Key, asyncio.Future[str | None]] = {}
        self._lock = Lock()
        # What is wanted, by whom; `_wanted`: of all that, what no thread asks for yet.
        self._queue = FairQueue[Hashable, Key]()
        self._wanted: set[Key] = set()
        self._asking = 0  # threads

    async def of(self, keys: Iterable[Key], seconds: float, who: Hashable = None) -> Mapping[Key, str | None]:
        """The names, None for what has none. What could not be told within `seconds` is missing. `who` wants them: one
        name is asked for each in turn.
        """
        found: dict[Key, str | None] = {}
        missing: dict[Key, asyncio.Future[str | None]] = {}
        now = self._boot()
        for key in keys:
            name, at = self._kept.get(key) or (None, -NAMES_FRESH_SECONDS)
            if at > now - NAMES_FRESH_SECONDS:
                found[key] = name
            else:
                missing[key] = self._ask(key, who)
        if missing:
            await asyncio.wait(missing.values(), timeout=seconds)
            for key, answer in missing.items():
                if answer.done() and not answer.cancelled() and answer.exception() is None:
                    found[key] = answer.result()
        return found

    def _ask(self, key: Key, who: Hashable) -> "asyncio.Future[str | None]":
        loop = asyncio.get_running_loop()
        with self._lock:
            if (asked := self._asked.get(key)) is None:
                asked = self._asked[key] = loop.create_future()
                asked.add_done_callback(_seen)
                self._wanted.add(key)
            if key in self._wanted:  # also if another wants it already, whose line may be long
                self._queue.put(who, key)
            if self._queue and self._asking < NAMES_ASKED_AT_ONCE:
                self._asking += 1
                self._pool.submit(self._work, loop)
        return asked

    def _next(self) -> tuple[Hashable, Key] | None:
        """Whose turn it is, and the first name of theirs; None if none is wanted. Within the lock."""
        for who in self._queue.owners():
            while (key := self._queue.take_of(who)) is not None:
                if key in self._wanted:
                    self._wanted.remove(key)
                    return who, key
        return None

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: one name after the other, until none is wanted."""
        while True:
            with self._lock:
                if (following := self._next()) is None:
                    self._asking -= 1
                    return
            who, key = following
            error: Exception | None = None
            name: str | None = None
            try:
                name = self._look_up(*key)
            except (OSError, ValueError, MemoryError) as caught:
                error = caught
            try:
                loop.call_soon_threadsafe(self._told, who, key, name, error)
            except RuntimeError:  # the loop is closed: the agent ends
                with self._lock:
                    self._asking -= 1
                return

    def _told(self, who: Hashable, key: Key, name: str | None, error: Exception | None) -> None:
        asked = self._asked.pop(key)
        if error is not None:
            asked.set_exception(error)
            return
        asked.set_result(name)
        self._kept.put(key, (name, self._boot()), who, 1)


def _seen(answer: "asyncio.Future[str | None]") -> None:
    """Nobody may be waiting any more for what failed."""
    if not answer.cancelled():
        answer.exception()


def name_of(kind: Kind, number: int) -> str | None:
    """The name of an id, if that name means this id and no other. Raise OSError if that cannot be told.

    Python's own `pwd` and `grp` make no difference between "there is none" and "the directory server is down".
    """
    by_number, by_name = _CALLS[kind]
    found = _get(by_number, ctypes.c_uint32(number))
    if found is None:
        return None
    back = _get(by_name, ctypes.c_char_p(found[0]))
    if back is None or back[1] != number:
        return None
    try:
        name = found[0].decode()
    except UnicodeDecodeError:
        return None
    return name if name.isprintable() and name else None


class _Record(ctypes.Structure):
    """The common beginning of struct passwd and struct group, and room for the rest."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("password", ctypes.c_char_p),
        ("id", ctypes.c_uint32),
        ("rest", ctypes.c_byte * 64),
    )


def _get(ask: "ctypes._NamedFuncPointer", what: object) -> tuple[bytes, int] | None:
    """Name and id, or None if there is no such record."""
    size = _BUFFER_BYTES
    while True:
        record, buffer, result = _Record(), ctypes.create_string_buffer(size), ctypes.c_void_p()
        number = ask(what, ctypes.byref(record), buffer, ctypes.c_size_t(size), ctypes.byref(result))
        if number == errno.ERANGE and size < _BUFFER_MAX_BYTES:
            size *= 4
            continue
        if number not in _NOT_FOUND:
            raise OSError(number, errno.errorcode.get(number, "the name service failed"))
        return (record.name, int(record.id)) if result.value and record.name else None


_libc: Final = ctypes.CDLL(None)
_CALLS: Final = {
    Kind.USER: (_libc.getpwuid_r, _libc.getpwnam_r),
    Kind.GROUP: (_libc.getgrgid_r, _libc.getgrnam_r),
}
