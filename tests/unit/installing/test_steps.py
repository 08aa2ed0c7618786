"""The steps of an installation: done once, shown before, and nothing the second time."""

import os
from pathlib import Path

import pytest
from sojourn.errors.oauth import CannotInstall
from sojourn.installing import steps
from sojourn.installing.plan import Shown, Step, carry_out, shown


class TestFile:
    def test_is_written(self, tmp_path: Path) -> None:
        """A file is written with its folders, readable by all, whatever the umask; then there is nothing to do."""
        before = os.umask(0o077)
        try:
            step = steps.file(tmp_path / "a" / "b.conf", "text\n")
            assert not step.is_done()
            step.act()
        finally:
            os.umask(before)
        assert step.is_done()
        assert "text\n" == (tmp_path / "a" / "b.conf").read_text()
        assert 0o644 == (tmp_path / "a" / "b.conf").stat().st_mode & 0o777

    def test_another_text(self, tmp_path: Path) -> None:
        """A file that says something else is to be written; one that is to be kept is not, whatever it says."""
        path = tmp_path / "agent.toml"
        path.write_bytes(b"\xff")
        assert not steps.file(path, "text\n").is_done()
        assert steps.file(path, "text\n", keep=True).is_done()


class TestLink:
    def test_is_exchanged(self, tmp_path: Path) -> None:
        """A link is made, and made to point elsewhere; what a crash left beside it does not matter."""
        path = tmp_path / "current"
        steps.link(path, "1").act()
        (tmp_path / ".current.new").symlink_to("half")
        step = steps.link(path, "2")
        assert not step.is_done()
        step.act()
        assert step.is_done()
        assert "2" == os.readlink(path)
        assert ["current"] == os.listdir(tmp_path)


class TestGone:
    @pytest.mark.parametrize("kind", ["file", "folder", "link"])
    def test_is_removed(self, tmp_path: Path, kind: str) -> None:
        """A file, a folder with what is in it, and a link without what it points to are removed."""
        kept = tmp_path / "kept"
        (kept / "within").mkdir(parents=True)
        path = tmp_path / "x"
        if kind == "file":
            path.touch()
        elif kind == "folder":
            (path / "y").mkdir(parents=True)
        else:
            path.symlink_to(kept)
        step = steps.gone(path)
        assert not step.is_done()
        step.act()
        assert step.is_done()
        assert (kept / "within").is_dir()


class TestPlan:
    def test_only_what_is_needed(self) -> None:
        """What is done already is shown as that and not done again; each other step is told before it is done."""
        did: list[str] = []
        plan = [
            Step("first", lambda: True, lambda: did.append("first")),
            Step("second", lambda: "second" in did, lambda: did.append("second")),
        ]
        assert [Shown("first", needed=False), Shown("second", needed=True)] == shown(plan)
        told: list[str] = []
        assert carry_out(plan, told.append)
        assert (["second"], ["second"]) == (did, told)
        assert not carry_out(plan, told.append)

    @pytest.mark.parametrize("umask", [0o077, 0o000])
    def test_whatever_the_umask(self, tmp_path: Path, umask: int) -> None:
        """Folders on the way can be gone through by everybody and written by their owner alone; the umask is as before."""
        before = os.umask(umask)
        try:
            carry_out([steps.file(tmp_path / "a" / "b" / "c.conf", "text\n")], lambda _: None)
        finally:
            assert umask == os.umask(before)
        assert [0o755, 0o755] == [path.stat().st_mode & 0o777 for path in (tmp_path / "a", tmp_path / "a" / "b")]

    def test_a_failure_ends_it(self) -> None:
        """Behind a step that fails nothing is done."""
        did: list[str] = []

        def fails() -> None:
            raise CannotInstall("no")

        plan = [Step("one", lambda: False, fails), Step("two", lambda: False, lambda: did.append("two"))]
        with pytest.raises(CannotInstall):
            carry_out(plan, lambda _: None)
        assert [] == did
