"""Task tokens: access tokens (RFC 9068) that name the task they live and die with."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from sojourn.errors import InvalidInput, InvalidSpiffeId, InvalidToken
from sojourn.jose.jws import (
    ASKS,
    LAST_SECOND,
    PublicKey,
    SigningKey,
    UnverifiedJws,
    VerifiedClaims,
    audiences,
    parse_unverified,
)
from sojourn.jose.signatures import Signatures
from sojourn.limits import DELEGATION_DEPTH, SPIFFE_IDS_PARSED_KEPT
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken import times
from sojourn.tasktoken.grants import DIGEST, Grant, from_details
from sojourn.tasktoken.person_claims import PersonClaims
from sojourn.tasktoken.sender_constraint import JKT, UNPROVEN, X5T, Binding, Proven
from sojourn.tasktoken.task_claim import APPROVED, CLAIM, TaskClaim
from sojourn.tasktoken.times import AT, check_times

TYP = "at+jwt"


@dataclass(frozen=True)
class TaskToken:
    """A task token as issued or as verified. `token` is a credential: the repr hides it.

    `subject` is on whose behalf something is done, a person or a workload; who does it is the `actor`.
    """

    token: str
    spiffe_id: SpiffeId  # the workload that began the first task: `sub`; of a person's token the innermost of `act`
    resource: str  # the one audience
    actions: tuple[str, ...]
    task: TaskClaim
    expires_at: datetime
    claims: VerifiedClaims
    actors: tuple[SpiffeId, ...] = ()  # `act`: who acts for the subject, the present one first; none: it acts itself
    binding: Binding | None = None  # `cnf`; None: whoever holds the token may use it
    params: Mapping[str, str | int | bool] = field(default_factory=dict)  # of the task, as far as tokens carry them
    params_digest: str = ""  # of the one request that it is for; '': it is for more
    person: PersonClaims | None = None  # that the task is for; None: the subject is the workload

    @property
    def task_id(self) -> str:
        return self.task.id

    @property
    def task_type(self) -> str:
        return self.task.type

    @property
    def task_version(self) -> int:
        return self.task.version

    @property
    def task_class(self) -> str:
        return self.task.task_class

    @property
    def asks(self) -> tuple[str, ...]:
        return self.task.asks

    @property
    def listed(self) -> tuple[str, ...]:
        """What the task may do here, by this token or by one of its own: for a list to show, to permit nothing."""
        return (*self.actions, *self.task.also)

    def concerning(self, action: str) -> dict[str, str | int | bool]:
        """The parameters that an action is to be compared with: all, where the task's type does not say which."""
        names = self.task.bind.get(action)
        return {name: value for name, value in self.params.items() if names is None or name in names}

    @property
    def actor(self) -> SpiffeId:
        """The workload whose task the token is of: the subject, unless that is a person or handed the task on."""
        return self.actors[0] if self.actors else self.spiffe_id

    @property
    def subject(self) -> str:
        """`sub`: the person's, with their issuer's prefix, or the SPIFFE ID of whoever began the first task."""
        return self.person.sub if self.person is not None else str(self.spiffe_id)

    @property
    def approved(self) -> bool:
        """Whether somebody agreed to the task. The `acr` of a person is their issuer's, and says nothing of that."""
        return self.task.approved or (self.person is None and self.claims.get("acr") == APPROVED)

    @property
    def token_type(self) -> str:
        """With which scheme it is sent (RFC 9449, 5; RFC 6750)."""
        return "DPoP" if self.binding is not None and self.binding.kind == JKT else "Bearer"

    def __repr__(self) -> str:
        return f"TaskToken({self.task_id}, {self.resource}, exp={self.expires_at.isoformat()})"


