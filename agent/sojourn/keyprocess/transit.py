"""Root keys that OpenBao's or Vault's transit secrets engine holds, in the key process.

A key is made there, not exportable, and has one version. Each question logs in anew and gives the token back: so the
key process has no right that outlives a question, but for a token that an operator has put into a file.
"""

import asyncio
import re
from base64 import b64decode, b64encode
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sojourn.authority.token.building import CURVES
from sojourn.authority.token.held_key import HeldKey
from sojourn.authority.token.labels import name_of, next_of, numbers_in
from sojourn.errors import InvalidInput, KeysUnavailable, SojournError
from sojourn.files.token_file import token_in
from sojourn.providers.answers import table_of, token_of
from sojourn.providers.guarded_http import GuardedHttp
from sojourn.providers.http import Http, HttpResponse
from sojourn.providers.vault_answers import refusal_of
from sojourn.settings.openbao import TransitConfig

T = TypeVar("T")
_KINDS: Final = {256: "ecdsa-p256", 384: "ecdsa-p384"}
_HASHES: Final = {"sha256": "sha2-256", "sha384": "sha2-384"}
_SIGNATURE: Final = re.compile(r"vault:v1:([A-Za-z0-9+/]+={0,2})")
_ALLOWED: Final = ".-"  # in a key's name, beside letters, digits and underscores
_LOGIN, _LIST, _MAKE, _READ, _SIGN, _REVOKE = "login", "list", "make", "read", "sign", "revoke"
_RIGHTS: Final = {_LIST: "list", _MAKE: "create and update", _READ: "read", _SIGN: "update"}


