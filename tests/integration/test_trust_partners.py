"""Partners that follow the agent's bundle from its listener: a real SPIRE server, and another agent."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.federating import SpireServer, fetched, follow_at, friend, jwt_keys
from harness.looking import until
from harness.raw import Wire
from harness.spirecli import binary
from harness.taskagent import inner_failures
from harness.tlsplace import TlsPlace
from harness.trusting import BUNDLE, KEYS, first_bundle, kids, node_id, trust_agent, visitor

pytestmark = [pytest.mark.full, pytest.mark.timeout(240)]


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    with trust_agent(more="[authority]\nrs256 = true\n") as running:
        yield running
        assert [] == inner_failures(running)


def known(spire: SpireServer) -> set[str]:
    """The JWT keys of example.org that a SPIRE server has."""
    done = spire.run("bundle", "list", "-id", "spiffe://example.org", "-format", "spiffe")
    keys: list[dict[str, Any]] = json.loads(done.stdout)["keys"]
    return {each["kid"] for each in keys if each["use"] == "jwt-svid"}


def refreshed(spire: SpireServer) -> set[str]:
    spire.run("federation", "refresh", "-id", "example.org")
    return known(spire)


class TestSpire:
    def test_https_spiffe(self, agent: AgentProcess, tmp_path: Path) -> None:
        """A SPIRE server follows the agent by https_spiffe: new keys of either kind, and those that are gone."""
        first = first_bundle(agent, tmp_path)
        with SpireServer(binary("spire-server"), tmp_path / "spire") as spire:
            spire.run(
                "federation", "create", "-trustDomain", "example.org", "-bundleEndpointURL", f"https://{agent.trust}/bundle",
                "-bundleEndpointProfile", "https_spiffe", "-endpointSpiffeID", node_id(agent),
                "-trustDomainBundlePath", str(first), "-trustDomainBundleFormat", "spiffe",
            )  # fmt: skip
            until(lambda: refreshed(spire) == kids(agent), "the server has the keys", 60)
            for kind in ("jwt", "jwt-rs256"):
                before = kids(agent)
                made = agent.json("authority", "prepare", kind)["authority_id"]
                until(lambda made=made: made in refreshed(spire), "the server has the next one", 60)
                agent.run("authority", "activate", made)
                (old,) = {
                    each["authority_id"]
                    for each in agent.json("authority", "show")["keys"]
                    if (each["kind"], each["status"]) == (kind, "old")
                }
                assert old in before
                agent.run("authority", "taint", old)
                agent.run("authority", "revoke", old)
                until(lambda old=old: old not in refreshed(spire), "the server has forgotten the old one", 60)
            assert kids(agent) == known(spire)

    def test_https_web(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A SPIRE server follows the agent by https_web, by the authorities of its system."""
        place = TlsPlace(tmp_path / "tls")
        monkeypatch.setenv("SSL_CERT_FILE", str(place.ca))
        with (
            trust_agent(place) as agent,
            SpireServer(binary("spire-server"), tmp_path / "spire") as spire,
        ):
            url = f"https://localhost:{agent.trust.rpartition(':')[2]}/bundle"
            spire.run(
                "federation", "create", "-trustDomain", "example.org", "-bundleEndpointURL", url,
                "-bundleEndpointProfile", "https_web",
            )  # fmt: skip
            until(
                lambda: spire.run("federation", "refresh", "-id", "example.org", check=False).returncode == 0, "asked"
            )
            made = agent.json("authority", "prepare", "jwt")["authority_id"]
            until(lambda: made in refreshed(spire), "the server has the key", 60)


def test_another_agent(agent: AgentProcess, tmp_path: Path) -> None:
    """Another agent follows this one, and gives its workloads what is new here."""
    first = first_bundle(agent, tmp_path)
    with AgentProcess(config='trust_domain = "partner.example"\n') as partner:
        follow_at(partner, "example.org", f"https://{agent.trust}/bundle", node_id(agent), first)
        fetched(partner, "example.org")
        friend(partner, "example.org", of="partner.example")
        made = agent.json("authority", "prepare", "jwt-rs256")["authority_id"]
        partner.run("federation", "refresh", "example.org")
        with Wire(partner.socket) as wire:
            until(lambda: made in jwt_keys(wire, "example.org"), "the workload has the key")


def test_who_keeps_documents(agent: AgentProcess) -> None:
    """Who asks again with the tag that it was given is told that nothing has changed, until something has."""
    with visitor(agent) as client:
        for path in (KEYS, BUNDLE):
            tag = {"if-none-match": client.get(path).headers["etag"]}
            assert (304, b"") == ((told := client.get(path, headers=tag)).status_code, told.content)
            agent.json("authority", "prepare", "jwt")
            assert 200 == client.get(path, headers=tag).status_code
