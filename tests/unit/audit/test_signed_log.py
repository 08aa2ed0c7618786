"""audit/signed_log.py, audit/log_start.py: what is signed is never contradicted, whatever the start finds."""

import asyncio
import os
import shutil
import sqlite3

import pytest
from fakes.databases import BlockedWriter
from fakes.signed_journals import BASE, started
from sojourn.audit.log_key import AUDIT_KEY
from sojourn.audit.signed_log import CHECKPOINT
from sojourn.errors import NotFound, StoreFailed
from sojourn.evidence.trust import Trust, has_record
from sojourn.tlog.checkpoints import Checkpoint
from sojourn.tlog.notes import Note, VerifierKey


def reasons(log):
    return log.signed.state.reason


async def events(here, name):
    return [each for each in await here.journal.tail(10_000) if each.event == name]


def behind_its_back(folder, statement):
    with sqlite3.connect(folder / "sojourn.db") as connection:
        connection.execute(statement)
    connection.close()


class TestCheckpoints:
    async def test_a_first_log(self, tmp_path):
        """A journal is signed from its first record on: by a key of its own, 0600, with a random origin."""
        async with started(tmp_path) as here:
            state = here.signed.state
            note = Note.parse(here.checkpoint)
            assert note.is_signed(VerifierKey.parse(here.vkey))
            assert int(here.clock.now().timestamp()) == note.cosigned_at(VerifierKey.parse(here.vkey))
            assert ("first", 1, 1) == (state.reason, state.first_seq, state.size)
            assert state.origin.startswith(f"{BASE}/")
            assert 0o600 == os.stat(tmp_path / "keys" / AUDIT_KEY).st_mode & 0o777
            assert here.checkpoint == (tmp_path / CHECKPOINT).read_bytes()
            assert ["audit_log_begun"] == [each.event for each in await here.journal.tail(10)]

    async def test_it_goes_on(self, tmp_path):
        """Over starts one log goes on: each checkpoint has all that the one before had."""
        sizes, origins = [], set()
        for epoch in range(1, 4):
            async with started(tmp_path, epoch=epoch) as here:
                await here.record(300)
                sizes.append(here.signed.state.size)
                origins.add(here.signed.state.origin)
        assert [301, 601, 901] == sizes
        assert 1 == len(origins)

    async def test_many_steps(self, tmp_path):
        """What waits is signed in steps, and all of it."""
        async with started(tmp_path) as here:
            await here.record(4_500)
            assert (4_501, 0) == (here.signed.state.size, here.signed.unsigned)

    async def test_it_signs_by_itself(self, tmp_path, monkeypatch):
        """What is recorded is signed soon after it is on disk; many records are, sooner."""
        monkeypatch.setattr("sojourn.audit.signed_log.LOG_SIGN_SECONDS", 0.05)
        async with started(tmp_path) as here:
            loop = asyncio.get_running_loop()
            here.database.on_commit(lambda _: here.signed.heard(loop, here.journal.written_seq))
            running = asyncio.ensure_future(here.signed.run())
            for _ in range(3):
                before = here.signed.state.size
                here.audit.note("task_begun")
                await here.audit.flush()
                async with asyncio.timeout(10):
                    while here.signed.state.size == before:
                        await asyncio.sleep(0.01)
            running.cancel()

    async def test_at_the_end(self, tmp_path):
        """What a run has recorded is signed when it ends, unless that takes long: then the next start goes on with it."""
        async with started(tmp_path) as here:
            loop = asyncio.get_running_loop()
            for number, expected in ((10, 11), (2_500, 11)):
                await here.journal.append([here.audit.event("task_begun", {})] * number)
                here.signed.heard(loop, here.journal.written_seq)
                await here.signed.finish()
                assert expected == here.signed.state.size
        async with started(tmp_path, epoch=2) as here:
            assert 2_511 == here.signed.state.size

    async def test_under_load(self, tmp_path):
        """A checkpoint is made of what is there, and not one after the other of what comes meanwhile."""
        async with started(tmp_path) as here:
            await here.journal.append(await _three(here))
            kept, made = here.signed.store.save, []

            async def busy(*said):
                made.append(said)
                await here.journal.append(await _three(here))
                await kept(*said)

            here.signed.store.save = busy
            assert await here.signed.settle()
            assert 1 == len(made)

    async def test_what_is_not_on_disk(self, tmp_path):
        """Where the disk takes no checkpoint nothing is signed, it is said why, and it is made up for later."""
        async with started(tmp_path) as here:
            kept, here.signed.store.save = here.signed.store.save, None

            async def full(*_):
                raise StoreFailed("the data folder has no room left")

            here.signed.store.save = full
            await here.audit.commit("task_begun")
            before = here.checkpoint
            assert not await here.signed.settle()
            assert "no room" in here.signed.fault
            assert before == here.checkpoint == (tmp_path / CHECKPOINT).read_bytes()
            here.signed.store.save = kept
            assert await here.signed.settle()
            assert ("", 2) == (here.signed.fault, here.signed.state.size)

    async def test_a_gap(self, tmp_path):
        """Beyond a record that is missing nothing is signed."""
        async with started(tmp_path) as here:
            await here.journal.append(await _three(here))
            behind_its_back(tmp_path, "DELETE FROM audit WHERE seq = 3")
            assert not await here.signed.settle()
            assert "record 3 is not in the journal" in here.signed.fault


