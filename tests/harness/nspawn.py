"""A real systemd with its own bus, in namespaces of its own, on this machine's programs.

`systemd-nspawn --volatile=yes` gives it an empty root in memory and this machine's /usr, read-only. So it touches no
file, no kernel setting, no process and no cgroup of this machine but its own. Never start a systemd here otherwise:
one that sees the machine's root empties /tmp and sets kernel settings as it boots.

Process numbers in it are its own, so whoever attests has to run in it: see `Attesting`.
"""

import contextlib
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from harness.agent import ROOT, clean_environment
from harness.keeper import wait_or_kill
from harness.lacking import lacking
from harness.looking import until

READY_SECONDS = 30.0
ANSWER_SECONDS = 30.0
WORK = "/mnt/work"  # where the machine has `Machine.folder`
PYTHON = sys.executable
PARTS = {"systemd-nspawn": "systemd-container", "dbus-daemon": "dbus", "/lib/systemd/systemd": "systemd-sysv"}
_NAMES = ("mnt", "pid", "uts", "ipc", "net", "cgroup")
# What is shown to it at the same place, besides /usr: this checkout and the Python that runs it.
_PLACES = {str(ROOT), sys.prefix, sys.base_prefix, "/usr"}
_SHOWN = sorted(each for each in _PLACES - {"/usr"} if not any(str(parent) in _PLACES for parent in Path(each).parents))
_NAME = "sojourn-nspawn-"
_NUMBERS = itertools.count(1)  # of the machines of this process
_ON_THE_BUS = (
    *("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus"),
    *("NameHasOwner", "s", "org.freedesktop.systemd1"),
)
_USER_MANAGER = """[Service]
PAMName=
Environment=XDG_RUNTIME_DIR=/run/user/%i
"""
_BOOT = """
set -e
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$NAME"
echo $$ >"/sys/fs/cgroup/$NAME/cgroup.procs"
exec systemd-nspawn --quiet --directory="$ROOT" --volatile="$VOLATILE" --keep-unit --register=no --machine="$NAME" --private-network \
  --console=pipe "$@" --boot -- --unit=basic.target --show-status=no
"""


def need_systemd() -> None:
    """Skip the test if this machine lacks a part, but fail it in CI."""
    missing = [package for part, package in PARTS.items() if shutil.which(part) is None]
    if missing:
        lacking(f"needs a real systemd: apt install {' '.join(sorted({*missing, 'systemd'}))}")


