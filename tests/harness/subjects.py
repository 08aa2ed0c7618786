"""Real processes as an attestor is shown them."""

import contextlib
from collections.abc import Iterator

from sojourn.attestation.attestor import PinnedSubject
from sojourn.attestation.proc_reader import reader
from sojourn.attestation.process import Process


@contextlib.contextmanager
def subject_of(pid: int) -> Iterator[PinnedSubject]:
    """What the agent would show an attestor of a process that calls now."""
    process = Process.open(pid)
    try:
        ids = reader.credentials(pid)
        yield PinnedSubject(pid, ids.uid, ids.gid, ids.groups, process.pidfd, process.cgroup())
    finally:
        process.close()
