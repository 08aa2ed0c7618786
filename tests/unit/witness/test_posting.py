"""witness/posting.py: the agent's side of a witness: nothing counts that is not proved, and nothing is overlooked."""

import asyncio
import base64
import shutil
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fakes.signed_journals import started
from fakes.witnesses import FakeWitness
from sojourn.audit.cosigned_notes import CosignedNotes
from sojourn.errors import StoreFailed
from sojourn.providers.http import HttpResponse
from sojourn.tlog.add_checkpoint import SIZE_TYPE
from sojourn.tlog.checkpoints import Checkpoint
from sojourn.tlog.notes import Note, Signer
from sojourn.witness.posting import LogForked, WitnessDown, WitnessForgot
from sojourn.witness.witnesses import Witnesses


async def events(here, name):
    await here.audit.settle()
    return [each.event for each in await here.signed.store.records(0, 10_000) if each.event == name]


class TestCosigned:
    async def test_as_it_grows(self, tmp_path):
        """Each checkpoint is cosigned as it comes, and what was cosigned is on disk with the time of the witness."""
        async with started(tmp_path) as here:
            witness = FakeWitness(tmp_path / "w", here)
            posting = witness.posting(here)
            for number in (1, 300, 0, 7):
                await here.record(number)
                here.clock.advance(1)
                await posting.step()
                assert here.signed.state.size == posting.size
            checkpoint, note = CosignedNotes(tmp_path).last(here.signed.state.origin, witness.key)
            assert here.signed.state.size == checkpoint.size
            assert note.is_signed(here.signed._signer.key)
            assert int(here.clock.now().timestamp()) == note.cosigned_at(witness.key) == posting.cosigned_at
            assert (0.0, "") == (posting.age_seconds, posting.fault)

    async def test_nothing_is_asked_twice(self, tmp_path):
        """A checkpoint that is cosigned is not sent again, but for the hour in which there was no newer one."""
        async with started(tmp_path) as here:
            witness = FakeWitness(tmp_path / "w", here)
            posting = witness.posting(here)
            for advance, asked in ((0, 1), (60, 1), (3_600, 2), (1, 2)):
                here.clock.advance(advance)
                await posting.step()
                assert asked == len(witness.asked)
            assert 1 == posting.age_seconds

    async def test_over_a_start(self, tmp_path):
        """A start goes on from what is on disk; and from what the witness says, if that is gone or an answer was lost."""
        async with started(tmp_path) as here:
            witness = FakeWitness(tmp_path / "w", here)
            await witness.posting(here).step()
            await here.record(5)
            again = witness.posting(here)
            await again.step()
            assert 2 == len(witness.asked)
            shutil.rmtree(tmp_path / "cosigned")
            here.signed.cosigned = CosignedNotes(tmp_path)
            await here.record(5)
            posting = witness.posting(here)
            assert 0 == posting.size
            await posting.step()
            assert here.signed.state.size == posting.size
            assert not posting.forked

    async def test_a_rotation(self, tmp_path):
        """After a change of the log's key the witness wants that key, which is said; then it goes on."""
        async with started(tmp_path) as here:
            witness = FakeWitness(tmp_path / "w", here)
            posting, old = witness.posting(here), here.vkey
            await posting.step()
            await here.signed.rotate({"by_uid": 0, "by_pid": 1})
            await posting.step()
            await here.record(1)
            with pytest.raises(WitnessDown, match="does not trust the log's key"):
                await posting.step()
            witness.trust(old, here.vkey)
            await posting.step()
            assert here.signed.state.size == posting.size

    async def test_pruned_meanwhile(self, tmp_path):
        """A witness that was away while the journal was pruned is led on all the same: what that takes is not pruned."""
        async with started(tmp_path, kept_least=1) as here:
            here.journal.tiles_needed = here.signed.cosigned.tiles
            witness = FakeWitness(tmp_path / "w", here)
            posting = witness.posting(here)
            await here.record(300)
            await posting.step()
            await here.record(900)
            assert await here.journal.prune(1_000, 5)
            await here.signed.settle()
            await posting.step()
            assert here.signed.state.size == posting.size
            await here.record(600)
            assert await here.journal.prune(500, 5)
            folder = await here.export(tmp_path / "out")
            assert ["004"] == sorted(each.name for each in (folder / "logs").glob("*/tile/0/00[0-4]"))

    async def test_without_what_leads_on(self, tmp_path):
        """Where it was pruned by an agent without witnesses, it is said that nothing can be proved."""
        async with started(tmp_path, kept_least=1) as here:
            witness = FakeWitness(tmp_path / "w", here)
            posting = witness.posting(here)
            await here.record(300)
            await posting.step()
            await here.record(900)
            await here.journal.prune(1_000, 5)
            await here.signed.settle()
            with pytest.raises(WitnessDown, match="was pruned"):
                await posting.step()


