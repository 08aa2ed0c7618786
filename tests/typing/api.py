"""The types of the public API. Never run, only type-checked."""

from ssl import SSLContext
from typing import assert_type

from httpx import AsyncClient
from httpx import Client as HttpClient
from sojourn import (
    Client,
    Grant,
    Refused,
    SojournError,
    SpiffeId,
    SyncClient,
    Task,
    TaskOver,
    TaskTokenMiddleware,
    TaskVerifier,
    TrustDomain,
    X509Source,
    authorize_any,
    authorize_id,
    authorize_member_of,
    current_task,
    task,
)
from sojourn.sdk.client.sync import SyncHeldTask, SyncTask
from sojourn.sdk.cloud.endpoints import CloudEndpoints
from sojourn.sdk.egress.proxy import Egress
from sojourn.sdk.guard.param_places import argument
from sojourn.sdk.guard.routes import Action
from sojourn.sdk.guard.serving_token import serving_token
from sojourn.sdk.guard.tools import guarded
from sojourn.sdk.integrations.asgi import App
from sojourn.sdk.integrations.grpc_client import aio_interceptors, interceptors
from sojourn.sdk.integrations.grpc_server import AioTaskTokenInterceptor, TaskTokenInterceptor
from sojourn.sdk.integrations.httpx_auth import TaskAuth
from sojourn.sdk.integrations.mcp_server import McpGuard, McpStdioGuard
from sojourn.sdk.integrations.wsgi import App as WsgiApp
from sojourn.sdk.integrations.wsgi import TaskTokenWsgi
from sojourn.sdk.task.mtls_tokens import CertificateTokens
from sojourn.sdk.task.values import AccessToken
from sojourn.tasktoken.tokens import TaskToken
from sojourn.workloadapi.messages import JwtSvid, X509Context


async def asynchronous(app: App) -> None:
    """What an asynchronous program writes."""
    async with Client() as client, X509Source(client) as source, TaskVerifier(client, "https://a.example") as verifier:
        assert_type(await client.fetch_x509_svids(), X509Context)
        assert_type(await client.fetch_jwt_svid("a"), JwtSvid)
        async for context in client.watch_x509_contexts():
            assert_type(context.default.spiffe_id, SpiffeId)
        async with client.task("triage-ticket", params={"ticket": "7"}) as task:
            assert_type(task, Task)
            assert_type(await task.token(), AccessToken)
            await task.narrow([Grant.parse("https://a.example", ["read"])])
            token = await task.token("https://a.example", ["read"], bound="agent", params_digest="d")
            assert_type(await task.proof("GET", "https://a.example", token, nonce="n"), str)
            bound = await CertificateTokens(task, source).get("https://a.example")
            assert_type(bound.token, AccessToken)
            assert_type(bound.client_context(authorize_any()), SSLContext)
        assert_type(source.server_context(authorize_any()), SSLContext)
        source.client_context(authorize_id("spiffe://example.org/web", SpiffeId.parse("spiffe://example.org/db")))
        source.client_context(authorize_member_of(TrustDomain.parse("example.org")))
        assert_type(await verifier.verify("token", "ticket:read"), TaskToken)
        TaskTokenMiddleware(app, verifier=verifier, actions={"GET /": "read"})
        TaskTokenMiddleware(app, audience="https://a.example", actions=lambda _method, _path: None)


def blocking() -> None:
    """What a program without event loop writes."""
    with SyncClient() as client, client.task("triage-ticket") as task:
        assert_type(task, SyncTask)
        assert_type(client.fetch_jwt_svid("them"), JwtSvid)
        assert_type(client.begin_task("triage-ticket"), SyncHeldTask)
        client.task(3)  # type: ignore[arg-type]
        assert_type(task.token("https://a.example", ["read"]), AccessToken)
        token = task.token("https://a.example", certificate=b"der")
        assert_type(task.proof("GET", "https://a.example", token), str)


@guarded("ticket:read", params=["ticket"])
def tool(ticket: str) -> int:
    """A tool keeps its signature."""
    return len(ticket)


@guarded("ticket:read", params={"number": "ticket"}, resource="https://a.example")
async def asynchronous_tool(number: str) -> bytes:
    """So does a coroutine."""
    return number.encode()


async def services(app: App, wsgi: WsgiApp) -> None:
    """What services, and callers of services, write."""
    TaskTokenWsgi(wsgi, actions={"GET /": "read"}, audience="https://a.example")
    TaskTokenInterceptor(actions={"/a.B/C": "read"}, audience="https://a.example", open_methods=["/a.B/D"])
    AioTaskTokenInterceptor(actions={"/a.B/C": "read"}, audience="https://a.example", base_url="https://b.example")
    mapped = Action("ticket:read", params={"ticket": argument()}, unchecked=("note",))
    McpGuard(app, tools={"read_ticket": mapped, "list": "ticket:list"}, audience="https://a.example/mcp", strict=True)
    McpStdioGuard(tools={"read_ticket": "ticket:read"}, audience="https://a.example/mcp")
    assert_type(serving_token(), TaskToken)
    assert_type(tool("7"), int)
    assert_type(await asynchronous_tool(number="7"), bytes)
    async with Client() as client, client.task("triage-ticket") as task:
        aio_interceptors(task, "https://a.example")
    with SyncClient() as blocking_client, blocking_client.task("triage-ticket") as blocking_task:
        interceptors(blocking_task, "https://a.example", actions={"/a.B/C": "read"})


async def tasks_of_asynchronous_code() -> None:
    """What a program does in a task of asynchronous code."""
    async with task("triage-ticket", params={"ticket": "7"}, on_end=print, cancel=False) as running:
        assert_type(running, Task)
        assert_type(running.client("https://a.example", actions=["read"]), AsyncClient)
        assert_type(running.auth(), TaskAuth)
        assert_type(await running.proof("GET", "https://a.example/", "token"), str)
        async with running.proxy() as proxy:
            assert_type(proxy, Egress)
            assert_type(proxy.of({}), dict[str, str])
        async with running.cloud_endpoints(resources=["https://a.example"]) as endpoints:
            assert_type(endpoints, CloudEndpoints)
            assert_type(endpoints.of({}), dict[str, str])
        assert_type(current_task(), Task | SyncTask)
        assert_type(current_task(Task), Task)


def tasks_of_blocking_code() -> None:
    """The same without an event loop."""
    with task(ticket="ticket") as running:
        assert_type(running, SyncTask)
        assert_type(running.client("https://a.example"), HttpClient)
        assert_type(current_task(SyncTask), SyncTask)
        with running.proxy(ca_file="/ca.pem") as proxy:
            assert_type(proxy.url, str)
        with running.cloud_endpoints(vault_token_file="/run/token") as endpoints:  # a name
            assert_type(endpoints, CloudEndpoints)


def failures(over: TaskOver, refused: Refused) -> tuple[SojournError, str]:
    """What programs tell apart when a task gives nothing."""
    either: SojournError = over if over.public else refused
    return either, refused.code
