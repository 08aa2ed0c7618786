"""The agent's end of an attestor's process: starts it, tells it, hears it, logs what it prints, and ends it."""

import asyncio
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog

from sojourn.attestation.plugin_frames import Frames, frame_of
from sojourn.limits import HOST_LINE_MAX, HOST_LINES_PER_SECOND, HOST_READ_BYTES, HOST_READ_PAUSE_SECONDS
from sojourn.net.sockets import take_no_descriptors
from sojourn.quota.rate import Rate
from sojourn.runtime import ambient, own_programs
from sojourn.runtime.clock import Clock

log = structlog.get_logger()
_BEGIN: Final = """
from sojourn.attestation.plugin_host import main
main(int(sys.argv[2]), int(sys.argv[3]))
"""
_READ_BYTES: Final = 65_536


class HostProcess:
    """A process of its own for one attestor, started in the running loop."""

    def __init__(
        self,
        name: str,
        heard: Callable[[dict[str, Any]], None],
        ended: Callable[["HostProcess", str], None],
        clock: Clock,
    ) -> None:
        """`heard` is called with each message of it; `ended` once, with the reason. Raise OSError if it cannot be
        started.
        """
        self._heard = heard
        self._ended = ended
        self.why: str | None = None  # it ended; None while it has not
        self._gone = asyncio.Event()
        self._frames = Frames()
        self._outbox: deque[tuple[memoryview, int]] = deque()  # and the pidfd that goes with it, or -1
        self._loop = asyncio.get_running_loop()
        self._channel, theirs = socket.socketpair()
        take_no_descriptors(self._channel)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = _start(name, theirs.fileno(), writing)
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError:
            self._channel.close()
            os.close(reading)
            raise
        finally:
            theirs.close()
            os.close(writing)
        self.pid = self._process.pid
        self._channel.setblocking(False)
        self._loop.add_reader(self._channel.fileno(), self.read)
        self._loop.add_reader(self._pidfd, self._exited)
        self._output = _Output(name, self.pid, reading, clock)

    @property
    def gone(self) -> bool:
        """Whether the kernel has none of it any more."""
        return self._gone.is_set()

    async def wait_gone(self, seconds: float) -> None:
        """Return when it is gone, or after `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._gone.wait()

    def send(self, message: Mapping[str, Any], pidfd: int = -1) -> None:
        """Tell it, with a descriptor of which it gets a copy. What it does not take at once is kept until it does.

        Raise ValueError and TypeError as `frame_of` does.
        """
        frame = frame_of(message)
        if self.why is not None:
            return
        self._outbox.append((memoryview(frame), os.dup(pidfd) if pidfd >= 0 else -1))
        if len(self._outbox) == 1:
            self._write()

    def read(self) -> None:
        """Hear what it said by now."""
        try:
            data = self._channel.recv(_READ_BYTES)  # and no descriptors, where the kernel can refuse them
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._channel.fileno())
            self._loop.call_later(1.0, self.end, "it closed its connection")  # unless it ends, as it should
            return
        try:
            for message in self._frames.feed(data):
                self._heard(message)
                if self.why is not None:
                    return
        except ValueError as error:
            self.end(f"it sent {error}")

    def finish(self) -> None:
        """Let it end by itself: it hears no more, and should close what it holds."""
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)

    def end(self, reason: str) -> None:
        """Kill it, with all that it has started. It is over at once, whether or not the kernel is done with it."""
        if self.why is not None:
            return
        self.why = reason
        self._loop.remove_reader(self._channel.fileno())
        self._loop.remove_writer(self._channel.fileno())
        self._channel.close()
        for _, pidfd in self._outbox:
            _close(pidfd)
        self._outbox.clear()
        self._kill()
        self._ended(self, reason)

    def _exited(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._kill()  # not collected yet, it still has its group: what it started goes too
        status = self._process.wait()
        self._gone.set()
        self._output.close()
        self.end(_how(status))

    def _kill(self) -> None:
        if not self.gone:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _write(self) -> None:
        while self._outbox:
            frame, pidfd = self._outbox[0]
            try:
                sent = socket.send_fds(self._channel, [frame], [pidfd] if pidfd >= 0 else [])
            except BlockingIOError:
                self._loop.add_writer(self._channel.fileno(), self._write)
                return
            except OSError:  # it is about to end
                return
            _close(pidfd)
            if sent < len(frame):
                self._outbox[0] = (frame[sent:], -1)
            else:
                self._outbox.popleft()
        self._loop.remove_writer(self._channel.fileno())


class _Output:
    """What a process prints: logged line by line up to a limit, and read no faster than that costs nobody anything."""

    def __init__(self, name: str, pid: int, descriptor: int, clock: Clock) -> None:
        self._log = log.bind(attestor=name, attestor_pid=pid)
        self._descriptor = descriptor
        self._line = b""
        self._logged = Rate(HOST_LINES_PER_SECOND, clock.boot)
        self._warned = Rate(1, clock.boot)
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._readable)

    def close(self) -> None:
        """Log what is there, and read no more."""
        with suppress(OSError):
            self._say(os.read(self._descriptor, 4 * HOST_READ_BYTES) + b"\n")
        self._stop()
        os.close(self._descriptor)

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, HOST_READ_BYTES)
        except BlockingIOError:
            return
        self._stop()
        if data:
            self._say(data)
            self._pause = self._loop.call_later(HOST_READ_PAUSE_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._descriptor, self._readable)

    def _stop(self) -> None:
        self._loop.remove_reader(self._descriptor)
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _say(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        self._line = self._line[:HOST_LINE_MAX]
        for line in lines:
            if not line.strip():
                continue
            if self._logged.allow(""):
                self._log.info("attestor_said", text=line[:HOST_LINE_MAX].decode(errors="backslashreplace"))
            elif self._warned.allow(""):
                self._log.warning("attestor_says_too_much")


def _start(name: str, channel: int, output: int) -> "subprocess.Popen[bytes]":
    with ambient.passed_on():  # it looks at processes as the agent does
        return own_programs.start(
            _BEGIN,
            channel,
            str(os.getpid()),
            f"attestor:{name}",  # for whoever looks at a list of processes
            options=("-u", "-X", "faulthandler"),
            output=output,
        )


def _how(status: int) -> str:
    if status >= 0:
        return f"it ended with status {status}"
    try:
        return f"it was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"it was killed by signal {-status}"


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)
