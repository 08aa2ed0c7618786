"""What an egress proxy does with one connection: who is it, what does it want, and the way to the service and back."""

import asyncio
import base64
import hmac
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sojourn.errors import InvalidInput, SojournError, TooLarge, Unavailable, Unreachable
from sojourn.errors.oauth import OutsideTask
from sojourn.limits import (
    PROXY_ANSWER_SECONDS,
    PROXY_CONNECT_SECONDS,
    PROXY_CONTENT_SECONDS,
    PROXY_HEAD_SECONDS,
    PROXY_IDLE_SECONDS,
    PROXY_REPLAY_MAX_BYTES,
)
from sojourn.sdk.client.extras import extra
from sojourn.sdk.egress.ca import EgressAuthority
from sojourn.sdk.egress.http1 import BROKEN, Gone, Malformed, Wire, forwarded
from sojourn.sdk.egress.mcp import digest_of
from sojourn.sdk.egress.passthrough import Passes, tunnel
from sojourn.sdk.request import grant_match
from sojourn.sdk.request.authorization import (
    AUTHORIZATION,
    CHALLENGE,
    DPOP,
    DPOP_NONCE,
    HttpAnswer,
    Send,
    WantedRequest,
    attach,
    check_actions,
    check_live,
    is_ours,
)
from sojourn.sdk.request.token_fetch import AsyncAsking

with extra("http"):
    import anyio
    import anyio.abc
    import h11
    import httpcore2
    from anyio.streams.tls import TLSStream

    from sojourn.httpclient.faults import Why, tls_fault_of
    from sojourn.httpclient.pool import Pool

USER: Final = "task"
ACTION_HEADER: Final = b"sojourn-action"
_FRAMING: Final = frozenset({b"host", b"content-length", b"expect", ACTION_HEADER})
_OURS: Final = _FRAMING | {AUTHORIZATION.lower().encode(), DPOP.lower().encode()}
_TIMEOUT: Final = {
    "connect": PROXY_CONNECT_SECONDS,
    "read": PROXY_ANSWER_SECONDS,
    "write": PROXY_CONTENT_SECONDS,
    "pool": PROXY_CONNECT_SECONDS,
}
_STATUSES: Final[tuple[tuple[type[SojournError], int], ...]] = (
    (TooLarge, 413),
    (InvalidInput, 400),
    (Unavailable, 503),
    (Unreachable, 503),
)
_SWITCHING: Final = 101


