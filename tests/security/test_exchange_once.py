"""Abuse of the token endpoint: whatever is used once, what is over before it is signed, and who the client is."""

import asyncio
from typing import Any

import pytest
from fakes.exchangeroom import DELEGATION, ELSEWHERE, READ, TWO, details, opened, revoked
from fakes.granting_room import TRIAGE_ID, WEB_ID
from fakes.registrations import entry
from fakes.task_types import PERMIT_ALL, TICKETS, TRIAGE, WIKI, task_type
from sojourn.errors import NotFound, PolicyDenied, SojournError, TaskOver
from sojourn.errors.oauth import InvalidClient, InvalidGrant
from sojourn.identity.issued_svids import JWT, X509
from sojourn.jose.jws import parse_unverified
from sojourn.oauth.client_auth import ASSERTION_TYPES, ClientSender
from sojourn.oauth.resource_servers import Audiences
from sojourn.oauth.token_request import CLIENT_CREDENTIALS, GRANT_TYPE, JWT_BEARER, TOKEN_TYPE_JWT

# --- C5 51, 52, 55, 61: once, and before anything is signed ----------------------------------------------------------


async def test_C5_51_fifty_racers() -> None:
    """Of fifty who send one assertion at the same time, in whatever place, one gets a token."""
    with opened() as room:
        token = room.subject()
        forms: tuple[dict[str, str], ...] = (
            {"grant_type": JWT_BEARER, "assertion": token},
            {"grant_type": CLIENT_CREDENTIALS, "client_assertion": token, "client_assertion_type": ASSERTION_TYPES[0]},
            {"grant_type": CLIENT_CREDENTIALS, "client_assertion": token, "client_assertion_type": ASSERTION_TYPES[1]},
        )
        asked = [room.ask(ELSEWHERE, **forms[n % 3], authorization_details=READ) for n in range(50)]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert 49 == sum(isinstance(each, InvalidGrant | InvalidClient) for each in done)
        assert 1 == len(room.engine.tasks.all())


async def test_C5_51_subject_tokens_from_elsewhere_are_used_once() -> None:
    """Where the kernel does not say whose a subject token is it is good once; at the socket it may be used again."""
    with opened() as room:
        form = {
            "grant_type": GRANT_TYPE, "subject_token": room.subject(), "subject_token_type": TOKEN_TYPE_JWT,
            "authorization_details": READ,
        }  # fmt: skip
        for _ in range(2):
            await room.ask(ClientSender(room.peer), **form)
        await room.ask(room.shows(TRIAGE_ID), **form)
        with pytest.raises(InvalidGrant, match="used before"):
            await room.ask(room.shows(TRIAGE_ID), **form)


async def test_C5_51_one_svid_in_two_places_of_a_request() -> None:
    """One request may show one JWT-SVID as its assertion and as its subject; another may show it as neither."""
    with opened() as room:
        svid = room.subject()
        form = {
            "grant_type": GRANT_TYPE, "subject_token": svid, "subject_token_type": TOKEN_TYPE_JWT,
            "client_assertion": svid, "client_assertion_type": ASSERTION_TYPES[0], "authorization_details": READ,
        }  # fmt: skip
        await room.ask(ELSEWHERE, **form)
        for again in (form, {"grant_type": JWT_BEARER, "assertion": svid, "authorization_details": READ}):
            with pytest.raises((InvalidGrant, InvalidClient)):
                await room.ask(ELSEWHERE, **again)


async def test_C5_51_used_up_before_anything_is_signed() -> None:
    """If it cannot be remembered that an assertion was used, there is neither a token nor a task."""
    with opened() as room:

        async def full(*_: Any) -> None:
            assert [] == room.engine.tasks.all()
            raise SojournError("the data folder has no room left")

        room.used.claim = full
        with pytest.raises(SojournError, match="no room"):
            await room.ask(ELSEWHERE, grant_type=JWT_BEARER, assertion=room.subject(), authorization_details=READ)
        assert [] == room.engine.tasks.all()
        assert [] == [each for each in room.store.events if each.event == "token_issued"]


async def test_C5_55_over_before_it_is_signed() -> None:
    """A parent that ends while the task of an exchange is written leaves no token and no task behind."""
    with opened() as room:
        task = await room.begin()
        token = await room.engine.token(task, TICKETS, ("page:read",))
        start = room.beginning.start

        async def end_first(made: Any, *arguments: Any, **fields: Any) -> None:
            await start(made, *arguments, **fields)
            room.engine.end(task, "revoked", "test")

        room.beginning.start = end_first
        with pytest.raises(TaskOver):
            await room.derive(room.shows(WEB_ID), token.token, resource=WIKI)
        assert [] == room.engine.tasks.all()


async def test_C5_61_unknown_and_foreign_tasks() -> None:
    """A task that is not the client's is answered as one that there is not."""
    with opened() as room:
        mine = await room.begin()
        theirs = await room.ask(room.shows(TRIAGE_ID), grant_type=CLIENT_CREDENTIALS, authorization_details=READ)
        said = set()
        for sender, task_id in (
            (room.shows(TRIAGE_ID), mine.id), (room.shows(WEB_ID), theirs.task_id), (room.shows(TRIAGE_ID), "tsk_none"),
            (ClientSender(room.peer), theirs.task_id), (ClientSender(room.peer), "tsk_none"),
        ):  # fmt: skip
            with pytest.raises(NotFound) as error:
                await room.ask(sender, grant_type=CLIENT_CREDENTIALS, resource=TICKETS, task_id=task_id)
            said.add((error.value.code, error.value.public))
        assert 1 == len(said)


