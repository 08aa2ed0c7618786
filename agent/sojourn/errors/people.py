"""Errors about the person that a task is for: whose token is not taken, and who may not use the task."""

from collections.abc import Sequence
from typing import Any, Self, cast

from sojourn.errors import SojournError


class PersonRefused(SojournError):
    """What is shown or asked of a person is refused. It is made by its code, and is of that code's own class."""

    grpc_status = "INVALID_ARGUMENT"
    oauth_error = "invalid_request"

    def __new__(cls, code: str, *_: Any, **__: Any) -> Self:
        kinds = {each.code: each for each in PersonRefused.__subclasses__()}
        return cast("Self", super().__new__(kinds[code]))

    def __init__(
        self,
        code: str,  # noqa: ARG002  # `__new__` has it
        public: str,
        *,
        acr_values: Sequence[str] = (),
        max_age: int | None = None,
        detail: str = "",
    ) -> None:
        """`acr_values`, `max_age` in seconds: what another login must have (RFC 9470, 3); None: however old."""
        super().__init__(public, detail=detail)
        self.acr_values = tuple(acr_values)
        self.max_age = max_age

    def tell_of_grant(self) -> None:
        """Have it told as what is wrong with a grant (RFC 7523, 3.1): the person's token was brought as one."""
        if self.oauth_error == "invalid_request":
            self.oauth_error = "invalid_grant"


class UnknownIssuer(PersonRefused):
    """A person's token is of an issuer that the configuration, or the task type, does not name."""

    code = "unknown_issuer"


class WrongKind(PersonRefused):
    """What was shown as a person's ID token or access token is another kind of token, or is of no person."""

    code = "wrong_kind"


class WrongPresenter(PersonRefused):
    """A person's token was not given to this workload: its audience, client or `may_act` is another."""

    code = "wrong_presenter"


class HasActor(PersonRefused):
    """A person's token has `act`: somebody acts for the person already."""

    code = "has_actor"


class BoundElsewhere(PersonRefused):
    """A person's token is bound to a key (`cnf`) that the workload has not shown here."""

    code = "bound_elsewhere"


class SessionEnded(PersonRefused):
    """The session that a person's token is of has ended at its issuer."""

    code = "session_ended"


class NotActive(PersonRefused):
    """The issuer was asked, and does not say that a person's token is active (RFC 7662)."""

    code = "not_active"


class PersonBlocked(PersonRefused):
    """The issuer or an operator has blocked this person."""

    code = "person_blocked"


class OtherPerson(PersonRefused):
    """The token is not of the person, or not of the session, that the task is for."""

    code = "other_person"


class PersonRequired(PersonRefused):
    """The task type, or the service, wants a person, and there is none."""

    code = "person_required"


class PersonNotTaken(PersonRefused):
    """The task type, or the service, takes nobody's, and a person's token was shown."""

    code = "person_not_taken"


class TooOld(PersonRefused):
    """A person's token was issued too long ago for a task to begin or to be renewed with it."""

    code = "too_old"


class InsufficientUserAuthentication(PersonRefused):
    """The person has to log in again, or in another way (RFC 9470): `acr_values` and `max_age` say how."""

    code = "insufficient_user_authentication"
    grpc_status = "FAILED_PRECONDITION"
    oauth_error = "insufficient_user_authentication"


class IssuerUnavailable(PersonRefused):
    """The issuer's keys, by which a person's token is verified, or its word on whether that is still active, cannot be
    had now.
    """

    code = "issuer_unavailable"
    grpc_status = "UNAVAILABLE"
    oauth_error = "temporarily_unavailable"


class NotInScope(PersonRefused):
    """The scope, or the `authorization_details`, of the person's access token do not let this be done for them."""

    code = "not_in_scope"
    grpc_status = "PERMISSION_DENIED"
    oauth_error = "access_denied"


class OtherPersonHere(PersonRefused):
    """The process, or one that it comes from or has started, holds a task for another person."""

    code = "other_person_here"
    grpc_status = "PERMISSION_DENIED"
    oauth_error = "access_denied"


class WrongPerson(PersonRefused):
    """The request is for one person, and the task for another or nobody; or it is for nobody, and the task is not."""

    code = "wrong_person"
    grpc_status = "PERMISSION_DENIED"
    oauth_error = "access_denied"


class PersonNotNamed(PersonRefused):
    """The process holds tasks for several people, and the request does not say for which person it is."""

    code = "person_not_named"
    grpc_status = "PERMISSION_DENIED"
    oauth_error = "access_denied"
