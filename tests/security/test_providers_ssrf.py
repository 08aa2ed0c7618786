"""Providers are asked at public addresses or at those that are allowed, by whatever URL, and nowhere else (SSRF)."""

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from fakes.mints import FakeMint, wanted
from harness.authserver import AuthServer, redirect
from harness.tlsplace import TlsPlace
from sojourn.httpclient import lookups
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.guarded_http import GuardedHttp
from sojourn.providers.loader import load_providers
from sojourn.providers.provider import ProviderTable

LOOPBACK = ["127.0.0.0/8", "::1/128"]
PRIVATE = [
    *(
        "10.0.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "0.0.0.0",
        "168.63.129.16",
    ),
    *("[::1]", "[::]", "[fe80::1]", "[fd00:ec2::254]", "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[::127.0.0.1]"),
    *("[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]", "224.0.0.1", "255.255.255.255"),
]


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """All addresses that sockets were connected to."""
    made: list[tuple[Any, ...]] = []

    async def noted(self: asyncio.AbstractEventLoop, sock: socket.socket, address: tuple[Any, ...]) -> Any:
        made.append(address)
        return await kept(self, sock, address)

    kept = asyncio.selector_events.BaseSelectorEventLoop.sock_connect
    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", noted)
    return made


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Gives a name addresses, those of the first lookup, of the second, and so on; returns the names looked up."""
    answers: dict[str, list[list[str]]] = {}
    asked: list[str] = []

    def resolve(host: str, port: int, *_: object, **__: object) -> list[tuple[Any, ...]]:
        asked.append(host)
        lists = answers.get(host)
        if not lists:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        found = lists.pop(0) if len(lists) > 1 else lists[0]
        return [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in found
        ]

    monkeypatch.setattr(lookups.socket, "getaddrinfo", resolve)

    def name(host: str, *lists: list[str]) -> list[str]:
        answers[host] = list(lists)
        return asked

    return name


def http(**more: Any) -> GuardedHttp:
    return GuardedHttp(ProviderTable(kind="x", timeout="3s", **more))


async def refused(made: GuardedHttp, url: str) -> ProviderUnavailable:
    with pytest.raises(ProviderUnavailable) as error:
        await made.get(url, step="probe")
    await made.close()
    assert not error.value.sent
    assert ("probe", "address") == (error.value.step, error.value.at)
    return error.value


class TestAddresses:
    @pytest.mark.parametrize("host", PRIVATE)
    @pytest.mark.parametrize("scheme", ["https", "http"])
    async def test_not_public(self, host: str, scheme: str, connected: list[Any]) -> None:
        """No address of this host, its networks or its cloud is connected to, in whatever form it is written."""
        await refused(http(), f"{scheme}://{host}:8443/")
        assert [] == connected

    @pytest.mark.parametrize(
        "host", [each for each in PRIVATE if each not in {"127.0.0.1", "[::1]", "0.0.0.0", "[::]"}]
    )
    async def test_plain_http_opens_loopback_alone(self, host: str, connected: list[Any]) -> None:
        """`plain_http` lets http:// go to this host, and no further; https:// it does not change."""
        await refused(http(plain_http=True), f"http://{host}:8080/")
        await refused(http(plain_http=True), "https://127.0.0.1:8443/")
        assert [] == connected

    async def test_allowed_networks_want_tls(self, connected: list[Any]) -> None:
        """A private network that is allowed is not asked over plain http."""
        await refused(http(private_networks=["10.0.0.0/8", *LOOPBACK]), "http://10.0.0.1:8080/")
        await refused(http(private_networks=["10.0.0.0/8", *LOOPBACK]), "http://127.0.0.1:8080/")
        assert [] == connected

    @pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::a00:1", "::1"])
    async def test_by_name(self, address: str, names: Callable[..., list[str]], connected: list[Any]) -> None:
        """A name that leads to such an address is refused when it is connected to, and the address is told."""
        names("idp.example.org", [address])
        error = await refused(http(), "https://idp.example.org/")
        assert str(ip_address(address)) in error.public
        assert "private_networks" in error.hint
        assert [] == connected

    async def test_good_and_bad(self, names: Callable[..., list[str]], connected: list[Any]) -> None:
        """Of a name that leads to good addresses and bad ones the bad ones are not connected to."""
        names("localhost.example.org", ["10.255.0.1", "127.0.0.1"])
        made = http(private_networks=["127.0.0.0/8"])
        with pytest.raises(ProviderUnavailable):
            await made.get("https://localhost.example.org:1999/", step="s")
        await made.close()
        assert [("127.0.0.1", 1999)] == [each[:2] for each in connected]

    async def test_what_was_looked_at_is_connected_to(
        self, names: Callable[..., list[str]], connected: list[Any], tmp_path: Path
    ) -> None:
        """A name that leads elsewhere a moment later (DNS rebinding) changes nothing: there is one lookup a connection."""
        place = TlsPlace(tmp_path, name="idp.example.org")
        with AuthServer(tls=place, host="idp.example.org") as server:
            asked = names("idp.example.org", ["127.0.0.1"], ["10.0.0.1"])
            made = http(private_networks=["127.0.0.0/8"], ca=place.ca)
            assert 200 == (await made.get(f"{server.issuer}/.well-known/openid-configuration", step="s")).status
            assert ["idp.example.org"] == asked
            assert [("127.0.0.1", server.port)] == [each[:2] for each in connected]
            await made.close()
            await refused(made, server.issuer)
            assert 1 == len(connected)

    async def test_no_such_name(self, names: Callable[..., list[str]]) -> None:
        """A name that there is not is told as that."""
        names("other.example.org", ["8.8.8.8"])
        assert "has no address" in (await refused(http(), "https://idp.example.org/")).public


