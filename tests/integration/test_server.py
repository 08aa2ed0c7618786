"""A server of ours with a real spire-agent and a node of ours below it, by SPIRE's commands and by ours."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.ca import FakeCa
from harness.agent import COMMAND, AgentProcess, clean_environment
from harness.looking import until
from harness.nodes import has_entry, node_config
from harness.nodewire import AGENT, BUNDLE, ENTRY, NodeWire, joined
from harness.servers import ServerProcess
from harness.spireagent import SpireAgent
from harness.spirecli import binary
from harness.spirenode import Machines, bundle_of, command
from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2
from sojourn._pb.spire.api.server.node.v1 import node_pb2 as pb

DOMAIN = "spire.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "server") as running:
        yield running


def fetched(agent: SpireAgent, folder: Path) -> x509.Certificate | None:
    """The SVID that a spire-agent gives this process; None: it gives none yet."""
    folder.mkdir(exist_ok=True)
    command = [binary("spire-agent"), "api", "fetch", "x509", "-socketPath", agent.socket, "-write", str(folder)]
    done = subprocess.run(command, capture_output=True, timeout=60)
    return x509.load_pem_x509_certificate((folder / "svid.0.pem").read_bytes()) if done.returncode == 0 else None


def ours(server: ServerProcess, folder: Path, name: str) -> AgentProcess:
    """A node of ours that joins by a token of this name."""
    folder.mkdir(exist_ok=True)
    agent = AgentProcess(config=node_config(server, folder), folder=folder)
    (folder / "token").write_text(server.token(name))
    return agent


@pytest.mark.full
class TestASpireAgent:
    def test_it_joins_and_serves(self, server: ServerProcess, tmp_path: Path) -> None:
        """A real spire-agent joins by a token, and a workload on it has its X.509-SVID, JWT-SVID and bundle."""
        with SpireAgent(binary("spire-agent"), server, tmp_path / "agent") as agent:
            node = server.events("node_joined")[-1]["spiffe_id"]
            entry = ["-parentID", node, "-spiffeID", f"spiffe://{DOMAIN}/web", "-selector", f"unix:uid:{os.geteuid()}"]
            server.run("entry", "create", *entry, "-x509SVIDTTL", "1200", "-dns", "web.example.org")
            leaf = until(lambda: fetched(agent, tmp_path / "svids"), "the workload has its SVID", 30)
            assert leaf is not None
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert [f"spiffe://{DOMAIN}/web"] == names.get_values_for_type(x509.UniformResourceIdentifier)
            assert ["web.example.org"] == names.get_values_for_type(x509.DNSName)
            assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds() <= 1_220
            socket = ["-socketPath", agent.socket, "-audience", "here"]
            told = subprocess.run(
                [binary("spire-agent"), "api", "fetch", "jwt", *socket, "-output", "json"],
                capture_output=True, text=True, timeout=60, check=True,
            )  # fmt: skip
            token = json.loads(told.stdout)[0]["svids"][0]["svid"]
            checked = ["api", "validate", "jwt", "-socketPath", agent.socket, "-audience", "here", "-svid", token]
            subprocess.run([binary("spire-agent"), *checked], capture_output=True, timeout=60, check=True)
            shown = server.json("agent", "show", node)
            assert ("join_token", False) == (shown["attestor"], shown["banned"])
            (issued,) = [each for each in server.events("x509_svid_issued") if each.get("node") == node]
            assert f"{leaf.serial_number:x}" == issued["serial"]

    def test_banned(self, server: ServerProcess, tmp_path: Path) -> None:
        """A spire-agent that is banned ends, as at SPIRE's own server."""
        with SpireAgent(binary("spire-agent"), server, tmp_path / "agent") as agent:
            node = server.events("node_joined")[-1]["spiffe_id"]
            server.ours("agent", "ban", node)
            until(lambda: agent.process.poll() is not None, "it ends", 60)
            assert "banned" in agent.log.read_text()

    def test_evicted(self, server: ServerProcess, tmp_path: Path) -> None:
        """One that is evicted, and has joined by a token, ends as well: it cannot attest anew."""
        with SpireAgent(binary("spire-agent"), server, tmp_path / "agent") as agent:
            node = server.events("node_joined")[-1]["spiffe_id"]
            server.run("agent", "evict", "-spiffeID", node)
            until(lambda: agent.process.poll() is not None, "it ends", 60)

    @pytest.mark.parametrize("count", [1, 500, 501, 2_000])
    def test_so_many_entries(self, server: ServerProcess, tmp_path: Path, count: int) -> None:
        """A spire-agent has all of its entries, be they sent whole or by their revisions."""
        with SpireAgent(binary("spire-agent"), server, tmp_path / "agent") as agent:
            node = server.events("node_joined")[-1]["spiffe_id"]
            made = [
                {
                    "parent_id": node,
                    "spiffe_id": f"spiffe://{DOMAIN}/{count}/{number}",
                    "selectors": [{"type": "unix", "value": f"user:nobody-{number}"}],
                }
                for number in range(count - 1)
            ]
            (tmp_path / "entries.json").write_text(json.dumps({"entries": made}))
            if made:
                server.run("entry", "create", "-data", str(tmp_path / "entries.json"))
            last = ["-parentID", node, "-spiffeID", f"spiffe://{DOMAIN}/{count}/last"]
            server.run("entry", "create", *last, "-selector", f"unix:uid:{os.geteuid()}")
            until(lambda: fetched(agent, tmp_path / "svids"), "the last one is there", 60)
            log = agent.log.read_text()
            assert count == log.count('msg="Entry created"')
            # Who asked before the entry was there has no identity, which is no fault.
            faults = [line for line in log.splitlines() if "level=error" in line and "=FetchX509SVID" not in line]
            assert [] == faults

    def test_its_svid_is_renewed(self, tmp_path: Path) -> None:
        """A spire-agent renews its own SVID by the one before, over a restart of the server as well."""
        with (
            ServerProcess(tmp_path / "server", node_svid_ttl="20s") as server,
            SpireAgent(binary("spire-agent"), server, tmp_path / "agent") as agent,
        ):
            until(lambda: len(server.events("node_svid_renewed")) >= 2, "it renews", 60)
            server.stop(signal.SIGKILL)
            server.start()
            until(lambda: len(server.events("node_svid_renewed")) >= 4, "it renews on", 60)
            assert agent.process.poll() is None
            shown = server.json("agent", "list")["nodes"]
            assert [server.events("node_joined")[0]["spiffe_id"]] == [each["spiffe_id"] for each in shown]

    def test_by_a_certificate(self, tmp_path: Path) -> None:
        """A spire-agent joins by a machine's certificate, and is the same node when it is started with nothing kept."""
        machines = Machines()
        (tmp_path / "ca.pem").write_bytes(machines.certificate.public_bytes(Encoding.PEM))
        (tmp_path / "ca.pem").chmod(0o600)
        files = machines.files(tmp_path, ec.generate_private_key(ec.SECP256R1()), "rack-7")
        with ServerProcess(tmp_path / "server", x509pop_ca=tmp_path / "ca.pem") as server:
            server.ours(
                "entry", "create", "--parent-id", f"spiffe://{DOMAIN}/spire/server", "--spiffe-id",
                f"spiffe://{DOMAIN}/racks", "--selector", "x509pop:subject:cn:rack-7",
            )  # fmt: skip
            server.register("/on-a-rack", parent=f"spiffe://{DOMAIN}/racks")
            for start in ("first", "second"):
                with SpireAgent(binary("spire-agent"), server, tmp_path / start, x509pop=files) as agent:
                    leaf = until(lambda: fetched(agent, tmp_path / "svids"), "the workload has its SVID", 30)
                    assert leaf is not None
            joined = server.events("node_joined")
            assert [None, True] == [each.get("again") for each in joined]
            assert 1 == len({each["spiffe_id"] for each in joined})

    def test_a_restart_of_the_server(self, own_server: ServerProcess, tmp_path: Path) -> None:
        """A server that is started again is found again, and has what is registered then."""
        with SpireAgent(binary("spire-agent"), own_server, tmp_path / "agent") as agent:
            node = agent.spiffe_id
            own_server.stop(signal.SIGKILL)
            own_server.start()
            entry = ["-parentID", node, "-spiffeID", f"spiffe://{DOMAIN}/web", "-selector", f"unix:uid:{os.geteuid()}"]
            own_server.run("entry", "create", *entry)
            until(lambda: fetched(agent, tmp_path / "svids"), "the workload has its SVID", 60)


