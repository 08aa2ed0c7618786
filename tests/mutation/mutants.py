"""The mutants of a file as mutmut wrote them: what each changes, and how it fared."""

import ast
import difflib
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from zlib import crc32

from wording import error_names, only_wording

AROUND = 60  # characters on each side of a change
_LEFT_OUT = 34  # mutmut's code for a mutant that it is not to run
_NOT_RUN = None
_FATES = {
    0: "survived", 1: "killed", 3: "killed", 5: "no tests", 33: "no tests",
    24: "timeout", -24: "timeout", 36: "timeout", 152: "timeout", 255: "timeout", -9: "timeout",
    2: "not run", _LEFT_OUT: "not run", _NOT_RUN: "not run",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """`change` is the statement that differs, as `before[old → new]after`, with a little of what stands around it."""

    name: str  # mutmut's: `mutmut show NAME` prints it
    function: str  # dotted, from `sojourn` on
    change: str
    fate: str


def of_file(mutated: Path, module: str) -> Iterator[Mutant]:
    """The mutants in a file under mutmut's `mutants/`; `module` is its dotted name."""
    tree = ast.parse(mutated.read_text())
    errors = error_names(tree)
    fates = json.loads(meta_of(mutated).read_text())["exit_code_by_key"]
    families: dict[str, dict[str, ast.AST]] = defaultdict(dict)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            family, is_one, which = node.name.partition("__mutmut_")
            if is_one:
                node.name = family
                families[family][which] = node
    for family, members in families.items():
        original = members.pop("orig")
        for which, mutant in members.items():
            name = f"{module}.{family}__mutmut_{which}"
            wording = only_wording(original, mutant, errors)
            fate = "wording" if wording else _FATES.get(fates[name], "broken")
            yield Mutant(name, f"{module}.{_plain(family)}", _difference(original, mutant), fate)


def choose(mutated: Path, module: str, every: int) -> None:
    """Have mutmut run one of `every` so many mutants of a file, and none that is of wording alone."""
    found = list(of_file(mutated, module))
    due = {mutant.name for mutant in found if mutant.fate == "not run" and crc32(mutant.name.encode()) % every == 0}
    rest = {mutant.name for mutant in found if mutant.fate in {"wording", "not run"}} - due
    _set(mutated, rest, _LEFT_OUT)
    _set(mutated, due, _NOT_RUN)


def try_again(mutated: Path, module: str) -> None:
    """Have mutmut run those again that no test killed."""
    alive = {"survived", "no tests", "broken"}
    _set(mutated, {mutant.name for mutant in of_file(mutated, module) if mutant.fate in alive}, _NOT_RUN)


def meta_of(mutated: Path) -> Path:
    return mutated.with_name(mutated.name + ".meta")


def _set(mutated: Path, names: set[str], code: int | None) -> None:
    meta = meta_of(mutated)
    data = json.loads(meta.read_text())
    data["exit_code_by_key"].update(dict.fromkeys(names, code))
    meta.write_text(json.dumps(data, indent=4))


def _plain(family: str) -> str:
    """`x_parse` and `xǁBundleǁdocument` as they stand in the source."""
    return family.removeprefix("x_") if family.startswith("x_") else family.removeprefix("xǁ").replace("ǁ", ".")


def _difference(original: ast.AST, mutant: ast.AST) -> str:
    lines = difflib.ndiff(ast.unparse(original).splitlines(), ast.unparse(mutant).splitlines())
    changed = [line for line in lines if line[:2] in {"- ", "+ "}]
    before, after = ("⏎".join(line[2:].strip() for line in changed if line[0] == sign) for sign in "-+")
    start = _shared(before, after)
    end = _shared(before[start:][::-1], after[start:][::-1])
    change = f"[{before[start : len(before) - end]} → {after[start : len(after) - end]}]"
    return f"{before[max(0, start - AROUND) : start]}{change}{before[len(before) - end :][:AROUND]}"


def _shared(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
