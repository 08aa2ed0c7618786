"""report.py and aims.py of the bench: the page tells what the run found, and nothing else."""

import json

import pytest
from aims import AIMS, Aim
from catalogue import BY_NUMBER
from figures import Figure, Growth, Line
from report import PAGE, aims_of, figures_of, main, rewritten

RUN = {
    "quick": False,
    "seconds": 90.0,
    "machine": {
        "cpus": 2, "cpu": "a CPU", "memory_gib": 4.0, "load_before": [0.1, 0.2, 0.3], "busy_before": 0.02, "kernel": "6.1", "clock": "tsc",
        "file_system": "ext4", "began": "2026-11-26T12:00:00+00:00",
    },
    "versions": {"Sojourn": "1", "SPIRE": "not here"},
}  # fmt: skip


def line(*figures, number=30, **other):
    return Line(number, "a line", figures, group="a group", **other)


def test_parts_are_replaced_and_the_rest_stays():
    """What is written by hand stays, and what was there of an earlier run goes."""
    page = "by hand\n<!-- a -->\nold\n<!-- end of a -->\nmore\n"
    once = rewritten(page, {"a": "new \\1"})
    assert "by hand\n<!-- a -->\n\nnew \\1\n\n<!-- end of a -->\nmore\n" == once
    assert once == rewritten(once, {"a": "new \\1"})


def test_a_page_without_a_place():
    """A page that has no place for a figure is refused, so that none is lost without a word."""
    with pytest.raises(ValueError, match="no place for 'a'"):
        rewritten("by hand\n", {"a": "new"})


@pytest.mark.parametrize(
    ("aim", "values", "reached"),
    [
        (Aim("x", 30, "n", "s", at_least=1.0), [0.9, 1.0, 1.1], True),
        (Aim("x", 30, "n", "s", at_least=1.0), [0.9, 0.9, 1.1], False),
        (Aim("x", 30, "n", "s", at_most=1.0), [1.0], True),
        (Aim("x", 30, "n", "s", at_most=1.0), [1.01], False),
    ],
)
def test_an_aim_is_reached_by_the_median(aim, values, reached):
    """An aim is reached by the median: one good repetition does not make it."""
    figure = Figure.of("n", "ratio", values, subject="s")
    assert figure == aim.found({30: line(figure)})
    assert reached is aim.reached(figure)


def test_an_aim_that_was_not_measured_says_so():
    """A run without the peer claims nothing."""
    assert len(AIMS) == aims_of({}).count("not measured")


def test_aims_are_of_lines_that_exist():
    """None can be forgotten by a line that goes."""
    assert {aim.line for aim in AIMS} <= set(BY_NUMBER)
    assert all((aim.at_least is None) != (aim.at_most is None) for aim in AIMS)


def test_remarks_and_failures_are_on_the_page():
    """What a run could not do is told with the rest."""
    shown = figures_of([line(failure="it | broke", notes=("so it was",)), line(missing="a part")])
    for said in ("### a group", "- so it was", "- failed: it \\| broke", "- missing: a part"):
        assert said in shown


def test_the_page_from_a_run(tmp_path):
    """The real page has a place for each part; plots of earlier runs go."""
    growth = Growth("a decision", "µs", "policies", {"": [(10, [1.0])]})
    made = line(Figure.of("x", "ms", [1.5]), growths=(growth,))
    file, page, plots = tmp_path / "bench.json", tmp_path / "page.md", tmp_path / "plots"
    file.write_text(json.dumps({**RUN, "lines": [made.json()]}))
    page.write_text(PAGE.read_text())
    plots.mkdir()
    (plots / "old.svg").touch()
    main(file, page, plots)
    shown = page.read_text()
    for said in ("| x | ms | 1.5 | 1 |", "plots/30-a-decision.svg", "| SPIRE | not here |", "2 CPUs (a CPU)"):
        assert said in shown
    assert ["30-a-decision.svg"] == [path.name for path in plots.iterdir()]
