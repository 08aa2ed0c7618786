"""SPIRE's own command line, unchanged, against our sockets."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
from harness.agent import AgentProcess
from harness.bundleserver import BundleServer, Partner
from harness.spirecli import binary
from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.x509svid import verify_chain

pytestmark = pytest.mark.full

NODE = re.compile(r"spiffe://example\.org/spire/agent/sojourn/[A-Za-z0-9._-]+")


@pytest.fixture(scope="module")
def shared() -> Iterator[AgentProcess]:
    with AgentProcess() as running:
        yield running


def server(agent: AgentProcess, *arguments: str, status: int = 0) -> str:
    """Run spire-server against the admin socket and return all that it printed."""
    words = list(takewhile(lambda word: not word.startswith("-"), arguments))
    flags = arguments[len(words) :]
    done = subprocess.run(
        [binary("spire-server"), *words, "-socketPath", agent.admin_socket, *flags],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert status == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


def workload(agent: AgentProcess, *arguments: str, status: int = 0) -> str:
    """Run spire-agent against the public socket and return all that it printed."""
    words = list(takewhile(lambda word: not word.startswith("-"), arguments))
    flags = arguments[len(words) :]
    done = subprocess.run(
        [binary("spire-agent"), *words, "-socketPath", agent.socket, *flags], capture_output=True, text=True, timeout=30
    )
    assert status == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


def node_id(agent: AgentProcess) -> str:
    found = NODE.search(server(agent, "agent", "list"))
    assert found is not None
    return found[0]


def create(agent: AgentProcess, path: str, *flags: str) -> str:
    said = server(
        agent, "entry", "create", "-spiffeID", f"spiffe://example.org{path}", "-parentID", node_id(agent), *flags
    )
    found = re.search(r"Entry ID +: (\S+)", said)
    assert found is not None
    return found[1]


def test_health(shared: AgentProcess) -> None:
    """Both health checks say that the agent is well."""
    assert "Server is healthy." in server(shared, "healthcheck")
    assert "Agent is healthy." in workload(shared, "healthcheck")


def test_an_entry_from_birth_to_death(shared: AgentProcess) -> None:
    """Entries are created, shown, counted, updated and deleted; a twin is refused with SPIRE's words."""
    made = create(shared, "/made", "-selector", "unix:uid:54321", "-x509SVIDTTL", "60", "-hint", "one")
    shown = server(shared, "entry", "show", "-entryID", made)
    assert "X509-SVID TTL    : 60" in shown
    assert "Hint             : one" in shown
    assert re.search(r"[1-9][0-9]* registration entr", server(shared, "entry", "count"))
    twin = server(
        shared, "entry", "create", "-spiffeID", "spiffe://example.org/made", "-parentID", node_id(shared),
        "-selector", "unix:uid:54321", status=1,
    )  # fmt: skip
    assert '(code: AlreadyExists, msg: "similar entry already exists")' in twin
    updated = server(
        shared, "entry", "update", "-entryID", made, "-spiffeID", "spiffe://example.org/made", "-parentID",
        node_id(shared), "-selector", "unix:uid:54322",
    )  # fmt: skip
    assert "unix:uid:54322" in updated
    assert f"Deleted entry with ID: {made}" in server(shared, "entry", "delete", "-entryID", made)


def test_downstream_entries(shared: AgentProcess) -> None:
    """Entries for downstream servers are shown and counted among all, and alone with `-downstream`."""
    before = int(re.findall(r"([0-9]+) registration entr", server(shared, "entry", "count"))[0])
    create(shared, "/down", "-selector", "unix:uid:54341", "-downstream")
    assert "spiffe://example.org/down" in server(shared, "entry", "show")
    assert f"{before + 1} registration entr" in server(shared, "entry", "count")
    alone = server(shared, "entry", "show", "-downstream")
    assert ["spiffe://example.org/down"] == re.findall(r"SPIFFE ID +: (\S+)", alone)


def test_an_update_leaves_the_priority(shared: AgentProcess) -> None:
    """SPIRE's tools know no priority: their update of an entry leaves it, and they show the entry as ever."""
    made = shared.register("/first", "unix:uid:54331", priority="7")
    server(
        shared, "entry", "update", "-entryID", made["id"], "-spiffeID", "spiffe://example.org/first", "-parentID",
        node_id(shared), "-selector", "unix:uid:54332",
    )  # fmt: skip
    [shown] = json.loads(server(shared, "entry", "show", "-entryID", made["id"], "-output", "json"))["entries"]
    assert [{"type": "unix", "value": "uid:54332"}] == shown["selectors"]
    assert 7 == shared.json("entry", "show", made["id"])["priority"]


