"""The log: one JSON object a line on standard error, an event name and fields. It holds no tokens and no keys.

Where systemd's journal reads it, each line begins with its priority.
"""

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from sojourn.runtime import journal_stream, trace
from sojourn.runtime.log_events import ALERTS

_NUMBERS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


class Level:
    """The level from which on events are logged; it may change while the agent runs."""

    def __init__(self, name: str) -> None:
        self.launch = self.name = name
        self._least = _NUMBERS[name]

    def set(self, name: str) -> None:
        """`name`: debug, info, warning or error."""
        self.name, self._least = name, _NUMBERS[name]

    def drop_below(self, _logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if _NUMBERS.get("error" if method in {"exception", "critical"} else method, logging.ERROR) < self._least:
            raise structlog.DropEvent
        return event


def silence() -> None:
    """Log nothing: a command that uses rooms of the agent says itself what has become of it."""

    def drop(_logger: object, _method: str, _event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        raise structlog.DropEvent

    structlog.configure(processors=[drop])


def configure(level: str, hear: Callable[[str, Mapping[str, Any]], None] = lambda _method, _event: None) -> Level:
    """Set up structlog, and bring what libraries log into the same form. Returns what changes the level.

    `hear` is told of every line with its method, whatever the level; it must not raise.
    """

    def told(_logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        hear(method, event)
        return event

    chosen = Level(level)
    number = _NUMBERS[level]
    structlog.configure(
        processors=[
            _add_trace,
            _add_alert,
            told,
            chosen.drop_below,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Never with local variables: those are where tokens and keys would reach the log from.
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            _drop_nothing_said,
            structlog.processors.JSONRenderer(ensure_ascii=True),
            *([_for_the_journal] if journal_stream.journal_reads() else ()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Libraries()], level=max(number, logging.WARNING), force=True)
    return chosen


def _add_trace(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    found = trace.trace_id()
    return event if found is None else {**event, "trace_id": found}


def _add_alert(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {**event, "alert": True} if event.get("event") in ALERTS else event


def _drop_nothing_said(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {name: value for name, value in event.items() if value is not None}


def _for_the_journal(_logger: object, method: str, line: Any) -> str:
    return journal_stream.marked(method, line)


class _Libraries(logging.Handler):
    """What libraries log, as our own lines. Whatever they log, this must not raise into them."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001  # arguments that do not fit their format
            message = str(record.msg)
        level = max((each for each in _LEVELS if each <= record.levelno), default=logging.DEBUG)
        structlog.get_logger().log(
            level, "library_message", logger=record.name, message=message[:2000], exc_info=record.exc_info
        )
