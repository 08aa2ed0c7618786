"""Kubernetes' API, as far as a server asks it about the pods of its nodes.

How it is reached is read again for each token: Kubernetes renews what it gives pods, and operators renew certificates.
"""

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

from sojourn.errors import InvalidInput, NotFound, Unavailable
from sojourn.httpclient.client import Answer, AnswerLimits, HttpClient
from sojourn.httpclient.faults import HttpFault
from sojourn.httpclient.lookups import Lookups
from sojourn.httpclient.pool import Pool
from sojourn.httpclient.tcp import TcpTransport
from sojourn.httpclient.wire import WireLimits
from sojourn.jose import strict_json
from sojourn.limits import (
    K8S_ANSWER_MAX_BYTES,
    K8S_CALLS_AT_ONCE,
    K8S_CONNECT_SECONDS,
    K8S_HEADERS,
    K8S_HEADERS_MAX_BYTES,
    K8S_IDLE_CONNECTIONS,
    K8S_IDLE_SECONDS,
    K8S_READ_BYTES,
    K8S_WIRE_MAX_BYTES,
)
from sojourn.net.tls_contexts import web_context
from sojourn.net.urls import Url
from sojourn.server.kubeconfig import KubeAccess
from sojourn.spiffetls.context import load_pem

_REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
_LIMITS: Final = AnswerLimits(K8S_ANSWER_MAX_BYTES, K8S_HEADERS, K8S_HEADERS_MAX_BYTES)
_WIRE: Final = WireLimits(K8S_READ_BYTES, K8S_WIRE_MAX_BYTES)
_RIGHTS: Final = "create tokenreviews.authentication.k8s.io, and get pods and nodes"


class KubeApi:
    """The API of one cluster. `close` it."""

    def __init__(self, access: Callable[[], KubeAccess]) -> None:
        """`access` says how it is reached now, in a thread; raises InvalidInput."""
        self._access = access
        self._shown: tuple[str, ...] = ()
        self._client: HttpClient | None = None

    async def review(self, token: str, audiences: tuple[str, ...]) -> dict[str, Any]:
        """What Kubernetes says of a token for one of these audiences, or its own if there are none: a TokenReview.

        Raise Unavailable.
        """
        spec: dict[str, Any] = {"token": token, **({"audiences": [*audiences]} if audiences else {})}
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        return await self._ask("POST", _REVIEWS, asked)

    async def pod(self, namespace: str, name: str) -> dict[str, Any]:
        """Raise NotFound, Unavailable."""
        return await self._ask("GET", f"/api/v1/namespaces/{namespace}/pods/{name}")

    async def node(self, name: str) -> dict[str, Any]:
        """Raise NotFound, Unavailable."""
        return await self._ask("GET", f"/api/v1/nodes/{name}")

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        access = await asyncio.to_thread(self._read)
        client = await self._client_with(access)
        base = access.url
        headers = {"user-agent": "sojourn"}
        if access.token:
            headers["authorization"] = f"Bearer {access.token}"
        content = None
        if body is not None:
            headers["content-type"], content = "application/json", json.dumps(body).encode()
        try:
            answer = await client.ask(
                method,
                Url(base.scheme, base.host, base.port, f"{base.target.rstrip('/')}{path}"),
                headers,
                content,
                connect_seconds=K8S_CONNECT_SECONDS,
                server_name=access.server_name,
            )
        except HttpFault as fault:
            raise Unavailable(
                "Kubernetes' API gives no answer",
                detail=f"{base.authority}: {fault.why} {fault.reason} {fault.detail}".strip(),
            ) from fault
        return await _object(answer, base)

    def _read(self) -> KubeAccess:
        try:
            return self._access()
        except InvalidInput as error:
            raise Unavailable("Kubernetes' API cannot be asked", detail=error.public) from error

    async def _client_with(self, access: KubeAccess) -> HttpClient:
        """A client with the authority and certificate of now; connections with earlier ones are let go."""
        shown = (access.authority, access.certificate, access.key)
        if self._client is None or shown != self._shown:
            context = await asyncio.to_thread(tls_of, access)
            before, self._client, self._shown = self._client, _client(context), shown
            if before is not None:
                await before.close()
        return self._client


def tls_of(access: KubeAccess) -> ssl.SSLContext:
    """Raise Unavailable if what is shown, or who may have signed the API's certificate, is none in PEM."""
    try:
        context = web_context(None, access.authority or None)
        if access.certificate:
            load_pem(context, f"{access.certificate}\n{access.key}".encode())
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        why = "the certificate authority, or the client certificate with its key, is none in PEM"
        raise Unavailable("Kubernetes' API cannot be asked", detail=f"{why}: {error}") from error
    return context


def _client(context: ssl.SSLContext) -> HttpClient:
    # The address is the operator's own, and hardly any API of Kubernetes has a public one.
    pool = Pool(
        context,
        TcpTransport(Lookups(K8S_CALLS_AT_ONCE), lambda _: True, _WIRE),
        connections=K8S_CALLS_AT_ONCE,
        kept=K8S_IDLE_CONNECTIONS,
        keep_seconds=K8S_IDLE_SECONDS,
    )
    return HttpClient(pool, _LIMITS)


async def _object(answer: Answer, base: Url) -> dict[str, Any]:
    """The object that was answered. Raise NotFound if there is none, Unavailable for every other answer."""
    if answer.status == 404:
        raise NotFound("there is no such object")
    if answer.status in {401, 403}:
        raise Unavailable(
            "Kubernetes' API refuses this server", detail=f"{base.authority}: {answer.status}; it takes: {_RIGHTS}"
        )
    if answer.status not in {200, 201}:
        raise Unavailable("Kubernetes' API gives no answer", detail=f"{base.authority}: HTTP {answer.status}")
    try:
        found = await asyncio.to_thread(strict_json.loads, answer.body.decode())
    except ValueError as error:
        raise Unavailable("Kubernetes' API answers no JSON", detail=base.authority) from error
    if not isinstance(found, dict):
        raise Unavailable("Kubernetes' API answers no object", detail=base.authority)
    return found
