"""cert-manager as the authority above the agent's own: a CertificateRequest in a namespace of Kubernetes.

Its fields are described at https://cert-manager.io/docs/reference/api-docs/ (cert-manager.io/v1). A request has a name
by what it asks for: one that is asked again, since its answer was late or lost, is the same object.
"""

import asyncio
import hashlib
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import Field, field_validator

from sojourn.errors import InvalidInput
from sojourn.files import trusted
from sojourn.files.token_file import token_in
from sojourn.limits import UPSTREAM_FILE_MAX_BYTES
from sojourn.net.urls import parse_url
from sojourn.plugins.upstream import (
    FilePath,
    HttpResponse,
    Method,
    Mint,
    Reach,
    SignedIntermediate,
    SojournError,
    Standing,
    UpstreamNotGood,
    UpstreamTable,
    UpstreamUnavailable,
    read_settings,
)
from sojourn.providers.answers import code_of, said, table_of, unanswered
from sojourn.upstream.certificates_told import pem_certificates
from sojourn.upstream.unavailable import raise_unavailable, unavailable

log = structlog.get_logger()
_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # of a pod
_GROUP: Final = "cert-manager.io"
_CREATE, _LOOK, _REMOVE, _ISSUER = "create", "look", "remove", "issuer"
_PAUSE_SECONDS: Final = 0.5  # between two looks whether it is issued
_OF_A_PATH: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_HINTS: Final = {
    (_CREATE, 403): "its Role has to allow create, get and delete of certificaterequests.cert-manager.io",
    (_CREATE, 404): "is cert-manager installed, and is there such a namespace?",
    (_LOOK, 403): "its Role has to allow get of certificaterequests.cert-manager.io",
    (_ISSUER, 403): "its Role has to allow get of the issuer",
    (_ISSUER, 404): "compare issuer_name, issuer_kind and namespace with: kubectl get issuers,clusterissuers -A",
}
Name = Annotated[str, Field(pattern=f"^{_OF_A_PATH.pattern}$")]


class CertManagerSettings(UpstreamTable):
    """[authority.upstream] with `kind = "cert-manager"`."""

    issuer_name: Name
    issuer_kind: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]{0,62}$")] = "Issuer"
    issuer_group: Name = _GROUP
    namespace: Name
    address: str = "https://kubernetes.default.svc"
    token_file: FilePath = _ACCOUNT / "token"
    ca: FilePath | None = _ACCOUNT / "ca.crt"
    roots: FilePath | None = None  # a PEM file, where the issuer does not tell them

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        if parse_url(value).target not in {"", "/"}:
            raise ValueError("has a path or a query: it is https://HOST[:PORT]")
        return value.rstrip("/")


class CertManagerUpstream:
    """Settings: CertManagerSettings."""

    kind = "cert-manager"

    def __init__(self, settings: Mapping[str, Any], reach: Reach, _mint: Mint) -> None:
        self._settings = told = read_settings(CertManagerSettings, settings)
        self._http = reach(told)
        self._requests = f"{told.address}/apis/{_GROUP}/v1/namespaces/{told.namespace}/certificaterequests"

    async def sign(self, csr: x509.CertificateSigningRequest, ttl: timedelta) -> SignedIntermediate:
        request = _request(self._settings, csr, ttl)
        name = request["metadata"]["name"]
        answer = await self._ask("POST", self._requests, _CREATE, request)
        if answer.status not in {200, 201, 202, 409}:  # 409: it was asked for before
            raise _refusal(answer, _CREATE)
        try:
            status = await self._issued(name)
        finally:
            if not _cancelled():
                await self._remove(name)
        chain = _certificates(status.get("certificate"), "certificate")
        roots = await self._roots(chain, status.get("ca"))
        # What path length an issuer sets is its own affair, and many set none.
        return SignedIntermediate(tuple(each for each in chain if each not in roots), roots, unlimited=True)

    async def look(self) -> Standing:
        """Whether the issuer is ready. Its roots are known where a file has them, or when it has signed."""
        told = self._settings
        if told.issuer_group == _GROUP:
            kinds = "clusterissuers" if told.issuer_kind == "ClusterIssuer" else f"namespaces/{told.namespace}/issuers"
            answer = await self._ask("GET", f"{told.address}/apis/{_GROUP}/v1/{kinds}/{told.issuer_name}", _ISSUER)
            status = _status(answer, _ISSUER)
            ready = _conditions(status).get("Ready", {})
            if ready.get("status") != "True":
                raise UpstreamUnavailable(
                    f"the issuer {told.issuer_name} is not ready ({code_of(ready.get('reason')) or 'no reason'})",
                    detail=said(ready.get("message")),
                )
        roots = None if told.roots is None else await asyncio.to_thread(_roots_in, told.roots)
        return Standing(None, roots)

    def describe(self) -> Mapping[str, str]:
        told = self._settings
        issuer = f"{told.issuer_kind} {told.issuer_name}"
        return {"address": told.address, "namespace": told.namespace, "issuer": issuer}

    async def close(self) -> None:
        await self._http.close()

    async def _issued(self, name: str) -> dict[str, Any]:
        """Wait until it is issued, and return its status. Whoever asks gives up in time."""
        while True:
            status = _status(await self._ask("GET", self._place(name), _LOOK), _LOOK)
            found = _conditions(status)
            for kind in ("InvalidRequest", "Denied"):
                if found.get(kind, {}).get("status") == "True":
                    raise _failed(kind, found[kind])
            ready = found.get("Ready", {})
            if ready.get("reason") == "Failed":
                raise _failed("Failed", ready)
            if ready.get("status") == "True":
                return status
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _remove(self, name: str) -> None:
        """It is of no use any more. If this fails, somebody else has to."""
        try:
            answer = await self._ask("DELETE", self._place(name), _REMOVE)
            if answer.status in {200, 202, 404}:
                return
            why = f"HTTP {answer.status}"
        except SojournError as error:
            why = error.public
        log.info("upstream_request_not_removed", name=name, reason=why)

    async def _roots(self, chain: tuple[x509.Certificate, ...], told: object) -> tuple[x509.Certificate, ...]:
        """Those in the file; without one, those that are told with it."""
        if self._settings.roots is not None:
            return await asyncio.to_thread(_roots_in, self._settings.roots)
        known = (*chain, *(() if told is None or told == "" else _certificates(told, "ca")))
        roots = tuple(dict.fromkeys(each for each in known if each.issuer == each.subject))
        if not roots:
            raise UpstreamNotGood("the issuer tells no root: name a file with them, `roots`")
        return roots

    def _place(self, name: str) -> str:
        return f"{self._requests}/{quote(name, safe='')}"

    async def _ask(self, method: Method, url: str, step: str, body: Mapping[str, Any] | None = None) -> HttpResponse:
        token = await asyncio.to_thread(_token_in, self._settings.token_file)
        headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
        content = None
        if body is not None:
            headers["content-type"], content = "application/json", json.dumps(body).encode()
        return await self._http.ask(method, url, step=step, headers=headers, content=content)


