"""Tasks that are for a person: whom they begin for, what is kept and recorded of that, and until when they live."""

import json
import os
import signal
from contextlib import closing
from dataclasses import replace

import pytest
from fakes.children import child, peer_of
from fakes.families import WORKERS, FamilyRoom, handed_on
from fakes.next_run import NextRun
from fakes.persons import CORP, LIFE, ScriptedTokens, for_people, person, refused
from fakes.recovery_room import damage
from fakes.registrations import entry
from fakes.task_room import TRIAGE_ENTRY, Room
from fakes.task_types import TICKETS, TRIAGE, task_type
from harness.looking import until
from sojourn.attestation.proc_reader import reader
from sojourn.attestation.process import Process
from sojourn.errors import LimitExceeded, TaskOver
from sojourn.policy.task_types import TypeSet
from sojourn.tasks.begin import BeginRequest, Bond
from sojourn.tasks.people import PeopleService, PersonToken, check_expected, digest_of
from sojourn.tasks.pseudonyms import Pseudonyms
from sojourn.tasktoken.person_claims import NOBODY

TYPES = {
    "for-people": for_people(),
    "for-many": for_people("for-many", several="true"),
    "for-one": for_people("for-one", max_live="1"),
    "whoever": for_people("whoever", need='"optional"'),
    "triage": task_type(),
}
ALICE, BOB = person("alice"), person("bob")
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"


@pytest.fixture
async def room(clock, stack):
    return await stack.enter_async_context(Room(clock, TypeSet(TYPES)).running())


@pytest.fixture
def other(stack):
    """Another process of the same workload, which is no relative of the room's."""
    process = stack.enter_context(child())
    return process, stack.enter_context(closing(peer_of(process)))


class TestBegins:
    async def test_for_whom(self, room):
        """A task of a type for people has the person whose token was brought, and a task of another type has none."""
        task = await room.begin("for-people", person=ALICE)
        assert ALICE == task.person
        assert (await room.begin("triage")).person is None
        assert (await room.begin("whoever")).person is None

    @pytest.mark.parametrize(("name", "whom", "code"), [
        ("for-people", None, "person_required"), ("triage", ALICE, "person_not_taken"),
    ])  # fmt: skip
    async def test_not_so(self, room, name, whom, code):
        """A type for people begins for nobody, and a type that is for nobody begins for no person."""
        with refused(code):
            await room.begin(name, person=whom)
        assert 0 == len(room.engine.tasks)

    async def test_by_its_token(self, room):
        """The token is verified for the identity that begins the task, and what begins is for that one identity."""
        tokens = ScriptedTokens({"t": ALICE})
        people = PeopleService(room.engine, tokens)
        entries = (entry("/agent/other"), TRIAGE_ENTRY)
        request = await people.for_person(entries, BeginRequest("for-people", {}), PersonToken("t", ID_TOKEN))
        assert [("t", ID_TOKEN, TRIAGE_ENTRY.spiffe_id)] == tokens.asked
        assert (ALICE, TRIAGE_ENTRY.spiffe_id, digest_of("t")) == (
            request.person, request.spiffe_id, request.person_token,
        )  # fmt: skip

    async def test_no_issuer_is_asked_for_nothing(self, room):
        """A token for a type that is for nobody is refused before anything is done with it."""
        tokens = ScriptedTokens()
        with refused("person_not_taken"):
            await PeopleService(room.engine, tokens).for_person(
                (TRIAGE_ENTRY,), BeginRequest("triage", {}), PersonToken("t", ID_TOKEN)
            )
        assert [] == tokens.asked

    async def test_at_most_so_many(self, room):
        """A person has as many live tasks of a type as it says, others have theirs, and one that ended makes room."""
        first = await room.begin("for-one", person=ALICE)
        with pytest.raises(LimitExceeded, match="1 live task"):
            await room.begin("for-one", person=ALICE)
        await room.begin("for-people", person=ALICE)
        room.engine.end(first, "completed", "success")
        assert (await room.begin("for-one", person=ALICE)).live

    async def test_a_token_shows_itself_in_nothing(self):
        """The token that a person was shown by is in no text of what is passed on with it."""
        assert "secret" not in repr(PersonToken("secret", ID_TOKEN))


