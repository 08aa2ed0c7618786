"""recovery.py and attaching.py: tasks of an earlier run come up suspended, and go back to their holders alone."""

import asyncio
import json
from contextlib import closing

import pytest
from fakes.children import child, holder_of, peer_of
from fakes.next_run import NextRun
from fakes.registrations import entry
from fakes.task_room import EPOCH, TRIAGE_ENTRY, Room
from fakes.task_types import TICKETS, WIKI, task_type
from sojourn.attestation.peer import Peer
from sojourn.errors import (
    FailedPrecondition,
    InvalidInput,
    LimitExceeded,
    NotFound,
    PolicyDenied,
    StoreFailed,
    TaskOver,
    Unavailable,
)
from sojourn.limits import REATTACH_SECONDS
from sojourn.tasks.blocks import Block
from sojourn.tasks.changing import Changing
from sojourn.tasks.grants import Authority, Grant
from sojourn.tasks.reasons import OPERATOR, RESTART

ENTRIES = (TRIAGE_ENTRY,)
TYPES = {
    "triage": task_type(),
    "idle": task_type("idle", idle_timeout='"60s"'),
    "once": task_type(
        "once",
        '@id("wiki") permit (principal, action, resource == Sojourn::Resource::"https://wiki.example.org");'
        '@id("once") permit (principal, action, resource) when { principal.tokens_issued < 1 };',
    ),
    "spare": task_type("spare", max_tokens="2"),
    "untouched": task_type(
        "untouched", '@id("untouched") permit (principal, action, resource) when { principal.tokens_issued < 1 };'
    ),
}


@pytest.fixture
async def room(clock, stack):
    return await stack.enter_async_context(Room(clock, TYPES).running())


@pytest.fixture
def restart(room, stack):
    """Kill the agent, as it were, and start it again."""

    async def run(**changes):
        return await NextRun.after(room, stack, **changes)

    return run


def ends(store):
    return [(each["state"], each["reason"]) for each in store.fields("task_ended")]


def damage(store, task, **changes):
    store.documents[task.id] = json.dumps({**json.loads(store.documents[task.id]), **changes}).encode()


