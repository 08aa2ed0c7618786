"""The guards of MCP servers: what is a message, what needs which token, and what is handed on."""

import asyncio
import contextlib
import http.client
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import services
from fakes.guarded import AUDIENCE, Credentials, agent_at, token
from fakes.services import McpService
from fakes.task_feed import HOLDER
from sojourn.errors import InvalidInput
from sojourn.limits import GUARDED_CONTENT_MAX_BYTES
from sojourn.sdk.integrations.mcp_messages import AUTHORIZATION_KEY, call_of, meta_of, read
from sojourn.tasktoken import request_digest

pytest.importorskip("mcp")

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context
from sojourn.sdk.guard.serving_token import serving_token
from sojourn.sdk.integrations.mcp_server import REFUSED, McpGuard, McpStdioGuard, TaskTokenVerifier

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read_ticket", "arguments": {}}}


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("agent") / "agent.sock"
    with agent_at(path):
        yield path


@pytest.fixture(scope="module")
def service(socket: Path) -> Iterator[McpService]:
    with services.mcp_service(socket) as running:
        yield running


class TestMessages:
    def test_a_call(self) -> None:
        """A call of a tool is its name and arguments, without what is for the way."""
        params = {"name": "a", "arguments": {"x": 1}, "_meta": {"progressToken": 1}}
        call = read(json.dumps({**CALL, "params": params}).encode())
        assert ("tools/call", "a", {"x": 1}) == (call.method, call.tool, call.arguments)
        assert request_digest.of_tool("a", {"x": 1}) == call.digest

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b'"x"',
            json.dumps([CALL]).encode(),
            b'{"method": "ping", "method": "tools/call"}',
            b'{"method": "tools/call", "params": {"name": "a", "name": "b"}}',
            b'{"method": "tools/call", "params": {"name": "a", "arguments": {"ticket": "42", "ticket": "43"}}}',
            b'{"method": "tools/call", "params": {"name": "a", "arguments": []}}',
            b'{"method": "tools/call", "params": {"arguments": {}}}',
            b'{"method": "tools/call", "params": {"name": ""}}',
            b'{"method": "tools/call", "params": [1]}',
            b'{"method": ["tools/call"]}',
            b'{"id": 1}',
            b'{"method": "ping", "params": {"x": NaN}}',
            b'{"method": "ping", "params": {"x": 1e999}}',
            b'\xef\xbb\xbf{"method": "ping"}',
            '{"method": "ping"}'.encode("utf-16"),
            b'{"method": "ping"}\xff',
            b'{"a":' * 5_000,
        ],
    )
    def test_what_is_none(self, content: bytes) -> None:
        """What two parsers might read in two ways, or what is no message, is refused."""
        with pytest.raises(InvalidInput):
            read(content)

    def test_what_goes_along(self) -> None:
        """What goes along with a message is an object, or the message is refused."""
        assert [{"a": 1}, {}, {}] == [meta_of({"_meta": {"a": 1}}), meta_of({}), meta_of(None)]
        with pytest.raises(InvalidInput, match="_meta"):
            meta_of({"_meta": ["sojourn/authorization"]})

    def test_a_prompt(self) -> None:
        """The digest of what gets a prompt has the prompt's name."""
        digests = {call_of("prompts/get", {"name": name, "arguments": {"x": "1"}}).digest for name in ("a", "b")}
        assert 2 == len(digests - {""})

    def test_no_digest(self) -> None:
        """Arguments with a fraction have no digest, so that no token of one request is for them."""
        assert "" == call_of("tools/call", {"name": "a", "arguments": {"x": 0.5}}).digest


