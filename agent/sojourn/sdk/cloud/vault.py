"""Vault and OpenBao: a proxy to the real one that adds the task's token, so that the command has none (VAULT_ADDR)."""

import os
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from sojourn.errors import InvalidInput, SojournError, Unavailable
from sojourn.limits import LOCAL_CONNECTIONS, PROXY_ANSWER_SECONDS, PROXY_CONNECT_SECONDS, PROXY_CONTENT_SECONDS
from sojourn.net.tls_versions import client_context
from sojourn.sdk.client.extras import extra
from sojourn.sdk.cloud.protocol import EndpointPlace, Lent, status_of
from sojourn.sdk.egress.http1 import Gone, Headers, Malformed, Wire, forwarded
from sojourn.sdk.request import grant_match
from sojourn.sdk.task.values import VAULT_TOKEN, AccessToken, Outside

with extra("http"):
    import httpcore2

    from sojourn.httpclient.pool import Pool

SOCKET: Final = "vault.sock"
REPLACED: Final = (
    *("VAULT_ADDR", "VAULT_TOKEN", "VAULT_AGENT_ADDR", "VAULT_PROXY_ADDR", "VAULT_TOKEN_FILE"),
    *("BAO_ADDR", "BAO_TOKEN", "BAO_AGENT_ADDR", "BAO_PROXY_ADDR"),
)
NO_TOKEN: Final = "added-by-sojourn"  # noqa: S105  # in the place of a token, for programs that look whether there is one
_TOKEN, _AUTHORIZATION, _NAMESPACE = b"x-vault-token", b"authorization", b"x-vault-namespace"
_WRAP: Final = b"x-vault-wrap-ttl"
_TELLING: Final = ("auth/token/lookup", "auth/token/renew")  # paths whose answers have the token itself
_HANDED_BACK: Final = frozenset({b"CONNECT", b"TRACE", b"TRACK"})  # a server in between may answer with the token
_OURS: Final = frozenset({b"host", b"content-length", b"expect", b"accept-encoding"})
_TIMEOUT: Final = {
    "connect": PROXY_CONNECT_SECONDS,
    "read": PROXY_ANSWER_SECONDS,
    "write": PROXY_CONTENT_SECONDS,
    "pool": PROXY_CONNECT_SECONDS,
}
_UNREACHABLE: Final = (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError)


def environment(_outside: Outside, place: EndpointPlace) -> dict[str, str]:
    """What clients find. Those made of Vault's Go library take the Unix socket, all others the URL."""
    socket = place.files.get(SOCKET, "")
    return {
        "VAULT_ADDR": place.url,
        "VAULT_TOKEN": NO_TOKEN,
        **({"VAULT_AGENT_ADDR": f"unix://{socket}"} if socket else {}),
    }


def trusted(environment: Mapping[str, str]) -> ssl.SSLContext:
    """Whom Vault's certificate must be of, as Vault's own variables say; without them, those whom the system trusts."""
    file, folder = environment.get("VAULT_CACERT") or None, environment.get("VAULT_CAPATH") or None
    try:
        return client_context(cafile=file, capath=None if file else folder)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(
            f"the authorities in {file or folder!r} cannot be read: {error.strerror or error}"
        ) from error


