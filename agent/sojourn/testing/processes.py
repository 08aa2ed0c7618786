"""Processes to be attested: honest ones, oddly named ones, ones that are over, and what no kernel says of any."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from sojourn.attestation.attestor import PinnedSubject
from sojourn.attestation.process import Process
from sojourn.errors import AttestationFailed

# Names that a program's file may have, and that end up in /proc/PID/exe, comm, stat, status, maps and cmdline.
ODD_NAMES: Final[tuple[bytes, ...]] = (
    b"line\nbreak",
    b"gone (deleted)",
    b") S 1 1 (",
    b"Uid:\t0\t0\t0\t0",
    b"\x1b[31mred",
    b"not-utf-8-\xff\xfe",
    b"unix:uid:0",
    b"x" * 255,
    "\N{RIGHT-TO-LEFT OVERRIDE}txt.exe".encode(),
)
# What a subject's `cgroup` may hold, whoever wrote it: a user chooses the names of cgroups that it may make.
ODD_CGROUPS: Final[Mapping[str, str]] = {
    "nothing": "",
    "no line of a kernel's": "garbage\n",
    "no path": "0::\n",
    "no number": "::/x\n",
    "a huge number": f"{'9' * 5_000}::/x\n",
    "a relative path": "0::x\n",
    "dot segments": "0::/../../system.slice/sshd.service\n",
    "not UTF-8": "0::/\udcff\udcfe\n",
    "NUL": "0::/a\0b\n",
    "control characters": "0::/a\x1b[31m\r\x7f\n",
    "long": f"0::/{'a/' * 2_000}\n",
    "a container's, twice": f"0::/docker/{'a' * 64}/docker/{'b' * 64}\n",
    "contradicting lines": f"2:cpu:/docker/{'a' * 64}\n1:name=systemd:/docker/{'b' * 64}\n0::/\n",
    "many lines": "".join(f"{number}:c{number}:/\n" for number in range(1, 2_000)),
}


@contextmanager
def child(program: bytes = b"", *, name: bytes = b"sleep") -> Iterator[PinnedSubject]:
    """A process that does nothing until the block ends, as an attestor sees it. `program`: by which file it runs."""
    pid = _start(program or os.fsencode(_sleep()), name)
    try:
        process = Process.open(pid)
        try:
            yield subject_of(process)
        finally:
            with suppress(OSError):  # an attestor that closed it is told so by the contract
                process.close()
    finally:
        _end(pid)


@contextmanager
def oddly_named() -> Iterator[list[PinnedSubject]]:
    """A process for each of ODD_NAMES that a file can have here, which is named so."""
    with tempfile.TemporaryDirectory() as folder:
        pids: list[int] = []
        processes: list[Process] = []
        try:
            for name in ODD_NAMES:
                path = os.path.join(os.fsencode(folder), name)
                try:
                    shutil.copy(os.fsencode(_sleep()), path)
                except OSError:  # this file system takes no such name
                    continue
                pids.append(_start(path, name))
                processes.append(Process.open(pids[-1]))
            yield [subject_of(each) for each in processes]
        finally:
            for each in processes:
                each.close()
            for pid in pids:
                _end(pid)


@contextmanager
def ended(*, collected: bool) -> Iterator[PinnedSubject]:
    """A process that has ended. Not `collected` by its parent, it still has a folder in /proc."""
    pid = _start(os.fsencode(_sleep()), b"sleep")
    process = Process.open(pid)
    try:
        subject = subject_of(process)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        if collected:
            _end(pid)
        yield subject
    finally:
        process.close()
        if not collected:
            _end(pid)


def oddly_placed(subject: PinnedSubject) -> Iterator[tuple[str, PinnedSubject]]:
    """`subject` as it would be with each of ODD_CGROUPS, and with ids that few have."""
    for name, text in ODD_CGROUPS.items():
        yield f"cgroup: {name}", replace(subject, cgroup=text)
    yield "uid 65534", replace(subject, uid=65_534, gid=65_534, groups=frozenset({65_534}))
    yield "the largest ids", replace(subject, uid=2**32 - 2, gid=2**32 - 2, groups=frozenset({2**32 - 2}))
    yield "300 groups", replace(subject, groups=frozenset(range(1, 301)))


def subject_of(process: Process) -> PinnedSubject:
    """A living child of ours as an attestor sees it: it has our groups. The pidfd stays `process`'s."""
    ids, groups = process.ids(), frozenset(os.getgroups())
    return PinnedSubject(process.pid, ids.uid, ids.gid, groups, process.pidfd, process.cgroup())


def kill(subject: PinnedSubject) -> None:
    """End the process of `subject` now; whoever started it collects it."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(subject.pidfd, signal.SIGKILL)


def _sleep() -> str:
    found = shutil.which("sleep")
    if found is None:
        raise AttestationFailed("there is no program `sleep` to try an attestor on")
    return str(Path(found).resolve())


def _start(program: bytes, name: bytes) -> int:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        into = [(os.POSIX_SPAWN_DUP2, null, number) for number in range(3)]
        return os.posix_spawn(program, [name, b"3600"], {"PATH": os.defpath}, file_actions=into)
    finally:
        os.close(null)


def _end(pid: int) -> None:
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