@pytest.mark.forked
class TestANodeOfOurs:
    def test_it_joins_and_serves(self, server: ServerProcess, tmp_path: Path) -> None:
        """An agent of ours joins by a token, by a name that entries had before it came, and workloads have their SVIDs."""
        server.register("/by-name", node="web-7")
        with ours(server, tmp_path / "node", "web-7") as agent:
            entry = server.json("entry", "list")["entries"]
            (mine,) = [each for each in entry if each["spiffe_id"].endswith("/by-name")]
            has_entry(agent, mine["id"])
            found = until(lambda: agent.json("svid", "x509")["svids"], "it has its SVID", 30)
            assert [f"spiffe://{DOMAIN}/by-name"] == [each["spiffe_id"] for each in found]
            assert agent.json("svid", "jwt", "--audience", "here")
            assert "web-7" == server.json("agent", "show", "web-7")["name"]

    def test_a_token_that_was_used(self, server: ServerProcess, tmp_path: Path) -> None:
        """A second agent with the same token does not become a node."""
        with ours(server, tmp_path / "one", "once") as first:
            assert first.json("status")["node_id"].startswith(f"spiffe://{DOMAIN}/spire/agent/join_token/")
            second = ours(server, tmp_path / "two", "once")
            (tmp_path / "two" / "token").write_text((tmp_path / "one" / "token").read_text())
            with pytest.raises(RuntimeError, match="already been used"):
                second.start()

    def test_beside_another(self, own_server: ServerProcess, tmp_path: Path) -> None:
        """Two nodes have their own entries each, and neither the other's; what is for every node both have."""
        server = own_server
        with ours(server, tmp_path / "one", "pair-1") as one, ours(server, tmp_path / "two", "pair-2") as two:
            first, second = server.register("/pair/one", node="pair-1"), server.register("/pair/two", node="pair-2")
            has_entry(one, first)
            has_entry(two, second)
            words = ["--spiffe-id", f"spiffe://{DOMAIN}/pair/both", "--selector", "unix:uid:1", "--every-node"]
            both = server.json("entry", "create", *words)["id"]
            for agent in (one, two):
                has_entry(agent, both)
            for agent, theirs in ((one, second), (two, first)):
                assert theirs not in {each["id"] for each in agent.json("entry", "list")["entries"]}


