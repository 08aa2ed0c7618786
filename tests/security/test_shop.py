"""docs/examples/shop: the same shop in FastAPI, behind Envoy, over gRPC and over MCP, attacked in every way that we know."""

import asyncio
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from harness import guide
from harness.agent import ROOT, AgentProcess
from harness.envoy import AGENT_SOCKET, Envoy, find_envoy, placed
from harness.looking import until
from harness.ports import free_port
from sojourn import SyncClient
from sojourn.errors import SojournError
from sojourn.errors.oauth import SendAgain
from sojourn.tasktoken import request_digest

for library in ("fastapi", "uvicorn", "mcp", "grpc_tools", "httpx2"):
    pytest.importorskip(library)

pytestmark = [pytest.mark.forked, pytest.mark.timeout(300)]
SHOP = ROOT / "docs" / "examples" / "shop"
PORTS = {"API": 8095, "ENVOY": 8096, "GRPC": 8097, "MCP": 8098, "BEHIND_ENVOY": 8094}
TASK = {"order": "O-1001", "cents": 2500}
REFUND = "/orders/O-1001/refunds"


@dataclass
class Shop:
    """The four twins, and a client of their agent."""

    agent: AgentProcess
    client: SyncClient
    folder: Path
    ports: dict[str, int]

    @property
    def api(self) -> str:
        return f"http://localhost:{self.ports['API']}"

    @property
    def envoy(self) -> str:
        return f"http://localhost:{self.ports['ENVOY']}"

    @property
    def grpc(self) -> str:
        return f"http://localhost:{self.ports['GRPC']}"

    @property
    def mcp(self) -> str:
        return f"http://localhost:{self.ports['MCP']}/mcp"

    def task(self) -> Any:
        return self.client.task("refund-order", params=TASK)

    def run(self, program: str, *arguments: str) -> str:
        command = [sys.executable, str(SHOP / program), *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, check=False)
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        return environment_of(self.agent, self.folder, self.ports)


def environment_of(agent: AgentProcess, folder: Path, ports: dict[str, int]) -> dict[str, str]:
    urls = {f"SHOP_{name}": f"http://localhost:{port}" for name, port in ports.items()}
    return {**agent.environment, **urls, "SHOP_MCP": urls["SHOP_MCP"] + "/mcp", "PYTHONPATH": str(folder)}


def with_ports(text: str, ports: dict[str, int]) -> str:
    for name, port in PORTS.items():
        text = text.replace(f":{port}", f":{ports[name]}").replace(f"port_value: {port}", f"port_value: {ports[name]}")
    return text


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    ports = {name: free_port() for name in PORTS}
    agent = AgentProcess(config=(SHOP / "agent.toml").read_text())
    shutil.copytree(SHOP / "types", agent.folder / "types")
    for file in (agent.folder / "types").glob("*.toml"):
        file.write_text(with_ports(file.read_text(), ports))
    arguments = [f"-I{SHOP}", f"--python_out={folder}", f"--grpc_python_out={folder}", "orders.proto"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True, timeout=60)
    sys.path.insert(0, str(folder))
    config = with_ports((SHOP / "envoy.yaml").read_text(), ports).replace(AGENT_SOCKET, agent.socket)
    with agent, ExitStack() as stack:
        stack.callback(sys.path.remove, str(folder))
        envoy = placed(find_envoy(), agent.folder / "envoy-shop")
        agent.register("/envoy/shop", f"unix:uid:{os.getuid()}", f"unix:path:{envoy}")
        agent.register("/agent/support", f"unix:uid:{os.getuid()}")
        environment = environment_of(agent, folder, ports)
        for program, name in (("api.py", "API"), ("grpc_api.py", "GRPC"), ("mcp_api.py", "MCP")):
            copied = folder / program
            shutil.copy(SHOP / program, copied)
            stack.enter_context(guide.running(copied, ports[name], environment))
        behind = folder / "behind.py"
        behind.write_text("import sys; sys.argv.append('--behind-envoy'); import api; api.main()")
        stack.enter_context(guide.running(behind, ports["BEHIND_ENVOY"], environment))
        stack.enter_context(Envoy(envoy, config, agent.folder / "envoy"))
        client = stack.enter_context(SyncClient(agent.socket))
        yield Shop(agent, client, folder, ports)


@pytest.fixture
def task(shop: Shop) -> Iterator[Any]:
    with shop.task() as begun:
        yield begun


