"""`--watch`: a live view of what a command shows, until Ctrl-C."""

import json
import shutil
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from sojourn.cli.options import Output, option_seconds
from sojourn.cli.output import emit
from sojourn.errors import InvalidInput, NotFound, Unavailable, Unreachable

WatchOption = Annotated[bool, typer.Option("--watch", "-w", help="Go on, and show each change. Ctrl-C ends it.")]
IntervalOption = Annotated[
    str, typer.Option("--interval", metavar="DURATION", help="How often --watch looks; at least 100ms.")
]
INTERVAL = "1s"
_LEAST_SECONDS = 0.1
_HOME_AND_CLEAR = "\x1b[H\x1b[2J"


def show(
    output: Output,
    get: Callable[[], dict[str, Any]],
    lines: Callable[[dict[str, Any]], list[str]],
    *,
    watch: bool,
    interval: str,
    apart_from: Callable[[dict[str, Any]], object] = lambda value: value,
) -> None:
    """Print what `get` returns; with `watch` again whenever it has changed: on a terminal the screen is drawn anew,
    otherwise each change is one more block of lines, or one line of JSON. `apart_from` leaves out of a value what is no
    change.

    What `get` raises the first time is raised. Later an agent that does not answer is waited for, and what is not there
    any more ends the view.
    """
    if not watch:
        value = get()
        emit(output, value, lines(value))
        return
    seconds = _seconds(interval)
    drawn = output is Output.PRETTY and sys.stdout.isatty()
    shown: dict[str, Any] | None = None
    waiting = False
    try:
        while True:
            try:
                value = get()
            except NotFound as error:
                if shown is None:
                    raise
                _note(error.public, drawn=drawn)
                return
            except (Unreachable, Unavailable) as error:
                if shown is None:
                    raise
                if not waiting:
                    _note(f"waiting: {error.public}", drawn=drawn)
                waiting = True
            else:
                if shown is None or apart_from(value) != apart_from(shown) or waiting:
                    _print(output, value, lines(value), drawn=drawn, first=shown is None)
                shown, waiting = value, False
            time.sleep(seconds)
    except KeyboardInterrupt:
        return


def _print(output: Output, value: dict[str, Any], lines: list[str], *, drawn: bool, first: bool) -> None:
    if output is Output.JSON:
        print(json.dumps(value, ensure_ascii=False), flush=True)
        return
    if drawn:
        columns, rows = shutil.get_terminal_size()
        room = max(1, rows - 2)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"… and {len(lines) - room + 1} more lines"]
        print(_HOME_AND_CLEAR + "\n".join(line[:columns] for line in lines), flush=True)
        return
    print("\n".join(lines if first else ["", *lines]), flush=True)


def _note(text: str, *, drawn: bool) -> None:
    """Something about the view itself: below the screen, or beside what may be read by a program."""
    print(text, file=sys.stdout if drawn else sys.stderr, flush=True)


def _seconds(interval: str) -> float:
    seconds = option_seconds("--interval", interval)
    if seconds < _LEAST_SECONDS:
        raise InvalidInput(f"--interval: {interval[:50]!r} is less than 100ms")
    return seconds
