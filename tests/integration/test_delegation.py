"""Tasks that are handed on from one user's process to another's: a real agent, and a real process for each."""

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from harness.agent import COMMAND, AgentProcess
from harness.callers import Caller
from harness.exchanges import form, part, post
from harness.looking import until
from harness.taskagent import OTHER_UID, THIRD_UID, TICKETS, TRIAGE, make_agent
from harness.taskcalls import Feed, TaskStream, refusal, unary
from sojourn import SyncClient
from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn.errors import InvalidInput, NotFound, Refused
from sojourn.tasktoken.grants import Grant

SUMMARISE = "spiffe://example.org/agent/summarise"
ACCEPT = "/sojourn.v1.Tasks/AcceptDelegation"
DELEGATE = "/sojourn.v1.Tasks/Delegate"
UNKNOWN = "dlg_" + "A" * 43
pytestmark = pytest.mark.root


@contextmanager
def running_agent() -> Iterator[AgentProcess]:
    """An agent on which OTHER_UID is /agent/triage, THIRD_UID is /agent/summarise, and this user is both."""
    with make_agent() as running:
        for uid, paths in ((OTHER_UID, ["triage"]), (THIRD_UID, ["summarise"]), (os.getuid(), ["triage", "summarise"])):
            for path in paths:
                running.register(f"/agent/{path}", f"unix:uid:{uid}")
        yield running
        assert [] == [line for line in running.log_lines() if line["event"] in {"call_failed", "http_failed"}]
        running.run("audit", "verify")


@pytest.fixture(scope="module")
def shared() -> Iterator[AgentProcess]:
    with running_agent() as running:
        yield running


@pytest.fixture
def agent(request: pytest.FixtureRequest) -> Iterator[AgentProcess]:
    """The agent that most tests share; one of its own for a test that restarts it."""
    if request.node.name.startswith("test_a_restart"):
        with running_agent() as running:
            yield running
    else:
        yield request.getfixturevalue("shared")


@pytest.fixture
def triage(agent: AgentProcess) -> Iterator[Caller]:
    with Caller(agent.socket, uid=OTHER_UID) as caller:
        yield caller


@pytest.fixture
def summarise(agent: AgentProcess) -> Iterator[Caller]:
    with Caller(agent.socket, uid=THIRD_UID) as caller:
        yield caller


@pytest.fixture
def service(agent: AgentProcess) -> Iterator[SyncClient]:
    with SyncClient(agent.socket) as client:
        yield client


def shown(agent: AgentProcess, task: str) -> tuple[str, str]:
    found = agent.json("task", "show", task)
    return found["state"], found["reason"]


def ticket_of(holder: Caller, task: str) -> str:
    answer = holder.ask("delegate", task=task, to=SUMMARISE)
    assert "ticket" == answer["event"], answer
    return answer["ticket"]


def pair(triage: Caller, summarise: Caller, *, do: str = "accept") -> tuple[str, str]:
    """A task of triage, and one that it has handed on."""
    parent = triage.ask("begin", type="triage-ticket", params={"ticket": "T-1"})["id"]
    answer = summarise.ask(do, ticket=ticket_of(triage, parent))
    assert ("task", parent) == (answer["event"], answer.get("parent")), answer
    return parent, answer["id"]


@pytest.mark.parametrize("do", ["accept", "accept_process"])
def test_a_part_is_handed_on(
    agent: AgentProcess, triage: Caller, summarise: Caller, service: SyncClient, do: str
) -> None:
    """Another user's process begins a task by a ticket; its tokens say for whom it acts, and die with the parent."""
    parent, child = pair(triage, summarise, do=do)
    token = summarise.ask("token", task=child)["token"]
    claims = part(token, 1)
    assert (TRIAGE, SUMMARISE, {"sub": SUMMARISE}) == (claims["sub"], claims["client_id"], claims["act"])
    verdict = service.validate_token(token, TICKETS, "ticket:read")
    assert (True, TRIAGE, [SUMMARISE], SUMMARISE) == (
        verdict.valid,
        str(verdict.spiffe_id),
        [str(each) for each in verdict.actors],
        str(verdict.actor),
    )
    found = agent.json("task", "show", child)
    assert (parent, 1, [SUMMARISE], {"ticket": "T-1"}) == (
        found["parent_id"],
        found["depth"],
        found["actors"],
        found["params"],
    )
    with Feed(agent.socket, [TICKETS]) as feed:
        feed.hear("snapshot")
        triage.ask("complete", task=parent)
        assert "cascaded: parent_ended" == feed.delta(child, live=False).reason
    assert ("cascaded", "parent_ended") == shown(agent, child)
    assert not service.validate_token(token, TICKETS).valid
    if do == "accept":
        assert ("cascaded", "parent_ended") == ((ended := summarise.hear("ended"))["state"], ended["reason"])
    events = {each["event"] for each in agent.json("task", "why", child)["records"]}
    assert {"delegation_accepted", "token_issued", "task_ended"} == events
    assert "task_delegated" in {each["event"] for each in agent.json("task", "why", parent)["records"]}