def test_entries_from_a_file(shared: AgentProcess, tmp_path: Path) -> None:
    """`entry create -data` registers all entries of a file."""
    entries = [
        {
            "selectors": [{"type": "unix", "value": f"uid:{uid}"}],
            "spiffe_id": f"spiffe://example.org/from-file/{uid}",
            "parent_id": node_id(shared),
            "x509_svid_ttl": 120,
        }
        for uid in (54401, 54402)
    ]
    path = tmp_path / "entries.json"
    path.write_text(json.dumps({"entries": entries}))
    said = server(shared, "entry", "create", "-data", str(path))
    assert {"54401", "54402"} == set(re.findall(r"SPIFFE ID +: spiffe://example\.org/from-file/([0-9]+)", said))


def test_another_nodes_entry(shared: AgentProcess) -> None:
    """An entry whose parent is another node is kept and shown, and not served."""
    server(
        shared, "entry", "create", "-spiffeID", "spiffe://example.org/elsewhere", "-parentID",
        "spiffe://example.org/spire/agent/other/node", "-selector", f"unix:uid:{os.getuid()}",
    )  # fmt: skip
    assert "spiffe://example.org/elsewhere" in server(shared, "entry", "show")
    assert "spiffe://example.org/elsewhere" not in shared.run("svid", "x509", check=False).stdout


def test_the_node(shared: AgentProcess) -> None:
    """`agent list`, `count` and `show` know exactly this node; what has no meaning here says what to do instead."""
    node = node_id(shared)
    assert "Found 1 attested agent" in server(shared, "agent", "list")
    assert "1 attested agent" in server(shared, "agent", "count")
    assert node in server(shared, "agent", "show", "-spiffeID", node)
    assert "sojourn agent run" in server(shared, "token", "generate", status=1)
    assert "delete entries" in server(shared, "agent", "ban", "-spiffeID", node, status=1)


def test_foreign_bundles(shared: AgentProcess, tmp_path: Path) -> None:
    """A foreign bundle is set, listed and counted, reaches those who federate with it, and goes as it is told."""
    own = server(shared, "bundle", "show", "-format", "spiffe")
    path = tmp_path / "bundle.json"
    path.write_text(own)
    refused = server(
        shared, "entry", "create", "-spiffeID", "spiffe://example.org/friend", "-parentID", node_id(shared),
        "-selector", f"unix:uid:{os.getuid()}", "-federatesWith", "spiffe://other.org", status=1,
    )  # fmt: skip
    assert "unable to find federated bundle" in refused
    assert "bundle set." in server(
        shared, "bundle", "set", "-id", "spiffe://other.org", "-path", str(path), "-format", "spiffe"
    )
    assert "other.org" in server(shared, "bundle", "list")
    assert "2 bundles" in server(shared, "bundle", "count")
    create(shared, "/friend", "-selector", f"unix:uid:{os.getuid()}", "-federatesWith", "spiffe://other.org")
    fetched = workload(shared, "api", "fetch", "x509")
    assert "[spiffe://other.org]" in fetched
    assert "federated with 1 registration entries" in server(
        shared, "bundle", "delete", "-id", "spiffe://other.org", status=1
    )
    assert "bundle deleted." in server(shared, "bundle", "delete", "-id", "spiffe://other.org", "-mode", "dissociate")
    assert "[spiffe://other.org]" not in workload(shared, "api", "fetch", "x509")


def test_minting(shared: AgentProcess, tmp_path: Path) -> None:
    """`x509 mint` and `jwt mint` give what our bundle vouches for, with the whole life that was asked for."""
    from cryptography import x509

    said = server(
        shared, "x509", "mint", "-spiffeID", "spiffe://example.org/minted", "-ttl", "5m", "-write", str(tmp_path)
    )
    assert "capped" not in said
    chain = x509.load_pem_x509_certificates((tmp_path / "svid.pem").read_bytes())
    roots = x509.load_pem_x509_certificates((tmp_path / "bundle.pem").read_bytes())
    now = chain[0].not_valid_before_utc
    found = verify_chain(chain, roots, TrustDomain("example.org"), now)
    assert "spiffe://example.org/minted" == str(found)
    token = server(shared, "jwt", "mint", "-spiffeID", "spiffe://example.org/minted", "-audience", "there").strip()
    assert "SVID is valid." in workload(
        shared, "api", "validate", "jwt", "-audience", "there", "-svid", token.splitlines()[-1]
    )


def test_fetching(shared: AgentProcess) -> None:
    """`spire-agent api fetch x509` and `jwt` give a registered caller its SVIDs."""
    create(shared, "/caller", "-selector", f"unix:uid:{os.getuid()}")
    assert "spiffe://example.org/caller" in workload(shared, "api", "fetch", "x509")
    assert "token(spiffe://example.org/caller)" in workload(shared, "api", "fetch", "jwt", "-audience", "there")


