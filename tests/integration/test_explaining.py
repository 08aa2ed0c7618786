"""Attestors that fail, as an operator sees them: in `explain`, in `status`, in the metrics."""

import os
import urllib.request
from collections.abc import Iterator

import pytest
from harness.agent import AgentProcess
from harness.borrowed import Borrowed, wire_of
from harness.cgroups import CgroupAgent
from harness.looking import until
from harness.raw import Admin, refusal
from harness.watching import Watch

pytestmark = pytest.mark.root
METRICS_PORT = 20_617 + os.getpid() % 1000


@pytest.fixture(scope="module")
def agent() -> Iterator[CgroupAgent]:
    made = CgroupAgent()
    made.config.write_text(f'{made.config.read_text()}[metrics]\nlisten = "127.0.0.1:{METRICS_PORT}"\n')
    with made as running:
        yield running


@pytest.fixture
def workload(agent: CgroupAgent, uid: int) -> Iterator[Borrowed]:
    with Borrowed(agent.socket, uid) as borrowed:
        yield borrowed


@pytest.fixture
def failing(agent: CgroupAgent) -> Iterator[None]:
    """The attestor `cgroup` cannot tell until the end of the test."""
    agent.switch.touch()
    yield
    agent.switch.unlink(missing_ok=True)


def attestors(value: dict) -> dict[str, dict]:
    return {each["name"]: each for each in value["attestors"]}


