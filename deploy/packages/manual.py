"""Manual pages and completions, from the command's own parser: a page for `sojourn`, and one for each of its nouns."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, Final

from sojourn.cli.root import COMMANDS, NOUNS, app, load
from typer._completion_shared import get_completion_script
from typer.main import get_command

_COMPLETED: Final = {
    "bash": "usr/share/bash-completion/completions/sojourn",
    "zsh": "usr/share/zsh/vendor-completions/_sojourn",
    "fish": "usr/share/fish/vendor_completions.d/sojourn.fish",
}
_WRITTEN: Final = {"\\": r"\e", "-": r"\-", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}
_FILES: Final = """.SH FILES
.TP
.I /etc/sojourn/agent.toml
The configuration of the system's agent.
.TP
.I /var/lib/sojourn
Its database and its keys.
.TP
.I /run/sojourn/agent.sock, /run/sojourn/admin.sock
The socket of workloads, and that of operators.
"""


def pages(version: str, date: str) -> dict[str, str]:
    """The text of each page, by the name of its file."""
    root = get_command(app)
    names = [*NOUNS, *COMMANDS]
    made = {"sojourn.1": _front(root, names, version, date)}
    for name in names:
        made[f"sojourn-{name}.1"] = _page(name, load(name), version, date)
    return made


def completions() -> dict[str, str]:
    """What shells load to complete the command, by its place in the file system."""
    variable = "_SOJOURN_COMPLETE"
    return {
        place: get_completion_script(prog_name="sojourn", complete_var=variable, shell=shell) + "\n"
        for shell, place in _COMPLETED.items()
    }


def _front(root: Any, names: list[str], version: str, date: str) -> str:
    helps = COMMANDS | {noun: said for noun, (said, _) in NOUNS.items()}
    lines = [_title("SOJOURN", version, date), _named("sojourn", root.help), ".SH SYNOPSIS", r".B sojourn"]
    lines += [r"\fICOMMAND\fR [\fIOPTIONS\fR]", ".SH COMMANDS"]
    for name in names:
        lines += [
            ".TP",
            rf"\fBsojourn {_plain(name)}\fR",
            _text(helps[name]),
            rf"See \fBsojourn\-{_plain(name)}\fR(1).",
        ]
    lines += [".SH NOTES", _text(root.epilog or ""), _FILES.rstrip(), ".SH SEE ALSO"]
    lines.append(",\n".join(rf"\fBsojourn\-{_plain(name)}\fR(1)" for name in names))
    return "\n".join(lines) + "\n"


def _page(name: str, command: Any, version: str, date: str) -> str:
    lines = [_title(f"SOJOURN-{name.upper()}", version, date), _named(f"sojourn-{name}", command.help)]
    verbs = getattr(command, "commands", None)
    if verbs is None:
        lines += [".SH SYNOPSIS", *_usage(f"sojourn {name}", command), ".SH DESCRIPTION", _text(_help(command))]
        lines += [".SH OPTIONS", *_options(f"sojourn {name}", command)]
    else:
        lines.append(".SH COMMANDS")
        for verb, each in verbs.items():
            whole = f"sojourn {name} {verb}"
            lines += [f".SS {_plain(whole)}", *_usage(whole, each), ".PP", _text(_help(each))]
            lines += [*_options(whole, each), *_examples(each)]
    lines += [".SH SEE ALSO", r"\fBsojourn\fR(1)"]
    return "\n".join(lines) + "\n"


def _title(name: str, version: str, date: str) -> str:
    return f'.TH {_plain(name)} 1 "{date}" "sojourn {version}" "Sojourn"'


def _named(name: str, said: str | None) -> str:
    first = " ".join((said or "").split("\n\n")[0].split()).partition(". ")[0].rstrip(".")
    return f".SH NAME\n{_plain(name)} \\- {_plain(first)}"


def _help(command: Any) -> str:
    return inspect.cleandoc(command.help or "")


def _usage(whole: str, command: Any) -> list[str]:
    pieces = command.collect_usage_pieces(command.context_class(command, info_name=whole))
    return [rf"\fB{_plain(whole)}\fR {_plain(' '.join(pieces))}"]


def _options(whole: str, command: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=whole)
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            yield from (".TP", rf"\fB{_plain(record[0])}\fR", _text(record[1]) or r"\&")


def _examples(command: Any) -> Iterator[str]:
    if command.epilog:
        lines = [line for line in inspect.cleandoc(command.epilog).replace("\b", "").splitlines() if line.strip()]
        yield from (".PP", ".nf", *(_plain(line) for line in lines), ".fi")


def _text(said: str | None) -> str:
    paragraphs = [" ".join(each.split()) for each in re.split(r"\n\s*\n", (said or "").replace("\b", ""))]
    return "\n.PP\n".join(_plain(each) for each in paragraphs if each)


def _plain(text: str) -> str:
    """Text of which troff obeys nothing."""
    text = (
        text.replace("\\", r"\e").replace("-", r"\-").replace("`", r"\(ga").replace("^", r"\(ha").replace("~", r"\(ti")
    )
    return rf"\&{text}" if text.startswith((".", "'")) else text
