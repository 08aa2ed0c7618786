"""use_counter.py and action_limits.py: never one use more than the type allows, whatever is made at once and whatever fails."""

import asyncio
import json

import pytest
from fakes.families import FamilyRoom, handed_on, opened
from fakes.next_run import NextRun
from fakes.registrations import entry
from fakes.task_room import DEADLINE_SECONDS, TRIAGE_ENTRY, Room, end_all
from fakes.task_types import TICKETS, WIKI, task_type
from sojourn.errors import InvalidToken, StoreFailed, TaskOver
from sojourn.errors.oauth import ActionUsedUp, BindingNeeded, DigestNeeded, WrongParams
from sojourn.jose.jws import parse_unverified
from sojourn.policy.task_types import TypeSet
from sojourn.tasks.policy_reload import PolicyReload
from sojourn.tasks.single_use import SingleUses
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasks.use_counter import UseCounter
from sojourn.tasktoken.grants import Authority, Grant
from sojourn.tasktoken.request_record import Served

READ, WRITE = "ticket:read", "ticket:write"
DIGEST = "n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg"
ONE = {"limits": f'{{"{WRITE}" = 1}}'}
THREE = {"limits": f'{{"{WRITE}" = 3}}'}
MIXED = {"consequence_of": f'{{"{WRITE}" = "high"}}'}
TYPES = {
    "triage": task_type(**ONE),
    "thrice": task_type("thrice", **THREE),
    "free": task_type("free"),
    "mixed": task_type("mixed", **MIXED),
    "both": task_type("both", **ONE, **MIXED),
    "looks": task_type(
        "looks",
        '@id("all") permit (principal, action, resource);'
        f'@id("then-no-looks") forbid (principal, action == Sojourn::Action::"{READ}", resource)'
        f'when {{ principal.uses["{WRITE}"] >= 1 }};',
        **ONE,
    ),
}


class Court(Room):
    def __init__(self, clock, types=None):
        super().__init__(clock, types or TYPES)
        self.counting = UseCounter(self.engine, SingleUses(clock.boot))
        self.changing = TaskChanges(self.engine)

    async def token(self, task, actions=(WRITE,), **arguments):
        return await self.engine.token(task, TICKETS, actions, **arguments)

    async def race(self, racers):
        """What became of each racer: True, or its error's code."""
        outcomes = await asyncio.gather(*(self.counting.use(token, WRITE) for token in racers), return_exceptions=True)
        return sorted("passed" if each is None else each.code for each in outcomes)

    def on_disk(self, task):
        return json.loads(self.store.documents[task.id])["spent"]["counted"].get(WRITE, 0)


@pytest.fixture(name="room")
async def room_fixture(clock):
    async with Court(clock).running() as room:
        yield room


