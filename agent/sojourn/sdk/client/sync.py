"""The client for code without an event loop. Each call is the one of `Client`, blocking."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from sojourn.errors import SojournError
from sojourn.limits import REATTACH_TRIED_SECONDS
from sojourn.sdk.client.client import Client
from sojourn.sdk.client.connection import CALL_SECONDS, not_open
from sojourn.sdk.client.loop_thread import Portal, returning
from sojourn.sdk.client.x509_source import READY_SECONDS, X509Source
from sojourn.sdk.task.clients import SyncUse
from sojourn.sdk.task.task import HeldTask, Task
from sojourn.sdk.task.values import TaskStatus, TaskView
from sojourn.workloadapi.messages import X509Context

Given = ParamSpec("Given")
Result = TypeVar("Result")
# What has a `_twin`, whose coroutines run in its `_portal`.
_Blocking = Callable[Concatenate[Any, Given], Result]


def _blocking(method: Callable[Concatenate[Any, Given], Coroutine[Any, Any, Result]]) -> _Blocking[Given, Result]:
    """The method of that name of one's twin, blocking."""

    @wraps(method)
    def call(self: Any, /, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        portal: Portal = self._portal  # before there is a coroutine: it may not be open
        coroutine: Coroutine[Any, Any, Result] = getattr(self._twin, method.__name__)(*args, **kwargs)
        return portal.run(coroutine)

    return call


def _block(
    method: Callable[Concatenate[Any, Given], AbstractAsyncContextManager[Task]],
) -> "_Blocking[Given, AbstractContextManager[SyncTask]]":
    """The same for a task that lives as long as a block."""

    @wraps(method)
    @contextmanager
    def call(self: Any, /, *args: Given.args, **kwargs: Given.kwargs) -> Iterator[SyncTask]:
        portal: Portal = self._portal
        with portal.inside(getattr(self._twin, method.__name__)(*args, **kwargs)) as task:
            yield SyncTask(portal, task)

    return returning("AbstractContextManager[SyncTask]", call)


def _held(
    method: Callable[Concatenate[Any, Given], Coroutine[Any, Any, HeldTask]],
) -> "_Blocking[Given, SyncHeldTask]":
    """The same for a task that lives as long as a process."""
    begin = _blocking(method)

    @wraps(method)
    def call(self: Any, /, *args: Given.args, **kwargs: Given.kwargs) -> SyncHeldTask:
        return SyncHeldTask(self._portal, begin(self, *args, **kwargs))

    return returning("SyncHeldTask", call)


class SyncHeldTask(SyncUse, TaskView):
    """A task that lives as long as a process."""

    def __init__(self, portal: Portal, twin: HeldTask) -> None:
        self._portal = portal
        self._twin = twin

    @property
    def status(self) -> TaskStatus:
        return self._twin.status

    token = _blocking(HeldTask.token)
    proof = _blocking(HeldTask.proof)
    use = _blocking(HeldTask.use)
    narrow = _blocking(HeldTask.narrow)
    note_egress = _blocking(HeldTask.note_egress)
    delegate = _blocking(HeldTask.delegate)
    renew_person = _blocking(HeldTask.renew_person)
    complete = _blocking(HeldTask.complete)


class SyncTask(SyncHeldTask):
    """A task that lives as long as its block."""

    wait_ended = _blocking(Task.wait_ended)


class SyncClient:
    """A blocking connection to the agent, for use as `with SyncClient() as client`. May be shared by threads.

    What is to be called, as `on_pending` and `on_error`, is called in a thread of the client's own.
    """

    def __init__(
        self,
        socket: str | None = None,
        *,
        deadline_seconds: float = CALL_SECONDS,
        patience_seconds: float = REATTACH_TRIED_SECONDS,
        wait_for_agent: float = 0,
    ) -> None:
        self._twin = Client(
            socket,
            deadline_seconds=deadline_seconds,
            patience_seconds=patience_seconds,
            wait_for_agent=wait_for_agent,
        )
        self._open: Portal | None = None

    @property
    def socket(self) -> str:
        """The path of the agent's socket."""
        return self._twin.socket

    def __enter__(self) -> Self:
        portal = Portal()
        try:
            portal.run(self._twin.__aenter__())
        except BaseException:
            portal.close()
            raise
        self._open = portal
        return self

    def __exit__(self, *_: object) -> None:
        portal, self._open = self._open, None
        if portal is not None:
            portal.run(self._twin.__aexit__())
            portal.close()

    @property
    def _portal(self) -> Portal:
        if self._open is None:
            raise not_open()
        return self._open

    def watch_x509_contexts(self, on_error: Callable[[SojournError], None] | None = None) -> Iterator[X509Context]:
        """See Client."""
        portal, contexts = self._portal, self._twin.watch_x509_contexts(on_error)
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
        with self._portal.inside(X509Source(self._twin, ready_seconds=ready_seconds)) as source:
            yield source

    fetch_x509_svids = _blocking(Client.fetch_x509_svids)
    fetch_x509_bundles = _blocking(Client.fetch_x509_bundles)
    fetch_jwt_svids = _blocking(Client.fetch_jwt_svids)
    fetch_jwt_svid = _blocking(Client.fetch_jwt_svid)
    fetch_jwt_bundles = _blocking(Client.fetch_jwt_bundles)
    validate_jwt_svid = _blocking(Client.validate_jwt_svid)
    validate_token = _blocking(Client.validate_token)

    task = _block(Client.task)
    begin_task = _held(Client.begin_task)
    accept_delegation = _block(Client.accept_delegation)
    begin_delegated = _held(Client.begin_delegated)
    delegate_task = _blocking(Client.delegate_task)
    renew_person = _blocking(Client.renew_person)
    wait_task = _blocking(Client.wait_task)
    attach_task = _blocking(Client.attach_task)
    get_token = _blocking(Client.get_token)
    create_proof = _blocking(Client.create_proof)
    narrow_task = _blocking(Client.narrow_task)
    note_egress = _blocking(Client.note_egress)
    complete_task = _blocking(Client.complete_task)

    publish_fact = _blocking(Client.publish_fact)
