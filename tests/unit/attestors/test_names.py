"""names.py: names of ids, from however slow a place, in nobody's way."""

import asyncio
import errno
import grp
import os
import pwd
import threading

import pytest
from sojourn.limits import NAMES_ASKED_AT_ONCE, NAMES_FRESH_SECONDS
from sojourn_attestors.asking import names as module
from sojourn_attestors.asking.names import Kind, Names, name_of

PATIENCE = 20.0


class Directory:
    """A source of names that answers when it is told to."""

    def __init__(self, answers=None, *, slow=()):
        self.answers = answers or {}
        self.asked = []
        self.go_on = threading.Event()
        self.slow = set(slow)
        self.at_once = self.most = 0
        self.lock = threading.Lock()

    def __call__(self, kind, number):
        with self.lock:
            self.asked.append(number)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        try:
            if number in self.slow:
                self.go_on.wait(PATIENCE)
            answer = self.answers.get(number)
            if isinstance(answer, Exception):
                raise answer
            return answer
        finally:
            with self.lock:
                self.at_once -= 1


def user(number):
    return (Kind.USER, number)


class TestNames:
    async def test_found_and_missing(self, pool):
        """An id has its name, or None."""
        names = Names(pool, Directory({1: "one"}))
        assert {user(1): "one", user(2): None} == await names.of([user(1), user(2)], PATIENCE)

    async def test_kept(self, pool):
        """A name is asked for once, and again after a while: also one that there was not."""
        now = [0.0]
        directory = Directory({1: "one"})
        names = Names(pool, directory, lambda: now[0])
        for _ in range(3):
            await names.of([user(1), user(2)], PATIENCE)
        assert [1, 2] == sorted(directory.asked)
        now[0] += NAMES_FRESH_SECONDS + 1
        directory.answers = {1: "uno"}
        assert {user(1): "uno", user(2): None} == await names.of([user(1), user(2)], PATIENCE)

    async def test_asked_for_by_many(self, pool):
        """Whoever asks for a name that is being asked for waits for that answer."""
        directory = Directory({1: "one"}, slow={1})
        names = Names(pool, directory)
        asking = [asyncio.ensure_future(names.of([user(1)], PATIENCE)) for _ in range(20)]
        await asyncio.sleep(0)
        directory.go_on.set()
        assert [{user(1): "one"}] * 20 == await asyncio.gather(*asking)
        assert [1] == directory.asked

    async def test_of_one_who_wants_many(self, pool):
        """Each in turn has one name asked for: whoever wants a few waits for few others, also for a name that stands at
        the end of a longer line. Nothing is asked for twice.
        """
        directory = Directory(slow=range(NAMES_ASKED_AT_ONCE))
        names = Names(pool, directory)
        many = asyncio.ensure_future(names.of([user(number) for number in range(500)], PATIENCE, "many"))
        async with asyncio.timeout(PATIENCE):
            while len(directory.asked) < NAMES_ASKED_AT_ONCE:
                await asyncio.sleep(0.01)
        few = asyncio.ensure_future(names.of([user(499), user(1_000)], PATIENCE, "few"))
        await asyncio.sleep(0)
        directory.go_on.set()
        assert [500, 2] == [len(found) for found in await asyncio.gather(many, few)]
        assert max(directory.asked.index(499), directory.asked.index(1_000)) < 10
        assert 501 == len(directory.asked) == len(set(directory.asked))

    async def test_slow(self, pool):
        """A name that takes too long is missing, those that are kept already are not; it is there once it has come."""
        directory = Directory({1: "one", 2: "two"}, slow={1})
        names = Names(pool, directory)
        await names.of([user(2)], PATIENCE)
        assert {user(2): "two"} == await names.of([user(1), user(2)], 0.05)
        directory.go_on.set()
        assert {user(1): "one"} == await names.of([user(1)], PATIENCE)

    async def test_few_threads(self, pool):
        """However many names hang, they take few threads, so that all other work of the pool goes on."""
        directory = Directory(slow=range(100))
        names = Names(pool, directory)
        assert {} == await names.of([user(number) for number in range(100)], 0.1)
        assert NAMES_ASKED_AT_ONCE == directory.at_once
        async with asyncio.timeout(PATIENCE):
            assert 7 == await asyncio.wrap_future(pool.submit(lambda: 7))
        directory.go_on.set()
        assert 100 == len(await names.of([user(number) for number in range(100)], PATIENCE))
        assert NAMES_ASKED_AT_ONCE == directory.most

    async def test_that_cannot_be_told(self, pool):
        """Where the source fails the name is missing, not said not to be; it is asked for again next time."""
        directory = Directory({1: OSError(errno.ECONNREFUSED, "down")})
        names = Names(pool, directory)
        assert {} == await names.of([user(1)], PATIENCE)
        directory.answers = {1: "one"}
        assert {user(1): "one"} == await names.of([user(1)], PATIENCE)

    async def test_users_and_groups(self, pool):
        """The same number is one thing as a user and another as a group."""
        names = Names(pool, lambda kind, number: f"{kind.value}-{number}")
        keys = [(Kind.USER, 1), (Kind.GROUP, 1)]
        assert ["user-1", "group-1"] == [(await names.of(keys, PATIENCE))[key] for key in keys]

    async def test_a_bounded_number_is_kept(self, pool, monkeypatch):
        """Of all names a bounded number is kept."""
        monkeypatch.setattr(module, "NAMES_KEPT", 3)
        monkeypatch.setattr(module, "NAMES_KEPT_PER_USER", 3)
        names = Names(pool, Directory())
        await names.of([user(number) for number in range(10)], PATIENCE)
        assert 3 == len(names._kept)

    async def test_of_one_user_who_wants_ever_others(self, pool, monkeypatch):
        """Names that one user's processes want without end leave those of others where they are."""
        monkeypatch.setattr(module, "NAMES_KEPT", 8)
        monkeypatch.setattr(module, "NAMES_KEPT_PER_USER", 4)
        directory = Directory({1: "one"})
        names = Names(pool, directory)
        await names.of([user(1)], PATIENCE, "another")
        await names.of([user(number) for number in range(2, 30)], PATIENCE, "many")
        assert {user(1): "one"} == await names.of([user(1)], PATIENCE, "another")
        assert 1 == directory.asked.count(1)
        assert 5 == len(names._kept)

    async def test_nobody_waits_any_more(self, pool):
        """A caller that has gone leaves nothing behind, and the answer is kept for the next one."""
        directory = Directory({1: "one"}, slow={1})
        names = Names(pool, directory)
        asking = asyncio.ensure_future(names.of([user(1)], PATIENCE))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        directory.go_on.set()
        assert {user(1): "one"} == await names.of([user(1)], PATIENCE)
        assert ({}, 1) == (names._asked, len(directory.asked))


