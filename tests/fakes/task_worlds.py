"""All that changes tasks, on one engine: a family's room with facts, approvals, reloads, the kill switch, and restarts."""

import asyncio
from collections.abc import Collection
from typing import Any

from fakes.clock import FakeClock
from fakes.families import WORKERS, FamilyRoom
from fakes.persons import ISSUERS
from fakes.registrations import NODE, TRUST_DOMAIN, FakeEntryStore, entry
from fakes.task_room import EPOCH, TRIAGE_ENTRY
from sojourn.errors import StoreFailed
from sojourn.facts.facts import OPERATOR, Publication
from sojourn.identity.registry import Registry
from sojourn.policy.approval_request import Person
from sojourn.tasks.break_glass_reviews import Reviews
from sojourn.tasks.mass_end import MassEnd
from sojourn.tasks.policy_reload import PolicyReload
from sojourn.tasks.reattachment import Reattachment
from sojourn.tasks.recovery import Recovery
from sojourn.tasks.reevaluation import Reevaluation

ENTRIES = (TRIAGE_ENTRY, *(entry(path) for path in WORKERS))
ALICE, BOB = Person(501, 501, 1, frozenset()), Person(502, 502, 1, frozenset())
DEADLINE_SECONDS = 20


class Turnstile:
    """A gate of a store: once it is closed, `pass_` lets so many writes through."""

    def __init__(self) -> None:
        self._passes = asyncio.Semaphore(0)
        self._open = True
        self.failures = 0  # so many of the next writes fail

    async def wait(self) -> None:
        if not self._open:
            await self._passes.acquire()
        if self.failures:
            self.failures -= 1
            raise StoreFailed("test")

    def pass_(self, number: int = 1) -> None:
        for _ in range(number):
            self._passes.release()

    def close(self) -> None:
        if self._open:
            self._open, self._passes = False, asyncio.Semaphore(0)

    def open(self) -> None:
        self._open, self.failures = True, 0
        self.pass_(1_000)  # whoever waits


class _EveryIdentity:
    async def process_has(self, _pid: int, spiffe_ids: Collection[Any]) -> bool:
        return any(entry.spiffe_id in spiffe_ids for entry in ENTRIES)


class World(FamilyRoom):
    """`before`: the world whose disk this one starts from, as it is now; its processes live on."""

    def __init__(self, types: Any, before: "World | None" = None, *, epoch: int = EPOCH) -> None:
        super().__init__(before.clock if before else FakeClock(), types=types, epoch=epoch, retry_seconds=0)
        if before is not None:
            self.store.rows, self.store.documents = dict(before.store.rows), dict(before.store.documents)
            self.store.events = list(before.store.events)
            self.fact_store.rows = dict(before.fact_store.rows)
            self.review_store.kept = list(before.review_store.kept)
            self.reviews = Reviews(self.review_store, self.review_store.kept, self.audit)
            self.approving.reviews = self.reviews
            self.process, self.peer, self.worker, self.worker_peer = before.people
        self.redeciding = Reevaluation(self.engine, self.changing, self.facts, self.alarms)
        self.reloading = PolicyReload(self.engine, self.changing)
        self.reloading.on_applied(self.redeciding.reloaded)
        self.registry = Registry(FakeEntryStore(ENTRIES), TRUST_DOMAIN, [NODE], self.clock, self.alarms)
        self.recovery = Recovery(
            self.engine, MassEnd(self.engine), self.registry, self.holders, self.store, self.audit, self.alarms, ISSUERS
        )
        self.attaching = Reattachment(self.engine, self.changing, _EveryIdentity())

    @property
    def people(self) -> tuple[Any, ...]:
        return self.process, self.peer, self.worker, self.worker_peer

    async def start(self) -> None:
        """As the agent does: take over what there is, before anything is served."""
        await self.facts.start()
        await self.recovery.run()
        self.redeciding.start()
        self.recovery.open_window()

    async def say(self, name: str, value: Any) -> bool:
        now = self.facts.happens_now(name, "", OPERATOR)
        return await self.facts.publish(Publication(name, "", value, OPERATOR, None, now), {"by_uid": 0})

    async def quiet(self) -> None:
        """Return when nothing is under way, and all is written."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            for _ in range(3):
                await self.facts.quiet()
                await self.redeciding.quiet()
                await self.changing.quiet()
                await self.approving.quiet()
                await self.engine.journal.drain()

    async def approve(self, task: Any, by: Person = ALICE) -> Any:
        request = task.approval.request
        return await self.approving.approve(request.id, request.digest, by, operator=True, reason="")

    async def deny(self, task: Any, by: Person = BOB) -> Any:
        request = task.approval.request
        return await self.approving.deny(request.id, request.digest, by, operator=True, reason="")
