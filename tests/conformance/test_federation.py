"""SPIFFE_Federation.md, rows FED-01 to FED-34, and BND-15: what the agent serves for others, and how it follows them."""

import asyncio
import base64
import contextlib
import json
import socket
import ssl
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conformance.ground import deviates
from cryptography import x509
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from fakes.journals import FakeAuditStore
from fakes.registrations import NODE, FakeEntryStore, FakeForeignStore
from harness.agent import AgentProcess
from harness.bundleserver import BundleServer, Partner
from harness.federating import follow, friend, roots
from harness.raw import Wire
from harness.tlsplace import TlsPlace
from sojourn.audit.journal import Audit
from sojourn.authority.embedded_ca import JWT
from sojourn.authority.key_steps import X509
from sojourn.errors import BundleNotFetched, InvalidSvid
from sojourn.federation.bundle_fetch import BundleEndpoints
from sojourn.federation.bundle_refresh import Federating
from sojourn.identity.federation_relationship import Relationship
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.identity.registry import Registry
from sojourn.runtime.clock import Alarms
from sojourn.spiffe import bundle as bundles
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import verify_chain

HERE, THERE = TrustDomain("example.org"), TrustDomain("partner.org")
WEB = SpiffeId.parse("spiffe://example.org/web")
HOUR = timedelta(hours=1)


class Follower:
    """An agent's following, with a clock that the test sets, and real endpoints."""

    def __init__(self, folder: Path, ca: Path | None = None) -> None:
        self.clock = FakeClock()
        self.alarms = Alarms(self.clock)
        registry = Registry(FakeEntryStore(), HERE, [NODE], self.clock, self.alarms)
        self.foreign = ForeignBundles(FakeForeignStore(), HERE, registry)
        authority = authority_in(folder / "keys", self.clock)
        endpoints = BundleEndpoints(ca, self.clock, public_only=False)
        audit = Audit(FakeAuditStore(), self.clock)
        self.federating = Federating(self.foreign, authority, endpoints, audit, self.clock, self.alarms)
        self.federating.start()

    async def follow(self, partner: Partner, server: BundleServer, first: Bundle | None = None) -> None:
        relationship = Relationship(TrustDomain(partner.name), server.url, SpiffeId.parse(partner.endpoint_id))
        await self.foreign.relate(relationship, first)
        with contextlib.suppress(BundleNotFetched):
            await self.federating.refresh(relationship.trust_domain)

    def pause(self) -> float:
        """Seconds until the partner is asked again."""
        followed = self.federating.of(THERE)
        assert followed is not None
        assert followed.alarm is not None
        return followed.alarm.due - self.clock.boot()


@pytest.fixture
async def follower(tmp_path: Path) -> AsyncIterator[Follower]:
    made = Follower(tmp_path)
    yield made
    await made.federating.close()


@pytest.fixture(scope="module")
def partner() -> Partner:
    return Partner()


@pytest.fixture
def server(partner: Partner) -> Iterator[BundleServer]:
    with BundleServer(partner.svid(), partner.document()) as running:
        yield running


@pytest.fixture(scope="module")
def serving() -> Iterator[AgentProcess]:
    """An agent that serves its bundle."""
    with AgentProcess(config='[listen]\ntrust = "127.0.0.1:0"\n') as running:
        yield running


async def fetch(url: str, endpoint_id: str | None, vouching: Bundle | None, ca: Path | None = None) -> Bundle:
    endpoint = None if endpoint_id is None else SpiffeId.parse(endpoint_id)
    endpoints = BundleEndpoints(ca, FakeClock(), public_only=False)
    return await endpoints.fetch(Relationship(THERE, url, endpoint), vouching)


