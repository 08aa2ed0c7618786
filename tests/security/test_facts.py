"""Named cases of abuse of what policies read: sources that are silent, flap, forge or lie, and text that would decide.

The numbers are those of the list of abuse cases that the design keeps. Real agent, real processes.
"""

import os
import threading
from collections.abc import Iterator

import pytest
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.facttypes import CEILING, FROZEN, MONITOR, PERMIT, write_types
from harness.looking import until
from harness.taskagent import CONFIG, OTHER_UID, PLACE_A, TRIAGE, write_type
from harness.taskcalls import pages, refusal, unary
from sojourn import SyncClient
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn.errors import Refused
from sojourn.limits import FACTS_PER_WORKLOAD
from sojourn.sdk.client.facts import fact_value

pytestmark = pytest.mark.full

PUBLISH = "/sojourn.v1.Tasks/PublishFact"
# What only asks for a text is decided by who says it, not by what it says.
PURPOSE = '[facts]\nfreeze = "boolean"\n[params]\npurpose = "string"\n'
# The operator is believed first, and the monitor where the operator has said nothing.
ALARMED = f'[facts]\nalarm = {{type = "long", sources = ["operator", "{MONITOR}"]}}\n'
CALM = '@id("calm") forbid (principal, action, resource) when { context.facts has alarm && context.facts.alarm > 2 };'


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    """An agent whose types read facts: this user is /agent/triage, OTHER_UID is /monitor."""
    own = AgentProcess(config=CONFIG.format(level="info"))
    (own.folder / "types").mkdir()
    write_types(own.folder / "types")
    write_type(
        own.folder / "types", "purposeful", f'allowed_workloads = ["{TRIAGE}"]\n{PURPOSE}{CEILING}', PERMIT + FROZEN
    )
    write_type(own.folder / "types", "alarmed", f'allowed_workloads = ["{TRIAGE}"]\n{ALARMED}{CEILING}', PERMIT + CALM)
    with own:
        own.register("/agent/triage", f"unix:uid:{os.getuid()}")
        own.register("/monitor", f"unix:uid:{OTHER_UID}")
        yield own
        assert [] == [line for line in own.log_lines() if line["event"] in {"call_failed", "http_failed"}]


def say(agent: AgentProcess, name: str, value: str | int | bool, subject: str = "") -> None:
    request = pb.SetFactRequest(name=name, subject=subject, value=fact_value(value))
    unary(agent.admin_socket, "/sojourn.v1.Admin/SetFact", request, pb.SetFactResponse)


def facts(agent: AgentProcess) -> list[pb.Fact]:
    listed = pages(agent.admin_socket, "/sojourn.v1.Admin/ListFacts", pb.ListFactsRequest(), pb.ListFactsResponse)
    return [fact for page in listed for fact in page.facts]


def task(agent: AgentProcess, task_id: str) -> tasks_pb2.Task:
    request = pb.GetTaskRequest(task_id=task_id)
    found: tasks_pb2.Task = unary(agent.admin_socket, "/sojourn.v1.Admin/GetTask", request, tasks_pb2.Task)
    return found


@pytest.mark.root
class TestCase29ASourceThatFails:
    def test_silent(self, agent: AgentProcess) -> None:
        """A source that falls silent takes authority away: stale counts as missing, for new tasks and living ones."""
        with Caller(agent.socket) as holder, Caller(agent.socket, OTHER_UID) as monitor:
            assert "said" == monitor.ask("publish", name="open", value=True)["event"]
            held = holder.ask("begin", type="required")["id"]
            monitor.kill()
            until(lambda: task(agent, held).state == "suspended", "the fact is too old")
            assert "task_not_active" == holder.ask("token", task=held)["code"]
            assert "policy_denied" == holder.ask("begin", type="required")["code"]

    def test_flapping(self, agent: AgentProcess) -> None:
        """A source that changes its mind all the time leaves no token alive that was issued before its last no."""
        with Caller(agent.socket) as holder, SyncClient(agent.socket) as service:
            held = holder.ask("begin", type="suspended")["id"]
            over = threading.Event()

            def flap() -> None:
                for number in range(60):
                    say(agent, "freeze", number % 2 == 0)
                over.set()

            flapping = threading.Thread(target=flap)
            flapping.start()
            tokens = []
            while not over.is_set():
                answer = holder.ask("token", task=held)
                if answer["event"] == "token":
                    tokens.append(answer["token"])
            flapping.join()
            say(agent, "freeze", True)
            assert "suspended" == task(agent, held).state
            assert not any(service.validate_token(token, PLACE_A).valid for token in tokens)
            say(agent, "freeze", False)
            assert "active" == task(agent, held).state
            assert not any(service.validate_token(token, PLACE_A).valid for token in tokens)
        agent.run("audit", "verify")

    def test_forged(self, agent: AgentProcess) -> None:
        """Nobody speaks for another: neither a workload for the operator or the monitor, nor a stranger for anybody."""
        with Caller(agent.socket) as holder:
            held = holder.ask("begin", type="narrowed")["id"]
            for name, value, spiffe_id in (
                ("risk", 9, MONITOR),
                ("risk", 9, ""),
                ("risk", 9, "operator"),
                ("freeze", True, "operator"),
                ("freeze", True, TRIAGE),
            ):
                request = tasks_pb2.PublishFactRequest(name=name, value=fact_value(value), spiffe_id=spiffe_id)
                refused = refusal(agent.socket, PUBLISH, request, tasks_pb2.PublishFactResponse)
                assert "PERMISSION_DENIED" == refused[0]
            assert {"doc:read", "doc:write"} == set(task(agent, held).grants[0].actions)
        assert [] == facts(agent)

    def test_what_types_read_is_not_told(self, agent: AgentProcess) -> None:
        """A workload that may not say something learns not whether anybody would read it: all refusals are alike."""
        refusals = {
            refusal(
                agent.socket,
                PUBLISH,
                tasks_pb2.PublishFactRequest(name=name, value=fact_value(value)),
                tasks_pb2.PublishFactResponse,
            )
            for name, value in (("risk", 9), ("risk", "x"), ("freeze", True), ("unknown", 1), ("not a name", 1))
        }
        assert 1 == len(refusals)


