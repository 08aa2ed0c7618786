"""When a person's token is good, and this workload may bring it (OpenID Connect Core 3.1.3.7; RFC 9068, 4).

Each refusal has its code: PersonRefused says what is wrong with bringing it, InvalidToken what is wrong with the token.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sojourn.errors import InvalidToken
from sojourn.errors.people import PersonRefused
from sojourn.jose.jws import PublicKey, UnverifiedJws, VerifiedClaims, audiences, numeric_date, parse_unverified
from sojourn.limits import JWT_LEEWAY_SECONDS
from sojourn.people.claims import read_person
from sojourn.people.issuer_rules import IssuerRules, Presenter
from sojourn.people.person import Person
from sojourn.people.token_kind import ID_JAG, ID_TOKEN, check_kind
from sojourn.spiffe.ids import SpiffeId

_MAY_ACT: Final = frozenset({"sub", "client_id", "iss"})  # what `may_act` may name somebody by: more would bind more


@dataclass(frozen=True, slots=True)
class UnverifiedPerson:
    """A token that was parsed and not yet believed. `unverified_issuer` says whose rules and keys it is judged by."""

    jws: UnverifiedJws
    unverified_issuer: str


def parse_unverified_person(text: str) -> UnverifiedPerson:
    """Read a token as far as it must be read to find its issuer. Raise InvalidToken or PersonRefused."""
    jws = parse_unverified(text, more_headers=True)
    issuer = jws.unverified_claims.get("iss")
    if not isinstance(issuer, str):
        raise PersonRefused("unknown_issuer", "the token names no issuer")
    return UnverifiedPerson(jws, issuer)


def verify(
    unverified: UnverifiedPerson,
    rules: IssuerRules,
    key: PublicKey | None,
    token_type: str,
    presenter: SpiffeId,
    now: datetime,
) -> Person:
    """Check a token by its issuer's rules and key, by no other's, for the workload that brings it.

    Raise PersonRefused or InvalidToken.
    """
    if unverified.unverified_issuer != rules.url:
        raise PersonRefused("unknown_issuer", "the token is of another issuer")
    check_signature(unverified.jws, rules, key)
    check_kind(unverified.jws, token_type)
    claims = VerifiedClaims(unverified.jws.unverified_claims)
    check_times(claims, rules, now)
    check_presenter(claims, rules, token_type, presenter)
    check_bearer(claims)
    return read_person(claims, rules, token_type, now.timestamp())


def check_signature(jws: UnverifiedJws, rules: IssuerRules, key: PublicKey | None) -> None:
    """Raise InvalidToken unless the issuer's `key` made the signature, by an algorithm that the rules have."""
    if jws.algorithm not in rules.algorithms:
        raise InvalidToken(
            f"the token's algorithm is none of {', '.join(sorted(rules.algorithms))}", reason_code="bad_algorithm"
        )
    if key is None:
        raise InvalidToken("the token names no key that its issuer publishes", reason_code="unknown_key")
    jws.check_signature(key)


def check_times(claims: Mapping[str, Any], rules: IssuerRules, now: datetime) -> None:
    """Raise InvalidToken or PersonRefused unless a token has begun, has not ended, and is fresh. An end is an end."""
    issued, expires = numeric_date(claims, "iat"), numeric_date(claims, "exp")
    begins, seconds = numeric_date(claims, "nbf"), now.timestamp()
    if issued is None or expires is None:
        raise InvalidToken("the token lacks iat or exp", reason_code="malformed")
    if expires <= seconds:
        raise InvalidToken("the token has expired", reason_code="expired")
    if max(issued, begins or 0) > seconds + JWT_LEEWAY_SECONDS:
        raise InvalidToken("the token is not good yet: compare the issuer's clock", reason_code="not_yet_valid")
    if expires - issued > rules.longest:
        raise PersonRefused("too_old", f"the token lives for longer than {rules.longest:g} seconds")
    if seconds - issued > rules.fresh:
        raise PersonRefused("too_old", f"the token was issued more than {rules.fresh:g} seconds ago")


def check_presenter(claims: Mapping[str, Any], rules: IssuerRules, token_type: str, presenter: SpiffeId) -> None:
    """Raise PersonRefused unless a token was given to this workload, by the workload's own lists."""
    tables = rules.presented_by(presenter)
    if not tables:
        raise PersonRefused("wrong_presenter", "this workload may bring no token of this issuer")
    misfits = {each: misfit(each, claims, token_type, presenter) for each in tables}
    fit = [each for each, told in misfits.items() if not told]
    if not fit:
        raise PersonRefused("wrong_presenter", f"the token was not given to this workload: {misfits[tables[0]]}")
    names = (_known(each, presenter, token_type) for each in fit)
    if "may_act" in claims and not any(_names(claims["may_act"], each, rules) for each in names):
        raise PersonRefused("wrong_presenter", "the token's may_act names another than this workload")


def misfit(presenter: Presenter, claims: Mapping[str, Any], token_type: str, workload: SpiffeId) -> str:
    """Why a token was not given to a workload, by a table that names it; empty: it was. Raise InvalidToken for an
    `aud` that is none.
    """
    if token_type == ID_JAG:
        return presenter.misfit_of_id_jag(workload, claims)
    judge: Callable[[tuple[str, ...], Mapping[str, Any]], str]
    judge = presenter.misfit_of_id_token if token_type == ID_TOKEN else presenter.misfit_of_access_token
    return judge(audiences(claims), claims)


def _known(presenter: Presenter, workload: SpiffeId, token_type: str) -> frozenset[str]:
    """By which names `may_act` may mean a workload: as a client of ours in an ID-JAG alone, which is for us."""
    names = presenter.names(workload)
    return names | presenter.client_names(workload) if token_type == ID_JAG else names


def _names(may_act: Any, names: frozenset[str], rules: IssuerRules) -> bool:
    """Whether `may_act` (RFC 8693, 4.4) is one with these names, of this issuer, and says nothing that is not known."""
    if not isinstance(may_act, dict) or not may_act.keys() <= _MAY_ACT or may_act.get("iss", rules.url) != rules.url:
        return False
    named = [value for key, value in may_act.items() if key != "iss"]
    return bool(named) and all(isinstance(each, str) and each in names for each in named)


def check_no_actor(claims: Mapping[str, Any]) -> None:
    """Raise PersonRefused if somebody acts for the person already."""
    if "act" in claims:
        raise PersonRefused("has_actor", "somebody acts for the person already: the token has act")


def check_bearer(claims: Mapping[str, Any]) -> None:
    """Raise PersonRefused if somebody acts for the person already, or if a key must be shown with the token."""
    check_no_actor(claims)
    if "cnf" in claims:
        raise PersonRefused("bound_elsewhere", "the token is bound to a key that is not shown here: it has cnf")
