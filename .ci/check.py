"""Check a change in one room: `check.py ROOM` runs the order of the packages, the room's own tests, and every other
test that imports something of it. `--list` prints which files of tests those are.

A room is a package below agent/sojourn, such as `tasks` or `endpoints/oauth`.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from trees import nodes_of

ROOT = Path(__file__).resolve().parent.parent
ALWAYS = ("tests/unit/test_layers.py", "tests/unit/test_architecture.py", "tests/unit/test_fronts.py")


def rooms() -> list[str]:
    """Every package of the agent, by its path below agent/sojourn."""
    top = ROOT / "agent/sojourn"
    found = (str(each.parent.relative_to(top)) for each in top.rglob("__init__.py") if each.parent != top)
    return sorted(each for each in found if not each.startswith("_pb"))


def imported(path: Path) -> Iterator[str]:
    """The modules that a file names in its imports, wherever in it."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tests_of(room: str) -> list[str]:
    """The files of tests that a change in the room concerns: its own, and those that import something of it."""
    package = f"sojourn.{room.replace('/', '.')}"
    own = ROOT / "tests/unit" / room
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if path.is_relative_to(own) or any(name == package or name.startswith(f"{package}.") for name in imported(path))
    }
    return sorted({*found, *(each for each in ALWAYS if (ROOT / each).exists())})


def main(arguments: list[str]) -> int:
    names = [each for each in arguments if not each.startswith("-")]
    if len(names) != 1 or names[0].strip("/") not in rooms():
        print(f"usage: make check ROOM=…, one of: {', '.join(rooms())}", file=sys.stderr)
        return 2
    files = tests_of(names[0].strip("/"))
    if "--list" in arguments:
        print("\n".join(files))
        return 0
    print(f"{len(files)} files of tests")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "auto", "-q", *files], cwd=ROOT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