async def _three(here):
    return [here.audit.event("task_begun", {"n": each}) for each in range(3)]


class TestCrashes:
    @pytest.mark.parametrize("left", ["records", "database", "file"])
    async def test_after_each_step(self, tmp_path, left):
        """After a crash at any step the next start goes on with what was signed: no two heads contradict each other."""
        async with started(tmp_path) as here:
            await here.record(10)
            before = here.signed.state
            kept = (tmp_path / CHECKPOINT).read_bytes()
            await here.journal.append(await _three(here))
            if left != "records":
                await here.signed.step()
            signed = Checkpoint.parse(Note.parse(here.checkpoint).text)
        if left == "database":  # the file was not written any more
            (tmp_path / CHECKPOINT).write_bytes(kept)
        async with started(tmp_path, epoch=2) as again:
            state = again.signed.state
            assert (before.origin, 14) == (state.origin, state.size)
            if left != "records":
                assert signed.text == Checkpoint.parse(Note.parse(state.checkpoint.encode()).text).text

    async def test_a_key_that_was_not_put_in_its_place(self, tmp_path):
        """Where a crash came between the database and the key's name, the key is found under the other."""
        async with started(tmp_path) as here:
            origin = here.signed.state.origin
        os.rename(tmp_path / "keys" / AUDIT_KEY, tmp_path / "keys" / f"{AUDIT_KEY}.new")
        async with started(tmp_path, epoch=2) as here:
            assert origin == here.signed.state.origin
        assert (tmp_path / "keys" / AUDIT_KEY).exists()


class TestNewLogs:
    async def test_restored(self, tmp_path):
        """On a database that was restored a new log begins, with another key, which names the last known checkpoint."""
        async with started(tmp_path) as here:
            await here.record(20)
            before, vkey = here.checkpoint, here.vkey
        async with started(tmp_path, epoch=1002, restored=(False, 1002)) as here:
            assert ("database_restored", 22) == (reasons(here), here.signed.state.first_seq)
            assert vkey.rpartition("+")[2] != here.vkey.rpartition("+")[2]
            (_, begun) = await events(here, "audit_log_begun")
            assert '"previous_checkpoint"' in begun.fields
            assert before.decode().split("\n")[2] in begun.fields
            origin = here.signed.state.origin
        async with started(tmp_path, epoch=1003, restored=(False, 1002)) as here:
            assert origin == here.signed.state.origin  # it is told once

    async def test_a_start_that_was_broken_off(self, tmp_path):
        """A restore that an earlier start has heard of, and died before it began a new log, still begins one."""
        async with started(tmp_path) as here:
            await here.record(5)
        async with started(tmp_path, epoch=1004, restored=(False, 1002)) as here:
            assert "database_restored" == reasons(here)

    async def test_lost(self, tmp_path):
        """Where the database is gone the new log names what the file beside it has of the last one."""
        async with started(tmp_path) as here:
            await here.record(5)
            before = here.checkpoint.decode()
        for each in tmp_path.glob("sojourn.db*"):
            each.unlink()
        async with started(tmp_path, epoch=2, restored=(True, 2)) as here:
            assert "database_lost" == reasons(here)
            assert before == here.signed.state.previous

    async def test_put_back_unseen(self, tmp_path):
        """A database that was put back is seen by the checkpoint beside it, though nothing else tells of it."""
        async with started(tmp_path) as here:
            await here.record(5)
        shutil.copy(tmp_path / "sojourn.db", tmp_path / "kept")
        async with started(tmp_path, epoch=1) as here:
            await here.record(5)
            ahead = here.checkpoint.decode()
        shutil.copy(tmp_path / "kept", tmp_path / "sojourn.db")
        async with started(tmp_path, epoch=1) as here:
            assert ("checkpoint_ahead", ahead) == (reasons(here), here.signed.state.previous)

    @pytest.mark.parametrize("spoil", ["gone", "damaged", "another", "open to others"])
    async def test_the_key_is_lost(self, tmp_path, spoil):
        """Where the key is gone or cannot be used, the agent starts, signs with a new one, and says so aloud."""
        async with started(tmp_path) as here:
            await here.record(5)
        path = tmp_path / "keys" / AUDIT_KEY
        if spoil == "gone":
            path.unlink()
        elif spoil == "damaged":
            path.write_bytes(b"x")
        elif spoil == "another":
            (tmp_path / "else").mkdir()
            async with started(tmp_path / "else"):
                pass
            path.write_bytes((tmp_path / "else" / "keys" / AUDIT_KEY).read_bytes())
        else:
            path.chmod(0o644)
        async with started(tmp_path, epoch=2) as here:
            assert "audit_key_lost" == reasons(here)
            assert 1 == len(await events(here, "audit_key_lost"))
            assert here.signed.state.size
            assert 7 == here.signed.state.first_seq

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE audit_tiles SET hashes = zeroblob(length(hashes))",
            "DELETE FROM audit_tiles",
            "UPDATE audit_logs SET checkpoint = replace(checkpoint, 'a', 'b')",
            "UPDATE audit_logs SET checkpoint = ''",
        ],
    )
    async def test_a_tree_that_was_changed(self, tmp_path, statement):
        """Where the tree is not what was signed a new log begins, which has all records that there are."""
        async with started(tmp_path) as here:
            await here.record(5)
        behind_its_back(tmp_path, statement)
        async with started(tmp_path, epoch=2) as here:
            assert ("tree_damaged", 1, 7) == (reasons(here), here.signed.state.first_seq, here.signed.state.size)

    async def test_records_that_another_release_has_pruned(self, tmp_path):
        """Where records are gone that no checkpoint had, a new log begins with the first that there is."""
        async with started(tmp_path) as here:
            await here.record(5)
            await here.journal.append(await _three(here))
        behind_its_back(tmp_path, "DELETE FROM audit WHERE seq <= 8")
        async with started(tmp_path, epoch=2) as here:
            assert ("records_missing", 9) == (reasons(here), here.signed.state.first_seq)