def joining(server: ServerProcess, folder: Path, said: str, address: str = "") -> "subprocess.CompletedProcess[str]":
    """`sojourn agent join` where nothing is configured yet, with the text on its standard input."""
    words = ["agent", "join", "-", "--server", address or server.address, "--config", str(folder / "agent.toml")]
    return subprocess.run(
        [*COMMAND, *words, "--data-dir", str(folder / "data")],
        input=said, capture_output=True, text=True, timeout=60, env=clean_environment(),
    )  # fmt: skip


class TestOneText:
    @pytest.mark.forked
    def test_it_joins(self, server: ServerProcess, tmp_path: Path) -> None:
        """By the one text of `token generate` an agent that has nothing becomes a node, and runs by what that has left."""
        said = server.json("token", "generate", "--node", "by-text")["join"]
        done = joining(server, tmp_path, said)
        assert 0 == done.returncode, done.stderr
        assert {"agent.toml", "agent-bundle.pem", "agent-join-token", "data"} == {
            each.name for each in tmp_path.iterdir()
        }
        agent = AgentProcess(folder=tmp_path)
        agent.config = tmp_path / "agent.toml"
        with agent:
            assert server.json("agent", "show", "by-text")["spiffe_id"] == agent.json("status")["node_id"]

    @pytest.mark.forked
    def test_another_server(self, server: ServerProcess, own_server: ServerProcess, tmp_path: Path) -> None:
        """At the address of another server of the same trust domain nothing is said: it has another bundle."""
        made = server.json("token", "generate", "--node", "elsewhere")
        done = joining(own_server, tmp_path, made["join"])
        assert (1, True) == (done.returncode, "another bundle" in done.stderr)
        assert [] == list(tmp_path.iterdir()) or [own_server.folder] == list(tmp_path.iterdir())
        assert [] == own_server.events("node_not_joined")
        again = joining(server, tmp_path / "other", made["join"])  # nobody has used it up
        assert 1 == again.returncode  # there is no such folder
        (tmp_path / "other").mkdir()
        assert 0 == joining(server, tmp_path / "other", made["join"]).returncode

    @pytest.mark.forked
    def test_a_used_one(self, server: ServerProcess, tmp_path: Path) -> None:
        """A text whose token is used up leaves no configuration behind."""
        said = server.json("token", "generate", "--node", "used")["join"]
        for name, status in (("one", 0), ("two", 1)):
            (tmp_path / name).mkdir()
            assert status == joining(server, tmp_path / name, said).returncode
        assert not list((tmp_path / "two").glob("agent*"))

    @pytest.mark.forked
    def test_a_configuration_that_is_there(self, server: ServerProcess, tmp_path: Path) -> None:
        """A configuration is not written over, and the token is not used up."""
        said = server.json("token", "generate", "--node", "written")["join"]
        (tmp_path / "agent.toml").write_text("# mine\n")
        done = joining(server, tmp_path, said)
        assert (1, "# mine\n") == (done.returncode, (tmp_path / "agent.toml").read_text())
        (tmp_path / "agent.toml").unlink()
        assert 0 == joining(server, tmp_path, said).returncode

    @pytest.mark.parametrize("said", ["", "4711", "a:4711:c", "spire.example:4711:00", "Spire:4711:" + 64 * "0"])
    def test_what_is_none(self, server: ServerProcess, tmp_path: Path, said: str) -> None:
        """Another text is refused, and not repeated: it may be a token."""
        done = joining(server, tmp_path, said)
        assert (2, [], False) == (done.returncode, list(tmp_path.iterdir()), "4711" in done.stderr)

    def test_nobody_answers(self, server: ServerProcess, tmp_path: Path) -> None:
        """Where nobody answers it is told, and nothing is left."""
        said = server.json("token", "generate", "--node", "nobody")["join"]
        done = joining(server, tmp_path, said, "127.0.0.1:1")
        assert (1, True, []) == (done.returncode, "127.0.0.1:1" in done.stderr, list(tmp_path.iterdir()))


