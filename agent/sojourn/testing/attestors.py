"""What every attestor keeps, of anyone's: run over one of yours, it says what is not so.

CONTRACT = AttestorContract(AttestorCase(plugin=SlurmAttestor, kinds={"job"}, known=…, expected={"job:7"}))

@pytest.mark.parametrize("promise", CONTRACT.promises, ids=str)
def test_contract(promise):
promise.run()
"""

import asyncio
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final

from sojourn.attestation.attestor import Answer
from sojourn.errors import InvalidConfig
from sojourn.limits import ATTESTOR_DEADLINE_SECONDS
from sojourn.testing.attestor_case import AttestorCase, Pulse, TriedAttestor, cut_off
from sojourn.testing.processes import child, ended, kill, oddly_named, oddly_placed
from sojourn.testing.promises import Broken, Outward, Promise, expect, promised, promises_of, told

__all__ = ["AttestorCase", "AttestorContract", "child"]

AT_ONCE: Final = 20
ROUNDS: Final = 50
CUT_ROUNDS: Final = 12  # so many turns of the event loop into an attestation it is cancelled at the latest
HANG_SECONDS: Final = 0.5  # as good as for ever
_WRONG: Final[tuple[Any, ...]] = (None, 0, -1, True, "", " ", "\x00", "x" * 100_000, [], {}, [None], {"x": 1}, 1e308)