class TestComesBack:
    async def test_suspended_as_it_was(self, room, restart):
        """A task comes up suspended, with all that it had, under a later version, and that is on disk."""
        task = await room.begin(params={"ticket": "T-1", "level": "3", "urgent": "true"}, session=True)
        token = await room.engine.token(task, TICKETS, ["ticket:read"])
        later = await restart()
        found = later.only
        for name in ("id", "spiffe_id", "entry_id", "uid", "authority", "params", "created_at", "expires_at",
                     "deadline", "binding", "session", "last_used", "selectors", "tokens_issued", "calls", "uses"):  # fmt: skip
            assert getattr(task, name) == getattr(found, name), name
        assert ("suspended", RESTART, EPOCH + 1) == (found.state, found.reason, found.version >> 32)
        assert ("suspended", found.version) == room.store.rows[task.id]
        assert [{"cause": RESTART, "reason": RESTART, "task": task.id}] == [
            {name: each[name] for name in ("cause", "reason", "task")} for each in room.store.fields("task_suspended")
        ]
        with pytest.raises(TaskOver):
            later.engine.check_token(token)
        with pytest.raises(TaskOver):
            await later.engine.token(found, TICKETS, ())

    async def test_back_to_its_holder(self, room, restart):
        """The holder's call gives it the task back; new tokens are good, and those of before stay dead."""
        task = await room.begin()
        old = await room.engine.token(task, TICKETS, ())
        later = await restart()
        version = later.only.version
        found = await later.attaching.of_caller(room.peer, ENTRIES, task.id)
        assert ("active", {}, version + 1) == (found.state, found.suspensions, found.version)
        assert ("active", version + 1) == room.store.rows[task.id]
        later.engine.check_token(await later.engine.token(found, TICKETS, ()))
        with pytest.raises(TaskOver):
            later.engine.check_token(old)

    async def test_many_calls_at_once(self, room, restart):
        """Fifty calls at once give the task back once, and all of them get it."""
        task = await room.begin()
        later = await restart()
        asked = [later.attaching.of_caller(room.peer, ENTRIES, task.id) for _ in range(50)]
        assert {"active"} == {each.state for each in await asyncio.gather(*asked)}
        assert 1 == room.store.names.count("task_resumed")

    async def test_a_caller_that_gave_up(self, room, restart):
        """A call that is given up meanwhile takes the task away from no other."""
        task = await room.begin()
        later = await restart()
        first, second = (
            asyncio.ensure_future(later.attaching.of_caller(room.peer, ENTRIES, task.id)) for _ in range(2)
        )
        await asyncio.sleep(0)
        first.cancel()
        assert "active" == (await second).state

    async def test_versions_grow_over_restarts(self, room, restart):
        """However often the agent starts, each version is later than all before it."""
        task = await room.begin()
        versions = [task.version]
        for epoch in range(EPOCH + 1, EPOCH + 5):
            later = await restart(epoch=epoch)
            versions.append(later.only.version)
            if epoch % 2:  # an agent may go again before the holder was back
                versions.append((await later.attaching.of_caller(room.peer, ENTRIES, task.id)).version)
        assert sorted(set(versions)) == versions
        assert [] == ends(room.store)

    async def test_what_policy_denies_now_is_gone(self, room, restart):
        """Policy is asked again on what the task has: what it denies now does not come back."""
        task = await room.begin("once")
        await room.engine.token(task, TICKETS, ["ticket:read"])
        later = await restart()
        found = await later.attaching.of_caller(room.peer, ENTRIES, task.id)
        assert Authority((Grant(WIKI, ("page:read",)),)) == found.authority

    async def test_nothing_is_left(self, room, restart):
        """A task of which policy leaves nothing ends when its holder comes back."""
        task = await room.begin("untouched")
        await room.engine.token(task, TICKETS, ["ticket:read"])
        later = await restart()
        with pytest.raises(TaskOver):
            await later.attaching.of_caller(room.peer, ENTRIES, task.id)
        assert [("revoked", "policy_changed")] == ends(room.store)

    async def test_a_budget_stays_spent(self, room, restart):
        """Tokens count over a restart, on disk before they are given."""
        task = await room.begin("spare")
        await room.engine.token(task, TICKETS, ())
        later = await restart()
        found = await later.attaching.of_caller(room.peer, ENTRIES, task.id)
        await later.engine.token(found, TICKETS, ())
        with pytest.raises(LimitExceeded):
            await later.engine.token(found, TICKETS, ())

    async def test_an_operators_suspension_outlives_it(self, room, restart):
        """A task that an operator has suspended stays so when its holder is back."""
        task = await room.begin()
        await Changing(room.engine).suspend(task, OPERATOR, "looking into it")
        later = await restart()
        found = await later.attaching.of_caller(room.peer, ENTRIES, task.id)
        assert ("suspended", {OPERATOR: "looking into it"}) == (found.state, found.suspensions)
        await later.changing.resume(found, OPERATOR)
        assert "active" == found.state

    async def test_not_written_not_given(self, room, restart):
        """While the journal cannot be written the task stays suspended; then it may be had."""
        task = await room.begin()
        later = await restart()
        room.store.failure = StoreFailed("not now")
        with pytest.raises(StoreFailed):
            await later.attaching.of_caller(room.peer, ENTRIES, task.id)
        assert "suspended" == later.only.state
        room.store.failure = None
        assert "active" == (await later.attaching.of_caller(room.peer, ENTRIES, task.id)).state

    async def test_a_start_that_cannot_write(self, room, restart):
        """Where what becomes of the tasks cannot be written the agent does not start."""
        await room.begin()
        room.store.failure = StoreFailed("not now")
        with pytest.raises(StoreFailed):
            await restart()
        room.store.failure = None

    async def test_the_holder_is_held(self, room, restart):
        """A waiting task ends with its holder, and lets go of it."""
        with child() as process:
            task = await room.begin(holder=process)
            later = await restart()
            found = later.only
            process.kill()
            async with asyncio.timeout(20):
                while found.live:
                    await asyncio.sleep(0.01)
        assert ("revoked", "holder_exited", 0) == (found.state, found.reason, len(later.holders))
        assert task.id == found.id


class TestWindow:
    async def test_nobody_came(self, room, restart):
        """A task whose holder is not back in time ends; one whose holder is, does not."""
        task, other = await room.begin(), await room.begin()
        later = await restart()
        later.advance(REATTACH_SECONDS - 1)
        found = await later.attaching.of_caller(room.peer, ENTRIES, other.id)
        later.advance(1)
        assert (("revoked", RESTART), "active") == (
            (later.engine.tasks.find(task.id).state, later.engine.tasks.find(task.id).reason),
            found.state,
        )
        with pytest.raises(TaskOver):
            await later.engine.token(await later.attaching.of_caller(room.peer, ENTRIES, task.id), TICKETS, ())

    async def test_the_deadline_is_kept(self, room, restart):
        """A deadline is the same moment before and after."""
        await room.begin(max_seconds=60)
        room.clock.advance(55)
        later = await restart()
        later.advance(5)
        await later.engine.journal.drain()
        assert [("expired", "deadline")] == ends(room.store)

    async def test_idle_time_goes_on(self, room, restart):
        """A task that is not used for too long ends, the restart included."""
        task = await room.begin("idle")
        room.clock.advance(40)
        await room.engine.token(task, TICKETS, ())
        room.clock.advance(55)
        later = await restart()
        later.advance(5)
        await later.engine.journal.drain()
        assert [("expired", "idle")] == ends(room.store)


