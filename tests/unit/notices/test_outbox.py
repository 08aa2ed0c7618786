"""outbox.py: what is told of a request for approval, how often, and what is left of it after the agent's end."""

import asyncio
import json
from dataclasses import replace

import pytest
from fakes.approvals import TYPES, approve, deny
from fakes.task_room import DEADLINE_SECONDS, Room
from sojourn.errors import StoreFailed
from sojourn.limits import APPROVAL_PARAM_LISTED, NOTICE_MAX_BYTES, NOTICES_AT_ONCE
from sojourn.notices.messages import CLOSED, WANTED
from sojourn.notices.outbox import NotDelivered, Notices

NODE = {"trust_domain": "example.org", "id": "spiffe://example.org/spire/agent/sojourn/here"}


class Store:
    def __init__(self):
        self.rows = {}
        self.failure = None

    def load(self):
        return {name: json.loads(text) for name, text in self.rows.items()}

    async def keep(self, approval_id, document):
        if self.failure is not None:
            raise self.failure
        self.rows[approval_id] = json.dumps(document)

    async def forget(self, approval_id):
        self.rows.pop(approval_id, None)


class Courier:
    """Takes everything, unless `failure` says why not; `gate` holds deliveries up until it is set."""

    def __init__(self, store):
        self.store = store
        self.failure = None
        self.gate = None
        self.tried = []
        self.told = []
        self.most = self.running = 0

    def check(self):
        return ""

    async def deliver(self, message):
        assert message == json.loads(self.store.rows[message["approval"]["id"]])  # on disk first
        self.tried.append(message["id"])
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.running -= 1
        if self.failure is not None:
            raise self.failure
        self.told.append(message)

    async def close(self):
        pass

    def events(self, task):
        return [each["event"] for each in self.told if each["approval"]["task"] == task.id]


class Told:
    """A room whose requests are told of, by a run that can be ended as by kill -9."""

    def __init__(self, room, store):
        self.room, self.store, self.courier = room, store, Courier(store)
        self.notices = Notices(store, self.courier, NODE, room.audit, room.clock, room.alarms, lambda: 0.5)
        self.notices.follow(room.engine.waiting.on_shown, room.engine.waiting.on_over)
        self.run = asyncio.ensure_future(self.notices.run())

    async def kill(self):
        self.run.cancel()
        await asyncio.gather(self.run, return_exceptions=True)

    async def until(self, holds):
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not holds():
                await asyncio.sleep(0.001)


@pytest.fixture
async def room(clock):
    async with Room(clock, TYPES).running() as room:
        yield room


@pytest.fixture
async def told(room):
    told = Told(room, Store())
    yield told
    await told.kill()