class TestUntil:
    async def test_its_token_ends(self, room):
        """The task ends with the token, says so, and would have lived longer."""
        task = await room.begin("for-people", person=ALICE)
        assert LIFE == task.deadline - room.clock.boot()
        assert LIFE == (task.expires_at - room.clock.now()).total_seconds()
        room.clock.advance(LIFE - 1)
        room.alarms.ring_due()
        assert task.live
        room.clock.advance(1)
        with pytest.raises(TaskOver, match="token of the person"):
            await room.engine.token(task, TICKETS, ())
        room.alarms.ring_due()
        assert ("expired", "person_expired") == (task.state, task.reason)

    async def test_the_shorter_ends_it(self, room):
        """A task whose own time is up before the token is ends for that reason."""
        task = await room.begin("for-people", person=ALICE, max_seconds=60)
        room.clock.advance(60)
        room.alarms.ring_due()
        assert ("expired", "deadline") == (task.state, task.reason)

    async def test_no_token_outlives_it(self, room):
        """A task token is good for no longer than the person's token."""
        task = await room.begin("for-people", person=ALICE)
        room.clock.advance(LIFE - 10)
        token = await room.engine.token(task, TICKETS, ())
        assert ALICE.expires_at == token.claims["exp"]

    async def test_not_with_one_that_is_over(self, room):
        """No task begins with a token whose time is up by then."""
        room.clock.advance(LIFE)
        with pytest.raises(TaskOver):
            await room.begin("for-people", person=ALICE)
        assert 0 == len(room.engine.tasks)

    async def test_its_holder_is_told_before(self, room):
        """The holder looks at the task a minute before the token ends; of another task it does not."""
        told = []
        for each in (await room.begin("for-people", person=ALICE), await room.begin("triage")):
            room.engine.announcements.to_holder(each, lambda task=each: told.append(task.type.name))
        room.clock.advance(LIFE - 61)
        room.alarms.ring_due()
        assert [] == told
        room.clock.advance(1)
        room.alarms.ring_due()
        assert ["for-people"] == told


class TestAlone:
    async def test_one_person_a_process(self, room):
        """A process has no task for a second person while it has one for the first, whatever type either is of."""
        first = await room.begin("for-people", person=ALICE)
        for name in ("for-people", "whoever", "for-many"):
            with refused("other_person_here"):
                await room.begin(name, person=BOB)
        await room.begin("for-people", person=ALICE)
        await room.begin("triage")
        for each in (first, *room.engine.tasks.people.of_person(CORP, "alice")):
            if each.live:
                room.engine.end(each, "completed", "success")
        assert BOB == (await room.begin("for-people", person=BOB)).person

    async def test_the_same_subject_elsewhere(self, room):
        """Somebody with the same subject at another issuer is another person."""
        await room.begin("for-people", person=ALICE)
        with refused("other_person_here"):
            await room.begin("for-people", person=replace(ALICE, issuer="partner", url="https://partner.example"))

    async def test_no_relative(self, room, other):
        """Another process, which neither descends from the holder nor the other way round, may act for another."""
        process, peer = other
        await room.begin("for-people", person=ALICE)
        assert BOB == (await room.begin("for-people", person=BOB, holder=process, peer=peer)).person

    @pytest.mark.parametrize("first", ["child", "parent"])
    async def test_nor_its_relatives(self, room, stack, first):
        """What a process started may not act for another person than the process does, whichever was first."""
        shell = stack.enter_context(child("sh", "-c", "exec 3<&0; cat <&3 >/dev/null & echo $!; wait"))
        below = Process.open(int(shell.stdout.readline()))
        stack.callback(below.close)
        peer = stack.enter_context(closing(peer_of(shell)))

        async def begin(process, whom):
            bond = Bond(process.again(), "process")
            request = BeginRequest("for-people", {}, person=whom)
            return await room.beginning.begin(peer, (TRIAGE_ENTRY,), request, bond)

        pair = (below, peer.process) if first == "child" else (peer.process, below)
        await begin(pair[0], ALICE)
        with refused("other_person_here"):
            await begin(pair[1], BOB)
        assert ALICE == (await begin(pair[1], ALICE)).person

    async def test_after_what_it_was_left_by(self, room, stack):
        """What a process descends from counts as it is when a task begins, also if it had one before: neither more nor less."""
        above = stack.enter_context(child("sh", "-c", "sh -c 'sleep 60 >/dev/null & echo $!; wait' & echo $!; wait"))
        pids = {int(above.stdout.readline()) for _ in range(2)}
        (below,) = (pid for pid in pids if reader.stat(pid).parent in pids)
        between = reader.stat(below).parent
        process = Process.open(below)
        stack.callback(os.kill, below, signal.SIGKILL)
        stack.callback(process.close)
        peer = stack.enter_context(closing(peer_of(above)))

        async def begin(holder, whom):
            bond = Bond(holder.again(), "process")
            request = BeginRequest("for-people", {}, person=whom)
            return await room.beginning.begin(peer, (TRIAGE_ENTRY,), request, bond)

        room.engine.end(await begin(process, BOB), "completed", "success")
        first = await begin(peer.process, ALICE)
        with refused("other_person_here"):
            await begin(process, BOB)
        os.kill(between, signal.SIGKILL)
        until(lambda: reader.stat(below).parent != between)
        assert first.live
        assert BOB == (await begin(process, BOB)).person

    async def test_where_both_let_it(self, room):
        """A process has tasks for several people if the types of all of them let it."""
        tasks = [await room.begin("for-many", person=each) for each in (ALICE, BOB)]
        assert [ALICE, BOB] == [each.person for each in tasks]
        with refused("other_person_here"):
            await room.begin("for-people", person=BOB)


