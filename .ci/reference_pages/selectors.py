"""docs/reference/selectors.md: every kind of selector of our attestors, by the spelling that the agent checks.

What each proves is said once, in the tables of docs/attestors.md: a kind that has no row there, or a row of no kind,
keeps the page from being written.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from sojourn.identity import selector_spelling

from reference_pages import MADE, code, table

ATTESTORS = Path(__file__).resolve().parents[2] / "docs" / "attestors.md"
# Of these the agent says only why there are none.
NEVER = frozenset({"script_path", "script_sha256"})
_SECTIONS = {
    "unix": "unix",
    "systemd": "systemd",
    "docker": "docker-docker-engine-and-podman",
    "k8s": "k8s-kubernetes",
}
_ROW = re.compile(r"^\| (`(unix|systemd|docker|k8s):[^|]+) \| (.+) \|$", re.MULTILINE)
_HEAD = f"""# Selectors

{MADE}

What an entry may ask for, by attestor: `sojourn entry create --selector TYPE:KIND:VALUE`. `sojourn explain --pid PID`
prints those that a process has, and what could not be proved, with the reason. [attestors.md](../attestors.md) tells
how each is proved and what it is worth. A selector that is spelt otherwise is registered with a warning, since no
process has it.
"""


def page() -> str:
    """docs/reference/selectors.md, whole. Raise SystemExit where the code has other kinds than docs/attestors.md."""
    told = rows(ATTESTORS.read_text("utf-8"))
    if faults := differences(told):
        raise SystemExit("\n".join(faults))
    lines = [*_HEAD.splitlines(), ""]
    for type_, section in _SECTIONS.items():
        lines += [
            f"## {type_}",
            "",
            f"Off or on, set up, and what it trusts: [attestors.md](../attestors.md#{section}).",
            "",
        ]
        lines += table(("Selector", "What is proved"), (row for _, row in told if row[0].startswith(f"`{type_}:")))
    return "\n".join(lines).rstrip("\n") + "\n"


def rows(text: str) -> list[tuple[frozenset[tuple[str, str]], tuple[str, str]]]:
    """The rows about selectors of docs/attestors.md, each with the types and kinds that it is of."""
    found = []
    for names, _, said in _ROW.findall(text):
        of = frozenset((one[0], one[1]) for one in re.findall(r"`(\w+):([a-z0-9_-]+):", names))
        found.append((of, (names, said.replace("](../", "](../../").replace("](#", "](../attestors.md#"))))
    return found


def differences(told: list[tuple[frozenset[tuple[str, str]], tuple[str, str]]]) -> list[str]:
    """The kinds that either the code or the tables lack."""
    there = {kind for of, _ in told for kind in of}
    known = {(type_, kind) for type_ in selector_spelling.OURS for kind in selector_spelling.kinds_of(type_)}
    return list(_missing(there, known))


def _missing(there: set[tuple[str, str]], known: set[tuple[str, str]]) -> Iterator[str]:
    for type_, kind in sorted(known - there):
        if kind not in NEVER:
            yield f"docs/attestors.md has no row of {code(f'{type_}:{kind}')}, which the agent knows"
    for type_, kind in sorted(there - known):
        yield f"docs/attestors.md has a row of {code(f'{type_}:{kind}')}, which the agent does not know"