# --- who the client is -----------------------------------------------------------------------------------------------


async def test_secrets_are_refused() -> None:
    """HTTP Basic and client_secret are invalid_client, and the sentence says what to do instead."""
    with opened() as room:
        for more in ({"authorization": "Basic eDp5"}, {"client_secret": "x"}, {"authorization": "Bearer x"}):
            with pytest.raises(InvalidClient, match="client_assertion"):
                await room.ask(ClientSender(room.peer), grant_type=CLIENT_CREDENTIALS, resource=TICKETS, **more)


async def test_nobody_from_elsewhere() -> None:
    """Without assertion and certificate nobody is anybody, and a client_id alone proves nothing."""
    with opened() as room:
        for more in ({}, {"client_id": TRIAGE}):
            with pytest.raises(InvalidClient, match="did not authenticate"):
                await room.ask(ELSEWHERE, grant_type=CLIENT_CREDENTIALS, authorization_details=READ, **more)


async def test_client_id_is_who_it_is() -> None:
    """A client_id that is not the client's refuses the request, in every way of authenticating."""
    with opened() as room:
        for sender in (ClientSender(room.peer), room.shows(TRIAGE_ID)):
            await room.ask(sender, grant_type=CLIENT_CREDENTIALS, authorization_details=READ, client_id=TRIAGE)
            for other in (str(WEB_ID), "x", "spiffe://EXAMPLE.org/agent/triage", TRIAGE + "/"):
                with pytest.raises(InvalidClient):
                    await room.ask(sender, grant_type=CLIENT_CREDENTIALS, authorization_details=READ, client_id=other)


async def test_an_assertion_of_somebody_else() -> None:
    """At the socket an assertion is the caller's own; beside a certificate it is the same workload's."""
    with opened() as room:
        theirs = {"client_assertion": room.subject(WEB_ID), "client_assertion_type": ASSERTION_TYPES[0]}
        for sender in (ClientSender(room.peer), room.shows(TRIAGE_ID)):
            with pytest.raises(InvalidClient):
                await room.ask(sender, grant_type=CLIENT_CREDENTIALS, authorization_details=READ, **theirs)
        assert set() == room.used.used


async def test_remote_tasks_end_with_their_token() -> None:
    """The task of a client on another machine has no holder here, and ends when its token does."""
    with opened() as room:
        token = await room.ask(room.shows(TRIAGE_ID), grant_type=CLIENT_CREDENTIALS, authorization_details=READ)
        (task,) = room.engine.tasks.all()
        assert (0, "one-shot") == (task.holder.pid, task.binding)
        room.clock.advance(token.claims["exp"] - token.claims["iat"])
        room.alarms.ring_due()
        assert "expired" == task.state


async def test_an_svid_that_is_revoked_takes_what_it_began() -> None:
    """When an SVID is revoked, what it began ends with all that was derived, and nothing of it comes back."""
    with opened() as room:
        svid = room.subject()
        jti = str(parse_unverified(svid).unverified_claims["jti"])
        by_jwt = await room.exchange(svid, authorization_details=details("page:read"))
        child = await room.derive(room.shows(WEB_ID, "c3"), by_jwt.token)
        by_certificate = await room.ask(
            room.shows(TRIAGE_ID), grant_type=CLIENT_CREDENTIALS, authorization_details=READ
        )
        live = {task.id for task in room.engine.tasks.all()}
        assert {by_jwt.task_id, child.task_id, by_certificate.task_id} == live
        await room.revocations.revoke([revoked(JWT, jti)])
        assert [by_certificate.task_id] == [task.id for task in room.engine.tasks.all()]
        await room.revocations.revoke([revoked(X509, "a1")])
        assert [] == room.engine.tasks.all()
        for token in (by_jwt, child, by_certificate):
            with pytest.raises(TaskOver):
                room.engine.check_token(token)


async def test_policy_is_asked_of_the_child() -> None:
    """What policy denies to whom a task is handed on is not theirs, though the first had it."""
    cedar = PERMIT_ALL + '@id("deep") forbid (principal, action, resource) when { principal.depth > 0 };'
    with opened({"triage": task_type(cedar=cedar, delegation=DELEGATION, ceiling=TWO)}) as room:
        token = await room.engine.token(await room.begin(), TICKETS, ("ticket:read",))
        with pytest.raises(PolicyDenied):
            await room.derive(room.shows(WEB_ID), token.token)
        assert 1 == len(room.engine.tasks.all())


@pytest.mark.parametrize("when", ["before", "while its assertion is used up"])
async def test_only_the_registration_that_serves_counts(when: str) -> None:
    """A workload is the service behind a resource by the registration that has its host among the DNS names: another of
    the same SPIFFE ID does not stand in for it, also if that one is taken away while the request is answered.
    """
    host = TICKETS.removeprefix("https://")
    with opened() as room:
        room.verification._audiences = Audiences()
        plain = entry("/web", "unix:uid:50", id="a-plain")
        serving = entry("/web", "unix:uid:51", id="b-serving", dns_names=(host,))
        await room.registry.create([plain, serving])
        token = (await room.exchange(authorization_details=READ)).token
        if when == "before":
            child = await room.derive(room.shows(WEB_ID), token)
            assert serving.id == room.engine.tasks.find(child.task_id).entry_id
            return
        claim = room.verification._clients.claim

        async def taken_away(assertions: Any) -> None:
            await room.registry.delete([serving.id])
            await claim(assertions)

        room.verification._clients.claim = taken_away
        with pytest.raises(InvalidClient):
            await room.derive(room.shows(WEB_ID), token)
