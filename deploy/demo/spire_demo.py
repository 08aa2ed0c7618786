"""The main job on a node of a real SPIRE server: `make demo-spire`.

Builds spire-server with Go if it is not there, starts it, has the agent join, and prints a line for each step with what
was measured. Ends with `demo: ok`, or with the step that failed (exit 1).
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo import HERE, PATIENCE_SECONDS, TRUST, Demo, Failed, Process, main

ROOT = HERE.parents[1]
SYNC_SECONDS = 60.0  # a server hands a new entry out within its own ten seconds
TYPES = HERE.parent / "samples" / "task-types"

SERVER = """
server {{
    bind_address = "127.0.0.1"
    bind_port = "{port}"
    socket_path = "{folder}/server.sock"
    trust_domain = "example.org"
    data_dir = "{folder}/data"
    log_level = "WARN"
}}
plugins {{
    DataStore "sql" {{
        plugin_data {{
            database_type = "sqlite3"
            connection_string = "{folder}/data/datastore.sqlite3"
        }}
    }}
    KeyManager "disk" {{ plugin_data {{ keys_path = "{folder}/data/keys.json" }} }}
    NodeAttestor "join_token" {{ plugin_data {{}} }}
}}
"""
AGENT = """
trust_domain = "example.org"

[tasks]
types_dir = "{types}"

