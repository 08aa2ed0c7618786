"""The agent's end of the key process: starts it, asks it, and ends it when it is silent or answers wrongly.

One question is asked at a time. Whatever goes wrong ends the process, and another one is started after a pause, of
KEY_RETRY_SECONDS first and twice as long each time after, until what went wrong goes well. After a PIN that the token
refuses none is started until the PIN's file has changed.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog

from sojourn.authority.token import messages
from sojourn.authority.token.asked_process import Asked, begun
from sojourn.authority.token.pin import PinRecord, TriedPin
from sojourn.authority.token.settings import TokenSettings
from sojourn.errors import FailedPrecondition, KeysUnavailable, LimitExceeded, PinRefused
from sojourn.limits import (
    KEY_ANSWER_SECONDS,
    KEY_LOOK_SECONDS,
    KEY_OPEN_SECONDS,
    KEY_PROCESSES_STUCK,
    KEY_RETRY_MAX_SECONDS,
    KEY_RETRY_SECONDS,
)
from sojourn.runtime.clock import Clock
from sojourn.runtime.hooks import Hooks

log = structlog.get_logger()
_JITTER: Final = 0.25
_KILLED_SECONDS: Final = 2.0  # until a killed process is gone
_NOT_YET: Final = "the key process has not been started yet"
_OPEN, _LOGIN, _LOOK = "open", "login", "look"
_SILENT: Final = "the key process did not answer within {:g} s"


class KeyProcess:
    """The process that uses a token, whichever it is by now."""

    def __init__(
        self,
        settings: TokenSettings,
        record: PinRecord,
        clock: Clock,
        login: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        """`login` makes what the agent shows where the keys are, if that wants something: a JWT-SVID."""
        self.fault = _NOT_YET  # why the token cannot be used; empty: it can
        self.on_back: Hooks[[]] = Hooks()  # the token can be used again
        self.starts = 0
        self._settings = settings
        self._record = record
        self._clock = clock
        self._login = login
        self._child: Asked | None = None
        self._ended: list[Asked] = []  # those that are killed, and that the kernel may not be done with
        self._turn = asyncio.Lock()
        self._opening: asyncio.Task[Asked] | None = None
        self._failing = _LOOK  # what was asked as it failed last
        self._pause = KEY_RETRY_SECONDS
        self._due = clock.boot()
        self._refused: PinRefused | None = None
        self._refused_file: tuple[int, ...] | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    async def ask(self, do: str, **told: Any) -> dict[str, Any]:
        """Ask the process, which is started if it is due. Raise KeysUnavailable, LimitExceeded, FailedPrecondition."""
        async with self._turn:
            child = await self._ready()
            try:
                async with asyncio.timeout(KEY_ANSWER_SECONDS):
                    answer = await child.ask(do, told if do == _LOOK else told | await self._shown())
                done = _done(answer)
            except (LimitExceeded, FailedPrecondition):
                raise
            except TimeoutError:
                raise self._failed(do, child, _SILENT.format(KEY_ANSWER_SECONDS)) from None
            except KeysUnavailable as error:
                raise self._failed(do, child, error.public) from error
            except (OSError, EOFError, ValueError) as error:
                raise self._failed(do, child, _told(error)) from error
            except BaseException:  # whoever asked has given up: what comes is an answer to nothing
                self._failed(do, child, "a question to the key process was given up")
                raise
            self._succeeded(do, child)
        return done

    def watch(self) -> None:
        """Look from now on whether the token is there, and start the process again when it is not."""
        self._watching = asyncio.ensure_future(self._watch())

    async def close(self) -> None:
        for task in (self._watching, self._opening):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError, KeysUnavailable):
                    await task
        if self._child is not None:
            self._end(self._child)
            self._child = None
        with suppress(TimeoutError):
            async with asyncio.timeout(_KILLED_SECONDS):
                for each in self._ended:
                    await each.gone.wait()

    # --- its process ---

    async def _ready(self) -> Asked:
        if self._child is not None and self._child.has_left:
            self._end(self._child)
            self._child = None
        if self._child is not None:
            return self._child
        if self._opening is None or self._opening.done():
            if self._refused is not None:
                if self._refused_file == self._file():
                    raise PinRefused(self._refused.public)
                self._refused = None
            elif (wait := self._due - self._clock.boot()) > 0:
                raise KeysUnavailable(self.fault, detail=f"it is tried again in {wait:.0f} s")
            self._opening = asyncio.ensure_future(self._open())
            self._opening.add_done_callback(_heard)
        return await asyncio.shield(self._opening)

    async def _open(self) -> Asked:
        """Start a process and have it log in."""
        file = self._file()
        self._ended = [each for each in self._ended if not each.gone.is_set()]
        if len(self._ended) >= KEY_PROCESSES_STUCK:
            raise self._failed(
                _OPEN, None, f"{KEY_PROCESSES_STUCK} key processes cannot be ended: they wait for a device"
            )
        self.starts += 1
        try:
            child = begun(self._settings)
        except KeysUnavailable as error:
            raise self._failed(_OPEN, None, error.public) from error
        try:
            async with asyncio.timeout(KEY_OPEN_SECONDS):
                await self._log_in(child)
        except TimeoutError:
            raise self._failed(_OPEN, child, _SILENT.format(KEY_OPEN_SECONDS)) from None
        except PinRefused as error:
            if self._settings.place.pin_file:  # a service of its own follows the file itself, and tries no PIN twice
                self._refused, self._refused_file = error, file
            raise PinRefused(self._failed(_OPEN, child, error.public, code=error.code).public) from error
        except (KeysUnavailable, LimitExceeded, FailedPrecondition) as error:
            raise self._failed(_OPEN, child, error.public) from error
        except (OSError, EOFError, ValueError) as error:
            raise self._failed(_OPEN, child, _told(error)) from error
        except BaseException:
            self._end(child)
            raise
        self._child = child
        return child

    async def _log_in(self, child: Asked) -> None:
        """Have the PIN tried, unless it was refused before. It is on disk that it is tried before it is."""
        token = self._settings.place.label
        known, told = self._record.of(token), None
        if known is not None:
            told = {"salt": known.salt, "digest": known.digest, "refused": known.refused}
        tried = TriedPin(token)
        try:
            answer = _done(await child.ask(_OPEN, self._settings.message() | {"tried": told}))
            salt, digest = messages.fields(answer, salt=str, digest=str)
            tried = TriedPin(token, salt, digest)
            if digest:  # there is a PIN
                self._record.note_tried(tried)
            _done(await child.ask(_LOGIN, await self._shown()))
        except PinRefused as error:
            self._record.note_refused(tried, error)
            raise
        self._record.clear()

    def _succeeded(self, do: str, child: Asked) -> None:
        """A process does what it was asked. If the token was away it is back; a token that is there, and did not do
        something else, is not asked for that any sooner.
        """
        was_away = self._failing in {_OPEN, _LOOK}
        if was_away or do != _LOOK:
            self._pause, self._failing = KEY_RETRY_SECONDS, ""
        if self.fault:
            if self.fault != _NOT_YET:
                log.warning("keys_available", token=self._settings.place.label, key_process=child.pid)
            self.fault = ""
            if was_away:
                self.on_back.tell()

    def _failed(self, do: str, child: Asked | None, why: str, code: str = KeysUnavailable.code) -> KeysUnavailable:
        """End the process, which has failed as it was asked to `do` something; another is started after a pause."""
        if child is not None:
            self._end(child)
        if child is None or child is self._child or self._child is None:
            self._child, self._failing = None, do
            self._due = self._clock.boot() + self._pause * random.uniform(1 - _JITTER, 1.0)  # noqa: S311
            self._pause = min(2 * self._pause, KEY_RETRY_MAX_SECONDS)
            if why != self.fault:
                log.error("keys_unavailable", reason=why, code=code, token=self._settings.place.label)
            self.fault = why
        return KeysUnavailable(why)

    def _end(self, child: Asked) -> None:
        child.end()
        self._ended.append(child)

    async def _watch(self) -> None:
        while True:
            with suppress(KeysUnavailable, LimitExceeded, FailedPrecondition):
                await self.ask(_LOOK)
            child = self._child
            if child is None:
                held = self._refused is not None
                await asyncio.sleep(KEY_LOOK_SECONDS if held else max(0.05, self._due - self._clock.boot()))
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(KEY_LOOK_SECONDS):
                    await child.gone.wait()
                if child is self._child:
                    self._failed(_LOOK, child, "the key process has ended")

    async def _shown(self) -> dict[str, str]:
        return {} if self._login is None else {"login": await self._login()}

    def _file(self) -> tuple[int, ...] | None:
        """What tells a PIN's file from what was there before."""
        try:
            found = Path(self._settings.place.pin_file).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _done(answer: dict[str, Any]) -> dict[str, Any]:
    """What an answer says was done. Raise what it says instead, or ValueError."""
    if "ok" in answer:
        [done] = messages.fields(answer, ok=dict)
        return dict(done)
    code, said, more = messages.fields(answer, failed=str, said=str, more=str)
    match code:
        case messages.PIN_REFUSED:
            raise PinRefused(said, detail=more)
        case messages.TOKEN_AWAY:
            raise KeysUnavailable(said)
        case messages.LIMIT:
            raise LimitExceeded(said)
        case messages.NOT_BUILT:
            raise FailedPrecondition(said)
    raise ValueError("a failure that there is not")


def _told(error: Exception) -> str:
    if isinstance(error, EOFError | OSError):
        return "the key process has ended before it answered"
    return f"the key process sent what is no answer: {error}"


def _heard(task: "asyncio.Task[Asked]") -> None:
    """Whoever waited for it has heard what went wrong, and it stands in the log."""
    if not task.cancelled():
        task.exception()
