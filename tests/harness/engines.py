"""Real container engines on images made of this machine's busybox: what `dockerd.py` and `podman.py` have in common.

Each engine has a folder, a socket, images and containers of its own, and a mount namespace of its own, so that nothing
of it is left once that ends. With `v2` that namespace has cgroup v2 alone, as production machines have it.
"""

import abc
import contextlib
import errno
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.agent import ROOT, clean_environment
from harness.callers import Caller
from harness.lacking import lacking
from harness.looking import until

IMAGE = "localhost/bb:1"  # busybox, which sleeps
HOST_IMAGE = "localhost/host:1"  # to be run with HOST_FOLDERS: this machine's own programs, such as Python
READY_SECONDS = 30.0
COMMAND_SECONDS = 60.0
_BUSYBOX = Path("/bin/busybox")
_APPLETS = ("sh", "sleep", "ls", "cat", "id", "nc", "echo", "true", "mount", "umount", "kill", "readlink")


def find_programs(*programs: str) -> None:
    """Skip the test without root or if one of these programs is not installed, but fail it in CI. `programs`: paths."""
    missing = [program for program in (*programs, str(_BUSYBOX)) if not Path(program).exists()]
    if missing:
        lacking(f"needs {', '.join(missing)}: install the packages docker.io, podman, runc, busybox-static")
    if os.geteuid() != 0:
        lacking("needs root, for namespaces and cgroups")


class Container:
    """A running container. `pid`: its first process, as this machine knows it."""

    def __init__(self, engine: "Engine", container_id: str, pid: int) -> None:
        self.engine = engine
        self.id = container_id
        self.pid = pid

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command in the container, and return what it printed."""
        return self.engine.command("exec", self.id, *command, check=check)

    def start_process(self, *command: str, flags: Sequence[str] = ()) -> int:
        """Start a command in the container which goes on; the pid that this machine knows it by."""
        before = set(self.pids())
        self.engine.command("exec", "--detach", *flags, self.id, *command)
        return until(lambda: next(iter(set(self.pids()) - before), 0), "the process has started")

    def pids(self) -> list[int]:
        """All processes in the container's PID namespace, as this machine knows them."""
        own = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if name.isdecimal() and os.readlink(f"/proc/{name}/ns/pid") == own:
                    found.append(int(name))
        return found

    def remove(self) -> None:
        """End it at once, and have the engine forget it."""
        self.engine.command("rm", *self.engine.remove_flags, self.id)


