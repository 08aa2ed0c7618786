"""options.py: what a task is begun with, as the messages that ask for it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sojourn.errors import InvalidInput
from sojourn.sdk.task.current import task
from sojourn.sdk.task.options import AcceptOptions, BeginOptions, accept_options, accept_request, begin_request
from sojourn.sdk.task.values import DelegationTicket, PersonToken
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.grants import Grant

HELPER = SpiffeId.parse("spiffe://example.org/helper")
GIVEN: dict[str, Any] = {
    "params": {"ticket": "7"},
    "grants": [Grant.parse("https://a.example", ["read"])],
    "spiffe_id": HELPER,
    "session": True,
    "max_seconds": 9,
    "person": PersonToken.id_token("a token"),
}


def test_all_of_them_are_tried() -> None:
    """Every option has a value in these tests."""
    assert BeginOptions.__annotations__.keys() == GIVEN.keys()


@pytest.mark.parametrize("name", BeginOptions.__annotations__)
def test_begin(name: str) -> None:
    """The message of a task's beginning says each option that is given."""
    assert begin_request("triage") != begin_request("triage", **{name: GIVEN[name]})


@pytest.mark.parametrize("name", AcceptOptions.__annotations__)
def test_accept(name: str) -> None:
    """The message that takes a ticket says each option that goes with one."""
    assert accept_request("dlg_1") != accept_request("dlg_1", **{name: GIVEN[name]})


def test_ticket() -> None:
    """A ticket is given as what made it returned, or as its text; who is asked for is said as text."""
    ticket = DelegationTicket("dlg_1", datetime.now(UTC))
    request = accept_request(ticket, spiffe_id=HELPER, holder_pid=7)
    assert request == accept_request("dlg_1", spiffe_id=str(HELPER), holder_pid=7)
    assert ("dlg_1", str(HELPER), 7) == (request.ticket, request.spiffe_id, request.holder_pid)


@pytest.mark.parametrize("name", ["params", "grants", "max_seconds", "person"])
def test_what_a_ticket_says_itself(name: str) -> None:
    """An option that a ticket says itself is refused with one, when the block is made and not when it is entered."""
    options: Any = {name: GIVEN[name]}
    with pytest.raises(InvalidInput, match="leave out params, grants, max_seconds and person"):
        task(ticket="dlg_1", **options)


def test_what_goes_with_a_ticket() -> None:
    """The others go on to the ticket's message, and none of those that say how to wait."""
    assert {"spiffe_id": HELPER, "session": True} == accept_options(
        {"spiffe_id": HELPER, "session": True, "approve_wait": 3.0, "params": {}, "max_seconds": 0}
    )