class TestEnds:
    @pytest.mark.parametrize(
        ("seconds", "name", "state", "reason"),
        [(900, "triage", "expired", "deadline"), (60, "idle", "expired", "idle")],
    )
    async def test_time_is_up(self, room, restart, seconds, name, state, reason):
        """A task whose time ran out while there was no agent has ended so."""
        await room.begin(name)
        room.clock.advance(seconds)
        later = await restart()
        assert ([], [(state, reason)]) == (later.engine.tasks.all(), ends(room.store))

    async def test_another_boot(self, room, restart):
        """After a start of the machine every task is over, whatever its pid is now."""
        task = await room.begin()
        room.store.same_boot = False
        later = await restart()
        assert ([], [("revoked", RESTART)]) == (later.engine.tasks.all(), ends(room.store))
        assert ("revoked", EPOCH + 1) == (room.store.rows[task.id][0], room.store.rows[task.id][1] >> 32)

    async def test_one_shot(self, room, restart):
        """A one-shot task never comes back."""
        task = await room.begin()
        damage(room.store, task, binding="one-shot")
        await restart()
        assert [("revoked", RESTART)] == ends(room.store)

    @pytest.mark.parametrize("types", [{"idle": TYPES["idle"]}, {"triage": task_type(token_ttl='"50s"')}])
    async def test_the_type_has_changed(self, room, restart, types):
        """A task whose type has gone, or is not the same, ends."""
        await room.begin()
        await restart(types=types)
        assert [("revoked", "policy_changed")] == ends(room.store)

    async def test_switched_off(self, room, restart):
        """A task whose type was switched off, but whose end was not on disk, ends."""
        await room.begin()
        await restart(blocks=[Block("type", "triage", "because", 0)])
        assert [("revoked", "blocked")] == ends(room.store)

    @pytest.mark.parametrize(
        "entries",
        [(), (entry("/agent/triage", expires_at=1),), (entry("/web", id=TRIAGE_ENTRY.id),)],
        ids=["gone", "expired", "another ID"],
    )
    async def test_the_entry_has_gone(self, room, restart, entries):
        """A task ends if the entry that earned its holder the identity is not served any more."""
        await room.begin()
        await restart(entries=entries)
        assert [("revoked", "attestation_changed")] == ends(room.store)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"start_time": 1}, "holder_exited"),
            ({"pid": 2**22 + 1}, "holder_exited"),
            ({"program": [0, 1]}, "attestation_changed"),
            ({"program": None}, "attestation_changed"),
            ({"cgroup_digest": "00"}, "attestation_changed"),
        ],
        ids=["pid used again", "no such pid", "another program", "program unseen before", "another cgroup"],
    )
    async def test_not_the_same_holder(self, room, restart, change, reason):
        """A task goes back to the very process that held it, running the program that it ran, where it was."""
        task = await room.begin()
        damage(room.store, task, holder={**task.record().document["holder"], **change})
        later = await restart()
        assert ([("revoked", reason)], 0) == (ends(room.store), len(later.holders))

    async def test_a_cgroup_that_was_not_noted(self, room, restart):
        """A task that an earlier release noted without its holder's cgroup goes back to its holder all the same."""
        task = await room.begin()
        holder = dict(task.record().document["holder"])
        del holder["cgroup_digest"]
        damage(room.store, task, holder=holder)
        assert "suspended" == (await restart()).only.state

    async def test_another_user(self, room, restart):
        """A process that has become another user holds nothing."""
        task = await room.begin()
        damage(room.store, task, uid=task.uid + 1)
        later = await restart()
        assert ([("revoked", "attestation_changed")], 0) == (ends(room.store), len(later.holders))

    async def test_the_holder_has_gone(self, room, restart):
        """A holder that died meanwhile holds nothing, collected or not."""
        with child() as process:
            await room.begin(holder=process)
            process.kill()
            process.wait()
            await restart()
        assert [("revoked", "holder_exited")] == ends(room.store)

    async def test_too_many_holders(self, room, restart):
        """Processes that cannot be held any more, since fewer may be, hold nothing."""
        await room.begin()
        await restart(holders=0)
        assert [("revoked", RESTART)] == ends(room.store)

    async def test_what_has_ended_is_left_alone(self, room, restart):
        """Ended tasks stay what they are, and a start on them alone writes nothing."""
        task = await room.begin()
        await room.engine.revoke(task, "because")
        before = room.store.rows[task.id]
        later = await restart()
        assert ([], before, []) == (later.engine.tasks.all(), room.store.rows[task.id], room.store.events)


