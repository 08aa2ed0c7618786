"""Owners and sponsors: a text for people, or a person of an OpenID provider."""

import pytest
from sojourn.limits import OWNER_MAX
from sojourn.settings.owners import check_owner


@pytest.mark.parametrize("text", ["", "Support, floor 2", "oidc:https://id.example.org/realms/a#4711", "ö" * OWNER_MAX])
def test_taken(text):
    """A text for people and a person of an issuer are taken as they stand; an empty one names nobody."""
    assert text == check_owner(text)


@pytest.mark.parametrize(
    "text",
    [
        "x" * (OWNER_MAX + 1),
        " support",
        "a\nb",
        "a\u202eb",
        "oidc:https://id.example.org",
        "oidc:http://id.example.org#4711",
        "oidc:#4711",
        "oidc:https://id.example.org#",
    ],
)
def test_refused(text):
    """What is too long, cannot be printed, or names no person of an https issuer, is refused."""
    with pytest.raises(ValueError, match=r"longer|printed|oidc:"):
        check_owner(text)
