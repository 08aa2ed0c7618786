"""Task tokens: access tokens (RFC 9068) that name the task they live and die with."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sojourn.errors import InvalidInput, InvalidSpiffeId, InvalidToken
from sojourn.limits import DELEGATION_DEPTH, TOKEN_SKEW_SECONDS
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.jose import (
    LAST_SECOND,
    PublicKey,
    SigningKey,
    VerifiedClaims,
    audiences,
    numeric_date,
    parse_unverified,
)
from sojourn.tasks.grants import Grant, from_details

TYP = "at+jwt"
NORMAL, HIGH = "normal", "high"  # the classes of tasks


@dataclass(frozen=True)
class TaskToken:
    """A task token as issued or as verified. `token` is a credential: the repr hides it.

    `spiffe_id` is the subject, on whose behalf something is done; who does it is the `actor`.
    """

    token: str
    spiffe_id: SpiffeId  # `sub`: the workload that began the first task
    resource: str  # the one audience
    actions: tuple[str, ...]
    task_id: str
    task_type: str
    task_version: int
    task_class: str  # NORMAL | HIGH
    expires_at: datetime
    claims: VerifiedClaims
    actors: tuple[SpiffeId, ...] = ()  # `act`: who acts for the subject, the present one first; none without delegation

    @property
    def actor(self) -> SpiffeId:
        """The workload whose task the token is of: the subject itself, unless it handed the task on."""
        return self.actors[0] if self.actors else self.spiffe_id

    def __repr__(self) -> str:
        return f"TaskToken({self.task_id}, {self.resource}, exp={self.expires_at.isoformat()})"


def issue(
    key: SigningKey,
    *,
    issuer: str,
    spiffe_id: SpiffeId,
    grant: Grant,
    task_id: str,
    task_type: str,
    task_version: int,
    task_class: str,
    issued_at: datetime,
    expires_at: datetime,
    actors: tuple[SpiffeId, ...] = (),
) -> TaskToken:
    """Sign a token for one grant of a task. The caller has clipped `expires_at`. `actors`: the present one first."""
    seconds = int(issued_at.timestamp())
    claims = {
        "iss": issuer,
        "sub": str(spiffe_id),
        "client_id": str(actors[0] if actors else spiffe_id),
        "aud": grant.resource,
        "iat": seconds,
        "nbf": seconds,
        "exp": int(expires_at.timestamp()),
        "jti": secrets.token_urlsafe(16),
        "authorization_details": [grant.detail(task_type)],
        "task": {"id": task_id, "type": task_type, "ver": task_version, "class": task_class},
    }
    if actors:
        claims["act"] = _act(actors)
    token = key.sign(claims, typ=TYP)
    return TaskToken(
        token,
        spiffe_id,
        grant.resource,
        grant.actions,
        task_id,
        task_type,
        task_version,
        task_class,
        expires_at,
        VerifiedClaims(claims),
        actors,
    )


def verify(token: str, *, keys: Mapping[str, PublicKey], issuer: str, audience: str, now: datetime) -> TaskToken:
    """Check type, signature, issuer, the one audience, and times; raise InvalidToken otherwise.

    This does not say that the task lives: ask the feed (`sojourn.v1.Validation.WatchTasks`) or the agent.
    """
    unverified = parse_unverified(token)
    if unverified.typ != TYP:
        raise InvalidToken(
            f"token is not a task token: its type is {(unverified.typ or '')[:32]!r}", reason_code="wrong_type"
        )
    key = keys.get(unverified.kid or "")
    if key is None:
        raise InvalidToken("token is signed by an unknown key", reason_code="unknown_key")
    unverified.check_signature(key)
    claims = VerifiedClaims(unverified.unverified_claims)
    if claims.get("iss") != issuer:
        raise InvalidToken("token is from another issuer", reason_code="wrong_issuer")
    return read_vouched(token, claims, audience, now)


def class_of(claims: Mapping[str, Any]) -> str:
    """NORMAL if the token of these claims says exactly that; HIGH if it says anything else, or nothing."""
    task = claims.get("task")
    return NORMAL if isinstance(task, dict) and task.get("class") == NORMAL else HIGH


def read_vouched(token: str, claims: VerifiedClaims, audience: str, now: datetime) -> TaskToken:
    """Read a token whose signature and issuer somebody vouches for; audience, times and shape are checked here.

    A `cnf` claim is refused, because nothing at this place can check possession. Raises InvalidToken.
    """
    if audiences(claims) != (audience,):
        raise InvalidToken(f"token is for another audience than {audience!r}", reason_code="wrong_audience")
    _check_times(claims, now)
    if "cnf" in claims:
        raise InvalidToken("token is bound to a key that this verifier cannot check", reason_code="unproved_binding")
    return _read(token, claims, audience, now)


def _check_times(claims: VerifiedClaims, now: datetime) -> None:
    seconds = now.timestamp()
    expires, issued, not_before = (numeric_date(claims, name) for name in ("exp", "iat", "nbf"))
    if expires is None or issued is None:
        raise InvalidToken("token lacks exp or iat", reason_code="malformed")
    if expires <= seconds:
        raise InvalidToken("token has expired", reason_code="expired")
    if max(issued, not_before or 0) > seconds + TOKEN_SKEW_SECONDS:
        raise InvalidToken("token is not valid yet", reason_code="not_yet_valid")


def _read(token: str, claims: VerifiedClaims, audience: str, now: datetime) -> TaskToken:
    task = claims.get("task")
    details = claims.get("authorization_details")
    if not isinstance(task, dict) or not isinstance(details, list):
        raise InvalidToken("token names no task or no authorization", reason_code="malformed")
    task_id, task_type, version = task.get("id"), task.get("type"), task.get("ver")
    if not isinstance(task_id, str) or not isinstance(task_type, str) or type(version) is not int:
        raise InvalidToken("token's task is malformed", reason_code="malformed")
    try:
        named, authority = from_details(details)
        spiffe_id = SpiffeId.parse(str(claims.get("sub")))
        actors = _actors(claims)
    except (InvalidInput, InvalidSpiffeId) as error:
        raise InvalidToken(f"token is malformed: {error.public}", reason_code="malformed") from error
    if named != task_type or authority.resources != (audience,):
        raise InvalidToken("token's authorization is not for its audience and task", reason_code="malformed")
    if len({spiffe_id, *actors}) <= len(actors) or (actors and claims.get("client_id") != str(actors[0])):
        raise InvalidToken("token's actors are not a chain that ends with its client", reason_code="malformed")
    expires = datetime.fromtimestamp(min(float(claims["exp"]), LAST_SECOND), now.tzinfo)
    actions, kind = authority.at(audience), class_of(claims)
    return TaskToken(token, spiffe_id, audience, actions, task_id, task_type, version, kind, expires, claims, actors)


def _act(actors: tuple[SpiffeId, ...]) -> dict[str, Any]:
    """The `act` claim (RFC 8693, 4.1): the present actor outermost, the others nested in it."""
    act: dict[str, Any] = {}
    for each in reversed(actors):
        act = {"sub": str(each), **({"act": act} if act else {})}
    return act


def _actors(claims: VerifiedClaims) -> tuple[SpiffeId, ...]:
    """Read the `act` claim, strictly: what we do not understand of it we must not ignore. Raise InvalidInput."""
    found: list[SpiffeId] = []
    place: Any = claims
    while "act" in place:
        place = place["act"]
        if not isinstance(place, dict) or not isinstance(place.get("sub"), str) or set(place) - {"sub", "act"}:
            raise InvalidInput("its act claim is not a chain of subjects")
        if len(found) >= DELEGATION_DEPTH:
            raise InvalidInput(f"its act claim has more than {DELEGATION_DEPTH} actors")
        found.append(SpiffeId.parse(place["sub"]))
    return tuple(found)
