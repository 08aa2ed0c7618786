"""The same small service behind each kind of guard, on real sockets, and what a client of it needs."""

import asyncio
import http.client
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import grpc
from fakes.guarded import AUDIENCE, Credentials, Outcome
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from sojourn.sdk.client.loop_thread import Portal
from sojourn.sdk.guard.param_places import argument
from sojourn.sdk.guard.routes import Action
from sojourn.sdk.guard.serving_token import serving_token
from sojourn.sdk.integrations.grpc_server import AioTaskTokenInterceptor, TaskTokenInterceptor
from sojourn.sdk.integrations.wsgi import TaskTokenWsgi
from sojourn.tasktoken import request_digest

FOREVER = "forever"  # the text of a request to Follow whose answers have no end
PAUSE = 0.02


class Service(Protocol):
    """Reads tickets (`ticket:read`) and deletes them (`ticket:delete`). What else it does is no action."""

    def call(self, credentials: Credentials, doing: str = "read", ticket: str = "42") -> Outcome: ...
    def digest(self, ticket: str = "42") -> str: ...
    def url(self, ticket: str = "42") -> str: ...


# --- WSGI ---


def _wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    content = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("content-type", "text/plain")])
    return [f"{environ['sojourn.task'].spiffe_id} {content.decode()}".encode()]


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class WsgiService:
    """On wsgiref, which tells the decoded path alone."""

    CONTENT = b"hello"
    METHODS: ClassVar = {"read": "POST", "delete": "DELETE", "nothing": "PUT"}

    def __init__(self, port: int) -> None:
        self.port = port

    def call(self, credentials: Credentials, doing: str = "read", ticket: str = "42") -> Outcome:
        return self.ask(self.METHODS[doing], f"/tickets/{ticket}", credentials)

    def ask(self, method: str, target: str, credentials: Credentials, content: bytes = CONTENT) -> Outcome:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.putrequest(method, target)
            for name, value in credentials.headers:
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(content)))
            connection.endheaders(content)
            return _outcome(connection.getresponse())
        finally:
            connection.close()

    def digest(self, ticket: str = "42") -> str:
        return request_digest.of_http("POST", f"/tickets/{ticket}", self.CONTENT)

    def url(self, ticket: str = "42") -> str:
        return f"{AUDIENCE}/tickets/{ticket}"


def _outcome(answer: http.client.HTTPResponse) -> Outcome:
    body = answer.read().decode()
    if answer.status == 200:
        return Outcome(200, body)
    challenges = tuple(answer.headers.get_all("www-authenticate") or ())
    error = json.loads(body)["error"]
    named = error["data"]["error"] if isinstance(error, dict) else error  # MCP's is a JSON-RPC error
    return Outcome(answer.status, "", named, challenges, answer.headers.get("dpop-nonce") or "")


WSGI_ACTIONS = {"POST /tickets/{ticket}": "ticket:read", "DELETE /tickets/{ticket}": "ticket:delete"}


