"""Sojourn and the libraries that it needs, from the lock by their digests, as files of an image."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from tools import Tools

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / ".ci" / "locks" / "agent.txt"
PYTHON = "3.11"
SITE = "usr/local/lib/python3.11/dist-packages"
PLATFORMS = {"amd64": "x86_64", "arm64": "aarch64"}
# Of the lock, what the command prints colours with, what only builds, and an HTTP client for programs that use the SDK.
_NOT_HERE = frozenset(
    {
        *("rich", "pygments", "markdown-it-py", "mdurl", "colorama"),
        *("hatchling", "editables", "pathspec", "pluggy", "trove-classifiers", "pycparser"),
        *("httpx", "httpcore", "certifi", "packaging"),
        *("python-pkcs11", "asn1crypto"),  # of the extra `pkcs11`: a token's library is not in the image either
        "rfc3161-client",  # of the extra `timestamps`: 3 MB, for the few who ask an authority for stamps
    }
)
_LEFT_OUT = (
    *("**/*.pyi", "**/*.pyx", "**/*.pxd", "**/*.pxi", "**/*.c", "**/*.h", "**/py.typed", "**/__pycache__", "bin"),
    *("**/tests", "**/testing", "uvloop/_testbase.py"),
    *(f"sqlalchemy/dialects/{each}" for each in ("mssql", "mysql", "oracle")),
    *("sqlalchemy/orm", "sqlalchemy/ext"),  # objects over tables, which nothing here is
    *("alembic/templates", "google/protobuf/compiler", "pydantic/v1", "pydantic/mypy.py"),
    "cffi",  # cryptography has its own part of it compiled
    "grpc/_cython/_credentials",  # authorities of the Web, by which nothing here is trusted over gRPC
)
_SOJOURN = """#!/usr/bin/python3.11 -IB
import os
import sys

os.environ["TYPER_USE_RICH"] = "0"  # colours are not here

from sojourn.cli.main import run

sys.exit(run())
"""
_LICENSES = {"cedarpy": "Apache-2.0"}  # where the text of a licence is all that says which it is
_OURS = frozenset({"sojourn", "sojourn_attestors"})
_KEPT = ("sojourn/testing",)


@dataclass(frozen=True, slots=True)
class Distribution:
    name: str
    version: str
    license: str


def installed(root: Path, scratch: Path, architecture: str, tools: Tools) -> list[Distribution]:
    """Put Sojourn and its libraries into `root`; what they were."""
    site = root / SITE
    wheels = scratch / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    lock = scratch / "lock.txt"
    lock.write_text(_needed(LOCK.read_text()))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    target = ["install", "--target", str(site), "--no-deps", "--no-compile"]
    platforms = [f"--platform=manylinux_2_{minor}_{PLATFORMS[architecture]}" for minor in (17, 28, 34)]
    platforms.append(f"--platform=manylinux2014_{PLATFORMS[architecture]}")
    foreign = ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp", *platforms]
    subprocess.run([*pip, *target, *foreign, "--require-hashes", "--requirement", str(lock)], check=True)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
    ours = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(ROOT)]
    subprocess.run(ours, check=True, env=environment)
    (wheel,) = wheels.glob("sojourn-*.whl")
    subprocess.run([*pip, *target, "--no-index", "--upgrade", str(wheel)], check=True)
    found = sorted((_distribution(each) for each in site.glob("*.dist-info")), key=lambda each: each.name)
    _left_out(site)
    tools.strip(sorted(each for kind in ("*.so", "*.so.[0-9]*") for each in site.rglob(kind)))
    _command(root)
    return found


def compiled(root: Path, tools: Tools) -> None:
    """Have Python compile all that is Python, so that nothing need be written when it runs.

    A compiled file counts without a look at the times of its source.
    """
    options = ["-q", "-f", "--invalidation-mode=unchecked-hash", "-s", str(root), "-p", "/"]
    # Without -B the interpreter would leave what it compiles for itself on the way, which has times and paths in it.
    tools.python("-S", "-B", "-m", "compileall", *options, str(root / "usr/lib/python3.11"), str(root / SITE))
    _without_sources(root / SITE)


def _without_sources(site: Path) -> None:
    """Leave of others' libraries what was compiled, in the place of its source. Ours and Python's stay readable."""
    for source in sorted(site.rglob("*.py")):
        if source.relative_to(site).parts[0] in _OURS:
            continue
        made = source.parent / "__pycache__" / f"{source.stem}.cpython-{PYTHON.replace('.', '')}.pyc"
        made.rename(source.with_suffix(".pyc"))
        source.unlink()
    for folder in [each for each in site.rglob("__pycache__") if not any(each.iterdir())]:
        folder.rmdir()


def _needed(lock: str) -> str:
    """The lock without what is left out."""
    entries = re.split(r"(?m)^(?=[A-Za-z])", lock)
    return "".join(each for each in entries if re.split(r"[=\s;\[]", each, maxsplit=1)[0] not in _NOT_HERE)


def _distribution(info: Path) -> Distribution:
    told = HeaderParser().parsestr((info / "METADATA").read_text("utf-8"))
    licenses = [told[key] for key in ("License-Expression", "License") if told[key]]
    classified = [each.rpartition(" :: ")[2] for each in told.get_all("Classifier", []) if each.startswith("License")]
    named = licenses or classified or [_LICENSES.get(told["Name"], "unknown")]
    return Distribution(told["Name"], told["Version"], named[0].splitlines()[0])


def _left_out(site: Path) -> None:
    for pattern in _LEFT_OUT:
        for path in sorted(site.glob(pattern), reverse=True):
            if str(path.relative_to(site)).startswith(_KEPT):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            elif path.exists():
                path.unlink()
    for info in site.glob("*.dist-info"):  # the lists of files name what is no more there
        for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "WHEEL"):
            (info / name).unlink(missing_ok=True)
        # What follows the fields is a page for whoever looks for a library.
        metadata = info / "METADATA"
        metadata.write_text(metadata.read_text("utf-8").partition("\n\n")[0] + "\n", "utf-8")


def _command(root: Path) -> None:
    """The command `sojourn`. Python's variables and the folder in which it is called are nothing to it."""
    path = root / "usr/bin/sojourn"
    path.write_text(_SOJOURN)
    path.chmod(0o755)
    (root / "usr/bin/python3").symlink_to("python3.11")
