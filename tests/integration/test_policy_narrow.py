"""`sojourn policy narrow`: a reviewer has a type proposed without what nobody used, and tries what was decided on it."""

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.looking import until
from harness.taskagent import PLACE_A, PLACE_B, TRIAGE, make_agent, write_type
from sojourn import SyncClient
from sojourn.tasktoken.grants import Grant

READ, WRITE = "doc:read", "doc:write"
DEAD = "spiffe://example.org/agent/retired"
TOML = f"""# Who works on documents.
allowed_workloads = ["{TRIAGE}", "{DEAD}"]
max_tokens = 500 # more than anybody needs
[[ceiling]]
resource = "{PLACE_A}"
actions = ["{READ}", "{WRITE}", "doc:delete"]
[[ceiling]]
resource = "{PLACE_B}" # asked for in 2024
actions = ["{READ}"]
"""
CEDAR = """@id("all") permit (principal, action, resource);
// Nobody deletes at night.
@id("night") forbid (principal, action == Sojourn::Action::"doc:delete", resource);
"""
CASES = f"""[[case]]
name = "reads"
action = "{READ}"
resource = "{PLACE_A}"
expect = "allow"
"""
DEAD_PARTS = {
    f"allowed_workloads without {DEAD}",
    f"ceiling without doc:delete at {PLACE_A}",
    f"ceiling without {READ} at {PLACE_B}",
}
TYPES = ("papers", "moved", "named", "living")
KEYS = {
    *("type", "digest", "since", "tasks", "enough", "lacking", "edits", "left_out", "diff", "folder", "replay"),
    *("failing_cases", "new_cases", "live", "live_fault", "not_counted"),
}


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    """Whose tasks took tokens for two of four actions, and named no others."""
    with make_agent() as made:
        for name in TYPES:
            write_type(made.folder / "types", name, TOML, CEDAR)
            (made.folder / "types" / f"{name}.test.toml").write_text(CASES)
        made.run("policy", "reload")
        made.register("/agent/triage", f"unix:uid:{os.getuid()}")
        with SyncClient(made.socket) as client:
            for name in TYPES:
                with client.task(name) as task:
                    task.token(PLACE_A, [READ])
                    task.token(PLACE_A, [WRITE])
            with client.task("named", grants=[Grant(PLACE_B, (READ,))]):
                pass
        until(lambda: 5 == sum(each["tasks"] for each in made.json("usage")["types"]), "all are counted")
        yield made


def narrow(agent: AgentProcess, kind: str, to: Path, *more: str, status: int = 0) -> dict[str, Any]:
    done = agent.run(
        *("policy", "narrow", kind, "--to", str(to), "--even-if-little", "--output", "json", *more), check=False
    )
    assert status == done.returncode, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert KEYS == found.keys()
    return found


def changes(found: dict[str, Any]) -> set[str]:
    return {each["change"] for each in found["edits"]}


def test_too_little_evidence(agent: AgentProcess, tmp_path: Path) -> None:
    """By the use of some minutes nothing is proposed, and nothing written; it is said what is lacking."""
    done = agent.run("policy", "narrow", "papers", "--to", str(tmp_path / "to"), check=False)
    assert 1 == done.returncode
    assert "not enough evidence: 0 of 30 days, 1 of 20 tasks" in done.stdout
    assert not (tmp_path / "to").exists()


def test_what_nobody_used(agent: AgentProcess, tmp_path: Path) -> None:
    """What nobody used goes, and nothing else; comments stay, and the folder can be used as it is."""
    to = tmp_path / "to"
    found = narrow(agent, "papers", to)
    assert DEAD_PARTS == changes(found)
    assert all(each["evidence"] for each in found["edits"])
    assert [] == found["left_out"]
    text = (to / "papers.toml").read_text()
    assert "# Who works on documents." in text
    assert "max_tokens = 500 # more than anybody needs" in text
    assert "night" not in (to / "papers.cedar").read_text()
    for each in (agent.folder / "types").iterdir():
        if not each.name.startswith("papers."):
            assert each.read_bytes() == (to / each.name).read_bytes()
    assert f'-allowed_workloads = ["{TRIAGE}", "{DEAD}"]\n' in found["diff"]
    replay = found["replay"]
    assert replay["asked"] >= 3
    assert ([], 0) == tuple(replay[name] for name in ("allowed", "wrong"))
    assert {(PLACE_B, READ, 0, 0)} == {
        (each["resource"], each["action"], each["tokens"], each["begins"]) for each in replay["denied"]
    }
    assert ([], [], "") == (found["failing_cases"], found["live"], found["live_fault"])
    assert 3 == len(found["new_cases"])
    assert 0 == agent.run("policy", "check", str(to)).returncode
    assert 0 == agent.run("policy", "test", str(to)).returncode
    replayed = agent.json("policy", "replay", str(to), "--type", "papers")
    assert [] == replayed["wider"]


def test_nothing_is_left_to_narrow(agent: AgentProcess, tmp_path: Path) -> None:
    """Who moves the proposal into place is proposed nothing more, once the narrower type has been used."""
    narrow(agent, "moved", tmp_path / "to")
    for each in (agent.folder / "types").glob("moved.*"):
        each.write_text((tmp_path / "to" / each.name).read_text())
    agent.run("policy", "reload")
    with SyncClient(agent.socket) as client, client.task("moved") as task:
        task.token(PLACE_A, [READ])
        task.token(PLACE_A, [WRITE])
    until(lambda: agent.json("usage", "moved")["types"][0]["tasks"], "it is counted")
    found = narrow(agent, "moved", tmp_path / "again")
    assert (set(), None) == (changes(found), found["folder"])
    assert not (tmp_path / "again").exists()