@pytest.fixture(params=["api", "envoy"])
def http(request: pytest.FixtureRequest, shop: Shop, task: Any) -> Iterator[httpx.Client]:
    """A client with the task's authority: tokens and proofs are attached to what it sends, whatever that is."""
    with task.client(getattr(shop, request.param)) as client:
        yield client


def test_the_program(shop: Shop) -> None:
    """The example's own agent looks, refunds once, and is refused all else, at both of the twins that speak HTTP."""
    for url in (shop.api, shop.envoy):
        said = [line[:12].strip() + " " + line[13:17].strip() for line in shop.run("support.py", url).splitlines()]
        expected = ["look 200", "look again 200", "another one 403", "too much 403", "refund 200", "once more limi"]
        assert [*expected, "look 200"] == [
            each[: len(wanted)] for each, wanted in zip(said, [*expected, "look 200"], strict=True)
        ]


class TestAmount:
    @pytest.mark.parametrize(
        "content",
        [
            b'{"cents": 9900}',
            b'{"cents": "2500"}',
            b'{"cents": 2500.0}',
            b'{"cents": 25e2}',
            b'{"cents": true}',
            b'{"cents": null}',
            b'{"cents": [2500]}',
            b'{"Cents": 2500}',
            b'{"amount": 2500}',
            b'{"cents": 9900, "cents": 2500}',
            b'{"cents": 2500, "cents": 9900}',
            b'{"cents": 2500, "CENTS": 9900}',
            b'[{"cents": 2500}]',
            b"{",
            b"",
            b'\xef\xbb\xbf{"cents": 9900}',
            '{"cents": 2500}'.encode("utf-16"),
            '{"cents": 2500}'.encode("utf-32-le"),
            b'{"cents": 2500}{"cents": 9900}',
            b'{"cents": 2500} ' + b" " * 70_000,
        ],
        ids=lambda content: ascii(content[:28]),
    )
    def test_in_the_body(self, http: httpx.Client, content: bytes) -> None:
        """A refund whose body does not say the task's amount, just once and as JSON says it, is refused."""
        answer = http.post(REFUND, content=content, headers={"content-type": "application/json"})
        assert answer.status_code in ({200, 413} if len(content) > 65_536 else {400, 403}), answer.text
        if answer.status_code == 200:
            assert 2500 == answer.json()["refunded"]

    @pytest.mark.parametrize(
        ("headers", "pack"),
        [
            ({"content-encoding": "gzip"}, gzip.compress),
            ({"content-type": "application/x-www-form-urlencoded"}, bytes),
            ({"content-type": "text/plain"}, bytes),
            ({"content-type": "multipart/form-data; boundary=x"}, bytes),
            ({"content-type": "application/json; charset=utf-16"}, bytes),
        ],
    )
    def test_in_disguise(self, http: httpx.Client, headers: dict[str, str], pack: Callable[[bytes], bytes]) -> None:
        """A body that is packed, or said to be something else, is compared with nothing, and so refused."""
        sent = {"content-type": "application/json", **headers}
        assert http.post(REFUND, content=pack(b'{"cents": 2500}'), headers=sent).status_code in {400, 403}

    def test_beside_it(self, http: httpx.Client) -> None:
        """The task's amount in a query or a header does not help a body with another one."""
        answer = http.post(f"{REFUND}?cents=2500", json={"cents": 9900}, headers={"cents": "2500"})
        assert 403 == answer.status_code

    def test_in_parts(self, http: httpx.Client) -> None:
        """A body that comes in chunks is compared as a whole, and passes if that is the task's."""
        for cents, status in ((9900, 403), (2500, 200)):
            content = json.dumps({"cents": cents}).encode()

            def send(content: bytes = content) -> int:
                parts = iter([content[:5], content[5:]])
                try:
                    return http.post(REFUND, content=parts, headers={"content-type": "application/json"}).status_code
                except SendAgain:  # a nonce or an action is asked for, and parts that were sent are gone
                    return 0

            assert status == until(send, "it is judged")

    def test_changed_on_the_way(self, shop: Shop, task: Any) -> None:
        """A token for the refund of one body is of no use for another one, though both say the same amount."""
        url = f"{shop.api}{REFUND}"
        digest = request_digest.of_http("POST", REFUND, b'{"cents": 2500}')
        token = task.token(shop.api, ["refund:create"], bound="agent", params_digest=digest)

        def send(content: bytes) -> httpx.Response:
            headers = {
                "authorization": token.header,
                "dpop": task.proof("POST", url, token),
                "content-type": "application/json",
            }
            answer = httpx.post(url, content=content, headers=headers)
            if answer.headers.get("dpop-nonce"):
                headers["dpop"] = task.proof("POST", url, token, nonce=answer.headers["dpop-nonce"])
                answer = httpx.post(url, content=content, headers=headers)
            return answer

        assert 403 == send(b'{"cents":2500}').status_code
        assert 200 == send(b'{"cents": 2500}').status_code


