"""Root keys that AWS KMS holds, in the key process. Each is found by an alias, which is its label.

KMS makes a key first and gives it an alias then. So `create` returns the key's ID, which the agent has on disk before
`name` gives the alias: a start that may make keys and no aliases makes one key, and not one each time.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from sojourn.authority.token.building import CURVES
from sojourn.authority.token.held_key import HeldKey
from sojourn.authority.token.labels import name_of, next_of, numbers_in
from sojourn.errors import KeysUnavailable
from sojourn.settings.aws_kms import AwsKmsConfig

T = TypeVar("T")
_SPECS: Final = {256: "ECC_NIST_P256", 384: "ECC_NIST_P384"}
_ALGORITHMS: Final = {"sha256": "ECDSA_SHA_256", "sha384": "ECDSA_SHA_384"}
_ALIAS: Final = "alias/"
_ALLOWED: Final = "/-"  # in an alias, beside letters, digits and underscores
_NOT_FOUND: Final = "NotFoundException"
_HINTS: Final = {
    "AccessDeniedException": "allow it kms:{call} on this node's keys and aliases",
    "DisabledException": "enable the key",
    "KMSInvalidStateException": "the key is to be deleted, or its store is away: look at its state",
    "UnrecognizedClientException": "the credentials are none of this account's",
    "InvalidSignatureException": "look at the credentials, and at this machine's clock",
    "ExpiredTokenException": "the credentials have expired",
}


class AwsKms:
    """The keys of one region."""

    def __init__(self, config: AwsKmsConfig) -> None:
        """Raise KeysUnavailable if the settings cannot be."""
        self._where = f"AWS KMS in {config.region}"
        seconds = config.timeout.total_seconds()
        limits = Config(
            connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 1}, max_pool_connections=1
        )
        session = botocore.session.Session()
        self._client: Any = self._done(
            "client",
            lambda: session.create_client(
                "kms", region_name=config.region, endpoint_url=config.endpoint, config=limits
            ),
        )

    def look(self) -> None:
        """Raise KeysUnavailable unless it answers."""
        self._done("ListAliases", lambda: self._client.list_aliases(Limit=1))

    def next_number(self, prefix: str) -> int:
        """One that no key has yet. Raise KeysUnavailable, FailedPrecondition."""

        def names() -> list[str]:
            pages = self._client.get_paginator("list_aliases").paginate()
            return [each["AliasName"] for page in pages for each in page["Aliases"]]

        return next_of(numbers_in(self._done("ListAliases", names), _alias(prefix)), self._where)

    def find(self, label: str) -> HeldKey | None:
        """The key with a label; None: there is none. Raise KeysUnavailable, also if it is not as we make them."""
        alias = _alias(label)
        told = self._done("GetPublicKey", lambda: self._known(alias))
        if told is None:
            return None
        if told.get("KeyUsage") != "SIGN_VERIFY" or told.get("KeySpec") not in _SPECS.values():
            raise KeysUnavailable(f"{alias} of {self._where} is no key that signs by P-256 or P-384")
        try:
            public = load_der_public_key(told["PublicKey"])
        except (ValueError, TypeError, KeyError) as error:
            raise KeysUnavailable(f"{self._where} has told no public key of {alias}") from error
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, CURVES):
            raise KeysUnavailable(f"{alias} of {self._where} is neither P-256 nor P-384")

        def sign(digest: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
            return self._sign(alias, digest, algorithm)

        return HeldKey(public, sign)

    def create(self, label: str, curve: ec.EllipticCurve) -> str:
        """Make a key that never leaves KMS. Return its ID: it has no label yet. Raise KeysUnavailable."""
        made = self._done(
            "CreateKey",
            lambda: self._client.create_key(KeySpec=_SPECS[curve.key_size], KeyUsage="SIGN_VERIFY", Description=label),
        )
        return str(made["KeyMetadata"]["KeyId"])

    def name(self, label: str, made: str) -> None:
        """Give a key that was made its label. Raise KeysUnavailable."""
        self._done("CreateAlias", lambda: self._client.create_alias(AliasName=_alias(label), TargetKeyId=made))

    def _known(self, alias: str) -> dict[str, Any] | None:
        try:
            told: dict[str, Any] = self._client.get_public_key(KeyId=alias)
        except ClientError as error:
            if error.response["Error"]["Code"] == _NOT_FOUND:
                return None
            raise
        return told

    def _sign(self, alias: str, digest: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
        asked = {"Message": digest, "MessageType": "DIGEST", "SigningAlgorithm": _ALGORITHMS[algorithm.name]}
        return bytes(self._done("Sign", lambda: self._client.sign(KeyId=alias, **asked))["Signature"])

    def _done(self, call: str, work: Callable[[], T]) -> T:
        """What a call returns. Raise KeysUnavailable."""
        try:
            return work()
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))[:64]
            hint = _HINTS.get(code, "").format(call=call)
            raise KeysUnavailable(f"{self._where} refuses {call}: {code}" + (f"; {hint}" if hint else "")) from error
        except (BotoCoreError, ValueError, KeyError, TypeError) as error:
            raise KeysUnavailable(f"{self._where} cannot be asked for {call}: {type(error).__name__}") from error


def _alias(label: str) -> str:
    return _ALIAS + name_of(label, _ALLOWED)
