"""Abuse of ID-JAGs at the token endpoint: by whom, how often, for whom, and for what they are brought."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.databases import opened
from fakes.ended_sessions import FakeEndedStore
from fakes.exchangeroom import ELSEWHERE, JKT_A, JKT_B, details, revoked
from fakes.granting_room import ISSUER, TRIAGE_ID, WEB_ID
from fakes.jag_room import CORP, PARTNER, TRIAGE_CLIENT, WEB_CLIENT, JagRoom, jag_room
from fakes.people import ALICE, BOB
from fakes.registrations import entry
from fakes.task_types import TICKETS, WIKI
from sojourn.errors import (
    InvalidAuthorizationDetails,
    InvalidInput,
    InvalidScope,
    InvalidTarget,
    InvalidToken,
    SojournError,
)
from sojourn.errors.oauth import AuthorizationPending, BindingNeeded, InvalidClient, InvalidGrant
from sojourn.errors.people import PersonRefused
from sojourn.identity.issued_svids import JWT
from sojourn.limits import USED_TOKENS_KEPT_SECONDS
from sojourn.oauth.assertion_ids import Assertion
from sojourn.oauth.client_auth import ASSERTION_TYPES
from sojourn.oauth.token_request import CLIENT_CREDENTIALS, GRANT_TYPE, JWT_BEARER, TOKEN_TYPE_ACCESS, TOKEN_TYPE_ID
from sojourn.oauth.token_request import TOKEN_TYPE_JWT as JWT_TYPE
from sojourn.people.ended_sessions import EndedSessions
from sojourn.people.token_kind import ID_JAG
from sojourn.store.used_assertions import UsedTable
from sojourn.tasks.blocks import PERSON, Block
from sojourn.tasktoken.sender_constraint import X5T, Binding


@pytest.fixture
def room() -> Iterator[JagRoom]:
    with jag_room() as made:
        yield made


async def refused(room: JagRoom, text: str, sender: Any = None, **fields: Any) -> SojournError:
    """With what one is refused, as a grant is; then there is no task, and who it is of is not said."""
    before = len(room.engine.tasks.all())
    with pytest.raises(SojournError) as caught:
        await room.bring(text, sender, **fields)
    assert before == len(room.engine.tasks.all())
    assert not any(each in caught.value.public for each in (text, ALICE, BOB))
    return caught.value


async def code(room: JagRoom, text: str, sender: Any = None, **fields: Any) -> str:
    error = await refused(room, text, sender, **fields)
    assert "invalid_grant" == error.oauth_error
    return error.code


class TestTaken:
    async def test_for_whom(self, room: JagRoom) -> None:
        """A client that is attested gets by it a token of a task for that person, which says who acts; and no refresh
        token, nor any that lives longer than the assertion.
        """
        given = await room.bring(room.jag(sub=ALICE, exp=room.idp.at + 40))
        assert given.person is not None
        assert (CORP, ALICE, TRIAGE_ID, room.idp.at + 40) == (
            given.person.issuer, given.person.subject, given.actor, given.claims["exp"]
        )  # fmt: skip
        assert {"sub": str(TRIAGE_ID)} == given.claims["act"]
        task = room.engine.tasks.find(given.task_id)
        assert task is not None
        assert "one-shot" == task.binding

    @pytest.mark.parametrize("by", ["assertion", "certificate", "both", "socket and assertion"])
    async def test_however_the_client_authenticates(self, room: JagRoom, by: str) -> None:
        """The client authenticates at the socket, by an assertion of its own, or by a certificate."""
        sender = room.shows(TRIAGE_ID) if by in {"certificate", "both"} else ELSEWHERE
        sender = room.socket if "socket" in by else sender
        fields = room.client_assertion() if by != "certificate" else {}
        assert TRIAGE_ID == (await room.bring(room.jag(), sender, **fields)).actor

    async def test_a_jwt_svid_still_is_one(self, room: JagRoom) -> None:
        """An assertion that is a JWT-SVID of ours says who the client is, as before."""
        asked = {"authorization_details": details("page:read", name="triage", at=f"{WIKI}/nobody")}
        given = await room.bring(room.subject(), ELSEWHERE, **asked)
        assert (TRIAGE_ID, None) == (given.actor, given.person)

    async def test_the_target_that_it_names(self, room: JagRoom) -> None:
        """Where the client names no target, the assertion's resource is it, if that is one; and its details are what is
        asked where the client has none.
        """
        form = {"grant_type": JWT_BEARER}
        given = await room.ask(room.socket, **form, assertion=room.jag(resource=[TICKETS]))
        assert TICKETS == given.resource
        one = [{"type": "for-people", "actions": ["page:read"], "locations": [WIKI]}]
        given = await room.ask(room.socket, **form, assertion=room.jag(authorization_details=one))
        assert (WIKI, ("page:read",)) == (given.resource, given.actions)

    async def test_nothing_of_it_is_kept(self, room: JagRoom) -> None:
        """Neither what is given nor what is refused leaves it, or whose it is, in a record."""
        good, bad = room.jag(sub=ALICE), room.jag(sub=BOB, aud="https://other.example")
        await room.bring(good)
        await refused(room, bad)
        await room.audit.flush()
        text = json.dumps([each.fields for each in room.store.events])
        assert not any(each in text for each in (good, bad, ALICE, BOB))


class TestOnce:
    async def test_twice(self, room: JagRoom) -> None:
        """One is good once, whoever of its client brings it, and however."""
        text = room.jag()
        await room.bring(text)
        for sender, fields in ((room.socket, {}), (ELSEWHERE, room.client_assertion()), (room.shows(TRIAGE_ID), {})):
            assert "invalid_grant" == await code(room, text, sender, **fields)

    async def test_its_id_once(self, room: JagRoom) -> None:
        """It is known by its `jti` and its issuer: another text with the same is the same; of another issuer it is not."""
        await room.bring(room.jag(jti="one"))
        assert "invalid_grant" == await code(room, room.jag(jti="one", sub=BOB))
        assert await room.bring(room.jag(room.partner, jti="one", sub=ALICE), room.shows(TRIAGE_ID))

    async def test_ids_of_others(self, room: JagRoom) -> None:
        """No issuer of people can use up a JWT-SVID, by whatever `jti` and `iss` it writes."""
        jag = await room.people.verify_id_jag(room.jag(jti="jti:x"), [TRIAGE_ID])
        svids = [
            Assertion.named(kind, CORP, ISSUER, jti, 0)
            for kind in ("jwt-svid", "id-jagjwt-svid")
            for jti in ("x", "jti:x")
        ]
        svids += [Assertion.named("jwt-svid", f"example.org {CORP}", ISSUER, "jti:x", 0)]
        assert Assertion.of_id_jag(jag, ISSUER).digest not in {each.digest for each in svids}

    async def test_fifty_racers(self, room: JagRoom) -> None:
        """Of fifty who bring one at the same time one gets a token, and one task has begun."""
        text = room.jag()
        asked = [
            room.bring(text, *((room.shows(TRIAGE_ID),) if n % 2 else (ELSEWHERE,)), **({} if n % 2 else room.client_assertion()))
            for n in range(50)
        ]  # fmt: skip
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert 49 == sum(isinstance(each, InvalidGrant) for each in done)
        assert 1 == len(room.engine.tasks.all())

    async def test_used_up_before_anything_begins(self, room: JagRoom) -> None:
        """What is denied after it was verified has used it up: it is not tried again until something fits."""
        text = room.jag()
        with pytest.raises(SojournError, match="ticket:read"):
            await room.bring(text, authorization_details=details("ticket:read", name="for-people", at=WIKI))
        assert "invalid_grant" == await code(room, text)

    async def test_while_somebody_has_to_agree(self, room: JagRoom) -> None:
        """One that has begun a task which waits for an approval is used up; the client asks for that task by itself."""
        text = room.jag(scope="page:read")
        with pytest.raises(AuthorizationPending) as waits:
            await room.bring(text, resource=f"{WIKI}/approved")
        task_id = waits.value.task_id
        with pytest.raises(InvalidGrant, match="used before"):
            await room.bring(text, resource=f"{WIKI}/approved", task_id=task_id)
        with pytest.raises(AuthorizationPending):
            await room.ask(room.socket, grant_type=CLIENT_CREDENTIALS, task_id=task_id, resource=f"{WIKI}/approved")

    async def test_a_refused_client_uses_nothing_up(self, room: JagRoom) -> None:
        """Who is not its client, or shows an assertion of its own again, does not use it up for the client that it is
        for.
        """
        text, own = room.jag(), room.client_assertion()
        await room.bring(room.jag(), ELSEWHERE, **own)
        assert "invalid_grant" == await code(room, text, ELSEWHERE, **own)
        assert "wrong_presenter" == await code(room, text, room.shows(WEB_ID))
        assert await room.bring(text, room.shows(TRIAGE_ID))

    async def test_over_a_restart_and_a_clock_step(self, tmp_path: Path) -> None:
        """It stays used over a restart, and where the clock is set ahead, so that it is forgotten, and back again."""
        with opened(tmp_path / "database") as database, jag_room(used=UsedTable(database)) as room:
            text = room.jag()
            jag = await room.people.verify_id_jag(text, [TRIAGE_ID])
            await room.bring(text)
            used, now = Assertion.of_id_jag(jag, ISSUER), int(room.clock.now().timestamp())
        ahead = now + USED_TOKENS_KEPT_SECONDS + 10_000
        with opened(tmp_path / "database") as database:
            later = Assertion.named("id-jag", CORP, ISSUER, "later", ahead + 300)
            for table in (UsedTable(database), UsedTable(database)):
                with pytest.raises(InvalidGrant, match="used before"):
                    await table.claim([used], now + 1)
            await UsedTable(database).claim([later], ahead)
            with pytest.raises(InvalidGrant, match="may have been used"):
                await UsedTable(database).claim([used], now + 2)


class TestClient:
    async def test_no_client(self, room: JagRoom) -> None:
        """It never says who the client is: whoever brings it without authenticating is nobody, and it is not used up."""
        text = room.jag()
        shown = {"client_assertion": text, "client_assertion_type": ASSERTION_TYPES[1]}
        for fields in ({}, {"client_id": str(TRIAGE_ID)}, shown):
            error = await refused(room, text, ELSEWHERE, **fields)
            assert isinstance(error, InvalidClient)
            assert "invalid_client" == error.oauth_error
            assert ("client_assertion" in fields) != ("did not authenticate" in error.public)
        assert await room.bring(text)

    async def test_any_persons_token(self, room: JagRoom) -> None:
        """No token of a person's issuer, whatever its type, says who the client is."""
        for typ in ("JWT", None, "at+jwt", "x"):
            error = await refused(room, room.jag(header={"typ": typ}), ELSEWHERE)
            assert isinstance(error, InvalidClient)
            assert "did not authenticate" in error.public

    @pytest.mark.parametrize("client", [WEB_CLIENT, str(WEB_ID), "triage-app", "other", None])
    async def test_of_another(self, room: JagRoom, client: str | None) -> None:
        """One that was given to another client is refused, also where that client is registered here too."""
        assert "wrong_presenter" == await code(room, room.jag(client_id=client))

    async def test_of_one_of_a_callers_identities(self, room: JagRoom) -> None:
        """A process that has several identities acts by an assertion as the one that it was given to, and as no other."""
        await room.registry.create([entry("/web", "unix:uid:1000", id="web-here")])
        asked = {"authorization_details": details("page:read", name="both", at=f"{WIKI}/both")}
        for client, identity in ((TRIAGE_CLIENT, TRIAGE_ID), (WEB_CLIENT, WEB_ID)):
            assert identity == (await room.bring(room.jag(client_id=client), **asked)).actor
        given = await room.ask(
            room.socket, grant_type=GRANT_TYPE, subject_token=room.idp.id_token(aud="triage-app", azp="triage-app"),
            subject_token_type=TOKEN_TYPE_ID, **asked,
        )  # fmt: skip
        assert TRIAGE_ID == given.actor

    async def test_the_other_way(self, room: JagRoom) -> None:
        """Another workload cannot bring the agent's, by a certificate or an assertion of its own."""
        for sender, fields in ((room.shows(WEB_ID), {}), (ELSEWHERE, room.client_assertion(spiffe_id=WEB_ID))):
            assert "wrong_presenter" == await code(room, room.jag(), sender, **fields)

    async def test_a_revoked_svid(self, room: JagRoom) -> None:
        """A client whose own SVID is revoked is none, whatever it brings."""
        own = room.client_assertion()
        svid = room.identities.verify_jwt_svid(own["client_assertion"], (ISSUER,))
        await room.revocations.revoke([revoked(JWT, str(svid.claims["jti"]))])
        error = await refused(room, room.jag(), ELSEWHERE, **own)
        assert isinstance(error, InvalidClient)

    async def test_a_task_of_another(self, room: JagRoom) -> None:
        """With a task's ID it is for the workload that has the task, and one that is not the client's is unknown."""
        given = await room.bring(room.jag(sub=ALICE), room.shows(TRIAGE_ID))
        for sender, client in ((room.shows(WEB_ID), WEB_CLIENT), (room.socket, TRIAGE_CLIENT)):
            error = await refused(room, room.jag(sub=ALICE, client_id=client), sender, task_id=given.task_id)
            assert "not_found" == error.code