@dataclass(frozen=True, slots=True)
class ProxiedLeg:
    """What all connections of a proxy share."""

    asking: AsyncAsking
    authority: EgressAuthority
    pool: Pool
    secret: str
    passes: Passes = field(default_factory=Passes)

    async def serve(self, stream: anyio.abc.SocketStream, known: Callable[[], bool]) -> None:
        """Serve one connection to its end. `known` is called when it is the command's; False: there is no room."""
        wire = Wire(stream)
        try:
            while (request := await _next(wire, PROXY_HEAD_SECONDS)) is not None:
                if not self._is_ours(request):
                    await wire.say(
                        407,
                        _document("proxy_authentication_required", "this proxy is for one command alone"),
                        [(b"Proxy-Authenticate", b'Basic realm="sojourn"')],
                    )
                    return
                if not known():
                    return
                if request.method == b"CONNECT":
                    await self._tunnel(wire, request)
                    return
                if not await self._plain(wire, request):
                    return
        except Gone:
            return

    def _is_ours(self, request: h11.Request) -> bool:
        given = [value for name, value in request.headers if name == b"proxy-authorization"]
        expected = b"Basic " + base64.b64encode(f"{USER}:{self.secret}".encode())
        return len(given) == 1 and hmac.compare_digest(given[0], expected)

    # --- the two ways in ---

    async def _plain(self, wire: Wire, request: h11.Request) -> bool:
        place = grant_match.UrlPlace.parse(request.target.decode("latin-1"))
        if place is None or place.scheme != "http":
            raise_for = OutsideTask("a request to this proxy names an http:// URL, or is a CONNECT for https://")
            await wire.say(400, self.refusal(raise_for, request))
            return False
        return await self._serve_one(wire, request, place.scheme, place.endpoint, _target(place))

    async def _tunnel(self, wire: Wire, request: h11.Request) -> None:
        endpoint = request.target.decode("latin-1")
        try:
            check_live(self.asking.task)
            if self.passes.has("https", endpoint):
                await self._pass_tunnel(wire, request, endpoint)
                return
            if endpoint not in grant_match.endpoints(self.asking.task.grants, "https"):
                raise OutsideTask(f"the task has nothing at https://{endpoint[:256]}", resource=f"https://{endpoint}")
        except SojournError as error:
            await wire.say(_status(error), self.refusal(error, request))
            return
        host, _ = grant_match.split_port(endpoint)
        try:
            await wire.connected()
        except Malformed as error:
            await wire.say(error.status, self._failure("invalid_request", str(error), request))
            return
        try:
            async with asyncio.timeout(PROXY_HEAD_SECONDS):
                inner = await TLSStream.wrap(
                    wire.stream, server_side=True, ssl_context=self.authority.context(host), standard_compatible=False
                )
        except (TimeoutError, anyio.EndOfStream, *BROKEN):
            return
        inside = Wire(inner)
        while (asked := await _next(inside, PROXY_IDLE_SECONDS)) is not None:
            target = asked.target.decode("latin-1")
            named = [value.decode("latin-1") for name, value in asked.headers if name == b"host"]
            if not target.startswith("/") or named not in ([endpoint], [endpoint.removesuffix(":443")]):
                wrong = OutsideTask(f"inside of a tunnel to {endpoint} requests are for {endpoint}, by path and Host")
                await inside.say(421, self.refusal(wrong, asked))
                return
            if not await self._serve_one(inside, asked, "https", endpoint, target):
                return

    async def _pass_tunnel(self, wire: Wire, request: h11.Request, endpoint: str) -> None:
        """What goes through it is between the command and the service."""
        try:
            await tunnel(wire, endpoint)
        except Malformed as error:
            await wire.say(error.status, self._failure("invalid_request", str(error), request))
        except (OSError, TimeoutError):
            await wire.say(502, self._failure("service_unreachable", f"{endpoint} cannot be reached", request))

    # --- one request ---

    async def _serve_one(self, wire: Wire, request: h11.Request, scheme: str, endpoint: str, target: str) -> bool:
        """Send it on and its answer back; say whether the connection may be used again."""
        try:
            if self.passes.has(scheme, endpoint):
                check_live(self.asking.task)
                content = await _Content.begin(wire)
                return await self._exchange(wire, content, self._pass_on(wire, request, endpoint, target, content))
            wanted = self._wanted(request, scheme, endpoint, target)
            content = await _Content.begin(wire)
            return await self._exchange(wire, content, self._send_on(wire, request, wanted, content))
        except SojournError as error:
            again = [(b"Retry-After", b"1")] if isinstance(error, Unavailable) else []
            await wire.say(_status(error), self.refusal(error, request), again)
        except (httpcore2.TimeoutException, TimeoutError):
            await wire.say(504, self._failure("service_timeout", "the service did not answer in time", request))
        except (httpcore2.ConnectError, httpcore2.ProtocolError, httpcore2.NetworkError) as error:
            await wire.say(502, self._failure("service_unreachable", _why(error, endpoint), request))
        except Malformed as error:
            await wire.say(error.status, self._failure("invalid_request", str(error), request))
        return False

    def _wanted(self, request: h11.Request, scheme: str, endpoint: str, target: str) -> WantedRequest:
        task = self.asking.task
        check_live(task)
        grant = grant_match.find_at(task.grants, scheme, endpoint, target)
        actions = _actions(request)
        if grant is None:
            where = f"{scheme}://{endpoint.removesuffix(':443' if scheme == 'https' else ':80')}"
            raise OutsideTask(
                f"{where[:256]} is not within the task, or this path there is not",
                resource=where,
                actions=actions or (request.method.decode("latin-1"),),
            )
        check_actions(grant, actions)
        bound = is_ours(task, grant)
        return WantedRequest(grant, request.method.decode("latin-1"), grant_match.url_of(grant, target), actions, bound)

    async def _exchange(self, wire: Wire, content: "_Content", sending: Coroutine[Any, Any, bool]) -> bool:
        if not content.whole:
            return await sending
        # All of the request is here: what the connection brings now is its end, or the request after this one.
        worker, watch = asyncio.create_task(sending), asyncio.create_task(wire.until_gone())
        try:
            await asyncio.wait({worker, watch}, return_when=asyncio.FIRST_COMPLETED)
            if worker.done():
                return worker.result()
            raise Gone
        finally:
            with anyio.CancelScope(shield=True):
                worker.cancel()
                watch.cancel()
                await asyncio.gather(worker, watch, return_exceptions=True)

    async def _send_on(self, wire: Wire, request: h11.Request, wanted: WantedRequest, content: "_Content") -> bool:
        digest = digest_of(wanted, request.headers)
        flow = attach(replace(wanted, repeatable=content.whole), self.asking.shelf, digest)
        send = await self.asking.advance(flow, None, content.read)
        while send is not None:
            outward = _outward(request, wanted, send, content)
            response = await self.pool.handle_async_request(outward)
            try:
                send = await self.asking.advance(flow, _answer(response), content.read)
                if send is None:
                    return await self._back(wire, response)
            finally:
                await response.aclose()
        raise Unavailable("the request was not sent")

    async def _pass_on(self, wire: Wire, request: h11.Request, endpoint: str, target: str, content: "_Content") -> bool:
        """As the command sent it, to an origin of plain HTTP that is let through."""
        own = [(name, value) for name, value in forwarded(request.headers.raw_items()) if name.lower() not in _FRAMING]
        response = await self.pool.handle_async_request(
            _request(request, grant_match.UrlPlace("http", endpoint.removesuffix(":80"), target), own, content)
        )
        try:
            return await self._back(wire, response)
        finally:
            await response.aclose()

    async def _back(self, wire: Wire, response: httpcore2.Response) -> bool:
        if response.status == _SWITCHING:
            raise Unavailable("the service wants to change the protocol, which this proxy does not carry")
        hidden = {DPOP_NONCE.lower().encode()}
        headers = [(name, value) for name, value in forwarded(response.headers) if name.lower() not in hidden]
        await wire.begin(response.status, headers, response.extensions.get("reason_phrase", b""))
        try:
            async for part in response.aiter_stream():
                await wire.part(part)
        except (httpcore2.TimeoutException, httpcore2.ProtocolError, httpcore2.NetworkError) as error:
            raise Gone from error  # the answer is cut short, and the command must see it so
        return await wire.end()

    # --- saying no ---

    def refusal(self, error: SojournError, request: h11.Request) -> dict[str, Any]:
        """What is answered for a request that is not sent."""
        asked = f"{request.method.decode('latin-1')} {request.target.decode('latin-1').partition('?')[0]}"[:512]
        outside = error if isinstance(error, OutsideTask) else None
        task = self.asking.task
        return {
            **_document(error.code, error.public),
            "request": asked,
            "resource": (outside.resource if outside else "")[:512],
            "action": " ".join(outside.actions)[:512] if outside else "",
            "task_id": task.id,
            "task_type": task.type,
            "granted": []
            if task.ended
            else [{"resource": g.resource, "actions": list(g.actions)} for g in task.grants],
        }

    def _failure(self, code: str, why: str, request: h11.Request) -> dict[str, Any]:
        return {**self.refusal(Unavailable(why), request), "error": code}


