"""An agent whose task types cannot be used: identities are served whatever is in that folder."""

import os
import shutil
import urllib.request
from collections.abc import Iterator

import pytest
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.exchanges import form, post
from harness.looking import until
from harness.taskagent import CONFIG, ISSUER, TYPES, write_type
from sojourn import SyncClient

pytestmark = pytest.mark.forked

METRICS_PORT = 21_617 + os.getpid() % 1000
GOOD = TYPES["two-places"]
PARTS = ("refused", "last_good", "none")


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    """An agent with one task type, on which this user is /agent/triage; it is started."""
    listen = f'[metrics]\nlisten = "127.0.0.1:{METRICS_PORT}"\n'
    made = AgentProcess(config=CONFIG.format(level="info") + listen)
    (made.folder / "types").mkdir()
    write_type(made.folder / "types", "two-places", *GOOD)
    with made:
        made.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield made
        assert [] == [line for line in made.log_lines() if line["event"] in {"call_failed", "http_failed"}]


def spoil(agent: AgentProcess) -> None:
    write_type(agent.folder / "types", "two-places", GOOD[0], "permit (")


def mend(agent: AgentProcess) -> None:
    write_type(agent.folder / "types", "two-places", *GOOD)
    until(lambda: not agent.json("status")["policy"]["fault"], "the mended set is in force")


def gauges(agent: AgentProcess) -> dict[str, float]:
    """The metrics about task types, without what they all begin with."""
    with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = (line.removeprefix("sojourn_").split() for line in lines if not line.startswith("#"))
    return {
        name: float(value) for name, value in found if name == "task_types" or name.startswith(("policy_", "config_"))
    }


def second_line(agent: AgentProcess) -> str:
    """What the agent says beside the line with `ready`."""
    assert agent.process is not None
    assert agent.process.stdout is not None
    return agent.process.stdout.readline()


def names(agent: AgentProcess) -> set[str]:
    """What has been journaled."""
    return {each["event"] for each in agent.json("audit", "tail", "-n", "200")["records"]}


def has_identity(agent: AgentProcess) -> bool:
    return "spiffe://example.org/agent/triage" in agent.run("svid", "x509").stdout


def test_one_broken_file(agent: AgentProcess) -> None:
    """With one broken file at the start identities are served, tasks go by the last good set, and it is told everywhere."""
    digest = agent.json("status")["policy"]["digest"]
    with Caller(agent.socket) as holder:
        task = holder.ask("begin", type="two-places")["id"]
        spoil(agent)
        agent.stop()
        agent.start()
        assert has_identity(agent)
        status = agent.json("status")
        assert ("last_good", digest, 1) == tuple(status["policy"][name] for name in ("origin", "digest", "task_types"))
        assert f"{agent.folder}/types/two-places.cedar:1: policy cannot be parsed" in status["policy"]["fault"]
        assert status["policy"]["accepted_at"]
        assert {"policy_refused", "policy_last_good"} <= {each["what"] for each in status["failures"]}
        shown = agent.run("status").stdout
        assert ("the LAST GOOD set is in force" in shown, "NOT in force: " in shown) == (True, True)
        assert second_line(agent).startswith(f"warning: the task types in '{agent.folder}/types' cannot be used: ")
        said = {"task_types": 1, "policy_refused": 1, "policy_last_good": 1, "policy_none": 0}
        config = {"config_refused": 0, "config_restart_needed": 0}
        assert {**said, **config} == gauges(agent)
        until(lambda: "active" == agent.json("task", "show", task)["state"], "the live task is back")
        assert "task" == holder.ask("begin", type="two-places")["event"]
        mend(agent)
        assert ("folder", digest) == tuple(agent.json("status")["policy"][name] for name in ("origin", "digest"))
        assert {**said, "policy_refused": 0, "policy_last_good": 0, **config} == gauges(agent)
        assert "active" == agent.json("task", "show", task)["state"]


def test_without_a_last_good_set(agent: AgentProcess) -> None:
    """Where no earlier set can be used either, as in a database that was put back, identities are served and no task begins,
    by a code of its own.
    """
    shutil.rmtree(agent.folder / "types")
    agent.stop()
    (agent.data_dir / "epoch").write_text("99\n")  # there were more starts than the database knows of
    agent.start()
    assert has_identity(agent)
    said = "the database is older than the last run, and so may its set of task types be"
    status = agent.json("status")["policy"]
    assert ("none", said) == (status["origin"], status["without"])
    assert "cannot be read: No such file" in status["fault"]
    shown = agent.run("status").stdout
    assert (True, True) == (f"NO task begins: {said}" in shown, "none could be loaded" in shown)
    assert f"NO task types are in force ({said})" in second_line(agent)
    found = gauges(agent)
    assert (0, 1, 0, 1) == tuple(found[name] for name in ("task_types", *map("policy_".__add__, PARTS)))
    with Caller(agent.socket) as holder:
        refused = holder.ask("begin", type="two-places")
    assert ("error", "no_task_types") == (refused["event"], refused["code"])
    done = agent.run("task", "run", "--type", "two-places", "--", "true", check=False)
    assert (1, True) == (done.returncode, "[no_task_types]" in done.stderr)
    assert "`sojourn status` names the file of task types that is wrong" in done.stderr
    agent.run("task", "block", "--type", "two-places")  # nobody can tell whether there is such a type
    agent.run("task", "unblock", "--type", "two-places")
    with SyncClient(agent.socket) as client:
        subject = client.fetch_jwt_svid(ISSUER).token
    for asked in (form(subject), form(subject, authorization_details=None)):
        answer = post(agent.socket, asked)
        assert (503, "no_task_types") == (answer.status_code, answer.json()["code"])
        assert "temporarily_unavailable" == answer.json()["error"]
        assert answer.headers["retry-after"]
    (agent.folder / "types").mkdir()
    mend(agent)
    assert "folder" == agent.json("status")["policy"]["origin"]
    with Caller(agent.socket) as holder:
        assert "task" == holder.ask("begin", type="two-places")["event"]
    assert {"policy_none", "policy_refused", "policy_loaded"} <= names(agent)
