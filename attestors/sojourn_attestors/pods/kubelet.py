"""The kubelet's own API, and a list of its pods that many share.

The kubelet is believed, so it is only asked where it proves who it is, or over the read-only port if the operator says
so. What is shown to it is read again for every request: tokens of Kubernetes live an hour, certificates are renewed.
"""

import asyncio
import hashlib
import os
import ssl
import stat
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from sojourn.errors import AttestationFailed
from sojourn.limits import PEM_MAX_BYTES

from sojourn_attestors.asking.fetching import KubeletClient, succeeded
from sojourn_attestors.pods.facts import NotPods, Pods, parse_pods

REQUEST_SECONDS: Final = 4.0  # leaves time to say so before the attestor's own deadline
FAILED_SECONDS: Final = 1.0  # so long nobody else waits for a kubelet that has just failed
_TOKEN_MAX_BYTES: Final = 64 * 1024
_WHAT: Final = "the kubelet"
_REFUSED: Final = {
    401: "it does not know the token or certificate that is shown to it",
    403: "it takes the right to `get` `nodes/pods`, before Kubernetes 1.33 `nodes/proxy`",
}


@dataclass(frozen=True, slots=True)
class Access:
    """How a kubelet is reached. Paths are '' for what is not shown to it; without `ca` it is asked by plain HTTP.

    `name`: whom its certificate must be of.
    """

    address: str
    port: int
    name: str = ""
    ca: str = ""
    token: str = ""
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the files held. `digest` is of those that a connection is made with, `authority` is one of them."""

    digest: bytes
    authority: bytes
    headers: dict[str, str]


class Kubelet:
    """One kubelet. Asks once at a time; `close` it."""

    def __init__(self, access: Access, pool: Executor) -> None:
        self._access = access
        self._pool = pool
        self._client: KubeletClient | None = None
        self._digest = b""

    async def pods(self) -> Pods:
        """The pods of its node, as it sees them now. Raise AttestationFailed if that cannot be had."""
        loop = asyncio.get_running_loop()
        shown = await loop.run_in_executor(self._pool, self._read)
        client = await self._client_with(shown)
        status, body = await client.get("/pods", REQUEST_SECONDS, headers=shown.headers)
        if status in _REFUSED:
            raise AttestationFailed(
                f"the kubelet refuses this agent ({status}): {_REFUSED[status]}", detail=repr(body[:200])
            )
        succeeded(_WHAT, status, body)
        try:
            return await loop.run_in_executor(self._pool, parse_pods, body)
        except NotPods as error:
            raise AttestationFailed("the kubelet answered what is no list of pods", detail=str(error)) from error

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _client_with(self, shown: _Shown) -> KubeletClient:
        """A client with the authority and certificate of now; connections with earlier ones are closed."""
        if self._client is None or shown.digest != self._digest:
            await self.close()
            tls = None
            if self._access.ca:
                tls = await asyncio.get_running_loop().run_in_executor(self._pool, self._tls, shown.authority)
            access = self._access
            self._client = KubeletClient(_WHAT, access.address, access.port, tls=tls, name=access.name)
            self._digest = shown.digest
        return self._client

    def _read(self) -> _Shown:
        access = self._access
        if not access.ca:
            return _Shown(b"", b"", {})
        authority = _content(access.ca, PEM_MAX_BYTES, "the certificate authority of the kubelet")
        digest = hashlib.sha256(authority)
        for path in filter(None, (access.certificate, access.key)):
            digest.update(hashlib.sha256(_content(path, PEM_MAX_BYTES, "the client certificate or its key")).digest())
        headers = {}
        if access.token:
            token = _content(access.token, _TOKEN_MAX_BYTES, "the token for the kubelet").strip()
            if not token or not all(0x20 < byte < 0x7F for byte in token):
                raise AttestationFailed(f"the token for the kubelet, {access.token}, is empty or no token")
            headers["authorization"] = f"Bearer {token.decode()}"
        return _Shown(digest.digest(), authority, headers)

    def _tls(self, authority: bytes) -> ssl.SSLContext:
        access = self._access
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the certificate and its name
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the kubelet's own certificate may be the authority
        try:
            tls.load_verify_locations(cadata=authority.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise AttestationFailed(f"{access.ca} holds no certificate authority", detail=str(error)) from error
        if access.certificate:
            try:
                tls.load_cert_chain(access.certificate, access.key, password=_no_password)
            except (ssl.SSLError, OSError, ValueError) as error:
                raise AttestationFailed(
                    f"{access.certificate} and {access.key} are no certificate with its key", detail=str(error)
                ) from error
        return tls


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _content(path: str, limit: int, what: str) -> bytes:
    """A regular file's content, behind links too: Kubernetes renews files by moving links. Raise AttestationFailed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise AttestationFailed(f"{what}, {path}, is not a regular file")
            content = file.read(limit + 1)
    except OSError as error:
        raise AttestationFailed(f"{what}, {path}, cannot be read: {error.strerror}", detail=str(error)) from error
    if len(content) > limit:
        raise AttestationFailed(f"{what}, {path}, is larger than {limit} bytes")
    return content


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of pods; `asked_at` (boot clock): what it says was so then or later."""

    pods: Pods
    asked_at: float


@dataclass(slots=True)
class _Request:
    """A request on its way, and how many wait for it."""

    task: asyncio.Task[None]
    waiting: int = 0


class PodList:
    """The latest list. Whoever needs a newer one shares the one request that is on its way."""

    def __init__(self, fetch: Callable[[], Awaitable[Pods]], boot: Callable[[], float]) -> None:
        self._fetch = fetch
        self._boot = boot
        self._kept: Listing | None = None
        self._failed: tuple[float, AttestationFailed] | None = None
        self._running: _Request | None = None

    async def since(self, moment: float) -> Listing:
        """A list that was asked for at `moment` (boot clock) or later. Raise AttestationFailed if it cannot be had.

        Where that has failed within FAILED_SECONDS it is not tried again.
        """
        while self._kept is None or self._kept.asked_at < moment:
            if self._running is None:
                if self._failed is not None and self._boot() - self._failed[0] < FAILED_SECONDS:
                    raise AttestationFailed(self._failed[1].public, detail=self._failed[1].detail)
                self._running = _Request(asyncio.ensure_future(self._ask()))
            await self._wait_for(self._running)
        return self._kept

    async def _wait_for(self, request: _Request) -> None:
        """Wait with others. If the last one is cancelled, the request is too."""
        request.waiting += 1
        try:
            await asyncio.shield(request.task)
        finally:
            request.waiting -= 1
            if not request.waiting and not request.task.done():
                await self._cancel(request)

    async def _cancel(self, request: _Request) -> None:
        if self._running is request:
            self._running = None
        request.task.cancel()
        await asyncio.wait({request.task})

    async def _ask(self) -> None:
        asked_at = self._boot()
        try:
            self._kept = Listing(await self._fetch(), asked_at)
            self._failed = None
        except AttestationFailed as error:
            self._failed = (self._boot(), error)
            raise
        finally:
            if self._running is not None and self._running.task is asyncio.current_task():
                self._running = None

    async def close(self) -> None:
        if self._running is not None:
            await self._cancel(self._running)
