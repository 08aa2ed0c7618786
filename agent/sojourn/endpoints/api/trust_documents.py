"""What outside parties fetch to trust this agent: OpenID Connect discovery, its JWK Set, and the SPIFFE bundle.

The keys of JWT-SVIDs are in them, and those of task tokens are not: who trusts the documents trusts them to say who a
workload is, and a task token, which names it too, is for the service that it was issued for and nobody else.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

from sojourn.identity.trust import TrustSource
from sojourn.jose.jws import PublicKey
from sojourn.limits import TRUST_AGE_SECONDS
from sojourn.spiffe.bundle import Bundle

DISCOVERY: Final = "/.well-known/openid-configuration"
KEYS: Final = "/keys"
BUNDLE: Final = "/bundle"


@dataclass(frozen=True, slots=True)
class Document:
    """JSON as it is sent. `etag` is with its quotes; `max_age_seconds`: for how long it may be kept."""

    path: str
    body: bytes
    etag: str
    max_age_seconds: int


class PublishedTrust(TrustSource, Protocol):
    """The bundle as it is published, and how its JWT keys change."""

    @property
    def jwt_algorithms(self) -> tuple[str, ...]:
        """Those by which JWT-SVIDs are signed."""

    @property
    def jwt_key_overlap(self) -> timedelta:
        """For how long a JWT key is published before it signs."""


class TrustDocuments:
    """The documents, made anew when the authority's keys have changed."""

    def __init__(self, authority: PublishedTrust, issuer: str, url: str | None = None) -> None:
        """`issuer`: the `iss` of JWT-SVIDs, below which discovery is looked for. `url`: below which the keys are to be
        had; default: the same.
        """
        self.issuer = issuer
        self._authority = authority
        self._keys_url = (url or issuer) + KEYS
        self._made: tuple[Bundle, Mapping[str, Document]] | None = None

    def all(self) -> Mapping[str, Document]:
        """By path."""
        bundle = self._authority.bundle
        if self._made is None or self._made[0] is not bundle:
            self._made = (bundle, self._make(bundle))
        return self._made[1]

    def _make(self, bundle: Bundle) -> Mapping[str, Document]:
        # Whoever has kept a document for its whole age has fetched it again before a new key signs.
        age = min(self._authority.jwt_key_overlap / 2, timedelta(seconds=TRUST_AGE_SECONDS))
        hint = timedelta(seconds=bundle.refresh_hint_seconds)
        made = [
            _document(DISCOVERY, self._discovery(), age),
            _document(KEYS, key_set(bundle.jwt_authorities.values()), age),
            _document(BUNDLE, bundle.document(), min(age, hint)),
        ]
        return {each.path: each for each in made}

    def _discovery(self) -> dict[str, Any]:
        """OpenID Connect Discovery 1.0, 3: what verifiers of tokens read of it. There are no other endpoints here."""
        return {
            "issuer": self.issuer,
            "jwks_uri": self._keys_url,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": list(self._authority.jwt_algorithms),
        }


def key_set(keys: Iterable[PublicKey]) -> dict[str, Any]:
    """The JWK Set (RFC 7517) of keys that sign, each with its algorithm."""
    return {"keys": [{**key.jwk, "use": "sig", "alg": key.signs_by} for key in keys]}


def _document(path: str, content: Mapping[str, Any], age: timedelta) -> Document:
    body = json.dumps(content).encode()
    return Document(path, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"', int(age.total_seconds()))
