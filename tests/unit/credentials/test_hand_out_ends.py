"""hand_out.py: what was asked for before a task ended or changed, or facts did, is not handed out after it."""

import asyncio

import pytest
from fakes.handing_room import CEILING, ORDERS, OutsideRoom, outside_type, room_fixture, started, task_fixture  # noqa: F401 - fixtures
from harness.looking import idle
from sojourn.errors import PolicyDenied, TaskOver
from sojourn.facts.facts import OPERATOR as SAID
from sojourn.facts.facts import Publication
from sojourn.tasktoken.end_reasons import OPERATOR
from sojourn.tasktoken.grants import Authority, Grant

READ = Authority((Grant(ORDERS, ("orders:read",)),))


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
        await idle()
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
