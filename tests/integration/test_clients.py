"""Software that uses the SPIFFE libraries of Go, Rust, Java and Python works with the agent unchanged."""

import base64
from collections.abc import Iterator

import pytest
from fakes.ca import FakeCa
from harness.agent import AgentProcess
from harness.languages import Language, languages
from harness.nodeagent import AGENTS, NODE, admin_of, node_agent
from harness.raw import entry, module_agent
from sojourn._pb.spire.api.types import types_pb2 as types

pytestmark = [pytest.mark.root]
CLIENT, SERVER, SHORT, STRANGER, FEDERATED = 4801, 4802, 4803, 4804, 4805
ID = "spiffe://example.org"


@pytest.fixture(scope="module", params=AGENTS)
def agent(request: pytest.FixtureRequest) -> Iterator[AgentProcess]:
    """One of its own authority, and one that is a node of a SPIRE server."""
    running_one = node_agent if request.param == NODE else module_agent
    with running_one() as running, admin_of(running) as admin:
        other = FakeCa.make("other.example")
        root = types.X509Certificate(asn1=other.root_der)
        admin.know(types.Bundle(trust_domain="other.example", x509_authorities=[root]))
        admin.trust("empty.example")
        made = admin.create(
            entry("/client", f"unix:uid:{CLIENT}", hint="main"),
            entry("/server", f"unix:uid:{SERVER}"),
            entry("/short", f"unix:uid:{SHORT}", x509_svid_ttl=10),
            entry("/federated", f"unix:uid:{FEDERATED}", federates_with=["other.example", "empty.example"]),
        )
        assert {0} == {each.status.code for each in made}
        yield running


@pytest.fixture(scope="module", params=languages("go", "rust", "java", "python"))
def client(request: pytest.FixtureRequest, agent: AgentProcess) -> Language:
    return Language(request.param, agent)


def hint_of(client: Language) -> str | None:
    """The hint of the entry, which the library for Python does not hand out."""
    return None if client.name == "python" else "main"


def test_x509(client: Language) -> None:
    """The client accepts the X.509-SVID: chain of leaf and issuer, key, hint."""
    with client.run(CLIENT, "x509") as program:
        status, [svid] = program.finish()
    assert (0, f"{ID}/client", 2) == (status, svid["spiffe_id"], svid["chain_len"])
    assert hint_of(client) == svid["hint"]


def test_jwt(client: Language) -> None:
    """The client gets a JWT-SVID, which the agent and the bundle both find good."""
    with client.run(CLIENT, "jwt", "-audience", "a", "-spiffe-id", f"{ID}/client") as program:
        status, [jwt, by_agent, by_bundle] = program.finish()
    assert (0, f"{ID}/client", hint_of(client)) == (status, jwt["spiffe_id"], jwt["hint"])
    assert [("agent", f"{ID}/client"), ("bundle", f"{ID}/client")] == [
        (each["by"], each["spiffe_id"]) for each in (by_agent, by_bundle)
    ]


def test_bundles(client: Language, agent: AgentProcess) -> None:
    """The client reads the trust domain's bundles of X.509 and of JWT authorities, just those that the operator sees."""
    with client.run(CLIENT, "bundles") as program:
        status, [bundles] = program.finish()
    keys = agent.json("bundle", "show")["bundle"]["keys"]
    certificates = [base64.b64decode(key["x5c"][0]).hex() for key in keys if key["use"] == "x509-svid"]
    names = [key["kid"] for key in keys if key["use"] == "jwt-svid"]
    assert status == 0
    assert {"example.org": certificates} == bundles["x509"]
    assert {"example.org": sorted(names)} == bundles["jwt"]


@pytest.mark.forked
def test_foreign_bundles(client: Language) -> None:
    """It reads the bundle of a foreign trust domain beside ours, also where another foreign one has no authority yet."""
    with client.run(FEDERATED, "bundles") as program:
        status, [bundles] = program.finish()
    assert (0, {"example.org", "other.example"}) == (status, set(bundles["x509"]))
    assert {"example.org", "other.example", "empty.example"} == set(bundles["jwt"])
    with client.run(FEDERATED, "watch") as program:
        status, [update] = program.finish()
    assert (0, [f"{ID}/federated"], 2) == (status, update["spiffe_ids"], update["bundles"])


@pytest.mark.forked
def test_a_stranger(client: Language) -> None:
    """Without an entry it hears PERMISSION_DENIED."""
    with client.run(STRANGER, "jwt", "-audience", "a", "-timeout", "3s") as program:
        status, lines = program.finish()
    assert (1, "PERMISSION_DENIED") == (status, lines[-1]["code"])


@pytest.mark.forked
def test_a_watch_over_a_rotation(client: Language) -> None:
    """A watch stays open over a rotation and hears of the new certificate, and of no error."""
    with client.run(SHORT, "watch", "-updates", "2", "-timeout", "20s") as program:
        status, lines = program.finish()
    assert (0, ["update", "update"]) == (status, [line["event"] for line in lines])
    assert 2 == len({line["serials"][0] for line in lines})
    assert {(f"{ID}/short",)} == {tuple(line["spiffe_ids"]) for line in lines}


@pytest.mark.forked
def test_mutual_tls(client: Language) -> None:
    """Two processes know each other by their SPIFFE IDs."""
    with client.run(SERVER, "server", "-peer", f"{ID}/client") as server:
        address = server.hear()["addr"]
        with client.run(CLIENT, "dial", "-addr", address, "-peer", f"{ID}/server") as dialler:
            status, [dialled] = dialler.finish()
        peer = server.hear()
    assert (0, "dialled") == (status, dialled["event"])
    assert ("peer", f"{ID}/client") == (peer["event"], peer["spiffe_id"])


@pytest.mark.forked
def test_mutual_tls_with_another_server(client: Language) -> None:
    """A client refuses a server that has another SPIFFE ID than it expects."""
    with client.run(SERVER, "server", "-peer", f"{ID}/client") as server:
        address = server.hear()["addr"]
        with client.run(CLIENT, "dial", "-addr", address, "-peer", f"{ID}/other") as dialler:
            status, [error] = dialler.finish()
    assert (1, "error", True) == (status, error["event"], f"{ID}/server" in error["message"])


@pytest.mark.forked
def test_mutual_tls_with_another_client(client: Language) -> None:
    """A server refuses a client that has another SPIFFE ID than it expects."""
    with client.run(SERVER, "server", "-peer", f"{ID}/other") as server:
        address = server.hear()["addr"]
        with client.run(CLIENT, "dial", "-addr", address, "-peer", f"{ID}/server") as dialler:
            status, _ = dialler.finish()
        refused = server.hear()
    assert (1, "error", True) == (status, refused["event"], f"{ID}/client" in refused["message"])


@pytest.mark.forked
def test_mutual_tls_over_a_rotation(client: Language) -> None:
    """Connections that are made again and again over a rotation at both ends all succeed."""
    with client.run(SHORT, "server", "-peer", f"{ID}/short") as server:
        address = server.hear()["addr"]
        dial = ("dial", "-addr", address, "-peer", f"{ID}/short", "-times", "70", "-every", "100ms")
        with client.run(SHORT, *dial) as dialler:
            status, lines = dialler.finish()
    assert (0, list(range(1, 71))) == (status, [line.get("n", line) for line in lines])
    assert 2 <= len({line["peer_serial"] for line in lines})