class TestCounting:
    @pytest.mark.parametrize(("name", "limit"), [("triage", 1), ("thrice", 3)])
    async def test_fifty_at_once(self, room, name, limit):
        """Of fifty who use an action at once exactly as many get through as the type says; the task lives on."""
        task = await room.begin(name)
        tokens = [await room.token(task) for _ in range(5)]
        found = await room.race(tokens * 10)
        assert ["limit_reached"] * (50 - limit) + ["passed"] * limit == found
        assert (True, limit) == (task.live, room.on_disk(task))

    async def test_a_batch(self, room):
        """A request that does its action several times is as many uses, all of them or none, and its record says so."""
        task = await room.begin("thrice")
        token = await room.token(task)
        with pytest.raises(ActionUsedUp, match="the request does it 4 times, with 3 left"):
            await room.counting.use(token, WRITE, Served(times=4))
        await room.counting.use(token, WRITE, Served(times=2))
        with pytest.raises(ActionUsedUp, match="the request does it 2 times, with 1 left"):
            await room.counting.use(token, WRITE, Served(times=2))
        await room.counting.use(token, WRITE)
        assert 3 == room.on_disk(task)
        assert [(2, 2), (3, None)] == [
            (each["counted"], each.get("times")) for each in room.store.fields("use_counted")
        ]

    async def test_a_batch_that_cannot_be_written(self, room):
        """A batch that could not be written does not pass, and nothing of it is spent."""
        task = await room.begin("thrice")
        token = await room.token(task)
        room.store.failure = StoreFailed("no room")
        with pytest.raises(StoreFailed):
            await room.counting.use(token, WRITE, Served(times=3))
        room.store.failure = None
        await room.counting.use(token, WRITE, Served(times=3))
        assert 3 == room.on_disk(task)

    async def test_on_disk_first(self, room):
        """Nobody is told yes before the count is on disk."""
        task = await room.begin()
        token = await room.token(task)
        room.store.gate = asyncio.Event()
        using = asyncio.ensure_future(room.counting.use(token, WRITE))
        await asyncio.wait([using], timeout=0.05)
        assert (False, 0) == (using.done(), room.on_disk(task))
        room.store.gate.set()
        await using
        assert 1 == room.on_disk(task)

    async def test_it_is_told(self, room):
        """Each use that was counted is in the audit, with its token, and which one of how many it was."""
        task = await room.begin("thrice")
        token = await room.token(task)
        await room.counting.use(token, WRITE)
        await room.counting.use(token, WRITE)
        said = room.store.fields("use_counted")
        assert [(1, 3), (2, 3)] == [(each["counted"], each["limit"]) for each in said]
        assert {(task.id, TICKETS, WRITE, token.claims["jti"])} == {
            (each["task"], each["resource"], each["action"], each["jti"]) for each in said
        }

    async def test_what_cannot_be_written(self, room):
        """A use that could not be written does not pass, and is not spent."""
        task = await room.begin()
        token = await room.token(task)
        room.store.failure = StoreFailed("no room")
        with pytest.raises(StoreFailed):
            await room.counting.use(token, WRITE)
        room.store.failure = None
        assert ["limit_reached", "passed"] == await room.race([token, token])

    async def test_a_disk_that_takes_nothing(self, room):
        """Where an earlier change of the task is not on disk, and the disk takes nothing, a use is refused at once."""
        task = await room.begin()
        token = await room.token(task)
        room.store.failure = StoreFailed("no room")
        room.engine.journal.later(task.record(), room.engine.event("family_used", task))
        async with asyncio.timeout(DEADLINE_SECONDS):
            with pytest.raises(StoreFailed, match="an earlier change of the task is not on disk yet"):
                await room.counting.use(token, WRITE)
        room.store.failure = None
        assert ["limit_reached", "passed"] == await room.race([token, token])

    async def test_an_answer_that_is_lost(self, room):
        """A use whose caller went away while it was written stays spent."""
        task = await room.begin()
        token = await room.token(task)
        room.store.gate = asyncio.Event()
        using = asyncio.ensure_future(room.counting.use(token, WRITE))
        await room.store.writing.wait()
        await asyncio.sleep(0)
        using.cancel()
        await asyncio.wait([using])
        room.store.gate.set()
        await room.store.quiet()
        assert ["limit_reached"] == await room.race([token])
        assert 1 == room.on_disk(task)

    async def test_a_caller_who_goes_away_before(self, room):
        """One who goes away while an earlier change of the task is still to be written has spent nothing."""
        task = await room.begin()
        token = await room.token(task)
        room.store.gate = asyncio.Event()
        room.engine.journal.later(task.record(), room.engine.event("something", task))
        using = asyncio.ensure_future(room.counting.use(token, WRITE))
        await asyncio.wait([using], timeout=0.05)
        using.cancel()
        await asyncio.wait([using])
        room.store.gate.set()
        assert ["limit_reached", "passed"] == await room.race([token, token])

    async def test_a_task_that_is_suspended_meanwhile(self, room):
        """A use does not pass if its task is suspended while it is written, and is not spent then."""
        task = await room.begin()
        token = await room.token(task)
        room.store.gate = asyncio.Event()
        using = asyncio.ensure_future(room.counting.use(token, WRITE))
        await room.store.writing.wait()
        room.changing.hold(task, "operator", "wait")
        room.store.gate.set()
        with pytest.raises(TaskOver):
            await using
        await room.changing.resume(task, "operator")
        again = await room.token(task)
        assert ["limit_reached", "passed"] == await room.race([again, again])

    async def test_a_suspended_task(self, room):
        """While a task is suspended none of its uses passes, and none is spent."""
        task = await room.begin()
        token = await room.token(task)
        await room.changing.suspend(task, "operator", "wait")
        assert ["task_not_active"] == await room.race([token])
        assert {} == dict(task.spent.counted)

    async def test_no_action_named(self, room):
        """Where nobody says which action it is, a token that has a counted one lets nothing through."""
        token = await room.token(await room.begin(), (READ, WRITE))
        with pytest.raises(WrongParams):
            await room.counting.use(token, "")

    async def test_for_no_action(self, room):
        """What is for no action of the task's spends no use, whatever the token has."""
        task = await room.begin()
        await room.counting.use(await room.token(task, (READ, WRITE)), None)
        assert {} == dict(task.spent.counted)

    async def test_other_actions(self, room):
        """Actions without a limit are not counted, and nothing is written for them."""
        task = await room.begin()
        token = await room.token(task, (READ, WRITE))
        before = list(room.store.names)
        for _ in range(3):
            await room.counting.use(token, READ)
        await room.counting.use(await room.token(await room.begin("free")), WRITE)
        assert {} == dict(task.spent.counted)
        assert {"task_begun", "token_issued"} >= set(room.store.names[len(before) :])

    async def test_a_token_that_is_good_once(self, room):
        """A token of class high that was used up spends no second use; nor does a spent limit use up another token."""
        task = await room.begin("both")
        token = await room.token(task, agent_key=True, params_digest=DIGEST)
        other = await room.token(task, agent_key=True, params_digest=DIGEST)
        await room.counting.use(token, WRITE)
        with pytest.raises(ActionUsedUp):
            await room.counting.use(other, WRITE)
        assert not room.counting._uses.has(other)

    async def test_a_task_that_is_gone(self, room):
        """Of a task that has ended nothing passes."""
        task = await room.begin()
        token = await room.token(task)
        room.engine.end(task, "completed", "success")
        with pytest.raises((InvalidToken, TaskOver)):
            await room.counting.use(token, WRITE)

    async def test_after_a_restart(self, room, stack):
        """What was spent before the agent was killed is spent after it."""
        task = await room.begin("thrice")
        await room.counting.use(await room.token(task), WRITE)
        await room.counting.use(await room.token(task), WRITE)
        later = await NextRun.after(room, stack)
        back = await later.attach(room.peer, task, TRIAGE_ENTRY)
        counting = UseCounter(later.engine, SingleUses(later.clock.boot))
        token = await later.engine.token(back, TICKETS, (WRITE,))
        await counting.use(token, WRITE)
        with pytest.raises(ActionUsedUp):
            await counting.use(token, WRITE)
        end_all(later.engine)
        await later.engine.journal.drain()


