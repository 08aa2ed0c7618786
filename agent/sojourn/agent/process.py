"""What the agent asks of the kernel for itself: no core files, room for descriptors, signals."""

import asyncio
import ctypes
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sojourn.attestation.machine import machine
from sojourn.errors import CannotStart
from sojourn.limits import THREAD_TURN_SECONDS
from sojourn.runtime import ambient

_PR_SET_DUMPABLE = 4
_CAP_SYS_PTRACE = 19
_READS_ALL = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
_PROC_SUPER_MAGIC = 0x9FA0


def harden() -> int:
    """Forbid core files and debuggers, let no child have our capabilities, raise the limit of open files as far as
    allowed, and return that limit.
    """
    ambient.take_off()
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
    found = {}
    may = _capabilities()
    if not may >> _CAP_SYS_PTRACE & 1:
        found["unix:path and unix:sha256 of other users' processes"] = (
            f"the agent runs as user {os.geteuid()} without CAP_SYS_PTRACE; run it as root or give it that capability"
        )
        if not os.access("/proc/1/status", os.R_OK):
            found["callers of other users"] = (
                "/proc is mounted with hidepid: run the agent as root, or mount it without"
            )
    elif not may & _READS_ALL:
        found["unix:path and unix:sha256 of programs that the agent's user may not read"] = (
            f"the agent runs as user {os.geteuid()} without CAP_DAC_READ_SEARCH; give it that capability"
        )
    return found | _limitations_of_namespaces()


def _limitations_of_namespaces() -> dict[str, str]:
    """What an agent with mounts of its own cannot tell: one in a container, or that a unit of systemd shuts in."""
    if not machine().apart:
        return {}
    found = {}
    if machine().doubt:
        found["unix:path of processes outside of the agent's own mount namespace"] = machine().doubt
        if not machine().has_its_files:
            found["unix:user, unix:group and unix:supplementary_group"] = (
                f"the names of users that the agent sees need not be the machine's: {machine().doubt}"
            )
    elif os.readlink("/proc/1/ns/cgroup") != os.readlink("/proc/self/ns/cgroup"):
        found["unix:cgroup, containers and units of systemd"] = (
            "the agent has a cgroup namespace of its own: start its container in the machine's (--cgroupns host)"
        )
    return found


def _capabilities() -> int:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
