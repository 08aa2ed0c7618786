"""Run `make test` as the gate does: the same tree gives the same run, and a test that fails is tried again, alone.

A test that fails and is green alone is flaky: it is printed with its first failure, and is kept in build/flaky.jsonl.
Red are: a test that fails twice, more than three that fail, one whose file the change edits, a runner that ends in any
other way than with failed tests, and a process that the tests leave behind. tests/quarantine.toml takes tests out of
this run.
"""

import datetime as dt
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from testruns import ROOT, Failure, Red, Run, adopt_orphans, check_all_ended, check_few, end_children

QUARANTINE = ROOT / "tests/quarantine.toml"
ROWS_MAX = 20
AGAIN_MAX = 3
CHANGE = dt.timedelta(hours=2)
_ROW = {"id": str, "since": dt.date, "until": dt.date, "seen": str, "suspected": str}


def quarantined(text: str, day: dt.date) -> list[str]:
    """The tests that tests/quarantine.toml, whose text this is, takes out on that day."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Red(f"tests/quarantine.toml: {error}") from None
    rows = tables.pop("test", [])
    if tables or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Red(f"tests/quarantine.toml: say [[test]] for each test, and nothing else: {', '.join(tables)}")
    if len(rows) > ROWS_MAX:
        raise Red(f"tests/quarantine.toml has {len(rows)} rows, of at most {ROWS_MAX}: mend some of them")
    for row in rows:
        name = row.get("id", "a row without id")
        if wrong := [key for key, kind in _ROW.items() if type(row.get(key)) is not kind or row[key] == ""]:
            raise Red(f"tests/quarantine.toml, {name}: say {', '.join(wrong)}")
        if row["until"] < day:
            raise Red(f"tests/quarantine.toml, {name}: was to be mended until {row['until']}")
    return [row["id"] for row in rows]


def check_known(tests: Sequence[str]) -> None:
    """Refuse a row for a test that is not there."""
    if not tests:
        return
    listed = [ROOT / ".venv/bin/python", "-m", "pytest", "--collect-only", "-qq", *tests]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Red(f"tests/quarantine.toml names a test that is not there: {done.stdout}{done.stderr}")


def check_not_edited(found: Sequence[Failure], edited: Sequence[str] | None) -> None:
    """Refuse to try again what the change may have broken; `edited`: its files, None where nobody knows them."""
    for each in found:
        if edited is None:
            raise Red(f"{each.test} failed, and this clone does not tell which files the change edits")
        if each.test.partition("::")[0] in edited:
            raise Red(f"{each.test} failed, in a file that the change edits: such a test is never flaky")


def edited_files() -> list[str] | None:
    """The files of the change: of the commits that origin has not, or, where it has all, of those of two hours.

    None where there is no commit before them.
    """
    head, made = _git("log", "-1", "--format=%H %cI").split()
    base = _git("merge-base", "origin/main", "HEAD")
    if base in {"", head}:
        before = dt.datetime.fromisoformat(made) - CHANGE
        base = _git("rev-list", "-1", f"--before={before.isoformat()}", "HEAD")
    return _git("diff", "--name-only", base, head).splitlines() if base else None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def tried(scratch: Path) -> str:
    """Run the tests; return what the last test that was tried again printed. Raise Red."""
    made = dt.datetime.fromisoformat(_git("log", "-1", "--format=%cI"))
    out = quarantined(QUARANTINE.read_text(encoding="utf-8"), made.date())
    check_known(out)
    run = Run("test", int(_git("rev-parse", "HEAD^{tree}")[:8], 16), scratch)
    found = run.all_of(*(f"--deselect={each}" for each in out))
    check_all_ended()
    if not found:
        return ""
    check_few(found, AGAIN_MAX)
    check_not_edited(found, edited_files())
    again = run.again(found)
    if again.red:
        raise Red(f"failed twice: {', '.join(each.test for each in again.red)}")
    return again.printed


def main() -> int:
    adopt_orphans()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            printed = tried(Path(scratch))
    except Red as red:
        print(f"red: {red}", file=sys.stderr)
        return 1
    finally:
        end_children()
    print(printed, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
