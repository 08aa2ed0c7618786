"""policy_reload.py: another set of task types, and what becomes of the tasks that live under the old one."""

import asyncio

import pytest
from fakes.task_room import READ_TICKETS, Room
from fakes.task_types import PERMIT_ALL, TICKETS, WIKI, task_type
from sojourn.errors import ActionOutsideType, InvalidInput, PolicyDenied, TaskOver, UnknownTaskType
from sojourn.policy.task_types import TypeSet
from sojourn.tasks import policy_reload as reloading_module
from sojourn.tasks.policy_reload import PolicyReload
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasktoken.end_reasons import OPERATOR
from sojourn.tasktoken.grants import Authority, Grant

EVERYTHING = Authority((Grant(TICKETS, ("ticket:read", "ticket:write")), Grant(WIKI, ("page:read",))))
NO_WRITES = PERMIT_ALL + '@id("no-writes") forbid (principal, action == Sojourn::Action::"ticket:write", resource);'
NOTHING = '@id("none") forbid (principal, action, resource);'


def types(cedar=PERMIT_ALL, **changes):
    return TypeSet(triage=task_type(cedar=cedar, **changes), other=task_type("other"))


@pytest.fixture
async def room(clock):
    async with Room(clock, types()).running() as room:
        yield room


@pytest.fixture
def changing(room):
    return TaskChanges(room.engine)


@pytest.fixture
def reloading(room, changing):
    return PolicyReload(room.engine, changing)


class TestDecidedAgain:
    async def test_narrowed(self, room, reloading):
        """What is denied now is taken from a live task: its tokens are dead, validators and the journal know."""
        task = await room.begin(wanted=EVERYTHING)
        token = await room.engine.token(task, TICKETS, ["ticket:write"])
        with room.engine.feed.watch([TICKETS]) as watcher:
            [found] = await reloading.apply(types(NO_WRITES))
            assert [(task.id, task.version, True)] == [(each.id, each.version, each.live) for each in watcher.take()]
        assert ("narrow", ((TICKETS, "ticket:write"),), "policy denies it") == (found.outcome, found.lost, found.why)
        assert Authority((Grant(TICKETS, ("ticket:read",)), Grant(WIKI, ("page:read",)))) == task.authority
        with pytest.raises(TaskOver):
            room.engine.check_token(token)
        with pytest.raises(ActionOutsideType):
            await room.engine.token(task, TICKETS, ["ticket:write"])
        assert await room.engine.token(task, TICKETS, ["ticket:read"])
        assert "policy_changed" == room.store.fields("task_narrowed")[0]["reason"]
        assert ("active", task.version) == room.store.rows[task.id]

    @pytest.mark.parametrize(
        ("changed", "why"),
        [
            (types(NOTHING), "policy denies it"),
            (types(allowed_workloads='["spiffe://example.org/other"]'), "its workload may not begin this type"),
            (types(binding='["stream"]'), "may not be held as process"),
            (types(params='{need = {type = "string", required = true}}'), "'need' is required"),
            (
                types(ceiling='[{resource = "https://new.example.org", actions = ["ticket:read"]}]'),
                "the ceiling does not",
            ),
            (TypeSet(other=task_type("other")), "there is no such task type any more"),
        ],
        ids=["policy", "workload", "binding", "params", "ceiling", "gone"],
    )
    async def test_nothing_is_left(self, room, reloading, changed, why):
        """A task that the new set leaves nothing, or whose type is gone, is revoked; that is on disk before the answer."""
        task = await room.begin()
        token = await room.engine.token(task, TICKETS, ())
        [found] = await reloading.apply(changed)
        assert ("end", True) == (found.outcome, why in found.why)
        assert ("revoked", "policy_changed") == (task.state, task.reason)
        assert ("revoked", task.version) == room.store.rows[task.id]
        with pytest.raises(TaskOver):
            room.engine.check_token(token)

    async def test_kept(self, room, reloading):
        """A task that keeps all it has goes on, its tokens too, by the new type; tasks of other types are not asked."""
        task, other = await room.begin(wanted=READ_TICKETS), await room.begin("other")
        token = await room.engine.token(task, TICKETS, ())
        new = types(NO_WRITES, max_tokens="7")
        [found] = await reloading.apply(new)
        assert (task, "keep") == (found.task, found.outcome)
        room.engine.check_token(token)
        assert (new["triage"], 7) == (task.type, task.type.max_tokens)
        assert other.type.digest == new["other"].digest

    async def test_nothing_comes_back(self, room, reloading):
        """A set that allows more gives a live task nothing that it did not have."""
        await reloading.apply(types(NO_WRITES))
        task = await room.begin()
        before = task.authority
        await reloading.apply(types())
        assert before == task.authority

    async def test_what_is_compared_more(self, room, reloading):
        """Tokens of before are dead once a parameter more is to be compared with requests, and live on if it is none."""
        bind = {"params": '{ticket = "string"}', "bind": '{"ticket:read" = [], "ticket:write" = [], "page:read" = []}'}
        await reloading.apply(types(**bind))
        task = await room.begin()
        before = task.version
        await reloading.apply(types(**bind, description='"the same"'))
        assert before == task.version
        await reloading.apply(types(**{**bind, "bind": '{"ticket:write" = [], "page:read" = []}'}))
        assert before < task.version

    async def test_suspended_tasks_too(self, room, reloading, changing):
        """A suspended task is decided again and stays suspended; resumed it has no more than was left."""
        task, doomed = await room.begin(wanted=EVERYTHING), await room.begin(wanted=READ_TICKETS)
        for each in (task, doomed):
            await changing.suspend(each, OPERATOR, "why")
        only_writes = '@id("w") permit (principal, action == Sojourn::Action::"ticket:write", resource);'
        await reloading.apply(types(only_writes))
        assert ("suspended", "revoked") == (task.state, doomed.state)
        await changing.resume(task, OPERATOR)
        assert (("active"), (Grant(TICKETS, ("ticket:write",)),)) == (task.state, task.authority.grants)

    async def test_parameters_are_read_anew(self, room, reloading):
        """Parameters that break the new rules end a task; those that keep them have the new types."""
        kept, ended = await room.begin(params={"level": "5"}), await room.begin(params={"level": "50"})
        await reloading.apply(types(params='{level = {type = "string", pattern = "[0-9]"}}'))
        assert ({"level": "5"}, True, False) == (kept.params, kept.live, ended.live)

    async def test_a_shorter_life(self, room, clock, reloading):
        """A task lives no longer than its type says now, counted from its beginning, and is never prolonged."""
        task = await room.begin(max_seconds=600)
        clock.advance(10)
        await reloading.apply(types(max_duration='"1h"'))
        assert 590 == task.deadline - clock.boot()
        await reloading.apply(types(max_duration='"60s"'))
        assert (50, 60) == (task.deadline - clock.boot(), (task.expires_at - task.created_at).total_seconds())
        clock.advance(51)
        with pytest.raises(TaskOver, match="its time is up"):
            await room.engine.token(task, TICKETS, ())
        room.alarms.ring_due()
        assert ("expired", "deadline") == (task.state, task.reason)

    async def test_an_idle_timeout_that_comes_later(self, room, clock, reloading):
        """A type that ends idle tasks now ends those that began before, too."""
        task = await room.begin()
        await reloading.apply(types(idle_timeout='"30s"'))
        clock.advance(31)
        room.alarms.ring_due()
        assert ("expired", "idle") == (task.state, task.reason)


