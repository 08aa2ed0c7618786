"""Build the container image of the agent, without an engine and without a registry, into build/image/.

Debian's packages come from its archive, Python's from the lock. The same parts make the same image, byte for byte;
which Debian packages they were, and which made it, stands in sojourn-*.packages, by which `--packages` builds it again.
"""

import argparse
import platform
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

import archive
import debian_files
import python_files
import sbom
import tools

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build" / "image"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
USER = 65_532  # the user `sojourn` of the image
CREATED = "1970-01-01T00:00:00Z"
ENTRY = (
    *("/usr/bin/sojourn", "agent", "run", "--data-dir", "/var/lib/sojourn"),
    *("--socket", "/run/sojourn/agent.sock", "--admin-socket", "/run/sojourn/admin.sock"),
)
PASSWD = f"""root:x:0:0:root:/:/nonexistent
sojourn:x:{USER}:{USER}:Sojourn agent:/var/lib/sojourn:/nonexistent
nobody:x:65534:65534:nobody:/nonexistent:/nonexistent
"""
GROUP = f"root:x:0:\nsojourn:x:{USER}:\nnogroup:x:65534:\n"
SECOND = 1_000_000_000  # as Docker counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, help="a file of an earlier build: just these Debian packages")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder for the image and what comes beside it")
    here = ARCHITECTURES[platform.machine()]
    parser.add_argument("--arch", choices=list(ARCHITECTURES.values()), default=here, help="default: this machine's")
    chosen = parser.parse_args()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sojourn-image-") as scratch:
        lock = debian_files.read_lock(chosen.packages) if chosen.packages else None
        build(chosen.out, Path(scratch), version, tools.fetched(Path(scratch), here, chosen.arch, lock), lock)


def build(out: Path, scratch: Path, version: str, used: tools.Tools, lock: debian_files.Lock | None) -> None:
    """Build it, write it, and say how large it is."""
    root = scratch / "root"
    root.mkdir()
    architecture = used.target
    debian = debian_files.unpacked(root, scratch, architecture, lock)
    if lock is not None:
        debian_files.check([*debian, *used.packages], lock)
    python = python_files.installed(root, scratch, architecture, used)
    python_files.compiled(root, used)
    document = sbom.document(version, debian, python)
    furnish(root, debian, document)
    ours = [f"{python_files.SITE}/{each}" for each in ("sojourn", "sojourn_attestors", f"sojourn-{version}.dist-info")]
    layers = [
        archive.layer(root, "Debian's packages", without=("usr/local", "usr/share/sbom", "usr/bin/sojourn")),
        archive.layer(root, "Python's packages", only=("usr/local",), without=ours),
        archive.layer(root, "Sojourn", only=(*ours, "usr/share/sbom", "usr/bin/sojourn")),
    ]
    stem = f"sojourn-{version}-{architecture}"
    image = out / f"{stem}.tar"
    digest = archive.write(image, f"localhost/sojourn:{version}", config(version, architecture), layers)
    lines = sorted({each.line for each in (*debian, *used.packages)})
    (out / f"{stem}.packages").write_text("".join(f"{line}\n" for line in lines))
    (out / f"{stem}.cdx.json").write_text(document)
    packed = sum(len(each.content) for each in layers)
    whole = sum(each.plain_size for each in layers)
    print(
        f"{image}: localhost/sojourn:{version}, {packed / 1e6:.1f} MB packed, {whole / 1e6:.1f} MB unpacked, {digest}"
    )


def furnish(root: Path, debian: list[debian_files.Package], document: str) -> None:
    """Users, the folders that are mounted, and who reads what is in there."""
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    for name in ("run/sojourn", "var/lib/sojourn", "etc/sojourn", "tmp", "proc", "sys", "dev"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "usr/lib/ssl").mkdir()  # where OpenSSL looks for the certificates that it trusts
    (root / "usr/lib/ssl/cert.pem").symlink_to("/etc/ssl/certs/ca-certificates.crt")
    for each in debian:  # where scanners of images look that have no dpkg
        file = root / "var/lib/dpkg/status.d" / each.name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(each.control)
    file = root / "usr/share/sbom/sojourn.cdx.json"
    file.parent.mkdir(parents=True)
    file.write_text(document)


def config(version: str, architecture: str) -> dict[str, object]:
    """What the image says of itself (OCI image configuration), and Docker's word for the check of its health."""
    labels = {
        "org.opencontainers.image.title": "sojourn",
        "org.opencontainers.image.description": "A node-local SPIFFE agent: identity and task-bound authority",
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.base.name": f"debian:{debian_files.SUITE}",
    }
    health = {
        "Test": ["CMD", "/usr/bin/sojourn", "agent", "health"],
        "Interval": 30 * SECOND,
        "Timeout": 5 * SECOND,
        "StartPeriod": 30 * SECOND,
        "Retries": 3,
    }
    environment = {
        "PATH": "/usr/bin",
        "SOJOURN_CONTAINER": "1",
        "SOJOURN_SOCKET": "/run/sojourn/agent.sock",
        "SOJOURN_ADMIN_SOCKET": "/run/sojourn/admin.sock",
        "HOME": "/var/lib/sojourn",
        "LANG": "C.UTF-8",
    }
    return {
        "created": CREATED,
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": "0:0",
            "Entrypoint": list(ENTRY),
            "Env": [f"{name}={value}" for name, value in environment.items()],
            "WorkingDir": "/",
            "StopSignal": "SIGTERM",
            "Labels": labels,
            "Healthcheck": health,
        },
    }


if __name__ == "__main__":
    if sys.platform != "linux" or shutil.which("apt-get") is None or not Path(debian_files.KEYRING).exists():
        raise SystemExit("the image is built on Debian or Ubuntu: it takes apt-get, dpkg-deb, debian-archive-keyring")
    main()