class AttestorContract:
    """The promises of an attestor as one case has it."""

    connects = True  # what it asks may be behind a socket

    def __init__(self, case: AttestorCase) -> None:
        self.case = case

    @property
    def promises(self) -> Sequence[Promise]:
        return promises_of(self)

    # --- how it is made ---

    @promised("it is made without asking anybody")
    async def made(self) -> None:
        with Outward() as outward:
            async with TriedAttestor(self.case):
                pass
        expect(not outward.seen, f"it reached the outside while it was made: {', '.join(outward.seen)}")

    @promised("settings that are wrong are InvalidConfig with the key, and nothing else")
    async def settings(self) -> None:
        self._configured({**self.case.settings, "no_such_key": 1}, "no_such_key", must_fail=True)
        for key in self.case.settings:
            for wrong in _WRONG:
                self._configured({**self.case.settings, key: wrong}, key)
            without = {name: value for name, value in self.case.settings.items() if name != key}
            self._configured(without, key)

    def _configured(self, settings: dict[str, object], key: str, *, must_fail: bool = False) -> None:
        pool = ThreadPoolExecutor(1)
        try:
            self.case.plugin(settings, pool)
        except InvalidConfig as error:
            wrong = [fault for fault in error.faults if not fault.startswith((*settings, key, ": ", "  "))]
            expect(error.faults and not wrong, f"faults do not begin with their key: {error.faults}")
            expect(all(len(fault) < 2_000 for fault in error.faults), f"{key}: a fault repeats what was set")
        except Exception as error:
            raise Broken(f"{key} makes it raise {type(error).__name__}: {error}") from error
        else:
            expect(not must_fail, f"it takes the setting {key}")
        finally:
            pool.shutdown()

    # --- what it says ---

    @promised("of a process that it knows it says what is so, again and again, and starts no program to know it")
    async def tells(self) -> None:
        with self.case.known() as subject:
            async with TriedAttestor(self.case) as tried:
                with Outward(Outward.STARTS) as outward:
                    first = await tried.answer(subject)
                    again = await tried.answer(subject)
                expect(first.values == again.values, f"it says {sorted(first.values ^ again.values)} by turns")
                expect(not outward.seen, f"it starts programs: {', '.join(outward.seen)}")

    @promised("of many at once it says of each what is so of that one, and keeps the event loop from nothing")
    async def apart(self) -> None:
        with ExitStack() as stack:
            known = stack.enter_context(self.case.known())
            plain = [stack.enter_context(child()) for _ in range(3)]
            async with TriedAttestor(self.case) as tried:
                alone = {each.pid: await tried.ask(each) for each in (known, *plain)}
                asked = [known, *plain] * (AT_ONCE // 4)
                async with Pulse():
                    answers = await asyncio.gather(*(tried.ask(each) for each in asked))
                for subject, answer in zip(asked, answers, strict=True):
                    if isinstance(answer, Answer):  # it may refuse to be asked so often by one user
                        before = alone[subject.pid]
                        same = isinstance(before, Answer) and answer.values <= before.values
                        expect(
                            same and not _left_out(before, answer),
                            f"asked alone it says {before}, and beside others {answer}",
                        )
                await tried.answer(known)

    @promised("whatever a process and its cgroups are named, it gives valid selectors, or says that it cannot tell")
    async def garbage(self) -> None:
        async with TriedAttestor(self.case) as tried:
            with oddly_named() as subjects:
                for subject in subjects:
                    await self._in_time(tried, subject)
            with child() as subject:
                for name, odd in oddly_placed(subject):
                    with told(name):
                        await self._in_time(tried, odd)
            with self.case.known() as subject:
                await tried.answer(subject)

    async def _in_time(self, tried: TriedAttestor, subject: Any) -> Answer | str:
        found = await tried.ask(subject)
        if found is None:
            raise Broken(f"it has no answer within {ATTESTOR_DEADLINE_SECONDS:g} s")
        return found

    @promised("of a process that has ended it says nothing that was not so, and raises nothing else than it may")
    async def gone(self) -> None:
        async with TriedAttestor(self.case) as tried:
            for collected in (False, True):
                with ended(collected=collected) as subject, told(f"collected: {collected}"):
                    await self._in_time(tried, subject)
            for turns in range(CUT_ROUNDS):
                with child() as subject, told(f"it ends after {turns} turns"):
                    asking = asyncio.ensure_future(tried.ask(subject))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    kill(subject)
                    expect(await asking is not None, "it has no answer within the deadline")

    @promised("cancelled at any moment it ends at once, and answers the next as though nothing had been")
    async def cancelled(self) -> None:
        with self.case.known() as subject:
            async with TriedAttestor(self.case) as tried:
                for turns in range(CUT_ROUNDS):
                    asking = asyncio.ensure_future(tried.attestor.attest(subject))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    await cut_off(asking)
                await self._recovers(tried, subject)

    # --- what it asks is out of order ---

    @promised("if what it asks is out of order, it says so or is silent, and never leaves anything out instead")
    async def out_of_order(self) -> None:
        for name, broken in self.case.broken.items():
            with self.case.known() as subject, told(name):
                async with TriedAttestor(self.case) as tried:
                    async with Pulse():
                        with broken():
                            found = await tried.ask(subject, HANG_SECONDS)
                            if isinstance(found, Answer):
                                left_out = self.case.expected_of(subject) - found.values
                                missing = sorted(
                                    each for each in left_out if each.partition(":")[0] not in found.untold
                                )
                                expect(not missing, f"it answers as though {missing} were not so")
                    await self._recovers(tried, subject)

    @promised("of a process that is none of its own it says nothing, whatever is out of order")
    async def of_others(self) -> None:
        if not self.case.quiet:
            return
        for name, broken in self.case.broken.items():
            with self.case.known(), child() as subject, broken(), told(name):
                async with TriedAttestor(self.case) as tried:
                    found = await self._in_time(tried, subject)
                    if not isinstance(found, Answer) or found.values:
                        raise Broken(f"of a plain process it says {found}")

    async def _recovers(self, tried: TriedAttestor, subject: Any) -> None:
        """Raise Broken unless it answers as it should within the deadline of one attestation."""
        ends = asyncio.get_running_loop().time() + ATTESTOR_DEADLINE_SECONDS
        while True:
            try:
                await tried.answer(subject)
            except Broken:
                if asyncio.get_running_loop().time() > ends:
                    raise
                await asyncio.sleep(0.05)
            else:
                return

    # --- what it leaves ---

    @promised("it leaves the handle on the process as it is, and no files, threads or tasks behind")
    async def tidy(self) -> None:
        with self.case.known() as subject:
            handle = os.fstat(subject.pidfd)
            async with TriedAttestor(self.case) as tried:
                for _ in range(3):
                    await tried.answer(subject)
                before = _held()
                for _ in range(ROUNDS):
                    await tried.answer(subject)
                    await tried.ask(replace(subject, cgroup=""))
                files, threads, tasks = _held()
                expect(files <= before[0] + 2, f"after {ROUNDS} attestations {files - before[0]} more files are open")
                expect(threads <= before[1] + 8, f"after {ROUNDS} attestations there are {threads} threads")
                expect(tasks <= before[2] + 1, f"after {ROUNDS} attestations {tasks - before[2]} more tasks run")
            try:
                left = os.fstat(subject.pidfd)
            except OSError as error:
                raise Broken("it closed the handle on the process, which is not its own") from error
            expect((handle.st_dev, handle.st_ino) == (left.st_dev, left.st_ino), "it replaced the handle")


def _left_out(so: Any, answer: Answer) -> list[str]:
    """What is so, by one answer, and neither in another one nor said there to be untold."""
    return sorted(each for each in so.values - answer.values if each.partition(":")[0] not in answer.untold)


def _held() -> tuple[int, int, int]:
    """How many files, threads and tasks there are now."""
    return len(os.listdir("/dev/fd")), threading.active_count(), len(asyncio.all_tasks())
