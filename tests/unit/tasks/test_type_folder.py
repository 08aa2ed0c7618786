"""type_folder.py and type_sets.py: what a folder of task types says is in force, whole, or what was before stays."""

import asyncio
import json
import os
from pathlib import Path

import pytest
import structlog
from fakes.clock import FakeClock
from fakes.journals import FakeAuditStore
from fakes.task_room import Room as EngineRoom
from fakes.task_types import PERMIT_ALL, TICKETS, TRIAGE, toml
from sojourn.audit.journal import Audit
from sojourn.errors import Fault, InvalidPolicy, NoTaskTypes, StoreFailed
from sojourn.limits import FOLLOWED_RETRY_SECONDS
from sojourn.tasks.last_good_types import LastGood
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasks.type_folder import FOLDER, LAST_GOOD, NONE, TypeFolder
from sojourn.tasks.type_sets import Policies, usual_folder

NO_WRITES = PERMIT_ALL + '@id("no-writes") forbid (principal, action == Sojourn::Action::"ticket:write", resource);'


class Kept:
    """What outlives the agent, in memory; `broken` takes nothing."""

    def __init__(self):
        self.text = None
        self.broken = False

    def load(self):
        return self.text

    async def save(self, text):
        if self.broken:
            raise StoreFailed("the disk is full")
        self.text = text


class Room:
    def __init__(self, tmp_path, *, optional=False):
        self.path = tmp_path / "types"
        self.path.mkdir()
        self.clock = FakeClock()
        self.journal = FakeAuditStore()
        self.audit = Audit(self.journal, self.clock)
        self.taken = []
        self.kept = Kept()
        self.folder = self.made(optional=optional)

    def made(self, **settings):
        """A folder as the next start of the agent has it."""
        last_good = LastGood(self.kept, self.clock)
        settings = {"event": "policy", "optional": False, "last_good": last_good, **settings}
        return TypeFolder(self.path, self.take, self.audit, self.clock, **settings)

    async def take(self, types):
        self.taken.append(sorted(types))
        return []

    def write(self, name, cedar=PERMIT_ALL, **changes):
        (self.path / f"{name}.toml").write_text(toml(**changes))
        (self.path / f"{name}.cedar").write_text(cedar)

    async def look(self):
        await self.folder.look()
        await self.audit.flush()


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path)


class TestInForce:
    async def test_whole(self, room):
        """What is added, changed and removed is taken as a set; the audit has its digest and what changed."""
        room.write("one")
        await room.look()
        room.write("two")
        room.write("one", NO_WRITES)
        await room.look()
        (room.path / "one.toml").unlink()
        await room.look()
        assert [["one"], ["one", "two"], ["two"]] == room.taken
        found = room.journal.fields("policy_loaded")
        assert [["one"], ["one", "two"], ["one"]] == [each["changed"] for each in found]
        assert (3, room.folder.types.digest) == (len({each["digest"] for each in found}), found[-1]["digest"])
        assert (room.clock.now(), "") == (room.folder.loaded_at, room.folder.fault)

    async def test_only_when_something_changed(self, room):
        """A folder that is the same is not taken again; nor is one that was touched, or got files that do not count."""
        room.write("one")
        await room.look()
        await room.look()
        os.utime(room.path / "one.toml", (1, 1))
        (room.path / "one.test.toml").write_text("nonsense")
        await room.look()
        assert ([["one"]], ["policy_loaded"]) == (room.taken, room.journal.names)

    async def test_an_empty_folder(self, room):
        """An empty folder is a set of no types."""
        await room.look()
        assert [[]] == room.taken

    async def test_reloaded(self, room):
        """A reload takes what is there at once and records who wanted it; the same again changes nothing."""
        room.write("one")
        await room.folder.reload(by_uid=7)
        await room.folder.reload(by_uid=8)
        await room.look()
        assert ([["one"]], [7]) == (room.taken, [each["by_uid"] for each in room.journal.fields("policy_loaded")])

    async def test_woken(self, room):
        """Whoever runs it takes a change soon after it was woken."""
        running = asyncio.ensure_future(room.folder.run())
        room.write("one")
        room.folder.wake()
        async with asyncio.timeout(20):
            while [["one"]] != room.taken:
                await asyncio.sleep(0.01)
        running.cancel()