class Transit:
    """The keys of an engine."""

    def __init__(self, config: TransitConfig, http: Http | None = None) -> None:
        """Raise InvalidConfig if `ca` is not a file of certificates."""
        self._config = config
        self._address = config.address.rstrip("/")
        self._where = f"the engine {config.mount!r} at {self._address}"
        self._runner = asyncio.Runner()
        self._http = http or GuardedHttp(config)
        self._token = ""

    @contextmanager
    def logged_in(self, assertion: str) -> Iterator[None]:
        """Ask by the rights of whoever this JWT-SVID is of, or by the token in the file. Raise KeysUnavailable."""
        if self._config.token_file is not None:
            self._token = _token_in(self._config.token_file)
            yield
            return
        self._token = self._run(self._log_in(assertion))
        try:
            yield
        finally:
            with suppress(KeysUnavailable):  # it ends by itself, if this fails
                self._run(self._post("auth/token/revoke-self", {}, _REVOKE))
            self._token = ""

    def look(self) -> None:
        """Raise KeysUnavailable unless it is there and unsealed."""
        answer = self._run(self._get("sys/health?standbyok=true&perfstandbyok=true", "look"))
        if answer.status != 200:
            sealed = answer.told().get("sealed") is True
            raise KeysUnavailable(f"{self._where} is {'sealed' if sealed else 'not ready'}")

    def next_number(self, prefix: str) -> int:
        """One that no key has yet. Raise KeysUnavailable, FailedPrecondition."""
        answer = self._run(self._get(f"{self._config.mount}/keys?list=true", _LIST))
        names = [] if answer.status == 404 else self._data(answer, _LIST).get("keys")
        if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
            raise KeysUnavailable(f"{self._where} has listed what are no names of keys")
        return next_of(numbers_in(names, name_of(prefix, _ALLOWED)), self._where)

    def find(self, label: str) -> HeldKey | None:
        """The key with a label; None: there is none. Raise KeysUnavailable, also if it is not as we make them."""
        name = name_of(label, _ALLOWED)
        answer = self._run(self._get(f"{self._config.mount}/keys/{name}", _READ))
        if answer.status == 404:
            return None
        return self._key(name, self._data(answer, _READ))

    def create(self, label: str, curve: ec.EllipticCurve) -> str:
        """Make a key that never leaves the engine. It has its label at once. Raise KeysUnavailable."""
        path = f"{self._config.mount}/keys/{name_of(label, _ALLOWED)}"
        told = {"type": _KINDS[curve.key_size], "exportable": False, "allow_plaintext_backup": False}
        answer = self._run(self._post(path, told, _MAKE))
        if answer.status not in {200, 204}:
            raise self._refused(answer, _MAKE)
        return ""

    def name(self, label: str, made: str) -> None:
        """A key has its label already."""

    def close(self) -> None:
        self._run(self._http.close())
        self._runner.close()

    def _key(self, name: str, told: Mapping[str, Any]) -> HeldKey:
        versions = told.get("keys")
        if told.get("exportable") is not False or told.get("allow_plaintext_backup") is not False:
            raise KeysUnavailable(f"key {name!r} of {self._where} can be exported: it is no root's")
        if not isinstance(versions, dict) or versions.keys() != {"1"}:
            raise KeysUnavailable(
                f"key {name!r} of {self._where} has other versions than its first: it was rotated there"
            )
        try:
            public = load_pem_public_key(versions["1"]["public_key"].encode())
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise KeysUnavailable(f"{self._where} has told no public key of {name!r}") from error
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, CURVES):
            raise KeysUnavailable(f"key {name!r} of {self._where} is neither P-256 nor P-384")

        def sign(digest: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
            return self._sign(name, digest, algorithm)

        return HeldKey(public, sign)

    def _sign(self, name: str, digest: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
        told = {
            "input": b64encode(digest).decode(),
            "prehashed": True,
            "hash_algorithm": _HASHES[algorithm.name],
            "marshaling_algorithm": "asn1",
            "key_version": 1,
        }
        answer = self._run(self._post(f"{self._config.mount}/sign/{name}", told, _SIGN))
        signature = self._data(answer, _SIGN).get("signature")
        found = _SIGNATURE.fullmatch(signature) if isinstance(signature, str) else None
        if found is None:
            raise KeysUnavailable(f"{self._where} has answered with no signature")
        return b64decode(found[1])

    async def _log_in(self, assertion: str) -> str:
        told = {"role": self._config.auth_role, "jwt": assertion}
        answer = await self._post(f"auth/{self._config.auth_mount}/login", told, _LOGIN)
        if answer.status != 200:
            raise self._refused(answer, _LOGIN)
        try:
            return token_of(table_of(answer.json(_LOGIN), "auth", _LOGIN), "client_token", _LOGIN)
        except SojournError as error:
            raise self._failed(error) from error

    async def _get(self, path: str, step: str) -> HttpResponse:
        try:
            return await self._http.get(f"{self._address}/v1/{path}", step=step, headers=self._headers())
        except SojournError as error:
            raise self._failed(error) from error

    async def _post(self, path: str, told: Mapping[str, Any], step: str) -> HttpResponse:
        try:
            url = f"{self._address}/v1/{path}"
            return await self._http.post_json(url, told, step=step, headers=self._headers())
        except SojournError as error:
            raise self._failed(error) from error

    def _headers(self) -> dict[str, str]:
        named = {"X-Vault-Request": "true"}
        if self._config.namespace is not None:
            named["X-Vault-Namespace"] = self._config.namespace
        return {**named, "X-Vault-Token": self._token} if self._token else named

    def _data(self, answer: HttpResponse, step: str) -> dict[str, Any]:
        if answer.status != 200:
            raise self._refused(answer, step)
        try:
            return table_of(answer.json(step), "data", step)
        except SojournError as error:
            raise self._failed(error) from error

    def _refused(self, answer: HttpResponse, step: str) -> KeysUnavailable:
        hint = ""
        if answer.status == 403 and step in _RIGHTS:
            place = {_SIGN: "sign/*", _LIST: "keys"}.get(step, "keys/*")
            hint = f"its policy has to allow {_RIGHTS[step]} of {self._config.mount}/{place}"
        elif answer.status == 404 and step in {_MAKE, _SIGN}:
            hint = "compare `mount` with: bao secrets list"
        return self._failed(refusal_of(answer, step), hint)

    def _failed(self, error: SojournError, hint: str = "") -> KeysUnavailable:
        if isinstance(error, KeysUnavailable):
            return error
        hint = hint or getattr(error, "hint", "")
        return KeysUnavailable(f"{self._where}: {error.public}" + (f"; {hint}" if hint else ""), detail=error.detail)

    def _run(self, asked: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(asked)


def _token_in(path: Path) -> str:
    try:
        return token_in(path)
    except InvalidInput as error:
        raise KeysUnavailable(f"token_file {path}: {error.public}") from error
