"""entries_folder.py: what a folder says is in force, whole, or what was before stays."""

import json
import os
from dataclasses import replace

import pytest
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from fakes.journals import FakeAuditStore
from fakes.registrations import NODE, OTHER_NODE, TRUST_DOMAIN, FakeEntryStore, FakeForeignStore, entry
from sojourn.audit.journal import Audit
from sojourn.errors import AlreadyExists, FailedPrecondition, InvalidInput, StoreFull
from sojourn.files import trusted
from sojourn.identity import entries_folder
from sojourn.identity.entries_folder import FollowedFolder
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.identity.program_files import Cautions
from sojourn.identity.registry import Registry
from sojourn.limits import FOLLOWED_RETRY_SECONDS
from sojourn.runtime.clock import Alarms
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import TrustDomain

HAND = entry("/hand", "unix:uid:9")
OTHER = TrustDomain("other.org")


def text(path, selector="unix:uid:1", more=""):
    return f"spiffe_id: spiffe://example.org{path}\nselectors: ['{selector}']\n{more}"


class Room:
    """A followed folder, with an entry that was made by hand beside it."""

    def __init__(self, tmp_path):
        self.path = tmp_path / "entries"
        self.path.mkdir(exist_ok=True)
        self.keys = tmp_path / "keys"
        self.clock = FakeClock()
        self.store = FakeEntryStore([HAND])
        self.journal = FakeAuditStore()
        self.audit = Audit(self.journal, self.clock)
        self.restart()

    def restart(self, path=None):
        """Come up anew on the same store."""
        self.registry = Registry(self.store, TRUST_DOMAIN, [NODE], self.clock, Alarms(self.clock))
        self.foreign = ForeignBundles(FakeForeignStore(), TRUST_DOMAIN, self.registry)
        self.folder = FollowedFolder(
            path or self.path, self.registry, self.foreign, Cautions({"unix"}, [NODE]), self.audit, self.clock
        )

    async def says(self, **files):
        """Make the folder's files these, and look. A text of None leaves the file as it is."""
        for old in self.path.iterdir():
            if old.stem not in files:
                old.unlink()
        for name, content in files.items():
            if content is not None:
                (self.path / f"{name}.yaml").write_text(content)
        await self.folder.look()
        await self.audit.flush()

    @property
    def paths(self):
        return sorted(each.spiffe_id.path for each in self.registry)

    def get(self, path):
        [found] = [each for each in self.registry if each.spiffe_id.path == path]
        return found


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path)


