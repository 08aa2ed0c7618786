"""Giving a task what it asks for at a resource: a token of ours, or what a provider gives."""

from collections.abc import Callable, Sequence
from datetime import datetime

from sojourn.credentials.hand_out import HandOut
from sojourn.errors.oauth import BindingNotOffered
from sojourn.oauth.issued_tokens import IssuedToken
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.task import Task
from sojourn.tasks.token_issuer import key_of_person
from sojourn.tasktoken.sender_constraint import Binding


class TaskTokenSource:
    """For all doors."""

    def __init__(self, engine: TaskEngine, handing: HandOut) -> None:
        self._engine = engine
        self._handing = handing

    def provider_of(self, target: str, task_id: str = "") -> str:
        """The provider that gives what is for a target, by a task type in force, or for a task's only resource if no
        target is named; '': there is none.
        """
        task = self._engine.tasks.find(task_id) if task_id and not target else None
        return self._engine.types.providers.get(task.authority.named(target) if task is not None else target, "")

    def is_outside(self, task: Task, resource: str) -> bool:
        """Whether a provider gives the credentials for a resource of the task; '': for its only one."""
        return task.authority.named(resource) in task.type.outside

    def check_offered(self, task: Task, resource: str, *, bound: bool, params_digest: str) -> None:
        """Raise BindingNotOffered if what is asked for is a provider's, and is to be bound or for one request alone."""
        if not self.is_outside(task, resource):
            return
        if bound:
            raise BindingNotOffered(
                f"a provider gives the credentials for {resource[:200] or 'it'}, and they are not bound to their"
                " sender: ask without a key, proof or certificate, for a task whose person's token is bound to none"
            )
        if params_digest:
            raise BindingNotOffered(
                f"a provider gives the credentials for {resource[:200] or 'it'}, and they are not for one request"
                " alone: ask without params_digest"
            )

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
        """A credential for one resource of a live task: see TaskEngine.token and HandOut.give, and what those raise.

        `fits` is of those of a provider alone: the type of ours is known. Raise BindingNotOffered for one of a provider
        that is to be bound, or for one request alone.
        """
        if self.is_outside(task, resource):
            bound = agent_key or binding is not None or bool(key_of_person(task))
            self.check_offered(task, resource, bound=bound, params_digest=params_digest)
            return await self._handing.give(task, resource, actions, not_after=not_after, fits=fits)
        token = await self._engine.token(
            task,
            resource,
            actions,
            not_after=not_after,
            binding=binding,
            agent_key=agent_key,
            params_digest=params_digest,
        )
        return IssuedToken.of(token)
