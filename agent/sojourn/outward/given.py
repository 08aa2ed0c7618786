"""What a task was given for one of its resources, whoever gave it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from sojourn.providers.provider import ACCESS_TOKEN
from sojourn.tasks.tokens import TaskToken


@dataclass(frozen=True, slots=True)
class Given:
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
            ACCESS_TOKEN,
            token.resource,
            token.actions,
            token.expires_at,
            token.task_id,
            token.claims["authorization_details"][0],
        )
