"""A server of ours as a real process, and what a test does at it: by our command, or by SPIRE's."""

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import forks
from harness.agent import COMMAND, READY_SECONDS, clean_environment
from harness.keeper import keep
from harness.spirecli import binary


class ServerProcess:
    """One server in a folder of its own. Use as a context manager.

    It looks like `harness.federating.SpireServer` to who only joins it: `run` is SPIRE's command, at our admin socket.
    """

    def __init__(
        self,
        folder: Path | None = None,
        trust_domain: str = "spire.example",
        x509pop_ca: Path | None = None,
        *,
        node_svid_ttl: str = "1h",
        more: str = "",
        under: Sequence[str] = (),
    ) -> None:
        """`x509pop_ca`: a PEM file of the authorities whose certificates make a machine a node. `more`: tables.
        `under`: a command that becomes the one which follows it.
        """
        self._under = under
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="sojourn-test-", dir="/tmp"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.trust_domain = trust_domain
        self.socket = str(self.folder / "run" / "admin.sock")
        self.data_dir = self.folder / "data"
        self.log = self.folder / "server.log"
        self.config = self.folder / "server.toml"
        self.node_port = 0  # any that is free at the first start, and the same from then on
        pop = "" if x509pop_ca is None else f'[node_attestors.x509pop]\nca = "{x509pop_ca}"\n'
        self._tables = f'[server]\nnode_svid_ttl = "{node_svid_ttl}"\n{pop}{more}'
        self.ready_line = ""

    def start(self) -> "ServerProcess":
        """Start it and wait for the line with `ready`. Raise RuntimeError with what it said instead."""
        self.config.write_text(
            f'trust_domain = "{self.trust_domain}"\ndata_dir = "{self.data_dir}"\nadmin_socket = "{self.socket}"\n'
            f'{self._tables}\n[listen]\nnodes = "127.0.0.1:{self.node_port}"\n'
        )
        with self.log.open("a") as log:
            self.process = forks.popen(
                [*self._under, *COMMAND, "server", "run", "--config", str(self.config)],
                kind=forks.AGENTS,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=clean_environment(),
                start_new_session=True,
            )
        keep(self.process)
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], READY_SECONDS)
        self.ready_line = self.process.stdout.readline() if readable else ""
        if "ready" not in self.ready_line:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            raise RuntimeError(f"the server did not get ready: {self.ready_line!r}\n{self.log.read_text()[-4000:]}")
        self.node_port = int(self.ready_line.partition("nodes ")[2].partition(",")[0].rpartition(":")[2])
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait, and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(timeout=60)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def __enter__(self) -> "ServerProcess":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    # --- use ---

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.node_port}"

    def run(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run `spire-server` against it."""
        count = next((n for n, each in enumerate(arguments) if each.startswith("-")), len(arguments))
        words = [binary("spire-server"), *arguments[:count], "-socketPath", self.socket, *arguments[count:]]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        if check and done.returncode:
            raise AssertionError(f"{arguments}: {done.stdout}{done.stderr}\n{self.log.read_text()[-2000:]}")
        return done

    def bundle(self) -> str:
        """Its bundle as a SPIFFE document."""
        return self.ours("bundle", "show", "--format", "spiffe").stdout

    def ours(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run our command against it."""
        environment = {**clean_environment(), "SOJOURN_ADMIN_SOCKET": self.socket}
        done = forks.run([*COMMAND, *arguments], env=environment, text=True, timeout=60)
        if check and done.returncode:
            raise AssertionError(f"sojourn {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def json(self, *arguments: str) -> Any:
        """Run our command with --output json and return what it printed."""
        return json.loads(self.ours(*arguments, "--output", "json").stdout)

    def token(self, node: str) -> str:
        """A join token for the node of this name."""
        made: str = self.json("token", "generate", "--node", node)["token"]
        return made

    def register(self, path: str, *selectors: str, node: str = "", parent: str = "") -> str:
        """Create an entry of a node, by its name or its SPIFFE ID, and return the entry's ID."""
        whose = ["--node", node] if node else ["--parent-id", parent]
        words = ["entry", "create", "--spiffe-id", f"spiffe://{self.trust_domain}{path}", *whose]
        for each in selectors or (f"unix:uid:{os.geteuid()}",):
            words += ["--selector", each]
        made: str = self.json(*words)["id"]
        return made

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The records of this name in its journal, the oldest first."""
        found = self.json("audit", "list", "--event", name)["records"]
        return [each["fields"] for each in reversed(found)]
