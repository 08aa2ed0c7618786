"""A process that has imported what agents, commands and callers are made of, and is forked for each that a test starts.

Started by forks.py: its standard input is a socket, on which each message asks for one process, and is answered with its
pid. With a message come four descriptors: standard input, output and error of the new process, and where its wait status
is to be written once it has ended. Whoever is forked leaves `serve` and goes on as the program that it was asked to be.
"""

import atexit
import contextlib
import gc
import json
import os
import runpy
import selectors
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
        self._ready = selectors.DefaultSelector()
        self._ready.register(asked, selectors.EVENT_READ)
        self._running: dict[int, tuple[int, int]] = {}  # by pidfd: the pid, and where its status is written

    def serve(self) -> dict[str, Any] | None:
        """Fork until nobody asks any more. In a fork: what it is to be."""
        while True:
            for key, _ in self._ready.select():
                if key.fileobj is not self._asked:
                    self._ended(key.fd)
                    continue
                message, descriptors, _, _ = socket.recv_fds(self._asked, MESSAGE_MAX, STREAMS + 1)
                if not message:
                    return None
                wanted = self._fork(json.loads(message), descriptors)
                if wanted is not None:
                    return wanted

    def _fork(self, wanted: dict[str, Any], descriptors: list[int]) -> dict[str, Any] | None:
        pid = os.fork()
        if pid:
            for each in descriptors[:STREAMS]:
                os.close(each)
            watched = os.pidfd_open(pid)
            self._running[watched] = pid, descriptors[STREAMS]
            self._ready.register(watched, selectors.EVENT_READ)
            self._asked.send(b"%d" % pid)
            return None
        self._ready.close()
        self._asked.close()
        for number, each in enumerate(descriptors[:STREAMS]):
            os.dup2(each, number)
        for watched, (_, status) in self._running.items():
            os.close(watched)
            os.close(status)
        for each in descriptors:
            if each >= STREAMS:
                os.close(each)
        return wanted

    def _ended(self, watched: int) -> None:
        pid, status = self._running.pop(watched)
        _, found = os.waitpid(pid, 0)
        with contextlib.suppress(BrokenPipeError):  # nobody wants to know
            os.write(status, b"%d" % found)
        self._ready.unregister(watched)
        os.close(watched)
        os.close(status)

    def kill(self) -> None:
        """End all that still run."""
        for watched in self._running:
            signal.pidfd_send_signal(watched, signal.SIGKILL)


def become(wanted: dict[str, Any]) -> None:
    """Run the program, as an interpreter does that has just started."""
    if wanted["session"]:
        os.setsid()
    os.chdir(wanted["folder"])
    os.umask(wanted["umask"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
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
