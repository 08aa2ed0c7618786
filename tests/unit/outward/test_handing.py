"""What providers give is handed out to the task that it was obtained for, while it lives, and to no other."""

import asyncio
from datetime import timedelta

import pytest
from fakes.handing_room import CEILING, CLOUD, ORDERS, OutsideRoom, outside_type
from fakes.task_types import TICKETS
from sojourn.errors import (
    ActionOutsideType,
    BudgetSpent,
    InvalidInput,
    InvalidTarget,
    LimitExceeded,
    PolicyDenied,
    StoreFailed,
    TaskOver,
)
from sojourn.limits import PROVIDER_CREDENTIALS_PER_TASK
from sojourn.oversight.facts import OPERATOR as SAID
from sojourn.oversight.facts import Publication
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.provider import Obtained
from sojourn.tasks.grants import Authority, Grant
from sojourn.tasks.reasons import OPERATOR
from sojourn.tasks.types import TypeSet

READ = Authority((Grant(ORDERS, ("orders:read",)),))
LIFE = 300


@pytest.fixture
async def room():
    async with OutsideRoom().running() as made:
        yield made


@pytest.fixture
async def task(room):
    return await room.begin()


async def started(provider, number=1):
    """Return when so many exchanges are under way."""
    async with asyncio.timeout(20):
        while provider.running < number:
            await asyncio.sleep(0)


class TestGive:
    async def test_what_is_told(self, room, task):
        """A credential is handed out with who gave it, what it is for, until when it is good, and how it ends."""
        given = await room.give(task, ORDERS, ("orders:read",))
        assert given.token == f"{task.id}|{ORDERS}|orders:read|1"
        assert (ORDERS, ("orders:read",), "Bearer") == (given.resource, given.actions, given.token_type)
        assert ("corp", "revoke", {"audience": "orders"}) == (given.provider, given.recall, given.public)
        assert given.expires_at == room.clock.now() + timedelta(seconds=LIFE)
        assert given.details == {"type": "triage", "actions": ["orders:read"], "locations": [ORDERS]}

    async def test_what_the_provider_is_asked(self, room, task):
        """The provider hears the task, the workload, the actions asked for alone, and when the task ends."""
        await room.give(task, ORDERS, ("orders:read",))
        (wanted,) = room.corp.wanted
        assert (task.id, "triage", task.spiffe_id) == (wanted.task_id, wanted.task_type, wanted.spiffe_id)
        assert (ORDERS, ("orders:read",)) == (wanted.resource, wanted.actions)
        assert ("orders", task.expires_at) == (wanted.ask.audience, wanted.ends)

    async def test_no_oauth_token(self, room, task):
        """What is no OAuth token says how to read it."""
        given = await room.give(task, CLOUD)
        assert ("N_A", "urn:example:keys", "none") == (given.token_type, given.issued_type, given.recall)

    async def test_of_no_use_to_who_asks(self, room, task):
        """What whoever asks can do nothing with is not handed out, and no record says that it was."""

        def fits(issued_type):
            raise InvalidInput(f"not {issued_type}")

        with pytest.raises(InvalidInput, match="urn:example:keys"):
            await room.give(task, CLOUD, fits=fits)
        assert [] == await room.noted("external_credential_handed_out")

    async def test_our_own_resources(self, room, task):
        """For a resource whose tokens are our own there is nothing to be had from a provider."""
        with pytest.raises(InvalidTarget):
            await room.give(task, TICKETS)

    @pytest.mark.parametrize(
        ("resource", "actions", "error"),
        [("https://elsewhere.example", (), InvalidTarget), (ORDERS, ("orders:write",), ActionOutsideType)],
    )
    async def test_outside_of_the_task(self, room, task, resource, actions, error):
        """What the task does not have no provider is asked for."""
        with pytest.raises(error):
            await room.give(task, resource, actions)
        assert [] == room.corp.wanted

    @pytest.mark.parametrize("most", ["provider", "task", "not_after"])
    async def test_it_ends_with_whatever_ends_first(self, room, most):
        """A credential is told to end with itself, its task, or what the caller shows, whichever is first."""
        task = await room.begin(max_seconds=60 if most == "task" else 0)
        now = room.clock.now()
        not_after = now + timedelta(seconds=10) if most == "not_after" else None
        given = await room.give(task, not_after=not_after)
        assert given.expires_at == now + timedelta(seconds={"provider": LIFE, "task": 60, "not_after": 10}[most])

    async def test_a_provider_that_gives_more_than_the_task_has(self, room):
        """A credential that outlives its task is told to end with it."""
        task = await room.begin(max_seconds=60)
        ends = room.clock.now() + timedelta(hours=1)
        exchange = room.corp.exchange

        async def too_long(wanted, mint):
            await exchange(wanted, mint)
            return room.corp.obtained(wanted, expires_at=ends)

        room.corp.exchange = too_long
        assert (await room.give(task)).expires_at == task.expires_at

    async def test_less_than_a_second(self, room, task):
        """Nothing is handed out that is over before it can be used."""
        with pytest.raises(TaskOver, match="less than a second"):
            await room.give(task, not_after=room.clock.now() + timedelta(seconds=0.5))


