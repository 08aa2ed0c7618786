"""The control map for people: of which frameworks, and its rows as lines."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from sojourn.oversight.controls.frameworks import Framework

_WIDTH: Final = 118
_FIGURE_MAX: Final = 200  # characters
FrameworkOption = Annotated[
    list[str] | None,
    typer.Option(
        "--framework",
        metavar="NAME",
        help="owasp-asi, maestro, csf, ai-rmf, soc2 or ai-act. May be repeated. Default: all.",
    ),
]


def loaded(names: Sequence[str] | None) -> "list[Framework]":
    """The frameworks that are asked for. Raise InvalidInput."""
    from sojourn.oversight.controls import frameworks

    return [frameworks.load(each) for each in dict.fromkeys(names or frameworks.names())]


def has_failed(value: Mapping[str, Any]) -> bool:
    """Whether a row failed."""
    return bool(value["verdicts"]["failed"])


def control_lines(value: Mapping[str, Any]) -> Iterator[str]:
    """The rows of each framework, and what all of them rest on."""
    for each in value["frameworks"]:
        yield ""
        yield f"{each['title']}, {each['version']}: {each['source']}"
        if each["titles"]:
            yield f"(titles are of {each['titles']})"
        named = ""
        for row in each["rows"]:
            if row["id"] != named:
                named = row["id"]
                yield f"{named}  {row['title']}"
                if row["why_not_verified"]:
                    yield from _wrapped("    not verified: ", row["why_not_verified"])
            yield from _row(row)
    yield ""
    yield from _ground(value)
    yield ", ".join(f"{number} {verdict}" for verdict, number in value["verdicts"].items())


def _row(row: Mapping[str, Any]) -> Iterator[str]:
    verdict = row["verdict"].upper() if row["verdict"] == "failed" else row["verdict"]
    if row["claim"] is None:
        yield from _wrapped(f"  {verdict:<8}  ", row["why"])
        return
    yield from _wrapped(f"  {verdict:<8}  ", f"{row['claim']} [{row['query']}]")
    yield from _wrapped("            ", f"n = {row['n']}: {row['assertion']}")
    if row["why"]:
        yield from _wrapped("            ", row["why"])
    if row["records"]:
        more = f" and {row['records_left_out']} more" if row["records_left_out"] else ""
        listed = ", ".join(map(str, row["records"]))
        yield from _wrapped("            ", f"exceptions: {row['exceptions']}, by records {listed}{more}")
    if row["not_judged"]:
        yield f"            not judged: {row['not_judged']}"
    if row["figures"]:
        yield from _wrapped(
            "            ", ", ".join(f"{name} {_figure(each)}" for name, each in row["figures"].items())
        )


def _figure(value: Any) -> str:
    text = (" ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)
    return text if len(text) <= _FIGURE_MAX else f"{text[:_FIGURE_MAX]}…"


def _wrapped(first: str, text: str) -> Iterator[str]:
    yield from textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False
    )


def _ground(value: Mapping[str, Any]) -> Iterator[str]:
    """What the rows rest on, and what they could not see."""
    records, journal = value["records"], value["journal"]
    if not records:
        yield "there are no records"
        return
    whole = {None: "nobody has looked whether they are whole", True: "they are whole", False: "they are NOT whole"}
    bad = f" from {journal['first_bad_seq']} on" if journal["first_bad_seq"] else ""
    yield f"records {value['first_seq']} to {value['last_seq']}: {whole[journal['whole']]}{bad}"
    if value["unread"]:
        yield f"{value['unread']} records are no JSON"
    if value["tasks_begun_before"]:
        yield f"{value['tasks_begun_before']} tasks began before these records, and are not judged"
    if value["tasks_not_kept"]:
        yield f"{value['tasks_not_kept']} tasks were too many at once, or their records lack what is needed: not judged"
