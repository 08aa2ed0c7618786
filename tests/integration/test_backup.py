"""Backups are made beside an agent that runs, and restored whole or not at all; after that nothing of before is good."""

import base64
import json
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from harness.agent import AgentProcess
from harness.backups import PASSPHRASE, back_up, command, done, passphrase_file
from harness.clioutput import check_error, keys_of
from harness.disks import full
from harness.looking import until
from harness.raw import Wire
from sojourn.backup import restore, staging
from sojourn.store import snapshot
from sojourn.store.tables import SCHEMA

pytestmark = pytest.mark.full
AUDIENCE = "https://tickets.example.org"


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    """An agent that runs, with one entry for this user."""
    with AgentProcess() as running:
        running.register("/before", f"unix:uid:{os.getuid()}")
        yield running


@pytest.fixture
def backup(agent: AgentProcess) -> Path:
    """A backup of it."""
    return back_up(agent)


def paths(agent: AgentProcess) -> set[str]:
    """The SPIFFE IDs that are registered."""
    return {each["spiffe_id"].removeprefix("spiffe://example.org") for each in agent.json("entry", "list")["entries"]}


def is_good(agent: AgentProcess, token: str) -> bool:
    return agent.run("validate", token, "--audience", AUDIENCE, check=False).returncode == 0


def jwt_svid(agent: AgentProcess) -> str:
    with Wire(agent.socket) as wire:
        return wire.jwt(AUDIENCE).svids[0].svid


class TestOperator:
    def test_the_day_a_backup_is_needed(self, agent: AgentProcess) -> None:
        """An operator backs up a running agent, loses what came after, restores, and is told what is unknown."""
        made = done(agent, "backup", "create", "--to", str(agent.folder / "monday.backup"))
        token = jwt_svid(agent)
        assert is_good(agent, token)
        agent.register("/after", "unix:uid:7")
        agent.run("svid", "revoke", "--spiffe-id", "spiffe://example.org/before")
        assert not is_good(agent, token)
        until(lambda: agent.json("status")["data_folder"]["backup"], "status has the backup")
        epoch = agent.json("status")["epoch"]
        agent.stop()
        refused = command(agent, "restore", made["file"])
        check_error(refused, 1, "newer_journal")
        assert "1 entry_created" in refused.stderr
        assert "1 svids_revoked" in refused.stderr
        restored = done(agent, "restore", made["file"], "--accept-loss")
        assert {"event": "svids_revoked", "count": 1} in restored["lost"]
        agent.start()
        assert {"/before"} == paths(agent)
        assert not is_good(agent, token)
        assert is_good(agent, jwt_svid(agent))
        status = agent.json("status")
        assert epoch < status["epoch"]
        assert ["database_restored"] == [each["what"] for each in agent.failures()]
        told = status["data_folder"]["restored"]
        assert ("restore", made["file"], restored["lost_records"]) == (
            told["how"], told["file"], told["lost_records"],
        )  # fmt: skip
        assert told["unknown_after"] <= told["unknown_until"] <= told["restored_at"]
        assert "revocations" in told["unknown"]
        assert agent.json("audit", "verify")["intact"]
        [record] = agent.json("audit", "tail", "--event", "database_restored")["records"]
        assert made["file"] == record["fields"]["file"]
        assert "RESTORED" in agent.run("status").stdout

    def test_the_keys_of_its_json(self, agent: AgentProcess) -> None:
        """What the commands print as JSON has keys that stay."""
        made = done(agent, "backup", "create", "--to", str(agent.folder / "a.backup"))
        common = {
            "created_at", "release", "trust_domain", "schema", "readable_by", "epoch", "journal_seq", "journal_at",
            "journal_digest", "config_digest", "parts", "name", "size", "sha256", "file",
        }  # fmt: skip
        assert common | {"removed", "root_in_token"} == keys_of(made)
        assert common | {"opened", "restorable"} == keys_of(done(agent, "backup", "check", made["file"]))
        agent.stop()
        assert {
            "file", "trust_domain", "schema", "made_at", "restored_at", "unknown_after", "unknown_until", "unknown",
            "lost_records", "lost", "event", "count", "new_root", "data_dir",
        } == keys_of(done(agent, "restore", made["file"], "--accept-loss"))  # fmt: skip

    def test_a_folder_of_backups(self, agent: AgentProcess) -> None:
        """In a folder each backup has a name of its own, and the oldest make room."""
        folder = agent.folder / "backups"
        folder.mkdir()
        names = [f"sojourn-example.org-2026010{day}T000000Z.backup" for day in range(1, 5)]
        for name in names:
            (folder / name).write_text("an older one")
        (folder / "of-somebody-else").write_text("stays")
        made = done(agent, "backup", "create", "--to", str(folder), "--keep", "2")
        assert 3 == len(made["removed"])
        assert {"of-somebody-else", names[-1], Path(made["file"]).name} == {each.name for each in folder.iterdir()}

    def test_the_agent_knows_of_it(self, agent: AgentProcess, backup: Path) -> None:
        """A backup that was made beside the agent is in its journal, once, and in its status."""
        [record] = until(
            lambda: agent.json("audit", "tail", "--event", "backup_created")["records"], "it is recorded", seconds=30
        )
        told = agent.json("status")["data_folder"]["backup"]
        assert str(backup) == record["fields"]["file"] == told["file"]
        assert backup.read_bytes()[-32:].hex() == record["fields"]["sha256"] == told["sha256"]
        agent.stop()
        agent.start()
        assert 1 == len(agent.json("audit", "tail", "--event", "backup_created")["records"])

    def test_without_an_agent(self, agent: AgentProcess) -> None:
        """A backup is made of an agent's folder that does not run, and restored on a machine that has nothing."""
        agent.stop()
        made = back_up(agent)
        shutil.rmtree(agent.data_dir)
        assert 0 == command(agent, "restore", str(made)).returncode
        agent.start()
        assert {"/before"} == paths(agent)
        assert 1_000 < agent.json("status")["epoch"]

    @pytest.mark.root
    def test_of_an_agent_of_another_user(self) -> None:
        """Root backs up and restores the folder of an agent that has a user of its own, whose files stay that user's."""
        with AgentProcess(as_user=4401) as agent:
            agent.register("/before", "unix:uid:0")
            made = back_up(agent)
            assert 0 == made.stat().st_uid
            agent.stop()
            assert 0 == command(agent, "restore", str(made), "--accept-loss").returncode
            assert {4401} == {each.stat().st_uid for each in agent.data_dir.rglob("*")}
            agent.start()
            assert {"/before"} == paths(agent)