class TestForks:
    async def test_a_copy_that_was_cosigned(self, tmp_path):
        """Two agents on copies of one data folder: the one whose checkpoint comes second is refused, and says so loudly."""
        (tmp_path / "one").mkdir()
        async with started(tmp_path / "one") as one:
            await one.record(5)
            await FakeWitness(tmp_path / "w", one).posting(one).step()
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        async with started(tmp_path / "one") as one, started(tmp_path / "two") as two:
            await one.record(3, "one")
            await two.record(3, "two")
            witness = FakeWitness(tmp_path / "w", one)
            first, second = witness.posting(one), witness.posting(two)
            await first.step()
            for more in (0, 0, 4):
                await two.record(more, "two")
                with pytest.raises(LogForked) as error:
                    await second.step()
                second.failed(error.value)
            assert (False, True) == (first.forked, second.forked)
            assert "somebody else signs with this log's key" in second.fault
            assert ["audit_log_forked"] == await events(two, "audit_log_forked")
            await one.record(2)
            await first.step()

    async def test_the_witness_is_ahead(self, tmp_path):
        """A copy that is shorter than what the witness knows is told of at once."""
        (tmp_path / "one").mkdir()
        async with started(tmp_path / "one") as one:
            await one.record(5)
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        async with started(tmp_path / "one") as one, started(tmp_path / "two") as two:
            await one.record(30)
            witness = FakeWitness(tmp_path / "w", one)
            await witness.posting(one).step()
            with pytest.raises(LogForked, match="leaves of this log, which has"):
                await witness.posting(two).step()

    async def test_it_is_over(self, tmp_path):
        """Once the witness cosigns again, nothing is said of a fork any more, and a second one is said anew."""
        async with started(tmp_path) as here:
            witness = FakeWitness(tmp_path / "w", here)
            posting = witness.posting(here)
            for _ in range(2):
                await here.record(1)
                witness.instead = lambda _: HttpResponse(422, {}, b"")
                with pytest.raises(LogForked):
                    await posting.step()
                witness.instead = None
                await posting.step()
                assert not posting.forked
            assert 2 == len(await events(here, "audit_log_forked"))


class TestForgot:
    async def test_less_than_it_has_cosigned(self, tmp_path, capsys):
        """A witness that says it has less than it has cosigned is not led on: that is said once, and it stays a fault."""
        async with started(tmp_path) as here:
            witness = FakeWitness(tmp_path / "w", here)
            await here.record(900)
            await witness.posting(here).step()
            size = here.signed.state.size
            await here.record(5)
            posting = witness.posting(here)
            for known in (3, 0, size - 1):
                asked = len(witness.asked)
                witness.instead = lambda _, known=known: HttpResponse(
                    409, {"content-type": SIZE_TYPE}, f"{known}\n".encode()
                )
                with pytest.raises(WitnessForgot, match=f"knows {known} leaves, and has cosigned {size}") as error:
                    await posting.step()
                posting.failed(error.value)
                assert (asked + 1, size, False) == (len(witness.asked), posting.size, posting.forked)
            assert "another key" in posting.fault
            assert 1 == capsys.readouterr().out.count("audit_witness_forgot")
            witness.instead = None
            await posting.step()
            assert ("", here.signed.state.size) == (posting.fault, posting.size)

    async def test_one_that_was_made_anew(self, tmp_path):
        """A witness of another key has cosigned nothing, and forgets nothing."""
        async with started(tmp_path) as here:
            await here.record(9)
            await FakeWitness(tmp_path / "w", here).posting(here).step()
            other = FakeWitness(tmp_path / "new", here)
            posting = other.posting(here)
            await posting.step()
            assert here.signed.state.size == posting.size