class TestPolicy:
    async def test_it_decides_on_each(self):
        """Policy is asked for each hand-out, also of what is there already."""
        cedar = '@id("few") permit (principal, action, resource) when { principal.calls < 1 };'
        async with OutsideRoom({"triage": outside_type(cedar=cedar)}).running() as room:
            task = await room.begin()
            await room.give(task)
            room.engine.report_use(task, ORDERS, "orders:read")
            with pytest.raises(PolicyDenied):
                await room.give(task)
            assert len(room.corp.wanted) == 1
            assert [ORDERS] == [each.get("resource", ORDERS) for each in await room.noted("token_denied")]

    async def test_narrower_is_another_credential(self, room, task):
        """What is asked for fewer actions is obtained for those alone."""
        whole, part = await room.give(task), await room.give(task, ORDERS, ("orders:list",))
        assert whole.token != part.token
        assert [("orders:list", "orders:read"), ("orders:list",)] == [each.actions for each in room.corp.wanted]


class TestCache:
    async def test_it_is_obtained_once(self, room, task):
        """Whoever asks for the same of a task again is given the same."""
        first, again = await room.give(task), await room.give(task)
        assert (first.token, 1) == (again.token, len(room.corp.wanted))

    async def test_never_for_another_task(self, room, task):
        """Two tasks of one workload and one type have credentials of their own."""
        other = await room.begin()
        first, second = await room.give(task), await room.give(other)
        assert first.token.startswith(task.id)
        assert second.token.startswith(other.id)

    async def test_the_time_left_is_told(self, room, task):
        """What is handed out again is told to end when it does."""
        first = await room.give(task)
        room.clock.advance(100)
        assert first.expires_at == (await room.give(task)).expires_at

    async def test_it_ends(self, room, task):
        """What has expired is not handed out: another one is obtained."""
        first = await room.give(task)
        room.clock.advance(LIFE)
        second = await room.give(task)
        assert first.token != second.token
        assert second.expires_at == room.clock.now() + timedelta(seconds=LIFE)

    @pytest.mark.parametrize("step", [-3600, 3600])
    async def test_a_step_of_the_wall_clock_revives_nothing(self, room, task, step):
        """Credentials end on the boot clock, and no later by the wall clock than the provider said."""
        first = await room.give(task)
        room.clock.step_wall(step)
        again = await room.give(task)
        assert again.expires_at == room.clock.now() + timedelta(seconds=LIFE)
        assert (step < 0) == (first.token == again.token)
        room.clock.advance(LIFE)
        assert (await room.give(task)).token not in {first.token, again.token}

    async def test_so_many_of_a_task(self):
        """Of one task so many are kept in memory; the oldest goes first."""
        actions = [f"a{number}" for number in range(8)]
        ceiling = f'[{{resource = "{ORDERS}", actions = {actions}, provider = "corp"}}]'
        async with OutsideRoom({"triage": outside_type(ceiling=ceiling)}).running() as room:
            task = await room.begin()
            for number in range(1, PROVIDER_CREDENTIALS_PER_TASK + 11):
                await room.give(task, ORDERS, [name for bit, name in enumerate(actions) if number >> bit & 1])
            assert len(room.handing) == PROVIDER_CREDENTIALS_PER_TASK

    async def test_another_type_is_asked_by_anew(self, room, task):
        """What was obtained by what the task type said before is not handed out after it says something else."""
        first = await room.give(task)
        task.type = outside_type(ceiling=CEILING.replace('audience = "orders"', 'audience = "others"'))
        second = await room.give(task)
        assert first.token != second.token
        assert ["orders", "others"] == [each.ask.audience for each in room.corp.wanted]


