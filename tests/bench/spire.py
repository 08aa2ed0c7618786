"""A real SPIRE server and agent to compare with, in a folder of their own."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.agent import clean_environment
from harness.looking import until

_SERVER = """
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{folder}/server.sock"
  trust_domain = "example.org"
  data_dir = "{folder}/server"
  log_level = "WARN"
  default_x509_svid_ttl = "1h"
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
  WorkloadAttestor "unix" {{ plugin_data {{ discover_workload_path = true }} }}
}}
"""


def binaries() -> tuple[str, str] | None:
    """spire-server and spire-agent: on the PATH, or where `bash .ci/spire` puts them. None if they are not there."""
    go = shutil.which("go")
    folder = subprocess.run([go, "env", "GOPATH"], capture_output=True, text=True).stdout.strip() if go else ""
    places = f"{os.environ.get('PATH', '')}:{folder}/bin"
    found = [shutil.which(name, path=places) for name in ("spire-server", "spire-agent")]
    return (found[0], found[1]) if found[0] and found[1] else None


@contextlib.contextmanager
def spire(programs: tuple[str, str], *selectors: str) -> Iterator[tuple[str, int]]:
    """Its agent's socket and pid, once it serves an entry with these selectors to this user. It takes the path and the
    SHA-256 of each caller's program into account.
    """
    server, agent = programs
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp", prefix="sojourn-spire-")))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for name, text in (("server", _SERVER), ("agent", _AGENT)):
            (folder / name).mkdir()
            (folder / f"{name}.conf").write_text(text.format(folder=folder, port=port))
        at_server = ["-socketPath", f"{folder}/server.sock"]

        def ask(*command: str) -> str:
            done = subprocess.run([server, *command, *at_server], capture_output=True, text=True, check=True)
            return done.stdout

        _start(stack, folder, "server", server)
        until(lambda: _answers(server, f"{folder}/server.sock"), "SPIRE's server is up", 60)
        (folder / "bundle.pem").write_text(ask("bundle", "show"))
        token = json.loads(ask("token", "generate", "-output", "json"))["value"]
        parent = f"spiffe://example.org/spire/agent/join_token/{token}"
        asked = [part for selector in selectors for part in ("-selector", selector)]
        ask("entry", "create", "-spiffeID", "spiffe://example.org/w", "-parentID", parent, *asked)
        process = _start(stack, folder, "agent", agent, "-joinToken", token)
        path = f"{folder}/agent.sock"
        until(lambda: _answers(agent, path), "SPIRE's agent is up", 60)
        yield path, process.pid


def _answers(program: str, path: str) -> bool:
    return subprocess.run([program, "healthcheck", "-socketPath", path], capture_output=True).returncode == 0


def _start(stack: contextlib.ExitStack, folder: Path, name: str, *command: str) -> "subprocess.Popen[bytes]":
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
    return process