class Machine:
    """One booted systemd. Use as a context manager. `folder` is WORK in there."""

    def __init__(self, *flags: str, root: Path | None = None) -> None:
        """`flags`: more of systemd-nspawn's. `root`: another system's files, which it changes in memory alone, instead of
        this machine's programs.
        """
        self._flags = flags
        self.root = root
        self.folder = Path(tempfile.mkdtemp(prefix="sojourn-nspawn-"))
        self.folder.chmod(0o755)
        self.name = f"{_NAME}{os.getpid()}-{next(_NUMBERS)}"
        self._boot: subprocess.Popen[bytes] | None = None
        self.init = 0

    def __enter__(self) -> Self:
        binds = [f"--bind-ro={each}" for each in _SHOWN] if self.root is None else []
        # It must not outlive this process, however that ends.
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]
        command += ["bash", "-c", _BOOT, "boot", *binds, f"--bind={self.folder}:{WORK}", *self._flags]
        log = (self.folder / "boot.log").open("wb")
        with log:
            self._boot = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    **clean_environment(),
                    "NAME": self.name,
                    "ROOT": str(self.root or "/"),
                    "VOLATILE": "yes" if self.root is None else "overlay",
                },
            )
        try:
            self._wait_until_up(self._boot)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait_until_up(self, boot: "subprocess.Popen[bytes]") -> None:
        ends = time.monotonic() + READY_SECONDS
        while time.monotonic() < ends and boot.poll() is None:
            self.init = self.init or self._find_init(boot.pid)
            if self.init and Path(f"/proc/{self.init}/root/run/dbus/system_bus_socket").exists():
                looking = ("busctl", "--system", "call", *_ON_THE_BUS)
                if "true" in self.run(*looking, check=False):
                    if self.root is not None:
                        return
                    parents = {str(parent) for each in _SHOWN for parent in Path(each).parents}
                    self.run("chmod", "a+rx", *sorted(parents))  # its own folders: other users are to run Python
                    return
            time.sleep(0.02)
        said = (self.folder / "boot.log").read_text(errors="replace")[-4000:]
        raise RuntimeError(f"the machine did not come up: {said}")

    @staticmethod
    def _find_init(nspawn: int) -> int:
        children = Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split()
        for child in children:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        return 0

    def close(self) -> None:
        """Stop it, and leave nothing."""
        boot = self._boot
        if boot is not None and boot.poll() is None:
            if self.init:  # all in it go with it, and nothing of it is kept: there is nothing to end in order
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.init, signal.SIGKILL)
            wait_or_kill(boot, 15 if self.init else 1)
        self._boot = None
        self._remove_cgroup()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _remove_cgroup(self) -> None:
        """Its cgroups, and those of one whose tests were killed."""
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in [fields[1] for fields in mounts if fields[2] == "cgroup2"][:1]:
            for each in Path(mount).glob(f"{_NAME}*"):
                pid = each.name.removeprefix(_NAME).partition("-")[0]
                if each.name == self.name or not Path(f"/proc/{pid}").exists():
                    with contextlib.suppress(OSError):
                        (each / "cgroup.kill").write_text("1")
                    until(lambda each=each: _removed(each), "the machine's cgroups are empty")

    # --- use ---

    def entered(self, *command: str) -> list[str]:
        """`command`, run in the machine: as its root, in a cgroup outside of all units."""
        names = [f"--{name}=/proc/{self.init}/ns/{name}" for name in _NAMES]
        names[names.index(f"--mnt=/proc/{self.init}/ns/mnt")] = f"--mount=/proc/{self.init}/ns/mnt"
        names[names.index(f"--net=/proc/{self.init}/ns/net")] = f"--net=/proc/{self.init}/ns/net"
        return ["nsenter", *names, "--", *command]

    def run(self, *command: str, check: bool = True, text: str | None = None, seconds: float = 30) -> str:
        """What `command` says on its standard output, run in the machine. Raise AssertionError if it fails."""
        done = subprocess.run(
            self.entered(*command), input=text, capture_output=True, text=True, timeout=seconds, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def unit(self, name: str, *command: str, user: str = "", scope: bool = False, **properties: str) -> int:
        """Start a transient service with these properties (as in Delegate="yes"); its main process's number in there."""
        options = [f"--property={key}={value}" for key, value in properties.items()]
        options += [f"--uid={user}"] if user else []
        self.run("systemd-run", "--quiet", f"--unit={name}", *options, *(command or ("sleep", "1000")))
        return self.main_pid(name)

    def main_pid(self, name: str) -> int:
        return int(self.run("systemctl", "show", "--property=MainPID", "--value", name))

    def account(self, uid: int) -> None:
        """Let there be a user of that number."""
        self.run("sh", "-c", f"echo u{uid}:x:{uid}:{uid}::/run/user/{uid}:/bin/sh >>/etc/passwd")
        self.run("sh", "-c", f"echo u{uid}:x:{uid}: >>/etc/group")

    def user(self, uid: int) -> str:
        """A user of that number, who has a systemd of their own: its unit."""
        self.account(uid)
        self.write("/run/systemd/system/user@.service.d/50-test.conf", _USER_MANAGER)  # this machine has no PAM files
        self.run("systemctl", "daemon-reload")
        self.run("systemctl", "start", f"user@{uid}.service")
        return f"user@{uid}.service"

    def as_user(self, uid: int, *command: str, check: bool = True) -> str:
        """What `command` says, run by a user with what it takes to reach their own systemd."""
        run_as = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
        return self.run(*run_as, "env", f"XDG_RUNTIME_DIR=/run/user/{uid}", *command, check=check)

    def write(self, path: str, text: str) -> None:
        """Put a file into the machine."""
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")" && cat >"$1"', "sh", path, text=text)


def _removed(cgroup: Path) -> bool:
    for folder, _, _ in os.walk(cgroup, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return not cgroup.exists()


class Helper:
    """A Python program of tests/harness in the machine, which answers each line of JSON with one."""

    def __init__(self, machine: Machine, script: str, *arguments: str, launcher: tuple[str, ...] = ()) -> None:
        """`launcher`: the start of a command by which it is started there, such as systemd-run's."""
        command = machine.entered(*launcher, PYTHON, str(ROOT / "tests" / "harness" / script), *arguments)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment(), bufsize=1
        )

    def ask(self, **asked: Any) -> Any:
        """Say one line, and hear one."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self.hear(asked)

    def hear(self, asked: object = "") -> Any:
        """The next line, which answers `asked`."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_SECONDS)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise AssertionError(f"no answer to {asked}")
        return json.loads(line)

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        wait_or_kill(self._process, 5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def booted() -> Iterator[Machine]:
    """A machine, if this one has what it takes."""
    need_systemd()
    with Machine() as machine:
        yield machine
