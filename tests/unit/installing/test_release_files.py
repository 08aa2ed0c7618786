"""What a release says of itself: that both builds are the same, the sums, the provenance."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from harness.lacking import lacking
from harness.pagelines import lines_below

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "deploy" / "release"))

import artifacts  # noqa: E402
import release  # noqa: E402

COMMIT = "a" * 40
PAGE = ROOT / "docs" / "verify.md"
# What `…` stands for on the page: the version, and a package's own number behind it.
VERSION = r"[0-9.]+(-1[^-]+)?"
LISTS = f"libstdc++6=1:12.2.0-14+deb12u1 amd64 sha256:{'b' * 64}\nnetbase=6.4 all sha256:{'c' * 64}\n" * 2


def build(folder: Path, **content: str) -> Path:
    dist = folder / "source" / "dist"
    dist.mkdir(parents=True)
    for name, text in content.items():
        (dist / name).write_text(text)
    return folder


def compare(out: Path, *roots: Path) -> "subprocess.CompletedProcess[str]":
    script = ROOT / "deploy" / "release" / "release.py"
    command = [sys.executable, str(script), COMMIT, "1700000000", str(out), *map(str, roots)]
    return subprocess.run(command, capture_output=True, text=True)


def sh(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True)


class TestCompared:
    def test_the_same(self, tmp_path: Path) -> None:
        """Two builds with the same bytes are a release, whose sums `sha256sum` confirms."""
        roots = [build(tmp_path / suite, one="1", two="2") for suite in ("bookworm", "trixie")]
        done = compare(tmp_path / "out", *roots)
        assert 0 == done.returncode, done.stderr
        checked = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "out")
        assert 0 == checked.returncode
        assert {"one", "two", "SHA256SUMS", "provenance.intoto.json"} == {
            path.name for path in (tmp_path / "out").iterdir()
        }

    @pytest.mark.parametrize("other", [{"one": "1", "two": "3"}, {"one": "1"}, {"one": "1", "two": "2", "three": "3"}])
    def test_another(self, tmp_path: Path, other: dict[str, str]) -> None:
        """A byte that is another, and a file that one build lacks, end it: the file is named, and there is no release."""
        done = compare(tmp_path / "out", build(tmp_path / "a", one="1", two="2"), build(tmp_path / "b", **other))
        assert done.returncode != 0
        assert done.stderr.strip().endswith("three" if "three" in other else "two")
        assert not (tmp_path / "out").exists()

    def test_nothing(self, tmp_path: Path) -> None:
        """Two builds that made nothing are not the same release."""
        assert compare(tmp_path / "out", build(tmp_path / "a"), build(tmp_path / "b")).returncode != 0

    def test_what_the_page_says(self, tmp_path: Path) -> None:
        """The page's commands find a file that was changed, and that another build is the same release, with its commit."""
        [check, rebuild, compared, shown] = [*lines_below(PAGE, "What you have is what was released"),
                                             *lines_below(PAGE, "What was released is what the source says")]  # fmt: skip
        assert rebuild.startswith("make release ")
        content = {"one": "1", "two": "2", "x-image-amd64.packages": LISTS}
        for made in ("dist/release", "theirs"):
            roots = [build(tmp_path / f"of-{made}" / suite, **content) for suite in ("bookworm", "trixie")]
            assert 0 == compare(tmp_path / made, *roots).returncode
        compared = compared.replace("/path/to/the/release", "theirs")
        assert 0 == sh(compared, tmp_path).returncode
        assert COMMIT in sh(shown, tmp_path).stdout
        (tmp_path / "theirs" / "two").unlink()
        assert 0 == sh(check, tmp_path / "theirs").returncode
        (tmp_path / "theirs" / "one").write_text("2")
        assert 1 == sh(check, tmp_path / "theirs").returncode
        (tmp_path / "theirs" / "SHA256SUMS").write_text("")
        assert 1 == sh(compared, tmp_path).returncode

    def test_of_what_is_in_no_commit(self, tmp_path: Path) -> None:
        """A checkout with a file that is in no commit is not released, and neither is one by who is not root."""
        (tmp_path / ".ci").mkdir()
        shutil.copy(ROOT / ".ci" / "release", tmp_path / ".ci")
        subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
        done = sh("bash .ci/release", tmp_path)
        wanted = "there are changes that are in no commit" if os.geteuid() == 0 else "needs root"
        assert (1, True, False) == (done.returncode, wanted in done.stderr, (tmp_path / "dist").exists())


