"""What operators are shown of many things: in pages, or as much as there is room for, with what was left out."""

import json
from datetime import timedelta
from types import SimpleNamespace

import pytest
from fakes.approvals import TYPES, approve
from fakes.blocks import KeptBlocks
from fakes.children import child, peer_of
from fakes.task_room import Room
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn._pb.sojourn.v1 import approvals_pb2
from sojourn.attestation.attestor import Attested
from sojourn.audit.journal import Record
from sojourn.endpoints.admin.audit import newest
from sojourn.endpoints.admin.policies import PolicyApi
from sojourn.endpoints.admin.svid_revocation import RevokingApi
from sojourn.endpoints.admin.svids_in_use import InUseApi
from sojourn.endpoints.admin.tasks import TaskAdminApi
from sojourn.endpoints.api.approvals import ApprovalsApi
from sojourn.endpoints.api.task_messages import TaskMessages
from sojourn.identity.entries import IdentityKey
from sojourn.identity.issued_svids import IssuedSvid
from sojourn.identity.revocation_list import RevokedIdentity, RevokedSvid
from sojourn.identity.subscriptions import Streams
from sojourn.limits import (
    AUDIT_PAGE_BYTES,
    LISTED_TEXT,
    LIVE_TASKS_PER_UID,
    PAGE_BYTES,
    PAGE_ITEMS,
    REDECIDED_AT_ONCE,
    STATUS_ROWS,
)
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.kill_switch import KillSwitch
from sojourn.tasks.people_names import PeopleNames
from sojourn.tasks.policy_reload import Consequence
from sojourn.tasks.suspension import TaskChanges

OUTCOMES_TOLD = 50  # of so many here: a real change tells of some hundreds
MANY = REDECIDED_AT_ONCE + 40
TRIAGE = "spiffe://example.org/agent/triage"
BY = SimpleNamespace(by={"by_uid": 0, "by_pid": 1})


class NoRefusals:
    """Services have refused nothing."""

    def of(self, _task_id):
        return SimpleNamespace(count=0, last=())


NO_OUTLETS = SimpleNamespace(described=lambda _task: ())


@pytest.fixture
async def room(clock, monkeypatch):
    for module in ("tasks", "policies"):
        monkeypatch.setattr(f"sojourn.endpoints.admin.{module}.OUTCOMES_TOLD", OUTCOMES_TOLD)
    async with Room(clock, TYPES).running() as made:
        yield made


@pytest.fixture
def api(room):
    return TaskAdminApi(
        room.engine,
        TaskChanges(room.engine),
        KillSwitch(room.engine, KeptBlocks(), room.audit, room.clock, room.alarms),
        TaskMessages(NO_OUTLETS),
        room.audit,
        NoRefusals(),
        PeopleNames(room.engine.pseudonyms, {}),
    )


async def pages(call, request, field):
    """What all pages have."""
    found = []
    while True:
        answer = await call(None, request)
        found.append(list(getattr(answer, field)))
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


