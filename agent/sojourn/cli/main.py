"""What runs the command `sojourn`. It imports little: what a command is made of is imported when it is asked for."""

import os
import signal
import sys
from io import TextIOWrapper
from typing import Final

from sojourn.cli.interrupts import INTERRUPTS

_INTERRUPTED: Final = 130  # what typer, too, makes of Ctrl-C
_STREAMS: Final = {"stdin": "r", "stdout": "w", "stderr": "w"}


def run() -> None:
    """Run the command; every error becomes at most three lines and an exit status, at whatever moment Ctrl-C comes.

    SIGTERM and SIGHUP end a command as Ctrl-C does, so that it leaves nothing half done; then it dies of them.
    """
    try:
        INTERRUPTS.hear()
        status = _run()
        INTERRUPTS.hear_no_more()
    except KeyboardInterrupt:
        INTERRUPTS.hear_no_more()
        status = _INTERRUPTED
    if INTERRUPTS.dies_of:
        signal.raise_signal(INTERRUPTS.dies_of)
    sys.exit(status)


def _run() -> int:
    """The exit status."""
    import gc

    from sojourn.errors import SojournError
    from sojourn.limits import COLLECTED_AFTER

    gc.set_threshold(COLLECTED_AFTER)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    _have_streams()
    from typer.exceptions import Abort, TyperException

    from sojourn.cli.root import app

    as_json = _wants_json(sys.argv)
    try:
        status = app(standalone_mode=False)
        sys.stdout.flush()
    except SojournError as error:
        from sojourn.cli.output import show_error

        return show_error(error, as_json=as_json)
    except TyperException as error:
        from sojourn.cli.misuse import show_misuse

        return show_misuse(error, as_json=as_json)
    except Abort:
        return 1
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be written goes nowhere
        if isinstance(error, BrokenPipeError):
            return 1
        from sojourn.cli.misuse import show_io

        return show_io(error, as_json=as_json)
    except UnicodeError:
        from sojourn.cli.misuse import show_no_text

        return show_no_text(sys.argv, as_json=as_json)
    return status if isinstance(status, int) else 0


def _have_streams() -> None:
    """What was closed leads nowhere: else the next file that is opened would have its number. What the terminal's
    character set has not is escaped.
    """
    for name, mode in _STREAMS.items():
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # for as long as we live
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _wants_json(arguments: list[str]) -> bool:
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    pairs = zip(before, [*before[1:], ""], strict=True)
    return any(
        flag in {"--output=json", "-ojson"} or (flag in {"--output", "-o"} and value == "json") for flag, value in pairs
    )
