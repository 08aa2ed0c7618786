"""sojourn.v1.Tasks on the public socket."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn.attestation.peer import Peer
from sojourn.attestation.process import Process
from sojourn.endpoints.api.task_messages import TaskMessages, authority_of, brief
from sojourn.endpoints.grpc.calls import Call, Method, first_of, next_of
from sojourn.errors import InvalidInput, NotFound, PolicyDenied, Unavailable, told_as
from sojourn.http2.limits import FIRST_BYTES_SECONDS
from sojourn.identity.entries import Entry
from sojourn.identity.identities import Identities
from sojourn.limits import IDEMPOTENCY_KEY_MAX, PERSON_EXPIRES_TOLD_SECONDS, TASK_WAIT_SECONDS
from sojourn.sdk.request import grant_match
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.begin import BeginRequest, BeginService, Bond
from sojourn.tasks.delegation import DelegationService
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.kept_fields import PROCESS, STREAM
from sojourn.tasks.people import PeopleService, PersonToken, check_expected
from sojourn.tasks.person_renewal import PersonRenewal
from sojourn.tasks.reattachment import Reattachment
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasks.task import PENDING, REVOKED, Task
from sojourn.tasktoken.end_reasons import HOLDER, HOLDER_DISCONNECTED, RECHECK

SERVICE = "sojourn.v1.Tasks"


class TasksApi:
    """Begin, narrow, hand on, complete. Tokens are another file's."""

    def __init__(
        self,
        engine: TaskEngine,
        beginning: BeginService,
        delegating: DelegationService,
        changing: TaskChanges,
        attaching: Reattachment,
        identities: Identities,
        message: TaskMessages,
        people: PeopleService,
        renewal: PersonRenewal,
    ) -> None:
        self._engine = engine
        self._beginning = beginning
        self._delegating = delegating
        self._changing = changing
        self._attaching = attaching
        self._identities = identities
        self._message = message
        self._people = people
        self._renewal = renewal

    def methods(self) -> dict[str, Method]:
        return {
            "RunTask": Method("bidi", pb.RunTaskRequest, self.run_task),
            "BeginTask": Method("unary", pb.BeginTaskRequest, self.begin_task),
            "AttachTask": Method("unary", pb.AttachTaskRequest, self.attach_task),
            "RenewPerson": Method("unary", pb.RenewPersonRequest, self.renew_person, whole=True),
            "NarrowTask": Method("unary", pb.NarrowTaskRequest, self.narrow_task, whole=True),
            "CompleteTask": Method("unary", pb.CompleteTaskRequest, self.complete_task, whole=True),
            "Delegate": Method("unary", pb.DelegateRequest, self.delegate),
            "AcceptDelegation": Method("unary", pb.AcceptDelegationRequest, self.accept_delegation),
            "ShowTask": Method("unary", pb.ShowTaskRequest, self.show_task),
            "NoteEgress": Method("unary", pb.NoteEgressRequest, self.note_egress, whole=True),
            "WaitTask": Method("unary", pb.WaitTaskRequest, self.wait_task, long=True),
        }

    async def run_task(self, call: Call, _request: None) -> AsyncIterator[pb.TaskEvent]:
        first = await first_of(call, FIRST_BYTES_SECONDS)
        command = first.WhichOneof("command")
        if command == "begin":
            task = await self._begin_stream(call.peer, first.begin)
        elif command == "accept":
            task = await self._accept_stream(call.peer, first.accept)
        elif command == "attach":
            entries = await self._identities.of(call.peer)
            task = await self._attaching.by_stream(call.peer, entries, first.attach.task_id)
        else:
            raise InvalidInput("the first request of the stream must be begin, accept or attach")
        changed = asyncio.Event()
        self._engine.announcements.to_holder(task, changed.set)
        try:
            pending, told = task.state == PENDING, None
            kind = "attached" if command == "attach" else "pending" if pending else "begun"
            yield pb.TaskEvent(**{kind: self._message(task)})
            if not pending and (told := self._person_wanted(task)):
                yield pb.TaskEvent(person_expires=self._message(task))
            async for _ in self._changes(call, task, changed):
                kind = "changed" if not pending else "pending" if task.state == PENDING else "begun"
                pending = kind == "pending"
                if kind == "changed" and (wanted := self._person_wanted(task)) != told:
                    kind, told = "person_expires" if wanted else kind, wanted
                yield pb.TaskEvent(**{kind: self._message(task)})
            await self._engine.journal.written(task.id)
            yield pb.TaskEvent(ended=self._message(task))
        finally:
            if task.live and not self._engine.closing:
                self._engine.end(task, REVOKED, HOLDER_DISCONNECTED)

    async def _begin_stream(self, peer: Peer, begin: pb.BeginTaskRequest) -> Task:
        if begin.holder_pid or begin.idempotency_key:
            raise InvalidInput("holder_pid and idempotency_key have no place here: the task is the stream")
        entries = await self._identities.of(peer)
        wanted = await self._people.for_person(entries, _begin_request(begin), _brought(begin))
        bond = Bond(peer.process.again(), STREAM, begin.session)
        return await self._beginning.begin(peer, entries, wanted, bond)

    async def _accept_stream(self, peer: Peer, accept: pb.AcceptDelegationRequest) -> Task:
        if accept.holder_pid:
            raise InvalidInput("holder_pid has no place here: the task is the stream")
        entries = await self._identities.of(peer)
        wanted = _accept_request(accept)
        bond = Bond(peer.process.again(), STREAM, accept.session)
        return await self._delegating.accept(peer, entries, accept.ticket, wanted, bond)

    async def _changes(self, call: Call, task: Task, changed: asyncio.Event) -> AsyncIterator[None]:
        """Follow the holder's commands until the task has ended; yield whenever it has changed.

        Raise Unavailable when the agent stops: the task lives on without the stream.
        """
        change = asyncio.ensure_future(changed.wait())
        command: asyncio.Future[Any] | None = asyncio.ensure_future(next_of(call.requests))
        try:
            while task.live:
                if self._engine.closing:
                    raise Unavailable("the agent is shutting down")
                waiting = {change, command} if command is not None else {change}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if change.done() and task.live:
                    changed.clear()
                    change = asyncio.ensure_future(changed.wait())
                    yield
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
            for future in (change, command):
                if future is not None:
                    future.cancel()

    async def begin_task(self, call: Call, request: pb.BeginTaskRequest) -> pb.Task:
        entries = await self._identities.of(call.peer)
        begin = await self._people.for_person(entries, _begin_request(request), _brought(request))
        holder = await self._holder(call.peer, entries, request.holder_pid)
        bond = Bond(holder, PROCESS, request.session or bool(request.holder_pid))
        return self._message(await self._beginning.begin(call.peer, entries, begin, bond))

    async def _holder(self, peer: Peer, entries: Sequence[Entry], pid: int) -> Process:
        """The process that a task is bound to: the caller, or an ancestor of the same user and the same identity."""
        caller = peer.process
        if pid in {0, caller.pid}:
            return caller.again()
        if pid < 0:
            raise InvalidInput("holder_pid is negative")
        if pid == 1:
            raise PolicyDenied(
                "process 1 holds no task, as it takes in all whose parents have ended: begin it from a shell of its"
                " own, such as `bash` in a container, or by `sojourn task run`"
            )
        holder = Process.open(pid)
        try:
            if holder.ids().uid != peer.uid or not caller.descends_from(holder):
                raise PolicyDenied("holder_pid is neither the caller nor an ancestor of it that runs as the same user")
            if not await self._identities.process_has(pid, {entry.spiffe_id for entry in entries}):
                raise PolicyDenied("the process that holder_pid names has none of the caller's identities")
        except BaseException:
            holder.close()
            raise
        return holder

    async def attach_task(self, call: Call, request: pb.AttachTaskRequest) -> pb.Task:
        entries = await self._identities.of(call.peer)
        task = await self._attaching.of_caller(call.peer, entries, request.task_id)
        if task.binding == STREAM:
            raise InvalidInput("the task is its stream: attach by RunTask")
        return self._message(task)

    async def renew_person(self, call: Call, request: pb.RenewPersonRequest) -> pb.Task:
        brought = _brought(request)
        if brought is None:
            raise InvalidInput("person must be specified: a newer token of theirs")
        entries = await self._identities.of(call.peer)
        task = await self._attaching.of_caller(call.peer, entries, request.task_id)
        await self._renewal.renew(task, brought)
        return self._message(task)

    def _person_wanted(self, task: Task) -> tuple[float, bool] | None:
        """For which end of the task, and for want of which word of their issuer's, it is time to bring a token of its
        person: for who began the task, and if it can live on. None: there is no need.
        """
        left = task.deadline - self._engine.clock.boot()
        soon = task.ends_with_person and left <= PERSON_EXPIRES_TOLD_SECONDS
        unchecked = RECHECK in task.suspensions
        return (task.deadline, unchecked) if (soon or unchecked) and not task.parent_id else None

    async def narrow_task(self, call: Call, request: pb.NarrowTaskRequest) -> pb.Task:
        entries = await self._identities.of(call.peer)
        task = await self._attaching.of_caller(call.peer, entries, request.task_id)
        check_expected(task, request.expect_person, may_be_unnamed=True)
        await self._changing.narrow(task, authority_of(request.grants), HOLDER)
        return self._message(task)

    async def note_egress(self, call: Call, request: pb.NoteEgressRequest) -> pb.Task:
        entries = await self._identities.of(call.peer)
        task = await self._attaching.of_caller(call.peer, entries, request.task_id)
        await self._changing.note_passes(task, [grant_match.origin_of(each) for each in request.passes])
        return self._message(task)

    async def wait_task(self, call: Call, request: pb.WaitTaskRequest) -> pb.Task:
        entries = await self._identities.of(call.peer)
        task = self._engine.tasks.of_caller(call.peer, entries, request.task_id)
        await self._engine.waiting.settled(task, TASK_WAIT_SECONDS)
        return self._message(task)

    async def show_task(self, call: Call, request: pb.ShowTaskRequest) -> pb.Task:
        entries = await self._identities.of(call.peer)
        try:
            return self._message(self._engine.tasks.of_caller(call.peer, entries, request.task_id))
        except NotFound:
            task = self._engine.tasks.find(request.task_id)
            ours = {entry.spiffe_id for entry in entries}
            if task is None or task.spiffe_id not in ours or task.uid != call.peer.uid:
                raise
            return brief(task)

    async def complete_task(self, call: Call, request: pb.CompleteTaskRequest) -> pb.Task:
        entries = await self._identities.of(call.peer)
        task = self._engine.tasks.of_caller(call.peer, entries, request.task_id)
        check_expected(task, request.expect_person, may_be_unnamed=True)
        await self._engine.complete(task, failed=request.failed)
        return self._message(task)

    async def delegate(self, call: Call, request: pb.DelegateRequest) -> pb.DelegationTicket:
        entries = await self._identities.of(call.peer)
        task = await self._attaching.of_caller(call.peer, entries, request.task_id)
        check_expected(task, request.expect_person)
        to, wanted = _spiffe_id(request.spiffe_id), authority_of(request.grants)
        if to is None:
            raise InvalidInput("spiffe_id must be specified: to whom the task is handed on")
        if request.max_seconds < 0:
            raise InvalidInput("max_seconds is negative")
        issued = await self._delegating.delegate(task, to, wanted if wanted.grants else None, request.max_seconds)
        return pb.DelegationTicket(ticket=issued.ticket, expires_at=int(issued.expires_at.timestamp()))

    async def accept_delegation(self, call: Call, request: pb.AcceptDelegationRequest) -> pb.Task:
        entries = await self._identities.of(call.peer)
        wanted = _accept_request(request)
        holder = await self._holder(call.peer, entries, request.holder_pid)
        bond = Bond(holder, PROCESS, request.session or bool(request.holder_pid))
        return self._message(await self._delegating.accept(call.peer, entries, request.ticket, wanted, bond))


