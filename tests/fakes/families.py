"""A room whose tasks are handed on: a workload process for each, and the way from one to the next."""

from contextlib import AsyncExitStack, closing
from typing import Any

from fakes.children import child, holder_of, peer_of
from fakes.clock import FakeClock
from fakes.registrations import entry
from fakes.task_room import Room, end_all
from fakes.task_types import TRIAGE, task_type
from sojourn.tasks.begin import BeginRequest, Bond
from sojourn.tasks.delegation import DelegationService
from sojourn.tasks.suspension import TaskChanges

WORKERS = tuple(f"/agent/w{number}" for number in range(10))
WORKER_IDS = tuple(f"spiffe://example.org{path}" for path in WORKERS)


def handed_on(cedar: str = '@id("all") permit (principal, action, resource);', **changes: Any) -> Any:
    """A task type that may be handed on to every worker, and back to triage: eight deep, to a hundred children."""
    to = ", ".join(f'"{each}"' for each in (*WORKER_IDS, TRIAGE))
    rule = {"to": f"[{to}]", "max_depth": 8, "max_children": 100, **changes.pop("delegation", {})}
    fields = ", ".join(f"{name} = {value}" for name, value in rule.items())
    changes.setdefault("params", None)
    return task_type("triage", cedar, delegation=f"{{{fields}}}", **changes)


class FamilyRoom(Room):
    """Workers are numbered; each has the identity WORKERS[number]. All are one real process, which asks and holds."""

    def __init__(self, clock: FakeClock, kind: Any = None, *, types: Any = None, **more: Any) -> None:
        super().__init__(clock, types or {"triage": kind or handed_on()}, **more)
        self.changing = TaskChanges(self.engine)
        self.delegating = DelegationService(self.engine, self.beginning)
        self.worker = self.add(child())
        self.worker_peer = self.add(closing(peer_of(self.worker)))

    async def ticket(self, task, worker: int, wanted=None, max_seconds: float = 0) -> str:
        to = entry(WORKERS[worker]).spiffe_id
        return (await self.delegating.delegate(task, to, wanted, max_seconds)).ticket

    async def accept(self, ticket: str, worker: int, **changes: Any):
        bond = Bond(holder_of(self.worker), changes.pop("binding", "process"))
        entries = changes.pop("entries", (entry(WORKERS[worker]),))
        return await self.delegating.accept(self.worker_peer, entries, ticket, BeginRequest("", {}, **changes), bond)

    async def hand_on(self, task, worker: int, wanted=None, max_seconds: float = 0):
        return await self.accept(await self.ticket(task, worker, wanted, max_seconds), worker)


async def opened(room: FamilyRoom, stack: AsyncExitStack) -> FamilyRoom:
    """Have a room run until the stack is closed; its store works again then, and all of its tasks are ended."""
    await stack.enter_async_context(room.running())

    async def stop() -> None:
        room.store.gate = None
        room.store.failure = None
        end_all(room.engine)
        await room.engine.journal.drain()

    stack.push_async_callback(stop)
    return room
