"""Facts on the real agent: said by operators and workloads, and what becomes of live tasks. Real processes."""

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from harness import disks
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.facttypes import MONITOR, NOBODY, write_types
from harness.looking import until
from harness.taskagent import CONFIG, OTHER_UID, PLACE_A, TRIAGE
from harness.taskcalls import Feed, pages, unary
from sojourn import Client, SyncClient
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn._pb.sojourn.v1.tasks_pb2 import Task
from sojourn.errors import InvalidInput, Refused
from sojourn.sdk.client.facts import fact_value

OTHER = "spiffe://example.org/other"


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    """An agent whose types read facts; this user is /agent/triage and /monitor, OTHER_UID is /agent/triage alone."""
    own = AgentProcess(config=CONFIG.format(level="info"))
    (own.folder / "types").mkdir()
    write_types(own.folder / "types")
    with own:
        for name, uid in (("/agent/triage", os.getuid()), ("/monitor", os.getuid()), ("/agent/triage", OTHER_UID)):
            own.register(name, f"unix:uid:{uid}")
        yield own
        assert [] == [line for line in own.log_lines() if line["event"] in {"call_failed", "http_failed"}]


def say(agent: AgentProcess, name: str, value: str | int | bool, *, subject: str = "", valid: float = 0) -> None:
    request = pb.SetFactRequest(name=name, subject=subject, value=fact_value(value), valid_seconds=valid)
    unary(agent.admin_socket, "/sojourn.v1.Admin/SetFact", request, pb.SetFactResponse)


def facts(agent: AgentProcess) -> list[pb.Fact]:
    listed = pages(agent.admin_socket, "/sojourn.v1.Admin/ListFacts", pb.ListFactsRequest(), pb.ListFactsResponse)
    return [fact for page in listed for fact in page.facts]


def shown(agent: AgentProcess, task: str) -> Task:
    found: Task = unary(agent.admin_socket, "/sojourn.v1.Admin/GetTask", pb.GetTaskRequest(task_id=task), Task)
    return found


def state(agent: AgentProcess, task: str) -> tuple[str, str]:
    return shown(agent, task).state, shown(agent, task).reason


def events(agent: AgentProcess, name: str) -> list[dict[str, Any]]:
    return [each["fields"] for each in agent.json("audit", "tail", "-n", "200")["records"] if each["event"] == name]


def refused(agent: AgentProcess, *arguments: str) -> str:
    done = agent.run(*arguments, check=False)
    assert 1 == done.returncode, done.stdout
    return str(done.stderr)


