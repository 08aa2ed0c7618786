"""The endpoints of a task while a block lasts, and what a command's environment must have to find them."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from sojourn.errors import InvalidInput, Unavailable
from sojourn.files import atomic
from sojourn.limits import LOCAL_CONNECTIONS, SOCKET_PATH_MAX_BYTES
from sojourn.sdk.client.extras import extra
from sojourn.sdk.cloud import aws, azure, gcp, selection, vault
from sojourn.sdk.cloud.access import TcpDoor, UnixDoor
from sojourn.sdk.cloud.aws import AwsForm
from sojourn.sdk.cloud.azure import AzureForm
from sojourn.sdk.cloud.credentials import CloudCredentials, followed
from sojourn.sdk.cloud.gcp import GcpForm
from sojourn.sdk.cloud.private_dir import private_folder
from sojourn.sdk.cloud.protocol import CredentialLeg, EndpointPlace, Leg, Lent
from sojourn.sdk.cloud.token_file import Sink, reserve
from sojourn.sdk.cloud.vault import VaultLeg
from sojourn.sdk.egress.local_server import Serve, Serving
from sojourn.sdk.task.values import Outside

with extra("http"):
    import anyio
    import anyio.abc

_log: Final = logging.getLogger("sojourn.cloud")
_SECRET_BYTES: Final = 32
_PROXIES: Final = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
_PAST_PROXIES: Final = ("NO_PROXY", "no_proxy")
_LOOPBACK: Final = "127.0.0.1"


class CloudEndpoints:
    """Running endpoints. `environment` is what a command's environment must have, `dropped` what it must not have.

    It has addresses, and names of files with addresses: no token and no key. `resources` are those it is for, by kind.
    """

    def __init__(
        self, environment: Mapping[str, str], dropped: Sequence[str], resources: Mapping[str, Sequence[str]]
    ) -> None:
        self.environment: Mapping[str, str] = MappingProxyType(dict(environment))
        self.dropped = tuple(dropped)
        self.resources = MappingProxyType({kind: tuple(each) for kind, each in resources.items()})

    def of(self, environment: Mapping[str, str]) -> dict[str, str]:
        """An environment for a command, made of this one."""
        kept = {name: value for name, value in environment.items() if name not in self.dropped}
        return {**kept, **self.environment, **self._past_proxies(kept)}

    def displaced(self, environment: Mapping[str, str]) -> list[str]:
        """Names of what is in this environment, and would have given the command other credentials than the task's."""
        return sorted(name for name in self.dropped if environment.get(name))

    def shown(self) -> list[str]:
        """What is set, a line each, for people: without the secrets of its addresses."""
        lines = []
        for name, value in sorted(self.environment.items()):
            scheme, mark, rest = value.partition("://")
            place, slash, secret = rest.partition("/")
            hidden = f"{scheme}://{place}/…" if mark and scheme == "http" and slash and secret else value
            lines.append(f"{name}={hidden}")
        return lines

    def _past_proxies(self, environment: Mapping[str, str]) -> dict[str, str]:
        """No proxy is asked for what is on this machine."""
        if not self.environment or not any(environment.get(name) for name in _PROXIES):
            return {}
        upper, lower = (environment.get(name) for name in _PAST_PROXIES)
        either = lower or upper or ""
        return {
            name: f"{value},{_LOOPBACK}" if value else _LOOPBACK
            for name, value in zip(_PAST_PROXIES, (upper or either, lower or either), strict=True)
        }

    def __repr__(self) -> str:
        return f"CloudEndpoints({', '.join(self.resources)})"


@asynccontextmanager
async def running(
    task: Any, *, resources: Sequence[str] = (), vault_token_file: str | None = None
) -> AsyncIterator[CloudEndpoints]:
    """Run the endpoints of a task. When it ends they answer with the reason, and its files are gone.

    Raise InvalidInput as `choose` does, and what the agent raises if there is no token for a file.
    """
    chosen = selection.choose(task.status.outside, resources)
    if vault_token_file is not None and selection.VAULT not in chosen:
        raise InvalidInput("a file for a token of Vault is asked for, and the task has no resource of kind vault")
    if not chosen:
        yield CloudEndpoints({}, (), {})
        return
    sinks = [reserve(vault_token_file)] if vault_token_file is not None else []
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(private_folder("sojourn-cloud-", [*map(atomic.scratch_of, sinks), *sinks]))
        listener = await anyio.create_tcp_listener(local_host=_LOOPBACK, local_port=0)
        stack.push_async_callback(listener.aclose)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610  # no query
        ground = _Ground(task, folder, port, stack)
        for kind, picked in chosen.items():
            await _BUILDERS[kind](ground, picked)
        if sinks:
            await ground.keep(sinks[0], chosen[selection.VAULT][0], vault.vault_token)
        ground.serve(listener, TcpDoor(ground.legs, port).serve)
        yield CloudEndpoints(
            ground.environment,
            ground.dropped,
            {kind: [each.resource for each in picked] for kind, picked in chosen.items()},
        )


