"""Logout tokens, as an issuer of people's tokens makes them."""

from typing import Any

from fakes.people import ALICE, CHAT_CLIENT, PeopleIssuer

EVENTS = {"http://schemas.openid.net/event/backchannel-logout": {}}


def logout_claims(idp: PeopleIssuer, **changes: Any) -> dict[str, Any]:
    """As Keycloak writes them. A claim that is set to None is left out."""
    said = {
        "iss": idp.url,
        "sub": ALICE,
        "aud": CHAT_CLIENT,
        "iat": idp.at,
        "exp": idp.at + 120,
        "jti": "logout-1",
        "sid": "s1",
        "typ": "Logout",
        "events": EVENTS,
        **changes,
    }
    return {name: value for name, value in said.items() if value is not None}


def logout_token(idp: PeopleIssuer, header: dict[str, Any] | None = None, **changes: Any) -> str:
    return idp.sign(logout_claims(idp, **changes), {"typ": "logout+jwt", **(header or {})})
