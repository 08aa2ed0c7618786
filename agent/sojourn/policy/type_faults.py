"""What is wrong with a task type's files, and where in them."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from sojourn.errors import Fault
from sojourn.settings.toml_lines import line_numbers


def placed(folder: Path, faults: Iterable[Fault], otherwise: str = "") -> list[Fault]:
    """Faults with the whole path of their file; of those that name none it is `otherwise`."""
    return [replace(fault, file=str(folder / (fault.file or otherwise))) for fault in faults]


def not_toml(file: str, text: str, error: tomllib.TOMLDecodeError) -> Fault:
    """What is wrong with a file that is no TOML."""
    place = re.search(r" \(at line ([0-9]+), ", str(error))
    return Fault(file, int(place[1]) if place else text.count("\n") + 1, f"not TOML: {error}")


def faults_of(file: str, toml: str, error: ValidationError) -> list[Fault]:
    """What is wrong with a file that is not as its model says, each with the line of its key."""
    lines = lines_of(toml)
    return [_fault(file, each, lines) for each in error.errors()]


def lines_of(toml: str) -> dict[str, int]:
    """Where each key stands, those of the tables of an array too, as ARRAY.NUMBER.KEY."""
    lines = line_numbers(toml)
    counts: dict[str, int] = {}
    place = ""
    for number, line in enumerate(toml.splitlines(), 1):  # the tables of an array have a number each
        header = re.match(r"\s*(\[+)\s*([A-Za-z0-9_.-]+)\s*\]", line)
        key = re.match(r"\s*([A-Za-z0-9_-]+)\s*=", line)
        if header:
            place = f"{header[2]}.{counts.setdefault(header[2], 0)}" if len(header[1]) > 1 else ""
            counts[header[2]] = counts.get(header[2], 0) + 1
            lines.setdefault(place, number)
        elif key and place:
            lines.setdefault(f"{place}.{key[1]}", number)
    return lines


def _fault(file: str, fault: object, lines: Mapping[str, int]) -> Fault:
    assert isinstance(fault, dict)
    parts = [str(part) for part in fault["loc"]]
    message = "unknown key" if fault["type"] == "extra_forbidden" else str(fault["msg"]).removeprefix("Value error, ")
    keys = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    line = next((lines[key] for key in keys if key in lines), 0)
    return Fault(file, line, f"{'.'.join(parts)}: {message}" if parts else message)
