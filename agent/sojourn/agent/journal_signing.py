"""The start of the journal's signed log and of its index: what they are built of, and how they hear of records."""

import asyncio
from contextlib import AsyncExitStack

from sojourn.agent.journal_witnesses import witnesses_of
from sojourn.audit.journal import Audit
from sojourn.audit.log_start import LogStart
from sojourn.audit.reads import JournalReads
from sojourn.audit.signed_log import SignedLog
from sojourn.authority.key_seal import KeySeal
from sojourn.backup.restoration import LOST, Restoration
from sojourn.config.model import Config
from sojourn.identity.nodes import name_of
from sojourn.runtime.clock import Alarms, Clock
from sojourn.store.audit import AuditTable
from sojourn.store.audit_index import AuditIndex
from sojourn.store.audit_log import AuditLogTable
from sojourn.store.database import Database
from sojourn.witness.witnesses import Witnesses


class JournalSigning:
    """Begins the log of a run: that of the last one, unless what is here may not be all that it signed."""

    def __init__(
        self, database: Database, journal: AuditTable, audit: Audit, clock: Clock, seal: KeySeal | None = None
    ) -> None:
        """`seal`: what keys are sealed with on disk, if they are."""
        self._database = database
        self._journal = journal
        self._audit = audit
        self._clock = clock
        self._seal = seal

    async def begin(self, config: Config, epoch: int, restored: Restoration | None) -> SignedLog:
        """`epoch`: the number of this start; `restored`: the last time that the database was another one's.

        Raise CannotStart, StoreFailed, StoreFull.
        """
        table = AuditLogTable(self._database, self._journal.append_in)
        base = f"{config.trust_domain}/audit/{name_of(config.node_id)}"
        folder = config.data_dir
        start = LogStart(table, self._audit, folder / "keys", folder, base, self._clock, seal=self._seal)
        last = None if restored is None else (restored.how == LOST, restored.epoch)
        signed = await start.begin(epoch, table.first_seq(), last)
        loop = asyncio.get_running_loop()
        self._database.on_commit(lambda _seconds: signed.heard(loop, self._journal.written_seq))
        return signed

    def witnesses(self, config: Config, signed: SignedLog, stack: AsyncExitStack) -> Witnesses:
        """Who vouches for the log, as the configuration has them. Raise InvalidConfig."""
        return witnesses_of(config, self._journal, signed, self._audit, self._clock, stack)

    def beside(self, stack: AsyncExitStack, alarms: Alarms) -> tuple[AuditIndex, JournalReads]:
        """What indexes the journal behind the records, and what records who reads it."""
        index, reads, loop = AuditIndex(self._database), JournalReads(self._audit, alarms), asyncio.get_running_loop()
        self._database.on_commit(lambda _seconds: index.heard(loop, self._journal.written_seq))
        stack.callback(reads.finish)
        return index, reads
