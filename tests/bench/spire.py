"""A real SPIRE server and agent to compare with, in a folder of their own."""

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from beside import Subject
from ground import Admin
from harness.agent import clean_environment
from harness.looking import until
from harness.ports import free_port
from peers import SPIRE
from sojourn._pb.spire.api.types import types_pb2 as types

SERVED_SECONDS = 30.0  # its agent asks its server for entries every five
_SERVER = """
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{folder}/server.sock"
  trust_domain = "example.org"
  data_dir = "{folder}/server"
  log_level = "WARN"
  default_x509_svid_ttl = "1h"
  ratelimit {{ signing = {limited} }}
}}
plugins {{
  DataStore "sql" {{ plugin_data {{ database_type = "sqlite3", connection_string = "{folder}/server/entries.sqlite3" }} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
}}
"""
_AGENT = """
agent {{
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{folder}/agent.sock"
  trust_domain = "example.org"
  trust_bundle_path = "{folder}/bundle.pem"
  data_dir = "{folder}/agent"
  log_level = "WARN"
}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{ discover_workload_path = {path} }} }}
}}
"""


@dataclass(frozen=True, slots=True)
class Spire:
    """One that runs. `parent`: the SPIFFE ID of its agent, which all entries name."""

    folder: Path
    parent: str
    pids: dict[str, int]

    @property
    def socket(self) -> str:
        return f"{self.folder}/agent.sock"

    @property
    def subject(self) -> Subject:
        return Subject("SPIRE", self.pids, self.socket)

    def admin(self) -> Admin:
        """Its server's registration, over the server's local socket: the same API as the agent's of Sojourn."""
        return Admin(f"{self.folder}/server.sock")

    def entry(self, path: str, *selectors: str) -> types.Entry:
        """For its admin(). Selectors are "uid:0", "path:/bin/x": the `unix` before them goes without saying."""
        return types.Entry(
            spiffe_id=types.SPIFFEID(trust_domain="example.org", path=path),
            parent_id=types.SPIFFEID(trust_domain="example.org", path=self.parent.removeprefix("spiffe://example.org")),
            selectors=[types.Selector(type="unix", value=value) for value in selectors],
        )


@contextlib.contextmanager
def spire(
    *selectors: str,
    path: bool = False,
    limited: bool = False,
    served: Callable[[str], bool] | None = None,
    others: Sequence[int] = (),
) -> Iterator[Spire]:
    """One that serves an entry with this user and these selectors ("path:/bin/x"). Raise Missing if there is no SPIRE.

    `path`: whether it looks at callers' programs, for selectors `path` and `sha256` (`discover_workload_path`).
    `limited`: whether its server signs no more than 500 a second for an agent, which is its default.
    `served`: says of its agent's socket whether the entry is served, if the selectors are no other program's of this user.
    `others`: uids of other users, each with an entry of its own.
    """
    server, agent = map(str, SPIRE.there())
    settings = {"path": str(path).lower(), "limited": str(limited).lower()}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp", prefix="sojourn-spire-")))
        os.chmod(folder, 0o711)  # for other users' clients
        port = free_port()
        for name, text in (("server", _SERVER), ("agent", _AGENT)):
            (folder / name).mkdir()
            (folder / f"{name}.conf").write_text(text.format(folder=folder, port=port, **settings))

        def ask(*command: str) -> str:
            argv = [server, *command, "-socketPath", f"{folder}/server.sock"]
            return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

        at_server, pids = f"{folder}/server.sock", {"agent": 0, "server": 0}
        with contextlib.ExitStack() as first:
            _start(first, folder, "server", server)
            until(lambda: _answers(server, at_server), "SPIRE's server is up", 60)
            token = json.loads(ask("token", "generate", "-output", "json"))["value"]
            found = Spire(folder, f"spiffe://example.org/spire/agent/join_token/{token}", pids)
            with found.admin() as admin:
                admin.create([found.entry("/w", f"uid:{os.getuid()}", *selectors)])
                admin.create([found.entry(f"/of/{uid}", f"uid:{uid}") for uid in others])
        # Begun anew it has the entry from the start; the other way it reads its entries again after five seconds.
        pids["server"] = _start(stack, folder, "server", server)
        until(lambda: _answers(server, at_server), "SPIRE's server is up", 60)
        (folder / "bundle.pem").write_text(ask("bundle", "show"))
        pids["agent"] = _start(stack, folder, "agent", agent, "-joinToken", token)
        until(lambda: _answers(agent, found.socket), "SPIRE's agent is up", 60)
        look = served or (lambda socket: _fetches(agent, socket))
        until(lambda: look(found.socket), "SPIRE's agent has the entry", SERVED_SECONDS)
        yield found


def _answers(program: str, path: str) -> bool:
    return subprocess.run([program, "healthcheck", "-socketPath", path], capture_output=True).returncode == 0


def _fetches(agent: str, path: str) -> bool:
    return subprocess.run([agent, "api", "fetch", "x509", "-socketPath", path], capture_output=True).returncode == 0


def _start(stack: contextlib.ExitStack, folder: Path, name: str, *command: str) -> int:
    log = stack.enter_context((folder / f"{name}.log").open("wb"))
    program, *options = command
    process = subprocess.Popen(
        [program, "run", "-config", f"{folder}/{name}.conf", *options],
        stdout=log,
        stderr=log,
        env=clean_environment(),
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process.pid
