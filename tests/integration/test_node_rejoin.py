"""A machine that is a node of a real spire-server is lost with its disk: another one takes its place by joining."""

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from harness import nodes
from harness.agent import AgentProcess
from harness.federating import SpireServer
from harness.looking import until
from harness.raw import Wire
from harness.spirecli import binary
from harness.spirenode import Machines

pytestmark = pytest.mark.full

DOMAIN = "example.org"
ALIAS = f"spiffe://{DOMAIN}/machine/7"
WEB = f"spiffe://{DOMAIN}/web"


def registered(server: SpireServer, parent: str) -> None:
    words = ["-parentID", parent, "-spiffeID", WEB, "-selector", f"unix:uid:{os.geteuid()}"]
    server.run("entry", "create", *words)


def serves(agent: AgentProcess) -> None:
    """Return once this process has its SPIFFE ID there."""

    def look() -> bool:
        with Wire(agent.socket) as wire:
            try:
                return [WEB] == wire.x509_ids()
            except Exception:  # not yet
                return False

    until(look, "the workload is served", 60)


def by_alias(server: SpireServer, folder: Path) -> AgentProcess:
    """An agent that joins by a token that names its machine."""
    folder.mkdir()
    config = nodes.node_config(server, folder)
    told = server.run("token", "generate", "-ttl", "600", "-spiffeID", ALIAS).stdout
    (folder / "token").write_text(told.partition("Token:")[2].split()[0])
    return AgentProcess(config=config)


def test_by_a_token(tmp_path: Path) -> None:
    """Who registers below a machine's name, and not below its node, registers nothing anew for the machine that takes its
    place: it is another node, and serves the same workloads; the lost one's copy is refused once it is evicted.
    """
    with SpireServer(binary("spire-server"), tmp_path / "server", DOMAIN) as server:
        lost = by_alias(server, tmp_path / "lost")
        with lost:
            registered(server, ALIAS)
            serves(lost)
            lost_id = nodes.node_id(lost)
            refused = lost.run("backup", "create", "--to", str(tmp_path / "x"), "--no-passphrase", check=False)
            assert refused.returncode != 0
            with by_alias(server, tmp_path / "new") as taking_over:
                serves(taking_over)
                assert lost_id != nodes.node_id(taking_over)
                server.run("agent", "evict", "-spiffeID", lost_id)
                until(lambda: "not_attested" == lost.json("status")["upstream"]["refused"], "it is no node", 60)
                serves(taking_over)


def test_by_a_certificate(tmp_path: Path) -> None:
    """A machine that is set up anew with its certificate is the same node, and serves what it served."""
    machines = Machines()
    pem = tmp_path / "machines.pem"
    pem.write_bytes(machines.certificate.public_bytes(Encoding.PEM))
    files = machines.files(tmp_path / "machine", ec.generate_private_key(ec.SECP256R1()))
    with SpireServer(binary("spire-server"), tmp_path / "server", DOMAIN, x509pop_ca=pem) as server:
        config = nodes.by_certificate(server, tmp_path, files.certificate, files.key)
        config = f'trust_domain = "{DOMAIN}"\n{config}'
        with AgentProcess(config=config) as lost:
            node = nodes.node_id(lost)
            registered(server, node)
            serves(lost)
        with AgentProcess(config=config) as anew:  # its data folder is another
            assert node == nodes.node_id(anew)
            serves(anew)