class TestExpected:
    @pytest.mark.parametrize("expected", ["corp|alice", f"{CORP}|alice"])
    async def test_theirs(self, room, expected):
        """A use that says whom it is for, by the issuer's name or its `iss`, is taken of their task."""
        check_expected(await room.begin("for-many", person=ALICE), expected)

    @pytest.mark.parametrize("expected", [
        "corp|bob", "alice", "partner|alice", f"{CORP}/|alice", "corp|alice ", "|alice", "corp|", TRIAGE,
    ])  # fmt: skip
    async def test_another_is_refused(self, room, expected):
        """A use for somebody else, or for whom nobody is named so, is refused, of whatever type the task is."""
        for task in (await room.begin("for-many", person=ALICE), await room.begin("triage")):
            with refused("wrong_person"):
                check_expected(task, expected)

    async def test_must_be_said(self, room):
        """Where a process may have tasks for several people, each use says whom it is for; but what takes away may."""
        task = await room.begin("for-many", person=ALICE)
        with refused("person_not_named"):
            check_expected(task, "")
        check_expected(task, "", may_be_unnamed=True)
        room.engine.end(task, "completed", "success")
        check_expected(await room.begin("for-people", person=ALICE), "")
        check_expected(await room.begin("triage"), "")

    async def test_for_nobody(self, room):
        """A use that is for nobody is of no task for a person, of whatever type, and what takes away is none either; it
        is of a task for nobody.
        """
        for name in ("for-many", "for-people"):
            task = await room.begin(name, person=ALICE)
            for unnamed in (False, True):
                with refused("wrong_person"):
                    check_expected(task, NOBODY, may_be_unnamed=unnamed)
            room.engine.end(task, "completed", "success")
        check_expected(await room.begin("triage"), NOBODY)


class TestFiled:
    async def test_found_by_person_and_session(self, room):
        """Live tasks are found by person and by session, and those that have ended are not."""
        people = room.engine.tasks.people
        task = await room.begin("for-people", person=ALICE)
        assert [task] == people.of_person(CORP, "alice") == people.of_session(CORP, "session-of-alice")
        assert [] == people.of_person(CORP, "bob") == people.of_session(CORP, "session-of-bob")
        assert [] == people.of_person("https://other.example", "alice")
        room.engine.end(task, "completed", "success")
        assert [] == people.of_person(CORP, "alice") == people.of_session(CORP, "session-of-alice")
        assert {} == people._by_person == people._by_session == people._by_holder == people._below == people._entries