class TestNewTasks:
    async def test_by_the_new_set(self, room, reloading):
        """What begins afterwards is decided by the new set, and its record names that and the policies."""
        new = types(NO_WRITES)
        await reloading.apply(new)
        task = await room.begin()
        assert ("ticket:read",) == task.authority.at(TICKETS)
        await room.engine.token(task, WIKI, ())
        for event in ("task_begun", "token_issued"):
            assert new.digest == room.store.fields(event)[-1]["policy_set"]
        assert ["all", "no-writes"] == room.store.fields("task_begun")[-1]["policies"]
        assert ["all"] == room.store.fields("token_issued")[-1]["policies"]

    async def test_a_type_that_is_gone(self, room, reloading):
        """Of a type that is gone nothing begins."""
        await reloading.apply(TypeSet(other=task_type("other")))
        with pytest.raises(UnknownTaskType):
            await room.begin()

    async def test_while_it_begins(self, room, reloading):
        """A task whose record is being written when its type goes does not begin."""
        room.store.gate = asyncio.Event()
        beginning = asyncio.ensure_future(room.begin())
        await room.store.writing.wait()
        applying = asyncio.ensure_future(reloading.apply(TypeSet()))
        await asyncio.sleep(0)
        room.store.gate.set()
        with pytest.raises(TaskOver):
            await beginning
        await applying
        assert 0 == len(room.engine.tasks)

    async def test_a_binding_that_the_type_does_not_have(self, room, reloading):
        """A task is refused that is held otherwise than its type allows."""
        await reloading.apply(types(binding='["session"]'))
        with pytest.raises(PolicyDenied, match="may not be held as process: its type has session"):
            await room.begin()
        assert (await room.begin(session=True)).live

    async def test_a_required_parameter(self, room, reloading):
        """A task without a required parameter is refused, by the parameter's name."""
        await reloading.apply(types(params='{ticket = {type = "string", required = true}}'))
        with pytest.raises(InvalidInput, match="'ticket' is required"):
            await room.begin()


