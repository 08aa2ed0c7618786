"""witness/witness.py, witness/cosigned_heads.py: a witness never cosigns two heads that contradict each other."""

import asyncio
import hashlib
import itertools
import os
import random
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fakes.clock import FakeClock
from fakes.growinglog import GrowingLog
from sojourn.errors import CannotStart, InvalidInput, StoreFailed
from sojourn.files import atomic
from sojourn.operating_limits import WITNESS_CONFLICTS, WITNESS_UNPROVED
from sojourn.tlog.add_checkpoint import SIZE_TYPE, AddCheckpoint
from sojourn.tlog.checkpoints import Checkpoint
from sojourn.tlog.merkle import root
from sojourn.tlog.notes import COSIGNATURE, SIGNATURE, Note, SignatureLine, Signer, parse_lines
from sojourn.witness.cosigned_heads import CONFLICTS, UNPROVED, CosignedHeads
from sojourn.witness.witness import Answer, Witness, check_state, logs_of
from sojourn.witness.witness_key import HEADS, KEY, ORIGINS, signer_of

LOG = GrowingLog()
OTHER = GrowingLog("example.org/audit/there/0123456789abcdef", b"8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    signer_of(tmp_path, "witness.example/w1")
    return tmp_path


def witness_in(folder: Path, *vkeys: str) -> Witness:
    signer = signer_of(folder)
    return Witness(signer, logs_of(vkeys or (LOG.vkey,)), CosignedHeads(folder, signer.key), FakeClock())


def add(witness: Witness, request: AddCheckpoint | bytes) -> Answer:
    return asyncio.run(witness.add(request if isinstance(request, bytes) else request.written()))


def cosigned(folder: Path, request: AddCheckpoint, answer: Answer) -> bool:
    """Whether an answer has the witness's good cosignature of what was asked."""
    if answer.status != 200:
        return False
    note = request.note.with_lines(parse_lines(answer.body.decode()))
    return note.cosigned_at(signer_of(folder).key) == int(FakeClock().now().timestamp())


def kept_in(folder: Path) -> list[str]:
    return [each.read_text() for each in folder.iterdir()] if folder.exists() else []


def root_shown(note: Note) -> str:
    return note.text.split("\n")[2]


class TestGrowth:
    def test_a_log_that_grows(self, folder: Path) -> None:
        """Each head that begins with the one before is cosigned, over a restart too, and again if it is asked again."""
        before = 0
        for size in (1, 2, 2, 7, 300, 301):
            request = LOG.request(before, size)
            assert cosigned(folder, request, add(witness_in(folder), request))
            before = size

    def test_the_size_that_is_known(self, folder: Path) -> None:
        """Who thinks of another size than the last one is told that one, as the specification has it."""
        witness = witness_in(folder)
        add(witness, LOG.request(0, 5))
        for old in (0, 3, 6):
            found = add(witness, LOG.request(old, 9))
            assert (409, b"5\n", SIZE_TYPE) == (found.status, found.body, found.content_type)

    def test_several_logs(self, folder: Path) -> None:
        """Logs do not know of each other."""
        witness = witness_in(folder, LOG.vkey, OTHER.vkey)
        for log, size in ((LOG, 5), (OTHER, 3)):
            assert 200 == add(witness, log.request(0, size)).status
        assert 200 == add(witness, OTHER.request(3, 4)).status

    def test_signatures_of_others(self, folder: Path) -> None:
        """Other signatures on a checkpoint are left alone, and not kept."""
        witness, request = witness_in(folder), LOG.request(0, 5)
        strange = OTHER.signer.sign(request.note.text)
        assert 200 == add(witness, AddCheckpoint(0, (), request.note.with_lines([strange]))).status
        [kept] = (folder / HEADS).iterdir()
        assert str(strange) not in kept.read_text()

    @pytest.mark.parametrize("kind", [SIGNATURE, COSIGNATURE])
    @pytest.mark.parametrize(("old", "size"), [(5, 5), (5, 6), (0, 5)])
    def test_signatures_in_its_name(self, folder: Path, kind: int, old: int, size: int) -> None:
        """Whoever puts bad signatures in a log's name on its checkpoint does the witness no harm, over a restart too."""
        witness, name = witness_in(folder), LOG.signer.key.name
        if old:
            add(witness, LOG.request(0, old))
        junk = [SignatureLine(name, LOG.signer.key.key_id(kind), bytes([each]) * 72) for each in range(98)]
        request = LOG.request(old, size)
        answer = add(witness, AddCheckpoint(old, request.proof, request.note.with_lines(junk)))
        assert {SIGNATURE: 403, COSIGNATURE: 200}[kind] == answer.status
        check_state(CosignedHeads(folder, signer_of(folder).key), logs_of([LOG.vkey]))
        last = size if kind == COSIGNATURE else old
        request = LOG.request(last, 9)
        assert cosigned(folder, request, add(witness_in(folder), request))

    def test_many_good_ones(self, folder: Path) -> None:
        """A log that has cosigned one head a hundred times has the last one kept."""
        text = LOG.note(5).text
        lines = [LOG.signer.sign(text), *(LOG.signer.cosign(text, each) for each in range(99))]
        assert 200 == add(witness_in(folder), AddCheckpoint(0, (), Note(text, tuple(lines)))).status
        [kept] = kept_in(folder / HEADS)
        assert [lines[0], lines[-1]] == list(Note.parse(kept.encode()).lines[:-1])
        assert 200 == add(witness_in(folder), LOG.request(5, 6)).status


class TestRefused:
    @pytest.mark.parametrize(
        ("request_", "status"),
        [
            (OTHER.request(5, 6), 404),
            (AddCheckpoint(5, (), LOG.note(6, signer=Signer(LOG.signer.key.name, Ed25519PrivateKey.generate()))), 403),
            (AddCheckpoint(5, (), LOG.note(6, signer=OTHER.signer)), 403),
            (AddCheckpoint(5, (), Note(LOG.note(6).text, (LOG.signer.cosign(LOG.note(6).text, 7),))), 403),
            (AddCheckpoint(7, (), LOG.note(6)), 400),
            (AddCheckpoint(5, (), LOG.note(3)), 400),
            (b"old 5\n\n", 400),
            (b"", 400),
            (AddCheckpoint(5, (b"7" * 32,) * 64, LOG.note(6)), 400),
            (LOG.request(3, 6), 409),
            (LOG.request(5, 5, forked_at=2), 409),
            (AddCheckpoint(5, (), LOG.note(6)), 422),
            (AddCheckpoint(5, LOG.request(4, 6).proof, LOG.note(6)), 422),
            (AddCheckpoint(5, (*LOG.request(5, 6).proof, b"7" * 32), LOG.note(6)), 422),
            (AddCheckpoint(5, (b"7" * 32,), LOG.note(5)), 422),
            (LOG.request(5, 6, forked_at=2), 422),
            (LOG.request(5, 600, forked_at=4), 422),
        ],
    )
    def test_by_its_status(self, folder: Path, request_: AddCheckpoint | bytes, status: int) -> None:
        """Whatever is not the growth of the log that is known has the status of the specification, and moves nothing."""
        witness = witness_in(folder)
        add(witness, LOG.request(0, 5))
        assert status == add(witness, request_).status
        request = LOG.request(5, 8)
        assert cosigned(folder, request, add(witness, request))

    def test_a_fork_is_kept(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A head that the log has signed against what was cosigned is kept and said with its root, once, and not cosigned."""
        witness = witness_in(folder)
        add(witness, LOG.request(0, 5))
        for _ in range(3):
            assert 409 == add(witness, LOG.request(5, 5, forked_at=2)).status
        assert [str(LOG.note(5, forked_at=2))] == kept_in(folder / CONFLICTS)
        said = capsys.readouterr().out
        assert (1, 1) == (said.count("witness_conflict"), said.count(root_shown(LOG.note(5, forked_at=2))))

    def test_a_head_that_is_not_proved(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A larger head without a good proof may be a true one: it is kept apart, with its root said to who asks."""
        witness = witness_in(folder)
        add(witness, LOG.request(0, 5))
        capsys.readouterr()
        for _ in range(2):
            answer = add(witness, LOG.request(5, 9, forked_at=2))
        assert (422, True) == (answer.status, root_shown(LOG.note(9, forked_at=2)) in answer.said)
        assert [str(LOG.note(9, forked_at=2))] == kept_in(folder / UNPROVED)
        assert ([], "") == (kept_in(folder / CONFLICTS), capsys.readouterr().out)

    def test_true_heads_displace_no_fork(self, folder: Path) -> None:
        """However many true heads anybody sends without their proofs, or others fork, a fork of this log has its room."""
        witness = witness_in(folder, LOG.vkey, OTHER.vkey)
        for log in (LOG, OTHER):
            add(witness, log.request(0, 40))
        for size in range(41, 160):
            assert 422 == add(witness, AddCheckpoint(40, (), LOG.note(size))).status
        for forked_at in range(40):
            assert 409 == add(witness, OTHER.request(40, 40, forked_at)).status
        assert (WITNESS_CONFLICTS, WITNESS_UNPROVED) == tuple(
            len(kept_in(folder / each)) for each in (CONFLICTS, UNPROVED)
        )
        add(witness, LOG.request(40, 40, forked_at=3))
        assert str(LOG.note(40, forked_at=3)) in kept_in(folder / CONFLICTS)

    def test_a_proof_for_the_first(self, folder: Path) -> None:
        """The first head of a log needs no proof, and has none."""
        assert 422 == add(witness_in(folder), AddCheckpoint(0, (b"7" * 32,), LOG.note(3))).status


class TestState:
    def test_concurrent_requests(self, folder: Path) -> None:
        """Of heads that are asked for at once, which do not all follow on each other, no two that contradict are cosigned."""

        async def all_at_once() -> list[tuple[AddCheckpoint, Answer]]:
            witness = witness_in(folder)
            await witness.add(LOG.request(0, 4).written())
            forks = [LOG.request(4, size, forked_at=at) for size, at in itertools.product((5, 6, 7), (None, 4, 5, 6))]
            random.shuffle(forks)
            return list(zip(forks, await asyncio.gather(*(witness.add(each.written()) for each in forks)), strict=True))

        taken = [each for each, answer in asyncio.run(all_at_once()) if answer.status == 200]
        assert 1 == len(taken)

    def test_a_disk_that_takes_nothing(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What cannot be kept is not cosigned; once it can be, the log goes on from the last head that was."""
        witness = witness_in(folder)
        add(witness, LOG.request(0, 5))

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "no space left")

        with monkeypatch.context() as patched:
            patched.setattr(atomic, "write", full)
            with pytest.raises(StoreFailed):
                add(witness, LOG.request(5, 6))
        request = LOG.request(5, 7)
        assert cosigned(folder, request, add(witness, request))

    def test_a_write_that_is_said_to_fail_and_did_not(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """If a head came to the disk though that seemed to fail, what follows is judged by it."""
        witness, written = witness_in(folder), atomic.write

        def fails_late(path: Path, content: bytes) -> None:
            written(path, content)
            raise OSError(5, "input/output error")

        with monkeypatch.context() as patched:
            patched.setattr(atomic, "write", fails_late)
            with pytest.raises(StoreFailed):
                add(witness, LOG.request(0, 5))
        assert 409 == add(witness, LOG.request(0, 6, forked_at=1)).status
        assert 200 == add(witness, LOG.request(5, 6)).status

    @pytest.mark.parametrize(
        "content",
        [b"", b"rubbish", str(LOG.note(5)).encode(), str(OTHER.note(5)).encode()],
        ids=["empty", "rubbish", "not-ours", "anothers"],
    )
    def test_what_is_damaged(self, folder: Path, content: bytes) -> None:
        """A witness that cannot tell what it has cosigned of a log cosigns nothing of it, and does not start."""
        add(witness_in(folder), LOG.request(0, 5))
        [kept] = (folder / HEADS).iterdir()
        kept.write_bytes(content)
        with pytest.raises(StoreFailed):
            add(witness_in(folder), LOG.request(0, 5))
        with pytest.raises(StoreFailed):
            check_state(CosignedHeads(folder, signer_of(folder).key), logs_of([LOG.vkey]))

    def test_a_head_that_is_gone(self, folder: Path) -> None:
        """A witness that has lost the head of a log that it has cosigned does not take it for a new one; others go on."""
        witness = witness_in(folder, LOG.vkey, OTHER.vkey)
        for log in (LOG, OTHER):
            add(witness, log.request(0, 5))
        (folder / HEADS / hashlib.sha256(LOG.signer.key.name.encode()).hexdigest()).unlink()
        witness = witness_in(folder, LOG.vkey, OTHER.vkey)
        with pytest.raises(StoreFailed, match="is gone"):
            add(witness, LOG.request(0, 6, forked_at=1))
        assert 200 == add(witness, OTHER.request(5, 6)).status
        with pytest.raises(StoreFailed, match="is gone"):
            check_state(CosignedHeads(folder, signer_of(folder).key), logs_of([LOG.vkey]))

    def test_killed_at_the_first_head(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A kill between the first head of a log and the list of logs loses neither: the log is listed before it goes on."""
        written = atomic.write

        def no_list(path: Path, content: bytes) -> None:
            if path.name == ORIGINS:
                raise OSError(28, "no space left")
            written(path, content)

        with monkeypatch.context() as patched:
            patched.setattr(atomic, "write", no_list)
            with pytest.raises(StoreFailed):
                add(witness_in(folder), LOG.request(0, 5))
            with pytest.raises(StoreFailed):
                add(witness_in(folder), LOG.request(5, 6))
        assert 200 == add(witness_in(folder), LOG.request(5, 6)).status
        assert f"{LOG.signer.key.name}\n" == (folder / ORIGINS).read_text()

    def test_a_folder_without_its_memory(self, folder: Path) -> None:
        """A key whose witness no longer knows what it cosigned is not used; nor is a new key for what another cosigned."""
        (folder / HEADS).rmdir()
        with pytest.raises(CannotStart, match="no longer knows"):
            signer_of(folder)
        (folder / HEADS).mkdir()
        (folder / ORIGINS).unlink()
        with pytest.raises(CannotStart, match="no longer knows"):
            signer_of(folder)
        (folder / ORIGINS).touch()
        add(witness_in(folder), LOG.request(0, 5))
        (folder / KEY).unlink()
        with pytest.raises(CannotStart, match="lost its key"):
            signer_of(folder, "witness.example/w1")
        for each in (folder / HEADS).iterdir():
            each.unlink()
        with pytest.raises(CannotStart, match="lost its key"):
            signer_of(folder, "witness.example/w1")


class TestKey:
    def test_it_stays(self, tmp_path: Path) -> None:
        """The key is made once, for its owner alone; the name goes with it."""
        made = signer_of(tmp_path, "witness.example/w1").key
        assert made == signer_of(tmp_path).key
        assert 0o600 == os.stat(tmp_path / KEY).st_mode & 0o777
        with pytest.raises(InvalidInput, match="another one needs"):
            signer_of(tmp_path, "witness.example/w2")

    @pytest.mark.parametrize("name", ["", "a b", "a+b", "Ä", "/", "-a", "a" * 300])
    def test_names(self, tmp_path: Path, name: str) -> None:
        """A witness has a name that stands in a verifier key as it is."""
        with pytest.raises(InvalidInput, match="--name"):
            signer_of(tmp_path, name)

    def test_a_damaged_key(self, folder: Path) -> None:
        """A key file that is none, or that others could read, is refused."""
        (folder / KEY).write_text("rubbish")
        with pytest.raises(CannotStart, match="damaged"):
            signer_of(folder)
        (folder / KEY).chmod(0o644)
        with pytest.raises(CannotStart, match="read by others"):
            signer_of(folder)


class TestLogs:
    def test_several_keys_of_one(self, folder: Path) -> None:
        """A log whose key was changed is trusted by both, if both are given."""
        new = GrowingLog(LOG.signer.key.name, b"9")
        witness = witness_in(folder, LOG.vkey, new.vkey)
        assert [200, 200] == [add(witness, LOG.request(0, 3)).status, add(witness, new.request(3, 5)).status]

    def test_what_is_no_key(self) -> None:
        """A log is given by its verifier key, and a mistake is told with what was given."""
        with pytest.raises(InvalidInput, match="rubbish"):
            logs_of(["rubbish"])
        with pytest.raises(InvalidInput, match="more than"):
            logs_of(GrowingLog(f"example.org/{each}").vkey for each in range(1_001))


@pytest.mark.full
def test_no_two_that_contradict(folder: Path) -> None:
    """Whatever is asked in whatever order, over restarts, each head that is cosigned begins with the one before."""
    chance, cosigned_heads, refused = random.Random(7), [(0, root(LOG.nodes(), 0))], 0
    branch: int | None = None
    for _ in range(300):
        known = cosigned_heads[-1][0]
        size, forked = (
            known + chance.randrange(-3, 6),
            chance.choice([branch, branch, known, chance.randrange(known + 5)]),
        )
        request = LOG.request(chance.choice([known, known, max(0, known - 1)]), max(1, size), forked)
        if add(witness_in(folder), request).status == 200:
            head = Checkpoint.parse(request.note.text)
            assert cosigned_heads[-1] == (known, root(LOG.nodes(forked), known))
            cosigned_heads.append((head.size, head.root))
            branch = forked
        else:
            refused += 1
    assert len(cosigned_heads) > 20
    assert refused > 20
