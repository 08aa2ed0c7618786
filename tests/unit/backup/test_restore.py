"""What a restore takes and what it refuses, before anything in the data folder is changed."""

import os
import shutil
import sqlite3
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.clock import FakeClock
from fakes.databases import opened
from sojourn.audit.journal import Audit
from sojourn.authority import key_files, keys_at_rest
from sojourn.authority.key_seal import KeySeal
from sojourn.authority.roots import Roots
from sojourn.backup import archive, create, restore, staging
from sojourn.errors import KeysSealed, NotFound
from sojourn.errors.oauth import BackupDamaged, NewerJournal
from sojourn.files.data_folder import COPIES
from sojourn.spiffe.ids import TrustDomain
from sojourn.store import snapshot
from sojourn.store.audit import AuditTable

PASSPHRASE = b"correct horse battery staple"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Passphrases are stretched little."""
    for each in (archive, create):
        monkeypatch.setattr(each, "BACKUP_SCRYPT_N", 2)


async def record(folder, number, what="agent_stopped"):
    """Have so many records more in a folder's journal."""
    with opened(folder / "sojourn.db") as database:
        audit = Audit(AuditTable(database), FakeClock())
        for each in range(number):
            audit.note(what, each=each)
        await audit.flush()


async def new_folder(path, records=3, what="agent_stopped"):
    """A data folder with a root of its own and a journal."""
    (path / "keys").mkdir(mode=0o700, parents=True)
    path.chmod(0o700)
    Roots(path / "keys" / "root.pem", FakeClock(), TrustDomain("example.org"), ec.SECP256R1(), timedelta(days=1))
    await record(path, records, what)
    return path


@pytest.fixture
async def folder(tmp_path):
    """The data folder of an agent that does not run."""
    return await new_folder(tmp_path / "data")


@pytest.fixture
def backup(folder, tmp_path):
    """A backup of it."""
    create.create(folder, tmp_path / "made.backup", PASSPHRASE)
    return tmp_path / "made.backup"


@pytest.fixture
def copy(folder):
    """A copy of its database, as a migration keeps it."""
    (folder / COPIES).mkdir(mode=0o700)
    snapshot.copy(folder / "sojourn.db", folder / COPIES / "pre-1.db")
    return folder / COPIES / "pre-1.db"


def by_hand(path, statement):
    """Change a database as no agent does."""
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


class TestSealedKeys:
    """Keys that lie on disk sealed are, in a backup, what its passphrase seals: so another machine can open them."""

    SEAL, OTHER = KeySeal(bytes(32)), KeySeal(bytes(range(32)))

    @pytest.fixture
    def sealed(self, folder):
        (folder / "keys" / "people.key").write_bytes(bytes(range(32)))
        (folder / "keys" / "people.key").chmod(0o600)
        keys_at_rest.settle(folder / "keys", self.SEAL, sealed=True)
        return folder

    @pytest.fixture
    def backup(self, sealed, tmp_path):
        create.create(sealed, tmp_path / "made.backup", PASSPHRASE, seal=self.SEAL)
        return tmp_path / "made.backup"

    @pytest.mark.parametrize("other", [None, OTHER])
    def test_without_what_seals_them(self, sealed, tmp_path, other):
        """Without the key that sealed them none is made."""
        with pytest.raises(KeysSealed):
            create.create(sealed, tmp_path / "made.backup", PASSPHRASE, seal=other)
        assert ["data"] == [each.name for each in tmp_path.iterdir()]

    def test_a_folder_s_name_needs_none(self, sealed):
        """What is public in a sealed file is read without the key."""
        assert "example.org" == create.trust_domain_in(sealed)

    @pytest.mark.parametrize("seal", [None, OTHER])
    def test_on_another_machine(self, backup, sealed, tmp_path, seal):
        """They come in clear where nothing seals them, and by its own key where something does."""
        there = tmp_path / "there"
        there.mkdir(mode=0o700)
        restore.restore(backup, there, PASSPHRASE, seal=seal)
        staging.finish(there)
        assert bytes(range(32)) == key_files.read(there / "keys" / "people.key", seal)
        assert bytes(range(32)) != key_files.read_sealed(sealed / "keys" / "people.key")

    def test_here(self, backup, sealed):
        """Where the keys that are there are sealed those that come have to be, too: nothing was changed otherwise."""
        with pytest.raises(KeysSealed, match="--seal-key"):
            restore.restore(backup, sealed, PASSPHRASE)
        assert staging.restored(sealed) is None
        restore.restore(backup, sealed, PASSPHRASE, seal=self.SEAL)
        staging.finish(sealed)
        assert keys_at_rest.any_sealed(sealed / "keys")
        assert [] == keys_at_rest.settle(sealed / "keys", self.SEAL, sealed=True)

    def test_nothing_in_clear_meanwhile(self, backup, sealed):
        """What a restore has written and not finished is sealed, too."""
        restore.restore(backup, sealed, PASSPHRASE, seal=self.SEAL)
        staged = [path.read_bytes() for path in sealed.rglob("*") if path.is_file() and path.suffix != ".db"]
        assert [] == [each for each in staged if b"PRIVATE KEY-----\n" in each or bytes(range(32)) in each]


