"""Abuse of the token endpoint: exchange, delegation by exchange, assertions, bindings. Named for the cases of the tables."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes.exchangeroom import ELSEWHERE, JKT_A, JKT_B, READ, details, opened, revoked
from fakes.granting_room import ISSUER, STORE_ID, TRIAGE_ID, WEB_ID, Room
from fakes.task_types import TICKETS, TRIAGE, WIKI
from sojourn.errors import InvalidInput, InvalidToken, Refused, SojournError
from sojourn.errors.oauth import InvalidClient, InvalidGrant, InvalidSubject
from sojourn.identity.issued_svids import JWT, X509
from sojourn.jose.jws import parse_unverified
from sojourn.oauth.client_auth import ASSERTION_TYPES, ClientSender
from sojourn.oauth.token_request import CLIENT_CREDENTIALS, GRANT_TYPE, JWT_BEARER, TOKEN_TYPE_JWT
from sojourn.tasktoken.sender_constraint import X5T

# --- F.8 1 and 2: whose subject token, and of whom -------------------------------------------------------------------


@pytest.mark.parametrize(
    "audience",
    [["https://other.example.org"], [ISSUER, "https://other.example.org"], [ISSUER, ISSUER], [ISSUER + "/"],
     [ISSUER.upper()], [ISSUER + "/token/"], ["spiffe://example.org/"], [TICKETS]],
    ids=str,
)  # fmt: skip
async def test_case_1_subject_for_others(audience: list[str]) -> None:
    """A subject token or an assertion that is for somebody else, or for us and others, is refused in every place."""
    with opened() as room:
        token = room.subject(audience=audience)
        forms = (
            {"grant_type": GRANT_TYPE, "subject_token": token, "subject_token_type": TOKEN_TYPE_JWT},
            {"grant_type": JWT_BEARER, "assertion": token},
            {"grant_type": CLIENT_CREDENTIALS, "client_assertion": token, "client_assertion_type": ASSERTION_TYPES[0]},
        )
        for form in forms:
            for sender in (ClientSender(room.peer), ELSEWHERE, room.shows(TRIAGE_ID)):
                with pytest.raises(SojournError):
                    await room.ask(sender, **form, authorization_details=READ)
        assert set() == room.used.used
        assert [] == room.engine.tasks.all()


@pytest.mark.parametrize("name", [f"{ISSUER}/token", "spiffe://example.org"])
async def test_case_1_assertions_are_for_the_issuer_alone(name: str) -> None:
    """A client assertion and a jwt-bearer assertion are for the issuer, by no other of its names (RFC 7523bis)."""
    with opened() as room:
        token = room.subject(audience=[name])
        with pytest.raises(InvalidClient):
            await room.ask(
                ELSEWHERE, grant_type=CLIENT_CREDENTIALS, client_assertion=token,
                client_assertion_type=ASSERTION_TYPES[0], authorization_details=READ,
            )  # fmt: skip
        with pytest.raises(SojournError):
            await room.ask(ClientSender(room.peer), grant_type=JWT_BEARER, assertion=token, authorization_details=READ)


@pytest.mark.parametrize("when", ["before", "while it is used up"])
async def test_case_2_gone_workload(when: str) -> None:
    """A workload whose entry is deleted gets nothing more, also if that happens while its assertion is written down."""
    with opened() as room:
        token = room.subject(WEB_ID)

        async def delete(*_: Any) -> None:
            await room.registry.delete([each.id for each in room.registry if each.spiffe_id == WEB_ID])

        if when == "before":
            await delete()
        else:
            room.used.claim = delete
        with pytest.raises(InvalidClient):
            await room.ask(ELSEWHERE, grant_type=JWT_BEARER, assertion=token, audience=WIKI)
        assert [] == room.engine.tasks.all()


async def test_case_2_revoked_svid() -> None:
    """A JWT-SVID or a certificate that is revoked is good for nothing, also if that happens meanwhile."""
    with opened() as room:
        svid, other = room.subject(), room.subject()
        jti, later = (str(parse_unverified(each).unverified_claims["jti"]) for each in (svid, other))
        await room.revocations.revoke([revoked(JWT, jti), revoked(X509, "a1")])
        with pytest.raises(InvalidToken, match="revoked"):
            await room.exchange(svid, authorization_details=READ)
        with pytest.raises(InvalidClient, match="revoked"):
            await room.ask(room.shows(TRIAGE_ID), grant_type=CLIENT_CREDENTIALS, authorization_details=READ)
        claim = room.used.claim

        async def revoke(*given_: Any) -> None:
            await claim(*given_)
            await room.revocations.revoke([revoked(JWT, later)])

        room.used.claim = revoke
        with pytest.raises(SojournError, match="revoked"):
            await room.ask(ClientSender(room.peer), grant_type=JWT_BEARER, assertion=other, authorization_details=READ)
        assert [] == room.engine.tasks.all()


# --- F.8 3 and 4, C5 54, 56, 59, 60: nothing sheds or launders -------------------------------------------------------


@pytest.mark.parametrize(
    "claim", [{"act": {"sub": TRIAGE}}, {"may_act": {"sub": TRIAGE}}, {"act": None}, {"may_act": []}]
)
async def test_case_3_subject_with_an_actor(claim: dict[str, Any]) -> None:
    """A subject token or an assertion with `act` or `may_act` comes out as no token at all, with or without actor_token."""
    with opened() as room:
        claims = {**parse_unverified(room.subject()).unverified_claims, **claim}
        token = forged(room, claims)
        for form in (
            {"grant_type": GRANT_TYPE, "subject_token": token, "subject_token_type": TOKEN_TYPE_JWT},
            {"grant_type": JWT_BEARER, "assertion": token},
        ):
            with pytest.raises(SojournError, match=r"has (may_)?act"):
                await room.ask(ClientSender(room.peer), **form, authorization_details=READ)


def forged(room: Room, claims: dict[str, Any]) -> str:
    """A JWT-SVID with any claims, signed by the authority's own key."""
    return room.authority._jwt.active.key.sign(claims, typ="JWT")


