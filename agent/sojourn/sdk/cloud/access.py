"""Who may ask at the endpoints: whoever knows a secret, names the address that was given, and is of the same user."""

import hmac
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from sojourn.limits import PROXY_HEAD_SECONDS, PROXY_IDLE_SECONDS
from sojourn.sdk.client.extras import extra
from sojourn.sdk.cloud import peer_socket
from sojourn.sdk.cloud.protocol import Leg
from sojourn.sdk.egress.http1 import Gone, Malformed, Wire
from sojourn.sdk.egress.local_server import Known

with extra("http"):
    import anyio
    import anyio.abc

# Sent by browsers and by proxies, and by no SDK (the metadata services of clouds refuse them too).
_STRANGE: Final = frozenset({b"origin", b"referer", b"x-forwarded-for", b"forwarded"})
_NOTHING: Final = {"error": "not_found"}


class TcpDoor:
    """The endpoints on the loopback address. Whoever may not ask there is told the same whatever the reason."""

    def __init__(self, legs: Mapping[str, Leg], port: int) -> None:
        """`legs`: by their secrets."""
        self._legs = {secret.encode(): leg for secret, leg in legs.items()}
        self._host = f"127.0.0.1:{port}".encode()

    async def serve(self, stream: anyio.abc.SocketStream, known: Known) -> None:
        allowed = False

        async def find(request: Any) -> tuple[Leg, str] | None:
            nonlocal allowed
            found = self._find(request)
            if found is not None and not allowed:
                allowed = await _same_user(stream)
            return found if allowed else None

        await _serve(stream, known, find)

    def _find(self, request: Any) -> tuple[Leg, str] | None:
        path, mark, query = request.target.partition(b"?")
        first, slash, rest = path.removeprefix(b"/").partition(b"/")
        found = None
        for secret, leg in self._legs.items():
            if hmac.compare_digest(secret, first):
                found = leg
        hosts = [value for name, value in request.headers if name == b"host"]
        if found is None or not path.startswith(b"/") or hosts != [self._host] or _is_strange(request):
            return None
        return found, (slash + rest + mark + query).decode("latin-1")


class UnixDoor:
    """One of them on a Unix socket: the kernel says who is there, and no secret is needed."""

    def __init__(self, leg: Leg) -> None:
        self._leg = leg

    async def serve(self, stream: anyio.abc.SocketStream, known: Known) -> None:
        connection = stream.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610  # no query
        allowed = peer_socket.uid_of_unix(connection) == os.geteuid()

        async def find(request: Any) -> tuple[Leg, str] | None:
            if not allowed or _is_strange(request):
                return None
            return self._leg, request.target.decode("latin-1")

        await _serve(stream, known, find)


async def _serve(
    stream: anyio.abc.SocketStream, known: Known, find: Callable[[Any], Awaitable[tuple[Leg, str] | None]]
) -> None:
    wire, patience = Wire(stream), PROXY_HEAD_SECONDS
    try:
        while (request := await wire.request(patience)) is not None:
            found = await find(request)
            if found is None:
                await wire.say(404, _NOTHING)
                return
            leg, rest = found
            if not known() or not await leg.serve(wire, request, rest):
                return
            patience = PROXY_IDLE_SECONDS
    except Malformed as error:
        await wire.say(error.status, _NOTHING)
    except Gone:
        return


async def _same_user(stream: anyio.abc.SocketStream) -> bool:
    """Whether the client is a process of this user. Where the kernel does not say, the secret must do."""
    found = await peer_socket.uid_of_tcp(stream.extra(anyio.abc.SocketAttribute.raw_socket))  # noqa: S610  # no query
    return found is None or found == os.geteuid()


def _is_strange(request: Any) -> bool:
    return any(name in _STRANGE for name, _ in request.headers)