[upstream]
kind = "spire"
servers = ["127.0.0.1:{port}"]
bundle = "bundle.pem"                    # what the first connection is verified by
attestor = "join_token"
token_file = "token"
poll = "1s"
"""


class SpireDemo(Demo):
    """A SPIRE server, the agent as its node, the roles, and the steps."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._port = _free_port()
        self._home = folder / "server"
        self._binary = ""
        self._server: subprocess.Popen[bytes] | None = None
        self.node_id = ""

    def run(self) -> None:
        self.fetched()
        self.server_starts()
        config = self.joined()
        agent = self.ready(config)
        self.listed()
        tickets, billing = self.services()
        triage = self.attested(tickets["tls"])
        self.svids(triage)
        self.mutual_tls(triage)
        token = self.token(triage)
        self.enforced(token, tickets["http"], billing["http"])
        self.refused_here()
        self.killed(triage, token, tickets["http"])
        self.away(config, agent)
        self.banned()
        for process in self.processes:
            process.end()

    def close(self) -> None:
        self.server_ends()

    # --- the server ---

    def fetched(self) -> None:
        go = shutil.which("go")
        if go is None:
            raise Failed("Go is not there: it builds spire-server, see https://go.dev/doc/install")
        begun = time.monotonic()
        done = subprocess.run(["bash", str(ROOT / ".ci" / "spire")], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"spire-server could not be built: {done.stderr.strip()[-1500:]}")
        home = subprocess.run([go, "env", "GOPATH"], capture_output=True, text=True, check=True).stdout.strip()
        self._binary = f"{home}/bin/spire-server"
        version = self._spire("--version", bare=True).strip()
        self.step("SPIRE", f"spire-server {version}, there after {time.monotonic() - begun:.1f} s")

    def server_starts(self) -> None:
        (self._home / "data").mkdir(parents=True, exist_ok=True)
        config = self._home / "server.conf"
        config.write_text(SERVER.format(port=self._port, folder=self._home))
        with (self._home / "server.log").open("a") as log:
            self._server = subprocess.Popen([self._binary, "run", "-config", str(config)], stdout=log, stderr=log)
        self.until(lambda: "Server is healthy" in self._spire("healthcheck", check=False), "the SPIRE server answers")

    def server_ends(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.send_signal(signal.SIGTERM)
            server.wait(15)

    def _spire(self, *arguments: str, check: bool = True, bare: bool = False) -> str:
        place = [] if bare else ["-socketPath", str(self._home / "server.sock")]
        count = next((n for n, each in enumerate(arguments) if each.startswith("-")), len(arguments))
        done = subprocess.run(
            [self._binary, *arguments[:count], *place, *arguments[count:]], capture_output=True, text=True, check=False
        )
        if done.returncode and check:
            raise Failed(f"spire-server {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout + done.stderr

    # --- the steps ---

    def joined(self) -> Path:
        (self.folder / "bundle.pem").write_text(self._spire("bundle", "show", "-format", "pem"))
        token = self._spire("token", "generate").partition("Token:")[2].split()[0]
        (self.folder / "token").touch(0o600)
        (self.folder / "token").write_text(token)
        config = self.folder / "agent.toml"
        config.write_text(AGENT.format(port=self._port, types=TYPES))
        begun = time.monotonic()
        told = self.command("agent", "join", "--config", str(config), "--data-dir", str(self.folder / "data"))
        self.node_id = str(told["node_id"])
        took = (time.monotonic() - begun) * 1000
        self.step("node joined", f"{self.node_id}, in {took:.0f} ms, until {told['svid_until']}")
        return config

    def listed(self) -> None:
        found = json.loads(self._spire("agent", "list", "-output", "json"))["agents"]
        if [f"{TRUST}{each['id']['path']}" for each in found] != [self.node_id]:
            raise Failed(f"the server lists {found}")
        self.step("server lists the node", f"attested by {found[0]['attestation_type']}")

    def services(self) -> tuple[dict[str, Any], dict[str, Any]]:
        took = self.register("/service/tickets", "tickets")
        self.register("/service/billing", "billing")
        self.step("entries at the server", f"{took / 1000:.1f} s after the first was made its SVID was here, unasked")
        tickets, billing = (process.event("serving") for process in [self.start("tickets"), self.start("billing")])
        return tickets, billing

    def register(self, path: str, role: str, *options: str) -> float:
        """Register a role's program at the server, and return how long it takes until its SVID is here."""
        program = self.program(role)
        begun = time.monotonic()
        selectors = [f"unix:uid:{os.geteuid()}", f"unix:path:{program.resolve()}"]
        words = [word for each in selectors for word in ("-selector", each)]
        self._spire("entry", "create", "-parentID", self.node_id, "-spiffeID", f"{TRUST}{path}", *words, *options)
        self.until(lambda: f"{TRUST}{path}" in self.ahead(), f"{path} is here")
        return (time.monotonic() - begun) * 1000

    def ahead(self) -> list[str]:
        """The SPIFFE IDs whose SVIDs are signed, whether or not anybody has asked."""
        return [each["spiffe_id"] for each in self.command("status")["svids"]]

    def refused_here(self) -> None:
        try:
            self.command("entry", "create", "--spiffe-id", f"{TRUST}/here", "--selector", "unix:uid:1")
        except Failed as error:
            if "held_by_server" not in str(error):
                raise
            self.step("registering here", f"is refused: run `{str(error).partition('run `')[2].partition('`')[0]}`")
        else:
            raise Failed("an entry was made at the node")

    def away(self, config: Path, agent: Process) -> None:
        before = len(self.ahead())
        self.server_ends()
        self.until(lambda: self.upstream()["away_seconds"] is not None, "the node sees that its server is away")
        self.step(
            "server stopped",
            f"{len(self.ahead())} SVIDs are served on, {self.upstream()['svids_until']} the first ends",
        )
        agent.end()
        self.ready(config)
        self.until(lambda: len(self.ahead()) >= before, "what was kept is served")
        self.step("agent restarted", f"without its server it serves {len(self.ahead())} SVIDs that it has kept")
        begun = time.monotonic()
        self.server_starts()
        self.until(lambda: self.upstream()["away_seconds"] is None, "the server is back")
        self.step("server started", f"the node was back {time.monotonic() - begun:.1f} s after")

    def banned(self) -> None:
        self._spire("agent", "ban", "-spiffeID", self.node_id)
        begun = time.monotonic()
        self.until(lambda: self.upstream()["refused"] == "banned", "the ban is obeyed")
        took = time.monotonic() - begun
        self.program("stranger")
        refused = self.start("stranger").event("refused")
        self.step("node banned", f"obeyed after {took:.1f} s: {refused['message']}")

    def upstream(self) -> dict[str, Any]:
        found: dict[str, Any] = self.command("status")["upstream"]
        return found

    def until(self, look: Callable[[], bool], what: str) -> None:
        ends = time.monotonic() + max(SYNC_SECONDS, PATIENCE_SECONDS)
        while not look():
            if time.monotonic() > ends:
                raise Failed(f"not within {SYNC_SECONDS:g} s: {what}")
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main(SpireDemo))
