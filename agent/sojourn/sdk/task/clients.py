"""What a task is used with: HTTP clients that have its authority, and its egress proxy. All need `sojourn[http]`."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from sojourn.sdk.client.loop_thread import entering
from sojourn.sdk.request.token_fetch import AsyncAsking, SyncAsking

if TYPE_CHECKING:
    import ssl

    import httpx

    from sojourn.sdk.cloud.endpoints import CloudEndpoints
    from sojourn.sdk.egress.proxy import Egress
    from sojourn.sdk.integrations.httpx_auth import TaskAuth, Timeout
    from sojourn.sdk.integrations.requests_auth import TaskAdapter

Asking = TypeVar("Asking", AsyncAsking, SyncAsking)


class _Use(Generic[Asking]):
    """The part of a task that requests are sent with, in code of either kind."""

    _make: type[Asking]
    _asking: Asking | None = None

    @property
    def asking(self) -> Asking:
        """What asks the agent for the tokens and proofs of this task, and keeps what may be used again."""
        if self._asking is None:
            self._asking = self._make(cast("Any", self))
        return self._asking

    def auth(self, *, actions: Iterable[str] = (), bound: bool = True) -> "TaskAuth":
        """For an httpx client of your own. See TaskAuth."""
        from sojourn.sdk.integrations.httpx_auth import TaskAuth

        return TaskAuth(self.asking, actions=actions, bound=bound)


class AsyncUse(_Use[AsyncAsking]):
    """The part of a task that asynchronous code sends requests with."""

    _make = AsyncAsking

    def client(
        self,
        base_url: str = "",
        *,
        actions: Iterable[str] = (),
        bound: bool = True,
        verify: "bool | ssl.SSLContext" = True,
        timeout: "Timeout" = 30.0,
        follow_redirects: bool = False,
        transport: "httpx.AsyncBaseTransport | None" = None,
    ) -> "httpx.AsyncClient":
        """An httpx client whose requests have the task's authority, each for its URL: `async with task.client(url)`.

        `actions`: what its tokens are for; none: all that the task may do there. `bound` is false for a service that
        reads Bearer tokens alone. A request or redirect that is outside of the task raises OutsideTask, unsent.
        """
        from sojourn.sdk.integrations import httpx_auth

        auth = self.auth(actions=actions, bound=bound)
        options = {"timeout": timeout, "follow_redirects": follow_redirects}
        return httpx_auth.async_client(auth, base_url, verify, transport, **options)

    def proxy(
        self,
        *,
        ca_file: str | None = None,
        passes: Sequence[str] = (),
        user: str | None = None,
        isolate: bool = False,
    ) -> "AbstractAsyncContextManager[Egress]":
        """An egress proxy for commands that get neither token nor key: `async with task.proxy() as proxy`.

        Start them as `proxy.command([…])` with `env=proxy.of(os.environ)` and `pass_fds=proxy.pass_fds`: the agent then
        gives them and all that they start nothing. `ca_file`: the authorities that services' certificates must be of;
        without it, those that the system trusts. `passes`: origins to which their requests go through as they are,
        without a token; the agent records them. `user`: as whom they run. `isolate`: in a network in which the proxy is
        all there is. Raise InvalidInput, or FailedPrecondition if the kernel gives no such network.
        """
        from sojourn.sdk.egress import proxy

        within = cast("Any", self)  # a HeldTask
        how = proxy.Proxying(ca_file, tuple(passes), user, isolate)
        return proxy.running(self.asking, getattr(self, "wait_ended", None), within.note_egress, how)

    def cloud_endpoints(
        self, *, resources: Sequence[str] = (), vault_token_file: str | None = None
    ) -> "AbstractAsyncContextManager[CloudEndpoints]":
        """Local endpoints for the SDKs of clouds and vaults: `async with task.cloud_endpoints() as endpoints`.

        Start programs with `env=endpoints.of(os.environ)`: they get the credentials of the task's outside resources
        while it lives. `resources`: which, where an SDK could be given several. `vault_token_file`: a file that is
        made, and has the Vault token too.
        """
        from sojourn.sdk.cloud import endpoints

        return endpoints.running(self, resources=resources, vault_token_file=vault_token_file)


class SyncUse(_Use[SyncAsking]):
    """The same for code without an event loop."""

    _make = SyncAsking

    def client(
        self,
        base_url: str = "",
        *,
        actions: Iterable[str] = (),
        bound: bool = True,
        verify: "bool | ssl.SSLContext" = True,
        timeout: "Timeout" = 30.0,
        follow_redirects: bool = False,
        transport: "httpx.BaseTransport | None" = None,
    ) -> "httpx.Client":
        """See AsyncUse: `with task.client(url) as client`."""
        from sojourn.sdk.integrations import httpx_auth

        auth = self.auth(actions=actions, bound=bound)
        options = {"timeout": timeout, "follow_redirects": follow_redirects}
        return httpx_auth.client(auth, base_url, verify, transport, **options)

    def adapter(self, *, actions: Iterable[str] = (), bound: bool = True) -> "TaskAdapter":
        """For requests: `session.mount("https://", task.adapter())`. Needs that library."""
        from sojourn.sdk.integrations.requests_auth import TaskAdapter

        return TaskAdapter(self.asking, actions=actions, bound=bound)

    proxy = entering("Egress", AsyncUse.proxy)
    cloud_endpoints = entering("CloudEndpoints", AsyncUse.cloud_endpoints)
