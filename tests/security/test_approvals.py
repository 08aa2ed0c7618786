"""What an attacker would try around approvals and broken glass: facts/token-standards.md F.8, cases 22, 38 and 39."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import approvals as room
from harness.agent import AgentProcess
from harness.approvals import BOSS_UID, approval_agent, ask, decide, records, state_of
from harness.callers import Caller
from harness.disks import failing
from harness.taskagent import OTHER_UID, PLACE_A, STRANGER_UID, THIRD_UID
from harness.taskcalls import TaskStream, refusal, unary
from sojourn import SyncClient
from sojourn._pb.sojourn.v1 import admin_pb2
from sojourn._pb.sojourn.v1 import tasks_pb2 as pb

pytestmark = [pytest.mark.full, pytest.mark.root]
RACERS = 50


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with approval_agent() as running:
        yield running


@pytest.fixture
def caller(agent: AgentProcess) -> Iterator[Caller]:
    with Caller(agent.socket, uid=OTHER_UID) as other:
        yield other
    room.review_all(agent)


def ended(agent: AgentProcess, task_id: str) -> tuple[str, str]:
    """How a task ends, once the agent has noticed."""
    ends = time.monotonic() + 15
    while (state := state_of(agent, task_id))[0] in {"pending", "active"} and time.monotonic() < ends:
        time.sleep(0.05)
    return state


class TestCase22:
    """Approvals and the life of what they are for."""

    def test_end_during_approval(self, agent: AgentProcess, caller: Caller) -> None:
        """A requester that dies while someone thinks about it takes its request with it."""
        with Caller(agent.socket, uid=OTHER_UID) as other:
            asked = ask(other)
            other.kill()
            assert "revoked" == ended(agent, asked["id"])[0]
        assert "not_found" == decide(agent, asked)
        assert "revoked" == state_of(agent, asked["id"])[0]

    def test_approve_after_end(self, agent: AgentProcess, caller: Caller) -> None:
        """What was completed, denied or revoked is not begun by an approval that comes late."""
        for end in ("complete", "deny", "revoke"):
            begun = caller.ask("begin_process", type="asked", approve_wait=0)
            (shown,) = room.approvals(agent)
            asked = {"approval": shown.id, "digest": shown.digest}
            if end == "complete":
                caller.ask("complete", task=begun["id"])
            elif end == "deny":
                decide(agent, asked, "deny")
            else:
                request = admin_pb2.RevokeTaskRequest(task_id=begun["id"])
                unary(agent.admin_socket, f"{room.ADMIN}RevokeTask", request, pb.Task)
            before = state_of(agent, begun["id"])
            assert before[0] in {"completed", "revoked"}
            assert "not_found" == decide(agent, asked)
            assert before == state_of(agent, begun["id"])

    def test_approval_reused_for_other_parameters(self, agent: AgentProcess, caller: Caller) -> None:
        """An approval is good for what was asked: not for other parameters, nor for the same asked again."""
        with Caller(agent.socket, uid=OTHER_UID) as other:
            small, large = ask(caller, params={"amount": "1"}), ask(other, params={"amount": "1000000"})
            assert "failed_precondition" == decide(agent, large, digest=small["digest"])
            assert "failed_precondition" == decide(agent, small, digest=large["digest"])
            assert "active" == decide(agent, small)
            assert "pending" == state_of(agent, large["id"])[0]
        again = caller.hear("task") and ask(caller, params={"amount": "1"})
        assert again["digest"] == small["digest"]
        assert "not_found" == decide(agent, small)
        assert "pending" == state_of(agent, again["id"])[0]

    def test_own_request_by_uid(self, agent: AgentProcess, caller: Caller) -> None:
        """An operator does not agree to what a process of their own user asks for, and may deny it."""
        with SyncClient(agent.socket) as client:
            task = client.begin_task("asked", approve_wait=0)
            assert task.status.approval is not None
            asked = {"approval": task.status.approval.id, "digest": task.status.approval.digest}
            assert "policy_denied" == decide(agent, asked)
            assert "pending" == state_of(agent, task.id)[0]
            assert "revoked" == decide(agent, asked, "deny")

    def test_own_request_by_spiffe_id(self, agent: AgentProcess, caller: Caller) -> None:
        """A workload that is an approver does not agree to its own request through another process and user."""
        with Caller(agent.socket, uid=THIRD_UID) as both, Caller(agent.socket, uid=BOSS_UID) as boss:
            asked = ask(both, "boss")
            refused = boss.ask("decide", approval=asked["approval"], digest=asked["digest"], verdict="approve")
            assert "policy_denied" == refused["code"]
            assert "pending" == state_of(agent, asked["id"])[0]

    @pytest.mark.skipif(not room.can_log_in(), reason="this kernel has no login users")
    def test_own_request_by_login(self, agent: AgentProcess, caller: Caller) -> None:
        """Who logged in does not agree to their own request as root, by sudo or otherwise."""
        with room.logged_in(agent, OTHER_UID, 4711) as requester:
            asked = ask(requester)
            for login_uid in (4711, OTHER_UID):
                done = room.as_login(login_uid, agent, "approval", "approve", asked["approval"], "--output", "json")
                assert "policy_denied" == room.error_of(done)
            assert "pending" == state_of(agent, asked["id"])[0]
            done = room.as_login(4712, agent, "approval", "approve", asked["approval"])
            assert (0, "active") == (done.returncode, state_of(agent, asked["id"])[0])

    @pytest.mark.skipif(not room.can_log_in(), reason="this kernel has no login users")
    def test_a_login_of_root(self, agent: AgentProcess, caller: Caller) -> None:
        """A requester who says to be logged in as root does not keep root from saying no."""
        with room.logged_in(agent, OTHER_UID, 0) as requester:
            asked = ask(requester)
            assert "revoked" == decide(agent, asked, "deny")

    def test_expired_approval(self, agent: AgentProcess, caller: Caller) -> None:
        """A request that nobody decided in time is over, whatever is said afterwards."""
        asked = ask(caller, "hurried")
        assert "ApprovalExpired" == caller.hear("error")["kind"]
        assert "not_found" == decide(agent, asked)
        assert ("expired", "approval_expired") == state_of(agent, asked["id"])

    def test_unknown_and_foreign(self, agent: AgentProcess, caller: Caller) -> None:
        """A workload that may not decide a request cannot tell it from one that is not there."""
        asked = ask(caller)
        with Caller(agent.socket, uid=STRANGER_UID) as stranger:
            foreign, unknown = (
                stranger.ask("decide", approval=name, digest=asked["digest"], verdict="approve")
                for name in (asked["approval"], "apr_AAAAAAAAAAAAAAAAAAAAAA")
            )
            assert ("not_found", foreign["message"]) == (foreign["code"], unknown["message"])
            assert [] == stranger.ask("approvals")["found"]
        assert "pending" == state_of(agent, asked["id"])[0]


class TestCase38:
    """Nothing but a decision by a person who may grants at run time."""

    def test_nothing_else_grants(self, agent: AgentProcess, caller: Caller) -> None:
        """Whatever else operators and holders can do to a pending task, it is not active after it."""
        begun = caller.ask("begin_process", type="asked", approve_wait=0)
        selection = admin_pb2.TaskSelection(task_id=begun["id"])
        for method in ("SuspendTasks", "ResumeTasks"):
            answer = unary(
                agent.admin_socket,
                f"{room.ADMIN}{method}",
                admin_pb2.ChangeTasksRequest(selection=selection),
                admin_pb2.ChangeTasksResponse,
            )
            assert ["pending"] == [each.task.state for each in answer.outcomes]
            assert all(each.error for each in answer.outcomes)
        assert "pending" == caller.ask("attach", task=begun["id"])["state"]
        stream = TaskStream(agent.socket)
        stream.send(attach=pb.Attach(task_id=begun["id"]))
        assert "NOT_FOUND" == stream.refusal()[0]
        agent.run("policy", "reload")
        assert ("pending", "") == state_of(agent, begun["id"])
        assert "approval_required" == caller.ask("token", task=begun["id"], resource=PLACE_A)["code"]
        assert [] == records(agent, begun["id"], "task_begun")

    def test_no_verdict_is_none(self, agent: AgentProcess, caller: Caller) -> None:
        """A decision without a verdict, or without the digest that was looked at, is refused."""
        asked = ask(caller)
        for request in (
            room.pb.DecideApprovalRequest(approval_id=asked["approval"], digest=asked["digest"]),
            room.pb.DecideApprovalRequest(approval_id=asked["approval"], verdict=1),
            room.pb.DecideApprovalRequest(approval_id=asked["approval"], digest=asked["digest"], verdict=9),  # type: ignore[arg-type]  # no such verdict
        ):
            status, _ = refusal(
                agent.admin_socket, f"{room.ADMIN}DecideApproval", request, room.pb.DecideApprovalResponse
            )
            assert "INVALID_ARGUMENT" == status
        assert "pending" == state_of(agent, asked["id"])[0]

    def test_text_of_the_requester_is_text(self, agent: AgentProcess) -> None:
        """What a requester writes reaches the approver's terminal as text, and whole."""
        evil = "x\x1b[2J\r\nuntil      never\u202e" + "y" * 300
        with Caller(agent.socket, uid=OTHER_UID) as caller:
            asked = ask(caller, params={"note": evil})
            for verb in (["show", asked["approval"]], ["list"]):
                said = agent.run("approval", *verb).stdout
                assert all(each.isprintable() for each in said.splitlines())
                assert not any(line.startswith("until      never") for line in said.splitlines())
            assert "y" * 300 in agent.run("approval", "show", asked["approval"]).stdout


