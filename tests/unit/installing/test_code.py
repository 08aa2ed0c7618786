"""What must be root's alone before an installation: all that is imported from."""

import os
import sys
from pathlib import Path

import pytest
from sojourn.errors.oauth import CannotInstall
from sojourn.installing import installation
from sojourn.installing.refusals import check_code

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of other users")


@pytest.mark.parametrize("changed", ["places", "places/more.pth"])
def test_a_place_of_somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    """A folder that modules come from, and a `.pth` file in one, are refused where another user could change them."""
    (tmp_path / "places").mkdir()
    (tmp_path / "places" / "more.pth").write_text("import os\n")
    monkeypatch.setattr(sys, "path", ["/usr/lib", str(tmp_path / "places"), str(tmp_path / "nothing")])
    check_code(installation._imported_from())
    os.chown(tmp_path / changed, 1000, 1000)
    with pytest.raises(CannotInstall, match=f"{changed} belongs to user 1000"):
        check_code(installation._imported_from())


def test_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where modules come from the working folder, it is looked at too."""
    monkeypatch.setattr(sys, "path", [""])
    monkeypatch.chdir(tmp_path)
    os.chown(tmp_path, 1000, 1000)
    with pytest.raises(CannotInstall, match="belongs to user 1000"):
        check_code(installation._imported_from())