def test_federation(shared: AgentProcess, tmp_path: Path) -> None:
    """Federation relationships are created, shown, listed, updated, refreshed and deleted; a refresh that fails says why."""
    partner = Partner("third.org", sequence=5)
    first = tmp_path / "bundle.json"
    first.write_bytes(partner.document())
    with BundleServer(partner.svid(), partner.document()) as there:
        flags = ("-trustDomain", "third.org", "-bundleEndpointURL", there.url, "-bundleEndpointProfile")
        assert "https_web" in server(shared, "federation", "create", *flags, "https_web")
        assert "third.org" in server(shared, "federation", "list")
        assert "certificate is refused" in server(shared, "federation", "refresh", "-id", "third.org", status=1)
        spiffe = (*flags, "https_spiffe", "-endpointSpiffeID", partner.endpoint_id)
        assert partner.endpoint_id in server(shared, "federation", "update", *spiffe)
        assert "no bundle of" in server(shared, "federation", "refresh", "-id", "third.org", status=1)
        server(
            shared, "federation", "update", *spiffe, "-trustDomainBundlePath", str(first),
            "-trustDomainBundleFormat", "spiffe",
        )  # fmt: skip
        partner.sequence = 6
        there.body = partner.document()
        assert "Bundle refreshed" in server(shared, "federation", "refresh", "-id", "third.org")
        assert (
            6
            == json.loads(server(shared, "bundle", "list", "-id", "third.org", "-format", "spiffe"))["spiffe_sequence"]
        )
        assert partner.endpoint_id in server(shared, "federation", "show", "-trustDomain", "third.org")
    assert "deleted" in server(shared, "federation", "delete", "-id", "third.org")
    assert "no federation relationship" in server(shared, "federation", "refresh", "-id", "third.org", status=1)
    server(shared, "bundle", "delete", "-id", "third.org")


def test_logging(shared: AgentProcess) -> None:
    """The log level is shown, changed and set back."""
    assert "Logger Level : info" in server(shared, "logger", "get")
    assert "Logger Level : debug" in server(shared, "logger", "set", "-level", "debug")
    assert "Logger Level : info" in server(shared, "logger", "reset")


@pytest.mark.parametrize("kind", ["x509", "jwt"])
def test_local_authorities(kind: str) -> None:
    """`localauthority show`, `prepare`, `activate`, `taint` and `revoke` take a key through its whole life."""

    def authority(agent: AgentProcess, verb: str, *flags: str, status: int = 0) -> str:
        return server(agent, "localauthority", kind, verb, *flags, status=status)

    def ids(said: str) -> list[str]:
        return re.findall(r"Authority ID: (\S+)", said)

    with AgentProcess() as agent:
        [first] = ids(authority(agent, "show"))
        [second] = ids(authority(agent, "prepare"))
        assert [first, second] == ids(authority(agent, "show"))
        assert "current local authority" in authority(agent, "taint", "-authorityID", first, status=1)
        assert [second] == ids(authority(agent, "activate", "-authorityID", second))
        assert [second, first] == ids(authority(agent, "show"))
        assert "only Prepared authorities" in authority(agent, "activate", "-authorityID", first, status=1)
        assert [first] == ids(authority(agent, "taint", "-authorityID", first))
        assert "tainted" in server(agent, "bundle", "show", "-output", "json")
        assert [first] == ids(authority(agent, "revoke", "-authorityID", first))
        assert [second] == ids(authority(agent, "show"))
        assert "unexpected authority ID" in authority(agent, "revoke", "-authorityID", first, status=1)


def test_upstream_authorities(shared: AgentProcess) -> None:
    """What needs an upstream authority says that there is none."""
    said = server(shared, "upstreamauthority", "taint", "-subjectKeyID", "ab" * 20, status=1)
    assert "upstream authority is not configured" in said


def test_watching(shared: AgentProcess) -> None:
    """`spire-agent api watch` shows each update of a caller's SVIDs."""
    create(shared, "/watched", "-selector", f"unix:uid:{os.getuid()}")
    command = [binary("spire-agent"), "api", "watch", "-socketPath", shared.socket]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        lines = iter(watching.stdout.readline, "")
        try:
            assert next(line for line in lines if "spiffe://example.org/watched" in line)
            create(shared, "/watched/too", "-selector", f"unix:uid:{os.getuid()}")
            assert next(line for line in lines if "spiffe://example.org/watched/too" in line)
        finally:
            watching.terminate()
