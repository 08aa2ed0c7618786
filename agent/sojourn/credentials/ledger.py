"""The book of credentials: each is on disk before it is used, and what takes it away is true first and written then."""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import structlog

from sojourn.audit.journal import Audit, Event
from sojourn.credentials.credential import (
    ASKING,
    DENIED,
    ENDING,
    EXPIRED,
    GONE,
    HELD,
    LOST,
    OPEN,
    RECALLED,
    UNRECALLABLE,
    Credential,
    CredentialRecord,
    JournaledCredential,
)
from sojourn.credentials.index import Index
from sojourn.credentials.provider_routes import ProviderRoutes
from sojourn.credentials.sealing import Sealing
from sojourn.errors import Bug, LimitExceeded, SojournError, TaskOver
from sojourn.limits import (
    AUDITED_TEXT,
    PROVIDER_DEADLINE_MAX_SECONDS,
    PROVIDER_HANDLE_MAX_BYTES,
    PROVIDER_PUBLIC_MAX_BYTES,
)
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.provider import Obtained
from sojourn.runtime.clock import Alarm, Alarms, Clock
from sojourn.tasks.announcements import Place
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.journal import Changes
from sojourn.tasks.task import ACTIVE, Task
from sojourn.tasktoken.end_reasons import AGENT_RESTART, NOT_WRITTEN, TOKEN_REVOKED
from sojourn.tasktoken.grants import Authority, Grant

log = structlog.get_logger()
_NARROWED = "narrowed"


class CredentialStore(Protocol):
    """Where credentials are journaled, each change together with its audit record."""

    async def save(self, record: CredentialRecord, event: Event | None) -> None: ...

    def load(self) -> Sequence[JournaledCredential]: ...


