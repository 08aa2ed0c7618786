"""The real daemon as a real process, for tests."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import forks
from harness.keeper import keep
from harness.looking import OpenFiles

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLES = ROOT / "deploy" / "samples"
COMMAND = [forks.PROGRAM]
READY_SECONDS = 60.0


class AgentProcess:
    """One agent in a folder of its own below /tmp, which other users may enter. Use as a context manager."""

    def __init__(
        self,
        *,
        config: str | None = None,
        folder: Path | None = None,
        as_user: int | None = None,
        under: Sequence[str] = (),
    ) -> None:
        """`config` is TOML text; without it the quickstart sample is used. `as_user` runs it as another uid (root only).

        `under`: a command that becomes the one which follows it, such as `nice`.
        """
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="sojourn-test-", dir="/tmp"))
        os.chmod(self.folder, 0o755)
        self.data_dir = self.folder / "data"
        self.socket = str(self.folder / "run" / "agent.sock")
        self.admin_socket = str(self.folder / "run" / "admin.sock")
        self.log = self.folder / "agent.log"
        self.config = SAMPLES / "quickstart.toml"
        if config is not None:
            self.config = self.folder / "agent.toml"
            self.config.write_text(config)
        self.extra_environment: dict[str, str] = {}
        self._as_user = as_user
        self._under = under
        if as_user is not None:
            # The folder stays root's: what another user makes in /tmp, clients of third users do not believe.
            for each, mode in ((self.data_dir, 0o700), (self.folder / "run", 0o755)):
                each.mkdir(mode)
                os.chown(each, as_user, as_user)
            if config is None:  # the sample may lie where only root can enter
                self.config = Path(shutil.copytree(SAMPLES, self.folder / "samples")) / self.config.name
        self.process: subprocess.Popen[str] | None = None
        self.ready_line = ""

    # --- life ---

    def start(self, *extra: str) -> "AgentProcess":
        """Start it and wait for the line with `ready`. Raise RuntimeError with what it said instead."""
        self.process = self.spawn(*extra)
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], READY_SECONDS)
        line = self.process.stdout.readline() if readable else ""
        if "ready" not in line:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            raise RuntimeError(f"the agent did not get ready: {line!r}\n{self.log.read_text()[-4000:]}")
        self.ready_line = line
        return self

    def spawn(self, *extra: str) -> "subprocess.Popen[str]":
        """Start it without waiting for anything. It is killed when these tests end, even if they are killed."""
        arguments = [*COMMAND, "agent", "run", "--config", str(self.config), *self.places, *extra]
        if self._as_user is not None:
            # The interpreter may lie in a folder that only root can enter: become the user after importing.
            arguments = [*becoming(self._as_user), *arguments]
        with self.log.open("a") as log:
            process = forks.popen(
                [*self._under, *arguments],
                kind=forks.AGENTS,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**clean_environment(), **self.extra_environment},
                start_new_session=True,
            )
        keep(process)
        return process

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait, and return the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(timeout=60)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def __enter__(self) -> "AgentProcess":
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.stop()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    # --- use ---

    @property
    def places(self) -> list[str]:
        """The options that put its files where they belong."""
        return ["--data-dir", str(self.data_dir), "--socket", self.socket, "--admin-socket", self.admin_socket]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def tcp(self) -> str:
        """ADDRESS:PORT of the listener for validators on other machines."""
        return self.ready_line.rpartition(", TCP ")[2].strip()

    @property
    def https(self) -> str:
        """ADDRESS:PORT of the listener for clients of the token service on other machines."""
        return self.ready_line.partition(", HTTPS ")[2].partition(", ")[0].strip()

    @property
    def trust(self) -> str:
        """ADDRESS:PORT of the listener for those who are to trust it."""
        return self.ready_line.partition(", TRUST ")[2].partition(", ")[0].strip()

    @property
    def people(self) -> str:
        """ADDRESS:PORT of the listener for issuers of people's tokens."""
        return self.ready_line.partition(", PEOPLE ")[2].partition(", ")[0].strip()

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment to find this agent."""
        return {
            **clean_environment(),
            "SPIFFE_ENDPOINT_SOCKET": f"unix://{self.socket}",
            "SOJOURN_ADMIN_SOCKET": self.admin_socket,
        }

    def run(self, *arguments: str, check: bool = True, timeout: float = 30) -> "subprocess.CompletedProcess[str]":
        """Run the `sojourn` command against this agent."""
        done = forks.run([*COMMAND, *arguments], env=self.environment, text=True, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"sojourn {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def failures(self) -> list[dict[str, Any]]:
        """Those that its status shows, but for what the test's own machine brings about: that it is busy, and that the
        socket of an ordinary user's agent lies in /tmp.
        """
        machine = {"loop_stood_still", "socket_not_believed"}
        return [each for each in self.json("status")["failures"] if each["what"] not in machine]

    def json(self, *arguments: str) -> Any:
        """Run the command with --output json and return what it printed."""
        return json.loads(self.run(*arguments, "--output", "json").stdout)

    def register(self, path: str, *selectors: str, **options: str) -> dict[str, Any]:
        """Create an entry for `spiffe://example.org` + path; options as in x509_svid_ttl="10s"."""
        arguments = ["entry", "create", "--spiffe-id", f"spiffe://example.org{path}"]
        for selector in selectors:
            arguments += ["--selector", selector]
        for name, value in options.items():
            arguments += [f"--{name.replace('_', '-')}", value]
        return self.json(*arguments)

    def open_files(self) -> OpenFiles:
        """Those that it has open now."""
        return OpenFiles(self.pid)

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


def becoming(uid: int) -> list[str]:
    """What to put before a `sojourn` command so that it runs as another user."""
    return [sys.executable, str(Path(__file__).with_name("as_user.py")), str(uid)]


def clean_environment() -> dict[str, str]:
    """This process's environment without what would point a client or an agent elsewhere."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SOJOURN_", "SPIFFE_", "XDG_", "GRPC_", "PYTEST_"))
    }
