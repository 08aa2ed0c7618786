"""evidence/witnessed.py: what a witness vouches for, up to which record, and that nothing else passes for it."""

import json
import sqlite3
from contextlib import closing

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fakes.signed_journals import started
from fakes.witnesses import FakeWitness
from harness import tampering
from sojourn.evidence.check import FolderCheck, check_proof, summary
from sojourn.evidence.manifest import COSIGNED, MANIFEST
from sojourn.tlog.checkpoints import Checkpoint
from sojourn.tlog.merkle import EMPTY, root
from sojourn.tlog.notes import Note, Signer, VerifierKey
from sojourn.tlog.tiles import TileNodes


def verdict(here, folder, *witnesses, before=()):
    """`before`: keys of earlier logs, beside the one of now."""
    keys = [*map(VerifierKey.parse, before), here.signed._signer.key]
    return FolderCheck(folder, keys, None, lambda *_: None, witnesses).run()


def codes(found):
    return [each.code for each in found.faults.found]


def cosigned_file(folder):
    [file] = folder.glob(f"logs/*/{COSIGNED}*")
    return file


class TestGood:
    async def test_up_to_where(self, tmp_path):
        """The check says up to which record and as of when a witness vouches, and how many records are behind that."""
        async with started(tmp_path) as here:
            witness = FakeWitness(tmp_path / "w", here)
            await here.record(300)
            await witness.posting(here).step()
            until, at = here.signed.state.size, int(here.clock.now().timestamp())
            here.clock.advance(60)
            await here.record(7)
            found = verdict(here, await here.export(tmp_path / "out"), witness.key)
            assert [] == codes(found)
            [said] = summary(found)["witnesses"]
            origin = here.signed.state.origin
            assert {
                "witness": "witness.example/w1", "origin": origin, "size": until, "until_seq": until, "at": at, "not_yet": 7
            } == said  # fmt: skip

    async def test_nobody_is_asked(self, tmp_path):
        """Without a witness that is given none is looked for, and a folder without any is good."""
        async with started(tmp_path) as here:
            found = verdict(here, await here.export(tmp_path / "out"))
            assert ([], False) == (codes(found), "witnesses" in summary(found))

    async def test_pruned(self, tmp_path):
        """What a witness has cosigned of leaves that were pruned since is compared all the same."""
        async with started(tmp_path, kept_least=1) as here:
            here.journal.tiles_needed = here.signed.cosigned.tiles
            witness = FakeWitness(tmp_path / "w", here)
            await here.record(300)
            await witness.posting(here).step()
            await here.record(900)
            await here.journal.prune(1_000, 5)
            await here.signed.settle()
            folder = await here.export(tmp_path / "out")
            found = verdict(here, folder, witness.key)
            assert [] == codes(found)
            for each in folder.glob("logs/*/tile/0/001"):
                each.unlink()
            assert ["witness_unproved"] == codes(verdict(here, folder, witness.key))

    async def test_a_proof(self, tmp_path):
        """The proof of a record is by the checkpoint that witnesses have cosigned, where one has the record."""
        async with started(tmp_path) as here:
            one, two = (FakeWitness(tmp_path / each, here, f"witness.example/{each}") for each in ("w1", "w2"))
            await here.record(10)
            for each in (one, two):
                await each.posting(here).step()
            await here.record(10)
            keys = [here.signed._signer.key]
            early, late = [str(await here.signed.prove(seq)).encode() for seq in (5, 15)]
            found = check_proof(early, keys, [one.key, two.key])
            assert ([], 2) == (codes(found), len(found.witnessed))
            assert [11, 11] == [each.size for each in found.witnessed]
            assert ["witness_missing"] == codes(check_proof(late, keys, [one.key]))
            assert [] == codes(check_proof(late, keys))


