"""docs/operate/capacity.md: what to give an agent follows from what was measured."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


codes, capacity = loaded("codes"), loaded("capacity")
FIGURES = (ROOT / "docs" / "performance.md").read_text("utf-8")


def test_the_page_is_what_the_figures_say() -> None:
    """docs/operate/capacity.md is what `make capacity` makes of the figures and the limits."""
    assert capacity.page() == capacity.PAGE.read_text("utf-8")


def test_memory_that_was_measured() -> None:
    """What the page counts together is near what was measured of an agent with thousands of streams, or of exchanges."""
    known = capacity.model(FIGURES)
    streams = known.memory(capacity.Load("", 1, 5_000, 0, 0)) - capacity.WARM_MIB
    assert capacity.figure(FIGURES, "RSS of all daemons, 5,000 held streams") == pytest.approx(streams, rel=0.1)
    assert known.memory(capacity.Load("", 1, 0, 0, 574)) == pytest.approx(174, rel=0.1)


def test_every_load_is_within_what_one_agent_can_do() -> None:
    """No load of the page takes more than the loop has, and each is given twice the memory that it takes."""
    known = capacity.model(FIGURES)
    for load in capacity.LOADS:
        assert known.processor(load) < 1
        assert capacity.rounded(capacity.ROOM * known.memory(load)) >= 2 * known.memory(load)


def test_a_figure_that_is_gone() -> None:
    """Where the figures lack a row the page is not written."""
    with pytest.raises(SystemExit, match="no row 'RSS of nobody'"):
        capacity.figure(FIGURES, "RSS of nobody")


@pytest.mark.parametrize(
    ("seconds", "said"), [(90 * 86_400, "90 days"), (11 * 3600, "11 hours"), (4_000, "67 minutes")]
)
def test_how_long_a_journal_lasts(seconds: float, said: str) -> None:
    """Times are said in the largest unit of which there are two."""
    assert said == capacity.lasting(seconds)
