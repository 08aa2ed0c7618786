"""What another token service was seen to do wrong around introspection and revocation, and this one does not.

Seen in Keycloak 26.7: an exchanged token outlives the revocation of what it was derived from; resource servers hear of
no revocation; enabling something again revives its tokens; an audience cannot end a token that it was given.
"""

import os
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from harness.agent import AgentProcess
from harness.exchanges import ACCESS_TOKEN, DETAILS, GRANT, http, part
from harness.feeds import FeedOf
from harness.taskagent import (
    ISSUER,
    PLACE_A,
    STRANGER_UID,
    TICKETS,
    TRIAGE,
    inner_failures,
    make_agent,
    revoke_all,
    write_type,
)
from harness.taskcalls import Feed
from harness.webclients import SERVICE, introspected, revoked, web
from sojourn import SyncClient

pytestmark = pytest.mark.full

MILLISECONDS = 250  # of a busy machine with two cores; in itself it takes one or two
CONFIG = f"""
[listen]
https = "127.0.0.1:0"
[[services]]
resource = "{TICKETS}"
workloads = ["{SERVICE}"]
[[services]]
resource = "{PLACE_A}"
workloads = ["spiffe://example.org/place"]
"""
# A task that the service of one of its resources may hand itself a part of.
PASSED_ON = f"""
allowed_workloads = ["{TRIAGE}"]
[delegation]
max_depth = 2
to = ["{SERVICE}"]
[[ceiling]]
resource = "{TICKETS}"
actions = ["doc:read"]
[[ceiling]]
resource = "{PLACE_A}"
actions = ["doc:read"]
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[AgentProcess]:
    agent = make_agent(extra=CONFIG)
    write_type(agent.folder / "types", "passed-on", PASSED_ON, '@id("all") permit (principal, action, resource);')
    with agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        for path in ("/service", "/place"):
            agent.register(path, f"unix:uid:{STRANGER_UID}")
        yield agent
        revoke_all(agent)
        assert [] == inner_failures(agent)


@pytest.fixture
def service(shared: AgentProcess) -> Iterator[httpx.Client]:
    with web(shared, SERVICE) as client:
        yield client


@pytest.fixture
def sdk(shared: AgentProcess) -> Iterator[SyncClient]:
    with SyncClient(shared.socket) as client:
        yield client


def derived(service: httpx.Client, token: str) -> str:
    """The service exchanges the token that it was given for one for the place behind it."""
    asked = {"grant_type": GRANT, "subject_token": token, "subject_token_type": ACCESS_TOKEN, "resource": PLACE_A}
    answer = service.post("/token", data=asked)
    assert 200 == answer.status_code, answer.text
    given: str = answer.json()["access_token"]
    return given


class Stopwatch:
    """When a validator heard that a task lives no more, or of a newer version."""

    def __init__(self, feed: Feed, task_id: str, older_than: int) -> None:
        self.heard_at = 0.0
        self._thread = threading.Thread(target=self._wait, args=(feed, task_id, older_than), daemon=True)
        self._thread.start()

    def _wait(self, feed: Feed, task_id: str, older_than: int) -> None:
        while not self.heard_at:
            for state in feed.hear("delta").delta.tasks:
                if state.id == task_id and (not state.live or state.version > older_than):
                    self.heard_at = time.monotonic()

    def milliseconds_since(self, begun: float) -> float:
        self._thread.join(15)
        assert self.heard_at, "the validator has heard nothing"
        return (self.heard_at - begun) * 1000


@pytest.mark.root
def test_revoking_ends_what_was_derived_at_validators_within_milliseconds(
    shared: AgentProcess, sdk: SyncClient, service: httpx.Client
) -> None:
    """Revoking a token ends the tokens exchanged from it, and validators hear it within milliseconds."""
    with sdk.task("passed-on") as task, web(shared, "spiffe://example.org/place") as place:
        token = task.token(TICKETS, ["doc:read"]).token
        second = derived(service, token)
        assert introspected(place, second)["active"]
        with FeedOf(shared.socket, STRANGER_UID, [PLACE_A]) as feed, http(shared.socket) as holder:
            feed.hear("snapshot")
            of = part(second, 1)["task"]
            watch = Stopwatch(feed, of["id"], of["ver"])
            begun = time.monotonic()
            revoked(holder, token)
            assert watch.milliseconds_since(begun) < MILLISECONDS
        assert not introspected(place, second)["active"]
        again = service.post(
            "/token",
            data={"grant_type": GRANT, "subject_token": token, "subject_token_type": ACCESS_TOKEN, "resource": PLACE_A},
        )
        assert (400, "invalid_request") == (again.status_code, again.json()["error"])


def test_ending_the_task_ends_what_was_derived(shared: AgentProcess, sdk: SyncClient, service: httpx.Client) -> None:
    """The end of a task, by whatever way, ends the tokens exchanged from its token."""
    with web(shared, "spiffe://example.org/place") as place, http(shared.socket) as holder:
        task = sdk.begin_task("passed-on")
        token = task.token(TICKETS, ["doc:read"]).token
        second = derived(service, token)
        assert introspected(place, second)["active"]
        revoked(holder, token, token_type_hint="task")
        assert not introspected(place, second)["active"]
        assert not introspected(service, token)["active"]


@pytest.mark.root
def test_an_audience_may_end_a_token_that_it_was_given(
    shared: AgentProcess, sdk: SyncClient, service: httpx.Client
) -> None:
    """The service revokes a token that was shown to it, and every validator refuses it within milliseconds."""
    with (
        sdk.task("triage-ticket", params={"ticket": "42"}) as task,
        FeedOf(shared.socket, STRANGER_UID, [TICKETS]) as feed,
    ):
        feed.hear("snapshot")
        token = task.token(TICKETS, ["ticket:read"]).token
        watch = Stopwatch(feed, task.id, part(token, 1)["task"]["ver"])
        begun = time.monotonic()
        revoked(service, token)
        assert watch.milliseconds_since(begun) < MILLISECONDS
        assert not sdk.validate_token(token, TICKETS).valid


def test_enabling_again_revives_nothing(shared: AgentProcess, sdk: SyncClient, service: httpx.Client) -> None:
    """A task that was suspended and resumed, a type that was switched off and on, an entry that was deleted and made
    again: no token from before is good after.
    """
    with sdk.task("triage-ticket", params={"ticket": "42"}) as task:
        token = task.token(TICKETS, ["ticket:read"]).token
        shared.run("task", "suspend", task.id)
        shared.run("task", "resume", task.id)
        assert {"active": False, "task_state": "active"} == introspected(service, token)
        token = task.token(TICKETS, ["ticket:read"]).token
        shared.run("task", "block", "--type", "triage-ticket")
        shared.run("task", "unblock", "--type", "triage-ticket")
        assert not introspected(service, token)["active"]


def test_an_entry_that_is_made_again_revives_nothing() -> None:
    """The client of a token is deleted and registered anew: its token stays dead."""
    with make_agent(extra=CONFIG) as agent:
        entry = agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        agent.register("/service", f"unix:uid:{STRANGER_UID}")
        with SyncClient(agent.socket) as sdk, web(agent, SERVICE) as audience:
            task = sdk.begin_task("triage-ticket", params={"ticket": "42"})
            token = task.token(TICKETS, ["ticket:read"]).token
            assert introspected(audience, token)["active"]
            agent.run("entry", "delete", entry["id"])
            assert {"active": False, "task_state": "revoked"} == introspected(audience, token)
            agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
            assert {"active": False, "task_state": "revoked"} == introspected(audience, token)
            assert not sdk.validate_token(token, TICKETS).valid


def test_the_spiffe_id_is_what_introspection_tells(
    sdk: SyncClient, shared: AgentProcess, service: httpx.Client
) -> None:
    """`sub` and `client_id` are the SPIFFE ID, and the issuer is ours."""
    with http(shared.socket) as holder:
        asked = {"grant_type": "client_credentials", "resource": TICKETS, "authorization_details": DETAILS}
        token = holder.post("/token", data=asked).json()["access_token"]
    told = introspected(service, token)
    assert (TRIAGE, TRIAGE, ISSUER) == (told["sub"], told["client_id"], told["iss"])
