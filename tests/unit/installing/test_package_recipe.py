"""The recipe of the packages: what is in them and what is left out, manual pages, licences."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from sojourn.cli.root import COMMANDS, NOUNS

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "deploy" / "packages"))

import manual  # noqa: E402
import targets  # noqa: E402
import tree  # noqa: E402
import wheels  # noqa: E402

PAGES = manual.pages("0.1.0", "2026-01-01")


class TestManual:
    def test_a_page_for_each(self) -> None:
        """There is a page of each noun and each command without one, and the first page names them all."""
        names = {*NOUNS, *COMMANDS}
        assert {"sojourn.1", *(f"sojourn-{name}.1" for name in names)} == set(PAGES)
        assert all(rf"\fBsojourn\-{name}\fR(1)" in PAGES["sojourn.1"] for name in names)

    def test_every_option(self) -> None:
        """A page has the options of its commands with what they do, and an example."""
        page = PAGES["sojourn-entry.1"]
        assert r"\fB\-\-spiffe\-id SPIFFE_ID\fR" in page
        assert ".SS sojourn entry create" in page
        assert r"sojourn entry create \-\-spiffe\-id spiffe://example.org/web" in page

    @pytest.mark.parametrize("name", PAGES)
    def test_troff_has_no_complaint(self, name: str, tmp_path: Path) -> None:
        """`man` renders each page without a warning."""
        page = tmp_path / name
        page.write_text(PAGES[name])
        try:
            done = subprocess.run(["man", "--warnings", "-l", "-Tutf8", str(page)], capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("needs man: install man-db")
        if "groff" in done.stderr and "not found" in done.stderr:
            pytest.skip("needs groff")
        assert "" == done.stderr
        assert f"{name.removesuffix('.1').upper()}(1)" in done.stdout

    def test_nothing_is_obeyed(self) -> None:
        """What begins a line with a dot, or has a backslash, is text."""
        assert r"\&.so /etc/passwd" == manual._plain(".so /etc/passwd")
        assert r"a\eb\-c" == manual._plain(r"a\b-c")


class TestWheels:
    def test_what_is_left_out(self) -> None:
        """The lock of the packages is the agent's without the libraries for colours; hashes go with their library."""
        kept = wheels.locked(
            "a==1 \\\n    --hash=sha256:1\nrich==2 \\\n    --hash=sha256:2\nb==3 \\\n    --hash=sha256:3\n"
        )
        assert kept == "a==1 \\\n    --hash=sha256:1\nb==3 \\\n    --hash=sha256:3\n"

    def test_the_command_does_without(self) -> None:
        """The command's help is there without those libraries."""
        script = (
            "import sys\n"
            "for name in ('rich', 'pygments', 'markdown_it', 'mdurl'): sys.modules[name] = None\n"
            "sys.argv = ['sojourn', 'entry', 'create', '--help']\n"
            "from sojourn.cli.main import run\nrun()"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert 0 == done.returncode, done.stderr
        assert "--spiffe-id" in done.stdout

    def test_what_is_unpacked(self, tmp_path: Path) -> None:
        """Modules are unpacked, also those that a wheel keeps apart; scripts, headers, stubs and tests of libraries are not."""
        wheel = tmp_path / "x.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name in (
                "x/__init__.py", "x/y.pyi", "x/z.c", "x/tests/test_a.py", "x-1.data/platlib/x/fast.so", "x-1.data/scripts/x",
                "x-1.data/headers/x.h", "x-1.dist-info/METADATA", "sojourn/testing/case.py",
            ):  # fmt: skip
                archive.writestr(name, "")
        wheels.unpack(wheel, tmp_path / "out")
        found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
        assert {"x/__init__.py", "x/fast.so", "x-1.dist-info/METADATA", "sojourn/testing/case.py"} == found

    def test_out_of_the_folder(self, tmp_path: Path) -> None:
        """A wheel with a file that would lie elsewhere is refused."""
        wheel = tmp_path / "x.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("../../evil.py", "")
        with pytest.raises(SystemExit, match="leads out of the folder"):
            wheels.unpack(wheel, tmp_path / "a" / "b")


class TestTargets:
    @pytest.mark.parametrize("name", targets.TARGETS)
    def test_one_python(self, name: str) -> None:
        """Each package needs its system's Python of one minor version, as compiled libraries are of one."""
        target = targets.TARGETS[name]
        assert any(target.python in each for each in target.depends)
        assert target.interpreter == f"/usr/bin/python{target.python}"

    def test_newer_systems_come_later(self) -> None:
        """A machine that is brought from Debian 12 to 13 takes the newer one's package as the newer."""
        assert targets.TARGETS["bookworm"].release < targets.TARGETS["trixie"].release

    def test_machines(self) -> None:
        """Wheels for the other machine are asked for by its name, those of a newer C library first."""
        assert "manylinux_2_28_aarch64" in targets.platforms("arm64")
        assert targets.platforms("amd64").index("manylinux_2_28_x86_64") < targets.platforms("amd64").index(
            "manylinux1_x86_64"
        )


class TestLicences:
    def test_each_library(self, tmp_path: Path) -> None:
        """Each library's licence and authors are in the copyright file, by its own metadata."""
        for name, said in {
            "a": "License-Expression: MIT\nAuthor: Ann",
            "b": "Classifier: License :: OSI Approved :: BSD License\nAuthor-email: b@x.org",
            "c": "License: Apache\n        Version 2",
        }.items():
            folder = tmp_path / f"{name}-1.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Name: {name}\nVersion: 1\n{said}\n\nabout\n")
        told = tree.licences(tmp_path)
        assert "Copyright: Ann\nLicense: a-licence\n MIT." in told
        assert "Copyright: b@x.org\nLicense: b-licence\n BSD License." in told
        assert "License: c-licence\n Apache." in told
