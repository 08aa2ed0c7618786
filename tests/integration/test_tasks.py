"""Tasks: they begin, give tokens, and end in every way that they can; and nobody else can use them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from harness.agent import COMMAND, AgentProcess
from harness.callers import Caller
from harness.cgroups import cgroup
from harness.exchanges import part
from harness.looking import until
from harness.strangers import stranger
from harness.taskagent import (
    OTHER_UID,
    PLACE_A,
    PLACE_B,
    PRINTER,
    STRANGER_UID,
    THIRD_UID,
    TICKETS,
    TRIAGE,
)
from harness.taskcalls import Feed, TaskStream, refusal
from sojourn import SyncClient
from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn.tasks.bound import of_tool

UNKNOWN = "tsk_AAAAAAAAAAAAAAAAAAAAAA"
GONE = {"revoked: holder_exited", "revoked: holder_disconnected"}


@pytest.fixture
def feed(shared: AgentProcess) -> Iterator[Feed]:
    """A service that listens for tasks at the ticket system; its snapshot has been taken."""
    with Feed(shared.socket, [TICKETS]) as opened:
        opened.hear("snapshot")
        yield opened


@pytest.fixture
def holder(shared: AgentProcess) -> Iterator[Caller]:
    with Caller(shared.socket) as caller:
        yield caller


@pytest.fixture(scope="module")
def bystander(shared: AgentProcess) -> Iterator[Caller]:
    """A process of the same user and with the same identity, which holds no task."""
    with Caller(shared.socket) as caller:
        yield caller


def begun(holder: Caller, **options: object) -> tuple[str, str]:
    """Begin a task on a stream and get a token; return the task's ID and the token."""
    task = holder.ask("begin", type="triage-ticket", **options)
    assert "task" == task["event"], task
    return task["id"], holder.ask("token", task=task["id"])["token"]


def check_over(service: SyncClient, feed: Feed, task: str, token: str, said: set[str]) -> None:
    """The feed says that the task is over, and from then on its token is dead, with the reason."""
    delta = feed.delta(task, live=False)
    assert delta.reason in said
    assert delta.version > part(token, 1)["task"]["ver"]
    verdict = service.validate_token(token, TICKETS, "ticket:read")
    assert (False, "task_over") == (verdict.valid, verdict.code)
    assert f"the task is over: {delta.reason.replace(': ', ', ')}" == verdict.reason


# --- the life of a task ---------------------------------------------------------------------------------------------


def test_a_task_gives_a_token_that_is_good(holder: Caller, service: SyncClient, feed: Feed) -> None:
    """A task that has begun gives a token which is valid for its audience and action, and subscribers hear of it."""
    task, token = begun(holder)
    live = feed.delta(task, live=True)
    claims = part(token, 1)
    assert {"id": task, "type": "triage-ticket", "ver": live.version, "class": "normal"} == claims["task"]
    verdict = service.validate_token(token, TICKETS, "ticket:read")
    assert (True, "", "", "task", TRIAGE) == (
        verdict.valid,
        verdict.code,
        verdict.reason,
        verdict.kind,
        str(verdict.spiffe_id),
    )
    assert TICKETS == verdict.claims["aud"]


@pytest.mark.parametrize(("failed", "reason"), [(False, "success"), (True, "failure")], ids=["succeeded", "failed"])
def test_completing_ends_a_task(holder: Caller, service: SyncClient, feed: Feed, failed: bool, reason: str) -> None:
    """A task that its holder completes is over at once, and says whether it failed."""
    task, token = begun(holder)
    holder.tell("complete", task=task, failed=failed)
    answer = holder.hear("task")
    assert ("completed", reason) == (answer["state"], answer["reason"])
    check_over(service, feed, task, token, {f"completed: {reason}"})


def test_the_holder_is_killed(holder: Caller, service: SyncClient, feed: Feed) -> None:
    """A task whose holder is killed with SIGKILL is over."""
    task, token = begun(holder)
    holder.kill()
    check_over(service, feed, task, token, GONE)


def test_the_holder_returns(holder: Caller, service: SyncClient, feed: Feed) -> None:
    """A task on a stream is over when its holder exits with success but without completing it."""
    task, token = begun(holder)
    holder.tell("exit", status=0)
    check_over(service, feed, task, token, GONE)


def test_the_stream_is_cancelled(shared: AgentProcess, service: SyncClient, feed: Feed) -> None:
    """A task on a stream is over when the stream is cancelled, though its holder lives on."""
    with TaskStream(shared.socket) as stream:
        stream.send(begin=pb.BeginTaskRequest(type="triage-ticket"))
        task = stream.hear().begun.id
        token = service.get_token(task).token  # another connection of the same process
        stream.call.cancel()
        check_over(service, feed, task, token, {"revoked: holder_disconnected"})