class TestCase39:
    """Broken glass."""

    def test_without_second_person(self, agent: AgentProcess, caller: Caller) -> None:
        """Nobody breaks the glass alone."""
        with SyncClient(agent.socket) as client:
            task = client.begin_task("glass", approve_wait=0)
            assert task.status.approval is not None
            asked = {"approval": task.status.approval.id, "digest": task.status.approval.digest}
            assert "policy_denied" == decide(agent, asked)
            assert "approval_required" == _code(client, task.id)
            assert [] == agent.json("review", "list")["reviews"]
            task.complete()

    def test_beyond_its_time(self, agent: AgentProcess, caller: Caller) -> None:
        """Broken glass ends when its time is up, and was loud: in the log, the audit and the status."""
        asked = ask(caller, "short-glass")
        assert "active" == decide(agent, asked)
        caller.hear("task")
        token = caller.ask("token", task=asked["id"])["token"]
        assert "expired" == caller.hear("ended")["state"]
        assert ("expired", "deadline") == state_of(agent, asked["id"])
        with SyncClient(agent.socket) as client:
            assert not client.validate_token(token, PLACE_A).valid
        assert [1, 1] == [len(records(agent, asked["id"], name)) for name in ("review_owed", "break_glass_begun")]
        assert asked["id"] in {line.get("task_id") for line in agent.log_lines() if line["event"] == "break_glass"}

    def test_without_review(self, agent: AgentProcess, caller: Caller) -> None:
        """The next is refused until someone else has looked; whoever broke the glass is not someone else."""
        asked = ask(caller, "glass")
        assert "active" == decide(agent, asked)
        caller.hear("task")
        caller.ask("complete", task=asked["id"])
        with Caller(agent.socket, uid=OTHER_UID) as second:
            refused = ask(second, "glass")
            assert ("review_owed", True) == (refused["code"], asked["id"] in refused["message"])
        if room.can_log_in():
            done = room.as_login(
                OTHER_UID, agent, "review", "done", asked["id"], "--finding", "all fine", "--output", "json"
            )
            assert "policy_denied" == room.error_of(done)
        assert [asked["id"]] == [each["task"] for each in agent.json("review", "list")["reviews"]]

    def test_two_side_by_side(self, agent: AgentProcess, caller: Caller) -> None:
        """Of two requests that waited together one begins; the other meets the review that is owed."""
        with Caller(agent.socket, uid=OTHER_UID) as second:
            asked = [ask(caller, "glass"), ask(second, "glass")]
            with ThreadPoolExecutor(2) as pool:
                outcomes = sorted(pool.map(lambda each: decide(agent, each), asked))
            assert ["active", "review_owed"] == outcomes