class TestBareDatabase:
    def test_its_own_copy(self, folder, copy):
        """The copy that was kept before a migration is restored without a passphrase."""
        assert "example.org" == restore.restore(copy, folder, None).trust_domain

    def test_in_the_place_of_a_backup(self, folder, copy, backup):
        """Where a passphrase is given no database is taken, not even one of the folder's own: nothing seals it."""
        for each in (copy, shutil.copy(copy, backup)):
            with pytest.raises(BackupDamaged, match="bare database"):
                restore.restore(each, folder, PASSPHRASE, accept_loss=True)
        assert staging.restored(folder) is None

    def test_from_elsewhere(self, folder, copy, tmp_path):
        """A database from outside of the folder's copies is refused, also one of the same name or at the folder's top."""
        for name in ("pre-1.db", "other.db", "data/other.db"):
            shutil.copy(copy, tmp_path / name)
            with pytest.raises(BackupDamaged, match="bare database"):
                restore.restore(tmp_path / name, folder, None, accept_loss=True)
        assert staging.restored(folder) is None

    def test_a_link(self, folder, copy, tmp_path):
        """A link among the copies, and a folder of copies that is a link, lead to no database that is taken."""
        elsewhere = shutil.copytree(folder / COPIES, tmp_path / "elsewhere")
        copy.unlink()
        copy.symlink_to(elsewhere / copy.name)
        with pytest.raises(BackupDamaged, match="bare database"):
            restore.restore(copy, folder, None)
        shutil.rmtree(folder / COPIES)
        (folder / COPIES).symlink_to(elsewhere)
        with pytest.raises(BackupDamaged, match="bare database"):
            restore.restore(copy, folder, None)

    @pytest.mark.parametrize("which", ["copy", "folder"])
    def test_that_others_may_write(self, folder, copy, which):
        """A copy that others may write, or in a folder that others may write, is refused."""
        (copy if which == "copy" else copy.parent).chmod(0o777)
        with pytest.raises(BackupDamaged, match="bare database"):
            restore.restore(copy, folder, None)

    @pytest.mark.root
    def test_of_somebody_else(self, folder, copy):
        """A copy that is somebody else's is refused."""
        os.chown(copy, 4401, 4401)
        with pytest.raises(BackupDamaged, match="bare database"):
            restore.restore(copy, folder, None)

    def test_another_file_by_now(self, folder, copy, tmp_path, monkeypatch):
        """What is looked at is the file that is open: one that was put in its place meanwhile makes it none of ours."""
        good = shutil.copy(copy, tmp_path / "good.db")

        def swapped(path):
            opened = path.open("rb")
            os.replace(good, path)
            return opened

        monkeypatch.setattr(restore, "_opened", swapped)
        with pytest.raises(BackupDamaged, match="bare database"):
            restore.restore(copy, folder, None)

    def test_a_backup_without_its_passphrase(self, folder, backup):
        """A backup without a passphrase is refused as what it is, and nothing of it is taken."""
        with pytest.raises(BackupDamaged, match="its passphrase"):
            restore.restore(backup, folder, None)


