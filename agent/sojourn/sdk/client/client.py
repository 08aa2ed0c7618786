"""The client of the agent's public socket."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any, Final, Self, Unpack

from google.protobuf import json_format
from google.protobuf.message import Message

from sojourn._pb import workload_pb2 as workload
from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn.config.paths import public_socket
from sojourn.errors import InvalidInput, NoIdentity, SojournError, Unavailable, Unreachable
from sojourn.limits import REATTACH_TRIED_SECONDS, TASK_WAIT_SECONDS
from sojourn.sdk.client import facts, task_tokens
from sojourn.sdk.client.connection import CALL_SECONDS, AgentConnection, not_open
from sojourn.sdk.client.validation import TokenVerdict, ValidateOptions, validate_token
from sojourn.sdk.task import acting
from sojourn.sdk.task.options import AcceptOptions, BeginOptions, accept_request, begin_request, grant_messages
from sojourn.sdk.task.task import HeldTask, OnPending, OnPersonExpires, Task, run_task, until_begun
from sojourn.sdk.task.values import AccessToken, DelegationTicket, PersonToken, TaskStatus, TokenOptions
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.grants import Grant
from sojourn.workloadapi import messages
from sojourn.workloadapi.messages import JwtBundles, JwtSvid, X509Bundles, X509Context

_WORKLOAD: Final = "/SpiffeWorkloadAPI/"
_TASKS: Final = "/sojourn.v1.Tasks/"
_LOOK_AGAIN_SECONDS: Final = 1.0  # for an agent that is waited for


class Client:
    """A connection to the agent, for use as `async with Client() as client`.

    `socket` is a path or a `unix:` URI; without it the socket is found as `sojourn.config.paths.public_socket` says.
    A call that is not answered within `deadline_seconds` raises Unavailable; if nobody is there, Unreachable.
    With `wait_for_agent` it is opened once the agent is there, for which it waits at most so many seconds, as where
    both are started at once. A task whose agent goes away waits `patience_seconds` for it to come back, and is lost
    then.
    """

    def __init__(
        self,
        socket: str | None = None,
        *,
        deadline_seconds: float = CALL_SECONDS,
        patience_seconds: float = REATTACH_TRIED_SECONDS,
        wait_for_agent: float = 0,
    ) -> None:
        self._named_socket = socket
        self.socket = public_socket(socket)
        self._wait_seconds = wait_for_agent
        self._deadline_seconds = deadline_seconds
        self._patience_seconds = patience_seconds
        self._open: AgentConnection | None = None

    async def __aenter__(self) -> Self:
        if self._wait_seconds > 0:
            self._open = await self._when_there()
        else:
            self._open = AgentConnection(self.socket, self._deadline_seconds)
        return self

    async def _when_there(self) -> AgentConnection:
        """A connection that the agent has taken. Raise Unreachable if it is not there in time."""
        clock = asyncio.get_running_loop().time
        last = clock() + self._wait_seconds
        while True:
            self.socket = public_socket(self._named_socket)  # which of the default places it is may show only now
            connection = AgentConnection(self.socket, self._deadline_seconds)
            try:
                await connection.wait_connected(max(0.0, min(_LOOK_AGAIN_SECONDS, last - clock())))
                return connection
            except BaseException as error:
                await connection.close()
                if not isinstance(error, Unreachable) or clock() >= last:
                    raise

    async def __aexit__(self, *_: object) -> None:
        connection, self._open = self._open, None
        if connection is not None:
            await connection.close()

    @property
    def connection(self) -> AgentConnection:
        """The open connection. Raise InvalidInput outside `async with`."""
        if self._open is None:
            raise not_open()
        return self._open

    # --- X.509-SVIDs ---

    async def fetch_x509_svids(self) -> X509Context:
        """Fetch what the caller has now. Raise NoIdentity if no entry matches it."""
        request = workload.X509SVIDRequest()
        return messages.x509_context(
            await self.connection.first(_WORKLOAD + "FetchX509SVID", request, workload.X509SVIDResponse)
        )

    async def watch_x509_contexts(
        self, on_error: Callable[[SojournError], None] | None = None
    ) -> AsyncGenerator[X509Context, None]:
        """Yield what the caller has, and again whenever it changes. Reconnects by itself; `on_error` hears of it.

        On Refused the SVIDs of before must no longer be used (SPIFFE Workload API, 6.1).
        """
        answers = self.connection.follow(
            _WORKLOAD + "FetchX509SVID",
            workload.X509SVIDRequest(),
            workload.X509SVIDResponse,
            messages.x509_context,
            on_error,
        )
        async with contextlib.aclosing(answers):
            async for context in answers:
                yield context

    async def fetch_x509_bundles(self) -> X509Bundles:
        """Fetch the X.509 authorities of the trust domains that the caller may verify."""
        request = workload.X509BundlesRequest()
        answer = await self.connection.first(_WORKLOAD + "FetchX509Bundles", request, workload.X509BundlesResponse)
        if not answer.bundles:
            raise Unavailable("agent sent no X.509 bundle")
        return messages.x509_bundles(answer.bundles)

    # --- JWT-SVIDs ---

    async def fetch_jwt_svids(
        self, audience: str | Sequence[str], spiffe_id: SpiffeId | str | None = None
    ) -> tuple[JwtSvid, ...]:
        """Fetch a JWT-SVID for each identity of the caller, or for the one named."""
        wanted = _several(audience)
        if not wanted or not all(wanted):
            raise InvalidInput("audience must be specified")
        request = workload.JWTSVIDRequest(audience=wanted, spiffe_id=_text(spiffe_id))
        answer = await self.connection.unary(_WORKLOAD + "FetchJWTSVID", request, workload.JWTSVIDResponse)
        if not answer.svids:
            raise NoIdentity("agent sent no JWT-SVID")
        return tuple(messages.jwt_svid(message) for message in answer.svids)

    async def fetch_jwt_svid(self, audience: str | Sequence[str], spiffe_id: SpiffeId | str | None = None) -> JwtSvid:
        """Fetch the JWT-SVID of the first identity, or of the one named. Raise NoIdentity."""
        return (await self.fetch_jwt_svids(audience, spiffe_id))[0]

    async def fetch_jwt_bundles(self) -> JwtBundles:
        """Fetch the JWT authorities, by key ID, of the trust domains that the caller may verify."""
        request = workload.JWTBundlesRequest()
        answer = await self.connection.first(_WORKLOAD + "FetchJWTBundles", request, workload.JWTBundlesResponse)
        if not answer.bundles:
            raise Unavailable("agent sent no JWT bundle")
        return messages.jwt_bundles(answer.bundles)

    async def validate_jwt_svid(self, token: str, audience: str) -> tuple[SpiffeId, dict[str, Any]]:
        """Have the agent validate a JWT-SVID; return its subject and claims. Raise InvalidInput if it is not good."""
        request = workload.ValidateJWTSVIDRequest(audience=audience, svid=token)
        answer = await self.connection.unary(_WORKLOAD + "ValidateJWTSVID", request, workload.ValidateJWTSVIDResponse)
        if not answer.HasField("claims"):
            raise Unavailable("agent sent no claims")
        return SpiffeId.parse(answer.spiffe_id), json_format.MessageToDict(answer.claims)

    async def validate_token(
        self, token: str, audience: str, action: str = "", **options: Unpack[ValidateOptions]
    ) -> TokenVerdict:
        """Have the agent judge a task token or a JWT-SVID. A token that is not good is a verdict, not an error."""
        return await validate_token(self.connection, token, audience, action, **options)

    # --- tasks ---

    def task(
        self,
        type: str,  # noqa: A002  # the word of the API
        *,
        approve_wait: float | None = None,
        on_pending: OnPending | None = None,
        on_person_expires: OnPersonExpires | None = None,
        **options: Unpack[BeginOptions],
    ) -> AbstractAsyncContextManager[Task]:
        """Begin a task that ends with the block: `async with client.task("triage-ticket") as task`.

        `options`: `params`, `grants` (none: all that the type allows), `spiffe_id`, `session` and `max_seconds`, see
        BeginOptions. An exception that leaves the block ends the task as failed. Entering raises Refused, with the
        reason, if policy says no.

        If someone must agree first it waits for that, `approve_wait` seconds or until the request expires, and
        `on_pending` hears of it; ApprovalDenied or ApprovalExpired is raised if nobody does.

        A task for a `person` ends with the token of theirs, unless `Task.renew_person` has a newer one; a minute before
        `on_person_expires` is called with the task.
        """
        first = tasks_pb2.RunTaskRequest(begin=begin_request(type, **options))
        hears = (approve_wait, on_pending, on_person_expires)
        return run_task(self.connection, self, first, self._patience_seconds, *hears)

    async def begin_task(
        self,
        type: str,  # noqa: A002
        *,
        holder_pid: int = 0,
        idempotency_key: str = "",
        approve_wait: float | None = None,
        on_pending: OnPending | None = None,
        **options: Unpack[BeginOptions],
    ) -> HeldTask:
        """Begin a task that ends with a process: this one (0), or an ancestor of it. `options` are those of `task`.

        Repeating the same request with the same `idempotency_key` gives the same task. If someone must agree first it
        waits for that as `task` does; with an `approve_wait` of 0 it returns the pending task instead.
        """
        request = begin_request(type, holder_pid=holder_pid, idempotency_key=idempotency_key, **options)
        status = await self._task_call("BeginTask", request)
        if status.pending and approve_wait != 0:
            try:
                status = await until_begun(status, lambda: self.wait_task(status.id), approve_wait, on_pending)
            except BaseException:
                with contextlib.suppress(SojournError):  # nobody waits for it any more, whoever it is for
                    await self._task_call("CompleteTask", tasks_pb2.CompleteTaskRequest(task_id=status.id, failed=True))
                raise
        return HeldTask(self, status)

    async def wait_task(self, task_id: str) -> TaskStatus:
        """Wait while a task of the caller is pending, half a minute at most; return what it is then."""
        request = tasks_pb2.WaitTaskRequest(task_id=task_id)
        seconds = TASK_WAIT_SECONDS + self._deadline_seconds
        return await self._task_call("WaitTask", request, seconds)

    async def delegate_task(
        self,
        task_id: str,
        to: SpiffeId | str,
        grants: Iterable[Grant] | None = None,
        max_seconds: int = 0,
    ) -> DelegationTicket:
        """Make a ticket by which the workload `to` may begin a task with these grants of a live task of the caller.

        No `grants`: all that the task has. The ticket is good once, and for a minute at most. Raise Refused if the
        task's type does not let it be handed on so, TaskOver or NotFound.
        """
        request = tasks_pb2.DelegateRequest(
            task_id=task_id,
            spiffe_id=str(to),
            grants=grant_messages(grants or ()),
            max_seconds=max_seconds,
            expect_person=acting.expected(),
        )
        answer = await self.connection.unary(_TASKS + "Delegate", request, tasks_pb2.DelegationTicket)
        return DelegationTicket(answer.ticket, datetime.fromtimestamp(answer.expires_at, UTC))

    def accept_delegation(
        self, ticket: DelegationTicket | str, **options: Unpack[AcceptOptions]
    ) -> AbstractAsyncContextManager[Task]:
        """Begin the task that a ticket is for: `async with client.accept_delegation(ticket) as task`.

        `options`: `spiffe_id` and `session`, see AcceptOptions. It ends with the block, and with the task that it was
        handed on from. Entering raises NotFound if the ticket is not the caller's, is used or over.
        """
        first = tasks_pb2.RunTaskRequest(accept=accept_request(ticket, **options))
        return run_task(self.connection, self, first, self._patience_seconds)

    async def begin_delegated(
        self, ticket: DelegationTicket | str, *, holder_pid: int = 0, **options: Unpack[AcceptOptions]
    ) -> HeldTask:
        """Begin the task that a ticket is for, bound to a process: this one (0), or an ancestor of it. `options` are
        those of `accept_delegation`.
        """
        request = accept_request(ticket, holder_pid=holder_pid, **options)
        return HeldTask(self, await self._task_call("AcceptDelegation", request))

    async def attach_task(self, task_id: str) -> TaskStatus:
        """Have a task of a process back after a restart of the agent, within REATTACH_SECONDS of its start.

        Any other call about the task does the same. Raise NotFound, or TaskOver if the task is over.
        """
        request = tasks_pb2.AttachTaskRequest(task_id=task_id)
        return await self._task_call("AttachTask", request)

    async def get_token(
        self, task_id: str, resource: str = "", actions: Sequence[str] = (), **options: Unpack[TokenOptions]
    ) -> AccessToken:
        """Get one access token under a live task of the caller; see TokenOptions for to what it is bound.

        Raise TaskOver, Refused or NotFound; InvalidInput if the task's type gives no such token; NonceNeeded.
        """
        return await task_tokens.get(self.connection, task_id, resource, actions, **options)

    async def create_proof(
        self, task_id: str, method: str, url: str, token: AccessToken | str, nonce: str | None = None
    ) -> str:
        """Make the DPoP proof for one request with a token that is bound to the key of a task of the caller.

        Raise NotFound, TaskOver or InvalidToken.
        """
        return await task_tokens.prove(self.connection, task_id, method, url, token, nonce)

    async def narrow_task(self, task_id: str, kept: Iterable[Grant]) -> TaskStatus:
        """Give up all of a task of the caller but these grants; tokens from before are dead. It cannot be undone."""
        said = acting.expected()
        request = tasks_pb2.NarrowTaskRequest(task_id=task_id, grants=grant_messages(kept), expect_person=said)
        return await self._task_call("NarrowTask", request)

    async def renew_person(self, task_id: str, person: PersonToken) -> TaskStatus:
        """Have a task of the caller go on by a newer token of its person, of the same session. Return the task.

        Raise PersonRefused if it is none, and Refused if policy denies it for the person as they are now.
        """
        request = tasks_pb2.RenewPersonRequest(task_id=task_id, person=person.message())
        return await self._task_call("RenewPerson", request)

    async def complete_task(self, task_id: str, *, failed: bool = False) -> TaskStatus:
        """End a task of the caller. Return what it ended with, also if it had ended before."""
        said = acting.expected()
        request = tasks_pb2.CompleteTaskRequest(task_id=task_id, failed=failed, expect_person=said)
        return await self._task_call("CompleteTask", request)

    async def note_egress(self, task_id: str, passes: Iterable[str]) -> TaskStatus:
        """Have it recorded which origins the egress proxy of a task of the caller lets through without a token."""
        return await self._task_call("NoteEgress", tasks_pb2.NoteEgressRequest(task_id=task_id, passes=passes))

    async def _task_call(self, method: str, request: Message, deadline_seconds: float | None = None) -> TaskStatus:
        """Make a call that is answered with a task."""
        return TaskStatus.of(await self.connection.unary(_TASKS + method, request, tasks_pb2.Task, deadline_seconds))

    # --- facts ---

    async def publish_fact(
        self,
        name: str,
        value: str | int | bool,
        *,
        subject: SpiffeId | str = "",
        person: Any = None,
        valid_seconds: float | None = None,
        spiffe_id: SpiffeId | str | None = None,
    ) -> None:
        """Say what is so: everywhere, or of a `subject`, which is a SPIFFE ID or a task's ID, or of a `person`, who is
        said as for `acting_for`.

        Returns when live tasks that read it were decided again. Raises Refused unless a task type names the caller as a
        source of this fact.
        """
        whom = "" if person is None else acting.name_of(person)
        await facts.publish(self.connection, name, value, _text(subject), valid_seconds, _text(spiffe_id), whom)


def _several(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else list(value)


def _text(spiffe_id: SpiffeId | str | None) -> str:
    return str(spiffe_id or "")