class TestManyTasks:
    @pytest.fixture
    async def tasks(self, room, clock):
        made = []
        for _ in range(MANY):
            made.append(await room.begin("triage", params={"ticket": "x" * 4_000, "level": "3"}))
            clock.advance(0.01)
        return made

    async def test_a_task_that_ends_meanwhile(self, room, api, tasks):
        """A task that ends between two pages is told once, with those that have ended, and hides no other."""
        request, found = pb.ListTasksRequest(include_ended=True, page_size=30), []
        while True:
            answer = await api.list(None, request)
            found += [each.id for each in answer.tasks]
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
            for each in (tasks[len(found) - 5], tasks[len(found) + 5]):
                room.engine.end(each, "completed", "success")
        assert [each.id for each in tasks] == found

    async def test_a_task_that_begins_meanwhile(self, room, api, clock):
        """A task that waited, and begins between two pages, is told once: it stays where it was asked for."""
        made = []
        for name in ("asked", "triage", "triage"):
            made.append(await room.begin(name, params={"ticket": "1", "level": "3"}))
            clock.advance(1)
        page = await api.list(None, pb.ListTasksRequest(page_size=1))
        clock.advance(5)
        await approve(room, made[0])
        assert made[0].created_at > made[2].created_at
        rest = await api.list(None, pb.ListTasksRequest(page_token=page.next_page_token))
        assert [each.id for each in made] == [each.id for each in (*page.tasks, *rest.tasks)]

    async def test_of_a_type_and_of_a_workload(self, room, api, tasks):
        """A list of one type, or of one workload, has its tasks alone, page by page, and those that ended if asked for."""
        other = await room.begin("asked", params={"ticket": "1", "level": "3"})
        room.engine.end(tasks[3], "completed", "success")
        triage = [each.id for each in tasks]
        for asked, expected in (
            ({"type": "triage", "include_ended": True}, triage),
            ({"type": "triage"}, [each for each in triage if each != tasks[3].id]),
            ({"type": "asked"}, [other.id]),
            ({"type": "none"}, []),
            ({"type": "triage", "spiffe_id": TRIAGE, "include_ended": True}, triage),
            ({"spiffe_id": TRIAGE, "include_ended": True}, [*triage, other.id]),
            ({"spiffe_id": "spiffe://example.org/nobody", "include_ended": True}, []),
        ):
            request, found = pb.ListTasksRequest(page_size=60, **asked), []
            while True:
                answer = await api.list(None, request)
                found += [each.id for each in answer.tasks]
                if not answer.next_page_token:
                    break
                request.page_token = answer.next_page_token
            assert expected == found

    async def test_whose_they_are(self, room, tasks):
        """Live tasks are counted by user with the limit; those with the most come first, and the rest is a number."""
        owner = tasks[0].owner
        assert ([(owner, MANY, LIVE_TASKS_PER_UID)], 0) == room.engine.tasks.owners(2)
        assert ([], 1) == room.engine.tasks.owners(0)
        for task in tasks:
            room.engine.end(task, "completed", "success")
        assert ([], 0) == room.engine.tasks.owners(2)

    async def test_parameters_are_cut(self, api, tasks):
        """A list has the beginning of long parameters, and their names; a single task has them whole."""
        first = (await api.list(None, pb.ListTasksRequest())).tasks[0]
        assert ({"ticket": "x" * LISTED_TEXT, "level": "3"}, ["ticket"]) == (dict(first.params), list(first.cut))
        whole = await api.get(None, pb.GetTaskRequest(task_id=tasks[0].id))
        assert ("x" * 4_000, []) == (whole.params["ticket"], list(whole.cut))

    async def test_outcomes(self, api, tasks):
        """Of a change of many tasks some outcomes are told, short, and all are counted; of one task all is told."""
        request = pb.ChangeTasksRequest(selection=pb.TaskSelection(spiffe_id=TRIAGE), reason="why")
        answer = await api.suspend(BY, request)
        assert (MANY, 0, MANY - OUTCOMES_TOLD) == (answer.changed, answer.failed, answer.left_out)
        assert OUTCOMES_TOLD == len(answer.outcomes)
        assert {("suspended", "why", 0)} == {
            (each.task.state, each.task.reason, len(each.task.params)) for each in answer.outcomes
        }
        assert {"suspended"} == {each.state for each in tasks}
        one = await api.revoke(BY, pb.ChangeTasksRequest(selection=pb.TaskSelection(task_id=tasks[0].id)))
        assert (1, 0, "x" * 4_000) == (one.changed, one.left_out, one.outcomes[0].task.params["ticket"])

    async def test_what_was_not_done_is_told_first(self, room, api, tasks):
        """Those that were not changed stand before the others, and are counted: none of them is left out unseen."""
        asked = await room.begin("asked", params={"ticket": "1", "level": "3"})
        answer = await api.suspend(BY, pb.ChangeTasksRequest(selection=pb.TaskSelection(spiffe_id=TRIAGE)))
        assert (MANY, 1, MANY + 1 - OUTCOMES_TOLD) == (answer.changed, answer.failed, answer.left_out)
        assert (asked.id, True) == (answer.outcomes[0].task.id, "waits for approval" in answer.outcomes[0].error)
        assert [""] * (OUTCOMES_TOLD - 1) == [each.error for each in answer.outcomes[1:]]

    async def test_one_that_fails_unforeseen(self, api, tasks, monkeypatch):
        """What nobody foresaw is raised, when all others were changed."""
        suspend = TaskChanges.suspend

        async def fails(self, task, *others):
            if task is tasks[3]:
                raise ZeroDivisionError
            await suspend(self, task, *others)

        monkeypatch.setattr(TaskChanges, "suspend", fails)
        with pytest.raises(ZeroDivisionError):
            await api.suspend(BY, pb.ChangeTasksRequest(selection=pb.TaskSelection(spiffe_id=TRIAGE)))
        assert {"suspended"} == {each.state for each in tasks}  # that one too: it is held before anything is awaited

    async def test_the_kill_switch(self, api, tasks):
        """It ends all, tells of some what became of them, and counts the others."""
        answer = await api.block(BY, pb.BlockTasksRequest(block=pb.Block(spiffe_id=TRIAGE, reason="incident 7")))
        assert (OUTCOMES_TOLD, MANY - OUTCOMES_TOLD) == (len(answer.ended), answer.left_out)
        assert {("revoked", "blocked", "incident 7")} == {
            (each.state, each.reason, each.explanation) for each in answer.ended
        }
        assert {"revoked"} == {each.state for each in tasks}

    async def test_one_that_is_over_before_its_turn(self, room, api, tasks):
        """A task that ends by itself while the kill switch ends others is over, and stops nothing."""
        room.engine.announcements.to_holder(tasks[0], lambda: room.engine.end(tasks[-1], "completed", "success"))
        answer = await api.block(BY, pb.BlockTasksRequest(block=pb.Block(spiffe_id=TRIAGE)))
        assert MANY == len(answer.ended) + answer.left_out
        assert ("completed", {"revoked"}) == (tasks[-1].state, {each.state for each in tasks[:-1]})

    async def test_what_becomes_of_them_by_another_policy(self, room, tasks):
        """Of what a reload does to many tasks some is told, what is worst first, and the others are counted."""
        outcomes = [("keep", "narrow", "end")[number % 3] for number in range(MANY)]
        found = [
            Consequence(task, outcome, (), "", task.authority, task.params)
            for task, outcome in zip(tasks, outcomes, strict=True)
        ]

        async def read(_folder):
            return SimpleNamespace(digest="d")

        policies = SimpleNamespace(
            folder=SimpleNamespace(read=read), reloading=SimpleNamespace(consequences=lambda _types: found)
        )
        engine, reviews = (
            SimpleNamespace(types=SimpleNamespace(digest="b")),
            SimpleNamespace(newly_blocked=lambda *_: []),
        )
        api = PolicyApi(engine, None, policies, None, reviews)
        answer = await api.reload(BY, pb.ReloadPolicyRequest(dry_run=True))
        assert (OUTCOMES_TOLD, MANY - OUTCOMES_TOLD) == (len(answer.consequences), answer.left_out)
        told = [each.outcome for each in answer.consequences]
        assert sorted(outcomes, key=["end", "narrow", "keep"].index)[:OUTCOMES_TOLD] == told


