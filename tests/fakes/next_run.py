"""The agent killed, as it were, and started again on the journal of a room."""

from contextlib import AsyncExitStack
from typing import Any, Self

from fakes.persons import ISSUERS
from fakes.registrations import NODE, TRUST_DOMAIN, FakeEntryStore
from fakes.task_room import EPOCH, ISSUER, KEY, TRIAGE_ENTRY, end_all, writing
from sojourn.audit.journal import Audit
from sojourn.identity.registry import Registry
from sojourn.runtime.clock import Alarms
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.holders import Holders
from sojourn.tasks.mass_end import MassEnd
from sojourn.tasks.reattachment import Reattachment
from sojourn.tasks.recovery import Recovery
from sojourn.tasks.signing_keys import TokenKeys
from sojourn.tasks.suspension import TaskChanges


class FakeIdentities:
    """Says of any process that it has `entries`."""

    def __init__(self, entries):
        self.entries = entries

    async def process_has(self, pid, spiffe_ids):
        return any(entry.spiffe_id in spiffe_ids for entry in self.entries)


class NextRun:
    """The next run, with the types of the one before if no others are given."""

    def __init__(
        self,
        room,
        *,
        types=None,
        entries=(TRIAGE_ENTRY,),
        holders=20,
        epoch=EPOCH + 1,
        blocks=(),
        issuers=ISSUERS,
        sessions=None,
        pseudonyms=None,
    ):
        self.clock = room.clock
        self.store = room.store
        self.alarms = Alarms(room.clock)
        self.audit = Audit(room.store, room.clock)
        self.holders = Holders(holders)
        self.engine = TaskEngine(
            types or room.engine.types,
            room.store,
            self.audit,
            TokenKeys(self.alarms, first=KEY),
            ISSUER,
            epoch,
            room.clock,
            self.alarms,
            self.holders,
            pseudonyms=pseudonyms or room.engine.pseudonyms,
        )
        self.engine.blocks.replace(blocks)
        self.engine.standing.sessions = sessions
        self.registry = Registry(FakeEntryStore(entries), TRUST_DOMAIN, [NODE], room.clock, self.alarms)
        self.recovery = Recovery(
            self.engine, MassEnd(self.engine), self.registry, self.holders, room.store, self.audit, self.alarms, issuers
        )
        self.changing = TaskChanges(self.engine)
        self.identities = FakeIdentities(entries)
        self.attaching = Reattachment(self.engine, self.changing, self.identities)

    @classmethod
    async def after(cls, room: Any, stack: AsyncExitStack, **changes: Any) -> Self:
        """Forget what the room has recorded, recover its tasks, and let holders come back; they end with `stack`."""
        room.store.events.clear()
        later = cls(room, **changes)
        stack.callback(end_all, later.engine)
        await stack.enter_async_context(writing(later.engine))
        await later.recovery.run()
        later.recovery.open_window()
        return later

    def advance(self, seconds):
        self.clock.advance(seconds)
        self.alarms.ring_due()

    @property
    def only(self):
        (task,) = self.engine.tasks.all()
        return task

    def find(self, task):
        return self.engine.tasks.find(task.id)

    async def attach(self, peer, task, one):
        return await self.attaching.of_caller(peer, (one,), task.id)