class TestDamage:
    @pytest.mark.parametrize(
        "document",
        [b"", b"{", b"\xff", b"[]", b"{}", b"null", b"7", b"[" * 100_000],
        ids=["none", "torn", "no text", "list", "empty", "null", "number", "deep"],
    )
    async def test_no_document(self, room, restart, document):
        """A row that cannot be read ends its task and nothing else; what stood there is kept."""
        task, other = await room.begin(), await room.begin()
        room.store.documents[task.id] = document
        later = await restart()
        assert ([other.id], [("revoked", "journal_damaged")]) == (
            [each.id for each in later.engine.tasks.all()],
            ends(room.store),
        )
        kept = json.loads(room.store.documents[task.id])
        assert ("journal_damaged", document.decode("utf-8", "backslashreplace")) == (
            kept["reason"],
            kept["damaged_document"],
        )

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("type", 7),
            ("type_digest", None),
            ("spiffe_id", "http://example.org"),
            ("spiffe_id", None),
            ("entry_id", 7),
            ("uid", "0"),
            ("uid", True),
            ("grants", [{"resource": TICKETS, "actions": ["ticket:destroy"]}]),
            ("grants", [{"resource": "https://elsewhere.example.org", "actions": ["ticket:read"]}]),
            ("grants", "all"),
            ("params", {"ticket": 1.5}),
            ("params", {"ticket": ["T-1"]}),
            ("created_at", 1e300),
            ("expires_at", "never"),
            ("deadline", 1e300),
            ("deadline", float("nan")),
            ("deadline", float("inf")),
            ("deadline", None),
            ("last_used", 1e12),
            ("last_used", float("nan")),
            ("holder", {}),
            ("holder", {"pid": 1, "start_time": 1}),
            ("holder", {"pid": 2**80, "start_time": 1, "program": None}),
            ("holder", {"pid": 1, "start_time": 1, "program": [1, 2, 3]}),
            ("holder", {"pid": 1, "start_time": 1, "program": None, "cgroup_digest": None}),
            ("binding", "thread"),
            ("session", 1),
            ("selectors", ["uid"]),
            ("suspensions", {"operator": None}),
            ("tokens_issued", -0.5),
            ("calls", "none"),
            ("uses", [[TICKETS, "ticket:read", 1]]),
        ],
    )
    async def test_a_document_that_cannot_be(self, room, restart, name, value):
        """A document with a member that no task has is a damaged one: the task ends, and gains nothing by it."""
        task = await room.begin()
        damage(room.store, task, **{name: value})
        later = await restart()
        assert ([], [("revoked", "journal_damaged")]) == (later.engine.tasks.all(), ends(room.store))
        assert 0 == len(later.holders)

    @pytest.mark.parametrize("version", ["many", None, -1, 1.5, (EPOCH + 1) << 32])
    async def test_a_version_that_cannot_be(self, room, restart, version):
        """A version that no earlier run can have given is damage too."""
        task = await room.begin()
        room.store.rows[task.id] = ("active", version)
        await restart()
        assert ("revoked", EPOCH + 1) == (room.store.rows[task.id][0], room.store.rows[task.id][1] >> 32)
        assert [("revoked", "journal_damaged")] == ends(room.store)