class TestDelivery:
    async def test_from_the_request_to_the_decision(self, room, told):
        """That someone must agree is told once, what became of it once, and then nothing is kept."""
        task = await room.begin("asked", params={"ticket": "T-1"})
        await told.until(lambda: told.courier.told)
        (said,) = told.courier.told
        assert (f"{task.approval.request.id}.{WANTED}", NODE, {"ticket": "T-1"}, []) == (
            said["id"],
            said["node"],
            said["approval"]["params"],
            said["cut"],
        )
        await approve(room, task)
        await told.until(lambda: not told.store.rows)
        assert [WANTED, CLOSED] == told.courier.events(task)
        assert ("approved", 1) == (told.courier.told[1]["outcome"], len(told.courier.told[1]["approval"]["given"]))
        assert (2, 0, 0) == (told.notices.results["delivered"], told.notices.results["failed"], len(told.notices))

    async def test_outcomes(self, clock, room, told):
        """A denial, a time that is over, and a holder that takes its request back are told apart."""
        tasks = [await room.begin("asked") for _ in range(3)]
        await told.until(lambda: len(told.courier.told) == 3)
        await deny(room, tasks[0])
        await room.engine.complete(tasks[1], failed=False)
        clock.advance(61)
        room.alarms.ring_due()
        await told.until(lambda: not told.store.rows)
        outcomes = {each["approval"]["task"]: each["outcome"] for each in told.courier.told if "outcome" in each}
        assert ["denied", "ended", "expired"] == [outcomes[task.id] for task in tasks]

    async def test_holds_nothing_up(self, room, told):
        """A request begins and is decided although nothing can be told; so many are tried at once, and no more."""
        told.courier.gate = asyncio.Event()
        tasks = [await room.begin("asked") for _ in range(NOTICES_AT_ONCE + 3)]
        await told.until(lambda: told.courier.running == NOTICES_AT_ONCE)
        await approve(room, tasks[0])
        assert "active" == tasks[0].state
        told.courier.gate.set()
        await told.until(lambda: len(told.courier.told) == NOTICES_AT_ONCE + 4)
        assert NOTICES_AT_ONCE == told.courier.most

    async def test_is_tried_again(self, clock, room, told):
        """What fails is tried again after pauses that grow up to a limit, and arrives under the same id."""
        told.courier.failure = NotDelivered("no")
        task = await room.begin("asked")
        pauses = []
        for tries in range(1, 13):
            await told.until(lambda tries=tries: told.notices.results["failed"] == tries and not told.courier.running)
            await told.until(lambda: told.notices._alarm is not None)
            pauses.append(told.notices._alarm.due - clock.boot())
            if sum(pauses) > 50:
                break
            clock.advance(pauses[-1])
            room.alarms.ring_due()
        assert [1, 2, 4, 8, 16, 32] == pauses
        told.courier.failure = None
        clock.advance(5)
        await room.engine.complete(task, failed=False)
        await told.until(lambda: not told.store.rows)
        assert 1 == len({each for each in told.courier.tried if each.endswith(WANTED)})

    async def test_what_is_over_is_not_asked_for(self, room, told):
        """A request that is decided before it could be told of is not asked for any more; nobody who has not heard of
        it hears that it is over.
        """
        told.courier.gate = asyncio.Event()
        filling = [await room.begin("asked") for _ in range(NOTICES_AT_ONCE)]
        task = await room.begin("asked")
        await told.until(lambda: told.courier.running == NOTICES_AT_ONCE)
        await approve(room, task)
        told.courier.gate.set()
        await told.until(lambda: len(told.courier.told) == NOTICES_AT_ONCE)
        await told.until(lambda: len(told.store.rows) == len(filling))
        assert [] == told.courier.events(task)

    async def test_over_while_it_is_told(self, room, told):
        """A request that ends while it is being told of is told of as over, whether or not that arrived."""
        told.courier.gate = asyncio.Event()
        task = await room.begin("asked")
        await told.until(lambda: told.courier.running)
        await deny(room, task)
        told.courier.failure = NotDelivered("no")
        gate, told.courier.gate = told.courier.gate, None
        gate.set()
        await told.until(lambda: told.notices.results["failed"])
        told.courier.failure = None
        room.clock.advance(2)
        room.alarms.ring_due()
        await told.until(lambda: not told.store.rows)
        assert [CLOSED] == told.courier.events(task)

    async def test_nothing_is_told_that_is_not_on_disk(self, room, told):
        """While the store takes nothing nothing is told, and afterwards it is."""
        told.store.failure = StoreFailed("no")
        task = await room.begin("asked")
        await told.until(lambda: told.notices.results["failed"])
        assert [] == told.courier.tried
        told.store.failure = None
        room.clock.advance(2)
        room.alarms.ring_due()
        await told.until(lambda: told.courier.told)
        assert [WANTED] == told.courier.events(task)

    async def test_a_message_that_cannot_be_made(self, room, told, monkeypatch):
        """A request begins and is decided although what is to be told of it cannot even be made."""
        monkeypatch.setattr("sojourn.notices.messages.wanted", lambda *_: 1 / 0)
        task = await room.begin("asked")
        await approve(room, task)
        assert ("active", []) == (task.state, told.courier.tried)

    async def test_a_bug_stops_nothing(self, room, told):
        """A courier that breaks in a way that nobody foresaw is tried again, and the others go on."""
        told.courier.failure = ZeroDivisionError("x")
        await room.begin("asked")
        await told.until(lambda: told.notices.results["failed"])
        told.courier.failure = None
        other = await room.begin("asked")
        await told.until(lambda: told.courier.events(other))