class TestOrder:
    @pytest.mark.parametrize(
        "target",
        [
            "/orders/O-9999",
            "/orders/O-9999?order=O-1001",
            "/orders/O-9999?order_id=O-1001",
            "/orders/O-9999?order=O-1001&order=O-9999",
            "/orders/o-1001",
            "/orders/O-1001%00",
            "/orders/O-1001;O-9999",
            "/orders/O-1001%2F..%2FO-9999",
            "/orders/O-1001/../O-9999",
            "/orders?order=O-9999",
            "/orders?order=O-1001&order=O-9999",
            "/orders?order=O-9999&order=O-1001",
            "/orders?order=O-1001;order=O-9999",
            "/orders?Order=O-1001&order=O-9999",
            "/orders?order[]=O-9999&order=O-1001",
            "/orders?%6Frder=O-9999&order=O-1001",
            "/orders",
            "/orders?order",
            "/orders?order=",
        ],
    )
    def test_another_order(self, shop: Shop, task: Any, http: httpx.Client, target: str) -> None:
        """A look at another order, or at one that nobody can tell, is refused, however the order is written."""
        token = task.token(str(http.base_url).rstrip("/"), ["order:read"])
        request = httpx.Request("GET", str(http.base_url).rstrip("/") + "/", headers={"authorization": token.header})
        request.url = request.url.copy_with(raw_path=target.encode())
        with httpx.Client() as plain:
            assert plain.send(request).status_code in {400, 403}

    def test_in_the_body_of_a_look(self, http: httpx.Client) -> None:
        """A body of a look at the task's order cannot make it one at another."""
        for target in ("/orders/O-1001", "/orders?order=O-1001"):
            answer = http.request("GET", target, json={"order": "O-9999", "order_id": "O-9999"})
            assert (200, "O-1001") == (answer.status_code, answer.json()["order"])


class TestOpen:
    def test_routes_without_a_token(self, shop: Shop) -> None:
        """Health, the API's description and a browser's question need no token; nothing else does without one."""
        assert [200, 200] == [httpx.get(shop.api + path).status_code for path in ("/health", "/openapi.json")]
        assert 200 == httpx.get(shop.envoy + "/health").status_code
        asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
        assert 401 != httpx.options(shop.api + REFUND, headers=asked).status_code
        for url in (shop.api, shop.envoy):
            statuses = {httpx.request(method, url + REFUND).status_code for method in ("POST", "OPTIONS", "GET")}
            assert statuses == {401}


class TestGrpc:
    @pytest.fixture
    def stub(self, shop: Shop, task: Any) -> Iterator[Any]:
        import orders_pb2_grpc  # type: ignore[import-not-found]
        from sojourn.sdk.integrations.grpc_client import interceptors

        with grpc.insecure_channel(shop.grpc.removeprefix("http://")) as plain:
            yield orders_pb2_grpc.OrdersStub(grpc.intercept_channel(plain, *interceptors(task, shop.grpc)))

    def test_fields(self, stub: Any) -> None:
        """An order and an amount in fields of a message, also of one within it, are the task's, set or not."""
        import orders_pb2 as pb  # type: ignore[import-not-found]

        assert "O-1001" == stub.Read(pb.Order(id="O-1001")).id
        calls = [
            lambda: stub.Read(pb.Order(id="O-9999")),
            lambda: stub.Read(pb.Order()),
            lambda: stub.Refund(pb.RefundRequest(order=pb.Order(id="O-9999"), cents=2500)),
            lambda: stub.Refund(pb.RefundRequest(order=pb.Order(id="O-1001"), cents=9900)),
            lambda: stub.Refund(pb.RefundRequest(order=pb.Order(id="O-1001"))),
            lambda: stub.Refund(pb.RefundRequest(cents=2500)),
        ]
        for call in calls:
            with pytest.raises(grpc.RpcError) as refused:
                call()
            assert grpc.StatusCode.PERMISSION_DENIED == refused.value.code()
        assert 2500 == stub.Refund(pb.RefundRequest(order=pb.Order(id="O-1001"), cents=2500)).refunded