def test_what_was_named(agent: AgentProcess, tmp_path: Path) -> None:
    """What a task named as it began stays, with the record that says so; unless it is to be proposed all the same."""
    found = narrow(agent, "named", tmp_path / "to")
    (left_out,) = found["left_out"]
    assert (f"ceiling without {READ} at {PLACE_B}", "it was used") == (left_out["change"], left_out["why"])
    begun = agent.json("audit", "list", "--event", "task_begun", "--type", "named")["records"]
    assert left_out["seq"] in {each["seq"] for each in begun}
    assert {each for each in DEAD_PARTS if PLACE_B not in each} == changes(found)
    found = narrow(agent, "named", tmp_path / "used", "--even-if-used", status=1)
    assert DEAD_PARTS == changes(found)
    assert 1 == sum(each["begins"] for each in found["replay"]["denied"])


@pytest.mark.forked
def test_a_live_task(agent: AgentProcess, tmp_path: Path) -> None:
    """A task that is alive and would lose something is told, and the command ends with 1."""
    with SyncClient(agent.socket) as client, client.task("living") as task:
        found = narrow(agent, "living", tmp_path / "to", status=1)
        (living,) = [each for each in found["live"] if each["task"] == task.id]
        assert "narrow" == living["outcome"]
    narrow(agent, "living", tmp_path / "again")


def test_tightened(agent: AgentProcess, tmp_path: Path) -> None:
    """Smaller numbers are proposed where they are wanted, with room; what they are cut to is used up by no record."""
    found = narrow(agent, "papers", tmp_path / "to", "--tighten")
    assert {*DEAD_PARTS, "max_tokens = 4"} <= changes(found)
    assert "max_tokens = 4 # more than anybody needs" in (tmp_path / "to" / "papers.toml").read_text()
    assert any(each.startswith("max_duration") for each in changes(found))
    assert any(each.startswith("binding = ") for each in changes(found))


def test_shown_to_people(agent: AgentProcess, tmp_path: Path) -> None:
    """A person sees each change with its evidence, the difference, what was asked again, and where it lies."""
    shown = agent.run("policy", "narrow", "papers", "--to", str(tmp_path / "to"), "--even-if-little").stdout
    assert f"ceiling without doc:delete at {PLACE_A}\n    no token was taken for it of 1 tasks since " in shown
    assert "-resource = " in shown
    assert " decisions asked again" in shown
    assert f"written to {tmp_path / 'to'}. Nothing is in force" in shown


def test_who_may_read_it(agent: AgentProcess, tmp_path: Path) -> None:
    """The copy may be read by those who may read the agent's folder, and by nobody else."""
    types = agent.folder / "types"
    (types / "papers.toml").chmod(0o600)
    narrow(agent, "papers", tmp_path / "to")
    (types / "papers.toml").chmod(0o644)
    assert [0o600, 0o644] == [(tmp_path / "to" / f"papers.{each}").stat().st_mode & 0o777 for each in ("toml", "cedar")]


def test_what_cannot_be(agent: AgentProcess, tmp_path: Path) -> None:
    """A folder that has something in it, a type that there is not, and files that are not in force are refused."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for arguments, code in (
        (("papers", "--to", str(tmp_path / "full")), "already_exists"),
        (("nothing", "--to", str(tmp_path / "to")), "unknown_task_type"),
        (("papers", "--to", str(tmp_path / "to"), "--folder", str(tmp_path / "away")), "invalid_policy"),
        (("papers", "--to", str(tmp_path / "full" / "x")), "already_exists"),
        (("papers", "--to", str(tmp_path / "full" / "x" / "y"), "--even-if-little"), "invalid_input"),
        (("papers", "--to", str(agent.folder / "types" / "new")), "invalid_input"),
    ):
        done = agent.run("policy", "narrow", *arguments, check=False)
        assert 0 != done.returncode
        assert code in done.stderr
    other = tmp_path / "other"
    other.mkdir()
    write_type(other, "papers", TOML + "# newer\n", CEDAR)
    done = agent.run("policy", "narrow", "papers", "--to", str(tmp_path / "to"), "--folder", str(other), check=False)
    assert "sojourn policy reload" in done.stderr
    assert not (tmp_path / "to").exists()


def be_older(database: Path, by_ms: int) -> None:
    """Have counting have begun, and the types have come into force, so much earlier."""
    with sqlite3.connect(database) as connection:
        values = dict(connection.execute("SELECT name, value FROM settings WHERE name LIKE 'usage_%'"))
        types = json.loads(values["usage_types"])
        earlier = {name: (digest, since - by_ms) for name, (digest, since) in types.items()}
        for name, value in (("usage_types", json.dumps(earlier)), ("usage_since", int(values["usage_since"]) - by_ms)):
            connection.execute("UPDATE settings SET value = ? WHERE name = ?", (str(value), name))
    connection.close()


@pytest.mark.forked
def test_enough_evidence(tmp_path: Path) -> None:
    """After 30 days and 20 tasks it is proposed without being asked twice."""
    with make_agent() as agent:
        write_type(agent.folder / "types", "papers", TOML, CEDAR)
        agent.run("policy", "reload")
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        with SyncClient(agent.socket) as client:
            for _ in range(20):
                with client.task("papers") as task:
                    task.token(PLACE_A, [READ, WRITE])
        until(lambda: 20 == agent.json("usage", "papers")["types"][0]["tasks"], "all are counted")
        agent.stop()
        be_older(agent.data_dir / "sojourn.db", 31 * 86_400_000)
        agent.start()
        done = agent.run("policy", "narrow", "papers", "--to", str(tmp_path / "to"), "--output", "json", check=False)
        assert 0 == done.returncode, done.stdout + done.stderr
        found = json.loads(done.stdout)
        assert found["enough"]
        assert DEAD_PARTS == changes(found)