@dataclass(slots=True)
class _Content:
    """The content of a request: what of it was read, which may be all, and then what still comes."""

    start: bytes
    whole: bool
    _rest: AsyncIterator[bytes]

    @classmethod
    async def begin(cls, wire: Wire) -> "_Content":
        """Read what may have to be sent again."""
        rest, parts, size = wire.content(), list[bytes](), 0
        async for part in rest:
            parts.append(part)
            size += len(part)
            if size > PROXY_REPLAY_MAX_BYTES:
                return cls(b"".join(parts), False, rest)
        return cls(b"".join(parts), True, rest)

    async def read(self) -> bytes:
        if not self.whole:
            raise TooLarge(f"a token is for this request alone, and it has more than {PROXY_REPLAY_MAX_BYTES} bytes")
        return self.start

    async def parts(self) -> AsyncIterator[bytes]:
        yield self.start
        async for part in self._rest:
            yield part


async def _next(wire: Wire, idle_seconds: float) -> h11.Request | None:
    try:
        return await wire.request(idle_seconds)
    except Malformed as error:
        await wire.say(error.status, _document("invalid_request", str(error)))
        return None


def _outward(request: h11.Request, wanted: WantedRequest, send: Send, content: "_Content") -> httpcore2.Request:
    """The request as it goes to the service: framed by us, and with our headers in the place of the command's."""
    place = grant_match.UrlPlace.parse(wanted.url)
    assert place is not None  # it is made of a grant's
    headers = [(name, value) for name, value in forwarded(request.headers.raw_items()) if name.lower() not in _OURS]
    headers += [(name.encode(), value.encode()) for name, value in send.headers.items()]
    return _request(request, place, headers, content)


