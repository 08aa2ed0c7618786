"""What the agent asks of the kernel for itself: no core files, room for descriptors, signals, one agent for each data
folder.
"""

import asyncio
import ctypes
import fcntl
import gc
import os
import resource
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sojourn.errors import CannotStart
from sojourn.limits import THREAD_TURN_SECONDS

_PR_SET_DUMPABLE = 4
_CAP_SYS_PTRACE = 19
_PROC_SUPER_MAGIC = 0x9FA0


def harden() -> int:
    """Forbid core files and debuggers, raise the limit of open files as far as allowed, and return that limit."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.umask(0o077)
    return hard


def settle() -> None:
    """Spare the garbage collector all that was made by now, since it stays: a round over it takes tens of milliseconds,
    in which nobody is answered. And let the thread that writes have the interpreter soon after the disk has answered:
    those whose records it writes wait for it.
    """
    gc.freeze()
    sys.setswitchinterval(THREAD_TURN_SECONDS)


@contextmanager
def hear(signals: Sequence[signal.Signals], call: Callable[[], object]) -> Iterator[None]:
    """Have `call` called in the running loop at each of these signals. Afterwards they are ignored for good: one that
    comes again while the process ends changes nothing.

    The loop's own handlers will not do: taking one away puts the default in its place, by which the process dies.
    """
    loop = asyncio.get_running_loop()
    for number in signals:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(call))
        signal.siginterrupt(number, False)  # calls to the kernel go on after it
    try:
        yield
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)


def check_proc() -> None:
    """Raise CannotStart unless what is at /proc is the kernel's: who our callers are is read there."""
    buffer = ctypes.create_string_buffer(256)  # struct statfs begins with the type, as a long
    if ctypes.CDLL(None).statfs(b"/proc", buffer) != 0 or ctypes.c_long.from_buffer(buffer).value != _PROC_SUPER_MAGIC:
        raise CannotStart(
            "/proc is not the kernel's: mount it with `mount -t proc proc /proc`, or start outside of chroot"
        )


def limitations() -> dict[str, str]:
    """What this agent cannot do for lack of privilege, and why."""
    if os.geteuid() == 0 or _capabilities() >> _CAP_SYS_PTRACE & 1:
        return {}
    found = {
        "unix:path and unix:sha256 of other users' processes": (
            f"the agent runs as user {os.geteuid()} without CAP_SYS_PTRACE; run it as root or give it that capability"
        )
    }
    if not os.access("/proc/1/status", os.R_OK):
        found["callers of other users"] = "/proc is mounted with hidepid: run the agent as root, or mount it without"
    return found


@contextmanager
def claim_data_dir(folder: Path) -> Iterator[None]:
    """Make the data folder ours alone, and have it locked meanwhile. Raise CannotStart.

    The lock is on the folder itself too: a file `lock` that somebody removes lets no second agent in.
    """
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        status = os.stat(folder)
    except OSError as error:
        raise CannotStart(
            f"cannot make the data folder {str(folder)!r}: {error.strerror}; choose another --data-dir"
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise CannotStart(f"the data folder {str(folder)!r} is not a folder of user {os.geteuid()}'s")
    if status.st_mode & 0o022:
        raise CannotStart(f"the data folder {str(folder)!r} can be written by others: chmod go-w it")
    path = folder / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(f"the data folder {str(folder)!r} cannot be written: {error.strerror}") from error
    try:
        itself = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(folder, itself, descriptor)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            yield
        finally:
            os.close(itself)
    finally:
        os.close(descriptor)


def _lock(folder: Path, itself: int, file: int) -> None:
    """Lock a folder and the file in it. Raise CannotStart if another agent has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(itself, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(file, 32).decode("ascii", "replace").strip()
        raise CannotStart(
            f"another agent (process {holder or 'unknown'}) uses the data folder {str(folder)!r}: stop it, or choose"
            " another --data-dir"
        ) from error
    except OSError as error:
        raise CannotStart(f"the data folder {str(folder)!r} cannot be locked: {error.strerror}") from error


def _capabilities() -> int:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