class TestFamilies:
    """Handing a task on multiplies nothing."""

    @pytest.fixture(name="family")
    async def family_fixture(self, clock, stack):
        return await opened(FamilyRoom(clock, handed_on(**THREE)), stack)

    async def test_all_together(self, family):
        """A task and all that came of it share one limit, however they race."""
        task = await family.begin()
        child = await family.hand_on(task, 0)
        grandchild = await family.hand_on(child, 1)
        counting = UseCounter(family.engine, SingleUses(family.clock.boot))
        racers = [await family.engine.token(each, TICKETS, (WRITE,)) for each in (task, child, grandchild)]
        outcomes = await asyncio.gather(*(counting.use(each, WRITE) for each in racers * 17), return_exceptions=True)
        assert 3 == outcomes.count(None)
        assert all(isinstance(each, ActionUsedUp) for each in outcomes if each is not None)

    @pytest.mark.parametrize("ends", [True, False])
    async def test_after_a_restart(self, family, stack, ends):
        """What a child used is spent for its parent also after a kill, whether or not the child had ended before."""
        task = await family.begin()
        child = await family.hand_on(task, 0)
        counting = UseCounter(family.engine, SingleUses(family.clock.boot))
        for _ in range(3):
            await counting.use(await family.engine.token(child, TICKETS, (WRITE,)), WRITE)
        if ends:
            await family.engine.complete(child, failed=False)
        entries = (TRIAGE_ENTRY, entry("/agent/w0"))
        later = await NextRun.after(family, stack, entries=entries)
        back = await later.attach(family.peer, task, TRIAGE_ENTRY)
        with pytest.raises(ActionUsedUp):
            await later.engine.token(back, TICKETS, (WRITE,))
        end_all(later.engine)
        await later.engine.journal.drain()

    async def test_the_root_is_written_alone(self, family):
        """A use by a child is written with the root of its family, while other changes of the child wait."""
        task = await family.begin()
        child = await family.hand_on(task, 0)
        token = await family.engine.token(child, TICKETS, (WRITE,))
        await UseCounter(family.engine, SingleUses(family.clock.boot)).use(token, WRITE)
        assert {WRITE: 1} == json.loads(family.store.documents[task.id])["spent"]["counted"]


