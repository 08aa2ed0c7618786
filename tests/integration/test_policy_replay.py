"""`sojourn policy replay`: what an agent has decided, asked of a folder that somebody would have it follow."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.agent import AgentProcess
from harness.taskagent import PLACE_A, PLACE_B, make_agent
from sojourn import SyncClient

READ, WRITE = "doc:read", "doc:write"


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    """On which a task took a token for reading, and none for writing."""
    with make_agent() as made:
        made.register("/agent/triage", f"unix:uid:{os.getuid()}")
        with SyncClient(f"unix://{made.socket}") as client, client.task("two-places") as task:
            task.token(PLACE_A, [READ])
        yield made


@pytest.fixture
def types(agent: AgentProcess, tmp_path: Path) -> Path:
    """A copy of the agent's folder."""
    return Path(shutil.copytree(agent.folder / "types", tmp_path / "types"))


def narrowed(types: Path, before: str, after: str) -> None:
    file = types / "two-places.toml"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def replay(agent: AgentProcess, types: Path, *more: str, status: int = 0) -> dict[str, object]:
    done = agent.run("policy", "replay", str(types), *more, "--output", "json", check=False)
    assert status == done.returncode, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_what_is_in_force(agent: AgentProcess, types: Path) -> None:
    """The folder that the agent follows would decide as it has, and the command ends with 0."""
    found = replay(agent, types)
    assert (2, [], [], {}, 0) == tuple(found[name] for name in ("asked", "denied", "allowed", "not_asked", "wrong"))


def test_what_nobody_used(agent: AgentProcess, types: Path) -> None:
    """Without an action for which no token was taken, what was granted would be less, and nothing that was used."""
    narrowed(types, f'actions = ["{READ}", "{WRITE}"]', f'actions = ["{READ}"]')
    found = replay(agent, types)
    [denied] = found["denied"]
    assert (WRITE, PLACE_A, "ceiling", 1, 0) == tuple(
        denied[name] for name in ("action", "resource", "rule", "count", "tokens")
    )


def test_what_was_used(agent: AgentProcess, types: Path) -> None:
    """Without an action for which a token was taken the command says so, and ends with 1."""
    narrowed(types, f'actions = ["{READ}", "{WRITE}"]', f'actions = ["{WRITE}"]')
    found = replay(agent, types, status=1)
    assert {
        "asked",
        "denied",
        "allowed",
        "wider",
        "not_asked",
        "wrong",
        "denials_not_recorded",
        "records_since",
    } == set(found)
    assert set(found["denied"][0]) == {
        *("type", "spiffe_id", "action", "resource", "rule", "policies", "count", "tokens", "begins"),
        *("first_at", "last_at", "last_seq"),
    }
    assert [(READ, 2, 1)] == [(each["action"], each["count"], each["tokens"]) for each in found["denied"]]
    shown = agent.run("policy", "replay", str(types), check=False).stdout
    assert "was allowed, and would be DENIED: 1" in shown
    assert READ in shown


def test_without_an_agent(agent: AgentProcess, types: Path, tmp_path: Path) -> None:
    """An export is asked as well as an agent, whose socket need not be there."""
    agent.run("audit", "export", "--to", str(tmp_path / "out"))
    narrowed(types, f'resource = "{PLACE_B}"', 'resource = "https://other.example.org"')
    more = ("--records", str(tmp_path / "out"), "--admin-socket", "/nowhere")
    found = replay(agent, types, *more, status=1)
    assert [PLACE_B] == [each["resource"] for each in found["denied"]]
    assert ["two-places: ceiling: it had not 'doc:read' at 'https://other.example.org'"] == found["wider"]
    assert replay(agent, types, status=1) == found
    assert "it may allow more: two-places: ceiling" in agent.run("policy", "replay", str(types), check=False).stdout


def test_an_export_without_its_sets(agent: AgentProcess, types: Path, tmp_path: Path) -> None:
    """Where the set that decided is not there, it is said that nobody can tell whether another is wider."""
    agent.run("audit", "export", "--to", str(tmp_path / "out"))
    shutil.rmtree(tmp_path / "out" / "policy-sets")
    assert None is replay(agent, types, "--records", str(tmp_path / "out"), status=1)["wider"]


@pytest.mark.forked
@pytest.mark.forked
@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--records", "/nowhere"), "not_found"),
        (("--since", "soon"), "invalid_input"),
        (("--until", "1h"), "not_found"),
    ],
)
def test_mistakes(agent: AgentProcess, types: Path, more: tuple[str, ...], code: str) -> None:
    """What cannot be read is said, with a code and without a traceback."""
    done = agent.run("policy", "replay", str(types), *more, check=False)
    assert done.returncode
    assert code in done.stderr
    assert "Traceback" not in done.stderr


def test_other_times_and_types(agent: AgentProcess, types: Path) -> None:
    """What is of another type, or outside of the time, is not asked; where nothing is, nothing is shown, which is no pass."""
    assert 0 == replay(agent, types, "--type", "careful", status=1)["asked"]
    assert 2 == replay(agent, types, "--type", "two-places", "--since", "1h")["asked"]