class TestFor:
    @pytest.mark.parametrize(
        "aud", ["https://other.example", [ISSUER, "https://other.example"], [], None, f"{ISSUER}/token", "spiffe://example.org"]
    )  # fmt: skip
    async def test_another_server(self, room: JagRoom, aud: Any) -> None:
        """One for another authorization server, or for a second one, is refused."""
        error = await refused(room, room.jag(aud=aud))
        assert ("invalid_grant", True) == (error.oauth_error, "aud" in error.public)

    async def test_another_resource(self, room: JagRoom) -> None:
        """Its resource is the target, and nothing beside it."""
        for resource in ([WIKI], WIKI, [], TICKETS + "/", TICKETS.upper(), "https://tickets.example.org.evil.example"):
            assert isinstance(await refused(room, room.jag(resource=resource)), InvalidTarget)
        error = await refused(
            room, room.jag(resource=TICKETS), authorization_details=details("page:read", name="for-people", at=WIKI)
        )
        assert isinstance(error, InvalidTarget)

    async def test_of_two_resources_one(self, room: JagRoom) -> None:
        """Of several resources the client names one."""
        with pytest.raises(InvalidTarget, match="name one"):
            await room.ask(room.socket, grant_type=JWT_BEARER, assertion=room.jag(resource=[TICKETS, WIKI]))
        assert WIKI == (await room.bring(room.jag(resource=[TICKETS, WIKI]), resource=WIKI)).resource

    async def test_a_wider_scope(self, room: JagRoom) -> None:
        """What is asked beyond its scope is refused; what is left open is what both have, and nothing is no scope."""
        for fields in (
            {"scope": "ticket:write"},
            {"scope": "ticket:read ticket:write"},
            {"authorization_details": details("ticket:read", "ticket:write", name="for-people")},
        ):
            assert isinstance(await refused(room, room.jag(scope="ticket:read openid"), **fields), InvalidScope)
        for scope in ("", "openid", "ticket:READ", "ticket:"):
            assert isinstance(await refused(room, room.jag(scope=scope)), InvalidScope)
        given = await room.bring(room.jag(scope="ticket:read openid"))
        task = room.engine.tasks.find(given.task_id)
        assert task is not None
        assert (("ticket:read",), ("ticket:read",)) == (given.actions, task.authority.at(TICKETS))

    async def test_wider_details(self, room: JagRoom) -> None:
        """Its authorization_details are the most too: type, actions, and request."""
        one = {"type": "for-people", "actions": ["ticket:read"], "locations": [TICKETS]}
        for fields in (
            {"authorization_details": details("ticket:write", name="for-people")},
            {"authorization_details": details("ticket:read", name="triage")},
            {"authorization_details": details("page:read", name="for-people", at=WIKI)},
        ):
            error = await refused(room, room.jag(authorization_details=[one]), **fields)
            assert isinstance(error, InvalidAuthorizationDetails | InvalidTarget)
        assert isinstance(
            await refused(room, room.jag(authorization_details=[one]), scope="ticket:write"), InvalidScope
        )
        narrow = room.jag(
            authorization_details=[{**one, "actions": ["ticket:read", "ticket:write"]}], scope="ticket:read"
        )
        assert ("ticket:read",) == (await room.bring(narrow)).actions

    async def test_for_one_request(self, room: JagRoom) -> None:
        """One whose details are for a single request is refused: a task has more tokens than the first."""
        one = {"type": "for-people", "actions": ["ticket:read"], "locations": [TICKETS], "params_digest": "A" * 43}
        error = await refused(room, room.jag(authorization_details=[one]))
        assert isinstance(error, InvalidGrant)
        assert "params_digest" in error.public

    async def test_a_held_task_is_no_way_round(self, room: JagRoom) -> None:
        """For a task that has more, a token has no more than the assertion, and the task does not live on by it."""
        whole = await room.people.verify_id_jag(room.jag(sub=ALICE), [TRIAGE_ID])
        task = await room.begin("for-people", person=whole.person)
        until = task.deadline
        room.clock.advance(100)
        for more in ({"scope": "ticket:read"}, {"resource": TICKETS, "scope": "ticket:read"}):
            given = await room.bring(room.jag(sub=ALICE, **more), task_id=task.id)
            assert (task.id, ("ticket:read",), until) == (given.task_id, given.actions, task.deadline)
        now = int(room.clock.now().timestamp())
        given = await room.bring(room.jag(sub=ALICE, scope="ticket:read", exp=now + 20), task_id=task.id)
        assert now + 20 == given.claims["exp"] < now + (task.deadline - room.clock.boot())
        error = await refused(room, room.jag(sub=ALICE, scope="ticket:read"), task_id=task.id, scope="ticket:write")
        assert isinstance(error, InvalidScope)
        assert await room.bring(room.jag(sub=ALICE), task_id=task.id)
        assert until < task.deadline

    async def test_another_persons_task(self, room: JagRoom) -> None:
        """A task is used by the assertion of its own person alone, and by none of the same name elsewhere."""
        begun = await room.bring(room.jag(sub=ALICE))
        for jag in (room.jag(sub=BOB), room.jag(room.partner, sub=ALICE)):
            assert "other_person" == await code(room, jag, task_id=begun.task_id)

    async def test_nobodys_type(self, room: JagRoom) -> None:
        """A type that is for nobody takes nobody, told as of a grant."""
        asked = {"authorization_details": details("page:read", name="triage", at=f"{WIKI}/nobody")}
        assert "person_not_taken" == await code(room, room.jag(), **asked)


