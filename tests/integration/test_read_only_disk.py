"""A disk that turns read-only under an agent that runs, as ext4 does where its device fails."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.disks import JournaledDisk, journaled_disk
from harness.exchanges import form, post
from harness.looking import until
from harness.taskagent import ISSUER, TICKETS, make_agent
from sojourn.errors import Bug, StoreFailed
from sojourn.store import settings
from sojourn.store.database import open_sqlite

pytestmark = [pytest.mark.full, pytest.mark.root]
SAID = "the database did not take the write: the disk of the data folder has turned read-only, or fails"
ENTRIES = "entries:\n- spiffe_id: spiffe://example.org/followed\n  selectors: ['unix:uid:{}']\n"


class _Room:
    """An agent whose data folder has turned read-only; what was so before."""

    def __init__(self, agent: AgentProcess, disk: JournaledDisk, holder: Caller) -> None:
        self.agent, self.disk, self.holder = agent, disk, holder
        self.subject = holder.ask("jwt", audience=ISSUER)["token"]
        self.task = holder.ask("begin_process", type="triage-ticket")["id"]
        self.token = holder.ask("token", task=self.task)["token"]

    def refused(self, *command: str) -> str:
        """What a command that must be refused says."""
        done = self.agent.run(*command, check=False)
        assert (1, "") == (done.returncode, done.stdout)
        return done.stderr


@pytest.fixture
def room() -> Iterator[_Room]:
    agent = make_agent(extra='\n[registration]\nfollow = "entries"\n')
    try:
        (agent.folder / "entries").mkdir()
        with journaled_disk(agent) as disk:
            agent.start()
            agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
            with Caller(agent.socket) as holder:
                made = _Room(agent, disk, holder)
                disk.turn_read_only()
                yield made
    finally:
        agent.__exit__()


def test_a_disk_that_turns_read_only(room: _Room) -> None:
    """Identities go on, nothing that cannot be recorded begins, each refusal names the disk at once with one code, and
    operators read the journal; on the disk that was mended the agent has all that was acknowledged."""
    agent, holder = room.agent, room.holder
    assert ["spiffe://example.org/agent/triage"] == [svid["spiffe_id"] for svid in holder.ask("x509")["svids"]]
    assert "jwt" == holder.ask("jwt", audience="another")["event"]
    assert holder.ask("validate", token=room.token, audience=TICKETS)["valid"]
    for refused in (holder.ask("token", task=room.task), holder.ask("begin_process", type="triage-ticket")):
        assert ("store_failed", SAID) == (refused["code"], refused["message"])
    response = post(agent.socket, form(room.subject))
    assert (503, "store_failed", SAID) == (
        response.status_code,
        response.json()["code"],
        response.json()["error_description"],
    )

    bundle = agent.folder / "bundle.json"
    bundle.write_text(json.dumps(agent.json("bundle", "show")["bundle"]))
    entry = ("--spiffe-id", "spiffe://example.org/new", "--selector", "unix:uid:7")
    for command in (
        ("entry", "create", *entry),
        ("bundle", "set", "other.example", str(bundle)),
        ("federation", "create", "other.example", "--url", "https://127.0.0.1:1/", "--profile", "https_web"),
    ):
        said = room.refused(*command)
        assert f"{SAID} [store_failed]" in said
        assert "identities are served meanwhile; see to the disk of the agent's data folder" in said
    assert "the keys cannot be written: Read-only file system [store_failed]" in room.refused(
        "authority", "prepare", "x509"
    )

    (agent.folder / "entries" / "one.yaml").write_text(ENTRIES.format(77))
    until(lambda: SAID in agent.run("status").stdout.partition("folder ")[2].partition("policy ")[0], "it is told")
    failures = {each["what"]: each["reason"] for each in agent.json("status")["failures"]}
    assert f"{SAID} (disk I/O error (SQLITE_IOERR_WRITE))" == failures["audit_not_written"]

    verified = agent.json("audit", "verify")
    assert (True, True) == (verified["intact"], verified["unwritten"] > 0)
    for command in (("audit", "tail"), ("task", "why", room.task)):
        done = agent.run(*command)
        assert "task_begun" in done.stdout
        assert "warning: records that wait for the disk, which takes no writes: " in done.stderr

    agent.stop()
    with pytest.raises(RuntimeError, match="cannot be written: Read-only file system"):
        agent.start()
    room.disk.mend()
    agent.start()
    until(lambda: "/followed" in agent.run("entry", "list").stdout, "the folder's entries are in force")
    assert [room.task] == [each["id"] for each in agent.json("task", "list")["tasks"]]
    verified = agent.json("audit", "verify")
    assert (True, 0) == (verified["intact"], verified["unwritten"])


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


async def test_a_disk_that_can_be_written_again(tmp_path: Path) -> None:
    """What was opened while the disk was read-only is opened anew once it can be written: nobody has to restart."""
    folder = str(tmp_path)
    mount("-t", "tmpfs", "-o", "size=3m,mode=0700", "sojourn", folder)
    try:
        database = open_sqlite(tmp_path / "sojourn.db")
        await database.write(lambda connection: settings.put(connection, "one", "1"))
        mount("--bind", folder, folder)  # those who open it by its path have what is mounted last
        mount("-o", "remount,bind,ro", folder)
        with pytest.raises(Bug):
            await database.write(lambda _: 1 // 0)  # the connection that can still write is let go of
        database._engine.dispose()
        assert "1" == await database.read(lambda connection: settings.get(connection, "one"))
        with pytest.raises(StoreFailed, match="the data folder is read-only"):
            await database.write(lambda connection: settings.put(connection, "two", "2"))
        assert "1" == await database.read(lambda connection: settings.get(connection, "one"))
        mount("-o", "remount,bind,rw", folder)
        with contextlib.suppress(StoreFailed):  # one that meets what was opened before
            await database.write(lambda connection: settings.put(connection, "two", "2"))
        await database.write(lambda connection: settings.put(connection, "three", "3"))
        assert "3" == await database.read(lambda connection: settings.get(connection, "three"))
        database.close()
    finally:
        while os.path.ismount(folder):
            subprocess.run(["umount", "--lazy", folder], check=True)
