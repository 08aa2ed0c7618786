"""A timer of the kernel's that breaks off what the main thread waits for in the kernel, unless it is set anew in time.

A close that waits is one such thing: of a socket with SO_LINGER and unsent data, which a peer had sent along and nobody
took. Only a signal ends that wait. No thread of ours could send it in every case: the main thread may hold Python's
interpreter meanwhile, as when it closes a connection itself.
"""

import ctypes
import signal
from typing import Final

from sojourn.limits import BREAK_EVERY_SECONDS

_LIBC: Final = ctypes.CDLL(None)


class WaitBreaker:
    """Sends SIGALRM to the main thread, again and again from some moment on. To one that computes, it does nothing.

    The handler is C's `abs`: it takes an integer, as a handler does, and changes nothing. One of Python's would have
    each signal written to the loop's wakeup socket, which is full after a few hundred. System calls go on after it
    (SA_RESTART, which `signal` of C has), except those that return early by nature, as epoll's.
    """

    def __init__(self) -> None:
        """To be made, and used, in the main thread."""
        handle = _LIBC.signal
        handle.argtypes, handle.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
        handle(signal.SIGALRM, ctypes.cast(_LIBC.abs, ctypes.c_void_p))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})  # whoever started us may have blocked it

    def set(self, seconds: float) -> None:
        """Begin so long from now, in the place of what was said before."""
        signal.setitimer(signal.ITIMER_REAL, seconds, BREAK_EVERY_SECONDS)

    def stop(self) -> None:
        """Send no more."""
        signal.setitimer(signal.ITIMER_REAL, 0)
