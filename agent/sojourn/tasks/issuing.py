"""Issuing the tokens of tasks: what must be true of one, until when it is good, and what stands in it."""

from datetime import datetime, timedelta

from sojourn.clock import Clock
from sojourn.errors import Bug, InvalidInput, TaskOver
from sojourn.spiffe.jose import SigningKey
from sojourn.tasks import tokens
from sojourn.tasks.grants import DIGEST, Grant
from sojourn.tasks.task import Task
from sojourn.tasks.tokens import JKT, X5T, Binding, TaskToken


class TokenIssuing:
    """Signs tokens of tasks that have been decided on."""

    def __init__(self, key: SigningKey, issuer: str, clock: Clock) -> None:
        self.key = key
        self.issuer = issuer
        self._clock = clock

    def binding_of(self, task: Task, binding: Binding | None, agent_key: bool, params_digest: str) -> Binding | None:
        """To what a token of the task is bound. Raise InvalidInput for one that its type does not give."""
        if agent_key and binding is not None:
            raise Bug("a token was to be bound twice")
        if binding is not None and binding.kind == X5T and binding.not_after is None:
            raise Bug("a token was to be bound to a certificate of unknown end")
        if params_digest and not DIGEST.fullmatch(params_digest):
            raise InvalidInput("params_digest is not a SHA-256 digest in base64url")
        return Binding(JKT, own_key(task).public.thumbprint) if agent_key else binding

    def sign(
        self, task: Task, grant: Grant, not_after: datetime | None, binding: Binding | None, params_digest: str
    ) -> TaskToken:
        """Sign a token for one grant. It ends with what ends first: its type's life for tokens, the task, `not_after`,
        or the certificate that it is bound to. Raise TaskOver if that is less than a second away.
        """
        now = self._clock.now()
        left = timedelta(seconds=max(0.0, task.deadline - self._clock.boot()))
        ends = min(
            now + task.type.token_ttl,
            now + left,
            *(each for each in (not_after, binding.not_after if binding else None) if each is not None),
        )
        if int(ends.timestamp()) <= now.timestamp():
            raise TaskOver("less than a second is left for a token")
        return tokens.issue(
            self.key,
            issuer=self.issuer,
            spiffe_id=task.subject,
            actors=task.actors,
            grant=grant,
            task_id=task.id,
            task_type=task.type.name,
            task_version=task.version,
            task_class=task.type.consequence,
            issued_at=now,
            expires_at=ends,
            binding=binding,
            params_digest=params_digest,
        )


def own_key(task: Task) -> SigningKey:
    """The task's own key, made when it is first needed. It never leaves the agent, and is gone with the task."""
    if task.key is None:
        task.key = SigningKey.generate("task")
    return task.key