class TestNothingIsLost:
    def test_one_that_goes_on(self, folder, backup):
        """A backup of the folder as it is loses nothing, and is restored without further ado."""
        assert {} == restore.restore(backup, folder, PASSPHRASE).lost

    async def test_an_older_folder(self, folder, tmp_path):
        """A backup that goes on from all that the folder knows is restored without further ado."""
        kept = shutil.copytree(folder, tmp_path / "kept")
        await record(folder, 5)
        create.create(folder, tmp_path / "later.backup", PASSPHRASE)
        assert 0 == restore.restore(tmp_path / "later.backup", kept, PASSPHRASE).note.lost_records

    async def test_a_longer_journal_of_another_history(self, folder, tmp_path):
        """A backup whose journal is longer, and in which the folder's last record is another, is a loss."""
        other = shutil.copytree(folder, tmp_path / "other")
        await record(folder, 1, "svids_revoked")
        await record(other, 50)
        create.create(other, tmp_path / "other.backup", PASSPHRASE)
        with pytest.raises(NewerJournal, match="does not have the last record"):
            restore.restore(tmp_path / "other.backup", folder, PASSPHRASE)
        assert restore.restore(tmp_path / "other.backup", folder, PASSPHRASE, accept_loss=True)

    async def test_a_record_that_cannot_be_compared(self, folder, tmp_path):
        """A backup in which the record is gone that the folder knows last cannot be compared, which is a loss."""
        later = shutil.copytree(folder, tmp_path / "later")
        await record(later, 5)
        by_hand(later / "sojourn.db", "DELETE FROM audit WHERE seq <= 4")
        create.create(later, tmp_path / "later.backup", PASSPHRASE)
        with pytest.raises(NewerJournal, match="does not have the last record"):
            restore.restore(tmp_path / "later.backup", folder, PASSPHRASE)

    @pytest.mark.parametrize("has_database", [True, False])
    async def test_another_root(self, tmp_path, has_database):
        """A backup of another agent of the same trust domain, whose root is another, is a loss, also without a journal."""
        folder, other = await new_folder(tmp_path / "data", 0), await new_folder(tmp_path / "other")
        if not has_database:
            (folder / "sojourn.db").unlink()
        create.create(other, tmp_path / "other.backup", PASSPHRASE)
        with pytest.raises(NewerJournal, match="no key of the backup's roots"):
            restore.restore(tmp_path / "other.backup", folder, PASSPHRASE)
        assert restore.restore(tmp_path / "other.backup", folder, PASSPHRASE, accept_loss=True)

    def test_a_database_that_cannot_be_read(self, folder, backup):
        """What a damaged database knew cannot be told, and would be lost."""
        (folder / "sojourn.db").write_bytes(b"x" * 5_000)
        with pytest.raises(NewerJournal, match="cannot be read"):
            restore.restore(backup, folder, PASSPHRASE)
        assert restore.restore(backup, folder, PASSPHRASE, accept_loss=True)

    def test_a_machine_that_has_nothing(self, backup, tmp_path):
        """Where there is nothing yet nothing is lost."""
        assert {} == restore.restore(backup, tmp_path / "new", PASSPHRASE).lost

    @pytest.mark.parametrize("head", ["999999 " + "0" * 64, "3 " + "0" * 64])
    def test_a_head_that_is_no_record(self, folder, copy, head):
        """A database that says its journal ends with a record which it has not is refused, whatever is accepted."""
        by_hand(copy, f"UPDATE settings SET value = '{head}' WHERE name = 'audit_head'")
        with pytest.raises(BackupDamaged, match="does not end where"):
            restore.restore(copy, folder, None, accept_loss=True)
        assert staging.restored(folder) is None


async def test_a_node_has_none(tmp_path):
    """A node of a SPIRE server has no root to back up: that is said, and not that it has to be started first."""
    node = tmp_path / "node-data"
    (node / "keys").mkdir(mode=0o700, parents=True)
    (node / "node").mkdir(mode=0o700)
    await record(node, 1)
    with pytest.raises(NotFound, match=r"is a node of a SPIRE server.*joins anew"):
        create.trust_domain_in(node)
    with pytest.raises(NotFound, match="is a node of a SPIRE server"):
        create.create(node, tmp_path / "made.backup", PASSPHRASE)
    assert not (tmp_path / "made.backup").exists()