@pytest.mark.forked
class TestNodeApi:
    async def test_a_foreign_bundle(self, server: ServerProcess, own_server: ServerProcess) -> None:
        """A node has the bundle of a trust domain that is set at the server."""
        theirs = FakeCa.make("partner.example")
        file = server.folder / "partner.pem"
        file.write_bytes(theirs.root.public_bytes(Encoding.PEM))
        await command(server, "bundle", "set", "-id", "spiffe://partner.example", "-path", str(file))
        svid = await joined(server)
        async with NodeWire(server, bundle_of(server), svid) as wire:
            asked = bundle_pb2.GetFederatedBundleRequest(trust_domain="partner.example")
            told = await wire.call(BUNDLE + "GetFederatedBundle", asked)
            assert [theirs.root_der] == [each.asn1 for each in told.answer.x509_authorities]

    async def test_its_release(self, server: ServerProcess) -> None:
        """A node says of which release it is, and operators see it."""
        svid = await joined(server)
        async with NodeWire(server, bundle_of(server), svid) as wire:
            await wire.call(AGENT + "PostStatus", pb.PostStatusRequest(agent_version="9.9.9"))
            told = await wire.call(AGENT + "PostStatus", pb.PostStatusRequest(agent_version="9" * 256))
            assert "INVALID_ARGUMENT" == told.code
        assert "9.9.9" == server.json("agent", "show", str(svid.spiffe_id))["agent_version"]

    async def test_a_restored_server(self, own_server: ServerProcess, tmp_path: Path) -> None:
        """A server that was restored takes no SVID of before: nodes that can attest anew are told to."""
        svid = await joined(own_server)
        bundle, ask = bundle_of(own_server), pb.GetAuthorizedEntriesRequest()
        phrase = tmp_path / "phrase"
        phrase.write_text("correct horse battery staple\n")
        phrase.chmod(0o600)
        words = ["--config", str(own_server.config), "--passphrase-file", str(phrase)]
        own_server.ours("backup", "create", "--to", str(tmp_path / "backup"), *words)
        own_server.stop()
        own_server.ours("restore", str(tmp_path / "backup"), *words, "--accept-loss")
        own_server.start()
        async with NodeWire(own_server, bundle, svid) as wire:
            told = await wire.call(ENTRY + "GetAuthorizedEntries", ask)
            assert ("PERMISSION_DENIED", 3) == (told.code, told.reason)
        assert await joined(own_server)