def test_the_parents_holder_is_killed(
    agent: AgentProcess, triage: Caller, summarise: Caller, service: SyncClient
) -> None:
    """When the process that handed a task on is killed, what it handed on is over, though its holder lives."""
    _, child = pair(triage, summarise)
    token = summarise.ask("token", task=child)["token"]
    triage.kill()
    assert "cascaded" == summarise.hear("ended")["state"]
    assert not service.validate_token(token, TICKETS).valid


def test_the_childs_end_is_its_own(agent: AgentProcess, triage: Caller, summarise: Caller) -> None:
    """The end of a task that was handed on is none of its parent's."""
    parent, child = pair(triage, summarise)
    summarise.kill()
    until(lambda: shown(agent, child)[0] == "revoked", "the child is over")
    assert "token" == triage.ask("token", task=parent)["event"]


def test_a_stolen_ticket(agent: AgentProcess, triage: Caller, summarise: Caller) -> None:
    """A ticket that another workload presents is not found, as one that never was; it is still good for its owner."""
    parent = triage.ask("begin", type="triage-ticket")["id"]
    ticket = ticket_of(triage, parent)
    with Caller(agent.socket, uid=OTHER_UID) as thief:
        for do in ("accept", "accept_process"):
            stolen, unknown = (thief.ask(do, ticket=each) for each in (ticket, UNKNOWN))
            assert stolen == unknown == {**stolen, "code": "not_found"}
    assert "task" == summarise.ask("accept", ticket=ticket)["event"]
    used = summarise.ask("accept", ticket=ticket)
    assert ("not_found", stolen["message"]) == (used["code"], used["message"])
    records = agent.json("audit", "tail", "--lines", "1000")["records"]
    named = hashlib.sha256(ticket.encode()).hexdigest()[:16]
    [made] = [each for each in records if each["event"] == "task_delegated" and each["fields"]["task"] == parent]
    assert (named, SUMMARISE) == (made["fields"]["ticket"], made["fields"]["to"])
    denied = [
        each["fields"]["uid"]
        for each in records
        if each["fields"].get("ticket") == named and each["event"] == "delegation_denied"
    ]
    assert [OTHER_UID, OTHER_UID, THIRD_UID] == denied
    assert ticket not in agent.log.read_text() + str(records)


def test_what_cannot_be_handed_on(agent: AgentProcess, triage: Caller) -> None:
    """A task is not handed on to whom its type does not name, for more than there is, by who does not hold it, or once it was handed on."""
    with SyncClient(agent.socket) as client, client.task("triage-ticket") as task, client.task("two-places") as other:
        with pytest.raises(Refused, match="not handed on to"):
            task.delegate(to=TRIAGE)
        with pytest.raises(Refused, match="no \\[delegation\\]"):
            other.delegate(to=SUMMARISE)
        with pytest.raises(Refused, match="does not have action"):
            task.delegate(to=SUMMARISE, grants=[Grant.parse(TICKETS, ["ticket:write"])])
        with pytest.raises(InvalidInput, match="negative"):
            client.delegate_task(task.id, SUMMARISE, max_seconds=-1)
        assert "error" == triage.ask("delegate", task=task.id, to=SUMMARISE)["event"]
        with client.accept_delegation(task.delegate(to=SUMMARISE)) as child:
            assert (task.id, SUMMARISE) == (child.status.parent_id, str(child.spiffe_id))
            with pytest.raises(Refused):
                child.delegate(to=SUMMARISE)
        with pytest.raises(NotFound):
            client.begin_delegated(UNKNOWN)
        ticket = task.delegate(to=SUMMARISE)
        assert ticket.ticket not in repr(ticket)
    with SyncClient(agent.socket) as client, pytest.raises(NotFound):
        client.begin_delegated(ticket)


