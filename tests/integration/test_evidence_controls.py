"""The control map of a real agent, and of its export: what tasks went through is what the rows say, and both say the same."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.approvals import approval_agent, ask, decide
from harness.callers import Caller
from harness.looking import until
from harness.taskagent import OTHER_UID, PLACE_A, PRINTER, THIRD_UID, TRIAGE, make_agent, write_type
from sojourn import SyncClient
from sojourn.errors import PolicyDenied
from sojourn.tasktoken.grants import Grant

WORKER = "spiffe://example.org/worker"
HANDING = f"""
allowed_workloads = ["{TRIAGE}"]
[delegation]
to = ["{WORKER}"]
[[ceiling]]
resource = "{PLACE_A}"
actions = ["doc:read", "doc:write"]
"""
PERMIT_ALL = '@id("all") permit (principal, action, resource);'
# By query: what a life in which everything was as it should be makes of each.
SHOWN = {
    *("authority_never_grows", "tokens_of_live_tasks", "short_lived", "hand_overs", "cascade", "fan_out", "approvals"),
    *("approval_where_required", "kill_switch", "acts_named", "policy_sets_kept", "decisions_replayed"),
    *("journal_whole", "nothing_lost", "refusals_say_why", "entries_end", "high_consequence_bound"),
}
NO_OWNER = {"types_owned", "entries_owned"}
NO_DATA = {"ended_by_attestation", "outside_credentials_end", "drills", "reviews", "break_glass_reviewed", "sinks"}


def rows_of(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """One row of each query."""
    return {row["query"]: row for each in found["frameworks"] for row in each["rows"] if row["query"]}


def verdicts(found: Mapping[str, Any]) -> dict[str, str]:
    return {name: row["verdict"] for name, row in rows_of(found).items()}


def controls(agent: AgentProcess, *more: str, status: int = 1) -> dict[str, Any]:
    """What the agent's own command says."""
    done = agent.run("evidence", "controls", *more, "--output", "json", check=False)
    assert status == done.returncode, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def checked(agent: AgentProcess, folder: Path, *more: str, status: int = 1) -> dict[str, Any]:
    """What the check of an export says, as one with no agent would run it."""
    key = agent.json("audit", "key")["vkey"]
    done = agent.run("audit", "check", str(folder), "--key", key, *more, "--output", "json", check=False)
    assert status == done.returncode, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def exported(agent: AgentProcess, folder: Path, *more: str) -> Path:
    agent.run("audit", "export", "--to", str(folder), *more)
    return folder


def now() -> str:
    return datetime.now(UTC).isoformat()


@pytest.fixture(scope="module")
def plain() -> Iterator[AgentProcess]:
    """An agent of which one task took a token."""
    with make_agent() as made:
        made.register("/agent/triage", f"unix:uid:{os.getuid()}")
        with SyncClient(f"unix://{made.socket}") as client, client.task("two-places") as task:
            task.token(PLACE_A, ["doc:read"])
        until(lambda: made.json("audit", "list", "--event", "task_ended")["records"], "the end is recorded")
        yield made


