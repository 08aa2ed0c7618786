"""A task engine with fakes around it, and a real process that is the caller."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import fields

from cryptography.hazmat.primitives.asymmetric import ec
from fakes.children import child, holder_of, peer_of
from fakes.facts import FakeFactStore
from fakes.journals import FakeReviewStore, FakeTaskStore
from fakes.registrations import entry
from fakes.task_types import TICKETS
from sojourn.audit.journal import Audit, Record
from sojourn.errors import SojournError
from sojourn.evidence.decisions import Decisions
from sojourn.evidence.faults import Faults
from sojourn.facts.facts import Facts
from sojourn.jose.jws import SigningKey
from sojourn.oversight.controls.exported_types import ExportedTypes
from sojourn.oversight.controls.fold import ControlFold
from sojourn.oversight.controls.query import Journal, Replayed
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
    """An engine with fakes around it. `store` may be a real one. What the disk does not take is soon tried again."""

    def __init__(self, clock, types, *, store=None, epoch=EPOCH, retry_seconds=0.01):
        self.clock = clock
        self.alarms = Alarms(clock)
        self.store = store or FakeTaskStore()
        self.fact_store = FakeFactStore(self.store)
        self.audit = Audit(self.store, clock)
        self.facts = Facts(self.fact_store, self.audit, clock, self.alarms)
        self.holders = Holders(2 * HOLDERS)  # half of them for a uid
        keys = TokenKeys(self.alarms, first=KEY)
        self.engine = TaskEngine(
            types,
            self.store,
            self.audit,
            keys,
            ISSUER,
            epoch,
            clock,
            self.alarms,
            self.holders,
            self.facts,
            retry_seconds=retry_seconds,
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
        """Itself, with its journal written in the background; all its tasks end with the block.

        Whatever a test did, each decision of it that is recorded is replayed from the records, and none of them speaks
        against a claim of the control map.
        """
        try:
            async with writing(self.engine):
                yield self
                with suppress(SojournError):  # a test may have the disk fail
                    await self.audit.flush()
        finally:
            self.end_everything()
        decisions, wrong = self.replayed()
        assert ([], {}) == (wrong, dict(decisions.unknown))
        assert {} == self.spoken_against()

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

    def replayed(self):
        """What a check of the records finds of decisions, and what is wrong with them."""
        faults = Faults()
        decisions = Decisions(faults)
        for seq, each in enumerate(getattr(self.store, "events", ()), 1):
            decisions.read(Record(seq, each.at_ms, each.event, each.fields, ""))
        return decisions, [f"{each.code} at {each.seq}" for each in faults.found]

    def spoken_against(self):
        """By the query of the control map, the records that speak against its claim. They may go on behind those of an
        earlier run, and no file of a type is here.
        """
        fold = ControlFold()
        for seq, each in enumerate(getattr(self.store, "events", ()), 2):
            fold.read(seq, each.at_ms, each.event, json.loads(each.fields))
        answers = fold.answers(Journal(looked_at=True), Replayed(), ExportedTypes({}.__getitem__))
        return {name: each.seqs for name, each in answers.items() if each.exceptions and name != "policy_sets_kept"}

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
