"""The contract of attestors: it holds for the example, and each fault that it is there for is found."""

import asyncio
import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import ClassVar

import pytest
from harness.agent import ROOT
from harness.exampleplugins import loaded
from sojourn.attestation.attestor import Answer
from sojourn.errors import AttestationFailed, InvalidConfig
from sojourn.testing.attestor_case import AttestorCase
from sojourn.testing.attestors import AttestorContract, child
from sojourn.testing.promises import Broken

pytestmark = pytest.mark.full

EXAMPLE = ROOT / "docs" / "examples" / "attestor"


EXAMPLE_CONTRACT = loaded(EXAMPLE, "test_slurm").CONTRACT


class Plain:
    """An attestor that keeps all promises: it says which pid a process has."""

    out_of_order = None
    """Set while what it asks is out of order."""

    def __init__(self, settings, pool):
        if settings.keys() - {"colour"}:
            raise InvalidConfig(["no_such_key: unknown key"])
        self._pool = pool

    async def attest(self, subject):
        try:
            os.stat(f"/proc/{subject.pid}")
        except OSError as error:
            raise AttestationFailed("the process has gone") from error
        await self.ask(subject)
        return Answer(frozenset({f"pid:{subject.pid}"}))

    async def ask(self, subject):
        await asyncio.sleep(0)
        if Plain.out_of_order:
            raise AttestationFailed("the oracle is silent")


@contextmanager
def out_of_order():
    Plain.out_of_order = True
    try:
        yield
    finally:
        Plain.out_of_order = None


def contract(plugin, **options):
    case = {"kinds": {"pid"}, "expected": lambda subject: {f"pid:{subject.pid}"}, "broken": {"silent": out_of_order}}
    return AttestorContract(AttestorCase(plugin=plugin, **{**case, **options}))


class AsksWhileMade(Plain):
    def __init__(self, settings, pool):
        super().__init__(settings, pool)
        with socket.socket(socket.AF_UNIX) as tried, suppress(OSError):
            tried.connect("/nowhere")


class TakesAnySetting(Plain):
    def __init__(self, settings, pool):
        self._pool = pool


class RaisesOfSettings(Plain):
    def __init__(self, settings, pool):
        raise KeyError("colour")


class StartsPrograms(Plain):
    async def ask(self, subject):
        await super().ask(subject)
        subprocess.run(["true"], check=True)


class SaysLess(Plain):
    async def attest(self, subject):
        return Answer(frozenset())


class MixesUp(Plain):
    last = None

    async def attest(self, subject):
        await asyncio.sleep(0.01)
        self.last = subject
        await asyncio.sleep(0.01)
        return Answer(frozenset({f"pid:{self.last.pid}"}))


class Sleeps(Plain):
    async def ask(self, subject):
        await super().ask(subject)
        time.sleep(0.3)


class TellsTheCgroup(Plain):
    async def attest(self, subject):
        return Answer(frozenset({f"pid:{subject.pid}", f"pid:{subject.cgroup}"}))


class SplitsTheCgroup(Plain):
    async def attest(self, subject):
        for line in subject.cgroup.splitlines():
            _, _, _ = line.split(":", 2)
        return await super().attest(subject)


class TellsTheName(Plain):
    async def attest(self, subject):
        name = os.readlink(f"/proc/{subject.pid}/exe")
        return Answer(frozenset({f"pid:{subject.pid}", f"pid:{name}"}))


class RaisesOfTheDead(Plain):
    async def attest(self, subject):
        os.stat(f"/proc/{subject.pid}")
        return await super().attest(subject)


class GoesOn(Plain):
    async def ask(self, subject):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.5 if self._cut(asyncio.current_task()) else 0)
        await super().ask(subject)

    @staticmethod
    def _cut(task):
        return task.cancelling()


class LeavesOut(Plain):
    async def ask(self, subject):
        pass

    async def attest(self, subject):
        return Answer(frozenset() if Plain.out_of_order else frozenset({f"pid:{subject.pid}"}))


class StaysDown(Plain):
    down = False

    async def ask(self, subject):
        if self.down or Plain.out_of_order:
            self.down = True
            raise AttestationFailed("the oracle is silent")


class SpeaksOfOthers(Plain):
    """For a case that says that it is quiet."""