class TestRaces:
    async def test_resumed_meanwhile(self, room, reloading, changing):
        """A task that is being resumed when policy takes something from it does not come back with it."""
        task = await room.begin(wanted=EVERYTHING)
        await changing.suspend(task, OPERATOR, "why")
        room.store.gate = asyncio.Event()
        room.store.writing.clear()
        resuming = asyncio.ensure_future(changing.resume(task, OPERATOR))
        await room.store.writing.wait()
        applying = asyncio.ensure_future(reloading.apply(types(NO_WRITES)))
        await asyncio.sleep(0)
        room.store.gate.set()
        with pytest.raises(TaskOver, match="changed meanwhile"):
            await resuming
        await applying
        assert ("suspended", ("ticket:read",)) == (task.state, task.authority.at(TICKETS))
        assert ("suspended", task.version) == room.store.rows[task.id]

    async def test_a_token_meanwhile(self, room, reloading):
        """A token whose record is being written when policy denies it never leaves."""
        task = await room.begin()
        room.store.gate = asyncio.Event()
        room.store.writing.clear()
        asking = asyncio.ensure_future(room.engine.token(task, TICKETS, ["ticket:write"]))
        await room.store.writing.wait()
        applying = asyncio.ensure_future(reloading.apply(types(NO_WRITES)))
        await asyncio.sleep(0)
        room.store.gate.set()
        with pytest.raises(TaskOver):
            await asking
        await applying

    async def test_a_token_meanwhile_of_a_task_that_waits(self, room):
        """A token whose record is being written does not leave while the task has its new type and waits to be decided again."""
        task = await room.begin()
        room.store.gate = asyncio.Event()
        room.store.writing.clear()
        asking = asyncio.ensure_future(room.engine.token(task, TICKETS, ["ticket:write"]))
        await room.store.writing.wait()
        task.type = types(NO_WRITES)["triage"]
        room.store.gate.set()
        with pytest.raises(PolicyDenied):
            await asking

    async def test_not_by_the_old_set_while_others_wait(self, room, reloading, monkeypatch):
        """From the first moment no token is decided by the old set, though most tasks wait to be decided again."""
        monkeypatch.setattr(reloading_module, "REDECIDED_AT_ONCE", 1)
        tasks = [await room.begin() for _ in range(5)]
        applying = asyncio.ensure_future(reloading.apply(types(NO_WRITES)))
        await asyncio.sleep(0)
        assert tasks[-1].authority.at(TICKETS) == ("ticket:read", "ticket:write")
        with pytest.raises(PolicyDenied):
            await room.engine.token(tasks[-1], TICKETS, ["ticket:write"])
        assert ["narrow"] * 5 == [each.outcome for each in await applying]


class TestDryRun:
    async def test_says_what_would_be(self, room, reloading):
        """What a set would end, narrow and keep is said, and nothing is changed."""
        writer = await room.begin(wanted=Authority((Grant(TICKETS, ("ticket:write",)),)))
        both, reader = await room.begin(wanted=EVERYTHING), await room.begin(wanted=READ_TICKETS)
        await room.begin("other")
        before = [(each.version, each.authority, each.type) for each in (writer, both, reader)]
        found = {each.task: each.outcome for each in reloading.consequences(types(NO_WRITES))}
        assert {writer: "end", both: "narrow", reader: "keep"} == found
        assert before == [(each.version, each.authority, each.type) for each in (writer, both, reader)]
        assert found == {each.task: each.outcome for each in await reloading.apply(types(NO_WRITES))}

    async def test_the_same_set(self, room, reloading):
        """A set that is the same concerns nobody."""
        await room.begin()
        assert ([], []) == (reloading.consequences(types()), await reloading.apply(types()))


def test_the_set_s_digest():
    """The digest of a set is over names and contents, in whatever order they were loaded."""
    one, two = task_type("one"), task_type("two")
    assert TypeSet(one=one, two=two).digest == TypeSet(two=two, one=one).digest
    assert 4 == len(
        {each.digest for each in (TypeSet(), TypeSet(one=one), TypeSet(two=one), TypeSet(one=one, two=two))}
    )
