"""Where and with what the bench was run, so that a reader can judge its figures."""

import os
import platform
import ssl
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import sleep

import peers

ROOT = Path(__file__).resolve().parent.parent.parent
LIBRARIES = ("grpcio", "protobuf", "cryptography", "uvloop", "cedarpy", "spiffe")


def machine() -> dict[str, object]:
    """As it is before anything runs."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": _field("/proc/cpuinfo", "model name"),
        "memory_gib": round(int(_field("/proc/meminfo", "MemTotal").split()[0]) / 2**20, 1),
        "load_before": [round(each, 2) for each in os.getloadavg()],
        "busy_before": round(_busy(), 3),
        "kernel": platform.release(),
        "clock": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "file_system": _file_system("/tmp"),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "Sojourn": f"{version('sojourn')} ({told.stdout.strip() or 'no git'})",
        "Python": f"{platform.python_version()}, {ssl.OPENSSL_VERSION}",
        **{name: version(name) for name in LIBRARIES},
        **peers.versions(),
    }


def _busy() -> float:
    """The share of all CPUs' time that somebody used over a second."""

    def times() -> tuple[int, int]:
        fields = [int(each) for each in _field("/proc/stat", "cpu ").split()]
        return sum(fields[:8]), fields[3] + fields[4]  # all, and idle or waiting for disks

    before = times()
    sleep(1)
    everything, idle = (now - then for now, then in zip(times(), before, strict=True))
    return 1 - idle / everything


def _field(path: str, name: str) -> str:
    """What stands behind a name, with a colon or without."""
    for line in _read(path).splitlines():
        if line.startswith(name):
            return line.removeprefix(name).lstrip(" \t:").strip()
    return "0 unknown"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "unknown"


def _file_system(folder: str) -> str:
    """Of the place where agents of the bench have their data: the longest mount point above it."""
    mounts = [line.split()[1:3] for line in _read("/proc/mounts").splitlines()]
    above = [(len(point), kind) for point, kind in mounts if f"{folder}/".startswith(f"{point.rstrip('/')}/")]
    return max(above)[1] if above else "unknown"