class TestForged:
    async def test_algorithms(self, room: JagRoom) -> None:
        """None, a secret shared, and HS256 by the public key are no signatures of an issuer."""
        claims = room.idp.id_jag_claims(client_id=TRIAGE_CLIENT)
        public = json.dumps(room.idp.jwk()).encode()
        pem = room.idp.signing.public.pkix_der
        for header, key in (
            ("none", None),
            ("HS256", b"secret"),
            ("HS256", public),
            ("HS256", pem),
            ("ES384", b"x"),
            ("NONE", None),
        ):
            said = [{"alg": header, "typ": "oauth-id-jag+jwt", "kid": room.idp.kid}, claims]
            signed = ".".join(_encoded(json.dumps(each).encode()) for each in said)
            made = hmac.new(key, signed.encode(), hashlib.sha256).digest() if key else b""
            text = f"{signed}.{_encoded(made)}"
            assert "invalid_grant" == await code(room, text)
            assert isinstance(await refused(room, text, ELSEWHERE), InvalidClient)

    async def test_key_of_another(self, room: JagRoom) -> None:
        """The key of one issuer signs nothing in the name of another, though both have keys of one name."""
        for idp, url in ((room.idp, PARTNER), (room.partner, CORP)):
            error = await refused(room, room.jag(idp, iss=url))
            assert ("invalid_grant", True) == (error.oauth_error, "signature" in error.public)

    @pytest.mark.parametrize("iss", [CORP + "/", CORP.upper(), "https://evil.example", ISSUER, None, [CORP]])
    async def test_another_issuer(self, room: JagRoom, iss: Any) -> None:
        """One of an issuer that the configuration does not name, byte for byte, is refused, also one of ourselves."""
        assert "unknown_issuer" == await code(room, room.jag(iss=iss))

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"seconds": 301}, "too_old"),
            ({"ahead": 3600}, "invalid_grant"),
            ({"ahead": -301}, "invalid_grant"),
            ({"jti": None}, "invalid_grant"),
            ({"jti": ""}, "invalid_grant"),
            ({"act": {"sub": "x"}}, "has_actor"),
            ({"may_act": {"client_id": WEB_CLIENT}}, "wrong_presenter"),
            ({"sub": TRIAGE_CLIENT}, "wrong_kind"),
            ({"sub": str(TRIAGE_ID)}, "invalid_grant"),
            ({"header": {"typ": "JWT"}}, "wrong_kind"),
            ({"header": {"typ": "at+jwt"}}, "wrong_kind"),
            ({"header": {"typ": "application/oauth-id-jag+jwt"}}, "wrong_kind"),
            ({"header": {"kid": "other"}}, "invalid_grant"),
        ],
        ids=str,
    )
    async def test_refused(self, room: JagRoom, changes: dict[str, Any], expected: str) -> None:
        """What is not of now, not to be known again, of another kind or of another chain is refused as a grant."""
        claims = {key: value for key, value in changes.items() if key not in {"seconds", "ahead", "header"}}
        now = int(room.clock.now().timestamp()) + changes.get("ahead", 0)
        claims |= {"iat": now, "exp": now + changes.get("seconds", 300)}
        assert expected == await code(room, room.jag(header=changes.get("header"), **claims))

    async def test_in_the_place_of_others(self, room: JagRoom) -> None:
        """It is no subject token of any type, no actor token, and no client assertion: there it would be good twice."""
        for kind, error in (
            (JWT_TYPE, InvalidToken),
            (TOKEN_TYPE_ACCESS, PersonRefused),
            (TOKEN_TYPE_ID, PersonRefused),
        ):
            with pytest.raises(error):
                await room.ask(
                    room.socket, grant_type=GRANT_TYPE, subject_token=room.jag(), subject_token_type=kind, resource=TICKETS
                )  # fmt: skip
        with pytest.raises(InvalidInput):
            await room.ask(
                room.socket, grant_type=GRANT_TYPE, subject_token=room.jag(), subject_token_type=ID_JAG, resource=TICKETS
            )  # fmt: skip
        with pytest.raises(InvalidToken):
            await room.ask(
                room.socket, grant_type=GRANT_TYPE, subject_token=room.subject(), subject_token_type=JWT_TYPE,
                actor_token=room.jag(), actor_token_type=JWT_TYPE, resource=TICKETS,
            )  # fmt: skip
        assert 0 == len(room.engine.tasks.all())


