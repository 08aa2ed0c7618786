"""A node of a real spire-server that is away, or takes the agent for its node no more: what goes on, and what ends."""

import json
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from harness import nodes
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.federating import SpireServer
from harness.looking import until
from harness.raw import Wire, refusal
from harness.spirecli import binary
from harness.spirenode import Machines
from harness.taskagent import make_agent
from sojourn.authority.key_seal import is_sealed
from sojourn.authority.x509_profile import signer_id
from sojourn.spiffe.x509svid import parse_certificates
from sojourn.upstream.vouching import authority_id

pytestmark = [pytest.mark.full, pytest.mark.forked]

DOMAIN = "example.org"
ME = f"unix:uid:{os.geteuid()}"
SLOW_MACHINE_SECONDS = 20.0  # that a loaded machine may take for what takes one
TRIAGE = f"spiffe://{DOMAIN}/agent/triage"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SpireServer]:
    with SpireServer(binary("spire-server"), tmp_path / "server", DOMAIN, keys_stay=True) as running:
        yield running


@pytest.fixture
def agent(server: SpireServer, tmp_path: Path) -> Iterator[AgentProcess]:
    """A node on which this user is /agent/triage."""
    with make_agent(extra=nodes.upstream(server, tmp_path)) as running:
        nodes.sees(running, nodes.register(server, running, "/agent/triage", ME), there=True)
        with Wire(running.socket) as wire:
            assert [TRIAGE] == wire.x509_ids()
        yield running


def upstream_of(agent: AgentProcess) -> dict[str, Any]:
    found: dict[str, Any] = agent.json("status")["upstream"]
    return found


def serial(answer: Any) -> int:
    return parse_certificates(answer.svids[0].x509_svid)[0].serial_number


def stop(server: SpireServer) -> None:
    server.__exit__()


class TestAway:
    def test_what_it_has_is_served(self, agent: AgentProcess, server: SpireServer) -> None:
        """While no server answers, workloads have what they had, operators see since when, and it is back by itself."""
        with Wire(agent.socket) as wire:
            stream = wire.x509_stream()
            before = serial(next(stream))
            stop(server)
            until(lambda: upstream_of(agent)["away_seconds"] is not None, "the server is away", 60)
            assert before == serial(wire.x509())
            assert "AWAY for" in agent.run("status").stdout
            with server:
                until(lambda: upstream_of(agent)["away_seconds"] is None, "the server is back", 90)
                nodes.register(server, agent, "/second", ME)
                for answer in stream:
                    if len(answer.svids) == 2:
                        break

    def test_a_restart_meanwhile(self, agent: AgentProcess, server: SpireServer) -> None:
        """An agent that is restarted while no server answers serves the SVIDs that it had."""
        with Wire(agent.socket) as wire:
            before = serial(wire.x509())
        node = nodes.node_id(agent)
        stop(server)
        agent.stop(signal.SIGTERM)
        agent.start()
        with Wire(agent.socket) as wire:
            assert before == serial(wire.x509())
        assert node == nodes.node_id(agent)
        with server:
            until(lambda: upstream_of(agent)["away_seconds"] is None, "the server is back", 90)

    def test_a_kill_meanwhile(self, agent: AgentProcess, server: SpireServer) -> None:
        """A node that was killed while no server answers serves what it had kept."""
        stop(server)
        kept = agent.data_dir / "node"
        until(lambda: list(kept.glob("svids-*.sealed")) and (kept / "entries.sealed").exists(), "SVIDs are kept", 30)
        agent.stop(signal.SIGKILL)
        agent.start()
        with Wire(agent.socket) as wire:
            assert [TRIAGE] == wire.x509_ids()
        with server:
            pass

    def test_a_first_start_meanwhile(self, server: SpireServer, tmp_path: Path) -> None:
        """An agent that is started for the first time while no server answers opens its sockets, has callers come again,
        says why, and is a node as soon as it can be.
        """
        made = make_agent(extra=nodes.upstream(server, tmp_path))
        stop(server)
        with made as agent, Wire(agent.socket) as wire:
            name, said = refusal(wire.x509)
            assert ("UNAVAILABLE", True) == (name, "has not joined its SPIRE server yet" in said)
            status = agent.json("status")
            assert "unready" == status["state"]
            assert "keys" in [each["name"] for each in status["faults"]]
            with server:
                until(lambda: "/join_token/" in nodes.node_id(agent), "it has joined", 90)
                nodes.sees(agent, nodes.register(server, agent, "/agent/triage", ME), there=True)
                assert [TRIAGE] == wire.x509_ids()


