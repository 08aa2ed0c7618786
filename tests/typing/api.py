"""The types of the public API. Never run, only type-checked."""

from ssl import SSLContext
from typing import assert_type

from httpx import AsyncClient
from httpx import Client as HttpClient
from sojourn import (
    Client,
    SpiffeId,
    SyncClient,
    Task,
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
from sojourn.sdk.asgi import App
from sojourn.sdk.egress import Egress
from sojourn.sdk.httpauth import TaskAuth
from sojourn.sdk.parse import JwtSvid, X509Context
from sojourn.sdk.sync import SyncTask
from sojourn.sdk.taskvalues import AccessToken
from sojourn.tasks.tokens import TaskToken


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
        assert_type(task.token("https://a.example", ["read"]), AccessToken)


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