def get(agent: AgentProcess, method: str = "GET") -> Any:
    """The answer of an agent's bundle endpoint, as anybody gets it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(f"https://{agent.trust}/bundle", method=method)
    return urllib.request.urlopen(request, timeout=10, context=context)


# --- what is served -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [X509, JWT])
def test_FED_01_published_before_it_signs(tmp_path: Path, kind: str) -> None:
    """A key that is prepared is in the bundle and signs nothing yet."""
    authority = authority_in(tmp_path, FakeClock())
    before = authority.bundle
    authority.prepare(kind)
    assert not before.same_keys(authority.bundle)
    old = replace(before, tainted=frozenset())
    now = FakeClock().now()
    if kind == X509:
        verify_chain(authority.issue_x509(WEB, HOUR).chain, old.x509_authorities, HERE, now)
    else:
        assert json.loads(_header(authority.issue_jwt(WEB, ["a"], HOUR).token))["kid"] in old.jwt_authorities


def test_FED_02_long_enough_before(tmp_path: Path) -> None:
    """A JWT key is published for more than five refresh hints before it signs."""
    authority = authority_in(tmp_path, FakeClock())
    assert authority.jwt_key_overlap.total_seconds() >= 5 * authority.bundle.refresh_hint_seconds > 0


def test_FED_03_gone_in_the_end(tmp_path: Path) -> None:
    """A JWT key leaves the bundle after its life, and not before what it signed has ended."""
    clock = FakeClock()
    authority = authority_in(tmp_path, clock)
    [first] = authority.bundle.jwt_authorities
    seen = []
    for _ in range(60):
        clock.advance(86_400)
        authority.maintain()
        seen.append(first in authority.bundle.jwt_authorities)
    assert (True, False) == (seen[0], seen[-1])
    assert seen == sorted(seen, reverse=True)


async def test_FED_09_served_by_spiffe(serving: AgentProcess) -> None:
    """The agent's own client fetches the agent's bundle by `https_spiffe`."""
    own = bundles.parse(HERE, json.loads(serving.run("bundle", "show", "--format", "spiffe").stdout))
    endpoints = BundleEndpoints(None, FakeClock(), public_only=False)
    node = SpiffeId.parse(serving.json("status")["node_id"])
    fetched = await endpoints.fetch(Relationship(HERE, f"https://{serving.trust}/bundle", node), own)
    assert own.same_keys(fetched)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_FED_10_tls(serving: AgentProcess, version: ssl.TLSVersion) -> None:
    """The endpoint speaks TLS 1.2 and 1.3, with forward secrecy and authenticated ciphers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    name, _, bits = _cipher(serving, context)
    assert bits >= 128
    assert version is ssl.TLSVersion.TLSv1_3 or name.startswith("ECDHE-")


def test_FED_10_no_weak_ciphers(serving: AgentProcess) -> None:
    """It takes no cipher without forward secrecy."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("kRSA:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        _cipher(serving, context)


def test_FED_14_no_further_parameter(serving: AgentProcess) -> None:
    """Who fetches by the URL alone, with TLS, has the bundle."""
    assert "keys" in json.loads(get(serving).read())


def test_FED_17_clients_do_not_authenticate(serving: AgentProcess) -> None:
    """Nobody is asked for a certificate or a password, and nobody is refused for want of one."""
    assert 200 == get(serving).status


def test_FED_18_the_newest(serving: AgentProcess) -> None:
    """A GET returns the bundle as it is now, in UTF-8, as soon as a key was prepared."""
    before = json.loads(get(serving).read().decode("utf-8"))
    serving.run("authority", "prepare", "jwt")
    after = json.loads(get(serving).read().decode("utf-8"))
    assert len(before["keys"]) + 1 == len(after["keys"])
    assert before["spiffe_sequence"] < after["spiffe_sequence"]
    assert json.loads(serving.run("bundle", "show", "--format", "spiffe").stdout) == after


def test_FED_19_content_type(serving: AgentProcess) -> None:
    """A bundle is served as JSON, and says so."""
    assert "application/json" == get(serving).headers["Content-Type"]


def test_FED_27_shows_an_svid(serving: AgentProcess) -> None:
    """The certificate of the endpoint is a good X.509-SVID of the node's own SPIFFE ID."""
    host, port = serving.trust.rsplit(":", 1)
    leaf = x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port)), timeout=10).encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert [serving.json("status")["node_id"]] == uris


