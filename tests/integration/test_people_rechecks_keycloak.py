"""A real Keycloak is asked whether people's tokens are active: who is disabled there is done with here."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import sojourn
from harness.agent import AgentProcess
from harness.keycloak import running_keycloak
from harness.keycloakagent import CHAT, agent_at, people_at, running_at
from harness.looking import until
from harness.peoplekeycloak import NODE, LoggedIn, PeopleRealm
from sojourn.errors import SojournError
from sojourn.sdk.task.current import TaskBlock

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]
RECHECK = 5


@dataclass
class Place:
    people: PeopleRealm
    agent: AgentProcess

    def begin(self, who: LoggedIn) -> TaskBlock:
        return sojourn.task("for-many", person=sojourn.PersonToken.id_token(who.id_token), spiffe_id=CHAT)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with running_keycloak().realm(token_seconds=300) as realm:
        people = people_at(realm)
        with running_at(realm, agent_at(realm, more=f'recheck = "{RECHECK}s"')) as agent:
            monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", f"unix://{agent.socket}")
            yield Place(people, agent)


def test_disabled(place: Place) -> None:
    """A user is disabled at Keycloak, which tells nobody: their task is over soon after the next question, and that of
    another user goes on. A client that may not know of their ID token is told so at once, and not that they left.
    """
    alice, bob = place.people.login("alice"), place.people.login("bob")
    with pytest.raises(SojournError) as refused, place.begin(alice):
        pass
    assert "not_active" == refused.value.remote_code
    place.people.let_introspect(NODE)
    with place.begin(alice) as task, place.begin(bob) as other:
        place.people.enable("alice", enabled=False)
        began = time.monotonic()
        until(lambda: task.ended, seconds=RECHECK + 15)
        print(f"over {time.monotonic() - began:.2f} s after she was disabled")
        assert ("revoked", "session_ended") == (task.state, task.reason)
        place.people.enable("alice", enabled=True)
        with sojourn.acting_for(other.person.name):
            assert other.token()
        assert "active" == other.state