def test_a_half_closed_stream_still_holds(shared: AgentProcess, service: SyncClient) -> None:
    """A holder that says it will send nothing more still holds its task."""
    with TaskStream(shared.socket) as stream:
        stream.send(begin=pb.BeginTaskRequest(type="triage-ticket"))
        task = stream.hear().begun.id
        stream.half_close()
        assert service.validate_token(service.get_token(task).token, TICKETS).valid
        assert "completed" == service.complete_task(task).state
        assert ("completed", "success") == ((ended := stream.hear().ended).state, ended.reason)


def test_time_is_up(holder: Caller, service: SyncClient, feed: Feed) -> None:
    """A task is over at its deadline, and its holder is told."""
    task, token = begun(holder, max_seconds=2)
    ended = holder.hear("ended")
    assert (task, "expired", "deadline") == (ended["id"], ended["state"], ended["reason"])
    assert feed.delta(task, live=False).reason == "expired: deadline"
    verdict = service.validate_token(token, TICKETS)
    assert not verdict.valid
    assert verdict.code in {"task_over", "expired"}  # the token ends with its task, to the second


def test_an_operator_revokes(shared: AgentProcess, holder: Caller, service: SyncClient, feed: Feed) -> None:
    """A task that an operator revokes is over when the command returns, and its holder is told."""
    task, token = begun(holder)
    shown = shared.json("task", "revoke", task)
    assert ("revoked", "admin") == (shown["state"], shown["reason"])
    check_over(service, feed, task, token, {"revoked: admin"})
    ended = holder.hear("ended")
    assert ("revoked", "admin") == (ended["state"], ended["reason"])


@pytest.mark.root
@pytest.mark.parametrize("do", ["begin", "begin_process"])
def test_the_holder_changes_its_cgroup(shared: AgentProcess, service: SyncClient, feed: Feed, do: str) -> None:
    """A task is over soon after its holder was moved to another cgroup, whatever it is bound to."""
    with cgroup(do) as place, Caller(shared.socket) as holder:
        task = holder.ask(do, type="triage-ticket")["id"]
        token = holder.ask("token", task=task)["token"]
        assert service.validate_token(token, TICKETS).valid
        place.take(holder.pid)
        check_over(service, feed, task, token, {"revoked: attestation_changed"})
        place.leave(holder.pid)
        assert "revoked" == shared.json("task", "show", task)["state"]  # going back takes nothing back


def test_the_entry_is_deleted(agent: AgentProcess) -> None:
    """A task is over as soon as the entry is deleted that earned its holder the identity."""
    entry = agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
    agent.register("/watcher", f"unix:gid:{os.getgid()}")
    with Caller(agent.socket) as holder, Feed(agent.socket, [TICKETS]) as feed, SyncClient(agent.socket) as service:
        feed.hear("snapshot")
        task, token = begun(holder)
        agent.run("entry", "delete", entry["id"])
        check_over(service, feed, task, token, {"revoked: attestation_changed"})
        assert "revoked" == holder.hear("ended")["state"]


def test_an_ended_task_gives_no_token(holder: Caller) -> None:
    """Asking an ended task of one's own for a token says that the task is over, and with what."""
    task, _ = begun(holder)
    holder.tell("complete", task=task)
    holder.hear("task")
    holder.tell("token", task=task)
    refused = holder.hear("error")
    assert ("task_not_active", "the task is over: completed, success") == (refused["code"], refused["message"])


def test_completing_twice(holder: Caller) -> None:
    """Completing an ended task changes nothing and answers with what it ended with."""
    task, _ = begun(holder)
    answers = []
    for failed in (True, False):
        holder.tell("complete", task=task, failed=failed)
        answers.append(holder.hear("task"))
    assert [("completed", "failure")] * 2 == [(each["state"], each["reason"]) for each in answers]


def test_completing_a_revoked_task(shared: AgentProcess, holder: Caller) -> None:
    """A revoked task stays revoked when its holder completes it."""
    task, _ = begun(holder)
    shared.run("task", "revoke", task)
    holder.tell("complete", task=task)
    answer = holder.hear("task")
    assert ("revoked", "admin") == (answer["state"], answer["reason"])


def test_revoking_a_completed_task(shared: AgentProcess, holder: Caller) -> None:
    """A completed task stays completed when an operator revokes it."""
    task, _ = begun(holder)
    holder.tell("complete", task=task)
    holder.hear("task")
    shown = shared.json("task", "revoke", task)
    assert ("completed", "success") == (shown["state"], shown["reason"])


