"""A machine of its own with a booted systemd, and in it Docker Engine or Podman with the agent's image.

Engines are this machine's programs, on a storage of their own. The machine of nspawn.py is what the image calls host: its
first process is one that the agent may look at, and that no test shares with this machine.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from harness.agent import ROOT
from harness.engines import find_programs
from harness.lacking import lacking
from harness.looking import until
from harness.nspawn import WORK, Machine, need_systemd

GUIDE = ROOT / "docs" / "operate" / "container.md"
IMAGES = ROOT / "build" / "image"
VERSION = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
NAME = f"localhost/sojourn:{VERSION}"
FILE = f"sojourn-{VERSION}-amd64.tar"
BUILD_SECONDS = 900
ENGINE_SECONDS = 60.0
# Calls to the kernel that engines make, and that a container of systemd-nspawn may not by itself.
FLAGS = ("--system-call-filter=add_key keyctl bpf",)
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_STORAGE = f'[storage]\ndriver = "overlay"\nrunroot = "{WORK}/podman/run"\ngraphroot = "{WORK}/podman/graph"\n'
# Whoever lacks CAP_SYS_RESOURCE cannot raise a limit, as Podman would.
_CONTAINERS = """[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
keyring = false
pids_limit = 0
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""
_DOCKER = ("/usr/sbin/dockerd", "--data-root", f"{WORK}/docker", "--storage-driver", "overlay2", "--bridge", "none")


def image() -> Path:
    """The image as it is built from this checkout: once in a run of the tests, or in a trial, whose parts share it."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    run = os.environ.get("SOJOURN_TEST_TRIAL") or os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
    marker = IMAGES / "built-by-tests"
    with (IMAGES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marker.exists() or marker.read_text() != run:
            build(IMAGES)
            marker.write_text(run)
    return IMAGES / FILE


def build(out: Path, *options: str) -> str:
    """What the build says."""
    need = [name for name in ("apt-get", "dpkg-deb") if not Path("/usr/bin", name).exists()]
    if need or not Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        lacking("needs Debian's archive: apt install apt dpkg debian-archive-keyring")
    command = [sys.executable, str(ROOT / "deploy" / "image" / "build.py"), "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def content(file: Path) -> dict[str, tarfile.TarInfo]:
    """What an image has, by its path."""
    found: dict[str, tarfile.TarInfo] = {}
    with tarfile.open(file) as archive:
        [manifest] = json.load(archive.extractfile("manifest.json"))
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=archive.extractfile(layer)) as tar:
                found |= {entry.name: entry for entry in tar}
    return found


def sizes(file: Path) -> tuple[int, int]:
    """How many octets are fetched of an image, and how many it has on disk."""
    with tarfile.open(file) as archive:
        packed = sum(entry.size for entry in archive)
    return packed, sum(entry.size for entry in content(file).values())


def blocks(heading: str) -> list[str]:
    """The commands under a heading of the page, as they stand there: block by block."""
    section = GUIDE.read_text("utf-8").split(f"\n## {heading}\n")[1].partition("\n## ")[0]
    return _BLOCK.findall(section)


def commands(block: str) -> list[str]:
    """The single commands of a block, each with the lines that it goes on for."""
    return [each for each in re.split(r"(?<!\\)\n", block) if each.strip()]


class Host:
    """The machine. `run` runs a line of the page on it."""

    def __init__(self, machine: Machine, engine: str) -> None:
        self.machine = machine
        self.engine = engine

    def run(self, line: str, *, check: bool = True, seconds: float = 120) -> str:
        """What a line says, typed by root of the machine in a folder where build/image is."""
        return self.machine.run(
            "env", f"PATH={_PATH}", "sh", "-c", f"cd {WORK} && {line}", check=check, seconds=seconds
        )

    def agent(self, *flags: str, name: str = "sojourn", mounts: bool = True, given: str = "") -> "Agent":
        """Start an agent as the page does, but for `flags`: those that begin with `-` are taken away, `+` added."""
        wanted = ["--pid host", "--cgroupns host", "--uts host", "--cap-add SYS_PTRACE", "--cap-add DAC_READ_SEARCH"]
        if mounts:
            wanted += [f"--volume {name}-data:/var/lib/sojourn", f"--volume {WORK}/{name}:/run/sojourn"]
        for flag in flags:
            if flag.startswith("-"):
                wanted.remove(f"--{flag[1:]}")
            else:
                wanted.append(f"--{flag[1:]}")
        self.run(f"mkdir -p {WORK}/{name}")
        always = "--network none --read-only --security-opt no-new-privileges --cap-drop ALL"
        line = f"{self.engine} run --detach --name {name} {always} {' '.join(wanted)} {NAME}"
        self.run(f"{line} --trust-domain example.org {given}")
        return Agent(self, name)


class Agent:
    """The agent in its container. Use as a context manager."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name

    def __enter__(self) -> "Agent":
        return self

    def __exit__(self, *_: object) -> None:
        self.host.run(f"{self.host.engine} rm --force --volumes {self.name}", check=False)

    def ready(self) -> "Agent":
        self.tell("agent health --wait 30s")
        return self

    def refusal(self) -> str:
        """What it says as it ends at once."""
        status = self.host.run(f"{self.host.engine} wait {self.name}", seconds=30).strip()
        assert "0" != status
        return self.host.run(f"{self.host.engine} logs {self.name} 2>&1")

    def tell(self, command: str) -> str:
        """What an operator's command says in the container."""
        return self.host.run(f"{self.host.engine} exec {self.name} sojourn {command}")

    def limitations(self) -> dict[str, str]:
        told = json.loads(self.tell("status --output json"))["limitations"]
        return {each["what"]: each["reason"] for each in told}

    def explain(self, pid: int) -> tuple[set[str], dict[str, str]]:
        """Selectors, and what is withheld with the reason, of a process of the machine."""
        found = json.loads(self.tell(f"explain --pid {pid} --output json"))
        return set(found["selectors"]), {each["what"]: each["reason"] for each in found["withheld"]}


@contextlib.contextmanager
def hosts() -> Iterator[dict[str, Host]]:
    """A machine with both engines, which have the image, by the engine. Skip the test if a part is not installed; in CI
    fail it.
    """
    need_systemd()
    find_programs("/usr/sbin/runc", "/usr/sbin/dockerd", "/usr/bin/docker", "/usr/bin/podman")
    made = image()
    with Machine(*FLAGS) as machine:
        place = machine.folder / "build" / "image"
        place.mkdir(parents=True)
        shutil.copy(made, place)
        machine.run("mkdir", "-p", "/var/tmp")
        machine.write("/etc/containers/policy.json", '{"default": [{"type": "insecureAcceptAnything"}]}')
        machine.write("/etc/containers/storage.conf", _STORAGE)
        machine.write("/etc/containers/containers.conf", _CONTAINERS)
        machine.write("/etc/docker/daemon.json", '{"iptables": false, "ip6tables": false}')
        found = {engine: Host(machine, engine) for engine in ("docker", "podman")}
        machine.unit("docker-engine", *_DOCKER, Environment=f"PATH={_PATH}", Delegate="yes")
        until(
            lambda: found["docker"].run("docker info >/dev/null 2>&1 && echo up", check=False),
            "Docker Engine answers",
            ENGINE_SECONDS,
        )
        for engine, host in found.items():
            host.run(f"{engine} load --input build/image/{made.name}", seconds=300)
        yield found