# --- how others are followed ----------------------------------------------------------------------------------------


async def test_BND_15_often_without_a_hint(follower: Follower, partner: Partner, server: BundleServer) -> None:
    """Without a refresh hint a bundle is looked for within five minutes."""
    server.body = json.dumps({"keys": partner.bundle.document()["keys"]}).encode()
    await follower.follow(partner, server, partner.bundle)
    assert 200 < follower.pause() <= 300


@pytest.mark.parametrize(("hint", "least", "most"), [(600, 479, 600), (20, 15, 20)])
async def test_FED_04_by_its_hint(
    follower: Follower, partner: Partner, server: BundleServer, hint: int, least: float, most: float
) -> None:
    """A bundle is looked for within the time that its hint says."""
    server.body = json.dumps({**partner.bundle.document(), "spiffe_refresh_hint": hint}).encode()
    await follower.follow(partner, server, partner.bundle)
    assert least <= follower.pause() <= most


async def test_FED_05_the_newest(follower: Follower, partner: Partner, server: BundleServer) -> None:
    """An older bundle does not take the place of a newer one; one without a sequence is taken as it comes."""
    for sequence, kept in ((5, 5), (4, 5), (6, 6), (0, 0)):
        server.body = json.dumps({**partner.bundle.document(), "spiffe_sequence": sequence}).encode()
        await follower.follow(partner, server, partner.bundle if sequence == 5 else None)
        now = follower.foreign.get(THERE)
        assert now is not None
        assert kept == now.sequence


async def test_FED_06_set_by_an_operator(follower: Follower, partner: Partner, server: BundleServer) -> None:
    """A bundle that an operator sets holds until the next one is fetched."""
    await follower.follow(partner, server, partner.bundle)
    mine = replace(partner.bundle, jwt_authorities={}, sequence=0)
    await follower.foreign.put(mine)
    assert mine is follower.foreign.get(THERE)
    await follower.federating.refresh(THERE)
    assert follower.foreign.get(THERE) is not mine


async def test_FED_07_never_one(follower: Follower, partner: Partner, server: BundleServer) -> None:
    """Two trust domains' bundles stay two: an SVID of one is not verified by the other's."""
    other = Partner("other.org")
    with BundleServer(other.svid(), other.document()) as second:
        await follower.follow(partner, server, partner.bundle)
        await follower.follow(other, second, other.bundle)
    first, last = (follower.foreign.get(TrustDomain(each.name)) for each in (partner, other))
    assert first is not None
    assert last is not None
    assert not set(first.x509_authorities) & set(last.x509_authorities)
    with pytest.raises(InvalidSvid):
        verify_chain(other.svid("/web").chain, first.x509_authorities, TrustDomain("other.org"), datetime.now(UTC))


async def test_FED_08_by_the_web(partner: Partner, server: BundleServer, tmp_path: Path) -> None:
    """A bundle is fetched by `https_web`."""
    place = TlsPlace(tmp_path)
    server.show(place.chain.read_bytes() + place.key.read_bytes())
    assert partner.bundle.same_keys(await fetch(server.url, None, None, place.ca))


async def test_FED_08_by_spiffe(partner: Partner, server: BundleServer) -> None:
    """A bundle is fetched by `https_spiffe`."""
    assert partner.bundle.same_keys(await fetch(server.url, partner.endpoint_id, partner.bundle))


@pytest.mark.parametrize("missing", ["--url", "--profile", "TRUST_DOMAIN"])
def test_FED_11_each_is_said(serving: AgentProcess, missing: str) -> None:
    """A relationship without a URL, a profile or a trust domain is refused."""
    said = {"--url": ["--url", "https://p.org/b"], "--profile": ["--profile", "https_web"], "TRUST_DOMAIN": ["p.org"]}
    arguments = [word for name, words in said.items() if name != missing for word in words]
    done = serving.run("federation", "create", *arguments, check=False)
    assert (2, True) == (done.returncode, missing in done.stderr)