def measured(name: str, labels: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    [line] = [line for line in lines if line.startswith(f"{name}{{{labels}}} ")]
    return float(line.rpartition(" ")[2])


class TestExplain:
    def test_who_said_what(self, agent: CgroupAgent, workload: Borrowed) -> None:
        """Each attestor is listed with how many selectors it gave and how long that took."""
        found = agent.json("explain", "--pid", str(workload.pid))
        told = attestors(found)
        assert {"cgroup", "unix"} == set(told)
        unix = [each for each in found["selectors"] if each.startswith("unix:")]
        assert (len(unix), 0, "", None) == tuple(
            told["unix"][name] for name in ("selectors", "age_seconds", "failure", "needed")
        )
        assert told["unix"]["seconds"] > 0
        text = agent.run("explain", "--pid", str(workload.pid)).stdout
        assert "attestors\n  cgroup: 0 selectors in " in text
        assert f"  unix: {len(unix)} selectors in " in text

    @pytest.mark.usefixtures("failing")
    def test_what_one_would_have_had_to_say(self, agent: CgroupAgent, uid: int, workload: Borrowed) -> None:
        """Where an answer that failed matters, explain says which would make what match, as the Workload API refuses."""
        agent.register(f"/w/{uid}", f"unix:uid:{uid}")
        entry_id = agent.register(f"/in/{uid}", f"unix:uid:{uid}", "cgroup:name:x")["id"]
        found = agent.json("explain", "--pid", str(workload.pid))
        verdicts = {
            each["spiffe_id"].removeprefix("spiffe://example.org"): each["verdict"] for each in found["verdicts"]
        }
        assert ("matched", "cannot_tell") == (verdicts[f"/w/{uid}"], verdicts[f"/in/{uid}"])
        assert {
            "entry_id": entry_id,
            "spiffe_id": f"spiffe://example.org/in/{uid}",
            "selectors": ["cgroup:name:x"],
            "also_missing": [],
        } == attestors(found)["cgroup"]["needed"]
        assert found["conclusion"].startswith("not now: an attestor could not tell (cgroup: failed: RuntimeError)")
        text = agent.run("explain", "--pid", str(workload.pid)).stdout
        assert f"for spiffe://example.org/in/{uid} ({entry_id}) it would have to say cgroup:name:x\n" in text
        with wire_of(agent.socket, uid) as wire:
            status, reason = refusal(wire.x509)
        assert "UNAVAILABLE" == status
        assert "(cgroup: failed: RuntimeError)" in reason

    @pytest.mark.usefixtures("failing")
    def test_where_it_changes_nothing(self, agent: CgroupAgent, uid: int, workload: Borrowed) -> None:
        """Where it does not matter explain says so, and what the nearest entry that asks for it lacks beside."""
        agent.register(f"/w/{uid}", f"unix:uid:{uid}")
        agent.register(f"/no/{uid}", f"unix:uid:{uid}", "unix:gid:1", "cgroup:name:x")
        found = agent.json("explain", "--pid", str(workload.pid))
        assert ["unix:gid:1"] == attestors(found)["cgroup"]["needed"]["also_missing"]
        assert found["conclusion"].startswith(
            f"the process has 1 identity: spiffe://example.org/w/{uid}; attestor cgroup"
        )
        with wire_of(agent.socket, uid) as wire:
            assert [f"spiffe://example.org/w/{uid}"] == wire.x509_ids()

    @pytest.mark.forked
    def test_a_view_that_stays_the_same(self, agent: CgroupAgent, uid: int, workload: Borrowed) -> None:
        """How long attestors took is no change that a view is drawn anew for."""
        arguments = ("explain", "--pid", str(workload.pid), "--watch", "--interval", "100ms")
        with Watch(agent, *arguments) as watch:
            watch.says("attestors\n")
            agent.register(f"/w/{uid}", f"unix:uid:{uid}")
            watch.says(f"the process has 1 identity: spiffe://example.org/w/{uid}\n")
            assert "" == watch.quiet(0.5)


class TestStatus:
    @pytest.mark.forked
    def test_how_each_fares(self, agent: CgroupAgent, workload: Borrowed) -> None:
        """Status and metrics tell how often each attestor was asked and failed, and why it did last, also afterwards."""
        with Admin(agent.admin_socket) as admin:

            def ask() -> dict[str, dict]:
                admin.explain(workload.pid)
                return attestors(agent.json("status"))

            before = ask()["cgroup"]
            counted = measured("sojourn_attestor_answers_total", 'attestor="cgroup",result="failed"')
            assert counted == before["failed"]
            agent.switch.touch()
            while_failing = ask()
            text = agent.run("status").stdout
            agent.switch.unlink()
            after = ask()["cgroup"]
        now = while_failing["cgroup"]
        assert (before["asked"] + 1, before["failed"] + 1, True) == (now["asked"], now["failed"], now["failing"])
        assert ("failed: RuntimeError", True) == (now["failure"], bool(now["failed_at"]))
        assert (False, 0) == (while_failing["unix"]["failing"], while_failing["unix"]["failed"])
        assert "FAILS now: failed: RuntimeError" in text
        assert (now["asked"] + 1, now["failed"], False, now["failed_at"]) == tuple(
            after[name] for name in ("asked", "failed", "failing", "failed_at")
        )
        assert after["asked"] == measured("sojourn_attestor_seconds_count", 'attestor="cgroup"')
        assert counted + 1 == measured("sojourn_attestor_answers_total", 'attestor="cgroup",result="failed"')

    def test_one_that_could_not_tell_at_the_start(self) -> None:
        """An agent starts without what an attestor depends on, and says in log and status what is not there."""
        config = '[attestors.unix]\n[attestors.docker]\ndocker_socket = "/nowhere/docker.sock"\npodman_socket = ""\n'
        with AgentProcess(config=config) as agent:
            docker = until(lambda: unfit(agent, "docker"), "the attestor is told to fail")
            assert (0, 0) == (docker["asked"], docker["failed"])
            assert "/nowhere/docker.sock" in docker["failure"]
            text = agent.run("status").stdout
            assert "docker: asked 0 times; FAILS now: " in text
            (line,) = [each for each in agent.log_lines() if each["event"] == "attestor_unfit"]
            assert ("docker", docker["failure"]) == (line["attestor"], line["reason"])


def unfit(agent: AgentProcess, name: str) -> dict | None:
    """An attestor of the status, once that says that it fails."""
    found = attestors(agent.json("status"))[name]
    return found if found["failing"] else None