class TestKeys:
    async def test_another_key(self, room: JagRoom) -> None:
        """One that is bound to a key needs a proof by that key: none, another key's, or a certificate will not do."""
        bound = {"cnf": {"jkt": JKT_A.thumbprint}}
        assert "bound_elsewhere" == await code(room, room.jag(**bound))
        assert "bound_elsewhere" == await code(room, room.jag(**bound), proof=JKT_B)
        assert "bound_elsewhere" == await code(room, room.jag(**bound), room.shows(TRIAGE_ID))
        certified = Binding(X5T, JKT_A.thumbprint)
        assert "bound_elsewhere" == await code(room, room.jag(cnf={"x5t#S256": JKT_A.thumbprint}), proof=certified)

    async def test_bound(self, room: JagRoom) -> None:
        """With the proof the token is bound to that key, and so is every further one of its task."""
        given = await room.bring(room.jag(cnf={"jkt": JKT_A.thumbprint}), proof=JKT_A)
        assert JKT_A == given.binding
        for proof in (None, JKT_B):
            with pytest.raises(BindingNeeded):
                await room.ask(
                    room.socket, grant_type=CLIENT_CREDENTIALS, task_id=given.task_id, resource=TICKETS, proof=proof
                )
        again = await room.ask(
            room.socket, grant_type=CLIENT_CREDENTIALS, task_id=given.task_id, resource=TICKETS, proof=JKT_A
        )
        assert JKT_A == again.binding

    async def test_a_renewal_does_not_set_it_free(self, room: JagRoom) -> None:
        """A newer assertion that is bound to no key leaves the task's tokens bound."""
        given = await room.bring(room.jag(cnf={"jkt": JKT_A.thumbprint}), proof=JKT_A)
        room.clock.advance(10)
        with pytest.raises(BindingNeeded):
            await room.bring(room.jag(), task_id=given.task_id)
        assert JKT_A == (await room.bring(room.jag(), task_id=given.task_id, proof=JKT_A)).binding


