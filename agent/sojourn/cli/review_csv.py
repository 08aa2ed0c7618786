"""`sojourn review export` and `sojourn review import`: a review in a spreadsheet, one row an item.

What spreadsheets would take for a formula has an apostrophe before it, which is taken away as it is read back.
"""

import csv
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

import typer

from sojourn.cli import remote
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import REFUSED, emit, printable
from sojourn.cli.review import OverdueOption, OwnerOption, decide_all, shown_value
from sojourn.cli.review_evidence import called
from sojourn.errors import InvalidInput, SojournError
from sojourn.operating_limits import REVIEW_CALL, REVIEW_CSV_MAX_BYTES, REVIEW_DECISIONS

_COLUMNS: Final = (
    *(
        "item",
        "owner",
        "sponsor",
        "due",
        "overdue",
        "last_decision",
        "last_decided",
        "since",
        "until",
        "used",
        "enough",
    ),
    *("tasks", "granted", "taken", "called", "denied", "last_use", "about", "digest", "decision", "reason"),
)
_READ: Final = ("item", "digest", "decision", "reason")
_ABOUT_MAX: Final = 500  # characters of a cell that says what it is
# As OWASP has them; the last four are the wide forms of Asian keyboards.
_FORMULA: Final = re.compile("'*[=+\\-@\\t\\r\\n\uff1d\uff0b\uff0d\uff20]")
_SEPARATORS: Final = ",;\t"
_Row = tuple[int, dict[str, str]]  # with its number
_Fault = tuple[int, str, str, str]  # of a row: its number, its item, a code and why


def add_to(app: typer.Typer) -> None:
    """Add the commands to `sojourn review`."""
    app.command()(export)
    app.command("import")(import_)


