"""`sojourn usage` on a real agent: what was granted against what was used, equal by sums and by the journal, over kills."""

import csv
import json
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.looking import until
from harness.ocsf import faults
from harness.taskagent import (
    PLACE_A,
    PLACE_B,
    PRINTER,
    TICKETS,
    TRIAGE,
    TYPES,
    make_agent,
    revoke_all,
    shared_agent,
    write_type,
)
from harness.taskcalls import unary
from harness.taskkills import Known, Work, check
from sojourn import SyncClient
from sojourn._pb.sojourn.v1.validation_pb2 import ReportUseRequest, ReportUseResponse, TokenUse
from sojourn.errors import PolicyDenied
from sojourn.tasktoken.grants import Grant

KILLS = 6
REPORT = "/sojourn.v1.Validation/ReportUse"


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with shared_agent() as running:
        for name in ("graded", "shown", "changing", "listed", "found"):  # each for one test, whatever others do
            write_type(running.folder / "types", name, *TYPES["two-places"])
        running.run("policy", "reload")
        yield running


@pytest.fixture(scope="module")
def client(agent: AgentProcess) -> Iterator[SyncClient]:
    with SyncClient(agent.socket) as opened:
        yield opened


def used(agent: AgentProcess, kind: str, *more: str) -> dict[str, Any]:
    """One type of the report."""
    (found,) = agent.json("usage", kind, *more)["types"]
    assert kind == found["type"]
    return dict(found)


def both(agent: AgentProcess) -> tuple[dict[str, Any], dict[str, Any]]:
    """The whole report, by sums and by the journal, without what says which of the two it is."""
    reports = agent.json("usage"), agent.json("usage", "--from-journal")
    for each in reports:
        each["time"] = {name: each["time"][name] for name in ("since", "counted_since", "others", "unread")}
        for kind in each["types"]:
            del kind["until"]
    return reports


def action(found: dict[str, Any], name: str, at: str) -> dict[str, Any]:
    (row,) = [each for each in found["actions"] if (each["resource"], each["action"]) == (at, name)]
    return dict(row)


def told(agent: AgentProcess, token: str, calls: int) -> None:
    """A service tells of calls with a token."""
    uses = [TokenUse(token=token, action="ticket:read", calls=calls)]
    assert 1 == unary(agent.socket, REPORT, ReportUseRequest(uses=uses), ReportUseResponse).counted


