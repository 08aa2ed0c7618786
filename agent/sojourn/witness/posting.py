"""The agent's side: one witness that is sent the log's checkpoints, at its own pace, and waited for by nobody.

A cosignature counts once it is verified by the witness's key, and is on disk then. What the witness knows of the log,
and this agent does not, is said loudly: somebody else signs with the log's key.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

import structlog

from sojourn.audit.journal import Audit
from sojourn.audit.signed_log import SignedLog
from sojourn.errors import InvalidInput, NotFound, SojournError, Unavailable
from sojourn.operating_limits import (
    WITNESS_AGAIN_SECONDS,
    WITNESS_AHEAD_SECONDS,
    WITNESS_RETRY_MAX_SECONDS,
    WITNESS_RETRY_SECONDS,
)
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.guarded_http import GuardedHttp
from sojourn.providers.http import HttpResponse
from sojourn.runtime.backoff import pause_after
from sojourn.runtime.clock import Clock
from sojourn.tlog.add_checkpoint import PATH, SIZE, SIZE_TYPE, AddCheckpoint
from sojourn.tlog.checkpoints import Checkpoint
from sojourn.tlog.notes import Note, VerifierKey, parse_lines

log = structlog.get_logger()
_CONTENT: Final = "text/plain; charset=utf-8"
_TRIES: Final = 3  # of one checkpoint: what the witness knows may be news twice
_SAID: Final = {
    400: "it cannot read what it is sent (status 400)",
    403: "it does not trust the log's key as it is now: give it the one of `sojourn audit key`",
    404: "it does not know this log, or the address is not a witness's: give it the key of `sojourn audit key`",
    429: "it is asked too often (status 429)",
}


class WitnessDown(Unavailable):
    """A witness has not cosigned what it was sent, and may do so later."""


class LogForked(WitnessDown):
    """A witness has seen another head of this log than the one that is signed here."""


class WitnessForgot(WitnessDown):
    """A witness has less of this log than it has cosigned, so that nothing that it cosigns now can be relied on."""


@dataclass(frozen=True, slots=True)
class AboutWitness:
    """What a witness is, for people. `to`: the authority of its URL."""

    name: str
    to: str
    url: str
    key: VerifierKey
    every_seconds: float


class WitnessPosting:
    """Has the log cosigned by one witness until it is cancelled. Figures are those of the last answer."""

    def __init__(
        self,
        about: AboutWitness,
        http: GuardedHttp,
        signed: SignedLog,
        audit: Audit,
        clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`chance`: a number from 0 to 1, by which pauses differ."""
        self.about = about
        self.fault = ""  # why it cosigns nothing now
        self.failing_since = 0.0  # seconds since the epoch; 0: it is not
        self.forked = False  # what it says of the log contradicts what is signed here
        self.wake = asyncio.Event()
        self._http = http
        self._signed = signed
        self._audit = audit
        self._clock = clock
        self._chance = chance
        self._begun = clock.now().timestamp()
        self._posted = 0.0  # on the boot clock, when it last cosigned in this run; 0: it has not
        self._tried = 0  # failures in a row
        self._told_fork = self._told_forgot = False
        last = signed.cosigned.last(signed.state.origin, about.key)
        self._known = 0 if last is None else last[0].size  # leaves that the witness is thought to know

    @property
    def size(self) -> int:
        """How many leaves the last checkpoint of the log that is signed now has that it has cosigned."""
        last = self._signed.cosigned.last(self._signed.state.origin, self.about.key)
        return 0 if last is None else last[0].size

    @property
    def cosigned_at(self) -> int:
        """When that was, by the witness's clock, seconds since the epoch; 0: there is none."""
        last = self._signed.cosigned.last(self._signed.state.origin, self.about.key)
        return 0 if last is None else last[1].cosigned_at(self.about.key) or 0

    @property
    def age_seconds(self) -> float:
        """How long ago that was; where there is none, since when there is this agent."""
        return max(0.0, self._clock.now().timestamp() - (self.cosigned_at or self._begun))

    async def run(self) -> NoReturn:
        """Send until cancelled."""
        while True:
            try:
                async with asyncio.timeout(WITNESS_AGAIN_SECONDS):
                    await self.wake.wait()
            except TimeoutError:
                pass
            self.wake.clear()
            await self._until_cosigned()
            await asyncio.sleep(self.about.every_seconds)

    async def close(self) -> None:
        await self._http.close()

    async def _until_cosigned(self) -> None:
        while True:
            try:
                await self.step()
            except SojournError as error:
                await asyncio.sleep(self.failed(error))
            except Exception as error:
                log.exception("audit_witness_broken", witness=self.about.name)
                await asyncio.sleep(self.failed(WitnessDown(f"the agent failed: {type(error).__name__}")))
            else:
                return

    @property
    def is_due(self) -> bool:
        """Whether there is a checkpoint that it has not cosigned, or not of late."""
        state = self._signed.state
        if not state.checkpoint:
            return False
        old = not self._posted or self._clock.boot() - self._posted >= WITNESS_AGAIN_SECONDS
        return state.size != self.size or old

    async def step(self) -> None:
        """Have the last checkpoint cosigned, if that is due. Raise WitnessDown, StoreFailed."""
        if not self.is_due:
            return
        for _ in range(_TRIES):
            try:
                note, proof = await self._signed.lead_on(self._known)
            except NotFound as error:
                if self._known > self._signed.state.size:
                    raise await self._fork(f"it has cosigned {self._known} leaves of this log") from error
                raise WitnessDown(f"{error.public}, so that nothing can be proved to it") from error
            answer = await self._post(AddCheckpoint(self._known, tuple(proof), note))
            if await self._taken(note, answer):
                return
        raise WitnessDown("it says something else each time of what it knows of the log")

    async def _post(self, request: AddCheckpoint) -> HttpResponse:
        try:
            return await self._http.post_content(
                f"{self.about.url}{PATH}", request.written(), step="witness", headers={"content-type": _CONTENT}
            )
        except ProviderUnavailable as error:
            hint = f"; {error.hint}" if error.hint else ""
            raise WitnessDown(f"{error.public}{hint}", detail=error.detail) from error

    async def _taken(self, note: Note, answer: HttpResponse) -> bool:
        """Whether it is cosigned. False: it is to be asked again, as it knows of another size."""
        checkpoint = Checkpoint.parse(note.text)
        if answer.status == 200:
            await self._keep(checkpoint, note, answer.body)
            return True
        if answer.status == 409:
            size = _size_in(answer)
            if size > self._signed.state.size:
                raise await self._fork(f"it has cosigned {size} leaves of this log, which has {checkpoint.size} here")
            if size < self.size:
                raise self._forgot(size)
            if size == self._known == checkpoint.size:
                raise await self._fork(f"it has cosigned another head of {size} leaves")
            self._known = size
            return False
        if answer.status == 422:
            raise await self._fork(f"what it has cosigned, {self._known} leaves, is not how the log here begins")
        raise WitnessDown(_SAID.get(answer.status, f"it answered with status {answer.status}"))

    async def _keep(self, checkpoint: Checkpoint, note: Note, body: bytes) -> None:
        key = self.about.key
        try:
            answered = Note(note.text, parse_lines(body.decode()))
        except (InvalidInput, UnicodeError) as error:
            raise WitnessDown("its answer is not made of signatures") from error
        at = answered.cosigned_at(key)
        if at is None:
            raise WitnessDown("its answer has no good cosignature by the key of the configuration")
        if at > self._clock.now().timestamp() + WITNESS_AHEAD_SECONDS:
            raise WitnessDown("its cosignature is of a time to come: its clock or this one is wrong")
        cosigned = note.with_lines(answered.good_lines(key))  # the latest: a hundred would leave no room for others
        await asyncio.to_thread(self._signed.cosigned.keep, checkpoint, cosigned, key)
        self._known, self._posted = checkpoint.size, self._clock.boot()
        if self.fault:
            log.info("audit_witness_cosigns_again", witness=self.about.name)
        self.fault, self.failing_since, self._tried, self.forked = "", 0.0, 0, False
        self._told_fork = self._told_forgot = False

    async def _fork(self, said: str) -> LogForked:
        """Say it where it is not overlooked, once until it is over, and in the journal, which goes to sinks."""
        self.forked = True
        if not self._told_fork:
            self._told_fork = True
            state = self._signed.state
            log.error("audit_log_forked", witness=self.about.name, origin=state.origin, reason=said)
            fields = {"witness": self.about.name, "origin": state.origin, "size": state.size, "reason": said}
            self._audit.note("audit_log_forked", **fields)
        return LogForked(f"{said}: somebody else signs with this log's key, or has changed this database")

    def _forgot(self, size: int) -> WitnessForgot:
        """Say it once until it is over. It is not led on: from now on it would cosign what it has seen otherwise."""
        said = f"it says that it knows {size} leaves, and has cosigned {self.size} of this log"
        if not self._told_forgot:
            self._told_forgot = True
            origin = self._signed.state.origin
            log.error("audit_witness_forgot", witness=self.about.name, origin=origin, reason=said)
        return WitnessForgot(f"{said}: give it back what it had, or make a new witness with another key")

    def failed(self, error: SojournError) -> float:
        """It cosigns nothing now. Return for how many seconds it is left alone."""
        if not self.fault:
            self.failing_since = self._clock.now().timestamp()
            told = {"reason": error.public, "detail": error.detail or None}
            log.warning("audit_witness_failing", witness=self.about.name, **told)
        self.fault = error.public
        self._tried += 1
        return pause_after(self._tried - 1, WITNESS_RETRY_SECONDS, WITNESS_RETRY_MAX_SECONDS, self._chance())


def _size_in(answer: HttpResponse) -> int:
    """The size that a witness knows. Raise WitnessDown."""
    text = answer.body.decode("latin-1").removesuffix("\n")
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != SIZE_TYPE or SIZE.fullmatch(text) is None:
        raise WitnessDown("it answered with status 409, and no size of what it knows")
    return int(text)