def export(
    to_csv: Annotated[Path, typer.Option("--csv", metavar="FILE", help="A file that is not there yet.")],
    overdue: OverdueOption = False,
    owner: OwnerOption = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Write what there is to review into a CSV file: a row an item, with its evidence and room for the decision.

    Fill the columns `decision` (keep, narrow or retire) and `reason`, and give the file to `sojourn review import`.
    """
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    request = pb.ShowReviewItemsRequest(overdue=overdue, owner=owner)
    count = 0
    with _new_file(to_csv) as file:
        rows = csv.writer(file, quoting=csv.QUOTE_ALL)
        rows.writerow(_COLUMNS)

        def each(part: Any) -> None:
            nonlocal count
            for one in part.shown:
                row = _row(shown_value(one))
                rows.writerow([escaped(row[name]) for name in _COLUMNS])
                count += 1

        remote.admin_stream(admin_socket, request, each)
    emit(output, {"file": str(to_csv), "items": count}, [f"{count} items are in {to_csv}"])


def import_(
    file: Annotated[Path, typer.Argument(help="What `sojourn review export` has written, with decisions.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look at all rows.")] = False,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Make the decisions of the rows that have one. All rows are looked at first: with a fault in one none is made.

    It decides as `sojourn review decide` does, and grants and changes nothing. Only the columns `item`, `digest`,
    `decision` and `reason` are read.
    """
    rows, left, faults = _read(file)
    if len(rows) > REVIEW_DECISIONS:
        raise InvalidInput(f"{str(file)!r} has more than {REVIEW_DECISIONS} decisions")
    faults += _twice(rows)
    made = 0
    following: list[tuple[str, str]] = []
    try:
        for answer, part in _answers(admin_socket, rows, dry_run=True):
            faults += _faults(answer, part)
        if not faults and not dry_run:
            for answer, part in _answers(admin_socket, rows, dry_run=False):
                faults += _faults(answer, part)
                made += answer.decided
                following += [(row["item"], said) for (_, row), said in zip(part, answer.next, strict=False) if said]
                if faults:  # something was changed since all were looked at
                    break
    except SojournError as error:
        error.public += f"; of {len(rows)} decisions, {made} were made in calls before" if made else ""
        raise
    faults = [*{each[0]: each for each in sorted(faults, reverse=True)}.values()][::-1]
    value = {
        "decided": made,
        "undecided": left,
        "dry_run": dry_run,
        "faults": [dict(zip(("row", "item", "code", "reason"), each, strict=True)) for each in faults],
        "next": [{"item": item, "next": said} for item, said in following],
    }
    would = f"{len(rows)} would be made" if dry_run and not faults else f"{made} decisions were made"
    lines = [f"{would}; {left} rows have none"]
    if faults:
        done = f"{made} decisions were made, and no more" if made else "nothing was decided"
        lines = [f"{done}: {len(faults)} of {len(rows)} cannot be"]
    lines += [f"{item}: now: {said}" for item, said in following]
    emit(output, value, lines)
    if faults:
        for number, item, code, reason in faults if output is Output.PRETTY else ():
            print(printable(f"row {number}: {item}: {code}: {reason}"), file=sys.stderr)
        raise typer.Exit(REFUSED)


def _answers(socket: str | None, rows: Sequence[_Row], *, dry_run: bool) -> Iterator[tuple[Any, Sequence[_Row]]]:
    """What the agent says of the decisions of some rows after the others. Raise a SojournError."""
    for at in range(0, len(rows), REVIEW_CALL):
        part = rows[at : at + REVIEW_CALL]
        yield decide_all(socket, [row for _, row in part], dry_run=dry_run, as_faults=True), part


def _faults(answer: Any, part: Sequence[_Row]) -> list[_Fault]:
    return [(part[each.place][0], part[each.place][1]["item"], each.code, each.reason) for each in answer.faults]


def _twice(rows: Sequence[_Row]) -> Iterator[_Fault]:
    seen: set[str] = set()
    for number, row in rows:
        if row["item"] in seen:
            yield number, row["item"], "invalid_input", "it is decided twice"
        seen.add(row["item"])


@contextmanager
def _new_file(path: Path) -> Iterator[TextIO]:
    """A file that is not there yet, and is there as a whole once it is left without an error: half of it would look
    like all. Raise InvalidInput.
    """
    half = path.with_name(f"{path.name}.part")
    made: list[Path] = []
    try:
        for each in path, half:  # the first so that the name is taken
            os.close(os.open(each, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            made.append(each)
        with half.open("w", newline="", encoding="utf-8-sig") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
        made.clear()
    except FileExistsError as error:
        raise InvalidInput(f"--csv: {error.filename!r} is there already, perhaps with decisions in it") from error
    except OSError as error:
        raise InvalidInput(f"--csv: {str(path)!r} cannot be written: {error.strerror}") from error
    finally:
        for each in made:
            each.unlink(missing_ok=True)


def _row(shown: Mapping[str, Any]) -> dict[str, str]:
    item, evidence = shown["item"], shown["evidence"]
    last = item["last"] or {"decision": "", "decided_at": ""}
    made: dict[str, Any] = {
        "item": item["item"],
        "owner": ", ".join(item["owners"]),
        "sponsor": ", ".join(item["sponsors"]),
        "due": item["due_at"],
        "overdue": "yes" if item["overdue"] else "",
        "last_decision": last["decision"],
        "last_decided": last["decided_at"],
        "since": evidence["since"],
        "until": evidence["until"],
        "used": "yes" if evidence["used"] else "NO",
        "enough": evidence.get("lacking", ""),
        **{name: evidence[name] for name in ("tasks", "granted", "taken", "denied")},
        "called": called(evidence),
        "last_use": evidence["last"],
        "about": _about(evidence),
        "digest": shown["digest"],
        "decision": "",
        "reason": "",
    }
    return {name: "" if value is None else str(value) for name, value in made.items()}


def _about(evidence: Mapping[str, Any]) -> str:
    """What it may do, in a cell."""
    if "ceiling" in evidence:
        texts = [f"{each[0]}: {' '.join(each[1:])}" for each in evidence["ceiling"]["rows"]]
    elif "entries" in evidence:
        texts = [f"{each['id']}: {' '.join(each['selectors'])}" for each in evidence["entries"]["rows"]]
    elif "resources" in evidence:
        texts = evidence["resources"]["rows"]
    else:
        texts = [f"{evidence['provider']} for {evidence['workload']}: {evidence['resource']}, until {evidence['ends']}"]
    text = "; ".join(texts)
    return text if len(text) <= _ABOUT_MAX else f"{text[:_ABOUT_MAX]} …"


def escaped(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unescaped(text: str) -> str:
    """What `escaped` was made of."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _read(path: Path) -> tuple[list[_Row], int, list[_Fault]]:
    """The rows with a decision, each with its number; how many have none; and what is wrong. Raise InvalidInput."""
    found: list[_Row] = []
    faults: list[_Fault] = []
    left = 0
    for number, row in _rows(path):
        if not row["decision"]:
            left += 1
            if row["reason"]:
                faults.append((number, row["item"], "invalid_input", "it has a reason and no decision"))
            continue
        found.append((number, {**row, "decision": row["decision"].lower(), "digest": row["digest"].lower()}))
    return found, left, faults


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The columns that are read, each row with its number in the file."""
    text = _text(path)
    first = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=first.count)  # some spreadsheets write others than they read
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        _check_columns(path, reader.fieldnames or ())
        for number, row in enumerate(reader, 2):
            made = {name: unescaped((row[name] or "").strip()) for name in _READ}
            if any(made.values()):
                yield number, made
    except csv.Error as error:
        raise InvalidInput(f"{str(path)!r} is not CSV: {error} in line {max(1, reader.line_num)}") from error


def _check_columns(path: Path, names: Sequence[str]) -> None:
    missing = [name for name in _READ if name not in names]
    if missing:
        raise InvalidInput(f"{str(path)!r} has no column {', '.join(missing)}: its first row must name them")
    twice = [name for name in _READ if names.count(name) > 1]
    if twice:
        raise InvalidInput(f"{str(path)!r} has the column {', '.join(twice)} twice: which of them counts?")


def _text(path: Path) -> str:
    try:
        if not path.is_file() or path.stat().st_size > REVIEW_CSV_MAX_BYTES:
            raise InvalidInput(f"{str(path)!r} is not a regular file of at most {REVIEW_CSV_MAX_BYTES} bytes")
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{str(path)!r} is not UTF-8: have the spreadsheet write “CSV UTF-8”") from error
