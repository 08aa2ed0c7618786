"""bundle_fetch.py: what is taken from an endpoint, and what is not. Real sockets, real TLS, real certificates."""

import json
import ssl
import threading
from datetime import timedelta

import pytest
from fakes.clock import FakeClock
from harness.bundleserver import BundleServer, Partner
from harness.tlsplace import TlsPlace
from sojourn.errors import BundleNotFetched, CannotStart
from sojourn.federation import bundle_fetch
from sojourn.federation.bundle_fetch import BundleEndpoints
from sojourn.identity.federation_relationship import Relationship
from sojourn.limits import FEDERATION_BUNDLE_MAX_BYTES, FEDERATION_CA_SECONDS
from sojourn.spiffe.ids import SpiffeId, TrustDomain

PARTNER = TrustDomain("partner.org")


@pytest.fixture(scope="module")
def partner():
    return Partner(sequence=7, hint=60)


@pytest.fixture
def server(partner):
    with BundleServer(partner.svid(), partner.document()) as running:
        yield running


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return TlsPlace(tmp_path_factory.mktemp("tls"))


def endpoints(ca=None, *, public_only=False):
    return BundleEndpoints(ca, FakeClock(), public_only=public_only)


def spiffe(server, endpoint_id="spiffe://partner.org/endpoint"):
    return Relationship(PARTNER, server.url, SpiffeId.parse(endpoint_id))


def web(server, host="localhost"):
    return Relationship(PARTNER, server.url.replace("127.0.0.1", host))


async def refused(relationship, vouching=None, ca=None, **more):
    """The reason for which a fetch fails, by its code."""
    with pytest.raises(BundleNotFetched) as caught:
        await endpoints(ca, **more).fetch(relationship, vouching)
    return caught.value.reason_code, caught.value.public


class TestSpiffe:
    async def test_fetched(self, server, partner):
        """A bundle comes from an endpoint whose X.509-SVID is of the bundle that is known, whatever its host's name."""
        for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
            relationship = Relationship(PARTNER, url, SpiffeId.parse(partner.endpoint_id))
            bundle = await endpoints().fetch(relationship, partner.bundle)
            assert (PARTNER, 7, 60) == (bundle.trust_domain, bundle.sequence, bundle.refresh_hint_seconds)
            assert partner.bundle.same_keys(bundle)

    async def test_shows_nothing_of_ours(self, server, partner):
        """The request is a GET of the URL's path, with no credential."""
        await endpoints().fetch(spiffe(server), partner.bundle)
        [asked] = server.requests
        assert asked.startswith(b"GET /bundle HTTP/1.1\r\n")
        assert b"uthorization" not in asked
        assert b"ookie" not in asked

    async def test_compared_at_no_cost(self, server, partner, monkeypatch):
        """What a bundle of many certificates is compared and kept by is made beside the loop, and once."""
        bundle = await endpoints().fetch(spiffe(server), partner.bundle)
        monkeypatch.setattr("sojourn.spiffe.bundle._coordinates", None)
        assert bundle.document()["keys"]
        assert bundle.same_keys(bundle)

    async def test_no_bundle_to_begin_with(self, server, partner):
        """Without a first bundle of the endpoint's trust domain the fetch fails and says how to give one; nobody is asked."""
        code, said = await refused(spiffe(server))
        assert "no_bundle" == code
        assert "`bundle set`" in said
        empty = Partner("partner.org")
        empty.authorities = []
        assert "no_bundle" == (await refused(spiffe(server), empty.bundle))[0]
        assert 0 == server.asked

    @pytest.mark.parametrize(
        "other",
        [
            "spiffe://partner.org/other",
            "spiffe://partner.org",
            "spiffe://partner.org/endpoint/below",
            "spiffe://partner.org/Endpoint",
        ],
    )
    async def test_another_spiffe_id(self, server, partner, other):
        """An endpoint of the right trust domain with another SPIFFE ID is refused before anything is asked."""
        code, said = await refused(spiffe(server, other), partner.bundle)
        assert ("certificate", 0) == (code, server.asked)
        assert "not authorized" in said

    async def test_keys_of_one_never_verify_for_another(self, server, partner):
        """An SVID that names the endpoint and was signed by another trust domain's authority is refused."""
        stranger = Partner("stranger.org")
        server.show(stranger.authorities[0].svid(uri=partner.endpoint_id))
        assert "certificate" == (await refused(spiffe(server), partner.bundle))[0]
        assert "certificate" == (await refused(spiffe(server), stranger.bundle))[0]
        assert 0 == server.asked

    async def test_expired(self, server, partner):
        """An SVID whose time is over is refused."""
        server.show(partner.svid(ends_in=timedelta(minutes=-1)))
        code, said = await refused(spiffe(server), partner.bundle)
        assert ("certificate", 0) == (code, server.asked)
        assert "expired" in said

    async def test_not_a_leaf_of_the_standard(self, server, partner):
        """A certificate that is no X.509-SVID leaf is refused, whoever signed it."""
        server.show(partner.svid(usage=False))
        assert "certificate" == (await refused(spiffe(server), partner.bundle))[0]

    async def test_web_certificate(self, server, partner, place):
        """A web certificate does not do where an X.509-SVID is asked for."""
        server.show(place.chain.read_bytes() + place.key.read_bytes())
        assert "certificate" == (await refused(spiffe(server), partner.bundle, place.ca))[0]

    async def test_endpoint_of_another_trust_domain(self, partner):
        """An endpoint may belong to another trust domain: then that one's bundle vouches for it, and for nothing more."""
        host = Partner("host.org")
        with BundleServer(host.svid(), partner.document()) as server:
            relationship = spiffe(server, host.endpoint_id)
            fetched = await endpoints().fetch(relationship, host.bundle)
            assert partner.bundle.same_keys(fetched)
            assert "certificate" == (await refused(relationship, partner.bundle))[0]

    async def test_rotated(self, server, partner):
        """An SVID by an authority that the known bundle does not have yet is refused; by the new bundle it is good."""
        newer = Partner("partner.org")
        newer.authorities = [*partner.authorities]
        newer.rotate()
        server.show(newer.svid())
        assert "certificate" == (await refused(spiffe(server), partner.bundle))[0]
        await endpoints().fetch(spiffe(server), newer.bundle)