def issue(
    key: SigningKey,
    *,
    issuer: str,
    spiffe_id: SpiffeId,
    grant: Grant,
    task: TaskClaim,
    issued_at: datetime,
    expires_at: datetime,
    steady: float | None = None,
    actors: tuple[SpiffeId, ...] = (),
    binding: Binding | None = None,
    params: Mapping[str, str | int | bool] | None = None,
    params_digest: str = "",
    status: Mapping[str, Any] | None = None,
    person: PersonClaims | None = None,
) -> TaskToken:
    """Sign a token for one grant of a task. The caller has clipped `expires_at`. `spiffe_id` began the first task, and
    `actors` are those that it was handed on to, the present one first. `person`: that the task is for, as the service
    is told; then all workloads are in `act`. `steady`: what the agent's steady clock reads; None: it does not say.

    `status`: where a status list tells whether it is good, as that claim. `scope` has the actions for those who read no
    authorization_details. Where the task `asks`, the header is critical: whoever does not know that must refuse the
    token.
    """
    if person is not None:
        actors = (*actors, spiffe_id)
    seconds = int(issued_at.timestamp())
    claim = task.claimed()
    if steady is not None:
        claim[AT] = times.issued_at(steady, issued_at.timestamp())
    claims = {
        "iss": issuer,
        "sub": str(spiffe_id),
        "client_id": str(actors[0] if actors else spiffe_id),
        "aud": grant.resource,
        "iat": seconds,
        "nbf": seconds,
        "exp": int(expires_at.timestamp()),
        "jti": secrets.token_urlsafe(16),
        "scope": " ".join(grant.actions),
        "authorization_details": [grant.detail(task.type, params, params_digest)],
        CLAIM: claim,
    }
    if actors:
        claims["act"] = _act(actors)
    if binding is not None:
        claims["cnf"] = binding.claim()
    if status is not None:
        claims["status"] = dict(status)
    if person is not None:
        claims |= person.claimed()
    elif task.approved:
        claims["acr"] = APPROVED
    token = key.sign(claims, typ=TYP, critical=ASKS if task.asks else "")
    return TaskToken(
        token,
        spiffe_id,
        grant.resource,
        grant.actions,
        task,
        expires_at,
        VerifiedClaims(claims),
        actors,
        binding,
        params or {},
        params_digest,
        None if person is None else PersonClaims.read(claims),
    )


def verify(
    token: str | UnverifiedJws,
    *,
    keys: Mapping[str, PublicKey],
    issuer: str,
    audience: str | None,
    now: datetime,
    proven: Proven | None = UNPROVEN,
    late_seconds: float = 0,
    signatures: Signatures | None = None,
    steady: float | None = None,
) -> TaskToken:
    """Check type, signature, issuer, the one audience, times, and binding; raise InvalidToken otherwise.

    `audience` None: the one that it names, whichever that is. `proven` None: the sender has been judged elsewhere.
    `late_seconds`: so long ago it may have expired. `steady`: what the agent's steady clock reads, if that is known.
    This does not say that the task lives: ask the feed (`sojourn.v1.Validation.WatchTasks`) or the agent.
    """
    unverified = parse_unverified(token) if isinstance(token, str) else token
    claims = _signed(unverified, keys, issuer, signatures)
    if audience is None:
        audience = next(iter(audiences(claims)), "")
    binding = _check(claims, audience, now, proven, late_seconds, steady)
    # A token that came back says what it said; only whether that is good now is asked each time.
    which = (TYP, audience, now.tzinfo)
    read: TaskToken | None = unverified.read.get(which)
    if read is None:
        read = unverified.read[which] = _read(unverified.text, claims, audience, now, binding)
    return read


def read_issued(
    token: str | UnverifiedJws,
    *,
    keys: Mapping[str, PublicKey],
    issuer: str,
    now: datetime,
    signatures: Signatures | None = None,
) -> TaskToken:
    """Read a token that `issuer` signed, for whomever, for whatever time, and bound to whatever it is.

    For the issuer alone, which knows whom it may tell of it: nobody may act on what this returns. Raises InvalidToken.
    """
    unverified = parse_unverified(token) if isinstance(token, str) else token
    claims = _signed(unverified, keys, issuer, signatures)
    audience = audiences(claims)
    if len(audience) != 1:
        raise InvalidToken("token is for more than one audience, or none", reason_code="malformed")
    return _read(unverified.text, claims, audience[0], now, _binding(claims))


def _signed(
    unverified: UnverifiedJws, keys: Mapping[str, PublicKey], issuer: str, signatures: Signatures | None
) -> VerifiedClaims:
    """The claims of a token that one of `keys` signed for `issuer`. Raise InvalidToken."""
    if unverified.typ != TYP:
        raise InvalidToken(
            f"token is not a task token: its type is {(unverified.typ or '')[:32]!r}", reason_code="wrong_type"
        )
    key = keys.get(unverified.kid or "")
    if key is None:
        raise InvalidToken("token is signed by an unknown key", reason_code="unknown_key")
    if signatures is None:
        unverified.check_signature(key)
    else:
        signatures.check(unverified, key)
    claims = VerifiedClaims(unverified.unverified_claims)
    if claims.get("iss") != issuer:
        raise InvalidToken("token is from another issuer", reason_code="wrong_issuer")
    return claims


def has_expired(token: TaskToken, now: datetime, steady: float | None) -> bool:
    """Whether its time is up, or has not come."""
    try:
        check_times(token.claims, now.timestamp(), steady)
    except InvalidToken:
        return True
    return False