def _request(
    request: h11.Request, place: grant_match.UrlPlace, more: list[tuple[bytes, bytes]], content: "_Content"
) -> httpcore2.Request:
    host, port = grant_match.split_port(place.endpoint)
    headers = [(b"Host", place.authority.encode()), *more]
    length = len(content.start) if content.whole else _length(request)
    if length is None:
        headers.append((b"Transfer-Encoding", b"chunked"))
    elif length or {b"content-length", b"transfer-encoding"} & {name for name, _ in request.headers}:
        headers.append((b"Content-Length", str(length).encode()))
    target = (place.scheme.encode(), host.strip("[]").encode(), int(port), place.target.encode())
    url = httpcore2.URL(scheme=target[0], host=target[1], port=target[2], target=target[3])
    return httpcore2.Request(
        request.method, url, headers=headers, content=content.parts(), extensions={"timeout": _TIMEOUT}
    )


def _target(place: grant_match.UrlPlace) -> str:
    return place.target if place.target.startswith("/") else "/" + place.target


def _length(request: h11.Request) -> int | None:
    """How long the content is: None if that shows only at its end."""
    fields = dict(request.headers)
    if b"transfer-encoding" in fields:
        return None
    return int(fields.get(b"content-length", b"0"))


def _actions(request: h11.Request) -> tuple[str, ...]:
    """What the command says that its request is: the header `Sojourn-Action`."""
    values = [value.decode("latin-1") for name, value in request.headers if name == ACTION_HEADER]
    return tuple(sorted({each for value in values for each in value.replace(",", " ").split()}))


def _answer(response: httpcore2.Response) -> HttpAnswer:
    def of(wanted: str) -> tuple[str, ...]:
        return tuple(value.decode("latin-1") for name, value in response.headers if name.lower() == wanted.encode())

    return HttpAnswer.of(response.status, of(CHALLENGE.lower()), of(DPOP_NONCE.lower()))


def _status(error: SojournError) -> int:
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 403)


def _why(error: Exception, endpoint: str) -> str:
    failed = tls_fault_of(error)
    if failed is not None and failed.why is Why.CERTIFICATE:
        return f"the certificate of {endpoint} is not trusted: name the file of its authority (--proxy-ca, ca_file)"
    return f"{endpoint} cannot be reached, or its answer is no good HTTP/1.1"


def _document(code: str, why: str) -> dict[str, Any]:
    return {"error": code, "error_description": why}
