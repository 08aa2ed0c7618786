"""The X.509-SVID and bundles of this process, always the present ones."""

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from typing import Self

from sojourn.errors import NoIdentity, Refused, SojournError, Unavailable
from sojourn.sdk.client.client import Client
from sojourn.spiffetls.authorize import Authorize
from sojourn.spiffetls.context import SpiffeContext
from sojourn.workloadapi.messages import X509Bundles, X509Context, X509SvidWithHint

READY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Present:
    """What a source knows. Replaced as a whole, so that any thread reads one state. `context` None: nothing."""

    version: int
    context: X509Context | None


class X509Source:
    """Follows the agent's stream, for use as `async with X509Source(client) as source`.

    Entering waits for the first SVID, `ready_seconds` at most, and then raises the last error. While the agent is
    away the last SVID stays; once the agent refuses, it is dropped.
    """

    def __init__(self, client: Client, *, ready_seconds: float = READY_SECONDS) -> None:
        self._client = client
        self._ready_seconds = ready_seconds
        self._present = Present(0, None)
        self._changed = asyncio.Event()
        self._error: SojournError | None = None
        self._follower: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._follower = asyncio.create_task(self._follow())
        try:
            async with asyncio.timeout(self._ready_seconds):
                while self._present.context is None:
                    if self._follower.done():
                        await self._follower  # raises what ended it
                    await self._wait_change()
        except TimeoutError:
            await self.close()
            raise (self._error or Unavailable("agent sent no X.509-SVID in time")) from None
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop following and drop the SVID. Contexts made of this source then refuse."""
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        if self._present.context is not None:
            self._replace(None)

    @property
    def present(self) -> Present:
        return self._present

    @property
    def version(self) -> int:
        """Grows with each change."""
        return self._present.version

    @property
    def svid(self) -> X509SvidWithHint:
        """The default SVID. Raise NoIdentity if there is none any more."""
        return self._context().default

    @property
    def bundles(self) -> X509Bundles:
        """The X.509 authorities by trust domain. Raise NoIdentity if there is no SVID any more."""
        return self._context().bundles

    async def wait_update(self, after_version: int) -> int:
        """Return the version once it is greater than `after_version`. Raise what has ended the source for good."""
        while self._present.version <= after_version:
            if self._follower is not None and self._follower.done():
                await self._follower
                raise Unavailable("source is closed")
            await self._wait_change()
        return self._present.version

    def server_context(self, authorize: Authorize) -> ssl.SSLContext:
        """A context for TLS servers whose clients must be authorized. Follows rotation."""
        return SpiffeContext(self, authorize, server_side=True)

    def client_context(self, authorize: Authorize) -> ssl.SSLContext:
        """A context for TLS clients whose servers must be authorized, whatever their host name. Follows rotation."""
        return SpiffeContext(self, authorize, server_side=False)

    def _context(self) -> X509Context:
        if self._present.context is None:
            raise NoIdentity("there is no X.509-SVID: the agent refused, or the source is closed")
        return self._present.context

    async def _follow(self) -> None:
        try:
            async with contextlib.aclosing(self._client.watch_x509_contexts(self._failed)) as contexts:
                async for context in contexts:
                    self._replace(context)
        except SojournError as error:
            self._failed(error)
            raise
        finally:
            self._changed.set()

    def _failed(self, error: SojournError) -> None:
        self._error = error
        if isinstance(error, Refused) and self._present.context is not None:
            self._replace(None)  # the agent no longer vouches for us

    def _replace(self, context: X509Context | None) -> None:
        self._present = Present(self._present.version + 1, context)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _wait_change(self) -> None:
        await self._changed.wait()