class TestKept:
    async def test_whole_while_it_lives(self, room, stack):
        """The record of a living task has its person, and the next run of the agent has the task for the same one."""
        task = await room.begin("for-people", person=ALICE)
        later = await NextRun.after(room, stack)
        assert (task.whom, task.deadline) == (later.only.whom, later.only.deadline)
        assert [later.only] == later.engine.tasks.people.of_person(CORP, "alice")

    async def test_over_by_then(self, room, stack):
        """A task whose person's token ended while no agent ran has ended for that reason."""
        task = await room.begin("for-people", person=ALICE)
        room.clock.advance(LIFE)
        await NextRun.after(room, stack)
        assert "person_expired" == json.loads(room.store.documents[task.id])["reason"]

    async def test_a_pseudonym_once_it_is_over(self, room):
        """The record of a task that has ended has the issuer and the pseudonym of its person, and nothing else."""
        task = await room.begin("for-people", person=ALICE)
        room.engine.end(task, "completed", "success")
        await room.engine.journal.drain()
        kept = json.loads(room.store.documents[task.id])
        assert {"issuer": "corp", "pseudonym": room.engine.pseudonyms.of(ALICE)} == kept["person"]
        assert ((), {}) == (task.person.groups, dict(task.person.claims))
        assert not {"alice", "support", "toys"} & set(json.dumps(kept).split('"'))

    async def test_ended_by_the_next_run(self, room, stack):
        """The record of a task that the next run ended has no more of its person either than a pseudonym."""
        task = await room.begin("for-people", person=ALICE)
        await NextRun.after(room, stack, types=TypeSet({"triage": task_type()}))
        assert {"issuer", "pseudonym"} == json.loads(room.store.documents[task.id])["person"].keys()

    @pytest.mark.parametrize("issuers", [{}, {"corp": f"{CORP}/"}, {"others": CORP}], ids=["gone", "moved", "renamed"])
    async def test_no_issuer_of_theirs_any_more(self, room, stack, issuers):
        """A task for a person of an issuer that the next run has not, by that name and URL, has ended: nobody vouches for
        them any more, and policies would read them as somebody of another issuer.
        """
        task, nobodys = await room.begin("for-people", person=ALICE), await room.begin("triage")
        later = await NextRun.after(room, stack, issuers=issuers)
        assert [nobodys.id] == [each.id for each in later.engine.tasks.all()]
        assert "policy_changed" == json.loads(room.store.documents[task.id])["reason"]

    @pytest.mark.parametrize("changes", [
        {"person": {"issuer": "corp"}}, {"person": "alice"}, {"person": []},
    ])  # fmt: skip
    async def test_damaged(self, room, stack, changes):
        """A record that does not tell who the person is ends the task, and what is kept of it does not tell it either."""
        task = await room.begin("for-people", person=ALICE)
        damage(room.store, task, **changes)
        later = await NextRun.after(room, stack)
        assert [] == later.engine.tasks.all()
        kept = json.loads(room.store.documents[task.id])
        assert "journal_damaged" == kept["reason"]
        assert "alice" not in kept["damaged_document"]

    async def test_damaged_elsewhere(self, room, stack):
        """Of a record that is damaged in another place, nothing is kept that says who it was."""
        task = await room.begin("for-people", person=ALICE)
        damage(room.store, task, uid="none")
        await NextRun.after(room, stack)
        kept = json.loads(room.store.documents[task.id])["damaged_document"]
        assert room.engine.pseudonyms.of(ALICE) in kept
        assert not any(word in kept for word in ("alice", "support", "toys"))