class TestLiveTasks:
    def test_revoked(self, agent: AgentProcess) -> None:
        """An operator's word ends a task that policy leaves nothing: its stream, its tokens, at validators too."""
        with Caller(agent.socket) as holder, SyncClient(agent.socket) as service, Feed(agent.socket, [PLACE_A]) as feed:
            task = holder.ask("begin", type="revoked")["id"]
            token = holder.ask("token", task=task)["token"]
            assert service.validate_token(token, PLACE_A).valid
            say(agent, "freeze", True)
            assert "task_over" == service.validate_token(token, PLACE_A).code
            ended = holder.hear("ended")
            assert (task, "revoked", "context_changed") == (ended["id"], ended["state"], ended["reason"])
            assert "context_changed" in feed.delta(task, live=False).reason
            denied = holder.ask("begin", type="revoked")
            assert ("error", "policy_denied") == (denied["event"], denied["code"])
            agent.run("fact", "unset", "freeze")
            assert holder.ask("begin", type="revoked")["id"]
        [record] = events(agent, "task_ended")[:1]
        assert (["freeze"], True, "operator") == (
            record["facts_changed"],
            record["facts"]["freeze"]["value"],
            record["facts"]["freeze"]["source"],
        )
        [begin_denied] = events(agent, "begin_denied")
        assert (["frozen"], 64) == (begin_denied["policies"], len(begin_denied["inputs"]))

    def test_suspended_and_back(self, agent: AgentProcess) -> None:
        """A stream task waits while the fact says so, and goes on afterwards; tokens from before stay dead."""
        with Caller(agent.socket) as holder, SyncClient(agent.socket) as service:
            task = holder.ask("begin", type="suspended")["id"]
            token = holder.ask("token", task=task)["token"]
            say(agent, "freeze", True)
            assert ("suspended", True) == (state(agent, task)[0], "'freeze'" in state(agent, task)[1])
            assert "task_over" == service.validate_token(token, PLACE_A).code
            assert "task_not_active" == holder.ask("token", task=task)["code"]
            say(agent, "freeze", False)
            assert ("active", "") == state(agent, task)
            assert "task_over" == service.validate_token(token, PLACE_A).code
            again = holder.ask("token", task=task)["token"]
            assert service.validate_token(again, PLACE_A).valid
        [resumed] = events(agent, "task_resumed")
        assert ("facts", False) == (resumed["cause"], resumed["facts"]["freeze"]["value"])
        issued = events(agent, "token_issued")
        assert [None, False] == [each.get("facts", {}).get("freeze", {}).get("value") for each in issued]
        assert issued[0]["inputs"] != issued[1]["inputs"]

    def test_narrowed_by_a_workload(self, agent: AgentProcess) -> None:
        """A workload that the type names as a source takes a part of a live task; the rest goes on."""
        with Caller(agent.socket) as holder, SyncClient(agent.socket) as service:
            task = holder.ask("begin", type="narrowed")["id"]
            token = holder.ask("token", task=task)["token"]
            service.publish_fact("risk", 9)
            assert [(PLACE_A, ["doc:read"])] == [
                (each.resource, list(each.actions)) for each in shown(agent, task).grants
            ]
            assert "task_over" == service.validate_token(token, PLACE_A).code
            assert ["doc:read"] == holder.ask("token", task=task)["actions"]
            service.publish_fact("risk", 1)
            assert ["doc:read"] == holder.ask("token", task=task)["actions"]
        [fact] = agent.json("fact", "list")["facts"]
        assert ("risk", 1, MONITOR, ["narrowed"], True) == tuple(
            fact[name] for name in ("name", "value", "source", "read_by", "written")
        )

    def test_one_task_only(self, agent: AgentProcess) -> None:
        """What is said of one task, or of another workload, is of no account to the rest."""
        with Caller(agent.socket) as holder:
            one, two = (holder.ask("begin", type="revoked")["id"] for _ in range(2))
            say(agent, "freeze", True, subject=OTHER)
            assert {"active"} == {state(agent, task)[0] for task in (one, two)}
            say(agent, "freeze", True, subject=one)
            assert ("revoked", "active") == (state(agent, one)[0], state(agent, two)[0])
            assert [OTHER] == [each.subject for each in facts(agent)]
            say(agent, "freeze", True, subject=TRIAGE)
            assert "revoked" == state(agent, two)[0]