class TestSingleFlight:
    async def test_all_wait_for_one(self, room, task):
        """A hundred that ask at once for the same are given one credential, obtained once."""
        room.corp.gate = asyncio.Event()
        asking = [asyncio.ensure_future(room.give(task)) for _ in range(100)]
        await started(room.corp)
        room.corp.gate.set()
        assert len({each.token for each in await asyncio.gather(*asking)}) == 1
        assert len(room.corp.wanted) == 1

    async def test_one_that_goes_away_takes_nobody_along(self, room, task):
        """When the first who asked is gone the others are given what it asked for."""
        room.corp.gate = asyncio.Event()
        first = asyncio.ensure_future(room.give(task))
        await started(room.corp)
        second = asyncio.ensure_future(room.give(task))
        await asyncio.sleep(0)
        first.cancel()
        room.corp.gate.set()
        assert (await second).token.endswith("|1")

    async def test_when_all_go_away_it_is_kept(self, room, task):
        """An exchange goes on though nobody waits for it, and whoever comes next is given what it brought."""
        room.corp.gate = asyncio.Event()
        first = asyncio.ensure_future(room.give(task))
        await started(room.corp)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        room.corp.gate.set()
        await room.quiet()
        assert (await room.give(task)).token.endswith("|1")

    async def test_a_failure_is_everybody_s(self, room, task):
        """All who waited are told the same; the next who asks has it tried anew."""
        room.corp.gate = asyncio.Event()
        room.corp.script = [ProviderRefused("no such client")]
        asking = [asyncio.ensure_future(room.give(task)) for _ in range(3)]
        await started(room.corp)
        room.corp.gate.set()
        for each in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(each, ProviderRefused)
        assert (await room.give(task)).token.endswith("|2")


class TestRefreshedAhead:
    @pytest.mark.parametrize("life", [8, LIFE, 3600])
    async def test_behind_what_is_there(self, room, life):
        """Past three quarters of its life another one is obtained, while what is there is handed out at once."""
        task = await room.begin()
        room.corp.life = min(life, 700)
        first = await room.give(task)
        room.clock.advance(room.corp.life * 0.76)
        room.corp.gate = asyncio.Event()
        assert first.token == (await room.give(task)).token
        await started(room.corp)
        assert first.token == (await room.give(task)).token
        room.corp.gate.set()
        await room.quiet()
        second = await room.give(task)
        assert (first.token, 2) != (second.token, len(room.corp.wanted))
        assert len(room.corp.wanted) == 2

    async def test_not_before(self, room, task):
        """What has most of its life left is left alone."""
        await room.give(task)
        room.clock.advance(LIFE * 0.74)
        await room.give(task)
        await room.quiet()
        assert len(room.corp.wanted) == 1

    async def test_with_next_to_nothing_left_the_next_one_is_waited_for(self, room, task):
        """Nobody is given what would end on its way."""
        first = await room.give(task)
        room.clock.advance(LIFE - 4)
        assert first.token != (await room.give(task)).token

    async def test_a_provider_that_is_down_takes_nothing_away(self, room, task):
        """What is there is handed out to its end, though another one cannot be had."""
        first = await room.give(task)
        for seconds in (LIFE - 20, 17):
            room.clock.advance(seconds)
            room.corp.script = [ProviderUnavailable("down") for _ in range(10)]
            assert first.token == (await room.give(task)).token
            await room.quiet()
        room.clock.advance(3)
        with pytest.raises(ProviderUnavailable):
            await room.give(task)

    async def test_not_for_what_ends_with_its_task(self, room):
        """A credential that is good as long as its task needs no successor."""
        task = await room.begin(max_seconds=100)
        first = await room.give(task)
        room.clock.advance(97)
        assert first.token == (await room.give(task)).token
        await room.quiet()
        assert len(room.corp.wanted) == 1