def test_suspended_and_narrowed_with_its_parent(
    agent: AgentProcess, triage: Caller, summarise: Caller, service: SyncClient
) -> None:
    """An operator who suspends a task suspends what came of it, and resumes both."""
    parent, child = pair(triage, summarise)
    old = summarise.ask("token", task=child)["token"]
    agent.run("task", "suspend", parent)
    assert ("suspended", "parent_suspended") == shown(agent, child)
    assert "task_not_active" == summarise.ask("token", task=child)["code"]
    agent.run("task", "resume", parent)
    new = until(lambda: summarise.ask("token", task=child).get("token"), "the child is back")
    assert (False, True) == tuple(service.validate_token(each, TICKETS).valid for each in (old, new))


def test_the_kill_switch(agent: AgentProcess, triage: Caller, summarise: Caller) -> None:
    """A workload that is switched off loses what was handed on to it, and gets nothing more."""
    parent, child = pair(triage, summarise)
    agent.run("task", "block", "--spiffe-id", SUMMARISE)
    assert ("revoked", "blocked") == shown(agent, child)
    assert "revoked" == summarise.hear("ended")["state"]
    answer = summarise.ask("accept", ticket=ticket_of(triage, parent))
    assert ("error", "policy_denied") == (answer["event"], answer["code"])
    agent.run("task", "unblock", "--spiffe-id", SUMMARISE)
    agent.run("task", "block", "--spiffe-id", TRIAGE)
    assert "revoked" == shown(agent, parent)[0]
    agent.run("task", "unblock", "--spiffe-id", TRIAGE)


def test_exchange_under_a_child(agent: AgentProcess, triage: Caller) -> None:
    """At the token endpoint a child's task takes its own workload's subject token alone, and keeps the act claim."""
    parent = triage.ask("begin", type="triage-ticket")["id"]
    with SyncClient(agent.socket) as client, client.accept_delegation(ticket_of(triage, parent)) as child:
        issuer = "https://sojourn.example.org"
        mine = client.fetch_jwt_svid(issuer, SUMMARISE).token
        fields = form(mine, task_id=child.id)
        answer = post(agent.socket, fields)
        assert 200 == answer.status_code, answer.text
        claims = part(answer.json()["access_token"], 1)
        assert (TRIAGE, {"sub": SUMMARISE}) == (claims["sub"], claims["act"])
        theirs = client.fetch_jwt_svid(issuer, TRIAGE).token
        for refused, error in (
            ({**fields, "subject_token": theirs}, "invalid_grant"),
            ({**fields, "task_id": parent}, "invalid_grant"),
            ({**fields, "actor_token": mine}, "invalid_request"),
            ({**fields, "subject_token": answer.json()["access_token"]}, "invalid_request"),
        ):
            assert error == post(agent.socket, refused).json()["error"]


@pytest.mark.forked
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_restart(agent: AgentProcess, triage: Caller, summarise: Caller, service: SyncClient, stop: int) -> None:
    """Parent and child come back to their holders; outstanding tickets do not."""
    parent, child = pair(triage, summarise)
    ticket = ticket_of(triage, parent)
    agent.stop(stop)
    agent.start()

    def token() -> str | None:
        return summarise.ask("task_token", task=child).get("token")

    got = until(token, "the child is back")
    assert ("active", "active") == (shown(agent, parent)[0], shown(agent, child)[0])
    assert {"sub": SUMMARISE} == part(got, 1)["act"]
    assert "not_found" == summarise.ask("accept", ticket=ticket)["code"]
    triage.ask("complete", task=parent)
    assert ("cascaded", "parent_ended") == shown(agent, child)


def test_a_restart_without_the_parents_holder(agent: AgentProcess, triage: Caller, summarise: Caller) -> None:
    """A child whose parent's holder has gone meanwhile ends at the start of the agent."""
    parent, child = pair(triage, summarise, do="accept_process")
    agent.stop(signal.SIGKILL)
    triage.kill()
    agent.start()
    assert ("revoked", "holder_exited") == _end(agent, parent)
    assert ("cascaded", "parent_ended") == _end(agent, child)


def _end(agent: AgentProcess, task: str) -> tuple[str, str]:
    [ended] = [each for each in agent.json("task", "why", task)["records"] if each["event"] == "task_ended"]
    return ended["fields"]["state"], ended["fields"]["reason"]


