"""Ports that a test chooses now, for what listens on them later."""

import os
import secrets
import socket


def free_port() -> int:
    """A port that nobody listens on, of those that the kernel gives to nobody by itself: each test process has its own.

    Not by `random`, which is made to give the same numbers in each of them. SOJOURN_TEST_FIRST_PORT keeps several runs on
    one machine apart, of which each has workers of the same names.
    """
    first = int(os.environ.get("SOJOURN_TEST_FIRST_PORT", "20000"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = first + worker % 10 * 1_000 + secrets.randbelow(1_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