class TestRequestsThatWait:
    async def test_all_are_listed(self, room, clock):
        """However many wait, with however long parameters, each is listed once, the oldest first; one is shown whole."""
        api = ApprovalsApi(room.engine, room.approving, None, TaskMessages(NO_OUTLETS))
        asked = []
        for number in range(90):
            asked.append(await room.begin("asked", params={"ticket": f"{number}" + "x" * 3_000, "level": "3"}))
            clock.advance(0.01)
        found = await pages(api.list, approvals_pb2.ListApprovalsRequest(page_size=40), "approvals")
        assert [40, 40, 10] == [len(page) for page in found]
        told = [each for page in found for each in page]
        assert [each.id for each in asked] == [each.task_id for each in told]
        assert {(LISTED_TEXT, ("ticket",))} == {(len(each.params["ticket"]), tuple(each.cut)) for each in told}
        one = await api.list(None, approvals_pb2.ListApprovalsRequest(approval_id=told[7].id))
        assert [("7" + "x" * 3_000, [])] == [(each.params["ticket"], list(each.cut)) for each in one.approvals]


class TestStreamsAndSvids:
    @pytest.fixture
    def streams(self, clock):
        """9,500 streams of one process, each opened a moment after the other."""
        made = Streams(lambda _key: None, lambda _key: None)
        with child() as process:
            peer = peer_of(process)
            attested = Attested(frozenset(), {}, {}, 0.0, peer.process.cgroup())
            for number in range(9_500):
                made.open(f"Fetch{number}", peer, attested, clock.now() + timedelta(milliseconds=number // 3))
            yield made
            peer.close()

    @pytest.fixture
    def kept(self, clock):
        """As many SVIDs as there are identities of a template."""
        return [
            SimpleNamespace(
                entry=SimpleNamespace(id="e1", key=IdentityKey("e1", name)),
                svid=SimpleNamespace(spiffe_id=name, serial=f"{number:x}", not_after=clock.now()),
                rotate_at=clock.now(),
            )
            for number in range(STATUS_ROWS + 30)
            for name in (SpiffeId.parse(f"spiffe://example.org/job/{number:04}"),)
        ]

    @pytest.fixture
    def api(self, streams, kept, monkeypatch):
        monkeypatch.setattr("sojourn.endpoints.admin.svids_in_use.svid_lifetime.reason", lambda *_: "as ever")
        issuing = SimpleNamespace(x509=SimpleNamespace(kept=lambda: kept))
        return InUseApi(SimpleNamespace(streams=streams), issuing, timedelta(hours=1))

    def test_status(self, api, streams, kept):
        """A status has the oldest streams and some SVIDs, and says how many more there are."""
        status = pb.GetStatusResponse()
        api.tell(status)
        assert [f"Fetch{number}" for number in range(99)] == sorted(
            (each.method for each in status.streams[:99]), key=lambda name: int(name[5:])
        )
        assert (STATUS_ROWS, len(streams) - STATUS_ROWS) == (len(status.streams), status.streams_left_out)
        assert (STATUS_ROWS, len(kept) - STATUS_ROWS) == (len(status.svids), status.svids_left_out)
        assert status.ByteSize() < 100_000

    async def test_all_are_listed(self, api, streams, kept):
        """Each stream and each SVID is listed once, in small answers."""
        found = await pages(api.list_streams, pb.ListStreamsRequest(), "streams")
        assert max(len(page) for page in found) <= PAGE_ITEMS
        assert {each.method for each in streams} == {each.method for page in found for each in page}
        assert len(streams) == sum(map(len, found))
        svids = await pages(api.list_svids, pb.ListSvidsRequest(page_size=50), "svids")
        assert [str(each.svid.spiffe_id) for each in kept] == [each.spiffe_id for page in svids for each in page]


def revoking_api(svids, identities):
    revocations = SimpleNamespace(svids=lambda: svids, identities=lambda: identities, is_written=lambda _: True)
    return RevokingApi(None, None, None, None, revocations, None, None, None)


@pytest.mark.parametrize(("path", "number"), [("a", 2_000), ("a" * 2_000, 1_000)])
async def test_revoked_identities(path, number):
    """Of the revoked identities the first page names the last ones, in an answer that a client takes, and says how many
    it leaves out; single SVIDs are there beside them, and no later page has them again.
    """
    named = [RevokedIdentity("spiffe_id", f"spiffe://example.org/{path}/{each:05}", each, 1) for each in range(number)]
    svid = RevokedSvid(IssuedSvid("jwt", "jti", "spiffe://example.org/a", "e1", 2_000_000_000), 1)
    answer = await revoking_api([svid] * 3, named).list(BY, pb.ListRevocationsRequest(page_size=1))
    told = len(answer.identities)
    assert (number, 1) == (told + answer.left_out, len(answer.revoked))
    assert [each.name for each in named[:told]] == [each.spiffe_id for each in answer.identities]
    assert answer.ByteSize() < PAGE_BYTES + 1_000
    assert (told == number, told > 100) == (path == "a", True)


async def test_revoked_svids():
    """However many SVIDs are revoked, each is listed once, the last revoked first."""
    revoked = [
        RevokedSvid(IssuedSvid("jwt", f"jti-{number:05}", "spiffe://example.org/a", "e1", 2_000_000_000), number // 7)
        for number in range(3_000)
    ]
    api = revoking_api(revoked, [])
    found = [each for page in await pages(api.list, pb.ListRevocationsRequest(), "revoked") for each in page]
    assert {each.svid.id for each in revoked} == {each.id for each in found}
    assert (len(revoked), sorted((each.revoked_at for each in found), reverse=True)) == (
        len(found),
        [each.revoked_at for each in found],
    )


def test_the_newest_records():
    """Of ten thousand long records one answer has the newest, as many as there is room for, and says what it left out."""
    records = [
        Record(seq, 0, "task_begun", json.dumps({"params": {"note": "x" * 4_000}}), "d") for seq in range(1, 10_001)
    ]
    answer = newest(records)
    assert list(range(10_001 - len(answer.records), 10_001)) == [each.seq for each in answer.records]
    assert (len(answer.records) + answer.left_out, True) == (10_000, answer.ByteSize() <= AUDIT_PAGE_BYTES + 16)
    assert (1, 0) == (len(newest(records[:1]).records), newest(records[:1]).left_out)
    long = [Record(1, 0, "e", json.dumps({"a": "x" * 2 * AUDIT_PAGE_BYTES}), "d")]
    assert (1, 0) == (len(newest(long).records), newest(long).left_out)


def test_of_nothing_nothing_is_left_out():
    """A journal without records is told as it is."""
    assert pb.ListAuditResponse() == newest([])