class TestInForce:
    async def test_create_update_delete(self, room):
        """Entries are created, changed and deleted as the files are; the one made by hand stays."""
        await room.says(a=text("/a"), b=text("/b"))
        assert ["/a", "/b", "/hand"] == room.paths
        assert (str(room.path), NODE, "") == (room.get("/a").origin, room.get("/a").parent_id, room.get("/hand").origin)
        first = room.get("/a")
        await room.says(a=text("/a", more="hint: h\npriority: 4"))
        assert ["/a", "/hand"] == room.paths
        assert replace(first, hint="h", priority=4, revision=1) == room.get("/a")
        told = [(each.event, json.loads(each.fields)["folder"]) for each in room.store.events]
        done = ("created", "created", "updated", "deleted")
        assert [(f"entry_{each}", str(room.path)) for each in done] == told
        assert ("", 1, room.clock.now()) == (room.folder.fault, room.folder.entries, room.folder.applied_at)

    async def test_an_empty_folder(self, room):
        """An empty folder is a set of no entries."""
        await room.says(a=text("/a"))
        await room.says()
        assert ["/hand"] == room.paths

    async def test_only_when_it_changed(self, room, monkeypatch):
        """Files that have not changed are not read again."""
        await room.says(a=text("/a"))
        monkeypatch.setattr(room.folder, "_read", lambda: pytest.fail("read again"))
        await room.folder.look()

    async def test_files_that_are_not_entries(self, room):
        """Other files, hidden ones and folders below are left alone."""
        (room.path / "notes.txt").write_text("{")
        (room.path / ".draft.yaml").write_text("{")
        (room.path / "below").mkdir()
        await room.folder.look()
        assert ("", ["/hand"]) == (room.folder.fault, room.paths)

    async def test_while_it_is_written(self, room, monkeypatch):
        """What was read of a folder that has changed since is neither applied nor told; the next look takes it."""
        read = room.folder._read

        def slow():
            found = read()
            (room.path / "b.yaml").write_text(text("/b"))
            return found

        (room.path / "a.yaml").write_text(text("/a") + "{")
        monkeypatch.setattr(room.folder, "_read", slow)
        await room.folder.look()
        assert ("", ["/hand"]) == (room.folder.fault, room.paths)
        (room.path / "a.yaml").write_text(text("/a"))
        monkeypatch.setattr(room.folder, "_read", read)
        await room.folder.look()
        assert ["/a", "/b", "/hand"] == room.paths

    async def test_a_link_to_another_set(self, room, tmp_path):
        """A folder whose files are links, as Kubernetes mounts them, follows the set that the links lead to."""
        for number in (1, 2):
            (tmp_path / f"set{number}").mkdir()
            (tmp_path / f"set{number}" / "a.yaml").write_text(text(f"/set{number}"))
        os.symlink(tmp_path / "set1", tmp_path / "now")
        os.symlink(tmp_path / "now" / "a.yaml", room.path / "a.yaml")
        await room.folder.look()
        os.symlink(tmp_path / "set2", tmp_path / "next")
        os.replace(tmp_path / "next", tmp_path / "now")
        await room.folder.look()
        assert ["/hand", "/set2"] == room.paths