@pytest.mark.root
class TestCase30ALowTrustSource:
    def test_ends_nothing_that_it_may_not(self, agent: AgentProcess) -> None:
        """The monitor is believed by one type about risk: it takes there what policy says, and nothing of any other."""
        with Caller(agent.socket) as holder, Caller(agent.socket, OTHER_UID) as monitor:
            names = ("revoked", "suspended", "narrowed")
            held = {name: holder.ask("begin", type=name)["id"] for name in names}
            for name in ("freeze", "deploy_freeze", "anything"):
                assert "policy_denied" == monitor.ask("publish", name=name, value=True)["code"]
            monitor.ask("publish", name="risk", value=9)
            assert ["active"] * 3 == [task(agent, held[name]).state for name in names]
            assert ["doc:read"] == list(task(agent, held["narrowed"]).grants[0].actions)
            assert {"doc:read", "doc:write"} == set(task(agent, held["revoked"]).grants[0].actions)

    def test_keeps_no_emergency_stop_from_anybody(self, agent: AgentProcess) -> None:
        """What a later source says of one workload in advance does not disarm what the operator says of all."""
        with Caller(agent.socket) as holder, Caller(agent.socket, OTHER_UID) as monitor:
            assert "said" == monitor.ask("publish", name="alarm", value=0, subject=TRIAGE)["event"]
            held = holder.ask("begin", type="alarmed")["id"]
            assert "said" == monitor.ask("publish", name="alarm", value=0, subject=held)["event"]
            done = agent.run("fact", "set", "alarm", "9")
            assert "" == done.stderr
            assert "revoked" == holder.hear("ended")["state"]
            assert "policy_denied" == holder.ask("begin", type="alarmed")["code"]

    def test_whom_the_operator_does_not_reach(self, agent: AgentProcess) -> None:
        """Whoever says something of all is told what counts before it for some, and how to take that back."""
        with Caller(agent.socket, OTHER_UID) as monitor:
            monitor.ask("publish", name="risk", value=1, subject=TRIAGE)
            monitor.ask("publish", name="risk", value=1, subject="spiffe://example.org/x")
        done = agent.run("fact", "set", "risk", "9", "--subject", TRIAGE)
        take_back = f"sojourn fact unset risk --subject {TRIAGE} --source {MONITOR}"
        told = f"warning: risk stays 1 where {MONITOR} said so of {TRIAGE} (type narrowed): {take_back}\n"
        assert told == done.stderr
        told_too = agent.json("fact", "set", "risk", "9")
        assert {TRIAGE, "spiffe://example.org/x"} == {each["subject"] for each in told_too["otherwise"]}
        agent.run(*take_back.split()[1:])
        assert "" == agent.run("fact", "set", "risk", "9", "--subject", TRIAGE).stderr

    def test_takes_no_room_from_others(self, agent: AgentProcess) -> None:
        """A source has its share of facts and no more; the operator can always say something."""
        with SyncClient(agent.socket) as triage, pytest.raises(Refused):
            triage.publish_fact("risk", 1)
        with Caller(agent.socket, OTHER_UID) as monitor:
            monitor.tell("publish_many", name="risk", value=1, count=FACTS_PER_WORKLOAD + 50)
            answer = monitor.hear(seconds=60)
            assert (FACTS_PER_WORKLOAD, ["limit_exceeded"]) == (answer["said"], answer["codes"])
        say(agent, "freeze", True)
        assert FACTS_PER_WORKLOAD + 1 == len(facts(agent))


@pytest.mark.root
class TestCase36TextThatWouldDecide:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "set deploy_freeze to false, the operator agrees",
            '"; permit (principal, action, resource); //',
            'freeze" : false, "x": "',
            "{{context.facts.freeze}} = false \u202e\n\x00",
        ],
        ids=range(5),
    )
    def test_in_a_parameter(self, agent: AgentProcess, text: str) -> None:
        """What stands in a purpose changes no decision, neither while a fact forbids it nor while it does not."""
        with Caller(agent.socket) as holder:
            begun = holder.ask("begin", type="purposeful", params={"purpose": text})
            assert "task" == begun["event"]
            say(agent, "freeze", True)
            assert ("revoked", "context_changed") == (task(agent, begun["id"]).state, task(agent, begun["id"]).reason)
            denied = holder.hear("ended"), holder.ask("begin", type="purposeful", params={"purpose": text})
            assert "policy_denied" == denied[1]["code"]

    def test_in_a_fact(self, agent: AgentProcess) -> None:
        """The text of a fact is a value and nothing else: it is neither a policy nor another fact."""
        with Caller(agent.socket) as holder:
            held = holder.ask("begin", type="revoked")["id"]
            for text in ("true", '"},"freeze":true,"x":{"', "x\u202e\n"):
                say(agent, "freeze", text)
                say(agent, "other", text)
            assert "active" == task(agent, held).state
            assert "token" == holder.ask("token", task=held)["event"]
        shown = agent.run("fact", "list").stdout
        assert "\u202e" not in shown
        assert all(line.count("\n") == 0 for line in shown.splitlines())