@contextmanager
def wsgi_service(path: Path, **options: Any) -> Iterator[WsgiService]:
    """In a thread for each request."""
    from socketserver import ThreadingMixIn

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    app = TaskTokenWsgi(_wsgi_app, actions=WSGI_ACTIONS, audience=AUDIENCE, socket=str(path), **options)
    server = make_server("127.0.0.1", 0, app, Server, _Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield WsgiService(server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        app.close()


# --- gRPC ---


def _ticket_type() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="guarded_tickets.proto", package="tickets.v1", syntax="proto3")
    message = file.message_type.add(name="Ticket")
    for number, name in enumerate(("ticket", "text"), 1):
        message.field.add(name=name, number=number, type=9, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tickets.v1.Ticket"))


Ticket = _ticket_type()
SERVICE = "/tickets.v1.Tickets/"
OPEN = [SERVICE + "Open"]
GRPC_ACTIONS = {
    **dict.fromkeys((SERVICE + "Read", SERVICE + "Follow", SERVICE + "Collect", SERVICE + "Chat"), "ticket:read"),
    SERVICE + "Delete": "ticket:delete",
}
_STATUS = {"UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "INVALID_ARGUMENT": 400, "UNAVAILABLE": 503}


class GrpcService:
    """Read has one request and one answer; Follow many answers, Collect many requests, Chat both. Open needs no token."""

    NAMES: ClassVar = {"read": "Read", "delete": "Delete", "nothing": "Nothing"}

    def __init__(self, port: int) -> None:
        self.port = port
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def call(self, credentials: Credentials, doing: str = "read", ticket: str = "42") -> Outcome:
        return self.ask(self.NAMES[doing], [self.message(ticket)], credentials)

    @staticmethod
    def message(ticket: str) -> Any:
        return Ticket(ticket=ticket, text="hello")

    def ask(self, name: str, requests: list[Any], credentials: Credentials) -> Outcome:
        many_in, many_out = name in {"Collect", "Chat"}, name in {"Follow", "Chat"}
        make = getattr(self.channel, f"{'stream' if many_in else 'unary'}_{'stream' if many_out else 'unary'}")
        call = make(SERVICE + name, request_serializer=_plain, response_deserializer=Ticket.FromString)
        given = iter(requests) if many_in else requests[0]
        try:
            answer = call(given, metadata=credentials.headers, timeout=15)
            return Outcome(200, " ".join(each.text for each in answer) if many_out else answer.text)
        except grpc.RpcError as error:
            trailing = list(error.trailing_metadata() or ())  # type: ignore[attr-defined]
            challenges = tuple(value for name, value in trailing if name == "www-authenticate")
            [nonce, *_] = [*(value for name, value in trailing if name == "dpop-nonce"), ""]
            named = [part.partition('error="')[2].partition('"')[0] for part in challenges]
            code = error.code().name  # type: ignore[attr-defined]
            return Outcome(_STATUS.get(code, 0), code, next(filter(None, named), "no_token"), challenges, nonce)

    def digest(self, ticket: str = "42") -> str:
        return request_digest.of_grpc(SERVICE + "Read", self.message(ticket).SerializeToString())

    def url(self, ticket: str = "42") -> str:
        del ticket
        return AUDIENCE + SERVICE + "Read"


def _plain(message: Any) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def _answer(text: str) -> Any:
    return Ticket(text=f"{serving_token().spiffe_id} {text}")


def _numbers(request: Any) -> Iterable[int]:
    return itertools.count() if request.text == FOREVER else range(2)


def _sync_handlers() -> Any:
    def read(request: Any, _: Any) -> Any:
        return _answer(request.text)

    def follow(request: Any, _: Any) -> Iterator[Any]:
        for number in _numbers(request):
            time.sleep(PAUSE * (request.text == FOREVER))
            yield _answer(f"{request.text}{number}")

    def collect(requests: Iterator[Any], _: Any) -> Any:
        return _answer("".join(each.text for each in requests))

    def chat(requests: Iterator[Any], _: Any) -> Iterator[Any]:
        for each in requests:
            yield _answer(each.text)

    return _handlers(read, follow, collect, chat, lambda request, _: Ticket(text=request.text))


def _aio_handlers() -> Any:
    async def read(request: Any, _: Any) -> Any:
        await asyncio.sleep(0)
        return _answer(request.text)

    async def follow(request: Any, _: Any) -> Any:
        for number in _numbers(request):
            await asyncio.sleep(PAUSE * (request.text == FOREVER))
            yield _answer(f"{request.text}{number}")

    async def collect(requests: Any, _: Any) -> Any:
        return _answer("".join([each.text async for each in requests]))

    async def chat(_: Any, context: Any) -> None:
        while (each := await context.read()) is not grpc.aio.EOF:
            await context.write(_answer(each.text))

    async def opened(request: Any, _: Any) -> Any:
        return Ticket(text=request.text)

    return _handlers(read, follow, collect, chat, opened)


def _handlers(read: Any, follow: Any, collect: Any, chat: Any, opened: Any) -> Any:
    one, out = Ticket.FromString, Ticket.SerializeToString
    methods = {
        "Read": grpc.unary_unary_rpc_method_handler(read, one, out),
        "Delete": grpc.unary_unary_rpc_method_handler(read, one, out),
        "Nothing": grpc.unary_unary_rpc_method_handler(read, one, out),
        "Open": grpc.unary_unary_rpc_method_handler(opened, one, out),
        "Follow": grpc.unary_stream_rpc_method_handler(follow, one, out),
        "Collect": grpc.stream_unary_rpc_method_handler(collect, one, out),
        "Chat": grpc.stream_stream_rpc_method_handler(chat, one, out),
    }
    return [grpc.method_handlers_generic_handler("tickets.v1.Tickets", methods)]


@contextmanager
def grpc_server(guard: Any, svid: Any, root: bytes) -> Iterator[int]:
    """The port of one on threads, over mutual TLS."""
    server = grpc.server(futures.ThreadPoolExecutor(8), interceptors=[guard])
    server.add_generic_rpc_handlers(_sync_handlers())
    shown = grpc.ssl_server_credentials([(svid.key_pem, svid.chain_pem)], root, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", shown)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()
        guard.close()


@contextmanager
def grpc_service(path: Path, **options: Any) -> Iterator[GrpcService]:
    """On threads."""
    guard = TaskTokenInterceptor(
        **{"actions": GRPC_ACTIONS, "audience": AUDIENCE, "socket": str(path), "open_methods": OPEN, **options},
    )
    with grpc_plain(guard) as service:
        yield service


@contextmanager
def grpc_plain(guard: TaskTokenInterceptor) -> Iterator[GrpcService]:
    """On threads, behind this guard."""
    server = grpc.server(futures.ThreadPoolExecutor(8), interceptors=[guard])
    server.add_generic_rpc_handlers(_sync_handlers())
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    service = GrpcService(port)
    try:
        yield service
    finally:
        service.channel.close()
        server.stop(None).wait()
        guard.close()


@contextmanager
def grpc_aio_service(path: Path, **options: Any) -> Iterator[GrpcService]:
    """On an event loop, in a thread of its own."""
    portal = Portal()
    guard = AioTaskTokenInterceptor(
        **{"actions": GRPC_ACTIONS, "audience": AUDIENCE, "socket": str(path), "open_methods": OPEN, **options},
    )

    async def start() -> tuple[Any, int]:
        server = grpc.aio.server(interceptors=[guard])
        server.add_generic_rpc_handlers(_aio_handlers())
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    async def stop(server: Any) -> None:
        await server.stop(None)
        await guard.close()

    server, port = portal.run(start())
    service = GrpcService(port)
    try:
        yield service
    finally:
        service.channel.close()
        portal.run(stop(server))
        portal.close()


# --- MCP ---


class McpService:
    """`read_ticket` and `delete_ticket` on the official library, over streamable HTTP."""

    NAMES: ClassVar = {"read": "read_ticket", "delete": "delete_ticket", "nothing": "say_nothing"}

    def __init__(self, port: int) -> None:
        self.port = port

    def call(self, credentials: Credentials, doing: str = "read", ticket: str = "42") -> Outcome:
        arguments = {"ticket": ticket, "text": "hello"}
        return self.say("tools/call", {"name": self.NAMES[doing], "arguments": arguments}, credentials)

    def say(self, method: str, params: object, credentials: Credentials) -> Outcome:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return self.send(json.dumps(message).encode(), credentials)

    def send(self, content: bytes, credentials: Credentials, *, method: str = "POST", path: str = "/mcp") -> Outcome:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.putrequest(method, path)
            for name, value in credentials.headers:
                connection.putheader(name, value)
            connection.putheader("Accept", "application/json, text/event-stream")
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(content)))
            connection.endheaders(content)
            answer = connection.getresponse()
            if answer.status != 200:
                return _outcome(answer)
            result = json.loads(answer.read()).get("result", {})
            content_said = [each.get("text", "") for each in result.get("content", [])]
            return Outcome(200, " ".join(content_said))
        finally:
            connection.close()

    def digest(self, ticket: str = "42") -> str:
        return request_digest.of_tool("read_ticket", {"ticket": ticket, "text": "hello"})

    def url(self, ticket: str = "42") -> str:
        del ticket
        return f"{AUDIENCE}/mcp"


MCP_TOOLS = {
    "read_ticket": Action("ticket:read", params={"ticket": argument()}),
    "delete_ticket": Action("ticket:delete", params={"ticket": argument()}),
}


@contextmanager
def mcp_service(path: Path, **options: Any) -> Iterator[McpService]:
    """On uvicorn, in a thread of its own."""
    import uvicorn
    from mcp.server import MCPServer
    from sojourn.sdk.integrations.mcp_server import McpGuard

    server = MCPServer("tickets")

    @server.tool()
    def read_ticket(ticket: str, text: str) -> str:
        """Reads a ticket."""
        del ticket
        return f"{serving_token().spiffe_id} {text}"

    @server.tool()
    def delete_ticket(ticket: str, text: str) -> str:
        """Deletes a ticket."""
        return f"deleted {ticket} {text}"

    @server.tool()
    def say_nothing(ticket: str, text: str) -> str:
        """Is guarded by nobody's word, and so never called."""
        return f"said {ticket} {text}"

    inner = server.streamable_http_app(stateless_http=True, json_response=True)
    guarded = McpGuard(inner, tools=MCP_TOOLS, audience=AUDIENCE, socket=str(path), **options)
    with serving_asgi(guarded, uvicorn) as port:
        yield McpService(port)


@contextmanager
def serving_asgi(app: Any, uvicorn: Any) -> Iterator[int]:
    """The port of a running uvicorn."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", ws="none"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.01)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
