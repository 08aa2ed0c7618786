"""Abuse of the token endpoint: exchange, delegation by exchange, assertions, bindings. Named for the cases of the tables."""

import asyncio
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes.granting_room import ISSUER, STORE_ID, TRIAGE_ID, WEB_ID, Room
from fakes.registrations import entry
from fakes.task_types import PERMIT_ALL, TICKETS, TRIAGE, WIKI, task_type
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidInput, InvalidToken, NotFound, PolicyDenied, Refused, SojournError, TaskOver
from sojourn.identity.issued import JWT, X509, IssuedSvid
from sojourn.oautherrors import BindingNeeded, DigestNeeded, InvalidClient, InvalidGrant, InvalidSubject
from sojourn.spiffe.jose import parse_unverified
from sojourn.tasks.audiences import Audiences
from sojourn.tasks.clients import ASSERTION_TYPES, Sender
from sojourn.tasks.exchange import CLIENT_CREDENTIALS, GRANT_TYPE, JWT_BEARER, TOKEN_TYPE_ACCESS, TOKEN_TYPE_JWT
from sojourn.tasks.tokens import JKT, X5T, Binding, thumbprint_of

JKT_A, JKT_B = (Binding(JKT, thumbprint_of(each)) for each in (b"a", b"b"))
ELSEWHERE = Sender(address="192.0.2.1")
DELEGATION = '{to = ["spiffe://example.org/web", "spiffe://example.org/store"], max_depth = 2, max_children = 50}'
TWO = (
    f'[{{resource = "{TICKETS}", actions = ["page:read", "ticket:read", "ticket:write"]}},'
    f' {{resource = "{WIKI}", actions = ["page:read", "ticket:read"]}}]'
)
TYPES = {
    "triage": task_type(delegation=DELEGATION, ceiling=TWO),
    "kept": task_type("kept", ceiling=f'[{{resource = "{WIKI}/kept", actions = ["page:read"]}}]'),
    "careful": task_type(
        "careful", consequence='"high"', ceiling=f'[{{resource = "{WIKI}/c", actions = ["page:read"]}}]'
    ),
}


@contextmanager
def opened(types: Any = None) -> Iterator[Room]:
    with tempfile.TemporaryDirectory() as folder:
        room = Room(Path(folder) / "keys", types or TYPES)
        try:
            yield room
        finally:
            room.close()


def details(*actions: str, name: str = "triage", at: str = TICKETS, **more: Any) -> str:
    return json.dumps([{"type": name, "actions": list(actions), "locations": [at], **more}])


READ = details("ticket:read")


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
            for sender in (Sender(room.peer), ELSEWHERE, room.shows(TRIAGE_ID)):
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
            await room.ask(Sender(room.peer), grant_type=JWT_BEARER, assertion=token, authorization_details=READ)


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
            await room.ask(Sender(room.peer), grant_type=JWT_BEARER, assertion=other, authorization_details=READ)
        assert [] == room.engine.tasks.all()


def revoked(kind: str, svid_id: str) -> IssuedSvid:
    issuer = "" if kind == JWT else "00" * 20
    return IssuedSvid(kind, svid_id, TRIAGE, "e", 4_000_000_000, issuer, issuer)


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
                await room.ask(Sender(room.peer), **form, authorization_details=READ)


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
        me = Sender(room.peer)
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
            await room.derive(Sender(room.peer), grandchild.token)
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
        me = Sender(room.peer)
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
            token = await room.derive(Sender(room.peer), token.token)
            assert token.claims["exp"] <= first.claims["exp"]
        child = await room.derive(room.shows(WEB_ID), token.token)
        assert child.claims["exp"] <= first.claims["exp"]
        room.clock.advance(5)
        for each in (first, token, child):
            with pytest.raises((InvalidToken, InvalidSubject)):
                await room.derive(Sender(room.peer), each.token)