def read_vouched(
    token: str,
    claims: VerifiedClaims,
    audience: str,
    now: datetime,
    proven: Proven | None = UNPROVEN,
    late_seconds: float = 0,
    steady: float | None = None,
) -> TaskToken:
    """Read a token whose signature and issuer somebody vouches for; audience, times, binding and shape are checked
    here. Raises InvalidToken.
    """
    return _read(token, claims, audience, now, _check(claims, audience, now, proven, late_seconds, steady))


def _check(
    claims: VerifiedClaims,
    audience: str,
    now: datetime,
    proven: Proven | None,
    late_seconds: float,
    steady: float | None,
) -> Binding | None:
    """Return to what a token is bound. Raise InvalidToken unless it is for this audience, good now, and proved."""
    if claims.get("aud") != audience and audiences(claims) != (audience,):
        raise InvalidToken(f"token is for another audience than {audience!r}", reason_code="wrong_audience")
    check_times(claims, now.timestamp(), steady, late_seconds)
    binding = _binding(claims)
    if proven is not None:
        proven.check(binding)
    return binding


def _read(token: str, claims: VerifiedClaims, audience: str, now: datetime, binding: Binding | None) -> TaskToken:
    said = claims.get(CLAIM)
    details = claims.get("authorization_details")
    if not isinstance(said, dict) or not isinstance(details, list):
        raise InvalidToken("token names no task or no authorization", reason_code="malformed")
    task = TaskClaim.read(said)
    try:
        detail = from_details(details)
        person = PersonClaims.read(claims)
        actors = _actors(claims, DELEGATION_DEPTH + (person is not None))
        spiffe_id = _first_workload(actors) if person is not None else _spiffe_id(str(claims.get("sub")))
    except (InvalidInput, InvalidSpiffeId) as error:
        raise InvalidToken(f"token is malformed: {error.public}", reason_code="malformed") from error
    grants = detail.authority.grants
    if detail.type_name != task.type or len(grants) != 1 or grants[0].resource != audience:
        raise InvalidToken("token's authorization is not for its audience and task", reason_code="malformed")
    line = actors if person is not None else (*actors, spiffe_id)
    if actors and (len(set(line)) < len(line) or claims.get("client_id") != str(actors[0])):
        raise InvalidToken("token's actors are not a chain that ends with its client", reason_code="malformed")
    expires = datetime.fromtimestamp(min(float(claims["exp"]), LAST_SECOND), now.tzinfo)
    return TaskToken(
        token,
        spiffe_id,
        audience,
        grants[0].actions,
        task,
        expires,
        claims,
        actors,
        binding,
        detail.params,
        detail.params_digest,
        person,
    )


_spiffe_id = lru_cache(SPIFFE_IDS_PARSED_KEPT)(SpiffeId.parse)  # the same few stand in token after token


def _binding(claims: Mapping[str, Any]) -> Binding | None:
    """Read the `cnf` claim, strictly: a confirmation that we do not know is one that we cannot check."""
    if "cnf" not in claims:
        return None
    cnf = claims["cnf"]
    if isinstance(cnf, dict) and len(cnf) == 1:
        ((kind, thumbprint),) = cnf.items()
        if kind in {JKT, X5T} and isinstance(thumbprint, str) and DIGEST.fullmatch(thumbprint):
            return Binding(kind, thumbprint)
    raise InvalidToken("token is bound in a way that is not known here", reason_code="unproved_binding")


def _act(actors: tuple[SpiffeId, ...]) -> dict[str, Any]:
    """The `act` claim (RFC 8693, 4.1): the present actor outermost, the others nested in it."""
    act: dict[str, Any] = {}
    for each in reversed(actors):
        act = {"sub": str(each), **({"act": act} if act else {})}
    return act


def _first_workload(actors: tuple[SpiffeId, ...]) -> SpiffeId:
    """The workload that began the first task for a person. Raise InvalidInput where nobody acts for them."""
    if not actors:
        raise InvalidInput("its subject is a person, and it does not say who acts")
    return actors[-1]


def _actors(claims: VerifiedClaims, most: int) -> tuple[SpiffeId, ...]:
    """Read the `act` claim, strictly: what we do not understand of it we must not ignore. Raise InvalidInput."""
    found: list[SpiffeId] = []
    place: Any = claims
    while "act" in place:
        place = place["act"]
        if not isinstance(place, dict) or not isinstance(place.get("sub"), str) or set(place) - {"sub", "act"}:
            raise InvalidInput("its act claim is not a chain of subjects")
        if len(found) >= most:
            raise InvalidInput(f"its act claim has more than {most} actors")
        found.append(_spiffe_id(place["sub"]))
    return tuple(found)
