"""What operators see stays theirs to see: a workload that makes much takes no view of others away. Real processes."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.facttypes import CEILING, MONITOR, PERMIT
from harness.raw import Admin
from harness.taskagent import CONFIG, OTHER_UID, TRIAGE, write_type
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.limits import FACTS_PER_WORKLOAD, LISTED_TEXT, OUTCOMES_TOLD

LONG = "é" * 2_000  # 4,000 bytes: a parameter and a fact may have 4,096
MANY = 1_100  # as large as LONG more than a message of 4 MiB takes
TOKENS = 1_250
NOTED = f"""
allowed_workloads = ["{TRIAGE}", "{MONITOR}"]
[params]
note = "string"
[facts]
note = {{type = "string", sources = ["{MONITOR}", "operator"]}}
{CEILING}"""

pytestmark = [pytest.mark.full, pytest.mark.root]


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    """An agent with the type `noted`; this user is /agent/triage, OTHER_UID is /monitor."""
    own = AgentProcess(config=CONFIG.format(level="info"))
    (own.folder / "types").mkdir()
    write_type(own.folder / "types", "noted", NOTED, PERMIT)
    with own:
        own.register("/agent/triage", f"unix:uid:{os.getuid()}")
        own.register("/monitor", f"unix:uid:{OTHER_UID}")
        yield own
        assert [] == [line for line in own.log_lines() if line["event"] in {"call_failed", "http_failed"}]


@pytest.fixture(scope="module")
def flooder(agent: AgentProcess) -> Iterator[Caller]:
    """/monitor, which has said as many long facts as it may."""
    with Caller(agent.socket, OTHER_UID) as caller:
        caller.tell("publish_many", name="note", value=LONG, count=FACTS_PER_WORKLOAD)
        assert (FACTS_PER_WORKLOAD, []) == _told(caller.hear(seconds=60), "said")
        yield caller


def _told(event: dict[str, Any], what: str) -> tuple[int, list[str]]:
    return event[what], event["codes"]


@pytest.fixture(scope="module")
def busy(agent: AgentProcess) -> Iterator[str]:
    """The ID of a task that has had TOKENS tokens, and is over."""
    with Caller(agent.socket) as holder:
        begun = holder.ask("begin_process", type="noted", params={"note": LONG})
        holder.tell("token_many", task=begun["id"], count=TOKENS)
        holder.hear("tokens", seconds=60)
        holder.ask("complete", task=begun["id"])
        yield begun["id"]


class TestTasks:
    @pytest.fixture
    def own(self, agent: AgentProcess, flooder: Caller) -> Iterator[dict[str, Any]]:
        """A task of this user's among MANY of the flooder's, with long parameters."""
        missing = MANY - sum(task["spiffe_id"] == MONITOR for task in agent.json("task", "list")["tasks"])
        flooder.tell("begin_many", type="noted", params={"note": LONG}, count=missing)
        assert (missing, []) == _told(flooder.hear(seconds=60), "begun")
        with Caller(agent.socket) as holder:
            yield holder.ask("begin", type="noted", params={"note": "mine"})

    def test_list(self, agent: AgentProcess, own: dict[str, Any]) -> None:
        """All tasks are listed, the oldest first, each once, with their long parameters cut, and those that are named."""
        tasks = agent.json("task", "list")["tasks"]
        assert [TRIAGE, *[MONITOR] * MANY] == sorted(task["spiffe_id"] for task in tasks)
        assert len(tasks) == len({task["id"] for task in tasks})
        assert [each["created_at"] for each in tasks] == sorted(each["created_at"] for each in tasks)
        mine = next(task for task in tasks if task["id"] == own["id"])
        assert ({"note": "mine"}, []) == (mine["params"], mine["cut"])
        theirs = next(task for task in tasks if task["spiffe_id"] == MONITOR)
        assert ({"note": LONG[:LISTED_TEXT]}, ["note"]) == (theirs["params"], theirs["cut"])
        lines = agent.run("task", "list").stdout.splitlines()
        assert (MANY + 2, 1) == (len(lines), sum(own["id"] in line for line in lines))

    def test_one_is_shown_whole(self, agent: AgentProcess, own: dict[str, Any]) -> None:
        """A single task is shown with its parameters as they are."""
        theirs = next(task["id"] for task in agent.json("task", "list")["tasks"] if task["id"] != own["id"])
        shown = agent.json("task", "show", theirs)
        assert ({"note": LONG}, []) == (shown["params"], shown["cut"])

    def test_of_pages(self, agent: AgentProcess, own: dict[str, Any]) -> None:
        """A page is small whatever is asked for; a token that is none is refused."""
        with Admin(agent.admin_socket) as admin:
            page = admin.unary(
                "/sojourn.v1.Admin/ListTasks", pb.ListTasksRequest(page_size=10**6), pb.ListTasksResponse
            )
            assert page.next_page_token
            assert page.ByteSize() < 300_000
        assert own["id"]

    def test_revoke(self, agent: AgentProcess, own: dict[str, Any]) -> None:
        """Who changes more tasks than one answer takes is told how many, and is not told that it failed."""
        suspended = agent.run("task", "suspend", "--spiffe-id", MONITOR).stdout
        assert f"\n{MANY - OUTCOMES_TOLD} more were left out: " in suspended
        assert suspended.endswith(f"\n{MANY} tasks are changed, 0 are not\n")
        revoked = agent.json("task", "revoke", "--spiffe-id", MONITOR)
        assert (MANY, 0, MANY - OUTCOMES_TOLD) == tuple(revoked[name] for name in ("changed", "failed", "left_out"))
        assert OUTCOMES_TOLD == len(revoked["tasks"])
        assert [own["id"]] == [task["id"] for task in agent.json("task", "list")["tasks"]]
        became = {task["id"]: (task["state"], task["reason"]) for task in agent.json("task", "list", "--all")["tasks"]}
        assert {("revoked", "admin")} == {became[each["id"]] for each in revoked["tasks"]}
        assert len(became) > MANY

    def test_block(self, agent: AgentProcess, own: dict[str, Any]) -> None:
        """The kill switch for a workload with as many tasks says how many it has ended."""
        blocked = agent.json("task", "block", "--spiffe-id", MONITOR)
        assert (OUTCOMES_TOLD, MANY - OUTCOMES_TOLD) == (len(blocked["ended"]), blocked["left_out"])
        agent.run("task", "unblock", "--spiffe-id", MONITOR)
        assert [own["id"]] == [task["id"] for task in agent.json("task", "list")["tasks"]]


class TestFacts:
    def test_list(self, agent: AgentProcess, flooder: Caller) -> None:
        """All facts are listed, each once, with long values cut; those of one name are shown whole."""
        agent.run("fact", "set", "freeze", "true")
        facts = agent.json("fact", "list")["facts"]
        subjects = [(fact["name"], fact["subject"]) for fact in facts]
        assert (FACTS_PER_WORKLOAD + 1, sorted(set(subjects))) == (len(facts), subjects)
        assert [(True, False)] == [(fact["value"], fact["cut"]) for fact in facts if fact["name"] == "freeze"]
        long = [fact for fact in facts if fact["name"] == "note"]
        assert {(LONG[:LISTED_TEXT], True)} == {(fact["value"], fact["cut"]) for fact in long}
        whole = agent.json("fact", "list", "--name", "note")["facts"]
        assert {(LONG, False)} == {(fact["value"], fact["cut"]) for fact in whole}
        assert FACTS_PER_WORKLOAD == len(whole)
        pretty = agent.run("fact", "list").stdout.splitlines()
        assert FACTS_PER_WORKLOAD + 2 == len(pretty)
        assert "é…" in pretty[-1]


class TestTheJournal:
    def test_why(self, agent: AgentProcess, busy: str) -> None:
        """`task why` shows how a task began and how it ended, and says what it left out in between; with --all it
        leaves out nothing.
        """
        told = agent.json("task", "why", busy)
        events = [each["event"] for each in told["records"]]
        assert ("task_begun", "task_ended", 300) == (events[0], events[-1], len(events))
        every = agent.json("task", "why", busy, "--all")
        assert (0, {}) == (every["left_out"], every["left_out_events"])
        assert len(every["records"]) == len(events) + told["left_out"] >= TOKENS
        assert {"token_issued": told["left_out"]} == told["left_out_events"]
        lines = agent.run("task", "why", busy).stdout.splitlines()
        assert (
            f"… {told['left_out']} more were left out here (token_issued {told['left_out']}): --all has them"
            == lines[100]
        )
        assert (301, len(every["records"])) == (
            len(lines),
            len(agent.run("task", "why", busy, "--all").stdout.splitlines()),
        )

    def test_tail(self, agent: AgentProcess, busy: str, flooder: Caller) -> None:
        """The last 10,000 records are printed, of which some thousands are 4 KB long, and none twice."""
        records = agent.json("audit", "tail", "-n", "10000")["records"]
        numbers = [each["seq"] for each in records]
        assert list(range(numbers[0], numbers[0] + len(numbers))) == numbers
        assert sum(len(json.dumps(each)) for each in records) > 4 * 1024 * 1024
        printed = [int(each.split()[0]) for each in agent.run("audit", "tail", "-n", "10000").stdout.splitlines()]
        assert list(range(printed[0], printed[0] + len(printed))) == printed
        assert len(numbers) <= len(printed)
        assert numbers[-1] in printed  # behind it is who has just read them
