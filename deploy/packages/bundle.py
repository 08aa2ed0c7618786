"""Build the bundle: all that `sojourn agent install` needs for one Python, without a network. `make bundle` runs it."""

import argparse
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

import wheels
from targets import MACHINES

_PIP: Final = wheels.ROOT / ".ci" / "locks" / "bundle.txt"
_INSTALL: Final = Path(__file__).with_name("scripts") / "install"


def main() -> None:
    """Build it into a folder, and print its name."""
    asked = _arguments()
    version = asked.version or wheels.own_version()
    epoch = wheels.own_epoch()
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch)
    name = f"sojourn-{version}-py{asked.python}-{asked.arch}"
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sojourn-bundle-") as scratch:
        own = asked.wheel or wheels.own_wheel(Path(scratch) / "own", version)
        files = _files(Path(scratch), asked.python, asked.arch, own)
        made = asked.out / f"{name}.tar"
        _pack(made, name, files, epoch)
    print(made)


def _files(scratch: Path, python: str, arch: str, own: Path) -> dict[str, bytes]:
    """The content of each file, by its place in the bundle."""
    found = [own, _pip_wheel(scratch / "pip")]
    found += wheels.fetch(scratch / "wheels", python, arch, left_out=frozenset())
    files = {f"wheels/{path.name}": path.read_bytes() for path in found}
    files["requirements.txt"] = wheels.REQUIREMENTS.read_bytes()
    files["install"] = _INSTALL.read_text("utf-8").replace("@PYTHON@", python).encode()
    sums = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items())]
    files["SHA256SUMS"] = "".join(sums).encode()
    return files


def _pip_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"]
    command += ["--require-hashes", "--only-binary", ":all:", "--dest", str(folder), "--requirement", str(_PIP)]
    subprocess.run(command, check=True)
    [made] = folder.glob("pip-*.whl")
    return made


def _pack(made: Path, name: str, files: dict[str, bytes], epoch: int) -> None:
    """One order, one owner, one moment: the same content is the same file. Wheels are packed already; the names of some
    are longer than POSIX's own format has room for.
    """
    with tarfile.open(made, "w", format=tarfile.GNU_FORMAT) as archive:
        for place, content in sorted(files.items()):
            member = tarfile.TarInfo(f"{name}/{place}")
            member.size, member.mtime = len(content), epoch
            member.mode = 0o755 if place == "install" else 0o644
            archive.addfile(member, io.BytesIO(content))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    parser.add_argument("python", nargs="?", default=running, help="default: the minor version that runs this")
    parser.add_argument("--out", type=Path, default=wheels.ROOT / "dist", help="default: dist")
    parser.add_argument("--arch", choices=list(MACHINES), default="amd64")
    parser.add_argument("--version", help="default: that of pyproject.toml")
    parser.add_argument("--wheel", type=Path, help="this release's wheel; default: build it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