class TestAnyAgent:
    def test_the_same_of_both(self, plain: AgentProcess, tmp_path: Path) -> None:
        """The agent's own command and the check of its export say the same of the same records, to the last figure."""
        bound = ("--until", now())
        of_agent = controls(plain, *bound)
        of_export = checked(plain, exported(plain, tmp_path / "out", *bound), "--controls")
        assert of_agent == of_export["controls"]
        assert of_export["good"]
        assert "shown" == verdicts(of_agent)["tokens_of_live_tasks"]

    def test_one_framework(self, plain: AgentProcess) -> None:
        """Of one framework no other is said anything, and where no row of it failed the status is 0."""
        found = controls(plain, "--framework", "maestro", status=0)
        assert ["maestro"] == [each["name"] for each in found["frameworks"]]
        assert {"shown", "no data", "not ours"} == {row["verdict"] for row in found["frameworks"][0]["rows"]}

    def test_since(self, plain: AgentProcess) -> None:
        """What began before the time that is asked for is not judged, and never passed."""
        with SyncClient(f"unix://{plain.socket}") as client, client.task("two-places") as task:
            task.token(PLACE_A, ["doc:read"])
            since = now()
            task.token(PLACE_A, ["doc:write"])
            found = controls(plain, "--since", since, "--framework", "owasp-asi", status=0)
            row = rows_of(found)["authority_never_grows"]
            assert ("no data", 0, 1) == tuple(row[name] for name in ("verdict", "n", "not_judged"))
            assert 1 == found["tasks_begun_before"]

    def test_a_change_is_found(self, plain: AgentProcess, tmp_path: Path) -> None:
        """Of an export in which a record was changed, or is missing, no claim on all of them holds."""
        folder = exported(plain, tmp_path / "out")
        lines = (folder / "records.ndjson").read_bytes().splitlines(keepends=True)
        at = next(number for number, line in enumerate(lines) if b'"event":"token_issued"' in line)
        other_at = next(number for number, line in enumerate(lines) if b'"event":"entry_created"' in line)
        for name, changed in (
            ("changed", [*lines[:at], lines[at].replace(PLACE_A.encode(), b"https://b.example.org"), *lines[at + 1 :]]),
            ("missing", [*lines[:other_at], *lines[other_at + 1 :]]),
        ):
            other = Path(shutil.copytree(folder, tmp_path / name))
            (other / "records.ndjson").write_bytes(b"".join(changed))
            found = checked(plain, other, "--controls", "--framework", "owasp-asi", "--framework", "maestro")
            rows = rows_of(found["controls"])
            assert not found["good"]
            assert {"failed"} == {rows[each]["verdict"] for each in ("tokens_of_live_tasks", "journal_whole")}
            assert "not whole" in rows["tokens_of_live_tasks"]["why"]

    def test_asking_is_recorded(self, plain: AgentProcess) -> None:
        """Who asks for the map is in the journal, as who exports it is."""
        before = len(plain.json("audit", "list", "--event", "audit_exported")["records"])
        controls(plain, "--framework", "csf")
        looked = until(
            lambda: plain.json("audit", "list", "--event", "audit_exported")["records"][before:], "it is recorded"
        )
        assert os.getuid() == looked[0]["fields"]["by_uid"]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (
                ("evidence", "controls", "--framework", "iso"),
                "there are: ai-act, ai-rmf, csf, maestro, owasp-asi, soc2",
            ),
            (("evidence", "controls", "--since", "x"), "--since"),
            (("audit", "check", "x", "--key", "KEY", "--framework", "csf"), "--framework goes with --controls"),
            (("audit", "check", "--received", "x", "--controls"), "--received goes without"),
            (("audit", "check", "/dev/null", "--key", "KEY", "--controls"), "go with a folder"),
        ],
    )
    def test_misuse(self, plain: AgentProcess, arguments: tuple[str, ...], said: str) -> None:
        """What does not go together, or is not there, is said in one line, with status 2."""
        key = plain.json("audit", "key")["vkey"]
        done = plain.run(*(key if each == "KEY" else each for each in arguments), check=False)
        assert 2 == done.returncode, done.stderr
        assert said in done.stderr

    def test_for_people(self, plain: AgentProcess) -> None:
        """The lines name each row with its title, its verdict and its figures, and say what all of it rests on."""
        shown = plain.run("evidence", "controls", "--framework", "owasp-asi").stdout
        assert "ASI03  Identity and Privilege Abuse" in shown
        assert "  shown     No token is made for a task that is not live. [tokens_of_live_tasks]" in shown
        assert "they are whole" in shown
        assert "%" not in shown


@pytest.fixture(scope="module")
def lived() -> Iterator[AgentProcess]:
    """Tasks that begin, are handed on, agreed to, denied, suspended, revoked, blocked and ended, over a restart."""
    with approval_agent() as agent:
        write_type(agent.folder / "types", "handing", HANDING, PERMIT_ALL)
        agent.run("policy", "reload")
        agent.register("/worker", f"unix:uid:{THIRD_UID}")
        gone = agent.register("/gone", f"unix:uid:{THIRD_UID}")["id"]
        with Caller(agent.socket, uid=OTHER_UID) as triage:
            _approve_and_deny(agent, triage)
        with Caller(agent.socket, uid=OTHER_UID) as triage, Caller(agent.socket, uid=THIRD_UID) as worker:
            _hand_on(triage, worker)
        with Caller(agent.socket, uid=OTHER_UID) as triage:
            _suspend_and_revoke(agent, triage)
        _refuse(agent)
        agent.run("entry", "delete", gone)
        agent.stop()
        agent.start()
        with Caller(agent.socket, uid=OTHER_UID) as triage:
            _block(agent, triage)
        yield agent


