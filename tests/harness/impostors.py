"""Processes that try to pass for others, and an attestation of them: the agent's own, on real sockets and processes.

Usage: impostors.py reuse ROUNDS | exec ROUNDS FIRST SECOND | backlog ROUNDS FIRST SECOND. Needs root; `reuse` needs a
namespace of processes of its own, with its own /proc. Prints one JSON object: how often each outcome came.

`reuse`: a caller of user 4001 connects and ends, and a process of root's gets its number before the connection is looked
at, or after it was first looked at; with the kernel's handle on the process that connected, and without, as on older
kernels. `exec`: a caller runs FIRST, connects, and becomes SECOND at any moment of its attestation. `backlog`: it does
so while its connection waits to be accepted, or later.
"""

import asyncio
import json
import os
import random
import signal
import socket
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sojourn.attestation import peer as peers
from sojourn.attestation.service import Attestation
from sojourn.errors import AttestationFailed
from sojourn.runtime.clock import SystemClock
from sojourn_attestors.unix import UnixAttestor

USER = 4001
BUSY_SECONDS = 0.04
_NO_SUCH_OPTION = 9_999


def texts(attested):
    return {str(selector) for selector in attested.selectors}


def caller(path: str, then: "list[str] | None" = None, spins: int = 0) -> int:
    """Fork a process that connects, and ends, or becomes another program after a while."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setgroups([])
        os.setgid(USER)
        os.setuid(USER)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.set_inheritable(True)
        if then is not None:
            for _ in range(spins):
                pass
            os.execv(then[0], then)
    finally:
        os._exit(0)


def take_number(wanted: int) -> int:
    """Fork a process of root's that has this number, and waits to be killed."""
    for _ in range(100):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(wanted - 1))
        pid = os.fork()
        if pid == 0:
            if os.getpid() == wanted:
                signal.pause()
            os._exit(0)
        if pid == wanted:
            return pid
        os.waitpid(pid, 0)
    raise RuntimeError("the number was not given again")


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


async def reuse(listener: socket.socket, path: str, attestation: Attestation, rounds: int) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    known = peers.SO_PEERPIDFD
    for number in range(rounds):
        looked_at_first, without = bool(number & 1), bool(number & 2)
        peers.SO_PEERPIDFD = _NO_SUCH_OPTION if without else known
        first = caller(path)
        connection, _ = listener.accept()
        peer = impostor = None
        try:
            if looked_at_first:
                peer = peers.Peer.of_socket(connection)
            os.waitpid(first, 0)
            impostor = take_number(first)
            if peer is None:
                peer = peers.Peer.of_socket(connection)
            found = texts(await attestation.attest(peer))
        except AttestationFailed:
            outcomes["refused"] += 1
        else:
            outcomes["wrong" if "unix:uid:0" in found else "served"] += 1
        finally:
            if peer is not None:
                peer.close()
            if impostor is not None:
                end(impostor)
            connection.close()
    return outcomes


async def become(
    listener: socket.socket, path: str, attestation: Attestation, rounds: int, first: str, second: str, busy: float
) -> Counter[str]:
    """`busy`: for how many seconds, at most, nobody accepts."""
    outcomes: Counter[str] = Counter()
    for _ in range(rounds):
        pid = caller(path, [second, "60"], spins=random.randrange(60_000))
        await asyncio.sleep(random.uniform(0, busy))
        connection, _ = listener.accept()
        peer = None
        try:
            peer = peers.Peer.of_socket(connection)
            connected_as = os.fspath(first) if peer.program == program_of(first) else os.fspath(second)
            for _ in range(3):
                found = texts(await attestation.attest(peer))
                peer.attested = None
                other = {first: second, second: first}[connected_as]
                outcomes["wrong" if f"unix:path:{other}" in found else f"served as {connected_as}"] += 1
        except AttestationFailed:
            outcomes["refused"] += 1
        finally:
            if peer is not None:
                peer.close()
            connection.close()
            end(pid)
    return outcomes


def program_of(path: str):
    status = os.stat(path)
    return peers.Program(status.st_dev, status.st_ino)


async def main(what: str, rounds: int, *programs: str) -> None:
    random.seed(1)
    # One thread: forking is safe while no other one holds a lock, and here none works when it is forked.
    with (
        ThreadPoolExecutor(1) as pool,
        socket.socket(socket.AF_UNIX) as listener,
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
    ):
        os.chmod(folder, 0o755)
        path = f"{folder}/socket"
        listener.bind(path)
        os.chmod(path, 0o666)
        listener.listen()
        attestation = Attestation({"unix": UnixAttestor({}, pool)}, SystemClock())
        if what == "reuse":
            outcomes = await reuse(listener, path, attestation, rounds)
        else:
            busy = BUSY_SECONDS if what == "backlog" else 0.0
            outcomes = await become(listener, path, attestation, rounds, *programs, busy=busy)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    import structlog

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