class TestWire:
    def test_first_requests(self, agent: AgentProcess, triage: Caller) -> None:
        """A stream begins with `accept` as with `begin`; what has no place there is refused."""
        parent = triage.ask("begin", type="triage-ticket")["id"]
        with TaskStream(agent.socket) as stream:
            stream.send(accept=pb.AcceptDelegationRequest(ticket=ticket_of(triage, parent)))
            assert parent == stream.hear().begun.parent_id
            stream.send(complete=pb.Complete())
            assert "completed" == stream.hear().ended.state
        with TaskStream(agent.socket) as stream:
            stream.send(accept=pb.AcceptDelegationRequest(ticket=UNKNOWN, holder_pid=1))
            assert ("INVALID_ARGUMENT", True) == ((said := stream.refusal())[0], "holder_pid" in said[1])

    @pytest.mark.parametrize(
        "fields",
        [{}, {"spiffe_id": "not one"}, {"spiffe_id": SUMMARISE, "max_seconds": -1}],
        ids=["none", "id", "life"],
    )
    def test_malformed(self, agent: AgentProcess, fields: dict[str, object]) -> None:
        """What is malformed is refused as such."""
        with SyncClient(agent.socket) as client, client.task("triage-ticket") as task:
            request = pb.DelegateRequest(task_id=task.id, **fields)
            assert "INVALID_ARGUMENT" == refusal(agent.socket, DELEGATE, request, pb.DelegationTicket)[0]

    def test_a_shorter_life(self, agent: AgentProcess) -> None:
        """The ticket's life and the child's are clipped: to a minute, to what was said, to the parent's."""
        with SyncClient(agent.socket) as client, client.task("triage-ticket", max_seconds=100) as task:
            ticket = client.delegate_task(task.id, SUMMARISE, max_seconds=7)
            assert ticket.expires_at.timestamp() <= time.time() + 60
            child = unary(agent.socket, ACCEPT, pb.AcceptDelegationRequest(ticket=ticket.ticket), pb.Task)
            assert child.expires_at <= time.time() + 8
            other = unary(
                agent.socket,
                ACCEPT,
                pb.AcceptDelegationRequest(ticket=task.delegate(to=SUMMARISE, max_seconds=900).ticket),
                pb.Task,
            )
            assert other.expires_at <= task.expires_at.timestamp()


def sojourn(
    agent: AgentProcess, *arguments: str, given: str = "", **variables: str
) -> "subprocess.CompletedProcess[str]":
    environment = {**agent.environment, **variables}
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, input=given, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.forked
class TestCommands:
    @pytest.mark.forked
    def test_delegate_and_run(self, agent: AgentProcess, tmp_path: object) -> None:
        """One command hands its task on, another runs a command in it: the ticket goes through a file or a pipe."""
        with SyncClient(agent.socket) as client, client.task("triage-ticket", session=True) as task:
            made = sojourn(agent, "task", "delegate", task.id, "--to", SUMMARISE, "--max", "1m")
            assert (0, "") == (made.returncode, made.stderr)
            file = f"{tmp_path}/ticket"
            with open(file, "w", encoding="utf-8") as opened:
                opened.write(made.stdout)
            ran = sojourn(agent, "task", "run", "--ticket-file", file, "--", *COMMAND, "task", "token")
            assert {"sub": SUMMARISE} == part(ran.stdout.strip(), 1)["act"], ran.stderr
            again = sojourn(agent, "task", "run", "--ticket-file", file, "--", "true")
            assert (1, True) == (again.returncode, "no such delegation ticket" in again.stderr)

    def test_accept(self, agent: AgentProcess) -> None:
        """`task accept` begins a task that lives as long as who ran it; it is listed with its parent."""
        with SyncClient(agent.socket) as client, client.task("triage-ticket", session=True) as task:
            ticket = sojourn(agent, "task", "delegate", "--to", SUMMARISE, SOJOURN_TASK_ID=task.id).stdout
            accepted = sojourn(agent, "task", "accept", "--output", "json", given=ticket)
            assert 0 == accepted.returncode, accepted.stderr
            child = json.loads(accepted.stdout)["id"]
            rows = {row.split()[0]: row.split()[-1] for row in agent.run("task", "list").stdout.splitlines()}
            assert task.id == rows[child]
            empty = sojourn(agent, "task", "accept", given=" ")
            assert (2, True) == (empty.returncode, "there is no ticket" in empty.stderr)
        assert "cascaded" == shown(agent, child)[0]