@pytest.mark.root
class TestALife:
    @pytest.mark.forked
    def test_verdicts(self, lived: AgentProcess) -> None:
        """Each row is what the life was: shown where there was something, no data where nothing was, failed for no
        owner.
        """
        found = rows_of(controls(lived))
        wrong = {name: row for name, row in found.items() if row["verdict"] == "failed" and name not in NO_OWNER}
        assert {} == wrong
        by_verdict = {name: row["verdict"] for name, row in found.items()}
        assert SHOWN == SHOWN & {name for name, verdict in by_verdict.items() if verdict == "shown"}
        assert NO_DATA == NO_DATA & {name for name, verdict in by_verdict.items() if verdict == "no data"}
        assert NO_OWNER == {name for name, verdict in by_verdict.items() if verdict == "failed"}

    def test_figures(self, lived: AgentProcess) -> None:
        """The figures are those of what was done."""
        rows = rows_of(controls(lived))
        approvals = rows["approvals"]["figures"]
        assert (1, 1, 1) == tuple(approvals[name] for name in ("approved", "denied", "begun"))
        assert (1, 1) == (rows["hand_overs"]["n"], rows["hand_overs"]["figures"]["tickets_made"])
        assert (1, 1) == (rows["cascade"]["n"], rows["fan_out"]["figures"]["depth_max"])
        assert {"tasks_ended": 1, "in_force": 0} == rows["kill_switch"]["figures"]
        assert 1 == rows["high_consequence_bound"]["n"]
        assert 0 == rows["tokens_of_live_tasks"]["not_judged"]

    @pytest.mark.forked
    def test_the_same_of_its_export(self, lived: AgentProcess, tmp_path: Path) -> None:
        """A stranger with the export and the key has the same rows."""
        bound = ("--until", now())
        of_agent = controls(lived, *bound)
        assert of_agent == checked(lived, exported(lived, tmp_path / "out", *bound), "--controls")["controls"]


def _approve_and_deny(agent: AgentProcess, triage: Caller) -> None:
    asked = ask(triage, params={"amount": "7"})
    decide(agent, asked)
    triage.hear("task")
    triage.ask("token", task=asked["id"])
    refused = ask(triage)
    agent.run("approval", "deny", refused["approval"], "--reason", "no")
    triage.hear("error")


def _hand_on(triage: Caller, worker: Caller) -> None:
    parent = triage.ask("begin", type="handing")["id"]
    ticket = triage.ask("delegate", task=parent, to=WORKER)["ticket"]
    child = worker.ask("accept", ticket=ticket)["id"]
    worker.ask("token", task=child, resource=PLACE_A, actions=["doc:read"])
    triage.ask("complete", task=parent)


def _suspend_and_revoke(agent: AgentProcess, triage: Caller) -> None:
    task = triage.ask("begin", type="careful")["id"]
    agent.run("task", "suspend", task)
    agent.run("task", "resume", task)
    triage.ask("token", task=task, bound="agent", params_digest="A" * 43)
    agent.run("task", "revoke", task, "--reason", "enough")


def _refuse(agent: AgentProcess) -> None:
    with SyncClient(f"unix://{agent.socket}") as client, pytest.raises(PolicyDenied):
        client.begin_task("print-pages", params={"pages": "99"}, grants=[Grant(PRINTER, ("page:print",))])


def _block(agent: AgentProcess, triage: Caller) -> None:
    triage.ask("begin", type="two-places")
    agent.run("task", "block", "--type", "two-places", "--reason", "drill")
    agent.run("task", "unblock", "--type", "two-places")
