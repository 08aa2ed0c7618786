"""Counts the uses of actions that a task type limits: what is answered yes is on disk, and never one too many.

The count is the family's, so that handing a task on multiplies nothing. It is written with the task at the root: that
one outlives all others of the family, so that what they have used is known whichever of them comes back.
"""

from sojourn.errors import InvalidToken, SojournError
from sojourn.errors.oauth import WrongParams
from sojourn.tasks.action_limits import check_left
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.kept_fields import ONE_SHOT
from sojourn.tasks.single_use import SingleUses
from sojourn.tasks.task import Task
from sojourn.tasktoken.request_record import NOTHING_SAID, Served
from sojourn.tasktoken.task_claim import HIGH
from sojourn.tasktoken.tokens import TaskToken


class UseCounter:
    """Lets requests through: each with a token that is good once, or for an action that is counted, once."""

    def __init__(self, engine: TaskEngine, uses: SingleUses) -> None:
        self._engine = engine
        self._uses = uses

    async def use(self, verified: TaskToken, action: str | None, served: Served = NOTHING_SAID) -> None:
        """Let a request for `action` through with a token that was examined and fits. None: it is for no action of the
        task's; '': nobody says for which.

        It counts as often as the request does its action: `served.times`.

        Raise InvalidToken if it was good once and was used, ActionUsedUp, TaskOver, or what the store raises: then it
        must not pass. A use that was counted and of which nobody heard stays counted.
        """
        task = self._engine.tasks.find(verified.task_id)
        if task is None:
            raise InvalidToken("the task is over", reason_code="task_over")
        if not task.type.limits or task.type.limits.keys().isdisjoint(verified.actions):
            self.use_up(verified)
            return
        if action == "":
            raise WrongParams("token has an action whose uses are counted, and nobody says for which action it is used")
        if action is None or action not in task.type.limits:
            self.use_up(verified)
            return
        root = next(iter(self._engine.family.line(task)), task)
        await self._engine.journal.settled(root.id)
        # From here to where the count is handed to the journal nobody else has a turn.
        self._engine.check_token(verified)
        check_left(task, (action,), served.times)
        self.use_up(verified)
        task.count_use(action, served.times)
        try:
            await self._write(task, root, verified, served, action)
            self._engine.check_token(verified)
        except SojournError:
            task.count_use(action, -served.times)  # it does not pass; on disk may be too many, never too few
            raise

    def check_not_counted(self, verified: TaskToken, action: str) -> None:
        """Raise InvalidToken for an action whose uses are counted: whoever lets it through must say so."""
        task = self._engine.tasks.find(verified.task_id)
        if task is not None and action in task.type.limits:
            said = f"uses of {action[:100]!r} are counted: ask with `use`, when the request is about to be served"
            raise InvalidToken(said, reason_code="use_needed")

    def use_up(self, verified: TaskToken) -> None:
        """Raise InvalidToken if a token was good once, and was used."""
        if verified.task_class == HIGH:
            self._uses.claim(verified)

    async def _write(self, task: Task, root: Task, verified: TaskToken, served: Served, action: str) -> None:
        counted, limit = task.spent.counted[action], task.type.limits[action]
        event = self._engine.event(
            "use_counted",
            task,
            resource=verified.resource,
            action=action,
            method=served.method or None,
            target=served.target or None,
            **served.params(verified),
            jti=verified.claims.get("jti"),
            counted=counted,
            limit=limit,
            times=served.times if served.times > 1 else None,
        )
        if root.binding == ONE_SHOT:  # it ends with the agent, and its family with it
            await self._engine.journal.note(event)
        else:
            await self._engine.journal.now(root.record(), event)
