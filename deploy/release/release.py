"""What two builds made, compared; and if it is the same, with checksums and provenance. `make release` runs it.

Usage: release.py COMMIT EPOCH OUT ROOT ROOT…
"""

import hashlib
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

ROOT: Final = Path(__file__).resolve().parents[2]
LOCKS: Final = ("agent/sojourn/installing/requirements.txt", ".ci/locks/agent.txt", ".ci/locks/packages.txt",
                ".ci/locks/bundle.txt", ".ci/locks/release.txt")  # fmt: skip
_TYPE: Final = "urn:sojourn:make-release:1"


def main() -> None:
    """Compare, and write. Exit with the names of the files that differ, and write nothing then."""
    commit, epoch, out, *roots = sys.argv[1:]
    builds = [digests(Path(root) / "source" / "dist") for root in roots]
    differing = differences(builds)
    if differing:
        sys.exit("\n".join(["release: the builds are not the same:", *differing]))
    into = Path(out)
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(Path(roots[0]) / "source" / "dist", into)
    lists = "".join(path.read_text("utf-8") for path in sorted(into.glob("*.packages")))
    statement = provenance(builds[0], commit, int(epoch), [Path(root).name for root in roots], lists)
    (into / "provenance.intoto.json").write_text(json.dumps(statement, indent=2, sort_keys=True) + "\n", "utf-8")
    (into / "SHA256SUMS").write_text(sums(digests(into)), "utf-8")
    print(f"{into}: {len(builds[0])} files, the same from {' and '.join(Path(root).name for root in roots)}")


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file, by its name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def differences(builds: list[dict[str, str]]) -> list[str]:
    """The files that not all builds have, or not with the same content."""
    if not all(builds):
        return ["a build has made nothing"]
    names = sorted({name for build in builds for name in build})
    return [name for name in names if len({build.get(name) for build in builds}) > 1]


def sums(found: dict[str, str]) -> str:
    """As `sha256sum --check` reads them."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(found.items()))


def provenance(found: dict[str, str], commit: str, epoch: int, roots: list[str], lists: str) -> dict[str, Any]:
    """An in-toto statement with SLSA provenance (v1): of which source, with which locks, these files were made.

    `lists`: the Debian packages of the images, as the images' build writes them.

    The moment is that of the commit, so that whoever builds it again has the same statement.
    """
    when = datetime.fromtimestamp(epoch, UTC).isoformat().replace("+00:00", "Z")
    locks = [{"uri": f"file:{lock}", "digest": {"sha256": _digest(ROOT / lock)}} for lock in LOCKS]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(found.items())],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": _TYPE,
                "externalParameters": {"command": "make release", "commit": commit},
                "internalParameters": {"sourceDateEpoch": epoch, "roots": roots},
                "resolvedDependencies": [
                    {"uri": "git+file:.", "digest": {"gitCommit": commit}},
                    *locks,
                    *(_of_debian(line) for line in sorted(set(lists.splitlines()))),
                ],
            },
            "runDetails": {"builder": {"id": f"{_TYPE}:two-roots"}, "metadata": {"startedOn": when}},
        },
    }


def _of_debian(line: str) -> dict[str, Any]:
    """From `name=version architecture sha256:digest`."""
    package, architecture, digest = line.split(" ")
    name, _, version = package.partition("=")
    uri = f"pkg:deb/debian/{quote(name, safe='')}@{quote(version, safe='~')}?arch={architecture}"
    return {"uri": uri, "digest": {"sha256": digest.removeprefix("sha256:")}}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
