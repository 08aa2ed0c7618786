"""The recipe of the image: the list of Debian packages that an earlier build wrote."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "deploy" / "image"))

import debian_files  # noqa: E402

LINES = (
    f"libc6=2.36-9 arm64 sha256:{'a' * 64}\nlibc6=2.36-9 amd64 sha256:{'b' * 64}\nnetbase=6.4 all sha256:{'c' * 64}\n"
)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    file = tmp_path / "x.packages"
    file.write_text(LINES)
    return file


class TestList:
    def test_is_read_as_it_was_written(self, listed: Path) -> None:
        """Each line is a package of one architecture, and is written again as it was."""
        lock = debian_files.read_lock(listed)
        assert {("libc6", "arm64"), ("libc6", "amd64"), ("netbase", "all")} == set(lock)
        assert LINES == "".join(f"{each.line}\n" for each in lock.values())

    def test_a_package_for_its_machine(self, listed: Path) -> None:
        """A package is that of the machine that is built for, or one for all; one that is not in the list ends the build."""
        lock = debian_files.read_lock(listed)
        assert "a" * 64 == debian_files._locked("libc6", "arm64", lock).sha256
        assert "c" * 64 == debian_files._locked("netbase", "amd64", lock).sha256
        with pytest.raises(SystemExit, match="zlib1g of amd64 is not in it"):
            debian_files._locked("zlib1g", "amd64", lock)

    @pytest.mark.parametrize("text", ["", "\n", "libc6\n", f"{LINES}libc6=1 arm64 sha256:a\n", "libc6=1 arm64 md5:a\n"])
    def test_of_nothing(self, tmp_path: Path, text: str) -> None:
        """An empty list, and one with a line that no build wrote, are refused: they do not stand for the newest packages."""
        (tmp_path / "x.packages").write_text(text)
        with pytest.raises(SystemExit, match="not a list of packages"):
            debian_files.read_lock(tmp_path / "x.packages")

    def test_other_files(self, listed: Path) -> None:
        """A package of the right version and another content is none of the list."""
        lock = debian_files.read_lock(listed)
        debian_files.check(lock.values(), lock)
        other = debian_files.Package("libc6", "2.36-9", "amd64", "a" * 64, "")
        with pytest.raises(SystemExit, match=r"libc6=2\.36-9 amd64 sha256:aaa"):
            debian_files.check([other], lock)