SPOILT = pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda room: room.write("two", "nonsense"), "two.cedar:1: policy cannot be parsed"),
        (lambda room: room.write("two", surprise="1"), "two.toml:6: surprise: unknown key"),
        (lambda room: (room.path / "one.cedar").unlink(), "one.cedar: there is no policy beside one.toml"),
        (lambda room: (room.path / "one.toml").chmod(0o666), "one.toml: can be written by others"),
        (lambda room: room.path.chmod(0o777), "can be written by others"),
        (lambda room: room.path.chmod(0o1777), "can be written by others"),
        (lambda room: room.path.rename(room.path.with_name("away")), "cannot be read"),
    ],
    ids=["policy", "key", "half", "writable", "folder-writable", "folder-sticky", "gone"],
)


class TestStart:
    @SPOILT
    async def test_with_the_last_good_set(self, room, spoil, says):
        """A folder that cannot be used at the start, whatever is wrong with it: the last good set is in force."""
        room.write("one")
        await room.folder.start()
        spoil(room)
        after = room.made()
        await after.start()
        await room.audit.flush()
        assert (LAST_GOOD, room.folder.types.digest, [["one"], ["one"]]) == (
            after.origin,
            after.types.digest,
            room.taken,
        )
        assert says in after.fault
        assert room.clock.now().replace(microsecond=0) == after.accepted_at
        assert ["policy_loaded", "policy_refused", "policy_last_good"] == room.journal.names

    async def test_with_the_last_good_set_of_another_folder(self, room):
        """Where the folder has another name since, and cannot be used, the last good set is in force and says whose it is."""
        room.write("one")
        await room.folder.start()
        before, room.path = room.path, room.path.rename(room.path.with_name("renamed"))
        room.write("two", "nonsense")
        after = room.made()
        await after.start()
        await room.audit.flush()
        assert (LAST_GOOD, ["one"], room.path) == (after.origin, list(after.types), after.folder)
        (fields,) = room.journal.fields("policy_last_good")
        assert (str(room.path), str(before)) == (fields["folder"], fields["of_folder"])

    @SPOILT
    async def test_without_one(self, room, spoil, says):
        """Without a last good set none is in force, and why is told; the mended folder is taken by the next look."""
        room.write("one")
        spoil(room)
        await room.folder.start()
        assert (NONE, {}, "no set has been in force here before") == (
            room.folder.origin,
            room.folder.types,
            room.folder.without,
        )
        assert says in room.folder.fault
        mend(room)
        await room.look()
        assert (FOLDER, ["one"], "", "") == (
            room.folder.origin,
            list(room.folder.types),
            room.folder.fault,
            room.folder.without,
        )
        assert ["policy_refused", "policy_none", "policy_loaded"] == room.journal.names

    async def test_one_that_does_not_fit(self, room):
        """A kept set that does not fit what is around it any more is not used."""
        room.write("one")
        await room.folder.start()
        after = room.made(check=lambda _: [Fault("one.toml", 3, "no such provider")])
        await after.start()
        fault = f"{room.path}/one.toml:3: no such provider"
        assert (NONE, fault, fault) == (after.origin, after.fault, after.without)

    async def test_a_bug_does_not_hinder_it(self, room):
        """An error that nobody foresaw, in the folder's set and in the kept one, leaves no set in force."""
        room.write("one")
        await room.folder.start()

        def broken(_types):
            raise RuntimeError("oh")

        after = room.made(check=broken)
        await after.start()
        internal = "internal error; the log has it"
        assert (NONE, internal, internal) == (after.origin, after.fault, after.without)

    async def test_the_newest_is_kept(self, room):
        """Each set that comes into force is kept, also one that its database did not take at first."""
        room.write("one")
        await room.folder.start()
        room.kept.broken = True
        room.write("one", NO_WRITES)
        await room.look()
        room.kept.broken = False
        await room.look()
        room.write("one", "nonsense")
        after = room.made()
        await after.start()
        assert (LAST_GOOD, room.folder.types.digest) == (after.origin, after.types.digest)

    async def test_the_usual_folder_that_is_gone(self, room):
        """The usual folder need not be there; if it was, its going is a fault at the next start too."""
        room.write("one")
        await room.made(optional=True).start()
        away = room.path.rename(room.path.with_name("away"))
        after = room.made(optional=True)
        await after.start()
        assert (LAST_GOOD, True) == (after.origin, "cannot be read" in after.fault)
        away.rename(room.path)
        for name in ("one.toml", "one.cedar"):
            (room.path / name).unlink()
        await after.look()
        room.path.rmdir()
        last = room.made(optional=True)
        await last.start()
        assert (FOLDER, {}, "") == (last.origin, last.types, last.fault)


