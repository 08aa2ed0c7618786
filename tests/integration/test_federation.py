"""Bundles of partners are followed: a real agent, real endpoints, workloads with open streams."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography import x509
from fakes.jws import joined
from harness.agent import SAMPLES, AgentProcess
from harness.bundleserver import BundleServer, Partner
from harness.federating import SpireServer, fetched, follow, follow_at, friend, jwt_keys, own_svid, roots
from harness.looking import until
from harness.partner import claims
from harness.ports import free_port
from harness.raw import Admin, Wire
from harness.spirecli import binary
from harness.tlsplace import TlsPlace
from sojourn._pb.spire.api.server.trustdomain.v1 import trustdomain_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.errors import InvalidSvid
from sojourn.jose.jws import SigningKey
from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.x509svid import X509Svid, verify_chain


@pytest.fixture
def partner() -> Partner:
    return Partner(hint=10)


@pytest.fixture
def server(partner: Partner) -> Iterator[BundleServer]:
    with BundleServer(partner.svid(), partner.document()) as running:
        yield running


def records(agent: AgentProcess, *events: str) -> list[dict[str, Any]]:
    """The fields of records of the audit journal, the oldest first."""
    found = agent.json("audit", "tail", "-n", "500")["records"]
    return [each["fields"] | {"event": each["event"]} for each in found if each["event"] in events]


class TestFollowing:
    @pytest.mark.forked
    def test_rotation_reaches_open_streams(
        self, agent: AgentProcess, partner: Partner, server: BundleServer, tmp_path: Path
    ) -> None:
        """A partner's new key is with workloads whose streams are open within the hint; SVIDs by it verify from then on,
        that of the endpoint itself too."""
        follow(agent, partner, server, tmp_path)
        friend(agent, partner.name)
        with Wire(agent.socket) as wire:
            stream = wire.x509_bundles_stream()
            assert [each.root for each in partner.authorities] == roots(next(stream), partner.name)
            partner.rotate()
            server.body = partner.document()
            now = roots(next(stream), partner.name)
            assert [each.root for each in partner.authorities] == now
            verify_chain(partner.svid("/web").chain, now, TrustDomain(partner.name), datetime.now(UTC))
            server.show(partner.svid())
            partner.authorities.pop(0)
            partner.sequence += 1
            server.body = partner.document()
            agent.run("federation", "refresh", partner.name)
            assert [partner.authorities[0].root] == roots(next(stream), partner.name)
            stream.cancel()

    @pytest.mark.forked
    def test_two_agents(self, tmp_path: Path) -> None:
        """Workloads of two agents that follow each other verify each other's SVIDs, and go on to when one agent makes
        itself new authorities and forgets the old ones."""
        listening = '[listen]\ntrust = "127.0.0.1:0"\n'
        with (
            AgentProcess(config=f'trust_domain = "a.org"\n{listening}') as here,
            AgentProcess(config=f'trust_domain = "b.org"\n{listening}') as there,
        ):
            _follow_agent(here, there, "b.org", tmp_path)
            _follow_agent(there, here, "a.org", tmp_path)
            friend(here, "b.org", of="a.org")
            friend(there, "a.org", of="b.org")
            with Wire(here.socket) as wire:
                stream = wire.x509_bundles_stream()
                before = roots(next(stream), "b.org")
                _verified(own_svid(there, tmp_path / "one", "spiffe://b.org/friend"), before)
                [old] = [
                    each["authority_id"] for each in there.json("authority", "show")["keys"] if each["kind"] == "x509"
                ]
                there.run("authority", "rotate", "x509")
                here.run("federation", "refresh", "b.org")
                both = roots(next(stream), "b.org")
                assert set(before) < set(both)
                there.run("authority", "taint", old)
                newest = own_svid(there, tmp_path / "two", "spiffe://b.org/friend")
                _verified(newest, both)
                with pytest.raises(InvalidSvid):
                    _verified(newest, before)
                there.run("authority", "revoke", old)
                here.run("federation", "refresh", "b.org")
                after = roots(next(stream), "b.org")
                assert set(both) - set(before) == set(after)
                here.run("federation", "refresh", "b.org")
                stream.cancel()
            there.run("federation", "refresh", "a.org")

    def test_two_agents_by_the_web(self, tmp_path: Path) -> None:
        """An agent whose listener shows a web certificate is followed by https_web."""
        place = TlsPlace(tmp_path / "tls")
        shown = f'trust_certificate = "{place.chain}"\ntrust_key = "{place.key}"\n'
        os.chmod(place.key, 0o600)
        with (
            AgentProcess(config=f'trust_domain = "a.org"\n[federation]\nca = "{place.ca}"\n') as here,
            AgentProcess(config=f'trust_domain = "b.org"\n[listen]\ntrust = "127.0.0.1:0"\n{shown}') as there,
        ):
            here.run(
                "federation", "create", "b.org", "--url", f"https://{there.trust}/bundle", "--profile", "https_web"
            )
            told = here.json("federation", "refresh", "b.org")
            assert {"x509_authorities": 1, "jwt_authorities": 1} == {
                name: told["bundle"][name] for name in ("x509_authorities", "jwt_authorities")
            }

    def test_by_the_web(self, partner: Partner, tmp_path: Path) -> None:
        """By https_web the endpoint's certificate is verified by the authorities that the configuration names."""
        place = TlsPlace(tmp_path / "tls")
        config = (SAMPLES / "quickstart.toml").read_text() + f'\n[federation]\nca = "{place.ca}"\n'
        config = config.replace('"task-types"', f'"{SAMPLES / "task-types"}"')
        with (
            AgentProcess(config=config) as agent,
            BundleServer(place.chain.read_bytes() + place.key.read_bytes(), partner.document()) as served,
        ):
            url = served.url.replace("127.0.0.1", "localhost")
            made = agent.json("federation", "create", partner.name, "--url", url, "--profile", "https_web")
            assert (url, "https_web", None) == (made["url"], made["profile"], made["endpoint_id"])
            agent.run("federation", "refresh", partner.name)
            friend(agent, partner.name)
            with Wire(agent.socket) as wire:
                assert ["jwt-1"] == jwt_keys(wire, partner.name)
            served.show(partner.svid())
            done = agent.run("federation", "refresh", partner.name, check=False)
            assert 1 == done.returncode
            assert "https_spiffe" in done.stderr

    @pytest.mark.forked
    def test_a_real_spire_server(self, tmp_path: Path) -> None:
        """A SPIRE server's bundle is followed from its own endpoint; what it signs with a new key verifies here."""
        with SpireServer(binary("spire-server"), tmp_path / "spire") as spire, AgentProcess() as agent:
            first = tmp_path / "first.json"
            first.write_text(spire.bundle())
            follow_at(agent, spire.trust_domain, spire.url, spire.endpoint_id, first)
            friend(agent, spire.trust_domain)
            agent.run("federation", "refresh", spire.trust_domain)
            assert 10 == agent.json("federation", "show", spire.trust_domain)["refresh_seconds"]
            with Wire(agent.socket) as wire:
                stream = wire.x509_bundles_stream()
                assert 1 == len(roots(next(stream), spire.trust_domain))
                spire.run("localauthority", "x509", "prepare")
                now = roots(next(stream), spire.trust_domain)
                assert 2 == len(now)
                [prepared] = [
                    line.partition("Authority ID: ")[2].strip()
                    for line in spire.run("localauthority", "x509", "show").stdout.split("Prepared")[1].splitlines()
                    if "Authority ID: " in line
                ]
                spire.run("localauthority", "x509", "activate", "-authorityID", prepared)
                spire.run("x509", "mint", "-spiffeID", f"spiffe://{spire.trust_domain}/web", "-write", str(tmp_path))
                chain = x509.load_pem_x509_certificates((tmp_path / "svid.pem").read_bytes())
                verify_chain(chain, now, TrustDomain(spire.trust_domain), datetime.now(UTC))
                agent.run("federation", "refresh", spire.trust_domain)
                wrong = agent.run(
                    "federation", "update", spire.trust_domain, "--url", spire.url, "--profile", "https_spiffe",
                    "--endpoint-id", f"spiffe://{spire.trust_domain}/spire/other",
                )  # fmt: skip
                assert wrong.stdout
                done = agent.run("federation", "refresh", spire.trust_domain, check=False)
                assert (1, True) == (done.returncode, "not authorized" in done.stderr)
                stream.cancel()

    @pytest.mark.forked
    def test_followed_by_a_real_spire_server(self, tmp_path: Path) -> None:
        """A SPIRE server follows this agent's bundle, from its own listener, and has its new key after it was made."""
        listening = '[listen]\ntrust = "127.0.0.1:0"\n'
        with SpireServer(binary("spire-server"), tmp_path / "spire") as spire, AgentProcess(config=listening) as agent:
            first = tmp_path / "first.json"
            first.write_text(agent.run("bundle", "show", "--format", "spiffe").stdout)
            spire.run(
                "federation", "create", "-trustDomain", "example.org", "-bundleEndpointURL",
                f"https://{agent.trust}/bundle", "-bundleEndpointProfile", "https_spiffe", "-endpointSpiffeID",
                agent.json("status")["node_id"], "-trustDomainBundlePath", str(first), "-trustDomainBundleFormat", "spiffe",
            )  # fmt: skip
            agent.run("authority", "rotate", "x509")
            assert "Bundle refreshed" in spire.run("federation", "refresh", "-id", "example.org").stdout
            held = json.loads(spire.run("bundle", "list", "-id", "example.org", "-format", "spiffe").stdout)
            ours = json.loads(agent.run("bundle", "show", "--format", "spiffe").stdout)

            def authorities(document: dict[str, Any]) -> set[str]:
                return {key["x5c"][0] for key in document["keys"] if key["use"] == "x509-svid"}

            assert 2 == len(authorities(ours))
            assert authorities(ours) == authorities(held)
            assert "Bundle refreshed" in spire.run("federation", "refresh", "-id", "example.org").stdout


