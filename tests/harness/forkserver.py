"""A process that has imported what agents, commands and callers are made of, and is forked for each that a test starts.

Started by forks.py: its standard input is a socket, on which each message asks for one process, which answers with its pid
once it can be signalled as a program that was started. With a message come four descriptors: standard input, output and
error of the new process, and where its wait status is to be written once it has ended. It is reaped when nobody reads that
status any more, so that its pid is no other's while a test can still signal it. Whoever is forked leaves `serve` and goes
on as the program that it was asked to be.
"""

import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
from typing import Any

MESSAGE_MAX = 1 << 17
STREAMS = 3


class Server:
    """Forks, and says how each fork ended."""

    def __init__(self, asked: socket.socket) -> None:
        self._asked = asked
        self._poll = select.poll()
        self._poll.register(asked, select.POLLIN)
        self._running: dict[int, int] = {}  # by pidfd: where the process's status is to be written
        self._ended: dict[
            int, int
        ] = {}  # by where its status was written: the pidfd of a process that is not reaped yet

    def serve(self) -> dict[str, Any] | None:
        """Fork until nobody asks any more. In a fork: what it is to be."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._running:
                    self._tell(descriptor)
                elif descriptor in self._ended:
                    self._reap(descriptor)
                else:
                    message, descriptors, _, _ = socket.recv_fds(self._asked, MESSAGE_MAX, STREAMS + 1)
                    if not message:
                        return None
                    wanted = json.loads(message)
                    if not self._fork(wanted, descriptors):
                        return wanted

    def _fork(self, wanted: dict[str, Any], descriptors: list[int]) -> bool:
        """Fork; return whether this is still the server."""
        pid = os.fork()
        if pid:
            for each in descriptors[:STREAMS]:
                os.close(each)
            watched = os.pidfd_open(pid)
            self._running[watched] = descriptors[STREAMS]
            self._poll.register(watched, select.POLLIN)
            return True
        if wanted["session"]:
            os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._asked.send(b"%d" % os.getpid())
        self._asked.close()
        for number, each in enumerate(descriptors[:STREAMS]):
            os.dup2(each, number)
        for each in (*self._running, *self._running.values(), *self._ended, *self._ended.values()):
            os.close(each)
        for each in descriptors:
            if each >= STREAMS:
                os.close(each)
        return False

    def _tell(self, watched: int) -> None:
        """Write how this process ended."""
        ended = os.waitid(os.P_PIDFD, watched, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        status = ended.si_status << 8 if ended.si_code == os.CLD_EXITED else ended.si_status
        told = self._running.pop(watched)
        self._poll.unregister(watched)
        with contextlib.suppress(BrokenPipeError):  # nobody wants to know
            os.write(told, b"%d" % status)
        self._ended[told] = watched
        self._poll.register(told, 0)  # an error is told all the same: its reader has gone

    def _reap(self, told: int) -> None:
        watched = self._ended.pop(told)
        os.waitid(os.P_PIDFD, watched, os.WEXITED)
        self._poll.unregister(told)
        os.close(watched)
        os.close(told)

    def kill(self) -> None:
        """End all that still run."""
        for watched in self._running:
            signal.pidfd_send_signal(watched, signal.SIGKILL)


def become(wanted: dict[str, Any]) -> None:
    """Run the program, as an interpreter does that has just started."""
    os.chdir(wanted["folder"])
    os.umask(wanted["umask"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    open_streams()
    script = wanted["arguments"][0]
    with open("/proc/self/comm", "w", encoding="utf-8") as comm:
        comm.write(os.path.basename(script)[:15])
    sys.argv = wanted["arguments"]
    sys.path.insert(0, os.path.dirname(script))
    gc.enable()
    try:
        runpy.run_path(script, run_name="__main__")
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    # As an interpreter ends, but for taking to pieces all that was imported, which takes longer than a command.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = status or 120
    os._exit(status)


def open_streams() -> None:
    """Have text streams on what the descriptors are now: what an interpreter made of them when it started is of the past."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        was = getattr(sys, name)
        lines = 1 if name == "stderr" or os.isatty(number) else -1
        stream = os.fdopen(number, mode, lines, was.encoding, was.errors, closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def main() -> None:
    sys.path[0] = os.path.dirname(sys.path[0])  # it was the folder of this file
    from harness.wholeprogram import load

    del sys.path[0]
    gc.disable()
    load()
    gc.freeze()  # what is shared with all forks stays so
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells whoever tests, and that ends us
    server = Server(socket.socket(fileno=os.dup(0)))
    os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)
    wanted = server.serve()
    if wanted is None:
        server.kill()
        return
    del server
    become(wanted)


if __name__ == "__main__":
    main()