class TestRefused:
    @pytest.mark.parametrize(
        ("files", "says"),
        [
            ({"b": "{"}, "b.yaml: neither YAML nor JSON"),
            ({"b": text("/b", more="colour: red")}, "b.yaml: entry 1: unknown key 'colour'"),
            ({"b": text("/b", more="x509_svid_ttl: 3s")}, "b.yaml: entry 1 (spiffe://example.org/b): x509_svid_ttl"),
            ({"b": text("/b"), "c": text("/b")}, "c.yaml: entry 1 (spiffe://example.org/b): is the same as b.yaml: en"),
            ({"b": text("/hand", "unix:uid:9")}, "is the same as the entry entry-hand, which was made by hand"),
            ({"b": text("/x", more=f"id: {HAND.id}")}, "which was made by hand"),
            (
                {"b": text("/b", more="federates_with: [other.org]")},
                'there is no bundle of the trust domain "other.org"',
            ),
            ({"b": text("/b").replace("example.org", "elsewhere.org")}, "is not a member of trust domain"),
        ],
    )
    async def test_the_old_set_stays(self, room, files, says):
        """A set with any fault changes nothing, and the fault is told with its file: state, log and audit."""
        await room.says(a=text("/a"))
        await room.says(a=text("/new"), **files)
        assert ["/a", "/hand"] == room.paths
        assert says in room.folder.fault
        [told] = room.journal.fields("followed_folder_refused")
        assert told["reason"] == room.folder.fault[:200]

    async def test_all_faults_at_once(self, room):
        """The faults of all files are told."""
        await room.says(a="{", b="5", c=text("/c"))
        assert "a.yaml: " in room.folder.fault
        assert "b.yaml: entry 1: is not a mapping" in room.folder.fault

    async def test_told_once(self, room):
        """A fault that stays is told once, though it is tried again; another is told again."""
        await room.says(a="{")
        room.clock.advance(FOLLOWED_RETRY_SECONDS)
        await room.says(a=None)
        assert ["followed_folder_refused"] == room.journal.names
        await room.says(a="5")
        assert 2 == len(room.journal.names)

    async def test_a_folder_that_is_not_there(self, room):
        """A folder that is gone is a fault, not a set of no entries."""
        await room.says(a=text("/a"))
        (room.path / "a.yaml").unlink()
        room.path.rmdir()
        await room.folder.look()
        assert ["/a", "/hand"] == room.paths
        assert "cannot be read" in room.folder.fault

    @pytest.mark.parametrize("which", ["folder", "file"])
    async def test_written_by_others(self, room, which):
        """What others may write is not believed, folder or file."""
        await room.says(a=text("/a"))
        os.chmod(room.path if which == "folder" else room.path / "a.yaml", 0o777)
        (room.path / "b.yaml").write_text(text("/b"))
        await room.folder.look()
        assert ["/a", "/hand"] == room.paths
        assert "can be written by others" in room.folder.fault

    @pytest.mark.root
    async def test_a_link_of_another_users(self, room, tmp_path):
        """In a folder like /tmp, in which others may add, they add no entry by a link to a file that only we can read."""
        await room.says(a=text("/a"))
        (tmp_path / "kept").mkdir(mode=0o700)
        (tmp_path / "kept" / "retired.yaml").write_text(text("/retired/admin"))
        room.path.chmod(0o1777)
        os.symlink(tmp_path / "kept" / "retired.yaml", room.path / "x.yaml")
        os.lchown(room.path / "x.yaml", 4001, 4001)
        await room.folder.look()
        assert ["/a", "/hand"] == room.paths
        assert "can be written by others" in room.folder.fault

    async def test_another_owner(self, room, monkeypatch):
        """A file of another user is not believed."""

        def other(status):
            raise InvalidInput("belongs to user 5")

        monkeypatch.setattr(trusted, "check_owner", other)
        await room.says(a=text("/a"))
        assert (["/hand"], True) == (room.paths, "belongs to user 5" in room.folder.fault)

    async def test_mended(self, room):
        """Once it is good again it is in force, and there is no fault."""
        await room.says(a="{")
        await room.says(a=text("/a"))
        assert ("", ["/a", "/hand"]) == (room.folder.fault, room.paths)

    async def test_mended_elsewhere(self, room):
        """What was refused for another reason than the files' is taken a while after the reason has gone."""
        await room.says(a=text("/a", more="federates_with: [other.org]"))
        await room.foreign.put(Bundle(OTHER, (authority_in(room.keys, room.clock).root,)))
        await room.folder.look()
        assert ["/hand"] == room.paths
        room.clock.advance(FOLLOWED_RETRY_SECONDS)
        await room.folder.look()
        assert (["/a", "/hand"], "") == (room.paths, room.folder.fault)

    async def test_the_store_is_full(self, room):
        """A set that the store did not take is tried again."""
        room.store.failure = StoreFull("no room")
        await room.says(a=text("/a"))
        assert ("no room", ["/hand"]) == (room.folder.fault, room.paths)
        room.store.failure = None
        room.clock.advance(FOLLOWED_RETRY_SECONDS)
        await room.folder.look()
        assert ["/a", "/hand"] == room.paths

    async def test_a_bug_does_not_end_it(self, room, monkeypatch):
        """An error that nobody foresaw is told, and the next change is followed."""

        def broken():
            raise RuntimeError("oh")

        with monkeypatch.context() as patch:
            patch.setattr(room.folder._watched, "sight", broken)
            await room.says(a=text("/a"))
            assert "internal error" in room.folder.fault
        await room.says(a=text("/b"))
        assert ["/b", "/hand"] == room.paths

    async def test_too_many_files(self, room, monkeypatch):
        """There is a limit to the files of a folder."""
        monkeypatch.setattr(entries_folder, "FOLLOWED_FILES", 1)
        await room.says(a=text("/a"), b=text("/b"))
        assert "more than 1 files" in room.folder.fault