class Engine(abc.ABC):
    """One engine, not started yet. Use as a context manager; `start` and `stop` it in between as you like."""

    kind: str  # docker or podman
    run_flags: tuple[str, ...] = ()  # that this machine asks for
    remove_flags: tuple[str, ...] = ("--force",)

    def __init__(self, *, v2: bool = False) -> None:
        self.v2 = v2
        self.folder = Path(tempfile.mkdtemp(prefix="sojourn-test-", dir="/tmp"))
        os.chmod(self.folder, 0o755)
        self.socket = self.folder / "engine.sock"
        self.log = self.folder / "engine.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._namespace: subprocess.Popen[bytes] | None = None

    # --- what each does in its own way ---

    @abc.abstractmethod
    def _engine_argv(self) -> list[str]:
        """The command that serves the API."""

    @abc.abstractmethod
    def _client_argv(self) -> list[str]:
        """The command line client, before its arguments."""

    @abc.abstractmethod
    def _environment(self) -> dict[str, str]: ...

    @property
    @abc.abstractmethod
    def cgroup_parents(self) -> tuple[str, ...]:
        """The cgroups below which it puts containers, to be removed once they are empty."""

    # --- life ---

    def __enter__(self) -> "Engine":
        try:
            self._make_namespace()
            self.start()
            self._make_images()
        except BaseException as error:
            if self.log.exists():
                error.add_note(self.log.read_text()[-4000:])
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.remove_containers()
        finally:
            self.stop()
            self._end_lost_ones()
            if self._namespace is not None:
                assert self._namespace.stdin is not None
                self._remove_cgroups()
                self._namespace.stdin.close()
                self._namespace.wait(timeout=60)
                self._namespace = None
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the engine, and wait until it answers. Containers that were there are there again.

        It ends with the thread that started it.
        """
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.inside("setpriv", "--pdeathsig", "TERM", *self._engine_argv()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
            )
        until(self._answers, f"{self.kind} answers", READY_SECONDS)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the engine. Its containers go on."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(timeout=30)
            self.process = None

    def _end_lost_ones(self) -> None:
        """End what an engine that was killed meanwhile has left of containers: their command lines have its folder."""
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if str(self.folder).encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    os.kill(int(name), signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def inside(self, *command: str) -> list[str]:
        """A command in the engine's mount namespace. It starts in `/`."""
        assert self._namespace is not None
        return ["nsenter", f"--mount=/proc/{self._namespace.pid}/ns/mnt", *command]

    @property
    def cgroup_root(self) -> Path:
        """Where this machine sees the hierarchy of cgroup v2 that the engine has, or the first one of v1."""
        assert self._namespace is not None
        return Path(f"/proc/{self._namespace.pid}/root/sys/fs/cgroup")

    def _make_namespace(self) -> None:
        steps = ["set -e", "for d in containerd docker libpod containers; do mkdir -p /run/$d"]
        steps += ["mount -t tmpfs none /run/$d; done", "mount -t tmpfs none /dev/shm"]
        if self.v2:
            steps += ["umount -R /sys/fs/cgroup", "mount -t cgroup2 none /sys/fs/cgroup"]
        steps += ["echo ready", "exec cat"]
        self._namespace = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(steps)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._namespace.stdout is not None
        line = self._namespace.stdout.readline()
        assert line == b"ready\n", "the engine's mount namespace was not made"
        self._namespace.stdout.close()

    def _remove_cgroups(self) -> None:
        roots = [self.cgroup_root] if self.v2 else [self.cgroup_root, *self.cgroup_root.iterdir()]
        for root in roots:
            for parent in self.cgroup_parents:
                for folder, _, _ in os.walk(root / parent.lstrip("/"), topdown=False):
                    with contextlib.suppress(OSError):  # other tests' engines may be at work there
                        os.rmdir(folder)

    # --- use ---

    def command(self, *arguments: str, check: bool = True, given: bytes | None = None) -> str:
        """Run the command line client, and return what it printed, without white space around it."""
        done = subprocess.run(
            self.inside(*self._client_argv(), *arguments),
            env=self._environment(),
            input=given or b"",
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{self.kind} {' '.join(arguments)}: {done.returncode}\n{done.stderr.decode()}")
        return done.stdout.decode().strip()

    def ask(self, path: str) -> Any:
        """What the API answers at a path such as /containers/json."""
        connection = UnixConnection(str(self.socket))
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, (answer.status, body)
            return json.loads(body)
        finally:
            connection.close()

    def make_image(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> str:
        """Make an image of busybox that sleeps, or of a tar file of the root folder; its id, `sha256:HEX`."""
        changes = ['CMD ["/bin/sleep","1000"]', "ENV PATH=/bin"]
        changes += [f"LABEL {json.dumps(key)}={json.dumps(value)}" for key, value in (labels or {}).items()]
        changes += [f"ENV {key}={value}" for key, value in (environment or {}).items()]
        flags = [part for change in changes for part in ("--change", change)]
        self.command("import", *flags, "-", name, given=content or _busybox_root())
        found: str = self.command("image", "inspect", "--format", "{{.Id}}", name)
        return found if found.startswith("sha256:") else f"sha256:{found}"

    def run(self, *command: str, image: str = IMAGE, flags: Sequence[str] = (), network: str = "none") -> Container:
        """Start a container that goes on. `flags` are those of `docker run`."""
        arguments = ["run", "--detach", "--network", network, *self.run_flags, *flags, image, *command]
        container_id = self.command(*arguments)
        return Container(self, container_id, self.pid_of(container_id))

    def pid_of(self, container: str) -> int:
        """The first process of a container that runs, by the container's id or name."""
        return int(self.command("inspect", "--format", "{{.State.Pid}}", container))

    def caller(self, socket_path: str, *, flags: Sequence[str] = (), uid: int | None = None) -> Caller:
        """A workload process, the first one of a container of its own, which ends with it.

        `socket_path`: the agent's. Its folder is there in the container too. `flags`: such as --name or --label.
        """
        argv = self.inside(*self._client_argv(), "run", "--rm", "--interactive", "--network", "none", *self.run_flags)
        for folder in sorted({"/usr", "/etc/ld.so.cache", str(ROOT), sys.prefix, sys.base_prefix}):
            argv += ["--volume", f"{folder}:{folder}:ro"]
        agent_folder = str(Path(socket_path).parent)
        argv += ["--volume", f"{agent_folder}:{agent_folder}", *flags, HOST_IMAGE]
        environment = [f"{name}={value}" for name, value in self._environment().items()]
        return Caller(
            socket_path,
            uid,
            argv=["env", *environment, *argv, sys.executable, str(ROOT / "tests" / "harness" / "caller.py")],
        )

    def remove_containers(self) -> None:
        """End all containers at once."""
        if self._namespace is None or (self.process is None and self.kind == "docker"):
            return
        ids = self.command("ps", "--all", "--quiet", check=False).split()
        if ids:
            self.command("rm", *self.remove_flags, *ids, check=False)

    def _make_images(self) -> None:
        self.make_image(IMAGE, labels={"app": "web"}, environment={"FOO": "bar"})
        self.make_image(HOST_IMAGE, content=_host_root())

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.kind} has ended\n{self.log.read_text()[-4000:]}"
        try:
            return bool(self.ask("/version"))
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ECONNREFUSED}:
                raise
            return False


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


def clean_path() -> dict[str, str]:
    """An environment in which Debian's own programs come first."""
    names = {name: value for name, value in clean_environment().items() if not name.startswith(("DOCKER", "CONTAINER"))}
    return {**names, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def _busybox_root() -> bytes:
    return _tar(
        [("bin/busybox", _BUSYBOX)],
        [(f"bin/{applet}", "busybox") for applet in _APPLETS],
        ["tmp", "proc", "sys", "dev", "etc"],
    )


def _host_root() -> bytes:
    links = [(name, f"usr/{name}") for name in ("bin", "sbin", "lib", "lib64") if Path("/", name).is_symlink()]
    return _tar([], links, ["usr", "tmp", "proc", "sys", "dev", "etc", "run"])


def _tar(files: list[tuple[str, Path]], links: list[tuple[str, str]], folders: list[str]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for folder in folders:
            about = tarfile.TarInfo(folder)
            about.type, about.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(about)
        for name, path in files:
            about = tarfile.TarInfo(name)
            about.size, about.mode = path.stat().st_size, 0o755
            with path.open("rb") as file:
                tar.addfile(about, file)
        for name, target in links:
            about = tarfile.TarInfo(name)
            about.type, about.linkname = tarfile.SYMTYPE, target
            tar.addfile(about)
    return content.getvalue()