def test_FED_12_with_its_name(serving: AgentProcess, partner: Partner, server: BundleServer, tmp_path: Path) -> None:
    """Workloads get a followed bundle under the ID of its trust domain."""
    follow(serving, partner, server, tmp_path)
    friend(serving, partner.name)
    with Wire(serving.socket) as wire:
        stream = wire.x509_bundles_stream()
        assert [each.root for each in partner.authorities] == roots(next(stream), partner.name)
        stream.cancel()


@pytest.mark.parametrize("url", ["http://p.org/b", "p.org/b", "spiffe://p.org", "https://user@p.org/b", "https://"])
def test_FED_13_urls(serving: AgentProcess, url: str) -> None:
    """An endpoint's URL that is not https, or names a user, is refused."""
    done = serving.run("federation", "create", "p.org", "--url", url, "--profile", "https_web", check=False)
    assert (True, "") == (done.returncode in {1, 2}, done.stdout)


@pytest.mark.parametrize("case", ["another authority", "another host"])
async def test_FED_21_web_certificates(partner: Partner, server: BundleServer, tmp_path: Path, case: str) -> None:
    """A web certificate of an authority that is not trusted, or for another host, is refused."""
    place, other = TlsPlace(tmp_path / "one"), TlsPlace(tmp_path / "two")
    server.show(place.chain.read_bytes() + place.key.read_bytes())
    host = "127.0.0.1" if case == "another authority" else "127.1"  # the same address, by a name of its own
    ca = other.ca if case == "another authority" else place.ca
    with pytest.raises(BundleNotFetched, match="certificate is refused"):
        await fetch(server.url.replace("127.0.0.1", host), None, None, ca)
    assert 0 == server.asked


@deviates("FED-22")
async def test_FED_22_redirects(partner: Partner, server: BundleServer) -> None:
    """A redirect to a good endpoint of the same SPIFFE ID is followed."""
    with BundleServer(partner.svid(), partner.document()) as first:
        first.status, first.headers = "307 Temporary Redirect", {"Location": server.url}
        await fetch(first.url, partner.endpoint_id, partner.bundle)


async def test_FED_24_needs_a_bundle(partner: Partner, server: BundleServer) -> None:
    """Without a bundle of the endpoint's trust domain nothing is fetched by `https_spiffe`."""
    with pytest.raises(BundleNotFetched, match="no bundle"):
        await fetch(server.url, partner.endpoint_id, None)
    assert 0 == server.asked


def test_FED_24_needs_an_id(serving: AgentProcess) -> None:
    """There is no relationship by `https_spiffe` without the endpoint's SPIFFE ID."""
    arguments = ("p.org", "--url", "https://p.org/b", "--profile", "https_spiffe")
    done = serving.run("federation", "create", *arguments, check=False)
    assert (2, True) == (done.returncode, "--endpoint-id" in done.stderr)


@pytest.mark.parametrize("form", ["spiffe", "pem"])
def test_FED_25_a_first_bundle(server: BundleServer, partner: Partner, tmp_path: Path, form: str) -> None:
    """A first bundle is taken as a SPIFFE bundle document, and as PEM certificates."""
    file = tmp_path / "first"
    file.write_bytes(partner.document() if form == "spiffe" else partner.bundle.x509_pem)
    with AgentProcess() as agent:
        agent.run(
            "federation", "create", partner.name, "--url", server.url, "--profile", "https_spiffe", "--endpoint-id",
            partner.endpoint_id, "--bundle", str(file),
        )  # fmt: skip
        agent.run("federation", "refresh", partner.name)


async def test_FED_26_endpoints_elsewhere(follower: Follower, partner: Partner) -> None:
    """An endpoint of a third trust domain is verified by that one's bundle, which is set or followed for itself."""
    host = Partner("host.org")
    with BundleServer(host.svid(), partner.document()) as server:
        relationship = Relationship(THERE, server.url, SpiffeId.parse(host.endpoint_id))
        await follower.foreign.relate(relationship, partner.bundle)
        with pytest.raises(BundleNotFetched, match=r"host\.org"):
            await follower.federating.refresh(THERE)
        await follower.foreign.put(host.bundle)
        await follower.federating.refresh(THERE)


