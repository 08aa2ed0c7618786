"""A real SPIRE server signs a real agent's intermediate: by a spire-agent's Workload API, and by a node of its own."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from harness import pagelines
from harness.agent import AgentProcess
from harness.federating import SpireServer, own_svid
from harness.looking import until
from harness.mesh import mesh
from harness.raw import Admin, Wire
from harness.spireagent import SpireAgent
from harness.spirecli import binary
from harness.spirenode import Machines, bundle_of
from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.x509svid import parse_certificates, verify_chain

pytestmark = pytest.mark.full
DOMAIN = "example.org"
ME = f"unix:uid:{os.getuid()}"
MARKED = f"spiffe://{DOMAIN}/sojourn/one"
SHORT = '[authority]\nissuer_ttl = "5m"\n[identity]\nx509_svid_ttl = "30s"\n'


@pytest.fixture(scope="module")
def machines() -> Machines:
    return Machines()


@pytest.fixture
def server(tmp_path: Path, machines: Machines) -> Iterator[SpireServer]:
    pem = tmp_path / "machines.pem"
    pem.write_bytes(machines.certificate.public_bytes(Encoding.PEM))
    with SpireServer(binary("spire-server"), tmp_path / "server", DOMAIN, x509pop_ca=pem, keys_stay=True) as running:
        yield running


def table(server: SpireServer, *lines: str) -> str:
    told = [
        *("[authority.upstream]", 'kind = "spire"', f'servers = ["127.0.0.1:{server.node_port}"]'),
        *('lead = "3s"', 'look_every = "1s"', *lines),
    ]
    return SHORT + "\n".join(told) + "\n"


def mark(server: SpireServer, parent: str) -> None:
    """Register the agent as one that may sign below the server, as docs/operate/upstream-authority.md has it typed."""
    typed = pagelines.sections("operate/upstream-authority.md")["A SPIRE server"].replace("unix:uid:0", ME)
    environment = {"SPIRE": server.socket, "SPIRE_AGENT_ID": parent}
    path = f"{Path(binary('spire-server')).parent}:{os.environ['PATH']}"
    pagelines.run(typed, Path(server.socket).parent, {**environment, "PATH": path})


def shown(agent: AgentProcess) -> dict:
    return agent.json("authority", "show")


def roots(agent: AgentProcess) -> set[str]:
    return {each["authority_id"] for each in shown(agent)["roots"]}


def signs_under(agent: AgentProcess) -> str:
    return next(each["authority_id"] for each in shown(agent)["chain"] if each["role"] == "root")


def fault(agent: AgentProcess) -> str:
    return str(shown(agent)["upstream"]["fault"])


@contextmanager
def by_socket(server: SpireServer, folder: Path, *lines: str) -> Iterator[AgentProcess]:
    with SpireAgent(binary("spire-agent"), server, folder / "spire-agent") as above:
        mark(server, above.spiffe_id)
        with AgentProcess(config=table(server, f'socket = "{above.socket}"', *lines)) as agent:
            with Admin(agent.admin_socket) as admin:
                admin.register("/me", ME)
            until(lambda: agent.run("svid", "x509", check=False).returncode == 0, "it signs", seconds=90)
            yield agent


def joining(server: SpireServer, folder: Path, attestor: str, *lines: str) -> str:
    bundle = folder / "bundle.json"
    bundle.write_text(server.bundle())
    return table(server, f'attestor = "{attestor}"', f'bundle = "{bundle}"', *lines)


@contextmanager
def by_node(server: SpireServer, machines: Machines, folder: Path) -> Iterator[AgentProcess]:
    """An agent that is a node itself, by x509pop, with this user registered."""
    files = machines.files(folder, ec.generate_private_key(ec.SECP256R1()))
    lines = (f'certificate = "{files.certificate}"', f'key = "{files.key}"')
    with AgentProcess(config=joining(server, folder, "x509pop", *lines)) as agent:
        with Admin(agent.admin_socket) as admin:
            admin.register("/me", ME)
        said = until(lambda: fault(agent), "there is no entry yet", seconds=60)
        assert "spire-server entry create -downstream -parentID" in said
        mark(server, said.rpartition(" ")[2])
        until(lambda: "" == fault(agent) and shown(agent)["chain"], "it signs", seconds=90)
        yield agent


class TestBySocket:
    def test_signs(self, server: SpireServer, tmp_path: Path) -> None:
        """By the Workload API of a spire-agent the server signs the intermediate: its own workloads verify the agent's
        SVIDs, and the agent's verify theirs, by the one bundle of the trust domain.
        """
        with by_socket(server, tmp_path) as agent:
            value = shown(agent)
            assert ["intermediate", "root"] == [each["role"] for each in value["chain"]]
            assert ("spire", "") == (value["upstream"]["kind"], value["upstream"]["fault"])
            assert {"servers", "socket"} == set(value["upstream"]["place"])
            svid = own_svid(agent, tmp_path / "svid", f"spiffe://{DOMAIN}/me")
            authorities = bundle_of(server).x509_authorities
            assert svid.spiffe_id == verify_chain(svid.chain, authorities, TrustDomain(DOMAIN), datetime.now(UTC))
            with Wire(agent.socket) as wire:
                assert set(authorities) == set(parse_certificates(wire.x509().svids[0].bundle))

    def test_of_several(self, server: SpireServer, tmp_path: Path) -> None:
        """Which of several identities the server is asked by is the operator's to say: until then nothing is signed."""
        with SpireAgent(binary("spire-agent"), server, tmp_path / "spire-agent") as above:
            other = f"spiffe://{DOMAIN}/other"
            mark(server, above.spiffe_id)
            server.run("entry", "create", "-parentID", above.spiffe_id, "-spiffeID", other, "-selector", ME)
            config = table(server, f'socket = "{above.socket}"')
            with AgentProcess(config=config) as agent:
                until(lambda: "choose one by spiffe_id" in fault(agent), "it is told", seconds=60)
                agent.stop()
                agent.config.write_text(config + f'spiffe_id = "{other}"\n')
                agent.start()
                until(lambda: "has to be marked: spire-server entry create -downstream" in fault(agent), "that one", 60)
                agent.stop()
                agent.config.write_text(config + f'spiffe_id = "{MARKED}"\n')
                agent.start()
                until(lambda: "" == fault(agent) and shown(agent)["chain"], "by the one that is marked", 90)


