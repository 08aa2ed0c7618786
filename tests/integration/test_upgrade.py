"""A database of this release is brought up to date by the next one at its start, whole or not at all."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.agent import COMMAND, SAMPLES, AgentProcess
from harness.nextrelease import NEXT, TABLE, modules_of, next_release
from harness.raw import Admin, Wire
from sojourn.store.tables import SCHEMA

pytestmark = pytest.mark.forked

CONFIG = f"""
trust_domain = "example.org"
node_name = "here"
[tasks]
types_dir = "{SAMPLES / "task-types"}"
"""


@pytest.fixture(scope="module")
def following(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the next release is."""
    folder = next_release(tmp_path_factory.mktemp("next"))
    for each in (folder, *folder.parents[:2]):
        each.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that an agent of this release has used: two entries, and the journal of that."""
    with AgentProcess(config=CONFIG) as agent:
        agent.register("/agent/triage", f"unix:uid:{os.geteuid()}", hint="main")
        agent.register("/web", "unix:user:www-data")
        agent.stop()
        made = tmp_path_factory.mktemp("used") / "data"
        shutil.copytree(agent.data_dir, made)
    return made


@pytest.fixture
def agent(used: Path, following: Path) -> Iterator[AgentProcess]:
    """An agent of the next release, that has not been started yet, on the data of this one."""
    own = AgentProcess(config=CONFIG)
    shutil.copytree(used, own.data_dir)
    own.data_dir.chmod(0o700)
    own.extra_environment = modules_of(following)
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
    before = len(agent.log.read_text()) if agent.log.exists() else 0
    process = agent.spawn()
    out, _ = process.communicate(timeout=60)
    said = agent.log.read_text()[before:]
    text = "\n".join(line for line in said.splitlines() if not line.startswith("{"))  # without what is logged
    assert (1, "") == (process.returncode, out)
    assert text.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in text
    return text


def test_of_this_release(agent: AgentProcess) -> None:
    """Entries are served as before, the journal goes on and is whole, and a second start finds nothing to do."""
    assert SCHEMA == look(agent.data_dir / "sojourn.db")[0]
    with agent, Admin(agent.admin_socket) as admin, Wire(agent.socket) as wire:
        assert {"/agent/triage", "/web"} == {each.spiffe_id.path for each in admin.list().entries}
        [svid] = wire.x509().svids
        assert ("spiffe://example.org/agent/triage", "main") == (svid.spiffe_id, svid.hint)
        before = agent.json("status")["epoch"]
        assert agent.json("audit", "verify")["intact"]
        agent.stop()
        version, tables = look(agent.data_dir / "sojourn.db")
        assert (NEXT, True) == (version, TABLE in tables)
        agent.start()
        assert (2, before + 1) == (agent.json("status")["entries"], agent.json("status")["epoch"])


def test_that_fails(agent: AgentProcess) -> None:
    """An upgrade that cannot be done is refused and leaves the database as it was; once it can, it is done."""
    path = agent.data_dir / "sojourn.db"
    by_hand(path, f"CREATE TABLE {TABLE} (mine TEXT)")
    before = look(path)
    assert str(path) in refused(agent)
    assert before == look(path)
    by_hand(path, f"DROP TABLE {TABLE}")
    with agent:
        assert 2 == agent.json("status")["entries"]


def refusal_of(path: Path, following: Path) -> str:
    """What the next release says of a database that cannot be opened; '' if it can be."""
    done = subprocess.run(
        [sys.executable, "-c", OPENED, path],
        env={**os.environ, **modules_of(following)}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stderr.strip()


OPENED = """
import sys
from pathlib import Path
from sojourn.errors import CannotStart
from sojourn.store.database import open_sqlite
try:
    open_sqlite(Path(sys.argv[1])).close()
except CannotStart as error:
    print(error.public, file=sys.stderr)
