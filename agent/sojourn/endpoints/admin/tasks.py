"""Of sojourn.v1.Admin: tasks, as operators and oversight see and stop them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from itertools import chain

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn.attestation.selectors import Selector
from sojourn.audit.journal import Audit
from sojourn.endpoints.api.task_messages import TaskMessages, brief, shorten
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.endpoints.grpc.pages import Pages
from sojourn.errors import InvalidInput, NotFound, SojournError, told_as
from sojourn.limits import AUDITED_TEXT, OUTCOMES_TOLD, REDECIDED_AT_ONCE
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.blocks import PERSON, SPIFFE_ID, TYPE
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.kill_switch import KillSwitch
from sojourn.tasks.people_names import PeopleNames
from sojourn.tasks.refusal_reports import RefusalCounts
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasks.task import PENDING, Task
from sojourn.tasktoken.end_reasons import ADMIN, OPERATOR, explanation_of

Change = Callable[[Task], Awaitable[None]]


class TaskAdminApi:
    """See, suspend, resume, end; and the kill switch. Nothing here grants anything."""

    def __init__(
        self,
        engine: TaskEngine,
        changing: TaskChanges,
        switch: KillSwitch,
        message: TaskMessages,
        audit: Audit,
        refusals: RefusalCounts,
        names: PeopleNames,
    ) -> None:
        self._engine = engine
        self._changing = changing
        self._switch = switch
        self._told = message
        self._refusals = refusals
        self._names = names
        self._audit = audit
        self._pages = Pages((datetime, str), _key, self._listed)

    def admin_methods(self) -> dict[str, Method]:
        return {
            "ListTasks": Method("unary", pb.ListTasksRequest, self.list),
            "NamePerson": Method("unary", pb.NamePersonRequest, self.name_person),
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
        kept = self._engine.tasks
        live = kept.of_type(request.type, request.spiffe_id) if request.type else kept.all()
        whose = self._names.pseudonym_of(request.person) if request.person else ""
        tasks = chain(kept.ended(), live) if request.include_ended else live
        page, token = await self._pages.page_of_many(
            tasks,
            request,
            lambda task: _fits(task, request.type, request.spiffe_id) and whose in {"", _pseudonym_of(task)},
        )
        return pb.ListTasksResponse(tasks=page, next_page_token=token)

    async def name_person(self, _call: Call, request: pb.NamePersonRequest) -> pb.NamePersonResponse:
        pseudonym = self._engine.pseudonyms.named(request.issuer, request.subject)
        return pb.NamePersonResponse(pseudonym=pseudonym, plain=self._names.plain_name(request.issuer, request.subject))

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
        ended = await self._switch.switch_off(*self._named(request.block), request.block.reason, call.by)
        left_out = max(0, len(ended) - OUTCOMES_TOLD)
        return pb.BlockTasksResponse(ended=map(brief, ended[:OUTCOMES_TOLD]), left_out=left_out)

    async def unblock(self, call: Call, request: pb.UnblockTasksRequest) -> pb.UnblockTasksResponse:
        await self._switch.switch_on(*self._named(request.block), call.by)
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

        async def changed(task: Task) -> Exception | None:
            try:
                await change(task)
            except Exception as error:  # noqa: BLE001  # what is unforeseen is raised when all others are changed
                return error
            return None

        async with asyncio.TaskGroup() as group:
            changing = []
            for number, task in enumerate(tasks, 1):
                changing.append(group.create_task(changed(task)))
                if number % REDECIDED_AT_ONCE == 0:
                    await asyncio.sleep(0)  # others have their turn
        found = [(task, each.result()) for task, each in zip(tasks, changing, strict=True)]
        return self._outcomes(found, self._message if request.selection.task_id else brief)

    def _outcomes(
        self, found: Sequence[tuple[Task, Exception | None]], message: Callable[[Task], tasks_pb2.Task]
    ) -> pb.ChangeTasksResponse:
        """What became of each task, of those that were not changed first: as many as there is room for."""
        failed = sum(error is not None for _, error in found)
        answer = pb.ChangeTasksResponse(changed=len(found) - failed, failed=failed)
        for task, error in sorted(found, key=lambda each: each[1] is None):
            if error is not None and not isinstance(error, SojournError):
                raise error
            if len(answer.outcomes) < OUTCOMES_TOLD:
                answer.outcomes.add(task=message(task), error=error.public if error is not None else "")
            else:
                answer.left_out += 1
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
            if _fits(task, selection.type, selection.spiffe_id) and (selector is None or selector in task.selectors)
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

    def _listed(self, task: Task) -> tasks_pb2.Task:
        made = self._message(task)
        shorten(made)
        return made

    def _named(self, block: pb.Block) -> tuple[str, str]:
        """Which kind of thing, and its name. Raise InvalidInput, or NotFound for a person of no issuer."""
        if [bool(block.type), bool(block.spiffe_id), bool(block.person)].count(True) != 1:
            raise InvalidInput("one of a task type, a SPIFFE ID and a person must be specified")
        if block.type:
            return TYPE, block.type
        if self._engine.blocks.of_person(block.person) is not None:  # also by a name that is taken no more
            return PERSON, block.person
        if block.person:
            return PERSON, self._names.pseudonym_of(block.person)
        with told_as(InvalidInput, "invalid SPIFFE ID"):
            return SPIFFE_ID, str(SpiffeId.parse(block.spiffe_id))

    def _find(self, task_id: str) -> Task:
        task = self._engine.tasks.find(task_id)
        if task is None:
            raise NotFound("there is no such task, or it ended long ago: see the audit journal")
        return task


def _pseudonym_of(task: Task) -> str:
    """The pseudonym of a task's person; a blank, which nobody is called, if it is for nobody."""
    return " " if task.whom is None else task.whom.pseudonym


def _fits(task: Task, type_name: str, spiffe_id: str) -> bool:
    """Whether a task is of a type and of a workload; '' fits any."""
    return type_name in {"", task.type.name} and spiffe_id in {"", str(task.spiffe_id)}


def _key(task: Task) -> tuple[datetime, str]:
    """Its place in a list, which stays when a task that waited begins, and so is created by its own account."""
    return task.created_at if task.approval is None else task.approval.request.asked_at, task.id