class TestTokens:
    """What tokens say of counted actions, and which of them are given."""

    async def test_it_says_that_we_must_be_asked(self, room):
        """A token with a counted action names it, in a way that whoever does not know of it must refuse the token."""
        task = await room.begin()
        token = await room.token(task, (READ, WRITE))
        assert ((WRITE,), [WRITE]) == (token.asks, token.claims["task"]["asks"])
        header = json.loads(_decoded(token.token.split(".")[0]))
        assert header["crit"] == [name for name in header if name.startswith("urn:")]
        assert token.asks == room.engine.issuing.verify(token.token, audience=TICKETS).asks
        plain = await room.token(task, (READ,))
        assert () == plain.asks
        assert "crit" not in json.loads(_decoded(plain.token.split(".")[0]))

    async def test_no_more_are_given(self, room):
        """Once an action is used up a token for it is refused, and one that names no actions is for the others."""
        task = await room.begin()
        await room.counting.use(await room.token(task), WRITE)
        with pytest.raises(ActionUsedUp, match="'ticket:write' once"):
            await room.token(task, (READ, WRITE))
        assert (READ,) == (await room.token(task, ())).actions
        assert task.live

    async def test_nothing_is_left(self, clock):
        """A task whose only action is used up gets no token that names none."""
        ceiling = f'[{{resource = "{TICKETS}", actions = ["{WRITE}"]}}]'
        async with Court(clock, {"triage": task_type(ceiling=ceiling, **ONE)}).running() as room:
            task = await room.begin()
            await room.counting.use(await room.token(task), WRITE)
            with pytest.raises(ActionUsedUp):
                await room.token(task, ())

    async def test_policy_reads_it(self, room):
        """Policies read how often a counted action was done."""
        task = await room.begin("looks")
        assert await room.token(task, (READ,))
        await room.counting.use(await room.token(task), WRITE)
        with pytest.raises(Exception, match="then-no-looks"):
            await room.token(task, (READ,))

    async def test_the_class_of_a_token(self, room):
        """A token is of the highest class of its actions: that of the others needs neither digest nor binding."""
        task = await room.begin("mixed")
        assert "normal" == (await room.token(task, (READ,))).task_class
        for actions in ((WRITE,), (READ, WRITE)):
            with pytest.raises(BindingNeeded):
                await room.token(task, actions, params_digest=DIGEST)
            with pytest.raises(DigestNeeded):
                await room.token(task, actions, agent_key=True)
            assert "high" == (await room.token(task, actions, agent_key=True, params_digest=DIGEST)).task_class

    async def test_no_actions_named(self, room):
        """Whoever names no actions gets, without a digest, those that need none, and with a digest all of them."""
        task = await room.begin("mixed")
        low = await room.token(task, ())
        assert ((READ,), "normal") == (low.actions, low.task_class)
        high = await room.token(task, (), agent_key=True, params_digest=DIGEST)
        assert ((READ, WRITE), "high") == (high.actions, high.task_class)

    async def test_what_else_there_is(self, room):
        """A token for which no actions were named says what else the task may do there, and another one does not."""
        task = await room.begin("both")
        token = await room.token(task, ())
        assert ([WRITE], (READ, WRITE)) == (token.claims["task"]["also"], token.listed)
        assert (READ,) == (await room.token(task, (READ,))).listed
        digest = {"agent_key": True, "params_digest": DIGEST}
        assert (WRITE,) == (await room.token(task, (WRITE,), **digest)).listed
        await room.counting.use(await room.token(task, (WRITE,), **digest), WRITE)
        assert (READ,) == (await room.token(task, ())).listed  # once it is used up, that is no longer so

    async def test_how_long_they_are_good(self, room):
        """A token of class high is good for fifteen seconds, and one of the same type's other actions for longer."""
        task = await room.begin("mixed")
        now = room.clock.now()
        high = await room.token(task, (WRITE,), agent_key=True, params_digest=DIGEST)
        assert 15 == (high.expires_at - now).total_seconds()
        assert 60 == ((await room.token(task, (READ,))).expires_at - now).total_seconds()

    @pytest.mark.parametrize("changes", [ONE, MIXED])
    async def test_a_type_that_asks_for_more(self, room, changes):
        """Where a change of the type counts an action or makes it high, the tokens that do not say so die at once."""
        task = await room.begin("free")
        tokens = [await room.token(task, (action,)) for action in (READ, WRITE)]
        types = TypeSet({**TYPES, "free": task_type("free", **changes)})
        await PolicyReload(room.engine, room.changing).apply(types)
        for token in tokens:
            with pytest.raises(TaskOver):
                room.engine.check_token(token)
        assert task.live

    async def test_what_a_change_would_do(self, room):
        """Asked what another set would do to tasks, also one that counts other actions, policy answers as ever."""
        counting = await room.begin("looks")
        await room.counting.use(await room.token(counting), WRITE)
        reloading = PolicyReload(room.engine, room.changing)
        for changes in ({}, {"limits": f'{{"{READ}" = 1}}'}, {"limits": f'{{"{READ}" = 1, "{WRITE}" = 2}}'}):
            found = reloading.consequences(TypeSet({**TYPES, "looks": task_type("looks", **changes)}))
            assert ["keep"] == [each.outcome for each in found]

    async def test_a_type_that_changes_otherwise(self, room):
        """A change that asks for nothing more leaves tokens good."""
        task = await room.begin("free")
        token = await room.token(task, (WRITE,))
        await PolicyReload(room.engine, room.changing).apply(
            TypeSet({**TYPES, "free": task_type("free", max_tokens=9)})
        )
        room.engine.check_token(token)

    async def test_several_resources(self, room):
        """What a limit counts is the action, wherever it is done; others are as they were."""
        task = await room.begin(wanted=Authority((Grant(WIKI, ("page:read",)), Grant(TICKETS, (WRITE,)))))
        assert () == (await room.engine.token(task, WIKI, ())).asks


def _decoded(segment):
    import base64

    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


@pytest.mark.parametrize(
    "change",
    [
        {"crit": ["exp"]},
        {"crit": ["urn:sojourn:jose:asks"]},
        {"urn:sojourn:jose:asks": True},
        {"crit": ["urn:sojourn:jose:asks"], "urn:sojourn:jose:asks": False},
        {"crit": ["urn:sojourn:jose:asks", "b64"], "urn:sojourn:jose:asks": True, "b64": False},
        {"crit": ["urn:sojourn:jose:asks"], "urn:sojourn:jose:asks": True, "typ": "JWT"},
    ],
)
def test_no_other_critical_header(change):
    """A header that is critical and not exactly ours, or in a token of another type, is refused (RFC 7515, 4.1.11)."""
    import base64

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    header = {"alg": "ES256", "typ": "at+jwt", "kid": "k", **change}
    with pytest.raises(InvalidToken):
        parse_unverified(f"{part(header)}.{part({})}.AAAA")
