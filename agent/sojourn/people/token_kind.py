"""Which kind of token one is: an ID token, an access token, an ID-JAG, or none that says who a person is.

It is told by the type in its header and by what it says of itself. What is left open by both is what it is said to be,
unless it has claims that the other kind alone has.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from sojourn.errors import quoted
from sojourn.errors.people import PersonRefused
from sojourn.jose.jws import UnverifiedJws
from sojourn.people.issuer_rules import PARTIES

ID_TOKEN: Final = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105  # a name
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  # a name
ID_JAG: Final = "urn:ietf:params:oauth:token-type:id-jag"
ID_JAG_HEADER: Final = "oauth-id-jag+jwt"  # draft-ietf-oauth-identity-assertion-authz-grant-04: no other, nor none
NAMES: Final = {ID_TOKEN: "an ID token", ACCESS_TOKEN: "an access token", ID_JAG: "an ID-JAG"}
_BOTH: Final = frozenset({ID_TOKEN, ACCESS_TOKEN})
# RFC 9068, 2.1. Most ID tokens, and access tokens of those who do not follow it, are of type JWT or of none.
_TYPES: Final[Mapping[str | None, Collection[str]]] = {
    "at+jwt": {ACCESS_TOKEN},
    "application/at+jwt": {ACCESS_TOKEN},
    ID_JAG_HEADER: {ID_JAG},
    "JWT": _BOTH,
    None: _BOTH,
}
# What tokens say of themselves: Keycloak's `typ`, Cognito's `token_use`.
_SAID: Final[Mapping[str, Mapping[str, str]]] = {
    "typ": {"ID": ID_TOKEN, "Bearer": ACCESS_TOKEN},
    "token_use": {"id": ID_TOKEN, "access": ACCESS_TOKEN},
}
_OTHERS: Final = frozenset({"events", "token_introspection", "status_list"})  # of logout tokens and SETs, and so on
_OF_ID_TOKENS: Final = frozenset({"nonce", "at_hash", "c_hash", "s_hash"})
_OF_ACCESS_TOKENS: Final = frozenset({"scope", "scp", *PARTIES}) - {"azp"}


def check_kind(unverified: UnverifiedJws, token_type: str) -> None:
    """Raise PersonRefused unless a token is of the type that it is said to be, and is a person's.

    An ID-JAG is none, whatever it is said to be: it is a grant, and good once (`check_id_jag`).
    """
    if token_type not in _BOTH:
        raise PersonRefused("wrong_kind", f"token type {quoted(token_type)} is none of {', '.join(sorted(_BOTH))}")
    _check(unverified, token_type)


def check_id_jag(unverified: UnverifiedJws) -> None:
    """Raise PersonRefused unless a token is an ID-JAG, and is a person's."""
    _check(unverified, ID_JAG)


def _check(unverified: UnverifiedJws, token_type: str) -> None:
    kinds = possible_kinds(unverified)
    if not kinds:
        raise PersonRefused("wrong_kind", f"the token is none of these: {', '.join(NAMES.values())}")
    if token_type not in kinds:
        raise PersonRefused("wrong_kind", f"the token is {NAMES[next(iter(kinds))]}, not {NAMES[token_type]}")
    if is_of_a_client(unverified.unverified_claims):
        raise PersonRefused("wrong_kind", "the token is of a client itself, not of a person")


def possible_kinds(unverified: UnverifiedJws) -> frozenset[str]:
    """The token types that it may be."""
    claims = unverified.unverified_claims
    kinds = frozenset(_TYPES.get(unverified.typ, ()))
    if not _OTHERS.isdisjoint(claims):
        return frozenset()
    said = {name: words for name, words in _SAID.items() if name in claims}
    for name, words in said.items():
        value = claims[name]
        kinds &= {words.get(value, "")} if isinstance(value, str) else set()
    if not said:
        kinds -= {ACCESS_TOKEN, ID_JAG} if not _OF_ID_TOKENS.isdisjoint(claims) else set()
        kinds -= {ID_TOKEN} if not _OF_ACCESS_TOKENS.isdisjoint(claims) else set()
    return kinds


def is_of_a_client(claims: Mapping[str, Any]) -> bool:
    """Whether a token was given to a client for itself (RFC 6749, 4.4), which no person has to do with."""
    subject = claims.get("sub")
    clients = [claims.get(name) for name in PARTIES]
    account = f"service-account-{claims.get('azp')}".casefold()  # Keycloak's user of a client
    return (
        subject in [each for each in clients if each is not None]
        or claims.get("idtyp") == "app"  # Entra
        or claims.get("gty") == "client-credentials"  # Auth0
        or str(claims.get("preferred_username")).casefold() == account
    )
