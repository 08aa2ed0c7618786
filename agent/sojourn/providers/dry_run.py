"""The dry run of a provider that asks an OAuth authorization server: step by step, up to the one that fails."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from sojourn.errors import SojournError
from sojourn.limits import PROVIDER_ASSERTION_SECONDS
from sojourn.providers.answers import failed
from sojourn.providers.authorization_server import AuthorizationServer, OAuthTable
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.http import Http
from sojourn.providers.kept_metadata import STEP as METADATA
from sojourn.providers.provider import Ended, Mint, Obtained, Recall, Step, Wanted
from sojourn.runtime.clock import Clock

_UNTRUSTED: Final = frozenset({"invalid_client", "invalid_grant"})


class Checked(Protocol):
    """The provider that is checked."""

    recall: Recall
    http: Http

    @property
    def grant_type(self) -> str: ...
    @property
    def table(self) -> OAuthTable: ...
    async def exchange(self, wanted: Wanted, mint: Mint) -> Obtained: ...
    async def take_back(self, ended: Ended, mint: Mint) -> None: ...


class Check:
    """One run. It leaves nothing behind: what it obtains it takes back."""

    def __init__(self, provider: Checked, server: AuthorizationServer, clock: Clock) -> None:
        self._provider = provider
        self._server = server
        self._clock = clock

    async def steps(self, wanted: Wanted | None, mint: Mint) -> AsyncGenerator[Step, None]:
        table = self._provider.table
        yield Step("configuration", "ok", f"{table.issuer}, shown JWT-SVIDs for {self._server.audience}")
        async for step in self._reached(table):
            yield step
            if step.outcome == "failed":
                return
        step = await self._endpoint()
        yield step
        if step.outcome == "failed":
            return
        if wanted is None:
            yield Step("exchange", "skipped", "there is nobody to exchange for")
            return
        async with aclosing(self._exchanged(wanted, mint)) as steps:
            async for step in steps:
                yield step

    async def _reached(self, table: OAuthTable) -> AsyncIterator[Step]:
        """Whether the server is there, and is who it should be."""
        url = table.token_endpoint or table.issuer
        error: ProviderUnavailable | None = None
        try:
            if table.token_endpoint is None:
                await self._server.discovery.anew()
            else:
                await self._provider.http.get(table.token_endpoint, step="address")
        except ProviderUnavailable as caught:
            error = caught
        if error is not None and error.at == "address":
            yield failed("address", error)
            return
        yield Step("address", "ok", "its address may be connected to, and answers")
        if error is not None and error.at == "tls":
            yield failed("tls", error)
            return
        if url.startswith("https:"):
            yield Step("tls", "ok", "its certificate is good")
        else:
            yield Step("tls", "skipped", "it is asked over plain http, on this host")
        if error is not None:
            yield failed(METADATA, error)
        elif table.token_endpoint is not None:
            yield Step(METADATA, "skipped", "token_endpoint is set, so they are not asked for")
        elif note := self._server.discovery.clock_note:
            hint = "set the clocks of both hosts by NTP: JWT-SVIDs are good for a minute"
            yield Step("clock", "failed", note.removeprefix("; "), hint)
        else:
            yield self._grants()

    def _grants(self) -> Step:
        known = self._server.discovery.kept_grant_types
        wanted = self._provider.grant_type
        if known and wanted not in known:
            return Step(METADATA, "failed", f"the provider does not offer {wanted}", "allow this grant type there")
        return Step(METADATA, "ok", "they are of this issuer, and name its endpoints")

    async def _endpoint(self) -> Step:
        try:
            status = await self._server.probe({"grant_type": self._provider.grant_type}, step="endpoint")
        except ProviderUnavailable as error:
            return failed("endpoint", error)
        return Step("endpoint", "ok", f"the token endpoint answers, and refuses nobody's request ({status})")

    async def _exchanged(self, wanted: Wanted, mint: Mint) -> AsyncGenerator[Step, None]:
        try:
            obtained = await self._provider.exchange(wanted, mint)
        except SojournError as error:
            if isinstance(error, ProviderRefused) and error.said in _UNTRUSTED:
                yield failed("trust", error)
                return
            if isinstance(error, ProviderRefused):
                yield Step("trust", "ok", f"it knows {wanted.spiffe_id}, and has this agent's keys")
            yield failed("exchange", error)
            return
        left = True
        try:
            yield Step("trust", "ok", f"it knows {wanted.spiffe_id}, and has this agent's keys")
            yield exchanged(obtained, wanted.ends, self._clock.now())
            left = False
            yield await self._revoked(wanted, obtained, mint)
        finally:
            if left:  # nobody reads on
                await self._revoked(wanted, obtained, mint)

    async def _revoked(self, wanted: Wanted, obtained: Obtained, mint: Mint) -> Step:
        if self._provider.recall == "none":
            return Step("revoke", "skipped", "it cannot take tokens back: they are good until they expire")
        ended = Ended(
            wanted.task_id,
            wanted.spiffe_id,
            wanted.resource,
            wanted.ask,
            obtained.handle,
            obtained.public,
            obtained.expires_at,
        )
        try:
            # Some tell the client nothing of a token that is for others: what they say means nothing then.
            told_of_it = await self._server.is_active(obtained.token, mint)
            await self._provider.take_back(ended, mint)
            active = told_of_it and await self._server.is_active(obtained.token, mint)
        except SojournError as error:
            return failed("revoke", error)
        if active:
            return Step("revoke", "failed", "it says that it revoked the token, and introspection says that it is good")
        return Step("revoke", "ok", "the token is revoked" + (", and introspection says so" if told_of_it else ""))


def exchanged(obtained: Obtained, ends: datetime, now: datetime) -> Step:
    """The step of an exchange that went well, with how long the token outlives the longest task."""
    lasts = (obtained.expires_at - now).total_seconds()
    over = (obtained.expires_at - ends).total_seconds()
    scope: Mapping[str, Any] = obtained.public
    told = f"it gave a token for {lasts:.0f} s" + (f", scope {scope['scope']}" if scope.get("scope") else "")
    hint = ""
    if over > timedelta(seconds=1).total_seconds() and lasts > PROVIDER_ASSERTION_SECONDS:
        told += f", {over:.0f} s longer than the task"
        hint = (
            "let its tokens live for less than the task: a service that does not ask the provider accepts them so long"
        )
    return Step("exchange", "ok", told, hint)
