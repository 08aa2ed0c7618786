"""docs/services.md: each of its programs runs as printed, against a real agent, and refuses what the guide says it does."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from fakes.services import Ticket
from harness import guide
from harness.agent import AgentProcess
from harness.looking import until
from harness.ports import free_port
from harness.taskagent import write_type
from sojourn import SyncClient
from sojourn.sdk.client.sync import SyncTask
from sojourn.tasktoken import request_digest

HTTP = {
    "tickets_fastapi.py": "fastapi",
    "tickets_starlette.py": "starlette",
    "tickets_litestar.py": "litestar",
    "tickets_flask.py": "flask",
    "tickets_django.py": "django",
}
SERVERS = {**HTTP, "tickets_grpc.py": "grpc_tools", "tickets_mcp.py": "mcp"}
CALLER = "spiffe://example.org/agent/triage"
HIGH = """
allowed_workloads = ["{caller}"]
consequence = "high"
[params]
ticket = "string"
[[ceiling]]
resource = "http://127.0.0.1:{port}"
actions = ["ticket:read"]
[[ceiling]]
resource = "http://127.0.0.1:{port}/mcp"
actions = ["ticket:read"]
"""


@dataclass(frozen=True)
class Place:
    """Where the guide was followed up to its servers."""

    agent: AgentProcess
    folder: Path
    port: int
    client: SyncClient
    nonces: list[str] = field(default_factory=list)  # that services asked for, the newest at the end

    def note(self, nonce: str | None) -> None:
        """As a client of DPoP does: the next proof has the nonce of the last answer (RFC 9449, 8)."""
        if nonce:
            self.nonces.append(nonce)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return guide.environment_of(self.agent.environment)

    def run(self, program: str) -> list[str]:
        return guide.run(self.folder / program, self.environment).splitlines()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder, port = tmp_path_factory.mktemp("guide"), free_port()
    guide.write(folder, port)
    cedar = (folder / "task-types" / "read-ticket.cedar").read_text().replace('"read-ticket"', '"read-high"')
    write_type(folder / "task-types", "read-high", HIGH.format(caller=CALLER, port=port), cedar)
    agent = AgentProcess()
    agent.config = folder / "agent.toml"
    with agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        with SyncClient(agent.socket) as client:
            yield Place(agent, folder, port, client)


@pytest.fixture(scope="class", params=sorted(SERVERS))  # all are at one port
def server(request: pytest.FixtureRequest, place: Place) -> Iterator[str]:
    program: str = request.param
    pytest.importorskip(SERVERS[program])
    if program == "tickets_grpc.py":
        generate(place.folder)
    with guide.running(place.folder / program, place.port, place.environment):
        yield program


def generate(folder: Path) -> None:
    """As the guide has it, once."""
    if not (folder / "tickets_pb2_grpc.py").exists():
        arguments = [f"--{each}_out=." for each in ("python", "grpc_python")]
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *arguments, "tickets.proto"]
        subprocess.run(command, cwd=folder, check=True, timeout=60)


# --- calls, each as the server's clients make it; the outcome as HTTP has it ---

Call = Callable[[Place, dict[str, str], str, str], int]


def call_http(place: Place, headers: dict[str, str], method: str, ticket: str) -> int:
    answer = httpx.request(method, f"{place.url}/tickets/{ticket}", headers=headers, timeout=30)
    place.note(answer.headers.get("dpop-nonce"))
    return 403 if answer.status_code == 405 else answer.status_code


def call_grpc(place: Place, headers: dict[str, str], method: str, ticket: str) -> int:
    name = {"GET": "Read", "DELETE": "Delete"}[method]
    metadata = [(each.lower(), value) for each, value in headers.items()]
    with grpc.insecure_channel(f"127.0.0.1:{place.port}") as channel:
        call = channel.unary_unary(f"/tickets.v1.Tickets/{name}", Ticket.SerializeToString, Ticket.FromString)
        try:
            assert "for " in call(Ticket(ticket=ticket), metadata=metadata, timeout=30).text
        except grpc.RpcError as error:
            place.note(dict(error.trailing_metadata()).get("dpop-nonce"))  # type: ignore[attr-defined]
            return {"UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403}[error.code().name]  # type: ignore[attr-defined]
    return 200


def call_mcp(place: Place, headers: dict[str, str], method: str, ticket: str) -> int:
    name = {"GET": "read_ticket", "DELETE": "delete_ticket"}[method]
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call",
               "params": {"name": name, "arguments": {"ticket": ticket}, "_meta": META}}  # fmt: skip
    more = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": VERSION,
            "Mcp-Method": "tools/call", "Mcp-Name": name}  # fmt: skip
    answer = httpx.post(f"{place.url}/mcp", json=message, headers={**headers, **more}, timeout=30)
    place.note(answer.headers.get("dpop-nonce"))
    if answer.status_code == 200:
        assert f"ticket {ticket}, for {CALLER}" in answer.text
    return answer.status_code


VERSION = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}}


@dataclass(frozen=True)
class Kind:
    call: Call
    resource: str  # behind the origin
    proof: tuple[str, str]  # method, and path behind the origin
    digest: str  # of reading ticket 42


def kind_of(server: str) -> Kind:
    if server == "tickets_grpc.py":
        name = "/tickets.v1.Tickets/Read"
        message = Ticket(ticket="42").SerializeToString()
        return Kind(call_grpc, "", ("POST", name), request_digest.of_grpc(name, message))
    if server == "tickets_mcp.py":
        return Kind(call_mcp, "/mcp", ("POST", "/mcp"), request_digest.of_tool("read_ticket", {"ticket": "42"}))
    return Kind(call_http, "", ("GET", "/tickets/42"), request_digest.of_http("GET", "/tickets/42", b""))


class Caller:
    """Has tokens of a task, and calls with them."""

    def __init__(self, place: Place, server: str, task: SyncTask) -> None:
        self.place, self.task, self.kind = place, task, kind_of(server)

    def token(self, **options: Any) -> Any:
        return self.task.token(self.place.url + self.kind.resource, **options)

    def call(self, token: Any, method: str = "GET", ticket: str = "42") -> int:
        return self.kind.call(self.place, {"Authorization": token.header}, method, ticket)

    def proved(self, token: Any, ticket: str = "42") -> dict[str, str]:
        method, path = self.kind.proof
        path = path.replace("42", ticket)
        nonce = self.place.nonces[-1] if self.place.nonces else None
        return {"Authorization": token.header, "DPoP": self.task.proof(method, self.place.url + path, token, nonce)}


@pytest.fixture
def caller(place: Place, server: str) -> Iterator[Caller]:
    with place.client.task("read-ticket", params={"ticket": "42"}) as task:
        yield Caller(place, server, task)


@pytest.mark.forked
def test_a_shop(place: Place) -> None:
    """The guide's shop refunds the amount of the task on its order and reads that order, and nothing else."""
    pytest.importorskip("fastapi")
    with guide.running(place.folder / "shop_fastapi.py", place.port, place.environment):
        assert [
            "{'order': 'O-1001', 'refunded': 2500}",
            "403",
            "{'order': 'O-1001'} {'found': 'O-1001'}",
            "403 403",
        ] == place.run("call_shop.py")


