"""Every command line that a page names is one that the command takes: noun, verb and options."""

import re
from pathlib import Path
from typing import Any

import pytest
from sojourn.cli import root

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Of what is written as code: a span in a line, or a line of a block. A quote, a pipe or a comment ends a command. What
# follows `exec`, `--name` or `--entrypoint` is a container of that name.
_SPAN = re.compile(r"`((?:[A-Z]\w*=)?sojourn [^`]+)`")
_LINE = re.compile(r"(?:^|(?<!--entrypoint)(?<!--name)[\s$(;|&])sojourn (?!sojourn\b)([^|;&#\"'`]+)")
_FOR_OTHERS = re.compile(r"\s--(?:\s|$)")  # behind it stands another program's command line
_OPTION = re.compile(r"(?<![\w-])(--?[a-z][a-z0-9-]*)")
_EVERYWHERE = frozenset({"--help", "-h"})


def commands() -> dict[str, set[str]]:
    """The options of each command, by what is typed for it; of a noun, the options of all its verbs."""
    found: dict[str, set[str]] = {"": {"--version", "--install-completion", "--show-completion"}}
    for name in (*root.COMMANDS, *root.NOUNS):
        made: Any = root.load(name)
        for verb, command in getattr(made, "commands", {"": made}).items():
            options = {one for each in command.params for one in (*each.opts, *each.secondary_opts)}
            found[f"{name} {verb}".rstrip()] = options
            found[name] = found.get(name, set()) | options
    return found


KNOWN = commands()
VERBS = {typed.split()[0] for typed in KNOWN if " " in typed}


def lines(text: str) -> list[str]:
    """The command lines of a page, from `sojourn` on; a line that goes on in the next is one."""
    # What another command says stands for itself.
    whole = re.sub(r"\$\((?!sojourn)[^()]*\)", "$X", re.sub(r"\\\n\s*", " ", text))
    blocks = re.findall(r"^(?: {4}|\w*\$ )(.+)$", whole, re.MULTILINE)
    blocks += [line for block in re.findall(r"^```(?:sh|console)?\n(.*?)^```", whole, re.MULTILINE | re.DOTALL)
               for line in block.splitlines()]  # fmt: skip
    spans = _SPAN.findall(re.sub(r"\n(?=\S)", " ", whole))
    return [f"sojourn {each}" for one in (*blocks, *spans) for each in _LINE.findall(one)]


def fault(line: str) -> str:
    """What is wrong with a command line; '' if nothing is."""
    words = _FOR_OTHERS.split(line)[0].split()[1:]
    if not words or not re.fullmatch(r"[a-z]+", words[0]):
        return "" if words and (words[0].startswith("-") or not words[0].isascii() or words[0].isupper()) else line
    typed = words[0]
    if typed in VERBS:
        verbs = words[1] if len(words) > 1 else ""
        if re.fullmatch(r"[a-z][a-z0-9-]*", verbs):
            typed = f"{typed} {verbs}"
    if typed not in KNOWN:
        return f"{line}: there is no command {typed!r}"
    odd = [each for each in _OPTION.findall(" ".join(words[1:])) if each not in KNOWN[typed] | _EVERYWHERE]
    return f"{line}: no option {odd[0]} of {typed!r}" if odd else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_is_one_that_the_command_takes(page: Path) -> None:
    """No page tells of a command, a verb or an option that is not there."""
    assert [] == [said for each in lines(page.read_text("utf-8")) if (said := fault(each))]


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("sojourn status --watch", True),
        ("sojourn task run --type T -- curl --silent", True),
        ("sojourn --version", True),
        ("sojourn COMMAND --help", True),
        ("sojourn task fly TASK", False),
        ("sojourn status --loud", False),
        ("sojourn tasks list", False),
    ],
)
def test_what_is_found(line: str, good: bool) -> None:
    """A noun, a verb or an option that is not there is found; what stands behind `--` is another program's."""
    assert good == (not fault(line))


def test_what_is_read() -> None:
    """Command lines are read in blocks, in spans that go over two lines, and in those that go on behind a backslash."""
    text = "Try `sojourn entry\nlist` and\n\n    TASK=$(sojourn task begin \\\n      --type T)\n\n```console\n$ sojourn status\n```\n"
    assert {"sojourn task begin --type T", "sojourn status", "sojourn entry list"} == {
        " ".join(each.strip(" )").split()) for each in lines(text)
    }
