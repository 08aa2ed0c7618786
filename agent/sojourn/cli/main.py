"""What runs the command `sojourn`. It imports little: what a command is made of is imported when it is asked for."""

import gc
import os
import sys

from sojourn.errors import SojournError
from sojourn.limits import COLLECTED_AFTER


def run() -> None:
    """Run the command; every error becomes at most three lines and an exit status."""
    gc.set_threshold(COLLECTED_AFTER)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from typer.exceptions import Abort, TyperException

    from sojourn.cli.root import app

    try:
        sys.exit(app(standalone_mode=False))
    except SojournError as error:
        from sojourn.cli.output import show_error

        sys.exit(show_error(error, as_json=_wants_json(sys.argv)))
    except TyperException as error:
        from sojourn.cli.usage import show_misuse

        sys.exit(show_misuse(error, as_json=_wants_json(sys.argv)))
    except Abort:
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _wants_json(arguments: list[str]) -> bool:
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    pairs = zip(before, [*before[1:], ""], strict=True)
    return any(
        flag in {"--output=json", "-ojson"} or (flag in {"--output", "-o"} and value == "json") for flag, value in pairs
    )
