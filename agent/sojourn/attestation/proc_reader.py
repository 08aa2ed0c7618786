"""Asks another process for what of /proc the agent does not read itself (`proc_read` says why), and gives it up.

Each question is waited for, since it takes some 30 us. A process that does not answer is left to itself, and another
one takes its place. Whose process held it up is told apart by user: nothing is asked about that user's processes while
what they hold up is still there. So a user keeps one such process at the most, and holds up others for a moment, and
not again before PROC_HELD_UP_SECONDS.
"""

import atexit
import os
import select
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Final, NamedTuple

import structlog

from sojourn.attestation.proc_read import ANSWER_MAX_BYTES, GONE, MANY, READY
from sojourn.errors import AttestationFailed
from sojourn.limits import (
    CROWDED_SECONDS,
    GROUPS_PER_CALLER,
    PROC_ANSWER_SECONDS,
    PROC_HELD_UP_SECONDS,
    PROC_LOOK_SECONDS,
    PROC_START_SECONDS,
)
from sojourn.runtime import ambient, own_programs

log = structlog.get_logger()
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_BEGIN: Final = """
from sojourn.attestation.proc_read import main
main(int(sys.argv[2]))
"""


class HeldUp(AttestationFailed):
    """Nothing is asked about the processes of this user for now. It says nothing of the process."""


class TooManyGroups(AttestationFailed):
    """The process is in more groups than a caller may be. The kernel takes up to 30 ms to list them."""


@dataclass(frozen=True, slots=True)
class Stat:
    """Some of /proc/PID/stat. `start_time` is in clock ticks since boot, `flags` are the kernel's."""

    parent: int
    start_time: int
    flags: int


@dataclass(frozen=True, slots=True)
class ProcessCredentials:
    """Ids of a process, effective ones."""

    uid: int
    gid: int
    groups: frozenset[int]


class ProcReader:
    """Serves one agent, in all its threads. The process is started when it is asked first, and after a fork."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self.owner: Callable[[int], int] = lambda uid: uid  # the user who may become a uid
        self._reading: _Reading | None = None
        self._until: dict[int, tuple[float, subprocess.Popen[bytes] | None]] = {}  # by user; and what hangs
        self._parents: object = None

    def stat(self, pid: int) -> Stat:
        """Raise AttestationFailed if there is no such process, HeldUp if that cannot be told for now."""
        return Stat(*map(int, self._ask(b"stat", pid).split()))

    def credentials(self, pid: int) -> ProcessCredentials:
        """Effective ids and supplementary groups. Raise as `stat`; or TooManyGroups, and HeldUp for a moment then."""
        answer = self._ask(b"ids", pid)
        if answer == MANY:
            self._until.setdefault(self._user_of(pid), (monotonic() + CROWDED_SECONDS, None))
            raise TooManyGroups(f"the process is in more than {GROUPS_PER_CALLER} groups")
        uid, gid, *groups = map(int, answer.split())
        return ProcessCredentials(uid, gid, frozenset(groups))

    def close(self) -> None:
        """Let go of the process, which ends then."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def forget(self) -> None:
        """In a child of a fork: the process is the parent's."""
        self._parents = (self._reading, self._until)  # kept: they are not this process's to await
        if self._reading is not None:
            self._reading.channel.close()
        self._reading, self._until, self._asking = None, {}, threading.Lock()

    def _ask(self, what: bytes, pid: int) -> bytes:
        user = self._user_of(pid)  # before it can have gone
        with self._asking:
            return self._asked_for(user, pid, b"%s %d %d" % (what, pid, GROUPS_PER_CALLER))

    def _asked_for(self, user: int, pid: int, question: bytes) -> bytes:
        if self._until:
            self._check(user)
        for _ in range(2):  # somebody may have ended it
            reading = self._taken()
            try:
                answer = reading.ask(question)
            except TimeoutError as error:
                reading.give_up()
                self._until[user] = (monotonic() + PROC_HELD_UP_SECONDS, reading.process)
                log.warning("process_reader_given_up", pid=pid, uid=user, reason=str(error))
                break
            except OSError as error:
                reading.give_up()
                reading.process.wait()
                log.warning("process_reader_ended", reason=str(error))
                continue
            self._reading = reading
            if answer == GONE:
                raise AttestationFailed("the process has gone")
            return answer
        raise HeldUp("what the kernel says of the process is not told")

    def _taken(self) -> "_Reading":
        reading, self._reading = self._reading, None
        try:
            return reading or _Reading()
        except OSError as error:
            raise HeldUp("what the kernel says of processes cannot be read", detail=str(error)) from error

    def _user_of(self, pid: int) -> int:
        try:
            return self.owner(os.stat(f"/proc/{pid}").st_uid)  # the effective one, for the folder itself
        except OSError as error:
            raise AttestationFailed("the process has gone", detail=str(error)) from error

    def _check(self, user: int) -> None:
        now = monotonic()
        for each, (until, held_up) in list(self._until.items()):
            if until <= now and (held_up is None or held_up.poll() is not None):
                del self._until[each]
        if user in self._until:
            raise HeldUp("processes of this user hold up who looks at them")


