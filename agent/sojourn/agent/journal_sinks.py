"""The sinks of the journal: what they are built of, where new ones begin, and how they hear of records."""

import asyncio
from collections.abc import Callable

from sojourn.audit.journal import Audit
from sojourn.audit.signed_log import SignedLog
from sojourn.config.model import Config
from sojourn.endpoints.listener.own_svid import AgentSvid
from sojourn.runtime.clock import Clock
from sojourn.settings.audit import SinkConfig
from sojourn.sinks.items import SinkState
from sojourn.sinks.make import about, sender_of, wanted
from sojourn.sinks.sink import Sink
from sojourn.sinks.sinks import Sinks
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.x509svid import X509Svid
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.sinks import SinkTable


class JournalSinks:
    """Made before the first record of a run: that is where a new sink begins."""

    def __init__(self, database: Database, journal: AuditTable) -> None:
        """Raise CannotStart."""
        self._database = database
        self._journal = journal
        self._table = SinkTable(database, journal.append_in)
        self._before = self._table.head()
        self._sinks = Sinks((), 0)

    async def build(
        self,
        config: Config,
        audit: Audit,
        signed: SignedLog,
        own: AgentSvid,
        node_id: SpiffeId,
        clock: Clock,
    ) -> Sinks:
        """The sinks of the configuration. `own`: the agent's SVID, for those that show it.

        Raise InvalidConfig, CannotStart, StoreFailed, StoreFull.
        """
        configured = config.audit.sinks
        if not configured:
            return self._sinks
        shown = any(each.svid for each in configured)
        svid = _svid_of(own) if shown else None
        kept = self._table.load()
        made = []
        for each in configured:
            state = kept.get(each.name) or await self._begin(each, audit)
            sender = sender_of(each, node_id, svid)
            wants = wanted(each, node_id)
            sink = Sink(
                about(each), wants, sender, state, self._table, lambda: signed.state, audit, clock,
                cosigned=lambda log: [str(note) for note in signed.cosigned.of(log.origin).values()],
            )  # fmt: skip
            made.append(sink)
        self._sinks = sinks = Sinks(made, self._table.head())
        signed.on_signed(sinks.wake)
        loop, journal = asyncio.get_running_loop(), self._journal
        self._database.on_commit(lambda _seconds: sinks.heard(loop, journal.written_seq))
        return sinks

    async def _begin(self, config: SinkConfig, audit: Audit) -> SinkState:
        state = SinkState(config.name, 0 if config.start == "beginning" else self._before)
        begun = {"sink": config.name, "kind": config.kind, "after_seq": state.seq}
        await self._table.save(state, [audit.event("sink_begun", begun)])
        return state

    async def finish(self) -> None:
        """Have the last records taken, where that is soon done, and end."""
        await self._sinks.finish()


def _svid_of(own: AgentSvid) -> Callable[[], X509Svid]:
    own.watch()
    return lambda: own.present.context.default