@pytest.mark.parametrize("shown_by", ["assertion", "certificate", "subject"])
async def test_C5_56_no_longer_than_any_svid(shown_by: str) -> None:
    """A token ends no later than every SVID that was shown for it, whatever it was shown as."""
    with opened() as room:
        short = room.subject(ttl=timedelta(seconds=7))
        kind = ASSERTION_TYPES[0]
        sender, fields = {
            "assertion": (ELSEWHERE, {"client_assertion": short, "client_assertion_type": kind}),
            "certificate": (room.shows(TRIAGE_ID, seconds=7), {}),
            "subject": (Sender(room.peer), {}),
        }[shown_by]
        form = {"grant_type": CLIENT_CREDENTIALS}
        if shown_by == "subject":
            form = {"grant_type": GRANT_TYPE, "subject_token": short, "subject_token_type": TOKEN_TYPE_JWT}
        token = await room.ask(sender, **form, **fields, authorization_details=READ)
        assert 7 == token.claims["exp"] - token.claims["iat"]


# --- F.8 5, 6, 13, C5 53: never more than was asked for --------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        details("ticket:read", params={"level": 1.0}), details("ticket:read", params={"level": 10**18}),
        details("ticket:read", params={"level": [1]}), details("ticket:read", params={"level": None}),
        details("ticket:read", params={"nobody_knows": "x"}), details("ticket:read", params=[]),
        details("ticket:read", limit={"amount": "1"}), details("ticket:read", params_digest="short"),
        READ[:-2] + ', "params": {"level": 1e300}}]', READ[:-2] + ', "params": {"level": -0.0}}]',
        READ[:-2] + ', "actions": ["ticket:write"]}]', READ[:-2] + ', "params": {"level": 1, "level": 2}}]',
        READ[:-2] + ', "params": {"level": NaN}}]',
    ],
    ids=lambda text: text[60:130],
)  # fmt: skip
async def test_case_6_constraints(text: str) -> None:
    """Parameters of a kind that is not theirs, members that we do not know, and members twice are refused."""
    with opened() as room:
        with pytest.raises(SojournError) as error:
            await room.ask(Sender(room.peer), grant_type=CLIENT_CREDENTIALS, authorization_details=text)
        assert error.value.oauth_error in {"invalid_authorization_details", "invalid_request"}
        assert [] == room.engine.tasks.all()


async def test_case_6_params_of_the_task() -> None:
    """A one-shot task has the parameters of its authorization_details, typed; what is said of another is refused."""
    with opened() as room:
        text = details("ticket:read", params={"level": 3, "urgent": True, "ticket": "42"})
        token = await room.ask(Sender(room.peer), grant_type=CLIENT_CREDENTIALS, authorization_details=text)
        assert {"level": 3, "urgent": True, "ticket": "42"} == dict(token.params)
        for other in ({"level": 4}, {"urgent": 1}, {"ticket": 42}, {"more": 1}):
            with pytest.raises(InvalidInput):
                await room.derive(
                    Sender(room.peer), token.token, authorization_details=details("ticket:read", params=other)
                )


async def test_high_class_by_its_request() -> None:
    """A type of class high gives a token for one request alone, and nothing is derived from that."""
    with opened() as room:
        digest = thumbprint_of(b"request")
        text = details("page:read", name="careful", at=f"{WIKI}/c", params_digest=digest)
        asked = {"grant_type": CLIENT_CREDENTIALS, "authorization_details": text}
        with pytest.raises(BindingNeeded):
            await room.ask(Sender(room.peer), **asked)
        with pytest.raises(DigestNeeded):
            await room.ask(Sender(room.peer), proof=JKT_A, grant_type=CLIENT_CREDENTIALS, resource=f"{WIKI}/c")
        token = await room.ask(Sender(room.peer), proof=JKT_A, **asked)
        assert digest == token.params_digest
        with pytest.raises(InvalidGrant, match="one request"):
            await room.derive(Sender(room.peer), token.token, proof=JKT_A)


