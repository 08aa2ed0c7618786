"""OpenBao's and Vault's PKI secrets engine as the authority above the agent's own.

The agent logs in by a JWT-SVID of its own, which no upstream authority signs: so there is no secret to begin with. Its
token is revoked when the intermediate is signed.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sojourn.authority.root_signer import SignedIntermediate
from sojourn.authority.upstream import Standing
from sojourn.errors import InvalidInput, SojournError, UpstreamNotGood, UpstreamUnavailable
from sojourn.files.token_file import token_in
from sojourn.providers.answers import table_of, token_of
from sojourn.providers.guarded_http import GuardedHttp
from sojourn.providers.http import Http, HttpResponse
from sojourn.providers.provider import Mint
from sojourn.providers.vault_answers import refusal_of
from sojourn.settings.upstream import UpstreamAuthorityConfig
from sojourn.upstream.unavailable import raise_unavailable, unavailable

log = structlog.get_logger()
_LOGIN, _SIGN, _LOOK, _REVOKE = "login", "sign", "look", "revoke"
_SET: Final = {
    (_SIGN, 403): "its policy has to allow update of {path}",
    (_SIGN, 404): "compare `mount` and `issuer` with: bao list {mount}/issuers",
    (_LOOK, 403): "its policy, or nobody's token, has to allow read of {path}",
    (_LOOK, 404): "compare `mount` and `issuer` with: bao list {mount}/issuers",
}


class OpenBaoUpstream:
    """Asks for an intermediate by `issuer/REF/sign-intermediate`, with the values of the request."""

    kind = "openbao"

    def __init__(self, config: UpstreamAuthorityConfig, mint: Mint, http: Http | None = None) -> None:
        """Raise InvalidConfig if `ca` is not a file of certificates."""
        self._config = config
        self._mint = mint
        self._address = (config.address or "").rstrip("/")
        self._http = http or GuardedHttp(config)

    async def sign(self, csr: x509.CertificateSigningRequest, ttl: timedelta) -> SignedIntermediate:
        body = {
            "csr": csr.public_bytes(Encoding.PEM).decode(),
            "use_csr_values": True,
            "max_path_length": 0,  # of the request it takes all else
            "ttl": f"{int(ttl.total_seconds())}s",
            "format": "pem",
        }
        token = await self._token()
        try:
            path = f"{self._config.mount}/issuer/{self._config.issuer}/sign-intermediate"
            data = await self._data(await self._post(path, body, _SIGN, token), _SIGN, path)
        finally:
            if self._config.token_file is None:
                await self._revoke(token)
        chain = _chain(data)
        return SignedIntermediate(
            (_certificate(data.get("certificate")), *(each for each in chain if not _is_root(each))), _roots(chain)
        )

    async def look(self) -> Standing:
        path = f"{self._config.mount}/issuer/{self._config.issuer}/json"
        try:
            answer = await self._http.get(f"{self._address}/v1/{path}", step=_LOOK, headers=self._headers())
        except SojournError as error:
            raise_unavailable(error)
        data = await self._data(answer, _LOOK, path)
        return Standing(_certificate(data.get("certificate")), _roots(_chain(data)))

    def describe(self) -> Mapping[str, str]:
        told = {"address": self._address, "mount": self._config.mount, "issuer": self._config.issuer}
        if self._config.namespace is not None:
            told["namespace"] = self._config.namespace
        by = "JWT-SVID" if self._config.token_file is None else f"token in {self._config.token_file}"
        return {**told, "login": by}

    async def close(self) -> None:
        await self._http.close()

    async def _token(self) -> str:
        if self._config.token_file is not None:
            return await asyncio.to_thread(_token_in, self._config.token_file)
        try:
            audience = self._config.audience or self._address
            body = {"role": self._config.auth_role, "jwt": await self._mint(audience, algorithm="ES256")}
            path = f"auth/{self._config.auth_mount}/login"
            answer = await self._post(path, body, _LOGIN)
            if answer.status != 200:
                raise refusal_of(answer, _LOGIN)
            return token_of(table_of(answer.json(_LOGIN), "auth", _LOGIN), "client_token", _LOGIN)
        except SojournError as error:
            raise_unavailable(error)

    async def _revoke(self, token: str) -> None:
        """It ends by itself, if this fails."""
        try:
            answer = await self._post("auth/token/revoke-self", {}, _REVOKE, token)
            if answer.status in {200, 204}:
                return
            why = f"HTTP {answer.status}"
        except SojournError as error:
            why = error.public
        log.info("upstream_token_not_revoked", reason=why)

    async def _data(self, answer: HttpResponse, step: str, path: str) -> dict[str, Any]:
        if answer.status == 200:
            try:
                return table_of(answer.json(step), "data", step)
            except SojournError as error:
                raise_unavailable(error)
        hint = _SET.get((step, answer.status), "").format(path=path, mount=self._config.mount)
        raise unavailable(refusal_of(answer, step), hint)

    async def _post(self, path: str, body: Mapping[str, Any], step: str, token: str = "") -> HttpResponse:
        try:
            url = f"{self._address}/v1/{path}"
            return await self._http.post_json(url, body, step=step, headers=self._headers(token))
        except SojournError as error:
            raise_unavailable(error)

    def _headers(self, token: str = "") -> dict[str, str]:
        named = {"X-Vault-Request": "true"}
        if self._config.namespace is not None:
            named["X-Vault-Namespace"] = self._config.namespace
        return {**named, "X-Vault-Token": token} if token else named


def _token_in(path: Path) -> str:
    try:
        return token_in(path)
    except InvalidInput as error:
        raise UpstreamUnavailable(f"token_file {path}: {error.public}") from error


def _chain(data: Mapping[str, Any]) -> tuple[x509.Certificate, ...]:
    """The issuer and what is above it, with the root."""
    told = data.get("ca_chain") or [data.get("issuing_ca") or data.get("certificate")]
    if not isinstance(told, list):
        raise UpstreamNotGood("the answer's ca_chain is not a list of certificates")
    return tuple(map(_certificate, told))


def _certificate(told: object) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(told.encode() if isinstance(told, str) else b"")
    except ValueError as error:
        raise UpstreamNotGood("the answer has no certificate in PEM where one is to be") from error


def _roots(chain: tuple[x509.Certificate, ...]) -> tuple[x509.Certificate, ...]:
    roots = tuple(each for each in chain if _is_root(each))
    if not roots:
        raise UpstreamNotGood(
            "the issuer's chain does not end at a root: import the root's certificate into the engine"
            " (MOUNT/issuers/import/cert)"
        )
    return roots


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.issuer == certificate.subject
