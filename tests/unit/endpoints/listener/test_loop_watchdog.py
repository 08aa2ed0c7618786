"""loop_watchdog.py and current_call.py: what is told of a loop that stands still. By real threads, sockets and the kernel."""

import asyncio
import itertools
import os
import socket
import sys
import threading
import time
from datetime import UTC, datetime

import pytest
from fakes.clock import FakeClock
from harness.looking import until
from prometheus_client import REGISTRY
from sojourn.endpoints.grpc.calls import Call
from sojourn.endpoints.listener import loop_watchdog
from sojourn.endpoints.listener.current_call import at_of, peer_of
from sojourn.endpoints.listener.loop_watchdog import Standstills, Watchdog

OURS = {"__name__": "sojourn.endpoints.example"}
HANDLER = "def handler(call, wait):\n    wait()\n"


class Visitor:
    """Whose call it is."""

    who = 17

    @property
    def details(self):
        return {"uid": 17, "pid": 4711}


class Breaker:
    """What the kernel's timer is told."""

    def __init__(self):
        self.said = []

    def set(self, seconds):
        self.said.append(seconds)

    def stop(self):
        self.said.append(None)


def made_by(text):
    """The function of a module of ours, as far as its frames say."""
    names = dict(OURS)
    exec(text, names)
    return names["handler"]


def counts(cause):
    """Standstills of that cause so far."""
    return REGISTRY.get_sample_value("sojourn_loop_standstill_seconds_count", {"cause": cause}) or 0


@pytest.fixture
def found():
    return Standstills(FakeClock(datetime(2026, 5, 1, tzinfo=UTC)))


async def told(found, held_up):
    """The last standstill after the loop was held up, and what the breaker was told."""
    breaker = Breaker()
    watchdog = Watchdog(found, breaker)
    try:
        await asyncio.sleep(0)
        held_up()
        deadline = time.monotonic() + 15
        while found.last is None and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
    finally:
        watchdog.close()
    assert breaker.said[-1] is None
    return found.last, breaker.said


