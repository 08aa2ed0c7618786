"""Reads what of /proc takes the memory of a process with it. Runs in a process of its own, which `proc_reader` asks.

While Linux writes /proc/PID/status, stat, cmdline, maps and some others, it holds the memory of that process. If the
process ends meanwhile, it is the reader who takes that memory down, and waits for what lies below it: a file system
in user space (FUSE) that never answers keeps the reader in a wait which not even SIGKILL ends. So the agent reads none
of these, and can do without the process that does.

A question is `stat PID MOST` or `ids PID MOST`. The answer is, for `stat`, parent, start time and flags. For `ids` it
is the effective uid and gid and the supplementary groups, or MANY if these are more than MOST. It is GONE if there is
no such process.
"""

import os
import socket
from typing import Final

GONE: Final = b"gone"
MANY: Final = b"many"
READY: Final = b"ready"  # what is said first
QUESTION_MAX_BYTES: Final = 64
ANSWER_MAX_BYTES: Final = 32 * 1024  # a thousand groups are 12 KB
_BLOCK_BYTES: Final = 4_096
_BYTES_PER_GROUP: Final = 12  # at most, and a space
_BEFORE_GROUPS: Final = 2_048  # bytes of /proc/PID/status


def main(channel: int) -> None:
    """Answer one question after the other, until the agent closes its end."""
    with socket.socket(fileno=channel) as agent:
        agent.send(READY)
        while question := agent.recv(QUESTION_MAX_BYTES):
            what, pid, most = question.split()
            try:
                answer = _stat(int(pid)) if what == b"stat" else _ids(int(pid), int(most))
            except (OSError, ValueError, IndexError):
                answer = GONE
            agent.send(answer)


def _stat(pid: int) -> bytes:
    # As in /proc/PID/stat, without adding up the process's threads, of which there may be tens of thousands.
    content = _read(f"/proc/{pid}/task/{pid}/stat", _BLOCK_BYTES)
    # The program's name may hold anything, so the fields are counted from the last parenthesis.
    fields = content[content.rindex(b")") + 2 :].split()
    return b" ".join((fields[1], fields[19], fields[6]))


def _ids(pid: int, most: int) -> bytes:
    content = _read(f"/proc/{pid}/status", _BEFORE_GROUPS + _BYTES_PER_GROUP * most)
    # The lines of all user and group ids follow each other; a name of several lines is escaped.
    uids = content.index(b"\nUid:")
    uid, gid = (line.split()[2] for line in content[uids + 1 :].split(b"\n")[:2])
    groups = content.index(b"\nGroups:", uids)
    ends = content.find(b"\n", groups + 1)
    members = content[groups : len(content) if ends < 0 else ends].split()[1:]
    if ends < 0 or len(members) > most:
        return MANY
    return b" ".join([uid, gid, *members])


def _read(path: str, most: int) -> bytes:
    """A file's beginning, and no more of it than `most` bytes and a block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = part = os.read(descriptor, _BLOCK_BYTES)
        while part and len(content) < most:
            part = os.read(descriptor, _BLOCK_BYTES)
            content += part
        return content
    finally:
        os.close(descriptor)