class TestFailing:
    @pytest.mark.forked
    def test_the_last_good_bundle_stays(
        self, agent: AgentProcess, partner: Partner, server: BundleServer, tmp_path: Path
    ) -> None:
        """Whatever a partner answers, or if it does not, its last good bundle stays in force, over a restart too; status and
        audit say plainly what is wrong."""
        follow(agent, partner, server, tmp_path)
        agent.run("federation", "refresh", partner.name)
        friend(agent, partner.name)
        good, wrong = partner.document(), json.dumps({"keys": [{}, 1], "spiffe_sequence": -4}).encode()
        partner.sequence = 0
        stranger = Partner("stranger.org")
        for body, code in (
            (wrong, "invalid_bundle"),
            (stranger.document(), "invalid_bundle"),
            (good[:-9], "invalid_bundle"),
        ):
            server.body = body
            done = agent.run("federation", "refresh", partner.name, "--output", "json", check=False)
            assert (1, "bundle_not_fetched") == (done.returncode, json.loads(done.stderr)["error"]["code"])
            assert code == agent.json("federation", "show", partner.name)["fault_code"]
        server.body = good
        server.show(stranger.authorities[0].svid(uri=partner.endpoint_id))
        agent.run("federation", "refresh", partner.name, check=False)
        shown = agent.json("federation", "show", partner.name)
        assert ("certificate", 1) == (shown["fault_code"], shown["bundle"]["x509_authorities"])
        assert "stays in force" in agent.run("status").stdout
        assert ["invalid_bundle", "certificate"] == [each["code"] for each in records(agent, "federated_bundle_failed")]
        server.__exit__()
        agent.stop()
        agent.start()
        until(lambda: agent.json("federation", "show", partner.name)["fault"], "the partner is found gone")
        assert shown["fetched_at"] == agent.json("federation", "show", partner.name)["fetched_at"]
        with Wire(agent.socket) as wire:
            stream = wire.x509_bundles_stream()
            assert [each.root for each in partner.authorities] == roots(next(stream), partner.name)
            stream.cancel()
            assert ["jwt-1"] == jwt_keys(wire, partner.name)

    def test_an_older_bundle(self, agent: AgentProcess, partner: Partner, server: BundleServer, tmp_path: Path) -> None:
        """A bundle that is older than the one that is kept is refused, until an operator sets one by hand."""
        partner.sequence = 7
        server.body = partner.document()
        follow(agent, partner, server, tmp_path)
        agent.run("federation", "refresh", partner.name)
        partner.sequence = 6
        server.body = partner.document()
        done = agent.run("federation", "refresh", partner.name, check=False)
        assert 1 == done.returncode
        assert "older bundle" in done.stderr
        assert 7 == agent.json("federation", "show", partner.name)["bundle"]["sequence"]
        (tmp_path / "new.json").write_bytes(partner.document())
        agent.run("bundle", "set", partner.name, str(tmp_path / "new.json"))
        agent.run("federation", "refresh", partner.name)
        assert 6 == agent.json("federation", "show", partner.name)["bundle"]["sequence"]

    def test_keys_withdrawn(self, agent: AgentProcess, partner: Partner, server: BundleServer, tmp_path: Path) -> None:
        """A partner that withdraws all its keys by an empty bundle is trusted for nothing any more."""
        follow(agent, partner, server, tmp_path)
        friend(agent, partner.name)
        agent.run("federation", "refresh", partner.name)
        server.body = b'{"keys": [], "spiffe_sequence": 99}'
        agent.run("federation", "refresh", partner.name)
        with Wire(agent.socket) as wire:
            assert f"spiffe://{partner.name}" not in next(wire.x509_bundles_stream()).bundles
            assert [] == jwt_keys(wire, partner.name)
        assert "no X.509 authority" in agent.run("federation", "refresh", partner.name, check=False).stderr

    def test_keys_of_one_never_verify_for_another(
        self, agent: AgentProcess, partner: Partner, server: BundleServer, tmp_path: Path
    ) -> None:
        """A token that one partner signed for a subject of another's is refused, though both are followed."""
        other = Partner("other.org")
        with BundleServer(other.svid(), other.document()) as second:
            follow(agent, partner, server, tmp_path)
            follow(agent, other, second, tmp_path)
            friend(agent, partner.name, other.name)
            with Wire(agent.socket) as wire:
                good = _token(partner.jwt_key, f"spiffe://{partner.name}/web")
                assert f"spiffe://{partner.name}/web" == wire.validate("a", good).spiffe_id
                for subject in (f"spiffe://{other.name}/web", "spiffe://example.org/web"):
                    with pytest.raises(grpc.RpcError) as caught:
                        wire.validate("a", _token(partner.jwt_key, subject))
                    error: Any = caught.value
                    assert "INVALID_ARGUMENT" == error.code().name

    @pytest.mark.forked
    def test_many_dead_partners(
        self, agent: AgentProcess, partner: Partner, server: BundleServer, tmp_path: Path
    ) -> None:
        """With two hundred partners that do not answer, each in its own way, the agent answers workloads and operators,
        and a partner that lives is fetched."""
        silent = socket.create_server(("127.0.0.1", 0), backlog=256)  # takes connections, and says nothing
        with silent, socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            urls = [
                f"https://127.0.0.1:{silent.getsockname()[1]}/b",
                f"https://127.0.0.1:{closed.getsockname()[1]}/b",
                "https://nowhere.invalid/b",
            ]
            with Admin(agent.admin_socket) as admin:
                _relate(admin, [(f"dead{number}.org", urls[number % 3]) for number in range(200)])
            follow(agent, partner, server, tmp_path)
            agent.run("federation", "refresh", partner.name)
            friend(agent, partner.name)
            with Wire(agent.socket) as wire:
                for _ in range(20):
                    assert ["spiffe://example.org/friend"] == wire.x509_ids()
            listed = agent.json("federation", "list")["relationships"]
            assert 201 == len(listed)
            until(lambda: agent.json("status")["federation"][-1]["fault"] is None, "the partner that lives is well")
            agent.stop()
            assert 0 == agent.process.returncode  # type: ignore[union-attr]
            agent.start()
            assert 201 == len(agent.json("federation", "list")["relationships"])

    @pytest.mark.forked
    def test_slow(self, agent: AgentProcess, partner: Partner, server: BundleServer, tmp_path: Path) -> None:
        """An endpoint that does not finish its answer is given up, and its relationship can be deleted meanwhile."""
        server.held = threading.Event()
        follow(agent, partner, server, tmp_path)
        until(lambda: server.asked, "the endpoint is asked")
        agent.run("federation", "delete", partner.name)
        assert [] == agent.json("federation", "list")["relationships"]
        follow(agent, partner, server, tmp_path)
        done = agent.run("federation", "refresh", partner.name, check=False, timeout=60)
        assert (1, True) == (done.returncode, "did not answer in time" in done.stderr)

    def test_public_only(self, partner: Partner, server: BundleServer, tmp_path: Path) -> None:
        """With federation.public_only no endpoint at a private address is connected to."""
        config = "[federation]\npublic_only = true\n"
        with AgentProcess(config=config) as agent:
            follow(agent, partner, server, tmp_path)
            assert "public_only" in agent.run("federation", "refresh", partner.name, check=False).stderr
            assert 0 == server.asked