@pytest.mark.parametrize(
    "kind",
    ["urn:ietf:params:oauth:token-type:unsigned_json", "urn:ietf:params:oauth:token-type:self_signed",
     "urn:ietf:params:oauth:token-type:refresh_token", "urn:ietf:params:oauth:token-type:id_token"],
)  # fmt: skip
async def test_case_13_kinds_of_subject(kind: str) -> None:
    """No subject is taken from the network unsigned, or by a kind that is not known here."""
    with opened() as room:
        subject = json.dumps({"sub": TRIAGE}) if "json" in kind else room.subject()
        with pytest.raises(InvalidInput, match="subject_token_type"):
            await room.ask(
                Sender(room.peer),
                grant_type=GRANT_TYPE,
                subject_token=subject,
                subject_token_type=kind,
                audience=TICKETS,
            )


async def test_case_12_kinds_never_stand_in_for_each_other() -> None:
    """A task token is no assertion and no JWT-SVID; a JWT-SVID is no access token."""
    with opened() as room:
        svid, token = (
            room.subject(),
            await room.ask(Sender(room.peer), grant_type=CLIENT_CREDENTIALS, authorization_details=READ),
        )
        wrong: tuple[dict[str, str], ...] = (
            {"grant_type": GRANT_TYPE, "subject_token": svid, "subject_token_type": TOKEN_TYPE_ACCESS},
            {"grant_type": GRANT_TYPE, "subject_token": token.token, "subject_token_type": TOKEN_TYPE_JWT},
            {"grant_type": JWT_BEARER, "assertion": token.token},
            {"grant_type": GRANT_TYPE, "subject_token": svid, "subject_token_type": TOKEN_TYPE_JWT,
             "actor_token": token.token, "actor_token_type": TOKEN_TYPE_JWT},
            {"grant_type": CLIENT_CREDENTIALS, "client_assertion": token.token, "client_assertion_type": ASSERTION_TYPES[1]},
        )  # fmt: skip
        for form in wrong:
            with pytest.raises(SojournError) as error:
                await room.ask(Sender(room.peer), **form, authorization_details=READ)
            assert error.value.oauth_error in {"invalid_request", "invalid_grant", "invalid_client"}


ACTIONS = ["page:read", "ticket:read", "ticket:write"]
some = st.lists(st.sampled_from(ACTIONS), unique=True, max_size=3)


@examples(60)
@given(
    policy=some, held=some.filter(bool), subject=some.filter(bool), scope=some, named=st.none() | some.filter(bool),
    target=st.sampled_from(["", TICKETS, WIKI]), at=st.sampled_from([TICKETS, WIKI]),
    who=st.sampled_from(["holder", "audience", "other"]), seconds=st.integers(2, 70),
)  # fmt: skip
def test_C5_53_never_more_than_subject_task_policy_and_request(
    policy: list[str], held: list[str], subject: list[str], scope: list[str], named: list[str] | None, target: str,
    at: str, who: str, seconds: int,
) -> None:  # fmt: skip
    """Result ⊆ subject ∩ task ∩ policy ∩ request, for random actions, targets, scopes, details and ends."""
    asyncio.run(check_never_more(policy, held, subject, scope, named, target, at, who, seconds))


