"""Backups and restores whose process is killed, at each change of the disk that they make."""

import hashlib
import os
import shutil
import signal
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.clock import FakeClock
from fakes.databases import opened
from sojourn.audit.journal import Audit
from sojourn.authority.roots import Roots
from sojourn.backup import archive, create, restore, staging
from sojourn.spiffe.ids import TrustDomain
from sojourn.store import snapshot
from sojourn.store.audit import AuditTable

pytestmark = pytest.mark.full

PASSPHRASE = b"correct horse battery staple"
CHANGES = ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync", "open")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Passphrases are stretched little."""
    for each in (archive, create):
        monkeypatch.setattr(each, "BACKUP_SCRYPT_N", 2)


@pytest.fixture
async def folder(tmp_path):
    """A data folder with a root, other keys, and a journal."""
    made = tmp_path / "data"
    (made / "keys").mkdir(mode=0o700, parents=True)
    made.chmod(0o700)
    Roots(made / "keys" / "root.pem", FakeClock(), TrustDomain("example.org"), ec.SECP256R1(), timedelta(days=1))
    (made / "epoch").write_text("4\n")
    await record(made, 3)
    return made


async def record(folder, number):
    """Have so many records more in the journal."""
    for name in ("jwt.pem", "wit.pem"):
        (folder / "keys" / name).touch(0o600)
    with opened(folder / "sojourn.db") as database:
        audit = Audit(AuditTable(database), FakeClock())
        for each in range(number):
            audit.note("agent_stopped", each=each)
        await audit.flush()


def in_a_child(step, work):
    """Do it in a process that is killed before this change of the disk, counted from 0. Return whether it was."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            left = [step]

            def counted(call):
                def counting(*arguments, **options):
                    if not left[0]:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left[0] -= 1
                    return call(*arguments, **options)

                return counting

            for name in CHANGES:
                setattr(os, name, counted(getattr(os, name)))
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def digest(folder):
    """What is in a folder: the digests of its files."""
    return {
        str(each.relative_to(folder)): hashlib.sha256(each.read_bytes()).hexdigest()
        for each in folder.rglob("*")
        if each.is_file() and each.name not in {"lock", "last-backup"} and not each.name.endswith(("-wal", "-shm"))
    }


async def test_creating(folder, tmp_path):
    """A backup that is killed at any of its steps leaves no file of its name, or a whole one, and the folder as it was;
    the next one removes what it has left.
    """
    before, to, step = digest(folder), tmp_path / "made.backup", 0
    while in_a_child(step, lambda: create.create(folder, to, PASSPHRASE)):
        if to.exists():
            assert "example.org" == restore.check(to, PASSPHRASE).trust_domain
            to.unlink()
        step += 1
    assert step > 6
    create.create(folder, to, PASSPHRASE)
    assert before == digest(folder)
    assert ["data", "made.backup"] == sorted(each.name for each in tmp_path.iterdir())


async def test_restoring(folder, tmp_path):
    """A restore that is killed at any of its steps leaves the folder as it was, or is finished by whoever comes next:
    no file is of the one where others are of the other, and no key of before is left beside a database of before.
    """
    to = tmp_path / "made.backup"
    create.create(folder, to, PASSPHRASE)
    earlier = snapshot.state(folder / "sojourn.db").head
    await record(folder, 4)
    later, kept, step, seen = snapshot.state(folder / "sojourn.db").head, tmp_path / "kept", 0, []
    shutil.copytree(folder, kept)
    before = digest(kept)
    while in_a_child(step, lambda: restore.restore(to, folder, PASSPHRASE, accept_loss=True)):
        staging.finish(folder)
        head, keys = snapshot.state(folder / "sojourn.db").head, {each.name for each in (folder / "keys").iterdir()}
        note = staging.restored(folder)
        if note is None:
            assert before == digest(folder)
            assert head == later
        else:
            assert head == earlier
            assert {"root.pem"} == keys
            assert note.epoch_at_least > 1_000
        assert not (folder / staging.STAGING).exists()
        seen.append(note is not None)
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        step += 1
    assert sorted(seen) == seen
    assert {True, False} == set(seen)
    assert step > 20


async def test_restoring_again_after_it_was_killed(folder, tmp_path):
    """A second restore finishes the first one, which was killed, before it does its own."""
    to = tmp_path / "made.backup"
    create.create(folder, to, PASSPHRASE)
    await record(folder, 4)
    staged = staging.begin(folder)
    shutil.copy(folder / "sojourn.db", staged / "sojourn.db")
    assert not staging.finish(folder)
    assert restore.restore(to, folder, PASSPHRASE, accept_loss=True).note.lost_records == 4
    assert staging.restored(folder) is not None