class TestCommands:
    def test_the_life_of_a_relationship(
        self, agent: AgentProcess, partner: Partner, server: BundleServer, tmp_path: Path
    ) -> None:
        """A relationship is created, shown, listed, updated, refreshed and deleted; the audit has who did it."""
        keys = {
            "trust_domain", "url", "profile", "endpoint_id", "bundle", "fetched_at", "next_at", "refresh_seconds",
            "fault", "fault_code", "failures",
        }  # fmt: skip
        made = follow(agent, partner, server, tmp_path)
        assert keys == set(made)
        shown = fetched(agent, partner.name)
        expected = (server.url, "https_spiffe", partner.endpoint_id, 10, None)
        assert expected == tuple(shown[each] for each in ("url", "profile", "endpoint_id", "refresh_seconds", "fault"))
        assert {"sequence": 1, "x509_authorities": 1, "jwt_authorities": 1} == shown["bundle"]
        assert [keys] == [set(each) for each in agent.json("federation", "list")["relationships"]]
        refreshed = agent.json("federation", "refresh", partner.name)
        assert (keys, None) == (set(refreshed), refreshed["fault"])
        again = agent.run(
            "federation", "create", partner.name, "--url", server.url, "--profile", "https_web", check=False
        )
        assert (1, True) == (again.returncode, "already exists" in again.stderr)
        updated = agent.json("federation", "update", partner.name, "--url", server.url, "--profile", "https_web")
        assert ("https_web", None, None) == (updated["profile"], updated["endpoint_id"], updated["fetched_at"])
        assert {"deleted": partner.name} == agent.json("federation", "delete", partner.name)
        assert 1 == len(agent.json("bundle", "list")["bundles"])
        for command in ("show", "refresh", "delete"):
            gone = agent.run("federation", command, partner.name, check=False)
            assert (1, True) == (gone.returncode, "[not_found]" in gone.stderr)
        by = [each["by_uid"] for each in records(agent, "federation_set", "federation_refreshed", "federation_deleted")]
        assert [os.getuid()] * 4 == by

    def test_a_part_of_it_by_the_api(
        self, agent: AgentProcess, partner: Partner, server: BundleServer, tmp_path: Path
    ) -> None:
        """An update with an input mask changes what the mask names and leaves the rest."""
        follow(agent, partner, server, tmp_path)
        url = "https://elsewhere.invalid/b"
        message = types.FederationRelationship(trust_domain=partner.name, bundle_endpoint_url=url)
        message.https_web.SetInParent()
        with Admin(agent.admin_socket) as admin:

            def update(**mask: bool) -> types.FederationRelationship:
                request = pb.BatchUpdateFederationRelationshipRequest(
                    federation_relationships=[message], input_mask=types.FederationRelationshipMask(**mask)
                )
                method = "/spire.api.server.trustdomain.v1.TrustDomain/BatchUpdateFederationRelationship"
                answer = admin.unary(method, request, pb.BatchUpdateFederationRelationshipResponse)
                assert (0, "OK") == (answer.results[0].status.code, answer.results[0].status.message)
                changed: types.FederationRelationship = answer.results[0].federation_relationship
                return changed

            first = update(bundle_endpoint_url=True)
            assert (url, partner.endpoint_id) == (first.bundle_endpoint_url, first.https_spiffe.endpoint_spiffe_id)
            second = update(bundle_endpoint_profile=True)
            assert (url, "https_web") == (second.bundle_endpoint_url, second.WhichOneof("bundle_endpoint_profile"))
            assert 1 == len(second.trust_domain_bundle.x509_authorities)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["create", "p.org", "--url", "https://p.org/b", "--profile", "https_spiffe"], "needs --endpoint-id"),
            (
                [
                    "create",
                    "p.org",
                    "--url",
                    "https://p.org",
                    "--profile",
                    "https_web",
                    "--endpoint-id",
                    "spiffe://p.org/s",
                ],
                "--endpoint-id goes with",
            ),
            (["create", "p.org", "--url", "http://p.org/b", "--profile", "https_web"], "https scheme"),
            (["create", "p.org", "--url", "https://u:p@p.org/b", "--profile", "https_web"], "user info"),
            (["create", "example.org", "--url", "https://p.org/b", "--profile", "https_web"], "server trust domain"),
            (["create", "P.org", "--url", "https://p.org/b", "--profile", "https_web"], "lowercase"),
            (
                ["create", "p.org", "--url", "https://p.org/b", "--profile", "https_web", "--bundle", "/dev/null"],
                "not a regular file",
            ),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_said_wrongly(self, arguments: list[str], said: str) -> None:
        """What is said wrongly is refused with the rule, and nothing is followed."""
        with AgentProcess() as agent:
            done = agent.run("federation", *arguments, check=False)
            assert (True, "") == (done.returncode in {1, 2}, done.stdout)
            assert said in done.stderr
            assert [] == agent.json("federation", "list")["relationships"]

    def test_metrics(self, partner: Partner, server: BundleServer, tmp_path: Path) -> None:
        """The metrics tell how many are followed, how many fail, and how long ago the oldest was fetched."""
        port = free_port()
        with AgentProcess(config=f'[metrics]\nlisten = "127.0.0.1:{port}"\n') as agent:
            follow(agent, partner, server, tmp_path)
            fetched(agent, partner.name)
            server.status = "503 Unavailable"
            agent.run("federation", "refresh", partner.name, check=False)
            text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=10).text
            assert "sojourn_foreign_bundles 1.0" in text
            assert "sojourn_federation_relationships 1.0" in text
            assert "sojourn_federation_failing 1.0" in text
            assert "sojourn_federation_oldest_fetch_seconds" in text


