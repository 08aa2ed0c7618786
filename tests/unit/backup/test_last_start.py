"""last_start.py: one number, which a start must be able to rely on, and a restore counts on from as far as it is known."""

from pathlib import Path

import pytest
from sojourn.backup import last_start
from sojourn.errors import CannotStart


def test_a_number(tmp_path: Path) -> None:
    """Both read the number that the last start has written."""
    (tmp_path / "epoch").write_text("17\n")
    assert 17 == last_start.of_agent(tmp_path) == last_start.as_far_as_known(tmp_path)


def test_no_start_yet(tmp_path: Path) -> None:
    """In a folder in which no agent has started it is 0 for both."""
    assert 0 == last_start.of_agent(tmp_path) == last_start.as_far_as_known(tmp_path)


@pytest.mark.parametrize("text", ["", "x\n", "-5\n", "1.5", "\u0663", None])
def test_damaged(tmp_path: Path, text: str | None) -> None:
    """A file that does not say it ends a start, with what to do; a restore goes on, as its own database says the rest."""
    if text is None:
        (tmp_path / "epoch").mkdir()
    else:
        (tmp_path / "epoch").write_text(text, "utf-8")
    with pytest.raises(CannotStart, match="does not say the number of the last start: remove it"):
        last_start.of_agent(tmp_path)
    assert 0 == last_start.as_far_as_known(tmp_path)