class TestAudited:
    async def test_by_a_pseudonym(self, room):
        """Records of the task have the person's pseudonym; that of its beginning says how they logged in, and by what
        token; who they are and what they are in is in none.
        """
        people = PeopleService(room.engine, ScriptedTokens({"the-text": ALICE}))
        request = await people.for_person(
            (TRIAGE_ENTRY,), BeginRequest("for-people", {}), PersonToken("the-text", ID_TOKEN)
        )
        task = await room.begin("for-people", person=request.person, person_token=request.person_token)
        await room.engine.token(task, TICKETS, ())
        room.engine.end(task, "completed", "success")
        await room.engine.journal.drain()
        (begun,) = room.store.fields("task_begun")
        name = room.engine.pseudonyms.named(CORP, "alice")
        said = {"person": name, "acr": "mfa", "amr": ["pwd", "otp"], "auth_time": ALICE.auth_time}
        assert {**said, "token": digest_of("the-text"), "presenter": TRIAGE}.items() <= begun.items()
        assert {name} == {
            each["person"]
            for event in ("task_begun", "token_issued", "task_ended")
            for each in room.store.fields(event)
        }
        text = " ".join(each.fields for each in room.store.events)
        assert not any(word in text for word in ("the-text", '"alice"', "corp|", "support", "toys"))

    async def test_as_they_are(self, room):
        """Where the configuration says so audit records have who they are, of the tasks of before as well; the record of
        a task that is over has a pseudonym all the same.
        """
        task = await room.begin("for-people", person=ALICE)
        room.engine.pseudonyms = Pseudonyms(b"k" * 32, ["corp"])
        other = await room.begin("for-people", person=ALICE)
        for each in (task, other):
            room.engine.end(each, "completed", "success")
        await room.engine.journal.drain()
        assert ["corp|alice"] * 2 == [each["person"] for each in room.store.fields("task_ended")]
        assert room.store.fields("task_begun")[0]["person"].startswith("psn_")
        assert room.store.fields("task_begun")[1]["person"] == "corp|alice"
        for each in (task, other):
            assert json.loads(room.store.documents[each.id])["person"]["pseudonym"].startswith("psn_")

    async def test_none_of_others(self, room):
        """Records of a task that is for nobody name nobody."""
        await room.begin("triage")
        assert not {"person", "acr", "token"} & room.store.fields("task_begun")[0].keys()


class TestHandedOn:
    @pytest.fixture
    async def family(self, clock, stack):
        kind = handed_on(person='{need = "required", max_live = 2}')
        return await stack.enter_async_context(FamilyRoom(clock, kind).running())

    async def test_keeps_the_person(self, family):
        """What was handed on is for the same person, however often, and ends with their token."""
        root = await family.begin("triage", person=ALICE)
        below = await family.hand_on(await family.hand_on(root, 0), 1)
        assert (ALICE, root.whom.pseudonym, root.deadline) == (below.person, below.whom.pseudonym, below.deadline)
        family.clock.advance(LIFE)
        family.alarms.ring_due()
        assert ("person_expired", "parent_ended") == (root.reason, below.reason)

    async def test_takes_no_room_of_theirs(self, family):
        """What was handed on, as by a service that was sent a token, does not keep the person from further tasks."""
        first = await family.begin(person=ALICE)
        for _ in range(3):
            await family.hand_on(first, 0)
        await family.begin(person=ALICE)
        with pytest.raises(LimitExceeded):
            await family.begin(person=ALICE)

    async def test_not_to_a_process_of_another(self, family):
        """A process that has a task for somebody else is handed none of this person's."""
        root = await family.begin("triage", person=ALICE)
        ticket = await family.ticket(root, 0)
        other = await family.begin("triage", person=BOB, holder=family.worker, peer=family.worker_peer)
        with refused("other_person_here"):
            await family.accept(ticket, 0)
        family.engine.end(other, "completed", "success")
        assert ALICE == (await family.accept(ticket, 0)).person

    async def test_over_a_restart(self, family, stack):
        """The next run has both for the same person; a child that is for somebody else than its parent is damaged."""
        root = await family.begin("triage", person=ALICE)
        child_ = await family.hand_on(root, 0)
        document = json.loads(family.store.documents[child_.id])
        damage(family.store, child_, person={**document["person"], "subject": "bob"})
        later = await NextRun.after(family, stack, entries=(TRIAGE_ENTRY, entry(WORKERS[0])))
        assert [root.id] == [each.id for each in later.engine.tasks.all()]
