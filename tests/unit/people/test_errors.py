"""errors/people.py: what callers are answered about people, by stable codes."""

import pytest
from sojourn.endpoints.http1.oauth_responses import http_status
from sojourn.errors.people import PersonRefused, WrongPerson

ANSWERS = {
    "invalid_request": (
        "INVALID_ARGUMENT",
        400,
        (
            "unknown_issuer wrong_kind wrong_presenter has_actor bound_elsewhere session_ended not_active person_blocked"
            " other_person person_required person_not_taken too_old"
        ),
    ),
    "access_denied": ("PERMISSION_DENIED", 400, "other_person_here wrong_person person_not_named not_in_scope"),
    "insufficient_user_authentication": ("FAILED_PRECONDITION", 400, "insufficient_user_authentication"),
    "temporarily_unavailable": ("UNAVAILABLE", 503, "issuer_unavailable"),
}


@pytest.mark.parametrize(("oauth", "answer"), ANSWERS.items())
def test_each_code(oauth: str, answer: tuple[str, int, str]) -> None:
    """Each code has its OAuth error, its gRPC status and its HTTP status."""
    status, http, codes = answer
    for code in codes.split():
        error = PersonRefused(code, "no")
        assert (code, oauth, status, http, "no") == (
            error.code,
            error.oauth_error,
            error.grpc_status,
            http_status(type(error)),
            str(error),
        )


def test_no_other() -> None:
    """There is no code beside those, and an error is of the class of its code."""
    named = {code for _, _, codes in ANSWERS.values() for code in codes.split()}
    assert named == {each.code for each in PersonRefused.__subclasses__()}
    assert isinstance(PersonRefused("wrong_person", "no"), WrongPerson)
    with pytest.raises(KeyError):
        PersonRefused("another", "no")
