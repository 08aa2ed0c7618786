"""A process, pinned by the kernel, and what /proc says of it.

A pidfd refers to one process and never to another that got the same pid. So: read /proc/PID, then ask the pidfd
whether the process still lives; if it does, what was read was its own.

No `File` takes the memory of the process with it; what does is asked of `proc_reader`.
"""

import asyncio
import os
import select
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Literal

from sojourn.attestation.descent import ProcessKey, birth_of, info_of, line_of, look, tells, told_parent
from sojourn.attestation.proc_reader import reader
from sojourn.errors import AttestationFailed
from sojourn.files import identity
from sojourn.limits import DOOMED_LOOK_SECONDS

_PIDFD_INFO_EXIT = 1 << 3
_BLOCK_BYTES = 8_192  # more than most files of /proc have
File = Literal["cgroup", "limits", "loginuid"]  # of /proc/PID: the kernel writes these without its memory
_SIGNALED = 0x0400  # PF_SIGNALED, of the kernel's flags in /proc/PID/stat
_NO_LOGIN = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Program:
    """The file that a process runs, by device and inode."""

    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class Ids:
    """The effective user and group of a process."""

    uid: int
    gid: int


class Process:
    """One living process. Owns a pidfd; `close` it."""

    __slots__ = ("_cgroup", "_folder", "_loop", "_open", "_pidfd", "_poll", "_sound", "_start_time", "birth", "pid")

    def __init__(self, pid: int, pidfd: int, like: "Process | None" = None) -> None:
        """Take ownership of `pidfd`. Raise AttestationFailed if the process has gone already.

        `like`: another handle on the process.
        """
        self.pid = pid
        self._pidfd = pidfd
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poll: select.poll | None = None
        self._folder = -1  # /proc/PID, if it is kept open
        self._open = -1  # so its file `cgroup`
        self._cgroup: tuple[bytes, str] | None = None  # as read last: what has not changed by a byte is not read again
        self._sound = 0.0  # until when no signal counts as having ended it
        self._start_time: int | None = None if like is None else like._start_time
        try:
            # What tells it apart from all others that have had its pid, or will.
            self.birth: int = birth_of(pid, pidfd) if like is None else like.birth
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
        return Process(self.pid, os.dup(self._pidfd), self)

    @property
    def key(self) -> ProcessKey:
        """Which process it is, as long as the machine runs."""
        return self.pid, self.birth

    @property
    def start_time(self) -> int:
        """When it began, in clock ticks since boot. Raise AttestationFailed as ProcReader.stat."""
        if self._start_time is None:
            found = reader.stat(self.pid).start_time if tells() else self.birth
            self.check_alive()
            self._start_time = found
        return self._start_time

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

    def doomed(self, *, anew: bool) -> bool:
        """Whether a signal has ended it, though it may not be gone yet: while its core is written, or for as long as
        whoever traces it keeps it in its last stop. That is looked at each DOOMED_LOOK_SECONDS, or `anew`. Raise
        AttestationFailed as ProcReader.stat.
        """
        if (now := monotonic()) < self._sound and not anew:
            return False
        if reader.stat(self.pid).flags & _SIGNALED:
            return True
        self._sound = now + DOOMED_LOOK_SECONDS
        return False

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
        info = info_of(self._pidfd, _PIDFD_INFO_EXIT)
        return None if info is None or not info[0] & _PIDFD_INFO_EXIT else int(info[-1])

    @property
    def parent(self) -> int:
        """The parent's pid. Raise AttestationFailed if the process has gone, or as ProcReader.stat."""
        found, _ = look(self.pid, self._pidfd)
        self.check_alive()
        return found

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
            content = content_of(self.pid, "cgroup") if self._open < 0 else _whole(self._open)
        except FileNotFoundError as error:
            if not os.path.exists("/proc/self/cgroup"):  # this kernel has no cgroups
                return ""
            raise AttestationFailed("the process has gone", detail=str(error)) from error
        except OSError as error:
            raise AttestationFailed("the process has gone", detail=str(error)) from error
        if self._cgroup is None or self._cgroup[0] != content:
            self._cgroup = (content, content.decode("utf-8", "surrogateescape"))
        return self._cgroup[1]

    def ids(self) -> Ids:
        """Its effective user and group now. Raise AttestationFailed if it has gone."""
        try:
            # The folder itself is the effective user's and group's, whatever else belongs to root in it.
            status = os.stat(f"/proc/{self.pid}" if self._folder < 0 else self._folder)
        except OSError as error:
            raise AttestationFailed("the process has gone", detail=str(error)) from error
        self.check_alive()  # the folder of one that has gone is root's
        return Ids(status.st_uid, status.st_gid)

    def keep_open(self) -> None:
        """Keep open what `ids` and `cgroup` look at, until `let_go`: the kernel then need not find it.

        What is open of /proc/PID stays that of its process. If it cannot be opened it is looked at as ever.
        """
        self.let_go()
        try:
            self._folder = os.open(f"/proc/{self.pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._open = os.open("cgroup", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
            self.check_alive()  # so that they are its own
        except (OSError, AttestationFailed):
            self.let_go()

    def let_go(self) -> None:
        """Close what was kept open."""
        opened = (self._folder, self._open)
        self._folder = self._open = -1
        for descriptor in opened:
            if descriptor >= 0:
                os.close(descriptor)

    def login_uid(self) -> int | None:
        """The user who logged in (kernel audit's loginuid), whatever the process has become since; None: not known.

        It is inherited. Once set, only a process with CAP_AUDIT_CONTROL can change it. Raise AttestationFailed if the
        process has gone.
        """
        try:
            text = content_of(self.pid, "loginuid").decode("ascii", "replace")
        except OSError as error:
            self.check_alive()  # then it is this kernel that does not tell
            if isinstance(error, FileNotFoundError):
                return None
            raise AttestationFailed("the process has gone", detail=str(error)) from error
        self.check_alive()
        if not text.strip().isdecimal():
            raise AttestationFailed("the kernel does not tell who logged in", detail=repr(text[:100]))
        number = int(text)
        return None if number == _NO_LOGIN else number

    def descends_from(self, ancestor: "Process") -> bool:
        """Whether this process is `ancestor` or one of its descendants, as far as the kernel's parent links tell. Raise
        HeldUp if that cannot be told for now.

        An ancestor that has ended has no descendants: the kernel gives them another parent at once. One that was closed
        here is known by its key.
        """
        if self.exited:
            return False
        line, _ = line_of(self.key, self._pidfd, ancestor.key)
        return ancestor.key in line and not self.exited

    def ancestors(self, before: tuple[ProcessKey, ...] = ()) -> tuple[tuple[ProcessKey, ...], bool]:
        """What this process descends from, its parent first, and PID 1 not among them. And whether that is all: one may
        have gone meanwhile, and no more than ANCESTORS_WALKED are told. Raise HeldUp if that cannot be told for now.

        `before`: all that it descended from earlier. While it has the same parent that is told again, where the kernel
        tells by a pidfd: what a process descends from never becomes more.
        """
        if before and before[0][0] == told_parent(self._pidfd):
            return before, True
        (_, *above), is_all = line_of(self.key, self._pidfd)
        return tuple(key for key in above if key[0] > 1), is_all

    def close(self) -> None:
        self.let_go()
        if self._pidfd >= 0:
            if self._loop is not None:
                self._loop.remove_reader(self._pidfd)
                self._loop = None
            os.close(self._pidfd)
            self._pidfd = -1


def content_of(pid: int | str, name: File) -> bytes:
    """A whole file of /proc/PID. Python's own files take twice as long, and each request has several read."""
    descriptor = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _whole(descriptor)
    finally:
        os.close(descriptor)


def _whole(descriptor: int) -> bytes:
    content = part = os.pread(descriptor, _BLOCK_BYTES, 0)
    while len(part) == _BLOCK_BYTES:  # less than a block is the end
        part = os.pread(descriptor, _BLOCK_BYTES, len(content))
        content += part
    return content
