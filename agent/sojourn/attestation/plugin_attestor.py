"""An attestor in a process of its own: whatever goes wrong there, here it is one that cannot tell.

That process is killed and started anew when its event loop stands still, when it does not stop what it is told to stop,
and when it says what makes no sense. Who else had a question under way is then asked about again, one at a time: so it
comes out on which process an attestor breaks, and nobody else goes without an answer.
"""

import asyncio
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

import structlog

from sojourn.attestation.attestor import Answer, Subject
from sojourn.attestation.plugin_process import HostProcess
from sojourn.errors import AttestationFailed, InvalidConfig
from sojourn.limits import (
    HOST_CLOSE_SECONDS,
    HOST_LINES_PER_SECOND,
    HOST_MEMORY_MAX_BYTES,
    HOST_REQUESTS_AT_ONCE,
    HOST_RESTART_EVERY_SECONDS,
    HOST_RESTART_WAITED_SECONDS,
    HOST_RESTARTS_AT_ONCE,
    HOST_SILENT_SECONDS,
    HOST_START_SECONDS,
    HOST_STUCK_MAX,
    HOST_UNANSWERED_MAX,
)
from sojourn.quota.rate import Rate
from sojourn.runtime.clock import Clock
from sojourn.runtime.hooks import Hooks

log = structlog.get_logger()
_UNHARMED_SECONDS = 0.1  # in which an attestor that breaks on a process has begun to
_KILLED_SECONDS = 1.0  # in which what was killed is gone, if it does not wait for a file system


class _Over(Exception):
    """The process ended while it was asked. `alone`: about nothing else."""

    def __init__(self, reason: str, *, alone: bool) -> None:
        super().__init__(reason)
        self.alone = alone


class _NotStarted(Exception):
    """The process could not be started, or ended before the attestor was made."""


@dataclass(slots=True, eq=False)
class _Question:
    pid: int  # of whom
    answer: asyncio.Future[Answer]
    stop: asyncio.TimerHandle | None = None  # set once nobody waits for it any more


