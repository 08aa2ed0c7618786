"""The mutants that no test can kill, because they do the same: explained.toml, a reason for each."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from mutants import Mutant

FILE = Path(__file__).with_name("explained.toml")


class Reasons:
    """The lines for one room. A line that fits no mutant, or one that was killed, is stale."""

    def __init__(self, lines: list[Mapping[str, str]]) -> None:
        for line in lines:
            if not line["reason"].strip():
                raise ValueError(f"{FILE.name}: a mutant of {line['function']} has no reason")
        self._known = {(line["function"], line["change"]) for line in lines}
        self._met: set[tuple[str, str]] = set()
        self._dead: set[tuple[str, str]] = set()

    def explain(self, mutant: Mutant) -> bool:
        """Whether a mutant has a line."""
        key = (mutant.function, mutant.change)
        self._met.add(key)
        if mutant.fate in {"killed", "timeout"}:
            self._dead.add(key)
        return key in self._known

    def stale(self) -> Iterator[str]:
        """What is wrong with the lines, once all mutants were shown."""
        for function, change in sorted(self._known - self._met):
            yield f"there is no such mutant: {function}: {change}"
        for function, change in sorted(self._known & self._dead):
            yield f"a test kills it, so it is not the same: {function}: {change}"


def read(room: str) -> Reasons:
    return Reasons(tomllib.loads(FILE.read_text()).get(room, []))
