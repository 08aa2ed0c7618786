"""A person, read of the claims of a verified token: strictly, since policies decide by them."""

from collections.abc import Mapping
from typing import Any, Final

from sojourn.errors import InvalidInput, InvalidToken
from sojourn.errors.people import PersonRefused
from sojourn.jose.jws import VerifiedClaims, numeric_date
from sojourn.limits import (
    JWT_LEEWAY_SECONDS,
    PERSON_CLAIM_MAX_BYTES,
    PERSON_GROUPS,
    PERSON_METHODS,
    PERSON_SCOPES,
    PERSON_TEXT_MAX_BYTES,
)
from sojourn.people.issuer_rules import IssuerRules
from sojourn.people.person import Claim, Person
from sojourn.people.token_kind import ACCESS_TOKEN
from sojourn.tasktoken.grants import Details, from_details
from sojourn.tasktoken.person_claims import check_subject

_OURS: Final = "person's token"


def read_person(claims: VerifiedClaims, rules: IssuerRules, token_type: str, now: float) -> Person:
    """The person of a token of this type whose times were checked. Raise InvalidToken if a claim is no good one,
    PersonRefused if they have been logged in for too long.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str):
        raise malformed(_OURS, "has no sub")
    subject_of(subject, _OURS)
    if rules.prefix:  # as tokens of ours have it
        subject_of(rules.prefix + subject, _OURS)
    auth_time = _auth_time(claims, now)
    return Person(
        issuer=rules.name,
        url=rules.url,
        subject=subject,
        issued_at=int(claims["iat"]),
        expires_at=int(claims["exp"]),
        ends_at=_ends_at(claims, auth_time, rules, now),
        session=text_of(claims, "sid", _OURS),
        auth_time=auth_time,
        acr=text_of(claims, "acr", _OURS),
        amr=_texts(claims, "amr", PERSON_METHODS),
        groups=tuple(sorted(set(_groups(claims, rules.groups)))),
        claims={name: _claim(claims, name) for name in rules.claims if name in claims},
        rechecked=bool(rules.recheck),
        prefix=rules.prefix,
        may=_may(claims, rules) if token_type == ACCESS_TOKEN else None,
        details=_details(claims, rules) if token_type == ACCESS_TOKEN else None,
    )


def _details(claims: Mapping[str, Any], rules: IssuerRules) -> Details | None:
    """What the authorization_details of an access token (RFC 9396) let be done at the most; None: they say nothing.

    Those that are not as ours are cannot be compared with a task, so that nothing is done by them.
    """
    if "authorization_details" not in claims or not rules.bound_by_details:
        return None
    try:
        details = from_details(claims["authorization_details"])
        if details.params_digest:
            raise InvalidInput("authorization_details are for one request, and a task is for more")
    except InvalidInput as error:
        raise PersonRefused(
            "not_in_scope",
            'what the access token lets be done cannot be told of a task, unless authorization_details = "ignore" is'
            f" set for its issuer: {error.public}",
        ) from error
    return details


def _may(claims: Mapping[str, Any], rules: IssuerRules) -> tuple[str, ...] | None:
    """What the scope of an access token lets be done. One that has none lets nothing be done."""
    if rules.scopes is None:
        return None
    nothing = frozenset[str]()
    return tuple(sorted(nothing.union(*(rules.scopes.get(each, nothing) for each in _scopes(claims)))))


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """The values of a scope: `scope` (RFC 9068, 2.2.3), or `scp`, which Entra has as a text and Okta as a list."""
    said = [_scope_values(name, claims[name]) for name in ("scope", "scp") if name in claims]
    if len(set(said)) > 1:
        raise malformed(_OURS, "has two scopes, scope and scp, that are not the same")
    return said[0] if said else frozenset()


def _scope_values(name: str, said: object) -> frozenset[str]:
    values = said.split(" ") if isinstance(said, str) else said if name == "scp" and isinstance(said, list) else None
    if values is None or len(values) > PERSON_SCOPES or not all(isinstance(each, str) for each in values):
        raise malformed(_OURS, f"has a {name} that is no text of at most {PERSON_SCOPES} values")
    return frozenset(filter(None, values))


def _auth_time(claims: Mapping[str, Any], now: float) -> int:
    value = numeric_date(claims, "auth_time")
    if value is not None and value > now + JWT_LEEWAY_SECONDS:
        raise malformed(_OURS, "has an auth_time in the future")
    return int(value or 0)


def _ends_at(claims: Mapping[str, Any], auth_time: int, rules: IssuerRules, now: float) -> int:
    """Until when tasks live by the token. Where it does not say when they logged in, that was when it was issued.

    They outlive it only if it names its session: no logout of that one could be told from others.
    """
    session = (auth_time or int(claims["iat"])) + int(rules.session_longest)
    if session <= now:
        raise PersonRefused("too_old", f"the person logged in more than {rules.session_longest:g} seconds ago")
    return session if rules.ends_with_session and "sid" in claims else min(session, int(claims["exp"]))


def subject_of(subject: str, token: str) -> str:
    """A `sub` that ours can carry. Raise InvalidToken for another one, of a `token` that is called so."""
    try:
        return check_subject(subject)
    except InvalidInput as error:
        raise malformed(token, f"is of nobody: {error.public}") from error


def text_of(claims: Mapping[str, Any], name: str, token: str) -> str:
    """A claim that is a short printable text; '' if it is not there. Raise InvalidToken, as `subject_of` does."""
    if name not in claims:
        return ""
    value = claims[name]
    if not _is_text(value):
        raise malformed(token, f"has a claim {name} that is no printable text of 1 to {PERSON_TEXT_MAX_BYTES} bytes")
    return str(value)


def _texts(claims: Mapping[str, Any], name: str, most: int) -> tuple[str, ...]:
    values = claims.get(name, [])
    if not isinstance(values, list) or len(values) > most or not all(map(_is_text, values)):
        raise malformed(_OURS, f"has a claim {name} that is no list of at most {most} printable texts")
    return tuple(values)


def _groups(claims: Mapping[str, Any], name: str) -> tuple[str, ...]:
    # Where there are too many for the token, Entra names the place to ask in their stead (OpenID Connect Core 5.6.2).
    elsewhere = claims.get("_claim_names", {})
    if not isinstance(elsewhere, dict) or name in elsewhere:
        raise malformed(_OURS, "does not have the person's groups, which are to be asked for elsewhere")
    # A path, as Keycloak writes groups, begins with a slash: policies say `corp/support` of `/support`.
    groups = tuple(each.removeprefix("/") for each in _texts(claims, name, PERSON_GROUPS))
    if not all(groups):
        raise malformed(_OURS, f"has a group in {name} without a name")
    return groups


def _claim(claims: Mapping[str, Any], name: str) -> Claim:
    value = claims[name]
    if not isinstance(value, str | int) or (isinstance(value, str) and len(value.encode()) > PERSON_CLAIM_MAX_BYTES):
        raise malformed(_OURS, f"has a claim {name} that is neither a short text, a whole number, true nor false")
    if not -(2**63) <= int(value if isinstance(value, int) else 0) < 2**63:  # what policies count with
        raise malformed(_OURS, f"has a claim {name} that is too large a number")
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value.encode()) <= PERSON_TEXT_MAX_BYTES and value.isprintable()


def malformed(token: str, what: str) -> InvalidToken:
    """What is wrong with a `token` that is called so."""
    return InvalidToken(f"the {token} {what}", reason_code="malformed")
