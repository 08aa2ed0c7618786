"""A process, pinned by the kernel, and what /proc says of it.

A pidfd refers to one process and never to another that got the same pid. So: read /proc/PID, then ask the pidfd
whether the process still lives; if it does, what was read was its own.
"""

import asyncio
import fcntl
import os
import select
import struct
from collections.abc import Callable
from dataclasses import dataclass

from sojourn.errors import AttestationFailed
from sojourn.files import identity
from sojourn.limits import ANCESTORS_WALKED, GROUPS_PER_CALLER, STATUS_READ_BYTES

_PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, 64 bytes): struct pidfd_info, first version
_PIDFD_INFO_EXIT = 1 << 3
_BLOCK_BYTES = 8_192  # more than most files of /proc have
_KEPT_OPEN = ("status", "cgroup")
_SIGNALED = 0x0400  # PF_SIGNALED, of the kernel's flags in /proc/PID/stat
_NO_LOGIN = 2**32 - 1
_PIDFD_INFO = struct.Struct("=QQ11Ii")  # mask, cgroup id, pid tgid ppid and eight ids, exit code


@dataclass(frozen=True, slots=True)
class Program:
    """The file that a process runs, by device and inode."""

    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class ProcessCredentials:
    """Ids of a process, effective ones."""

    uid: int
    gid: int
    groups: frozenset[int]


class TooManyGroups(AttestationFailed):
    """The process is in more groups than a caller may be. The kernel takes up to 30 ms to list them."""


