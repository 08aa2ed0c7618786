"""Signed events of a real Keycloak about people: somebody logs out there, and what an agent does for them is over."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sojourn
from fakes.signed_events import CAEP, RISC
from harness.agent import AgentProcess
from harness.eventsender import post
from harness.keycloak import Running, running_keycloak
from harness.keycloakagent import CHAT, agent_at, people_at, polled, running_at
from harness.loginform import send
from harness.looking import next_second, until
from harness.loopback import LoopbackServer, QuietHandler
from harness.peoplekeycloak import NODE, LoggedIn, PeopleRealm

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]
POLL_SECONDS = 1
PUSHED = """
[[signals]]
issuer = "{issuer}"
people = "corp"
plain_http = true
timeout = "30s"
"""


@dataclass
class Place:
    people: PeopleRealm
    agent: AgentProcess

    def task(self, who: LoggedIn) -> Any:
        return sojourn.task("for-many", person=sojourn.PersonToken.id_token(who.id_token), spiffe_id=CHAT)


@pytest.fixture(scope="module")
def keycloak() -> Running:
    return running_keycloak()


@pytest.fixture(scope="module")
def running(keycloak: Running) -> Iterator[Place]:
    with keycloak.realm(token_seconds=300) as realm:
        people = people_at(realm)
        people.let_have_streams(NODE)
        with running_at(realm, agent_at(realm, tables=polled(realm, POLL_SECONDS))) as agent:
            place = Place(people, agent)
            until(lambda: polled_at(place), seconds=90)
            yield place


@pytest.fixture
def place(running: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The same, whose agent programs find by themselves."""
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", f"unix://{running.agent.socket}")
    return running


def polled_at(place: Place) -> object:
    return place.agent.json("status")["signals"][0]["polled_at"]


def test_she_logs_out(place: Place) -> None:
    """Alice logs out at Keycloak: the next poll ends her task, by her session, and bob's goes on."""
    alice, bob = place.people.login("alice"), place.people.login("bob")
    home = place.people.login("alice")
    assert alice.session != home.session
    took = []
    with place.task(bob) as bobs, place.task(home) as other:
        for _ in range(5):
            with place.task(alice) as task:
                began = time.monotonic()
                place.people.logout(alice)
                until(lambda ended=task: ended.ended, seconds=30)
                took.append(time.monotonic() - began)
            assert ("revoked", "session_ended") == (task.state, task.reason)
            alice = place.people.login("alice")
        assert not bobs.ended
        assert not other.ended
    print(
        "from the logout to the end of the task, polled each second, ms:", sorted(round(each * 1000) for each in took)
    )
    assert max(took) < POLL_SECONDS + 3
    assert [] == [each for each in place.agent.log_lines() if each["event"] == "signal_refused"]


def test_everywhere(place: Place) -> None:
    """An admin logs alice out everywhere: Keycloak names all sessions by `ALL`, and all of her tasks end."""
    first, second = place.people.login("alice"), place.people.login("alice")
    next_second()  # what was issued in the second of another test's logout is over too
    with place.task(first) as one, place.task(second) as two:
        place.people.log_out_everywhere("alice")
        until(lambda: one.ended and two.ended, seconds=30)
        assert "session_ended" == one.reason == two.reason
    next_second()  # whoever logs in now is not of before


def test_what_is_no_end(place: Place) -> None:
    """A password that an admin resets is told of alice, and ends nothing; she may log in with the new one."""
    alice = place.people.login("alice")
    with place.task(alice) as task:
        before = place.agent.json("status")["signals"][0]["not_ours"]
        place.people.reset_password("alice")
        until(lambda: place.agent.json("status")["signals"][0]["not_ours"] > before, seconds=30)
        assert not task.ended
    assert place.people.login("alice").subject == alice.subject


