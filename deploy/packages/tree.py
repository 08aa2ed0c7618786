"""The files of a package, in a folder as they will lie in the system."""

import gzip
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from email.parser import HeaderParser
from email.utils import format_datetime
from pathlib import Path
from typing import Final

import manual
import wheels
from targets import Target

HERE: Final = Path(__file__).resolve().parent
UNITS: Final = wheels.ROOT / "deploy" / "systemd"
HOME: Final = "usr/lib/sojourn"
DOC: Final = "usr/share/doc/sojourn"
MAINTAINER: Final = "Sojourn <packages@sojourn.invalid>"
CONFIGURATION: Final = "etc/sojourn/agent.toml"
# What operators need beside the program: the pages, what Prometheus reads, samples of task types.
_FOR_OPERATORS: Final = {"docs": "docs", "deploy/prometheus": "prometheus", "deploy/samples/task-types": "samples"}
_READ: Final = {".md", ".json", ".yaml", ".toml", ".cedar", ".svg", ".py"}
_LICENSE: Final = """License: Apache-2.0
 On Debian systems the whole text is in /usr/share/common-licenses/Apache-2.0.
"""


@dataclass(frozen=True)
class Release:
    """What is released: its version, and the moment that all files bear."""

    version: str
    epoch: int

    @property
    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.epoch, UTC)


def make(root: Path, target: Target, arch: str, release: Release, own: Path) -> None:
    """Fill the empty folder `root`. `own` is this release's wheel."""
    modules = root / HOME / "lib" / f"python{target.python}" / "site-packages"
    fetched = wheels.fetch(root.with_name(f"wheels-{target.python}-{arch}"), target.python, arch)
    for wheel in [own, *fetched]:
        wheels.unpack(wheel, modules)
    # Libraries of your own, such as attestors: pip install --target /usr/local/lib/sojourn
    _write(modules / "local.pth", "/usr/local/lib/sojourn\n")
    _environment(root, target)
    _units(root)
    _manual(root, release)
    _documents(root, target, release, modules)
    _permissions(root)


def _environment(root: Path, target: Target) -> None:
    """A virtual environment, as `venv` makes them: whatever starts `sys.executable` has these libraries alone."""
    home = root / HOME
    _write(home / "pyvenv.cfg", f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {target.python}\n")
    _copy(HERE / "scripts" / "sojourn", home / "bin" / "sojourn")
    os.symlink(target.interpreter, home / "bin" / "python3")
    (root / "usr/bin").mkdir(parents=True)
    os.symlink("../lib/sojourn/bin/sojourn", root / "usr/bin/sojourn")


def _units(root: Path) -> None:
    for unit in sorted(path for kind in ("service", "socket", "timer") for path in UNITS.glob(f"*.{kind}")):
        _copy(unit, root / "usr/lib/systemd/system" / unit.name)
    _copy(UNITS / "sojourn.sysusers", root / "usr/lib/sysusers.d/sojourn.conf")
    _copy(UNITS / "sojourn.tmpfiles", root / "usr/lib/tmpfiles.d/sojourn.conf")
    for drop_in in sorted((UNITS / "drop-ins").glob("*.conf")):
        _copy(drop_in, root / DOC / "drop-ins" / drop_in.name)
    _copy(UNITS / "agent.toml", root / CONFIGURATION)


def _manual(root: Path, release: Release) -> None:
    for name, text in manual.pages(release.version, f"{release.moment:%Y-%m-%d}").items():
        _packed(root / "usr/share/man/man1" / f"{name}.gz", text)
    for place, text in manual.completions().items():
        _write(root / place, text)


def _documents(root: Path, target: Target, release: Release, modules: Path) -> None:
    folder = root / DOC
    for source, place in _FOR_OPERATORS.items():
        for path in sorted(each for each in (wheels.ROOT / source).rglob("*") if each.suffix in _READ):
            _copy(path, folder / place / path.relative_to(wheels.ROOT / source))
    _write(folder / "copyright", licences(modules))
    if target.packager == "rpm":
        _copy(wheels.ROOT / "CHANGELOG.md", folder / "CHANGELOG.md")
        return
    signed = f" -- {MAINTAINER}  {format_datetime(release.moment)}\n"
    head = f"sojourn ({release.version}-{target.release}) unstable; urgency=medium\n\n"
    _packed(folder / "changelog.Debian.gz", f"{head}  * What is new is in changelog.gz.\n\n{signed}")
    _packed(folder / "changelog.gz", (wheels.ROOT / "CHANGELOG.md").read_text("utf-8"))
    news = (HERE / "NEWS").read_text("utf-8").replace("-1) ", f"-{target.release}) ").rstrip()
    _packed(folder / "NEWS.Debian.gz", f"{news}\n\n{signed}")
    _copy(HERE / "lintian-overrides", root / "usr/share/lintian/overrides/sojourn")


def licences(modules: Path) -> str:
    """Whose each library is and by which licence, as its own metadata says; in the form of Debian's copyright files."""
    lines = ["Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/", "Upstream-Name: sojourn", ""]
    lines += ["Files: *", "Copyright: 2026 The Sojourn authors", _LICENSE]
    for metadata in sorted(modules.glob("*.dist-info/METADATA")):
        said = HeaderParser().parsestr(metadata.read_text("utf-8"))
        name, named = said["Name"], said["License-Expression"] or _classified(said.get_all("Classifier", []))
        if name == "sojourn":
            continue
        whose = said["Author"] or said["Author-email"] or said["Maintainer-email"] or f"the authors of {name}"
        lines += [f"Files: {HOME}/lib/*/{metadata.parent.name}/*", f"Copyright: {' '.join(whose.split())}"]
        lines += [
            f"License: {name}-licence",
            f" {_one_line(named or said['License'])}. The texts that came with it are in",
        ]
        lines += [f" /{HOME}/lib/python*/site-packages/{metadata.parent.name}.", ""]
    return "\n".join(lines)


def _one_line(text: str | None) -> str:
    """A licence's name; some libraries say the whole text of it there, of which the first line will do."""
    return (text or "See its own files").strip().splitlines()[0]


def _classified(classifiers: list[str]) -> str:
    return ", ".join(each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License ::"))


def _copy(source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, to)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def _packed(path: Path, text: str) -> None:
    """Compress, without a name and a moment, so that the same text is the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write(text.encode())


def _permissions(root: Path) -> None:
    """Whatever umask and unzipping made of them."""
    runs = {root / HOME / "bin" / "sojourn"}
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path in runs else 0o644)