class _Libc:
    """What the C library's calls answer, for what this machine's sources would not say."""

    def __init__(self, error=0, name=None, number=0):
        self._error, self._name, self._number = error, name, number

    def __call__(self, _what, record, buffer, size, result):
        if self._error == errno.ERANGE and size.value > module._BUFFER_BYTES:
            self._error = 0
        if self._error or self._name is None:
            return self._error
        record._obj.name, record._obj.id = self._name, self._number
        result._obj.value = 1
        return 0


def answered(monkeypatch, by_number, by_name=None):
    monkeypatch.setattr(module, "_CALLS", {Kind.USER: (by_number, by_name or by_number)})
    return name_of(Kind.USER, 7)


class TestNameOf:
    def test_of_this_machine(self):
        """Users and groups of this machine are found as everybody finds them."""
        for number in (0, 1, os.getuid()):
            assert pwd.getpwuid(number).pw_name == name_of(Kind.USER, number)
            assert grp.getgrgid(number).gr_name == name_of(Kind.GROUP, number)

    def test_of_nobody(self):
        """An id without name has none."""
        assert (None, None) == (name_of(Kind.USER, 3_999_999), name_of(Kind.GROUP, 3_999_999))

    def test_that_leads_to_another_id(self, monkeypatch):
        """A directory that calls another user `root` does not make it root: the name must lead back to the id."""
        assert None is answered(monkeypatch, _Libc(name=b"root", number=7), _Libc(name=b"root", number=0))
        assert None is answered(monkeypatch, _Libc(name=b"lost", number=7), _Libc())
        assert "seven" == answered(monkeypatch, _Libc(name=b"seven", number=7))

    @pytest.mark.parametrize("error", [errno.EIO, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EMFILE])
    def test_that_cannot_be_told(self, monkeypatch, error):
        """A source that fails is not one that says "there is none"."""
        with pytest.raises(OSError, match=errno.errorcode[error]):
            answered(monkeypatch, _Libc(error))

    @pytest.mark.parametrize("error", [0, errno.ENOENT, errno.ESRCH])
    def test_that_there_is_not(self, monkeypatch, error):
        """The ways in which C libraries say that there is no such name are known for that."""
        assert None is answered(monkeypatch, _Libc(error))

    def test_a_long_record(self, monkeypatch):
        """A group with many members is read with more room; one that never ends is a failure."""
        assert "seven" == answered(monkeypatch, _Libc(errno.ERANGE, b"seven", 7))
        monkeypatch.setattr(module, "_BUFFER_MAX_BYTES", module._BUFFER_BYTES)
        with pytest.raises(OSError, match="ERANGE"):
            answered(monkeypatch, _Libc(errno.ERANGE, b"seven", 7))

    @pytest.mark.parametrize("name", [b"\xff", b"a\nb", b"\x1b[2J", b""])
    def test_that_is_no_text(self, monkeypatch, name):
        """What is no printable text is no name."""
        assert None is answered(monkeypatch, _Libc(name=name, number=7))