class TestDocuments:
    @pytest.mark.parametrize(
        "endpoint",
        [
            "https://169.254.169.254/latest/meta-data",
            "https://10.0.0.1:8443/token",
            "https://[::ffff:10.0.0.1]/token",
            "http://10.0.0.1:8080/token",
            "http://metadata.google.internal/computeMetadata",
        ],
    )
    async def test_endpoints_that_lead_inward(self, endpoint: str, connected: list[Any]) -> None:
        """A discovery document sends no JWT-SVID to an address that the configuration does not allow."""
        with AuthServer() as server:
            server.metadata_changes = {"token_endpoint": endpoint}
            made = load_providers({"a": {"kind": "oidc", "issuer": server.issuer, "plain_http": True}})["a"]
            ask = made.read_ask({}, ("a",))
            with pytest.raises(ProviderUnavailable):
                await made.exchange(wanted(ask, "a"), FakeMint())
            await made.close()
            assert {("127.0.0.1", server.port)} == {each[:2] for each in connected}

    async def test_revocation_that_leads_inward(self, connected: list[Any]) -> None:
        """A discovery document sends no token, to be revoked, to an address that the configuration does not allow."""
        with AuthServer() as server:
            server.metadata_changes = {"revocation_endpoint": "https://10.0.0.1/revoke"}
            made = load_providers({"a": {"kind": "oidc", "issuer": server.issuer, "plain_http": True}})["a"]
            with pytest.raises(ProviderUnavailable):
                await made.server.revoke(["token"], FakeMint())
            await made.close()
            assert {("127.0.0.1", server.port)} == {each[:2] for each in connected}

    @pytest.mark.parametrize("code", [301, 302, 303, 307, 308, 300, 304])
    async def test_redirects_are_not_followed(self, code: int, connected: list[Any]) -> None:
        """An answer that leads elsewhere is an error that names the host alone, and takes nothing there."""
        with AuthServer() as server, AuthServer() as other:
            server.script("token", redirect(f"{other.issuer}/token?code=s3cret", code))
            made = http(plain_http=True)
            with pytest.raises(ProviderUnavailable) as error:
                await made.post_form(server.token_endpoint, {"assertion": "s3cret"}, step="exchange")
            await made.close()
            assert [] == other.calls("token")
        assert f"127.0.0.1:{other.port}" in error.value.public
        assert "s3cret" not in error.value.public + error.value.detail


class TestEnvironment:
    async def test_no_proxies(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No proxy and no password of the environment is used."""
        with AuthServer() as server, AuthServer() as proxy:
            for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.origin)
            made = http(plain_http=True)
            await made.get(f"{server.issuer}/.well-known/openid-configuration", step="s")
            await made.close()
            assert 1 == len(server.calls("metadata"))
            assert "authorization" not in server.calls("metadata")[0].headers
            assert [] == proxy.calls("metadata")
