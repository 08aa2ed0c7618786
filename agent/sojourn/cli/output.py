"""Printing results and errors, and exit statuses: 0 done, 1 refused, 2 usage, 3 unreachable."""

import json
import re
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from sojourn.cli.hints import hint
from sojourn.cli.options import Output
from sojourn.config.paths import operates
from sojourn.errors import CannotStart, InvalidConfig, InvalidPolicy, SojournError
from sojourn.runtime import journal_stream

REFUSED, USAGE, UNREACHABLE = 1, 2, 3
_TIMES: Final = re.compile(r"\w+_(at|until|after)|until|exp|iat|nbf|auth_time")
_LAST_SECOND: Final = 253_402_300_799  # of the year 9999


def print_json(value: Any) -> None:
    print(escaped(json.dumps(value, indent=2, ensure_ascii=False)))


def escaped(text: str) -> str:
    """JSON, over several lines, of which a terminal obeys nothing."""
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def json_line(value: Any) -> str:
    """JSON on one line, of which a terminal obeys nothing."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def emit(output: Output, value: Any, pretty: Iterable[str]) -> None:
    """Print `value` as JSON, or the lines of `pretty`; of neither a terminal obeys anything."""
    if output is Output.JSON:
        print_json(value)
    else:
        for line in pretty:
            print(printable(line))


class Progress:
    """Says on stderr how far long work is, where it takes longer than some seconds, and each time that passes again."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._told = time.monotonic()

    def tell(self, done: int, total: int) -> None:
        """So many records are done, of so many."""
        if time.monotonic() - self._told > self._seconds:
            self._told = time.monotonic()
            print(f"{done} of {total} records", file=sys.stderr)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterable[str]:
    """Lines of aligned columns under headings."""
    cells = [list(headings), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def whole(value: Any) -> Any:
    """What came as a protobuf Struct, where numbers are doubles and members have no order: whole numbers, sorted."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: whole(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [whole(each) for each in value]
    return value


def printable(text: str) -> str:
    """`text` without anything that a terminal would obey."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def moment(when: float | datetime) -> str | None:
    """RFC 3339 of a time in UTC, or of seconds since the epoch; None for 0."""
    utc = when if isinstance(when, datetime) else datetime.fromtimestamp(when, UTC) if when else None
    return None if utc is None else utc.isoformat().replace("+00:00", "Z")


def dated(name: str, value: Any) -> Any:
    """What a record or a token says under a name, for people: seconds since the epoch as `moment`, else as it is."""
    if isinstance(value, int) and 0 < value <= _LAST_SECOND and _TIMES.fullmatch(name):
        return moment(value)
    return value


def show_error(error: SojournError, *, as_json: bool) -> int:
    """Print what, why and what next to standard error and return the exit status."""
    code = error.remote_code or error.code
    if as_json:
        value: dict[str, Any] = {"code": code, "message": error.public}
        if isinstance(error, InvalidPolicy) and any(fault.file for fault in error.faults):
            value["faults"] = [asdict(fault) for fault in error.faults]
        print(_for_the_journal(json.dumps({"error": value})), file=sys.stderr)
        return _status(error)
    several = error.faults if isinstance(error, InvalidConfig | InvalidPolicy) else ()
    operator = error.by_operator or operates()
    _print_error(several or [error.public], code, hint(code, error.public, operator=operator))
    return _status(error)


def say_error(text: str, code: str, cure: str, *, as_json: bool) -> None:
    """Print an error that is nobody's SojournError."""
    if as_json:
        print(_for_the_journal(json.dumps({"error": {"code": code, "message": text}})), file=sys.stderr)
        return
    _print_error([text], code, cure)


def _print_error(texts: Iterable[object], code: str, cure: str) -> None:
    lines = [f"error: {printable(str(text))} [{code}]" for text in texts]
    lines += [f"next:  {printable(cure)}"] if cure else []
    for line in lines:
        print(_for_the_journal(line), file=sys.stderr)


def _for_the_journal(line: str) -> str:
    """A line of an error, with its priority where systemd's journal reads it."""
    return journal_stream.marked("error", line) if journal_stream.journal_reads() else line


def _status(error: SojournError) -> int:
    if isinstance(error, CannotStart):
        return REFUSED
    if error.code == "unreachable":
        return UNREACHABLE
    return USAGE if not error.remote_code and error.grpc_status == "INVALID_ARGUMENT" else REFUSED
