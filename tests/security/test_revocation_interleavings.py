"""Revocations at the same time as anything else and in any order: with writes that wait or fail, looks into the journal
that wait, callers who go, time, clocks that are set, and crashes.

After each step, whatever came before it:
- what was issued before a revocation of its identity began is denied from then on, and its tasks are over;
- what was issued after is good, whatever becomes of the revocation;
- what a caller was told is revoked is so for good, over crashes, and its record is there.
And once writes go through again, all that has begun is written, whether or not its caller still waits.
"""

import asyncio
import copy
import itertools
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.databases import opened
from fakes.granting_room import Room
from fakes.revocations import FakeRevocationStore
from fakes.task_worlds import Turnstile
from harness.examples import examples
from hypothesis import given, note
from hypothesis import strategies as st
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.audit.journal import Event
from sojourn.endpoints.admin.svid_revocation import RevokingApi
from sojourn.errors import SojournError, StoreFull
from sojourn.errors.oauth import NotOnDisk
from sojourn.identity.issued_svids import JWT, X509, IssuedSvid
from sojourn.identity.revocation_list import Revoked, Times
from sojourn.identity.revocations import RETRY_SECONDS
from sojourn.store.audit import AuditTable
from sojourn.store.revocations import RevocationTable

pytestmark = pytest.mark.full

PATHS = ("/agent/triage", "/web", "/store")
DAY = 86_400
CALL = SimpleNamespace(by={"by_uid": 0, "by_pid": 1})
STEP = st.one_of(
    st.tuples(st.just("issue"), st.sampled_from(PATHS)),
    st.tuples(st.just("begin"), st.none()),
    st.tuples(st.just("revoke"), st.tuples(st.sampled_from(PATHS), st.sampled_from(("entry_id", "spiffe_id")))),
    st.tuples(st.just("revoke"), st.tuples(st.sampled_from(PATHS), st.sampled_from(("entry_id", "spiffe_id")))),
    st.tuples(st.just("revoke one"), st.integers(0, 9)),
    st.tuples(st.sampled_from(("hold up", "go", "let look", "cancel", "cancel", "crash", "turns", "turns")), st.none()),
    st.tuples(st.sampled_from(("hold up", "hold up looks", "retry", "retry")), st.none()),
    st.tuples(st.sampled_from(("writes", "fail")), st.integers(1, 3)),
    st.tuples(st.just("set clock"), st.sampled_from((-1, 2, -3))),
)


class GatedStore(FakeRevocationStore):
    """Writes wait or fail as a turnstile has it."""

    def __init__(self, revoked: Sequence[Revoked] = ()) -> None:
        super().__init__(revoked)
        self.gate = Turnstile()

    async def put(self, revoked: Sequence[Revoked], events: Sequence[Event], times: Times) -> None:
        await self.gate.wait()
        await super().put(revoked, events, times)


@dataclass(eq=False)
class Svid:
    """One that was issued, and what is known of it."""

    kind: str
    id: str
    path: str
    spiffe_id: Any
    revoked: bool = False  # a revocation of it has begun in this run of the agent, or was found by it
    for_good: bool = False  # and a caller was told that it is


@dataclass(eq=False)
class Running:
    """A call that revokes."""

    task: "asyncio.Future[Any]"
    svids: list[Svid] = field(default_factory=list)


