"""A command line that no command takes: said as every other error is."""

import re
from typing import Any, Final

from sojourn.cli.output import USAGE, say_error

CODE: Final = "usage"


def show_misuse(error: Any, *, as_json: bool) -> int:
    """Print what is wrong with the command line and whose help tells more; return the exit status.

    `error` is what typer raises. A noun without a verb is no error of its own: its help is printed.
    """
    context = getattr(error, "ctx", None)
    command = "sojourn" if context is None else context.command_path
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        say_error(sentence(error.format_message()), CODE, f"see `{command} --help`", as_json=as_json)
    return USAGE


def sentence(message: str) -> str:
    """What typer says, in the form of our own: one lower-case sentence without pydantic's words."""
    text = (
        " ".join(message.split()).rstrip(".").replace("Value error, ", "").replace(". Did you mean", ": did you mean")
    )
    text = re.sub(r", unable to parse .*", "", text).replace(
        "Input should be a valid integer", "must be a whole number"
    )
    text = text.replace("Input should", "must").replace("Got unexpected extra argument(s)", "one argument too many")
    text = text.replace(". Choose from:", ":")
    text = re.sub(r"\(Possible options: (.*)\)$", r"(there is: \1)", text)
    return text[:1].lower() + text[1:]
