"""figures.py, table.py and svg.py of the bench: what is shown is what was measured."""

from xml.etree import ElementTree as ET

import pytest
from figures import Figure, Growth, Line, percentile, ratios
from plots import file_name, write_plots
from svg import plot
from table import number, text

GROWTH = Growth(
    "a decision", "µs", "policies", {"Sojourn": [(10, [1.0, 2.0, 3.0]), (1000, [4.0])], "OPA": [(10, [50.0])]}
)


def line(*figures, **other):
    return Line(7, "a line", figures, **other)


def test_summary_of_a_figure():
    """A figure is shown as its median, least and most."""
    assert (1, 3, 9) == Figure.of("x", "ms", [9, 1, 3]).summary


def test_ratios_go_by_repetition():
    """What disturbed one repetition of both does not show in the ratio."""
    assert [2, 2, 2] == ratios([10, 2, 6], [5, 1, 3])


@pytest.mark.parametrize(("percent", "value"), [(50, 2), (75, 3), (99, 4), (0, 1)])
def test_percentile(percent, value):
    """The smallest value that so many do not exceed."""
    assert value == percentile([4, 1, 3, 2], percent)


def test_one_row_for_all_subjects():
    """The same figure of several subjects stands in one row, a column each, and their ratio beside it."""
    shown = text(
        [
            line(
                Figure.of("calls", "/s", [1000, 3000, 2000], subject="Sojourn"),
                Figure.of("calls", "/s", [500, 1000, 1000], subject="SPIRE", failed=True),
                Figure.of("calls", "ratio", [2.0], subject="Sojourn : SPIRE"),
                Figure.of("alone", "ms", [0.5]),
            )
        ]
    )
    (row,) = (each for each in shown.splitlines() if each.strip().startswith("calls"))
    assert [
        "calls",
        "/s",
        "2,000",
        "[1,000",
        "…",
        "3,000]",
        "1,000",
        "[500.0",
        "…",
        "1,000]",
        "!",
        "2",
        "3",
    ] == row.split()
    assert any(each.split() == ["Sojourn", "SPIRE", "Sojourn", ":", "SPIRE", "n"] for each in shown.splitlines())


def test_what_is_missing_and_what_failed_is_said():
    """A line without figures still says why."""
    shown = text([line(missing="there is no SPIRE"), line(failure="RuntimeError: it ended", notes=("so it was",))])
    for said in ("missing: there is no SPIRE", "failed: RuntimeError: it ended", "so it was"):
        assert said in shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0"), (0.00412, "0.00412"), (12.34, "12.3"), (123.4, "123.4"), (98765.4, "98,765")]
)
def test_numbers(value, shown):
    """Three digits, and all before the point."""
    assert shown == number(value)


def test_json_gives_back_the_line():
    """The file holds all that the table and the plots are made of."""
    made = Line(
        3,
        "a title",
        (Figure.of("x", "ms", [1.5, 2.5], subject="Sojourn", failed=True), Figure.of("y", "", [3.0])),
        "broke",
        1.25,
        ("a note",),
        "a part",
        (GROWTH,),
        "a group",
    )
    assert made == Line.from_json(made.json())


def test_growth_is_rows_too():
    """Each point of a curve is a figure."""
    assert [
        ("a decision, 10 policies", "Sojourn", (1.0, 2.0, 3.0)),
        ("a decision, 1,000 policies", "Sojourn", (4.0,)),
        ("a decision, 10 policies", "OPA", (50.0,)),
    ] == [(each.name, each.subject, each.values) for each in GROWTH.figures]


def test_plot_is_svg_with_all_points():
    """A point is a circle; names are in the legend, whatever characters they have."""
    root = ET.fromstring(plot("a <decision>", "policies", "µs", {"a & b": [(10, [1]), (1000, [4, 5])]}))
    kind = "{http://www.w3.org/2000/svg}"
    assert 2 == len(root.findall(f"{kind}circle"))
    assert {"a <decision>", "a & b", "policies", "µs"} <= {each.text for each in root.findall(f"{kind}text")}
    inside = [(float(each.get("cx")), float(each.get("cy"))) for each in root.findall(f"{kind}circle")]
    assert all(0 < x < 640 and 0 < y < 360 for x, y in inside)


def test_zero_has_no_place_on_a_logarithmic_axis():
    """Zero is left out on a logarithmic axis; a plot of nothing is refused."""
    assert "circle" in plot("x", "y", "z", {"a": [(0, [1]), (1, [0, 2])]})
    with pytest.raises(ValueError, match="nothing to plot"):
        plot("x", "y", "z", {"a": [(0, [1])]})


def test_plots_are_files(tmp_path):
    """There is one plot for each growth, a file named for it."""
    made = line(growths=(GROWTH,))
    assert [tmp_path / "p" / "7-a-decision.svg"] == write_plots([made], tmp_path / "p")
    assert "7-a-decision.svg" == file_name(made, GROWTH)
