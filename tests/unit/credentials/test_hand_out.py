"""What providers give is handed out to the task that it was obtained for, while it lives, and to no other."""

import asyncio
from datetime import timedelta

import pytest
from fakes.handing_room import (  # noqa: F401 - fixtures
    CEILING,
    CLOUD,
    LIFE,
    ORDERS,
    OutsideRoom,
    outside_type,
    room_fixture,
    started,
    task_fixture,
)
from fakes.task_types import TICKETS
from sojourn.errors import ActionOutsideType, BudgetSpent, InvalidInput, InvalidTarget, PolicyDenied, TaskOver
from sojourn.limits import PROVIDER_CREDENTIALS_PER_TASK
from sojourn.policy.task_types import TypeSet
from sojourn.providers.errors import ProviderRefused


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
        cedar = '@id("few") permit (principal, action, resource) when { principal.reported_calls < 1 };'
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