class TestOver:
    @pytest.fixture
    def sessions(self, room: JagRoom) -> EndedSessions:
        made = EndedSessions(b"k" * 32, FakeEndedStore(), room.clock, room.alarms)
        room.engine.standing.sessions = made
        return made

    async def test_after_a_logout(self, room: JagRoom, sessions: EndedSessions) -> None:
        """After the logout of a session, or of all, no assertion of before is taken, whether it names the session or
        none; of another person it is.
        """
        now = int(room.clock.now().timestamp())
        sessions.end(CORP, session="s1", subject=ALICE, at=now, longest=3600)
        for sid in ("s1", None):
            assert "session_ended" == await code(room, room.jag(sub=ALICE, sid=sid))
        sessions.end(CORP, session="", subject=BOB, at=now, longest=3600)
        for sid in ("s2", None):
            assert "session_ended" == await code(room, room.jag(sub=BOB, sid=sid))
        assert await room.bring(room.jag(sub="carol"))
        room.clock.advance(1)
        assert await room.bring(room.jag(sub=ALICE, sid="s9"), room.shows(TRIAGE_ID), **room.client_assertion())

    async def test_a_logout_in_between(self, room: JagRoom, sessions: EndedSessions) -> None:
        """One that was verified, and whose person has logged out before anything begins, begins nothing."""
        claim = room.used.claim

        async def then(*arguments: Any) -> None:
            await claim(*arguments)
            sessions.end(CORP, session="", subject=ALICE, at=int(room.clock.now().timestamp()), longest=3600)

        room.used.claim = then
        assert "session_ended" == await code(room, room.jag(sub=ALICE))

    async def test_blocked(self, room: JagRoom) -> None:
        """For somebody who is blocked nothing begins, however new the assertion; for another person it does."""
        name = room.engine.pseudonyms.named(CORP, ALICE)
        room.engine.blocks.replace([Block(PERSON, name, "an operator says so", 0)])
        assert "person_blocked" == await code(room, room.jag(sub=ALICE))
        assert set() == room.used.used
        assert await room.bring(room.jag(room.partner, sub=ALICE))

    async def test_step_up(self, room: JagRoom) -> None:
        """Where the type wants another login, or a newer one, that is said as RFC 9470 has it."""
        asked = {"authorization_details": details("page:read", name="again", at=f"{WIKI}/again")}
        now = int(room.clock.now().timestamp())
        for changes in ({"acr": "1"}, {"acr": "gold", "auth_time": None}, {"acr": "gold", "auth_time": now - 121}):
            error = await refused(room, room.jag(**changes), **asked)
            assert isinstance(error, PersonRefused)
            assert ("insufficient_user_authentication", ("gold",), 120) == (
                error.oauth_error,
                error.acr_values,
                error.max_age,
            )
        assert await room.bring(room.jag(acr="gold", auth_time=now - 100), **asked)

    async def test_told_as_a_grant_alone(self, room: JagRoom) -> None:
        """The same of a subject token is told as it always was: invalid_request."""
        form = {"grant_type": GRANT_TYPE, "subject_token_type": TOKEN_TYPE_ID, "resource": TICKETS}
        with pytest.raises(PersonRefused) as caught:
            await room.ask(room.socket, subject_token=room.idp.id_token(aud="other", azp=None), **form)
        assert ("invalid_request", "wrong_presenter") == (caught.value.oauth_error, caught.value.code)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
