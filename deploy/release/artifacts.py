"""All files of a release, of this source and into dist: `make artifacts` runs it, in each Debian of a release."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ROOT / "deploy" / "packages"
sys.path.insert(0, str(PACKAGES))

from targets import MACHINES, TARGETS  # noqa: E402

IMAGE: Final = ROOT / "deploy" / "image" / "build.py"
REQUIREMENTS: Final = ROOT / "agent" / "sojourn" / "installing" / "requirements.txt"
PYTHONS: Final = ("3.11", "3.12", "3.13")
_TOOLS: Final = Path(sys.executable).parent


def main() -> None:
    """Build each, and print its name. Exit if it is not just these that were made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image-packages", type=Path, help="a folder with an earlier build's lists of Debian packages")
    asked = parser.parse_args()
    out = ROOT / "dist"
    shutil.rmtree(out, ignore_errors=True)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    _run(str(_TOOLS / "hatchling"), "build", "--directory", str(out))
    wheel = str(out / f"sojourn-{version}-py3-none-any.whl")
    for arch in MACHINES:
        options = ("--out", str(out), "--arch", arch, "--wheel", wheel)
        _run(sys.executable, str(PACKAGES / "build.py"), *options)
        for python in PYTHONS:
            _run(sys.executable, str(PACKAGES / "bundle.py"), python, *options)
        _image(out, version, arch, asked.image_packages)
    (out / f"sojourn-{version}.cdx.json").write_text(_bill(version), "utf-8")
    (out / f"sojourn-{version}-licences.txt").write_text(_licences(out, version), "utf-8")
    made = {each.name for each in out.iterdir()}
    if made != wanted(version):
        sys.exit(f"not the files of a release: {', '.join(sorted(made ^ wanted(version)))}")
    print("\n".join(sorted(made)))


def wanted(version: str) -> set[str]:
    """The name of each file of a release."""
    names = {".tar.gz", "-py3-none-any.whl", ".cdx.json", "-licences.txt"}
    names |= {f"-py{python}-{arch}.tar" for python in PYTHONS for arch in MACHINES}
    names |= {f"-image-{arch}.{kind}" for arch in MACHINES for kind in ("tar", "cdx.json", "packages")}
    packages = {target.file_name(version, arch) for target in TARGETS.values() for arch in MACHINES}
    return packages | {f"sojourn-{version}{name}" for name in names}


def _image(out: Path, version: str, arch: str, packages: Path | None) -> None:
    """The image, its bill of materials, and which Debian packages it was made of: these or the archive's newest."""
    given = [] if packages is None else ["--packages", str(packages / f"sojourn-{version}-image-{arch}.packages")]
    with tempfile.TemporaryDirectory(prefix="sojourn-release-") as scratch:
        _run(sys.executable, str(IMAGE), "--arch", arch, "--out", scratch, *given)
        for each in sorted(Path(scratch).iterdir()):
            shutil.move(each, out / each.name.replace(f"-{arch}.", f"-image-{arch}."))


def _bill(version: str) -> str:
    """The software bill of materials, CycloneDX 1.6: every library that is installed on a machine, with its hashes."""
    command = [str(_TOOLS / "cyclonedx-py"), "requirements", str(REQUIREMENTS), "--spec-version", "1.6"]
    command += ["--output-reproducible", "--output-format", "JSON"]
    made: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    # It is of the program, and not of the file in which the lock lies.
    made["metadata"]["component"] = {
        "type": "application",
        "bom-ref": f"pkg:generic/sojourn@{version}",
        "name": "sojourn",
        "version": version,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    return json.dumps(made, indent=2, sort_keys=True) + "\n"


def _licences(out: Path, version: str) -> str:
    """A line for each library in the bundles: its name, version and licence, as its own metadata says."""
    found: dict[str, str] = {}
    for name in [f"sojourn-{version}-py{python}-{arch}.tar" for python in PYTHONS for arch in MACHINES]:
        with tarfile.open(out / name) as bundle:
            for member in bundle.getmembers():
                file = bundle.extractfile(member)
                if member.name.endswith(".whl") and file is not None:
                    with zipfile.ZipFile(file) as wheel:
                        found |= _licence_of(wheel)
    width = max(len(name) for name in found)
    return "".join(f"{name.ljust(width)}  {licence}\n" for name, licence in sorted(found.items()))


def _licence_of(wheel: zipfile.ZipFile) -> dict[str, str]:
    [path] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    said = HeaderParser().parsestr(wheel.read(path).decode())
    classified = [
        each.rpartition(" :: ")[2] for each in said.get_all("Classifier", []) if each.startswith("License ::")
    ]
    named = (
        said["License-Expression"] or ", ".join(classified) or (said["License"] or "not said").strip().splitlines()[0]
    )
    return {f"{said['Name']} {said['Version']}": named}


def _run(*command: str) -> None:
    subprocess.run(command, cwd=ROOT, check=True, env=dict(os.environ))


if __name__ == "__main__":
    main()
