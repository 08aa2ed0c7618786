"""Where each key of a TOML file stands, for whoever tells what is wrong with it."""

import re


def line_numbers(text: str) -> dict[str, int]:
    """Where each dotted key stands in a TOML text (plain keys and tables; the first mention counts)."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        header = re.match(r"\[+\s*([A-Za-z0-9_.\-]+)\s*\]+", stripped)
        if header:
            table = header[1] + "."
            found.setdefault(header[1], number)
            continue
        key = re.match(r"([A-Za-z0-9_.\-]+)\s*=", stripped)
        if key:
            found.setdefault(table + key[1], number)
    return found
