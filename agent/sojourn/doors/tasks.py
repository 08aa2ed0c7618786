"""sojourn.v1.Tasks on the public socket."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn.attestation.peer import Peer
from sojourn.attestation.process import Process
from sojourn.doors.calls import Call, Method, first_of, next_of
from sojourn.errors import InvalidInput, InvalidSpiffeId, PolicyDenied
from sojourn.identity.entries import Entry
from sojourn.identity.identities import Identities
from sojourn.limits import FIRST_BYTES_SECONDS
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.engine import BeginRequest, TaskEngine
from sojourn.tasks.grants import Authority, Grant
from sojourn.tasks.task import REVOKED, Task

SERVICE = "sojourn.v1.Tasks"


class TasksApi:
    """Begin, get tokens, complete."""

    def __init__(self, engine: TaskEngine, identities: Identities) -> None:
        self._engine = engine
        self._identities = identities

    def methods(self) -> dict[str, Method]:
        return {
            "RunTask": Method("bidi", pb.RunTaskRequest, self.run_task),
            "BeginTask": Method("unary", pb.BeginTaskRequest, self.begin_task),
            "GetToken": Method("unary", pb.GetTokenRequest, self.get_token),
            "CompleteTask": Method("unary", pb.CompleteTaskRequest, self.complete_task),
        }

    async def run_task(self, call: Call, _request: None) -> AsyncIterator[pb.TaskEvent]:
        first = await first_of(call, FIRST_BYTES_SECONDS)
        if first.WhichOneof("command") != "begin":
            raise InvalidInput("the first request of the stream must be begin")
        if first.begin.holder_pid:
            raise InvalidInput("holder_pid has no place here: the holder of the task is the stream")
        entries = await self._identities.of(call.peer)
        task = await self._engine.begin(
            call.peer,
            entries,
            _begin_request(first.begin),
            holder=call.peer.process.again(),
            binding="stream",
            session=first.begin.session,
        )
        ended = asyncio.Event()
        self._engine.on_end(task, ended.set)
        try:
            yield pb.TaskEvent(begun=task_message(task))
            await self._until_end(call, task, ended)
            await self._engine.written(task)
            yield pb.TaskEvent(ended=task_message(task))
        finally:
            if task.live:
                self._engine.end(task, REVOKED, "holder_disconnected")

    async def _until_end(self, call: Call, task: Task, ended: asyncio.Event) -> None:
        """Follow the holder's commands until the task has ended."""
        over = asyncio.ensure_future(ended.wait())
        command: asyncio.Future[Any] | None = asyncio.ensure_future(next_of(call.requests))
        try:
            while task.live:
                waiting = {over, command} if command is not None else {over}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if command is None or not command.done():
                    continue
                request = command.result()
                command = None
                if request is None:  # the holder has nothing more to say; it still holds the stream
                    continue
                if request.WhichOneof("command") != "complete":
                    raise InvalidInput("the task has begun already")
                await self._engine.complete(task, failed=request.complete.failed)
        finally:
            for future in (over, command):
                if future is not None:
                    future.cancel()

    async def begin_task(self, call: Call, request: pb.BeginTaskRequest) -> pb.Task:
        entries = await self._identities.of(call.peer)
        task = await self._engine.begin(
            call.peer,
            entries,
            _begin_request(request),
            holder=await self._holder(call.peer, entries, request.holder_pid),
            binding="process",
            session=request.session or bool(request.holder_pid),
        )
        return task_message(task)

    async def _holder(self, peer: Peer, entries: Sequence[Entry], pid: int) -> Process:
        """The process that a task is bound to: the caller, or an ancestor of the same user and the same identity."""
        caller = peer.process
        if pid in {0, caller.pid}:
            return caller.again()
        if pid < 0:
            raise InvalidInput("holder_pid is negative")
        holder = Process.open(pid)
        try:
            if pid == 1 or holder.credentials().uid != peer.uid or not caller.descends_from(holder):
                raise PolicyDenied("holder_pid is neither the caller nor an ancestor of it that runs as the same user")
            theirs = {entry.spiffe_id for entry in await self._identities.of_process(pid)}
            if not any(entry.spiffe_id in theirs for entry in entries):
                raise PolicyDenied("the process that holder_pid names has none of the caller's identities")
        except BaseException:
            holder.close()
            raise
        return holder

    async def get_token(self, call: Call, request: pb.GetTokenRequest) -> pb.GetTokenResponse:
        entries = await self._identities.of(call.peer)
        task = self._engine.of_caller(call.peer, entries, request.task_id)
        token = await self._engine.token(task, request.resource, tuple(request.actions))
        return pb.GetTokenResponse(
            access_token=token.token,
            token_type="Bearer",  # noqa: S106  # a name
            expires_at=int(token.expires_at.timestamp()),
            resource=token.resource,
            actions=token.actions,
        )

    async def complete_task(self, call: Call, request: pb.CompleteTaskRequest) -> pb.Task:
        entries = await self._identities.of(call.peer)
        task = self._engine.of_caller(call.peer, entries, request.task_id)
        await self._engine.complete(task, failed=request.failed)
        return task_message(task)


def task_message(task: Task) -> pb.Task:
    return pb.Task(
        id=task.id,
        type=task.type.name,
        spiffe_id=str(task.spiffe_id),
        state=task.state,
        reason=task.reason,
        version=task.version,
        grants=[pb.Grant(resource=grant.resource, actions=grant.actions) for grant in task.authority.grants],
        created_at=int(task.created_at.timestamp()),
        expires_at=int(task.expires_at.timestamp()),
        holder_pid=task.holder.pid,
        tokens_issued=task.tokens_issued,
        params={
            name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in task.params.items()
        },
    )


def _begin_request(request: pb.BeginTaskRequest) -> BeginRequest:
    if not request.type:
        raise InvalidInput("type must be specified")
    if request.max_seconds < 0:
        raise InvalidInput("max_seconds is negative")
    wanted = Authority.of(Grant.parse(grant.resource, grant.actions) for grant in request.grants)
    try:
        spiffe_id = SpiffeId.parse(request.spiffe_id) if request.spiffe_id else None
    except InvalidSpiffeId as error:
        raise InvalidInput(f"invalid requested SPIFFE ID: {error.public}") from error
    return BeginRequest(
        request.type, dict(request.params), wanted if wanted.grants else None, spiffe_id, request.max_seconds
    )
