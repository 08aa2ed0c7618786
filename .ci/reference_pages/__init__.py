"""The pages of docs/reference/ that are written from the code, one module each."""

import textwrap
from collections.abc import Iterable, Iterator

MADE = "Written by `make reference` from the code: change it there, and CI fails while this page is another."
WIDTH = 120
ROW_MAX = 280


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A table of Markdown, and an empty line after it. An empty cell has a dash, and what is long stands below."""
    cells = list(head)
    notes: list[tuple[str, str]] = []
    yield f"| {' | '.join(cells)} |"
    yield "|" + "---|" * len(cells)
    for row in rows:
        made = [_cell(each) for each in row]
        if sum(map(len, made)) > ROW_MAX:
            notes.append((made[0], made[-1]))
            made[-1] = "Below."
        yield f"| {' | '.join(made)} |"
    yield ""
    for name, text in notes:
        yield from paragraph(f"{name}: {text}".replace("\\|", "|"))


def paragraph(text: str) -> Iterator[str]:
    """Text in lines that are not long, and an empty line after it."""
    yield from textwrap.wrap(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)
    yield ""


def _cell(text: str) -> str:
    one_line = " ".join(text.split()).replace("|", "\\|")
    return one_line or "-"


def code(text: str) -> str:
    """Text as code, if there is any."""
    return f"`{text}`" if text else ""
