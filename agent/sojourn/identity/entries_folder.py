"""The folder of entry files that the agent follows: what it says is in force, whole, a moment after it has changed.

A set that cannot be used leaves the entries as they are, and is told: in the log, the audit and `sojourn status`.
"""

from datetime import datetime
from pathlib import Path

import structlog

from sojourn.audit.journal import Audit, Event
from sojourn.errors import InvalidConfig, InvalidInput, quoted
from sojourn.files import trusted
from sojourn.files.folder_watch import FolderFollower, WatchedFolder
from sojourn.identity import entry_documents
from sojourn.identity.entries import Registration, registration
from sojourn.identity.entry_changes import named_in_records
from sojourn.identity.entry_documents import Declared
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.identity.program_files import Cautions
from sojourn.identity.reconciliation import Plan
from sojourn.identity.registry import Registry
from sojourn.limits import AUDITED_TEXT, ENTRIES_FILE_MAX_BYTES, FOLLOWED_FILES
from sojourn.runtime.clock import Clock

log = structlog.get_logger()


class FollowedFolder(FolderFollower):
    """Keeps the entries that come from a folder those of its files.

    `applied_at` is when what it says came into force, None if it has not yet.
    """

    def __init__(
        self, folder: Path, registry: Registry, foreign: ForeignBundles, cautions: Cautions, audit: Audit, clock: Clock
    ) -> None:
        super().__init__(folder, clock.boot, "followed_folder_failed")
        self.applied_at: datetime | None = None
        self._registry = registry
        self._foreign = foreign
        self._cautions = cautions
        self._audit = audit
        self._clock = clock
        self._watched = WatchedFolder(self.folder, entry_documents.is_ours, FOLLOWED_FILES)
        registry.follow()

    @property
    def entries(self) -> int:
        """How many entries come from it."""
        return sum(bool(entry.origin) for entry in self._registry)

    async def _look(self, settled_seconds: float, again: bool) -> None:
        found = await self._watched.changed(self._read, settled_seconds, again=again or self._due)
        if found is None:
            return
        if isinstance(found, InvalidConfig):
            raise found
        plan = await self._apply(found)
        self._applied(plan)
        await self._warn(plan)

    async def _apply(self, found: list[Declared]) -> Plan:
        wanted = [registration({"id": "", "parent_id": self._registry.node_id, **each.fields}) for each in found]
        faults = [
            f"{each.place}: there is no bundle of the trust domain {quoted(domain.name)} that it federates with"
            for each, entry in zip(found, wanted, strict=True)
            for domain in entry.federates_with
            if self._foreign.get(domain) is None
        ]
        if faults:
            raise InvalidConfig(faults)
        return await self._registry.apply_folder(wanted, str(self.folder), [each.place for each in found], self._record)

    def _record(self, event: str, entry: Registration) -> Event:
        fields = named_in_records(entry)
        return self._audit.event(event, {**fields, "folder": str(self.folder)})

    def _applied(self, plan: Plan) -> None:
        first = self.applied_at is None
        self.applied_at, was, self.fault = self._clock.now(), self.fault, ""
        if plan.steps or was or first:
            actions = [step.action for step in plan.steps]
            counts = {f"{action}d": actions.count(action) for action in ("create", "update", "delete")}
            log.info("followed_folder_applied", folder=str(self.folder), unchanged=plan.unchanged, **counts)

    async def _warn(self, plan: Plan) -> None:
        """Tell the log what is to be said of entries that are new or have changed."""
        made = [step.new for step in plan.steps if step.new is not None]
        for entry, said in zip(made, await self._cautions.of(made), strict=True):
            for warning in said:
                log.info("entry_doubtful", entry_id=entry.id, spiffe_id=str(entry.spiffe_id), warning=warning)

    def _tell(self, fault: str) -> None:
        log.error("followed_folder_refused", folder=str(self.folder), reason=fault)
        self._audit.note("followed_folder_refused", folder=str(self.folder), reason=fault[:AUDITED_TEXT])

    def _read(self) -> list[Declared] | InvalidConfig:
        """What the files say, or what is wrong with them: that others may have written them, too."""
        try:
            trusted.check_folder(self.folder)
            names = self._watched.names()
        except OSError as error:
            return InvalidConfig([f"{self.folder}: cannot be read: {error.strerror}"])
        except InvalidInput as error:
            return InvalidConfig([f"{self.folder}: {error.public}"])
        if len(names) > FOLLOWED_FILES:
            return InvalidConfig([f"{self.folder}: more than {FOLLOWED_FILES} files"])
        try:
            return entry_documents.collect(
                (name, lambda name=name: trusted.read(self.folder / name, ENTRIES_FILE_MAX_BYTES))  # type: ignore[misc]
                for name in names
            )
        except InvalidConfig as error:
            return error