class TestOperators:
    @pytest.mark.forked
    def test_the_status(self, server: ServerProcess, tmp_path: Path) -> None:
        """`sojourn server status` tells who it is, where nodes connect, and how many there are."""
        with ours(server, tmp_path / "node", "counted"):
            value = server.json("server", "status")
            assert (f"spiffe://{DOMAIN}/spire/server", "ready") == (value["server_id"], value["state"])
            assert server.address == next(each["address"] for each in value["listeners"] if each["name"] == "nodes")
            assert value["nodes"]["total"] >= 1
            assert "join_token" in server.ours("server", "status").stdout

    def test_an_entry_needs_a_parent(self, server: ServerProcess) -> None:
        """At a server an entry that names no parent is refused: it would be nobody's."""
        done = server.ours(
            "entry", "create", "--spiffe-id", f"spiffe://{DOMAIN}/x", "--selector", "unix:uid:1", check=False
        )
        assert 1 == done.returncode
        assert "invalid parent ID" in done.stderr

    def test_no_placeholders(self, server: ServerProcess) -> None:
        """An entry with a placeholder is refused, as a stolen node could have any value of it."""
        words = ["--spiffe-id", f"spiffe://{DOMAIN}/{{unix.user}}", "--selector", "unix:uid:1", "--node", "a"]
        done = server.ours("entry", "create", *words, check=False)
        assert 1 == done.returncode
        assert "placeholders" in done.stderr

    @pytest.mark.parametrize(
        "command",
        [
            ["explain", "--pid", "1"],
            ["task", "list"],
            ["svid", "revoke", "--serial", "1"],
            ["svid", "rotate", "--all"],
            ["policy", "reload"],
            ["fact", "list"],
            ["usage"],
            ["entry", "adopt"],
        ],
    )
    def test_what_is_an_agents(self, server: ServerProcess, command: list[str]) -> None:
        """What an agent alone can do is refused with its code, and the sentence says where it is done."""
        done = server.ours(*command, check=False)
        assert (1, True) == (done.returncode, "[not_of_server]" in done.stderr), done.stderr
        assert "this is a server" in done.stderr

    def test_the_doctor(self, server: ServerProcess) -> None:
        """The doctor finds the server's process, its socket and its listener for nodes, and nothing wrong with them."""
        done = server.ours("doctor", "--config", str(server.config), "--output", "json", check=False)
        found = {each["id"]: each for each in json.loads(done.stdout)["checks"]}
        assert ["ok"] * 3 == [found[name]["verdict"] for name in ("agent", "sockets", "listeners")]
        assert f"nodes {server.address}" in found["listeners"]["found"]
        assert "admin.sock for operators" in found["sockets"]["found"]

    def test_an_agents_task_types(self, server: ServerProcess) -> None:
        """Task types that lie where an agent of this machine has them are not the server's."""
        assert str(server.data_dir) in server.ours("status").stdout.partition("policy")[2].splitlines()[0]

    def test_no_workload_socket(self, server: ServerProcess) -> None:
        """A server has one socket: nobody gets an SVID from it as a process of its machine."""
        assert {"admin.sock"} == {each.name for each in Path(server.socket).parent.iterdir() if each.is_socket()}

    def test_applied_files(self, own_server: ServerProcess, tmp_path: Path) -> None:
        """A file of entries is applied whole, and with --prune what is not in it goes, of whichever node."""
        gone = own_server.register("/gone", parent=f"spiffe://{DOMAIN}/spire/agent/x509pop/abc")
        file = tmp_path / "entries.yaml"
        parent = f"spiffe://{DOMAIN}/spire/agent/sojourn/a"
        file.write_text(
            f"entries:\n- spiffe_id: spiffe://{DOMAIN}/kept\n  parent_id: {parent}\n  selectors: [unix:uid:1]\n"
        )
        own_server.ours("entry", "apply", "--file", str(file), "--prune")
        left = own_server.json("entry", "list")["entries"]
        assert [(f"spiffe://{DOMAIN}/kept", parent)] == [(each["spiffe_id"], each["parent_id"]) for each in left]
        assert gone not in {each["id"] for each in left}