class TestOverHttp:
    @pytest.mark.parametrize("method", ["ping", "tools/list"])
    def test_a_greeting(self, service: McpService, method: str) -> None:
        """What comes before a call needs a token that is good here, for whatever it is."""
        assert 200 == service.say(method, {}, Credentials.bearer(token(actions=("ticket:other",)))).status
        assert 401 == service.say(method, {}, Credentials()).status
        assert 401 == service.say(method, {}, Credentials.bearer(token(task="gone"))).status

    @pytest.mark.parametrize("method", ["resources/read", "prompts/get", "completion/complete", "x", "tools/call "])
    def test_another_method(self, service: McpService, method: str) -> None:
        """What may read as much as a tool does is refused, as nobody said which action it is."""
        outcome = service.say(method, {"name": "a", "uri": "x://y"}, Credentials.bearer(token()))
        assert (403, "insufficient_scope") == (outcome.status, outcome.error)

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    def test_a_stream(self, service: McpService, method: str) -> None:
        """Streams of answers are for who has a good token."""
        assert 401 == service.send(b"", Credentials(), method=method).status
        assert 401 == service.send(b"", Credentials.bearer(token(task="gone")), method=method).status

    def test_a_stream_that_is_taken_up_again(self, service: McpService) -> None:
        """Nothing is told again by a number: a store of events may have another's answers under it."""
        for name in ("Last-Event-ID", "last-event-id"):
            outcome = service.send(b"", Credentials([*Credentials.bearer(token()).headers, (name, "1")]), method="GET")
            assert (403, "insufficient_scope") == (outcome.status, outcome.error)

    @pytest.mark.parametrize(("method", "path"), [("PUT", "/mcp"), ("POST", "/mcp/"), ("GET", "/x"), ("POST", "/x")])
    def test_elsewhere(self, service: McpService, method: str, path: str) -> None:
        """What is not the server's own path is refused."""
        assert (
            403 == service.send(json.dumps(CALL).encode(), Credentials.bearer(token()), method=method, path=path).status
        )

    def test_why(self, service: McpService) -> None:
        """The library's own client tells a model why it was refused, and the challenge is there all the same."""

        async def ask() -> MCPError:
            headers = dict(Credentials.bearer(token()).headers)
            async with httpx2.AsyncClient(headers=headers) as http:
                reached = streamable_http_client(f"http://127.0.0.1:{service.port}/mcp", http_client=http)
                async with Client(reached) as client:
                    with pytest.raises(MCPError) as refused:
                        await client.call_tool("read_ticket", {"ticket": "43", "text": "hello"})
            return refused.value

        error = asyncio.run(ask()).error
        assert (REFUSED, "token is for another 'ticket' than the request is") == (error.code, error.message)
        assert {"error": "insufficient_scope", "status": 403} == error.data
        outcome = service.call(Credentials.bearer(token()), ticket="43")
        assert 'error="insufficient_scope"' in outcome.challenges[0]

    @pytest.mark.parametrize(
        ("given", "listed"),
        [
            ({"actions": ("ticket:read",)}, {"read_ticket"}),
            ({"actions": ("ticket:other",)}, set()),
            ({"actions": ("ticket:other",), "also": ("ticket:read",)}, {"read_ticket"}),
        ],
        ids=["one", "none", "by another token"],
    )
    def test_list_of_tools(self, service: McpService, given: dict[str, Any], listed: set[str]) -> None:
        """The list has the tools that the task may call, by whichever token, and says of no other that it is there."""

        async def names() -> set[str]:
            headers = dict(Credentials.bearer(token(**given)).headers)
            async with httpx2.AsyncClient(headers=headers) as http:
                reached = streamable_http_client(f"http://127.0.0.1:{service.port}/mcp", http_client=http)
                async with Client(reached) as client:
                    return {each.name for each in (await client.list_tools()).tools}

        assert listed == asyncio.run(names())

    def test_what_is_listed_is_not_permitted(self, service: McpService) -> None:
        """A tool that the task may call by another token is listed, and is not called by this one."""
        given = Credentials.bearer(token(actions=("ticket:other",), also=("ticket:read",)))
        outcome = service.call(given, ticket="42")
        assert (403, "insufficient_scope") == (outcome.status, outcome.error)

    def test_unknown_tool(self, service: McpService) -> None:
        """A call of a tool that nobody named an action for is refused by that tool's name."""
        outcome = service.say("tools/call", {"name": "drop_table", "arguments": {}}, Credentials.bearer(token()))
        assert (403, "insufficient_scope") == (outcome.status, outcome.error)
        assert "no action is defined for tool 'drop_table'" in outcome.challenges[0].replace("?", "'")

    def test_two_messages(self, service: McpService) -> None:
        """A batch is no message, whatever its first is."""
        assert 400 == service.send(json.dumps([CALL, CALL]).encode(), Credentials.bearer(token())).status

    def test_too_large(self, service: McpService) -> None:
        """A message over the limit is refused, and none is read of who shows no token."""
        content = b" " * (GUARDED_CONTENT_MAX_BYTES + 1)
        assert 413 == service.send(content, Credentials.bearer("x")).status
        assert 401 == service.send(b"not a message", Credentials()).status

    def test_metadata(self, service: McpService) -> None:
        """What clients ask for before they have a token is there, and names the tools' actions."""
        path = "/.well-known/oauth-protected-resource"
        outcome = service.send(b"", Credentials(), method="GET", path=path)
        assert 200 == outcome.status

    def test_typed_arguments(self, service: McpService) -> None:
        """A number is not the text of it: an argument of another type than the task's parameter is another."""
        params = {"name": "read_ticket", "arguments": {"ticket": 42, "text": "hello"}}
        assert 403 == service.say("tools/call", params, Credentials.bearer(token())).status


def test_behind_the_library_s_own_authentication(socket: Path) -> None:
    """A server that has the library's authentication sees the token that the guard let in, and no other."""
    uvicorn: Any = pytest.importorskip("uvicorn")
    auth = AuthSettings(
        issuer_url="https://agent.example.org",  # type: ignore[arg-type]
        resource_server_url=AUDIENCE,  # type: ignore[arg-type]
        validate_token_resource=True,
        required_scopes=["ticket:read"],
    )
    server = MCPServer("tickets", auth=auth, token_verifier=TaskTokenVerifier())

    @server.tool()
    def read_ticket(ticket: str, text: str) -> str:
        """Reads a ticket."""
        seen = get_access_token()
        assert seen is not None
        return f"{seen.client_id} {seen.scopes} {seen.token == serving_token().token} {ticket} {text}"

    inner = server.streamable_http_app(stateless_http=True, json_response=True)
    guarded = McpGuard(inner, tools=services.MCP_TOOLS, audience=AUDIENCE, socket=str(socket))
    with services.serving_asgi(guarded, uvicorn) as port:
        service = McpService(port)
        outcome = service.call(Credentials.bearer(token()))
        assert (200, f"{HOLDER} ['ticket:read'] True 42 hello") == (outcome.status, outcome.said)
        assert 401 == service.call(Credentials.bearer(token(task="gone"))).status


