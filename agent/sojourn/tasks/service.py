"""The security token service: exchanges a JWT-SVID for a task token, and says whether a token is good."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sojourn.attestation.peer import Peer
from sojourn.attestation.process import Process, stat_of
from sojourn.clock import Clock
from sojourn.errors import InvalidInput, InvalidToken, NoIdentity, SojournError, TaskOver
from sojourn.identity.identities import Identities
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.jose import parse_unverified
from sojourn.spiffe.jwtsvid import JwtSvid
from sojourn.tasks import exchange, tokens
from sojourn.tasks.attaching import Attaching
from sojourn.tasks.beginning import Beginning, BeginRequest, Bond
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.exchange import ExchangeRequest
from sojourn.tasks.reasons import NO_TOKEN
from sojourn.tasks.rules import check_within
from sojourn.tasks.task import ONE_SHOT, REVOKED
from sojourn.tasks.tokens import TaskToken

JWT_SVID, TASK = "jwt-svid", "task"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a validation: `code` and `reason` are empty if the token is good.

    `spiffe_id` is the subject; `actors` act for it, the present one first, if a task was handed on.
    """

    kind: str = ""
    code: str = ""
    reason: str = ""
    spiffe_id: str = ""
    claims: dict[str, Any] | None = None
    actors: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        return not self.code


class TokenService:
    """Exchange (RFC 8693) for callers that the kernel vouches for, and validation for anyone on this machine."""

    def __init__(
        self, engine: TaskEngine, beginning: Beginning, attaching: Attaching, identities: Identities, clock: Clock
    ) -> None:
        self._engine = engine
        self._beginning = beginning
        self._attaching = attaching
        self._identities = identities
        self._clock = clock

    @property
    def audiences(self) -> tuple[str, ...]:
        """Our own names: a subject token must be for one of them and for nobody else."""
        issuer = self._engine.issuer
        return (issuer, f"{issuer}/token", str(self._identities.bundle.trust_domain.id))

    async def exchange(self, peer: Peer, request: ExchangeRequest) -> TaskToken:
        """Exchange a subject token of the caller's own for a task token.

        Under `task_id` it is one of that task; without, a one-shot task is begun, which ends with the token.
        """
        subject, ends = self._subject(request.unverified_subject_token)
        entries = [entry for entry in await self._identities.of(peer) if entry.spiffe_id == subject]
        if not entries:
            raise NoIdentity("the subject token is not the caller's: the caller has no such identity")
        if request.client_id not in {"", str(subject)}:
            raise NoIdentity("client_id is not the subject: leave it out, or give the subject's SPIFFE ID")
        if request.task_id:
            task = await self._attaching.of_caller(peer, entries, request.task_id)
            if request.type_name not in {None, task.type.name}:
                raise InvalidInput("the task is of another type than authorization_details say")
            return await self._engine.token(task, request.target, exchange.actions_wanted(request), not_after=ends)
        name, wanted = exchange.choose_type(request, self._engine.types, subject)
        kind = self._engine.type_named(name)
        check_within(kind, wanted)
        begin = BeginRequest(name, {}, wanted, subject, max_seconds=kind.token_ttl.total_seconds())
        runner = await self._runner(peer, subject)
        task = await self._beginning.begin(peer, entries, begin, Bond(peer.process.again(), ONE_SHOT, heir=runner))
        try:
            return await self._engine.token(task, request.target, (), not_after=ends)
        except BaseException:
            if task.live:
                self._engine.end(task, REVOKED, NO_TOKEN)
            raise

    async def _runner(self, peer: Peer, subject: SpiffeId) -> Process | None:
        """The process that ran the caller, if of the same user and identity: it takes over what a helper fetched."""
        runner = None
        try:
            pid = stat_of(peer.process.pid).parent
            if pid <= 1:
                return None
            runner = Process.open(pid)
            if runner.credentials().uid == peer.uid and runner.start_time <= peer.process.start_time:
                entries = await self._identities.of_process(pid)
                if any(entry.spiffe_id == subject for entry in entries):
                    runner.check_alive()
                    found, runner = runner, None
                    return found
        except SojournError:
            return None
        finally:
            if runner is not None:
                runner.close()
        return None

    def validate(self, token: str, audience: str, *, kind: str = "", action: str = "") -> Verdict:
        """Say whether a token is good for `audience` (and for `action`). Never raises."""
        try:
            found = kind or (TASK if parse_unverified(token).typ == tokens.TYP else JWT_SVID)
            if found == JWT_SVID:
                if action:
                    raise InvalidToken("a JWT-SVID grants no actions", reason_code="wrong_type")
                svid = self.verify_jwt_svid(token, audience)
                claims = {**svid.claims, "aud": list(svid.audience)}
                return Verdict(JWT_SVID, spiffe_id=str(svid.spiffe_id), claims=claims)
            verified = tokens.verify(
                token,
                keys=self._engine.keys.published,
                issuer=self._engine.issuer,
                audience=audience,
                now=self._clock.now(),
            )
            self._engine.check_token(verified)
            if action and action not in verified.actions:
                raise InvalidToken(f"the token does not grant {action[:100]!r}", reason_code="action_not_granted")
            actors = tuple(map(str, verified.actors))
            return Verdict(TASK, spiffe_id=str(verified.spiffe_id), claims=dict(verified.claims), actors=actors)
        except InvalidToken as error:
            return Verdict(code=error.reason_code, reason=error.public)
        except TaskOver as error:
            return Verdict(code="task_over", reason=error.public)
        except SojournError as error:
            return Verdict(code=error.code, reason=error.public)

    def verify_jwt_svid(self, token: str, audience: str) -> JwtSvid:
        """Validate a JWT-SVID for one audience. Raise InvalidToken."""
        return self._identities.verify_jwt_svid(token, [audience])

    def _subject(self, unverified_token: str) -> tuple[SpiffeId, datetime]:
        now = self._clock.now()
        try:
            svid = self._identities.verify_jwt_svid(unverified_token, self.audiences)
        except InvalidToken as error:
            hint = f"; it must be for {self.audiences[0]!r}" if error.reason_code == "wrong_audience" else ""
            raise InvalidToken(
                f"subject_token: {error.public}{hint}", reason_code=error.reason_code, detail=error.detail
            ) from error
        for name in ("act", "may_act"):  # nothing of a chain may be lost in an exchange (RFC 8693, 4.1 and 4.4)
            if name in svid.claims:
                raise InvalidToken(f"subject_token: it has {name}; hand a task on instead", reason_code="has_actor")
        if len(svid.audience) != 1:
            raise InvalidToken("subject_token: it is for others too", reason_code="wrong_audience")
        if svid.expires_at <= now:  # the leeway is for clocks of other machines; this token is our own
            raise InvalidToken("subject_token: token has expired", reason_code="expired")
        return svid.spiffe_id, svid.expires_at
