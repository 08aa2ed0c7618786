"""Processes that run a helper, as those do whose tokens an extension or a command fetches for them."""

import os
import subprocess
import sys
from contextlib import contextmanager

from sojourn.attestation.peer import Peer

RUNNER = "import subprocess, sys; helper = subprocess.Popen(['sleep', '3600']); print(helper.pid, flush=True); {then}"
WAIT = "sys.stdin.read(); helper.kill(); helper.wait()"


@contextmanager
def helper_of(then=WAIT):
    """A process that has run a helper: both, and the helper as a peer."""
    argv = [sys.executable, "-c", RUNNER.format(then=then)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as runner:
        helper = Peer.of_pid(int(runner.stdout.readline()))
        try:
            yield runner, helper
        finally:
            os.kill(helper.process.pid, 9)
            helper.close()
            runner.kill()