class _Ground:
    """What is built for one task."""

    def __init__(self, task: Any, folder: Path, port: int, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.legs: dict[str, Leg] = {}
        self.environment: dict[str, str] = {}
        self.dropped: list[str] = []
        self._task = task
        self._port = port
        self._lent: dict[str, Lent] = {}

    def lent(self, outside: Outside) -> Lent:
        credentials = CloudCredentials(self._task, outside.resource, followed=followed(self._task))
        return self._lent.setdefault(outside.resource, Lent(credentials))

    def url(self, leg: Leg) -> str:
        """Where a leg is, from now on."""
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        self.legs[secret] = leg
        return f"http://{_LOOPBACK}:{self._port}/{secret}"

    def file(self, name: str, text: str = "") -> str:
        path = self.folder / name
        path.write_text(text, "utf-8")  # in a folder of mode 0700
        path.chmod(0o600)
        return str(path)

    def set(self, environment: Mapping[str, str], replaced: Sequence[str]) -> None:
        self.environment |= environment
        self.dropped += replaced

    def serve(self, listener: anyio.abc.Listener[anyio.abc.SocketStream], serve: Serve) -> None:
        ended = getattr(self._task, "wait_ended", None)
        self._beside(Serving(serve, LOCAL_CONNECTIONS, _log).run(listener, ended))

    async def keep(self, path: Path, outside: Outside, read: Callable[[Any], str]) -> None:
        """Have a file of the token from now on. Raise Unavailable if it cannot be written."""
        lent = self.lent(outside)

        async def get() -> tuple[str, datetime]:
            token, _ = await lent.lend()
            return read(token), token.expires_at

        sink = Sink(path, get)
        try:
            seconds = await sink.first()
        except OSError as error:
            raise Unavailable(f"the file {str(path)!r} for a token cannot be written: {error.strerror}") from error
        self._beside(self._until_ended(sink, seconds))

    async def _until_ended(self, sink: Sink, seconds: float) -> None:
        ended = getattr(self._task, "wait_ended", None)
        keeping = asyncio.create_task(sink.keep(seconds))
        try:
            await (keeping if ended is None else ended())
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            sink.remove()

    def _beside(self, work: Any) -> None:
        """Run it until the block ends."""
        running = asyncio.create_task(work)

        async def stop() -> None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

        self.stack.push_async_callback(stop)


async def _build_aws(ground: _Ground, picked: Sequence[Outside]) -> None:
    url = ground.url(CredentialLeg(AwsForm(ground.lent(picked[0]))))
    place = EndpointPlace(url, {aws.EMPTY: ground.file(aws.EMPTY)})
    ground.set(aws.environment(picked[0], place), aws.REPLACED)


async def _build_gcp(ground: _Ground, picked: Sequence[Outside]) -> None:
    url = ground.url(CredentialLeg(GcpForm(ground.lent(picked[0]))))
    file = ground.file(gcp.CONFIGURATION, gcp.configuration(picked[0], url))
    ground.set(gcp.environment(picked[0], EndpointPlace(url, {gcp.CONFIGURATION: file})), gcp.REPLACED)


async def _build_azure(ground: _Ground, picked: Sequence[Outside]) -> None:
    if azure.gives_assertion(picked[0]):
        path = ground.folder / azure.ASSERTION
        await ground.keep(path, picked[0], lambda token: str(token.token))
        ground.set(azure.file_environment(picked[0], EndpointPlace("", {azure.ASSERTION: str(path)})), azure.REPLACED)
        return
    url = ground.url(CredentialLeg(AzureForm([(each, ground.lent(each)) for each in picked])))
    ground.set(azure.environment(picked, EndpointPlace(url, {})), azure.REPLACED)


async def _build_vault(ground: _Ground, picked: Sequence[Outside]) -> None:
    pool = await ground.stack.enter_async_context(vault.connections())
    leg = VaultLeg(ground.lent(picked[0]), picked[0], pool)
    path = ground.folder / vault.SOCKET
    files = {}
    if len(str(path).encode()) <= SOCKET_PATH_MAX_BYTES:
        listener = await anyio.create_unix_listener(path, mode=0o600)
        ground.stack.push_async_callback(listener.aclose)
        ground.serve(listener, UnixDoor(leg).serve)
        files[vault.SOCKET] = str(path)
    ground.set(vault.environment(picked[0], EndpointPlace(ground.url(leg), files)), vault.REPLACED)


_BUILDERS: Final[Mapping[str, Callable[[_Ground, Sequence[Outside]], Awaitable[None]]]] = {
    selection.AWS: _build_aws,
    selection.GCP: _build_gcp,
    selection.ENTRA: _build_azure,
    selection.VAULT: _build_vault,
}
