"""Tasks: they begin, give tokens, and end in every way that they can."""

import os

import pytest
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.cgroups import cgroup
from harness.exchanges import part
from harness.taskagent import (
    TICKETS,
    TRIAGE,
)
from harness.taskcalls import Feed, TaskStream
from harness.tasklives import GONE, begun, check_over
from sojourn import SyncClient
from sojourn._pb.sojourn.v1 import tasks_pb2 as pb

# --- the life of a task ---------------------------------------------------------------------------------------------


def test_a_task_gives_a_token_that_is_good(holder: Caller, service: SyncClient, feed: Feed) -> None:
    """A task that has begun gives a token which is valid for its audience and action, and subscribers hear of it."""
    task, token = begun(holder)
    live = feed.delta(task, live=True)
    claims = part(token, 1)
    said = {"id": task, "type": "triage-ticket", "ver": live.version, "class": "normal"}
    assert {**said, "at": claims["task"]["at"]} == claims["task"]
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


@pytest.mark.forked
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