class TestReport:
    def test_granted_taken_called(self, agent: AgentProcess, client: SyncClient) -> None:
        """An action that a task had, one for which it took a token, and one that a service told of are apart."""
        with client.task("graded") as task:
            token = task.token(PLACE_A, ["doc:read"]).token
            assert client.validate_token(token, PLACE_A).valid
        with client.task("graded"):
            pass
        found = used(agent, "graded")
        assert 2 == found["tasks"]
        read, write = action(found, "doc:read", PLACE_A), action(found, "doc:write", PLACE_A)
        assert (2, 1, 1) == tuple(read[name] for name in ("granted", "taken", "tokens"))
        assert (2, 0, 0, None) == tuple(write[name] for name in ("granted", "taken", "tokens", "last"))
        assert read["first"] <= read["last"]
        assert {"resource": PLACE_A, "action": "doc:write"} in found["unused"]["actions"]
        assert [PLACE_B] == found["unused"]["resources"]
        assert {"no_reports"} == {each["blind"] for each in found["actions"]}
        assert [] == found["unused"]["workloads"]
        assert {"stream"} == found["bindings"].keys()
        assert "stream" not in found["unused"]["bindings"]
        assert found["policies"]["all"] > 0

    def test_what_services_tell(self, agent: AgentProcess, client: SyncClient) -> None:
        """Calls of which a service tells are the third grade, just as well if it tells of them behind the task's end."""
        with client.task("triage-ticket") as task:
            token = task.token(TICKETS, ["ticket:read"]).token
            told(agent, token, 2)
        told(agent, token, 3)
        with client.task("triage-ticket") as task:
            token = task.token(TICKETS, ["ticket:read"]).token
        told(agent, token, 4)
        with client.task("triage-ticket") as task:
            task.token(TICKETS, ["ticket:read"])
        found = used(agent, "triage-ticket")
        expected = {"granted": 3, "taken": 3, "called": 2, "tokens": 3, "calls": 9, "unused_tokens": 1, "blind": ""}
        row = action(found, "ticket:read", TICKETS)
        assert expected == {name: row[name] for name in expected}
        assert {"max": 5, "p99": 5} == found["calls"]
        by_sums, by_journal = both(agent)
        assert by_journal == by_sums

    def test_too_little_for_a_conclusion(self, agent: AgentProcess) -> None:
        """Of an agent that is minutes old nothing is concluded, and the figures are shown all the same."""
        found = used(agent, "not-for-triage")
        assert (False, 0) == (found["enough"], found["tasks"])
        assert "not enough evidence: 0 of 30 days, 0 of 20 tasks" == found["lacking"]
        assert ["spiffe://example.org/nobody"] == found["unused"]["workloads"]
        assert "not enough evidence" in agent.run("usage", "not-for-triage").stdout

    def test_what_policy_denied(self, agent: AgentProcess, client: SyncClient) -> None:
        """A decision of policy against what the type has counts for its action, and a policy that said yes counts."""
        with pytest.raises(PolicyDenied):
            client.begin_task("print-pages", params={"pages": "99"}, grants=[Grant(PRINTER, ("page:print",))])
        with client.task("print-pages", params={"pages": "3"}):
            pass
        until(lambda: used(agent, "print-pages")["denials"], "the refusal is counted")
        found = used(agent, "print-pages")
        assert {"policy_denied": 1} == found["denials"]
        assert 1 == action(found, "page:print", PRINTER)["denied"]
        assert found["policies"]["few-pages"] >= 1
        assert {"resource": PRINTER, "action": "toner:replace"} in found["unused"]["actions"]

    def test_of_one_workload(self, agent: AgentProcess) -> None:
        """A report of one workload has nothing of another's."""
        assert 0 == used(agent, "two-places", "--workload", "spiffe://example.org/agent/other")["tasks"]
        everything = used(agent, "two-places")
        assert everything["tasks"] == used(agent, "two-places", "--workload", TRIAGE)["tasks"]

    def test_of_another_time(self, agent: AgentProcess) -> None:
        """Days in which nothing was have nothing; a time that is yet to come is refused."""
        (found,) = agent.json("usage", "two-places", "--since", "30d", "--until", "20d")["types"]
        assert (0, []) == (found["tasks"], found["actions"])
        done = agent.run("usage", "--since", "2900-01-01T00:00:00Z", check=False)
        assert (1, True) == (done.returncode, "[invalid_input]" in done.stderr)

    def test_a_type_that_there_is_not(self, agent: AgentProcess) -> None:
        """A name that is no type's is said to be none."""
        done = agent.run("usage", "no-such-type", check=False)
        assert (1, True) == (done.returncode, "[unknown_task_type]" in done.stderr)

    def test_as_csv(self, agent: AgentProcess, client: SyncClient) -> None:
        """Each action is a row of a file for those who decide by a spreadsheet."""
        with client.task("listed"):
            pass
        path = agent.folder / "usage.csv"
        found = agent.json("usage", "--csv", str(path))
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert sum(len(kind["actions"]) for kind in found["types"]) == len(rows) > 0
        assert "listed" in {each["type"] for each in rows}
        assert all(each["granted"].isdigit() for each in rows)
        done = agent.run("usage", "--csv", str(agent.folder / "none" / "usage.csv"), check=False)
        assert (2, True) == (done.returncode, "cannot be written" in done.stderr)

    def test_as_ocsf(self, agent: AgentProcess, client: SyncClient) -> None:
        """Each type and workload is a finding by OCSF's own schema: what was granted, and how much of it was not used."""
        with client.task("found") as task:
            task.token(PLACE_A, ["doc:read"])
        path = agent.folder / "usage.ndjson"
        agent.json("usage", "--ocsf", str(path))
        found = [json.loads(line) for line in path.read_bytes().splitlines()]
        assert [] == [each for each in map(faults, found) if each]
        (one,) = [each for each in found if each["unmapped"]["sojourn"]["type"] == "found"]
        (result,) = one["permission_analysis_results"]
        assert (TRIAGE, "found") == (one["user"]["uid"], result["policy"]["name"])
        assert (result["analyzed_privileges_count"] - 1, True) == (
            result["unused_privileges_count"],
            f"doc:read {PLACE_A}" in result["granted_privileges"],
        )
        assert (1, 1) == (one["severity_id"], one["confidence_id"])
        done = agent.run("usage", "--ocsf", str(agent.folder / "none" / "usage"), check=False)
        assert (2, True) == (done.returncode, "cannot be written" in done.stderr)
        assert 2 == agent.run("usage", "--standing", "--ocsf", str(path), check=False).returncode

    def test_for_people(self, agent: AgentProcess, client: SyncClient) -> None:
        """The table says what is not known, in the place of a number that looks like a count."""
        with client.task("shown") as task:
            task.token(PLACE_A, ["doc:read"])
        said = agent.run("usage", "shown").stdout
        assert "by daily sums" in said
        assert "blind, no service told of a call in this time" in said
        assert f"not used, actions for which no token was taken: doc:write at {PLACE_A}" in said
        assert "by the journal's records" in agent.run("usage", "shown", "--from-journal").stdout

    def test_a_type_that_changes(self, client: SyncClient, agent: AgentProcess) -> None:
        """What is said of a type is of the type as it is: what was before is told as a number alone."""
        with client.task("changing"):
            pass
        before = used(agent, "changing")
        types = agent.folder / "types"
        toml, cedar = ((types / f"changing.{end}").read_text() for end in ("toml", "cedar"))
        write_type(types, "changing", toml + "\n# as it is now\n", cedar)
        agent.run("policy", "reload")
        after = used(agent, "changing")
        assert (0, before["tasks"], []) == (after["tasks"], after["tasks_before"], after["actions"])
        assert after["since"] > before["since"]
        assert after["digest"] != before["digest"]