class VaultLeg:
    """Sends each request on with the task's token, if it comes without one, and the answer back."""

    def __init__(self, lent: Lent, outside: Outside, pool: Pool) -> None:
        self._lent = lent
        self._pool = pool
        self._namespace = outside.details.get("namespace", "").encode()
        place = grant_match.UrlPlace.parse(outside.details.get("address", ""))
        if place is None:
            raise InvalidInput(f"provider {outside.provider!r} does not say the address of its Vault")
        self._place = place

    async def serve(self, wire: Wire, request: Any, rest: str) -> bool:
        try:
            steps = _steps(request, rest)
            token = await self._token(request)
            if token and any(name == _WRAP for name, _ in request.headers) and _tells(steps):
                raise InvalidInput("an answer that has the task's token is not wrapped: the command has none")
            return await self._carry(wire, request, rest, token)
        except SojournError as error:
            await wire.say(status_of(error), _errors(error.public))
        except _UNREACHABLE as error:
            await wire.say(502, _errors(f"the Vault at {self._place.origin} gives no answer: {type(error).__name__}"))
        except Malformed as error:
            await wire.say(error.status, _errors(str(error)))
        return False

    async def _token(self, request: Any) -> bytes:
        """The task's token; empty, if the request has one of its own."""
        own = {value for name, value in request.headers if name == _TOKEN}
        own |= {value.removeprefix(b"Bearer ") for name, value in request.headers if name == _AUTHORIZATION}
        if own - {NO_TOKEN.encode()}:
            return b""
        token, _ = await self._lent.lend()
        return vault_token(token).encode()

    async def _carry(self, wire: Wire, request: Any, rest: str, token: bytes) -> bool:
        response = await self._pool.handle_async_request(self._outward(wire, request, rest, token))
        try:
            await wire.begin(
                response.status, forwarded(response.headers), response.extensions.get("reason_phrase", b"")
            )
            try:
                async for part in _without(token, response.aiter_stream()):
                    await wire.part(part)
            except _UNREACHABLE as error:
                raise Gone from error  # the answer is cut short, and the command must see it so
            return await wire.end()
        finally:
            await response.aclose()

    def _outward(self, wire: Wire, request: Any, rest: str, token: bytes) -> httpcore2.Request:
        left_out = _OURS | ({_TOKEN, _AUTHORIZATION} if token else set())
        sent = [pair for pair in forwarded(request.headers.raw_items()) if pair[0].lower() not in left_out]
        headers: list[tuple[bytes, bytes]] = [(b"Host", self._place.authority.encode()), *sent]
        if token:
            headers.append((b"X-Vault-Token", token))
        if self._namespace and _NAMESPACE not in {name.lower() for name, _ in sent}:
            headers.append((b"X-Vault-Namespace", self._namespace))
        headers += _length(request)
        host, port = grant_match.split_port(self._place.endpoint)
        url = httpcore2.URL(
            scheme=self._place.scheme.encode(),
            host=host.strip("[]").encode(),
            port=int(port),
            target=(self._place.target.rstrip("/") + rest).encode(),
        )
        return httpcore2.Request(
            request.method, url, headers=headers, content=wire.content(), extensions={"timeout": _TIMEOUT}
        )


def vault_token(token: AccessToken) -> str:
    if token.issued_type != VAULT_TOKEN:
        raise Unavailable(f"provider {token.provider!r} gave no token of Vault")
    return token.token


def connections() -> Pool:
    """As many connections to Vault as there may be of the program to its endpoint."""
    return Pool(trusted(os.environ), connections=LOCAL_CONNECTIONS)


def _errors(why: str) -> dict[str, Any]:
    return {"errors": [why]}


def _steps(request: Any, rest: str) -> list[str]:
    """The steps of the path behind /v1/, as Vault reads them. Raise InvalidInput for what is not of Vault's API."""
    if request.method.upper() in _HANDED_BACK:
        raise InvalidInput(f"Vault's API has no {request.method.decode('ascii')}")
    steps = unquote(rest.partition("?")[0]).split("/")
    if not rest.startswith("/v1/") or not {".", ".."}.isdisjoint(steps):  # beside it may be who is to have no token
        raise InvalidInput("Vault's API is below /v1/")
    return [each for each in steps if each]


def _tells(steps: Sequence[str]) -> bool:
    return any(each in "/".join(steps) for each in _TELLING)


def _length(request: Any) -> Headers:
    fields = dict(request.headers)
    if b"transfer-encoding" in fields:
        return [(b"Transfer-Encoding", b"chunked")]
    return [(b"Content-Length", fields[b"content-length"])] if b"content-length" in fields else []


async def _without(token: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same with stars in the place of the task's token, one for each byte: Vault tells it to who looks it up."""
    if not token:
        async for part in parts:
            yield part
        return
    stars, held = b"*" * len(token), b""
    async for part in parts:
        held = (held + part).replace(token, stars)
        ready = len(held) - len(token) + 1  # a beginning of it may still come
        if ready > 0:
            yield held[:ready]
            held = held[ready:]
    yield held