class TestCases:
    CASE = '[[case]]\nname = "c"\nexpect = "{expect}"\naction = "ticket:read"\nresource = "' + TICKETS + '"\n'

    def case(self, room, expect):
        (room.path / "one.test.toml").write_text(self.CASE.format(expect=expect))

    async def test_are_required(self, room):
        """Where cases are required, a type without any and one whose cases fail are faults with their places."""
        folder = room.made(require_cases=True)
        room.write("one")
        await folder.start()
        assert folder.fault == (
            f"{room.path}/one.toml: it has no cases, and tasks.require_cases is set: write one.test.toml"
        )
        self.case(room, "deny")
        await folder.look()
        assert f"{room.path}/one.test.toml:1: case 'c' fails: expected deny, got allow" == folder.fault
        (room.path / "one.test.toml").write_text("[[case]]\n")
        await folder.look()
        assert "one.test.toml" in folder.fault
        (room.path / "one.test.toml").chmod(0o666)
        await folder.look()
        assert f"{room.path}/one.test.toml: can be written by others: chmod go-w it" == folder.fault
        (room.path / "one.test.toml").chmod(0o644)
        self.case(room, "allow")
        await folder.look()
        assert ("", [["one"]]) == (folder.fault, room.taken)

    async def test_of_the_kept_set(self, room):
        """The kept set must stand by its cases too, those of when it was taken."""
        room.write("one")
        self.case(room, "allow")
        await room.made().start()
        self.case(room, "deny")
        without = room.made(require_cases=True)
        await without.start()
        assert (NONE, True) == (without.origin, "it has no cases" in without.without)
        self.case(room, "allow")
        await without.look()
        self.case(room, "deny")
        after = room.made(require_cases=True)
        await after.start()
        assert LAST_GOOD == after.origin

    async def test_by_another_rule(self, room):
        """A folder that is followed by the rule from now on is read at once; what is in force stays."""
        room.write("one")
        await room.folder.start()
        await room.folder.move(room.path, optional=False, require_cases=True)
        assert ("it has no cases" in room.folder.fault, ["one"]) == (True, list(room.folder.types))
        await room.folder.move(room.path, optional=False, require_cases=False)
        assert "" == room.folder.fault


def mend(room):
    """Have the folder good again, with the one type."""
    if not room.path.exists():
        room.path.with_name("away").rename(room.path)
    room.path.chmod(0o755)
    (room.path / "one.toml").chmod(0o644)
    for name in ("two.toml", "two.cedar"):
        (room.path / name).unlink(missing_ok=True)
    room.write("one")