class TestTurns:
    async def test_of_each_who_asks(self, room, told, monkeypatch):
        """However many requests of a user wait to be told, those of another are told in between, the oldest first."""
        monkeypatch.setattr("sojourn.notices.outbox.NOTICES_AT_ONCE", 1)
        told.courier.gate = asyncio.Event()
        flood = [await room.begin("asked") for _ in range(5)]
        await told.until(lambda: told.courier.running)
        other = replace(room.peer, uid=4002, owner=4002)
        late = [await room.begin("asked", peer=other) for _ in range(2)]
        told.courier.gate.set()
        await told.until(lambda: len(told.courier.told) == 7)
        order = [each["approval"]["task"] for each in told.courier.told]
        assert [each.id for each in (flood[0], late[0], flood[1], late[1], *flood[2:])] == order

    async def test_of_one_user_of_many_uids(self, room, told, monkeypatch):
        """A user with subordinate uids has one turn with all of them."""
        monkeypatch.setattr("sojourn.notices.outbox.NOTICES_AT_ONCE", 1)
        told.notices._user_of = lambda uid: 14001 if uid >= 165536 else uid
        told.courier.gate = asyncio.Event()
        uids = [165536, 165537, 165538, 4002]  # the first is under way, and the others wait then
        asked = [await room.begin("asked", peer=replace(room.peer, uid=uid, owner=uid)) for uid in uids]
        told.courier.gate.set()
        await told.until(lambda: len(told.courier.told) == 4)
        order = [each["approval"]["task"] for each in told.courier.told]
        assert [asked[each].id for each in (0, 3, 1, 2)] == order


class TestBounds:
    async def test_so_many(self, room, told, monkeypatch):
        """There are so many notices, of one user and of all; which make room is counted and recorded."""
        monkeypatch.setattr("sojourn.notices.outbox.NOTICES_PER_OWNER", NOTICES_AT_ONCE + 2)
        told.courier.gate = asyncio.Event()
        tasks = [await room.begin("asked") for _ in range(NOTICES_AT_ONCE + 4)]
        await told.until(lambda: told.courier.running == NOTICES_AT_ONCE)
        assert (2, NOTICES_AT_ONCE + 2) == (told.notices.results["dropped"], len(told.notices))
        await room.audit.flush()
        dropped = [each["approval"] for each in room.store.fields("approval_notice_dropped")]
        assert [task.approval.request.id for task in tasks[:2]] == dropped
        told.courier.gate.set()

    async def test_what_is_long_is_cut(self, room, told):
        """Parameters are cut as in lists, and a message has a size; it says what it lacks."""
        await room.begin("asked", params={"ticket": "x" * (APPROVAL_PARAM_LISTED + 1), "level": "3"})
        await told.until(lambda: told.courier.told)
        (said,) = told.courier.told
        assert (["params.ticket"], APPROVAL_PARAM_LISTED, "3") == (
            said["cut"],
            len(said["approval"]["params"]["ticket"]),
            said["approval"]["params"]["level"],
        )
        assert len(json.dumps(said)) < NOTICE_MAX_BYTES

    async def test_a_whole_that_is_too_long(self, room, told, monkeypatch):
        """What is too long as a whole goes without parameters first, then without grants."""
        monkeypatch.setattr("sojourn.notices.messages.NOTICE_MAX_BYTES", 900)
        await room.begin("asked", params={"ticket": "x" * 100})
        await told.until(lambda: told.courier.told)
        (said,) = told.courier.told
        assert "params" in said["cut"]
        assert {} == said["approval"]["params"]


class TestNextRun:
    async def test_what_was_told_is_told_as_over(self, clock, room, told):
        """A request ends with the agent; whoever had heard of it, or may have, hears that from the next run."""
        heard = await room.begin("asked")
        await told.until(lambda: told.courier.told)
        told.courier.failure = NotDelivered("no")
        unheard = await room.begin("asked")
        await told.until(lambda: told.notices.results["failed"])
        await told.kill()
        after = Told(Room(clock, TYPES), told.store)
        await after.until(lambda: not told.store.rows)
        assert {(task.approval.request.id, "ended", "agent_restart") for task in (heard, unheard)} == {
            (each["approval"]["id"], each["outcome"], each["reason"]) for each in after.courier.told
        }
        await after.kill()
        after.room.end_everything()

    async def test_how_it_ended_is_kept(self, clock, room, told):
        """A decision that could not be told is told by the next run as what it was."""
        task = await room.begin("asked")
        await told.until(lambda: told.courier.told)
        told.courier.failure = NotDelivered("no")
        await deny(room, task)
        await told.until(lambda: told.notices.results["failed"])
        await told.kill()
        after = Told(Room(clock, TYPES), told.store)
        await after.until(lambda: not told.store.rows)
        assert ["denied"] == [each["outcome"] for each in after.courier.told]
        await after.kill()
        after.room.end_everything()

    @pytest.mark.parametrize("text", ["null", "[]", "{}", '{"event": "approval_requested", "approval": 1}', '"x"'])
    async def test_a_damaged_row(self, clock, room, text):
        """A row that is damaged is forgotten, and stops nothing."""
        store = Store()
        store.rows["apr_1"] = text
        told = Told(room, store)
        await told.until(lambda: not store.rows)
        assert [] == told.courier.tried
        await told.kill()