class ClosesTheHandle(Plain):
    async def ask(self, subject):
        await super().ask(subject)
        with suppress(OSError):
            os.close(subject.pidfd)


class LeavesFiles(Plain):
    left: ClassVar[list] = []

    async def ask(self, subject):
        await super().ask(subject)
        self.left.append(os.open("/dev/null", os.O_RDONLY))


class LeavesTasks(Plain):
    left: ClassVar[list] = []

    async def ask(self, subject):
        await super().ask(subject)
        self.left.append(asyncio.ensure_future(asyncio.sleep(3600)))


class LeavesThreads(Plain):
    async def ask(self, subject):
        await super().ask(subject)
        threading.Thread(target=time.sleep, args=(0.5,)).start()


class GivesAList(Plain):
    async def attest(self, subject):
        return replace(await super().attest(subject), values=[f"pid:{subject.pid}"])


class WithholdsWithoutReason(Plain):
    async def attest(self, subject):
        return replace(await super().attest(subject), withheld={"pid": ""})


class IsNoCoroutine(Plain):
    def attest(self, subject):
        return Answer(frozenset({f"pid:{subject.pid}"}))


class CannotClose(Plain):
    async def close(self):
        raise RuntimeError("stuck")


FAULTS = {
    AsksWhileMade: ("made", "while it was made"),
    TakesAnySetting: ("settings", "takes the setting"),
    RaisesOfSettings: ("settings", "raise KeyError"),
    StartsPrograms: ("tells", "starts programs"),
    SaysLess: ("tells", "does not say"),
    MixesUp: ("apart", "beside others"),
    Sleeps: ("apart", "kept the event loop"),
    TellsTheCgroup: ("garbage", "is not KIND:VALUE"),
    SplitsTheCgroup: ("garbage", "raised ValueError"),
    TellsTheName: ("garbage", "no value of a selector"),
    RaisesOfTheDead: ("gone", "raised FileNotFoundError"),
    GoesOn: ("cancelled", "goes on"),
    LeavesOut: ("out_of_order", "were not so"),
    StaysDown: ("out_of_order", "cannot tell"),
    SpeaksOfOthers: ("of_others", "plain process"),
    ClosesTheHandle: ("tidy", "closed the handle"),
    LeavesFiles: ("tidy", "more files"),
    LeavesTasks: ("tidy", "tasks"),
    LeavesThreads: ("tidy", "threads"),
    GivesAList: ("tells", "not a frozenset"),
    WithholdsWithoutReason: ("tells", "not one printable line"),
    IsNoCoroutine: ("tells", "not a coroutine"),
    CannotClose: ("made", "close raised RuntimeError"),
}


@pytest.mark.parametrize("promise", EXAMPLE_CONTRACT.promises, ids=str)
def test_the_example_keeps_it(promise):
    """The example of the documentation keeps every promise."""
    promise.run()


@pytest.mark.parametrize("promise", contract(Plain).promises, ids=str)
def test_a_good_one_keeps_it(promise):
    """An attestor without fault keeps every promise."""
    promise.run()


@pytest.mark.parametrize("plugin", FAULTS, ids=lambda plugin: plugin.__name__)
def test_each_fault_is_found(plugin):
    """An attestor with a fault breaks the promise that is about it, and is told what was seen."""
    name, seen = FAULTS[plugin]
    tried = contract(plugin, quiet=plugin is SpeaksOfOthers)
    if plugin is SpeaksOfOthers:
        tried = contract(plugin, quiet=True, broken={"nothing": nullcontext})
    (promise,) = [each for each in tried.promises if each.name == name]
    try:
        with pytest.raises(Broken, match=seen):
            promise.run()
    finally:
        for each in LeavesFiles.left:
            os.close(each)
        LeavesFiles.left.clear()


def test_promises_have_names():
    """Each promise has a name and a sentence of its own."""
    promises = contract(Plain).promises
    assert 10 == len({str(each) for each in promises}) == len({each.sentence for each in promises})


def test_a_child_ends_with_its_block():
    """The process that a case is tried on is gone, and collected, when the block is left."""
    with child() as subject:
        signal.pidfd_send_signal(subject.pidfd, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(subject.pid, 0)
