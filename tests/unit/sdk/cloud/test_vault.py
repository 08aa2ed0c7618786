"""The way to a Vault: its token is added on the way, and is not told on the way back."""

import asyncio
import json
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fakes.cloudtask import SECRETS, VAULT, CloudTask, token
from harness.tlsplace import TlsPlace
from harness.vaultecho import Upstream, serving
from sojourn.errors import InvalidInput, Unavailable
from sojourn.sdk.cloud.endpoints import CloudEndpoints, running
from sojourn.sdk.cloud.vault import _without, trusted

TOKEN = "hvs.token-of-vault"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with serving(Upstream()) as running_one:
        yield running_one


def of(address: str, **details: str) -> CloudTask:
    return CloudTask(replace(VAULT, details={"address": address, "gives": "token", **details}))


@asynccontextmanager
async def client(task: CloudTask) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the endpoint of a task."""
    async with (
        running(task) as found,
        httpx.AsyncClient(base_url=found.environment["VAULT_ADDR"], trust_env=False) as http,
    ):
        yield http


@pytest.fixture
def task(upstream: Upstream) -> CloudTask:
    return of(upstream.address)


@pytest.fixture
async def endpoints(task: CloudTask) -> AsyncIterator[CloudEndpoints]:
    async with running(task) as found:
        yield found


@pytest.fixture
async def http(endpoints: CloudEndpoints) -> AsyncIterator[httpx.AsyncClient]:
    base = endpoints.environment["VAULT_ADDR"]
    async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
        yield client


async def sent(endpoints: CloudEndpoints, line: str) -> bytes:
    """The first line of the answer to a request with this line; SECRET in it is the path of the endpoint."""
    place, _, secret = endpoints.environment["VAULT_ADDR"].removeprefix("http://").partition("/")
    host, port = place.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{line.replace('SECRET', '/' + secret)} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
    answer = await reader.readline()
    writer.close()
    return answer


class TestOnTheWay:
    @pytest.mark.parametrize(
        "own", [{}, {"X-Vault-Token": "added-by-sojourn"}, {"Authorization": "Bearer added-by-sojourn"}]
    )
    async def test_the_token_is_added(self, upstream: Upstream, http: httpx.AsyncClient, own: dict[str, str]) -> None:
        """A request without a token, or with what VAULT_TOKEN has, gets the task's."""
        answer = await http.get("/v1/secret/data/x?version=2", headers=own)
        assert 200 == answer.status_code
        method, path, headers, _ = upstream.seen[0]
        assert ("GET", "/v1/secret/data/x?version=2", TOKEN) == (method, path, headers["x-vault-token"])
        assert upstream.address.removeprefix("http://") == headers["host"]
        assert "authorization" not in headers

    @pytest.mark.parametrize("own", [{"X-Vault-Token": "hvs.own"}, {"Authorization": "Bearer hvs.own"}])
    async def test_an_own_token(
        self, task: CloudTask, upstream: Upstream, http: httpx.AsyncClient, own: dict[str, str]
    ) -> None:
        """A request with a token of its own, such as one that wraps an answer, keeps it, and the task's is not asked for."""
        await http.get("/v1/sys/wrapping/unwrap", headers=own)
        headers = upstream.seen[0][2]
        assert "hvs.own" in (headers.get("x-vault-token"), headers.get("authorization", "").removeprefix("Bearer "))
        assert TOKEN not in headers.values()
        assert [] == task.asked

    async def test_methods_and_content(self, upstream: Upstream, http: httpx.AsyncClient) -> None:
        """Vault's methods go through, LIST too, with their content, whether its length is said or not."""

        async def parts() -> AsyncIterator[bytes]:
            yield b'{"a"'
            yield b": 1}"

        await http.request("LIST", "/v1/secret/metadata/")
        await http.put("/v1/secret/x", json={"a": 1})
        await http.request("DELETE", "/v1/secret/x")
        assert ["LIST", "PUT", "DELETE"] == [each[0] for each in upstream.seen]
        assert {"a": 1} == json.loads(upstream.seen[1][3])
        assert 1 == len({each[2]["x-vault-token"] for each in upstream.seen})

    async def test_namespace(self, upstream: Upstream) -> None:
        """The provider's namespace is meant, unless the client names one."""
        async with client(of(upstream.address, namespace="team-a")) as http:
            await http.get("/v1/x")
            await http.get("/v1/x", headers={"X-Vault-Namespace": "team-b"})
        assert ["team-a", "team-b"] == [each[2]["x-vault-namespace"] for each in upstream.seen]

    async def test_an_address_with_a_path(self, upstream: Upstream) -> None:
        """An address that ends with a path is the beginning of every path."""
        async with client(of(upstream.address + "/vaults/one/")) as http:
            await http.get("/v1/x")
        assert "/vaults/one/v1/x" == upstream.seen[0][1]

    @pytest.mark.parametrize("path", ["/", "/ui/", "/v2/x", "/v1"])
    async def test_elsewhere(self, upstream: Upstream, http: httpx.AsyncClient, path: str) -> None:
        """What is not Vault's API is not sent on."""
        answer = await http.get(path)
        assert (400, {"errors": ["Vault's API is below /v1/"]}) == (answer.status_code, answer.json())
        assert [] == upstream.seen

    @pytest.mark.parametrize("path", ["/v1/../ui", "/v1/%2e%2e/ui", "/v1/x/..%2F..%2Fother", "/v1/./x"])
    async def test_a_path_that_leads_out(self, upstream: Upstream, endpoints: CloudEndpoints, path: str) -> None:
        """A path with steps up or in place is not sent on: beside Vault, at the same address, may be others."""
        assert b" 400 " in await sent(endpoints, f"GET SECRET{path}")
        assert [] == upstream.seen

    @pytest.mark.parametrize("method", ["CONNECT", "TRACE", "trace", "TRACK"])
    async def test_methods_that_hand_back(self, upstream: Upstream, endpoints: CloudEndpoints, method: str) -> None:
        """There is no tunnel to Vault, and nothing by which a server before it would show the token."""
        assert b" 400 " in await sent(endpoints, f"{method} SECRET/v1/x")
        assert [] == upstream.seen

    async def test_the_unix_socket(self, upstream: Upstream, endpoints: CloudEndpoints) -> None:
        """Clients made of Vault's Go library come by a Unix socket that is the user's alone."""
        path = endpoints.environment["VAULT_AGENT_ADDR"].removeprefix("unix://")
        assert 0o600 == Path(path).stat().st_mode & 0o777
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=path)) as http:
            assert 200 == (await http.get("http://localhost/v1/x")).status_code
        assert TOKEN == upstream.seen[0][2]["x-vault-token"]


