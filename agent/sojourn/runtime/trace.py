"""The trace that a caller's request belongs to (W3C Trace Context): taken into log and journal, and passed on.

The agent records no spans of its own, so what it passes on is what came. A request is of its trace while it is under
way: what it has begun, and goes on or happens later, is of none.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

HEADER: Final = "traceparent"
# Version 00, and what a later version begins with (Trace Context, 3.2 and 4.3).
_PARENT: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL
)
_VALUE_MAX_BYTES: Final = 512


@dataclass(slots=True)
class _Trace:
    trace_id: str
    header: str
    over: bool = False


_current: Final[ContextVar[_Trace | None]] = ContextVar("trace", default=None)


def parse(values: Sequence[bytes]) -> tuple[str, str] | None:
    """Trace ID and the header to pass on; None if the header is absent, malformed, or there more than once."""
    if len(values) != 1 or len(values[0]) > _VALUE_MAX_BYTES:
        return None
    found = _PARENT.fullmatch(values[0])
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if not trace_id.strip(b"0") or not parent_id.strip(b"0") or (more is not None and version == b"00"):
        return None
    return trace_id.decode(), b"-".join((b"00", trace_id, parent_id, flags)).decode()


@contextmanager
def following(values: Sequence[bytes]) -> Iterator[None]:
    """Within it, and in what begins there as long as it lasts, all is of the trace that these values name, if any."""
    found = parse(values)
    if found is None:
        yield
        return
    trace = _Trace(*found)
    before = _current.set(trace)
    try:
        yield
    finally:
        trace.over = True
        _current.reset(before)


def trace_id() -> str | None:
    """The trace of the request that is under way, as 32 hex digits; None if it has none."""
    trace = _current.get()
    return None if trace is None or trace.over else trace.trace_id


def header() -> str | None:
    """The header by which a request that is made for it belongs to the same trace."""
    trace = _current.get()
    return None if trace is None or trace.over else trace.header