class TestWatchdog:
    async def test_a_call_that_waits(self, found):
        """Of a loop that a handler holds up it is told where that was and whose call; and the next wait is broken off
        sooner.
        """
        handler = made_by(HANDLER)
        call = Call(Visitor(), "a.B/C", None, None)
        counted = counts("waiting")
        last, said = await told(found, lambda: handler(call, lambda: time.sleep(0.4)))
        assert "sojourn.endpoints.example.handler" == last.doing
        assert {"uid": 17, "pid": 4711, "method": "a.B/C"} == last.asker
        assert 0.1 <= last.seconds <= found.longest_seconds
        assert 1 <= found.count
        assert counted < counts("waiting")
        assert {loop_watchdog.STANDSTILL_SECONDS, loop_watchdog.WARY_BREAK_SECONDS, None} == set(said)

    async def test_a_read_that_waits(self, found, monkeypatch):
        """Of a loop that waits in the kernel for a connection it is told who is at its other end."""
        monkeypatch.setattr(loop_watchdog, "at_of", lambda _frame: ("", {}))  # as in a loop in C
        ours, theirs = socket.socketpair()
        with ours, theirs:
            answer = threading.Timer(0.4, theirs.send, [b"x"])
            answer.start()
            last, _ = await told(found, lambda: ours.recv(1))
        assert "the loop itself" in last.doing
        assert {"uid": os.getuid(), "pid": os.getpid()} == last.asker

    async def test_what_goes_wrong(self, found, monkeypatch):
        """A look that fails, and a log that cannot be written, end neither the watching nor the beats."""

        def broken(*_args, **_fields):
            raise OSError("no space left on device")

        monkeypatch.setattr(loop_watchdog, "at_of", broken)
        monkeypatch.setattr(loop_watchdog.log, "warning", broken)
        heard = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["exception"]))
        breaker = Breaker()
        watchdog = Watchdog(found, breaker)
        for _ in range(2):
            counted = found.count
            time.sleep(0.3)  # the loop is held up
            deadline = time.monotonic() + 15
            while found.count == counted and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            assert counted < found.count
            assert "not seen" in found.last.doing
            said = len(breaker.said)
            while len(breaker.said) == said:
                await asyncio.sleep(0.01)
        assert watchdog._watcher.is_alive()
        watchdog.close()
        assert {OSError} == {type(each) for each in heard}

    async def test_a_loop_that_turns(self, found):
        """Of a loop that turns nothing is told."""
        watchdog = Watchdog(found)
        for _ in range(3):
            before = watchdog._beats
            while watchdog._beats == before:
                await asyncio.sleep(0)
        watchdog.close()
        assert (None, 0) == (found.last, found.count)

    async def test_a_machine_without_a_processor(self, found, monkeypatch):
        """Of a loop that could not run, since the machine was busy, the metrics tell, and nobody is named."""
        waited = itertools.count(0.0, 30.0)  # in all, at each look: whenever this machine is too busy, too
        monkeypatch.setattr(loop_watchdog._Queue, "seconds", lambda _queue: next(waited))
        await self.held_up_unseen(found, 0.2)

    async def test_a_thread_without_a_processor(self, found, monkeypatch):
        """Nobody is named where the loop waited for another thread of the agent, which had the interpreter and no processor."""
        waited = itertools.count(0.0, 30.0)
        monkeypatch.setattr(loop_watchdog._Queue, "seconds", lambda _queue: 0.0)
        monkeypatch.setattr(loop_watchdog, "_queues", lambda *_but: {4711: next(waited), 4712: 0.0})
        await self.held_up_unseen(found, 0.2)

    async def test_what_a_processor_would_have_spared(self, found, monkeypatch):
        """A loop that would not have stood still so long, had it had a processor, has not stood still."""
        loop_watches = Watchdog(found)
        counted = counts("no_processor")
        monkeypatch.setattr(loop_watchdog._Queue, "seconds", lambda _queue: loop_watches._queued + 0.05)
        loop_watches._stood(time.monotonic(), 0.14)
        assert (None, counted + 1) == (found.last, counts("no_processor"))
        loop_watches._stood(time.monotonic(), 0.16)
        loop_watches.close()
        assert (0.16, counted + 1) == (found.last.seconds, counts("no_processor"))

    async def held_up_unseen(self, found, seconds):
        counted = counts("no_processor")
        watchdog = Watchdog(found)
        await asyncio.sleep(0)
        time.sleep(seconds)  # the loop is held up
        deadline = time.monotonic() + 15
        while counts("no_processor") == counted and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        watchdog.close()
        assert counted < counts("no_processor")
        assert (None, 0) == (found.last, found.count)

    def test_the_queues_of_all_threads(self):
        """Each thread of this process but the one that is left out has a time that it has waited, and none fails."""
        over, numbers = threading.Event(), []
        running = threading.Thread(target=lambda: (numbers.append(threading.get_native_id()), over.wait()))
        running.start()
        number = until(lambda: numbers)[0]
        queues = loop_watchdog._queues(threading.get_native_id())
        over.set()
        running.join()
        assert threading.get_native_id() not in queues
        assert queues[number] >= 0


class TestAsker:
    def test_of_a_thread_that_computes(self):
        """A thread that waits for no descriptor has nobody at its other end."""
        over, numbers = threading.Event(), []

        def thread():
            numbers.append(threading.get_native_id())
            over.wait()

        running = threading.Thread(target=thread)
        running.start()
        assert {} == peer_of(until(lambda: numbers)[0])
        over.set()
        running.join()

    def test_of_another_thread(self):
        """The function and the caller are those of the callback, and not those around the loop that called it."""
        over, begun = threading.Event(), threading.Event()
        handler = made_by(HANDLER)
        call = Call(Visitor(), "a.B/C", None, None)

        def wait():
            begun.set()
            over.wait()

        running = threading.Thread(target=handler, args=(call, wait))
        running.start()
        begun.wait()
        assert ("sojourn.endpoints.example.handler", {"uid": 17, "pid": 4711, "method": "a.B/C"}) == at_of(
            sys._current_frames()[running.ident]
        )
        over.set()
        running.join()
        assert ("", {}) == at_of(None)