class TestWeb:
    async def test_fetched(self, server, partner, place):
        """A bundle comes from an endpoint whose web certificate is for the URL's host, by the authorities of a file."""
        server.show(place.chain.read_bytes() + place.key.read_bytes())
        for host in ("localhost", "127.0.0.1"):
            fetched = await endpoints(place.ca).fetch(web(server, host), None)
            assert partner.bundle.same_keys(fetched)

    async def test_another_host(self, server, place):
        """A certificate for another name is refused."""
        server.show(place.chain.read_bytes() + place.key.read_bytes())
        same_address = web(server, "127.1")
        assert "certificate" == (await refused(same_address, None, place.ca))[0]
        assert 0 == server.asked

    async def test_unknown_authority(self, server, place):
        """Without the file the system's authorities count, which do not know this one."""
        server.show(place.chain.read_bytes() + place.key.read_bytes())
        assert "certificate" == (await refused(web(server)))[0]

    async def test_an_svid(self, server, partner, place):
        """An X.509-SVID does not do for a web certificate, and the profile that it is for is named."""
        code, said = await refused(web(server), partner.bundle, place.ca)
        assert "certificate" == code
        assert "https_spiffe" in said

    async def test_authorities_that_change(self, server, place, tmp_path):
        """The file of authorities is read again after a while: what it lost is refused, what it won is taken."""
        server.show(place.chain.read_bytes() + place.key.read_bytes())
        file = tmp_path / "ca.pem"
        file.write_bytes(TlsPlace(tmp_path / "other").ca.read_bytes())
        clock = FakeClock()
        ours = BundleEndpoints(file, clock, public_only=False)
        with pytest.raises(BundleNotFetched):
            await ours.fetch(web(server), None)
        file.write_bytes(place.ca.read_bytes())
        with pytest.raises(BundleNotFetched):
            await ours.fetch(web(server), None)
        clock.advance(FEDERATION_CA_SECONDS)
        await ours.fetch(web(server), None)
        file.unlink()
        clock.advance(FEDERATION_CA_SECONDS)
        with pytest.raises(BundleNotFetched, match=r"federation\.ca"):
            await ours.fetch(web(server), None)

    @pytest.mark.parametrize("content", [None, "", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
    def test_a_file_that_is_not_good(self, tmp_path, content):
        """The agent does not start with a file of authorities that cannot be used."""
        file = tmp_path / "ca.pem"
        if content is not None:
            file.write_text(content)
        with pytest.raises(CannotStart, match=r"federation\.ca"):
            endpoints(file)


class TestAnswers:
    @pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
    async def test_redirects(self, server, partner, status):
        """A redirect is not followed, wherever it leads, and said to be one."""
        server.status, server.headers = status, {"Location": server.url}
        assert "redirect" == (await refused(spiffe(server), partner.bundle))[0]
        assert 1 == server.asked

    @pytest.mark.parametrize("status", ["201 Created", "204 No Content", "404 Not Found", "503 Unavailable"])
    async def test_statuses(self, server, partner, status):
        """Anything but 200 is no bundle, and its status is said."""
        server.status = status
        code, said = await refused(spiffe(server), partner.bundle)
        assert "status" == code
        assert status[:3] in said

    async def test_huge(self, server, partner):
        """An answer over the limit is given up, whether its length is said or not."""
        server.body = b" " * (FEDERATION_BUNDLE_MAX_BYTES + 1)
        assert "too_large" == (await refused(spiffe(server), partner.bundle))[0]
        server.raw = b"HTTP/1.1 200 OK\r\n\r\n" + server.body * 4
        assert "too_large" == (await refused(spiffe(server), partner.bundle))[0]

    async def test_slow(self, server, partner, monkeypatch):
        """An answer that does not come in time is given up."""
        monkeypatch.setattr(bundle_fetch, "FEDERATION_DEADLINE_SECONDS", 0.3)
        server.held = threading.Event()
        assert "timeout" == (await refused(spiffe(server), partner.bundle))[0]

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
            b"SSH-2.0-OpenSSH_9.9\r\n",
            bytes(range(256)) * 8,
        ],
    )
    async def test_no_http(self, server, partner, raw):
        """An answer that breaks off, or is no HTTP, is told as that."""
        server.raw = raw
        assert "broken" == (await refused(spiffe(server), partner.bundle))[0]

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"\xff\xfe",
            b"[]",
            b"null",
            b"{}",
            b'{"keys": {}}',
            b'{"keys": [], "keys": []}',
            b'{"keys": [], "spiffe_sequence": -1}',
            b'{"keys": [], "spiffe_sequence": 1.5}',
            b'{"keys": [], "spiffe_refresh_hint": "60"}',
            b'{"keys": [{"use": "x509-svid", "kty": "EC", "x5c": ["AAAA"]}]}',
            b'{"keys": [{"use": "jwt-svid", "kty": "EC", "kid": "a", "crv": "P-256", "x": "AA", "y": "AA"}]}',
            b"[" * 100_000,
        ],
    )
    async def test_no_bundle(self, server, partner, body):
        """What is not wholly a bundle is not taken in part."""
        server.body = body
        assert "invalid_bundle" == (await refused(spiffe(server), partner.bundle))[0]

    async def test_cut_short(self, server, partner):
        """A bundle that is cut short at any place is refused."""
        whole = partner.document()
        for size in range(1, len(whole), 97):
            server.body = whole[:size]
            assert "invalid_bundle" == (await refused(spiffe(server), partner.bundle))[0]

    async def test_packed(self, server, partner):
        """An answer that is packed could unpack to any size: it is not asked for, and refused."""
        server.headers = {"Content-Encoding": "gzip"}
        assert "invalid_bundle" == (await refused(spiffe(server), partner.bundle))[0]
        assert b"accept-encoding: identity" in server.requests[0].lower()

    async def test_another_trust_domains_bundle(self, server, partner):
        """A bundle whose authorities say that they are of another trust domain is refused."""
        server.body = Partner("stranger.org").document()
        code, said = await refused(spiffe(server), partner.bundle)
        assert "invalid_bundle" == code
        assert '"stranger.org"' in said

    async def test_an_empty_bundle(self, server, partner):
        """A bundle without keys is one: its trust domain has withdrawn them all."""
        server.body = json.dumps({"keys": [], "spiffe_sequence": 8}).encode()
        bundle = await endpoints().fetch(spiffe(server), partner.bundle)
        assert ((), {}) == (bundle.x509_authorities, dict(bundle.jwt_authorities))


