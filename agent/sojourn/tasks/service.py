"""Says whether a token is good: a JWT-SVID or a task token."""

from dataclasses import dataclass
from typing import Any

from sojourn.clock import Clock
from sojourn.errors import InvalidToken, SojournError, TaskOver
from sojourn.identity.identities import Identities
from sojourn.spiffe.jose import parse_unverified
from sojourn.spiffe.jwtsvid import JwtSvid
from sojourn.tasks import tokens
from sojourn.tasks.clients import own_names
from sojourn.tasks.engine import TaskEngine

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
    """Validation for anyone who may ask; tokens are given by `granting`."""

    def __init__(self, engine: TaskEngine, identities: Identities, clock: Clock) -> None:
        self._engine = engine
        self._identities = identities
        self._clock = clock

    @property
    def audiences(self) -> tuple[str, ...]:
        """Our own names: a subject token must be for one of them and for nobody else."""
        return own_names(self._engine.issuer, self._identities.bundle.trust_domain)

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