class TestOver:
    async def test_after_the_end(self, room, task):
        """A task that is over is given nothing, and nothing of it stays in memory."""
        await room.give(task)
        room.engine.end(task, "completed", "success")
        with pytest.raises(TaskOver):
            await room.give(task)
        assert len(room.handing) == 0

    @pytest.mark.parametrize("change", ["end", "suspend", "narrow", "supersede", "type"])
    @pytest.mark.parametrize("moment", ["asking", "exchange", "holding"])
    async def test_while_it_is_obtained(self, room, task, change, moment):
        """What was asked for before the task ended or changed is not handed out after it, whenever that comes."""
        gate = asyncio.Event()
        if moment == "exchange":
            room.corp.gate = gate
        elif moment == "asking":
            room.book.gate = gate
        asking = asyncio.ensure_future(room.give(task, ORDERS, ("orders:read",)))
        if moment == "exchange":
            await started(room.corp)
        elif moment == "holding":
            await room.corp.came.wait()
            room.book.gate = gate
        for _ in range(20):
            await asyncio.sleep(0)
        assert not asking.done()
        if change == "end":
            room.engine.end(task, "revoked", "test")
        elif change == "suspend":
            room.changing.hold(task, OPERATOR, "test")
        elif change == "narrow":
            room.changing.take(task, READ, "test")
        elif change == "type":
            task.type = outside_type(ceiling=CEILING.replace('audience = "orders"', 'audience = "others"'))
        else:
            room.changing.supersede(task)
        gate.set()
        with pytest.raises(TaskOver):
            await asking
        if change == "type":
            assert "others" == (await room.give(task, ORDERS, ("orders:read",))).public["audience"]
            return
        assert len(room.handing) == 0
        if change in {"narrow", "supersede"}:  # it lives on, and gets another
            assert (await room.give(task, ORDERS, ("orders:read",))).token

    @pytest.mark.parametrize("change", ["suspend", "narrow", "supersede"])
    async def test_what_was_there_before_a_change(self, room, task, change):
        """What a task had before it was suspended or narrowed it is not given again."""
        first = await room.give(task, ORDERS, ("orders:read",))
        if change == "narrow":
            room.changing.take(task, READ, "test")
        elif change == "supersede":
            room.changing.supersede(task)
        else:
            await room.changing.suspend(task, OPERATOR, "test")
            with pytest.raises(TaskOver):
                await room.give(task, ORDERS, ("orders:read",))
            await room.changing.resume(task, OPERATOR)
        assert first.token != (await room.give(task, ORDERS, ("orders:read",))).token

    async def test_a_task_that_ends_as_it_is_obtained_has_it_in_the_book(self, room, task):
        """What comes after the task's end is in the book, to be taken back."""
        room.corp.gate = asyncio.Event()
        asking = asyncio.ensure_future(room.give(task))
        await started(room.corp)
        room.engine.end(task, "completed", "success")
        room.corp.gate.set()
        with pytest.raises(TaskOver):
            await asking
        assert [("asking", "ext_1"), ("ending", "ext_1")] == room.book.written

    async def test_a_holder_that_has_gone(self, room, task):
        """A task whose holder is gone is given nothing of what is there."""
        await room.give(task)
        room.process.kill()
        await room.ended(task)
        with pytest.raises(TaskOver):
            await room.give(task)


class TestFacts:
    CEDAR = (
        '@id("calm") permit (principal, action, resource) unless { context.facts has alarm && context.facts.alarm };'
    )
    FACTS = '{alarm = {type = "boolean", on_deny = "narrow"}}'

    async def test_policy_is_asked_again_if_they_change(self):
        """Facts that change during an exchange are decided on before anything is handed out."""
        types = {"triage": outside_type(cedar=self.CEDAR, facts=self.FACTS)}
        async with OutsideRoom(types).running() as room:
            await room.facts.start()

            async def say(value):
                now = room.facts.happens_now("alarm", "", SAID)
                await room.facts.publish(Publication("alarm", "", value, SAID, None, now), {"by_uid": 0})

            await say(False)
            task = await room.begin()
            room.corp.gate = asyncio.Event()
            asking = asyncio.ensure_future(room.give(task))
            await started(room.corp)
            await say(True)
            room.corp.gate.set()
            with pytest.raises((PolicyDenied, TaskOver)):
                await asking


class TestBudget:
    async def test_exchanges_count(self):
        """max_tokens counts what providers are asked for, not how often it is handed out."""
        async with OutsideRoom({"triage": outside_type(max_tokens=2)}).running() as room:
            task = await room.begin()
            for _ in range(5):
                await room.give(task)
            assert task.tokens_issued == 1
            await room.give(task, ORDERS, ("orders:read",))
            with pytest.raises(BudgetSpent):
                await room.give(task, ORDERS, ("orders:list",))
            await room.give(task)  # what is there is handed out on

    async def test_what_was_not_given_does_not_count(self):
        """An exchange that fails takes nothing of the budget."""
        async with OutsideRoom({"triage": outside_type(max_tokens=1)}).running() as room:
            task = await room.begin()
            room.corp.script = [ProviderRefused("no")]
            with pytest.raises(ProviderRefused):
                await room.give(task)
            assert task.tokens_issued == 0
            await room.give(task)

    async def test_it_is_on_disk_first(self, room, task):
        """What a task has used is on disk before a provider is asked, with its record."""
        await room.give(task)
        (asked,) = room.store.fields("external_credential_asked")
        assert (task.id, "corp", ORDERS) == (asked["task"], asked["provider"], asked["resource"])
        assert b'"tokens_issued": 1' in room.store.documents[task.id]