def _begin_request(request: pb.BeginTaskRequest) -> BeginRequest:
    if not request.type:
        raise InvalidInput("type must be specified")
    if request.max_seconds < 0:
        raise InvalidInput("max_seconds is negative")
    wanted = authority_of(request.grants)
    if len(request.idempotency_key) > IDEMPOTENCY_KEY_MAX:
        raise InvalidInput(f"idempotency_key is longer than {IDEMPOTENCY_KEY_MAX} characters")
    return BeginRequest(
        request.type,
        dict(request.params),
        wanted if wanted.grants else None,
        _spiffe_id(request.spiffe_id),
        request.max_seconds,
        request.idempotency_key,
    )


def _brought(request: pb.BeginTaskRequest | pb.RenewPersonRequest) -> PersonToken | None:
    if not request.HasField("person"):
        return None
    if not request.person.token or not request.person.token_type:
        raise InvalidInput("person must have a token and its token_type")
    return PersonToken(request.person.token, request.person.token_type)


def _accept_request(request: pb.AcceptDelegationRequest) -> BeginRequest:
    """What the ticket does not say."""
    return BeginRequest("", {}, spiffe_id=_spiffe_id(request.spiffe_id))


def _spiffe_id(text: str) -> SpiffeId | None:
    with told_as(InvalidInput, "invalid requested SPIFFE ID"):
        return SpiffeId.parse(text) if text else None
