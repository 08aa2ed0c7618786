"""approval.py: who may decide, glass that is broken, and what the journal keeps of it."""

import asyncio
import json
from dataclasses import replace

import pytest
from fakes.approvals import ALICE, BOB, BOSS, TYPES, approve, deny, person, request_of
from fakes.registrations import entry
from fakes.task_room import Room
from sojourn.attestation.process import Process
from sojourn.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    PolicyDenied,
    ReviewOverdue,
    ReviewOwed,
    StoreFull,
    TaskOver,
)
from sojourn.policy.approval_request import Person


@pytest.fixture
async def room(clock):
    async with Room(clock, TYPES).running() as room:
        yield room


@pytest.fixture
async def task(room):
    return await room.begin("asked")


class TestPersons:
    @pytest.mark.parametrize(
        "by",
        [
            pytest.param(lambda me: person(me.uid), id="uid"),
            pytest.param(lambda me: person(me.uid, 77), id="uid-other-login"),
            pytest.param(lambda me: person(0 if me.uid else 9, me.uid), id="login-of-the-user"),
        ],
    )
    async def test_not_their_own(self, room, task, by):
        """Nobody agrees to their own request, whatever user they have become. They may take it back."""
        me = by(request_of(task).requester)
        with pytest.raises(PolicyDenied, match="their own"):
            await approve(room, task, me)
        assert "pending" == task.state
        await deny(room, task, me)
        assert ("revoked", "approval_denied") == (task.state, task.reason)

    async def test_a_login_that_the_requester_made_up(self, room, monkeypatch):
        """A requester who has said to be logged in as root, or as an approver, keeps nobody from saying no, and root
        not from saying yes.
        """
        monkeypatch.setattr(Process, "login_uid", lambda _: 0)
        asked, two = [
            await room.begin(name, peer=replace(room.peer, uid=4010, owner=4010)) for name in ("asked", "two")
        ]
        await approve(room, asked, person(0))
        await deny(room, two, person(0, 0))
        assert ["active", "revoked"] == [asked.state, two.state]

    async def test_one_user_of_many_uids(self, room):
        """Who has subordinate uids is one person by each of them: to agree takes another one, and two take two."""
        task = await room.begin("two")
        task.approval.request = replace(task.approval.request, requester=Person(14001, None, 1))
        many = [Person(165536 + each, None, each, subuid_of=14001) for each in range(2)]
        with pytest.raises(PolicyDenied, match="their own"):
            await approve(room, task, many[0])
        task.approval.request = replace(task.approval.request, requester=person(14002))
        await approve(room, task, many[0])
        with pytest.raises(AlreadyExists, match="someone else"):
            await approve(room, task, many[1])
        assert "pending" == task.state

    async def test_two_must_be_two(self, room):
        """Dual control takes two persons: who logged in counts, and one user is one, whatever logins it tells."""
        task = await room.begin("two")
        await approve(room, task, person(800, 501))
        for same in (person(800, 501), person(9, 501), person(501), person(800), person(800, 502)):
            with pytest.raises(AlreadyExists, match="someone else"):
                await approve(room, task, same)
        assert "pending" == task.state
        await approve(room, task, person(801, 502))
        assert "active" == task.state
        (begun,) = room.store.fields("task_begun")
        assert [501, 502] == [each["login_uid"] for each in begun["approved_by"]]

    async def test_one_denial_is_enough(self, room):
        """One of two denies, also one who had agreed: it is over."""
        task = await room.begin("two")
        await approve(room, task, ALICE)
        await deny(room, task, ALICE)
        assert ("revoked", "approval_denied") == (task.state, task.reason)

    async def test_workloads(self, room):
        """A workload that the type lists decides; to others the request does not exist; operators are no approvers."""
        task = await room.begin("boss")
        boss, other = person(700, None, BOSS), person(701, None, "spiffe://example.org/other")
        assert ([task], []) == (room.approving.visible_to(boss), room.approving.visible_to(other))
        unknown = room.approving.approve("apr_x", "0", other, operator=False, reason="")
        with pytest.raises(NotFound) as said:
            await unknown
        with pytest.raises(NotFound) as foreign:
            await approve(room, task, other, operator=False)
        assert str(said.value) == str(foreign.value)
        with pytest.raises(PolicyDenied, match="operators do not"):
            await approve(room, task, ALICE)
        await approve(room, task, boss, operator=False)
        assert "active" == task.state

    async def test_not_as_the_same_workload(self, room):
        """Another process with the requester's SPIFFE ID is the requester, whatever its user."""
        mine = entry("/agent/triage"), entry("/boss")
        task = await room.begin("boss", entries=mine)
        with pytest.raises(PolicyDenied, match="their own"):
            await approve(room, task, person(700, None, BOSS), operator=False)
        assert [task] == room.approving.visible_to(person(700, None, BOSS))  # to take it back

    async def test_a_workload_counts_once(self, room):
        """Two processes of one workload are one approver; an operator and a workload are two."""
        task = await room.begin("both")
        await approve(room, task, person(700, None, BOSS), operator=False)
        with pytest.raises(AlreadyExists):
            await approve(room, task, person(701, None, BOSS), operator=False)
        await approve(room, task, ALICE)
        assert "active" == task.state