class TestMany:
    async def test_a_hundred_good_ones(self, tmp_path):
        """A witness that answers with a hundred good cosignatures has one kept, and others' have room beside it."""
        async with started(tmp_path) as here:
            await here.record(3)
            liar, other = (FakeWitness(tmp_path / each, here, f"{each}.example/w") for each in ("liar", "other"))
            text, now = Note.parse(here.checkpoint).text, int(here.clock.now().timestamp())
            lines = "".join(str(liar.signer.cosign(text, now - each)) for each in range(100))
            liar.instead = lambda _: HttpResponse(200, {}, lines.encode())
            posting = liar.posting(here)
            await posting.step()
            assert (now, here.signed.state.size) == (posting.cosigned_at, posting.size)
            await other.posting(here).step()
            for notes in (here.signed.cosigned, CosignedNotes(tmp_path)):
                proved = Note.parse(str(notes.for_record(here.signed.state.origin, 0)).encode())
                assert (now, now) == tuple(proved.cosigned_at(each.key) for each in (liar, other))
                assert 1 == len(proved.cosignatures(liar.key))

    async def test_many_of_one_are_not_many_witnesses(self, tmp_path):
        """A proof is by the head that the most witnesses have cosigned, however many lines one of them has there."""
        async with started(tmp_path) as here:
            await here.record(3)
            one, two, liar = (
                FakeWitness(tmp_path / each, here, f"{each}.example/w") for each in ("one", "two", "liar")
            )
            for each in (one, two):
                await each.posting(here).step()
            size = here.signed.state.size
            await here.record(1)
            note = Note.parse(here.checkpoint)
            many = note.with_lines(liar.signer.cosign(note.text, each) for each in range(50))
            here.signed.cosigned.keep(Checkpoint.parse(note.text), many, liar.key)
            found = here.signed.cosigned.for_record(here.signed.state.origin, 0)
            assert size == Checkpoint.parse(found.text).size

    async def test_what_could_not_be_read_again(self, tmp_path):
        """What has too many signatures to be read again is not kept, and what was kept before stays."""
        async with started(tmp_path) as here:
            witness = FakeWitness(tmp_path / "w", here)
            await witness.posting(here).step()
            note = Note.parse(here.checkpoint)
            many = note.with_lines(witness.signer.cosign(note.text, each) for each in range(101))
            with pytest.raises(StoreFailed):
                here.signed.cosigned.keep(Checkpoint.parse(note.text), many, witness.key)
            assert CosignedNotes(tmp_path).last(here.signed.state.origin, witness.key) is not None


def _signed_by_another(answer, here):
    by = Signer("witness.example/w1", Ed25519PrivateKey.generate())
    line = by.cosign(Note.parse(here.checkpoint).text, 7)
    return replace(answer, body=str(line).encode())