class Process:
    """One living process. Owns a pidfd; `close` it."""

    __slots__ = ("_cgroup", "_credentials", "_loop", "_open", "_pidfd", "_poll", "pid", "start_time")

    def __init__(self, pid: int, pidfd: int, start_time: int | None = None) -> None:
        """Take ownership of `pidfd`. Raise AttestationFailed if the process has gone already.

        `start_time`: what another handle on the process found.
        """
        self.pid = pid
        self._pidfd = pidfd
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poll: select.poll | None = None
        self._open: dict[str, int] = {}  # files of /proc/PID
        # What was read last, and what it says: what has not changed by a byte is not read again.
        self._credentials: tuple[bytes, bytes, ProcessCredentials] | None = None
        self._cgroup: tuple[bytes, str] | None = None
        try:
            self.start_time = stat_of(pid).start_time if start_time is None else start_time
            self.check_alive()
        except BaseException:
            os.close(pidfd)
            raise

    @classmethod
    def open(cls, pid: int) -> "Process":
        """Pin a process by its pid, as an operator names it. Raise AttestationFailed if there is none."""
        if pid <= 0:
            raise AttestationFailed(f"there is no process {pid}")
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise AttestationFailed(f"there is no process {pid}", detail=str(error)) from error
        return cls(pid, pidfd)

    def again(self) -> "Process":
        """A second handle on the same process, with a life of its own. Raise AttestationFailed if it has gone, or this
        one is closed.
        """
        self.check_alive()
        return Process(self.pid, os.dup(self._pidfd), self.start_time)

    @property
    def pidfd(self) -> int:
        """The kernel's handle on the process, for whoever may use it while this is open; -1 once it is closed."""
        return self._pidfd

    @property
    def exited(self) -> bool:
        """Whether the process has ended. Never answers for another process of the same pid."""
        if self._pidfd < 0:
            return True
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._pidfd, select.POLLIN)
        return bool(self._poll.poll(0))

    def check_alive(self) -> None:
        if self.exited:
            raise AttestationFailed("the process has gone")

    @property
    def doomed(self) -> bool:
        """Whether a signal has ended it, though it may not be gone yet: while its core is written, or for as long as
        whoever traces it keeps it in its last stop. Raise AttestationFailed if there is nothing to read.
        """
        return bool(stat_of(self.pid).flags & _SIGNALED)

    def on_exit(self, action: Callable[[], None]) -> None:
        """Call `action` once in the running loop as soon as the process has ended."""
        loop = self._loop = asyncio.get_running_loop()

        def gone() -> None:
            loop.remove_reader(self._pidfd)
            self._loop = None
            action()

        loop.add_reader(self._pidfd, gone)

    def exit_status(self) -> int | None:
        """The wait status of an ended process (0: it returned 0), or None if the kernel does not tell (yet).

        Linux tells from 6.15 on, once the parent has collected the process.
        """
        info = self._info(_PIDFD_INFO_EXIT)
        return None if info is None or not info[0] & _PIDFD_INFO_EXIT else int(info[-1])

    def _parent(self) -> int | None:
        """The parent's pid, or None if the kernel does not tell (any more)."""
        info = self._info()
        return None if info is None else int(info[4])

    def _info(self, mask: int = 0) -> tuple[int, ...] | None:
        """What the kernel says of the process by its pidfd, and of `mask`; None: nothing."""
        buffer = bytearray(_PIDFD_INFO.pack(mask, *([0] * 13)))
        try:
            fcntl.ioctl(self._pidfd, _PIDFD_GET_INFO, buffer)
        except OSError:
            return None
        return _PIDFD_INFO.unpack(buffer)

    def program(self) -> Program | None:
        """The file that the process runs now, or None if this agent may not see it. Never waits for a file system."""
        try:
            device, inode = identity.identity(f"/proc/{self.pid}/exe")  # a link of the kernel's
        except PermissionError:
            return None
        except OSError as error:
            raise AttestationFailed("the process has gone or runs no program", detail=str(error)) from error
        return Program(device, inode)

    def program_path(self) -> str:
        """The program's path as /proc tells it, for showing, or ''. A claim of the process's own mount namespace; what
        is not UTF-8 in it is escaped.
        """
        try:
            return os.readlink(f"/proc/{self.pid}/exe".encode()).decode(errors="backslashreplace")
        except OSError:
            return ""

    def cgroup(self) -> str:
        """The cgroups that the process is in, one line for each hierarchy, as /proc tells them: only to compare."""
        try:
            content = self._content("cgroup")
        except FileNotFoundError as error:
            if not os.path.exists("/proc/self/cgroup"):  # this kernel has no cgroups
                return ""
            raise AttestationFailed("the process has gone", detail=str(error)) from error
        except OSError as error:
            raise AttestationFailed("the process has gone", detail=str(error)) from error
        if self._cgroup is None or self._cgroup[0] != content:
            self._cgroup = (content, content.decode("utf-8", "surrogateescape"))
        return self._cgroup[1]

    def credentials(self) -> ProcessCredentials:
        """Effective uid, gid and supplementary groups, from /proc/PID/status. Raise TooManyGroups, or AttestationFailed
        if the process has gone.
        """
        try:
            content = self._content("status", STATUS_READ_BYTES)
            # The lines of all user and group ids follow each other; a name of several lines is escaped.
            uids = content.index(b"\nUid:")
            ids = content[uids : content.index(b"\n", content.index(b"\nGid:", uids) + 1)]
            groups = content.index(b"\nGroups:", uids)
            ends = content.find(b"\n", groups + 1)
            if ends < 0 and len(content) >= STATUS_READ_BYTES:
                raise TooManyGroups(f"the process is in more than {GROUPS_PER_CALLER} groups")
            others = content[groups : content.index(b"\n", groups + 1)]
            if self._credentials is None or self._credentials[:2] != (ids, others):
                uid, gid = (int(line.split()[2]) for line in ids[1:].split(b"\n"))
                members = frozenset(map(int, others.split()[1:]))
                self._credentials = (ids, others, ProcessCredentials(uid, gid, members))
            return self._credentials[2]
        except (OSError, ValueError, IndexError) as error:
            raise AttestationFailed("the process has gone", detail=str(error)) from error

    def keep_open(self) -> None:
        """Keep the files open that `credentials` and `cgroup` read, until `let_go`: the kernel then need not find them.

        An open file of /proc/PID stays that of its process: once that has gone there is nothing to read in it. If they
        cannot be opened they are read as ever.
        """
        self.let_go()
        opened: dict[str, int] = {}
        try:
            for name in _KEPT_OPEN:
                opened[name] = os.open(f"/proc/{self.pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
            self.check_alive()  # so that they are its own
        except (OSError, AttestationFailed):
            for descriptor in opened.values():
                os.close(descriptor)
            return
        self._open = opened

    def let_go(self) -> None:
        """Close the files that were kept open."""
        opened, self._open = self._open, {}
        for descriptor in opened.values():
            os.close(descriptor)

    def _content(self, name: str, most: int | None = None) -> bytes:
        """A file of /proc/PID, or so much of it: from its beginning, whether it is open already or not."""
        descriptor = self._open.get(name)
        return content_of(self.pid, name, most) if descriptor is None else _whole(descriptor, most)

    def login_uid(self) -> int | None:
        """The user who logged in (kernel audit's loginuid), whatever the process has become since; None: not known.

        It is inherited. Once set, only a process with CAP_AUDIT_CONTROL can change it. Raise AttestationFailed if the
        process has gone.
        """
        try:
            text = _read(self.pid, "loginuid")
        except AttestationFailed as error:
            self.check_alive()  # then it is this kernel that does not tell
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        self.check_alive()
        if not text.strip().isdecimal():
            raise AttestationFailed("the kernel does not tell who logged in", detail=repr(text[:100]))
        number = int(text)
        return None if number == _NO_LOGIN else number

    def descends_from(self, ancestor: "Process") -> bool:
        """Whether this process is `ancestor` or one of its descendants, as far as the kernel's parent links tell.

        An ancestor that has ended has no descendants: the kernel gives them another parent at once.
        """
        pid, born = self.pid, self.start_time
        for _ in range(ANCESTORS_WALKED):
            if pid == ancestor.pid:
                return born == ancestor.start_time
            try:
                pid = stat_of(pid).parent
                if pid <= 1:
                    return pid == ancestor.pid
                earlier = stat_of(pid).start_time
            except AttestationFailed:
                return False
            if earlier > born:  # a parent that is younger than its child: the pid was used again
                return False
            born = earlier
        return False

    def ancestors(self, before: tuple[tuple[int, int], ...] = ()) -> tuple[tuple[tuple[int, int], ...], bool]:
        """What this process descends from, its parent first: each by pid and start time, and PID 1 not among them. And
        whether that is all: one may have gone meanwhile, and no more than ANCESTORS_WALKED are told.

        `before`: all that it descended from earlier. While it has the same parent, as Linux tells from 6.13 on without
        a look into /proc, that is told again: what a process descends from never becomes more.
        """
        if before and before[0][0] == self._parent():
            return before, True
        found: list[tuple[int, int]] = []
        try:
            seen = stat_of(self.pid)
            while len(found) < ANCESTORS_WALKED and (pid := seen.parent) > 1:
                above = stat_of(pid)
                if (
                    above.start_time > seen.start_time
                ):  # a parent that is younger than its child: the pid was used again
                    return tuple(found), False
                found.append((pid, above.start_time))
                seen = above
        except AttestationFailed:  # one has gone meanwhile, and its children have another parent
            return tuple(found), False
        return tuple(found), seen.parent <= 1

    def close(self) -> None:
        self.let_go()
        if self._pidfd >= 0:
            if self._loop is not None:
                self._loop.remove_reader(self._pidfd)
                self._loop = None
            os.close(self._pidfd)
            self._pidfd = -1


@dataclass(frozen=True, slots=True)
class Stat:
    """Some of /proc/PID/stat. `start_time` is in clock ticks since boot."""

    state: str
    parent: int
    start_time: int
    flags: int


def stat_of(pid: int) -> Stat:
    """Read what the kernel says of a process. Raise AttestationFailed if there is no such process.

    /proc/PID/task/PID/stat has what is asked here as /proc/PID/stat has it, without adding up the process's threads, of
    which there may be tens of thousands.
    """
    text = _read(pid, f"task/{pid}/stat")
    # The program's name may hold anything, so the fields are counted from the last parenthesis.
    fields = text[text.rfind(")") + 2 :].split()
    if len(fields) < 20:
        raise AttestationFailed("the process has gone")
    return Stat(fields[0], int(fields[1]), int(fields[19]), int(fields[6]))


def _read(pid: int, name: str) -> str:
    try:
        return content_of(pid, name).decode("ascii", "replace")
    except OSError as error:
        raise AttestationFailed("the process has gone", detail=str(error)) from error


def content_of(pid: int | str, name: str, most: int | None = None) -> bytes:
    """A whole file of /proc/PID, or its beginning if it has more than `most` bytes, full blocks of it. Python's own
    files take twice as long, and each request has several read.
    """
    descriptor = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _whole(descriptor, most)
    finally:
        os.close(descriptor)


def _whole(descriptor: int, most: int | None) -> bytes:
    content = part = os.pread(descriptor, _BLOCK_BYTES, 0)
    while len(part) == _BLOCK_BYTES and (most is None or len(content) < most):  # less than a block is the end
        part = os.pread(descriptor, _BLOCK_BYTES, len(content))
        content += part
    return content
