"""Handing out the credentials of providers: to the task that they were obtained for, while it lives, and to no other.

Policy decides on each hand-out. A credential is obtained once for whoever asks for the same of a task, and another one
is obtained behind it while it is still good. Nothing is handed out that is not in the book.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import structlog

from sojourn.audit.journal import Audit
from sojourn.credentials.cache import CachedCredential, KeptCredentials, Key
from sojourn.credentials.credential import UNFIT, Credential
from sojourn.credentials.exchange_call import ExchangeCalls
from sojourn.credentials.ledger import CredentialLedger
from sojourn.credentials.provider_routes import ProviderRoute, ProviderRoutes
from sojourn.errors import InvalidTarget, SojournError, TaskOver
from sojourn.oauth.issued_tokens import IssuedToken
from sojourn.policy import rules
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.provider import Wanted
from sojourn.runtime.single_flight import SingleFlight
from sojourn.tasks.announcements import Place
from sojourn.tasks.engine import GrantVerdict, TaskEngine
from sojourn.tasks.task import ACTIVE, Task
from sojourn.tasktoken.grants import Authority

log = structlog.get_logger()
_NOTED_SECONDS = 1.0  # hand-outs of one credential within that share a record
_LEAST = timedelta(seconds=1)  # less is of no use to anybody


class HandOut:
    """Gives tasks what providers give for them."""

    def __init__(
        self, engine: TaskEngine, outlets: ProviderRoutes, book: CredentialLedger, asking: ExchangeCalls, audit: Audit
    ) -> None:
        self.outlets = outlets
        self._engine = engine
        self._book = book
        self._asking = asking
        self._audit = audit
        self._kept = KeptCredentials(self._gone)
        self._flights = SingleFlight[Key, CachedCredential]()
        engine.announcements.subscribe(Place.CREDENTIAL_CACHE, self._changed)

    def __len__(self) -> int:
        """How many credentials are kept in memory."""
        return len(self._kept)

    async def give(
        self,
        task: Task,
        resource: str,
        actions: Sequence[str],
        *,
        not_after: datetime | None = None,
        fits: Callable[[str], None] = lambda _issued_type: None,
    ) -> IssuedToken:
        """Hand out a credential for one resource of a live task, whose credentials a provider gives.

        It is told to end with the credential, the task, or `not_after`. `fits` raises if whoever asks can do nothing
        with one of this type; none is handed out then. Raises TaskOver, BudgetSpent, InvalidTarget,
        ActionOutsideType, PolicyDenied, ProviderRefused, ProviderUnavailable, or what the store raises.
        """
        await self._engine.settled(task)
        grant = rules.narrow(task.authority, resource, actions)
        route = self.outlets.route(task.type, grant.resource)
        if route is None:
            raise InvalidTarget(f"no provider gives credentials for {grant.resource[:200]!r}")
        verdict = self._engine.decide(task, grant)
        kept = await self._credential(task, verdict, route)
        # It may have ended, or changed, while a provider was asked: then the credential never leaves here.
        self._engine.check_active(task)
        self._check_still(task, verdict)
        ends = self._ends(task, kept, not_after)
        fits(kept.obtained.issued_type)
        self._engine.deadlines.used(task)
        self._note(task.id, kept)
        return IssuedToken(
            kept.obtained.token,
            kept.obtained.token_type,
            kept.obtained.issued_type,
            grant.resource,
            grant.actions,
            ends,
            task.id,
            grant.detail(task.type.name, task.type.params_in_tokens(task.params)),
            route.outlet.name,
            route.outlet.provider.recall,
            kept.obtained.public,
        )

    async def _credential(self, task: Task, verdict: GrantVerdict, route: ProviderRoute) -> CachedCredential:
        """One that is good: that which is there, or another one if it is about to end."""
        key = Key(task.id, verdict.grant, verdict.version, verdict.digest)
        boot = self._engine.clock.boot()
        kept = self._kept.find(key, boot, self._engine.clock.now())
        outlived = kept is not None and kept.ends < task.deadline  # else there is none that is good for longer

        def obtain() -> Coroutine[Any, Any, CachedCredential]:
            return self._obtained(key, task, verdict, route)

        if kept is None or (outlived and kept.ends - boot < _LEAST.total_seconds()):
            return await self._flights.run(key, obtain)
        if outlived and kept.stale(boot):
            flight = self._flights.begin(key, obtain)
            if kept.ending(boot):
                with suppress(SojournError):  # what is there is good for a moment still
                    return await asyncio.shield(flight)
        return kept

    def _check_still(self, task: Task, verdict: GrantVerdict) -> None:
        """Raise what the engine does, and TaskOver if the provider was to be asked by another task type."""
        self._engine.check_still(task, verdict)
        if task.type.digest != verdict.digest:
            raise TaskOver("the task's type has changed meanwhile: ask again")

    def _ends(self, task: Task, kept: CachedCredential, not_after: datetime | None) -> datetime:
        """Until when a credential may be used. Raise TaskOver if that is less than a second away."""
        now, boot = self._engine.clock.now(), self._engine.clock.boot()
        left = timedelta(seconds=min(kept.ends, task.deadline) - boot)
        ends = min(now + left, kept.obtained.expires_at, *([] if not_after is None else [not_after]))
        if ends < now + _LEAST:
            raise TaskOver("less than a second is left for a credential")
        return ends

    # --- obtaining --------------------------------------------------------------------------------------------------

    async def _obtained(self, key: Key, task: Task, verdict: GrantVerdict, route: ProviderRoute) -> CachedCredential:
        """As `_exchange`. The log is told why it failed: those who asked may all have gone."""
        try:
            return await self._exchange(key, task, verdict, route)
        except SojournError as error:
            log.info("credential_not_obtained", task_id=key.task_id, code=error.code, reason=error.public)
            raise
        except Exception:
            log.exception("exchange_failed", task_id=key.task_id)
            raise

    async def _exchange(self, key: Key, task: Task, verdict: GrantVerdict, route: ProviderRoute) -> CachedCredential:
        self._engine.check_budget(task)
        outlet, grant = route.outlet, verdict.grant
        task.count_token(grant)  # before it is asked: those who ask meanwhile share the budget
        counted = False

        def wanted() -> Wanted:
            self._engine.check_active(task)
            self._check_still(task, verdict)
            left = timedelta(seconds=task.deadline - self._engine.clock.boot())
            ends = self._engine.clock.now() + left
            return Wanted(task.id, task.type.name, task.spiffe_id, grant.resource, grant.actions, route.ask, ends)

        async def journal() -> Credential:
            nonlocal counted
            await self._engine.settled(task)
            self._check_still(task, verdict)
            longest = self._engine.clock.now() + outlet.provider.longest
            asked = self._book.ask(task, outlet.name, grant, longest)
            if counted:
                return await asked
            credential, failed = await asyncio.gather(
                asked, self._count(task, outlet.name, verdict), return_exceptions=True
            )
            for error in (credential, failed):
                if isinstance(error, BaseException):
                    if isinstance(credential, Credential):
                        self._book.refused(credential, "what the task used could not be written")
                    raise error
            counted = True
            assert isinstance(credential, Credential)
            return credential

        try:
            credential, obtained = await self._asking.obtain(outlet, task.owner, wanted, journal)
            try:
                began = self._engine.clock.boot()
                obtained, fault = self._asking.sound(outlet, obtained)
                left = (obtained.expires_at - self._engine.clock.now()).total_seconds()
                decided = verdict.decided.record(params=True)
                said = {"type_version": task.type.named["type_version"], **decided}
                await self._book.hold(credential, obtained, **said)
            except TaskOver:  # it is being taken back
                raise
            except BaseException as error:  # also what a plugin gave that is none
                self._book.lost(credential, error.public if isinstance(error, SojournError) else type(error).__name__)
                raise
            if fault:
                self._book.over(credential, UNFIT)
                raise ProviderUnavailable(fault, step="exchange", sent=True)
        except BaseException:
            task.count_token(grant, -1)
            raise
        kept = CachedCredential(credential, obtained, outlet.name, began, began + left)
        if task.state == ACTIVE and task.version == verdict.version:
            self._kept.put(key, kept)
        return kept

    async def _count(self, task: Task, provider: str, verdict: GrantVerdict) -> None:
        grant = verdict.grant
        fields = {"provider": provider, "resource": grant.resource, "actions": list(grant.actions)}
        await self._engine.note_use(task, self._engine.event("external_credential_asked", task, **fields))

    # --- what becomes of them ---------------------------------------------------------------------------------------

    def _changed(self, task: Task, _before: Authority | None) -> None:
        """Another version of the task has other credentials, and one that is over has none."""
        self._kept.forget(task.id, task.version if task.live else None)

    def _note(self, task_id: str, kept: CachedCredential) -> None:
        """Have a hand-out recorded: each, or those of a second together."""
        kept.unnoted += 1
        if self._engine.clock.boot() >= kept.noted_at + _NOTED_SECONDS:
            self._record(task_id, kept)

    def _record(self, task_id: str, kept: CachedCredential) -> None:
        self._audit.note(
            "external_credential_handed_out",
            task=task_id,
            credential=kept.credential.id,
            provider=kept.provider,
            resource=kept.credential.grant.resource,
            actions=list(kept.credential.grant.actions),
            count=kept.unnoted,
        )
        kept.unnoted, kept.noted_at = 0, self._engine.clock.boot()

    def _gone(self, task_id: str, kept: CachedCredential) -> None:
        if kept.unnoted:
            self._record(task_id, kept)

    async def close(self) -> None:
        """Give up what is under way, and have recorded what was handed out."""
        await self._flights.close()
        for kept in self._kept:
            self._gone(kept.credential.task_id, kept)