class TestWhatIsNoCosignature:
    @pytest.mark.parametrize(
        ("instead", "said"),
        [
            (lambda answer: replace(answer, body=b""), "not made of signatures"),
            (lambda answer: replace(answer, body=b"\xff\n"), "not made of signatures"),
            (lambda answer: replace(answer, body=answer.body * 101), "not made of signatures"),
            (lambda answer: replace(answer, body=answer.body.replace(b"w1", b"w2")), "no good cosignature"),
            (lambda answer: replace(answer, status=201), "status 201"),
            (lambda answer: replace(answer, status=404), "does not know this log"),
            (lambda answer: replace(answer, status=403), "does not trust the log's key"),
            (lambda answer: replace(answer, status=400), "cannot read"),
            (lambda answer: replace(answer, status=500), "status 500"),
            (lambda _: HttpResponse(409, {}, b"1\n"), "no size"),
            (lambda _: HttpResponse(409, {"content-type": SIZE_TYPE}, b"01\n"), "no size"),
            (lambda _: HttpResponse(409, {"content-type": SIZE_TYPE}, b"-1\n"), "no size"),
            (lambda _: HttpResponse(409, {"content-type": SIZE_TYPE}, b"1" * 1_000), "no size"),
            (lambda _: HttpResponse(409, {"content-type": f"{SIZE_TYPE}; charset=utf-8"}, b"0\n"), "something else each"),
        ],
    )  # fmt: skip
    async def test_by_what_it_says(self, tmp_path, instead, said):
        """Whatever else is answered is no cosignature: it is said what, nothing is kept, and the next good one counts."""
        async with started(tmp_path) as here:
            await here.record(3)
            witness = FakeWitness(tmp_path / "w", here)
            posting = witness.posting(here)
            witness.instead = instead
            with pytest.raises(WitnessDown, match=said):
                await posting.step()
            assert (0, False) == (posting.size, posting.forked)
            witness.instead = None
            await posting.step()
            assert here.signed.state.size == posting.size

    async def test_by_another_key(self, tmp_path):
        """A cosignature by another key of the same name does not count, nor does one of another checkpoint, or a time to come."""
        async with started(tmp_path) as here:
            witness = FakeWitness(tmp_path / "w", here)
            posting = witness.posting(here)
            witness.instead = lambda answer: _signed_by_another(answer, here)
            with pytest.raises(WitnessDown, match="no good cosignature"):
                await posting.step()
            other = Checkpoint(here.signed.state.origin, 9, b"7" * 32).text
            now = int(here.clock.now().timestamp())
            for text, at, said in (
                (other, now, "no good"),
                (Note.parse(here.checkpoint).text, now + 900, "a time to come"),
            ):
                line = str(witness.signer.cosign(text, at)).encode()
                witness.instead = lambda _answer, line=line: HttpResponse(200, {}, line)
                with pytest.raises(WitnessDown, match=said):
                    await posting.step()
            assert 0 == posting.size

    async def test_a_kept_one_that_was_changed(self, tmp_path):
        """A kept cosignature that is not good any more is none: the witness is asked again."""
        async with started(tmp_path) as here:
            witness = FakeWitness(tmp_path / "w", here)
            await witness.posting(here).step()
            [path] = (tmp_path / "cosigned").glob("*/*")
            note = path.read_text()
            end = base64.b64encode(b"7" * 76).decode()
            path.write_text(note.rpartition(" ")[0] + f" {end}\n")
            here.signed.cosigned = CosignedNotes(tmp_path)
            posting = witness.posting(here)
            assert 0 == posting.size
            await posting.step()
            assert here.signed.state.size == posting.size


class TestDown:
    async def test_it_is_said_once(self, tmp_path, capsys):
        """A witness that is away is said once in the log, with ever longer pauses up to a minute, and that it is back."""
        async with started(tmp_path) as here:
            witness = FakeWitness(tmp_path / "w", here)
            posting, witness.down = witness.posting(here), True
            pauses = []
            for _ in range(9):
                with pytest.raises(WitnessDown) as error:
                    await posting.step()
                pauses.append(posting.failed(error.value))
            assert [1, 2, 4, 8, 16, 32, 60, 60, 60] == pauses
            assert posting.failing_since == here.clock.now().timestamp()
            witness.down = False
            await posting.step()
            assert ("", 0.0) == (posting.fault, posting.failing_since)
            said = capsys.readouterr().out
            assert (1, 1) == (said.count("audit_witness_failing"), said.count("audit_witness_cosigns_again"))

    async def test_it_runs(self, tmp_path):
        """Each checkpoint wakes it, and a witness that is away is asked again until it cosigns."""
        async with started(tmp_path) as here:
            witness = FakeWitness(tmp_path / "w", here)
            posting, witness.down = witness.posting(here), True
            witnesses = Witnesses([posting])
            here.signed.on_signed(witnesses.wake)
            running = asyncio.ensure_future(witnesses.run())
            async with asyncio.timeout(30):
                while not posting.fault:
                    await asyncio.sleep(0.01)
                witness.down = False
                while posting.size != here.signed.state.size:
                    await asyncio.sleep(0.01)
            await witnesses.close()
            assert running.cancelled()
