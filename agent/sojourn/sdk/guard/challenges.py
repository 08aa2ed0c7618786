"""What a guard answers itself: refusals with their challenges, and what it is the guard of."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sojourn.jose.jws import ALGORITHMS
from sojourn.sdk.guard.request_credentials import BEARER, DPOP

_JSON: Final = ("content-type", "application/json")
_NOT_KEPT: Final = ("cache-control", "no-store")
_RETRY_AFTER: Final = ("retry-after", "1")  # seconds: an agent that was started anew is there by then


class GuardAnswer(Protocol):
    """An answer that is sent in place of the application's."""

    @property
    def status(self) -> int: ...

    def headers(self) -> list[tuple[str, str]]: ...

    def body(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Challenge:
    """How to come back with a token: what stands in each WWW-Authenticate.

    `resource_metadata` is the URL of the protected resource's metadata (RFC 9728, 5.1), '' if it has none.
    """

    realm: str
    resource_metadata: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not let through, as RFC 6750, 9449 and 9470 have it. No `error`: it had no token at all."""

    status: int
    error: str
    description: str
    challenge: Challenge = field(default_factory=lambda: Challenge(""))
    schemes: tuple[str, ...] = (BEARER, DPOP)  # of challenges; the first is that of the token that came, if one did
    acr: str = ""  # those of which the request's action needs one, with a space between (RFC 9470, 3)
    scope: str = ""  # that it needs (RFC 6750, 3)
    nonce: str = ""  # for the next proof (RFC 9449, 9)
    max_age: int | None = None  # how many seconds ago its person may have logged in (RFC 9470, 3)

    @property
    def for_now(self) -> bool:
        """Whether the same request may be let through a little later (RFC 9110, 15.6.4)."""
        return self.status == 503

    def headers(self) -> list[tuple[str, str]]:
        """The headers of the answer, names in lower case."""
        challenges = []
        if self.status in {401, 403} or (self.status == 400 and self.challenge.realm):  # not of what is no request
            challenges = [("www-authenticate", self._challenge(each, at == 0)) for at, each in enumerate(self.schemes)]
        later = [_RETRY_AFTER] if self.for_now else []
        return [_JSON, _NOT_KEPT, *challenges, *later, *([("dpop-nonce", self.nonce)] if self.nonce else [])]

    def body(self) -> bytes:
        return json.dumps({"error": self.error or "no_token", "error_description": self.description}).encode()

    def _challenge(self, scheme: str, said: bool) -> str:
        parts = [("realm", self.challenge.realm)]
        if self.error and said:
            parts += [("error", self.error), ("error_description", self.description)]
        if self.acr and said:
            parts.append(("acr_values", self.acr))
        if self.max_age is not None and said:
            parts.append(("max_age", str(self.max_age)))
        if self.scope and said:
            parts.append(("scope", self.scope))
        if scheme == DPOP:
            parts.append(("algs", " ".join(ALGORITHMS)))
        if self.challenge.resource_metadata:
            parts.append(("resource_metadata", self.challenge.resource_metadata))
        return f"{scheme} " + ", ".join(f'{name}="{_quotable(value)}"' for name, value in parts)


@dataclass(frozen=True, slots=True)
class ResourceMetadata:
    """The metadata of a protected resource (RFC 9728, 3.2)."""

    resource: str
    authorization_servers: Sequence[str]
    actions: Sequence[str]
    status: int = 200

    def headers(self) -> list[tuple[str, str]]:
        return [_JSON, _NOT_KEPT]

    def body(self) -> bytes:
        members: dict[str, Any] = {
            "resource": self.resource,
            "authorization_servers": list(self.authorization_servers),
            "scopes_supported": sorted(set(self.actions)),
            "bearer_methods_supported": ["header"],
            "dpop_signing_alg_values_supported": list(ALGORITHMS),
            "tls_client_certificate_bound_access_tokens": True,
        }
        return json.dumps({name: value for name, value in members.items() if value}).encode()


def _quotable(text: str) -> str:
    """Only what may stand in error_description (RFC 6750, 3)."""
    return "".join(each if " " <= each <= "~" and each not in '"\\' else "?" for each in text)
