"""AWS Private CA as the authority above the agent's own.

The API is described at https://docs.aws.amazon.com/privateca/latest/APIReference/ (IssueCertificate, GetCertificate and
GetCertificateAuthorityCertificate). A request that is asked again, since its answer was late or lost, has the same
idempotency token, so that nothing is issued twice.
"""

import asyncio
import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import Field, model_validator

from sojourn.net.urls import parse_url
from sojourn.plugins.upstream import (
    FilePath,
    HttpResponse,
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
from sojourn.providers.answers import code_of, said, text_of, unanswered
from sojourn.runtime.clock import Clock, SystemClock
from sojourn.upstream.aws_keys import InFile, KeySource, OfRole
from sojourn.upstream.certificates_told import one_certificate, pem_certificates
from sojourn.upstream.sigv4 import signed_headers
from sojourn.upstream.unavailable import raise_unavailable, unavailable

_SERVICE: Final = "acm-pca"
_ISSUE, _GET, _LOOK = "IssueCertificate", "GetCertificate", "GetCertificateAuthorityCertificate"
_JSON: Final = "application/x-amz-json-1.1"
_TEMPLATE: Final = "acm-pca:::template/SubordinateCACertificate_PathLen0/V1"
_ARN: Final = re.compile(r"arn:(aws[a-z-]*):acm-pca:([a-z0-9-]+):[0-9]{12}:certificate-authority/[0-9a-f-]{36}")
_PENDING: Final = "RequestInProgressException"
_SAME: Final = timedelta(minutes=5)  # for which AWS knows an idempotency token
_PAUSE_SECONDS: Final = 0.5  # between two looks whether it is issued, which takes some seconds
_HINTS: Final = {
    "AccessDeniedException": "allow acm-pca:IssueCertificate, acm-pca:GetCertificate and"
    " acm-pca:GetCertificateAuthorityCertificate on it",
    "ResourceNotFoundException": "compare `authority` with: aws acm-pca list-certificate-authorities",
    "InvalidStateException": "the authority has to be ACTIVE",
    "ExpiredTokenException": "its credentials have ended",
    "UnrecognizedClientException": "AWS does not know its credentials",
    "InvalidSignatureException": "compare its secret key, and set this machine's clock",
}


class AwsPcaSettings(UpstreamTable):
    """[authority.upstream] with `kind = "aws-pca"`."""

    authority: Annotated[str, Field(pattern=f"^{_ARN.pattern}$")]  # the ARN
    template: Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:acm-pca:::template/[A-Za-z0-9_]+/V[0-9]+$")] | None = None
    endpoint: str | None = None  # default: the region's
    sts_endpoint: str | None = None  # the same, of STS
    role_arn: Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+$")] | None = None
    audience: Annotated[str, Field(min_length=1, max_length=255)] = "sts.amazonaws.com"
    token_file: FilePath | None = None  # shown for the role, instead of a JWT-SVID of the agent's own
    credentials_file: FilePath | None = None
    profile: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")] = "default"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.role_arn is None) == (self.credentials_file is None):
            raise ValueError("role_arn: it needs that, or credentials_file, and not both")
        if self.token_file is not None and self.role_arn is None:
            raise ValueError("token_file: is for role_arn")
        for name in ("endpoint", "sts_endpoint"):
            value = getattr(self, name)
            if value is not None and parse_url(value).target not in {"", "/"}:
                raise ValueError(f"{name}: has a path or a query")
        return self

    @property
    def partition(self) -> str:
        return self._parts[0]

    @property
    def region(self) -> str:
        return self._parts[1]

    @property
    def _parts(self) -> tuple[str, str]:
        found = _ARN.fullmatch(self.authority)
        assert found is not None  # it is checked above
        return found[1], found[2]

    def url(self, service: str, given: str | None) -> str:
        if given is not None:
            return given.rstrip("/") + "/"
        return f"https://{service}.{self.region}.amazonaws.com{'.cn' if self.partition == 'aws-cn' else ''}/"


class AwsPcaUpstream:
    """Settings: AwsPcaSettings."""

    kind = "aws-pca"

    def __init__(self, settings: Mapping[str, Any], reach: Reach, mint: Mint, clock: Clock | None = None) -> None:
        self._settings = told = read_settings(AwsPcaSettings, settings)
        self._clock = clock or SystemClock()
        self._http = reach(told)
        self._url = told.url(_SERVICE, told.endpoint)
        self._template = told.template or f"arn:{told.partition}:{_TEMPLATE}"
        self._keys: KeySource
        if told.credentials_file is not None:
            self._keys = InFile(told.credentials_file, told.profile)
        else:
            self._keys = OfRole(
                self._http,
                mint,
                self._clock,
                sts=told.url("sts", told.sts_endpoint),
                role=told.role_arn or "",
                audience=told.audience,
                token_file=told.token_file,
            )
        self._until: tuple[bytes, datetime, datetime] | None = None  # the request, the end asked for, and when it was

    async def sign(self, csr: x509.CertificateSigningRequest, ttl: timedelta) -> SignedIntermediate:
        issuing, roots = await self._authority()
        asked = csr.public_bytes(Encoding.PEM)
        until = self._end(asked, ttl, issuing)
        issued = await self._call(
            _ISSUE,
            {
                "Csr": b64encode(asked).decode(),
                "SigningAlgorithm": _algorithm(issuing[0]),
                "TemplateArn": self._template,
                "Validity": {"Type": "ABSOLUTE", "Value": int(until.timestamp())},
                "IdempotencyToken": hashlib.sha256(asked + str(until).encode()).hexdigest()[:36],
            },
        )
        answer = await self._issued(_text(issued, "CertificateArn"))
        made = one_certificate(answer.get("Certificate"))
        above = pem_certificates(answer.get("CertificateChain") or "")
        return SignedIntermediate((made, *(each for each in above if each not in roots)), roots)

    async def look(self) -> Standing:
        issuing, roots = await self._authority()
        return Standing(issuing[0], roots)

    def describe(self) -> Mapping[str, str]:
        by = f"role {self._settings.role_arn}" if self._settings.role_arn else f"file {self._settings.credentials_file}"
        return {"authority": self._settings.authority, "login": by}

    async def close(self) -> None:
        await self._http.close()

    async def _authority(self) -> tuple[tuple[x509.Certificate, ...], tuple[x509.Certificate, ...]]:
        """The authority's certificate with those above it, and the roots among them."""
        told = await self._call(_LOOK, {})
        line = (one_certificate(told.get("Certificate")), *pem_certificates(told.get("CertificateChain") or ""))
        roots = tuple(each for each in line if each.issuer == each.subject)
        if not roots:
            raise UpstreamNotGood("the authority's chain does not end at a root")
        return line, roots

    def _end(self, asked: bytes, ttl: timedelta, line: tuple[x509.Certificate, ...]) -> datetime:
        """When it is to end: the same for a request that is asked again soon, as all of it has to be alike then."""
        now, until = self._clock.now(), min(each.not_valid_after_utc for each in line)
        if self._until is None or self._until[0] != asked or not timedelta() <= now - self._until[2] < _SAME:
            self._until = asked, min(now + ttl, until), now
        return self._until[1]

    async def _issued(self, arn: str) -> dict[str, Any]:
        """Wait until it is issued. Whoever asks gives up in time."""
        while True:
            try:
                return await self._call(_GET, {"CertificateArn": arn})
            except _PendingError:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _call(self, action: str, body: Mapping[str, Any]) -> dict[str, Any]:
        keys = await self._keys.have()
        content = json.dumps({"CertificateAuthorityArn": self._settings.authority, **body}).encode()
        headers = signed_headers(
            "POST",
            self._url,
            {"content-type": _JSON, "x-amz-target": f"ACMPrivateCA.{action}"},
            content,
            keys,
            region=self._settings.region,
            service=_SERVICE,
            now=self._clock.now(),
        )
        assert headers["host"] == urlsplit(self._url).netloc  # which the client sends itself
        answer = await self._http.ask("POST", self._url, step=action, headers=_without_host(headers), content=content)
        if answer.status != 200:
            raise _refusal(answer, action)
        try:
            return answer.json(action)
        except SojournError as error:
            raise_unavailable(error)


class _PendingError(Exception):
    """It is not issued yet."""


def _without_host(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name != "host"}


def _refusal(answer: HttpResponse, action: str) -> Exception:
    told = answer.told()
    code = code_of(str(told.get("__type", "")).rpartition("#")[2])
    if code == _PENDING and action == _GET:
        return _PendingError()
    if not code:
        return unavailable(unanswered(answer, action))
    detail = said(told.get("message") or told.get("Message"))
    hint = _HINTS.get(code, "")
    return UpstreamUnavailable(f"AWS refuses {action} ({code})" + (f"; {hint}" if hint else ""), detail=detail)


def _text(answer: Mapping[str, Any], key: str) -> str:
    try:
        return text_of(answer, key, _ISSUE)
    except SojournError as error:
        raise_unavailable(error)


def _algorithm(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return "SHA256WITHRSA"
    return {384: "SHA384WITHECDSA", 521: "SHA512WITHECDSA"}.get(key.curve.key_size, "SHA256WITHECDSA")