class Life:
    """Runs of an agent, one after another."""

    def __init__(self, folder: Path, closing: ExitStack) -> None:
        self._folder, self._closing = folder, closing
        self.store = GatedStore()
        self.room: Room = None  # type: ignore[assignment]
        self.epoch = 0
        self.svids: list[Svid] = []
        self.x509: list[IssuedSvid] = []  # what the journal has
        self.running: list[Running] = []
        self.given_up: list[Svid] = []  # of calls that go on without their callers
        self.told = 0
        self.audiences = itertools.count()
        self.open()
        self.days = 4  # by which the clock is ahead of when the root was made
        self.room.clock.step_wall(DAY * self.days)

    def open(self) -> None:
        self.epoch += 1
        clock = self.room.clock if self.room is not None else None
        self.room = Room(self._folder, clock=clock, revoked=self.store, epoch=self.epoch)
        self._closing.callback(self.room.close)
        self.looks = Turnstile()
        self.api = RevokingApi(
            self.room.registry,
            self.room.identities,
            self.room.issuing,
            self,  # type: ignore[arg-type]  # what it needs of the issued ones
            self.room.revocations,
            self.room.engine,
            self.room.ending,
            self.room.audit,
        )
        self.writer = asyncio.ensure_future(self.room.engine.journal.run())
        self.entries = {entry.spiffe_id.path: entry for entry in self.room.registry}

    async def find(self, *, svid_id: str = "", entry_id: str = "", spiffe_id: str = "", kind: str = "") -> list[Any]:
        """As the journal finds what was issued."""
        await self.looks.wait()
        known = [*self.x509, *(self._jwt(each) for each in self.svids if each.kind == JWT)]
        return [
            each
            for each in known
            if svid_id in {"", each.id}
            and entry_id in {"", each.entry_id}
            and spiffe_id in {"", each.spiffe_id}
            and kind in {"", each.kind}
        ]

    def _jwt(self, svid: Svid) -> IssuedSvid:
        ends = int(self.room.clock.now().timestamp()) + 3_600
        return IssuedSvid(JWT, svid.id, str(svid.spiffe_id), self.entries[svid.path].id, ends)

    async def step(self, doing: str, what: Any) -> None:
        match doing:
            case "issue":
                await self.issue(what)
            case "begin":
                with suppress(SojournError):
                    await self.room.begin()
            case "revoke":
                path, kind = what
                entry = self.entries[path]
                value = entry.id if kind == "entry_id" else str(entry.spiffe_id)
                covered = [each for each in self.svids if each.path == path]
                self.start(pb.RevokeSvidsRequest(**{kind: value}), covered)
                await asyncio.sleep(0)
                for each in covered:
                    each.revoked = True
                assert not [task for task in self.room.engine.tasks.all() if task.spiffe_id == entry.spiffe_id]
            case "revoke one" if self.svids:
                one = self.svids[what % len(self.svids)]
                self.start(pb.RevokeSvidsRequest(svid_id=one.id), [one])
            case "cancel" if self.running:
                given_up = self.running.pop(0)
                given_up.task.cancel()
                self.given_up += given_up.svids
            case "hold up":
                self.store.gate.close()
            case "go":
                self.store.gate.open()
            case "writes":
                self.store.gate.pass_(what)
            case "fail":
                self.store.gate.failures = what
            case "hold up looks":
                self.looks.close()
            case "let look":
                self.looks.open()
            case "retry":
                self.room.clock.advance(RETRY_SECONDS)
                self.room.alarms.ring_due()
            case "set clock" if 0 < self.days + what < 8:
                self.days += what
                self.room.clock.step_wall(DAY * what)
                self.room.alarms.ring_due()
            case "crash":
                self.crash()
        for _ in range(20 if doing == "turns" else 2):
            await asyncio.sleep(0)

    async def issue(self, path: str) -> None:
        entry = self.entries[path]
        with suppress(SojournError):  # a clock that stands before the root
            [token] = await self.room.issuing.jwt.get([entry], [f"a{next(self.audiences)}"], unchanged)
            leaf = await self.room.issuing.x509.get(entry)
            self.svids.append(Svid(JWT, str(token.claims["jti"]), path, entry.spiffe_id))
            if leaf.serial not in {each.id for each in self.x509}:
                self.svids.append(Svid(X509, leaf.serial, path, entry.spiffe_id))
                self.x509.append(self.room.issuing._issued_of(entry, leaf))

    def start(self, request: pb.RevokeSvidsRequest, covered: list[Svid]) -> None:
        """As the admin socket does: it goes on although its caller goes."""
        working = asyncio.ensure_future(self.api.revoke(CALL, request))  # type: ignore[arg-type]
        working.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.running.append(Running(asyncio.shield(working), covered))
        self.running[-1].task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def crash(self) -> None:
        self.writer.cancel()
        for each in self.running:
            each.task.cancel()
        self.running.clear()
        written = GatedStore(copy.deepcopy(list(self.store.rows.values())))
        written.events, written.times = list(self.store.events), self.store.times
        self.store.gate.close()  # what waits there is lost
        self.store = written
        self.open()
        for each in self.svids:
            each.revoked = self.is_denied(each)

    def is_denied(self, svid: Svid) -> bool:
        return self.room.revocations.denies(svid.kind, svid.id, svid.spiffe_id)

    def check(self) -> None:
        for each in list(self.running):
            if each.task.done():
                self.running.remove(each)
                if each.task.exception() is None:
                    self.told += 1
                    for svid in each.svids:
                        svid.revoked = svid.for_good = True
        under_way = {id(svid) for each in self.running for svid in each.svids} | {id(svid) for svid in self.given_up}
        for svid in self.svids:
            denied = self.is_denied(svid)
            assert denied or not (svid.revoked or svid.for_good), svid
            assert not denied or svid.revoked or id(svid) in under_way, svid
            svid.revoked = svid.revoked or denied
        assert len(self.store.events) >= self.told


async def lived(steps: Sequence[tuple[str, Any]], folder: Path, closing: ExitStack) -> None:
    life = Life(folder, closing)
    for path in PATHS:
        await life.issue(path)
    for doing, what in steps:
        note(f"{doing} {what}")
        await life.step(doing, what)
        life.check()
    life.looks.open()
    life.store.gate.open()
    for _ in range(40):
        await asyncio.sleep(0)
    life.room.clock.advance(RETRY_SECONDS)
    life.room.alarms.ring_due()
    await life.room.revocations._background.quiet()
    for _ in range(40):
        await asyncio.sleep(0)
    life.check()
    assert [] == [each for each in life.running if not each.task.done()]
    denied = [each for each in life.svids if life.is_denied(each)]
    life.crash()
    life.check()
    assert denied == [each for each in life.svids if life.is_denied(each)]
    life.writer.cancel()