class TestByANode:
    def test_with_a_certificate(self, server: SpireServer, machines: Machines, tmp_path: Path) -> None:
        """Without a spire-agent the agent is a node itself, by x509pop, and by the entry that is there for that node."""
        with by_node(server, machines, tmp_path) as agent:
            assert agent.run("svid", "x509", check=False).returncode == 0

    def test_rotated_tainted_and_revoked(self, server: SpireServer, machines: Machines, tmp_path: Path) -> None:
        """The server's root is followed by another under load, tainted and revoked at the server, and no client notices:
        the new one is in the bundle before anything is below it, what the tainted one signed is replaced, and it goes.
        """
        with by_node(server, machines, tmp_path) as agent, mesh(agent.socket) as workloads:
            until(lambda: workloads.ready and workloads.fetched > 3, "workloads are there")
            [old] = roots(agent)
            prepared = server.run("localauthority", "x509", "prepare", "-output", "json").stdout
            new = json.loads(prepared)["prepared_authority"]["authority_id"]
            until(lambda: {old, new} == roots(agent), "the next root is in the bundle", seconds=60)
            server.run("localauthority", "x509", "activate", "-authorityID", new)
            assert old == signs_under(agent)
            server.run("localauthority", "x509", "taint", "-authorityID", old)
            until(lambda: new == signs_under(agent), "what is tainted is left", seconds=90)
            until(lambda: new == workloads.roots_seen[-1], "SVIDs are replaced", seconds=30)
            server.run("localauthority", "x509", "revoke", "-authorityID", old)
            until(lambda: {new} == roots(agent), "it leaves the bundle", seconds=60)
            until(lambda: frozenset({new}) == workloads.bundles[-1], "and that of workloads", seconds=30)
        assert [old, new] == workloads.roots_seen

    def test_with_a_token(self, server: SpireServer, tmp_path: Path) -> None:
        """With a join token, which is good once, the agent is the same node over restarts, also where it was killed."""
        token = tmp_path / "token"
        token.write_text(server.run("token", "generate").stdout.split()[1])
        token.chmod(0o600)
        config = joining(server, tmp_path, "join_token", f'token_file = "{token}"')
        with AgentProcess(config=config) as agent, ExitStack() as stack:
            said = until(lambda: fault(agent), "there is no entry yet", seconds=60)
            node = said.rpartition(" ")[2]
            mark(server, node)
            until(lambda: "" == fault(agent) and shown(agent)["chain"], "it signs", seconds=90)
            admin = stack.enter_context(Admin(agent.admin_socket))
            admin.register("/me", ME)
            agent.kill()
            agent.start()
            until(lambda: "" == fault(agent), "it is the same node", seconds=60)
            assert node == shown(agent)["upstream"]["place"]["node"]
            assert agent.run("svid", "x509", check=False).returncode == 0


def test_server_is_away(server: SpireServer, tmp_path: Path) -> None:
    """While the server is away it is told, and workloads go on; with the server back, so does the agent by itself."""
    with by_socket(server, tmp_path) as agent, mesh(agent.socket, 2) as workloads:
        until(lambda: workloads.ready and workloads.fetched > 3, "workloads are there")
        server.__exit__()
        said = until(lambda: fault(agent), "it is told", seconds=60)
        # By the server, or by the spire-agent, once the SVID that this has of it has ended.
        assert "SPIRE server" in said or "no identity issued" in said
        before = workloads.fetched
        until(lambda: workloads.fetched > before + 20, "they go on")
        server.__enter__()
        until(lambda: "" == fault(agent), "it is back", seconds=120)


def test_a_chain(server: SpireServer, tmp_path: Path) -> None:
    """The intermediate is the server's child: CA, of the trust domain, for the agent's key alone."""
    with by_socket(server, tmp_path) as agent, Wire(agent.socket) as wire:
        leaf, intermediate = parse_certificates(wire.x509().svids[0].x509_svid)
        assert intermediate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert leaf.issuer == intermediate.subject
