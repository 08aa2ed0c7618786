"""An issuer of people's tokens whose metadata and keys are on loopback."""

from collections.abc import Iterator

import pytest
from fakes.clock import FakeClock
from fakes.people import PeopleIssuer
from harness.authserver import AuthServer


@pytest.fixture
def server() -> Iterator[AuthServer]:
    with AuthServer(path="/realms/x") as server:
        yield server


@pytest.fixture
def idp(server: AuthServer) -> PeopleIssuer:
    """Whose tokens are of the beginning of a fake clock."""
    made = PeopleIssuer(FakeClock().now().timestamp(), url=server.issuer, algorithm="RS256")
    server.jwks = made.jwks()
    return made