class TestSealed:
    def test_no_key_is_in_it(self, agent: AgentProcess, backup: Path) -> None:
        """No private key of the folder is in a backup, in no form that a key has."""
        content = backup.read_bytes()
        found = [PASSPHRASE.encode(), (agent.data_dir / "keys" / "sequence").read_bytes()[-60:]]
        for path in (agent.data_dir / "keys").glob("*.pem"):
            pem = path.read_bytes()
            key = load_pem_private_key(pem[pem.index(b"-----BEGIN PRIVATE") :], None)
            found += [
                key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())[-60:],
                key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())[:40],
                key.private_numbers().private_value.to_bytes(32),
            ]
        assert len(found) > 6
        for each in found:
            for form in (each, base64.b64encode(each)[:40], each.hex().encode()):
                assert form not in content
        assert b"PRIVATE KEY" not in content
        assert b"/before" not in content

    def test_its_mode(self, backup: Path) -> None:
        """A backup is its owner's alone, and nothing is left beside it."""
        assert 0o600 == stat.S_IMODE(backup.stat().st_mode)
        assert [] == list(backup.parent.glob(".*"))

    def test_another_passphrase(self, agent: AgentProcess, backup: Path) -> None:
        """With another passphrase a backup is found whole, and neither opened nor restored."""
        passphrase_file(agent.folder).write_text("another passphrase than that")
        check_error(command(agent, "backup", "check", str(backup)), 1, "wrong_passphrase")
        assert not done(agent, "backup", "check", "--sealed", str(backup))["opened"]
        agent.stop()
        check_error(command(agent, "restore", str(backup)), 1, "wrong_passphrase")

    @pytest.mark.parametrize(("content", "mode"), [("short", 0o600), ("correct horse battery", 0o644), ("", 0o600)])
    def test_a_passphrase_that_is_none(self, agent: AgentProcess, content: str, mode: int) -> None:
        """A passphrase that is short, or that everybody could read, makes no backup."""
        path = passphrase_file(agent.folder)
        path.write_text(content)
        path.chmod(mode)
        made = agent.folder / "agent.backup"
        check_error(command(agent, "backup", "create", "--to", str(made)), 2, "invalid_input")
        assert not made.exists()