async def test_a_review_that_is_overdue_by_now(room):
    """What was asked for before the review of its type was overdue does not begin while it is; it waits on."""

    def overdue(kind):
        raise ReviewOverdue(kind.name)

    task = await room.begin("asked")
    room.approving.check_reviewed = overdue
    with pytest.raises(ReviewOverdue):
        await approve(room, task)
    assert "pending" == task.state
    with pytest.raises(ReviewOverdue):
        await room.begin("asked")
    await room.audit.flush()
    assert ["review_overdue"] == [each["code"] for each in room.store.fields("begin_denied")]


class TestBrokenGlass:
    async def test_owes_a_review(self, room):
        """A review is owed, on disk, before the task is active; the next of the type is refused until it is done."""
        heard = []
        room.approving.on_break_glass(heard.append)
        task = await room.begin("glass")
        assert ([], []) == (heard, room.reviews.all())
        await approve(room, task)
        assert [task] == heard
        names = [name for name in room.store.names if name in {"review_owed", "task_begun"}]
        assert (["review_owed", "task_begun"], [task.id]) == (names, [each.task_id for each in room.review_store.kept])
        with pytest.raises(ReviewOwed, match=task.id):
            await room.begin("glass")
        await room.begin("asked")
        await room.audit.flush()
        assert [task.id] == [each["task"] for each in room.store.fields("break_glass_begun")]

    async def test_the_review(self, room):
        """The review is done by someone else, when the task is over, with a finding; then the next may begin."""
        task = await room.begin("glass")
        await approve(room, task)
        with pytest.raises(FailedPrecondition, match="not over"):
            await room.approving.complete_review(task.id, "fine", ALICE)
        await room.engine.complete(task, failed=False)
        me = request_of(task).requester
        for same in (person(me.uid), person(99, me.uid)):
            with pytest.raises(PolicyDenied, match="themselves"):
                await room.approving.complete_review(task.id, "fine", same)
        with pytest.raises(NotFound):
            await room.approving.complete_review("tsk_other", "fine", ALICE)
        await room.approving.complete_review(task.id, "one disk was cleared", ALICE)
        (done,) = room.store.fields("review_done")
        assert (task.id, "one disk was cleared", 501) == (done["task"], done["finding"], done["by_uid"])
        assert "pending" == (await room.begin("glass")).state

    async def test_two_requests_are_not_two_tasks(self, room):
        """Of two that waited side by side one begins; the other waits for the review."""
        tasks = [await room.begin("glass"), await room.begin("glass")]
        outcomes = await asyncio.gather(*(approve(room, task) for task in tasks), return_exceptions=True)
        assert ["active", "pending"] == sorted(task.state for task in tasks)
        assert 1 == sum(isinstance(each, ReviewOwed) for each in outcomes)
        assert 1 == len(room.reviews.all())

    @pytest.mark.parametrize("writes", [0, 1, 2])
    async def test_no_record_no_authority(self, room, writes):
        """Whatever of the approval cannot be written, the task does not become active."""
        task = await room.begin("glass")
        room.store.fail_after(writes, StoreFull("no room"))
        with pytest.raises(StoreFull):
            await approve(room, task)
        assert "pending" == task.state
        owed = [each.task_id for each in room.reviews.all()]
        assert owed == [each.task_id for each in room.review_store.kept]

    async def test_denied_meanwhile_owes_nothing(self, room):
        """A glass that was not broken after all needs no review."""
        task = await room.begin("glass")
        room.store.gate = asyncio.Event()
        approving = asyncio.ensure_future(approve(room, task))
        await room.store.writing.wait()
        await asyncio.sleep(0)
        denying = asyncio.ensure_future(deny(room, task, BOB))
        await asyncio.sleep(0)
        room.store.gate.set()
        with pytest.raises(TaskOver):
            await approving
        await denying
        assert ("revoked", []) == (task.state, room.reviews.all())


class TestJournal:
    async def test_what_is_written(self, room):
        """The journal has what was asked and who agreed."""
        task = await room.begin("two")
        await approve(room, task, ALICE)
        await approve(room, task, BOB)
        document = json.loads(room.store.documents[task.id])
        assert (request_of(task).digest, 2) == (document["approval"]["digest"], document["approval"]["count"])
        assert (task.deadline, task.expires_at.timestamp()) == (document["deadline"], document["expires_at"])
