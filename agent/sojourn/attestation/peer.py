"""The peer of a connection: the process that connected, as the kernel recorded it then."""

import ctypes
import errno
import os
import socket
import struct
from dataclasses import dataclass, field

from sojourn.attestation.attestor import Attested
from sojourn.attestation.confined_mark import is_confined
from sojourn.attestation.proc_reader import TooManyGroups, reader
from sojourn.attestation.process import Ids, Process, Program
from sojourn.errors import AttestationFailed
from sojourn.errors.oauth import Confined
from sojourn.limits import GROUPS_PER_CALLER

SO_PEERPIDFD = 77  # Linux 6.5; not in the socket module
SO_PEERGROUPS = 59  # Linux 4.13
_UCRED = struct.Struct("3i")
_OPTION_MAX_BYTES = 1024  # what Python's getsockopt can take: 256 groups
_getsockopt = ctypes.CDLL(None, use_errno=True).getsockopt
_CONFINED = (
    "the caller descends from a command that never holds a token (`sojourn task run --proxy`): the agent gives it"
    " nothing, and what the task may do goes through the proxy that HTTPS_PROXY names"
)


@dataclass(slots=True, eq=False)
class Peer:
    """The process at the other end, with the ids that it had when it connected. Owns its Process; `close` it."""

    process: Process
    uid: int
    gid: int
    groups: frozenset[int]
    program: Program | None  # what it ran when it connected, if this agent may see that
    attested: Attested | None = field(default=None)  # the last attestation, kept by attestation.service
    owner: int | None = None  # who may become `uid`, if that is another
    confined: bool = False  # it descends from a command that is to get nothing here

    @property
    def who(self) -> int:
        """Whose limits count: the uid, or that of the user to whom it is subordinate."""
        return self.uid if self.owner is None else self.owner

    @property
    def details(self) -> dict[str, int]:
        """What else is to be said of it, for log and audit."""
        return {"pid": self.process.pid, "uid": self.uid}

    @classmethod
    def of_socket(cls, connection: socket.socket, owner: int | None = None) -> "Peer":
        """Read the kernel's record of a connected socket. Raise AttestationFailed if its process cannot be pinned."""
        pid, uid, gid = connected_by(connection)
        if pid <= 0:
            raise AttestationFailed("the caller is in a process namespace that this agent cannot see")
        process = _pin(connection, pid)
        try:
            groups, confined = _groups(connection), is_confined(process)
            return cls(process, uid, gid, groups, process.program(), owner=owner, confined=confined)
        except BaseException:
            process.close()
            raise

    @classmethod
    def of_pid(cls, pid: int) -> "Peer":
        """Make a peer of a process that an operator asks about."""
        process = Process.open(pid)
        try:
            found = reader.credentials(pid)
            program, confined = process.program(), is_confined(process)
            process.check_alive()
        except BaseException:
            process.close()
            raise
        return cls(process, found.uid, found.gid, found.groups, program, confined=confined)

    def check_not_confined(self) -> None:
        """Raise Confined if the process descends from a command that is to get nothing of this agent.

        The mark of that cannot be taken off, and a process that connected without it was not such a command's.
        """
        if self.confined:
            raise Confined(_CONFINED)

    def check_unchanged(self) -> None:
        """Raise AttestationFailed unless the process lives, and still has the user, the group and the program that it
        connected with. Its further groups are those of then.

        A connection may have been passed on. If the process then runs another program, whoever holds the connection
        must not get that program's identity.
        """
        self.check_same(self.process.ids(), self.process.program())

    def check_same(self, found: Ids, program: Program | None) -> None:
        """As `check_unchanged`, by what was read of the process in this step of the event loop."""
        self.process.check_alive()
        if found != Ids(self.uid, self.gid):
            raise AttestationFailed("the process has changed its user or group since it connected")
        if program != self.program:
            raise AttestationFailed("the process runs another program than when it connected: connect again")

    @staticmethod
    def uid_of_socket(connection: socket.socket) -> int:
        """The user that connected, before anything else is looked at."""
        return connected_by(connection)[1]

    def close(self) -> None:
        self.process.close()


def connected_by(connection: socket.socket) -> tuple[int, int, int]:
    """The pid, uid and gid that connected a Unix socket; a pid of 0 is one that we cannot see. Raise OSError."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid, gid


def kernel_pins_callers() -> bool:
    """Whether the kernel has the process that connected by more than its pid, which may be another's by now."""
    one, other = socket.socketpair()
    with one, other:
        try:
            os.close(struct.unpack("i", one.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4))[0])
        except OSError:
            return False
    return True


def _pin(connection: socket.socket, pid: int) -> Process:
    try:
        pidfd = struct.unpack("i", connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4))[0]
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:  # before Linux 6.16 so of a process that was collected already
            raise AttestationFailed("the caller has gone, or cannot be pinned", detail=str(error)) from error
        # Before Linux 6.5. The pid may have passed to another process since the connect; its ids, which are compared
        # with those of the connect at each attestation, are then the only guard. So no connection waits for long: see
        # endpoints/listener/bind.py.
        return Process.open(pid)
    os.set_inheritable(pidfd, False)
    try:
        # For a process that was collected already, the kernel still gives a pidfd; it then names no pid.
        named = _fdinfo_pid(pidfd)
        if named != pid:
            raise AttestationFailed("the caller has gone")
    except BaseException:
        os.close(pidfd)
        raise
    return Process(pid, pidfd)


def _groups(connection: socket.socket) -> frozenset[int]:
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _OPTION_MAX_BYTES)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise AttestationFailed("the groups of the process are not told", detail=str(error)) from error
        raw = _many_groups(connection)
    return frozenset(struct.unpack(f"{len(raw) // 4}I", raw))


def _many_groups(connection: socket.socket) -> bytes:
    """Raise TooManyGroups before the groups are read, by their number: each costs time and memory."""
    buffer = ctypes.create_string_buffer(4 * GROUPS_PER_CALLER)
    size = ctypes.c_uint32(len(buffer))
    if _getsockopt(connection.fileno(), socket.SOL_SOCKET, SO_PEERGROUPS, buffer, ctypes.byref(size)) != 0:
        if ctypes.get_errno() == errno.ERANGE:
            raise TooManyGroups(f"the process is in more than {GROUPS_PER_CALLER} groups")
        raise AttestationFailed("the groups of the process are not told", detail=os.strerror(ctypes.get_errno()))
    return buffer.raw[: size.value]


def _fdinfo_pid(pidfd: int) -> int:
    with open(f"/proc/self/fdinfo/{pidfd}", "rb", buffering=0) as file:
        for line in file.read().splitlines():
            if line.startswith(b"Pid:"):
                return int(line[4:])
    return -1