class TestOnTheWayBack:
    async def test_the_token_is_not_told(self, upstream: Upstream, http: httpx.AsyncClient) -> None:
        """An answer with the task's token in it has stars in its place, and is as long as before."""
        answer = await http.get("/v1/auth/token/lookup-self")
        assert TOKEN == upstream.seen[0][2]["x-vault-token"]
        assert "*" * len(TOKEN) == answer.json()["data"]["id"]

    @pytest.mark.parametrize(
        "path", ["token/lookup-self", "token/renew-self", "token//lookup-self", "%74oken/lookup", "token/renew"]
    )
    async def test_the_token_is_not_wrapped(self, upstream: Upstream, http: httpx.AsyncClient, path: str) -> None:
        """An answer that tells the token is not wrapped, as who unwraps it with what Vault gives would have it."""
        wrap = {"X-Vault-Wrap-TTL": "60s"}
        answer = await http.get(f"/v1/auth/{path}", headers=wrap)
        assert (400, []) == (answer.status_code, upstream.seen)
        assert 200 == (await http.get("/v1/secret/data/x", headers=wrap)).status_code

    async def test_errors(self, http: httpx.AsyncClient) -> None:
        """Vault's own answer comes back with its status."""
        assert 404 == (await http.get("/v1/missing")).status_code

    async def test_cut_short(self, http: httpx.AsyncClient) -> None:
        """An answer that is cut short is not made whole."""
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get("/v1/cut")

    async def test_nobody_there(self) -> None:
        """A Vault that gives no answer is named, in Vault's shape."""
        async with client(of("http://127.0.0.1:1")) as http:
            answer = await http.get("/v1/x")
        assert (502, ["the Vault at http://127.0.0.1:1 gives no answer: ConnectError"]) == (
            answer.status_code,
            answer.json()["errors"],
        )

    async def test_over(self, task: CloudTask, upstream: Upstream, endpoints: CloudEndpoints) -> None:
        """When the task is over nothing is sent on, and the answer says why, by both ways."""
        task.end("revoked", "admin")
        path = endpoints.environment["VAULT_AGENT_ADDR"].removeprefix("unix://")
        async with httpx.AsyncClient(trust_env=False) as http:
            answers = [await http.get(endpoints.environment["VAULT_ADDR"] + "/v1/x")]
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=path)) as http:
            answers.append(await http.get("http://localhost/v1/x"))
        assert 2 * [(403, ["task is revoked: admin"])] == [
            (each.status_code, each.json()["errors"]) for each in answers
        ]
        assert [] == upstream.seen

    async def test_no_token_of_a_vault(self, task: CloudTask, http: httpx.AsyncClient, upstream: Upstream) -> None:
        """What is no token of a Vault is sent to none."""
        task.given[SECRETS] = replace(token(VAULT), issued_type="")
        assert 503 == (await http.get("/v1/x")).status_code
        task.given[SECRETS] = Unavailable("the provider is down")
        assert 503 == (await http.get("/v1/x")).status_code
        assert [] == upstream.seen

    @pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 100])
    async def test_however_it_is_cut(self, size: int) -> None:
        """The token is found wherever the parts of an answer begin and end, and all else is as it was."""
        text = b"ababababc-abab-ab" * 3

        async def parts() -> AsyncIterator[bytes]:
            for at in range(0, len(text), size):
                yield text[at : at + size]

        made = b"".join([part async for part in _without(b"ababc", parts())])
        assert text.replace(b"ababc", b"*****") == made