@given(st.lists(STEP, max_size=30))
@examples(60)
def test_A2_anything_at_any_time(steps: list[tuple[str, Any]]) -> None:
    """Nothing that revokes is undone, nothing is revoked that was issued after, and all that has begun is written."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as closing:
        asyncio.run(lived(steps, Path(folder) / "keys", closing))


def test_A2_killed_before_the_row(tmp_path: Path) -> None:
    """The row of an identity is written after the ends of its tasks, however long these wait: no kill in between finds
    tasks that go on and an operator who believes that they do not.
    """
    asyncio.run(killed_before_the_row(tmp_path))


async def killed_before_the_row(folder: Path) -> None:
    with ExitStack() as closing:
        life = Life(folder / "keys", closing)
        task = await life.room.begin()
        before = life.room.store.rows[task.id]
        life.room.store.gate = asyncio.Event()
        revoking = revoked_of(life)
        for _ in range(3):
            await life.step("turns", None)
            await life.step("retry", None)
            assert (False, before, []) == (task.live, life.room.store.rows[task.id], life.store.identities)
        life.room.store.gate.set()
        answer = await revoking
        assert (1, "revoked", True) == (answer.ended_tasks, life.room.store.rows[task.id][0], answer.identity.written)
        life.writer.cancel()


def test_A2_ends_that_are_not_taken(tmp_path: Path) -> None:
    """If the disk does not take the ends of tasks, the row is written all the same, and the caller is told of the ends."""
    asyncio.run(ends_not_taken(tmp_path))


async def ends_not_taken(folder: Path) -> None:
    with ExitStack() as closing:
        life = Life(folder / "keys", closing)
        await life.room.begin()
        life.room.store.failure = StoreFull("no room")
        with pytest.raises(NotOnDisk):
            await revoked_of(life)
        assert 1 == len(life.store.identities) == len(life.store.events)
        life.room.store.failure = None
        assert (await revoked_of(life)).identity.written
        life.writer.cancel()


def revoked_of(life: Life) -> Any:
    request = pb.RevokeSvidsRequest(spiffe_id="spiffe://example.org/agent/triage")
    return asyncio.ensure_future(life.api.revoke(CALL, request))  # type: ignore[arg-type]


def test_A2_killed_at_every_write(tmp_path: Path) -> None:
    """Whatever a caller was told is revoked is found, with its record, in the database's files as they were then."""
    asyncio.run(killed(tmp_path))


async def killed(folder: Path) -> None:
    acts: list[tuple[str, bytes, bytes]] = []
    path = folder / "sojourn.db"
    with opened(path) as database, ExitStack() as closing:
        table = RevocationTable(database, AuditTable(database))
        room = Room(folder / "keys", revoked=table)
        closing.callback(room.close)
        entry = next(entry for entry in room.registry if entry.spiffe_id.path == "/web")
        for number in range(6):
            room.clock.advance(10)
            [token] = await room.issuing.jwt.get([entry], [f"a{number}"], unchanged)
            identity = room.revocations.next_identity("spiffe_id", str(entry.spiffe_id))
            room.revocations.put_identity(identity)
            await room.revocations.settle(
                identity, nothing, lambda _, number=number: Event(number, "svids_revoked", "{}")
            )
            wal = path.with_name("sojourn.db-wal")
            acts.append((str(token.claims["jti"]), path.read_bytes(), wal.read_bytes()))
        spiffe_id, ended = entry.spiffe_id, int(room.clock.now().timestamp())
    for number, (_, database_bytes, wal_bytes) in enumerate(acts):
        place = folder / f"copy{number}"
        place.mkdir()
        (place / "sojourn.db").write_bytes(database_bytes)
        (place / "sojourn.db-wal").write_bytes(wal_bytes)
        (place / "sojourn.db").chmod(0o600)
        with opened(place / "sojourn.db") as database, ExitStack() as closing:
            records = AuditTable(database)
            room = Room(folder / "keys", revoked=RevocationTable(database, records), epoch=2)
            closing.callback(room.close)
            found = [room.revocations.denies(JWT, jti, spiffe_id) for jti, _, _ in acts]
            assert [each <= number for each in range(len(acts))] == found
            ran = 10 * (number + 1)
            assert Times(ran, ended - 10 * len(acts) + ran) == RevocationTable(database, records).load().times
            assert number + 1 == len(await records.tail(100))
            assert "" == (await records.verify())[2]


async def nothing() -> list[IssuedSvid]:
    return []


async def unchanged() -> None:
    """What a caller may have is as it was when it asked."""