def test_what_it_does_not_send(place: Place) -> None:
    """Keycloak creates a stream without a word for less than was asked for: the agent tells of what it leaves out."""
    [seen] = place.agent.json("status")["signals"]
    assert {f"{RISC}account-disabled", f"{RISC}sessions-revoked"} <= set(seen["not_sent"])
    assert not {f"{CAEP}session-revoked", f"{CAEP}credential-change"} & set(seen["not_sent"])
    assert "will NOT send" in place.agent.run("status").stdout
    assert "signal_stream_lacks" in {each["event"] for each in place.agent.log_lines()}


def test_nothing_is_left(place: Place) -> None:
    """What was taken was acknowledged: after a restart nothing comes again, and the stream is the one of before."""
    for _ in range(2):  # what another test had told is acknowledged with the next poll
        before = polled_at(place)
        until(lambda before=before: polled_at(place) != before, seconds=30)
    place.agent.stop()
    place.agent.start()
    until(lambda: polled_at(place), seconds=30)
    [seen] = place.agent.json("status")["signals"]
    assert (0, 0, "", "") == (seen["repeated"], seen["refused"], seen["fault"], seen["poll_fault"])
    assert 1 == [each["event"] for each in place.agent.log_lines()].count("signal_stream_created")


class Forwarder(LoopbackServer):
    """What stands before an agent that is pushed to: HTTP on loopback, handed on to the agent's socket."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.socket = ""
        outer = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = post(outer.socket, body, self.headers["Content-Type"])
                outer.answers.append(answer.status_code)
                self.send_response(answer.status_code)
                self.send_header("Content-Length", "0")
                self.end_headers()

        super().__init__(Handler)
        self.url = f"{self.origin}/events"


def push_stream(people: PeopleRealm, url: str) -> None:
    """A stream that pushes there, of a client with a secret, for the agent."""
    client = {"clientId": "pusher", "secret": "secret-of-pusher", "enabled": True, "serviceAccountsEnabled": True}
    people.admin("POST", "/clients", {**client, "standardFlowEnabled": False})
    people.let_have_streams("pusher", validPushUrls=url, streamAudience="https://sojourn.example.org")
    form = {"grant_type": "client_credentials", "scope": "ssf.read ssf.manage"}
    named = {"client_id": "pusher", "client_secret": "secret-of-pusher"}
    token = people.token({**form, **named}, "pusher")["access_token"]
    asked = {
        "events_requested": [f"{CAEP}session-revoked"],
        "delivery": {"method": "urn:ietf:rfc:8935", "endpoint_url": url},
    }
    headers = {"Authorization": f"Bearer {token}"}
    answer, _ = send("POST", f"{people.realm.issuer}/ssf/transmitter/streams", body=asked, headers=headers)
    assert 201 == answer.status, answer.text


def test_pushed(keycloak: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keycloak pushes the logout, through what stands before the agent, whose keys for it are by the metadata."""
    with keycloak.realm(token_seconds=300) as realm, Forwarder() as forwarder:
        people = people_at(realm)
        push_stream(people, forwarder.url)
        with running_at(realm, agent_at(realm, tables=PUSHED.format(issuer=realm.issuer))) as agent:
            forwarder.socket = agent.socket
            monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", f"unix://{agent.socket}")
            took = []
            for _ in range(3):
                alice, bob = people.login("alice"), people.login("bob")
                person, other = (sojourn.PersonToken.id_token(each.id_token) for each in (alice, bob))
                with (
                    sojourn.task("for-many", person=other, spiffe_id=CHAT) as bobs,
                    sojourn.task("for-many", person=person, spiffe_id=CHAT) as task,
                ):
                    began = time.monotonic()
                    people.logout(alice)
                    until(lambda ended=task: ended.ended, seconds=30)
                    took.append(time.monotonic() - began)
                    assert not bobs.ended
            print("from the logout to the end of the task, pushed, ms:", sorted(round(each * 1000) for each in took))
            assert {202} == set(forwarder.answers)
            assert "" == agent.json("status")["signals"][0]["fault"]