# --- whose task it is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("doing", ["token", "complete"])
def test_a_task_is_not_for_another_process(holder: Caller, bystander: Caller, doing: str) -> None:
    """Another process of the same user and identity gets for a task the very answer that it gets for an unknown one."""
    task, _ = begun(holder)
    refused = bystander.ask(doing, task=task)
    assert bystander.ask(doing, task=UNKNOWN) == refused
    assert ("error", "not_found") == (refused["event"], refused["code"])
    assert "token" == holder.ask("token", task=task)["event"]  # nothing has become of it


@pytest.mark.root
@pytest.mark.parametrize("uid", [OTHER_UID, THIRD_UID], ids=["same identity", "another identity"])
def test_a_task_is_not_for_another_user(shared: AgentProcess, holder: Caller, uid: int) -> None:
    """A process of another user cannot tell a task from an unknown one, even if it has the same identity."""
    task, _ = begun(holder)
    with stranger(shared.socket, uid) as other:
        refused = other.ask("token", task=task)
        assert other.ask("token", task=UNKNOWN) == refused
        assert "not_found" == refused["code"]


def test_an_ended_task_is_not_for_another_process(holder: Caller, bystander: Caller) -> None:
    """A process cannot tell an ended task of another from an unknown one."""
    task, _ = begun(holder)
    holder.tell("complete", task=task)
    holder.hear("task")
    assert bystander.ask("token", task=UNKNOWN) == bystander.ask("token", task=task)


CHILD = f"{sys.executable} {COMMAND[0]} task token "