def test_a_stream_ends_with_its_task(tmp_path: Path) -> None:
    """A client that listens hears nothing more once its task has ended."""
    uvicorn: Any = pytest.importorskip("uvicorn")

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        del receive
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        while True:
            await send({"type": "http.response.body", "body": b": here\n\n", "more_body": True})
            await asyncio.sleep(0.05)

    path = tmp_path / "agent.sock"
    guarded = McpGuard(endless, tools=services.MCP_TOOLS, audience=AUDIENCE, socket=str(path))
    with agent_at(path) as agent, services.serving_asgi(guarded, uvicorn) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/mcp", headers=dict(Credentials.bearer(token()).headers))
        answer = connection.getresponse()
        assert (200, b": here\n") == (answer.status, answer.readline())
        agent.ending = True
        with contextlib.suppress(http.client.IncompleteRead):
            answer.read()  # to the end, which comes
        connection.close()


@pytest.mark.parametrize(
    "made", ["McpGuard(None, tools={}, audience='https://a')", "McpStdioGuard(tools={}, audience='https://a')"]
)
def test_without_the_library(made: str) -> None:
    """Where the library is missing, that is said, with what to install."""
    code = f"import sys; sys.modules['mcp'] = None; from sojourn.sdk.integrations.mcp_server import *; {made}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "pip install './sojourn[mcp]'" in done.stderr.splitlines()[-1]


async def test_the_library_s_verifier_alone() -> None:
    """Without the guard before it TaskTokenVerifier knows no token."""
    assert None is await TaskTokenVerifier().verify_token(token())


@asynccontextmanager
async def connected(socket: Path) -> AsyncIterator[tuple[Any, list[str]]]:
    """A client of a server behind McpStdioGuard, and the tasks that its tool was called under."""
    guard = McpStdioGuard(tools=services.MCP_TOOLS, audience=AUDIENCE, socket=str(socket))
    server = MCPServer("tickets", middleware=[guard])
    seen: list[str] = []

    @server.tool()
    def read_ticket(ticket: str, ctx: Context) -> str:
        """Reads a ticket."""
        seen.append(serving_token().task_id)
        return f"ticket {ticket} {ctx.request_context.meta} {ctx.request_context.params}"

    @server.resource("x://secret")
    def secret() -> str:
        """Tells a secret."""
        return "secret"

    async with Client(server) as client:
        yield client, seen
    await guard.close()


class TestOverStdio:
    async def test_with_a_token(self, socket: Path) -> None:
        """A call with a token in its _meta is served; listing tools needs none."""
        async with connected(socket) as (client, seen):
            assert ["read_ticket"] == [each.name for each in (await client.list_tools()).tools]
            shown = token()
            meta = {AUTHORIZATION_KEY: f"Bearer {shown}", "kept": "by the tool", "progressToken": 4711}
            said = (await client.call_tool("read_ticket", {"ticket": "42"}, meta=meta)).content[0].text
            assert ("ticket 42", ["t1"]) == (said[:9], seen)
            assert (2, 2, 0) == (said.count("by the tool"), said.count("4711"), said.count(shown))

    @pytest.mark.parametrize(
        ("ticket", "given", "status"),
        [
            ("42", None, 401),
            ("42", "Bearer garbage", 401),
            ("42", {"task": "gone"}, 401),
            ("43", {}, 403),
            ("42", {"actions": ("ticket:delete",)}, 403),
            ("42", {"bound": True}, 401),
            ("42", {"digest": request_digest.of_tool("read_ticket", {"ticket": "43"})}, 403),
        ],
    )
    async def test_refused(self, socket: Path, ticket: str, given: Any, status: int) -> None:
        """A refusal is an error of the protocol that says why, and the tool is not called."""
        shown = given if isinstance(given, str) else f"Bearer {token(**given or {})}"
        meta = {AUTHORIZATION_KEY: shown} if given is not None else {}
        async with connected(socket) as (client, seen):
            with pytest.raises(MCPError) as caught:
                await client.call_tool("read_ticket", {"ticket": ticket}, meta=meta)
            assert (status, []) == (caught.value.data["status"], seen)

    async def test_another_method(self, socket: Path) -> None:
        """A resource is no tool, and is refused."""
        meta = {AUTHORIZATION_KEY: f"Bearer {token()}"}
        async with connected(socket) as (client, _):
            with pytest.raises(MCPError, match="no action is defined"):
                await client.read_resource("x://secret", meta=meta)
