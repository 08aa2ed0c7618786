"""Says whether a token is good, for whom and for what; and counts what was done with it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sojourn.errors import InvalidInput, InvalidToken, SojournError, TaskOver
from sojourn.errors.oauth import NonceNeeded
from sojourn.identity.identities import Identities
from sojourn.jose.jws import UnverifiedJws, parse_unverified
from sojourn.limits import TOKEN_USE_CALLS_MAX, TOKEN_USE_LATE_SECONDS
from sojourn.runtime.clock import Clock
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.single_use import SingleUses
from sojourn.tasks.task import Task
from sojourn.tasks.use_counter import UseCounter
from sojourn.tasks.use_reports import UseReports
from sojourn.tasktoken import tokens
from sojourn.tasktoken.checks import check_digest
from sojourn.tasktoken.dpop_replays import Replays
from sojourn.tasktoken.person_claims import PersonClaims
from sojourn.tasktoken.request_record import NOTHING_SAID, Served
from sojourn.tasktoken.sender_constraint import UNKNOWN, Proven, Sender
from sojourn.tasktoken.task_claim import HIGH
from sojourn.tasktoken.tokens import TaskToken

JWT_SVID, TASK = "jwt-svid", "task"


@dataclass(frozen=True, slots=True)
class ValidationVerdict:
    """What became of a validation: `code` and `reason` are empty if the token is good.

    `spiffe_id` is the subject; `actors` act for it, the present one first, if a task was handed on. Where the subject
    is a `person` there is no `spiffe_id`, so that whoever knows nothing of people takes the token for nobody's.
    """

    kind: str = ""
    code: str = ""
    reason: str = ""
    spiffe_id: str = ""
    claims: dict[str, Any] | None = None
    actors: tuple[str, ...] = ()
    nonce: str = ""  # that the sender's next proof must have, if this one lacked it
    person: PersonClaims | None = None

    @property
    def valid(self) -> bool:
        return not self.code


class TokenValidation:
    """Judges tokens for anyone who may ask: the answer is about a token that whoever asks has."""

    def __init__(self, engine: TaskEngine, identities: Identities, replays: Replays, clock: Clock) -> None:
        self._engine = engine
        self._identities = identities
        self.replays = replays  # of all that the agent judges: a proof is good once
        self._clock = clock
        self._uses = SingleUses(clock.boot)
        self.uses = UseReports(engine, clock)
        self._counting = UseCounter(engine, self._uses)

    def validate(
        self,
        token: str,
        audience: str,
        *,
        kind: str = "",
        action: str = "",
        sender: Sender = UNKNOWN,
        params_digest: str = "",
    ) -> ValidationVerdict:
        """Say whether a token is good for `audience` (and for `action`), sent by `sender`. Never raises.

        A token for one request is good for that of `params_digest` alone. A proof is used up by this. The answer is no
        for an action whose uses are counted: only `let_through` says yes to one.
        """
        try:
            unverified = parse_unverified(token)
            if _is_svid(unverified, kind):
                return self._jwt_svid(token, audience, action, sender, params_digest)
            verified = self._task_token(unverified, audience, action, sender, params_digest)
            self._counting.check_not_counted(verified, action)
        except SojournError as error:
            return _no(error)
        return _yes(verified)

    async def let_through(
        self,
        token: str,
        audience: str,
        *,
        kind: str = "",
        action: str = "",
        sender: Sender = UNKNOWN,
        params_digest: str = "",
        no_action: bool = False,
        served: Served = NOTHING_SAID,
    ) -> ValidationVerdict:
        """`validate` for a request that is served if the answer is yes: it uses up a token that is good once, and is
        counted if its action is. `no_action`: it is for none. What is `served` is on record before the answer.
        """
        try:
            unverified = parse_unverified(token)
            if _is_svid(unverified, kind):
                return self._jwt_svid(token, audience, action, sender, params_digest)
            verified = self._task_token(unverified, audience, action, sender, params_digest)
            await self.use(verified, None if no_action else action, served)
        except SojournError as error:
            return _no(error)
        return _yes(verified)

    async def use(self, verified: TaskToken, action: str | None, served: Served = NOTHING_SAID) -> None:
        """Let a request for `action`, or for none, through with a token that was examined and fits: see Counting.

        What a single-use token is used for is on disk before this returns.
        """
        await self._counting.use(verified, action, served)
        if verified.task_class == HIGH:
            await self.uses.served(verified, served)

    def count_use(
        self, token: str, action: str, calls: int, may_report: Callable[[str], bool] = lambda _: True
    ) -> bool:
        """Count calls for `action` that a service has let through with a token. False: they count for nothing.

        `may_report` says of a resource whether who tells this may be its service. It is on disk after `uses.written`.

        The service has checked whose the token is and for what; it may have expired a moment ago. Raise InvalidInput.
        """
        if not 1 <= calls <= TOKEN_USE_CALLS_MAX:
            raise InvalidInput(f"calls of a use are 1 to {TOKEN_USE_CALLS_MAX}")
        try:
            verified = self._engine.issuing.verify(token, proven=None, late_seconds=TOKEN_USE_LATE_SECONDS)
            task = self._engine.tasks.find(verified.task_id)
        except InvalidToken:
            return False
        if task is None or action not in verified.actions or not may_report(verified.resource):
            return False
        return self.uses.count(task, verified, action, calls)

    def task_of(self, token: str) -> Task | None:
        """The task of a token that this agent has signed, whatever else is wrong with it. None: nobody knows it."""
        try:
            verified = self._engine.issuing.read(token)
        except InvalidToken:
            return None
        return self._engine.tasks.find(verified.task_id)

    def examine(self, token: str | UnverifiedJws, audience: str, proven: Proven) -> TaskToken:
        """Return a task token that is good now, whatever it is for. Raise InvalidToken, or TaskOver."""
        verified = self._engine.issuing.verify(token, audience=audience, proven=proven)
        self._engine.check_token(verified)
        return verified

    def was_used(self, verified: TaskToken) -> bool:
        """Whether a token was good once, and was used."""
        return verified.task_class == HIGH and self._uses.has(verified)

    def _jwt_svid(
        self, token: str, audience: str, action: str, sender: Sender, params_digest: str
    ) -> ValidationVerdict:
        if action or params_digest:
            raise InvalidToken("a JWT-SVID grants no actions", reason_code="wrong_type")
        if sender.dpop_proof or sender.jkt:
            raise InvalidToken("a JWT-SVID is not bound to a key", reason_code="wrong_binding")
        svid = self._identities.verify_jwt_svid(token, [audience])
        claims = {**svid.claims, "aud": list(svid.audience)}
        return ValidationVerdict(JWT_SVID, spiffe_id=str(svid.spiffe_id), claims=claims)

    def _task_token(
        self, unverified: UnverifiedJws, audience: str, action: str, sender: Sender, params_digest: str
    ) -> TaskToken:
        proven, proof = sender.prove(unverified.text, self._clock.now())
        verified = self.examine(unverified, audience, proven)
        if action and action not in verified.actions:
            raise InvalidToken(f"the token does not grant {action[:100]!r}", reason_code="action_not_granted")
        check_digest(verified, params_digest)
        if proof is not None:  # only now: without a good token nobody fills what is remembered of proofs
            self.replays.claim(proof, str(verified.actor))
        return verified


def _is_svid(unverified: UnverifiedJws, kind: str) -> bool:
    return (kind or (TASK if unverified.typ == tokens.TYP else JWT_SVID)) == JWT_SVID


def _yes(verified: TaskToken) -> ValidationVerdict:
    actors = tuple(map(str, verified.actors))
    spiffe_id = str(verified.spiffe_id) if verified.person is None else ""
    claims, person = dict(verified.claims), verified.person
    return ValidationVerdict(TASK, spiffe_id=spiffe_id, claims=claims, actors=actors, person=person)


def _no(error: SojournError) -> ValidationVerdict:
    if isinstance(error, NonceNeeded):
        return ValidationVerdict(code=error.reason_code, reason=error.public, nonce=error.nonce)
    if isinstance(error, InvalidToken):
        return ValidationVerdict(code=error.reason_code, reason=error.public)
    return ValidationVerdict(code="task_over" if isinstance(error, TaskOver) else error.code, reason=error.public)
