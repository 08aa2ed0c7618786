"""One way in which an attestor is configured and asked, and how it is tried."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from sojourn.attestation.attestor import Answer, Attestor, AttestorPlugin, Closing, PinnedSubject
from sojourn.attestation.selectors import Selector
from sojourn.errors import AttestationFailed, InvalidSelector
from sojourn.limits import ATTESTOR_DEADLINE_SECONDS, BLOCKING_THREADS, SELECTORS_PER_CALLER
from sojourn.testing.processes import child
from sojourn.testing.promises import Broken, expect

PROMPT_SECONDS: Final = 1.0  # in which what is cancelled ends
PULSE_SECONDS: Final = 0.02
REASON_MAX: Final = 500  # characters of a text for people
_Given = TypeVar("_Given")


@dataclass(frozen=True, kw_only=True)
class AttestorCase:
    """What the author of an attestor says of it to have it tried.

    `known` starts a process, or has one, of which `expected` is provably so, with whatever the attestor asks about it:
    a socket, a daemon. `child` of sojourn.testing.processes is such a process; `dataclasses.replace(subject,
    cgroup=…)` puts it elsewhere. `broken` are ways in which what the attestor asks is out of order, each by its name:
    within such a block it cannot tell. `quiet`: of a plain process it says nothing, and asks nobody to know that.
    """

    plugin: AttestorPlugin
    kinds: Collection[str]  # each value that it gives, and all that it withholds, begins with one of these and a colon
    settings: Mapping[str, Any] = field(default_factory=dict)  # its table of the configuration
    known: Callable[[], AbstractContextManager[PinnedSubject]] = child
    expected: Callable[[PinnedSubject], Collection[str]] | Collection[str] = ()
    broken: Mapping[str, Callable[[], AbstractContextManager[object]]] = field(default_factory=dict)
    quiet: bool = False

    def expected_of(self, subject: PinnedSubject) -> frozenset[str]:
        return frozenset(self.expected(subject) if callable(self.expected) else self.expected)


class TriedAttestor:
    """The attestor of a case, with a pool of its own."""

    def __init__(self, case: AttestorCase) -> None:
        self.case = case
        self.pool = ThreadPoolExecutor(BLOCKING_THREADS, thread_name_prefix="contract")
        try:
            self.attestor: Attestor = case.plugin(dict(case.settings), self.pool)
        except BaseException:
            self.pool.shutdown()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            if isinstance(self.attestor, Closing):
                async with asyncio.timeout(ATTESTOR_DEADLINE_SECONDS):
                    await self.attestor.close()
        except Exception as error:
            raise Broken(f"close raised {type(error).__name__}: {error}") from error
        finally:
            self.pool.shutdown(wait=False, cancel_futures=True)

    async def ask(self, subject: PinnedSubject, seconds: float = ATTESTOR_DEADLINE_SECONDS) -> Answer | str | None:
        """An answer, the reason why there is none, or None if it took longer than `seconds` and was cancelled.

        Raise Broken for anything else.
        """
        asking = asyncio.ensure_future(self._attest(subject))
        done, _ = await asyncio.wait([asking], timeout=seconds)
        if not done:
            await cut_off(asking)
            return None
        try:
            answer = asking.result()
        except AttestationFailed as error:
            expect(error.public.isprintable(), f"the reason is not one printable line: {error.public!r}")
            return error.public
        except asyncio.CancelledError:
            raise Broken("it was cancelled by nobody") from None
        except Exception as error:
            raise Broken(f"attest raised {type(error).__name__}: {error}") from error
        check_answer(answer, self.case.kinds)
        return answer

    async def answer(self, subject: PinnedSubject) -> Answer:
        """Its answer. Raise Broken if it has none within the deadline, or not what is expected."""
        found = await self.ask(subject)
        if not isinstance(found, Answer):
            raise Broken(f"it cannot tell of a process that it should know: {found or 'no answer within the deadline'}")
        missing = self.case.expected_of(subject) - found.values
        expect(not missing, f"it does not say {sorted(missing)}, but {sorted(found.values)}")
        return found

    def _attest(self, subject: PinnedSubject) -> Coroutine[Any, Any, Answer]:
        made: object = self.attestor.attest(subject)
        if not isinstance(made, Coroutine):
            raise Broken("attest is not a coroutine: write `async def attest`")
        return made


async def cut_off(work: "asyncio.Future[_Given]") -> None:
    """Cancel `work`. Raise Broken if it goes on."""
    work.cancel()
    await asyncio.wait([work], timeout=PROMPT_SECONDS)
    expect(work.done(), f"it goes on {PROMPT_SECONDS:g} s after it was cancelled")
    with suppress(asyncio.CancelledError, Exception):
        work.result()


def check_answer(answer: object, kinds: Collection[str]) -> None:
    """Raise Broken unless that is an answer that an agent can use."""
    expect(isinstance(answer, Answer), f"it gives {type(answer).__name__}, not an Answer")
    assert isinstance(answer, Answer)
    expect(isinstance(answer.values, frozenset), f"values are a {type(answer.values).__name__}, not a frozenset")
    expect(len(answer.values) <= SELECTORS_PER_CALLER, f"it gives {len(answer.values)} selectors")
    for value in answer.values:
        expect(isinstance(value, str), f"a value is {value!r}, not a text")
        try:
            Selector.from_parts("contract", value)
            value.encode()
        except (InvalidSelector, UnicodeEncodeError) as error:
            raise Broken(f"{value[:100]!r} is no value of a selector: {error}") from error
        kind, _, rest = value.partition(":")
        expect(kind in kinds and rest, f"{value[:100]!r} is not KIND:VALUE with a kind of {sorted(kinds)}")
    for kind, reason in (*answer.withheld.items(), *answer.untold.items()):
        expect(kind.partition(":")[0] in kinds, f"it withholds {kind!r}, which is none of {sorted(kinds)}")
        seen = f"why nothing is said of {kind} is not one printable line: {reason!r}"
        expect(reason and reason.isprintable() and len(reason) <= REASON_MAX, seen)
    expect(math.isfinite(answer.age) and answer.age >= 0, f"its age is {answer.age}")


class Pulse:
    """Sees whether the event loop is kept from its work while it is open, other than by the kernel running others."""

    _LATE_SECONDS: Final = 0.25

    def __init__(self) -> None:
        self._latest = 0.0
        self._beating: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._beating = asyncio.ensure_future(self._beat())

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(2 * PULSE_SECONDS)
        assert self._beating is not None
        self._beating.cancel()
        await asyncio.wait([self._beating])
        seen = f"for {self._latest:.2f} s it kept the event loop from its work: nobody else is attested meanwhile"
        expect(self._latest < self._LATE_SECONDS, seen)

    async def _beat(self) -> None:
        last, waited = time.monotonic(), _waited_to_run()
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            now, since = time.monotonic(), _waited_to_run()
            self._latest = max(self._latest, now - last - PULSE_SECONDS - (since - waited))
            last, waited = now, since


def _waited_to_run() -> float:
    """For how many seconds this thread has been ready to run while the kernel ran others; 0 if that is not told."""
    try:
        text = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").read_text("ascii")
    except OSError:
        return 0.0
    return int(text.split()[1]) / 1e9