@pytest.mark.forked
class TestSpiresCommands:
    def test_tokens(self, server: ServerProcess) -> None:
        """`spire-server token generate -spiffeID` makes the entry that gives the node this alias."""
        alias = f"spiffe://{DOMAIN}/rack-9"
        token = server.run("token", "generate", "-spiffeID", alias).stdout.split()[1]
        shown = server.run("entry", "show", "-spiffeID", alias).stdout
        assert f"spiffe://{DOMAIN}/spire/agent/join_token/{token}" in shown
        assert "spiffe_id:spiffe://" in shown

    def test_agents(self, server: ServerProcess, tmp_path: Path) -> None:
        """Nodes are listed, counted, shown and purged by SPIRE's command."""
        with ours(server, tmp_path / "node", "listed"):
            node = server.json("agent", "show", "listed")["spiffe_id"]
            assert node in server.run("agent", "list").stdout
            assert node in server.run("agent", "list", "-attestationType", "join_token").stdout
            assert node not in server.run("agent", "list", "-attestationType", "x509pop").stdout
            assert node not in server.run("agent", "list", "-banned", "true").stdout
            assert "attested agent" in server.run("agent", "count").stdout
            assert "join_token" in server.run("agent", "show", "-spiffeID", node).stdout
            server.run("agent", "purge", "-dryRun", "-expiredFor", "1h")

    def test_healthcheck_and_minting(self, server: ServerProcess) -> None:
        """The server is healthy, and mints what an operator asks for."""
        assert "healthy" in server.run("healthcheck").stdout
        assert "BEGIN CERTIFICATE" in server.run("x509", "mint", "-spiffeID", f"spiffe://{DOMAIN}/minted").stdout
        assert server.run("jwt", "mint", "-spiffeID", f"spiffe://{DOMAIN}/minted", "-audience", "a").stdout


class TestStarts:
    def test_an_agents_configuration(self, tmp_path: Path) -> None:
        """`sojourn agent run` refuses a server's configuration, and says what runs it."""
        agent = AgentProcess(config="[server]\n", folder=tmp_path)
        with pytest.raises(RuntimeError, match="sojourn server run"):
            agent.start()

    @pytest.mark.parametrize(
        ("more", "key"),
        [
            ('[upstream]\nkind = "spire"\n', "upstream"),
            ("[attestors.unix]\n", "attestors"),
            ('[[services]]\nresource = "https://a.example"\nworkloads = ["spiffe://spire.example/a"]\n', "services"),
            ("[identity]\nwit_svids = true\n", "identity.wit_svids"),
        ],
    )
    def test_keys_of_an_agent(self, tmp_path: Path, more: str, key: str) -> None:
        """A server's configuration has no keys of an agent: each is refused by its name."""
        with pytest.raises(RuntimeError, match=key):
            ServerProcess(tmp_path / "server", more=more).start()

    def test_an_agents_data(self, tmp_path: Path) -> None:
        """Neither runs in the other's data folder: what is kept there means something else to it."""
        (tmp_path / "agent").mkdir()
        with AgentProcess(config=f'trust_domain = "{DOMAIN}"\n', folder=tmp_path / "agent") as agent:
            kept = agent.data_dir
        server = ServerProcess(tmp_path / "server")
        server.data_dir = kept
        with pytest.raises(RuntimeError, match="is an agent's"):
            server.start()
        with ServerProcess(tmp_path / "other") as other:
            pass
        agent.data_dir = other.data_dir
        with pytest.raises(RuntimeError, match="is a server's"):
            agent.start()

    def test_two_of_one_folder(self, own_server: ServerProcess) -> None:
        """A second server in the same folder does not start."""
        second = ServerProcess(own_server.folder / "second")
        second.data_dir = own_server.data_dir
        with pytest.raises(RuntimeError, match="uses the data folder"):
            second.start()

    @pytest.mark.forked
    def test_everything_is_there_again(self, own_server: ServerProcess, tmp_path: Path) -> None:
        """A server that was killed has nodes, entries, bans and unused tokens as before."""
        with ours(own_server, tmp_path / "node", "kept"):
            entry = own_server.register("/kept", node="kept")
        unused = own_server.token("later")
        own_server.ours("agent", "ban", "kept")
        own_server.kill()
        own_server.start()
        assert own_server.json("agent", "show", "kept")["banned"]
        assert entry == own_server.json("entry", "list")["entries"][0]["id"]
        later = ours(own_server, tmp_path / "later", "later")
        (tmp_path / "later" / "token").write_text(unused)
        with later:
            assert "later" == own_server.json("agent", "show", "later")["name"]