"""


@pytest.mark.root
def test_without_room_for_it(agent: AgentProcess, following: Path) -> None:
    """Whenever the disk is full amid an upgrade, it says so and leaves the database as it was; with room, it is done."""
    folder = agent.data_dir.with_name("small")
    folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "sojourn", str(folder)], check=True)
    try:
        path = folder / "sojourn.db"
        shutil.copy(agent.data_dir / "sojourn.db", path)
        before, refusals = look(path), 0
        for free in range(0, 512, 24):
            with (folder / "filler").open("wb") as filler:
                left = os.statvfs(folder).f_bavail * 4096 - free * 1024
                if left > 0:
                    os.posix_fallocate(filler.fileno(), 0, left)
            said = refusal_of(path, following)
            (folder / "filler").unlink()
            if not said:
                break
            assert (f"the data folder {str(folder)!r} has no room left: make some", before) == (said, look(path))
            refusals += 1
        assert (NEXT, True) == (look(path)[0], refusals > 0)
        assert 2 == entries_of(path)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def entries_of(path: Path) -> int:
    connection = sqlite3.connect(path)
    [(number,)] = connection.execute("SELECT count(*) FROM entries").fetchall()
    connection.close()
    return int(number)


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


def test_killed_amid_it(agent: AgentProcess, following: Path) -> None:
    """An agent that is killed at any moment of an upgrade leaves the old database or the new one, with its entries."""
    path = agent.data_dir / "sojourn.db"
    old = look(path)
    copies = [path.with_name(f"{place}.db") for place in range(24)]
    for each in copies:
        shutil.copy(path, each)
    environment = {**os.environ, **modules_of(following)}
    subprocess.run([sys.executable, "-c", KILLED, *copies], check=True, timeout=120, env=environment)
    for each in copies:
        version, names = look(each)
        assert (version, names) == old or (NEXT == version and old[1] < names)
    for each in (copies[0], copies[-1]):
        assert "" == refusal_of(each, following)
        assert (2, NEXT) == (entries_of(each), look(each)[0])


def go_back(agent: AgentProcess) -> None:
    """Install the release before in the place of the next one."""
    agent.extra_environment = {}


def test_back_and_forth(agent: AgentProcess, following: Path) -> None:
    """This release starts on what the next one has left, with all that was registered and revoked under either; the next
    one goes on from that.
    """
    agent.start()
    agent.register("/of-the-next", "unix:uid:7")
    agent.stop()
    go_back(agent)
    agent.start()
    assert {"/agent/triage", "/web", "/of-the-next"} == paths(agent)
    assert SCHEMA != look(agent.data_dir / "sojourn.db")[0]
    agent.register("/of-this-one", "unix:uid:8")
    agent.run("svid", "revoke", "--spiffe-id", "spiffe://example.org/web")
    assert [NEXT] == [line["schema"] for line in agent.log_lines() if line["event"] == "database_of_newer_release"]
    agent.stop()
    agent.extra_environment = modules_of(following)
    agent.start()
    assert {"/agent/triage", "/web", "/of-the-next", "/of-this-one"} == paths(agent)
    assert ["spiffe://example.org/web"] == [each["spiffe_id"] for each in agent.json("svid", "revoked")["identities"]]
    assert agent.json("audit", "verify")["intact"]
    assert [] == agent.failures()


def test_nothing_acknowledged_is_lost(agent: AgentProcess, following: Path) -> None:
    """What was acknowledged by either release is there under the other, each killed rather than stopped."""
    known = {"/agent/triage", "/web"}
    for turn in range(6):
        agent.extra_environment = {} if turn % 2 else modules_of(following)
        agent.start()
        assert known == paths(agent)
        for each in range(3):
            agent.register(f"/{turn}/{each}", "unix:uid:7")
            known.add(f"/{turn}/{each}")
        agent.kill()


def test_back_to_the_copy(agent: AgentProcess) -> None:
    """Where this release cannot go on with what the next one has left it prints the command that puts back the copy
    which was made before; that command does so, and no token of after the copy is good then.
    """
    agent.start()
    agent.register("/of-the-next", "unix:uid:7")
    token = agent.json("svid", "jwt", "--audience", "here")["token"]
    assert agent.run("validate", token, "--audience", "here")
    agent.stop()
    by_hand(agent.data_dir / "sojourn.db", f"UPDATE settings SET value = '{NEXT} {NEXT}' WHERE name = 'readable_by'")
    go_back(agent)
    said = refused(agent)
    assert f"written by a newer Sojourn (schema {NEXT}, this one knows {SCHEMA})" in said
    command = said[said.index("sojourn restore ") :].split(" [cannot_start]")[0].split()
    done = subprocess.run([*COMMAND, *command[1:]], capture_output=True, text=True, timeout=60)
    assert 0 == done.returncode, done.stderr
    agent.start()
    assert {"/agent/triage", "/web"} == paths(agent)
    assert ["database_restored"] == [each["what"] for each in agent.failures()]
    assert 1 == agent.run("validate", token, "--audience", "here", check=False).returncode


def paths(agent: AgentProcess) -> set[str]:
    """The paths of the SPIFFE IDs that are registered."""
    return {each["spiffe_id"].removeprefix("spiffe://example.org") for each in agent.json("entry", "list")["entries"]}


def test_back(agent: AgentProcess) -> None:
    """A database of a newer release is refused with both versions, and left alone."""
    path = agent.data_dir / "sojourn.db"
    by_hand(path, "UPDATE alembic_version SET version_num = '9999'")
    before = look(path)
    assert f"written by a newer Sojourn (schema 9999, this one knows {NEXT})" in refused(agent)
    assert before == look(path)