def session(shared: AgentProcess, script: str) -> "subprocess.Popen[str]":
    """`sojourn task run` with a shell script; what the script prints can be read."""
    return subprocess.Popen(
        [*COMMAND, "task", "run", "--type", "triage-ticket", "--", "sh", "-c", script],
        env=shared.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_descendants_may_use_a_session_task(shared: AgentProcess, service: SyncClient) -> None:
    """A grandchild of a session task's holder gets a token of the task, and the token is dead when the command ends."""
    with session(shared, f"sh -c '{CHILD}; true'; echo; read line") as run:
        assert run.stdout is not None
        token = run.stdout.readline().strip()
        assert service.validate_token(token, TICKETS, "ticket:read").valid
        run.communicate("\n", timeout=30)
    assert 0 == run.returncode
    verdict = service.validate_token(token, TICKETS)
    assert ("task_over", "the task is over: completed, success") == (verdict.code, verdict.reason)


def test_a_daemonised_descendant_may_use_a_session_task(shared: AgentProcess, service: SyncClient) -> None:
    """A descendant that forked twice and began a session of its own still counts as one of the task's."""
    daemon = f"(setsid sh -c '{CHILD}; echo done' &) ; read line"
    with session(shared, daemon) as run:
        assert run.stdout is not None
        token = run.stdout.readline().strip()
        verdict = service.validate_token(token, TICKETS)
        assert (True, "") == (verdict.valid, verdict.reason)
        run.communicate("\n", timeout=30)
    assert 0 == run.returncode


def test_others_may_not_use_a_session_task(shared: AgentProcess, bystander: Caller) -> None:
    """An unrelated process of the same user cannot tell a session task from an unknown one."""
    with session(shared, "echo $SOJOURN_TASK_ID; read line") as run:
        assert run.stdout is not None
        task = run.stdout.readline().strip()
        assert task.startswith("tsk_")
        refused = bystander.ask("token", task=task)
        assert bystander.ask("token", task=UNKNOWN) == refused
        assert "not_found" == refused["code"]
        run.communicate("\n", timeout=30)


def test_a_plain_task_is_not_for_descendants(shared: AgentProcess) -> None:
    """A task that is no session is its holder's alone: a child of the holder cannot use it."""
    with SyncClient(shared.socket) as client, client.task("triage-ticket") as task:
        assert task.token().actions == ("ticket:read",)
        done = shared.run("task", "token", task.id, check=False)
    assert (1, "error: there is no such task [not_found]") == (done.returncode, done.stderr.splitlines()[0])


# --- tasks that live with a process ---------------------------------------------------------------------------------


def test_a_task_bound_to_the_caller(holder: Caller, service: SyncClient, feed: Feed) -> None:
    """A task bound to a process gives tokens to it, and is over when the process is killed."""
    task = holder.ask("begin_process", type="triage-ticket")["id"]
    token = holder.ask("token", task=task)["token"]
    assert service.validate_token(token, TICKETS).valid
    holder.kill()
    check_over(service, feed, task, token, {"revoked: holder_exited"})


def test_a_task_bound_to_an_ancestor(shared: AgentProcess, service: SyncClient, feed: Feed) -> None:
    """A helper may bind a task to an ancestor; it outlives the helper and ends with the ancestor."""
    script = f"id=$({COMMAND[0]} task begin --type triage-ticket); echo $id; {COMMAND[0]} task token $id; read line"
    with subprocess.Popen(
        ["sh", "-c", script], env=shared.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as shell:
        assert shell.stdout is not None
        task, token = shell.stdout.readline().strip(), shell.stdout.readline().strip()
        assert service.validate_token(token, TICKETS).valid
        assert shell.pid == shared.json("task", "show", task)["holder_pid"]
        shell.send_signal(signal.SIGKILL)
    check_over(service, feed, task, token, {"revoked: holder_exited"})


def test_a_task_is_not_bound_to_a_stranger(holder: Caller, bystander: Caller) -> None:
    """A task cannot be bound to a process that is no ancestor of the caller."""
    refused = holder.ask("begin_process", type="triage-ticket", holder_pid=bystander.pid)
    assert ("policy_denied", "holder_pid is neither the caller nor an ancestor of it that runs as the same user") == (
        refused["code"],
        refused["message"],
    )


@pytest.mark.root
def test_a_task_is_not_bound_to_an_ancestor_of_another_user(shared: AgentProcess) -> None:
    """A task cannot be bound to an ancestor that runs as another user."""
    with stranger(shared.socket, OTHER_UID) as caller:
        refused = caller.ask("begin_process", type="triage-ticket", holder_pid=os.getpid())
        assert "policy_denied" == refused["code"]


def test_a_holder_that_does_not_exist(holder: Caller) -> None:
    """Binding a task to a process that does not exist is refused with a sentence that says so."""
    refused = holder.ask("begin_process", type="triage-ticket", holder_pid=2**22 - 3)
    assert ("error", f"workload attestation failed: there is no process {2**22 - 3}") == (
        refused["event"],
        refused["message"],
    )
    assert "holder_pid is negative" == holder.ask("begin_process", type="triage-ticket", holder_pid=-5)["message"]


# --- what may begin -------------------------------------------------------------------------------------------------


def beginning(**fields: object) -> pb.BeginTaskRequest:
    return pb.BeginTaskRequest(**{"type": "triage-ticket", **fields})


@pytest.mark.parametrize(
    ("request_", "status", "sentence"),
    [
        (beginning(type=""), "INVALID_ARGUMENT", "type must be specified"),
        (beginning(type="no-such"), "INVALID_ARGUMENT", "there is no task type 'no-such'"),
        (
            beginning(type="not-for-triage"),
            "PERMISSION_DENIED",
            "none of the caller's identities may begin task type 'not-for-triage'",
        ),
        (
            beginning(spiffe_id="spiffe://example.org/third"),
            "PERMISSION_DENIED",
            "the caller as 'spiffe://example.org/third' may not begin task type 'triage-ticket'",
        ),
        (beginning(max_seconds=-1), "INVALID_ARGUMENT", "max_seconds is negative"),
        (beginning(params={"x": "1"}), "INVALID_ARGUMENT", "task type 'triage-ticket' has no parameter 'x'"),
        (
            beginning(type="print-pages", params={"pages": "ten"}),
            "INVALID_ARGUMENT",
            "parameter 'pages' is not a whole number of at most 18 digits",
        ),
        (
            beginning(type="print-pages", params={"colour": "yes"}),
            "INVALID_ARGUMENT",
            "parameter 'colour' is not true or false",
        ),
        (
            beginning(grants=[pb.Grant(resource=TICKETS, actions=["ticket:close"])]),
            "PERMISSION_DENIED",
            f"task type 'triage-ticket' does not have action 'ticket:close' at '{TICKETS}'",
        ),
        (
            beginning(grants=[pb.Grant(resource=f"{TICKETS}/", actions=["ticket:read"])]),
            "PERMISSION_DENIED",
            f"task type 'triage-ticket' does not reach '{TICKETS}/'",
        ),
        (
            beginning(grants=[pb.Grant(resource="tickets", actions=["ticket:read"])]),
            "INVALID_ARGUMENT",
            "resource 'tickets' is not an absolute URI without fragment",
        ),
        (
            beginning(grants=[pb.Grant(resource=TICKETS)]),
            "INVALID_ARGUMENT",
            "a grant has 1 to 50 actions",
        ),
        (
            beginning(type="print-pages", params={"pages": "11"}),
            "PERMISSION_DENIED",
            "policy allows nothing of task type 'print-pages'",
        ),
    ],
    ids=lambda value: "" if isinstance(value, pb.BeginTaskRequest) else None,
)  # fmt: skip
def test_what_may_not_begin(shared: AgentProcess, request_: pb.BeginTaskRequest, status: str, sentence: str) -> None:
    """A task that may not begin is refused with the status and the one sentence for it."""
    assert (status, sentence) == refusal(shared.socket, "/sojourn.v1.Tasks/BeginTask", request_, pb.Task)


@pytest.mark.root
def test_a_stranger_begins_nothing(shared: AgentProcess) -> None:
    """A process without identity begins no task."""
    with stranger(shared.socket, STRANGER_UID) as caller:
        assert "no_identity" == caller.ask("begin", type="triage-ticket")["code"]


def test_policy_takes_away(holder: Caller) -> None:
    """Of all that a type has, a task gets what policy allows; what is named outright and denied refuses the whole."""
    task = holder.ask("begin", type="print-pages", params={"pages": "3"})
    assert ["page:print"] == holder.ask("token", task=task["id"])["actions"]
    refused = holder.ask(
        "begin", type="print-pages", params={"pages": "3"}, grants=[[PRINTER, ["page:print", "toner:replace"]]]
    )
    assert ("policy_denied", f"action 'toner:replace' at '{PRINTER}' was denied: no policy permits it") == (
        refused["code"],
        refused["message"],
    )


def test_a_task_has_no_more_than_it_asked_for(holder: Caller) -> None:
    """A task that asked for one action at one place has neither the other actions nor the other places of its type."""
    task = holder.ask("begin", type="two-places", grants=[[PLACE_A, ["doc:read"]]])["id"]
    assert ["doc:read"] == holder.ask("token", task=task)["actions"]
    assert "action_outside_type" == holder.ask("token", task=task, actions=["doc:write"])["code"]
    assert "invalid_target" == holder.ask("token", task=task, resource=PLACE_B)["code"]


def test_a_task_with_several_places(holder: Caller, service: SyncClient) -> None:
    """A token is for one place: it must be named where a task has several, and is good nowhere else."""
    task = holder.ask("begin", type="two-places")["id"]
    assert "invalid_input" == holder.ask("token", task=task)["code"]
    token = holder.ask("token", task=task, resource=PLACE_A, actions=["doc:read"])
    assert ["doc:read"] == token["actions"]
    assert service.validate_token(token["token"], PLACE_A, "doc:read").valid
    assert "action_not_granted" == service.validate_token(token["token"], PLACE_A, "doc:write").code
    assert "wrong_audience" == service.validate_token(token["token"], PLACE_B, "doc:read").code


@pytest.mark.parametrize(
    ("type_", "seconds", "most"), [("triage-ticket", 0, 60), ("careful", 0, 15), ("triage-ticket", 5, 5)]
)
def test_a_token_does_not_outlive(holder: Caller, type_: str, seconds: int, most: int) -> None:
    """A token lives for no more than its class allows, and ends no later than its task."""
    task = holder.ask("begin", type=type_, max_seconds=seconds)["id"]
    bound = {"bound": "agent", "params_digest": of_tool("destroy", {})} if type_ == "careful" else {}
    claims = part(holder.ask("token", task=task, **bound)["token"], 1)
    assert claims["exp"] - claims["iat"] in {most - 1, most}  # cut to whole seconds


# --- the stream's own rules -----------------------------------------------------------------------------------------


def test_a_stream_begins_with_begin(shared: AgentProcess) -> None:
    """A RunTask stream that does not begin with `begin` is refused."""
    with TaskStream(shared.socket) as stream:
        stream.send(complete=pb.Complete())
        assert (
            "INVALID_ARGUMENT",
            "the first request of the stream must be begin, accept or attach",
        ) == stream.refusal()


def test_a_stream_has_one_task(shared: AgentProcess, service: SyncClient) -> None:
    """A second `begin` on a stream is refused, and ends the first task with the stream."""
    with TaskStream(shared.socket) as stream:
        stream.send(begin=beginning())
        task = stream.hear().begun.id
        stream.send(begin=beginning())
        assert ("INVALID_ARGUMENT", "the task has begun already") == stream.refusal()
    until(lambda: shared.json("task", "show", task)["state"] == "revoked", "the task is over")


def test_a_stream_names_no_holder(shared: AgentProcess) -> None:
    """A RunTask stream that names a holder is refused: the stream is the holder."""
    with TaskStream(shared.socket) as stream:
        stream.send(begin=beginning(holder_pid=1))
        assert "INVALID_ARGUMENT" == stream.refusal()[0]