class TestStrangers:
    @pytest.mark.parametrize("binding", ["process", "stream"])
    async def test_another_process(self, room, restart, binding):
        """Another process of the same user and identity finds no such task, as of one that is not there."""
        task = await room.begin()
        damage(room.store, task, binding=binding)
        later = await restart()
        other = peer_of(room.add(child()))
        room.callback(other.close)
        for attach in (later.attaching.of_caller, later.attaching.by_stream):
            said = []
            for name in (task.id, "tsk_none"):
                with pytest.raises(NotFound) as caught:
                    await attach(other, ENTRIES, name)
                said.append((caught.value.public, caught.value.detail))
            assert said[0] == said[1]
        assert "suspended" == later.only.state

    async def test_another_identity(self, room, restart):
        """A holder that has not the task's identity any more does not find it."""
        task = await room.begin()
        later = await restart()
        with pytest.raises(NotFound):
            await later.attaching.of_caller(room.peer, (entry("/web"),), task.id)

    async def test_a_descendant(self, room, restart):
        """In a session a descendant's call brings the task back, if the holder has the identity still."""
        command = ("sh", "-c", "exec 3<&0; cat <&3 & echo $!; wait")  # ends with its parent's standard input
        with child(*command) as process:
            pid = int(process.stdout.readline())
            task = await room.begin(holder=process, session=True)
            later = await restart()
            with closing(Peer.of_pid(pid)) as peer:
                later.identities.entries = ()
                with pytest.raises(PolicyDenied):
                    await later.attaching.of_caller(peer, ENTRIES, task.id)
                assert "suspended" == later.only.state
                later.identities.entries = ENTRIES
                assert "active" == (await later.attaching.of_caller(peer, ENTRIES, task.id)).state

    async def test_another_program(self, room, restart):
        """A holder that executes another program while its task waits gets nothing."""
        with child("sh", "-c", "read go; exec sleep 60") as process:
            task = await room.begin(holder=process, peer=(peer := peer_of(process)))
            later = await restart()
            before = holder_of(process)
            program = before.program()
            process.stdin.write(b"\n")
            process.stdin.flush()
            async with asyncio.timeout(20):
                while before.program() == program:
                    await asyncio.sleep(0.01)
            with pytest.raises(TaskOver):
                await later.attaching.of_caller(peer, ENTRIES, task.id)
            await later.engine.journal.drain()
            before.close()
            peer.close()
        assert [("revoked", "attestation_changed")] == ends(room.store)


class TestStream:
    @pytest.fixture
    async def later(self, room, restart):
        """The next run, with one task that is a stream."""
        damage(room.store, await room.begin(), binding="stream")
        return await restart()

    async def test_by_a_stream(self, room, later):
        """A task that is a stream goes back to a new stream of its holder's, once."""
        task = await later.attaching.by_stream(room.peer, ENTRIES, later.only.id)
        assert "active" == task.state
        with pytest.raises(FailedPrecondition):
            await later.attaching.by_stream(room.peer, ENTRIES, task.id)

    async def test_two_streams_at_once(self, room, later):
        """Of two streams that want it at once, one gets it."""
        both = [later.attaching.by_stream(room.peer, ENTRIES, later.only.id) for _ in range(2)]
        outcomes = await asyncio.gather(*both, return_exceptions=True)
        assert [FailedPrecondition] == [type(each) for each in outcomes if isinstance(each, Exception)]
        assert "active" == later.only.state

    async def test_not_by_a_call(self, room, later):
        """A call about it does not bring it back: nobody would hold it."""
        task = await later.attaching.of_caller(room.peer, ENTRIES, later.only.id)
        assert "suspended" == task.state

    async def test_after_a_failure(self, room, later):
        """A stream that could not have it leaves it to the next."""
        room.store.failure = StoreFailed("not now")
        with pytest.raises(StoreFailed):
            await later.attaching.by_stream(room.peer, ENTRIES, later.only.id)
        room.store.failure = None
        assert "active" == (await later.attaching.by_stream(room.peer, ENTRIES, later.only.id)).state

    async def test_of_a_process(self, room, restart):
        """A task of a process is not attached by a stream."""
        await room.begin()
        later = await restart()
        with pytest.raises(InvalidInput):
            await later.attaching.by_stream(room.peer, ENTRIES, later.only.id)

    async def test_one_that_is_over(self, room, later):
        """A task that is over is not had back, and says why."""
        task = later.only
        await later.engine.revoke(task, "admin")
        with pytest.raises(TaskOver, match="admin"):
            await later.attaching.by_stream(room.peer, ENTRIES, task.id)

    async def test_an_agent_that_stops(self, room, later):
        """An agent that is shutting down gives nothing back: the next run may."""
        later.engine.close()
        with pytest.raises(Unavailable):
            await later.attaching.by_stream(room.peer, ENTRIES, later.only.id)


class TestStop:
    async def test_tasks_stay(self, room):
        """An agent that stops leaves tasks as they are, tells their streams, and begins nothing more."""
        task = await room.begin()
        row, told = room.store.rows[task.id], []
        room.engine.on_change(task, lambda _: told.append(room.engine.closing))
        room.engine.close()
        await room.engine.journal.drain()
        assert ("active", row, [True]) == (task.state, room.store.rows[task.id], told)
        with pytest.raises(Unavailable):
            await room.begin()

    async def test_one_shot_ends(self, room):
        """Tasks that cannot come back end with the agent."""
        task = await room.begin()
        task.binding = "one-shot"
        room.engine.close()
        await room.engine.journal.drain()
        assert [("revoked", "agent_stopped")] == ends(room.store)
