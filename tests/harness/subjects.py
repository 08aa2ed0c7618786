"""Real processes as an attestor is shown them."""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from sojourn.attestation.process import Process


@contextlib.contextmanager
def subject_of(pid: int) -> Iterator[Any]:
    """What the agent would show an attestor of a process that calls now."""
    process = Process.open(pid)
    try:
        ids = process.credentials()
        yield SimpleNamespace(
            pid=pid,
            uid=ids.uid,
            gid=ids.gid,
            groups=ids.groups,
            pidfd=process.pidfd,
            cgroup=process.cgroup(),
        )
    finally:
        process.close()