class TestRefused:
    @SPOILT
    async def test_leaves_the_old_set(self, room, spoil, says):
        """A set with a fault changes nothing; log, audit and status say what is wrong, once; mended it is in force."""
        room.write("one")
        await room.look()
        digest = room.folder.types.digest
        spoil(room)
        for _ in range(3):
            await room.look()
            room.clock.advance(FOLLOWED_RETRY_SECONDS)
        assert ([["one"]], digest) == (room.taken, room.folder.types.digest)
        assert says in room.folder.fault
        [refused] = room.journal.fields("policy_refused")
        assert digest == refused["in_force"]
        with pytest.raises(InvalidPolicy):
            await room.folder.reload()
        mend(room)
        await room.look()
        assert ("", digest) == (room.folder.fault, room.folder.types.digest)
        assert 2 == room.journal.names.count("policy_loaded")

    async def test_a_bug_does_not_end_it(self, room, monkeypatch):
        """An error that nobody foresaw is told, and the next change is followed."""

        def broken():
            raise RuntimeError("oh")

        room.write("one")
        with monkeypatch.context() as patch:
            patch.setattr(room.folder._watched, "sight", broken)
            await room.look()
        assert "internal error; the log has it" == room.folder.fault
        room.clock.advance(FOLLOWED_RETRY_SECONDS)
        await room.look()
        assert ([["one"]], "") == (room.taken, room.folder.fault)

    async def test_one_that_is_being_written(self, room, monkeypatch):
        """A folder that changes while it is read is of no account until it has come to rest."""
        room.write("one")
        read = room.folder._read

        def slow(folder):
            found = read(folder)
            room.write("two")
            return found

        with monkeypatch.context() as patch:
            patch.setattr(room.folder, "_read", slow)
            await room.look()
        assert [] == room.taken
        await room.look()
        assert [["one", "two"]] == room.taken

    async def test_an_optional_folder(self, tmp_path):
        """The usual folder need not be there until it has been; then its going is a fault."""
        room = Room(tmp_path, optional=True)
        room.path.rmdir()
        await room.look()
        room.path.mkdir()
        room.write("one")
        await room.look()
        room.path.rename(tmp_path / "away")
        await room.look()
        assert ([[], ["one"]], True) == (room.taken, "cannot be read" in room.folder.fault)

    async def test_another_folder(self, room, tmp_path):
        """Another folder is read and nothing else, for a dry run."""
        room.write("one")
        await room.look()
        (tmp_path / "other").mkdir()
        assert {} == await room.folder.read(tmp_path / "other")
        assert (1, "") == (len(room.folder.types), room.folder.fault)


