"""What was measured to be wrong in a widely used authorization server, each held to be right here, with a real agent."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from harness.exchangers import (
    STORE,
    STORE_SERVICE,
    TICKET_SERVICE,
    WATCHER_UID,
    Chain,
    actors,
    by_itself,
    chain,
    details,
    with_jwt,
)
from harness.exchanges import ACCESS_TOKEN, GRANT, JWT, part, post
from harness.feeds import FeedOf
from harness.looking import until
from harness.taskagent import ISSUER, TICKETS, TRIAGE
from harness.taskcalls import Feed
from sojourn import SyncClient
from sojourn.errors import SojournError

pytestmark = [pytest.mark.full, pytest.mark.root]
JWT_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
READ = details("handed", "ticket:read")


@pytest.fixture(scope="module")
def here() -> Iterator[Chain]:
    with chain() as made:
        yield made


@pytest.fixture(scope="module")
def client(here: Chain) -> Iterator[SyncClient]:
    with SyncClient(here.agent.socket) as opened:
        yield opened


@pytest.fixture
def svid(client: SyncClient) -> str:
    return client.fetch_jwt_svid(ISSUER, TRIAGE).token


@pytest.fixture
def feed(here: Chain) -> Iterator[Feed]:
    with FeedOf(here.agent.socket, WATCHER_UID, [TICKETS, STORE]) as opened:
        opened.hear("snapshot")
        yield opened


def given(here: Chain, form: dict[str, str]) -> str:
    """The token that this process gets."""
    response = post(here.agent.socket, form)
    assert 200 == response.status_code, response.text
    token: str = response.json()["access_token"]
    return token


def given_to(answer: tuple[int, dict[str, Any]]) -> str:
    assert 200 == answer[0], answer
    return str(answer[1]["access_token"])


def narrower(token: str, **fields: str) -> dict[str, str]:
    return {"grant_type": GRANT, "subject_token": token, "subject_token_type": ACCESS_TOKEN, **fields}


def test_one_call_from_a_jwt_svid_to_a_token(here: Chain, client: SyncClient, svid: str) -> None:
    """One request turns a JWT-SVID into a token for a resource; at the socket it needs not even that."""
    for form in (with_jwt(svid, authorization_details=READ), by_itself(authorization_details=READ)):
        assert client.validate_token(given(here, form), TICKETS, "ticket:read").valid


def test_the_spiffe_id_is_in_the_token(here: Chain, client: SyncClient, svid: str) -> None:
    """Subject and client of a token are the workload by its SPIFFE ID, as is everybody who acts for it."""
    with client.task("handed") as task:
        token = given(here, with_jwt(svid, authorization_details=READ, task_id=task.id))
        child = given_to(here.exchange(here.tickets, token, resource=STORE))
        grandchild = given_to(here.exchange(here.store, child))
    for each, chain_ in ((token, []), (child, [TICKET_SERVICE]), (grandchild, [STORE_SERVICE, TICKET_SERVICE])):
        claims = part(each, 1)
        assert (TRIAGE, (chain_ or [TRIAGE])[0], chain_) == (claims["sub"], claims["client_id"], actors(each))


def test_actor_token_is_honoured_or_refused(here: Chain, client: SyncClient, svid: str) -> None:
    """An actor token that says who acts is taken; any other is refused. None is ignored."""
    theirs = here.tickets.ask("jwt", audience=ISSUER)["token"]
    own = client.fetch_jwt_svid(ISSUER, TRIAGE).token
    given(here, with_jwt(svid, authorization_details=READ, actor_token=own, actor_token_type=JWT))
    for actor in (theirs, "x", own[:-4] + "AAAA"):
        form = with_jwt(svid, authorization_details=READ, actor_token=actor, actor_token_type=JWT)
        refused = post(here.agent.socket, form)
        assert (400, "invalid_request") == (refused.status_code, refused.json()["error"])
    token = given(here, with_jwt(svid, authorization_details=READ))
    assert 200 == here.exchange(here.tickets, token, actor_token=theirs, actor_token_type=JWT)[0]
    assert 400 == here.exchange(here.tickets, token, actor_token=own, actor_token_type=JWT)[0]


def test_resource_is_honoured_or_refused(here: Chain, svid: str) -> None:
    """The resource that is named is the one audience of the token, or there is no token."""
    assert TICKETS == part(given(here, with_jwt(svid, authorization_details=READ, resource=TICKETS)), 1)["aud"]
    for resource in (STORE, f"{TICKETS}/", "tickets", f"{TICKETS}#x"):
        refused = post(here.agent.socket, with_jwt(svid, authorization_details=READ, resource=resource))
        assert (400, "invalid_target") == (refused.status_code, refused.json()["error"])


def test_unknown_audience_is_invalid_target(here: Chain, svid: str) -> None:
    """An audience that nobody has is invalid_target, however it is named."""
    for name in ("audience", "resource"):
        refused = post(here.agent.socket, with_jwt(svid, **{name: "https://nobody.example.org"}))
        assert (400, "invalid_target") == (refused.status_code, refused.json()["error"])


def test_a_derived_token_ends_no_later(here: Chain, client: SyncClient) -> None:
    """A token that was got by an SVID of ten seconds ends with it, and so does all that is derived from the token."""
    entry = next(e for e in here.agent.json("entry", "list")["entries"] if e["spiffe_id"] == TRIAGE)
    here.agent.run("entry", "update", entry["id"], "--jwt-svid-ttl", "10s")
    try:
        svid = client.fetch_jwt_svid(ISSUER, TRIAGE).token
        with client.task("handed") as task:
            token = given(here, with_jwt(svid, authorization_details=READ, task_id=task.id))
            assert part(token, 1)["exp"] <= part(svid, 1)["exp"]
            child = given_to(here.exchange(here.tickets, token, resource=STORE))
            for derived in (given(here, narrower(token)), child, given_to(here.exchange(here.store, child))):
                assert part(derived, 1)["exp"] <= part(token, 1)["exp"]
            until(lambda: time.time() > part(token, 1)["exp"], "the token has ended")
            for form in (with_jwt(svid, authorization_details=READ, task_id=task.id), narrower(token)):
                assert 400 == post(here.agent.socket, form).status_code
            assert 400 == here.exchange(here.tickets, token, resource=STORE)[0]
    finally:
        here.agent.run("entry", "update", entry["id"], "--jwt-svid-ttl", "5m")


def test_a_chain_of_exchanges_cannot_extend_itself(here: Chain, svid: str) -> None:
    """Twenty exchanges, each of the token before it and some time apart, end when the first one does."""
    first = token = given(here, with_jwt(svid, authorization_details=READ))
    for _ in range(20):
        time.sleep(0.1)
        token = given(here, narrower(token))
        assert part(token, 1)["exp"] <= part(first, 1)["exp"]
    assert part(first, 1)["task"]["id"] == part(token, 1)["task"]["id"]


def ends_of(feed: Feed, tasks: set[str]) -> dict[str, str]:
    """Why each of these has ended, once all have."""
    found: dict[str, str] = {}
    while not tasks <= set(found):
        found |= {each.id: each.reason for each in feed.hear("delta").delta.tasks if not each.live}
    return found


def ending_of_task(here: Chain, client: SyncClient, svid: str, task: str) -> None:
    here.agent.run("task", "revoke", task)


def ending_of_svid(here: Chain, client: SyncClient, svid: str, task: str) -> None:
    here.agent.run("svid", "revoke", "--serial", part(svid, 1)["jti"])


def ending_of_entry(here: Chain, client: SyncClient, svid: str, task: str) -> None:
    entry = next(e for e in here.agent.json("entry", "list")["entries"] if e["spiffe_id"] == TRIAGE)
    here.agent.run("entry", "delete", entry["id"])


@pytest.mark.parametrize("end", [ending_of_task, ending_of_svid, ending_of_entry])
def test_the_end_of_the_first_ends_all(here: Chain, client: SyncClient, svid: str, feed: Feed, end: Any) -> None:
    """When task, SVID or entry is taken away, every token that was derived is dead, at validators within milliseconds.

    Nothing comes back when what was taken away is there again.
    """
    with contextlib.suppress(SojournError), client.task("handed") as task:  # it is over when this leaves it
        check_end(here, client, svid, feed, end, task.id)


def check_end(here: Chain, client: SyncClient, svid: str, feed: Feed, end: Any, task_id: str) -> None:
    token = given(here, with_jwt(svid, authorization_details=READ, task_id=task_id))
    child = given_to(here.exchange(here.tickets, token, resource=STORE))
    grandchild = given_to(here.exchange(here.store, child, resource=STORE))
    same = given(here, narrower(token))
    places = [(token, TICKETS), (same, TICKETS), (child, STORE), (grandchild, STORE)]
    assert all(client.validate_token(each, place).valid for each, place in places)
    tasks = {part(each, 1)["task"]["id"] for each, _ in places}
    assert 3 == len(tasks)
    try:
        end(here, client, svid, part(token, 1)["task"]["id"])
        found = ends_of(feed, tasks)
        assert {"cascaded: parent_ended"} == {found[t] for t in tasks - {part(token, 1)["task"]["id"]}}
    finally:
        here.agent.run("entry", "create", "--spiffe-id", TRIAGE, "--selector", f"unix:uid:{os.getuid()}", check=False)
    until(lambda: client.fetch_jwt_svid(ISSUER, TRIAGE), "this process is the workload (again)")
    for each, place in places:
        assert not client.validate_token(each, place).valid
        assert 400 == post(here.agent.socket, narrower(each)).status_code
        assert 400 == here.exchange(here.tickets, each)[0]


def test_how_soon_validators_know(here: Chain, client: SyncClient, svid: str, feed: Feed) -> None:
    """From the end of a task to the word of it at a validator, about a task that was derived from it: milliseconds."""
    took = []
    for _ in range(5):
        with client.task("handed") as task:
            token = task.token(TICKETS, ["ticket:read"]).token
            child = given_to(here.exchange(here.tickets, token, resource=STORE))
            feed.delta(part(child, 1)["task"]["id"], live=True)
            since = time.monotonic()
            task.complete()
            feed.delta(part(child, 1)["task"]["id"], live=False)
            took.append(time.monotonic() - since)
    assert min(took) < 0.25  # generous: other tests run beside this one


def test_an_assertion_is_used_once(here: Chain, client: SyncClient) -> None:
    """A client assertion, and the assertion of a jwt-bearer request, is good once: of fifty racers one gets a token."""
    bearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    for form in (
        lambda svid: {
            "grant_type": bearer, "assertion": svid, "authorization_details": READ,
        },
        lambda svid: by_itself(client_assertion=svid, client_assertion_type=JWT_SPIFFE, authorization_details=READ),
    ):  # fmt: skip
        fields = form(client.fetch_jwt_svid(ISSUER, TRIAGE).token)
        answers = asyncio.run(race(here.agent.socket, fields, 50))
        assert [200] + [400 if "assertion" in fields else 401] * 49 == sorted(answers)
        here.agent.kill()
        here.agent.start()
        again = post(here.agent.socket, fields)
        assert again.status_code in {400, 401}
        assert "used before" in again.json()["error_description"]
        until(lambda: client.fetch_jwt_svid(ISSUER, TRIAGE), "the agent is back")


async def race(socket: str, fields: dict[str, str], number: int) -> list[int]:
    import httpx

    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=socket), timeout=30) as client:
        answers = await asyncio.gather(*(client.post("http://localhost/token", data=fields) for _ in range(number)))
    return [each.status_code for each in answers]


def test_jwt_svids_for_the_service_are_each_another(client: SyncClient) -> None:
    """A JWT-SVID for the token service is made anew each time, since it is used once; others may be the same."""
    assert 3 == len({client.fetch_jwt_svid(ISSUER, TRIAGE).token for _ in range(3)})
    assert 1 == len({client.fetch_jwt_svid("https://other.example.org").token for _ in range(3)})


def test_a_line_end_in_an_assertion(here: Chain, client: SyncClient) -> None:
    """An assertion with a line end is invalid_client in one sentence, and no accident in the log."""
    before = here.agent.log.read_text().count("Traceback")
    form = by_itself(
        client_assertion=client.fetch_jwt_svid(ISSUER, TRIAGE).token + "\n", client_assertion_type=JWT_SPIFFE
    )
    refused = post(here.agent.socket, form)
    assert (401, "invalid_client") == (refused.status_code, refused.json()["error"])
    assert "www-authenticate" in refused.headers
    assert before == here.agent.log.read_text().count("Traceback")


def test_one_entry_serves_a_whole_path(here: Chain) -> None:
    """No client has to be set up beside the entry: what may be had is a matter of task types."""
    assert STORE_SERVICE in {e["spiffe_id"] for e in here.agent.json("entry", "list")["entries"]}
    status, body = here.post(here.store, by_itself(authorization_details=READ))
    assert (400, "access_denied") == (status, body["error"])
    record = next(
        each for each in reversed(here.agent.json("audit", "tail", "--lines", "50")["records"])
        if each["event"] == "exchange_denied"
    )  # fmt: skip
    fields = record["fields"] if isinstance(record["fields"], dict) else json.loads(record["fields"])
    assert body["decision_id"] == fields["decision_id"]
