"""What the client needs where gevent has replaced the threads of the process, as `gunicorn -k gevent` does.

A thread is a greenlet there: all share one real thread, and one that blocks it blocks all. asyncio's loop waits as
greenlets wait, with the selector that gevent puts in place. gRPC's poller waits in C, and so must have a real thread.
"""

import asyncio
import os
import selectors
import sys
import time
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final

import grpc

from sojourn.errors import InvalidInput

_USE: Final = "use a server with threads, such as `gunicorn --worker-class gthread --threads 8`"


class _PollerThread:
    """As much of `threading.Thread` as gRPC's poller asks of it, in a real thread."""

    def __init__(self, target: Callable[[], None], daemon: bool) -> None:
        del daemon  # all of its kind are: no interpreter waits for them
        self._target = target

    def start(self) -> None:
        _monkey().get_original("_thread", "start_new_thread")(self._target, ())

    def join(self, timeout: float = 0.0) -> None:
        """Let others run for so many seconds: who calls this asks again until the poller has ended."""
        time.sleep(timeout)


_POLLED: Final[set[int]] = set()  # processes whose poller was begun


def refuse_eventlet() -> None:
    """Raise InvalidInput where eventlet has replaced the threads of this process: nothing of the client would answer.

    A module that nobody imported has replaced nothing.
    """
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        raise InvalidInput(f"eventlet has replaced the threads of this process, and Sojourn does not run so: {_USE}")


def _has_greenlets() -> bool:
    """Whether gevent has replaced the threads of this process."""
    return bool((monkey := _monkey()) and monkey.is_module_patched("threading"))


def begin_grpc_poller() -> None:
    """Before a channel is made: where threads are greenlets, begin gRPC's poller in a real thread, once a process.

    Raise InvalidInput where it cannot be begun so.
    """
    if os.getpid() in _POLLED or not _has_greenlets():
        return
    cygrpc: Any = import_module("grpc._cython.cygrpc")
    threading = getattr(cygrpc, "threading", None)
    if threading is None:
        raise InvalidInput(f"gevent has replaced the threads that this version of grpcio needs: {_USE}")
    cygrpc.threading = SimpleNamespace(Thread=_PollerThread)
    try:
        grpc.aio.init_grpc_aio()  # holds it until the process ends
    finally:
        cygrpc.threading = threading
    _POLLED.add(os.getpid())


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop for a thread of its own, greenlet or not."""
    return _GreenletLoop() if _has_greenlets() else asyncio.new_event_loop()


class _GreenletLoop(asyncio.SelectorEventLoop):
    """While it waits and other greenlets run, they have no part in it: they may run loops of their own.

    asyncio keeps for each real thread which loop runs there, and Python which hooks its asynchronous generators have.
    """

    def __init__(self) -> None:
        selector: Any = selectors.DefaultSelector()  # gevent's
        self._wait = selector.select
        selector.select = self._wait_apart
        super().__init__(selector)

    def run_forever(self) -> None:
        self._outside = _of_thread()
        _put((None, (None, None)))  # another greenlet may run a loop while this one begins
        try:
            super().run_forever()
        finally:
            _put(self._outside)

    def call_exception_handler(self, context: Any) -> None:
        """As it is; but say nothing of tasks that the interpreter's end cuts off: it does so to greenlets alone."""
        if not sys.is_finalizing():
            super().call_exception_handler(context)

    def _wait_apart(self, timeout: float | None = None) -> Any:
        inside = _of_thread()
        _put(self._outside)
        try:
            return self._wait(timeout)
        finally:
            self._outside = _of_thread()
            _put(inside)


def _of_thread() -> Any:
    return asyncio._get_running_loop(), sys.get_asyncgen_hooks()


def _put(of_thread: Any) -> None:
    loop, hooks = of_thread
    asyncio._set_running_loop(loop)
    sys.set_asyncgen_hooks(*hooks)


def _monkey() -> Any:
    return sys.modules.get("gevent.monkey")