class TestRefused:
    def test_while_an_agent_runs(self, agent: AgentProcess, backup: Path) -> None:
        """A restore is refused where an agent lives, which goes on."""
        refused = command(agent, "restore", str(backup), "--accept-loss")
        check_error(refused, 1, "cannot_start")
        assert f"another agent (process {agent.pid}) uses the data folder" in refused.stderr
        assert {"/before"} == paths(agent)

    def test_damage(self, agent: AgentProcess, backup: Path) -> None:
        """A backup that was changed, cut in half, added to or emptied is neither whole nor restored."""
        agent.stop()
        good, bad = backup.read_bytes(), agent.folder / "bad.backup"
        before = snapshot.state(agent.data_dir / "sojourn.db")
        half = len(good) // 2
        for content in (good[:half] + bytes([good[half] ^ 1]) + good[half + 1 :], good[:half], good + b"x", b""):
            bad.write_bytes(content)
            for verb in (("backup", "check", "--sealed"), ("restore",)):
                check_error(command(agent, *verb, str(bad)), 1, "backup_damaged")
        assert before == snapshot.state(agent.data_dir / "sojourn.db")
        assert not (agent.data_dir / staging.STAGING).exists()

    def test_a_file_that_is_no_backup(self, agent: AgentProcess) -> None:
        """A file of something else is refused, as is one that is not there."""
        agent.stop()
        check_error(command(agent, "restore", str(agent.config)), 1, "backup_damaged")
        check_error(command(agent, "restore", str(agent.folder / "nothing")), 1, "not_found")

    def test_a_database_in_its_place(self, agent: AgentProcess, backup: Path) -> None:
        """A bare database that somebody has put in the place of a backup is refused, with a passphrase and without."""
        agent.stop()
        shutil.copy(agent.data_dir / "sojourn.db", backup)
        check_error(command(agent, "restore", str(backup), "--accept-loss"), 1, "backup_damaged")
        bare = agent.run("restore", str(backup), "--accept-loss", "--data-dir", str(agent.data_dir), check=False)
        check_error(bare, 1, "backup_damaged")
        assert "a bare database, which nothing seals" in bare.stderr
        assert staging.restored(agent.data_dir) is None

    def test_another_trust_domain(self, agent: AgentProcess, backup: Path) -> None:
        """The backup of one trust domain is not put into the folder of another."""
        with AgentProcess(config='trust_domain = "other.org"\n') as other:
            other.stop()
            refused = command(other, "restore", str(backup), "--accept-loss", "--passphrase-file",
                              str(passphrase_file(agent.folder)))  # fmt: skip
            check_error(refused, 1, "backup_not_for_here")
            assert "'example.org'" in refused.stderr
            assert "'other.org'" in refused.stderr

    def test_a_newer_release(self, agent: AgentProcess) -> None:
        """The backup of a release from which this one cannot go on is refused, with both schemas."""
        agent.stop()
        connection = sqlite3.connect(agent.data_dir / "sojourn.db")
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("UPDATE settings SET value = '9999 9998' WHERE name = 'readable_by'")
        connection.commit()
        connection.close()
        made = back_up(agent)
        assert not done(agent, "backup", "check", str(made))["restorable"]
        shutil.rmtree(agent.data_dir)
        refused = command(agent, "restore", str(made))
        check_error(refused, 1, "backup_not_for_here")
        assert f"schema 9999, this one knows {SCHEMA}" in refused.stderr


