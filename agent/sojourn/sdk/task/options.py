"""What a task is begun with: the options of `sojourn.task`, `Client.task`, `begin_task` and their blocking twins.

They are named once, here: whoever passes them on passes them whole, and `begin_request` and `accept_request` alone
know their messages.
"""

from collections.abc import Iterable
from typing import Final, TypedDict, cast

from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn.errors import InvalidInput
from sojourn.sdk.task.task import OnPending, OnPersonExpires
from sojourn.sdk.task.values import DelegationTicket, Params, PersonToken, params_as_text
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.grants import Grant


class AcceptOptions(TypedDict, total=False):
    """What is begun by a ticket too, which says the rest."""

    spiffe_id: SpiffeId | str | None  # which of the caller's identities; None: the first that may
    session: bool  # whether descendants of the holder may use the task too


class BeginOptions(AcceptOptions, total=False):
    """What is begun."""

    params: Params | None  # by name, as the task type has them
    grants: Iterable[Grant] | None  # what is wanted; None: all that the type allows
    max_seconds: int  # a shorter life than the type's; 0: the type's
    person: PersonToken | None  # whom the task is for; None: nobody but its workload


class TaskOptions(BeginOptions, total=False):
    """What is begun, and how to wait where somebody must agree first."""

    approve_wait: float | None  # seconds; None: until the request expires
    on_pending: OnPending | None  # hears of the request
    on_person_expires: OnPersonExpires | None  # hears of it a minute before the token of the person ends


_OF_A_TICKET: Final = tuple(name for name in BeginOptions.__annotations__ if name not in AcceptOptions.__annotations__)


def begin_request(
    type_: str,
    *,
    params: Params | None = None,
    grants: Iterable[Grant] | None = None,
    spiffe_id: SpiffeId | str | None = None,
    session: bool = False,
    max_seconds: int = 0,
    holder_pid: int = 0,
    idempotency_key: str = "",
    person: PersonToken | None = None,
) -> tasks_pb2.BeginTaskRequest:
    """The message that asks the agent for a task. An option that there is not is a TypeError, as of any function."""
    return tasks_pb2.BeginTaskRequest(
        type=type_,
        params=params_as_text(params),
        grants=grant_messages(grants or ()),
        spiffe_id=str(spiffe_id or ""),
        session=session,
        max_seconds=max_seconds,
        holder_pid=holder_pid,
        idempotency_key=idempotency_key,
        person=None if person is None else person.message(),
    )


def accept_request(
    ticket: DelegationTicket | str,
    *,
    spiffe_id: SpiffeId | str | None = None,
    session: bool = False,
    holder_pid: int = 0,
) -> tasks_pb2.AcceptDelegationRequest:
    """The message that asks the agent for the task of a ticket."""
    return tasks_pb2.AcceptDelegationRequest(
        ticket=ticket.ticket if isinstance(ticket, DelegationTicket) else ticket,
        spiffe_id=str(spiffe_id or ""),
        session=session,
        holder_pid=holder_pid,
    )


def accept_options(options: TaskOptions) -> AcceptOptions:
    """Those that go with a ticket. Raise InvalidInput if one is given that a ticket says itself."""
    if any(options.get(name) not in (None, 0, {}) for name in _OF_A_TICKET):
        *most, last = _OF_A_TICKET
        raise InvalidInput(f"a ticket says what the task is: leave out {', '.join(most)} and {last}")
    given = {name: value for name, value in options.items() if name in AcceptOptions.__annotations__}
    return cast("AcceptOptions", given)


def grant_messages(grants: Iterable[Grant]) -> list[tasks_pb2.Grant]:
    """Grants as messages."""
    return [tasks_pb2.Grant(resource=grant.resource, actions=grant.actions) for grant in grants]