class TestByHand:
    async def test_refused(self, room):
        """What comes from the folder is changed there, and not by hand."""
        await room.says(a=text("/a"))
        found = room.get("/a")
        [updated] = await room.registry.update([(found.id, lambda old: replace(old, hint="x"))])
        [deleted] = await room.registry.delete([found.id])
        [twin] = await room.registry.create([replace(found, id="", origin="")])
        for outcome in (updated, deleted):
            assert isinstance(outcome.error, FailedPrecondition)
            assert str(room.path) in outcome.error.public
        assert isinstance(twin.error, AlreadyExists)
        assert found == room.get("/a")

    async def test_apply_spares_it(self, room):
        """Applied sets leave it: as it is they may name it, other than it is they may not, and pruning passes it by."""
        await room.says(a=text("/a"))
        found = replace(room.get("/a"), id="", origin="", revision=0, created_at=0)
        plan = await room.registry.apply([found], prune=True, dry_run=False)
        assert (["delete"], 1, ["/a"]) == ([step.action for step in plan.steps], plan.unchanged, room.paths)
        with pytest.raises(FailedPrecondition, match="comes from the followed folder"):
            await room.registry.apply([replace(found, hint="x")], prune=True, dry_run=False)
        assert room.get("/a").hint == ""

    async def test_bundles_that_it_needs_stay(self, room):
        """A bundle cannot be deleted in a way that would change an entry of the folder."""
        await room.foreign.put(Bundle(OTHER, (authority_in(room.keys, room.clock).root,)))
        await room.says(a=text("/a", more="federates_with: [other.org]"))
        for mode in ("restrict", "delete", "dissociate"):
            with pytest.raises(FailedPrecondition):
                await room.foreign.remove(OTHER, mode)
        assert (OTHER,) == room.get("/a").federates_with
        assert room.foreign.get(OTHER) is not None


class TestRestart:
    async def test_the_origin_is_remembered(self, room):
        """After a restart the folder's entries are the folder's, and those that it has no more go."""
        await room.says(a=text("/a"), b=text("/b"))
        kept = room.get("/a")
        (room.path / "b.yaml").unlink()
        room.restart()
        assert ["/a", "/b", "/hand"] == room.paths
        await room.folder.look()
        assert (["/a", "/hand"], kept) == (room.paths, room.get("/a"))

    async def test_an_invalid_set(self, room):
        """An agent that starts on an invalid set goes on with what it had."""
        await room.says(a=text("/a"))
        (room.path / "a.yaml").write_text("{")
        room.restart()
        await room.folder.look()
        assert (["/a", "/hand"], None) == (room.paths, room.folder.applied_at)
        assert room.folder.fault

    async def test_another_folder(self, room, tmp_path):
        """The entries of a folder that was followed before are those of the one that is followed now."""
        await room.says(a=text("/a"), b=text("/b"))
        second = tmp_path / "second"
        second.mkdir()
        (second / "x.yaml").write_text(text("/a"))
        room.restart(second)
        await room.folder.look()
        assert (["/a", "/hand"], str(second)) == (room.paths, room.get("/a").origin)

    async def test_following_no_more(self, room):
        """Without a followed folder its entries stay, and may be changed by hand."""
        await room.says(a=text("/a"))
        registry = Registry(room.store, TRUST_DOMAIN, [NODE], room.clock, Alarms(room.clock))
        found = room.get("/a")
        [outcome] = await registry.update([(found.id, lambda old: replace(old, hint="x"))])
        assert (None, "x", str(room.path)) == (outcome.error, outcome.entry.hint, outcome.entry.origin)

    async def test_another_nodes_entries(self, room):
        """A folder may have entries of other nodes: they are kept, not served, and go when it has them no more."""
        await room.says(a=text("/a", more=f"parent_id: {OTHER_NODE}"))
        assert not room.registry.serves(room.get("/a"))
        await room.says()
        assert ["/hand"] == room.paths
