"""A running agent whose configuration changes: SIGHUP, a candidate set without a restart, and sets that need cases."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.looking import until
from harness.taskagent import CONFIG, PLACE_A, TYPES, write_type
from harness.taskcalls import Feed

pytestmark = pytest.mark.forked

READ_ONLY = '@id("read-only") permit (principal, action == Sojourn::Action::"doc:read", resource);'
CASE = '[[case]]\nname = "reads"\naction = "doc:read"\nresource = "https://a.example.org"\nexpect = "{expect}"\n'
SERVICE = '[[services]]\nresource = "https://a.example.org"\nworkloads = ["spiffe://example.org/{name}"]\n'


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    """An agent with one task type, on which this user is /agent/triage; its log tells all."""
    made = AgentProcess(config=CONFIG.format(level="debug"))
    (made.folder / "types").mkdir()
    write_type(made.folder / "types", "two-places", *TYPES["two-places"])
    with made:
        made.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield made
        assert [] == [line for line in made.log_lines() if line["event"] in {"call_failed", "http_failed"}]


def configure(agent: AgentProcess, text: str) -> dict[str, Any]:
    """Write the configuration, have it read, and return what the log says of that."""
    before = len(told(agent))
    agent.config.write_text(text)
    assert agent.process is not None
    agent.process.send_signal(signal.SIGHUP)
    return until(lambda: told(agent)[before:], "the configuration was read")[0]


def told(agent: AgentProcess) -> list[dict[str, Any]]:
    return [each for each in agent.log_lines() if each["event"] in {"config_reloaded", "config_refused"}]


def status(agent: AgentProcess, which: str) -> dict[str, Any]:
    found: dict[str, Any] = agent.json("status")[which]
    return found


def test_sighup_reads_the_configuration(agent: AgentProcess) -> None:
    """SIGHUP brings into force what can be, names what needs a restart, and touches no task; a bad file changes nothing."""
    config = agent.config.read_text()
    with Caller(agent.socket) as holder:
        task = holder.ask("begin", type="two-places")["id"]
        config = config.replace("types_dir", 'shadow_types_dir = "types"\ntypes_dir')
        limits = "[limits]\nconnections_per_uid = 900\n[audit]\nmax_bytes = 999999999\n"
        said = configure(agent, config.replace("debug", "info") + limits + '[listen]\ntcp = "127.0.0.1:0"\n')
        keys = ["log.level", "audit.max_bytes", "tasks.shadow_types_dir", "limits.connections_per_uid"]
        assert (keys, ["listen.tcp"]) == (said["changed"], said["restart_needed"])
        assert (1, "") == tuple(status(agent, "shadow")[name] for name in ("task_types", "fault"))
        assert ["listen.tcp"] == status(agent, "config")["restart_needed"]
        assert "NOT in force until the agent is restarted: listen.tcp" in agent.run("status").stdout
        assert "config_restart_needed" in {each["what"] for each in agent.json("status")["failures"]}
        debugged = [each for each in agent.log_lines() if each["level"] == "debug"]

        said = configure(agent, config + "colour = 1\n")
        assert ("config_refused", True) == (said["event"], "colour: unknown key" in said["reason"])
        assert "colour: unknown key" in status(agent, "config")["fault"]
        assert "NOT taken when it was read again: " in agent.run("status").stdout
        assert debugged == [each for each in agent.log_lines() if each["level"] == "debug"]

        with Feed(agent.socket, [PLACE_A]) as feed:
            feed.hear("snapshot")
            said = configure(agent, config.replace("debug", "info") + limits + SERVICE.format(name="other"))
            assert (["services"], []) == (said["changed"], said["restart_needed"])
            holder.ask("begin", type="two-places")
            assert "PERMISSION_DENIED" == feed.end()[0]

        assert {"file": str(agent.config), "fault": "", "restart_needed": []}.items() <= status(agent, "config").items()
        assert "configuration" not in agent.run("status").stdout
        assert "active" == agent.json("task", "show", task)["state"]
    assert "task_suspended" not in {each["event"] for each in agent.json("audit", "tail", "-n", "200")["records"]}


def test_sets_without_good_cases(agent: AgentProcess) -> None:
    """With tasks.require_cases no set is taken whose cases fail, and none without; by SIGHUP it holds at once."""
    types, config = agent.folder / "types", agent.config.read_text()
    before = status(agent, "policy")["digest"]
    configure(agent, config.replace("types_dir", "require_cases = true\ntypes_dir"))
    assert "two-places.toml: it has no cases, and tasks.require_cases is set" in status(agent, "policy")["fault"]
    write_type(types, "two-places", TYPES["two-places"][0], READ_ONLY)
    (types / "two-places.test.toml").write_text(CASE.format(expect="deny"))
    done = agent.run("policy", "reload", check=False)
    fault = f"{types}/two-places.test.toml:1: case 'reads' fails: expected deny, got allow"
    assert (1, True, before) == (done.returncode, fault in done.stderr, status(agent, "policy")["digest"])
    agent.stop()
    agent.start()  # the set in force before has no cases either
    policy = status(agent, "policy")
    assert ("none", True) == (policy["origin"], "it has no cases" in policy["without"])
    (types / "two-places.test.toml").write_text(CASE.format(expect="allow"))
    until(lambda: "folder" == status(agent, "policy")["origin"], "a set with good cases is in force")
    (types / "two-places.test.toml").write_text(CASE.format(expect="deny"))
    agent.stop()
    agent.start()
    policy = status(agent, "policy")
    assert ("last_good", True) == (policy["origin"], fault in policy["fault"])


def test_a_candidate_without_a_restart(agent: AgentProcess) -> None:
    """`policy shadow` has a set asked beside at once, refuses a bad one whole, follows it, and drops it with --off."""
    other = agent.folder / "next"
    other.mkdir()
    write_type(other, "two-places", TYPES["two-places"][0], READ_ONLY)
    assert "`sojourn policy shadow FOLDER`" in agent.run("policy", "shadow-report").stdout
    with Caller(agent.socket) as holder:
        task = holder.ask("begin", type="two-places")["id"]
        made = agent.json("policy", "shadow", os.path.relpath(other))["shadow"]
        assert (str(other), 1, "") == (made["folder"], made["task_types"], made["fault"])
        assert "doc:write" in holder.ask("token", task=task, resource=PLACE_A)["actions"]
        [found] = agent.json("policy", "shadow-report")["differences"]
        assert ("doc:write", True, False) == (found["action"], found["allowed"], found["candidate_allows"])

        broken = agent.folder / "broken"
        broken.mkdir()
        write_type(broken, "two-places", TYPES["two-places"][0], "permit (")
        done = agent.run("policy", "shadow", str(broken), check=False)
        assert (1, True) == (done.returncode, f"{broken}/two-places.cedar:1: policy cannot be parsed" in done.stderr)
        assert made == status(agent, "shadow")
        for arguments in ([], [str(other), "--off"]):
            assert 2 == agent.run("policy", "shadow", *arguments, check=False).returncode

        write_type(other, "two-places", *TYPES["two-places"])
        until(lambda: status(agent, "policy")["digest"] == status(agent, "shadow")["digest"], "the folder is followed")
        assert "no candidate set" in agent.run("policy", "shadow", "--off").stdout
        assert agent.json("status")["shadow"] is None
        assert "active" == agent.json("task", "show", task)["state"]
    records = agent.json("audit", "tail", "-n", "200")["records"]
    shadow = [(each["event"], "by_uid" in each["fields"]) for each in records if "shadow_policy" in each["event"]]
    assert [("shadow_policy_loaded", True), ("shadow_policy_loaded", False), ("shadow_policy_dropped", True)] == shadow