class TestStore:
    @pytest.mark.parametrize("which", ["task", "book"])
    async def test_nothing_is_asked_for_if_it_cannot_be_written(self, room, task, which):
        """Without the records on disk no provider is asked, and what one of them says is taken back."""
        (room.store if which == "task" else room.book).failure = StoreFailed("disk full")
        with pytest.raises(StoreFailed):
            await room.give(task)
        assert ([], 0) == (room.corp.wanted, task.tokens_issued)
        assert (which == "task") == (("refused", "ext_1") in room.book.written)

    async def test_what_cannot_be_noted_is_not_handed_out(self, room, task):
        """A credential that the book cannot hold is lost: nobody is given it."""
        room.corp.gate = asyncio.Event()
        asking = asyncio.ensure_future(room.give(task))
        await started(room.corp)
        room.book.failure = StoreFailed("disk full")
        room.corp.gate.set()
        with pytest.raises(StoreFailed):
            await asking
        assert ("lost", "ext_1") == room.book.written[-1]
        assert (0, 0) == (len(room.handing), task.tokens_issued)

    async def test_too_many_credentials(self, room, task):
        """A task that has as many as it may is told so."""
        room.book.failure = LimitExceeded("too many")
        with pytest.raises(LimitExceeded):
            await room.give(task)

    async def test_what_is_no_credential(self, room, task):
        """What a plugin gives that is none leaves no credential behind that nobody tells of: it is lost."""
        room.corp.script = [Obtained("t", "tomorrow")]
        with pytest.raises(AttributeError):
            await room.give(task)
        assert [("asking", "ext_1"), ("lost", "ext_1")] == room.book.written
        room.corp.script = [Obtained(b"t", room.clock.now() + timedelta(minutes=5))]
        with pytest.raises(ProviderUnavailable, match="no token"):
            await room.give(task)
        assert ("over", "ext_2") == room.book.written[-1]

    async def test_one_that_has_expired_already(self, room, task):
        """What a provider whose clock is wrong gives is noted, taken back at once, and not handed out."""
        room.clock.advance(600)
        exchange = room.corp.exchange

        async def early(wanted, mint):
            await exchange(wanted, mint)
            return room.corp.obtained(wanted, expires_at=room.clock.now() - timedelta(minutes=5))

        room.corp.exchange = early
        with pytest.raises(ProviderUnavailable, match="expired already"):
            await room.give(task)
        assert [("asking", "ext_1"), ("held", "ext_1"), ("over", "ext_1")] == room.book.written
        assert (0, 0) == (len(room.handing), task.tokens_issued)


class TestOthers:
    async def test_a_provider_that_is_down_fails_its_own_resources_alone(self, room, task):
        """Another provider, our own tokens, and other tasks go on as if nothing were."""
        room.corp.gate = asyncio.Event()
        hanging = asyncio.ensure_future(room.give(task))
        await started(room.corp)
        assert (await room.give(task, CLOUD)).provider == "cloud"
        assert (await room.giving.give(task, TICKETS, ())).provider == ""
        await room.engine.complete(task, failed=False)
        room.corp.gate.set()
        with pytest.raises(TaskOver):
            await hanging


class TestAudit:
    async def test_each_is_recorded(self, room, task):
        """Each hand-out is in the audit, without the credential."""
        given = await room.give(task)
        (noted,) = await room.noted("external_credential_handed_out")
        assert (task.id, "ext_1", "corp", 1) == (
            noted["task"],
            noted["credential"],
            noted["provider"],
            noted["count"],
        )
        assert given.token not in str([each.fields for each in room.store.events])

    async def test_many_share_a_record(self, room, task):
        """A thousand hand-outs within a second are two records, and none is left out."""
        for _ in range(1000):
            await room.give(task)
        room.engine.end(task, "completed", "success")
        assert [1, 999] == [each["count"] for each in await room.noted("external_credential_handed_out")]

    async def test_at_the_agents_end_too(self, room, task):
        """What was handed out when the agent stops is recorded, and what is under way is given up."""
        for _ in range(3):
            await room.give(task)
        room.corp.gate = asyncio.Event()
        asking = asyncio.ensure_future(room.give(task, ORDERS, ("orders:read",)))
        await started(room.corp)
        await room.handing.close()
        await asyncio.gather(asking, return_exceptions=True)
        assert 3 == sum(each["count"] for each in await room.noted("external_credential_handed_out"))
        assert ("lost", "ext_2") in room.book.written


def test_types_of_a_room_are_good():
    """The task types of these tests name providers that are there."""
    room = OutsideRoom()
    assert [] == room.outlets.faults(TypeSet(room.engine.types))
    room.end_everything()