class TestNoNodeAnyMore:
    def test_banned(self, agent: AgentProcess, server: SpireServer) -> None:
        """A banned node's streams end with a clear word, its tasks end, and nobody is given anything any more."""
        with Caller(agent.socket) as holder, Wire(agent.socket) as wire:
            begun = holder.ask("begin", type="triage-ticket")
            assert "id" in begun or "task" in begun, begun
            stream = wire.x509_stream()
            next(stream)
            node = nodes.node_id(agent)
            began = time.monotonic()
            server.run("agent", "ban", "-spiffeID", node)
            with pytest.raises(grpc.RpcError) as ended:
                for _ in stream:
                    pass
            assert time.monotonic() - began < 1 + SLOW_MACHINE_SECONDS  # of its poll
            assert grpc.StatusCode.PERMISSION_DENIED is ended.value.code()
            assert "this node is banned at its SPIRE server" in ended.value.details()
            until(lambda: [] == agent.json("task", "list")["tasks"], "its tasks have ended")
            name, said = refusal(wire.x509)
            assert ("PERMISSION_DENIED", True) == (name, "banned" in said)
        assert "banned" == upstream_of(agent)["refused"]
        assert agent.json("audit", "list", "--event", "node_banned")["records"]

    def test_a_tainted_authority(self, agent: AgentProcess, server: SpireServer) -> None:
        """What a tainted authority has signed is replaced on open streams by what the next one signs."""
        with Wire(agent.socket) as wire:
            stream = wire.x509_stream()
            before = signer_id(parse_certificates(next(stream).svids[0].x509_svid)[0])
            prepared = _id(server.run("localauthority", "x509", "prepare").stdout)
            until(lambda: prepared in _authorities(agent), "the node knows the next authority", 30)
            server.run("localauthority", "x509", "activate", "-authorityID", prepared)
            began = time.monotonic()
            server.run("localauthority", "x509", "taint", "-authorityID", before)
            for answer in stream:
                if prepared == signer_id(parse_certificates(answer.svids[0].x509_svid)[0]):
                    break
            assert time.monotonic() - began < 1 + SLOW_MACHINE_SECONDS  # of its poll


def _id(told: str) -> str:
    return next(line.split(":")[1].strip() for line in told.splitlines() if "Authority ID" in line)


def _authorities(agent: AgentProcess) -> list[str]:
    with Wire(agent.socket) as wire:
        return [authority_id(each) for each in parse_certificates(wire.x509().svids[0].bundle)]