class TestNothingOfBefore:
    def test_a_new_root(self, agent: AgentProcess, backup: Path) -> None:
        """With --new-root the root of before is in no bundle any more, and the agent's sequence goes on."""
        before = agent.json("status")["authority"]["root_serial"]
        sequence = agent.json("bundle", "show")["bundle"]["spiffe_sequence"]
        agent.stop()
        assert 0 == command(agent, "restore", str(backup), "--new-root", "--accept-loss").returncode
        agent.start()
        assert before != agent.json("status")["authority"]["root_serial"]
        assert agent.json("status")["data_folder"]["restored"]["new_root"]
        assert sequence < agent.json("bundle", "show")["bundle"]["spiffe_sequence"]
        assert ["database_restored"] == [each["what"] for each in agent.failures()]

    def test_the_root_stays(self, agent: AgentProcess, backup: Path) -> None:
        """Without it the root is that of the backup, so that whoever trusts it goes on."""
        before = agent.json("status")["authority"]["root_serial"]
        agent.stop()
        shutil.rmtree(agent.data_dir)
        assert 0 == command(agent, "restore", str(backup)).returncode
        agent.start()
        assert before == agent.json("status")["authority"]["root_serial"]

    def test_it_is_told_once(self, agent: AgentProcess, backup: Path) -> None:
        """At the start after the next nothing is replaced again: what was signed since stays good."""
        agent.stop()
        assert 0 == command(agent, "restore", str(backup), "--accept-loss").returncode
        agent.start()
        token = jwt_svid(agent)
        agent.stop()
        agent.start()
        assert is_good(agent, token)
        assert [] == agent.failures()
        assert agent.json("status")["data_folder"]["restored"]["how"] == "restore"


class Ended(BaseException):
    """The process ends here."""


def test_broken_off(agent: AgentProcess, backup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore that was broken off once it was decided on is finished by the agent's next start."""

    def end(*_: object) -> None:
        raise Ended

    token = jwt_svid(agent)
    agent.register("/after", "unix:uid:7")
    agent.stop()
    monkeypatch.setattr(staging, "_move", end)
    with pytest.raises(Ended):
        restore.restore(backup, agent.data_dir, PASSPHRASE.encode(), accept_loss=True)
    assert (agent.data_dir / staging.STAGING / staging.READY).exists()
    agent.start()
    assert {"/before"} == paths(agent)
    assert not is_good(agent, token)
    assert ["database_restored"] == [each["what"] for each in agent.failures()]


@pytest.mark.root
class TestFullDisk:
    def test_of_the_backup(self, agent: AgentProcess, tmp_path: Path) -> None:
        """Where a backup finds no room it says so, leaves nothing, and leaves the one before it as it was."""
        import subprocess

        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "sojourn", str(tmp_path)], check=True)
        try:
            made = back_up(agent, str(tmp_path / "agent.backup"))
            before = made.read_bytes()
            with full(tmp_path):
                check_error(command(agent, "backup", "create", "--to", str(made)), 1, "store_failed")
            assert before == made.read_bytes()
            assert ["agent.backup"] == os.listdir(tmp_path)
        finally:
            subprocess.run(["umount", str(tmp_path)], check=True)

    def test_of_the_data_folder(self, agent: AgentProcess, backup: Path) -> None:
        """Where a restore finds no room it says so, and the folder stays as it was."""
        import subprocess

        agent.stop()
        kept = agent.data_dir.with_name("kept")
        agent.data_dir.rename(kept)
        agent.data_dir.mkdir(mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "sojourn", str(agent.data_dir)], check=True)
        try:
            subprocess.run(["cp", "-a", f"{kept}/.", str(agent.data_dir)], check=True)
            before = snapshot.state(agent.data_dir / "sojourn.db")
            with full(agent.data_dir):
                check_error(command(agent, "restore", str(backup), "--accept-loss"), 1, "store_full")
                check_error(command(agent, "backup", "create", "--to", str(agent.folder / "b")), 1, "store_full")
            assert before == snapshot.state(agent.data_dir / "sojourn.db")
            agent.start()
            assert {"/before"} == paths(agent)
            agent.stop()
        finally:
            subprocess.run(["umount", str(agent.data_dir)], check=True)


def test_the_manifest_is_a_line_of_json(agent: AgentProcess, backup: Path) -> None:
    """What a backup is of can be read without its passphrase: trust domain, schema, journal, digests of all parts."""
    magic, line, _ = backup.read_bytes().split(b"\n", 2)
    said = json.loads(line)
    assert b"sojourn-backup 1" == magic
    assert ("example.org", SCHEMA, 1) == (said["trust_domain"], said["schema"], said["epoch"])
    parts = {"keys/root.pem", "keys/sequence", "keys/people.key", "sojourn.db"}
    assert parts == {each["name"] for each in said["parts"]}
    record = agent.json("audit", "tail", "--after", str(said["journal"]["seq"] - 1), "--lines", "1")["records"][0]
    assert record["digest"] == said["journal"]["digest"]