class TestPruning:
    async def test_none_that_is_not_signed(self, tmp_path):
        """A record is not pruned before a checkpoint has it, and of its tree nothing goes that later proofs need."""
        async with started(tmp_path, kept_least=1) as here:
            await here.record(600)
            await here.journal.append(await _three(here))
            assert 601 == await here.journal.prune(10_000, 5)
            assert await here.signed.settle()
            assert has_record(await here.signed.prove(602), here.signed.state.origin)
            with pytest.raises(NotFound):
                await here.signed.prove(601)
        async with started(tmp_path, epoch=2) as here:
            assert "first" == reasons(here)


class TestRotation:
    async def test_both_sign(self, tmp_path):
        """The first checkpoint of a new key is signed by both, and whoever believes the old one can follow it."""
        async with started(tmp_path) as here:
            await here.record(5)
            old, origin = here.vkey, here.signed.state.origin
            await here.signed.rotate({"by_uid": 0, "by_pid": 1})
            new = here.vkey
            note = Note.parse(here.checkpoint)
            assert old != new
            assert note.is_signed(VerifierKey.parse(old))
            assert note.is_signed(VerifierKey.parse(new))
            trust = Trust([VerifierKey.parse(old)])
            (proof,) = await here.signed.store.rotations(1)
            assert trust.follow(proof.encode(), origin)
            await here.record(5)
            alone = Note.parse(here.checkpoint)
            assert not alone.is_signed(VerifierKey.parse(old))
            assert VerifierKey.parse(new) == trust.signer(alone, origin)
        async with started(tmp_path, epoch=2) as here:
            assert (new, origin) == (here.vkey, here.signed.state.origin)

    async def test_one_that_cannot_be_written(self, tmp_path):
        """Where the rotation is not on disk the key before signs on."""
        async with started(tmp_path) as here:
            old, kept = here.vkey, here.signed.store.save

            async def full(log, tiles, rotation=""):
                if rotation:
                    raise StoreFailed("the data folder has no room left")
                await kept(log, tiles, rotation)

            here.signed.store.save = full
            with pytest.raises(StoreFailed):
                await here.signed.rotate({"by_uid": 0, "by_pid": 1})
            here.signed.store.save = kept
            await here.record(3)
            assert Note.parse(here.checkpoint).is_signed(VerifierKey.parse(old))
        async with started(tmp_path, epoch=2) as here:
            assert ("first", old) == (reasons(here), here.vkey)

    async def test_beside_writes(self, tmp_path):
        """A rotation waits for the disk as any record does."""
        async with started(tmp_path) as here:
            async with BlockedWriter(here.database):
                rotating = asyncio.ensure_future(here.signed.rotate({"by_uid": 0, "by_pid": 1}))
                await asyncio.sleep(0.05)
                assert not rotating.done()
            await rotating