def _request(told: CertManagerSettings, csr: x509.CertificateSigningRequest, ttl: timedelta) -> dict[str, Any]:
    asked = csr.public_bytes(Encoding.PEM)
    return {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "CertificateRequest",
        "metadata": {
            "name": f"sojourn-{hashlib.sha256(asked).hexdigest()[:40]}",
            "namespace": told.namespace,
            "labels": {"app.kubernetes.io/managed-by": "sojourn"},
        },
        "spec": {
            "request": b64encode(asked).decode(),
            "duration": f"{int(ttl.total_seconds())}s",
            "isCA": True,
            "usages": ["cert sign", "crl sign"],
            "issuerRef": {"name": told.issuer_name, "kind": told.issuer_kind, "group": told.issuer_group},
        },
    }


def _status(answer: HttpResponse, step: str) -> dict[str, Any]:
    if answer.status != 200:
        raise _refusal(answer, step)
    try:
        told = answer.json(step)
        return table_of(told, "status", step) if told.get("status") is not None else {}
    except SojournError as error:
        raise_unavailable(error)


def _conditions(status: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    told = status.get("conditions")
    listed = told if isinstance(told, list) else []
    return {str(each.get("type")): each for each in listed if isinstance(each, dict)}


def _failed(kind: str, condition: Mapping[str, Any]) -> UpstreamUnavailable:
    return UpstreamUnavailable(
        f"cert-manager does not issue it ({kind}): see `kubectl describe certificaterequest`, and who approves them",
        detail=said(condition.get("message")),
    )


def _refusal(answer: HttpResponse, step: str) -> UpstreamUnavailable:
    if answer.status == 401:
        return UpstreamUnavailable("Kubernetes does not know the token in token_file")
    told = answer.told()
    reason, detail = code_of(told.get("reason")), said(told.get("message"))
    if answer.status >= 500 or answer.status == 429 or not reason:
        return unavailable(unanswered(answer, step, detail=detail), _HINTS.get((step, answer.status), ""))
    hint = _HINTS.get((step, answer.status), "")
    return UpstreamUnavailable(f"Kubernetes refuses it ({reason})" + (f"; {hint}" if hint else ""), detail=detail)


def _certificates(told: object, what: str) -> tuple[x509.Certificate, ...]:
    """Those of a field of the status: PEM in base64."""
    try:
        text = b64decode(told, validate=True).decode() if isinstance(told, str) else ""
    except ValueError as error:
        raise UpstreamNotGood(f"the status has a {what} that is no base64") from error
    found = pem_certificates(text)
    if not found:
        raise UpstreamNotGood(f"the status has no {what}")
    return found


def _roots_in(file: Path) -> tuple[x509.Certificate, ...]:
    try:
        found = x509.load_pem_x509_certificates(trusted.read(file, UPSTREAM_FILE_MAX_BYTES).encode())
    except (InvalidInput, ValueError) as error:
        said_of = error.public if isinstance(error, InvalidInput) else "has no certificates in PEM"
        raise UpstreamNotGood(f"roots {file}: {said_of}") from error
    return tuple(dict.fromkeys(found))


def _token_in(file: Path) -> str:
    try:
        return token_in(file)
    except InvalidInput as error:
        raise UpstreamUnavailable(f"token_file {file}: {error.public}") from error


def _cancelled() -> bool:
    """Whether whoever asked has given up: then it is asked again, for the same object."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