class TestStanding:
    def test_what_nobody_uses(self, agent: AgentProcess) -> None:
        """An entry whose SVID nobody fetched and a type that nobody began stand there with their ages; used ones do not."""
        agent.run("svid", "x509")
        agent.register("/nobody-comes", "unix:uid:4077")
        found = agent.json("usage", "--standing")
        entries = [each["about"] for each in found["standing"] if each["kind"] == "entry"]
        # Of the two entries of that ID the other one is another user's, who has fetched nothing.
        assert (1, 1) == (entries.count("spiffe://example.org/nobody-comes"), entries.count(TRIAGE))
        types = {each["name"] for each in found["standing"] if each["kind"] == "type"}
        assert "not-for-triage" in types
        assert all(0 <= each["age_seconds"] < 3_600 for each in found["standing"])
        said = agent.run("usage", "--standing").stdout
        assert said.startswith(f"standing privilege = {len(found['standing'])}, or these:")

    def test_goes_alone(self, agent: AgentProcess) -> None:
        """It is of all that the agent has: an option that says less is refused."""
        done = agent.run("usage", "--standing", "two-places", check=False)
        assert (2, True) == (done.returncode, "--standing goes with --since alone" in done.stderr)


class TestEqual:
    def test_to_the_journal(self, agent: AgentProcess, client: SyncClient) -> None:
        """The sums of a running agent are what its journal says."""
        with client.task("two-places") as task:
            task.token(PLACE_A, ["doc:read"])
        by_sums, by_journal = both(agent)
        assert by_journal == by_sums

    @pytest.mark.full
    @pytest.mark.forked
    def test_over_kills(self) -> None:
        """However often the agent is killed, nothing is counted twice, and nothing that the journal has is lost."""
        chance = random.Random(20)
        with make_agent() as agent:
            agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
            known = Known()
            for _ in range(KILLS):
                works = [Work(agent, known, random.Random(chance.random()))]
                for work in works:
                    work.start()
                until(lambda works=works: all(each.steps > 20 or each.failure for each in works), "some steps are done")
                agent.kill()
                for work in works:
                    work.join(60)
                    assert work.failure is None
                agent.start()
                by_sums, by_journal = both(agent)
                assert by_journal == by_sums
                check(agent, known)
            revoke_all(agent)
            found = used(agent, "triage-ticket")
            ends = agent.json("audit", "tail", "--event", "task_ended", "--lines", "10000")["records"]
            assert len(ends) == found["tasks"] > KILLS
            tokens = agent.json("audit", "tail", "--event", "token_issued", "--lines", "10000")["records"]
            rows = [each for each in found["actions"] if each["resource"] == TICKETS]
            assert max(each["tokens"] for each in rows) == len(tokens)
