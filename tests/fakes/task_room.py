"""A task engine with fakes around it, and a real process that is the caller."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import fields

from cryptography.hazmat.primitives.asymmetric import ec
from fakes.children import child, holder_of, peer_of
from fakes.facts import FakeFactStore
from fakes.journals import FakeReviewStore, FakeTaskStore
from fakes.registrations import entry
from fakes.task_types import TICKETS
from sojourn.audit.journal import Audit
from sojourn.facts.facts import Facts
from sojourn.jose.jws import SigningKey
from sojourn.runtime.clock import Alarms
from sojourn.tasks.approval import Approvals
from sojourn.tasks.begin import BeginRequest, BeginService, Bond
from sojourn.tasks.break_glass_reviews import Reviews
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.holders import Holders
from sojourn.tasks.signing_keys import TokenKeys
from sojourn.tasktoken.grants import Authority, Grant

DEADLINE_SECONDS = 20  # so that a hung test says where; nothing here depends on it
ISSUER = "https://sojourn.example.org"
EPOCH = 7
HOLDERS = 5  # processes that may hold tasks
KEY = SigningKey.from_private("k1", ec.generate_private_key(ec.SECP256R1()))
TRIAGE_ENTRY = entry("/agent/triage")
READ_TICKETS = Authority((Grant(TICKETS, ("ticket:read",)),))


def end_all(engine, reason="test over"):
    """End every live task, so that what they hold is let go."""
    for task in engine.tasks.all():
        engine.end(task, "revoked", reason)


@asynccontextmanager
async def writing(engine: TaskEngine) -> AsyncIterator[None]:
    """Have what an engine journals later written in the background."""
    writer = asyncio.ensure_future(engine.journal.run())
    try:
        yield
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)


def beginning_of(engine, store, audit):
    """The beginning of tasks in an engine whose parts are someone else's."""
    return BeginService(engine, Approvals(engine, Reviews(FakeReviewStore(store), [], audit), audit))


class Room:
    """An engine with fakes around it. `store` may be a real one."""

    def __init__(self, clock, types, *, store=None, epoch=EPOCH):
        self.clock = clock
        self.alarms = Alarms(clock)
        self.store = store or FakeTaskStore()
        self.fact_store = FakeFactStore(self.store)
        self.audit = Audit(self.store, clock)
        self.facts = Facts(self.fact_store, self.audit, clock, self.alarms)
        self.holders = Holders(2 * HOLDERS)  # half of them for a uid
        keys = TokenKeys(self.alarms, first=KEY)
        self.engine = TaskEngine(
            types, self.store, self.audit, keys, ISSUER, epoch, clock, self.alarms, self.holders, self.facts
        )
        self.review_store = FakeReviewStore(self.store)
        self.reviews = Reviews(self.review_store, [], self.audit)
        self.approving = Approvals(self.engine, self.reviews, self.audit)
        self.beginning = BeginService(self.engine, self.approving)
        self._closing = ExitStack()
        self.process = self._closing.enter_context(child())
        self.peer = peer_of(self.process)
        self._closing.callback(self.peer.close)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Room"]:
        """Itself, with its journal written in the background; all its tasks end with the block."""
        try:
            async with writing(self.engine):
                yield self
        finally:
            self.end_everything()

    def add(self, context):
        return self._closing.enter_context(context)

    def callback(self, function):
        self._closing.callback(function)

    async def begin(self, name="triage", *, holder=None, peer=None, entries=(TRIAGE_ENTRY,), **arguments):
        request = {
            key: arguments.pop(key) for key in (field.name for field in fields(BeginRequest)) if key in arguments
        }
        return await self.beginning.begin(
            peer or self.peer,
            entries,
            BeginRequest(name, **{"params": {}, **request}),
            Bond(holder_of(holder or self.process), "process", **arguments),
        )

    async def ended(self, task):
        """Return once `task` has ended."""
        over = asyncio.Event()
        if task.live:
            self.engine.announcements.to_holder(task, over.set)
            async with asyncio.timeout(DEADLINE_SECONDS):
                await over.wait()

    def end_everything(self):
        if isinstance(self.store, FakeTaskStore):
            self.store.gate = None
        end_all(self.engine)
        self._closing.close()