@pytest.mark.parametrize("shown", ["/other", "/endpoint/x", "/Endpoint"])
async def test_FED_28_exactly_the_id(partner: Partner, server: BundleServer, shown: str) -> None:
    """An endpoint of another SPIFFE ID of the same trust domain is refused; the host's name does not matter."""
    await fetch(server.url.replace("127.0.0.1", "localhost"), partner.endpoint_id, partner.bundle)
    server.show(partner.svid(shown))
    with pytest.raises(BundleNotFetched, match="not authorized"):
        await fetch(server.url, partner.endpoint_id, partner.bundle)


async def test_FED_29_by_the_latest(follower: Follower) -> None:
    """The first fetch is verified by the bundle that was given, the next by the one that it brought."""
    partner = Partner()
    first = partner.bundle
    with BundleServer(partner.svid(), b"") as server:
        partner.rotate()
        server.body = partner.document()
        await follower.follow(partner, server, first)
        server.show(partner.svid())
        await follower.federating.refresh(THERE)
        with pytest.raises(BundleNotFetched):
            await fetch(server.url, partner.endpoint_id, first)


async def test_FED_31_known_before(partner: Partner, server: BundleServer) -> None:
    """What is fetched is the bundle of the trust domain that was said, and one that says it is another's is refused."""
    server.body = Partner("stranger.org").document()
    with pytest.raises(BundleNotFetched, match=r"stranger\.org"):
        await fetch(server.url, partner.endpoint_id, partner.bundle)


async def test_FED_32_not_hard(follower: Follower, partner: Partner, server: BundleServer) -> None:
    """After failures the pauses grow up to the interval; an endpoint is never asked in a loop."""
    server.status = "503 Service Unavailable"
    await follower.follow(partner, server, partner.bundle)
    pauses = [follower.pause()]
    for _ in range(8):
        with pytest.raises(BundleNotFetched):
            await follower.federating.refresh(THERE)
        pauses.append(follower.pause())
    assert 3 < pauses[0] <= 5
    assert 200 < pauses[-1] <= 300
    asked = server.asked
    await asyncio.sleep(0.2)
    assert asked == server.asked


def test_FED_33_one_way(serving: AgentProcess, tmp_path: Path) -> None:
    """That the agent follows a partner changes nothing of what it serves."""
    partner = Partner("oneway.org")
    before = get(serving).read()
    with BundleServer(partner.svid(), partner.document()) as server:
        follow(serving, partner, server, tmp_path)
        serving.run("federation", "refresh", partner.name)
    assert before == get(serving).read()


@pytest.mark.forked
@pytest.mark.forked
def test_FED_34_the_end(partner: Partner, server: BundleServer, tmp_path: Path) -> None:
    """After `federation delete` nothing is fetched, and `bundle delete` takes the bundle from open streams at once."""
    with AgentProcess() as agent:
        follow(agent, partner, server, tmp_path)
        agent.run("federation", "refresh", partner.name)
        friend(agent, partner.name)
        with Wire(agent.socket) as wire:
            stream = wire.x509_bundles_stream()
            assert roots(next(stream), partner.name)
            agent.run("federation", "delete", partner.name)
            assert 1 == agent.run("federation", "refresh", partner.name, check=False).returncode
            agent.run("bundle", "delete", partner.name, "--mode", "dissociate")
            assert ["spiffe://example.org"] == list(next(stream).bundles)
            stream.cancel()


def _header(token: str) -> bytes:
    part = token.partition(".")[0]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _cipher(agent: AgentProcess, context: ssl.SSLContext) -> tuple[str, str, int]:
    host, port = agent.trust.rsplit(":", 1)
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        cipher = secured.cipher()
        assert cipher is not None
        return cipher