async def test_case_4_the_holder_gets_no_more(tmp_path: Path) -> None:
    """Whoever holds a task gets of its token no other audience, action, parameter or end, and the same actors."""
    with opened() as room:
        task = await room.begin()
        subject = await room.engine.token(
            task, TICKETS, ("ticket:read",), not_after=room.clock.now() + timedelta(seconds=9)
        )
        me = ClientSender(room.peer)
        for fields in (
            {"resource": WIKI}, {"audience": f"{TICKETS}/"}, {"scope": "ticket:write"}, {"scope": "ticket:read ticket:write"},
            {"authorization_details": details("ticket:write")}, {"authorization_details": details("page:read", at=WIKI)},
            {"authorization_details": details("page:read", name="kept", at=TICKETS)},
            {"authorization_details": details("ticket:read", params={"level": 1})}, {"task_id": task.id},
        ):  # fmt: skip
            with pytest.raises((Refused, InvalidInput)):
                await room.derive(me, subject.token, **fields)
        room.clock.advance(3)
        for fields in ({}, {"resource": TICKETS}, {"scope": "ticket:read"}, {"authorization_details": READ}):
            token = await room.derive(me, subject.token, **fields)
            assert (task.id, TICKETS, ("ticket:read",)) == (token.task_id, token.resource, token.actions)
            assert token.claims["exp"] == subject.claims["exp"]


async def test_case_4_C5_54_60_nobody_launders_a_chain() -> None:
    """A token that was handed on keeps its actors in every exchange, and grows by who exchanges it; no circle, no deeper."""
    with opened() as room:
        root = await room.engine.token(await room.begin(), TICKETS, ("page:read",))
        child = await by_assertion(room, WEB_ID, root.token, resource=WIKI)
        assert ([WEB_ID], TRIAGE_ID) == (list(child.actors), child.spiffe_id)
        same = await by_assertion(room, WEB_ID, child.token)
        assert child.claims["act"] == same.claims["act"]
        assert child.task_id == same.task_id
        grandchild = await by_assertion(room, STORE_ID, child.token)
        assert [STORE_ID, WEB_ID] == list(grandchild.actors)
        assert {"sub": str(STORE_ID), "act": {"sub": str(WEB_ID)}} == grandchild.claims["act"]
        for who in (WEB_ID, TRIAGE_ID):  # in a circle, or not theirs
            with pytest.raises(Refused):
                await by_assertion(room, who, grandchild.token)
        with pytest.raises(InvalidGrant):
            await room.derive(ClientSender(room.peer), grandchild.token)
        # What was handed on is no proof of who somebody is.
        for kind in ({"subject_token": child.token, "subject_token_type": TOKEN_TYPE_JWT},):
            with pytest.raises(InvalidToken):
                await room.ask(room.shows(WEB_ID), grant_type=GRANT_TYPE, **kind, resource=WIKI)
        with pytest.raises(InvalidClient):
            await room.ask(
                ELSEWHERE, grant_type=CLIENT_CREDENTIALS, client_assertion=child.token,
                client_assertion_type=ASSERTION_TYPES[0], resource=WIKI,
            )  # fmt: skip