async def test_many_at_a_time(endpoints: CloudEndpoints, upstream: Upstream) -> None:
    """Each thread of a program has its connection to Vault: slow answers to some keep nobody else waiting."""
    upstream.meet = threading.Barrier(24)
    base = endpoints.environment["VAULT_ADDR"]
    async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=30) as client:
        answers = await asyncio.gather(*(client.get("/v1/secret/together") for _ in range(24)))
    assert [200] * 24 == [answer.status_code for answer in answers]


class TestTrust:
    async def test_its_own_authority(self, tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
        """A Vault with a certificate of one's own authority is spoken to where VAULT_CACERT names that, and not without."""
        tls = TlsPlace(tmp_path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.chain, tls.key)
        upstream.socket = context.wrap_socket(upstream.socket, server_side=True)
        address = f"https://localhost:{upstream.server_port}"
        statuses = []
        for file in ("", str(tls.ca)):
            monkeypatch.setenv("VAULT_CACERT", file)
            async with client(of(address)) as http:
                statuses.append((await http.get("/v1/x")).status_code)
        assert [502, 200] == statuses

    def test_no_such_file(self) -> None:
        """A file that cannot be read is named."""
        with pytest.raises(InvalidInput, match="'/nowhere' cannot be read"):
            trusted({"VAULT_CACERT": "/nowhere"})

    async def test_no_address(self) -> None:
        """Without the address there is no way to it."""
        with pytest.raises(InvalidInput, match="does not say the address"):
            async with running(CloudTask(replace(VAULT, details={}))):
                pass
