"""doctor/files.py: faults of the data folder, made for real, are found; what cannot be looked at is never well."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes.databases import opened
from fakes.doctors import put, scene_of, status_of
from sojourn.config.model import Config
from sojourn.doctor import files
from sojourn.doctor.findings import Finding, Verdict
from sojourn.doctor.scene import Scene

ALL = (files.data_folder, files.keys, files.disk, files.store, files.journal)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder as an agent has made it."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    (folder / "keys").mkdir(mode=0o700)
    put(folder / "keys" / "root.pem", "key").chmod(0o600)
    with opened(folder / "sojourn.db"):
        pass
    return folder


@pytest.fixture
def scene(tmp_path: Path, data: Path) -> Scene:
    assert data.exists()
    return scene_of(tmp_path)


@pytest.mark.parametrize("check", ALL)
def test_all_is_well(scene: Scene, check: Callable[[Scene], Finding]) -> None:
    """A data folder as an agent leaves it is well."""
    assert Verdict.OK == check(scene).verdict, check(scene).found


@pytest.mark.parametrize("check", ALL)
def test_which_folder_is_not_known(tmp_path: Path, check: Callable[[Scene], Finding]) -> None:
    """Without an agent and without a configuration that can be used nothing is said to be well."""
    assert Verdict.UNKNOWN == check(scene_of(tmp_path, fault="agent.toml: not TOML")).verdict


@pytest.mark.parametrize("check", [files.data_folder, files.keys, files.store])
def test_an_agent_that_never_ran(tmp_path: Path, check: Callable[[Scene], Finding]) -> None:
    """A folder that is not there yet is a warning, with when it is made."""
    found = check(scene_of(tmp_path))
    assert (Verdict.WARN, True) == (found.verdict, "first time" in found.do)


def test_the_running_agents_folder_counts(tmp_path: Path, data: Path) -> None:
    """Where an agent answers, its own folder is looked at, whatever the configuration says."""
    config = Config(data_dir=tmp_path / "elsewhere")
    status = status_of(tmp_path, data_dir=str(data))
    assert Verdict.OK == files.data_folder(scene_of(tmp_path, status, config)).verdict


@pytest.mark.parametrize(("mode", "verdict"), [(0o750, Verdict.WARN), (0o777, Verdict.FAIL), (0o720, Verdict.FAIL)])
def test_a_folder_that_is_open(scene: Scene, data: Path, mode: int, verdict: Verdict) -> None:
    """A folder that others may read is a warning, one that they may write a failure."""
    data.chmod(mode)
    assert (verdict, f"chmod 0700 {data}") == (files.data_folder(scene).verdict, files.data_folder(scene).do)


def test_a_key_that_is_open(scene: Scene, data: Path) -> None:
    """A key that others may read is a failure that names the file, and says to replace the keys."""
    (data / "keys" / "root.pem").chmod(0o640)
    found = files.keys(scene)
    assert Verdict.FAIL == found.verdict
    assert f"{data}/keys/root.pem is open to others (mode 0640)" == found.found
    assert "sojourn authority taint" in found.do


def test_keys_beside_a_token(tmp_path: Path, data: Path) -> None:
    """Where roots' keys are in a token, and the others lie in clear beside, that is a warning; sealed, it is well."""
    table = {"manager": "pkcs11", "module": "/m.so", "token": "t", "pin_file": "/pin"}
    for more, verdict in (({}, Verdict.WARN), ({"seal_key": "/seal"}, Verdict.OK)):
        config = Config.model_validate({"data_dir": data, "keys": table | more})
        assert verdict == files.keys(scene_of(tmp_path, config=config)).verdict


@pytest.mark.root
@pytest.mark.parametrize(
    ("check", "name"), [(files.data_folder, "."), (files.keys, "keys"), (files.keys, "keys/root.pem")]
)
def test_a_file_of_another_user(
    scene: Scene, data: Path, check: Callable[[Scene], Finding], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another user than the agent's owns is a failure."""
    os.chown(data / name, 4801, -1)
    monkeypatch.setattr(Scene, "uid", 0)
    assert (Verdict.FAIL, True) == (check(scene).verdict, "user 4801" in check(scene).found)


@pytest.mark.parametrize(
    ("free", "inodes", "flag", "verdict"),
    [
        (2**40, 1, 0, Verdict.OK),
        (2**29, 1, 0, Verdict.WARN),
        (2**20, 1, 0, Verdict.FAIL),
        (2**40, 0, 0, Verdict.FAIL),
        (2**40, 1, os.ST_RDONLY, Verdict.FAIL),
    ],
)
def test_room(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, free: int, inodes: int, flag: int, verdict: Verdict
) -> None:
    """Little room is a warning; none, no inode, and a file system that is read-only are failures."""
    told = SimpleNamespace(f_bavail=free, f_frsize=1, f_blocks=2**41, f_favail=inodes, f_files=9, f_flag=flag)
    monkeypatch.setattr(os, "statvfs", lambda _path: told)
    assert verdict == files.disk(scene).verdict


class TestStore:
    def test_a_damaged_page(self, scene: Scene, data: Path) -> None:
        """A database of which a page was overwritten is a failure that says to restore it."""
        path = data / "sojourn.db"
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 8192)
        found = files.store(scene)
        assert (Verdict.FAIL, True) == (found.verdict, "is damaged" in found.found)
        assert "restore it from a backup" in found.do

    def test_no_database_at_all(self, scene: Scene, data: Path) -> None:
        """A file that is no database is a failure."""
        (data / "sojourn.db").write_bytes(b"hello" * 1000)
        assert Verdict.FAIL == files.store(scene).verdict

    def test_a_newer_release(self, scene: Scene, data: Path) -> None:
        """A database of a newer schema is told, with which one is known here."""
        with sqlite3.connect(data / "sojourn.db") as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.close()
        assert "is of schema 9999" in files.store(scene).found

    async def test_one_that_is_in_use(self, scene: Scene, data: Path) -> None:
        """A database that an agent has open is looked at beside it, and left as it is."""
        with opened(data / "sojourn.db") as database:
            before = sorted(each.name for each in data.iterdir())
            assert Verdict.OK == files.store(scene).verdict
            await database.write(lambda connection: None)
            assert before == sorted(each.name for each in data.iterdir())


def test_the_journal_is_nearly_full(tmp_path: Path, data: Path) -> None:
    """A database that has nine tenths of what it may have is a warning, with how to keep its records."""
    least = 16 * 2**20
    config = Config(data_dir=data, audit={"max_bytes": least})
    assert Verdict.OK == files.journal(scene_of(tmp_path, config=config)).verdict
    os.truncate(data / "sojourn.db", least)
    found = files.journal(scene_of(tmp_path, config=config))
    assert (Verdict.WARN, True) == (found.verdict, "audit tail --follow" in found.do)
