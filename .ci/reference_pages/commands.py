"""docs/reference/command-line.md: every command with its options and examples, from the parser."""

import re
from collections.abc import Iterator
from typing import Any

from sojourn.cli import root
from sojourn.cli.examples import EXAMPLES

from reference_pages import MADE, code, paragraph, table

_HEAD = f"""# Command line

{MADE}

`sojourn COMMAND --help` says the same. What prints results takes `--output json`. Exit status: 0 done, 1 refused,
2 usage, 3 no agent answers. An error is one sentence with a stable code in brackets, by which
[troubleshooting.md](../operate/troubleshooting.md) has its cause and what to do.
"""


def page() -> str:
    """docs/reference/command-line.md, whole."""
    made = dict(_all())
    lines = [*_HEAD.splitlines(), "", *_contents(made)]
    for typed, command in made.items():
        lines += _command(typed, command)
    return "\n".join(lines).rstrip("\n") + "\n"


def _all() -> Iterator[tuple[str, Any]]:
    for name in sorted((*root.COMMANDS, *root.NOUNS)):
        made = root.load(name)
        verbs = getattr(made, "commands", None)
        yield from [(name, made)] if verbs is None else [(f"{name} {verb}", verbs[verb]) for verb in sorted(verbs)]


def _contents(made: dict[str, Any]) -> Iterator[str]:
    rows = [
        (f"[`sojourn {typed}`](#sojourn-{typed.replace(' ', '-')})", _sentence(each)) for typed, each in made.items()
    ]
    yield from table(("Command", "What it does"), rows)


def _sentence(command: Any) -> str:
    text = " ".join((command.help or "").split("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".:") + "."


def _command(typed: str, command: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=f"sojourn {typed}")
    yield f"## sojourn {typed}"
    yield ""
    for each in (command.help or "").split("\n\n"):
        yield from paragraph(each.replace("<", "\\<"))
    usage = re.sub(r"{(.+?)}", r"\1", command.get_usage(context).removeprefix("Usage: "))
    yield from (f"    {' '.join(usage.split())}", "")
    records = [each.get_help_record(context) for each in command.params]
    rows = [
        (code(" ".join(name.replace(" <str>", "").split())), said)
        for name, said in (each for each in records if each is not None)
    ]
    if rows:
        yield from table(("Argument or option", "What it is"), rows)
    yield from ("Examples:", "", *(f"    {line}" for line in EXAMPLES[typed]), "")