@pytest.mark.forked
def test_a_websocket(place: Place) -> None:
    """The guide's WebSocket is open for the task's ticket alone, and closed with the task's end and its reason."""
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx_ws")
    with guide.running(place.folder / "live_fastapi.py", place.port, place.environment):
        assert ["ticket 42 is open", "403", "1008 the task is over: completed: success"] == place.run("call_live.py")


def test_tests_without_an_agent(place: Place) -> None:
    """The guide's tests of a guarded service pass where no agent is, and fail for a service that has no guard."""
    pytest.importorskip("fastapi")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_tickets.py"]
    environment = {"PATH": os.environ["PATH"]}

    def tests() -> str:
        return subprocess.run(
            command, cwd=place.folder, env=environment, capture_output=True, text=True, timeout=120
        ).stdout

    assert "2 passed" in tests()
    service = place.folder / "tickets_fastapi.py"
    guarded = service.read_text()
    service.write_text(guarded.replace("app.add_middleware(\n    TaskTokenMiddleware,", "dict("))
    try:
        assert "2 failed" in tests()
    finally:
        service.write_text(guarded)


class TestServers:
    def test_what_the_task_allows(self, caller: Caller) -> None:
        """A service serves the action of the token, for the ticket of its task, and knows who calls."""
        assert 200 == caller.call(caller.token())

    def test_no_token(self, place: Place, server: str) -> None:
        """The guide's service answers 401 without a token."""
        assert 401 == kind_of(server).call(place, {}, "GET", "42")

    def test_another_action(self, caller: Caller) -> None:
        """The guide's service answers 403 to an action that the token has not, or that there is none of."""
        assert 403 == caller.call(caller.token(), "DELETE")

    @pytest.mark.forked
    def test_another_ticket(self, caller: Caller) -> None:
        """The guide's service answers 403 for another ticket's number."""
        assert 403 == caller.call(caller.token(), ticket="43")

    def test_another_audience(self, caller: Caller) -> None:
        """The guide's service answers 401 to a token that is for another service of the same task."""
        other = "" if caller.kind.resource else "/mcp"
        assert 401 == caller.call(caller.task.token(caller.place.url + other))

    def test_a_bound_token(self, caller: Caller) -> None:
        """A token that is bound to the task's key in the agent is good with a proof, once, and not without."""
        token = caller.token(bound="agent")

        def prove() -> dict[str, str] | None:
            given = caller.proved(token)  # in its first minute a guard asks for a nonce
            return given if caller.kind.call(caller.place, given, "GET", "42") == 200 else None

        given = until(prove, "the proof is good")
        assert 401 == caller.kind.call(caller.place, given, "GET", "42")
        bare = {"Authorization": f"Bearer {token.token}"}
        assert 401 == caller.kind.call(caller.place, bare, "GET", "42")

    def test_an_ended_task(self, place: Place, server: str) -> None:
        """The guide's service answers 401 once the task has ended."""
        with place.client.task("read-ticket", params={"ticket": "42"}) as task:
            caller = Caller(place, server, task)
            token = caller.token()
            assert 200 == caller.call(token)
        until(lambda: caller.call(token) == 401, "the token is dead")

    def test_good_once(self, place: Place, server: str) -> None:
        """A token of class high is good for its one request, once."""
        with place.client.task("read-high", params={"ticket": "42"}) as task:
            caller = Caller(place, server, task)

            def prove() -> Any:
                token = caller.token(bound="agent", params_digest=caller.kind.digest)
                return token if caller.kind.call(place, caller.proved(token), "GET", "42") == 200 else None

            token = until(prove, "it is good")
            assert 401 == caller.kind.call(place, caller.proved(token), "GET", "42")
            other = caller.token(bound="agent", params_digest=caller.kind.digest)
            assert 403 == caller.kind.call(place, caller.proved(other, "43"), "GET", "43")

    def test_use_is_counted(self, caller: Caller) -> None:
        """The agent counts what was let through as use of the task."""
        assert 200 == caller.call(caller.token())

        def calls() -> int:
            tasks = caller.place.agent.json("task", "list")["tasks"]
            return next(int(each["calls"]) for each in tasks if each["id"] == caller.task.id)

        assert 1 == until(calls, "the call is counted")