class CredentialLedger:
    """All credentials of this agent that are not gone. `journal.run` must be running for what is written later."""

    def __init__(
        self,
        engine: TaskEngine,
        store: CredentialStore,
        sealing: Sealing,
        outlets: ProviderRoutes,
        audit: Audit,
        clock: Clock,
        alarms: Alarms,
    ) -> None:
        self.index = Index()
        self.journal: Changes[CredentialRecord] = Changes(store.save, "credential")
        self.windows: dict[tuple[str, str], tuple[int, float]] = {}  # (provider, how): how many, seconds together
        self._engine = engine
        self._store = store
        self._sealing = sealing
        self._outlets = outlets
        self._audit = audit
        self._clock = clock
        self._alarms = alarms
        self._expiries: dict[str, Alarm] = {}
        self._take_back: Callable[[Credential], None] = lambda _: None

    def start(self, take_back: Callable[[Credential], None]) -> None:
        """Take over what earlier runs left, once it is known which of their tasks live on.

        `take_back` is called with each credential that is to be taken back, from now on. It neither blocks nor raises.
        """
        self._take_back = take_back
        self._engine.announcements.subscribe(Place.CREDENTIAL_LEDGER, self.task_changed)
        found = [each for each in map(self._read, self._store.load()) if each is not None]
        for each in sorted(found, key=lambda one: one.over_at or one.asked_at):
            self._take_over(each)
        if found:
            log.info("external_credentials_taken_over", found=len(found), residual=len(self.index.residual()))

    # --- as a provider is asked (exchange_call.py, hand_out.py) -------------------------------------------------------

    async def ask(self, task: Task, provider: str, grant: Grant, longest: datetime) -> Credential:
        """Note on disk that a provider is about to be asked. Raise what the store raises, or LimitExceeded."""
        await self._sealing.prepare()
        self.index.check_room(task)
        credential = Credential(
            id="ext_" + secrets.token_urlsafe(16),
            task_id=task.id,
            task_type=task.type.name,
            spiffe_id=task.spiffe_id,
            provider=provider,
            grant=grant,
            asked_at=self._clock.now(),
            expires_at=longest,
            expires_boot=self._on_boot(longest),
            public=self._outlets.asked_of(task, grant.resource),
            version=task.version,
        )
        if not credential.covered(task):
            raise _over(task)
        self.index.add(credential)
        try:
            await self._store.save(credential.record(), None)  # that it was asked for is recorded by who asks
        except SojournError:  # nothing was written
            self.index.remove(credential)
            credential.state = GONE
            raise
        except BaseException:
            self.refused(credential, "it was given up before the provider was asked")
            raise
        if credential.over_at is not None:
            self.refused(credential, "the task was over before the provider was asked")
            raise _over(task)
        self._watch(credential)
        return credential

    async def hold(self, credential: Credential, obtained: Obtained, **decided: Any) -> None:
        """Note on disk what was obtained, with its audit record; only then may it be handed out.

        `decided`: on what policy decided. Raise TaskOver if the task has ended, or has the grant no more: it is being
        taken back then.
        """
        if credential.state != ASKING:
            raise Bug("a credential that is not asked for was obtained")
        handle, public = _texts(obtained.handle), _texts(obtained.public)
        if _size(handle) > PROVIDER_HANDLE_MAX_BYTES or _size(public) > PROVIDER_PUBLIC_MAX_BYTES:
            self.lost(credential, "what the provider told of it is too large to be noted")
            raise LimitExceeded("what the provider told of the credential is too large to be noted")
        task = self._engine.tasks.find(credential.task_id)
        credential.expires_at, credential.expires_boot = obtained.expires_at, self._on_boot(obtained.expires_at)
        credential.public = public
        credential.sealed_handle = self._sealing.seal(credential.id, handle)
        self._watch(credential)
        if credential.over_at is not None:
            self._let_go(credential)
            raise TaskOver("the task is over, or has this no more")
        self.index.move(credential, HELD)
        event = self._event(
            "external_credential_issued",
            credential,
            actions=list(credential.grant.actions),
            expires_at=int(credential.expires_at.timestamp()),
            details=public or None,
            **decided,
        )
        try:
            await self.journal.now(credential.record(), event)
            # The task may have ended, or changed, while it was written: then it never leaves here.
            if task is not None:
                self._engine.check_active(task)
            if not credential.covered(task):  # it is over then, as it was told of any change
                raise TaskOver("the task is over, or has this no more")
        except BaseException as error:
            self.over(credential, task_reason(credential, task) if isinstance(error, TaskOver) else NOT_WRITTEN)
            raise
        if credential.state != HELD:
            raise ProviderUnavailable(
                "the provider gave a credential that has expired: see to its clock, and to this one"
            )
        credential.obtained = obtained

    def refused(self, credential: Credential, why: str) -> None:
        """The provider gave nothing. It is written later."""
        if credential.state == ASKING:
            self._remove(credential, self._event("external_credential_refused", credential, reason=why[:AUDITED_TEXT]))

    def lost(self, credential: Credential, why: str) -> None:
        """No answer came that could be noted: it may exist. It is written later, and taken back if that can be."""
        if credential.state != ASKING:
            return
        for each in self.of(credential.task_id):  # one record of what nobody has is enough
            same = (each.provider, each.grant.resource) == (credential.provider, credential.grant.resource)
            if each.lost and same and each.over_at is None:
                credential.expires_at = max(credential.expires_at, each.expires_at)
                credential.expires_boot = max(credential.expires_boot, each.expires_boot)
                self._gone(each, LOST)
        credential.lost, credential.fault = True, why[:AUDITED_TEXT]
        self.index.move(credential, OPEN)
        self._write("external_credential_lost", credential, reason=credential.fault)
        self._watch(credential)
        if credential.over_at is not None:
            self._let_go(credential)

    def of(self, task_id: str) -> tuple[Credential, ...]:
        """Those of a task that are not gone, the oldest first."""
        return self.index.of(task_id)

    # --- the end of a task ------------------------------------------------------------------------------------------

    def task_changed(self, task: Task, _before: Authority | None = None) -> None:
        """Let go of what a task has no more."""
        for each in self.of(task.id):
            if each.over_at is None and not each.covered(task):
                self.over(each, task_reason(each, task))

    def over(self, credential: Credential, why: str) -> None:
        """The task has a credential no more: it is not handed out from now on, and is taken back. Written later."""
        if credential.over_at is not None or credential.state == GONE:
            return
        credential.over_at, credential.over_boot = self._clock.now(), self._clock.boot()
        credential.over_for, credential.obtained = why, None
        self.index.outlives(credential)
        if credential.state != ASKING:  # else it is let go of when the provider has answered
            self._let_go(credential)

    def _let_go(self, credential: Credential) -> None:
        """Have one taken back that is over, or say that it cannot be."""
        outlet = self._outlets.find(credential.provider)
        if outlet is None:
            self.unrecallable(credential, f"provider {credential.provider!r} is not configured any more")
        elif outlet.provider.recall == "none":
            self.unrecallable(credential, "the provider cannot take it back")
        else:
            if credential.state != ENDING:
                self.index.move(credential, ENDING)
                self._write("external_credential_ending", credential, reason=credential.over_for)
            self._take_back(credential)

    # --- as it is taken back (credentials/recall.py) -----------------------------------------------------------------

    def handle_of(self, credential: Credential) -> dict[str, str]:
        """By what it is taken back; empty if the answer was lost. Raise HandleUnreadable."""
        return self._sealing.open(credential.id, credential.sealed_handle) if credential.sealed_handle else {}

    def recalled(self, credential: Credential) -> None:
        """The provider has confirmed that it is good no more, or will be denied."""
        outlet = self._outlets.find(credential.provider)
        if credential.state == ENDING and outlet is not None:
            how = RECALLED if outlet.provider.recall == "revoke" else DENIED
            self._gone(credential, how, offline=outlet.provider.offline)

    def not_recalled(self, credential: Credential, why: str) -> None:
        """It could not be taken back this time. It is tried again."""
        credential.attempts += 1
        credential.fault = why[:AUDITED_TEXT]

    def unrecallable(self, credential: Credential, why: str) -> None:
        """It cannot be taken back, and stays good until it expires."""
        if credential.state == GONE:
            return
        credential.fault = why[:AUDITED_TEXT]
        if credential.state != OPEN:
            self.index.move(credential, OPEN)
            self._write("external_credential_open", credential, reason=credential.fault)
            log.info("external_credential_open", credential=credential.id, provider=credential.provider, reason=why)

    # --- expiry -----------------------------------------------------------------------------------------------------

    def _watch(self, credential: Credential) -> None:
        """Forget a credential when it has expired.

        A provider that is being asked for it has longer: whoever asks says what came of that before its alarm rings.
        """
        self._forget_alarm(credential)
        left = credential.expires_boot - self._clock.boot()
        if credential.state == ASKING and not credential.sealed_handle:
            left = max(left, 2 * PROVIDER_DEADLINE_MAX_SECONDS)
        self._expiries[credential.id] = self._alarms.after(left, self._expired, credential)

    def _on_boot(self, moment: datetime) -> float:
        return self._clock.boot() + (moment - self._clock.now()).total_seconds()

    def _forget_alarm(self, credential: Credential) -> None:
        alarm = self._expiries.pop(credential.id, None)
        if alarm is not None:
            alarm.cancel()

    def _expired(self, credential: Credential) -> None:
        if credential.lost or credential.state == ASKING:
            self._gone(credential, LOST)
        else:
            self._gone(credential, UNRECALLABLE if credential.state == OPEN else EXPIRED)

    def _gone(self, credential: Credential, how: str, *, offline: bool = False) -> None:
        """It is good no more. `offline`: services that do not ask the provider may accept it until it expires."""
        taken_back = how in {RECALLED, DENIED}
        expires_at = int(credential.expires_at.timestamp())
        window = None
        if credential.over_at is not None:
            window = self._clock.boot() - credential.over_boot
            if not taken_back:  # it may have expired before we looked
                window = min(window, max(0.0, credential.expires_boot - credential.over_boot))
            number, seconds = self.windows.get((credential.provider, how), (0, 0.0))
            self.windows[credential.provider, how] = (number + 1, seconds + window)
        event = self._event(
            "external_credential_ended",
            credential,
            how=how,
            reason=credential.over_for or None,
            residual_ms=None if window is None else int(window * 1000),
            attempts=credential.attempts or None,
            fault=None if taken_back else credential.fault or None,
            accepted_until=expires_at if offline and taken_back else None,
        )
        self._remove(credential, event)

    def _remove(self, credential: Credential, event: Event) -> None:
        self._forget_alarm(credential)
        self.index.remove(credential)
        credential.state, credential.obtained = GONE, None
        self.journal.later(credential.record(), event)

    # --- what earlier runs left -------------------------------------------------------------------------------------

    def _read(self, journaled: JournaledCredential) -> Credential | None:
        """A row as it must be; None of one that is damaged, which is told and removed: nothing can be made of it."""
        try:
            return journaled.parse(self._clock)
        except Exception as error:  # noqa: BLE001  # a damaged row may raise anything, and must not stop the agent
            name, said = (
                str(journaled.id)[:64],
                error.public if isinstance(error, SojournError) else type(error).__name__,
            )
        log.error("credential_journal_damaged", credential=name, reason=said)
        known = {
            "task": journaled.unverified_task_id,
            "provider": journaled.unverified_provider,
            "accepted_until": journaled.unverified_expires_at,
        }
        fields = {key: value for key, value in known.items() if isinstance(value, int) or _is_short(value)}
        event = self._audit.event("external_credential_damaged", {"credential": name, "reason": said, **fields})
        self.journal.later(CredentialRecord(journaled.id, "", "", GONE, 0, {}), event)
        return None

    def _take_over(self, credential: Credential) -> None:
        self.index.add(credential)
        if credential.over_at is not None:
            self.index.outlives(credential)
        if credential.expires_boot <= self._clock.boot():
            self._expired(credential)
            return
        self._watch(credential)
        if credential.state == ASKING:  # whatever the provider answered, nobody has it
            self.lost(credential, "the agent stopped before it had the provider's answer on disk")
        if credential.over_at is not None:
            self._let_go(credential)
        elif credential.state == HELD or not credential.covered(self._engine.tasks.find(credential.task_id)):
            self.over(credential, AGENT_RESTART)  # one that was held was in memory only: nobody is given it any more

    def _write(self, event: str, credential: Credential, **fields: Any) -> None:
        """Have what became of it written, with until when it may be accepted."""
        until = int(credential.expires_at.timestamp())
        self.journal.later(credential.record(), self._event(event, credential, accepted_until=until, **fields))

    def _event(self, event: str, credential: Credential, **fields: Any) -> Event:
        named = {
            "credential": credential.id,
            "task": credential.task_id,
            "type": credential.task_type,
            "spiffe_id": str(credential.spiffe_id),
            "provider": credential.provider,
            "resource": credential.grant.resource,
            "handed_out": False if credential.lost else None,
        }
        return self._audit.event(event, {**named, **fields})


def task_reason(credential: Credential, task: Task | None) -> str:
    """Why a task has a credential no more."""
    if task is None:
        return AGENT_RESTART
    if task.state != ACTIVE:
        return f"{task.state}: {task.reason}" if task.reason else task.state
    return TOKEN_REVOKED if credential.version < task.superseded else _NARROWED


def _over(task: Task) -> TaskOver:
    return TaskOver(f"the task is {task.state}, or has this no more")


def _texts(values: Mapping[str, str]) -> dict[str, str]:
    return {str(name): str(value) for name, value in values.items()}


def _size(values: Mapping[str, str]) -> int:
    return len(json.dumps(values))


def _is_short(value: object) -> bool:
    return isinstance(value, str) and len(value) <= AUDITED_TEXT
