"""Of sojourn.v1.Admin: tasks, as operators and oversight see and stop them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn.attestation.selectors import Selector
from sojourn.clock import Clock
from sojourn.doors.calls import Call, Method
from sojourn.doors.taskmessages import TaskMessages
from sojourn.errors import AlreadyExists, InvalidInput, LimitExceeded, NotFound, SojournError, told_as
from sojourn.limits import AUDITED_TEXT, TASK_BLOCKS
from sojourn.oversight.audit import Audit
from sojourn.spiffe.ids import SpiffeId
from sojourn.store.kept import KeptList
from sojourn.tasks.blocks import Block
from sojourn.tasks.changing import Changing
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.reasons import ADMIN, BLOCKED, OPERATOR, explanation_of
from sojourn.tasks.refusals import Refusals
from sojourn.tasks.task import PENDING, Task

Change = Callable[[Task], Awaitable[None]]


class TaskAdminApi:
    """See, suspend, resume, end; and the kill switch. Nothing here grants anything."""

    def __init__(
        self,
        engine: TaskEngine,
        changing: Changing,
        blocks: KeptList[Block],
        message: TaskMessages,
        audit: Audit,
        clock: Clock,
        refusals: Refusals,
    ) -> None:
        self._engine = engine
        self._changing = changing
        self._blocks = blocks
        self._told = message
        self._refusals = refusals
        self._audit = audit
        self._clock = clock
        self._lock = asyncio.Lock()
        self._unwritten = False  # a switch is off that is not on disk

    def admin_methods(self) -> dict[str, Method]:
        return {
            "ListTasks": Method("unary", pb.ListTasksRequest, self.list),
            "GetTask": Method("unary", pb.GetTaskRequest, self.get),
            "RevokeTask": Method("unary", pb.RevokeTaskRequest, self.revoke_one),
            "RevokeTasks": Method("unary", pb.ChangeTasksRequest, self.revoke),
            "SuspendTasks": Method("unary", pb.ChangeTasksRequest, self.suspend),
            "ResumeTasks": Method("unary", pb.ChangeTasksRequest, self.resume),
            "BlockTasks": Method("unary", pb.BlockTasksRequest, self.block),
            "UnblockTasks": Method("unary", pb.UnblockTasksRequest, self.unblock),
            "ListBlocks": Method("unary", pb.ListBlocksRequest, self.list_blocks),
        }

    async def list(self, _call: Call, request: pb.ListTasksRequest) -> pb.ListTasksResponse:
        tasks = [*(self._engine.tasks.ended() if request.include_ended else []), *self._engine.tasks.all()]
        return pb.ListTasksResponse(tasks=[self._message(task) for task in tasks])

    async def get(self, _call: Call, request: pb.GetTaskRequest) -> tasks_pb2.Task:
        return self._message(self._find(request.task_id))

    async def revoke_one(self, call: Call, request: pb.RevokeTaskRequest) -> tasks_pb2.Task:
        task = self._find(request.task_id)
        await self._revoke(call, task)
        return self._message(task)

    async def revoke(self, call: Call, request: pb.ChangeTasksRequest) -> pb.ChangeTasksResponse:
        return await self._change(request, lambda task: self._revoke(call, task, request.reason))

    async def suspend(self, call: Call, request: pb.ChangeTasksRequest) -> pb.ChangeTasksResponse:
        return await self._change(request, lambda task: self._suspend(call, task, request.reason))

    async def resume(self, call: Call, request: pb.ChangeTasksRequest) -> pb.ChangeTasksResponse:
        return await self._change(request, lambda task: self._resume(call, task, request.reason))

    async def block(self, call: Call, request: pb.BlockTasksRequest) -> pb.BlockTasksResponse:
        kind, name = _named(request.block)
        if (
            kind == "type" and not self._engine.no_types
        ):  # what is switched on again may have lost its file meanwhile; what is switched off has one
            self._engine.type_named(name)
        reason = request.block.reason[:AUDITED_TEXT] or "no reason given"
        async with self._lock:
            known = self._engine.blocks.all()
            off = any((block.kind, block.name) == (kind, name) for block in known)
            if off and not self._unwritten:
                raise AlreadyExists(f"{name!r} is switched off already")
            if not off and len(known) >= TASK_BLOCKS:
                raise LimitExceeded(f"more than {TASK_BLOCKS} blocks")
            made = Block(kind, name, reason, int(self._clock.now().timestamp()))
            # In force before it is on disk: what stops need not wait.
            self._engine.blocks.replace([*known, made])
            self._unwritten = True
            ended = [task for task in self._engine.tasks.all() if _is_of(task, kind, name)]
            for task in ended:
                self._engine.stop(task, BLOCKED, explanation_of(request.block.reason))
            event = self._audit.event("tasks_blocked", {kind: name, "reason": reason, "ended": len(ended), **call.by})
            await self._blocks.save(self._engine.blocks.all(), event)
            self._unwritten = False
        return pb.BlockTasksResponse(ended=[self._message(task) for task in ended])

    async def unblock(self, call: Call, request: pb.UnblockTasksRequest) -> pb.UnblockTasksResponse:
        kind, name = _named(request.block)
        async with self._lock:
            known = self._engine.blocks.all()
            left = [block for block in known if (block.kind, block.name) != (kind, name)]
            if left == known:
                raise NotFound(f"{name[:100]!r} is not switched off")
            await self._blocks.save(left, self._audit.event("tasks_unblocked", {kind: name, **call.by}))
            self._engine.blocks.replace(left)
            self._unwritten = False
        return pb.UnblockTasksResponse()

    async def list_blocks(self, _call: Call, _request: pb.ListBlocksRequest) -> pb.ListBlocksResponse:
        return pb.ListBlocksResponse(
            blocks=[
                pb.Block(**{block.kind: block.name}, reason=block.reason, since=block.since)
                for block in self._engine.blocks.all()
            ]
        )

    async def _revoke(self, call: Call, task: Task, reason: str = "") -> None:
        await self._record(call, task, "revoked", reason)  # with what is to come, in this very step if the task lives
        await self._engine.revoke(task, ADMIN, explanation_of(reason))

    async def _suspend(self, call: Call, task: Task, reason: str) -> None:
        said = reason[:AUDITED_TEXT] or "suspended by an operator"
        if task.state != PENDING:
            self._changing.hold(task, OPERATOR, said)
            await self._record(call, task, "suspended", reason)
        await self._changing.suspend(task, OPERATOR, said)

    async def _resume(self, call: Call, task: Task, reason: str) -> None:
        await self._changing.resume(task, OPERATOR)
        await self._record(call, task, "resumed", reason)
        await self._engine.journal.told(task.id)

    async def _record(self, call: Call, task: Task, done: str, reason: str) -> None:
        """Have it written who changes a task, beside the change; of one that is over, return when it is on disk."""
        event = self._audit.event(
            f"task_{done}_by_operator", {"task": task.id, "reason": reason[:AUDITED_TEXT] or None, **call.by}
        )
        if task.live:
            self._engine.journal.later(task.record(), event)
        else:
            await self._engine.journal.note(event)

    async def _change(self, request: pb.ChangeTasksRequest, change: Change) -> pb.ChangeTasksResponse:
        """Change each selected task; one that cannot be changed never fails the others."""
        tasks = self._selected(request.selection)
        outcomes = await asyncio.gather(*(change(task) for task in tasks), return_exceptions=True)
        answer = pb.ChangeTasksResponse()
        for task, outcome in zip(tasks, outcomes, strict=True):
            if outcome is not None and not isinstance(outcome, SojournError):
                raise outcome
            answer.outcomes.add(task=self._message(task), error=outcome.public if outcome is not None else "")
        return answer

    def _selected(self, selection: pb.TaskSelection) -> Sequence[Task]:
        """The live tasks that are selected; a task that is named by its ID is there, or NotFound is raised."""
        if not (selection.task_id or selection.type or selection.spiffe_id or selection.selector):
            raise InvalidInput("which tasks must be specified: by ID, type, SPIFFE ID or selector")
        selector = Selector.parse(selection.selector) if selection.selector else None
        tasks = [self._find(selection.task_id)] if selection.task_id else self._engine.tasks.all()
        return [
            task
            for task in tasks
            if selection.type in {"", task.type.name}
            and selection.spiffe_id in {"", str(task.spiffe_id)}
            and (selector is None or selector in task.selectors)
        ]

    def _message(self, task: Task) -> tasks_pb2.Task:
        """A task with what services refused of it, which is told to operators alone."""
        made, tried = self._told(task), self._refusals.of(task.id)
        made.refused = tried.count
        for each in tried.last:
            said = each.request
            about = {"action": said.action, "method": said.method, "target": said.target}
            made.refusals.add(refused_at=each.at, resource=each.resource, code=each.code, count=each.count, **about)
        return made

    def _find(self, task_id: str) -> Task:
        task = self._engine.tasks.find(task_id)
        if task is None:
            raise NotFound("there is no such task, or it ended long ago: see the audit journal")
        return task


def _named(block: pb.Block) -> tuple[str, str]:
    """Which kind of thing, and its name. Raise InvalidInput."""
    if bool(block.type) == bool(block.spiffe_id):
        raise InvalidInput("a task type or a SPIFFE ID must be specified, and not both")
    if block.type:
        return "type", block.type
    with told_as(InvalidInput, "invalid SPIFFE ID"):
        return "spiffe_id", str(SpiffeId.parse(block.spiffe_id))


def _is_of(task: Task, kind: str, name: str) -> bool:
    return name == (task.type.name if kind == "type" else str(task.spiffe_id))
