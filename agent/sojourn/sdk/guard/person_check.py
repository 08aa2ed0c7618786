"""Whom a request's token is for: whether its route takes a person's, how that person logged in, and which one it is.

A service that knows nothing of people reads who acts, and would do for that workload what it may do for one person
alone. So a route takes no person's token unless it says that it does.
"""

from typing import Final, Literal

from sojourn.errors.oauth import NotApproved
from sojourn.errors.people import PersonRefused
from sojourn.limits import TOKEN_SKEW_SECONDS
from sojourn.sdk.guard.routes import Action
from sojourn.tasktoken.person_claims import PersonClaims
from sojourn.tasktoken.task_claim import APPROVED
from sojourn.tasktoken.tokens import TaskToken

Taking = Literal["required", "optional", "refused"]
REQUIRED: Final = "required"
OPTIONAL: Final = "optional"
REFUSED: Final = "refused"


def taking(action: Action, by_default: str) -> str:
    """Whether an action takes the token of a person. One that asks something of them needs one."""
    return REQUIRED if action.asks_of_person else action.person or by_default


def takes(token: TaskToken, action: Action, by_default: str) -> bool:
    """Whether an action takes a token, by whether that is a person's."""
    return taking(action, by_default) in ({REQUIRED, OPTIONAL} if token.person is not None else {REFUSED, OPTIONAL})


def check_person(token: TaskToken, action: Action, by_default: str, now: float) -> None:
    """Raise NotApproved, or PersonRefused: `person_not_taken`, `person_required`, `insufficient_user_authentication`.

    Which person it is (`person_params`) is compared where parameters are. `now`: seconds since the epoch.
    """
    if token.person is not None and not takes(token, action, by_default):
        said = "the token is for a person, and this service takes tokens of workloads alone here"
        raise PersonRefused("person_not_taken", said)
    if token.person is None and not takes(token, action, by_default):
        said = "the token is for no person, and this needs a task that is for one"
        raise PersonRefused("person_required", said, acr_values=action.acr_wanted, max_age=action.max_age)
    if token.person is not None:
        _check_login(token.person, action, now)
    if action.acr == APPROVED and not token.approved:
        raise NotApproved("this action needs a task that somebody has approved")


def _check_login(person: PersonClaims, action: Action, now: float) -> None:
    said = ""
    if action.acr_wanted and person.acr not in action.acr_wanted:
        said = "the person has not logged in as this action needs it"
    elif action.max_age is not None and not person.auth_time:
        said = "nobody says when the person logged in, and this action needs to know"
    elif action.max_age is not None and not -TOKEN_SKEW_SECONDS <= now - person.auth_time <= action.max_age:
        said = "the person has logged in too long ago for this action"
    if said:
        code = "insufficient_user_authentication"
        raise PersonRefused(code, said, acr_values=action.acr_wanted, max_age=action.max_age)
