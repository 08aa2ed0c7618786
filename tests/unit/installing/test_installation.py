"""The plan of an installation: what it puts beside the program, and that its removal takes that away again."""

from pathlib import Path

from sojourn.installing import installation
from sojourn.installing.layout import Layout
from sojourn.installing.release import Release

SHIPPED = Path(__file__).parents[3] / "deploy" / "systemd" / "drop-ins"


def test_samples_of_drop_ins(tmp_path: Path) -> None:
    """Each drop-in that is shipped is put where a package has it, in force nowhere, and is gone with the program."""
    layout = Layout(tmp_path)
    folder = tmp_path / "usr/share/doc/sojourn/drop-ins"
    for step in installation.installing(layout, Release("0.1.0", None)):
        if step.what.startswith(f"write {folder}/"):
            step.act()
            assert step.is_done()
    written = {path.name: path.read_text() for path in folder.iterdir()}
    assert written == {path.name: path.read_text() for path in SHIPPED.iterdir()}
    assert written
    assert not list((tmp_path / "etc").glob("systemd/system/*.d"))
    [removal] = [step for step in installation.removing(layout, purge=False) if "usr/share/doc" in step.what]
    removal.act()
    assert removal.is_done()
    assert [] == list((tmp_path / "usr/share/doc").iterdir())
