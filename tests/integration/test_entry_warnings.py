"""What whoever registers an entry is told of it: by the command, by SPIRE's API, from files, from a followed folder."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.agent import AgentProcess
from harness.looking import until
from harness.raw import Admin, entry
from sojourn._pb.spire.api.server.entry.v1 import entry_pb2 as pb

SHELL = os.path.realpath("/bin/sh")
ENTRY_API = "/spire.api.server.entry.v1.Entry/"


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with AgentProcess() as running:
        yield running


class TestTheCommand:
    def test_create_and_update(self, agent: AgentProcess) -> None:
        """The command registers all the same, and says on standard error what to think of; as JSON among the rest."""
        arguments = ("--selector", "docker:label:a:b", "--selector", f"unix:path:{SHELL}")
        done = agent.run("entry", "create", "--spiffe-id", "spiffe://example.org/both", *arguments)
        first, second = done.stderr.splitlines()
        assert first.startswith("warning: no attestor of this agent gives selectors of type 'docker'")
        assert second.startswith(f"warning: unix:path:{SHELL} is an interpreter, {SHELL}: ")
        assert "warning" not in done.stdout
        [made] = agent.json("entry", "list", "--spiffe-id", "spiffe://example.org/both")["entries"]
        changed = agent.json("entry", "update", made["id"], "--selector", "unix:uid:65534")
        [warning] = changed["warnings"]
        assert "is shown for every id that cannot be mapped" in warning

    def test_nothing_to_say(self, agent: AgentProcess) -> None:
        """Of an entry that is what it seems nothing is said."""
        done = agent.run("entry", "create", "--spiffe-id", "spiffe://example.org/plain", "--selector", "unix:uid:4711")
        assert "" == done.stderr

    def test_apply(self, agent: AgentProcess, tmp_path: Path) -> None:
        """Of files each entry that changes has its own, also if that is only tried."""
        (tmp_path / "a.yaml").write_text(
            "entries:\n"
            "- {spiffe_id: spiffe://example.org/applied, selectors: ['unix:gid:65534']}\n"
            "- {spiffe_id: spiffe://example.org/applied-too, selectors: ['unix:gid:1']}\n"
        )
        tried = agent.json("entry", "apply", "-f", str(tmp_path), "--dry-run")
        done = agent.run("entry", "apply", "-f", str(tmp_path))
        assert [1, 0] == [len(step["warnings"]) for step in tried["steps"]]
        [line] = done.stderr.splitlines()
        assert line.startswith("warning: spiffe://example.org/applied: unix:gid:65534: ")


def test_by_spires_api(agent: AgentProcess) -> None:
    """Answers by SPIRE's API are as SPIRE's, OK, with one field more for the warning; what was not registered is not commented on."""
    with Admin(agent.admin_socket) as admin:
        request = pb.BatchCreateEntryRequest(entries=[entry("/api", "unix:uid:65534"), entry("/api", "unix:uid:65534")])
        answer = admin.unary(ENTRY_API + "BatchCreateEntry", request, pb.BatchCreateEntryResponse)
    first, again = answer.results
    assert ((0, "OK"), 1) == ((first.status.code, first.status.message), len(first.warnings))
    assert (6, []) == (again.status.code, list(again.warnings))


def test_of_a_followed_folder(tmp_path: Path) -> None:
    """What is to be said of an entry of a followed folder is in the log."""
    folder = tmp_path / "entries"
    folder.mkdir()
    (folder / "a.yaml").write_text("spiffe_id: spiffe://example.org/followed\nselectors: ['k8s:ns:a']\n")
    with AgentProcess(config=f'[registration]\nfollow = "{folder}"\n') as running:

        def told() -> list[dict]:
            return [line for line in running.log_lines() if line["event"] == "entry_doubtful"]

        until(lambda: bool(told()), "the warning is logged")
        [line] = told()
    assert ("spiffe://example.org/followed", True) == (line["spiffe_id"], "[attestors.k8s]" in line["warning"])
