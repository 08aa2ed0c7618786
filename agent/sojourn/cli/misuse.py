"""A command line that no command takes: said as every other error is."""

import re
from typing import Any, Final

from sojourn.cli.output import REFUSED, USAGE, say_error

CODE: Final = "usage"
_SHOWN: Final = 100


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


def show_no_text(arguments: list[str], *, as_json: bool) -> int:
    """The same where something is no text, and the agent is told nothing but texts. Of input nothing is shown."""
    odd = [each for each in arguments if each != each.encode(errors="ignore").decode()]
    what = f"the argument {odd[0][:_SHOWN]!r}" if odd else "the input, or a variable of the environment,"
    say_error(f"{what} is not UTF-8", CODE, "", as_json=as_json)
    return USAGE


def show_io(error: OSError, *, as_json: bool) -> int:
    """Print what could not be read or written, if it is of no command in particular: what the results go to, mostly."""
    what = "the output" if error.filename is None else repr(error.filename)
    say_error(f"{what} cannot be written: {error.strerror or error}", "unavailable", "", as_json=as_json)
    return REFUSED


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
