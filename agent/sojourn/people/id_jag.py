"""When an ID-JAG is good (draft-ietf-oauth-identity-assertion-authz-grant-04): a person's issuer has one client ask us.

It is for this authorization server alone, for one client, once, and within minutes. What it says of resource, scope and
details is the most that may be asked for by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sojourn.errors import InvalidInput, InvalidToken
from sojourn.errors.people import PersonRefused
from sojourn.jose.jws import PublicKey, VerifiedClaims, audiences
from sojourn.limits import AUDIENCE_MAX_BYTES, GRANTS_PER_TASK, ID_JAG_MAX_SECONDS
from sojourn.people.claims import malformed, read_person, text_of
from sojourn.people.issuer_rules import IssuerRules
from sojourn.people.person import Person
from sojourn.people.token_kind import ID_JAG, check_id_jag
from sojourn.people.verification import (
    UnverifiedPerson,
    check_no_actor,
    check_presenter,
    check_signature,
    check_times,
)
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.grants import DIGEST, Details, from_details
from sojourn.tasktoken.sender_constraint import JKT

_OURS: Final = "ID-JAG"


@dataclass(frozen=True, slots=True)
class IdJag:
    """A verified one: of whom it is, which of the client's identities may bring it, and what may be asked by it.

    `jti` is its issuer's, and good once. `resources`, `scope` and `details` are None where it does not say them; by
    one that is empty nothing may be asked. The key that must be proved is the person's `key`.
    """

    person: Person
    presenters: tuple[SpiffeId, ...]
    jti: str
    resources: tuple[str, ...] | None
    scope: frozenset[str] | None
    details: Details | None


def verify_id_jag(
    unverified: UnverifiedPerson,
    rules: IssuerRules,
    key: PublicKey | None,
    own_issuer: str,
    clients: Sequence[SpiffeId],
    now: datetime,
) -> IdJag:
    """Check an ID-JAG by its issuer's rules and key, for a client that has authenticated as one of `clients`.

    `own_issuer`: what we are called as an authorization server. Raise PersonRefused or InvalidToken.
    """
    if unverified.unverified_issuer != rules.url:
        raise PersonRefused("unknown_issuer", "the ID-JAG is of another issuer")
    check_signature(unverified.jws, rules, key)
    check_id_jag(unverified.jws)
    claims = VerifiedClaims(unverified.jws.unverified_claims)
    check_life(claims, rules, now)
    check_audience(claims, own_issuer)
    presenters = fitting(claims, rules, clients)
    check_no_actor(claims)
    _check_namespace(claims, rules)
    jti = text_of(claims, "jti", _OURS)
    if not jti:
        raise malformed(_OURS, "lacks jti")
    # It is for minutes, and no token of which its issuer could be asked.
    said = read_person(claims, rules, ID_JAG, now.timestamp()).by_token_alone()
    person = replace(said, key=_key(claims), rechecked=False)
    return IdJag(person, presenters, jti, _resources(claims), _scope(claims), _details(claims))


def check_life(claims: Mapping[str, Any], rules: IssuerRules, now: datetime) -> None:
    """Raise InvalidToken or PersonRefused unless it is good now, and lives for minutes."""
    check_times(claims, rules, now)
    if claims["exp"] - claims["iat"] > ID_JAG_MAX_SECONDS:
        raise PersonRefused("too_old", f"the ID-JAG lives for longer than {ID_JAG_MAX_SECONDS} seconds")


def check_audience(claims: Mapping[str, Any], own_issuer: str) -> None:
    """Raise InvalidToken unless it is for us, and for nobody else: of tenants (`aud_tenant`) we have none."""
    if audiences(claims) != (own_issuer,) or "aud_tenant" in claims:
        raise InvalidToken(f"the ID-JAG's aud is not {own_issuer!r} alone", reason_code="wrong_audience")


def fitting(claims: Mapping[str, Any], rules: IssuerRules, clients: Sequence[SpiffeId]) -> tuple[SpiffeId, ...]:
    """Those of a client's identities to which it was given. Raise PersonRefused if there is none."""
    fit: list[SpiffeId] = []
    refused: PersonRefused | None = None
    for each in clients:
        try:
            check_presenter(claims, rules, ID_JAG, each)
        except PersonRefused as error:
            refused = refused or error
        else:
            fit.append(each)
    if not fit:
        raise refused or PersonRefused("wrong_presenter", "the ID-JAG was brought by nobody")
    return tuple(fit)


def _check_namespace(claims: Mapping[str, Any], rules: IssuerRules) -> None:
    """Raise PersonRefused if `sub` alone does not say who of the issuer's it is: two people might become one."""
    if "tenant" in claims:
        raise PersonRefused(
            "unknown_issuer", "the ID-JAG is of one tenant of its issuer, which is not told from another"
        )
    own = {"format": "iss_sub", "iss": rules.url, "sub": claims.get("sub")}
    if claims.get("sub_id", own) != own:
        raise PersonRefused("unknown_issuer", "the ID-JAG's sub_id names somebody in another way than iss and sub do")


def _key(claims: Mapping[str, Any]) -> str:
    """The thumbprint of the key to which it is bound; '': to none. Raise PersonRefused for another way to be bound."""
    if "cnf" not in claims:
        return ""
    confirmation = claims["cnf"]
    value = confirmation.get(JKT) if isinstance(confirmation, dict) and len(confirmation) == 1 else None
    if not isinstance(value, str) or not DIGEST.fullmatch(value):
        raise PersonRefused("bound_elsewhere", "the ID-JAG is bound in a way that cannot be shown here: cnf is no jkt")
    return value


def _resources(claims: Mapping[str, Any]) -> tuple[str, ...] | None:
    if "resource" not in claims:
        return None
    value = claims["resource"]
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or len(values) > GRANTS_PER_TASK or not all(map(_is_name, values)):
        raise malformed(_OURS, f"has a resource that is neither a URI nor a list of at most {GRANTS_PER_TASK}")
    return tuple(values)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value.encode()) <= AUDIENCE_MAX_BYTES


def _scope(claims: Mapping[str, Any]) -> frozenset[str] | None:
    if "scope" not in claims:
        return None
    value = claims["scope"]
    if not isinstance(value, str):
        raise malformed(_OURS, "has a scope that is no text")
    return frozenset(value.split(" ")) - {""}


def _details(claims: Mapping[str, Any]) -> Details | None:
    if "authorization_details" not in claims:
        return None
    try:
        details = from_details(claims["authorization_details"])
    except InvalidInput as error:  # what cannot be read limits nothing that could be compared
        raise malformed(_OURS, f"has {error.public}") from error
    if details.params_digest:  # a task has more tokens than the one for which it would hold
        raise malformed(_OURS, "has a params_digest, and begins a task, which is for more than one request")
    return details