async def check_never_more(
    policy: list[str], held: list[str], subject: list[str], scope: list[str], named: list[str] | None, target: str,
    at: str, who: str, seconds: int,
) -> None:  # fmt: skip
    with opened() as room:
        task = await room.begin(wanted=None)
        try:
            first = await room.engine.token(
                task, TICKETS, tuple(subject), not_after=room.clock.now() + timedelta(seconds=seconds)
            )
        except SojournError:
            return
        task.authority = within(task.authority, held)
        rules = "".join(
            f'@id("{a[-4:]}{a[0]}") permit (principal, action == Sojourn::Action::"{a}", resource);' for a in policy
        )
        task.type = task_type(
            cedar=rules or '@id("n") forbid (principal, action, resource);', delegation=DELEGATION, ceiling=TWO
        )
        fields = {"resource": target, "scope": " ".join(scope)}
        if named is not None:
            fields["authorization_details"] = details(*named, at=at)
        sender = {"holder": Sender(room.peer), "audience": room.shows(WEB_ID), "other": room.shows(STORE_ID)}[who]
        try:
            token = await room.derive(sender, first.token, **fields)
        except SojournError:
            return
        assert who != "other"
        got = set(token.actions)
        assert got
        assert got <= set(subject)
        assert got <= set(held)
        assert got <= set(policy)
        assert got <= set(scope or ACTIONS)
        assert got <= set(ACTIONS if named is None else named)
        assert token.resource == (target or (at if named is not None else TICKETS))
        assert who == "audience" or token.resource == first.resource
        assert token.claims["exp"] <= first.claims["exp"]
        assert (first.spiffe_id, len(first.actors) + (who == "audience")) == (token.spiffe_id, len(token.actors))


def within(authority: Any, actions: list[str]) -> Any:
    from sojourn.tasks.grants import Authority, Grant

    grants = [(each.resource, [a for a in each.actions if a in actions]) for each in authority.grants]
    return Authority(tuple(Grant(resource, tuple(left)) for resource, left in grants if left))


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
            await room.ask(Sender(room.peer), **form)
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
            (Sender(room.peer), theirs.task_id), (Sender(room.peer), "tsk_none"),
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
                await room.ask(Sender(room.peer), grant_type=CLIENT_CREDENTIALS, resource=TICKETS, **more)


async def test_nobody_from_elsewhere() -> None:
    """Without assertion and certificate nobody is anybody, and a client_id alone proves nothing."""
    with opened() as room:
        for more in ({}, {"client_id": TRIAGE}):
            with pytest.raises(InvalidClient, match="did not authenticate"):
                await room.ask(ELSEWHERE, grant_type=CLIENT_CREDENTIALS, authorization_details=READ, **more)


async def test_client_id_is_who_it_is() -> None:
    """A client_id that is not the client's refuses the request, in every way of authenticating."""
    with opened() as room:
        for sender in (Sender(room.peer), room.shows(TRIAGE_ID)):
            await room.ask(sender, grant_type=CLIENT_CREDENTIALS, authorization_details=READ, client_id=TRIAGE)
            for other in (str(WEB_ID), "x", "spiffe://EXAMPLE.org/agent/triage", TRIAGE + "/"):
                with pytest.raises(InvalidClient):
                    await room.ask(sender, grant_type=CLIENT_CREDENTIALS, authorization_details=READ, client_id=other)


async def test_an_assertion_of_somebody_else() -> None:
    """At the socket an assertion is the caller's own; beside a certificate it is the same workload's."""
    with opened() as room:
        theirs = {"client_assertion": room.subject(WEB_ID), "client_assertion_type": ASSERTION_TYPES[0]}
        for sender in (Sender(room.peer), room.shows(TRIAGE_ID)):
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
        room.granting._audiences = Audiences()
        plain = entry("/web", "unix:uid:50", id="a-plain")
        serving = entry("/web", "unix:uid:51", id="b-serving", dns_names=(host,))
        await room.registry.create([plain, serving])
        token = (await room.exchange(authorization_details=READ)).token
        if when == "before":
            child = await room.derive(room.shows(WEB_ID), token)
            assert serving.id == room.engine.tasks.find(child.task_id).entry_id
            return
        claim = room.granting._clients.claim

        async def taken_away(assertions: Any) -> None:
            await room.registry.delete([serving.id])
            await claim(assertions)

        room.granting._clients.claim = taken_away
        with pytest.raises(InvalidClient):
            await room.derive(room.shows(WEB_ID), token)