class TestPolicies:
    @pytest.fixture
    def engine(self, room):
        made = EngineRoom(room.clock, {})
        yield made.engine
        made.end_everything()

    def policies(self, engine, room, candidate=None, check=lambda _: (), **settings):
        return Policies(engine, TaskChanges(engine), room.path, candidate, room.audit, room.clock, check, **settings)

    async def test_start(self, engine, room):
        """At the start the set is in force, and recorded."""
        room.write("triage")
        await self.policies(engine, room).start()
        await room.audit.flush()
        assert (["triage"], None, ["policy_loaded"]) == (list(engine.types), engine.shadow, room.journal.names)

    async def test_none_in_force(self, engine, room):
        """With a set that cannot be used, and no other, no task type is known, by an error of its own, until it is mended."""
        room.write("triage", "nonsense")
        policies = self.policies(engine, room)
        await policies.start()
        with pytest.raises(NoTaskTypes, match="no task types are in force"):
            engine.type_named("triage")
        assert "triage.cedar:1: policy cannot be parsed" in policies.caution
        assert "NO task types are in force (no set is kept)" in policies.caution
        room.write("triage")
        await policies.folder.look()
        assert ("triage", "") == (engine.type_named("triage").name, policies.caution)

    async def test_the_last_good_set(self, engine, room):
        """With the last good set its types are known, and the caution says since when it is."""
        room.write("triage")
        await self.policies(engine, room, last_good=LastGood(room.kept, room.clock)).start()
        room.write("triage", "nonsense")
        policies = self.policies(engine, room, last_good=LastGood(room.kept, room.clock))
        await policies.start()
        assert "triage" == engine.type_named("triage").name
        assert f"the last good set is in force, of {room.clock.now():%Y-%m-%d %H:%M:%S} UTC" in policies.caution

    async def test_a_candidate(self, engine, room, tmp_path):
        """A candidate is loaded beside; one that cannot be used hinders nobody, and is told."""
        room.write("triage")
        other = tmp_path / "candidate"
        policies = self.policies(engine, room, other)
        await policies.start()
        assert (None, True) == (engine.shadow.types, "cannot be read" in policies.candidate.fault)
        other.mkdir()
        (other / "triage.toml").write_text(toml())
        (other / "triage.cedar").write_text(NO_WRITES)
        await policies.candidate.reload()
        await room.audit.flush()
        assert (["triage"], policies.candidate.types) == (list(engine.shadow.types), engine.shadow.types)
        assert ["policy_loaded", "shadow_policy_refused", "shadow_policy_loaded"] == room.journal.names

    async def test_another_candidate(self, engine, room, tmp_path):
        """A candidate that is tried is asked at once if it is whole; else the one before stays. It can be dropped."""
        room.write("triage")
        policies = self.policies(engine, room)
        await policies.start()
        good, bad = tmp_path / "good", tmp_path / "bad"
        for folder, cedar in ((good, NO_WRITES), (bad, "nonsense")):
            folder.mkdir()
            (folder / "triage.toml").write_text(toml())
            (folder / "triage.cedar").write_text(cedar)
        tried = await policies.try_candidate(good, by_uid=7)
        assert (tried, tried.types) == (policies.candidate, engine.shadow.types)
        with pytest.raises(InvalidPolicy, match=r"/bad/triage\.cedar:1: policy cannot be parsed"):
            await policies.try_candidate(bad)
        assert (tried, "") == (policies.candidate, tried.fault)
        await policies.drop_candidate(by_uid=8)
        assert (None, None) == (policies.candidate, engine.shadow)
        await policies.drop_candidate()
        await policies.follow_candidate(bad)
        assert (None, True) == (engine.shadow.types, "cannot be parsed" in policies.candidate.fault)
        await policies.follow_candidate(None)
        assert None is engine.shadow
        await room.audit.flush()
        assert ["policy_loaded", "shadow_policy_loaded", "shadow_policy_dropped", "shadow_policy_refused"] == (
            room.journal.names
        )
        assert [8] == [each["by_uid"] for each in room.journal.fields("shadow_policy_dropped")]

    async def test_moved(self, engine, room, tmp_path):
        """Another folder is followed from then on; one that cannot be used leaves in force what is."""
        room.write("triage")
        policies = self.policies(engine, room, tmp_path / "candidate")
        await policies.start()
        await policies.move(tmp_path / "nowhere", require_cases=True)
        assert (["triage"], True) == (list(engine.types), "cannot be read" in policies.folder.fault)
        assert policies.candidate.require_cases
        (tmp_path / "other").mkdir()
        await policies.move(tmp_path / "other", require_cases=False)
        assert ({}, "", tmp_path / "other") == (engine.types, policies.folder.fault, policies.folder.folder)

    async def test_a_candidate_of_later_is_followed(self, engine, room, tmp_path):
        """A candidate that is tried while folders are followed is followed too, and no more once it is dropped."""
        room.write("triage")
        policies = self.policies(engine, room)
        await policies.start()
        running = asyncio.ensure_future(policies.run())
        await asyncio.sleep(0)
        other = tmp_path / "candidate"
        other.mkdir()
        try:
            await policies.try_candidate(other)
            (other / "third.toml").write_text(toml())
            (other / "third.cedar").write_text(PERMIT_ALL)
            async with asyncio.timeout(20):
                while not engine.shadow.types:
                    policies.wake()
                    await asyncio.sleep(0.01)
            await policies.drop_candidate()
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def test_what_else_is_wrong(self, engine, room, tmp_path):
        """A set that does not fit what is around it is refused with file and line: at the start, later, as a candidate."""
        wrong = []
        other = tmp_path / "candidate"
        other.mkdir()
        policies = self.policies(engine, room, other, lambda types: [each for each in wrong if types])
        room.write("triage")
        await policies.start()
        digest, fault = engine.types.digest, Fault("triage.toml", 3, "no such provider")
        wrong.append(fault)
        room.write("triage", NO_WRITES)
        with pytest.raises(InvalidPolicy, match=r"/types/triage\.toml:3: no such provider"):
            await policies.folder.reload()
        with pytest.raises(InvalidPolicy, match="no such provider"):
            await policies.folder.read()
        (other / "triage.toml").write_text(toml())
        (other / "triage.cedar").write_text(PERMIT_ALL)
        await policies.candidate.look()
        assert (digest, 0) == (engine.types.digest, len(engine.shadow.types))
        assert policies.folder.fault.endswith("/types/triage.toml:3: no such provider")
        assert policies.candidate.fault.endswith("/candidate/triage.toml:3: no such provider")
        at_the_start = self.policies(engine, room, None, lambda _: wrong)
        await at_the_start.start()
        assert at_the_start.folder.fault.endswith("/types/triage.toml:3: no such provider")

    async def test_a_difference_is_recorded(self, room, tmp_path):
        """What the candidate would answer otherwise is in the audit once, with both sets' digests."""
        room.write("triage")
        made = EngineRoom(room.clock, {})
        other = tmp_path / "candidate"
        other.mkdir()
        (other / "triage.toml").write_text(toml())
        (other / "triage.cedar").write_text(NO_WRITES)
        policies = self.policies(made.engine, room, other)
        await policies.start()
        try:
            with structlog.testing.capture_logs() as logs:
                for _ in range(3):
                    await made.begin()
        finally:
            made.end_everything()
        await room.audit.flush()
        [found] = room.journal.fields("shadow_difference")
        difference = {
            "type": "triage",
            "spiffe_id": TRIAGE,
            "action": "ticket:write",
            "resource": TICKETS,
            "allowed": True,
            "policies": ["all"],
            "candidate_allows": False,
            "candidate_rule": "policy",
            "candidate_policies": ["no-writes"],
        }
        sets = {"policy_set": made.engine.types.digest, "candidate_set": policies.candidate.types.digest}
        assert {**difference, **sets} == found
        [logged] = [json.loads(json.dumps(each)) for each in logs if each["event"] == "shadow_difference"]
        assert difference.items() <= logged.items()

    async def test_followed(self, engine, room, tmp_path):
        """Both folders are followed until that is cancelled, and what is written is taken at the next wake."""
        room.write("triage")
        other = tmp_path / "candidate"
        other.mkdir()
        policies = self.policies(engine, room, other)
        await policies.start()
        running = asyncio.ensure_future(policies.run())
        try:
            room.write("second")
            (other / "third.toml").write_text(toml())
            (other / "third.cedar").write_text(PERMIT_ALL)
            async with asyncio.timeout(20):
                while (2, 1) != (len(engine.types), len(engine.shadow.types or ())):
                    policies.wake()
                    await asyncio.sleep(0.01)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def test_followed_without_a_candidate(self, engine, room):
        """Without a candidate the one folder is followed."""
        room.write("triage")
        policies = self.policies(engine, room)
        await policies.start()
        running = asyncio.ensure_future(policies.run())
        try:
            room.write("second")
            async with asyncio.timeout(20):
                while len(engine.types) < 2:
                    policies.wake()
                    await asyncio.sleep(0.01)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def test_a_folder_that_need_not_be_there(self, engine, room, tmp_path, monkeypatch):
        """The usual folder need not be there, and then there are no types; one that is named must be."""
        monkeypatch.setattr("sojourn.tasks.type_sets.usual_folder", lambda: tmp_path / "nowhere")
        await Policies(engine, TaskChanges(engine), None, None, room.audit, room.clock).start()
        assert {} == engine.types
        assert "" == engine.no_types
        await Policies(engine, TaskChanges(engine), tmp_path / "nowhere", None, room.audit, room.clock).start()
        assert engine.no_types

    def test_the_usual_folder_of_a_user(self, monkeypatch):
        """A user who names no configuration folder has the one in the home directory."""
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
        assert "/home/ada/.config/sojourn/task-types" == str(usual_folder())

    def test_the_usual_folder(self, monkeypatch):
        """Root has its task types in /etc, others in their configuration folder."""
        monkeypatch.setenv("XDG_CONFIG_HOME", "/home/ada/.config")
        for uid, expected in ((0, "/etc/sojourn/task-types"), (1000, "/home/ada/.config/sojourn/task-types")):
            monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
            assert expected == str(usual_folder())

    def test_the_folder_of_a_user_without_a_home(self, monkeypatch):
        """Whoever has no home directory has the machine's task types."""

        def nowhere() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setattr(Path, "home", nowhere)
        assert "/etc/sojourn/task-types" == str(usual_folder())
