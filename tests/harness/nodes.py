"""An agent that is a node of a real SPIRE server, or of a server of ours, and what a test does at either."""

import os
from pathlib import Path
from typing import Any

from harness.agent import AgentProcess
from harness.looking import until
from harness.spirenode import NodeServer

TRUST_DOMAIN = "spire.example"
POLL = "1s"


def upstream(server: NodeServer, folder: Path, **more: str) -> str:
    """The table [upstream] of an agent that joins a server by a token; the files are in `folder`. `more`: further keys
    as TOML.
    """
    told = server.run("token", "generate", "-ttl", "600").stdout
    token = told.partition("Token:")[2].split()[0]
    bundle = folder / "bundle.pem"
    bundle.write_text(server.run("bundle", "show", "-format", "pem").stdout)
    (folder / "token").write_text(token + "\n")
    for file in (bundle, folder / "token"):
        os.chmod(file, 0o600)
    keys = {
        "kind": '"spire"',
        "servers": f'["127.0.0.1:{server.node_port}"]',
        "bundle": f'"{bundle}"',
        "attestor": '"join_token"',
        "token_file": f'"{folder / "token"}"',
        "poll": f'"{POLL}"',
        **more,
    }
    return "[upstream]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


def node_config(server: NodeServer, folder: Path, more: str = "", **keys: str) -> str:
    return f'trust_domain = "{server.trust_domain}"\n{more}\n{upstream(server, folder, **keys)}'


def node_id(agent: AgentProcess) -> str:
    found: str = agent.json("status")["node_id"]
    return found


def register(server: NodeServer, agent: AgentProcess, path: str, *selectors: str, **options: str) -> str:
    """Register an entry at the server, below this node, and return its ID."""
    words = ["-parentID", node_id(agent), "-spiffeID", f"spiffe://{server.trust_domain}{path}"]
    for each in selectors or (f"unix:uid:{os.geteuid()}",):
        words += ["-selector", each]
    for name, value in options.items():
        words += [f"-{name}", value]
    told = server.run("entry", "create", *words).stdout
    return next(line.split(":")[1].strip() for line in told.splitlines() if line.startswith("Entry ID"))


def has_entry(agent: AgentProcess, entry_id: str, seconds: float = 30) -> dict[str, Any]:
    """The entry, once the node has it."""

    def look() -> dict[str, Any] | None:
        return next((each for each in agent.json("entry", "list")["entries"] if each["id"] == entry_id), None)

    return until(look, "the node has the entry", seconds)


def sees(agent: AgentProcess, entry_id: str, *, there: bool) -> None:
    """Return once the node has an entry, or has it no more."""
    until(lambda: any(each["id"] == entry_id for each in agent.json("entry", "list")["entries"]) is there, "synced", 30)


def by_certificate(server: NodeServer, folder: Path, certificate: Path, key: Path) -> str:
    """The table [upstream] of an agent that joins by a machine's certificate."""
    text = upstream(server, folder).replace('"join_token"', '"x509pop"')
    lines = [line for line in text.splitlines() if not line.startswith("token_file")]
    return "\n".join([*lines, f'certificate = "{certificate}"', f'key = "{key}"', ""])
