"""The agent starts, or refuses to, by what lies in its data folder: its keys and its database."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.agent import AgentProcess
from harness.raw import Admin, entry
from harness.starting import refused, unstarted
from sojourn.audit.log_key import AUDIT_KEY
from sojourn.store import tables


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    with unstarted() as own:
        yield own


@pytest.fixture
def stopped(agent: AgentProcess) -> AgentProcess:
    """An agent that has run once, with 200 entries, and was stopped."""
    with agent:
        with Admin(agent.admin_socket) as admin:
            admin.create(*(entry(f"/n/{n}", f"unix:uid:{n}") for n in range(200)))
        agent.stop()
    return agent


class TestDataFolder:
    @pytest.mark.forked
    def test_in_use(self, agent: AgentProcess) -> None:
        """A second agent on one data folder is refused and told which process has it."""
        with AgentProcess() as other:
            agent.data_dir = other.data_dir
            assert f"another agent (process {other.pid}) uses the data folder" in refused(agent)

    @pytest.mark.forked
    def test_in_use_without_its_lock_file(self, agent: AgentProcess) -> None:
        """Removing the lock file of an agent that runs lets no second one at its database."""
        with AgentProcess() as other:
            (other.data_dir / "lock").unlink()
            agent.data_dir = other.data_dir
            assert "uses the data folder" in refused(agent)

    def test_freed_by_kill(self, agent: AgentProcess) -> None:
        """The lock of an agent that was killed is gone with it."""
        with agent:
            agent.kill()
            agent.start()

    @pytest.mark.forked
    @pytest.mark.root
    def test_on_a_read_only_file_system(self, agent: AgentProcess) -> None:
        """A data folder on a read-only file system is refused with the reason."""
        agent.data_dir.mkdir(mode=0o700)
        mount = f'mount -t tmpfs -o ro,mode=700 tmpfs {agent.data_dir} && exec "$@"'
        text = refused(agent, before=("unshare", "-m", "sh", "-c", mount, "sh"))
        assert "Read-only file system" in text

    @pytest.mark.forked
    @pytest.mark.root
    def test_of_another_user(self, agent: AgentProcess) -> None:
        """A data folder of another user is refused, even by root."""
        agent.data_dir.mkdir(mode=0o700)
        os.chown(agent.data_dir, 4401, 4401)
        assert "is not a folder of user 0's" in refused(agent)

    @pytest.mark.forked
    def test_that_others_may_write(self, agent: AgentProcess) -> None:
        """A data folder that others may write is refused with what to do."""
        agent.data_dir.mkdir()
        os.chmod(agent.data_dir, 0o777)
        assert "chmod go-w" in refused(agent)

    @pytest.mark.forked
    def test_that_is_a_file(self, agent: AgentProcess) -> None:
        """A file in place of the data folder is refused and left alone."""
        agent.data_dir.write_text("precious")
        assert "cannot make the data folder" in refused(agent)
        assert "precious" == agent.data_dir.read_text()

    @pytest.mark.forked
    def test_of_another_trust_domain(self, stopped: AgentProcess) -> None:
        """The keys of one trust domain do not serve another."""
        text = refused(stopped, "--trust-domain", "other.org")
        assert "is not a root of trust domain" in text
        assert "move its data folder away" in text
        with stopped:
            assert 0 == stopped.stop()


def kept_keys(agent: AgentProcess) -> list[Path]:
    """The files of keys that the agent does not start without."""
    return sorted(each for each in (agent.data_dir / "keys").iterdir() if each.name != AUDIT_KEY)


class TestKeys:
    @pytest.mark.forked
    @pytest.mark.parametrize("mode", [0o644, 0o620])
    def test_that_others_may_read(self, stopped: AgentProcess, mode: int) -> None:
        """A key file that others may read is refused, whichever it is of those that nothing could take the place of."""
        for key in kept_keys(stopped):
            key.chmod(mode)
            assert f"{str(key)!r} can be read by others: chmod 600 it" in refused(stopped)
            key.chmod(0o600)

    @pytest.mark.forked
    @pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\n"])
    def test_that_are_damaged(self, stopped: AgentProcess, content: bytes) -> None:
        """A damaged key file is refused and not written over."""
        for key in kept_keys(stopped):
            good = key.read_bytes()
            key.write_bytes(content)
            assert str(key) in refused(stopped)
            assert content == key.read_bytes()
            key.write_bytes(good)

    @pytest.mark.parametrize(
        "spoil", [lambda key: key.chmod(0o644), lambda key: key.write_bytes(b"garbage")], ids=["read", "damaged"]
    )
    def test_of_the_journal(self, stopped: AgentProcess, spoil: Callable[[Path], object]) -> None:
        """The key that signs the journal is not used where others may have read it, nor damaged: the agent starts, begins
        a log with another key, and says so.
        """
        spoil(key := stopped.data_dir / "keys" / AUDIT_KEY)
        spoiled = key.read_bytes()
        TestDatabase.check_told(stopped, "audit_key_lost")
        assert (0o600, True) == (stat.S_IMODE(key.stat().st_mode), spoiled != key.read_bytes())

    @pytest.mark.forked
    @pytest.mark.root
    @pytest.mark.parametrize("spoil", [lambda keys: keys.chmod(0o777), lambda keys: os.chown(keys, 4401, 4401)])
    def test_in_a_folder_that_others_may_write(self, stopped: AgentProcess, spoil: Callable[[Path], None]) -> None:
        """Keys are not taken from a folder into which others may have put them."""
        spoil(stopped.data_dir / "keys")
        assert str(stopped.data_dir / "keys") in refused(stopped)

    @pytest.mark.forked
    def test_that_are_no_folder(self, agent: AgentProcess) -> None:
        """A file in the place of the folder of keys is refused and left alone."""
        agent.data_dir.mkdir(mode=0o700)
        (agent.data_dir / "keys").write_text("precious")
        assert "cannot make the folder" in refused(agent)
        assert "precious" == (agent.data_dir / "keys").read_text()

    @pytest.mark.forked
    def test_that_are_symlinks(self, stopped: AgentProcess) -> None:
        """A key file is not read through a symlink."""
        [*_, key] = sorted((stopped.data_dir / "keys").iterdir())
        key.rename(stopped.folder / "elsewhere")
        key.symlink_to(stopped.folder / "elsewhere")
        assert "cannot be read" in refused(stopped)


class TestDatabase:
    @pytest.mark.forked
    @pytest.mark.parametrize("damage", ["garbage", "header", "page", "cut", "empty", "foreign", "newer", "name"])
    def test_that_is_damaged(self, stopped: AgentProcess, damage: str) -> None:
        """A database that is damaged, empty, foreign or from the future is refused, and stays as it is."""
        path = stopped.data_dir / "sojourn.db"
        _damage(path, damage)
        before = path.read_bytes()
        text = refused(stopped)
        assert before == path.read_bytes()
        assert "database" in text

    @pytest.mark.forked
    @pytest.mark.parametrize("kind", ["symlink", "folder", "writable by others"])
    def test_that_is_not_a_file_of_its_own(self, agent: AgentProcess, kind: str) -> None:
        """A database file that others may have made or may write is refused."""
        agent.data_dir.mkdir(mode=0o700)
        path = agent.data_dir / "sojourn.db"
        if kind == "symlink":
            path.symlink_to(agent.folder / "elsewhere")
        elif kind == "folder":
            path.mkdir()
        else:
            path.touch()
            path.chmod(0o666)
        assert "database" in refused(agent)
        assert not (agent.folder / "elsewhere").exists()

    @pytest.mark.forked
    @pytest.mark.parametrize("table", sorted(tables.metadata.tables))
    def test_without_one_of_its_tables(self, stopped: AgentProcess, table: str) -> None:
        """A database that has lost a table, as of a backup in part, is refused: an empty one would be taken for it."""
        _sqlite(stopped.data_dir / "sojourn.db", f"DROP TABLE {table}")
        assert table in refused(stopped)

    @pytest.mark.forked
    @pytest.mark.parametrize(
        ("statement", "says"),
        [
            ("INSERT INTO entries VALUES ('a', 'b', 'no JSON')", "the database's entries cannot be read"),
            ("INSERT INTO revocations VALUES ('x509:1', 99999999999, '{}')", "revocations cannot be read: KeyError"),
            ("INSERT INTO bundles VALUES ('other.org', '[')", "foreign bundles cannot be read"),
            ("INSERT INTO bundles VALUES ('other.org', CAST(x'ff' AS TEXT))", "cannot be read: it is damaged"),
            ("INSERT INTO settings VALUES ('task_blocks', '[{}]')", "task blocks cannot be read"),
            ("INSERT INTO settings VALUES ('reviews_owed', '7')", "reviews owed cannot be read"),
            ("DELETE FROM alembic_version", "does not say of which schema it is"),
            ("UPDATE alembic_version SET version_num = 'new'", "does not say of which schema it is"),
        ],
    )
    def test_rows_that_no_agent_wrote(self, stopped: AgentProcess, statement: str, says: str) -> None:
        """What cannot be read is said in one sentence and never left out: a revocation or a switch would be undone."""
        _sqlite(stopped.data_dir / "sojourn.db", statement)
        assert says in refused(stopped)

    @pytest.mark.forked
    def test_of_another_trust_domain(self, agent: AgentProcess) -> None:
        """Where the keys were moved away, entries of another trust domain are not signed by the new ones."""
        with agent:
            agent.register("/web", "unix:uid:0")
        shutil.rmtree(agent.data_dir / "keys")
        text = refused(agent, "--trust-domain", "other.org")
        assert '"spiffe://example.org/web" is not a member of trust domain "other.org"' in text

    @pytest.mark.forked
    def test_that_is_gone(self, stopped: AgentProcess) -> None:
        """An agent whose database was removed starts anew, and says that it has lost what was in it."""
        (stopped.data_dir / "sojourn.db").unlink()
        self.check_told(stopped, "database_lost")

    def test_whose_keys_are_gone(self, stopped: AgentProcess) -> None:
        """An agent whose keys were removed makes a new root, and says that the old one's signatures count no more."""
        shutil.rmtree(stopped.data_dir / "keys")
        self.check_told(stopped, "audit_key_lost", "root_lost")

    @pytest.mark.forked
    def test_that_was_put_back(self, stopped: AgentProcess, tmp_path: Path) -> None:
        """An agent on a database of earlier says that it has forgotten what came since, and counts its starts on:
        validators take no feed of an epoch that was.
        """
        path = stopped.data_dir / "sojourn.db"
        shutil.copy(path, tmp_path)
        for _ in range(2):
            stopped.start()
            epoch = stopped.json("status")["epoch"]
            stopped.run("svid", "revoke", "--spiffe-id", "spiffe://example.org/n/7")
            stopped.stop()
        for each in (*stopped.data_dir.glob("sojourn.db-*"), path):
            each.unlink()
        shutil.copy(tmp_path / "sojourn.db", path)
        path.chmod(0o600)
        self.check_told(stopped, "database_restored")
        stopped.start()
        assert epoch + 3 == stopped.json("status")["epoch"]

    @pytest.mark.forked
    def test_whose_number_of_starts_cannot_be_read(self, stopped: AgentProcess) -> None:
        """A file of the last start's number that says none is refused, in one sentence with the cure."""
        (stopped.data_dir / "epoch").write_text("x\n")
        assert "does not say the number of the last start: remove it" in refused(stopped)

    @staticmethod
    def check_told(agent: AgentProcess, *events: str) -> None:
        """They are told once, in status and audit, and not at the next start."""
        for told in (sorted(events), []):
            agent.start()
            assert told == sorted(each["what"] for each in agent.failures())
            agent.stop()


def _damage(path: Path, damage: str) -> None:
    """Damage the SQLite file at `path`, which is whole: its agent has stopped."""
    good = path.read_bytes()
    match damage:
        case "garbage":
            path.write_bytes(os.urandom(8_192))
        case "header":
            path.write_bytes(b"X" + good[1:])
        case "page":
            path.write_bytes(good[:4_096] + b"\xff" * 4_096 + good[8_192:])
        case "cut":
            path.write_bytes(good[: len(good) // 2])
        case "name":
            path.write_bytes(good.replace(b"CREATE TABLE bundles", b"CREATE TAB\xff\xfe bundles", 1))
        case "empty":
            path.write_bytes(b"")
        case "foreign":
            path.unlink()
            _sqlite(path, "CREATE TABLE other (x)")
        case "newer":
            _sqlite(path, "UPDATE alembic_version SET version_num = '9999'")
    path.chmod(0o600)


def _sqlite(path: Path, statement: str) -> None:
    import sqlite3

    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()
