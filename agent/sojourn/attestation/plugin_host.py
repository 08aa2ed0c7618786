"""The process that one attestor runs in, for attestors that do not come with Sojourn: what the agent's side starts.

It has standard input and output, and one socket over which it is told what to do (attestation/plugin_frames.py):

    {"do": "make", "name", "value", "settings"}   answered by {"made"}, {"faults"} or {"broken", "detail"}
    {"do": "attest", "id", "pid", …}              with the pidfd; answered by one message with that `id`
    {"do": "cancel", "id"}                        whereupon that answer comes at once
    {"do": "ping", "id"}                          answered by {"pong"}, if the event loop is free

It ends when the socket does, and is killed when the agent ends. It keeps faults from the agent, not malice: it runs as
the agent's user, with the agent's capabilities.
"""

import asyncio
import ctypes
import logging
import os
import resource
import signal
import socket
import sys
import traceback
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import EntryPoint
from typing import Any, Final

import structlog

from sojourn.attestation.attestor import Answer, Attestor, Closing, PinnedSubject
from sojourn.attestation.plugin_frames import Frames, frame_of
from sojourn.errors import InvalidConfig, SojournError
from sojourn.limits import (
    BLOCKING_THREADS,
    HOST_CLOSE_SECONDS,
    HOST_DETAIL_MAX,
    HOST_FILES_MAX,
    HOST_MEMORY_MAX_BYTES,
    SELECTORS_PER_CALLER,
)

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_READ_BYTES: Final = 65_536
_DESCRIPTORS: Final = 8  # in one read; the agent sends one with each message


def main(descriptor: int, agent: int) -> None:
    """Serve until the socket `descriptor` ends. `agent`: the pid of whoever started this."""
    _confine(agent)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(name)s: %(message)s")
    structlog.configure(
        processors=[structlog.processors.KeyValueRenderer(key_order=["event"])],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    with socket.socket(fileno=descriptor) as channel:
        asyncio.run(Host(channel).run())
    os._exit(0)  # threads that a plugin left behind do not keep it


def _confine(agent: int) -> None:
    """Have the kernel see to it that this process ends with the agent, is the first to go when memory runs out, and
    takes no more than its share.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != agent:  # it ended before that was said
        os._exit(1)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _lower(resource.RLIMIT_DATA, HOST_MEMORY_MAX_BYTES)
    _lower(resource.RLIMIT_NOFILE, HOST_FILES_MAX)
    _lower(resource.RLIMIT_CORE, 0)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")


def _lower(kind: int, to: int) -> None:
    _, hard = resource.getrlimit(kind)
    most = to if hard == resource.RLIM_INFINITY else min(to, hard)
    resource.setrlimit(kind, (most, most))


class Host:
    """Does what it is told over `channel`."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._frames = Frames()
        self._pidfds: deque[int] = deque()  # of messages that are not complete yet
        self._attestor: Attestor | None = None
        self._asked: dict[int, asyncio.Task[None]] = {}
        self._over = asyncio.Event()
        self._pool = ThreadPoolExecutor(BLOCKING_THREADS, thread_name_prefix="blocking")

    async def run(self) -> None:
        """Return when the channel has ended and the attestor is closed."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel.fileno(), self._readable)
        await self._over.wait()
        loop.remove_reader(self._channel.fileno())
        for task in self._asked.values():
            task.cancel()
        attestor: object = self._attestor
        if isinstance(attestor, Closing):
            with suppress(Exception):
                async with asyncio.timeout(HOST_CLOSE_SECONDS):
                    await attestor.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _readable(self) -> None:
        try:
            data, ancillary, _, _ = self._channel.recvmsg(
                _READ_BYTES, socket.CMSG_SPACE(_DESCRIPTORS * 4), socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._pidfds.extend(memoryview(content[: len(content) // 4 * 4]).cast("i"))
        if not data:
            self._over.set()
            return
        for message in self._frames.feed(data):
            self._told(message)

    def _told(self, message: Mapping[str, Any]) -> None:
        match message["do"]:
            case "make":
                self._say(self._made(message["name"], message["value"], message["settings"]))
            case "attest":
                subject = PinnedSubject(
                    message["pid"],
                    message["uid"],
                    message["gid"],
                    frozenset(message["groups"]),
                    self._pidfds.popleft(),  # they come in the order of their messages
                    message["cgroup"],
                    message["who"],
                )
                number = message["id"]
                self._asked[number] = asyncio.get_running_loop().create_task(self._attest(number, subject))
            case "cancel":
                if message["id"] in self._asked:
                    self._asked[message["id"]].cancel()
            case "ping":
                self._say({"pong": message["id"]})

    def _made(self, name: str, value: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        try:
            plugin = EntryPoint(name, value, "sojourn.attestors").load()
            self._attestor = plugin(settings, self._pool)
        except InvalidConfig as error:
            return {"faults": [str(fault) for fault in error.faults]}
        except BaseException as error:  # noqa: BLE001  # whatever a plugin does, the agent is told of it
            return {"broken": type(error).__name__, "detail": _detail(error)}
        return {"made": True}

    async def _attest(self, number: int, subject: PinnedSubject) -> None:
        assert self._attestor is not None
        try:
            answer = await self._attestor.attest(subject)
            frame = frame_of({"id": number, **_content(answer)})
        except asyncio.CancelledError:
            frame = frame_of({"id": number, "ended": True})
        except SojournError as error:
            frame = frame_of(
                {"id": number, "failed": error.public[:HOST_DETAIL_MAX], "detail": error.detail[:HOST_DETAIL_MAX]}
            )
        except BaseException as error:  # noqa: BLE001  # as above
            frame = frame_of({"id": number, "raised": type(error).__name__, "detail": _detail(error)})
        finally:
            del self._asked[number]
            with suppress(OSError):  # a plugin may have closed it, which it should not
                os.close(subject.pidfd)
        self._channel.sendall(frame)

    def _say(self, message: Mapping[str, Any]) -> None:
        self._channel.sendall(frame_of(message))


def _content(answer: Answer) -> dict[str, Any]:
    """An answer as JSON. Raise an error of the attestor's if it is none."""
    if not isinstance(answer, Answer):
        raise TypeError(f"attest gave {type(answer).__name__}, not an Answer")
    if len(answer.values) + len(answer.withheld) + len(answer.untold) > SELECTORS_PER_CALLER:
        raise ValueError(f"it gave more than {SELECTORS_PER_CALLER} selectors")
    told = {"values": list(answer.values), "withheld": dict(answer.withheld), "untold": dict(answer.untold)}
    return {**told, "age": answer.age}


def _detail(error: BaseException) -> str:
    """The end of the traceback, which has what went wrong and where."""
    return "".join(traceback.format_exception(error))[-HOST_DETAIL_MAX:]