class TestProvenance:
    def test_each_file_and_lock(self) -> None:
        """The statement has the digest of each file, lock and Debian package, and the commit; made again it is the same."""
        found = {"x.deb": hashlib.sha256(b"x").hexdigest()}
        made = release.provenance(found, COMMIT, 1_700_000_000, ["bookworm", "trixie"], LISTS)
        assert [{"name": "x.deb", "digest": {"sha256": found["x.deb"]}}] == made["subject"]
        assert ("https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1") == (
            made["_type"],
            made["predicateType"],
        )
        materials = {
            each["uri"]: each["digest"] for each in made["predicate"]["buildDefinition"]["resolvedDependencies"]
        }
        assert {"gitCommit": COMMIT} == materials["git+file:."]
        lock = ROOT / "agent/sojourn/installing/requirements.txt"
        wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
        assert {"sha256": wanted} == materials["file:agent/sojourn/installing/requirements.txt"]
        debian = "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2.0-14%2Bdeb12u1?arch=amd64"
        assert {debian: {"sha256": "b" * 64}, "pkg:deb/debian/netbase@6.4?arch=all": {"sha256": "c" * 64}} == {
            uri: digest for uri, digest in materials.items() if uri.startswith("pkg:")
        }
        assert json.dumps(made) == json.dumps(
            release.provenance(found, COMMIT, 1_700_000_000, ["bookworm", "trixie"], LISTS)
        )


class TestContents:
    def test_each_file_is_on_the_page(self) -> None:
        """The page says of each file of a release what it is, and names no file that is in none."""
        rows = re.findall(r"(?m)^\| (`.+?`) \|", PAGE.read_text())
        patterns = {name: re.escape(name).replace("…", VERSION) for row in rows for name in re.findall("`(.+?)`", row)}
        found = {
            name: [each for each, pattern in patterns.items() if re.fullmatch(pattern, name)]
            for name in {*artifacts.wanted("0.1.0"), "SHA256SUMS", "provenance.intoto.json"}
        }
        assert {} == {name: rows for name, rows in found.items() if len(rows) != 1}
        assert set(patterns) == {each for rows in found.values() for each in rows}

    def test_every_system_and_machine(self) -> None:
        """A release has a package of each system, bundles and the image, for both kinds of machine."""
        names = artifacts.wanted("0.1.0")
        assert 4 + 2 * (5 + 3 + 3) == len(names)
        assert {"sojourn_0.1.0-1~ubuntu24.04_arm64.deb", "sojourn-0.1.0-1.el9.aarch64.rpm",
                "sojourn-0.1.0-image-arm64.tar", "sojourn-0.1.0-py3.13-amd64.tar"} <= names  # fmt: skip

    @pytest.mark.full
    def test_the_bill_of_materials(self) -> None:
        """The bill of materials has each library of the lock with its version and hashes, and is the same each time."""
        if not (artifacts._TOOLS / "cyclonedx-py").exists():
            lacking("needs cyclonedx-py: make .venv/.release")
        made = artifacts._bill("0.1.0")
        locked = set(re.findall(r"^([\w.-]+)==([^ ]+)", artifacts.REQUIREMENTS.read_text(), re.MULTILINE))
        read = json.loads(made)
        assert locked == {(each["name"], each["version"]) for each in read["components"]}
        assert all(each["externalReferences"][0]["hashes"] for each in read["components"])
        assert ("CycloneDX", "1.6", "sojourn") == (
            read["bomFormat"], read["specVersion"], read["metadata"]["component"]["name"]
        )  # fmt: skip
        assert made == artifacts._bill("0.1.0")

    @pytest.mark.parametrize(("said", "licence"), [
        ("License-Expression: MIT\nClassifier: License :: OSI Approved :: BSD License", "MIT"),
        ("Classifier: License :: OSI Approved :: BSD License\nLicense: whole text", "BSD License"),
        ("License: Apache\n        Version 2", "Apache"),
        ("Author: Ann", "not said"),
    ])  # fmt: skip
    def test_a_licence(self, tmp_path: Path, said: str, licence: str) -> None:
        """A library's licence is what its metadata says most exactly, and where they say none that is told."""
        with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
            wheel.writestr("a-1.dist-info/METADATA", f"Name: a\nVersion: 1\n{said}\n\nabout\n")
            assert {"a 1": licence} == artifacts._licence_of(wheel)
