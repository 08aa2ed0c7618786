"""A database of an earlier release is brought up to date at the start, whole or not at all."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from harness.agent import SAMPLES, AgentProcess
from harness.raw import Admin, Wire
from sojourn.errors import CannotStart
from sojourn.store.database import open_sqlite
from sojourn.store.tables import SCHEMA

FIRST = Path(__file__).with_name("first_schema.sql")
CONFIG = f"""
trust_domain = "example.org"
node_name = "here"
[tasks]
types_dir = "{SAMPLES / "task-types"}"
"""
TASK = "tsk_sgS7Vlk7uxuL61jBCxkvVw"


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    """An agent that has not been started yet, on a database of the first schema."""
    own = AgentProcess(config=CONFIG)
    own.data_dir.mkdir(mode=0o700)
    path = own.data_dir / "sojourn.db"
    path.touch(0o600)
    by_hand(path, FIRST.read_text())
    yield own
    own.__exit__()


def by_hand(path: Path, script: str) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()


def look(path: Path) -> tuple[str, set[str]]:
    """The version and the tables of a database."""
    connection = sqlite3.connect(path)
    [(version,)] = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    return version, tables


def refused(agent: AgentProcess) -> str:
    """Start what must be refused, with one sentence."""
    process = agent.spawn()
    out, _ = process.communicate(timeout=20)
    text = agent.log.read_text()
    assert (1, "") == (process.returncode, out)
    assert text.startswith("error: ")
    assert "Traceback" not in text
    return text


@pytest.mark.root
def test_of_the_first_schema(agent: AgentProcess) -> None:
    """Entries are served as before, what was unfinished has ended, the journal goes on, and what is new works."""
    with agent, Admin(agent.admin_socket) as admin, Wire(agent.socket) as wire:
        assert {"/agent/triage", "/web"} == {each.spiffe_id.path for each in admin.list().entries}
        [svid] = wire.x509().svids
        assert ("spiffe://example.org/agent/triage", "main") == (svid.spiffe_id, svid.hint)
        records = agent.json("audit", "tail", "--lines", "500")["records"]
        [ended] = [record["fields"] for record in records if record["event"] == "task_ended"]
        assert (TASK, "revoked", "agent_restart") == (ended["task"], ended["state"], ended["reason"])
        admin.trust("other.org")
        admin.register("/new", "unix:uid:0", federates_with=["other.org"])
        verified = agent.json("audit", "verify")
        assert (True, 2) == (verified["intact"], agent.json("status")["epoch"])
        agent.stop()
        assert SCHEMA == look(agent.data_dir / "sojourn.db")[0]
        agent.start()
        assert 3 == agent.json("status")["entries"]


def test_that_fails(agent: AgentProcess) -> None:
    """An upgrade that cannot be done is refused and leaves the database as it was; once it can, it is done."""
    path = agent.data_dir / "sojourn.db"
    by_hand(path, "CREATE TABLE relationships (mine TEXT)")
    before = look(path)
    assert str(path) in refused(agent)
    assert before == look(path)
    by_hand(path, "DROP TABLE relationships")
    with agent:
        assert 2 == agent.json("status")["entries"]


def refusal_of(path: Path) -> str:
    """What is said of a database that cannot be opened; '' if it can be."""
    try:
        open_sqlite(path).close()
    except CannotStart as error:
        return error.public
    return ""


@pytest.mark.root
def test_without_room_for_it(agent: AgentProcess) -> None:
    """Whenever the disk is full amid an upgrade, it says so and leaves the database as it was; with room, it is done."""
    folder = agent.data_dir.with_name("small")
    folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "sojourn", str(folder)], check=True)
    try:
        path = folder / "sojourn.db"
        shutil.copy(agent.data_dir / "sojourn.db", path)
        before, refusals = look(path), 0
        for free in range(0, 512, 12):
            with (folder / "filler").open("wb") as filler, suppress(OSError):
                os.posix_fallocate(filler.fileno(), 0, os.statvfs(folder).f_bavail * 4096 - free * 1024)
            said = refusal_of(path)
            (folder / "filler").unlink()
            if not said:
                break
            assert (f"the data folder {str(folder)!r} has no room left: make some", before) == (said, look(path))
            refusals += 1
        assert (SCHEMA, True) == (look(path)[0], refusals > 3)
        connection = sqlite3.connect(path)
        assert [(2,)] == connection.execute("SELECT count(*) FROM entries").fetchall()
        connection.close()
    finally:
        subprocess.run(["umount", str(folder)], check=True)


KILLED = """
import os, signal, sys, time, alembic.command, sqlalchemy
from pathlib import Path
from sojourn.store.database import open_sqlite
for place, path in enumerate(sys.argv[1:]):
    child = os.fork()
    if child == 0:
        open_sqlite(Path(path)).close()
        os._exit(0)
    time.sleep(0.02 * place)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_killed_amid_it(agent: AgentProcess) -> None:
    """An agent that is killed at any moment of an upgrade leaves the old database or the new one, with its entries."""
    path = agent.data_dir / "sojourn.db"
    old = look(path)
    copies = [path.with_name(f"{place}.db") for place in range(24)]
    for each in copies:
        shutil.copy(path, each)
    subprocess.run([sys.executable, "-c", KILLED, *copies], check=True, timeout=120)
    for each in copies:
        version, names = look(each)
        assert (version, names) == old or (SCHEMA == version and old[1] < names)
        open_sqlite(each).close()
        connection = sqlite3.connect(each)
        assert [(2,)] == connection.execute("SELECT count(*) FROM entries").fetchall()
        connection.close()
        assert SCHEMA == look(each)[0]


def test_back(agent: AgentProcess) -> None:
    """A database of a newer release is refused with both versions, and left alone."""
    path = agent.data_dir / "sojourn.db"
    by_hand(path, "UPDATE alembic_version SET version_num = '9999'")
    before = look(path)
    assert f"written by a newer Sojourn (schema 9999, this one knows {SCHEMA})" in refused(agent)
    assert before == look(path)