async def by_assertion(room: Room, who: Any, token: str, **fields: str) -> Any:
    """Exchange a task token as a client on another machine that has no certificate, and so gets an unbound one."""
    shown = {"client_assertion": room.subject(who), "client_assertion_type": ASSERTION_TYPES[0]}
    return await room.derive(ELSEWHERE, token, **shown, **fields)


async def test_case_60_a_stolen_token() -> None:
    """Who is neither the holder of a token nor its audience learns nothing from exchanging it: not even if it lives."""
    with opened() as room:
        task = await room.begin()
        token = await room.engine.token(task, TICKETS, ("ticket:read",))
        said = []
        for _ in range(2):
            with pytest.raises(InvalidGrant) as error:
                await room.derive(room.shows(STORE_ID), token.token)
            said.append(error.value.public)
            if task.live:
                room.engine.end(task, "revoked", "test")
        assert 1 == len(set(said))
        with pytest.raises(InvalidSubject, match="over"):
            await room.derive(room.shows(WEB_ID), token.token)


async def test_case_59_bound_stays_bound() -> None:
    """What is derived from a bound token is bound, and nobody derives anything without what it is bound to."""
    with opened() as room:
        task = await room.begin()
        me = ClientSender(room.peer)
        bound = await room.engine.token(task, TICKETS, ("ticket:read",), binding=JKT_A)
        for proof in (None, JKT_B):
            with pytest.raises(InvalidToken):
                await room.derive(me, bound.token, proof=proof)
        assert JKT_A == (await room.derive(me, bound.token, proof=JKT_A)).binding
        free = await room.engine.token(task, TICKETS, ("ticket:read",))
        assert JKT_B == (await room.derive(me, free.token, proof=JKT_B)).binding
        with pytest.raises(InvalidToken):  # a thief who is the audience has no key
            await room.derive(room.shows(WEB_ID), bound.token, proof=JKT_B)


async def test_by_certificate_bound_to_it() -> None:
    """A client that authenticates by its certificate has its tokens bound to it, or to its proof's key; never to none."""
    with opened() as room:
        shows = room.shows(TRIAGE_ID, seconds=30)
        token = await room.ask(shows, grant_type=CLIENT_CREDENTIALS, authorization_details=READ)
        assert shows.certificate is not None
        assert {X5T: shows.certificate.thumbprint} == token.claims["cnf"]
        assert token.claims["exp"] <= shows.certificate.not_after.timestamp()
        derived = await room.derive(shows, token.token)
        assert token.claims["cnf"] == derived.claims["cnf"]
        with pytest.raises(InvalidToken):  # another certificate of the same workload
            await room.derive(room.shows(TRIAGE_ID, "b2"), token.token)
        proved = await room.ask(shows, proof=JKT_A, grant_type=CLIENT_CREDENTIALS, authorization_details=READ)
        assert JKT_A == proved.binding


async def test_case_4_C5_56_a_chain_does_not_extend_itself() -> None:
    """Twenty exchanges, each a second after the other and of its token, never reach beyond the first one's end."""
    with opened() as room:
        task = await room.begin()
        first = token = await room.engine.token(
            task, TICKETS, ("ticket:read",), not_after=room.clock.now() + timedelta(seconds=25)
        )
        for _ in range(20):
            room.clock.advance(1)
            token = await room.derive(ClientSender(room.peer), token.token)
            assert token.claims["exp"] <= first.claims["exp"]
        child = await room.derive(room.shows(WEB_ID), token.token)
        assert child.claims["exp"] <= first.claims["exp"]
        room.clock.advance(5)
        for each in (first, token, child):
            with pytest.raises((InvalidToken, InvalidSubject)):
                await room.derive(ClientSender(room.peer), each.token)


@pytest.mark.parametrize("shown_by", ["assertion", "certificate", "subject"])
async def test_C5_56_no_longer_than_any_svid(shown_by: str) -> None:
    """A token ends no later than every SVID that was shown for it, whatever it was shown as."""
    with opened() as room:
        short = room.subject(ttl=timedelta(seconds=7))
        kind = ASSERTION_TYPES[0]
        sender, fields = {
            "assertion": (ELSEWHERE, {"client_assertion": short, "client_assertion_type": kind}),
            "certificate": (room.shows(TRIAGE_ID, seconds=7), {}),
            "subject": (ClientSender(room.peer), {}),
        }[shown_by]
        form = {"grant_type": CLIENT_CREDENTIALS}
        if shown_by == "subject":
            form = {"grant_type": GRANT_TYPE, "subject_token": short, "subject_token_type": TOKEN_TYPE_JWT}
        token = await room.ask(sender, **form, **fields, authorization_details=READ)
        assert 7 == token.claims["exp"] - token.claims["iat"]
