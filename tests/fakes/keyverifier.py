"""A guard's verifier that knows the keys alone: of no task it hears whether that lives."""

from datetime import UTC, datetime

from fakes.task_feed import AUDIENCE, ISSUER
from sojourn.jose.jws import SigningKey
from sojourn.sdk.guard.refusals import RefusedRequest
from sojourn.tasktoken.checks import check_digest
from sojourn.tasktoken.request_record import NOTHING_SAID, Served
from sojourn.tasktoken.sender_constraint import UNPROVEN, Proven
from sojourn.tasktoken.tokens import TaskToken, verify


def verified(key: SigningKey, text: str, proven: Proven = UNPROVEN) -> TaskToken:
    """A token that was signed with this key, for the audience of the fakes."""
    keys = {key.public.kid: key.public}
    return verify(text, keys=keys, issuer=ISSUER, audience=AUDIENCE, now=datetime.now(UTC), proven=proven)


class KeyVerifier:
    """Counts nothing, and tells nobody."""

    audience, issuer = AUDIENCE, ISSUER

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self.used: list[Served] = []  # what was let through

    async def examine(self, text: str, proven: Proven = UNPROVEN) -> TaskToken:
        return verified(self._key, text, proven)

    def check_digest(self, verified: TaskToken, params_digest: str) -> None:
        check_digest(verified, params_digest)

    async def use(
        self, verified: TaskToken, action: str | None, proven: Proven = UNPROVEN, served: Served = NOTHING_SAID
    ) -> None:
        self.used.append(served)

    def refused(self, request: RefusedRequest) -> None:
        """Tells nobody."""