@pytest.mark.forked
class TestTime:
    def test_a_validity_that_ends(self, agent: AgentProcess) -> None:
        """A fact that was said for two seconds is none after them: the task goes on, and the journal has the end."""
        with Caller(agent.socket) as holder:
            task = holder.ask("begin", type="suspended")["id"]
            say(agent, "freeze", True, valid=2)
            assert "suspended" == state(agent, task)[0]
            until(lambda: state(agent, task)[0] == "active", "the fact is over")
        until(lambda: events(agent, "fact_expired"), "the journal has it")
        assert [] == facts(agent)

    def test_a_silent_source(self, agent: AgentProcess) -> None:
        """A required fact that nobody repeats is too old in the end; said again the task goes on."""
        with Caller(agent.socket) as holder, SyncClient(agent.socket) as monitor:
            assert "fact 'open' is missing" in holder.ask("begin", type="required")["message"]
            monitor.publish_fact("open", True)
            task = holder.ask("begin", type="required")["id"]
            until(lambda: state(agent, task)[0] == "suspended", "the fact is too old")
            assert "stale" in holder.ask("begin", type="required")["message"]
            monitor.publish_fact("open", True)
            assert "active" == state(agent, task)[0]

    @pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
    def test_a_restart(self, agent: AgentProcess, stop: int) -> None:
        """Facts outlive the agent with their age; a task that waited for one waits on, and goes on with it."""
        with Caller(agent.socket) as holder:
            task = holder.ask("begin_process", type="suspended")["id"]
            say(agent, "freeze", True)
            say(agent, "risk", 7, valid=3600, subject=TRIAGE)
            time.sleep(1.1)
            before = facts(agent)
            agent.stop(stop)
            agent.start()
            after = facts(agent)
            assert [(e.name, e.value, e.subject) for e in before] == [(e.name, e.value, e.subject) for e in after]
            assert all(was.age_seconds < now.age_seconds for was, now in zip(before, after, strict=True))
            until(lambda: holder.ask("attach", task=task).get("state") == "suspended", "the holder is back")
            say(agent, "freeze", False)
            assert "active" == until(lambda: state(agent, task)[0], "shown")
            assert "token" == holder.ask("token", task=task)["event"]
        agent.run("audit", "verify")


@pytest.mark.forked
class TestDisk:
    @pytest.mark.parametrize("what", ["failing", "read_only", "full"])
    @pytest.mark.root
    def test_that_takes_no_write(self, agent: AgentProcess, what: str) -> None:
        """A fact that cannot be written is refused and says so; what it forbids is in force, what it allows is not."""
        if what == "full":
            agent.stop()
            with disks.small_disk_again(agent, "2m"):
                self._check(agent, disks.full(agent.data_dir))
            return
        self._check(agent, disks.failing(agent) if what == "failing" else disks.read_only(agent.data_dir))

    def _check(self, agent: AgentProcess, broken: Any) -> None:
        with Caller(agent.socket) as holder:
            task = holder.ask("begin", type="revoked")["id"]
            say(agent, "open", False)
            with broken:
                assert "in force until the agent stops" in refused(agent, "fact", "set", "freeze", "true")
                assert ("revoked", "context_changed") == state(agent, task)
                assert "in force until the agent stops" in refused(agent, "fact", "set", "open", "true")
                written = {each["name"]: each["written"] for each in agent.json("fact", "list")["facts"]}
                assert {"freeze": False, "open": False} == written
                assert "NOT on disk" in agent.run("fact", "list").stdout
            holder.hear("ended")  # which waited for the disk
            for type_ in ("revoked", "required"):
                assert "policy_denied" == holder.ask("begin", type=type_)["code"]
            say(agent, "freeze", False)
            say(agent, "open", True)
            assert holder.ask("begin", type="revoked")["id"]
            assert holder.ask("begin", type="required")["id"]


class TestWhoMaySay:
    def test_workloads(self, agent: AgentProcess) -> None:
        """A workload says what a type takes from it, with that type of value, and nothing else; it is no operator."""
        with SyncClient(agent.socket) as monitor:
            monitor.publish_fact("risk", 3, subject=TRIAGE, valid_seconds=60)
            for name, value in (("freeze", True), ("unknown", 1), ("risk", True), ("risk", "9"), ("open", 1)):
                with pytest.raises(Refused):
                    monitor.publish_fact(name, value)
            with pytest.raises(Refused):
                monitor.publish_fact("risk", 3, spiffe_id=TRIAGE)
            with pytest.raises(InvalidInput):
                monitor.publish_fact("risk", 10**18)
            with pytest.raises(InvalidInput):
                monitor.publish_fact("risk", 3, subject="nobody")
        [fact] = agent.json("fact", "list")["facts"]
        assert (TRIAGE, MONITOR, 3) == (fact["subject"], fact["source"], fact["value"])
        assert 0 < fact["valid_seconds"] <= 60

    def test_by_the_command(self, agent: AgentProcess) -> None:
        """`fact publish` speaks as the caller on the public socket."""
        agent.run("fact", "publish", "risk", "8", "--valid", "10m")
        assert [MONITOR] == [each["source"] for each in agent.json("fact", "list")["facts"]]
        assert "policy_denied" in refused(agent, "fact", "publish", "freeze", "true")
        agent.run("fact", "unset", "risk", "--source", MONITOR)
        assert [] == agent.json("fact", "list")["facts"]

    async def test_asynchronously(self, agent: AgentProcess) -> None:
        """The asynchronous client has the same call."""
        async with Client(agent.socket) as client:
            await client.publish_fact("open", False, valid_seconds=9.5)
            with pytest.raises(Refused):
                await client.publish_fact("open", False, spiffe_id=NOBODY)