class TestReaching:
    async def test_nobody_listens(self, partner):
        """A port at which nobody listens is told, with what the system says."""
        with BundleServer(partner.svid()) as gone:
            relationship = spiffe(gone)
        code, said = await refused(relationship, partner.bundle)
        assert ("unreachable", True) == (code, "refused" in said.lower())

    async def test_a_name_that_is_none(self, partner):
        """A name without an address is told by its name."""
        relationship = Relationship(PARTNER, "https://nowhere.invalid/b", SpiffeId.parse(partner.endpoint_id))
        code, said = await refused(relationship, partner.bundle)
        assert "unknown_name" == code
        assert "nowhere.invalid" in said

    async def test_public_only(self, server, partner):
        """Where only public addresses are allowed a private one is not connected to, by whatever name."""
        for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
            relationship = Relationship(PARTNER, url, SpiffeId.parse(partner.endpoint_id))
            assert "address" == (await refused(relationship, partner.bundle, public_only=True))[0]
        assert 0 == server.asked

    async def test_old_tls(self, server, partner):
        """An endpoint that speaks TLS 1.1 at most is refused."""
        server.tls = ssl.TLSVersion.TLSv1_1
        assert "tls" == (await refused(spiffe(server), partner.bundle))[0]
        assert 0 == server.asked

    async def test_no_proxy_of_the_environment(self, server, partner, monkeypatch):
        """A proxy that the environment names is not asked."""
        with BundleServer(partner.svid()) as proxy:
            for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url)
            await endpoints().fetch(spiffe(server), partner.bundle)
            assert (0, 1) == (proxy.asked, server.asked)