class _Doing(NamedTuple):
    """What the process that reads does: whether it is in a wait that no signal ends, and how many seconds of a
    processor it has had.
    """

    waits: bool
    computed: float

    def held_up_since(self, before: "_Doing") -> bool:
        """Whether that is not the machine which is slow: it waits as it did, or takes down another's memory."""
        return (self.waits and before.waits) or self.computed - before.computed >= PROC_LOOK_SECONDS / 2


class _Reading:
    """The process that reads."""

    def __init__(self) -> None:
        """Raise OSError if it cannot be started."""
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._poll = select.poll()
        self._poll.register(self.channel, select.POLLIN)
        try:
            with theirs:
                self.process = _start(theirs.fileno())
        except BaseException:
            self.channel.close()
            raise
        if not self._poll.poll(PROC_START_SECONDS * 1000) or self._received() != READY:
            self.give_up()
            self.process.wait()
            raise TimeoutError("the process that reads does not start")

    def ask(self, question: bytes) -> bytes:
        """Its answer. Raise OSError if it hangs or has ended."""
        self.channel.send(question, socket.MSG_NOSIGNAL)
        waited = 0.0
        before: _Doing | None = None
        while not self._poll.poll(PROC_LOOK_SECONDS * 1000):
            waited += PROC_LOOK_SECONDS
            now = self._doing()
            if before is not None and now is not None and now.held_up_since(before):
                raise TimeoutError("it is held up")
            if waited >= PROC_ANSWER_SECONDS:
                raise TimeoutError("it does not answer")
            before = now
        return self._received()

    def close(self) -> None:
        self.channel.close()
        self.process.wait()

    def give_up(self) -> None:
        """Kill it, and do not wait for its end."""
        self.channel.close()
        self.process.kill()

    def _received(self) -> bytes:
        answer = self.channel.recv(ANSWER_MAX_BYTES)
        if not answer:
            raise ConnectionResetError("it has ended")
        return answer

    def _doing(self) -> _Doing | None:
        with suppress(OSError), open(f"/proc/{self.process.pid}/stat", "rb") as file:  # our own child's
            state, *rest = file.read(512).rpartition(b")")[2].split()
            return _Doing(state == b"D", (int(rest[10]) + int(rest[11])) / _TICKS_PER_SECOND)
        return None


def _start(channel: int) -> "subprocess.Popen[bytes]":
    with ambient.passed_on():  # it looks at processes as the agent does
        return own_programs.start(_BEGIN, channel, "sojourn-processes", options=("-S",))


reader: Final = ProcReader()
os.register_at_fork(after_in_child=reader.forget)
atexit.register(reader.close)