class TestCommand:
    @pytest.mark.forked
    def test_types(self, agent: AgentProcess) -> None:
        """A value has the type that it looks like, or the one that is named."""
        for value, options, typed in (
            ("true", [], True),
            ("17", [], 17),
            ("-3", ["--type", "long"], -3),
            ("17", ["--type", "string"], "17"),
            ("true", ["--type", "string"], "true"),
            ("a b", [], "a b"),
        ):
            answer = json.loads(agent.run("fact", "set", *options, "--output", "json", "--", "x", value).stdout)
            assert {"name": "x", "subject": "", "value": typed, "valid_seconds": None} == answer["fact"]
            [found] = agent.json("fact", "list")["facts"]
            assert (typed, type(typed)) == (found["value"], type(found["value"]))

    def test_refused(self, agent: AgentProcess) -> None:
        """What is no fact is refused in a sentence with a stable code."""
        for arguments, status in (
            (["set", "x", "yes", "--type", "boolean"], 2),
            (["set", "x", "1.5", "--type", "long"], 2),
            (["set", "x", "1", "--valid", "soon"], 2),
            (["set", "x", "1", "--valid", "31d"], 1),
            (["set", "x y", "1"], 1),
            (["set", "x", "1", "--subject", "me"], 1),
            (["unset", "x"], 1),
        ):
            done = agent.run("fact", *arguments, check=False)
            assert (status, "error: ") == (done.returncode, done.stderr[:7]), (arguments, done.stderr)
            assert "Traceback" not in done.stderr
        assert [] == facts(agent)

    def test_explained(self, agent: AgentProcess) -> None:
        """`policy explain` goes by the facts in force, with their ages, or by others that are given."""
        asked = ["policy", "explain", "revoked", "--workload", TRIAGE, "--action", "doc:read", "--resource", PLACE_A]
        say(agent, "freeze", True, subject=TRIAGE)
        found = agent.json(*asked)
        assert (False, ["frozen"]) == (found["allowed"], found["policies"])
        attributes = {each["name"]: each["value"] for each in found["attributes"]}
        assert attributes["context.facts.freeze"].startswith("true (operator, ")
        assert {"what": "with fact freeze false", "allowed": True} in found["changes"]
        assert agent.json(*asked, "--fact", "freeze=false")["allowed"]
        assert "reads no fact 'other'" in refused(agent, *asked, "--fact", "other=1")

    def test_why(self, agent: AgentProcess) -> None:
        """`task why` tells which fact it was, with its value, source and age."""
        with Caller(agent.socket) as holder:
            task = holder.ask("begin", type="revoked")["id"]
            say(agent, "freeze", True)
            holder.hear("ended")
        records = agent.json("task", "why", task)["records"]
        [ended] = [each["fields"] for each in records if each["event"] == "task_ended"]
        assert {"value": True, "source": "operator"}.items() <= ended["facts"]["freeze"].items()
        assert "freeze" in agent.run("task", "why", task).stdout
        assert json.dumps(ended)
