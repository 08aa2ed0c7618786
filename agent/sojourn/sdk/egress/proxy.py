"""The egress proxy of a task: a command gets the task's authority for its requests, and neither a token nor a key.

It is a forward proxy on the loopback address, for who knows its secret. What it sends is what the task may do; all else
it refuses, with the reason. For https:// it ends the TLS of the command, by certificates of an authority that is made
for this run and can vouch for nothing but the task's hosts, and makes verified TLS of its own to the service.
"""

import asyncio
import logging
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sojourn.errors import InvalidInput
from sojourn.limits import PROXY_CONNECTIONS, PROXY_IDLE_SECONDS
from sojourn.net.tls_versions import client_context
from sojourn.sdk.client.extras import extra
from sojourn.sdk.cloud.private_dir import private_folder
from sojourn.sdk.confinement.command import AGENT_NAMES, AGENT_PREFIX, Confinement, network
from sojourn.sdk.egress.ca import EgressAuthority
from sojourn.sdk.egress.connection import USER, ProxiedLeg
from sojourn.sdk.egress.local_server import Known, Serving
from sojourn.sdk.egress.passthrough import Passes, trusted_without_proxy
from sojourn.sdk.request import grant_match
from sojourn.sdk.request.token_fetch import AsyncAsking

with extra("http"):
    import anyio
    import anyio.abc

    from sojourn.httpclient.pool import Pool

# Where programs look for a proxy, and for the authorities that they trust.
_PROXY_NAMES: Final = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
_TRUST_NAMES: Final = (
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "PIP_CERT"),
    *("AWS_CA_BUNDLE", "CARGO_HTTP_CAINFO", "DENO_CERT", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"),
)
_log = logging.getLogger("sojourn.egress")
# Each would lead past the proxy, away from its authority, or to an agent.
_DROPPED: Final = ("NO_PROXY", "no_proxy", "SSL_CERT_DIR", *AGENT_NAMES)


class Egress:
    """A running proxy. `environment` is what a command's environment must have, `dropped` what it must not have.

    The environment has the proxy's address with its secret, and where the certificate to trust is: no token and no key.
    """

    def __init__(self, url: str, ca_file: str, confinement: Confinement | None = None) -> None:
        self.url = url
        self.ca_file = ca_file
        self.used = False  # whether a request of the command has come
        self.confinement = confinement or Confinement()
        names = dict.fromkeys(_PROXY_NAMES, url) | dict.fromkeys(_TRUST_NAMES, ca_file)
        self.environment: Mapping[str, str] = MappingProxyType({**names, "NODE_USE_ENV_PROXY": "1"})
        self.dropped = _DROPPED

    def of(self, environment: Mapping[str, str]) -> dict[str, str]:
        """An environment for a command, made of this one: without what would lead past the proxy, or to an agent."""
        kept = {
            name: value
            for name, value in environment.items()
            if name not in self.dropped and not name.startswith(AGENT_PREFIX)
        }
        return {**kept, **self.environment}

    def command(self, command: Sequence[str]) -> list[str]:
        """What to run in the place of `command`, so that the agent gives it and all that it starts nothing.

        It must inherit `pass_fds`, with an isolated network.
        """
        return self.confinement.command(command)

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """What the command must inherit: `subprocess.run(…, pass_fds=proxy.pass_fds)`."""
        return self.confinement.namespaces

    def __repr__(self) -> str:
        return f"Egress({self.url.rpartition('@')[2]})"


@dataclass(frozen=True, slots=True)
class Proxying:
    """How a proxy is run. `upstream_ca`: a file of the authorities that services' certificates must be of; without it,
    those of the system. `passes`: origins to which requests go through without a token. `user`: as whom its command
    runs. `isolate`: in a network in which the proxy is all there is.
    """

    upstream_ca: str | None = None
    passes: Sequence[str] = ()
    user: str | None = None
    isolate: bool = False


@asynccontextmanager
async def running(
    asking: AsyncAsking,
    ended: Callable[[], Awaitable[None]] | None,
    note_egress: Callable[[Sequence[str]], Awaitable[None]],
    how: Proxying,
) -> AsyncIterator[Egress]:
    """Run the proxy of a task. When `ended` returns, what is under way is cut off, and all that comes is refused.

    `note_egress` has it recorded what is let through. Raise InvalidInput, or FailedPrecondition if there is no network
    for the command alone.
    """
    trusted = _trusted(how.upstream_ca)
    passes = Passes.of(how.passes, asking.task.grants)
    hosts = {grant_match.split_port(each)[0] for each in grant_match.endpoints(asking.task.grants, "https")}
    authority = EgressAuthority(hosts)
    secret = secrets.token_urlsafe(32)
    async with AsyncExitStack() as stack:
        listener, namespaces = await _listener(stack, how)
        if passes.origins:
            await note_egress(passes.origins)
        # What is let through has its own TLS, of the authorities that the command would trust without a proxy.
        others = (
            trusted_without_proxy(how.upstream_ca) if any(each.startswith("https") for each in passes.origins) else b""
        )
        file = _authority_file(stack, authority.certificate_pem + others, how.user)
        confinement = Confinement(how.user, (file,), namespaces)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610  # no query
        async with Pool(trusted, connections=PROXY_CONNECTIONS, keep_seconds=PROXY_IDLE_SECONDS) as pool:
            leg = ProxiedLeg(asking, authority, pool, secret, passes)
            egress = Egress(f"http://{USER}:{secret}@127.0.0.1:{port}", file, confinement)

            async def serve(stream: anyio.abc.SocketStream, known: Known) -> None:
                def ours() -> bool:
                    egress.used = True
                    return known()

                await leg.serve(stream, ours)

            serving = asyncio.create_task(Serving(serve, PROXY_CONNECTIONS, _log).run(listener, ended))
            try:
                yield egress
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)


async def _listener(
    stack: AsyncExitStack, how: Proxying
) -> tuple[anyio.abc.Listener[anyio.abc.SocketStream], tuple[int, ...]]:
    listener: anyio.abc.Listener[anyio.abc.SocketStream]
    namespaces: tuple[int, ...] = ()
    if how.isolate:
        inside, namespaces = stack.enter_context(network(how.user))
        listener = await anyio.abc.SocketListener.from_socket(inside.dup())
    else:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    stack.push_async_callback(listener.aclose)
    return listener, namespaces


def _authority_file(stack: AsyncExitStack, certificates: bytes, user: str | None) -> str:
    """What the command is to trust, in a file of a folder that is private, or another user's to read too."""
    folder = stack.enter_context(private_folder("sojourn-egress-", shared=user is not None))
    file = folder / "ca.pem"
    file.write_bytes(certificates)
    if user is not None:
        file.chmod(0o644)
    return str(file)


def _trusted(file: str | None) -> ssl.SSLContext:
    try:
        return client_context(cafile=file)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(f"the authorities in {file!r} cannot be read: {error.strerror or error}") from error
