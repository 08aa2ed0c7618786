"""evidence/: an export passes as it is, and in no other form; with the right keys, and with no others."""

import asyncio
import json
import os
import shutil

import pytest
from fakes.signed_journals import exported, started
from harness import tampering
from sojourn.errors import InvalidInput, NotFound
from sojourn.evidence.check import FolderCheck, check_proof, read_file, summary
from sojourn.evidence.faults import FAULTS
from sojourn.evidence.manifest import MANIFEST, MANIFEST_NOTE, Manifest
from sojourn.tlog.notes import VerifierKey

RECORDS = 702  # of the folder: those that were made, and two of the log itself


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An export with a rotation in it, its first key, and the first of its checkpoints."""
    return asyncio.run(exported(tmp_path_factory.mktemp("made"), [300, 400], rotate=True))


def verdict(folder, *vkeys, after=None):
    return FolderCheck(folder, [VerifierKey.parse(each) for each in vkeys], after, lambda *_: None).run()


def codes(found):
    return [each.code for each in found.faults.found]


class TestReadFile:
    """Files of an export are as whoever has made it wants them."""

    def test_no_more_than_may_be(self, tmp_path):
        """No more is read of a file than it may have."""
        (tmp_path / "some").write_bytes(b"x" * 100)
        assert (b"x" * 10, b"x" * 100) == (read_file(tmp_path, "some", 10), read_file(tmp_path, "some"))

    @pytest.mark.parametrize("name", ["pipe", "folder", "endless", "../outside", "/etc/hostname", "gone"])
    def test_no_file(self, tmp_path, name):
        """What is no regular file of the folder is not read: a pipe would keep whoever reads it waiting for ever."""
        folder = tmp_path / "out"
        (folder / "folder").mkdir(parents=True)
        (tmp_path / "outside").write_bytes(b"x")
        os.mkfifo(folder / "pipe")
        (folder / "endless").symlink_to("/dev/zero")
        with pytest.raises(OSError, match=r"."):
            read_file(folder, name)


class TestGood:
    async def test_as_it_is(self, made):
        """An export is good by the key of before a rotation, by an older checkpoint, and by nothing but files."""
        folder, vkey, first = made
        found = verdict(folder, vkey, after=first)
        assert ([], True, RECORDS) == (codes(found), found.good, found.records)
        assert summary(found)["logs"][0]["size"] == found.records

    async def test_by_the_new_key(self, made, tmp_path):
        """Whoever has the key of after a rotation alone needs no proof of the rotation."""
        async with started(tmp_path) as here:
            await here.record(10)
            await here.signed.rotate({"by_uid": 0, "by_pid": 1})
            await here.record(10)
            folder = await here.export(tmp_path / "out")
            assert [] == codes(verdict(folder, here.vkey))

    async def test_a_part(self, tmp_path):
        """A part of the journal by time is good, with the tree of all of it."""
        async with started(tmp_path) as here:
            times = []
            for _ in range(3):
                times.append(int(here.clock.now().timestamp() * 1000))
                await here.record(300)
                here.clock.advance(60)
            folder = await here.export(tmp_path / "out", since_ms=times[1], until_ms=times[2])
            found = verdict(folder, here.vkey)
            assert ([], 300, 302) == (codes(found), found.records, found.manifest.begin)

    async def test_a_pruned_one(self, tmp_path):
        """What was pruned is told and is no fault; an older checkpoint within that cannot be compared."""
        async with started(tmp_path, kept_least=1) as here:
            await here.record(100)
            early = here.checkpoint
            await here.record(600)
            late = here.checkpoint
            await here.journal.prune(650, 5)
            await here.signed.settle()
            folder = await here.export(tmp_path / "out")
            found = verdict(folder, here.vkey, after=late)
            assert ([], 650) == (codes(found), found.manifest.pruned_until)
            assert ["head_unproved"] == codes(verdict(folder, here.vkey, after=early))

    async def test_long_records(self, tmp_path):
        """A record that is too long for a leaf is exported whole, and no byte of it can be changed."""
        async with started(tmp_path) as here:
            await here.record(3, "x" * 70_000)
            folder = await here.export(tmp_path / "out")
            assert [] == codes(verdict(folder, here.vkey))
            tampering.byte_of_record(2, 40_000, 1)(folder)
            assert {"record_changed", "record_not_signed"} <= set(codes(verdict(folder, here.vkey)))

    async def test_nothing_in_that_time(self, tmp_path):
        """Of a time without records there is no export."""
        async with started(tmp_path) as here:
            with pytest.raises(NotFound):
                await here.export(tmp_path / "out", until_ms=1)


class TestChanged:
    @pytest.mark.full
    @pytest.mark.parametrize("seed", range(2))
    async def test_every_change_is_found(self, made, tmp_path, seed):
        """Each of a hundred and more changes is found: bytes, records, chains, checkpoints, manifests, tiles."""
        folder, vkey, first = made
        tried = 0
        for name, change in tampering.changes(RECORDS, seed):
            copy = tmp_path / "copy"
            shutil.copytree(folder, copy)
            change(copy)
            try:
                found = verdict(copy, vkey, after=first)
                assert not found.good, name
                assert {each.code for each in found.faults.found} <= FAULTS.keys()
            except NotFound:
                assert name == f"without {MANIFEST}"
            shutil.rmtree(copy)
            tried += 1
        assert tried > 100

    @pytest.mark.parametrize("number", [0, 1, 255, 256, 700])
    async def test_where_it_is(self, made, tmp_path, number):
        """The first record that was changed is named, also where the rest was chained anew."""
        folder, vkey, _ = made
        for change in (tampering.chained_anew(number), tampering.dropped(number)):
            copy = tmp_path / f"copy-{id(change)}"
            shutil.copytree(folder, copy)
            change(copy)
            assert number + 1 == verdict(copy, vkey).faults.first_bad_seq

    async def test_another_log(self, made, tmp_path):
        """An export that somebody has signed with another key is refused, whatever it says of its origin."""
        folder, vkey, _ = made
        async with started(tmp_path) as here:
            await here.record(3)
            other = await here.export(tmp_path / "out")
        assert {"key_missing", "manifest_not_signed", "checkpoint_not_signed"} <= set(codes(verdict(other, vkey)))
        named = VerifierKey(VerifierKey.parse(vkey).name, VerifierKey.parse(here.vkey).public)
        assert "checkpoint_not_signed" in codes(verdict(folder, str(named)))

    async def test_a_restored_database(self, tmp_path):
        """A database that was put back shows: its records are of another log, whose key nobody was given."""
        async with started(tmp_path) as here:
            await here.record(20)
            vkey, old = here.vkey, here.checkpoint
        async with started(tmp_path, epoch=2, restored=(False, 2)) as here:
            await here.record(20)
            folder = await here.export(tmp_path / "out")
            found = verdict(folder, vkey, after=old)
            assert {"key_missing", "log_restarted"} <= set(codes(found))
            assert 22 == found.faults.first_bad_seq
            both = verdict(folder, vkey, here.vkey)
            assert ([], [1, 22]) == (codes(both), [each.first_seq for each in both.manifest.logs])
            assert ["log_restarted"] == codes(verdict(folder, vkey, here.vkey, after=old))

    async def test_a_fork(self, tmp_path):
        """A head of a copy that went on by itself is found by a checkpoint of the other."""
        async with started(tmp_path) as here:
            await here.record(20)
        shutil.copytree(tmp_path, tmp_path.parent / "twin")
        async with started(tmp_path, epoch=2) as here:
            await here.record(20, "one")
            ours = here.checkpoint
        async with started(tmp_path.parent / "twin", epoch=2) as twin:
            await twin.record(10, "other")
            folder = await twin.export(tmp_path / "out")
            assert ["head_behind"] == codes(verdict(folder, twin.vkey, after=ours))
            await twin.record(10, "other")
            folder = await twin.export(tmp_path / "out2")
            assert ["head_forked"] == codes(verdict(folder, twin.vkey, after=ours))


class TestRefused:
    async def test_nothing_to_check(self, tmp_path):
        """A folder in which there is nothing to check is refused, and never passed."""
        with pytest.raises(NotFound):
            verdict(tmp_path)

    async def test_no_key(self, made):
        """Without a key nothing is good."""
        assert {"key_missing", "manifest_not_signed"} <= set(codes(verdict(made[0])))

    @pytest.mark.parametrize("at", [0, 1])
    async def test_a_signature_that_is_missing(self, made, tmp_path, at):
        """A checkpoint without its signature, or without the one that has its time, is refused."""
        folder, vkey, _ = made
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        (file,) = copy.glob("logs/*/checkpoint")
        text, _, signatures = file.read_text().partition("\n\n")
        kept = [line for each, line in enumerate(signatures.splitlines()) if each % 2 == at]
        file.write_text(f"{text}\n\n{chr(10).join(kept)}\n")
        assert {"checkpoint_not_timed" if at == 0 else "checkpoint_not_signed"} <= set(codes(verdict(copy, vkey)))

    async def test_a_file_outside(self, made, tmp_path):
        """A manifest that names a file outside of the folder has it read by nobody."""
        folder, vkey, _ = made
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        manifest = json.loads((copy / MANIFEST).read_text())
        manifest["files"]["../../etc/passwd"] = "0" * 64
        (copy / MANIFEST).write_text(json.dumps(manifest))
        assert {"file_missing", "manifest_changed"} <= set(codes(verdict(copy, vkey)))

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "{}", '{"format":2}', "x" * 99, '{"format":1,"logs":[]}', '{"format":1,"logs":[{"origin":1}]}'],
    )
    async def test_a_manifest_that_is_none(self, tmp_path, text):
        """A manifest that is none is a fault, and nothing else."""
        (tmp_path / MANIFEST).write_text(text)
        (tmp_path / MANIFEST_NOTE).write_text("")
        assert ["manifest_unreadable"] == codes(verdict(tmp_path))
        with pytest.raises(InvalidInput):
            Manifest.parse(text.encode())

    @pytest.mark.parametrize("octets", [b"", b"x\n\ny\n", b"\xff"])
    async def test_an_older_checkpoint_that_is_none(self, made, octets):
        """What is no checkpoint, or is not signed, is nothing that the log could begin with."""
        assert {"after_unreadable"} == set(codes(verdict(made[0], made[1], after=octets)))


class TestProofs:
    async def test_each_record(self, tmp_path):
        """The proof of a record is good by the log's key; no byte of it can be changed, and by no other key it is."""
        async with started(tmp_path) as here:
            await here.record(300)
            key = VerifierKey.parse(here.vkey)
            for seq in (1, 2, 150, 256, 257, 301):
                octets = str(await here.signed.prove(seq)).encode()
                found = check_proof(octets, [key])
                assert (True, seq) == (found.good, found.record.seq)
                assert not check_proof(octets, []).good
                assert not check_proof(octets.replace(b"index ", b"index 1"), [key]).good
            for at in range(0, len(octets), 7):
                changed = bytearray(octets)
                changed[at] ^= 1
                assert not check_proof(bytes(changed), [key]).good
            with pytest.raises(NotFound):
                await here.signed.prove(302)
