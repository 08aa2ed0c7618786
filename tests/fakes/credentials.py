"""The book of credentials with what takes them back, around an engine; and providers whose recalls a test scripts."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from fakes.journals import FakeAuditStore, FakeTaskStore
from fakes.providers import FakeAssertions, ScriptedProvider
from fakes.task_types import TICKETS, WIKI, task_type
from sojourn.audit.journal import Audit
from sojourn.credentials.credential import GONE, JournaledCredential
from sojourn.credentials.ledger import CredentialLedger
from sojourn.credentials.provider_routes import ProviderRoutes
from sojourn.credentials.recall import Recalling
from sojourn.credentials.sealing import Sealing
from sojourn.providers.provider import Obtained
from sojourn.runtime.clock import Alarms
from sojourn.tasktoken.grants import Authority, Grant

READ = Grant(TICKETS, ("ticket:read",))
BOTH = Authority((Grant(TICKETS, ("ticket:read", "ticket:write")),))
CORP_TYPE = task_type(
    ceiling=f'[{{resource = "{TICKETS}", actions = ["ticket:read", "ticket:write"], provider = "corp",'
    f' ask = {{audience = "tickets"}}}}, {{resource = "{WIKI}", actions = ["page:read"]}}]'
)


def ended(cascade):
    """The records of credentials that have ended."""
    return cascade.store.fields("external_credential_ended")


class FakeCredentialStore(FakeAuditStore):
    """Keeps the rows of credentials, and the events. `failure` and `gate` are as in FakeTaskStore."""

    def __init__(self):
        super().__init__()
        self.rows = {}
        self.gate = None
        self.boot_id = "this boot"
        self._turn = asyncio.Lock()  # first come, first written

    async def save(self, record, event):
        document = json.dumps({**record.document, "boot_id": self.boot_id}).encode()
        await asyncio.shield(asyncio.ensure_future(self._save(record, document, event)))

    async def _save(self, record, document, event):
        async with self._turn:
            if self.gate is not None:
                await self.gate.wait()
            await self.append([] if event is None else [event])
            if record.state == GONE:
                self.rows.pop(record.id, None)
            else:
                self.rows[record.id] = JournaledCredential(
                    record.id, record.task_id, record.provider, record.state, record.expires_at, document, self.boot_id
                )

    def load(self):
        return [replace(row, boot_id=self.boot_id) for row in self.rows.values()]

    @property
    def states(self):
        return {name: row.unverified_state for name, row in self.rows.items()}


class RecallingProvider(ScriptedProvider):
    """`answers`: what the next recalls raise, None for those that are confirmed. `down`: what all others raise.

    `hanging`: recalls wait until it is set.
    """

    def __init__(self, clock, *, recall="revoke", **more):
        super().__init__(clock, recall=recall, **more)
        self.ended = []
        self.answers = []
        self.down = None
        self.hanging = None
        self.recalling = 0
        self.most_recalls = 0

    async def take_back(self, ended, mint):
        self.ended.append(ended)
        self.recalling += 1
        self.most_recalls = max(self.most_recalls, self.recalling)
        try:
            await mint("https://provider.example.org")
            if self.hanging is not None:
                await self.hanging.wait()
            answer = self.answers.pop(0) if self.answers else self.down
            if answer is not None:
                raise answer
        finally:
            self.recalling -= 1


class CascadeRoom:
    """A book and its recalls, of an engine (fakes/task_room.py: Room). One with the store of another is its next run."""

    def __init__(self, room, providers, folder, store=None, *, engine=None):
        self.room = room
        self.clock = room.clock
        self.alarms = Alarms(room.clock)
        self.store = store or FakeCredentialStore()
        self.engine = engine or room.engine
        self.outlets = ProviderRoutes(providers, room.clock)
        audit = Audit(FakeTaskStore(), room.clock)
        sealing = Sealing(folder / "handles.key")
        self.book = CredentialLedger(self.engine, self.store, sealing, self.outlets, audit, room.clock, self.alarms)
        self.recalling = Recalling(
            self.book, self.outlets, lambda: self.engine.types, FakeAssertions(), self.alarms, chance=lambda: 0.0
        )

    @asynccontextmanager
    async def running(self):
        """With its journal written in the background, and what earlier runs left taken over."""
        writer = asyncio.ensure_future(self.book.journal.run())
        try:
            self.recalling.start()
            yield self
        finally:
            await self.recalling.close()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def ask(self, task, provider="corp", grant=READ, *, life=3600):
        return await self.book.ask(task, provider, grant, self.clock.now() + timedelta(seconds=life))

    def obtained(self, **changes):
        ends = self.clock.now() + timedelta(seconds=changes.pop("life", 300))
        return Obtained(
            **{
                "token": "s3cret",
                "expires_at": ends,
                "handle": {"refresh": "h4ndle"},
                "public": {"sid": "7"},
                **changes,
            }
        )

    async def held(self, task, provider="corp", grant=READ, **changes):
        """A credential that a task has."""
        credential = await self.ask(task, provider, grant)
        await self.book.hold(credential, self.obtained(**changes))
        return credential

    async def settled(self):
        """Return when nothing is being taken back, and all is written that can be."""
        await self.recalling.quiet()
        if self.store.failure is None:
            await self.book.journal.drain()

    async def later(self, seconds):
        """Let time go by, with all that comes of it."""
        self.clock.advance(seconds)
        while self.alarms.ring_due() == 0:
            pass
        await self.settled()