def test_routes_without_a_token(place: Place) -> None:
    """The guide's service in FastAPI tells everybody of its health and its API, and answers a browser's question."""
    pytest.importorskip("fastapi")
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}
    with guide.running(place.folder / "tickets_fastapi.py", place.port, place.environment):
        assert {"status": "well"} == httpx.get(place.url + "/health").json()
        assert 200 == httpx.get(place.url + "/openapi.json").status_code
        assert 405 == httpx.options(place.url + "/tickets/42", headers=asked).status_code  # by the framework
        assert 401 == httpx.options(place.url + "/tickets/42").status_code


@pytest.mark.parametrize("task_type", ["read-ticket", "read-high"])
class TestClients:
    """The guide's own clients, each beside the server that it is for: also with tokens that are good for one request."""

    @pytest.fixture
    def printed(self, place: Place, task_type: str) -> Callable[[str, str], list[str]]:
        def both(server: str, client: str) -> list[str]:
            text = (place.folder / client).read_text()
            assert '"read-ticket"' in text
            program = place.folder / f"{task_type}_{client}"
            program.write_text(text.replace('"read-ticket"', f'"{task_type}"'))
            if not server:
                return place.run(program.name)
            pytest.importorskip(SERVERS[server])
            with guide.running(place.folder / server, place.port, place.environment):
                return place.run(program.name)

        return both

    @pytest.mark.forked
    def test_http(self, printed: Callable[[str, str], list[str]]) -> None:
        """call_http.py prints what the guide says."""
        ticket, *rest = printed("tickets_fastapi.py", "call_http.py")
        assert ("42" in ticket, ["403", "403"]) == (True, rest)

    def test_grpc(self, place: Place, printed: Callable[[str, str], list[str]]) -> None:
        """call_grpc.py prints what the guide says."""
        pytest.importorskip("grpc_tools")
        generate(place.folder)
        assert [f"for {CALLER}", "PERMISSION_DENIED"] == printed("tickets_grpc.py", "call_grpc.py")

    @pytest.mark.forked
    def test_mcp(self, printed: Callable[[str, str], list[str]]) -> None:
        """call_mcp.py prints what the guide says."""
        ticket, *rest = printed("tickets_mcp.py", "call_mcp.py")
        assert f"ticket 42, for {CALLER}" == ticket
        assert "refused: token is for another 'ticket' than the request is" == rest[0]
        assert rest[1].startswith("refused: ")
        assert "ticket:delete" in rest[1]

    @pytest.mark.forked
    def test_mcp_of_before(self, place: Place, printed: Callable[[str, str], list[str]]) -> None:
        """A client of the protocol with sessions, which holds a stream open, gets the same."""
        text = (place.folder / "call_mcp.py").read_text()
        assert "http_client=http))" in text
        old = place.folder / "call_old_mcp.py"
        old.write_text(text.replace("http_client=http))", 'http_client=http), mode="legacy")'))
        ticket, *rest = printed("tickets_mcp.py", old.name)
        assert (f"ticket 42, for {CALLER}", 2) == (ticket, len(rest))

    @pytest.mark.forked
    def test_mcp_stdio(self, printed: Callable[[str, str], list[str]]) -> None:
        """call_mcp_stdio.py prints what the guide says."""
        pytest.importorskip("mcp")
        ticket, refusal = printed("", "call_mcp_stdio.py")
        assert ("ticket 42", True) == (ticket, refusal.startswith("refused: token is for another 'ticket'"))

    def test_a_tool(self, printed: Callable[[str, str], list[str]]) -> None:
        """call_tool.py prints what the guide says."""
        ticket, refusal = printed("", "call_tool.py")
        assert ("ticket 42", "read_ticket was not called: its task is for another 'ticket'") == (ticket, refusal)


@pytest.mark.forked
class TestCommands:
    @pytest.mark.curl
    def test_through_the_proxy(self, place: Place) -> None:
        """curl reads its ticket through the task's own proxy, and no other."""
        command = ["task", "run", "--type", "read-ticket", "--param", "ticket=42", "--proxy", "--", "curl", "-s"]
        with guide.running(place.folder / "tickets_starlette.py", place.port, place.environment):
            read = place.agent.run(*command, f"{place.url}/tickets/42")
            assert {"ticket": "42", "for": CALLER} == json.loads(read.stdout)
            other = place.agent.run(*command, f"{place.url}/tickets/43")
            assert "insufficient_scope" == json.loads(other.stdout)["error"]


def test_nothing_is_left_out() -> None:
    """Every program of the guide is run by a test here."""
    clients = {"call_http.py", "call_grpc.py", "call_mcp.py", "call_mcp_stdio.py", "call_tool.py"}
    others = {
        "tickets_mcp_stdio.py",
        "shop_fastapi.py",
        "call_shop.py",
        "live_fastapi.py",
        "call_live.py",
        "test_tickets.py",
    }
    programs = {name for name in guide.files() if name.endswith(".py")}
    assert programs == {*SERVERS, *clients, *others}