class HostedAttestor:
    """The attestor that `point` names, in a process of its own. `start` it before it is asked."""

    def __init__(self, point: EntryPoint, settings: Mapping[str, Any], clock: Clock) -> None:
        self._point = point
        self._settings = settings
        self._clock = clock
        self._process: HostProcess | None = None
        self._ended: list[HostProcess] = []  # those that the kernel is not done with
        self._starting: asyncio.Future[None] | None = None
        self._made: asyncio.Future[Mapping[str, Any]] | None = None
        self._closed = False
        self._numbers = itertools.count(1)
        self._questions: dict[int, _Question] = {}
        self._slots = asyncio.Semaphore(HOST_REQUESTS_AT_ONCE)
        self._suspects = 0  # questions that were under way when a process ended, and are to be asked alone
        self._one_by_one = asyncio.Lock()
        self._no_suspects = asyncio.Event()
        self._no_suspects.set()
        self._pongs: dict[int, asyncio.Future[None]] = {}  # that it owes
        self._pong: asyncio.Future[None] | None = None  # by which it is watched
        self._pinged_at = 0.0
        self._tick: asyncio.TimerHandle | None = None
        self._unanswered = 0  # in a row
        self._starts_at = 0.0  # on the boot clock, the next time
        self._due = -math.inf  # on the boot clock, if starts were evenly spread
        self._why = ""
        self.on_end: Hooks[[str]] = Hooks()  # its name, when its process ended while the agent runs
        # Of tracebacks: who is asked about may have it raise at will.
        self._logged = Rate(HOST_LINES_PER_SECOND, clock.boot)
        self.starts = 0

    @property
    def pid(self) -> int:
        """The pid of its process; 0 while there is none."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start its process for the first time. Raise InvalidConfig with faults that begin with the key."""
        try:
            self._process = await self._begin()
        except _NotStarted as error:
            raise InvalidConfig([f": {error}"]) from error

    async def attest(self, subject: Subject) -> Answer:
        """What the attestor says. Raise AttestationFailed if it cannot tell, or its process ended of this question."""
        async with self._slots:
            try:
                try:
                    return await self._ask(subject)
                except _Over as over:
                    if over.alone:
                        raise
                return await self._suspect(subject)
            except _Over as over:
                raise AttestationFailed(f"{over}, asked about process {subject.pid}") from None

    async def close(self) -> None:
        """End its process: by itself if it will, so that it can let go of what it holds."""
        self._closed = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        if self._tick is not None:
            self._tick.cancel()
        process = self._process
        if process is not None:
            process.finish()
            await process.wait_gone(HOST_CLOSE_SECONDS + 1)
            process.end("the agent ends")
        for each in self._ended[-HOST_STUCK_MAX:]:
            await each.wait_gone(_KILLED_SECONDS)

    # --- questions ---

    async def _ask(self, subject: Subject) -> Answer:
        return await self._result(*await self._put(subject, suspected=False))

    async def _suspect(self, subject: Subject) -> Answer:
        """Ask again, beside nobody until it is clear that the process gets over it."""
        self._suspects += 1  # before there is a process again, so that nobody comes in between
        self._no_suspects.clear()
        try:
            async with self._one_by_one:
                asking = asyncio.ensure_future(self._result(*await self._put(subject, suspected=True)))
                try:
                    await asyncio.wait([asking], timeout=_UNHARMED_SECONDS)
                    either: list[asyncio.Future[Any]] = [asking, self._pinged()]
                    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                except asyncio.CancelledError:
                    asking.cancel()
                    raise
        finally:
            self._suspects -= 1
            if not self._suspects:
                self._no_suspects.set()
        return await asking

    async def _put(self, subject: Subject, *, suspected: bool) -> tuple[int, _Question]:
        """Send a question, as soon as there is a process for it."""
        while True:
            if not suspected:
                await self._no_suspects.wait()
            process = await self._running()
            if suspected or self._no_suspects.is_set():
                break
        number = next(self._numbers)
        question = self._questions[number] = _Question(subject.pid, asyncio.get_running_loop().create_future())
        told = {"pid": subject.pid, "uid": subject.uid, "gid": subject.gid, "groups": sorted(subject.groups)}
        process.send(
            {"do": "attest", "id": number, **told, "cgroup": subject.cgroup, "who": subject.who}, subject.pidfd
        )
        if self._tick is None:
            self._watch()
        return number, question

    async def _result(self, number: int, question: _Question) -> Answer:
        try:
            return await question.answer
        except asyncio.CancelledError:
            process = self._process
            if process is not None and self._questions.get(number) is question:
                process.send({"do": "cancel", "id": number})
                why = f"it went on after it was told to stop asking about process {question.pid}"
                question.stop = asyncio.get_running_loop().call_later(HOST_SILENT_SECONDS, process.end, why)
            raise

    def _pinged(self) -> "asyncio.Future[None]":
        """What is done as soon as the process answers, or is over."""
        pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._process is None:
            pong.set_result(None)
            return pong
        number = next(self._numbers)
        self._pongs[number] = pong
        self._process.send({"do": "ping", "id": number})
        return pong

    def _watch(self) -> None:
        """While there are questions: see that the event loop of the process comes to answering."""
        self._tick = None
        process, loop = self._process, asyncio.get_running_loop()
        if process is None or not self._questions:
            return
        if self._pong is None or self._pong.done():
            self._pong, self._pinged_at = self._pinged(), loop.time()
        patience = HOST_SILENT_SECONDS / 2 if self._suspects else HOST_SILENT_SECONDS  # others wait for a suspect
        if loop.time() - self._pinged_at >= patience and not self._pong.done():
            process.read()  # it may have answered long ago, and it was this agent that stood still
            if not self._pong.done():
                process.end(f"it stood still for {patience:g} s")
                return
        self._tick = loop.call_later(HOST_SILENT_SECONDS / 4, self._watch)

    def _heard(self, message: dict[str, Any]) -> None:
        """One message of the process."""
        if self._made is not None and not self._made.done():
            self._made.set_result(message)
            return
        process = self._process
        if process is None:
            return
        pong = self._pongs.pop(_number(message, "pong"), None)
        if pong is not None:
            if not pong.done():
                pong.set_result(None)
            return
        number = _number(message, "id")
        question = self._questions.pop(number, None)
        if question is None:
            process.end("it said what nobody had asked")
            return
        if question.stop is not None:
            question.stop.cancel()
            self._unanswered += 1
            if self._unanswered >= HOST_UNANSWERED_MAX:
                process.end(f"it answered none of the last {HOST_UNANSWERED_MAX} questions in time")
            return
        self._unanswered = 0
        if question.answer.done():
            return
        try:
            question.answer.set_result(_answer(message))
        except AttestationFailed as error:
            question.answer.set_exception(error)
        except (KeyError, TypeError, ValueError):
            question.answer.set_exception(AttestationFailed("it gave what is no answer"))
        if "raised" in message and self._logged.allow(self._point.name):
            log.error(
                "attestor_raised",
                attestor=self._point.name,
                pid=question.pid,
                reason=f"attest raised {message['raised']}",
                error=str(message["raised"]),
                traceback=str(message.get("detail", "")),
            )
        if message.get("raised") == "MemoryError":
            process.end(f"it took more than {HOST_MEMORY_MAX_BYTES} bytes of memory")

    # --- its process ---

    async def _running(self) -> HostProcess:
        while self._process is None:
            if self._closed:
                raise AttestationFailed("the agent ends")
            if self._starting is None:
                self._start_again()
            seconds = self._starts_at - self._clock.boot()
            if seconds > HOST_RESTART_WAITED_SECONDS:
                raise AttestationFailed(f"{self._why}; it is started again in {seconds:.0f} s")
            assert self._starting is not None
            await asyncio.wait([self._starting])
        return self._process

    def _start_again(self) -> None:
        now = self._clock.boot()
        self._due = max(self._due, now - (HOST_RESTARTS_AT_ONCE - 1) * HOST_RESTART_EVERY_SECONDS)
        self._starts_at = max(now, self._due)
        self._due += HOST_RESTART_EVERY_SECONDS
        self._starting = asyncio.ensure_future(self._restart(self._starts_at - now))

    async def _restart(self, delay: float) -> None:
        try:
            await asyncio.sleep(delay)
            self._process = await self._begin()
        except Exception as error:  # noqa: BLE001  # of whatever kind, it is tried again
            self._why = "; ".join(error.faults) if isinstance(error, InvalidConfig) else str(error)
            log.error("attestor_not_started", attestor=self._point.name, reason=self._why)
            self._start_again()
        else:
            self._starting = None
            log.info("attestor_started_again", attestor=self._point.name, attestor_pid=self._process.pid)

    async def _begin(self) -> HostProcess:
        """Start a process and have it make the attestor. Raise InvalidConfig, or _NotStarted."""
        self._ended = [each for each in self._ended if not each.gone]
        if len(self._ended) >= HOST_STUCK_MAX:
            raise _NotStarted(f"{HOST_STUCK_MAX} of its processes cannot be ended: they wait for a file system")
        self._pong = None
        made = self._made = asyncio.get_running_loop().create_future()
        try:
            process = HostProcess(self._point.name, self._heard, self._is_over, self._clock)
        except OSError as error:
            raise _NotStarted(f"cannot be started: {error.strerror}") from error
        self.starts += 1
        try:
            make = {"name": self._point.name, "value": self._point.value, "settings": dict(self._settings)}
            process.send({"do": "make", **make})
            async with asyncio.timeout(HOST_START_SECONDS):
                message = await made
            if "faults" in message:
                raise InvalidConfig([str(fault) for fault in message["faults"]])
            if "broken" in message:
                log.error("attestor_broken", attestor=self._point.name, traceback=str(message.get("detail", "")))
                raise InvalidConfig([f": cannot be loaded: {message['broken']}"])
            if process.why is not None:
                raise _NotStarted(process.why)
        except TimeoutError:
            await self._give_up(process)
            raise _NotStarted(f"did not start within {HOST_START_SECONDS:g} s") from None
        except BaseException:
            await self._give_up(process)
            raise
        return process

    async def _give_up(self, process: HostProcess) -> None:
        if self._made is not None:
            self._made.cancel()
        process.end("it did not start")
        await process.wait_gone(_KILLED_SECONDS)

    def _is_over(self, process: HostProcess, why: str) -> None:
        self._ended.append(process)
        if self._made is not None and not self._made.done():
            self._made.set_exception(_NotStarted(f"its process: {why}"))
        if self._process is not process:
            return
        self._process = None
        self._why = f"its process ended: {why}"
        self._unanswered = 0
        for pong in self._pongs.values():
            if not pong.done():
                pong.set_result(None)
        self._pongs.clear()
        questions, self._questions = self._questions, {}
        for question in questions.values():
            if question.stop is not None:
                question.stop.cancel()
            elif not question.answer.done():
                question.answer.set_exception(_Over(self._why, alone=len(questions) == 1))
        if not self._closed:
            asked = sorted({each.pid for each in questions.values()})
            log.error("attestor_ended", attestor=self._point.name, reason=why, asked_about=asked)
            self.on_end.tell(self._point.name)
            self._start_again()


def _number(message: Mapping[str, Any], key: str) -> int:
    """The number of a question or ping that a message answers; -1, which none has, if it names none."""
    value = message.get(key)
    return value if isinstance(value, int) else -1


def _answer(message: Mapping[str, Any]) -> Answer:
    """What a message says. Raise AttestationFailed if that is a failure, and KeyError and the like if it is nothing."""
    if "failed" in message:
        raise AttestationFailed(str(message["failed"]), detail=str(message.get("detail", "")))
    if "raised" in message:
        raise AttestationFailed(f"failed: {message['raised']}")
    values, withheld, untold, age = (message[name] for name in ("values", "withheld", "untold", "age"))
    if not (isinstance(values, list) and isinstance(withheld, dict) and isinstance(untold, dict)):
        raise TypeError("values are a list, and why others are missing is a table")
    if not all(isinstance(each, str) for each in (*values, *withheld.values(), *untold.values())):
        raise TypeError("values and reasons are texts")
    if isinstance(age, bool) or not isinstance(age, int | float) or not (math.isfinite(age) and age >= 0):
        raise ValueError("an age is a number of seconds")
    return Answer(frozenset(values), withheld, float(age), untold)
