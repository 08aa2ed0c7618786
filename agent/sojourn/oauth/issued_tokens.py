"""What a task is given for one of its resources, and who gives it: the agent itself, or a provider outside."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, Self

from sojourn.oauth.token_request import TOKEN_TYPE_ACCESS
from sojourn.tasks.task import Task
from sojourn.tasktoken.sender_constraint import Binding
from sojourn.tasktoken.tokens import TaskToken


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A credential as it is handed out. `expires_at`: until when it may be used, by whatever ends first."""

    token: str = field(repr=False)
    token_type: str  # Bearer | DPoP | N_A
    issued_type: str  # URI, RFC 8693, 3: for N_A it says how to read `token`
    resource: str
    actions: tuple[str, ...]
    expires_at: datetime
    task_id: str
    details: Mapping[str, Any]  # what it is good for, as an element of `authorization_details` (RFC 9396, 2)
    provider: str = ""  # that gave it; '': the agent itself
    recall: str = ""  # of a provider: what becomes of it at the task's end: revoke | deny | none
    public: Mapping[str, str] = field(default_factory=dict)  # of a provider: what is known about it, nothing secret

    @classmethod
    def of(cls, token: TaskToken) -> Self:
        """A task token of ours."""
        return cls(
            token.token,
            token.token_type,
            TOKEN_TYPE_ACCESS,
            token.resource,
            token.actions,
            token.expires_at,
            token.task_id,
            token.claims["authorization_details"][0],
        )


class TokenSource(Protocol):
    """Who gives tasks what they ask for."""

    def provider_of(self, target: str, task_id: str = "") -> str:
        """The provider that gives what is for a target; '': there is none."""

    def is_outside(self, task: Task, resource: str) -> bool:
        """Whether a provider gives the credentials for a resource of the task; '': for its only one."""

    async def give(
        self,
        task: Task,
        resource: str,
        actions: Sequence[str],
        *,
        not_after: datetime | None = None,
        binding: Binding | None = None,
        agent_key: bool = False,
        params_digest: str = "",
        fits: Callable[[str], None] = lambda _issued_type: None,
    ) -> IssuedToken:
        """A credential for one resource of a live task, on the terms that `TaskEngine.token` has.

        `fits` raises if whoever asks can do nothing with one of this type. Raise errors of ours; none was given then.
        """
