"""Opaque access tokens: which text may be one, and whose it is by what its issuer answers about it (RFC 7662, 2.2).

The answer stands for the claims of a JWT: the same are asked for, and the same rules are theirs. It has no signature of
its own; that it is the issuer's is known by the connection.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sojourn.errors.people import PersonRefused
from sojourn.jose.jws import UnverifiedJws, VerifiedClaims
from sojourn.limits import OPAQUE_TOKEN_MAX_BYTES, OPAQUE_TOKEN_MIN_BYTES
from sojourn.people.claims import read_person
from sojourn.people.issuer_rules import IssuerRules
from sojourn.people.person import Person
from sojourn.people.token_kind import ACCESS_TOKEN, check_kind
from sojourn.people.verification import check_bearer, check_presenter, check_times
from sojourn.spiffe.ids import SpiffeId

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, 2.1
_PARTS: Final = 2  # dots of a JWS; a JWE has more


def is_opaque(text: str) -> bool:
    """Whether a text may be an access token that is no JWT. One that could be guessed is none (RFC 6749, 10.10)."""
    fits = OPAQUE_TOKEN_MIN_BYTES <= len(text) <= OPAQUE_TOKEN_MAX_BYTES
    return fits and text.count(".") < _PARTS and _TOKEN.fullmatch(text) is not None


def verify_answer(said: Mapping[str, Any], rules: IssuerRules, presenter: SpiffeId, now: datetime) -> Person:
    """The person of an active token, for the workload that brings it. Raise PersonRefused or InvalidToken."""
    if said.get("iss", rules.url) != rules.url:
        raise PersonRefused("unknown_issuer", "the issuer says that the token is of another issuer")
    check_token_type(said)
    claims = VerifiedClaims({**said, "iss": rules.url})
    check_kind(as_jws(claims), ACCESS_TOKEN)
    check_times(claims, rules, now)
    check_presenter(claims, rules, ACCESS_TOKEN, presenter)
    check_bearer(claims)
    return read_person(claims, rules, ACCESS_TOKEN, now.timestamp())


def check_token_type(said: Mapping[str, Any]) -> None:
    """Raise PersonRefused unless the issuer says that it is an access token, and for its bearer: of a refresh token it
    says no type.
    """
    kind = said.get("token_type")
    if isinstance(kind, str) and kind.casefold() == "dpop":
        raise PersonRefused("bound_elsewhere", "the token is bound to a key that is not shown here: it is for DPoP")
    if not isinstance(kind, str) or kind.casefold() != "bearer":
        raise PersonRefused("wrong_kind", "the issuer does not say that the token is an access token (token_type)")


def as_jws(claims: Mapping[str, Any]) -> UnverifiedJws:
    """The claims as of a token of the type that an answer is about, which has no header."""
    return UnverifiedJws("", "", None, "at+jwt", dict(claims))