class TestMcp:
    def test_arguments(self, shop: Shop) -> None:
        """Tools are called with the task's order and amount, another name does not help, and those tools are listed."""
        import httpx2
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client
        from sojourn import Client as Agent
        from sojourn.sdk.integrations.mcp_client import McpAuth

        async def tried() -> tuple[list[str], list[bool]]:
            async with (
                Agent(shop.agent.socket) as agent,
                agent.task("refund-order", params=TASK) as task,
                httpx2.AsyncClient(auth=McpAuth(task)) as http,
                Client(streamable_http_client(shop.mcp, http_client=http)) as client,
            ):
                listed = [each.name for each in (await client.list_tools()).tools]

                async def passes(tool: str, **arguments: Any) -> bool:
                    try:
                        await client.call_tool(tool, arguments)
                    except Exception:
                        return False
                    return True

                done = [
                    await passes("read_order", order_id="O-9999"),
                    await passes("read_order", order_id="O-9999", order="O-1001"),
                    await passes("refund_order", order_id="O-1001", cents=9900),
                    await passes("refund_order", order_id="O-1001", cents="2500"),
                    await passes("refund_order", cents=2500),
                    await passes("drop_orders"),
                    await passes("read_order", order_id="O-1001"),
                    await passes("refund_order", order_id="O-1001", cents=2500),
                ]
                return listed, done

        listed, done = asyncio.run(tried())
        assert ["read_order", "refund_order"] == listed
        assert [False] * 6 + [True] * 2 == done

    def test_a_list_spends_nothing(self, shop: Shop) -> None:
        """A task that may refund and not look is shown the refund, as often as it asks, and then makes it."""
        import httpx2
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client
        from sojourn import Client as Agent
        from sojourn import Grant
        from sojourn.sdk.integrations.mcp_client import McpAuth

        async def tried() -> list[str]:
            async with (
                Agent(shop.agent.socket) as agent,
                agent.task("refund-order", params=TASK, grants=[Grant(shop.mcp, ("refund:create",))]) as task,
                httpx2.AsyncClient(auth=McpAuth(task)) as http,
                Client(streamable_http_client(shop.mcp, http_client=http)) as client,
            ):
                listed = [each.name for _ in range(3) for each in (await client.list_tools()).tools]
                await client.call_tool("refund_order", {"order_id": "O-1001", "cents": 2500})
                return listed

        assert ["refund_order"] * 3 == asyncio.run(tried())


class TestOnce:
    def test_fifty_racers(self, shop: Shop, task: Any) -> None:
        """Of fifty refunds at once, at the API and behind Envoy, by clients of their own, exactly one passes."""
        for url in (shop.api, shop.envoy):  # a look before does not spend it
            with task.client(url) as client:
                assert 200 == client.get("/orders/O-1001").status_code

        def refund(number: int) -> bool:
            with task.client((shop.api, shop.envoy)[number % 2], timeout=60) as client:
                try:
                    return client.post(REFUND, json={"cents": 2500}).status_code == 200
                except SojournError:  # the agent gives no more tokens for it
                    return False

        with ThreadPoolExecutor(50) as pool:
            assert 1 == sum(pool.map(refund, range(50)))
        with task.client(shop.api) as client:
            assert 200 == client.get("/orders/O-1001").status_code


class TestRecord:
    def test_what_was_done_and_tried(self, shop: Shop) -> None:
        """The journal has the refund with its amount before the task's end, and what was tried at others' orders."""
        with shop.task() as task:
            with task.client(shop.api, actions=["refund:create"]) as client:
                assert 200 == client.post(REFUND, json={"cents": 2500}).status_code
            with task.client(shop.api, actions=["order:read"]) as client:
                assert 403 == client.get("/orders/O-9999").status_code
        # In the journal only so many refusals of a minute stand one by one, and the attacks above are many.
        shown = until(lambda: found(shop.agent.json("task", "show", task.id)), "what was refused is told")
        (refused,) = shown["refusals"]
        assert (1, "wrong_params", "GET", "/orders/O-9999") == (
            shown["refused"],
            refused["code"],
            refused["method"],
            refused["target"],
        )
        records = shop.agent.json("task", "why", task.id)["records"]
        events = [each["event"] for each in records]
        assert events.index("token_used") < events.index("task_ended")
        used = next(each for each in records if each["event"] == "token_used")["fields"]
        assert ("POST", REFUND, TASK) == (used["method"], used["target"], used["params"])


def found(task: Any) -> Any:
    """The task, once something that was refused of it is known."""
    return task if task["refused"] else None