class TestNotGood:
    async def test_none(self, tmp_path):
        """A witness that has not cosigned is a fault, whoever else has."""
        async with started(tmp_path) as here:
            one, two = (FakeWitness(tmp_path / each, here, f"witness.example/{each}") for each in ("w1", "w2"))
            await one.posting(here).step()
            found = verdict(here, await here.export(tmp_path / "out"), one.key, two.key)
            assert ["witness_missing"] == codes(found)
            assert [1, 0] == [each.size for each in found.witnessed]

    async def test_another_of_that_name(self, tmp_path):
        """A cosignature by a key of the same name is not that of the witness that was given."""
        async with started(tmp_path) as here:
            await FakeWitness(tmp_path / "w", here).posting(here).step()
            other = Signer("witness.example/w1", Ed25519PrivateKey.generate()).key
            assert ["witness_missing"] == codes(verdict(here, await here.export(tmp_path / "out"), other))

    @pytest.mark.parametrize("case", ["gone", "a byte", "a fork", "more", "another log", "rubbish"])
    async def test_by_who_has_the_logs_key(self, tmp_path, case):
        """Whoever has the log's key can sign another folder; what a witness has cosigned they cannot make, nor leave out."""
        async with started(tmp_path) as here:
            witness = FakeWitness(tmp_path / "w", here)
            await here.record(20)
            await witness.posting(here).step()
            await here.record(5)
            folder = await here.export(tmp_path / "out")
            file, origin = cosigned_file(folder), here.signed.state.origin
            note = Note.parse(file.read_bytes())
            size = Checkpoint.parse(note.text).size

            async def root_at(count):
                return await here.signed.store.with_tiles(1, lambda tiles: root(TileNodes(tiles), count))

            def by_the_witness(text):
                file.write_text(str(Note(text, (witness.signer.cosign(text, 7),))))

            if case == "gone":
                file.unlink()
            elif case == "a byte":
                line = bytearray(file.read_bytes())
                line[-6] = ord("A") if line[-6] != ord("A") else ord("B")
                file.write_bytes(bytes(line))
            elif case == "a fork":
                by_the_witness(Checkpoint(origin, size, b"7" * 32).text)
            elif case == "more":
                by_the_witness(Checkpoint(origin, size + 100, b"7" * 32).text)
            elif case == "another log":
                by_the_witness(Checkpoint("example.org/audit/x/0123456789abcdef", size, await root_at(size)).text)
            else:
                file.write_text("rubbish")
            tampering.signed_anew(folder, here.signed._signer)
            assert [] == codes(verdict(here, folder))
            found = codes(verdict(here, folder, witness.key))
            assert {"gone": "witness_missing", "more": "witness_ahead"}.get(case, "witness_wrong") in found

    async def test_of_no_leaves(self, tmp_path):
        """A cosignature of a head without leaves vouches for nothing: the witness is missing."""
        async with started(tmp_path) as here:
            witness = FakeWitness(tmp_path / "w", here)
            await witness.posting(here).step()
            folder = await here.export(tmp_path / "out")
            text = Checkpoint(here.signed.state.origin, 0, EMPTY).text
            cosigned_file(folder).write_text(str(Note(text, (witness.signer.cosign(text, 7),))))
            tampering.signed_anew(folder, here.signed._signer)
            assert ["witness_missing"] == codes(verdict(here, folder, witness.key))

    @pytest.mark.parametrize("case", ["nothing", "of no leaves", "of some"])
    async def test_a_log_that_is_said_to_be_empty(self, tmp_path, case):
        """A log that the folder says has no records needs its cosignature too; one of more leaves contradicts that."""
        async with started(tmp_path) as here:
            witness = FakeWitness(tmp_path / "w", here)
            await witness.posting(here).step()
            folder = await here.export(tmp_path / "out")
            other = Signer("example.org/audit/here/00000000000000aa", Ed25519PrivateKey.generate())
            logs = json.loads((folder / MANIFEST).read_text())
            logs["logs"].insert(0, {"origin": other.key.name, "first_seq": 1, "size": 0, "reason": "first"})
            (folder / MANIFEST).write_text(json.dumps(logs))
            (beside := folder / "logs" / "00000000000000aa").mkdir()
            sizes = {"nothing": [], "of no leaves": [0], "of some": [3]}[case]
            (beside / "checkpoint").touch()
            named = [f"logs/{beside.name}/{each}" for each in ("checkpoint", f"{COSIGNED}x")[: 1 + len(sizes)]]
            for size in sizes:
                text = Checkpoint(other.key.name, size, EMPTY if not size else b"7" * 32).text
                (beside / f"{COSIGNED}x").write_text(
                    str(Note(text, (other.sign(text), witness.signer.cosign(text, 7))))
                )
            logs["files"] |= dict.fromkeys(named, "")
            (folder / MANIFEST).write_text(json.dumps(logs))
            tampering.signed_anew(folder, here.signed._signer)
            keys = [other.key, here.signed._signer.key]
            good = FolderCheck(folder, keys, None, lambda *_: None, ()).run()
            found = FolderCheck(folder, keys, None, lambda *_: None, [witness.key]).run()
            said = "witness_ahead" if case == "of some" else "witness_missing"
            assert ([], [said]) == (codes(good), codes(found))
            assert {0, 1} == {each.size for each in found.witnessed}

    async def test_a_new_log(self, tmp_path):
        """After a restore the new log is another one: what was cosigned of the one before does not count for it."""
        async with started(tmp_path) as here:
            witness = FakeWitness(tmp_path / "w", here)
            await witness.posting(here).step()
            await here.record(2)
            old = here.vkey
        async with started(tmp_path, epoch=2, restored=(False, 2)) as here:
            await here.record(3)
            folder = await here.export(tmp_path / "out")
            found = verdict(here, folder, witness.key, before=[old])
            assert (["witness_missing"], [1, 0]) == (codes(found), [each.size for each in found.witnessed])
            witness.trust(old, here.vkey)
            await witness.posting(here).step()
            folder = await here.export(tmp_path / "again")
            assert [] == codes(verdict(here, folder, witness.key, before=[old]))

    async def test_a_log_of_which_nothing_is_left(self, tmp_path):
        """A database that is put back as it was before any of the log was signed has nothing of what was cosigned."""
        async with started(tmp_path) as here:
            witness = FakeWitness(tmp_path / "w", here)
            await here.record(3)
            await witness.posting(here).step()
            old = here.vkey
        with closing(sqlite3.connect(tmp_path / "sojourn.db")) as database:
            database.execute("update audit_logs set size = 0, checkpoint = ''")
            database.execute("delete from audit_tiles")
            database.commit()
        async with started(tmp_path, epoch=2, restored=(False, 2)) as here:
            here.clock.advance(60)
            await here.record(3)
            witness.trust(here.vkey)
            await witness.posting(here).step()
            folder = await here.export(tmp_path / "out")
            found = verdict(here, folder, witness.key, before=[old])
            assert (["witness_ahead"], [True, False]) == (codes(found), [each.size > 0 for each in found.witnessed])
            assert ["key_missing"] == codes(verdict(here, folder))
            since = await here.export(tmp_path / "since", since_ms=int(here.clock.now().timestamp() * 1000))
            assert [] == codes(verdict(here, since, witness.key))
