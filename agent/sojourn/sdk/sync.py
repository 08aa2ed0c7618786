"""The client for code without an event loop. Each call is the one of `Client`, blocking."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import Any, Self, TypedDict, Unpack

from sojourn.errors import SojournError
from sojourn.limits import REATTACH_TRIED_SECONDS
from sojourn.sdk.client import Client
from sojourn.sdk.connection import CALL_SECONDS, not_open
from sojourn.sdk.parse import JwtBundles, JwtSvid, X509Bundles, X509Context
from sojourn.sdk.portal import Portal
from sojourn.sdk.source import READY_SECONDS, X509Source
from sojourn.sdk.task import HeldTask, OnPending, Task
from sojourn.sdk.taskuse import SyncUse
from sojourn.sdk.taskvalues import AccessToken, DelegationTicket, Params, TaskStatus, TaskView, TokenOptions
from sojourn.sdk.validating import TokenVerdict, ValidateOptions
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.grants import Grant


class TaskOptions(TypedDict, total=False):
    """The options of `Client.task`."""

    params: Params | None
    grants: Iterable[Grant] | None
    spiffe_id: SpiffeId | str | None
    session: bool
    max_seconds: int
    approve_wait: float | None
    on_pending: OnPending | None


class HeldTaskOptions(TaskOptions, total=False):
    """The options of `Client.begin_task`."""

    holder_pid: int
    idempotency_key: str


class SyncHeldTask(SyncUse, TaskView):
    """A task that lives as long as a process."""

    def __init__(self, portal: Portal, task: HeldTask) -> None:
        self._portal = portal
        self._task = task

    @property
    def status(self) -> TaskStatus:
        return self._task.status

    def token(self, resource: str = "", actions: Sequence[str] = (), **options: Unpack[TokenOptions]) -> AccessToken:
        """See Task.token."""
        return self._portal.run(self._task.token(resource, actions, **options))

    def proof(self, method: str, url: str, token: AccessToken | str, nonce: str | None = None) -> str:
        """See Task.proof."""
        return self._portal.run(self._task.proof(method, url, token, nonce))

    def narrow(self, kept: Iterable[Grant]) -> None:
        """See Task.narrow."""
        self._portal.run(self._task.narrow(kept))

    def delegate(
        self, *, to: SpiffeId | str, grants: Iterable[Grant] | None = None, max_seconds: int = 0
    ) -> DelegationTicket:
        """See Task.delegate."""
        return self._portal.run(self._task.delegate(to=to, grants=grants, max_seconds=max_seconds))

    def complete(self, *, failed: bool = False) -> None:
        """See Task.complete."""
        self._portal.run(self._task.complete(failed=failed))


class SyncTask(SyncHeldTask):
    """A task that lives as long as its block."""

    _task: Task

    def wait_ended(self) -> None:
        """See Task.wait_ended."""
        self._portal.run(self._task.wait_ended())


class SyncClient:
    """A blocking connection to the agent, for use as `with SyncClient() as client`. May be shared by threads."""

    def __init__(
        self,
        socket: str | None = None,
        *,
        deadline_seconds: float = CALL_SECONDS,
        patience_seconds: float = REATTACH_TRIED_SECONDS,
    ) -> None:
        self._client = Client(socket, deadline_seconds=deadline_seconds, patience_seconds=patience_seconds)
        self.socket = self._client.socket
        self._open: Portal | None = None

    def __enter__(self) -> Self:
        self._open = Portal()
        self._open.run(self._client.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        portal, self._open = self._open, None
        if portal is not None:
            portal.run(self._client.__aexit__())
            portal.close()

    @property
    def _portal(self) -> Portal:
        if self._open is None:
            raise not_open()
        return self._open

    def fetch_x509_svids(self) -> X509Context:
        """See Client."""
        return self._portal.run(self._client.fetch_x509_svids())

    def watch_x509_contexts(self, on_error: Callable[[SojournError], None] | None = None) -> Iterator[X509Context]:
        """See Client. `on_error` is called in the client's own thread."""
        portal, contexts = self._portal, self._client.watch_x509_contexts(on_error)
        try:
            while True:
                yield portal.run(anext(contexts))
        except StopAsyncIteration:
            return
        finally:
            portal.run(contexts.aclose())

    @contextmanager
    def x509_source(self, *, ready_seconds: float = READY_SECONDS) -> Iterator[X509Source]:
        """An X509Source that is followed in the background; its TLS contexts serve any thread."""
        with self._portal.inside(X509Source(self._client, ready_seconds=ready_seconds)) as source:
            yield source

    def fetch_x509_bundles(self) -> X509Bundles:
        """See Client."""
        return self._portal.run(self._client.fetch_x509_bundles())

    def fetch_jwt_svids(
        self, audience: str | Sequence[str], spiffe_id: SpiffeId | str | None = None
    ) -> tuple[JwtSvid, ...]:
        """See Client."""
        return self._portal.run(self._client.fetch_jwt_svids(audience, spiffe_id))

    def fetch_jwt_svid(self, audience: str | Sequence[str], spiffe_id: SpiffeId | str | None = None) -> JwtSvid:
        """See Client."""
        return self._portal.run(self._client.fetch_jwt_svid(audience, spiffe_id))

    def fetch_jwt_bundles(self) -> JwtBundles:
        """See Client."""
        return self._portal.run(self._client.fetch_jwt_bundles())

    def validate_jwt_svid(self, token: str, audience: str) -> tuple[SpiffeId, dict[str, Any]]:
        """See Client."""
        return self._portal.run(self._client.validate_jwt_svid(token, audience))

    def validate_token(
        self, token: str, audience: str, action: str = "", **options: Unpack[ValidateOptions]
    ) -> TokenVerdict:
        """See Client."""
        return self._portal.run(self._client.validate_token(token, audience, action, **options))

    @contextmanager
    def _inside(self, context: Callable[[], AbstractAsyncContextManager[Task]]) -> Iterator[SyncTask]:
        with self._portal.inside(context()) as task:
            yield SyncTask(self._portal, task)

    def task(
        self,
        type: str,  # noqa: A002  # the word of the API
        **options: Unpack[TaskOptions],
    ) -> AbstractContextManager[SyncTask]:
        """See Client: `with client.task("triage-ticket") as task`. `on_pending` is called in the client's thread."""
        return self._inside(lambda: self._client.task(type, **options))

    def begin_task(
        self,
        type: str,  # noqa: A002
        **options: Unpack[HeldTaskOptions],
    ) -> SyncHeldTask:
        """See Client. `on_pending` is called in the client's own thread."""
        return SyncHeldTask(self._portal, self._portal.run(self._client.begin_task(type, **options)))

    def delegate_task(
        self,
        task_id: str,
        to: SpiffeId | str,
        grants: Iterable[Grant] | None = None,
        max_seconds: int = 0,
    ) -> DelegationTicket:
        """See Client."""
        return self._portal.run(self._client.delegate_task(task_id, to, grants, max_seconds))

    def accept_delegation(
        self, ticket: DelegationTicket | str, *, spiffe_id: SpiffeId | str | None = None, session: bool = False
    ) -> AbstractContextManager[SyncTask]:
        """See Client: `with client.accept_delegation(ticket) as task`."""
        return self._inside(lambda: self._client.accept_delegation(ticket, spiffe_id=spiffe_id, session=session))

    def begin_delegated(
        self,
        ticket: DelegationTicket | str,
        *,
        spiffe_id: SpiffeId | str | None = None,
        session: bool = False,
        holder_pid: int = 0,
    ) -> SyncHeldTask:
        """See Client."""
        task = self._client.begin_delegated(ticket, spiffe_id=spiffe_id, session=session, holder_pid=holder_pid)
        return SyncHeldTask(self._portal, self._portal.run(task))

    def wait_task(self, task_id: str) -> TaskStatus:
        """See Client."""
        return self._portal.run(self._client.wait_task(task_id))

    def attach_task(self, task_id: str) -> TaskStatus:
        """See Client."""
        return self._portal.run(self._client.attach_task(task_id))

    def get_token(
        self, task_id: str, resource: str = "", actions: Sequence[str] = (), **options: Unpack[TokenOptions]
    ) -> AccessToken:
        """See Client."""
        return self._portal.run(self._client.get_token(task_id, resource, actions, **options))

    def create_proof(
        self, task_id: str, method: str, url: str, token: AccessToken | str, nonce: str | None = None
    ) -> str:
        """See Client."""
        return self._portal.run(self._client.create_proof(task_id, method, url, token, nonce))

    def narrow_task(self, task_id: str, kept: Iterable[Grant]) -> TaskStatus:
        """See Client."""
        return self._portal.run(self._client.narrow_task(task_id, kept))

    def complete_task(self, task_id: str, *, failed: bool = False) -> TaskStatus:
        """See Client."""
        return self._portal.run(self._client.complete_task(task_id, failed=failed))

    def publish_fact(
        self,
        name: str,
        value: str | int | bool,
        *,
        subject: SpiffeId | str = "",
        valid_seconds: float | None = None,
        spiffe_id: SpiffeId | str | None = None,
    ) -> None:
        """See Client."""
        said = self._client.publish_fact(name, value, subject=subject, valid_seconds=valid_seconds, spiffe_id=spiffe_id)
        self._portal.run(said)