class TestBurying:
    def test_large_requests(self, agent: AgentProcess, caller: Caller) -> None:
        """Requests as large as they can be leave the list readable, and each can be looked at whole."""
        with Caller(agent.socket, uid=OTHER_UID) as other:
            asked = ask(other, params={"note": "n" * 4_000})
            (listed,) = room.approvals(agent)
            assert 200 == len(listed.params["note"])
            assert "n" * 4_000 in agent.run("approval", "show", asked["approval"]).stdout


class TestRaces:
    @pytest.mark.parametrize("verdicts", [("approve",), ("approve", "deny"), ("deny",)])
    def test_fifty_at_once(self, agent: AgentProcess, caller: Caller, verdicts: tuple[str, ...]) -> None:
        """Fifty decide at once: one decision counts, and the task is what it said."""
        asked = ask(caller)
        with ThreadPoolExecutor(RACERS) as pool:
            said = list(
                pool.map(
                    lambda number: (verdict := verdicts[number % len(verdicts)], decide(agent, asked, verdict)),
                    range(RACERS),
                )
            )
        state, _ = state_of(agent, asked["id"])
        won = [each for each in said if each[1] in {"active", "revoked"}]
        assert [("approve", "active") if state == "active" else ("deny", "revoked")] == won
        # A denial does not wait for a beginning that is being written: its end is then written behind it.
        lived = [name for name in room.trail(agent, asked["id"]) if name in {"task_begun", "task_ended"}]
        assert lived in ([["task_begun"]] if state == "active" else [["task_ended"], ["task_begun", "task_ended"]])
        assert {each[1] for each in said} - {state} <= {"not_found", "failed_precondition", "task_not_active"}


class TestStore:
    @pytest.mark.parametrize("kind", ["asked", "glass"])
    def test_what_cannot_be_written(self, agent: AgentProcess, caller: Caller, kind: str) -> None:
        """An approval that cannot be written is none: the task stays pending; a denial holds all the same."""
        with Caller(agent.socket, uid=OTHER_UID) as other, ThreadPoolExecutor(1) as pool:
            begun = caller.ask("begin_process", type=kind, approve_wait=0)
            asked = {"approval": (shown := room.approvals(agent)[0]).id, "digest": shown.digest}
            refused = ask(other)
            with failing(agent):
                assert decide(agent, asked) in {"store_failed", "store_full"}
                assert "pending" == state_of(agent, begun["id"])[0]
                assert "approval_required" == caller.ask("token", task=begun["id"])["code"]
                denying = pool.submit(decide, agent, refused, "deny")
                assert ("revoked", "approval_denied") == ended(agent, refused["id"])
                assert "not_on_disk" == denying.result()
            assert "active" == decide(agent, asked)


def _code(client: SyncClient, task_id: str) -> str:
    from sojourn.errors import SojournError

    try:
        client.get_token(task_id)
    except SojournError as error:
        return error.remote_code
    return "a token"
