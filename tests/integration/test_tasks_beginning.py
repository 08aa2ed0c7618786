"""Tasks: what may begin, with how much, and the rules of the stream on which they begin."""

import pytest
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.exchanges import part
from harness.looking import until
from harness.strangers import stranger
from harness.taskagent import (
    PLACE_A,
    PLACE_B,
    PRINTER,
    STRANGER_UID,
    TICKETS,
)
from harness.taskcalls import TaskStream, refusal
from sojourn import SyncClient
from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn.tasktoken.request_digest import of_tool

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
