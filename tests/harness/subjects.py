"""Real processes as an attestor is shown them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sojourn.attestation.attestor import PinnedSubject
from sojourn.attestation.process import Process


@contextlib.contextmanager
def subject_of(pid: int) -> Iterator[PinnedSubject]:
    """What the agent would show an attestor of a process that calls now."""
    process = Process.open(pid)
    try:
        ids, status = process.ids(), Path(f"/proc/{pid}/status").read_text("utf-8", "surrogateescape")
        groups = frozenset(map(int, status.partition("\nGroups:")[2].partition("\n")[0].split()))
        yield PinnedSubject(pid, ids.uid, ids.gid, groups, process.pidfd, process.cgroup())
    finally:
        process.close()