class TestJoining:
    def test_join_then_run(self, server: SpireServer, tmp_path: Path) -> None:
        """`agent join` attests once, says how to register, and the agent that is started then is that node."""
        with_it = make_agent(extra=nodes.upstream(server, tmp_path))
        places = ["--config", str(with_it.config), "--data-dir", str(with_it.data_dir), "--output", "json"]
        joined = json.loads(with_it.run("agent", "join", *places).stdout)
        assert joined["node_id"].startswith(f"spiffe://{DOMAIN}/spire/agent/join_token/")
        assert f"spire-server entry create -parentID {joined['node_id']}" in joined["entry_create"]
        again = json.loads(with_it.run("agent", "join", *places).stdout)
        assert (joined["node_id"], True) == (again["node_id"], again["was_node"])
        with with_it as agent:
            assert joined["node_id"] == nodes.node_id(agent)
            refused = agent.run("agent", "join", *places, check=False)
            assert "another agent" in refused.stderr

    def test_a_used_token(self, server: SpireServer, tmp_path: Path) -> None:
        """A token that was used is told as what it is, and what to do; neither joining nor a start goes on by it."""
        first, second = make_agent(extra=nodes.upstream(server, tmp_path)), make_agent()
        second.config.write_text(first.config.read_text())
        places = ["--config", str(first.config)]
        first.run("agent", "join", *places, "--data-dir", str(first.data_dir))
        done = second.run("agent", "join", *places, "--data-dir", str(second.data_dir), check=False)
        assert 1 == done.returncode
        assert "join token does not exist or has already been used" in done.stderr
        assert "spire-server token generate" in done.stderr
        with pytest.raises(RuntimeError, match="has not become a node"):
            second.start()

    def test_sealed(self, server: SpireServer, tmp_path: Path) -> None:
        """Where keys are sealed, joining leaves none in clear, and joining again, a start and detaching go on from it."""
        seal = tmp_path / "seal-key"
        seal.write_bytes(os.urandom(32))
        seal.chmod(0o600)
        keys = f'[keys]\nmanager = "sealed"\nseal_key = "{seal}"\n'
        with_it = make_agent(extra=keys + nodes.upstream(server, tmp_path))
        places = ["--config", str(with_it.config), "--data-dir", str(with_it.data_dir), "--output", "json"]
        joined = json.loads(with_it.run("agent", "join", *places).stdout)
        assert is_sealed((with_it.data_dir / "node" / "seal.key").read_bytes())
        assert json.loads(with_it.run("agent", "join", *places).stdout)["was_node"]
        with with_it as agent:
            assert joined["node_id"] == nodes.node_id(agent)
            agent.stop()
            seal.unlink()
            text = agent.config.read_text()
            agent.config.write_text(text[: text.index("[upstream]")])
            agent.run("agent", "detach", *places, "--yes")
            assert not (agent.data_dir / "node").exists()

    def test_stopped_while_it_starts(self, server: SpireServer, tmp_path: Path) -> None:
        """An agent that is told to stop while it waits for its server at the start ends by itself, and starts again."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            made = make_agent(extra=nodes.upstream(server, tmp_path))
            text = made.config.read_text()
            own = f"127.0.0.1:{server.node_port}"
            made.config.write_text(text.replace(own, f"127.0.0.1:{silent.getsockname()[1]}"))
            made.process = made.spawn()
            silent.settimeout(60)
            with silent.accept()[0]:
                assert 0 == made.stop()
        made.config.write_text(text)
        with made as agent:
            assert nodes.node_id(agent).startswith(f"spiffe://{DOMAIN}/spire/agent/join_token/")

    def test_detach(self, agent: AgentProcess, server: SpireServer) -> None:
        """A detached agent is its own authority, with its own name and entries, after it has said what that means."""
        node = nodes.node_id(agent)
        agent.stop()
        places = ["--config", str(agent.config), "--data-dir", str(agent.data_dir)]
        assert "own authority" in agent.run("agent", "detach", *places, check=False).stderr
        assert "[upstream]" in agent.run("agent", "detach", *places, "--yes", check=False).stderr
        text = agent.config.read_text()
        agent.config.write_text(text[: text.index("[upstream]")])
        with pytest.raises(RuntimeError, match="sojourn agent detach"):
            agent.start()
        told = agent.run("agent", "detach", *places, "--yes").stdout
        assert f"spire-server agent evict -spiffeID {node}" in told
        agent.start()
        assert nodes.node_id(agent).startswith(f"spiffe://{DOMAIN}/spire/agent/sojourn/")
        assert [] == agent.json("entry", "list")["entries"]
        agent.register("/agent/triage", ME)
        with Wire(agent.socket) as wire:
            assert [TRIAGE] == wire.x509_ids()


class TestByCertificate:
    def test_evicted_and_nobody_notices(self, tmp_path: Path) -> None:
        """A node that attests by a certificate and is evicted is a node again: no stream ends, and nothing is lost."""
        machines = Machines()
        pem = tmp_path / "machines.pem"
        pem.write_bytes(machines.certificate.public_bytes(Encoding.PEM))
        files = machines.files(tmp_path / "machine", ec.generate_private_key(ec.SECP256R1()))
        server = SpireServer(binary("spire-server"), tmp_path / "server", DOMAIN, x509pop_ca=pem)
        with ExitStack() as stack:
            stack.enter_context(server)
            extra = nodes.by_certificate(server, tmp_path, files.certificate, files.key)
            agent = stack.enter_context(make_agent(extra=extra))
            node = nodes.node_id(agent)
            assert node.startswith(f"spiffe://{DOMAIN}/spire/agent/x509pop/")
            nodes.sees(agent, nodes.register(server, agent, "/agent/triage", ME), there=True)
            with Wire(agent.socket) as wire:
                stream = wire.x509_stream()
                before = serial(next(stream))
                server.run("agent", "evict", "-spiffeID", node)
                until(lambda: node in server.run("agent", "list").stdout, "it is a node again", 60)
                assert before == serial(wire.x509())
                nodes.register(server, agent, "/second", ME)
                for answer in stream:
                    if len(answer.svids) == 2:
                        break
            assert (node, "") == (nodes.node_id(agent), upstream_of(agent)["refused"])


class TestListening:
    def test_it_shows_the_servers_svid(self, server: SpireServer, tmp_path: Path) -> None:
        """Validators on other machines see the SVID that the server gave the node."""
        with make_agent(extra='[listen]\ntcp = "127.0.0.1:0"\n' + nodes.upstream(server, tmp_path)) as agent:
            host, _, port = agent.tcp.rpartition(":")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with socket.create_connection((host, int(port)), 10) as raw, context.wrap_socket(raw) as shown:
                der = shown.getpeercert(binary_form=True)
            assert der is not None
            names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
            assert [nodes.node_id(agent)] == names.value.get_values_for_type(x509.UniformResourceIdentifier)