def _follow_agent(agent: AgentProcess, other: AgentProcess, domain: str, folder: Path) -> None:
    """Have an agent follow another by https_spiffe, from the other's listener."""
    first = folder / f"{domain}.json"
    first.write_text(other.run("bundle", "show", "--format", "spiffe").stdout)
    follow_at(agent, domain, f"https://{other.trust}/bundle", other.json("status")["node_id"], first)
    agent.run("federation", "refresh", domain)


def _verified(svid: X509Svid, authorities: list[x509.Certificate]) -> None:
    verify_chain(svid.chain, authorities, svid.spiffe_id.trust_domain, datetime.now(UTC))


def _token(key: SigningKey, subject: str) -> str:
    header = {"alg": "ES256", "kid": "jwt-1", "typ": "JWT"}
    return joined(header, json.dumps(claims(sub=subject)).encode(), key)


def _relate(admin: Admin, wanted: list[tuple[str, str]]) -> None:
    """Create relationships by https_web, in one call."""
    request = pb.BatchCreateFederationRelationshipRequest()
    for name, url in wanted:
        each = request.federation_relationships.add(trust_domain=name, bundle_endpoint_url=url)
        each.https_web.SetInParent()
    method = "/spire.api.server.trustdomain.v1.TrustDomain/BatchCreateFederationRelationship"
    answer = admin.unary(method, request, pb.BatchCreateFederationRelationshipResponse, timeout=60)
    assert {0} == {each.status.code for each in answer.results}
